//! The process object: arguments, environment, working directory, user, score.

use serde_json::{Value, json};

use super::{BundleError, BundleInput, OomClamped, OomLowering, capabilities};

/// PATH of an image that states none. Source: containerd and docker.
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a terminal is said to be. Source: containerd.
const TERM_DEFAULT: &str = "TERM=xterm";
/// What the kernel accepts. Source: proc(5).
const OOM_SCORE_RANGE: std::ops::RangeInclusive<i32> = -1000..=1000;

/// The OCI `process` and what had to be clamped.
pub(super) fn process(input: &BundleInput) -> Result<(Value, Option<OomClamped>), BundleError> {
    let security = &input.container.security;
    let set = capabilities::effective(security, input.host.capabilities)?;
    let clamped = clamp(input);
    let score = clamped.map_or(input.container.oom_score_adj, |c| c.given);
    let process = json!({
        "terminal": input.container.tty,
        "user": {
            "uid": input.user.uid,
            "gid": input.user.gid,
            "additionalGids": input.user.additional_gids,
        },
        "args": args(input)?,
        "env": environment(input),
        "cwd": working_dir(input)?,
        "capabilities": capabilities::to_oci(set),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": score,
    });
    Ok((process, clamped))
}

/// A command replaces entrypoint and cmd of the image; args alone replace its cmd.
/// Source: Kubernetes, "Define a Command and Arguments for a Container".
fn args(input: &BundleInput) -> Result<Vec<String>, BundleError> {
    let (container, image) = (input.container, input.image);
    let (first, rest) = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => (&container.command, &container.args),
        (true, false) => (&image.entrypoint, &container.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let args: Vec<String> = first.iter().chain(rest).cloned().collect();
    match args.first() {
        None => Err(BundleError::Image("no command specified".to_owned())),
        Some(program) if program.is_empty() => Err(BundleError::Config(
            "the command's first word is empty".to_owned(),
        )),
        Some(_) if args.iter().any(|arg| arg.contains('\0')) => Err(BundleError::Config(
            "command or args contain a NUL character".to_owned(),
        )),
        Some(_) => Ok(args),
    }
}

/// Defaults, then the image's, then the pod's; a later value of a name takes the earlier's place.
fn environment(input: &BundleInput) -> Vec<String> {
    let mut variables: Vec<String> = vec![PATH_DEFAULT.to_owned()];
    if input.container.tty {
        variables.push(TERM_DEFAULT.to_owned());
    }
    set(
        &mut variables,
        format!("HOSTNAME={}", input.sandbox.hostname),
    );
    if let Some(home) = &input.user.home {
        set(&mut variables, format!("HOME={home}"));
    }
    for variable in input.image.env.iter().filter(|v| v.contains('=')) {
        set(&mut variables, variable.clone());
    }
    for (name, value) in &input.container.env {
        set(&mut variables, format!("{name}={value}"));
    }
    variables
}

fn set(variables: &mut Vec<String>, variable: String) {
    let name_end = variable.find('=').map_or(variable.len(), |at| at + 1);
    let name = &variable[..name_end];
    match variables.iter_mut().find(|known| known.starts_with(name)) {
        Some(known) => *known = variable,
        None => variables.push(variable),
    }
}

/// The pod's directory, else the image's, else `/`.
///
/// A working directory below /proc/self/fd or /proc/<pid> would let the first process start in a
/// directory that the runtime still holds open on the host (CVE-2024-21626).
fn working_dir(input: &BundleInput) -> Result<String, BundleError> {
    let of_pod = input
        .container
        .working_dir
        .as_deref()
        .filter(|d| !d.is_empty());
    let (wanted, is_pods) = match of_pod {
        Some(directory) => (directory, true),
        None if input.image.working_dir.is_empty() => ("/", false),
        None => (input.image.working_dir.as_str(), false),
    };
    let error = |text: &str| {
        Err(match is_pods {
            true => BundleError::Config(format!("workingDir {wanted:?} {text}")),
            false => BundleError::Image(format!("image working directory {wanted:?} {text}")),
        })
    };
    if !wanted.starts_with('/') && is_pods {
        return error("is not an absolute path");
    }
    let clean = clean_path(wanted);
    match clean == "/proc" || clean.starts_with("/proc/") || wanted.contains('\0') {
        true => error("is not allowed: it lies in /proc"),
        false => Ok(clean),
    }
}

/// `/a/./b/../c//` becomes `/a/c`; always absolute, never above the root.
pub(super) fn clean_path(path: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}

fn clamp(input: &BundleInput) -> Option<OomClamped> {
    let (low, high) = (*OOM_SCORE_RANGE.start(), *OOM_SCORE_RANGE.end());
    let wanted = input.container.oom_score_adj;
    let floor = match input.host.oom_lowering {
        OomLowering::Allowed => low,
        OomLowering::Forbidden => input.host.oom_score_adj_inherited,
    };
    let given = wanted.max(floor).clamp(low, high);
    (given != wanted).then_some(OomClamped { wanted, given })
}
