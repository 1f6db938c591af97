//! Who asks at the kubelet's port, as far as this node knows by itself.
//!
//! Certificates and the files of the administrator name somebody here as they do for the API. A
//! token of this node's own accounts names nobody: their names mean others in the cluster, which is
//! what is asked about rights.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;

use super::secret_file::authenticated;
use super::{Authenticator, Credential, Peer, credential};
use crate::object::User;

/// What a request shows.
pub enum Claim {
    User(Arc<User>),
    /// A bearer token that somebody else may know.
    Token(String),
    Nobody,
}

impl Authenticator {
    /// A certificate that is good goes before what the headers say; a bad one is nothing.
    pub fn claim(&self, peer: &Peer, headers: &HeaderMap, now: Timestamp) -> Claim {
        let network = match peer {
            Peer::Local => return Claim::User(self.local.clone()),
            Peer::Network(network) => network,
        };
        let files = self.files();
        if !network.chain.is_empty() {
            match network.user(&files, now) {
                Ok(Some(user)) => return Claim::User(user),
                Ok(None) => {}
                Err(why) => log::debug!("certificate of {}: {why}", network.address),
            }
        }
        let user = match credential(headers) {
            Ok(Some(Credential::Bearer(token))) => match files.tokens.user(&token) {
                Some(user) => Some((*user).clone()),
                None if self.is_own(&token, now) => None,
                None => return Claim::Token(token),
            },
            Ok(Some(Credential::Basic(name, password))) => {
                let passwords = files.passwords.as_ref();
                let user = passwords.and_then(|passwords| passwords.user(&name, &password));
                user.map(|user| (*user).clone())
            }
            Ok(None) | Err(_) => None,
        };
        user.map_or(Claim::Nobody, |user| {
            Claim::User(Arc::new(authenticated(&user)))
        })
    }

    /// Whether it is a good token of an account of this node's API.
    fn is_own(&self, token: &str, now: Timestamp) -> bool {
        let accounts = self.accounts.as_ref();
        accounts.is_some_and(|(issuer, reader)| {
            let checked = issuer.check(token, &[], now, &|key| reader.get(key));
            matches!(checked, Ok(Some(_)))
        })
    }
}
