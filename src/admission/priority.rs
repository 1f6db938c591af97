//! Priority: from a priority class to a number, and one default class at most.
//!
//! What a pod of a manifest says itself stands: it must run before anybody could make its class.
//! Source: Kubernetes `plugin/pkg/admission/priority`, `pkg/apis/scheduling`.

use serde_json::{Value, json};

use super::pod::text;
use crate::object::{Key, Kind};
use crate::registry::{Admit, Attributes, Denial, Operation};

/// Classes that need no object. Source: `pkg/apis/scheduling/v1/helpers.go`.
const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

const PREEMPTS: &str = "PreemptLowerPriority";

pub struct Priority;

/// What a class comes to.
struct Class {
    name: String,
    value: i64,
    preemption_policy: String,
}

impl Admit for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        if !attributes.is_of_pod() {
            return Ok(());
        }
        match (attributes.operation, attributes.current) {
            (Operation::Create, _) => create(attributes, object),
            (Operation::Update, Some(current)) => {
                keep(object, &current.body["spec"]);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        let class = attributes.key.kind == Kind::PriorityClass;
        if !class || attributes.operation == Operation::Delete || object["globalDefault"] != true {
            return Ok(());
        }
        let other = default_class(attributes).filter(|class| {
            attributes.operation == Operation::Create || class.name != attributes.key.name
        });
        match other {
            Some(other) => Err(Denial::forbidden(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name
            ))),
            None => Ok(()),
        }
    }
}

/// An update that does not say leaves what is.
fn keep(object: &mut Value, current: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if object["spec"][field].is_null() && !current[field].is_null() {
            object["spec"][field] = current[field].clone();
        }
    }
}

fn create(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
    if !object["spec"].is_object() {
        return Ok(());
    }
    let own = attributes.is_of_manifest();
    let asked = text(&object["spec"], "priorityClassName");
    let class = match asked {
        "" => default_class(attributes),
        name => match named_class(attributes, name) {
            None if own => return Ok(()),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(Denial::forbidden(why));
            }
            found => found,
        },
    };
    let class = class.unwrap_or(Class {
        name: String::new(),
        value: 0,
        preemption_policy: PREEMPTS.to_owned(),
    });
    let spec = &mut object["spec"];
    if !class.name.is_empty() {
        spec["priorityClassName"] = json!(class.name);
    }
    match spec["priority"].as_i64() {
        Some(given) if given != class.value && !own => {
            return Err(Denial::forbidden(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority \
                 admission controller computed {} from the given PriorityClass name",
                class.value
            )));
        }
        Some(_) => {}
        None => spec["priority"] = json!(class.value),
    }
    match text(spec, "preemptionPolicy") {
        "" => spec["preemptionPolicy"] = json!(class.preemption_policy),
        given if given != class.preemption_policy && !own => {
            return Err(Denial::forbidden(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
                 priority admission controller computed {} from the given PriorityClass name",
                class.preemption_policy
            )));
        }
        _ => {}
    }
    Ok(())
}

fn named_class(attributes: &Attributes<'_>, name: &str) -> Option<Class> {
    let system = SYSTEM.into_iter().find(|(system, _)| *system == name);
    if let Some((name, value)) = system {
        return Some(Class {
            name: name.to_owned(),
            value,
            preemption_policy: PREEMPTS.to_owned(),
        });
    }
    let key = Key::local(Kind::PriorityClass, "", name);
    attributes.view.get(&key).map(|object| read(&object.body))
}

/// Of several, the one with the lowest value.
fn default_class(attributes: &Attributes<'_>) -> Option<Class> {
    let classes = attributes.view.list(Kind::PriorityClass, None);
    let defaults = classes
        .iter()
        .filter(|class| class.body["globalDefault"] == true);
    defaults
        .map(|class| read(&class.body))
        .min_by_key(|class| class.value)
}

fn read(class: &Value) -> Class {
    let policy = match text(class, "preemptionPolicy") {
        "" => PREEMPTS,
        policy => policy,
    };
    Class {
        name: text(&class["metadata"], "name").to_owned(),
        value: class["value"].as_i64().unwrap_or(0),
        preemption_policy: policy.to_owned(),
    }
}
