//! Tables of apply and update, after upstream's (structured-merge-diff, merge/*_test.go; Kubernetes
//! apimachinery, util/managedfields/managedfieldstest).

mod cases;

use serde_json::{Value, json};

use super::*;

/// An object and those who write to it, each write a second after the one before.
struct Story {
    kind: Kind,
    live: Option<Value>,
    seconds: u32,
}

impl Story {
    fn new(kind: Kind) -> Story {
        Story {
            kind,
            live: None,
            seconds: 0,
        }
    }

    /// One that was there before anything was tracked.
    fn untracked(kind: Kind, fields: Value) -> Story {
        let live = Some(whole(kind, fields));
        Story {
            live,
            ..Story::new(kind)
        }
    }

    fn tick(&mut self) -> String {
        self.seconds += 1;
        format!("2026-01-01T00:00:{:02}Z", self.seconds)
    }

    fn attempt(
        &mut self,
        (manager, subresource): (&str, &str),
        fields: Value,
        contested: Contested,
    ) -> Result<(), ApplyError> {
        let time = &self.tick();
        let writer = Writer {
            manager,
            subresource,
            time,
        };
        let applied = whole(self.kind, fields);
        let object = apply(self.kind, self.live.as_ref(), &applied, &writer, contested)?;
        self.live = Some(object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, fields: Value) {
        self.attempt((manager, ""), fields, Contested::Refuse)
            .expect("no conflict");
    }

    fn force(&mut self, manager: &str, fields: Value) {
        self.attempt((manager, ""), fields, Contested::Take)
            .expect("forced");
    }

    fn refused(&mut self, manager: &str, fields: Value) -> String {
        let before = self.live.clone();
        let refused = self.attempt((manager, ""), fields, Contested::Refuse);
        assert_eq!(self.live, before, "a refused apply changes nothing");
        refused.expect_err("refused").to_string()
    }

    /// Replaces the whole object, as PUT does.
    fn put(&mut self, manager: &str, fields: Value) {
        let mut object = whole(self.kind, fields);
        if let Some(live) = &self.live {
            object["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        }
        self.update((manager, ""), object);
    }

    fn update(&mut self, (manager, subresource): (&str, &str), mut object: Value) {
        let time = &self.tick();
        let writer = Writer {
            manager,
            subresource,
            time,
        };
        record_update(self.kind, self.live.as_ref(), &mut object, &writer);
        self.live = Some(object);
    }

    fn live(&self) -> &Value {
        self.live.as_ref().expect("an object")
    }

    /// Without kind, name and managers.
    fn fields(&self) -> Value {
        let mut object = self.live().clone();
        let fields = object.as_object_mut().expect("an object");
        fields.remove("apiVersion");
        fields.remove("kind");
        strip_managers(&mut object);
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.remove("name");
        if metadata.is_empty() {
            object
                .as_object_mut()
                .expect("an object")
                .remove("metadata");
        }
        object
    }

    /// `fieldsV1` of one manager; null if it holds nothing.
    fn held(&self, manager: &str) -> Value {
        self.entry(manager)["fieldsV1"].clone()
    }

    fn entry(&self, manager: &str) -> Value {
        let entries = self.live()["metadata"]["managedFields"].as_array();
        let mut entries = entries.into_iter().flatten();
        let found = entries.find(|entry| entry["manager"] == manager);
        found.cloned().unwrap_or_default()
    }
}

fn whole(kind: Kind, fields: Value) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {"name": "x"},
    });
    // Nothing of them is lost, nulls neither.
    for (name, value) in fields.as_object().expect("fields") {
        match (name.as_str(), value.as_object()) {
            ("metadata", Some(more)) => {
                let metadata = object["metadata"].as_object_mut().expect("metadata");
                metadata.extend(more.clone());
            }
            _ => object[name] = value.clone(),
        }
    }
    object
}

fn data(fields: Value) -> Value {
    json!({"data": fields})
}

#[test]
fn an_apply_makes_an_object_and_holds_what_it_said() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", data(json!({"a": "1", "b": "2"})));
    assert_eq!(story.fields(), data(json!({"a": "1", "b": "2"})));
    let entries = json!([{
        "manager": "one", "operation": "Apply", "apiVersion": "v1",
        "time": "2026-01-01T00:00:01Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}},
    }]);
    assert_eq!(story.live()["metadata"]["managedFields"], entries);
}

#[test]
fn ones_own_fields_are_changed_and_removed() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", data(json!({"a": "1", "b": "2"})));
    story.apply("one", data(json!({"a": "9"})));
    assert_eq!(story.fields(), data(json!({"a": "9"})));
    assert_eq!(story.held("one"), json!({"f:data": {"f:a": {}}}));
    assert_eq!(story.entry("one")["time"], "2026-01-01T00:00:02Z");
}

#[test]
fn an_apply_that_changes_nothing_keeps_its_time() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", data(json!({"a": "1"})));
    let before = story.live().clone();
    story.apply("one", data(json!({"a": "1"})));
    assert_eq!(*story.live(), before);
}

#[test]
fn what_another_holds_is_a_conflict_until_it_is_forced() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", data(json!({"a": "1", "b": "1", "c": "1"})));
    assert_eq!(
        story.refused("two", data(json!({"a": "2"}))),
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    assert_eq!(
        story.refused("two", data(json!({"a": "2", "b": "2", "c": "1"}))),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b"
    );
    story.force("two", data(json!({"a": "2", "c": "1"})));
    assert_eq!(story.fields(), data(json!({"a": "2", "b": "1", "c": "1"})));
    assert_eq!(story.held("one"), json!({"f:data": {"f:b": {}, "f:c": {}}}));
    assert_eq!(story.held("two"), json!({"f:data": {"f:a": {}, "f:c": {}}}));
}

#[test]
fn conflicts_are_listed_by_manager() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("b", data(json!({"b": "1"})));
    story.apply("a", data(json!({"a": "1"})));
    story.put("edit", data(json!({"a": "1", "b": "1", "c": "1"})));
    let text = story.refused("two", data(json!({"a": "2", "b": "2", "c": "2"})));
    assert_eq!(
        text,
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.a\n\
         conflicts with \"b\":\n- .data.b\nconflicts with \"edit\" using v1:\n- .data.c"
    );
}

#[test]
fn the_same_value_is_held_by_several_and_stays_until_the_last_lets_go() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", data(json!({"a": "1", "b": "1"})));
    story.apply("two", data(json!({"a": "1"})));
    story.apply("one", data(json!({"b": "1"})));
    assert_eq!(story.fields(), data(json!({"a": "1", "b": "1"})));
    assert_eq!(story.held("one"), json!({"f:data": {"f:b": {}}}));
    story.apply("two", json!({}));
    assert_eq!(story.fields(), data(json!({"b": "1"})));
    assert_eq!(story.held("two"), Value::Null);
}

#[test]
fn an_update_takes_what_it_changes_and_nothing_else() {
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", data(json!({"a": "1", "b": "1"})));
    story.put("edit", data(json!({"a": "2", "b": "1", "c": "1"})));
    assert_eq!(story.held("one"), json!({"f:data": {"f:b": {}}}));
    assert_eq!(
        story.held("edit"),
        json!({"f:data": {"f:a": {}, "f:c": {}}})
    );
    assert_eq!(
        story.refused("one", data(json!({"a": "1", "b": "1"}))),
        "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.a"
    );
    // What an update took is not the applier's to remove.
    story.apply("one", data(json!({"b": "1"})));
    assert_eq!(story.fields(), data(json!({"a": "2", "b": "1", "c": "1"})));
    // What an update removes is nobody's.
    story.put("edit", data(json!({"c": "1"})));
    assert_eq!(story.held("one"), Value::Null);
    story.apply("one", data(json!({"b": "2"})));
    assert_eq!(story.fields(), data(json!({"b": "2", "c": "1"})));
}

#[test]
fn what_was_there_before_the_first_apply_is_somebody_elses() {
    let mut story = Story::untracked(Kind::ConfigMap, data(json!({"a": "1", "b": "1"})));
    story.put("edit", data(json!({"a": "1", "b": "1", "c": "1"})));
    assert_eq!(story.entry("edit"), Value::Null, "stays untracked");
    assert_eq!(
        story.refused("one", data(json!({"a": "2"}))),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    story.apply("one", data(json!({"a": "1"})));
    let before = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}}});
    assert_eq!(story.held("before-first-apply"), before);
    story.apply("one", json!({}));
    assert_eq!(story.fields()["data"]["a"], "1", "held from before");
}

#[test]
fn elements_of_lists_with_keys_have_holders_of_their_own() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let spec = |containers: Value| json!({"spec": {"containers": containers}});
    let mut story = Story::new(Kind::Pod);
    story.apply(
        "one",
        spec(json!([container("a", "1"), container("b", "1")])),
    );
    story.apply("two", spec(json!([container("c", "1")])));
    let names = |story: &Story| -> Vec<String> {
        let list = story.live()["spec"]["containers"].as_array().cloned();
        let list = list.expect("containers");
        let name = |one: &Value| format!("{}:{}", one["name"], one["image"]).replace('"', "");
        list.iter().map(name).collect()
    };
    assert_eq!(names(&story), ["a:1", "b:1", "c:1"]);
    assert_eq!(
        story.refused(
            "two",
            spec(json!([container("a", "2"), container("c", "1")]))
        ),
        "Apply failed with 1 conflict: conflict with \"one\": \
         .spec.containers[name=\"a\"].image"
    );
    story.apply("one", spec(json!([container("b", "2")])));
    assert_eq!(names(&story), ["b:2", "c:1"]);
    let held = json!({"f:spec": {"f:containers": {
        "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}},
    }}});
    assert_eq!(story.held("two"), held);
    // A part of another's element goes with its holder, the element stays.
    let with_tty = json!([{"name": "b", "tty": true}, container("c", "1")]);
    story.apply("two", spec(with_tty));
    story.apply("two", spec(json!([container("c", "1")])));
    assert_eq!(names(&story), ["b:2", "c:1"]);
    assert_eq!(story.live()["spec"]["containers"][0].get("tty"), None);
    // Those of an apply come in its order.
    story.force(
        "three",
        spec(json!([container("c", "3"), container("b", "3")])),
    );
    assert_eq!(names(&story), ["c:3", "b:3"]);
}

#[test]
fn a_key_with_a_default_may_be_left_out() {
    let ports = |ports: Value| json!({"spec": {"containers": [{"name": "a", "ports": ports}]}});
    let mut story = Story::new(Kind::Pod);
    story.apply("one", ports(json!([{"containerPort": 80}])));
    let tcp = json!([{"containerPort": 80, "protocol": "TCP", "name": "web"}]);
    story.apply("two", ports(tcp));
    let merged = json!([{"containerPort": 80, "protocol": "TCP", "name": "web"}]);
    assert_eq!(story.live()["spec"]["containers"][0]["ports"], merged);
    let udp = json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]);
    story.apply("one", ports(udp));
    let list = story.live()["spec"]["containers"][0]["ports"].clone();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
}

#[test]
fn sets_are_shared_by_element_and_atomic_values_are_one() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let mut story = Story::new(Kind::ConfigMap);
    story.apply("one", finalizers(json!(["x/a", "x/b"])));
    story.apply("two", finalizers(json!(["x/b", "x/c"])));
    story.apply("one", finalizers(json!(["x/a"])));
    let list = &story.live()["metadata"]["finalizers"];
    assert_eq!(*list, json!(["x/a", "x/b", "x/c"]));
    let held = json!({"f:metadata": {"f:finalizers": {"v:\"x/b\"": {}, "v:\"x/c\"": {}}}});
    assert_eq!(story.held("two"), held);

    let spec = |name: &str, value: Value| json!({"spec": {name: value}});
    for (name, first, second) in [
        ("nodeSelector", json!({"a": "1"}), json!({"b": "1"})),
        ("tolerations", json!([{"key": "a"}]), json!([{"key": "b"}])),
    ] {
        let mut story = Story::new(Kind::Pod);
        story.apply("one", spec(name, first));
        assert_eq!(
            story.refused("two", spec(name, second.clone())),
            format!("Apply failed with 1 conflict: conflict with \"one\": .spec.{name}")
        );
        story.force("two", spec(name, second.clone()));
        assert_eq!(story.fields(), spec(name, second));
        assert_eq!(story.held("one"), Value::Null);
    }
}

#[test]
fn status_has_managers_of_its_own() {
    let ready = json!({"type": "x/ready", "status": "True"});
    let both = json!({
        "spec": {"hostname": "h"}, "status": {"conditions": [ready]},
    });
    let mut story = Story::new(Kind::Pod);
    story.apply("one", both.clone());
    assert_eq!(story.held("one"), json!({"f:spec": {"f:hostname": {}}}));
    story
        .attempt(("gate", "status"), both, Contested::Refuse)
        .expect("no conflict");
    let entry = story.entry("gate");
    assert_eq!(entry["subresource"], "status");
    let condition = json!({".": {}, "f:status": {}, "f:type": {}});
    let held = json!({"f:status": {"f:conditions": {"k:{\"type\":\"x/ready\"}": condition}}});
    assert_eq!(entry["fieldsV1"], held);

    let mut object = story.live().clone();
    object["status"]["phase"] = json!("Running");
    object["spec"]["hostname"] = json!("ignored");
    story.update(("kubelet", "status"), object);
    assert_eq!(story.held("kubelet"), json!({"f:status": {"f:phase": {}}}));
    assert_eq!(story.held("one"), json!({"f:spec": {"f:hostname": {}}}));
}

#[test]
fn names_and_what_the_server_sets_are_nobodys() {
    let mut story = Story::new(Kind::ConfigMap);
    let given = json!({
        "metadata": {"namespace": "default", "uid": "u", "labels": {"a": "1"}},
    });
    story.apply("one", given);
    assert_eq!(
        story.held("one"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}}})
    );
}

#[test]
fn a_creation_is_tracked_and_a_reset_forgets_all() {
    let mut story = Story::new(Kind::ConfigMap);
    story.put("make", data(json!({"a": "1"})));
    assert_eq!(story.held("make"), json!({"f:data": {".": {}, "f:a": {}}}));
    // What cannot be read says nothing: the managers stay as they were.
    let mut object = story.live().clone();
    object["metadata"]["managedFields"] = json!("nonsense");
    object["data"]["b"] = json!("1");
    story.update(("edit", ""), object);
    assert_eq!(story.held("make"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(story.held("edit"), json!({"f:data": {"f:b": {}}}));
    let mut object = story.live().clone();
    object["metadata"]["managedFields"] = json!([{}]);
    story.update(("edit", ""), object);
    assert_eq!(story.live()["metadata"].get("managedFields"), None);
}

#[test]
fn what_kubectl_applied_from_its_side_is_its_own() {
    let last = |value: &str| {
        let last = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "x", "annotations": {}}, "data": {"a": value},
        });
        json!({"metadata": {"annotations": {LAST_APPLIED: format!("{last}\n")}}, "data": {"a": "1", "b": "1"}})
    };
    let mut story = Story::new(Kind::ConfigMap);
    story.put("kubectl-client-side-apply", last("1"));
    story.refused("other", data(json!({"a": "2"})));
    story.apply("kubectl", data(json!({"a": "2"})));
    assert_eq!(story.fields()["data"], json!({"a": "2", "b": "1"}));
    let text = story.live()["metadata"]["annotations"][LAST_APPLIED].clone();
    let text: Value = serde_json::from_str(text.as_str().expect("text")).expect("JSON");
    assert_eq!(
        text["data"],
        json!({"a": "2"}),
        "kept up to date for older clients"
    );
    // What was changed since is not.
    let mut story = Story::new(Kind::ConfigMap);
    story.put("kubectl-client-side-apply", last("0"));
    story.refused("kubectl", data(json!({"a": "2"})));
}

#[test]
fn what_cannot_be_applied_is_malformed() {
    let kind = Kind::Pod;
    let writer = Writer {
        manager: "one",
        subresource: "",
        time: "2026-01-01T00:00:00Z",
    };
    let container = json!({"name": "a"});
    let table = [
        (
            json!({"apiVersion": "apps/v1"}),
            "invalid object type: apps/v1, Kind=Pod",
        ),
        (
            json!({"metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
        (
            json!({"spec": {"containers": [container, container]}}),
            "failed to create typed patch object (/x; /v1, Kind=Pod): .spec.containers: \
             duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"spec": {"containers": [{"image": "i"}]}}),
            "failed to create typed patch object (/x; /v1, Kind=Pod): .spec.containers: \
             element 0: associative list with keys has an element that omits all key fields \
             [\"name\"] (and doesn't have default values for any key fields)",
        ),
    ];
    for (fields, text) in table {
        let applied = whole(kind, fields);
        let refused = apply(kind, None, &applied, &writer, Contested::Take);
        assert_eq!(refused, Err(ApplyError::Malformed(text.to_owned())));
    }
}
