//! The Status that ends a session. Source: Kubernetes kubelet, cri/streaming/remotecommand. Pure.

use serde_json::{Value, json};

use crate::apiserver::backend::ExecExit;

/// How the error stream tells an end, by the protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// From version 4 on: the Status as JSON, always.
    Json,
    /// Before: the message, and only of a failure.
    Text,
}

impl Ending {
    /// `v5.channel.k8s.io`, `v4.base64.channel.k8s.io`, `channel.k8s.io`, …
    pub fn of(protocol: &str) -> Ending {
        match protocol.starts_with("v5.") || protocol.starts_with("v4.") {
            true => Ending::Json,
            false => Ending::Text,
        }
    }

    /// What the error stream says; nothing for a success of old.
    pub fn text(self, status: &Value) -> Option<String> {
        match self {
            Ending::Json => Some(status.to_string()),
            Ending::Text if status["status"] == "Success" => None,
            Ending::Text => Some(status["message"].as_str().unwrap_or_default().to_owned()),
        }
    }
}

pub fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

pub fn of_exit(exit: &ExecExit) -> Value {
    match exit {
        ExecExit::Code(0) => success(),
        ExecExit::Code(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        ExecExit::Lost(why) => failure(why),
    }
}

pub fn failure(why: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {why}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_stream_tells_the_end_as_its_protocol_has_it() {
        let failed = of_exit(&ExecExit::Code(3));
        let text = "command terminated with non-zero exit code: exit status 3";
        let table = [
            ("v5.channel.k8s.io", success(), Some(success().to_string())),
            (
                "v4.base64.channel.k8s.io",
                failed.clone(),
                Some(failed.to_string()),
            ),
            ("v3.channel.k8s.io", success(), None),
            ("channel.k8s.io", failed.clone(), Some(text.to_owned())),
            ("", failed, Some(text.to_owned())),
        ];
        for (protocol, status, told) in table {
            assert_eq!(Ending::of(protocol).text(&status), told, "{protocol}");
        }
    }
}
