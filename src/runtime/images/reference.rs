//! Image references as people write them, and what they mean.
//!
//! ```text
//!   busybox                     docker.io/library/busybox:latest
//!   ghcr.io/a/b:1@sha256:…      ghcr.io/a/b@sha256:…     the digest wins
//! ```
//! Source: github.com/distribution/reference, `regexp.go` and `normalize.go`.

use std::fmt;

use super::digest::Digest;
use crate::world::PullError;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";

/// Longest repository name, domain included (distribution/reference `NameTotalLengthMax`).
const NAME_BYTES_MAX: usize = 255;
/// Longest tag (distribution/reference `tag`: `[\w][\w.-]{0,127}`).
const TAG_BYTES_MAX: usize = 128;

/// A parsed, completed reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Registry, with port if it was given: `docker.io`, `localhost:5000`.
    pub domain: String,
    /// Repository path: `library/busybox`.
    pub path: String,
    pub version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// Parses and completes `text`. Errors: `InvalidName` with the text and the reason.
    pub fn parse(text: &str) -> Result<Reference, PullError> {
        parse(text).map_err(|reason| {
            PullError::InvalidName(format!("couldn't parse image name {text:?}: {reason}"))
        })
    }

    /// Registry and path: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository at a digest: `docker.io/library/busybox@sha256:…`.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference {
            version: Version::Digest(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository()),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository()),
        }
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = Digest::parse(digest).ok_or("invalid digest, sha256 is supported")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err("invalid tag");
    }
    if Digest::from_hex(name).is_some() {
        return Err("64 hexadecimal characters are an image id, not a name");
    }
    let (domain, path) = split_domain(name)?;
    let version = match (digest, tag) {
        (Some(digest), _) => Version::Digest(digest),
        (None, Some(tag)) => Version::Tag(tag.to_owned()),
        (None, None) => Version::Tag("latest".to_owned()),
    };
    Ok(Reference {
        domain,
        path,
        version,
    })
}

/// A colon after the last slash starts the tag; an earlier one belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[last..].find(':') {
        // `host:5000` without a slash is name and tag, as upstream has it.
        Some(colon) => (&text[..last + colon], Some(&text[last + colon + 1..])),
        None => (text, None),
    }
}

fn split_domain(name: &str) -> Result<(String, String), &'static str> {
    if name.is_empty() {
        return Err("invalid reference format");
    }
    let names_host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if names_host(first) => (first, rest.to_owned()),
        _ => (DEFAULT_DOMAIN, name.to_owned()),
    };
    let domain = match domain {
        LEGACY_DEFAULT_DOMAIN => DEFAULT_DOMAIN,
        other => other,
    };
    let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
        true => format!("{OFFICIAL_PREFIX}{path}"),
        false => path,
    };
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    if !is_domain(domain) || !path.split('/').all(is_path_component) {
        return Err("invalid reference format");
    }
    if domain.len() + 1 + path.len() > NAME_BYTES_MAX {
        return Err("repository name must not be more than 255 characters");
    }
    Ok((domain.to_owned(), path))
}

/// Host names, IPv4 addresses, `[IPv6]`, each with an optional port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let host_is_fine = match domain.starts_with('[') {
        true => !host.is_empty() && host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        false => host.split('.').all(is_host_component),
    };
    let port_is_fine =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    host_is_fine && port_is_fine
}

fn is_host_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `[a-z0-9]+` runs joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_joint =
        |joint: &str| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-');
    let starts = text.bytes().next().is_some_and(is_word);
    let ends = text.bytes().last().is_some_and(is_word);
    starts
        && ends
        && text
            .split(|c: char| c.is_ascii() && is_word(c as u8))
            .all(is_joint)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_completed_as_distribution_does() {
        let digest = format!("sha256:{HEX}");
        let table = [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("a/b", "docker.io/a/b:latest".to_owned()),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest".to_owned(),
            ),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest".to_owned(),
            ),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t".to_owned()),
            (
                "localhost:5000",
                "docker.io/library/localhost:5000".to_owned(),
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("Registry/a", "Registry/a:latest".to_owned()),
            (
                "ghcr.io/a__b/c-----d.e:V_1",
                "ghcr.io/a__b/c-----d.e:V_1".to_owned(),
            ),
            ("xn--n3h.com/a", "xn--n3h.com/a:latest".to_owned()),
        ];
        for (text, meant) in table {
            assert_eq!(Reference::parse(text).unwrap().to_string(), meant, "{text}");
        }
        let both = format!("busybox:1.36@{digest}");
        let meant = format!("docker.io/library/busybox@{digest}");
        assert_eq!(Reference::parse(&both).unwrap().to_string(), meant);
    }

    #[test]
    fn what_is_no_reference_is_named_as_such() {
        let long = "a/".repeat(128) + "a";
        let long_tag = format!("a:{}", "t".repeat(129));
        let table = [
            "",
            ":t",
            "a:",
            "A",
            "docker.io/A",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a@sha256:12",
            "a@md5:00",
            "a b",
            "a:b c",
            "x.com:port/a",
            "[::1/a",
            "-x.com/a",
            "a:-t",
            "a:t/é",
            "é",
            HEX,
            "http://x.com/a",
            "../a",
            "a/../b",
            &long,
            &long_tag,
        ];
        for text in table {
            let refused = Reference::parse(text);
            assert!(
                matches!(refused, Err(PullError::InvalidName(_))),
                "{text}: {refused:?}"
            );
        }
    }
}
