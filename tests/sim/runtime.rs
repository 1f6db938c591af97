//! `world::Runtime` that behaves like the one of a host: shims that go on, steps that fail late.
//!
//! When a call resolves, `observe` shows its effect; everything else is seen with delay. Repeating
//! a start of the same attempt finds the instance that is there. Misuse is reported to the judge,
//! never tolerated and never a panic.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lowtide::world::{
    ContainerConfig, ContainerId, ContainerState, ExecOutcome, ExecRequest, Exit, LocalFuture,
    PodObserved, RemoveError, Resize, Runtime, RuntimeError, SandboxConfig, SandboxState, Uid,
};

use crate::host::{Fate, Host, boxed, give, question};
use crate::kernel::{Container, Kernel, Sandbox};
use crate::script::{Life, Script};

const SANDBOX: Duration = Duration::from_millis(14);
const START: Duration = Duration::from_millis(30);
const REQUEST: Duration = Duration::from_millis(1);
const KILLED: Duration = Duration::from_millis(3);

pub struct SimRuntime(pub Rc<Host>);

type Outcome<T> = Result<T, RuntimeError>;

fn not_found(what: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("{what}: no such thing"))
}

impl SimRuntime {
    /// One request: fate is drawn, the effect happens in the shim, then the answer is on its way.
    async fn request<T: 'static>(
        &self,
        what: String,
        uid: &Uid,
        typical: Duration,
        effect: impl FnOnce(&Rc<Host>) -> Outcome<T> + 'static,
    ) -> Outcome<T> {
        self.request_in_two(what, uid, typical, |_| {}, effect)
            .await
    }

    /// Like `request`, with a beginning that shows before the answer, and stays if the rest hangs.
    async fn request_in_two<T: 'static>(
        &self,
        what: String,
        uid: &Uid,
        typical: Duration,
        beginning: impl FnOnce(&Rc<Host>) + 'static,
        effect: impl FnOnce(&Rc<Host>) -> Outcome<T> + 'static,
    ) -> Outcome<T> {
        let host = &self.0;
        let (fate, took) = host.fate(typical);
        host.trace.note(|| match fate {
            Fate::Succeeds => what.clone(),
            Fate::FailsBefore | Fate::FailsAfter | Fate::Hangs { .. } => {
                format!("{what} ({fate:?})")
            }
        });
        let (asker, answer) = question();
        let uid = uid.clone();
        if fate != Fate::FailsBefore {
            let shown = uid.clone();
            host.later(host.span(REQUEST).min(took), move |host| {
                beginning(host);
                show(host, &shown);
            });
        }
        host.later(took, move |host| {
            let outcome = match fate {
                Fate::Succeeds => effect(host),
                Fate::FailsBefore => Err(RuntimeError::Failed(format!("{what}: runc: exit 1"))),
                Fate::Hangs { happens: false } => {
                    Err(RuntimeError::Timeout(format!("{what}: no answer")))
                }
                Fate::FailsAfter => effect(host)
                    .and_then(|_| Err(RuntimeError::Failed(format!("{what}: shim went away")))),
                Fate::Hangs { happens: true } => effect(host)
                    .and_then(|_| Err(RuntimeError::Timeout(format!("{what}: no answer")))),
            };
            if let Err(error) = &outcome {
                host.trace.note(|| format!("{what}: {error:?}"));
            }
            let mut kernel = host.kernel.borrow_mut();
            if kernel.look(&uid) {
                kernel.ring(&uid);
            }
            drop(kernel);
            give(&asker, outcome);
        });
        answer.await
    }
}

/// The agent will see the pod as it is then, after a while.
pub fn show(host: &Rc<Host>, uid: &Uid) {
    let slow = host.luck.chance(host.faults.borrow().slow_observation);
    let typical = Duration::from_millis(if slow { 1500 } else { 2 });
    let uid = uid.clone();
    host.later_in_agent(host.span(typical), move |host| {
        let mut kernel = host.kernel.borrow_mut();
        if kernel.look(&uid) {
            kernel.ring(&uid);
        }
    });
}

/// A process of the pod ends now, for whatever reason.
pub fn end_container(host: &Rc<Host>, uid: &Uid, id: &ContainerId, code: i32, reason: &str) {
    let finished = host.stamp();
    let mut kernel = host.kernel.borrow_mut();
    let Some(pod) = kernel.pods.get_mut(uid) else {
        return;
    };
    let unseen = pod.shim_dead;
    let Some(container) = pod.container(id).filter(|c| c.is_live()) else {
        return;
    };
    let started = match &container.state {
        ContainerState::Running { started } => Some(*started),
        ContainerState::Created | ContainerState::Exited(_) => None,
    };
    let (code, reason) = match unseen {
        true => (137, "ContainerStatusUnknown"),
        false => (code, reason),
    };
    container.state = ContainerState::Exited(Exit {
        code,
        signal: (code > 128).then_some(code - 128),
        reason: reason.to_owned(),
        message: String::new(),
        started,
        finished,
    });
    let config = Arc::clone(&container.config);
    drop(kernel);
    host.trace.note(|| {
        format!(
            "    {}/{}#{} ends: {code} {reason}",
            config.pod_name, config.name, config.attempt
        )
    });
    host.judge.ended(host, &config, code);
    show(host, uid);
}

fn end_later(
    host: &Rc<Host>,
    uid: &Uid,
    id: &ContainerId,
    after: Duration,
    how: (i32, &'static str),
) {
    let (uid, id) = (uid.clone(), id.clone());
    host.later(after, move |host| {
        end_container(host, &uid, &id, how.0, how.1)
    });
}

fn make_sandbox(host: &Rc<Host>, config: &Arc<SandboxConfig>) -> Outcome<u64> {
    let created = host.stamp();
    let mut kernel = host.kernel.borrow_mut();
    let serial = kernel.serial();
    let pod = kernel.pods.entry(config.uid.clone()).or_default();
    if let Some(sandbox) = &pod.sandbox
        && sandbox.config.attempt == config.attempt
        && sandbox.state == SandboxState::Ready
    {
        return Ok(sandbox.serial);
    }
    pod.shim_dead = false;
    pod.sandbox = Some(Sandbox {
        config: Arc::clone(config),
        state: SandboxState::Dead("being made".to_owned()),
        ip: Kernel::address(serial),
        created,
        serial,
    });
    Ok(serial)
}

fn finish_sandbox(host: &Rc<Host>, uid: &Uid, serial: u64) -> Outcome<()> {
    let mut kernel = host.kernel.borrow_mut();
    let pod = kernel.pods.get_mut(uid);
    let sandbox = pod.and_then(|pod| pod.sandbox.as_mut());
    match sandbox.filter(|sandbox| sandbox.serial == serial) {
        Some(sandbox) => {
            sandbox.state = SandboxState::Ready;
            Ok(())
        }
        None => Err(not_found("sandbox")),
    }
}

/// The shim takes the request: the record exists from here on.
fn create_container(host: &Rc<Host>, config: &Arc<ContainerConfig>) -> Outcome<ContainerId> {
    let created = host.stamp();
    let script = Script::parse(&config.command).map_err(RuntimeError::Config)?;
    let mut kernel = host.kernel.borrow_mut();
    let id = kernel.container_id();
    let log = (config.uid.clone(), config.name.clone());
    let Some(pod) = kernel.pods.get_mut(&config.uid) else {
        return Err(not_found("pod"));
    };
    let same = |c: &&Container| c.config.name == config.name && c.config.attempt == config.attempt;
    if let Some(known) = pod.containers.iter().find(same) {
        return Ok(known.id.clone());
    }
    let Some(sandbox) = pod.ready_sandbox().map(|sandbox| sandbox.serial) else {
        return Err(RuntimeError::Failed("sandbox is not ready".to_owned()));
    };
    let other = pod.live().find(|c| c.config.name == config.name);
    let other = other.map(|c| c.config.attempt);
    pod.containers.push(Container {
        id: id.clone(),
        config: Arc::clone(config),
        script,
        state: ContainerState::Created,
        created,
        sandbox,
        stop_asked: None,
        started: None,
    });
    kernel.logs.insert(log, config.attempt);
    drop(kernel);
    host.judge.created(host, config, other, sandbox);
    Ok(id)
}

fn run_container(host: &Rc<Host>, uid: &Uid, id: &ContainerId) -> Outcome<ContainerId> {
    let (stamp, now) = (host.stamp(), host.timeline.now());
    let mut kernel = host.kernel.borrow_mut();
    let pod = kernel.pods.get_mut(uid).ok_or_else(|| not_found("pod"))?;
    let container = pod.container(id).ok_or_else(|| not_found("container"))?;
    if container.state != ContainerState::Created {
        return Ok(id.clone());
    }
    if container.script.life == Life::NotFound {
        drop(kernel);
        end_container(host, uid, id, 127, "StartError");
        let message = "exec: \"not-found\": executable file not found in $PATH".to_owned();
        return Err(RuntimeError::Start { code: 127, message });
    }
    container.state = ContainerState::Running { started: stamp };
    container.started = Some(now);
    let script = container.script.clone();
    let config = Arc::clone(&container.config);
    drop(kernel);
    host.trace.note(|| {
        format!(
            "    {}/{}#{} runs",
            config.pod_name, config.name, config.attempt
        )
    });
    match script.life {
        Life::Forever | Life::NotFound => {}
        Life::Exit { code: 0, after } => end_later(host, uid, id, after, (0, "Completed")),
        Life::Exit { code, after } => end_later(host, uid, id, after, (code, "Error")),
        Life::Oom { after } => end_later(host, uid, id, after, (137, "OOMKilled")),
    }
    Ok(id.clone())
}

impl Runtime for SimRuntime {
    fn recover(&self) -> LocalFuture<'_, Outcome<Vec<Uid>>> {
        boxed(async {
            let host = &self.0;
            host.trace.note(|| "recover".to_owned());
            let (asker, answer) = question();
            host.later_in_agent(host.span(REQUEST), move |host| {
                let mut kernel = host.kernel.borrow_mut();
                let uids: Vec<Uid> = kernel.pods.keys().cloned().collect();
                for uid in &uids {
                    if let Some(pod) = kernel.pods.get_mut(uid) {
                        pod.shim_dead = false;
                    }
                    kernel.look(uid);
                }
                give(&asker, Ok(uids));
            });
            answer.await
        })
    }

    fn observe(&self, uid: &Uid) -> PodObserved {
        self.0.kernel.borrow().seen(uid)
    }

    fn next_change(&self) -> LocalFuture<'_, Uid> {
        boxed(async {
            let rung = Rc::clone(&self.0.kernel.borrow().rung);
            loop {
                let listener = rung.listen();
                let changed = self.0.kernel.borrow_mut().changed.pop_front();
                if let Some(uid) = changed {
                    return uid;
                }
                listener.await;
            }
        })
    }

    fn remove_logs(
        &self,
        uid: &Uid,
        _namespace: &str,
        _pod: &str,
    ) -> LocalFuture<'_, Result<(), RuntimeError>> {
        let uid = uid.clone();
        boxed(async move {
            let (asker, answer) = question();
            self.0.later_in_agent(self.0.span(REQUEST), move |host| {
                host.kernel
                    .borrow_mut()
                    .logs
                    .retain(|(owner, _), _| *owner != uid);
                host.judge.logs_removed(&uid);
                give(&asker, Ok(()));
            });
            answer.await
        })
    }

    fn next_attempt(
        &self,
        uid: &Uid,
        _namespace: &str,
        _pod: &str,
        container: &str,
    ) -> LocalFuture<'_, u32> {
        let key = (uid.clone(), container.to_owned());
        boxed(async move {
            let (asker, answer) = question();
            self.0.later_in_agent(self.0.span(REQUEST), move |host| {
                let kernel = host.kernel.borrow();
                give(
                    &asker,
                    kernel.logs.get(&key).map_or(0, |highest| highest + 1),
                );
            });
            answer.await
        })
    }

    fn start_sandbox(&self, config: Arc<SandboxConfig>) -> LocalFuture<'_, Outcome<()>> {
        boxed(async move {
            let host = &self.0;
            host.judge.starts_sandbox(host, &config);
            let what = format!("start_sandbox {}#{}", config.name, config.attempt);
            let uid = config.uid.clone();
            // Half made at once; whole when the request ends, unless its maker dies before.
            let agent = host.agent();
            let begun = Rc::new(std::cell::Cell::new(None));
            let (mark, beginning) = (Rc::clone(&begun), Arc::clone(&config));
            let half = move |host: &Rc<Host>| mark.set(make_sandbox(host, &beginning).ok());
            self.request_in_two(what, &uid.clone(), SANDBOX, half, move |host| {
                if host.agent() != agent && host.luck.chance(500) {
                    return Err(RuntimeError::Failed("interrupted".to_owned()));
                }
                let serial = match begun.get() {
                    Some(serial) => serial,
                    None => make_sandbox(host, &config)?,
                };
                finish_sandbox(host, &uid, serial)
            })
            .await
        })
    }

    fn stop_sandbox(&self, uid: &Uid) -> LocalFuture<'_, Outcome<()>> {
        let uid = uid.clone();
        boxed(async move {
            self.0.judge.stops_sandbox(&self.0, &uid);
            let what = format!("stop_sandbox {uid}");
            self.request(what, &uid.clone(), REQUEST, move |host| {
                kill_all(host, &uid);
                let mut kernel = host.kernel.borrow_mut();
                if let Some(pod) = kernel.pods.get_mut(&uid) {
                    pod.sandbox = None;
                }
                Ok(())
            })
            .await
        })
    }

    fn remove_pod(&self, uid: &Uid) -> LocalFuture<'_, Result<(), RemoveError>> {
        let uid = uid.clone();
        boxed(async move {
            self.0.judge.removes_pod(&self.0, &uid);
            let what = format!("remove_pod {uid}");
            self.request(what, &uid.clone(), REQUEST, move |host| {
                kill_all(host, &uid);
                host.kernel.borrow_mut().pods.remove(&uid);
                let mut files = host.files.borrow_mut();
                files.remove_below(lowtide::world::Area::Run, &format!("pods/{uid}"));
                Ok(())
            })
            .await
            .map_err(|error| RemoveError::Held(error.to_string()))
        })
    }

    fn start_container(
        &self,
        config: Arc<ContainerConfig>,
    ) -> LocalFuture<'_, Outcome<ContainerId>> {
        boxed(async move {
            let host = &self.0;
            host.judge.starts_container(host, &config);
            let what = format!(
                "start_container {}/{}#{}",
                config.pod_name, config.name, config.attempt
            );
            let uid = config.uid.clone();
            let record = Rc::new(std::cell::RefCell::new(None));
            let (made, wanted) = (Rc::clone(&record), Arc::clone(&config));
            let half = move |host: &Rc<Host>| {
                *made.borrow_mut() = Some(create_container(host, &wanted));
            };
            self.request_in_two(what, &uid.clone(), REQUEST + START, half, move |host| {
                let known = record.borrow_mut().take();
                let id = known.unwrap_or_else(|| create_container(host, &config))?;
                run_container(host, &uid, &id)
            })
            .await
        })
    }

    fn stop_container(&self, uid: &Uid, id: &ContainerId) -> LocalFuture<'_, Outcome<()>> {
        let (uid, id) = (uid.clone(), id.clone());
        boxed(async move {
            self.0.judge.ends_container(&self.0, &uid, &id, "stop");
            let what = format!("stop_container {uid} {}", short(&id));
            self.request(what, &uid.clone(), REQUEST, move |host| {
                let now = host.timeline.now();
                let mut kernel = host.kernel.borrow_mut();
                let pod = kernel.pods.get_mut(&uid);
                let container = pod.and_then(|pod| pod.container(&id));
                let container = container.ok_or_else(|| not_found("container"))?;
                container.stop_asked.get_or_insert(now);
                if container.is_running() && !container.script.deaf {
                    let after = container.script.stops_in;
                    drop(kernel);
                    end_later(host, &uid, &id, after, (143, "Error"));
                }
                Ok(())
            })
            .await
        })
    }

    fn kill_container(&self, uid: &Uid, id: &ContainerId) -> LocalFuture<'_, Outcome<()>> {
        let (uid, id) = (uid.clone(), id.clone());
        boxed(async move {
            self.0.judge.ends_container(&self.0, &uid, &id, "kill");
            let what = format!("kill_container {uid} {}", short(&id));
            self.request(what, &uid.clone(), REQUEST, move |host| {
                end_later(host, &uid, &id, host.span(KILLED), (137, "Error"));
                Ok(())
            })
            .await
        })
    }

    fn remove_container(&self, uid: &Uid, id: &ContainerId) -> LocalFuture<'_, Outcome<()>> {
        let (uid, id) = (uid.clone(), id.clone());
        boxed(async move {
            self.0.judge.removes_container(&self.0, &uid, &id);
            let what = format!("remove_container {uid} {}", short(&id));
            self.request(what, &uid.clone(), REQUEST, move |host| {
                let mut kernel = host.kernel.borrow_mut();
                if let Some(pod) = kernel.pods.get_mut(&uid) {
                    pod.containers.retain(|c| c.id != id || c.is_live());
                }
                Ok(())
            })
            .await
        })
    }

    fn resize(&self, resize: Resize) -> LocalFuture<'_, Outcome<()>> {
        boxed(async move {
            let what = format!("resize {}", resize.uid);
            let uid = resize.uid.clone();
            self.request(what, &uid, REQUEST, move |host| {
                let mut kernel = host.kernel.borrow_mut();
                let pod = kernel.pods.get_mut(&resize.uid);
                let pod = pod.ok_or_else(|| not_found("pod"))?;
                for (id, resources) in resize.containers {
                    let container = pod.container(&id).ok_or_else(|| not_found("container"))?;
                    Arc::make_mut(&mut container.config).resources = resources;
                }
                let sandbox = pod.sandbox.as_mut().ok_or_else(|| not_found("sandbox"))?;
                Arc::make_mut(&mut sandbox.config).cgroup.resources = resize.pod;
                Ok(())
            })
            .await
        })
    }

    fn exec(&self, request: ExecRequest) -> LocalFuture<'_, Outcome<ExecOutcome>> {
        boxed(async move {
            self.0.judge.executes(&self.0, &request);
            let what = format!(
                "exec {:?} in {}",
                request.command,
                short(&request.container)
            );
            let uid = request.uid.clone();
            self.request(what, &uid, REQUEST, move |host| {
                host.judge
                    .executed(host, &request)
                    .map(|code| ExecOutcome::Exited {
                        code,
                        output: Vec::new(),
                    })
            })
            .await
        })
    }
}

fn kill_all(host: &Rc<Host>, uid: &Uid) {
    let live: Vec<ContainerId> = {
        let kernel = host.kernel.borrow();
        let pod = kernel.pods.get(uid);
        pod.map(|pod| pod.live().map(|c| c.id.clone()).collect())
            .unwrap_or_default()
    };
    for id in live {
        end_container(host, uid, &id, 137, "Error");
    }
}

/// The last digits of an id: unique within a run.
pub fn short(id: &ContainerId) -> &str {
    &id.0[58..]
}
