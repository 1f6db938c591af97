//! Tokens in the volumes of the cluster's pods: the cluster makes them, and while it is silent the
//! node stands in, so that a pod comes up again after a reboot without a link. Where it says no, there
//! is none.
//!
//! What the node signs, no cluster believes and the node's own API neither (the account is not one
//! of its own): the pod has a file, and the right one within seconds of the cluster's return.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::Kubelet;
use super::tokens::{self, Maker, Request, Tokens};
use super::view::PodView;
use super::worker::Shared;
use crate::object::token::Minted;
use crate::object::{Key, Kind, Object, Origin, Source, Standing};
use crate::world::{NoToken, Stamp, TokenRequest};

/// The account that a pod of the cluster acts as is the cluster's to know.
const ACCOUNT: &str = "cluster";
/// Between two rounds of asking for what stood-in tokens stand for.
const REPLACE_PERIOD: Duration = Duration::from_secs(10);

/// The tokens that the pod's volumes show, asked for anew where it is time.
pub async fn renew(shared: &Shared, view: &PodView, pod: &Pod) -> Tokens {
    let requests = tokens::requests(pod);
    let now = now_of(shared);
    let due = shared.memory.borrow().tokens.due(&requests, ACCOUNT, now);
    let mut made = BTreeMap::new();
    for request in due {
        let answer = ask(shared, view, pod, &request).await;
        let answer = answer.or_else(|why| match why {
            // One that still counts is better than one that never did.
            NoToken::NoAnswer(why) if !shared.memory.borrow().tokens.has_real(&request, now) => {
                stand_in(shared, view, pod, &request, now).map_err(|_| why)
            }
            NoToken::NoAnswer(why) | NoToken::Refused(why) => Err(why),
        });
        made.insert(request, answer);
    }
    let mut memory = shared.memory.borrow_mut();
    memory
        .tokens
        .renew(requests, Ok(ACCOUNT), now_of(shared), |request| {
            let made = made.get(request).cloned();
            made.unwrap_or_else(|| Err("it was not asked for".to_owned()))
        });
    memory.tokens.clone()
}

fn now_of(shared: &Shared) -> Stamp {
    let world = &shared.core.world;
    Stamp {
        wall: world.clock.credible(),
        ..world.stamp()
    }
}

async fn ask(
    shared: &Shared,
    view: &PodView,
    pod: &Pod,
    request: &Request,
) -> Result<(Minted, Maker), NoToken> {
    let source = shared.core.options.cluster_tokens.as_ref();
    let alone = || NoToken::NoAnswer("the node has joined no cluster".to_owned());
    let source = source.ok_or_else(alone)?;
    let issued = source
        .request(TokenRequest {
            namespace: view.key.namespace.clone(),
            account: tokens::account_name(pod).to_owned(),
            pod: view.key.name.clone(),
            pod_uid: view.uid.to_string(),
            audience: request.audience.clone(),
            life_s: request.life_s,
        })
        .await?;
    let minted = Minted {
        token: issued.token,
        issued: now_of(shared).wall,
        expires: issued.expires,
    };
    let life_s = issued.life_s;
    Ok((minted, Maker::Owner { life_s }))
}

fn stand_in(
    shared: &Shared,
    view: &PodView,
    pod: &Pod,
    request: &Request,
    now: Stamp,
) -> Result<(Minted, Maker), String> {
    let issuer = shared.core.options.issuer.as_ref();
    let issuer = issuer.ok_or("this node makes no tokens")?;
    let name = tokens::account_name(pod);
    let account = Object {
        key: Key {
            origin: Origin::Remote,
            ..Key::local(Kind::ServiceAccount, &view.key.namespace, name)
        },
        source: Source::Remote,
        provenance: None,
        standing: Standing::Accepted,
        resource_version: 0,
        body: json!({"metadata": {
            "name": name, "namespace": view.key.namespace, "uid": ACCOUNT,
        }}),
    };
    let minted = tokens::mint(issuer, &account, pod, None, request, now.wall)?;
    Ok((minted, Maker::StandIn))
}

/// Each time that the cluster answers again, what stood in for its tokens goes. Never ends.
pub async fn replace_stand_ins(kubelet: Rc<Kubelet>) {
    let core = kubelet.core.clone();
    let Some(source) = &core.options.cluster_tokens else {
        return;
    };
    let clock = &core.world.clock;
    let mut again = clock.now();
    loop {
        source.back().await;
        // Where tokens alone are not to be had, each try would be followed by the next.
        clock.sleep_until(again).await;
        let now = clock.now();
        again = now + REPLACE_PERIOD;
        for worker in kubelet.workers.borrow().values() {
            if worker
                .shared
                .memory
                .borrow_mut()
                .tokens
                .doubt_stand_ins(now)
            {
                worker.shared.wake();
            }
        }
    }
}
