//! One action of a probe or a hook against a container: exec, HTTP GET, TCP connect, gRPC health.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::core::Core;
use super::view::{ContainerView, PodView};
use crate::world::{
    ContainerId, ExecOutcome, ExecRequest, HttpCheck, NetError, RuntimeError, Scheme,
};

/// What a check can be; anything else has been refused by validation or by `honoured`.
#[derive(Clone, Debug)]
pub enum Action {
    Exec(Vec<String>),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Grpc(GRPCAction),
    Sleep(Duration),
}

impl Action {
    pub fn of_probe(probe: &Probe) -> Option<Action> {
        let exec = probe.exec.as_ref().map(exec);
        let http = probe.http_get.clone().map(Action::Http);
        exec.or(http)
            .or(probe.tcp_socket.clone().map(Action::Tcp))
            .or(probe.grpc.clone().map(Action::Grpc))
    }

    pub fn of_hook(hook: &LifecycleHandler) -> Option<Action> {
        let exec = hook.exec.as_ref().map(exec);
        let http = hook.http_get.clone().map(Action::Http);
        let sleep = hook.sleep.as_ref();
        let sleep =
            sleep.map(|s| Action::Sleep(Duration::from_secs(s.seconds.max(0).unsigned_abs())));
        exec.or(http).or(sleep)
    }
}

fn exec(action: &ExecAction) -> Action {
    Action::Exec(action.command.clone().unwrap_or_default())
}

/// What a check found. `Unknown`: it could not be made, which says nothing about the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Good,
    /// Good, but worth an event (a redirect to another host).
    Warned(String),
    Bad(String),
    Unknown(String),
}

/// The container under test and where it can be reached.
pub struct Subject<'a> {
    pub pod: &'a PodView,
    pub container: &'a ContainerView,
    pub id: &'a ContainerId,
    /// The pod's address, or the node's for hostNetwork pods.
    pub address: &'a str,
    /// It is a hook's: of an HTTP request only that it was answered counts.
    /// Source: Kubernetes pkg/kubelet/lifecycle/handlers.go (runHTTPHandler).
    pub is_hook: bool,
}

/// Makes one check; never longer than `timeout`.
pub async fn check(
    core: &Core,
    subject: &Subject<'_>,
    action: &Action,
    timeout: Option<Duration>,
) -> Finding {
    match action {
        Action::Exec(command) => run_command(core, subject, command, timeout).await,
        Action::Http(get) => http_get(core, subject, get, timeout).await,
        Action::Tcp(socket) => tcp_connect(core, subject, socket, timeout).await,
        Action::Grpc(call) => grpc_health(core, subject, call, timeout.unwrap_or_default()).await,
        Action::Sleep(span) => {
            let clock = &core.world.clock;
            let span = timeout.map_or(*span, |limit| limit.min(*span));
            clock.sleep_until(clock.now() + span).await;
            Finding::Good
        }
    }
}

async fn run_command(
    core: &Core,
    subject: &Subject<'_>,
    command: &[String],
    timeout: Option<Duration>,
) -> Finding {
    let request = ExecRequest {
        uid: subject.pod.uid.clone(),
        container: subject.id.clone(),
        command: command.to_vec(),
        timeout,
    };
    match core.world.runtime.exec(request).await {
        Ok(ExecOutcome::Exited { code: 0, .. }) => Finding::Good,
        Ok(ExecOutcome::Exited { output, .. }) => {
            Finding::Bad(String::from_utf8_lossy(&output).into_owned())
        }
        Ok(ExecOutcome::TimedOut { .. }) => {
            let span = timeout.unwrap_or_default().as_secs();
            Finding::Bad(format!("command {command:?} timed out after {span}s"))
        }
        Err(RuntimeError::Start { message, .. }) => Finding::Bad(message),
        Err(error) => Finding::Unknown(error.to_string()),
    }
}

async fn http_get(
    core: &Core,
    subject: &Subject<'_>,
    get: &HTTPGetAction,
    timeout: Option<Duration>,
) -> Finding {
    let Some(port) = port_number(subject, &get.port) else {
        return Finding::Unknown(format!("couldn't find port: {:?}", get.port));
    };
    let path = get.path.as_deref().unwrap_or("/");
    let (scheme, name) = match get.scheme.as_deref() {
        Some("HTTPS") => (Scheme::Https, "https"),
        _ => (Scheme::Http, "http"),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    let host = host_or_pod(subject, get.host.as_deref());
    let url = format!("{name}://{host}:{port}{path}");
    let check = HttpCheck {
        scheme,
        host,
        port,
        path,
        headers: http_headers(subject, get),
        // Upstream gives hooks no limit of their own; a dead peer must still end some day.
        timeout: timeout.unwrap_or(HOOK_HTTP_TIMEOUT),
    };
    match core.world.net.http_check(check).await {
        Ok(answer) if answer.redirected_elsewhere => {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            Finding::Warned(format!("Probe terminated redirects, Response body: {text}"))
        }
        Ok(answer) if subject.is_hook || (200..400).contains(&answer.status) => Finding::Good,
        Ok(answer) => Finding::Bad(format!(
            "HTTP probe failed with statuscode: {}",
            answer.status
        )),
        Err(NetError::Timeout) => Finding::Bad(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Err(error) => Finding::Bad(format!("Get \"{url}\": {error}")),
    }
}

/// Longest HTTP hook.
const HOOK_HTTP_TIMEOUT: Duration = Duration::from_secs(600);

fn http_headers(subject: &Subject<'_>, get: &HTTPGetAction) -> Vec<(String, String)> {
    let given = get.http_headers.iter().flatten();
    let mut headers: Vec<_> = given.map(|h| (h.name.clone(), h.value.clone())).collect();
    let has_agent = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
    if !has_agent {
        let agent = match subject.is_hook {
            true => "kube-lifecycle/1.36",
            false => "kube-probe/1.36",
        };
        headers.push(("User-Agent".to_owned(), agent.to_owned()));
    }
    headers
}

async fn tcp_connect(
    core: &Core,
    subject: &Subject<'_>,
    socket: &TCPSocketAction,
    timeout: Option<Duration>,
) -> Finding {
    let Some(port) = port_number(subject, &socket.port) else {
        return Finding::Unknown(format!("couldn't find port: {:?}", socket.port));
    };
    let host = host_or_pod(subject, socket.host.as_deref());
    let timeout = timeout.unwrap_or(HOOK_HTTP_TIMEOUT);
    match core.world.net.tcp_check(&host, port, timeout).await {
        Ok(()) => Finding::Good,
        Err(NetError::Timeout) => Finding::Bad(format!("dial tcp {host}:{port}: i/o timeout")),
        Err(error) => Finding::Bad(error.to_string()),
    }
}

/// Only probes ask so, and those have a limit. Whatever goes wrong is a failure, as with the tool
/// grpc_health_probe.
async fn grpc_health(
    core: &Core,
    subject: &Subject<'_>,
    call: &GRPCAction,
    timeout: Duration,
) -> Finding {
    let port = u16::try_from(call.port).unwrap_or_default();
    let service = call.service.as_deref().unwrap_or_default();
    let net = &core.world.net;
    let asked = net
        .grpc_check(subject.address, port, service, timeout)
        .await;
    let status = match asked {
        Ok(1) => return Finding::Good,
        Ok(0) => "UNKNOWN",
        Ok(2) => "NOT_SERVING",
        Ok(_) => "SERVICE_UNKNOWN",
        Err(NetError::Timeout) => {
            let span = timeout.as_secs();
            return Finding::Bad(format!(
                "timeout: health rpc did not complete within {span}s"
            ));
        }
        Err(NetError::Failed(text)) => {
            let at = format!("{}:{port}", subject.address);
            return Finding::Bad(format!(
                "error: failed to connect service at {at:?}: {text}"
            ));
        }
        Err(error) => return Finding::Bad(format!("error: health rpc probe failed: {error}")),
    };
    Finding::Bad(format!("service unhealthy (responded with {status:?})"))
}

fn host_or_pod(subject: &Subject<'_>, host: Option<&str>) -> String {
    let host = host.filter(|h| !h.is_empty());
    host.unwrap_or(subject.address).to_owned()
}

/// A number, or the name of a container port.
fn port_number(subject: &Subject<'_>, port: &IntOrString) -> Option<u16> {
    let named = |name: &str| {
        let mut ports = subject.container.ports.iter();
        ports
            .find(|(known, _)| known == name)
            .map(|(_, port)| *port)
    };
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|p| *p > 0),
        IntOrString::String(text) => text.parse().ok().or_else(|| named(text)),
    }
}
