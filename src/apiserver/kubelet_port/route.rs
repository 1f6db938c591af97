//! What a request at the kubelet's port is: what it asks for, and what has to be allowed for it. Pure.
//!
//! Source: Kubernetes pkg/kubelet/server/{server,auth}.go.

use http::Method;

use crate::apiserver::stats::Document;
use crate::apiserver::stream::command::Act;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/pods`
    Pods,
    /// `/runningpods/`
    RunningPods,
    Logs(Place),
    Stream(Act, Place),
    PortForward(Place),
    Run(Place),
    Stats(Document),
    /// What runs here, and what the program itself does.
    Metrics,
    Configuration,
    /// `/logs/`: files of the host. Turned off here.
    HostLogs,
    /// A copy of a running container's memory. Not made here.
    Checkpoint(Place),
    /// All checks, or one by its name.
    Health(Option<String>),
}

/// A container of a pod, or the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    /// `None`: whichever pod has the name.
    pub uid: Option<String>,
    /// Empty where the pod is meant.
    pub container: String,
}

impl Route {
    /// By clean path and method. `None`: nothing is there.
    pub fn of(path: &str) -> Option<Route> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["pods"] => Some(Route::Pods),
            ["runningpods"] => Some(Route::RunningPods),
            ["containerLogs", namespace, pod, container] => {
                Some(Route::Logs(Place::of(namespace, pod, None, container)))
            }
            ["exec", rest @ ..] => container(rest).map(|place| Route::Stream(Act::Exec, place)),
            ["attach", rest @ ..] => container(rest).map(|place| Route::Stream(Act::Attach, place)),
            ["run", rest @ ..] => container(rest).map(Route::Run),
            ["portForward", namespace, pod] => {
                Some(Route::PortForward(Place::of(namespace, pod, None, "")))
            }
            ["portForward", namespace, pod, uid] => {
                Some(Route::PortForward(Place::of(namespace, pod, Some(uid), "")))
            }
            ["logs", ..] => Some(Route::HostLogs),
            ["checkpoint", namespace, pod, container] => Some(Route::Checkpoint(Place::of(
                namespace, pod, None, container,
            ))),
            ["metrics"] => Some(Route::Metrics),
            ["configz"] => Some(Route::Configuration),
            ["healthz"] => Some(Route::Health(None)),
            // Upstream's names of what `ping` and `node` say here.
            ["healthz", "ping" | "log"] => Some(Route::Health(Some("ping".to_owned()))),
            ["healthz", "syncloop"] => Some(Route::Health(Some("node".to_owned()))),
            other => Document::of(other).map(Route::Stats),
        }
    }

    /// Whether it is answered to this method; a stream is asked for by GET over a WebSocket and by
    /// POST over SPDY.
    pub fn takes(&self, method: &Method) -> bool {
        match self {
            Route::Stream(..) | Route::PortForward(_) | Route::Stats(Document::Summary) => {
                *method == Method::GET || *method == Method::POST
            }
            Route::Run(_) | Route::Checkpoint(_) => *method == Method::POST,
            Route::HostLogs => true,
            _ => *method == Method::GET || *method == Method::HEAD,
        }
    }
}

impl Place {
    fn of(namespace: &str, pod: &str, uid: Option<&&str>, container: &str) -> Place {
        Place {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.map(|uid| (*uid).to_owned()),
            container: container.to_owned(),
        }
    }
}

fn container(rest: &[&str]) -> Option<Place> {
    match rest {
        [namespace, pod, container] => Some(Place::of(namespace, pod, None, container)),
        [namespace, pod, uid, container] => Some(Place::of(namespace, pod, Some(uid), container)),
        _ => None,
    }
}

/// What one of has to be allowed on `nodes/NAME`: verbs that are all needed, subresources of which
/// one is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub verbs: &'static [&'static str],
    pub subresources: &'static [&'static str],
}

impl Rights {
    /// A stream that is opened by GET (a WebSocket handshake) needs what POST would too: who may
    /// read figures must not run commands by it. Source: as for `pods/exec`, see `authz`.
    pub fn of(method: &Method, path: &str) -> Rights {
        let first = path.split('/').nth(1).unwrap_or_default();
        let streams = matches!(first, "exec" | "attach" | "portForward");
        let verbs: &[&str] = match *method {
            Method::GET | Method::HEAD if streams => &["get", "create"],
            Method::GET | Method::HEAD => &["get"],
            Method::POST => &["create"],
            Method::PUT => &["update"],
            Method::PATCH => &["patch"],
            Method::DELETE => &["delete"],
            _ => &[""],
        };
        // Source: KEP-2862, KubeletFineGrainedAuthz.
        let subresources: &[&str] = match first {
            "stats" => &["stats"],
            "metrics" => &["metrics"],
            "logs" => &["log"],
            "checkpoint" => &["checkpoint"],
            "pods" | "runningpods" => &["pods", "proxy"],
            "healthz" => &["healthz", "proxy"],
            "configz" => &["configz", "proxy"],
            _ => &["proxy"],
        };
        Rights {
            verbs,
            subresources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uid: Option<&str>, container: &str) -> Place {
        Place::of("a", "p", uid.as_ref(), container)
    }

    #[test]
    fn paths_name_what_upstreams_do() {
        for (path, route) in [
            ("/pods", Route::Pods),
            ("/runningpods", Route::RunningPods),
            ("/containerLogs/a/p/c", Route::Logs(place(None, "c"))),
            ("/exec/a/p/c", Route::Stream(Act::Exec, place(None, "c"))),
            (
                "/exec/a/p/u/c",
                Route::Stream(Act::Exec, place(Some("u"), "c")),
            ),
            (
                "/attach/a/p/u/c",
                Route::Stream(Act::Attach, place(Some("u"), "c")),
            ),
            ("/run/a/p/c", Route::Run(place(None, "c"))),
            ("/run/a/p/u/c", Route::Run(place(Some("u"), "c"))),
            ("/portForward/a/p", Route::PortForward(place(None, ""))),
            (
                "/portForward/a/p/u",
                Route::PortForward(place(Some("u"), "")),
            ),
            ("/stats/summary", Route::Stats(Document::Summary)),
            ("/logs", Route::HostLogs),
            ("/logs/a/syslog", Route::HostLogs),
            ("/checkpoint/a/p/c", Route::Checkpoint(place(None, "c"))),
            ("/metrics", Route::Metrics),
            ("/metrics/cadvisor", Route::Stats(Document::Cadvisor)),
            ("/metrics/resource", Route::Stats(Document::Resource)),
            ("/metrics/probes", Route::Stats(Document::Probes)),
            ("/metrics/slis", Route::Stats(Document::Slis)),
            ("/configz", Route::Configuration),
            ("/healthz", Route::Health(None)),
            ("/healthz/syncloop", Route::Health(Some("node".to_owned()))),
        ] {
            assert_eq!(Route::of(path), Some(route), "{path}");
        }
        for path in [
            "/",
            "/api/v1/pods",
            "/exec/a/p",
            "/exec/a/p/u/c/x",
            "/portForward/a",
            "/containerLogs/a/p/u/c",
            "/healthz/other",
            "/checkpoint/a/p",
            "/lowtide/v1/images",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn methods_are_those_of_upstream() {
        for (path, methods) in [
            ("/pods", "GET HEAD"),
            ("/containerLogs/a/p/c", "GET HEAD"),
            ("/exec/a/p/c", "GET POST"),
            ("/portForward/a/p", "GET POST"),
            ("/run/a/p/c", "POST"),
            ("/checkpoint/a/p/c", "POST"),
            ("/logs/syslog", "GET HEAD POST PUT DELETE"),
            ("/stats/summary", "GET POST"),
            ("/metrics/resource", "GET HEAD"),
        ] {
            let route = Route::of(path).expect(path);
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
                let takes = route.takes(&method.parse().expect("a method"));
                assert_eq!(
                    takes,
                    methods.split(' ').any(|m| m == method),
                    "{method} {path}"
                );
            }
        }
    }

    #[test]
    fn rights_are_those_of_the_kubelets_authorizer() {
        for (method, path, verbs, subresources) in [
            ("GET", "/stats/summary", "get", "stats"),
            ("POST", "/stats/summary", "create", "stats"),
            ("GET", "/metrics", "get", "metrics"),
            ("GET", "/metrics/cadvisor", "get", "metrics"),
            ("GET", "/metricsx", "get", "proxy"),
            ("GET", "/logs/x", "get", "log"),
            ("GET", "/pods", "get", "pods proxy"),
            ("GET", "/runningpods", "get", "pods proxy"),
            ("GET", "/healthz/ping", "get", "healthz proxy"),
            ("GET", "/configz", "get", "configz proxy"),
            ("GET", "/containerLogs/a/p/c", "get", "proxy"),
            ("POST", "/exec/a/p/c", "create", "proxy"),
            ("GET", "/exec/a/p/c", "get create", "proxy"),
            ("GET", "/attach/a/p/c", "get create", "proxy"),
            ("GET", "/portForward/a/p", "get create", "proxy"),
            ("POST", "/run/a/p/c", "create", "proxy"),
            ("DELETE", "/pods", "delete", "pods proxy"),
            ("GET", "/", "get", "proxy"),
        ] {
            let rights = Rights::of(&method.parse().expect("a method"), path);
            let told = (rights.verbs.join(" "), rights.subresources.join(" "));
            assert_eq!(
                told,
                (verbs.to_owned(), subresources.to_owned()),
                "{method} {path}"
            );
        }
    }
}
