//! The options of lists, watches and deletions of collections, and whether they go together. Pure.
//!
//! Source: Kubernetes apimachinery, apis/meta/internalversion/validation; apiserver, storage/continue.go
//! and storage/interfaces.go (which version a list shows).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::format::ShownAs;
use super::query::Query;
use super::selector::Selector;
use super::status::Refusal;
use crate::object::Kind;

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// What a list is narrowed to, which state of the world it shows, and where it starts.
#[derive(Debug)]
pub struct ListOptions {
    pub selector: Selector,
    pub limit: Option<usize>,
    pub at: At,
    pub resume: Option<Resume>,
}

/// The state that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest, which must not be older than this version.
    NotOlderThan(u64),
    /// The one of this version and no other.
    Exactly(u64),
}

/// A decoded `continue` token: upstream's shape, opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The version of the first chunk. `None`: whatever is there now, since that version is no longer
    /// known.
    pub version: Option<u64>,
    /// The last object of the chunk before.
    pub namespace: String,
    pub name: String,
}

impl Resume {
    pub fn token(&self) -> String {
        let start = format!("{}/{}", self.namespace, self.name);
        let version = match self.version {
            Some(version) => json!(version),
            None => json!(-1),
        };
        let token = json!({"v": TOKEN_VERSION, "rv": version, "start": start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    /// Errors: upstream's words for what is wrong.
    fn parse(token: &str) -> Result<Resume, String> {
        const INVALID: &str = "continue key is not valid";
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| INVALID)?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| INVALID)?;
        let version = token["v"].as_str().unwrap_or_default();
        if version != TOKEN_VERSION {
            return Err(format!(
                "{INVALID}: server does not recognize this encoded version {version}"
            ));
        }
        let version = match token["rv"].as_i64() {
            None | Some(0) => {
                return Err(format!(
                    "{INVALID}: incorrect encoded start resourceVersion (version {TOKEN_VERSION})"
                ));
            }
            Some(version) => u64::try_from(version).ok(),
        };
        let start = token["start"].as_str().unwrap_or_default();
        let Some((namespace, name)) = start.split_once('/') else {
            return Err(format!(
                "{INVALID}: encoded start key empty (version {TOKEN_VERSION})"
            ));
        };
        Ok(Resume {
            version,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl ListOptions {
    /// Of a list or a deletion of a collection. Errors: 422 for what does not go together, 400 for what
    /// cannot be read.
    pub fn parse(kind: Kind, shown: ShownAs, query: &Query) -> Result<ListOptions, Refusal> {
        let causes = check_list(query);
        if !causes.is_empty() {
            return Err(Refusal::invalid_options("ListOptions", &causes));
        }
        let version = query.number("resourceVersion")?.unwrap_or_default();
        let limit = query.number("limit")?.filter(|limit| *limit > 0);
        let token = query.get("continue").map(Resume::parse).transpose();
        let resume =
            token.map_err(|why| Refusal::bad_request(format!("invalid continue token: {why}")))?;
        let exact = query.get("resourceVersionMatch") == Some("Exact");
        // Before there was a match, a limit made a version an exact one.
        let exact = exact || query.get("resourceVersionMatch").is_none() && limit.is_some();
        let at = match &resume {
            Some(_) if version > 0 => {
                let text = "specifying resource version is not allowed when using continue";
                return Err(Refusal::bad_request(text));
            }
            Some(resume) => resume.version.map_or(At::NotOlderThan(0), At::Exactly),
            None if exact && version > 0 => At::Exactly(version),
            None => At::NotOlderThan(version),
        };
        Ok(ListOptions {
            selector: Selector::of_query(kind, shown, query)?,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            at,
            resume,
        })
    }
}

/// How a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialEvents {
    Sent,
    Left,
    /// As before WatchList: sent without an end mark if no version is given.
    Default,
}

impl InitialEvents {
    /// Errors: 422 for options of a watch that do not go together.
    pub fn parse(query: &Query) -> Result<InitialEvents, Refusal> {
        let causes = check_watch(query);
        if !causes.is_empty() {
            return Err(Refusal::invalid_options("ListOptions", &causes));
        }
        Ok(match query.get("sendInitialEvents") {
            None => InitialEvents::Default,
            Some(_) if query.is_set("sendInitialEvents") => InitialEvents::Sent,
            Some(_) => InitialEvents::Left,
        })
    }
}

type Causes = Vec<(String, String)>;

const MATCH: &str = "resourceVersionMatch";

fn cause(field: &str, what: impl Into<String>) -> (String, String) {
    (field.to_owned(), what.into())
}

fn check_list(query: &Query) -> Causes {
    let mut causes = Causes::new();
    let version = query.get("resourceVersion");
    if let Some(matching) = query.get(MATCH) {
        if version.is_none() {
            let what =
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
            causes.push(cause(MATCH, what));
        }
        if query.get("continue").is_some() {
            causes.push(cause(MATCH, WITH_CONTINUE));
        }
        match matching {
            "Exact" if version == Some("0") => {
                let what = "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \
                            \"0\"";
                causes.push(cause(MATCH, what));
            }
            "Exact" | "NotOlderThan" => {}
            other => {
                let what = format!(
                    "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
                );
                causes.push(cause(MATCH, what));
            }
        }
    }
    if query.get("sendInitialEvents").is_some() {
        let what = "Forbidden: sendInitialEvents is forbidden for list";
        causes.push(cause("sendInitialEvents", what));
    }
    causes
}

const WITH_CONTINUE: &str =
    "Forbidden: resourceVersionMatch is forbidden when continue is provided";

fn check_watch(query: &Query) -> Causes {
    let mut causes = Causes::new();
    let matching = query.get(MATCH);
    let asked = query.get("sendInitialEvents").is_some();
    if asked && matching != Some("NotOlderThan") {
        let what =
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        causes.push(cause(MATCH, what));
    }
    let Some(matching) = matching else {
        return causes;
    };
    if !asked {
        let what = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                    provided";
        causes.push(cause(MATCH, what));
    }
    if matching != "NotOlderThan" {
        let what = format!("Unsupported value: {matching:?}: supported values: \"NotOlderThan\"");
        causes.push(cause(MATCH, what));
    }
    if query.get("continue").is_some() {
        causes.push(cause(MATCH, WITH_CONTINUE));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("a query")
    }

    #[test]
    fn continue_tokens_come_back_as_they_went() {
        for version in [Some(42), None] {
            let resume = Resume {
                version,
                namespace: "kube-system".to_owned(),
                name: "a.b".to_owned(),
            };
            assert_eq!(Resume::parse(&resume.token()), Ok(resume));
        }
        let of = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for (token, why) in [
            ("%%%".to_owned(), "continue key is not valid"),
            (of("nonsense"), "continue key is not valid"),
            (
                of("{\"v\":\"v2\",\"rv\":1}"),
                "continue key is not valid: server does not recognize",
            ),
            (
                of("{\"v\":\"meta.k8s.io/v1\",\"start\":\"a/b\"}"),
                "incorrect encoded start",
            ),
            (
                of("{\"v\":\"meta.k8s.io/v1\",\"rv\":1}"),
                "encoded start key empty",
            ),
        ] {
            let refused = Resume::parse(&token).expect_err("must refuse");
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_list_shows_the_version_that_is_asked_for() {
        for (text, at) in [
            ("", At::NotOlderThan(0)),
            ("resourceVersion=0", At::NotOlderThan(0)),
            ("resourceVersion=5", At::NotOlderThan(5)),
            ("resourceVersion=5&limit=0", At::NotOlderThan(5)),
            ("resourceVersion=5&limit=2", At::Exactly(5)),
            ("resourceVersion=0&limit=2", At::NotOlderThan(0)),
            (
                "resourceVersion=5&resourceVersionMatch=Exact",
                At::Exactly(5),
            ),
            (
                "resourceVersion=5&resourceVersionMatch=NotOlderThan&limit=2",
                At::NotOlderThan(5),
            ),
        ] {
            let options = ListOptions::parse(Kind::Pod, ShownAs::Stored, &query(text));
            assert_eq!(options.expect(text).at, at, "{text}");
        }
    }

    #[test]
    fn options_of_a_list_that_do_not_go_together_are_named() {
        let unless = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
                      resourceVersion is provided";
        for (text, message) in [
            ("resourceVersionMatch=Exact", unless.to_owned()),
            (
                "resourceVersionMatch=Best",
                format!(
                    "[{unless}, resourceVersionMatch: Unsupported value: \"Best\": supported values: \
                     \"Exact\", \"NotOlderThan\", \"\"]"
                ),
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for \
                 resourceVersion \"0\""
                    .to_owned(),
            ),
            (
                "sendInitialEvents=false",
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".to_owned(),
            ),
        ] {
            let refused = ListOptions::parse(Kind::Pod, ShownAs::Stored, &query(text));
            let refused = refused.expect_err("must refuse");
            let expected = format!("ListOptions.meta.k8s.io \"\" is invalid: {message}");
            assert_eq!((refused.code.as_u16(), refused.message), (422, expected));
        }
        let token = Resume {
            version: Some(4),
            namespace: "a".to_owned(),
            name: "b".to_owned(),
        };
        let text = format!("resourceVersion=5&continue={}", token.token());
        let refused = ListOptions::parse(Kind::Pod, ShownAs::Stored, &query(&text));
        assert_eq!(
            refused.expect_err("must refuse").message,
            "specifying resource version is not allowed when using continue"
        );
    }

    #[test]
    fn a_watch_begins_as_its_options_say() {
        let begin = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        for (text, expected) in [
            ("", Ok(InitialEvents::Default)),
            ("resourceVersion=7", Ok(InitialEvents::Default)),
            (begin, Ok(InitialEvents::Sent)),
            (
                "sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
                Ok(InitialEvents::Left),
            ),
            ("sendInitialEvents=true", Err(1)),
            ("sendInitialEvents=true&resourceVersionMatch=Exact", Err(2)),
            ("resourceVersionMatch=NotOlderThan", Err(1)),
            ("resourceVersionMatch=Exact&continue=x", Err(3)),
        ] {
            let parsed = InitialEvents::parse(&query(text)).map_err(|refusal| {
                let causes = refusal.status()["details"]["causes"].clone();
                causes.as_array().map_or(0, Vec::len)
            });
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
