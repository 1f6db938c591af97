//! `metadata.managedFields`: read, written and kept short. Pure.
//!
//! Source: Kubernetes apimachinery, util/managedfields/internal/{managedfields,capmanagers}.go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::set::Set;
use crate::object::order;

/// Managers by update of one object; the oldest beyond are put together.
/// Source: `DefaultMaxUpdateManagers`.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that stands for the oldest ones.
const ANCIENT: &str = "ancient-changes";

/// By which way fields came to a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells entries apart. An apply replaces the one of another version, an update does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub operation: Operation,
    pub manager: String,
    /// Empty for `Apply`.
    pub api_version: String,
    pub subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub api_version: String,
    /// RFC 3339.
    pub time: Option<String>,
    pub set: Set,
}

pub type Managers = BTreeMap<Id, Entry>;

impl Id {
    pub fn new(operation: Operation, manager: &str, api_version: &str, subresource: &str) -> Id {
        Id {
            operation,
            manager: manager.to_owned(),
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }

    /// `"kubectl-edit" using v1`, as conflicts name it.
    pub fn text(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        match self.operation {
            Operation::Apply => text,
            Operation::Update => format!("{text} using {}", self.api_version),
        }
    }
}

/// What `managedFields` says; `None` if it is malformed. Absent is empty.
pub fn parse(managed_fields: &Value) -> Option<Managers> {
    let entries = match managed_fields {
        Value::Null => return Some(Managers::new()),
        other => other.as_array()?,
    };
    let mut managers = Managers::new();
    for entry in entries {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let api_version = text("apiVersion").filter(|version| !version.is_empty())?;
        if text("fieldsType") != Some("FieldsV1") {
            return None;
        }
        let (manager, subresource) = (text("manager"), text("subresource"));
        let id = Id::new(
            operation,
            manager.unwrap_or_default(),
            api_version,
            subresource.unwrap_or_default(),
        );
        let set = match entry.get("fieldsV1") {
            None | Some(Value::Null) => Set::default(),
            Some(fields) => Set::parse(fields)?,
        };
        let entry = Entry {
            api_version: api_version.to_owned(),
            time: text("time").map(str::to_owned),
            set,
        };
        managers.insert(id, entry);
    }
    Some(managers)
}

/// Whether a client asks to forget all managers: `[]` or `[{}]`.
pub fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// Writes `metadata.managedFields`: by operation, then time, then name; absent if there are none.
pub fn write(managers: &Managers, object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.remove("managedFields");
    if managers.is_empty() {
        return;
    }
    let mut sorted: Vec<(&Id, &Entry)> = managers.iter().collect();
    order::sort_by_key(&mut sorted, |(id, entry)| (id.operation, &entry.time, *id));
    let entries = sorted.into_iter().map(|(id, entry)| {
        let mut json = json!({
            "manager": id.manager,
            "operation": id.operation.name(),
            "apiVersion": entry.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": entry.set.json(),
        });
        if let Some(time) = &entry.time {
            json["time"] = time.as_str().into();
        }
        if !id.subresource.is_empty() {
            json["subresource"] = id.subresource.as_str().into();
        }
        json
    });
    metadata.insert("managedFields".to_owned(), entries.collect());
}

/// Puts the oldest updates together until few enough are left.
pub fn cap(managers: &mut Managers) {
    let mut updates: Vec<(Option<String>, Id)> = managers
        .iter()
        .filter(|(id, _)| id.operation == Operation::Update)
        .map(|(id, entry)| (entry.time.clone(), id.clone()))
        .collect();
    order::sort(&mut updates);
    let mut left = updates.len();
    let mut first: BTreeMap<String, Id> = BTreeMap::new();
    for (time, id) in updates {
        if left <= UPDATE_MANAGERS_MAX {
            return;
        }
        let version = id.api_version.clone();
        let Some(oldest) = first.get(&version) else {
            first.insert(version, id);
            continue;
        };
        let bucket = Id::new(Operation::Update, ANCIENT, &version, "");
        let own = managers.remove(&id);
        let base = match managers.contains_key(&bucket) {
            true => managers.remove(&bucket),
            false => managers.remove(oldest),
        };
        if let (Some(own), Some(base)) = (own, base) {
            let set = own.set.union(&base.set);
            managers.insert(bucket.clone(), Entry { time, set, ..own });
        }
        first.insert(version, bucket);
        left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_written_as_they_were_read_in_upstreams_order() {
        let entry = |manager: &str, operation: &str, time: &str| {
            json!({
                "manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}},
            })
        };
        let mut status = entry("kubelet", "Update", "2026-01-01T00:00:01Z");
        status["subresource"] = "status".into();
        let written = json!([
            entry("z", "Apply", "2026-01-01T00:00:09Z"),
            entry("b", "Update", "2026-01-01T00:00:01Z"),
            status,
            entry("a", "Update", "2026-01-01T00:00:02Z"),
        ]);
        let mut read = written.as_array().expect("a list").clone();
        read.reverse();
        let managers = parse(&Value::from(read)).expect("entries");
        let mut object = json!({"metadata": {"managedFields": 1}});
        write(&managers, &mut object);
        assert_eq!(object["metadata"]["managedFields"], written);
        write(&Managers::new(), &mut object);
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn malformed_entries_are_none() {
        let good = json!({
            "manager": "m", "operation": "Apply", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {},
        });
        assert!(parse(&json!([good])).is_some());
        for (field, value) in [
            ("operation", json!("Spam")),
            ("apiVersion", json!("")),
            ("fieldsType", json!("FieldsV2")),
            ("fieldsV1", json!({"x": {}})),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert_eq!(parse(&json!([bad])), None, "{field}");
        }
        assert!(is_reset(&json!([])) && is_reset(&json!([{}])));
        assert!(!is_reset(&json!(null)) && !is_reset(&json!([good])));
    }

    #[test]
    fn the_oldest_updates_are_put_together() {
        let mut managers = Managers::new();
        for n in 0..12 {
            let id = Id::new(Operation::Update, &format!("m{n:02}"), "v1", "");
            let set = Set::of_fields(&[&format!("data.k{n}")]);
            let time = Some(format!("2026-01-01T00:00:{n:02}Z"));
            let entry = Entry {
                api_version: "v1".to_owned(),
                time,
                set,
            };
            managers.insert(id, entry);
        }
        cap(&mut managers);
        assert_eq!(managers.len(), UPDATE_MANAGERS_MAX);
        let bucket = &managers[&Id::new(Operation::Update, ANCIENT, "v1", "")];
        assert_eq!(
            bucket.set,
            Set::of_fields(&["data.k0", "data.k1", "data.k2"])
        );
        assert_eq!(bucket.time.as_deref(), Some("2026-01-01T00:00:02Z"));
    }
}
