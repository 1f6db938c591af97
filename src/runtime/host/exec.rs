//! Commands inside running containers: probes and hooks to their end, kubectl's with streams.
//!
//! The command gets the container's own environment, user, capabilities and working directory,
//! read from its bundle; only the arguments are the caller's. It runs under the pod's shim.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value;

use crate::runtime::sandbox::record::ContainerPhase;
use crate::runtime::shim::client::{Client, Exec};
use crate::runtime::shim::wire::{ExecEnd, ExecRequest as ShimExec, Terminal};
use crate::world::{ContainerId, ExecOutcome, ExecRequest, RuntimeError, Uid};

use super::{Host, instance, of_io};

/// How long the OCI runtime may take until the command runs.
const START_DEADLINE_MS: u64 = 30_000;

/// Where a streamed command's input and output go.
pub enum ExecStreams<'a> {
    /// Descriptors 0, 1, 2 of the command.
    Plain([BorrowedFd<'a>; 3]),
    /// A terminal; its master is in the answer.
    Terminal,
}

/// A running command. Dropping it kills the command.
pub struct StreamedExec {
    /// Master of the terminal: read, write, resize.
    pub terminal: Option<OwnedFd>,
    exec: Exec,
    _process_file: ProcessFile,
}

impl StreamedExec {
    /// The command's exit code. Errors: `Failed` if its shim is gone.
    pub async fn ended(&self) -> Result<i32, RuntimeError> {
        match self.exec.ended().await {
            ExecEnd::Exited { code } => Ok(code),
            ExecEnd::TimedOut => Err(RuntimeError::Timeout("the command was killed".into())),
            ExecEnd::Lost => Err(RuntimeError::Failed("the command's shim is gone".into())),
        }
    }
}

/// Runs a command to its end and keeps the head of its output.
pub async fn captured(host: &Rc<Host>, request: ExecRequest) -> Result<ExecOutcome, RuntimeError> {
    let prepared = prepare(
        host,
        &request.uid,
        &request.container,
        &request.command,
        Terminal::No,
    );
    let (client, mut exec, _process_file) = prepared.await?;
    let timeout = request.timeout.map(|time| time.as_millis());
    exec.timeout_ms = timeout.map(|time| u64::try_from(time).unwrap_or(u64::MAX));
    Ok(client.exec_captured(exec).await?)
}

/// Starts a command with the caller's streams.
pub async fn stream(
    host: &Rc<Host>,
    uid: &Uid,
    container: &ContainerId,
    command: &[String],
    streams: ExecStreams<'_>,
) -> Result<StreamedExec, RuntimeError> {
    let terminal = match streams {
        ExecStreams::Plain(_) => Terminal::No,
        ExecStreams::Terminal => Terminal::Yes,
    };
    let (client, exec, process_file) = prepare(host, uid, container, command, terminal).await?;
    let null = crate::os::file::null().map_err(|error| of_io("open /dev/null", &error))?;
    let fd = std::os::fd::AsFd::as_fd(&null);
    let stdio = match streams {
        ExecStreams::Plain(stdio) => stdio,
        ExecStreams::Terminal => [fd; 3],
    };
    let mut exec = client.exec(exec, stdio).await?;
    Ok(StreamedExec {
        terminal: exec.terminal.take(),
        exec,
        _process_file: process_file,
    })
}

async fn prepare(
    host: &Rc<Host>,
    uid: &Uid,
    container: &ContainerId,
    command: &[String],
    terminal: Terminal,
) -> Result<(Client, ShimExec, ProcessFile), RuntimeError> {
    let record = host.mirror.container(uid, container)?;
    if !matches!(record.phase, ContainerPhase::Started { .. }) {
        let text = format!("container {} of pod {uid} does not run", record.name);
        return Err(RuntimeError::NotFound(text));
    }
    let bundle = host.layout.bundle(instance(uid, &record));
    let mut token = [0; 8];
    host.random.fill(&mut token);
    let name = format!("exec-{:016x}.json", u64::from_le_bytes(token));
    let process_file = ProcessFile(bundle.join(name));
    let text = fs::read(bundle.join("config.json"))
        .map_err(|error| of_io("read the container's bundle", &error))?;
    let process = process_of(&text, command, terminal).map_err(RuntimeError::Failed)?;
    fs::write(&process_file.0, process)
        .map_err(|error| of_io(&format!("write {}", process_file.0.display()), &error))?;
    let request = ShimExec {
        container: format!("{}.{}", record.name, record.attempt),
        id: record.id.to_string(),
        runtime: host.oci.prefix(),
        process_file: process_file.0.clone(),
        terminal,
        timeout_ms: None,
        deadline_ms: START_DEADLINE_MS,
    };
    Ok((host.connect(uid).await?, request, process_file))
}

/// The OCI process of a bundle with other arguments.
fn process_of(config: &[u8], command: &[String], terminal: Terminal) -> Result<Vec<u8>, String> {
    let mut config: Value =
        serde_json::from_slice(config).map_err(|error| format!("parse config.json: {error}"))?;
    let mut process = config["process"].take();
    if !process.is_object() {
        return Err("config.json has no process".into());
    }
    process["args"] = command.into();
    process["terminal"] = matches!(terminal, Terminal::Yes).into();
    Ok(process.to_string().into_bytes())
}

/// A process description on RUN, removed with its exec.
struct ProcessFile(PathBuf);

impl Drop for ProcessFile {
    fn drop(&mut self) {
        // Gone with the container's directory, at the latest.
        let _best_effort = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_has_the_containers_process_with_its_own_arguments() {
        let config = br#"{"process":{"args":["a"],"cwd":"/w","terminal":true,"env":["A=b"]}}"#;
        let text = process_of(config, &["x".into(), "y z".into()], Terminal::No).expect("made");
        let process: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(process["args"], serde_json::json!(["x", "y z"]));
        assert_eq!(process["cwd"], "/w");
        assert_eq!(process["terminal"], false);
        assert!(process_of(b"{}", &[], Terminal::No).is_err());
    }
}
