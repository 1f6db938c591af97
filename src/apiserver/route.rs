//! From a path to what is asked for. Pure: whether it exists, and whether it is allowed, is decided
//! by others on this one result, so that no two parts read a path differently.

use super::query::decode;
use crate::object::Kind;

/// What a request path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Version,
    /// `healthz`, `livez`, `readyz`, and one check by name.
    Health(Option<String>),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/api/v1`
    CoreResources,
    /// `namespace` is `None` for all of them, and for kinds that have none.
    Collection {
        kind: Kind,
        namespace: Option<String>,
    },
    Object(Place),
    Log(Place),
    Exec(Place),
    /// `/lowtide/v1/images`
    Images,
    ImagePull,
    ImageImport,
    NodeStatus,
    /// `/lowtide/v1/standing/…`: where an object was written down and whether that text is in use.
    Standing(Place),
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: Kind,
    /// Empty for kinds that have none.
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// `None` for a path that nothing is at.
    pub fn parse(path: &str) -> Option<Target> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<String> = path
            .split('/')
            .map(|segment| decode(segment).ok().filter(|s| is_segment(s)))
            .collect::<Option<_>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["version"] => Some(Target::Version),
            ["healthz" | "livez" | "readyz"] => Some(Target::Health(None)),
            ["healthz" | "livez" | "readyz", check] => {
                Some(Target::Health(Some((*check).to_owned())))
            }
            ["api"] => Some(Target::CoreVersions),
            ["apis"] => Some(Target::Groups),
            ["api", "v1"] => Some(Target::CoreResources),
            ["api", "v1", rest @ ..] => core(rest),
            ["lowtide", "v1", rest @ ..] => own(rest),
            _ => None,
        }
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0', '%'])
}

fn core(segments: &[&str]) -> Option<Target> {
    let (namespace, rest) = match segments {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        all => (None, all),
    };
    let (resource, rest) = rest.split_first()?;
    let kind = Kind::from_plural(resource)?;
    // A cluster-scoped kind has no namespace in its path, a namespaced object must have one.
    if namespace.is_some() && !kind.namespaced() {
        return None;
    }
    let place = |name: &str| Place {
        kind,
        namespace: namespace.unwrap_or_default().to_owned(),
        name: name.to_owned(),
    };
    match rest {
        [] => Some(Target::Collection {
            kind,
            namespace: namespace.map(str::to_owned),
        }),
        _ if kind.namespaced() && namespace.is_none() => None,
        [name] => Some(Target::Object(place(name))),
        [name, "log"] if kind == Kind::Pod => Some(Target::Log(place(name))),
        [name, "exec"] if kind == Kind::Pod => Some(Target::Exec(place(name))),
        _ => None,
    }
}

fn own(segments: &[&str]) -> Option<Target> {
    match segments {
        ["images"] => Some(Target::Images),
        ["images", "pull"] => Some(Target::ImagePull),
        ["images", "import"] => Some(Target::ImageImport),
        ["status"] => Some(Target::NodeStatus),
        ["standing", rest @ ..] => match core(rest)? {
            Target::Object(place) => Some(Target::Standing(place)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kind: Kind, namespace: &str, name: &str) -> Place {
        Place {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn paths_name_what_they_say() {
        let collection = |kind, namespace: Option<&str>| Target::Collection {
            kind,
            namespace: namespace.map(str::to_owned),
        };
        let table = [
            ("/version", Target::Version),
            ("/readyz/ping", Target::Health(Some("ping".to_owned()))),
            ("/api/", Target::CoreVersions),
            ("/api/v1", Target::CoreResources),
            ("/api/v1/pods", collection(Kind::Pod, None)),
            ("/api/v1/namespaces", collection(Kind::Namespace, None)),
            (
                "/api/v1/namespaces/a%2Db/pods",
                collection(Kind::Pod, Some("a-b")),
            ),
            (
                "/api/v1/namespaces/a",
                Target::Object(place(Kind::Namespace, "", "a")),
            ),
            (
                "/api/v1/nodes/n.x",
                Target::Object(place(Kind::Node, "", "n.x")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/log",
                Target::Log(place(Kind::Pod, "a", "p")),
            ),
            (
                "/api/v1/namespaces/a/pods/p/exec",
                Target::Exec(place(Kind::Pod, "a", "p")),
            ),
            (
                "/lowtide/v1/standing/namespaces/a/pods/p",
                Target::Standing(place(Kind::Pod, "a", "p")),
            ),
        ];
        for (path, target) in table {
            assert_eq!(Target::parse(path), Some(target), "{path}");
        }
    }

    #[test]
    fn crooked_paths_name_nothing() {
        let table = [
            "",
            "/",
            "pods",
            "/api//v1",
            "/api/v1/../v1/pods",
            "/api/v1/namespaces/%2e%2e/pods",
            "/api/v1/namespaces/a%2fb/pods",
            "/api/v1/pods/p",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/secrets/s/log",
            "/api/v1/namespaces/a/pods/p/log/x",
            "/apis/apps/v1/deployments",
        ];
        for path in table {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }
}
