//! `pods/log`: which file is meant, what of it is wanted, and when following it ends.
//!
//! Files under `--pod-logs-dir` are read by `runtime::logs`; neither the node thread nor a shim is
//! asked, and nothing ticks while a followed container is silent.

mod follow;
mod messages;

use std::sync::Arc;

use blocking::unblock;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use self::follow::Instance;
use super::query::Query;
use super::status::{Refusal, typed_response};
use super::{Counted, Shared};
use crate::net::serve::{Body, Request, Response};
use crate::net::websocket;
use crate::object::Object;
use crate::os::task;
use crate::runtime::logs::{self, Follow, LogOptions, Timestamps};

/// Streams a container's log, as a body or over a WebSocket.
pub async fn start(
    shared: &Shared,
    mut request: Request,
    object: Arc<Object>,
    container: Option<&str>,
    query: &Query,
    counted: Counted,
) -> Result<Response, Refusal> {
    let (pod, key) = (&object.body, &object.key);
    let mut options = options(query, shared.clock.wall())?;
    let container = container_named(pod, container)?;
    let which = match query.is_set("previous") {
        true => Which::Previous,
        false => Which::Current,
    };
    let attempt = attempt(pod, &container, &key.name, which)?;
    let path = shared.options.pod_logs_dir.join(format!(
        "{}_{}_{}/{container}/{attempt}.log",
        key.namespace,
        key.name,
        object.uid()
    ));
    let agreed = websocket::is_asked(request.headers())
        .then(|| websocket::agree(request.headers(), messages::PROTOCOLS))
        .transpose()
        .map_err(|_| Refusal::bad_request("no WebSocket handshake of a protocol for logs"))?;
    let mut following = None;
    if query.is_set("follow") && which == Which::Current {
        let instance = Instance {
            key: key.clone(),
            uid: object.uid().to_owned(),
            container,
            attempt,
        };
        let (until, task) = instance.until_ended(shared.reader.clone(), &shared.executor);
        options.follow = Follow::Until(until);
        following = Some((task, counted));
    }
    let failed = format!("open {}", path.display());
    // On the blocking pool: the log may be on a slow card.
    let opened = unblock(move || logs::read(&path, options)).await;
    let log = opened.map_err(|error| Refusal::internal(format!("{failed}: {error}")))?;
    let bytes = follow::bytes(log, following);
    if let Some(agreed) = agreed {
        let upgrade = hyper::upgrade::on(&mut request);
        let work = messages::send(upgrade, agreed.protocol, bytes);
        task::spawn(&shared.executor, work).detach();
        return Ok(agreed.response(Body::empty()));
    }
    let body = Body::stream(bytes);
    Ok(typed_response(StatusCode::OK, "text/plain", body))
}

fn options(query: &Query, now: Timestamp) -> Result<LogOptions, Refusal> {
    let since_s = query.number("sinceSeconds")?;
    let since_time = query.get("sinceTime");
    let invalid =
        |field: &str, why: &str| Err(Refusal::invalid_option("PodLogOptions", field, why));
    let since = match (since_s, since_time) {
        (Some(_), Some(_)) => {
            return invalid(
                "sinceSeconds",
                "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            );
        }
        (Some(0), None) => {
            return invalid("sinceSeconds", "Invalid value: 0: must be greater than 0");
        }
        (Some(seconds), None) => {
            let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.checked_sub(span).unwrap_or(Timestamp::MIN))
        }
        (None, Some(text)) => match text.parse() {
            Ok(time) => Some(time),
            Err(_) => return invalid("sinceTime", "Invalid value: must be an RFC 3339 time"),
        },
        (None, None) => None,
    };
    let limit_bytes = query.number("limitBytes")?;
    if limit_bytes == Some(0) {
        return invalid("limitBytes", "Invalid value: 0: must be greater than 0");
    }
    Ok(LogOptions {
        since,
        tail_lines: query.number("tailLines")?,
        limit_bytes,
        timestamps: match query.is_set("timestamps") {
            true => Timestamps::Yes,
            false => Timestamps::No,
        },
        follow: Follow::No,
    })
}

fn names<'a>(pod: &'a Value, field: &'a str) -> impl Iterator<Item = &'a str> {
    let containers = pod["spec"][field].as_array().into_iter().flatten();
    containers.filter_map(|container| container["name"].as_str())
}

const CONTAINER_FIELDS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The container that is meant: the named one, the annotated default, or the only one.
/// Errors: 400 in upstream's words.
pub fn container_named(pod: &Value, wanted: Option<&str>) -> Result<String, Refusal> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let annotations = &pod["metadata"]["annotations"];
    let default = annotations["kubectl.kubernetes.io/default-container"].as_str();
    let known = |name: &str| {
        CONTAINER_FIELDS
            .iter()
            .any(|field| names(pod, field).any(|n| n == name))
    };
    match wanted.or(default.filter(|name| known(name))) {
        Some(name) if known(name) => return Ok(name.to_owned()),
        Some(name) => {
            let text = format!("container {name} is not valid for pod {pod_name}");
            return Err(Refusal::bad_request(text));
        }
        None => {}
    }
    let regular: Vec<&str> = names(pod, "containers").collect();
    match regular.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => {
            let fields = ["initContainers", "containers", "ephemeralContainers"];
            let all: Vec<&str> = fields.iter().flat_map(|field| names(pod, field)).collect();
            Err(Refusal::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                all.join(" ")
            )))
        }
    }
}

/// The status of a container of any sort; null if there is none yet.
pub fn container_status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let fields = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let mut statuses = fields
        .iter()
        .flat_map(|field| pod["status"][field].as_array().into_iter().flatten());
    statuses
        .find(|status| status["name"] == name)
        .unwrap_or(&Value::Null)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Current,
    Previous,
}

/// The number of the instance whose log is meant: its restart count.
///
/// A container that waits for its next start shows the count of the instance that ended last.
/// Source: Kubernetes kubelet, validateContainerLogStatus.
fn attempt(pod: &Value, container: &str, pod_name: &str, which: Which) -> Result<u64, Refusal> {
    let status = container_status(pod, container);
    let count = status["restartCount"].as_u64().unwrap_or(0);
    let state = &status["state"];
    let lives = state["running"].is_object() || state["terminated"].is_object();
    let ended_before = status["lastState"]["terminated"].is_object();
    let whose = format!("container {container:?} in pod {pod_name:?}");
    match which {
        Which::Current if lives || ended_before => Ok(count),
        Which::Current => {
            let reason = state["waiting"]["reason"]
                .as_str()
                .unwrap_or("ContainerCreating");
            let why = match reason {
                "ErrImagePull" => "trying and failing to pull image",
                "ImagePullBackOff" => "image can't be pulled",
                other => other,
            };
            Err(Refusal::bad_request(format!(
                "{whose} is waiting to start: {why}"
            )))
        }
        Which::Previous if !ended_before => Err(Refusal::bad_request(format!(
            "previous terminated {whose} not found"
        ))),
        Which::Previous if lives => Ok(count.saturating_sub(1)),
        Which::Previous => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str], init: &[&str]) -> Value {
        let of = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n})).collect() };
        json!({
            "metadata": {"name": "web"},
            "spec": {"containers": of(containers), "initContainers": of(init)},
        })
    }

    #[test]
    fn the_container_is_chosen_as_by_kubelet() {
        let text = |pod: &Value, name: Option<&str>| match container_named(pod, name) {
            Ok(name) => name,
            Err(refusal) => refusal.message,
        };
        assert_eq!(text(&pod(&["a"], &[]), None), "a");
        assert_eq!(text(&pod(&["a"], &["i"]), None), "a");
        assert_eq!(text(&pod(&["a"], &["i"]), Some("i")), "i");
        assert_eq!(
            text(&pod(&["a"], &[]), Some("x")),
            "container x is not valid for pod web"
        );
        assert_eq!(
            text(&pod(&["a", "b"], &["i"]), None),
            "a container name must be specified for pod web, choose one of: [i a b]"
        );
        let mut annotated = pod(&["a", "b"], &[]);
        annotated["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(text(&annotated, None), "b");
    }

    #[test]
    fn the_instance_is_chosen_as_by_kubelet() {
        let ended = json!({"terminated": {"exitCode": 1}});
        let table = [
            (json!({"running": {}}), json!({}), 0, Ok(0), None),
            (json!({"running": {}}), ended.clone(), 3, Ok(3), Some(2)),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                ended.clone(),
                3,
                Ok(3),
                Some(3),
            ),
            (ended.clone(), ended.clone(), 3, Ok(3), Some(2)),
            (
                json!({"waiting": {"reason": "PodInitializing"}}),
                json!({}),
                0,
                Err("PodInitializing"),
                None,
            ),
            (
                json!({"waiting": {"reason": "ImagePullBackOff"}}),
                json!({}),
                0,
                Err("image can't be pulled"),
                None,
            ),
        ];
        for (state, last, count, current, previous) in table {
            let mut pod = pod(&["a"], &[]);
            pod["status"]["containerStatuses"] =
                json!([{"name": "a", "restartCount": count, "state": state, "lastState": last}]);
            let waiting =
                |why| format!("container \"a\" in pod \"web\" is waiting to start: {why}");
            let found = attempt(&pod, "a", "web", Which::Current).map_err(|r| r.message);
            assert_eq!(found, current.map_err(waiting), "{pod}");
            let found = attempt(&pod, "a", "web", Which::Previous);
            let missing = "previous terminated container \"a\" in pod \"web\" not found";
            match previous {
                Some(attempt) => assert_eq!(found, Ok(attempt), "{pod}"),
                None => assert_eq!(found.expect_err("must refuse").message, missing),
            }
        }
    }
}
