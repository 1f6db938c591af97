//! The API server of the remote cluster, as the sync with it needs one.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::LocalFuture;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Create,
    /// PUT: replaces the object whole.
    Update,
    /// PATCH with a strategic merge patch.
    Patch,
    Delete,
}

/// One request. JSON both ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub verb: Verb,
    /// Absolute, with its query: `/api/v1/nodes/pi`.
    pub path: String,
    pub body: Option<Value>,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Call {
        Call {
            verb: Verb::Get,
            path: path.into(),
            body: None,
        }
    }

    pub fn with(verb: Verb, path: impl Into<String>, body: Value) -> Call {
        Call {
            verb,
            path: path.into(),
            body: Some(body),
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The object, or the Status that says why not; null if the answer was no JSON.
    pub body: Value,
    /// Of a 429 or 503.
    pub retry_after: Option<Duration>,
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What a Status says; empty in an object.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No route, refused, reset, late: the same call may succeed later.
    Unreachable(String),
    /// It cannot be asked like this (credentials that cannot be read, a server nobody trusts):
    /// somebody has to mend something. Tried again all the same, at longer intervals.
    Unusable(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Unreachable(text) | NoAnswer::Unusable(text) => f.write_str(text),
        }
    }
}

/// Why a watch was not opened.
#[derive(Clone, Debug, PartialEq)]
pub enum NoWatch {
    NoAnswer(NoAnswer),
    Refused(Reply),
}

/// The events of a watch, in order.
pub trait Watch {
    /// The next event as it came (`{"type": …, "object": …}`); `None` at the proper end. Errors: the
    /// link broke, or nothing (not even a bookmark) came for longer than the request's
    /// `timeoutSeconds` allows. Dropping the future loses nothing.
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Value>, NoAnswer>>;
}

/// What a knock at the cluster's door brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// No connection is taken.
    Shut,
    /// A connection is taken, and nothing said: by a proxy whose server is gone, perhaps.
    Mute,
    /// The server shakes hands; or it is behind a proxy, which takes a connection.
    Open,
}

/// The door to one cluster. Every wait is bounded.
pub trait Cluster {
    fn call(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>>;

    /// Opens a watch at a path that asks for one. Dropping it closes the connection.
    fn watch(&self, path: String) -> LocalFuture<'_, Result<Box<dyn Watch>, NoWatch>>;

    /// Forgets connections that may be half open: the next call dials anew.
    fn reconnect(&self);

    /// Whether somebody opens, within a second, where the cluster answered last. Nothing is asked.
    fn knock(&self) -> LocalFuture<'_, Knock>;
}
