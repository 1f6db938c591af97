//! Facts to findings: what each means for pods, and how to get what is missing. Pure.

use std::path::{Path, PathBuf};

use super::facts::{Facts, Nft, Runtime};
use super::runtime_version::{self, Verdict};
use super::{Finding, Grade};
use crate::os::probe::{CgroupLayout, FileSystem, Place, Support};
use crate::runtime::network::cni::{self, config::Found};

/// openat2 and pidfds (Linux 5.6) are what volumes and the shim stand on.
const KERNEL_LEAST: (u32, u32) = (5, 6);
/// Room for a few small images; below it pulls fail soon.
const FREE_BYTES_LEAST: u64 = 512 << 20;
const FREE_INODES_LEAST: u64 = 10_000;

/// All findings, in the order in which a user would mend them.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        user(facts),
        kernel(facts),
        cgroup(facts),
        support(
            "overlayfs",
            &facts.overlayfs,
            "overlay",
            "CONFIG_OVERLAY_FS",
        ),
        support("bridge", &facts.bridge, "bridge", "CONFIG_BRIDGE"),
        support("veth", &facts.veth, "veth", "CONFIG_VETH"),
        nft(facts),
        namespaces(facts),
        seccomp(facts),
        runtime(facts),
        root(facts),
        run(facts),
    ];
    findings.extend(
        facts
            .cni
            .iter()
            .flat_map(|(directory, found)| cni(directory, found)),
    );
    if let Nft::Works(firewalls) = &facts.nft {
        let firewalls = firewalls.iter();
        findings.extend(firewalls.map(|advice| finding("firewall", Grade::Warn, advice)));
    }
    findings
}

fn finding(subject: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding {
        subject,
        grade,
        text: text.into(),
    }
}

fn user(facts: &Facts) -> Finding {
    match facts.effective_uid {
        0 => finding("user", Grade::Ok, "root"),
        uid => finding(
            "user",
            Grade::Missing,
            format!("uid {uid}: run as root (sudo lowtide check)"),
        ),
    }
}

fn kernel(facts: &Facts) -> Finding {
    let release = &facts.kernel_release;
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = KERNEL_LEAST;
    match version >= KERNEL_LEAST {
        true => finding("kernel", Grade::Ok, release),
        false => finding(
            "kernel",
            Grade::Missing,
            format!("{release}: needs {major}.{minor} or newer, upgrade the system"),
        ),
    }
}

fn cgroup(facts: &Facts) -> Finding {
    let layout = match facts.cgroup_layout {
        CgroupLayout::None => {
            return finding(
                "cgroup",
                Grade::Missing,
                "nothing mounted: mount -t cgroup2 none /sys/fs/cgroup",
            );
        }
        CgroupLayout::V1 => "v1",
        CgroupLayout::V2 => "v2",
        CgroupLayout::Hybrid => "hybrid (controllers on v1)",
    };
    let absent: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !facts.cgroup_controllers.contains(*name))
        .collect();
    if absent.is_empty() {
        return finding(
            "cgroup",
            Grade::Ok,
            format!("{layout}, with cpu, memory, pids"),
        );
    }
    let text = format!("{layout}, without {}", absent.join(", "));
    let pi = facts
        .board_model
        .as_ref()
        .is_some_and(|model| model.contains("Raspberry Pi"));
    if absent.contains(&"memory") && (pi || facts.cmdline_file.is_some()) {
        let file = facts.cmdline_file.unwrap_or("/boot/firmware/cmdline.txt");
        return finding(
            "cgroup",
            Grade::Missing,
            format!(
                "{text}: add \"cgroup_memory=1 cgroup_enable=memory\" to the end of the one line \
                 in {file} and reboot"
            ),
        );
    }
    finding(
        "cgroup",
        Grade::Missing,
        format!("{text}: enable them on the kernel's command line or in its configuration"),
    )
}

fn support(subject: &'static str, support: &Support, module: &str, option: &str) -> Finding {
    match support {
        Support::Ready => finding(subject, Grade::Ok, "in the kernel"),
        Support::OnDemand => finding(subject, Grade::Ok, "module, loaded when first used"),
        Support::Absent => finding(
            subject,
            Grade::Missing,
            format!("not in this kernel: modprobe {module}, or a kernel with {option}"),
        ),
        Support::Unknown(why) => finding(
            subject,
            Grade::Warn,
            format!("cannot tell ({why}); try modprobe {module}"),
        ),
    }
}

/// Without nft only pods with hostNetwork or without outside contact work.
fn nft(facts: &Facts) -> Finding {
    match &facts.nft {
        Nft::Works(_) => finding("nft", Grade::Ok, "nft and nf_tables work"),
        Nft::NoProgram => finding(
            "nft",
            Grade::Missing,
            "no nft on PATH: apt install nftables",
        ),
        Nft::Failed(why) => finding(
            "nft",
            Grade::Missing,
            format!(
                "{why}; modprobe nf_tables, or a kernel with CONFIG_NF_TABLES, CONFIG_NFT_NAT, \
                 CONFIG_NFT_MASQ and CONFIG_NFT_FIB_IPV4"
            ),
        ),
    }
}

fn namespaces(facts: &Facts) -> Finding {
    match facts.missing_namespaces.as_slice() {
        [] => finding("namespaces", Grade::Ok, "mnt, net, pid, ipc, uts, cgroup"),
        missing => finding(
            "namespaces",
            Grade::Missing,
            format!(
                "no {}: needs a kernel with CONFIG_NAMESPACES",
                missing.join(", ")
            ),
        ),
    }
}

fn seccomp(facts: &Facts) -> Finding {
    match facts.seccomp_filters {
        true => finding("seccomp", Grade::Ok, "filters work"),
        false => finding(
            "seccomp",
            Grade::Warn,
            "no filters: pods with a seccomp profile do not start; needs a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn runtime(facts: &Facts) -> Finding {
    const SUBJECT: &str = "runtime";
    let (path, output) = match &facts.runtime {
        Runtime::NotFound(wanted) => {
            return finding(
                SUBJECT,
                Grade::Missing,
                format!("no {wanted} on PATH: apt install runc"),
            );
        }
        Runtime::Failed(path, why) => {
            let text = format!("{} --version: {why}; install it again", path.display());
            return finding(SUBJECT, Grade::Missing, text);
        }
        Runtime::Found(path, output) => (path.display(), output),
    };
    let Some(version) = runtime_version::parse(output) else {
        return finding(SUBJECT, Grade::Warn, format!("{path}: unknown version"));
    };
    let name = format!("{} {} ({path})", version.name, version.text);
    match runtime_version::judge(&version) {
        Verdict::Fixed => finding(SUBJECT, Grade::Ok, format!("{name}, no known hole")),
        Verdict::Unlisted => finding(
            SUBJECT,
            Grade::Ok,
            format!("{name}, its holes are not listed here"),
        ),
        Verdict::Vulnerable(cves) => finding(
            SUBJECT,
            Grade::Warn,
            format!(
                "{name} has {}: install 1.2.8, 1.3.3, 1.4.0 or newer",
                cves.join(", ")
            ),
        ),
        Verdict::CannotTell(cves) => finding(
            SUBJECT,
            Grade::Warn,
            format!(
                "{name}: cannot tell whether the distribution fixed {}; see apt changelog {} or \
                 security-tracker.debian.org",
                cves.join(", "),
                version.name
            ),
        ),
    }
}

/// The configuration that pods get their network by, after those that are passed over.
fn cni(directory: &Path, found: &Found) -> Vec<Finding> {
    const SUBJECT: &str = "cni";
    let broken = found.problems.iter();
    let broken =
        broken.map(|problem| finding(SUBJECT, Grade::Warn, format!("{problem}; not used")));
    let mut findings: Vec<Finding> = broken.collect();
    let Some((file, list)) = &found.used else {
        let text = format!(
            "{}: no configuration that can be used: pods wait until somebody writes one",
            directory.display()
        );
        findings.push(finding(SUBJECT, Grade::Warn, text));
        return findings;
    };
    let programs = list["plugins"].as_array().into_iter().flatten();
    let programs = programs.filter_map(|plugin| plugin["type"].as_str());
    let (mut there, mut absent) = (Vec::new(), Vec::new());
    for program in programs {
        match cni::find(&cni::PROGRAMS.map(PathBuf::from), program) {
            Some(path) => there.push(path.display().to_string()),
            None => absent.push(program),
        }
    }
    let file = file.display();
    findings.push(match absent.is_empty() {
        true => finding(SUBJECT, Grade::Ok, format!("{file}: {}", there.join(", "))),
        false => {
            let (absent, places) = (absent.join(", "), cni::PROGRAMS.join(" nor "));
            let text = format!(
                "{file}: no {absent} in {places}: apt install containernetworking-plugins, or what \
                 your network's documentation says"
            );
            finding(SUBJECT, Grade::Missing, text)
        }
    });
    findings
}

fn root(facts: &Facts) -> Finding {
    let (path, place) = (&facts.root.0, &facts.root.1);
    let (grade, why) = match place {
        Err(why) => (Grade::Missing, why.clone()),
        Ok(place) => match place.file_system {
            FileSystem::ReadOnly => {
                let text = "on a read-only file system: remount it or choose another --root-dir";
                (Grade::Missing, text.to_owned())
            }
            FileSystem::Overlay => {
                let text =
                    "on overlayfs, where no container's layer can be: choose another --root-dir";
                (Grade::Missing, text.to_owned())
            }
            FileSystem::Network | FileSystem::Fat => {
                let text = "on a file system without what layers need: choose ext4, btrfs or xfs \
                            for --root-dir";
                (Grade::Missing, text.to_owned())
            }
            FileSystem::Tmpfs => (
                Grade::Warn,
                "on tmpfs: nothing survives a reboot".to_owned(),
            ),
            FileSystem::Other => room(place),
        },
    };
    finding("root-dir", grade, format!("{}: {why}", path.display()))
}

fn room(place: &Place) -> (Grade, String) {
    let free_mib = place.free_bytes >> 20;
    if place.free_bytes < FREE_BYTES_LEAST {
        return (
            Grade::Warn,
            format!("only {free_mib} MiB free: make room for images"),
        );
    }
    if place
        .free_inodes
        .is_some_and(|inodes| inodes < FREE_INODES_LEAST)
    {
        return (
            Grade::Warn,
            "few inodes free: remove small files".to_owned(),
        );
    }
    let state = if place.exists {
        "there"
    } else {
        "made at first start"
    };
    (Grade::Ok, format!("{state}, {free_mib} MiB free"))
}

fn run(facts: &Facts) -> Finding {
    let (path, place) = (&facts.run.0, &facts.run.1);
    let (grade, why) = match place {
        Err(why) => (Grade::Missing, why.clone()),
        Ok(place) => match place.file_system {
            FileSystem::Tmpfs if place.exists => (Grade::Ok, "there, on tmpfs".to_owned()),
            FileSystem::Tmpfs => (Grade::Ok, "made at first start, on tmpfs".to_owned()),
            FileSystem::ReadOnly => (
                Grade::Missing,
                "on a read-only file system: choose another --run-dir".to_owned(),
            ),
            _ => (Grade::Warn, on_disk(path)),
        },
    };
    finding("run-dir", grade, format!("{}: {why}", path.display()))
}

fn on_disk(path: &Path) -> String {
    let top = path.parent().unwrap_or(path);
    format!(
        "not on tmpfs, so it outlives a reboot and wears flash: mount a tmpfs at {} or choose \
         another --run-dir",
        top.display()
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::judge;
    use crate::cli::check::facts::{Facts, Nft, Runtime};
    use crate::cli::check::{Finding, Grade};
    use crate::os::probe::{CgroupLayout, FileSystem, Place, Support};

    fn place(file_system: FileSystem) -> Result<Place, String> {
        Ok(Place {
            exists: true,
            file_system,
            free_bytes: 1 << 40,
            free_inodes: None,
        })
    }

    fn good() -> Facts {
        Facts {
            effective_uid: 0,
            kernel_release: "6.1.0-18-arm64".to_owned(),
            cgroup_layout: CgroupLayout::V2,
            cgroup_controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
            board_model: Some("Raspberry Pi 4 Model B Rev 1.4".to_owned()),
            cmdline_file: Some("/boot/firmware/cmdline.txt"),
            overlayfs: Support::Ready,
            bridge: Support::OnDemand,
            veth: Support::Ready,
            missing_namespaces: Vec::new(),
            seccomp_filters: true,
            nft: Nft::Works(Vec::new()),
            runtime: Runtime::Found("/usr/bin/runc".into(), "runc version 1.3.3".to_owned()),
            cni: None,
            root: (PathBuf::from("/var/lib/lowtide"), place(FileSystem::Other)),
            run: (PathBuf::from("/run/lowtide"), place(FileSystem::Tmpfs)),
        }
    }

    fn not_ok(facts: &Facts) -> Vec<Finding> {
        let findings = judge(facts);
        let bad = |finding: &Finding| finding.grade != Grade::Ok;
        findings.into_iter().filter(bad).collect()
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        assert_eq!(not_ok(&good()), []);
    }

    type Spoil = fn(&mut Facts);

    const LACKS: [(Spoil, &str, Grade, &str); 13] = [
        (|f| f.effective_uid = 1000, "user", Grade::Missing, "sudo"),
        (
            |f| f.kernel_release = "4.19.0".into(),
            "kernel",
            Grade::Missing,
            "5.6",
        ),
        (
            |f| f.cgroup_controllers.retain(|name| name != "memory"),
            "cgroup",
            Grade::Missing,
            "cgroup_enable=memory\" to the end of the one line in /boot/firmware/cmdline.txt",
        ),
        (
            |f| f.cgroup_layout = CgroupLayout::None,
            "cgroup",
            Grade::Missing,
            "mount -t cgroup2",
        ),
        (
            |f| f.overlayfs = Support::Absent,
            "overlayfs",
            Grade::Missing,
            "modprobe overlay",
        ),
        (
            |f| f.veth = Support::Unknown("x".into()),
            "veth",
            Grade::Warn,
            "modprobe veth",
        ),
        (
            |f| f.nft = Nft::NoProgram,
            "nft",
            Grade::Missing,
            "apt install nftables",
        ),
        (
            |f| f.nft = Nft::Works(vec!["table ip filter drops".to_owned()]),
            "firewall",
            Grade::Warn,
            "table ip filter",
        ),
        (
            |f| f.missing_namespaces = vec!["net"],
            "namespaces",
            Grade::Missing,
            "net",
        ),
        (
            |f| f.runtime = Runtime::NotFound("runc".into()),
            "runtime",
            Grade::Missing,
            "apt install runc",
        ),
        (
            |f| f.runtime = Runtime::Found("/runc".into(), "runc version 1.1.4".into()),
            "runtime",
            Grade::Warn,
            "CVE-2024-21626",
        ),
        (
            |f| f.root.1 = place(FileSystem::Overlay),
            "root-dir",
            Grade::Missing,
            "--root-dir",
        ),
        (
            |f| f.run.1 = place(FileSystem::Other),
            "run-dir",
            Grade::Warn,
            "tmpfs at /run",
        ),
    ];

    #[test]
    fn each_lack_is_one_finding_that_says_what_to_do() {
        for (spoil, subject, grade, text) in LACKS {
            let mut facts = good();
            spoil(&mut facts);
            let found = not_ok(&facts);
            assert_eq!(found.len(), 1, "{subject}: {found:?}");
            assert_eq!((found[0].subject, found[0].grade), (subject, grade));
            assert!(found[0].text.contains(text), "{}", found[0].text);
        }
    }
}
