//! The seccomp object of a container: the default profile, a file of the node, or none.

use serde_json::{Value, json};

use super::seccomp_table::{
    ALLOWED, BY_CAPABILITY, CLONE_NAMESPACE_FLAGS, PERSONALITIES, SOCKET_FAMILY_REFUSED,
};
use super::{Architecture, BundleError, BundleInput, CapabilitySet, capabilities};
use crate::world::Seccomp;

/// "No such system call": lets libc fall back to an older one.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The profile that the container runs under; `None` is unconfined, as privileged ones always are.
/// Errors: `Config` if a Localhost profile is missing or is no profile.
pub(super) fn profile(input: &BundleInput) -> Result<Option<Value>, BundleError> {
    let security = &input.container.security;
    if security.privileged {
        return Ok(None);
    }
    match &security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => {
            let held = capabilities::effective(security, input.host.capabilities)?;
            Ok(Some(runtime_default(input.host.architecture, held)))
        }
        Seccomp::Localhost(name) => localhost(name, input.seccomp_file).map(Some),
    }
}

/// An empty name must never mean "no profile" (CVE-2023-2431).
fn localhost(name: &str, text: Option<&str>) -> Result<Value, BundleError> {
    let error = |cause: &str| {
        BundleError::Config(format!("seccompProfile.localhostProfile {name:?}: {cause}"))
    };
    if name.is_empty() {
        return Err(error("must name a file"));
    }
    let text = text.ok_or_else(|| error("cannot load seccomp profile"))?;
    let mut profile: Value =
        serde_json::from_str(text).map_err(|cause| error(&format!("not valid JSON: {cause}")))?;
    if profile
        .get("defaultAction")
        .and_then(Value::as_str)
        .is_none()
    {
        return Err(error("has no defaultAction"));
    }
    // docker's extended form has `archMap`, which the OCI form states as `architectures`.
    if let (Some(Value::Array(map)), None) = (profile.get("archMap"), profile.get("architectures"))
    {
        let names: Value = map.iter().flat_map(architectures_of).collect();
        profile["architectures"] = names;
    }
    if let Some(fields) = profile.as_object_mut() {
        fields.remove("archMap");
    }
    Ok(profile)
}

fn architectures_of(entry: &Value) -> Vec<Value> {
    let subs = entry["subArchitectures"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    std::iter::once(entry["architecture"].clone())
        .chain(subs)
        .collect()
}

fn runtime_default(architecture: Architecture, held: CapabilitySet) -> Value {
    let mut rules = vec![
        allow(ALLOWED),
        allow(architecture.own_syscalls()),
        allow_if("socket", 0, SOCKET_FAMILY_REFUSED, "SCMP_CMP_NE"),
    ];
    rules.extend(PERSONALITIES.map(|p| allow_if("personality", 0, p, "SCMP_CMP_EQ")));
    let granted = BY_CAPABILITY
        .iter()
        .filter(|(capability, _)| held.contains(capability));
    rules.extend(granted.map(|(_, names)| allow(names)));
    if !held.contains("SYS_ADMIN") {
        rules.push(json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{
                "index": 0,
                "value": CLONE_NAMESPACE_FLAGS,
                "valueTwo": 0,
                "op": "SCMP_CMP_MASKED_EQ",
            }],
        }));
        rules.push(json!({
            "names": ["clone3"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": ENOSYS,
        }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architecture.seccomp_names(),
        "syscalls": rules,
    })
}

fn allow(names: &str) -> Value {
    let names: Vec<&str> = names.split_ascii_whitespace().collect();
    json!({ "names": names, "action": "SCMP_ACT_ALLOW" })
}

fn allow_if(name: &str, index: u32, value: u64, op: &str) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": index, "value": value, "op": op }],
    })
}
