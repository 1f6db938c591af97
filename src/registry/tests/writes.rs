//! Single writes: concurrency, ownership, what the registry fills in, admission.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fixture::{
    Node, config, in_memory, options, pod, pod_key, start, start_with, stated, wait,
};
use crate::object::{Key, Kind, Object, Origin, Source};
use crate::registry::{
    Actor, Admit, Attributes, Deletion, Denial, Error, Incoming, Operation, Place, Precondition,
};

#[test]
fn an_update_with_an_old_version_conflicts() {
    let node = in_memory();
    let (key, body) = config("c", "1");
    let first = wait(node.registry.create(Source::Api, key.clone(), body)).expect("created");
    let mut edited = Value::clone(&first.body);
    edited["data"]["value"] = json!("2");
    let any = Precondition::default;
    let update = |body| wait(node.registry.update(Source::Api, key.clone(), body, any()));
    update(edited.clone()).expect("current");
    let again = update(edited);
    assert!(matches!(again, Err(Error::Conflict { .. })), "{again:?}");
    let wrong_uid = Deletion {
        precondition: Precondition {
            uid: Some("other".to_owned()),
            ..any()
        },
        ..Deletion::default()
    };
    let refused = wait(node.registry.delete(Source::Api, key.clone(), wrong_uid));
    assert!(
        matches!(refused, Err(Error::DeletionConflict { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_update_without_a_change_gives_no_version() {
    let node = in_memory();
    let (key, body) = config("c", "1");
    wait(node.registry.create(Source::Api, key.clone(), body.clone())).expect("created");
    let version = node.reader.version();
    let any = Precondition::default();
    wait(node.registry.update(Source::Api, key, body, any)).expect("no change");
    assert_eq!(node.reader.version(), version);
}

#[test]
fn the_registry_fills_in_what_it_owns() {
    let node = in_memory();
    let created = wait(
        node.registry
            .create(Source::Api, pod_key("web"), pod("web", "mine", "i")),
    )
    .expect("created");
    assert_ne!(created.uid(), "mine");
    assert_eq!(created.uid().len(), 36);
    let metadata = created.metadata();
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["creationTimestamp"], "2025-06-15T15:06:40Z");
    let version = created.resource_version.to_string();
    assert_eq!(metadata["resourceVersion"], version);

    node.registry
        .update_status(&pod_key("web"), created.uid(), json!({"phase": "Running"}));
    let mut edited = created.body.clone();
    edited["metadata"]["resourceVersion"] = json!("");
    edited["spec"]["containers"][0]["image"] = json!("j");
    edited["status"] = json!({"phase": "Failed"});
    let any = Precondition::default();
    let updated = wait(
        node.registry
            .update(Source::Api, pod_key("web"), edited, any),
    );
    let updated = updated.expect("updated");
    assert_eq!(updated.metadata()["generation"], 2);
    assert_eq!(updated.body["status"]["phase"], "Running", "one writer");
    assert_eq!(updated.uid(), created.uid());
}

#[test]
fn the_lease_of_the_node_is_renewed_and_anothers_is_left_alone() {
    let node = in_memory();
    let key = Key::local(Kind::Lease, "kube-node-lease", "pi-4");
    node.registry.renew_lease();
    let first = node.reader.get(&key).expect("made");
    let spec = json!({
        "holderIdentity": "pi-4", "leaseDurationSeconds": 40,
        "renewTime": "2025-06-15T15:06:40.000000Z",
    });
    assert_eq!(first.body["spec"], spec);
    node.clock
        .wall
        .set(node.clock.wall.get() + std::time::Duration::from_secs(10));
    node.registry.renew_lease();
    let again = node.reader.get(&key).expect("there");
    assert_eq!(
        again.body["spec"]["renewTime"],
        "2025-06-15T15:06:50.000000Z"
    );
    assert_eq!(again.uid(), first.uid());
    assert!(again.resource_version > first.resource_version);

    let node = in_memory();
    let body = json!({"metadata": {"name": "pi-4", "namespace": "kube-node-lease"}});
    let made = wait(node.registry.create(Source::Api, key.clone(), body)).expect("created");
    node.registry.renew_lease();
    assert_eq!(node.reader.get(&key).expect("there"), made);
}

#[test]
fn only_the_owner_writes() {
    let node = in_memory();
    wait(
        node.registry
            .replace(Source::File, vec![stated("web", "u1", "i")]),
    )
    .expect("taken");
    let owner = Source::File;
    let key = pod_key("web");
    let refused = Err(Error::NotOwner { key, owner });
    let deletion = Deletion::default();
    let deleted = wait(node.registry.delete(Source::Api, pod_key("web"), deletion));
    assert_eq!(deleted.map(|deleted| deleted.object), refused);
    let any = Precondition::default();
    let body = pod("web", "", "j");
    let updated = wait(node.registry.update(Source::Api, pod_key("web"), body, any));
    assert_eq!(updated, refused);
}

#[test]
fn a_deleted_pod_stays_until_it_has_stopped_and_grace_only_shrinks() {
    let node = in_memory();
    let body = pod("web", "", "i");
    let created = wait(node.registry.create(Source::Api, pod_key("web"), body)).expect("created");
    let delete = |grace_s| {
        let deletion = Deletion {
            grace_s,
            ..Deletion::default()
        };
        let deleted = wait(node.registry.delete(Source::Api, pod_key("web"), deletion));
        deleted.expect("deleted").object
    };
    let grace = |object: &Object| object.deletion_grace_s();
    assert_eq!(grace(&delete(Some(10))), Some(10));
    assert_eq!(grace(&delete(None)), Some(10), "30 is no less than 10");
    assert_eq!(grace(&delete(Some(5))), Some(5));
    let now = node.reader.get(&pod_key("web")).expect("stopping");
    assert_eq!(now.metadata()["deletionTimestamp"], "2025-06-15T15:06:45Z");
    assert_eq!(now.metadata()["generation"], 2);
    node.registry
        .finish_deletion(&pod_key("web"), created.uid());
    assert!(node.reader.get(&pod_key("web")).is_none());

    let body = pod("web", "", "i");
    wait(node.registry.create(Source::Api, pod_key("web"), body)).expect("created");
    delete(Some(0));
    assert!(node.reader.get(&pod_key("web")).is_none(), "forced");
}

struct OnlyLabelled;

impl Admit for OnlyLabelled {
    fn name(&self) -> &'static str {
        "OnlyLabelled"
    }

    fn mutate(&self, _: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        object["metadata"]["annotations"] = json!({"seen-by": "mutate"});
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        let labelled = object["metadata"]["labels"]["ok"].is_string();
        if labelled || attributes.operation == Operation::Delete {
            return Ok(());
        }
        Err(Denial::forbidden("label ok is missing"))
    }
}

#[test]
fn every_way_in_passes_admission() {
    let (mut options, clock) = options(Place::Memory, 1);
    options.admission = vec![Box::new(OnlyLabelled)];
    let node = start_with(options, clock);
    let (key, body) = config("c", "1");
    let denied = wait(node.registry.create(Source::Api, key.clone(), body.clone()));
    assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
    let replaced = wait(
        node.registry
            .replace(Source::File, vec![stated("web", "u1", "i")]),
    );
    assert_eq!(
        replaced.expect("taken").problems[0].1.reason,
        "AdmissionDenied"
    );

    let mut labelled = body.clone();
    labelled["metadata"]["labels"] = json!({"ok": "yes"});
    let made = wait(node.registry.create(Source::Api, key.clone(), labelled)).expect("labelled");
    assert_eq!(made.annotation("seen-by"), Some("mutate"));
    let any = Precondition::default();
    let denied = wait(node.registry.update(Source::Api, key, body, any));
    assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
}

#[test]
fn who_only_looks_into_a_pod_comes_to_one_that_is_there() {
    let node = in_memory();
    let looking = json!([{"name": "debug", "image": "i"}]);
    let mut body = pod("web", "u", "i");
    body["spec"]["ephemeralContainers"] = looking.clone();
    let made = wait(
        node.registry
            .create(Source::Api, pod_key("web"), body.clone()),
    );
    let Err(Error::Invalid { causes, .. }) = made else {
        panic!("{made:?}");
    };
    let (path, why) = &causes[0];
    assert_eq!(path, "spec.ephemeralContainers");
    assert_eq!(why, "Forbidden: cannot be set on create");

    // The cluster's is taken as it is.
    let mut key = pod_key("web");
    key.origin = Origin::Remote;
    let listed = Incoming::Object {
        key: key.clone(),
        provenance: None,
        body,
        lines: Default::default(),
    };
    wait(node.registry.replace(Source::Remote, vec![listed])).expect("a list");
    let taken = node.reader.get(&key).expect("taken");
    assert_eq!(
        taken.body["spec"]["ephemeralContainers"][0]["name"],
        "debug"
    );
}

#[test]
fn a_pod_that_go_has_written_back_is_as_it_was() {
    let node = in_memory();
    let mut body = pod("web", "", "i");
    body["spec"]["hostNetwork"] = json!(false);
    body["spec"]["automountServiceAccountToken"] = json!(false);
    body["spec"]["containers"][0]["env"] = json!([{"name": "X", "value": ""}]);
    body["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1000m"}});
    body["spec"]["tolerations"] = json!([{"key": "k", "value": ""}]);
    let made = wait(node.registry.create(Source::Api, pod_key("web"), body)).expect("created");
    let mut edited = made.body.clone();
    edited["metadata"]["labels"] = json!({"a": "b"});
    let spec = edited["spec"].as_object_mut().expect("a spec");
    spec.remove("hostNetwork");
    spec["containers"][0]["env"] = json!([{"name": "X"}]);
    spec["containers"][0]["resources"]["limits"]["cpu"] = json!(1);
    spec["tolerations"] = json!([{"key": "k"}]);
    let any = Precondition::default();
    let updated = wait(
        node.registry
            .update(Source::Api, pod_key("web"), edited, any),
    );
    let updated = updated.expect("labelled");
    assert_eq!(updated.body["spec"], made.body["spec"]);
    assert_eq!(updated.metadata()["generation"], 1);
    assert_eq!(updated.metadata()["labels"]["a"], "b");
}

/// A node whose writes take their time.
fn on_a_thread() -> (Node, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let place = Place::Root {
        directory: directory.path().to_owned(),
        key_credential: None,
    };
    (start(place, 1), directory)
}

#[test]
fn a_pod_that_stops_keeps_no_finalizer_that_is_on_its_way_out() {
    let (node, _directory) = on_a_thread();
    let key = pod_key("web");
    let mut body = pod("web", "", "i");
    body["metadata"]["finalizers"] = json!(["a.b/c"]);
    let made = wait(node.registry.create(Source::Api, key.clone(), body)).expect("created");
    let deletion = Deletion::default();
    let deleted = wait(node.registry.delete(Source::Api, key.clone(), deletion)).expect("deleted");
    let mut freed = deleted.object.body.clone();
    freed["metadata"]["finalizers"] = json!([]);
    let any = Precondition::default();
    // Polled once: on its way.
    let freeing = node.registry.update(Source::Api, key.clone(), freed, any);
    wait(futures_lite::future::poll_once(freeing));
    wait(node.registry.settle_held(&key));
    node.registry.finish_deletion(&key, made.uid());
    wait(node.registry.flush());
    assert!(node.reader.get(&key).is_none());
}

fn of_status() -> Actor {
    Actor {
        subresource: "status",
        ..Source::Api.into()
    }
}

fn created(node: &Node, key: &Key) -> Arc<Object> {
    let made = node
        .registry
        .create(Source::Api, key.clone(), pod("web", "", "i"));
    wait(made).expect("created")
}

#[test]
fn conditions_of_others_stay_over_the_kubelets_next_status() {
    let node = in_memory();
    let key = pod_key("web");
    let made = created(&node, &key);
    let mut body = made.body.clone();
    body["status"]["conditions"] = json!([
        {"type": "a.b/gate", "status": "True"}, {"type": "Ready", "status": "True"},
        {"type": "PodResizePending", "status": "True"},
        {"type": "DisruptionTarget", "status": "True", "reason": "theirs"},
    ]);
    let any = Precondition::default();
    wait(node.registry.update(of_status(), key.clone(), body, any)).expect("told");
    let ready = json!({"type": "Ready", "status": "False"});
    let ours = json!({"type": "DisruptionTarget", "status": "True", "reason": "ours"});
    let status = json!({"phase": "Running", "conditions": [ready, ours]});
    node.registry.update_status(&key, made.uid(), status);
    let now = node.reader.get(&key).expect("there");
    let gate = json!({"type": "a.b/gate", "status": "True"});
    let status = json!({"phase": "Running", "conditions": [ready, ours, gate]});
    assert_eq!(now.body["status"], status);
}

#[test]
fn a_write_of_a_status_takes_no_newer_one_back() {
    let (node, _directory) = on_a_thread();
    let key = pod_key("web");
    let made = created(&node, &key);
    let mut body = made.body.clone();
    let gate = json!({"type": "a.b/gate", "status": "True"});
    body["status"]["conditions"] = json!([gate]);
    let any = Precondition::default();
    // Polled once: on its way.
    let telling = node.registry.update(of_status(), key.clone(), body, any);
    wait(futures_lite::future::poll_once(telling));
    let ready = json!({"type": "Ready", "status": "True"});
    let status = json!({"phase": "Running", "conditions": [ready]});
    node.registry.update_status(&key, made.uid(), status);
    wait(node.registry.flush());
    let now = node.reader.get(&key).expect("there");
    let status = json!({"phase": "Running", "conditions": [ready, gate]});
    assert_eq!(now.body["status"], status);
}
