//! Networks of pods by CNI plugins: programs that others wrote, as a configuration lists them.
//!
//! ```text
//!  attach   DEL of what is on record ─► record ─► ADD a ─► ADD b ─► record with result
//!                                                   └ failed: DEL b, DEL a
//!  release  DEL b ─► DEL a ─► record away            failed: the record stays, to be tried again
//! ```
//! A record says all that DEL needs: an agent that was killed, a machine that was booted, a
//! configuration that is another by now give back what was given out. Records lie under ROOT and
//! are flushed, since plugins keep their addresses on disk too. The directory is read anew for each
//! pod: whoever writes it may come late, and need not be atomic.
//! Never here: the verbs CHECK, STATUS and GC.
//! Source: CNI specification 1.1.0; libcni and containerd for what they leave open.

pub mod config;
mod plugin;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::links::{self, POD_INTERFACE};
use super::{NetworkError, failed};
use crate::os::output::output;
use crate::os::process::{self, Ended};
use crate::os::spawn::Spawn;
use crate::os::{file, regular_file};
use crate::world::{PodNetwork, SandboxConfig, Uid};

pub use plugin::find;

/// Where the plugins' programs are: as upstream has them, and as Debian does.
pub const PROGRAMS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// Time of one plugin; DHCP and plugins that ask an API server may need most of it.
const PLUGIN_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of what a plugin prints, and of a record.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Records that a start looks at.
const RECORDS_MAX: usize = 10_000;

pub struct Cni {
    /// `--cni-conf-dir`
    directory: Option<PathBuf>,
    records: PathBuf,
    programs: Vec<PathBuf>,
    time_max: Duration,
    /// What was said last of the directory.
    said: Mutex<Vec<String>>,
}

impl Cni {
    /// `directory`: of configurations; `None`: no pod gets a network from here, but those on record
    /// under `records` give theirs back.
    pub fn new(directory: Option<PathBuf>, records: PathBuf) -> Cni {
        Cni {
            directory,
            records,
            programs: PROGRAMS.map(PathBuf::from).into(),
            time_max: PLUGIN_TIME_MAX,
            said: Mutex::default(),
        }
    }

    pub fn is_on(&self) -> bool {
        self.directory.is_some()
    }

    /// What the configuration that is there now gives. Blocking.
    pub fn state(&self) -> PodNetwork {
        if !self.is_on() {
            return PodNetwork::Ready;
        }
        match self.list() {
            None => PodNetwork::NotReady,
            Some(list) if plugins(&list).iter().any(plugin::maps_ports) => PodNetwork::Ready,
            Some(_) => PodNetwork::NoHostPorts,
        }
    }

    /// The pods on record. Blocking.
    pub fn attached(&self) -> Vec<Uid> {
        let entries = fs::read_dir(&self.records).into_iter().flatten().flatten();
        let uid = |entry: fs::DirEntry| {
            let name = entry.file_name();
            Uid::new(name.to_str()?.strip_suffix(".json")?)
        };
        entries.take(RECORDS_MAX).filter_map(uid).collect()
    }

    /// Gives the pod its network. Blocking, for as long as the plugins take.
    /// Errors: what a plugin says; nothing of it is left then, or it is on record.
    pub fn attach(
        &self,
        pod: &SandboxConfig,
        namespace: BorrowedFd<'_>,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let uid = &pod.uid;
        // A crash or a reboot may have left something in the same pod's name.
        self.release(uid, None)?;
        let setup = |error| {
            let text = format!("failed to setup network for sandbox {:?}", uid.as_str());
            NetworkError::Failed(format!("{text}: {error}"))
        };
        let mut record = self
            .list()
            .ok_or_else(|| setup(NOT_INITIALIZED.to_owned()))?;
        record["args"] = plugin::arguments(pod).into();
        record["portMappings"] = plugin::port_mappings(&pod.ports);
        self.keep(uid, &record)?;
        links::set_loopback_up(namespace).map_err(|error| failed("bring up", "lo", &error))?;
        let added = self.add(uid, &record, namespace).map_err(setup);
        let kept = added.and_then(|result| {
            let addresses = plugin::addresses(&result);
            record["result"] = result;
            self.keep(uid, &record).map(|()| addresses)
        });
        let attached = kept.and_then(|addresses| match addresses.is_empty() {
            true => Err(setup("the plugins gave it no address".to_owned())),
            false => Ok(addresses),
        });
        if attached.is_err()
            && let Err(error) = self.release(uid, Some(namespace))
        {
            log::warn!("{error}; trying again later");
        }
        attached
    }

    /// Takes the pod's network down; success if it has none. `namespace`: the pod's, if it still
    /// is. Blocking.
    pub fn release(
        &self,
        uid: &Uid,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetworkError> {
        let Some(record) = self.record(uid)? else {
            return Ok(());
        };
        let deleted = self.delete(uid, &record, namespace).or_else(|error| {
            // What never worked may not be good enough for DEL either: then the one that is there now.
            let list = self.list().filter(|_| record.get("result").is_none());
            let mut other = list.ok_or_else(|| error.clone())?;
            other["args"] = record["args"].clone();
            self.delete(uid, &other, namespace).map_err(|_| error)
        });
        deleted.map_err(|error| {
            let text = format!("failed to destroy network for sandbox {:?}", uid.as_str());
            NetworkError::Failed(format!("{text}: {error}"))
        })?;
        // DEL may be repeated: a record that stays does no harm.
        let path = self.path(uid);
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("remove {}: {error}", path.display());
        }
        Ok(())
    }

    /// The list that is used now. Says what is new about the directory.
    fn list(&self) -> Option<Value> {
        let directory = self.directory.as_ref()?;
        let config::Found { used, problems } = config::look(directory);
        let mut said = self.said.lock().expect("nobody panics while holding it");
        let news = problems.iter().filter(|problem| !said.contains(problem));
        news.for_each(|problem| log::warn!("CNI configuration {problem}; not used"));
        *said = problems;
        used.map(|(_, list)| list)
    }

    fn add(&self, uid: &Uid, record: &Value, namespace: BorrowedFd<'_>) -> Result<Value, String> {
        let mut result = None;
        for plugin in plugins(record) {
            let input = plugin::input(record, plugin, result.as_ref());
            let failed =
                |error: String| format!("plugin type={} failed (add): {error}", plugin["type"]);
            let printed = self.call("ADD", uid, record, &input, Some(namespace));
            let printed = printed.map_err(failed)?;
            let given: Value = serde_json::from_slice(&printed)
                .map_err(|error| failed(format!("its result: {error}")))?;
            result = Some(given);
        }
        Ok(result.unwrap_or_default())
    }

    fn delete(
        &self,
        uid: &Uid,
        record: &Value,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), String> {
        let version = record["cniVersion"].as_str().unwrap_or_default();
        // DEL is told the result from 0.4.0 on.
        let result = record.get("result").filter(|_| !version.starts_with("0.3"));
        for plugin in plugins(record).iter().rev() {
            let input = plugin::input(record, plugin, result);
            match self.call("DEL", uid, record, &input, namespace) {
                Ok(_) => {}
                Err(error) if is_gone(&error, namespace.is_some()) => {
                    log::debug!("pod {uid}: DEL of {}: {error}; it is gone", plugin["type"]);
                }
                Err(error) => {
                    let kind = &plugin["type"];
                    return Err(format!("plugin type={kind} failed (delete): {error}"));
                }
            }
        }
        Ok(())
    }

    /// Runs a plugin to its end. Returns what it prints. Errors: why it failed.
    fn call(
        &self,
        command: &str,
        uid: &Uid,
        record: &Value,
        input: &Value,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<u8>, String> {
        let name = input["type"].as_str().unwrap_or_default();
        let path: Vec<String> = self
            .programs
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        let program = plugin::find(&self.programs, name)
            .ok_or_else(|| format!("failed to find plugin {name:?} in path {path:?}"))?;
        // By our own descriptor: whatever has the number of pause by then is not its namespace.
        let namespace = namespace.map(|fd| {
            let (agent, number) = (process::own_pid(), fd.as_raw_fd());
            format!("/proc/{agent}/fd/{number}")
        });
        let stdin = file::in_memory(input.to_string().as_bytes()).map_err(|e| e.to_string())?;
        let spawn = Spawn::new(program)
            .descriptor(0, stdin)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", uid.as_str())
            .env("CNI_NETNS", namespace.unwrap_or_default())
            .env("CNI_IFNAME", POD_INTERFACE)
            .env("CNI_ARGS", record["args"].as_str().unwrap_or_default())
            .env("CNI_PATH", path.join(":"));
        let ended = output(spawn, OUTPUT_BYTES_MAX, self.time_max);
        let ended = ended.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => {
                let seconds = self.time_max.as_secs();
                format!("no answer within {seconds} s, killed")
            }
            _ => error.to_string(),
        })?;
        match ended.ended {
            Ended::Exited(0) => Ok(ended.stdout),
            Ended::Exited(_) | Ended::Signalled(_) => Err(plugin::complaint(&ended)),
        }
    }

    fn path(&self, uid: &Uid) -> PathBuf {
        self.records.join(format!("{uid}.json"))
    }

    /// Writes the record, so that a power cut does not lose it.
    fn keep(&self, uid: &Uid, record: &Value) -> Result<(), NetworkError> {
        let path = self.path(uid);
        let kept = fs::create_dir_all(&self.records)
            .and_then(|()| file::replace_durably(&path, record.to_string().as_bytes(), 0o600));
        kept.map_err(|error| failed("write", &path.display().to_string(), &error))
    }

    /// What is on record of the pod. One that cannot be understood is of no use to anybody.
    fn record(&self, uid: &Uid) -> Result<Option<Value>, NetworkError> {
        let path = self.path(uid);
        let read = regular_file::open(&path)
            .and_then(|(file, _)| regular_file::read_at_most(&file, RECORD_BYTES_MAX));
        let bytes = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path.display().to_string(), &error)),
            Ok(bytes) => bytes.unwrap_or_default(),
        };
        let record = serde_json::from_slice(&bytes);
        if let Err(error) = &record {
            let path = path.display();
            log::error!("read {path}: {error}; what its pod had of the network is not given back");
        }
        Ok(record.ok())
    }
}

/// Source: containerd's go-cni (ErrCNINotInitialized).
const NOT_INITIALIZED: &str = "cni plugin not initialized";

fn plugins(list: &Value) -> &[Value] {
    list["plugins"].as_array().map_or(&[], Vec::as_slice)
}

/// Plugins that complain of what is not there any more have nothing to take down.
/// Source: containerd's go-cni (Remove).
fn is_gone(error: &str, has_namespace: bool) -> bool {
    error.contains("not found") || !has_namespace && error.contains("no such file or directory")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A plugin of a shell script, and a pod that it is on record for.
    fn plugin(home: &std::path::Path, script: &str) -> (Cni, Uid) {
        let program = home.join("fake");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        let cni = Cni {
            programs: vec![home.to_owned()],
            time_max: Duration::from_millis(500),
            ..Cni::new(None, home.join("records"))
        };
        let uid = Uid::new("u1").expect("a safe name");
        let record = serde_json::json!({
            "name": "n", "cniVersion": "1.0.0", "args": "K8S_POD_NAME=p",
            "plugins": [{"type": "fake"}], "result": {"ips": []},
        });
        cni.keep(&uid, &record).expect("kept");
        (cni, uid)
    }

    #[test]
    fn a_plugin_that_fails_or_hangs_is_told_of_and_asked_again() {
        let home = tempfile::tempdir().expect("a directory");
        for (script, part) in [
            ("sleep 600 & wait", "no answer within 0 s, killed"),
            (
                "echo '{\"code\": 11, \"msg\": \"busy\"}'; exit 1",
                "(delete): busy (code 11)",
            ),
            ("echo oh >&2; exit 3", "\"oh\" (exit code 3)"),
        ] {
            let (cni, uid) = plugin(home.path(), script);
            let error = cni.release(&uid, None).expect_err(script).to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(cni.attached(), [uid]);
        }
        let told = home.path().join("told");
        let script = format!("(env; cat) >{}", told.display());
        let (cni, uid) = plugin(home.path(), &script);
        cni.release(&uid, None).expect("released");
        assert_eq!(cni.attached(), []);
        let told = fs::read_to_string(told).expect("told");
        for part in [
            "CNI_COMMAND=DEL\n",
            "CNI_CONTAINERID=u1\n",
            "CNI_NETNS=\n",
            "CNI_IFNAME=eth0\n",
            "CNI_ARGS=K8S_POD_NAME=p\n",
            "\"prevResult\":{\"ips\":[]}",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        cni.release(&uid, None).expect("nothing is left");
    }
}
