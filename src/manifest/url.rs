//! The URL source: GET every `--http-check-frequency`, unchanged bytes are no news.
//!
//! Follows redirects only within the same host and never from https to http, so that whoever
//! answers cannot send the node elsewhere. Whatever goes wrong keeps the pods of the last answer.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use http::Uri;

use super::problems::Reported;
use super::source::{self, Decoding, Entry, Parsed, Text};
use crate::object::Source;
use crate::object::gather::Gather;
use crate::registry::Registry;
use crate::world::{Clock, LocalFuture};

/// What a single GET brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The `Location` header, if there is one.
    pub location: Option<String>,
    pub body: Vec<u8>,
}

/// One HTTP hop, given by the composition root.
pub trait Fetch {
    /// GETs `url`, certificates verified, no redirect followed. Errors: a text with the cause; so
    /// too when the body is longer than `bytes_max`.
    fn get<'a>(
        &'a self,
        url: &'a str,
        headers: &'a [(String, String)],
        bytes_max: u64,
    ) -> LocalFuture<'a, Result<Answer, String>>;
}

/// All hops together. Source: Kubernetes pkg/kubelet/config/http.go.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Source: Kubernetes pkg/kubelet/config/common.go (`maxConfigLength`).
const BODY_BYTES_MAX: u64 = 10 << 20;
const REDIRECTS_MAX: u32 = 5;

/// Manifests of `--manifest-url`.
pub struct HttpSource<F> {
    fetch: F,
    url: String,
    headers: Vec<(String, String)>,
    node_name: String,
    check_period: Duration,
    decoding: Decoding,
    parsed: Option<Parsed>,
    reported: Reported,
}

impl<F: Fetch> HttpSource<F> {
    /// `headers` are sent to the URL's own host only.
    pub fn new(
        fetch: F,
        url: &str,
        headers: Vec<(String, String)>,
        node_name: &str,
        check_period: Duration,
        decoding: Decoding,
    ) -> HttpSource<F> {
        HttpSource {
            fetch,
            url: url.to_owned(),
            headers,
            node_name: node_name.to_owned(),
            check_period,
            decoding,
            parsed: None,
            reported: Reported::default(),
        }
    }

    /// Never ends; dropping it stops the source and leaves its pods as they are.
    pub async fn run(mut self, registry: Registry, clock: Rc<dyn Clock>) {
        loop {
            self.turn(&registry, &*clock).await;
            clock.sleep_until(clock.now() + self.check_period).await;
        }
    }

    /// One GET and, if it was answered, one list for the registry.
    pub async fn turn(&mut self, registry: &Registry, clock: &dyn Clock) {
        let too_slow = async {
            clock.sleep_until(clock.now() + TIMEOUT).await;
            Err(format!("no whole answer within {} s", TIMEOUT.as_secs()))
        };
        let body = match future::or(self.get(), too_slow).await {
            Ok(body) => body,
            Err(why) => {
                return self
                    .reported
                    .unreachable(&format!("get {}: {why}", self.url));
            }
        };
        if body.is_empty() {
            // As upstream: an empty body is an empty list, and worth a word.
            log::debug!("get {}: empty body, so no manifests", self.url);
        }
        self.reported.reachable(&self.url);
        let text = Text {
            location: self.url.clone(),
            bytes: body,
            known: self.parsed.take(),
        };
        let decoded = self.decoding.run(vec![text], Source::Http, &self.node_name);
        self.parsed = decoded.await.pop();
        self.hand_over(registry, clock).await;
    }

    /// Unchanged entries cost the registry nothing, and rejected ones get their next chance.
    async fn hand_over(&mut self, registry: &Registry, clock: &dyn Clock) {
        let Some(parsed) = &self.parsed else { return };
        let broken: Vec<_> = parsed
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Broken(problem) => Some(problem.clone()),
                Entry::Object { .. } => None,
            })
            .collect();
        let list = parsed
            .entries
            .iter()
            .map(|entry| source::incoming(entry, registry, clock))
            .collect();
        let troubles = broken
            .iter()
            .map(|problem| (problem.at.to_string(), problem.message.clone()))
            .gathered();
        self.reported.texts(troubles);
        match registry.replace(Source::Http, list).await {
            Ok(replaced) => self.reported.objects(&replaced, &broken, registry),
            Err(error) => self.reported.unreachable(&format!(
                "store manifests: {error}; retrying at the next check"
            )),
        }
    }

    async fn get(&self) -> Result<Vec<u8>, String> {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.fetch.get(&url, &self.headers, BODY_BYTES_MAX).await?;
            match (answer.status, answer.location) {
                (200, _) if answer.body.len() as u64 > BODY_BYTES_MAX => {
                    return Err(format!("body is bigger than {BODY_BYTES_MAX} bytes"));
                }
                (200, _) => return Ok(answer.body),
                (301 | 302 | 303 | 307 | 308, Some(location)) => url = redirect(&url, &location)?,
                (status, _) => return Err(format!("status {status}")),
            }
        }
        Err(format!("more than {REDIRECTS_MAX} redirects"))
    }
}

/// Where `from` may send us. Errors name what it tried.
fn redirect(from: &str, location: &str) -> Result<String, String> {
    let parse = |text: &str| {
        text.parse::<Uri>()
            .map_err(|error| format!("redirect to {text:?}: {error}"))
    };
    let from = parse(from)?;
    let (scheme, authority) = match (from.scheme_str(), from.authority()) {
        (Some(scheme), Some(authority)) => (scheme, authority.as_str()),
        _ => return Err("URL has no host".to_owned()),
    };
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(format!("{scheme}://{authority}{location}"));
    }
    let to = parse(location)?;
    if to.host() != from.host() || to.host().is_none() {
        return Err(format!(
            "redirect to another host is not followed: {location:?}"
        ));
    }
    match (scheme, to.scheme_str()) {
        (_, Some("https")) | ("http", Some("http")) => Ok(location.to_owned()),
        _ => Err(format!(
            "redirect away from https is not followed: {location:?}"
        )),
    }
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
