//! `pods/exec` and `pods/attach`: a command in a container, or what the container itself runs.

use std::rc::Rc;

use serde_json::Value;

use super::pump::{self, Running};
use super::upgrade::{self, Agreed, Spoken};
use super::web_socket::Agreement;
use super::{Wanted, answer, spdy, web_socket};
use crate::apiserver::backend::{self, AttachStart, ExecStart};
use crate::apiserver::query::Query;
use crate::apiserver::status::Refusal;
use crate::apiserver::{Shared, logs};
use crate::net::serve::{Request, Response};
use crate::net::websocket::{UNNAMED, V1, V1_BASE64, V4, V4_BASE64, V5};
use crate::object::Object;
use crate::os::task;
use crate::world::{ContainerId, Uid};

/// Most words of a command.
const COMMAND_WORDS_MAX: usize = 1024;

/// Source: Kubernetes kubelet, cri/streaming/remotecommand; KEP-4006 for version 5.
const SPOKEN: Spoken = Spoken {
    web_socket: &[V5, V4, V4_BASE64, V1, V1_BASE64, UNNAMED],
    spdy: &[
        "v4.channel.k8s.io",
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
    ],
};

/// What is done in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Exec,
    Attach,
}

/// How a query names the streams: the API and the kubelet's own endpoints differ.
pub struct Names {
    pub stdin: &'static str,
    pub stdout: &'static str,
    pub stderr: &'static str,
}

/// Of `pods/exec`.
pub const API: Names = Names {
    stdin: "stdin",
    stdout: "stdout",
    stderr: "stderr",
};

/// A session that was asked for.
pub enum Start {
    Exec(ExecStart),
    Attach(AttachStart),
}

/// Answers the handshake; the session goes on by itself after the 101.
pub fn start(
    shared: &Rc<Shared>,
    request: Request,
    pod: &Object,
    container: Option<&str>,
    query: &Query,
    names: &Names,
    act: Act,
) -> Result<Response, Refusal> {
    let container = logs::container_named(&pod.body, container)?;
    let uid = Uid::new(pod.uid()).ok_or_else(|| Refusal::internal("the pod's uid is unusable"))?;
    let container = running_id(&pod.body, &container, &pod.key.name)?;
    let wanted = wanted(query, names)?;
    let start = match act {
        Act::Attach => Start::Attach(AttachStart {
            uid,
            container,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        }),
        Act::Exec => Start::Exec(ExecStart {
            uid,
            container,
            command: command(query)?,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            tty: wanted.tty,
        }),
    };
    serve(shared, request, wanted, start)
}

/// Upgrades, and runs the session in a task of its own.
pub fn serve(
    shared: &Rc<Shared>,
    mut request: Request,
    wanted: Wanted,
    start: Start,
) -> Result<Response, Refusal> {
    let agreed = match upgrade::agree(request.headers(), &SPOKEN) {
        Ok(agreed) => agreed,
        Err(refused) => return refused.response(),
    };
    let slot = shared.execs.take(shared.options.limits.execs);
    let slot = slot.ok_or_else(|| Refusal::too_many("commands"))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let clock = shared.clock.clone();
    let agreement = |protocol| Agreement {
        upgrade,
        protocol,
        wanted,
    };
    let session = match &agreed {
        Agreed::WebSocket(agreed) => web_socket::session(agreement(agreed.protocol), clock),
        Agreed::Spdy(protocol) => spdy::session(agreement(protocol), clock),
    };
    let idle = shared.options.limits.stream_idle;
    let (shared, clock) = (shared.clone(), shared.clock.clone());
    let executor = shared.executor.clone();
    let work = async move {
        let _slot = slot;
        let running = begin(&shared, start);
        pump::run(session, running, clock, idle).await;
    };
    task::spawn(&executor, work).detach();
    Ok(agreed.response())
}

/// Asks the node. Errors: the Status for the client.
pub(super) async fn begin(shared: &Shared, start: Start) -> Result<Running, Value> {
    let failed = |error: &dyn std::fmt::Display| {
        answer::failure(&format!("error executing command in container: {error}"))
    };
    let unprepared = |error| answer::failure(&format!("prepare streams: {error}"));
    match start {
        Start::Exec(start) => {
            let make = |reply| backend::Request::Exec(start, reply);
            let answer = shared.backend.ask(make).await.map_err(|r| r.status())?;
            let session = answer.map_err(|error| failed(&error))?;
            Running::command(session).map_err(unprepared)
        }
        Start::Attach(start) => {
            let make = |reply| backend::Request::Attach(start, reply);
            let answer = shared.backend.ask(make).await.map_err(|r| r.status())?;
            let attached =
                |error| answer::failure(&format!("error attaching to container: {error}"));
            let session = answer.map_err(attached)?;
            Running::attached(session).map_err(unprepared)
        }
    }
}

/// Errors: 400 where nothing is wanted.
pub fn wanted(query: &Query, names: &Names) -> Result<Wanted, Refusal> {
    let tty = query.is_set("tty");
    let wanted = Wanted {
        stdin: query.is_set(names.stdin),
        stdout: query.is_set(names.stdout),
        // A terminal has one output.
        stderr: query.is_set(names.stderr) && !tty,
        tty,
    };
    match wanted.stdin || wanted.stdout || wanted.stderr {
        true => Ok(wanted),
        false => Err(Refusal::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        )),
    }
}

/// Errors: 400 for none, or too many words.
pub fn command(query: &Query) -> Result<Vec<String>, Refusal> {
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    match command.len() {
        0 => Err(Refusal::bad_request(
            "you must specify at least 1 command for exec",
        )),
        1..=COMMAND_WORDS_MAX => Ok(command),
        _ => Err(Refusal::bad_request("the command has too many words")),
    }
}

/// The id of the container's running instance. Errors: 400 as kubelet words it.
pub fn running_id(pod: &Value, container: &str, pod_name: &str) -> Result<ContainerId, Refusal> {
    let status = logs::container_status(pod, container);
    let running = status["state"]["running"].is_object();
    let id = status["containerID"].as_str().filter(|_| running);
    // `lowtide://<64 hex>`
    let id = id.map(|id| id.split_once("://").map_or(id, |(_, id)| id));
    id.map(|id| ContainerId(id.into())).ok_or_else(|| {
        Refusal::bad_request(format!(
            "container {container:?} in pod {pod_name:?} is not running"
        ))
    })
}
