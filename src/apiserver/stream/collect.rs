//! A command whose output is one answer: `/run` of the kubelet's port.

use std::cell::RefCell;
use std::rc::Rc;

use http::StatusCode;
use serde_json::Value;

use super::command::{Start, begin, running_id};
use super::{Session, Told, pump};
use crate::apiserver::Shared;
use crate::apiserver::backend::ExecStart;
use crate::apiserver::status::{Refusal, typed_response};
use crate::net::serve::{Body, Response};
use crate::object::Object;
use crate::world::Uid;

/// Output of one command; a command that says more is ended.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Collected {
    output: Vec<u8>,
    status: Value,
}

/// Runs `command` and answers with all that it said. Errors: 400 where the container does not run,
/// 500 where the command failed.
pub async fn run(
    shared: &Rc<Shared>,
    pod: &Object,
    container: &str,
    command: Vec<String>,
) -> Result<Response, Refusal> {
    let uid = Uid::new(pod.uid()).ok_or_else(|| Refusal::internal("the pod's uid is unusable"))?;
    let start = Start::Exec(ExecStart {
        uid,
        container: running_id(&pod.body, container, &pod.key.name)?,
        command,
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    });
    let slot = shared.execs.take(shared.options.limits.execs);
    let _slot = slot.ok_or_else(|| Refusal::too_many("commands"))?;
    let collected = Rc::new(RefCell::new(Collected::default()));
    let into = collected.clone();
    let session = Session::carried(|_say, tell| async move {
        while let Ok(told) = tell.recv().await {
            let mut into = into.borrow_mut();
            match told {
                Told::Stdout(bytes) | Told::Stderr(bytes) => into.output.extend_from_slice(&bytes),
                Told::Status(status) => into.status = status,
            }
            if into.output.len() > OUTPUT_BYTES_MAX {
                return;
            }
        }
    });
    let (clock, idle) = (shared.clock.clone(), shared.options.limits.stream_idle);
    pump::run(session, begin(shared, start), clock, idle).await;
    let Collected { output, status } = collected.take();
    if status["status"] == "Success" {
        let body = Body::bytes(output);
        return Ok(typed_response(StatusCode::OK, "text/plain", body));
    }
    let why = match status["message"].as_str() {
        Some(why) => format!("{why}: {}", String::from_utf8_lossy(&output)),
        None => {
            format!("the command said more than {OUTPUT_BYTES_MAX} bytes, or nothing for too long")
        }
    };
    Err(Refusal::internal(why))
}
