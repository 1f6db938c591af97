//! Paths of the cluster's API. Pure.

use crate::object::{Key, Kind};

/// How long a watch is asked to last, in seconds; then it is opened again. Long, since each opening
/// costs a metered link a kilobyte.
const WATCH_S: u64 = 1800;

/// Some objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selection {
    pub kind: Kind,
    /// Empty: all of them.
    pub namespace: String,
    /// `spec.nodeName=pi`; empty: no selector.
    pub fields: String,
}

/// `/api/v1/namespaces/NS/pods`, `/apis/GROUP/VERSION/…`
pub fn collection(kind: Kind, namespace: &str) -> String {
    let root = match kind.group() {
        "" => format!("/api/{}", kind.version()),
        group => format!("/apis/{group}/{}", kind.version()),
    };
    match namespace {
        "" => format!("{root}/{}", kind.plural()),
        namespace => format!("{root}/namespaces/{namespace}/{}", kind.plural()),
    }
}

pub fn object(key: &Key) -> String {
    let collection = collection(key.kind, &key.namespace);
    format!("{collection}/{}", key.name)
}

impl Selection {
    fn query(&self, more: &str) -> String {
        let collection = collection(self.kind, &self.namespace);
        let fields = self.fields.replace('=', "%3D");
        match fields.as_str() {
            "" => format!("{collection}?{more}"),
            fields => format!("{collection}?fieldSelector={fields}&{more}"),
        }
    }

    /// A page of the list.
    pub fn list(&self, continue_at: &str) -> String {
        match continue_at {
            "" => self.query("limit=500"),
            token => self.query(&format!("limit=500&continue={token}")),
        }
    }

    pub fn watch(&self, version: &str) -> String {
        let rest = format!("timeoutSeconds={WATCH_S}&allowWatchBookmarks=true");
        self.query(&format!("watch=true&resourceVersion={version}&{rest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pods = Selection {
            kind: Kind::Pod,
            namespace: String::new(),
            fields: "spec.nodeName=pi".to_owned(),
        };
        let from = "/api/v1/pods?fieldSelector=spec.nodeName%3Dpi";
        assert_eq!(pods.list(""), format!("{from}&limit=500"));
        assert_eq!(pods.list("t"), format!("{from}&limit=500&continue=t"));
        let watch = "watch=true&resourceVersion=7&timeoutSeconds=1800&allowWatchBookmarks=true";
        assert_eq!(pods.watch("7"), format!("{from}&{watch}"));
        let lease = Key::local(Kind::Lease, "kube-node-lease", "pi");
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi";
        assert_eq!(object(&lease), path);
        assert_eq!(
            object(&Key::local(Kind::Node, "", "pi")),
            "/api/v1/nodes/pi"
        );
    }
}
