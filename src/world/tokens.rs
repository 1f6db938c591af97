//! Tokens that only a cluster can make.

use std::fmt;

use jiff::Timestamp;

use super::LocalFuture;

/// A token for a pod of the cluster: of the account that it acts as, bound to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    pub namespace: String,
    pub account: String,
    pub pod: String,
    pub pod_uid: String,
    /// Empty: the API's.
    pub audience: String,
    pub life_s: u32,
}

/// `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: String,
    pub expires: Timestamp,
    /// How long it is good for, if whoever made it says so: a span is right whatever the clock.
    pub life_s: Option<u32>,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedToken(until {})", self.expires)
    }
}

/// Why there is no token now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// Nobody was there to be asked.
    NoAnswer(String),
    /// The cluster said no.
    Refused(String),
}

pub trait TokenSource {
    /// Asks at most once, and not at all while the cluster is known to be silent.
    fn request(&self, request: TokenRequest) -> LocalFuture<'_, Result<IssuedToken, NoToken>>;

    /// Resolves the next time that the cluster answers after it did not.
    fn back(&self) -> LocalFuture<'_, ()>;
}
