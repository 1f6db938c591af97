//! AlwaysPullImages: nobody starts an image that he could not pull himself.
//!
//! Source: Kubernetes `plugin/pkg/admission/alwayspullimages`.

use serde_json::{Value, json};

use super::pod::{self, LISTS, all_containers, items, text};
use crate::registry::{Admit, Attributes, Denial, Operation};

pub struct AlwaysPullImages;

impl Admit for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        if !concerns(attributes, object) {
            return Ok(());
        }
        let Some(spec) = object.get_mut("spec") else {
            return Ok(());
        };
        for list in LISTS {
            for container in pod::items_mut(spec, list) {
                container.insert("imagePullPolicy".to_owned(), json!("Always"));
            }
        }
        for volume in pod::items_mut(spec, "volumes") {
            if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
                image.insert("pullPolicy".to_owned(), json!("Always"));
            }
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        if !concerns(attributes, object) {
            return Ok(());
        }
        let spec = &object["spec"];
        let containers = pod::placed(spec, &LISTS).into_iter();
        let containers = containers.map(|(place, container)| {
            (
                format!("{place}.imagePullPolicy"),
                text(container, "imagePullPolicy"),
            )
        });
        let volumes = items(spec, "volumes").enumerate();
        let volumes = volumes
            .filter(|(_, volume)| volume["image"].is_object())
            .map(|(n, volume)| {
                let place = format!("spec.volumes[{n}].image.pullPolicy");
                (place, text(&volume["image"], "pullPolicy"))
            });
        let wrong = containers
            .chain(volumes)
            .filter(|(_, policy)| *policy != "Always");
        let texts: Vec<String> = wrong
            .map(|(place, policy)| {
                format!("{place}: Unsupported value: {policy:?}: supported values: \"Always\"")
            })
            .collect();
        match texts.as_slice() {
            [] => Ok(()),
            [one] => Err(Denial::forbidden(one)),
            several => Err(Denial::forbidden(format!("[{}]", several.join(", ")))),
        }
    }
}

/// Pods, unless an update brings no image that was not there before.
fn concerns(attributes: &Attributes<'_>, object: &Value) -> bool {
    let images = |object: &Value| -> Vec<String> {
        let all = all_containers(&object["spec"]).map(|container| text(container, "image"));
        all.map(str::to_owned).collect()
    };
    let nothing_new = || {
        let before = attributes
            .current
            .map(|now| images(&now.body))
            .unwrap_or_default();
        images(object).iter().all(|image| before.contains(image))
    };
    attributes.is_of_pod()
        && match attributes.operation {
            Operation::Create => true,
            Operation::Update => !nothing_new(),
            Operation::Delete => false,
        }
}
