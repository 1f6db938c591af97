//! A network peer, and who its client certificate is.
//!
//! Source: Kubernetes apiserver, authentication/request/x509 (CommonNameUserConversion).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use super::Files;
use super::secret_file::authenticated;
use crate::apiserver::Door;
use crate::net::certificates;
use crate::object::User;
use crate::object::user::USER_ANONYMOUS;

/// What a connection proved before its first request.
#[derive(Debug)]
pub enum Peer {
    /// `RUN/api.sock`, by peer uid.
    Local,
    Network(Network),
}

impl Peer {
    /// Where it came to.
    pub fn door(&self) -> Door {
        match self {
            Peer::Local => Door::Api,
            Peer::Network(network) => network.door,
        }
    }

    /// Notes that a request was from `user`, who may be nobody in particular.
    pub fn introduce(&self, user: &User) {
        if let Peer::Network(network) = self
            && user.name != USER_ANONYMOUS
        {
            network.introduced.set(true);
        }
    }
}

/// A connection over TLS.
#[derive(Debug)]
pub struct Network {
    pub address: SocketAddr,
    /// The client's certificates, its own first: it holds the key, nothing more is known.
    pub chain: Vec<CertificateDer<'static>>,
    /// Verifying is two signatures: done once for a connection and a set of files.
    known: RefCell<Option<Known>>,
    /// Set once the peer has shown who it is.
    introduced: Rc<Cell<bool>>,
    pub door: Door,
}

/// A verified certificate, until it expires or the files are read anew.
#[derive(Debug)]
struct Known {
    files: Weak<Files>,
    user: Option<Arc<User>>,
    from: Timestamp,
    until: Timestamp,
}

impl Network {
    pub fn new(address: SocketAddr, chain: Vec<CertificateDer<'static>>) -> Network {
        Network {
            address,
            chain,
            known: RefCell::default(),
            introduced: Rc::default(),
            door: Door::Api,
        }
    }

    /// One that came to this door.
    pub fn at(self, door: Door) -> Network {
        Network { door, ..self }
    }

    /// Tells `introduced` when the peer has shown who it is.
    pub fn telling(self, introduced: Rc<Cell<bool>>) -> Network {
        Network { introduced, ..self }
    }

    /// Who the certificate is: CN the user, each O a group. `None`: good, but names nobody.
    /// Errors: why it does not count now.
    pub(super) fn user(
        &self,
        files: &Arc<Files>,
        now: Timestamp,
    ) -> Result<Option<Arc<User>>, String> {
        if let Some(known) = &*self.known.borrow()
            && std::ptr::eq(known.files.as_ptr(), Arc::as_ptr(files))
            && known.from <= now
            && now <= known.until
        {
            return Ok(known.user.clone());
        }
        self.known.take();
        files.trust.verify(&self.chain, now)?;
        let mut ends = self.chain.iter().map(certificates::facts);
        let own = ends.next().ok_or("no certificate")??;
        // Those between may end before it; those that are not used do no harm by ending.
        let mut until = own.validity.until;
        for between in ends.flatten() {
            until = until.min(between.validity.until);
        }
        let user = (!own.common_name.is_empty()).then(|| {
            let mut user = User {
                name: own.common_name.clone(),
                groups: own.organizations.clone(),
                ..User::default()
            };
            let hash = digest(&SHA256, &self.chain[0]);
            let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            let id = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(id, vec![format!("X509SHA256={hash}")]);
            Arc::new(authenticated(&user))
        });
        *self.known.borrow_mut() = Some(Known {
            files: Arc::downgrade(files),
            user: user.clone(),
            from: own.validity.from,
            until,
        });
        Ok(user)
    }
}
