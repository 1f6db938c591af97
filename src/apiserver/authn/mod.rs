//! Who asks: from a connection and a request's headers to a [`User`].
//!
//! The local socket is the machine's root and needs no proof; a network peer has what its client
//! certificate or its `Authorization` header proves.

use std::sync::Arc;

use http::HeaderMap;

use super::status::Refusal;
use crate::object::User;
use crate::object::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};

/// What a connection proved before its first request.
#[derive(Clone, Debug)]
pub enum Peer {
    /// `RUN/api.sock`, by peer uid.
    Local,
}

/// The authenticators in order.
#[derive(Clone, Debug)]
pub struct Authenticator {
    local: Arc<User>,
}

impl Default for Authenticator {
    /// Knows the local socket only.
    fn default() -> Authenticator {
        let groups = [GROUP_MASTERS, GROUP_AUTHENTICATED];
        Authenticator {
            local: Arc::new(User::new("system:admin", &groups)),
        }
    }
}

impl Authenticator {
    /// Errors: 401.
    pub fn user(&self, peer: &Peer, _headers: &HeaderMap) -> Result<Arc<User>, Refusal> {
        match peer {
            Peer::Local => Ok(self.local.clone()),
        }
    }
}
