//! Tokens of the cluster's accounts, for its pods on this node.

use std::rc::Rc;

use futures_lite::future::or;
use serde_json::{Value, json};

use super::link::Link;
use super::paths;
use crate::object::{Key, Kind};
use crate::world::{Call, IssuedToken, LocalFuture, NoToken, TokenRequest, TokenSource, Verb};

pub struct ClusterTokens(pub Rc<Link>);

impl TokenSource for ClusterTokens {
    fn request(&self, request: TokenRequest) -> LocalFuture<'_, Result<IssuedToken, NoToken>> {
        Box::pin(async move {
            self.0.first_answer().await;
            if self.0.is_out() {
                let why = "the cluster does not answer".to_owned();
                return Err(NoToken::NoAnswer(why));
            }
            let account = Key::local(Kind::ServiceAccount, &request.namespace, &request.account);
            let path = format!("{}/token", paths::object(&account));
            let call = Call::with(Verb::Create, path, body(&request));
            let answer = self.0.call(call).await;
            let reply = answer.map_err(|why| NoToken::NoAnswer(why.to_string()))?;
            if !reply.is_success() {
                let why = format!("{} {}", reply.status, reply.message());
                return Err(match reply.status {
                    // It knows nobody now, is too busy or sick: that says nothing of the account.
                    401 | 429 | 500.. => NoToken::NoAnswer(why),
                    _ => NoToken::Refused(why),
                });
            }
            let status = &reply.body["status"];
            let expires = status["expirationTimestamp"].as_str();
            let expires = expires.and_then(|text| text.parse().ok());
            let life_s = reply.body["spec"]["expirationSeconds"].as_u64();
            match (status["token"].as_str(), expires) {
                (Some(token), Some(expires)) => Ok(IssuedToken {
                    token: token.to_owned(),
                    expires,
                    life_s: life_s.and_then(|life_s| life_s.try_into().ok()),
                }),
                _ => Err(NoToken::Refused(
                    "the cluster's answer holds no token".to_owned(),
                )),
            }
        })
    }

    fn back(&self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            or(self.0.back(), self.0.turned()).await;
            while !self.0.is_up() {
                self.0.turned().await;
            }
        })
    }
}

fn body(request: &TokenRequest) -> Value {
    let audiences: Vec<&str> = Some(&*request.audience)
        .into_iter()
        .filter(|audience| !audience.is_empty())
        .collect();
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": request.life_s,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": request.pod, "uid": request.pod_uid,
            },
        },
    })
}
