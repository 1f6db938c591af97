//! Whether a user may do what a request asks: authorizers in order, the first opinion counts.
//!
//! Source: Kubernetes apiserver, authorization/union.

use super::request_info::RequestInfo;
use super::status::Refusal;
use crate::object::User;
use crate::object::user::GROUP_MASTERS;

/// An authorizer's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Nobody after it is asked.
    Deny(String),
    /// The next one is asked; with none left it is no.
    NoOpinion(String),
}

/// One authorization mode.
pub trait Authorize {
    fn decide(&self, user: &User, request: &RequestInfo) -> Decision;
}

/// The modes in order. `system:masters` is asked of none of them.
#[derive(Default)]
pub struct Authorizer {
    modes: Vec<Box<dyn Authorize + Send>>,
}

impl Authorizer {
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
        Decision::NoOpinion(reasons.join(", "))
    }

    /// Errors: 403, worded as upstream.
    pub fn check(&self, user: &User, request: &RequestInfo) -> Result<(), Refusal> {
        match self.decide(user, request) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(Refusal::forbidden(user, request, &why))
            }
        }
    }
}
