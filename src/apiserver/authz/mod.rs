//! Whether a user may do what a request asks: authorizers in order, the first opinion counts.
//!
//! ```text
//!  system:masters ─► allowed
//!  mode 1 ─► mode 2 ─► …   Allow, Deny: that is it    NoOpinion: the next    none left: no
//! ```
//! With no mode at all only `system:masters` get in. Source: Kubernetes apiserver,
//! authorization/union.

mod abac;
mod node;
pub mod review;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use abac::PolicyFile;
pub use node::Node;

use super::request_info::RequestInfo;
use super::status::Refusal;
use crate::object::User;
use crate::object::user::GROUP_MASTERS;
use crate::registry::Reader;

/// An authorizer's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Nobody after it is asked.
    Deny(String),
    /// The next one is asked; with none left it is no.
    NoOpinion(String),
}

/// What a user may do, as far as an authorizer can tell in advance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub resources: Vec<ResourceRule>,
    pub paths: Vec<PathRule>,
    /// There may be more that cannot be listed.
    pub incomplete: bool,
    /// Why, where it is said.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRule {
    pub verbs: Vec<String>,
    pub paths: Vec<String>,
}

/// One authorization mode.
pub trait Authorize {
    fn decide(&self, user: &User, request: &RequestInfo) -> Decision;

    fn rules(&self, user: &User, namespace: &str) -> Rules;
}

/// Everything is allowed, to whoever got as far as here.
pub struct AlwaysAllow;

/// Says no and leaves the last word to the modes after it.
pub struct AlwaysDeny;

/// A name of `--authorization-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Abac,
    Node,
}

/// The modes in order. `system:masters` is asked of none of them.
#[derive(Default)]
pub struct Authorizer {
    modes: Vec<Box<dyn Authorize + Send>>,
}

impl Authorize for AlwaysAllow {
    fn decide(&self, _user: &User, _request: &RequestInfo) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules(&self, _user: &User, _namespace: &str) -> Rules {
        everything()
    }
}

impl Authorize for AlwaysDeny {
    fn decide(&self, _user: &User, _request: &RequestInfo) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".to_owned())
    }

    fn rules(&self, _user: &User, _namespace: &str) -> Rules {
        Rules::default()
    }
}

fn everything() -> Rules {
    let all = || vec!["*".to_owned()];
    Rules {
        resources: vec![ResourceRule {
            verbs: all(),
            groups: all(),
            resources: all(),
        }],
        paths: vec![PathRule {
            verbs: all(),
            paths: all(),
        }],
        ..Rules::default()
    }
}

impl Authorizer {
    /// `policy` is what mode ABAC reads; it is loaded already, and may be loaded anew at any time.
    pub fn new(modes: &[Mode], policy: &PolicyFile, reader: &Reader) -> Authorizer {
        let made = modes.iter().map(|mode| match mode {
            Mode::AlwaysAllow => Box::new(AlwaysAllow) as Box<dyn Authorize + Send>,
            Mode::AlwaysDeny => Box::new(AlwaysDeny),
            Mode::Abac => Box::new(policy.clone()),
            Mode::Node => Box::new(Node::new(reader.clone())),
        });
        Authorizer {
            modes: made.collect(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(modes: Vec<Box<dyn Authorize + Send>>) -> Authorizer {
        Authorizer { modes }
    }

    pub fn decide(&self, user: &User, request: &RequestInfo) -> Decision {
        if user.is_in(GROUP_MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            match mode.decide(user, request) {
                Decision::NoOpinion(reason) => {
                    reasons.extend(Some(reason).filter(|r| !r.is_empty()))
                }
                decision => return decision,
            }
        }
        // Upstream joins reasons by line feeds.
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// What `user` may do in `namespace`, of all modes together.
    pub fn rules(&self, user: &User, namespace: &str) -> Rules {
        if user.is_in(GROUP_MASTERS) {
            return everything();
        }
        let mut all = Rules::default();
        for mode in &self.modes {
            let rules = mode.rules(user, namespace);
            all.resources.extend(rules.resources);
            all.paths.extend(rules.paths);
            all.incomplete |= rules.incomplete;
            all.problems.extend(rules.problems);
        }
        all
    }

    /// Errors: 403, worded as upstream. A stream into a container opened by anything but POST (a WebSocket
    /// handshake) is held to what that would need too: reading rights must not run commands.
    pub fn check(&self, user: &User, request: &RequestInfo) -> Result<(), Refusal> {
        self.check_one(user, request)?;
        let streams = matches!(
            request.resource_path().as_str(),
            "pods/exec" | "pods/attach" | "pods/portforward"
        );
        if streams && request.group.is_empty() && request.verb != "create" {
            let create = RequestInfo {
                verb: "create".to_owned(),
                ..request.clone()
            };
            return self.check_one(user, &create);
        }
        Ok(())
    }

    fn check_one(&self, user: &User, request: &RequestInfo) -> Result<(), Refusal> {
        match self.decide(user, request) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(Refusal::forbidden(user, request, &why))
            }
        }
    }
}

impl PolicyFile {
    /// Loads what `--authorization-policy-file` names; no path, no rule.
    /// Errors: file, line, what is wrong there.
    pub fn open(path: Option<&Path>) -> Result<PolicyFile, String> {
        let policy = PolicyFile::new(path);
        policy.reload()?;
        Ok(policy)
    }
}
