//! The selectors of one list or watch: `labelSelector`, `fieldSelector` and a single name together.
//!
//! Parsing and matching are `object`'s; here they become one thing, with HTTP's errors.

use serde_json::{Value, json};

use super::events;
use super::format::ShownAs;
use super::query::Query;
use super::status::Refusal;
use crate::object::{FieldSelector, Kind, LabelSelector};
use crate::registry::Packed;

/// What a list or watch is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: LabelSelector,
    fields: FieldSelector,
    /// A watch on a single object, by name.
    name: Option<String>,
}

impl Selector {
    /// From `labelSelector` and `fieldSelector` of a query. Errors: those of `parse`.
    pub fn of_query(kind: Kind, shown: ShownAs, query: &Query) -> Result<Selector, Refusal> {
        let labels = query.get("labelSelector").unwrap_or_default();
        let fields = query.get("fieldSelector").unwrap_or_default();
        Selector::parse(kind, shown, labels, fields)
    }

    /// Errors: 400 with what cannot be parsed, or the field that the kind cannot be selected by.
    fn parse(kind: Kind, shown: ShownAs, labels: &str, fields: &str) -> Result<Selector, Refusal> {
        let labels = LabelSelector::parse(labels).map_err(Refusal::bad_request)?;
        let fields = match shown {
            ShownAs::Stored => FieldSelector::parse(kind, fields),
            ShownAs::NewEvent => FieldSelector::parse_as(fields, events::stored_label),
        };
        Ok(Selector {
            labels,
            fields: fields.map_err(Refusal::bad_request)?,
            name: None,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
    }

    /// Narrows to one name, as a watch on a single object does. Errors: 400 if a field selector asks
    /// for another.
    pub fn and_name(mut self, name: &str) -> Result<Selector, Refusal> {
        if !self.fields.is_everything() && self.fields.name() != Some(name) {
            let text = "fieldSelector metadata.name doesn't match requested name";
            return Err(Refusal::bad_request(text));
        }
        self.name = Some(name.to_owned());
        Ok(self)
    }

    /// Reads no more of the object's text than the selector asks of it.
    pub fn selects(&self, object: &Packed) -> bool {
        if self.is_everything() {
            return true;
        }
        let name = self.name.as_ref();
        if name.is_some_and(|wanted| *wanted != object.key().name) {
            return false;
        }
        match self.fields.is_everything() {
            true if self.labels.is_everything() => true,
            true => self.labels.matches(&json!({"metadata": object.metadata()})),
            false => self.matches(&object.unpack().body),
        }
    }

    fn matches(&self, object: &Value) -> bool {
        let name = object["metadata"]["name"].as_str();
        let named = self
            .name
            .as_deref()
            .is_none_or(|wanted| name == Some(wanted));
        named && self.labels.matches(object) && self.fields.matches(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(kind: Kind, labels: &str, fields: &str) -> Result<Selector, Refusal> {
        Selector::parse(kind, ShownAs::Stored, labels, fields)
    }

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "tier": "x"}},
            "spec": {"nodeName": "pi", "restartPolicy": "Always"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd::1"}]},
        })
    }

    #[test]
    fn label_selectors_match_as_upstream() {
        let table = [
            ("", true),
            ("app=web", true),
            ("app==web,tier = x", true),
            ("app!=web", false),
            ("gone!=web", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("app in (web, db)", true),
            ("app in (db),tier", false),
            ("app notin (db)", true),
            ("gone notin (db)", true),
            ("gone in (db)", false),
            ("gone=", false),
            ("example.com/app notin (a,b),app in (web)", true),
        ];
        for (text, expected) in table {
            let selector = parsed(Kind::Pod, text, "").expect(text);
            assert_eq!(selector.matches(&pod()), expected, "{text}");
        }
    }

    #[test]
    fn broken_label_selectors_are_refused() {
        for text in [
            "app in web",
            "app in (web",
            "a b",
            "=x",
            "app of (x)",
            "a$b=c",
        ] {
            assert!(parsed(Kind::Pod, text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_match_as_upstream() {
        let table = [
            ("metadata.name=web", true),
            ("metadata.name!=web", false),
            ("metadata.namespace==default,spec.nodeName=pi", true),
            ("spec.host=pi", true),
            ("status.phase!=Running", false),
            ("status.podIP=", true),
            ("status.podIPs=10.0.0.1", false),
            ("spec.hostNetwork=false", true),
        ];
        for (text, expected) in table {
            let selector = parsed(Kind::Pod, "", text).expect(text);
            assert_eq!(selector.matches(&pod()), expected, "{text}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_selected_by_is_named() {
        let refused = parsed(Kind::Pod, "", "data.x=1").expect_err("must refuse");
        assert_eq!(refused.message, "field label not supported: data.x");
        assert!(parsed(Kind::Pod, "", "metadata.name").is_err());
    }

    #[test]
    fn a_watch_on_one_object_is_no_watch_on_another() {
        for (fields, agrees) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name=db", false),
            ("status.phase=Running", false),
        ] {
            let selector = parsed(Kind::Pod, "", fields).expect(fields);
            assert_eq!(selector.and_name("web").is_ok(), agrees, "{fields}");
        }
    }

    #[test]
    fn events_of_the_new_group_are_selected_by_its_names() {
        let event =
            json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "web"}});
        let shown = ShownAs::NewEvent;
        let selector = Selector::parse(
            Kind::Event,
            shown,
            "",
            "regarding.name=web,regarding.kind=Pod",
        );
        assert!(selector.expect("known").matches(&event));
        let refused = Selector::parse(Kind::Event, shown, "", "involvedObject.name=web");
        assert_eq!(
            refused.expect_err("must refuse").message,
            "field label not supported: involvedObject.name"
        );
    }
}
