//! Who asks: from a connection and a request's headers to a [`User`].
//!
//! ```text
//!   local socket ─────────────────────────────────────────► system:admin
//!   client certificate ─► own CA, --client-ca-file ──► CN, O   ┐ the first that knows
//!   Authorization: Bearer ─► token file, service accounts      ├ the caller is it
//!   Authorization: Basic ──► password file                     ┘
//!   nothing ───────────────► --anonymous-auth, else 401
//! ```
//! A credential that is wrong is 401, even where anonymous requests are let in; what is no credential
//! that is read here, an empty token or another scheme, is nothing. A wrong certificate beside a good
//! token does no harm. Secrets are compared in constant time and never logged.
//! Source: Kubernetes apiserver, authentication/request/union and kubeapiserver/authenticator.

mod basic_file;
mod claim;
mod csv;
mod impersonate;
mod review;
mod secret_file;
mod token_file;
mod x509;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use self::basic_file::BasicFile;
pub use self::claim::Claim;
pub use self::impersonate::impersonate;
pub use self::review::Asked;
use self::secret_file::{Loaded, authenticated};
use self::token_file::TokenFile;
pub use self::x509::{Network, Peer};
use super::Shared;
use super::backend::{self, Write, WriteRequest};
use super::status::{Refusal, json_response};
use super::write::{body, refusals};
use crate::net::serve::{Request, Response};
use crate::net::tls_server::{ClientTrust, authorities};
use crate::object::token::{API_AUDIENCE, Checked, Issuer};
use crate::object::user::{
    GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_UNAUTHENTICATED, USER_ANONYMOUS,
};
use crate::object::{Key, Kind, Source, User};
use crate::registry::{Actor, Reader};

/// What a browser calls the subprotocol that carries a token in its name.
/// Source: Kubernetes apiserver, authentication/request/websocket.
const PROTOCOL_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// The files that say who is who, by flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// `--client-ca-file`
    pub client_ca: Option<PathBuf>,
    /// `--token-auth-file`
    pub tokens: Option<PathBuf>,
    /// `--basic-auth-file`
    pub passwords: Option<PathBuf>,
}

/// What the files say, read at one time.
#[derive(Debug)]
pub struct Files {
    trust: ClientTrust,
    authorities: Vec<CertificateDer<'static>>,
    tokens: TokenFile,
    passwords: Option<BasicFile>,
    /// To be told once.
    pub warnings: Vec<String>,
}

impl Files {
    /// Reads all of them; `own_ca` (PEM) is trusted too. Errors: flag, file, line, what is wrong.
    pub fn load(paths: &Paths, own_ca: &str) -> Result<Files, String> {
        let mut warnings = Vec::new();
        let mut all = match own_ca {
            "" => Vec::new(),
            own => authorities(own.as_bytes())?,
        };
        if let Some(path) = &paths.client_ca {
            let told = |why: String| format!("--client-ca-file: {}: {why}", path.display());
            let pem = std::fs::read(path).map_err(|error| told(error.to_string()))?;
            let given = authorities(&pem).map_err(told)?;
            ClientTrust::new(&given).map_err(told)?;
            all.extend(given);
        }
        let tokens = load(
            "token-auth-file",
            &paths.tokens,
            TokenFile::load,
            &mut warnings,
        )?;
        let passwords = load(
            "basic-auth-file",
            &paths.passwords,
            BasicFile::load,
            &mut warnings,
        )?;
        Ok(Files {
            trust: ClientTrust::new(&all)?,
            authorities: all,
            tokens: tokens.unwrap_or_default(),
            passwords,
            warnings,
        })
    }

    /// The CAs of client certificates.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }
}

fn load<T>(
    flag: &str,
    path: &Option<PathBuf>,
    read: impl Fn(&Path) -> Result<Loaded<T>, String>,
    warnings: &mut Vec<String>,
) -> Result<Option<T>, String> {
    let Some(path) = path else { return Ok(None) };
    let loaded = read(path).map_err(|why| format!("--{flag}: {why}"))?;
    warnings.extend(loaded.warnings);
    Ok(Some(loaded.content))
}

/// The authenticators in order. Clones share what a reload changes.
#[derive(Clone)]
pub struct Authenticator {
    local: Arc<User>,
    files: Arc<Mutex<Arc<Files>>>,
    accounts: Option<(Arc<Issuer>, Reader)>,
    anonymous: bool,
}

impl Default for Authenticator {
    /// Knows the local socket only.
    fn default() -> Authenticator {
        let nothing = Files::load(&Paths::default(), "").expect("no file is read");
        Authenticator::new(nothing, None, false)
    }
}

impl Authenticator {
    /// `accounts`: whose service account tokens count, and where the accounts are.
    pub fn new(
        files: Files,
        accounts: Option<(Arc<Issuer>, Reader)>,
        anonymous: bool,
    ) -> Authenticator {
        let groups = [GROUP_MASTERS, GROUP_AUTHENTICATED];
        Authenticator {
            local: Arc::new(User::new("system:admin", &groups)),
            files: Arc::new(Mutex::new(Arc::new(files))),
            accounts,
            anonymous,
        }
    }

    /// Who signs tokens of service accounts here.
    pub fn issuer(&self) -> Option<Arc<Issuer>> {
        self.accounts.as_ref().map(|(issuer, _)| issuer.clone())
    }

    /// Requests from now on are judged by these files, those of open connections too.
    pub fn replace(&self, files: Files) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(files);
    }

    fn files(&self) -> Arc<Files> {
        let files = self.files.lock();
        files.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who a request is from. Errors: 401, always in the same words; why is in the debug log.
    pub fn user(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Arc<User>, Refusal> {
        let network = match peer {
            Peer::Local => return Ok(self.local.clone()),
            Peer::Network(network) => network,
        };
        let files = self.files();
        let mut problems = Vec::new();
        if !network.chain.is_empty() {
            match network.user(&files, now) {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(why) => problems.push(why),
            }
        }
        match credential(headers) {
            Ok(Some(Credential::Bearer(token))) => match self.bearer(&files, &token, &[], now) {
                Ok(Some(checked)) => return Ok(Arc::new(authenticated(&checked.user))),
                Ok(None) => problems.push("invalid bearer token".to_owned()),
                Err(why) => problems.push(why),
            },
            Ok(Some(Credential::Basic(name, password))) => {
                // Without a file nobody reads passwords.
                if let Some(passwords) = &files.passwords {
                    match passwords.user(&name, &password) {
                        Some(user) => return Ok(Arc::new(authenticated(&user))),
                        None => problems.push("invalid username/password combination".to_owned()),
                    }
                }
            }
            Ok(None) => {}
            Err(why) => problems.push(why.to_owned()),
        }
        if problems.is_empty() && self.anonymous {
            let user = User::new(USER_ANONYMOUS, &[GROUP_UNAUTHENTICATED]);
            return Ok(Arc::new(user));
        }
        if !problems.is_empty() {
            let address = network.address;
            log::debug!("{address} is not authenticated: [{}]", problems.join(", "));
        }
        Err(Refusal::unauthorized())
    }

    /// Who a bearer token is. `Ok(None)`: nobody knows it. Errors: somebody does, and says no.
    fn bearer(
        &self,
        files: &Files,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Checked>, String> {
        // A token of the file is for the API and nobody else.
        let for_api = audiences.is_empty() || audiences.iter().any(|a| a == API_AUDIENCE);
        if for_api && let Some(user) = files.tokens.user(token) {
            return Ok(Some(Checked {
                user: (*user).clone(),
                audiences: vec![API_AUDIENCE.to_owned()],
            }));
        }
        match &self.accounts {
            Some((issuer, reader)) => issuer.check(token, audiences, now, &|key| reader.get(key)),
            None => Ok(None),
        }
    }
}

/// Answers what is asked about identities.
pub(super) async fn answer(
    shared: Rc<Shared>,
    user: Arc<User>,
    request: Request,
    asked: Asked,
) -> Result<Response, Refusal> {
    if request.method() != http::Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let sent = body::sent(request, &shared).await?;
    let now = shared.clock.credible();
    let authenticator = &shared.options.authenticator;
    if let Asked::Token { namespace, name } = &asked {
        let key = Key::local(Kind::ServiceAccount, namespace, name);
        let actor = Actor {
            subresource: "token",
            ..Actor::new(Source::Api, user.clone())
        };
        let write = Write::Act(sent.value.clone());
        let request = WriteRequest { actor, key, write };
        let admitted = shared
            .backend
            .ask(|reply| backend::Request::Write(request, reply));
        let refused = |error| refusals::refusal(error, &shared.reader);
        admitted.await?.map_err(refused)?;
    }
    let answer = review::answer(&asked, authenticator, &user, &sent.value, now)?;
    Ok(json_response(http::StatusCode::CREATED, &answer))
}

enum Credential {
    Bearer(String),
    Basic(String, String),
}

/// What the headers claim; schemes that nobody here reads, and empty tokens, claim nothing.
/// Errors: a token that cannot be read.
/// Source: Kubernetes apiserver, authentication/request/{bearertoken,websocket}.
fn credential(headers: &HeaderMap) -> Result<Option<Credential>, &'static str> {
    let stated = headers.get(header::AUTHORIZATION);
    if let Some(text) = stated.and_then(|value| value.to_str().ok()) {
        let mut words = text.trim().split(' ');
        let scheme = words.next().unwrap_or_default().to_ascii_lowercase();
        let claimed = words.next().unwrap_or_default();
        match scheme.as_str() {
            "bearer" if !claimed.is_empty() => {
                return Ok(Some(Credential::Bearer(claimed.to_owned())));
            }
            "basic" => return Ok(basic(claimed)),
            _ => {}
        }
    }
    let names = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = names.filter_map(|value| value.to_str().ok());
    let names = names.flat_map(|value| value.split(',').map(str::trim));
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        names.partition(|name| name.starts_with(PROTOCOL_BEARER));
    let encoded = match tokens.as_slice() {
        [] => return Ok(None),
        [one] => one.strip_prefix(PROTOCOL_BEARER).unwrap_or_default(),
        _ => return Err("several bearer subprotocols"),
    };
    let token = URL_SAFE_NO_PAD.decode(encoded).ok();
    let token = token.and_then(|bytes| String::from_utf8(bytes).ok());
    match token.ok_or("invalid bearer subprotocol")? {
        empty if empty.is_empty() => Ok(None),
        // One is answered, and that cannot be the token.
        _ if others.is_empty() => Err("missing additional subprotocol"),
        token => Ok(Some(Credential::Bearer(token))),
    }
}

/// `None` for what is no name and password.
fn basic(encoded: &str) -> Option<Credential> {
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some(Credential::Basic(name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests;
