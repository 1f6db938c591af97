//! Deliberate faults on the way between the node and its cluster: they show that the checkers see.
//!
//! The node itself is as ever. What it is told, or what it says, is bent here as a wrong node would
//! have bent it by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use lowtide::world::{Call, Cluster, Knock, LocalFuture, NoAnswer, NoWatch, Reply, Verb, Watch};
use serde_json::{Value, json};

use super::door::Door;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// Patches of pods' statuses are taken for sent.
    SwallowsStatus,
    /// Pods that have ended are never removed.
    ForgetsDeletions,
    /// A pod is removed as soon as its deletion is heard of.
    DeletesEarly,
    /// Who has a mirror's name has to go.
    EvictsSquatters,
    /// Each third event of the pods is lost.
    MissesPods,
    /// What pods mount is never heard of again.
    MissesObjects,
    /// Each second list of pods is empty.
    BelievesEmptyLists,
    /// Containers are told under the pod before.
    MixesPods,
    /// The lease is renewed in words alone.
    SkipsLease,
    /// Nobody notices a connection that is dead and silent.
    WaitsForTheDead,
}

impl Mutation {
    /// All of them, and what the checker says that is meant for each.
    pub const ALL: [(Mutation, &str); 10] = [
        (Mutation::SwallowsStatus, " in the cluster and "),
        (
            Mutation::ForgetsDeletions,
            "is still being deleted in the cluster",
        ),
        (
            Mutation::DeletesEarly,
            "is removed while containers of it live",
        ),
        (
            Mutation::EvictsSquatters,
            "is removed, which nobody wanted to go",
        ),
        (Mutation::MissesPods, "was never heard of"),
        (Mutation::MissesObjects, " has mounted "),
        (Mutation::BelievesEmptyLists, ", which the cluster wants"),
        (Mutation::MixesPods, " is told container "),
        (Mutation::SkipsLease, "the lease was renewed"),
        (Mutation::WaitsForTheDead, "was never heard of"),
    ];
}

pub struct Liar {
    pub door: Rc<Door>,
    pub mutation: Mutation,
    pub count: Rc<Cell<u64>>,
    /// The containers that were told last.
    pub told: RefCell<Value>,
}

/// Counts, and says whether it is time again.
fn each(count: &Cell<u64>, period: u64) -> bool {
    count.set(count.get() + 1);
    count.get().is_multiple_of(period)
}

fn removal(path: String, uid: &Value) -> Call {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    Call::with(Verb::Delete, path, options)
}

impl Liar {
    async fn bend(&self, mut call: Call) -> Result<Reply, NoAnswer> {
        let path = call.path.split('?').next().unwrap_or_default().to_owned();
        let is_pod = path.contains("/pods");
        let is_status = call.verb == Verb::Patch && is_pod && path.ends_with("/status");
        let done = |body: Option<Value>| {
            Ok(Reply {
                status: 200,
                body: body.unwrap_or_default(),
                retry_after: None,
            })
        };
        match self.mutation {
            Mutation::SwallowsStatus if is_status => return done(None),
            Mutation::ForgetsDeletions if call.verb == Verb::Delete && is_pod => return done(None),
            Mutation::SkipsLease if call.verb == Verb::Update && path.contains("/leases/") => {
                return done(call.body);
            }
            Mutation::MixesPods if is_status => {
                let status = call.body.as_mut().map(|body| &mut body["status"]);
                let containers = status.map(|status| &mut status["containerStatuses"]);
                if let Some(containers) = containers.filter(|list| list.is_array()) {
                    std::mem::swap(containers, &mut self.told.borrow_mut());
                }
            }
            _ => {}
        }
        let name = call
            .body
            .as_ref()
            .map(|body| body["metadata"]["name"].clone());
        let (verb, list) = (call.verb, call.verb == Verb::Get && path == "/api/v1/pods");
        let mut reply = self.door.call(call).await?;
        match self.mutation {
            Mutation::BelievesEmptyLists if list && each(&self.count, 2) => {
                reply.body["items"] = json!([]);
            }
            Mutation::EvictsSquatters if verb == Verb::Create && reply.status == 409 && is_pod => {
                let name = name.unwrap_or_default();
                let path = format!("{path}/{}", name.as_str().unwrap_or_default());
                let there = self.door.call(Call::get(path.clone())).await?;
                // One of another node it would have to remove unseen.
                let uid = &there.body["metadata"]["uid"];
                if uid.is_string() {
                    self.door.call(removal(path, uid)).await?;
                }
            }
            _ => {}
        }
        Ok(reply)
    }
}

impl Cluster for Liar {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        Box::pin(self.bend(call))
    }

    fn watch(&self, path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>> {
        Box::pin(async move {
            let watch = self.door.watch(path).await?;
            let heard: Box<dyn Watch> = Box::new(Deaf {
                watch,
                door: Rc::clone(&self.door),
                mutation: self.mutation,
                count: Rc::clone(&self.count),
            });
            Ok(heard)
        })
    }

    fn reconnect(&self) {
        self.door.reconnect();
    }

    fn knock(&self) -> LocalFuture<'_, Knock> {
        self.door.knock()
    }
}

struct Deaf {
    watch: Box<dyn Watch>,
    door: Rc<Door>,
    mutation: Mutation,
    count: Rc<Cell<u64>>,
}

impl Watch for Deaf {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Value>, NoAnswer>> {
        Box::pin(async move {
            loop {
                let next = self.watch.next().await?;
                let Some(event) = &next else {
                    return Ok(None);
                };
                let (object, metadata) = (&event["object"], &event["object"]["metadata"]);
                let kind = object["kind"].as_str().unwrap_or_default();
                let lost = match self.mutation {
                    Mutation::MissesPods => kind == "Pod" && each(&self.count, 3),
                    Mutation::MissesObjects => matches!(kind, "ConfigMap" | "Secret"),
                    _ => false,
                };
                let going = kind == "Pod" && metadata["deletionTimestamp"].is_string();
                if self.mutation == Mutation::DeletesEarly && going && event["type"] == "MODIFIED" {
                    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
                    let (namespace, name) = (text("namespace"), text("name"));
                    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
                    self.door.call(removal(path, &metadata["uid"])).await?;
                }
                if !lost {
                    return Ok(next);
                }
            }
        })
    }
}
