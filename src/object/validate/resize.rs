//! What may change of a pod that runs through `pods/resize`: processor and memory of its containers.
//!
//! Source: Kubernetes pkg/apis/core/validation/validation.go (ValidatePodResize).

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::report::{At, Report};
use crate::object::resources::{qos_class, quantity};
use crate::object::view;

const ONLY: &str = "only cpu and memory resources are mutable";
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

pub(super) fn validate(new: &At<'_>, old: &At<'_>, report: &mut Report) {
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    let class = |pod: &At<'_>| view::<Pod>(pod.value).ok().map(|(pod, _)| qos_class(&pod));
    if class(new) != class(old) {
        let at = At {
            value: new.value["status"].get("qosClass").unwrap_or(&Value::Null),
            path: new_spec.path.clone(),
        };
        report.invalid(&at, "Pod QOS Class may not change as a result of resizing");
    }
    for list in ["initContainers", "containers"] {
        let (now, before) = (new_spec.items(list), old_spec.items(list));
        if now.len() != before.len() {
            let why = format!("{list} may not be added or removed on resize");
            report.forbidden(&new_spec.get(list), why);
            continue;
        }
        for (now, before) in now.iter().zip(&before) {
            container(list, (&new_spec, now), before, report);
        }
    }
}

fn container(list: &str, (spec, new): (&At<'_>, &At<'_>), old: &At<'_>, report: &mut Report) {
    if new.get("name").text() != old.get("name").text() {
        let why = format!("{list} may not be renamed or reordered on resize");
        return report.forbidden(&new.get("name"), why);
    }
    let (resources, before) = (new.get("resources"), old.get("resources"));
    for field in ["requests", "limits"] {
        let kept = resources.get(field);
        let mut names = before.entries(field).into_iter();
        if names.any(|(name, _)| !kept.get(name).is_set()) {
            report.forbidden(&kept, format!("resource {field} cannot be removed"));
        }
    }
    if fixed(new.value) != fixed(old.value) {
        match list {
            "containers" => report.forbidden(spec, ONLY),
            _ => {
                let why =
                    "only cpu and memory resources for init or sidecar containers are mutable";
                report.forbidden(new, why);
            }
        }
    }
}

/// The container without what may change.
fn fixed(container: &Value) -> Value {
    let mut container = container.clone();
    let mut others = Vec::new();
    for list in ["requests", "limits"] {
        let entries = container["resources"][list].as_object();
        let entries = entries.into_iter().flatten();
        let rest = entries.filter(|(name, _)| !RESIZABLE.contains(&name.as_str()));
        let rest = rest.map(|(name, amount)| (name.clone(), quantity(amount)));
        others.push(rest.collect::<Vec<_>>());
    }
    let claims = container["resources"]["claims"].take();
    if let Some(fields) = container.as_object_mut() {
        fields.remove("resources");
        fields.insert("claims".to_owned(), claims);
        let others = others.iter().map(|list| format!("{list:?}"));
        fields.insert("others".to_owned(), others.collect());
    }
    container
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_processor_and_memory_change_and_never_the_class() {
        let pod = json!({"spec": {
            "initContainers": [{"name": "first", "image": "i", "resources": {
                "limits": {"cpu": "1", "memory": "1Gi"},
            }}],
            "containers": [{"name": "web", "image": "i", "resources": {
                "requests": {"cpu": "1", "memory": "1Gi", "example.com/x": "1"},
                "limits": {"cpu": "2", "example.com/x": "1"},
            }}],
        }, "status": {"qosClass": "Burstable"}});
        let at = "/spec/containers/0/resources";
        let forbidden = format!("spec: Forbidden: {ONLY}");
        let class = "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result \
                     of resizing";
        let removed =
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed";
        let renamed = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered \
                       on resize";
        let gone =
            "spec.initContainers: Forbidden: initContainers may not be added or removed on resize";
        for (pointer, value, expected) in [
            ("/requests/cpu", json!("500m"), vec![]),
            ("/limits/memory", json!("2Gi"), vec![]),
            (
                "/limits/example.com~1x",
                json!("2"),
                vec![forbidden.as_str()],
            ),
            ("/claims", json!([{"name": "c"}]), vec![&forbidden]),
            ("/limits", json!({"cpu": "2"}), vec![removed, &forbidden]),
            (
                "/limits",
                json!({"cpu": "1", "memory": "1Gi", "example.com/x": "1"}),
                vec![class],
            ),
            ("/../name", json!("other"), vec![renamed]),
            ("/../resizePolicy", json!([]), vec![&forbidden]),
            ("/../../../initContainers", json!([]), vec![gone]),
        ] {
            let mut new = pod.clone();
            let path = match pointer.strip_prefix("/../../../") {
                Some(list) => format!("/spec/{list}"),
                None => format!("{at}{pointer}").replace("/resources/..", ""),
            };
            let (parent, field) = path.rsplit_once('/').expect("a pointer");
            let parent = new.pointer_mut(parent).expect("it is there");
            parent[field.replace("~1", "/")] = value;
            let mut report = Report::default();
            validate(&At::top(&new), &At::top(&pod), &mut report);
            let causes = report.causes.iter();
            let found: Vec<String> = causes.map(|(at, text)| format!("{at}: {text}")).collect();
            assert_eq!(found, expected, "{path}");
        }
    }
}
