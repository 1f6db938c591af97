//! What must be true of both ends once nothing goes wrong any more.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lowtide::object::{Key, Kind, Origin};
use lowtide::registry::Reader;
use lowtide::world::Uid;
use serde_json::Value;

use crate::real::NODE_NAME;
use crate::run::{Run, Verdict};
use crate::spec;

/// A renewal is due every 10 s and may take a little.
const LEASE_AGE_MAX_S: i64 = 15;
const MIRROR: &str = "kubernetes.io/config.mirror";

/// All checks, the first failure named.
pub fn converged(run: &Run, far: &Reader) -> Verdict {
    node_is_ready(far)?;
    lease_is_fresh(run, far)?;
    let node = run.node.reader().ok_or("the node has no registry")?;
    let theirs = bodies(far);
    let ours = bodies(&node);
    for (key, body) in &theirs {
        if body["spec"]["nodeName"] != NODE_NAME {
            continue;
        }
        if body["metadata"]["deletionTimestamp"].is_string() {
            return Err(format!("{key} is still being deleted in the cluster"));
        }
        match is_mirror(body) {
            true => mirror(key, body, &ours)?,
            false => pod(key, body, &ours)?,
        }
        let over = matches!(
            body["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        if !over && !is_mirror(body) {
            mounts(run, far, key, body)?;
            limits(run, key, body)?;
        }
    }
    for (key, body) in &ours {
        let counterpart = theirs.get(&Key {
            origin: Origin::Local,
            ..key.clone()
        });
        match (key.origin, counterpart) {
            (Origin::Remote, None) => {
                return Err(format!("{key} is not in the cluster: {body}"));
            }
            (Origin::Local, None) => return Err(format!("{key} has no mirror")),
            (Origin::Local, Some(theirs)) if !is_mirror(theirs) => {
                squatter_is_reported(key, body, &node)?;
            }
            (Origin::Remote | Origin::Local, Some(_)) => {}
        }
    }
    Ok(())
}

/// Who has the name keeps it, and the pod's events say so.
fn squatter_is_reported(key: &Key, own: &Value, node: &Reader) -> Verdict {
    let (events, _) = node.list(Kind::Event, None);
    let told = events.iter().any(|event| {
        event.body["reason"] == "FailedMirrorPod"
            && event.body["involvedObject"]["uid"] == own["metadata"]["uid"]
    });
    match told {
        true => Ok(()),
        false => Err(format!("nobody is told that {key} has no mirror")),
    }
}

/// UIDs of the pods that the cluster has given to the node.
pub fn given(far: &Reader) -> Vec<String> {
    let pods = bodies(far).into_values();
    let given = pods.filter(|body| body["spec"]["nodeName"] == NODE_NAME && !is_mirror(body));
    let uid = |body: Value| body["metadata"]["uid"].as_str().map(str::to_owned);
    given.filter_map(uid).collect()
}

/// The node has heard of those, unless they are over.
pub fn knows(run: &Run, far: &Reader, given: &[String]) -> Verdict {
    let node = run.node.reader().ok_or("the node has no registry")?;
    let here = bodies(&node);
    for (key, body) in bodies(far) {
        let over = matches!(
            body["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        ) || body["metadata"]["deletionTimestamp"].is_string();
        let uid = body["metadata"]["uid"].as_str().unwrap_or_default();
        let known = here.values().any(|pod| pod["metadata"]["uid"] == uid);
        if given.iter().any(|given| given == uid) && !over && !known {
            return Err(format!("{key} {uid} was never heard of"));
        }
    }
    Ok(())
}

/// Pods of the cluster of which something lives here and that nobody has asked to go.
pub fn live(run: &Run, far: &Reader) -> Vec<(Key, Uid)> {
    let kernel = run.host.kernel.borrow();
    let pods = bodies(far).into_iter().filter_map(|(key, body)| {
        let wanted = body["metadata"]["deletionTimestamp"].is_null() && !is_mirror(&body);
        let uid = Uid::new(body["metadata"]["uid"].as_str()?).filter(|_| wanted)?;
        kernel.pods.get(&uid)?.live().next()?;
        Some((key, uid))
    });
    pods.collect()
}

/// Nothing of it is anywhere any more.
pub fn has_gone(run: &Run, far: &Reader, key: &Key, uid: &Uid) -> Verdict {
    if far.get(key).is_some_and(|pod| pod.uid() == uid.as_str()) {
        return Err(format!("{key} {uid} outlives its grace in the cluster"));
    }
    match run.host.kernel.borrow().pods.contains_key(uid) {
        true => Err(format!("{key} {uid} outlives its grace on the node")),
        false => Ok(()),
    }
}

/// What runs has the limits of its spec, unless the node says that there is no room for them.
fn limits(run: &Run, key: &Key, body: &Value) -> Verdict {
    let conditions = body["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    if conditions.any(|condition| condition["type"] == "PodResizePending") {
        return Ok(());
    }
    let uid = body["metadata"]["uid"].as_str().and_then(Uid::new);
    let kernel = run.host.kernel.borrow();
    let Some(truth) = uid.and_then(|uid| kernel.pods.get(&uid)) else {
        return Ok(());
    };
    let specs = body["spec"]["containers"].as_array().into_iter().flatten();
    for spec in specs {
        let wanted = spec::limits(spec);
        let running = truth.containers.iter().filter(|one| one.is_running());
        for one in running.filter(|one| spec["name"] == *one.config.name) {
            let given = spec::given(&one.config.resources);
            if given != wanted {
                let name = &one.config.name;
                return Err(format!("{key}: {name} has {given:?}, the spec {wanted:?}"));
            }
        }
    }
    Ok(())
}

/// What a pod of the cluster has mounted is what the cluster has.
fn mounts(run: &Run, far: &Reader, key: &Key, body: &Value) -> Verdict {
    let uid = body["metadata"]["uid"].as_str().and_then(Uid::new);
    let volumes = body["spec"]["volumes"].as_array().into_iter().flatten();
    for volume in volumes {
        let map = volume["configMap"]["name"].as_str();
        let map = map.map(|name| (Kind::ConfigMap, name));
        let secret = volume["secret"]["secretName"].as_str();
        let named = map.or(secret.map(|name| (Kind::Secret, name)));
        let (Some((kind, name)), Some(volume)) = (named, volume["name"].as_str()) else {
            continue;
        };
        let mounted = run.host.mounted.borrow();
        let Some(shown) = uid.as_ref().and_then(|uid| mounted.content(uid, volume)) else {
            continue;
        };
        let object = far.get(&Key::local(kind, &key.namespace, name));
        let value =
            object.and_then(|object| object.body["data"]["value"].as_str().map(str::to_owned));
        let value = value.map(|value| match kind {
            Kind::Secret => STANDARD.decode(value).expect("data of a Secret"),
            _ => value.into_bytes(),
        });
        if value.as_ref() != shown.get("value") {
            return Err(format!("{key} has mounted {shown:?}, {name} is {value:?}"));
        }
    }
    Ok(())
}

fn bodies(reader: &Reader) -> BTreeMap<Key, Value> {
    let (pods, _) = reader.list(Kind::Pod, None);
    let pods = pods.iter().map(|pod| (pod.key.clone(), pod.body.clone()));
    pods.collect()
}

fn is_mirror(body: &Value) -> bool {
    body["metadata"]["annotations"][MIRROR].is_string()
}

fn node_is_ready(far: &Reader) -> Verdict {
    let node = far.get(&Key::local(Kind::Node, "", NODE_NAME));
    let node = node.ok_or("the cluster has no Node")?;
    let conditions = node.body["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    match ready {
        Some(ready) if ready["status"] == "True" => Ok(()),
        other => Err(format!("the Node is not Ready: {other:?}")),
    }
}

fn lease_is_fresh(run: &Run, far: &Reader) -> Verdict {
    let lease = far.get(&Key::local(Kind::Lease, "kube-node-lease", NODE_NAME));
    let lease = lease.ok_or("the node has no lease")?;
    let renewed = &lease.body["spec"]["renewTime"];
    let at: Option<Timestamp> = renewed.as_str().and_then(|text| text.parse().ok());
    let now = run.host.timeline.wall();
    match at.map(|at| now.duration_since(at).as_secs()) {
        Some(0..=LEASE_AGE_MAX_S) => Ok(()),
        age => Err(format!("the lease was renewed {age:?} s ago: {renewed}")),
    }
}

/// A pod of the cluster, and the node's word on it.
fn pod(key: &Key, theirs: &Value, ours: &BTreeMap<Key, Value>) -> Verdict {
    let copy = ours.get(&Key {
        origin: Origin::Remote,
        ..key.clone()
    });
    let Some(copy) = copy else {
        // The node may have lost its records of one that had ended.
        return match theirs["status"]["phase"].as_str() {
            Some("Succeeded" | "Failed") => Ok(()),
            phase => Err(format!("{key} ({phase:?}) is unknown to the node")),
        };
    };
    if copy["metadata"]["uid"] != theirs["metadata"]["uid"] {
        return Err(format!("{key} is another pod here: {copy}"));
    }
    same_status(key, theirs, copy)
}

/// The picture of a pod of the node.
fn mirror(key: &Key, theirs: &Value, ours: &BTreeMap<Key, Value>) -> Verdict {
    let Some(own) = ours.get(key) else {
        return Err(format!("{key} is a mirror of nothing"));
    };
    let hash = |body: &Value, name: &str| body["metadata"]["annotations"][name].clone();
    let (theirs_hash, own_hash) = (hash(theirs, MIRROR), hash(own, "kubernetes.io/config.hash"));
    if theirs_hash != own_hash {
        return Err(format!("{key} shows {theirs_hash}, the pod is {own_hash}"));
    }
    same_status(key, theirs, own)
}

fn same_status(key: &Key, theirs: &Value, ours: &Value) -> Verdict {
    let (theirs, ours) = (said(&theirs["status"]), said(&ours["status"]));
    let fields = ours.as_object().into_iter().flatten();
    for (name, ours) in fields {
        let same = match name.as_str() {
            "conditions" => holds_all(&theirs[name], ours),
            _ => theirs[name] == *ours,
        };
        if !same {
            let theirs = &theirs[name];
            return Err(format!(
                "{key}: {name} is {theirs} in the cluster and {ours} here"
            ));
        }
    }
    Ok(())
}

/// Without what is `null`: in a patch that is a wish to have it gone.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(name, value)| (name.clone(), said(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(said).collect(),
        plain => plain.clone(),
    }
}

/// The cluster has an order and conditions of its own. What turned here in a time to come, by a clock that
/// was ahead, was dated when it was told.
fn holds_all(theirs: &Value, ours: &Value) -> bool {
    let theirs = theirs.as_array().map_or(&[][..], Vec::as_slice);
    let mut ours = ours.as_array().into_iter().flatten();
    let date = |one: &Value| one["lastTransitionTime"].as_str().map(str::to_owned);
    let same = |known: &Value, one: &Value| {
        let mut known = known.clone();
        if date(&known) < date(one) {
            known["lastTransitionTime"] = one["lastTransitionTime"].clone();
        }
        known == *one
    };
    ours.all(|one| theirs.iter().any(|known| same(known, one)))
}
