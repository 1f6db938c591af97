//! Asks the cluster who a token is and what somebody may do, and remembers what it said.
//!
//! ```text
//!   fresh answer here? ──► that one
//!   else ask ─┬─ it answers ──► remembered
//!             └─ it does not ──► a stale yes, or no with the reason that it cannot be asked
//! ```
//! Few questions are under way at a time, so that strangers keep neither the node nor the cluster
//! busy, nor others from being asked about.
//! Source: Kubernetes cmd/kubelet/app/auth.go, TokenReview and SubjectAccessReview.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use http::StatusCode;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::cache::{Cache, Question, Spans, Verdict};
use crate::apiserver::backend::Request;
use crate::apiserver::status::Refusal;
use crate::apiserver::{Counter, Shared};
use crate::object::User;
use crate::object::gather::Gather;
use crate::object::token::claimed_expiry;
use crate::world::{Call, Verb};

const MINUTE: Duration = Duration::from_secs(60);

/// How long a yes counts while the cluster is silent: the usual life of a service account's token,
/// which is what the cluster itself would have honoured it for unseen.
const SILENT: Duration = MINUTE.saturating_mul(60);

/// Source: kubelet configuration v1beta1, `authentication.webhook.cacheTTL`, for both answers.
const TOKENS: Spans = Spans {
    fresh_yes: MINUTE.saturating_mul(2),
    fresh_no: MINUTE.saturating_mul(2),
    silent: SILENT,
};

/// Source: kubelet configuration v1beta1, `authorization.webhook.cache{A,Una}uthorizedTTL`.
const RIGHTS: Spans = Spans {
    fresh_yes: MINUTE.saturating_mul(5),
    fresh_no: Duration::from_secs(30),
    silent: SILENT,
};

/// Questions to the cluster at one time, about strangers and about others each; the next one is
/// answered 429.
const UNDER_WAY_MAX: usize = 8;

/// A stranger of whom the cluster knows nothing keeps his place for so long: each question costs the link.
const STRANGE: Duration = Duration::from_secs(1);
/// No token of a cluster is longer.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How long an answer is waited for, and how long where a stale yes would do.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_STALE: Duration = Duration::from_secs(2);

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Why there is no verdict.
pub enum Unasked {
    /// Too many questions are under way.
    Busy(Refusal),
    /// The cluster does not answer, and what it said before counts no more.
    Silent,
}

/// What the cluster said, and what it is being asked.
pub struct Reviews {
    tokens: RefCell<Cache>,
    rights: RefCell<Cache>,
    /// Questions under way: about whom the cluster has said yes to before, about what others may of whom it
    /// is known who they are, and about strangers.
    known: Counter,
    others: Counter,
    unknown: Counter,
    /// It was said that the cluster answers nothing to this node.
    complained: Cell<bool>,
}

impl Default for Reviews {
    fn default() -> Reviews {
        Reviews {
            tokens: RefCell::new(Cache::new(TOKENS)),
            rights: RefCell::new(Cache::new(RIGHTS)),
            known: Counter::default(),
            others: Counter::default(),
            unknown: Counter::default(),
            complained: Cell::default(),
        }
    }
}

/// One question. It is known by the hash of its body.
struct Review {
    path: &'static str,
    body: Value,
    /// Wall time at which its subject ends by itself.
    expires: Option<Timestamp>,
    /// Whose rights are asked about; `None` where that is the question.
    user: Option<Arc<User>>,
}

impl Reviews {
    /// Who a token is.
    pub async fn who(&self, shared: &Shared, token: &str) -> Result<Verdict, Unasked> {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(Verdict::No("the token is too long".to_owned()));
        }
        let review = Review {
            path: TOKEN_REVIEWS,
            body: json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token},
            }),
            expires: claimed_expiry(token),
            user: None,
        };
        self.ask(shared, &self.tokens, review).await
    }

    /// Whether somebody may do `verb` on `nodes/SUBRESOURCE` of this node.
    pub async fn may(
        &self,
        shared: &Shared,
        user: &Arc<User>,
        verb: &str,
        subresource: &str,
    ) -> Result<Verdict, Unasked> {
        let review = Review {
            path: ACCESS_REVIEWS,
            body: json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
                    "resourceAttributes": {
                        "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource,
                        "name": shared.options.node_name,
                    },
                },
            }),
            expires: None,
            user: Some(user.clone()),
        };
        self.ask(shared, &self.rights, review).await
    }

    async fn ask(
        &self,
        shared: &Shared,
        cache: &RefCell<Cache>,
        review: Review,
    ) -> Result<Verdict, Unasked> {
        let clock = &shared.clock;
        let wall = || clock.credible();
        let question = review.question();
        if let Some(known) = cache.borrow().fresh(&question, clock.now(), wall()) {
            return Ok(known);
        }
        let stale = || cache.borrow().stale(&question, clock.now(), wall());
        let (under_way, patience) = match stale() {
            Some(_) => (&self.known, PATIENCE_STALE),
            None if review.user.is_some() => (&self.others, PATIENCE),
            None => (&self.unknown, PATIENCE),
        };
        let Some(_slot) = under_way.take(UNDER_WAY_MAX) else {
            return Err(Unasked::Busy(Refusal::too_many("questions to the cluster")));
        };
        let begun = clock.now();
        let call = Call::with(Verb::Create, review.path, review.body.clone());
        let answer = shared.backend.ask(|reply| Request::Review(call, reply));
        let late = async {
            clock.sleep_until(clock.now() + patience).await;
            Err(Refusal::timeout("the cluster was asked"))
        };
        let why = match answer.or(late).await {
            Ok(Ok(reply)) if reply.is_success() => {
                self.complained.set(false);
                let verdict = review.verdict(&reply.body["status"]);
                let now = clock.now();
                let expires = review.expires;
                cache
                    .borrow_mut()
                    .learn(question, verdict.clone(), now, expires);
                if matches!(verdict, Verdict::No(_)) && review.user.is_none() {
                    clock.sleep_until(begun + STRANGE).await;
                }
                return Ok(verdict);
            }
            // It answers, and not this: it was asked by whom it does not believe.
            Ok(Ok(reply)) if reply.status < 500 && reply.status != 429 => {
                let why = format!("{}: {} {}", review.path, reply.status, reply.message());
                // Once, however many strangers knock.
                if !self.complained.replace(true) {
                    log::warn!("the cluster reviews nothing for this node: {why}");
                }
                return Ok(Verdict::No(why));
            }
            Ok(Ok(reply)) => format!("{} {}", reply.status, reply.message()),
            Ok(Err(why)) => why.to_string(),
            Err(refusal) => refusal.message,
        };
        log::debug!("{} is not answered: {why}", review.path);
        stale().ok_or(Unasked::Silent)
    }
}

impl Review {
    fn question(&self) -> Question {
        let hash = digest(&SHA256, self.body.to_string().as_bytes());
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Reads the answer's status.
    fn verdict(&self, status: &Value) -> Verdict {
        let said = |field: &str| status[field] == true;
        let yes = match &self.user {
            Some(user) => (said("allowed") && !said("denied")).then(|| user.clone()),
            None => said("authenticated").then(|| Arc::new(user(&status["user"]))),
        };
        let texts = ["reason", "evaluationError", "error"].iter();
        let why = texts.filter_map(|field| status[field].as_str()).collect();
        yes.filter(|user| !user.name.is_empty())
            .map_or(Verdict::No(why), Verdict::Yes)
    }
}

/// `UserInfo` of authentication/v1.
fn user(info: &Value) -> User {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let extra = info["extra"].as_object().into_iter().flatten();
    User {
        name: text(&info["username"]),
        uid: text(&info["uid"]),
        groups: list(&info["groups"]),
        extra: extra
            .map(|(key, values)| (key.clone(), list(values)))
            .gathered(),
    }
}

impl Unasked {
    /// The refusal of whom it keeps out: `code` and the start of the text are the caller's.
    pub fn refusal(self, code: StatusCode, reason: &'static str, text: &str) -> Refusal {
        match self {
            Unasked::Busy(refusal) => refusal,
            Unasked::Silent => {
                let text = format!("{text}: the cluster cannot be asked");
                Refusal::detailed(code, reason, text, json!({}))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(user: Option<User>) -> Review {
        Review {
            path: "",
            body: json!({}),
            expires: None,
            user: user.map(Arc::new),
        }
    }

    #[test]
    fn a_token_is_who_the_cluster_says() {
        let status = json!({"authenticated": true, "user": {
            "username": "jane", "uid": "1", "groups": ["a", "b"], "extra": {"k": ["v"]},
        }});
        let jane = User {
            uid: "1".to_owned(),
            extra: [("k".to_owned(), vec!["v".to_owned()])].into(),
            ..User::new("jane", &["a", "b"])
        };
        assert_eq!(review(None).verdict(&status), Verdict::Yes(Arc::new(jane)));
        for (status, why) in [
            (json!({"user": {"username": "jane"}}), ""),
            (json!({"authenticated": true, "user": {}}), ""),
            (
                json!({"authenticated": false, "error": "expired"}),
                "expired",
            ),
            (Value::Null, ""),
        ] {
            let no = Verdict::No(why.to_owned());
            assert_eq!(review(None).verdict(&status), no, "{status}");
        }
    }

    #[test]
    fn only_a_plain_yes_is_one() {
        let jane = User::new("jane", &[]);
        let asked = review(Some(jane.clone()));
        let yes = asked.verdict(&json!({"allowed": true}));
        assert_eq!(yes, Verdict::Yes(Arc::new(jane)));
        for status in [
            json!({"allowed": false, "reason": "no rule"}),
            json!({"allowed": true, "denied": true, "reason": "no rule"}),
            json!({"allowed": "true", "reason": "no rule"}),
        ] {
            let no = Verdict::No("no rule".to_owned());
            assert_eq!(asked.verdict(&status), no, "{status}");
        }
    }
}
