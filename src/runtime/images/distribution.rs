//! One registry's side of a pull: requests, credentials, redirects, retries.
//!
//! ```text
//!   GET ─► 2xx ─► answer
//!    ├─► 401 ─► challenge ─► Basic, or a token from its realm ─► GET once more
//!    ├─► 3xx ─► next URL; another host gets no credentials, https never becomes http
//!    └─► 429, 5xx, no answer ─► back-off ─► GET, three times at most
//! ```
//! Sources: OCI distribution-spec v1.1; distribution docs/spec/auth (token, oauth).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;

use super::challenge::Challenge;
use super::digest::Digest;
use super::manifest::{MANIFEST_BYTES_MAX, MEDIA_TYPES};
use super::registries::Endpoint;
use crate::net::client::{self, Client, Request, Response};
use crate::net::tls::{self, Trust};
use crate::world::{Clock, Credential, PullError};

/// Tries of one request, and the pause before the second; each further one is twice as long.
pub const TRIES_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// Longest `Retry-After` that a pull waits for; a longer one is the kubelet's back-off's business.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: u32 = 5;
/// Largest answer of a token server.
const TOKEN_BYTES_MAX: u64 = 256 << 10;
/// Who asks. Some token servers refuse requests without a name.
const AGENT: &str = concat!("lowtide/", env!("CARGO_PKG_VERSION"));

/// A repository at one endpoint, with one credential.
pub struct Session {
    pub client: Client,
    pub clock: Rc<dyn Clock>,
    pub endpoint: Endpoint,
    /// `library/busybox`
    pub repository: String,
    pub credential: Option<Credential>,
    pub authorization: RefCell<Option<HeaderValue>>,
}

/// A manifest as served.
pub struct Served {
    pub bytes: Vec<u8>,
    pub media_type: Option<String>,
    pub digest: Digest,
}

impl Session {
    /// Fetches a manifest or index by tag or digest and checks its digest if one was asked for.
    pub async fn manifest(&self, version: &str) -> Result<Served, PullError> {
        let mut headers = HeaderMap::new();
        let accept = HeaderValue::from_str(&MEDIA_TYPES.join(", ")).expect("plain media types");
        headers.insert(header::ACCEPT, accept);
        let what = format!("{}:{version}", self.repository);
        let path = format!("manifests/{version}");
        let mut response = self.get(&path, headers, &what).await?;
        let media_type = response.header("content-type").map(|text| {
            let end = text.find(';').unwrap_or(text.len());
            text[..end].trim().to_owned()
        });
        let bytes = response.bytes(MANIFEST_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| pull_error(&what, error))?;
        let digest = Digest::of(&bytes);
        if let Some(asked) = Digest::parse(version)
            && asked != digest
        {
            let text = format!("manifest {asked} has the digest {digest}: damaged or forged");
            return Err(PullError::Refused(text));
        }
        Ok(Served {
            bytes,
            media_type,
            digest,
        })
    }

    /// Starts reading a blob at byte `from`.
    pub async fn blob(&self, digest: &Digest, from: u64) -> Result<Response, PullError> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-")).expect("digits");
            headers.insert(header::RANGE, range);
        }
        let what = format!("blob {digest}");
        self.get(&format!("blobs/{digest}"), headers, &what).await
    }

    /// A small blob, whole and checked.
    pub async fn small_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, PullError> {
        let mut response = self.blob(digest, 0).await?;
        let bytes = response.bytes(bytes_max).await;
        let bytes = bytes.map_err(|error| pull_error(&format!("blob {digest}"), error))?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(PullError::Refused(format!(
                "blob {digest} is damaged or forged"
            ))),
        }
    }

    async fn get(&self, path: &str, headers: HeaderMap, what: &str) -> Result<Response, PullError> {
        let url = format!("{}/v2/{}/{path}", self.endpoint.base, self.repository);
        let url: Uri = url
            .parse()
            .map_err(|error| PullError::Refused(format!("{url:?} is no URL: {error}")))?;
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let failed = match self.authorised(&url, &headers, what).await {
                Ok(response) => match refusal(&response, what) {
                    None => return Ok(response),
                    Some(PullError::Unreachable(text)) => {
                        pause = retry_after(&response).unwrap_or(pause);
                        text
                    }
                    Some(refused) => return Err(refused),
                },
                Err(PullError::Unreachable(text)) => text,
                Err(refused) => return Err(refused),
            };
            if tries == TRIES_MAX || pause > RETRY_AFTER_MAX {
                return Err(PullError::Unreachable(failed));
            }
            log::debug!("{failed}; trying again in {} s", pause.as_secs());
            self.clock.sleep_until(self.clock.now() + pause).await;
            tries += 1;
            pause *= 2;
        }
    }

    /// Sends with what authorisation there is; a challenge is answered once.
    async fn authorised(
        &self,
        url: &Uri,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<Response, PullError> {
        let response = self.follow(url, headers, what).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges = response.headers.get_all(header::WWW_AUTHENTICATE);
        let challenge = challenges
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let authorization = match challenge {
            None => return Ok(response),
            Some(Challenge::Basic) => match &self.credential {
                Some(Credential::Basic { username, password }) => basic(username, password)?,
                Some(Credential::IdentityToken(_)) | None => return Ok(response),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => self.token(&realm, service, scope).await?,
        };
        drop(response);
        *self.authorization.borrow_mut() = Some(authorization);
        self.follow(url, headers, what).await
    }

    /// Follows redirects. Our authorisation goes to the registry's own origin and nowhere else; an
    /// answer 401 of another host is not a challenge to us.
    async fn follow(
        &self,
        url: &Uri,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<Response, PullError> {
        let mut target = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let at_home = same_origin(&target, url);
            let mut headers = headers.clone();
            if at_home && let Some(authorization) = &*self.authorization.borrow() {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            let tls = match at_home {
                true => self.endpoint.tls.clone(),
                false => tls::client_config(&Trust::default()).map_err(PullError::Local)?,
            };
            let mut response = self
                .send(Method::GET, &target, headers, Bytes::new(), tls)
                .await?;
            if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                if !at_home {
                    response.headers.remove(header::WWW_AUTHENTICATE);
                }
                return Ok(response);
            }
            let location = response.header("location").unwrap_or_default();
            let next = client::join(&target, location).ok_or_else(|| {
                PullError::Refused(format!(
                    "{what}: redirected to {location:?}, which is no URL"
                ))
            })?;
            if target.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                let text = format!("{what}: redirected from https to {next}, which is not secure");
                return Err(PullError::Refused(text));
            }
            target = next;
        }
        let text = format!("{what}: more than {REDIRECTS_MAX} redirects");
        Err(PullError::Refused(text))
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<HeaderValue, PullError> {
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let refuse = |why: &str| PullError::Refused(format!("token server {realm}: {why}"));
        let url: Uri = realm.parse().map_err(|_| refuse("not a URL"))?;
        if self.credential.is_some() && !self.may_hold_credentials(&url) {
            return Err(refuse("credentials are not sent over plain HTTP"));
        }
        let service = service.unwrap_or_default();
        let query = form(&[("service", &service), ("scope", &scope)]);
        let mut headers = HeaderMap::new();
        let (method, target, body) = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(header::CONTENT_TYPE, kind);
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "lowtide"),
                    ("refresh_token", token),
                ];
                let body = format!("{}&{query}", form(&fields));
                (Method::POST, realm.to_owned(), Bytes::from(body))
            }
            credential => {
                if let Some(Credential::Basic { username, password }) = credential {
                    headers.insert(header::AUTHORIZATION, basic(username, password)?);
                }
                let joint = if realm.contains('?') { '&' } else { '?' };
                (Method::GET, format!("{realm}{joint}{query}"), Bytes::new())
            }
        };
        let target: Uri = target.parse().map_err(|_| refuse("not a URL"))?;
        let tls = self.endpoint.tls.clone();
        let mut response = self.send(method, &target, headers, body, tls).await?;
        if let Some(refused) = refusal(&response, &format!("token server {realm}")) {
            return Err(refused);
        }
        let bytes = response.bytes(TOKEN_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| pull_error(realm, error))?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| refuse("not JSON"))?;
        let token = answer.get("token").or_else(|| answer.get("access_token"));
        let token = token
            .and_then(Value::as_str)
            .ok_or_else(|| refuse("no token in the answer"))?;
        secret(&format!("Bearer {token}"))
    }

    /// Over TLS to whomever the registry names; in the clear only to a registry's own host that is
    /// configured to be plain anyway.
    fn may_hold_credentials(&self, url: &Uri) -> bool {
        let home: Option<Uri> = self.endpoint.base.parse().ok();
        let home_is_plain = self.endpoint.base.starts_with("http://");
        match url.scheme_str() {
            Some("https") => true,
            _ => home_is_plain && home.is_some_and(|home| home.host() == url.host()),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
        tls: std::sync::Arc<rustls::ClientConfig>,
    ) -> Result<Response, PullError> {
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        if !body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let request = Request {
            method,
            url: url.clone(),
            headers,
            body,
            tls,
        };
        let host = url.host().unwrap_or_default().to_owned();
        let sent = self.client.send(request).await;
        sent.map_err(|error| pull_error(&host, error))
    }
}

/// What an answer that is no success means for the pull.
fn refusal(response: &Response, what: &str) -> Option<PullError> {
    let status = response.status;
    let text = |meaning: &str| format!("{what}: {meaning} (HTTP status {})", status.as_u16());
    match status.as_u16() {
        200..=299 => None,
        401 => Some(PullError::Refused(text("authorization failed"))),
        403 => Some(PullError::Refused(text("access denied"))),
        404 => Some(PullError::Refused(text("not found"))),
        429 => Some(PullError::Unreachable(text("too many requests"))),
        500..=599 => Some(PullError::Unreachable(text("the registry failed"))),
        _ => Some(PullError::Refused(text("unexpected answer"))),
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

pub(super) fn pull_error(what: &str, error: client::Error) -> PullError {
    let text = format!("{what}: {error}");
    match error {
        client::Error::Timeout(_) | client::Error::Broken(_) => PullError::Unreachable(text),
        client::Error::Protocol(_) | client::Error::Request(_) => PullError::Refused(text),
    }
}

fn same_origin(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, PullError> {
    let packed = STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {packed}"))
}

fn secret(text: &str) -> Result<HeaderValue, PullError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| PullError::Refused("a credential holds control characters".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `application/x-www-form-urlencoded`, empty values left out.
fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let fields = fields.iter().filter(|(_, value)| !value.is_empty());
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    fields.join("&")
}
