//! Volumes on a real file system, in a mount namespace of the test's own thread. Needs root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::runtime::bundle::{Access, ResolvedMount};
use crate::world::{HostPathType, Mount, MountSource, ProjectedFile, Propagation};

/// A root directory of its own, with mounts that nobody else sees. `None` (with the reason
/// printed) where the kernel lets us make no mounts.
struct Place {
    directory: tempfile::TempDir,
    uid: Uid,
}

impl Place {
    fn new() -> Option<Place> {
        if let Err(error) = volume_fs::isolate_mounts() {
            eprintln!("skipped: no mount namespace: {error}");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let uid = Uid::new("0a1b").expect("a uid");
        Some(Place { directory, uid })
    }

    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().expect("canonical")
    }

    fn pod(&self) -> PathBuf {
        pod_directory(&self.root(), &self.uid)
    }

    fn set_up(&self, content: VolumeContent) -> Result<PathBuf, String> {
        self.set_up_for(content, None)
    }

    fn set_up_for(&self, content: VolumeContent, group: Option<u32>) -> Result<PathBuf, String> {
        let plugin = match &content {
            VolumeContent::Files { plugin, .. } => plugin,
            VolumeContent::EmptyDir { .. } | VolumeContent::HostPath { .. } => EMPTY_DIR,
        };
        let path = self.pod().join("volumes").join(plugin).join("v");
        let pod = PodVolumes {
            uid: self.uid.clone(),
            fs_group: group,
            skip_matching_root: false,
            volumes: vec![VolumeSetUp {
                name: "v".to_owned(),
                content,
            }],
        };
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        set_up(&self.root(), &pod, now)
            .map(|()| path)
            .map_err(|errors| errors[0].message.clone())
    }

    fn resolve(&self, source: MountSource) -> Result<ResolvedMount, MountError> {
        let mount = Mount {
            volume: "v".to_owned(),
            source,
            container_path: "/data".to_owned(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
        };
        resolve_mount(&self.root(), &self.uid, "c", 0, &mount)
    }

    fn sub_path(&self, path: &str) -> Result<ResolvedMount, MountError> {
        self.resolve(MountSource::Volume {
            name: "v".to_owned(),
            sub_path: Some(path.to_owned()),
        })
    }

    fn tear_down(&self) {
        tear_down(&self.root(), &self.uid).expect("torn down");
        assert!(!self.pod().exists());
    }
}

fn empty_dir() -> VolumeContent {
    VolumeContent::EmptyDir {
        medium: FileMedium::Disk,
        size_bytes: None,
    }
}

fn files(entries: &[(&str, &str)]) -> VolumeContent {
    let file = |(path, text): &(&str, &str)| ProjectedFile {
        path: (*path).to_owned(),
        mode: 0o400,
        uid: None,
        bytes: text.as_bytes().to_vec(),
    };
    VolumeContent::Files {
        plugin: "kubernetes.io~secret",
        medium: FileMedium::Tmpfs,
        files: entries.iter().map(file).collect(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path)
        .expect("exists")
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn an_empty_dir_is_writable_by_all_and_keeps_its_content() {
    let Some(place) = Place::new() else { return };
    let path = place.set_up(empty_dir()).expect("set up");
    assert_eq!(mode(&path), 0o777);
    fs::write(path.join("kept"), "x").expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a database's own mode");
    place.set_up(empty_dir()).expect("set up again");
    assert!(path.join("kept").exists());
    assert_eq!(
        mode(&path),
        0o700,
        "a refresh leaves the containers' mode alone"
    );
    place.tear_down();
}

#[test]
fn an_empty_dir_in_memory_has_the_stated_size() {
    let Some(place) = Place::new() else { return };
    let content = VolumeContent::EmptyDir {
        medium: FileMedium::Tmpfs,
        size_bytes: Some(64 * 1024),
    };
    let path = place.set_up(content.clone()).expect("set up");
    assert_eq!(mode(&path), 0o1777);
    place.set_up(content).expect("set up again");
    assert!(fs::write(path.join("large"), vec![1u8; 1024 * 1024]).is_err());
    let mounts = mounts::read().expect("mounts");
    assert_eq!(mounts.iter().filter(|m| m.target == path).count(), 1);
    place.tear_down();
}

#[test]
fn files_change_all_at_once_and_only_if_they_differ() {
    let Some(place) = Place::new() else { return };
    let path = place
        .set_up(files(&[("a", "1"), ("dir/b", "2")]))
        .expect("set up");
    let first = fs::read_link(path.join("..data")).expect("a link");
    assert_eq!(
        fs::read_to_string(path.join("dir/b")).expect("readable"),
        "2"
    );
    assert_eq!(mode(&path.join("..data/a")), 0o400);
    place
        .set_up(files(&[("a", "1"), ("dir/b", "2")]))
        .expect("set up again");
    assert_eq!(
        fs::read_link(path.join("..data")).expect("a link"),
        first,
        "nothing was written"
    );
    symlink("nowhere", path.join("..data_tmp")).expect("a leftover");
    place
        .set_up(files(&[("a", "3"), ("c", "4")]))
        .expect("changed");
    assert_ne!(fs::read_link(path.join("..data")).expect("a link"), first);
    assert_eq!(fs::read_to_string(path.join("a")).expect("readable"), "3");
    let mut names: Vec<_> = fs::read_dir(&path).expect("lists").flatten().collect();
    names.retain(|entry| !entry.file_name().to_string_lossy().starts_with("..2"));
    let mut names: Vec<_> = names.iter().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["..data", "a", "c"]);
    assert!(!path.join(first).exists(), "the old version is gone");
    place.tear_down();
}

#[test]
fn files_are_readable_by_the_group() {
    let Some(place) = Place::new() else { return };
    let path = place
        .set_up_for(files(&[("a", "1")]), Some(4242))
        .expect("set up");
    let found = fs::metadata(path.join("a")).expect("exists");
    assert_eq!((found.gid(), found.mode() & 0o777), (4242, 0o440));
    place.tear_down();
}

#[test]
fn cleaning_a_files_volume_removes_links_and_not_what_they_lead_to() {
    let Some(place) = Place::new() else { return };
    let host = place.root().join("host");
    fs::create_dir(&host).expect("made");
    fs::write(host.join("precious"), "x").expect("written");
    let path = place
        .set_up(files(&[("a", "1"), ("dir/b", "2")]))
        .expect("set up");
    symlink(&host, path.join("stray")).expect("linked");
    fs::remove_file(path.join("dir")).expect("removed");
    symlink(&host, path.join("dir")).expect("linked");
    fs::remove_file(path.join("..data")).expect("removed");
    symlink(&host, path.join("..data")).expect("linked");
    place
        .set_up(files(&[("a", "2"), ("dir/b", "2")]))
        .expect("healed");
    assert_eq!(fs::read_to_string(path.join("a")).expect("readable"), "2");
    assert_eq!(
        fs::read_to_string(path.join("dir/b")).expect("readable"),
        "2"
    );
    assert!(!path.join("stray").exists());
    assert!(host.join("precious").exists());
    place.tear_down();
    assert!(host.join("precious").exists());
}

#[test]
fn what_an_empty_dir_holds_outlives_a_shutdown_and_what_is_in_memory_does_not() {
    let Some(place) = Place::new() else { return };
    for (medium, there) in [(FileMedium::Disk, true), (FileMedium::Tmpfs, false)] {
        let content = || VolumeContent::EmptyDir {
            medium,
            size_bytes: None,
        };
        let path = place.set_up(content()).expect("a directory");
        fs::write(path.join("file"), "kept").expect("written");
        unmount(&place.pod()).expect("unmounted");
        let again = place.set_up(content()).expect("a directory");
        assert_eq!(again.join("file").exists(), there, "{medium:?}");
        place.tear_down();
        assert!(!path.exists());
    }
}

#[test]
fn tear_down_ends_mounts_and_leaves_the_host_alone() {
    let Some(place) = Place::new() else { return };
    let host = place.root().join("host");
    fs::create_dir(&host).expect("made");
    fs::write(host.join("precious"), "x").expect("written");
    let path = place.set_up(empty_dir()).expect("set up");
    symlink(&host, path.join("link")).expect("linked");
    fs::create_dir_all(path.join("deep/er")).expect("made");
    fs::create_dir(path.join("bound")).expect("made");
    let source = volume_fs::open_directory(&host).expect("opens");
    volume_fs::bind(source.as_fd(), &path.join("bound")).expect("bound by a container");
    place.set_up(files(&[("a", "1")])).expect("a tmpfs too");
    place.tear_down();
    place.tear_down_again();
    assert!(host.join("precious").exists());
}

impl Place {
    fn tear_down_again(&self) {
        tear_down(&self.root(), &self.uid).expect("nothing there is success");
    }
}

#[test]
fn records_of_the_kubelet_outlive_the_volumes() {
    let Some(place) = Place::new() else { return };
    place.set_up(empty_dir()).expect("set up");
    fs::write(place.pod().join("final.json"), "{}").expect("written");
    tear_down(&place.root(), &place.uid).expect("torn down");
    assert!(place.pod().join("final.json").exists());
    assert!(!place.pod().join("volumes").exists());
}

#[test]
fn the_group_owns_everything_but_what_links_lead_to() {
    let Some(place) = Place::new() else { return };
    let outside = place.root().join("outside");
    fs::write(&outside, "x").expect("written");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).expect("chmod");
    let path = place.set_up(empty_dir()).expect("set up");
    fs::remove_file(place.pod().join("plugins").join(EMPTY_DIR).join("v/ready")).expect("removed");
    fs::create_dir(path.join("d")).expect("made");
    fs::write(path.join("d/f"), "x").expect("written");
    symlink(&outside, path.join("d/link")).expect("linked");
    place.set_up_for(empty_dir(), Some(4242)).expect("owned");
    for entry in [path.clone(), path.join("d")] {
        let found = fs::metadata(&entry).expect("exists");
        assert_eq!(
            (found.gid(), found.mode() & 0o2770),
            (4242, 0o2770),
            "{entry:?}"
        );
    }
    let file = fs::metadata(path.join("d/f")).expect("exists");
    assert_eq!((file.gid(), file.mode() & 0o660), (4242, 0o660));
    assert_eq!(
        fs::symlink_metadata(path.join("d/link"))
            .expect("exists")
            .gid(),
        4242
    );
    let untouched = fs::metadata(&outside).expect("exists");
    assert_eq!((untouched.gid(), untouched.mode() & 0o777), (0, 0o600));
    place.tear_down();
}

#[test]
fn host_paths_are_checked_by_type() {
    let Some(place) = Place::new() else { return };
    let root = place.root();
    fs::create_dir(root.join("dir")).expect("made");
    fs::write(root.join("file"), "").expect("written");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).expect("bound");
    for (name, kind, complaint) in [
        ("missing", HostPathType::Unset, None),
        ("dir", HostPathType::Directory, None),
        ("file", HostPathType::Directory, Some("is not a directory")),
        (
            "missing",
            HostPathType::Directory,
            Some("is not a directory"),
        ),
        ("made/deep", HostPathType::DirectoryOrCreate, None),
        (
            "file",
            HostPathType::DirectoryOrCreate,
            Some("is not a directory"),
        ),
        ("file", HostPathType::File, None),
        ("dir", HostPathType::File, Some("is not a file")),
        ("new", HostPathType::FileOrCreate, None),
        ("no/parent", HostPathType::FileOrCreate, Some("make file")),
        ("sock", HostPathType::Socket, None),
        ("file", HostPathType::Socket, Some("is not a socket file")),
        (
            "file",
            HostPathType::CharDevice,
            Some("is not a character device"),
        ),
        (
            "file",
            HostPathType::BlockDevice,
            Some("is not a block device"),
        ),
        (
            "dir/../file",
            HostPathType::File,
            Some("must not contain '..'"),
        ),
    ] {
        let path = format!("{}/{name}", root.display());
        let outcome = place.set_up(VolumeContent::HostPath { path, kind });
        match (outcome, complaint) {
            (Ok(_), None) => {}
            (Err(text), Some(part)) => assert!(text.contains(part), "{name}: {text}"),
            (outcome, _) => panic!("{name} {kind:?}: {outcome:?}"),
        }
    }
    assert_eq!(
        (mode(&root.join("made/deep")), mode(&root.join("new"))),
        (0o755, 0o644)
    );
}

#[test]
fn sub_paths_are_made_and_bound() {
    let Some(place) = Place::new() else { return };
    let path = place.set_up(empty_dir()).expect("set up");
    let resolved = place.sub_path("a/b").expect("resolved");
    assert_eq!(mode(&path.join("a/b")), 0o777);
    fs::write(resolved.source.join("f"), "x").expect("written through the bind");
    assert!(path.join("a/b/f").exists());
    // A file, again at the same place; then a link that stays inside.
    assert!(place.sub_path("a/b/f").expect("resolved").source.is_file());
    symlink("a/b", path.join("inside")).expect("linked");
    assert!(
        place
            .sub_path("inside")
            .expect("resolved")
            .source
            .join("f")
            .exists()
    );
    symlink(path.join("a"), path.join("absolute")).expect("linked");
    assert!(
        place
            .sub_path("absolute/b")
            .expect("resolved")
            .source
            .join("f")
            .exists()
    );
    clean_subpaths(&place.root(), &place.uid, "c").expect("cleaned");
    assert!(!resolved.source.exists());
    assert!(path.join("a/b/f").exists());
    place.tear_down();
}

#[test]
fn a_sub_path_of_a_files_volume_follows_the_atomic_writers_links() {
    let Some(place) = Place::new() else { return };
    place.set_up(files(&[("dir/b", "2")])).expect("set up");
    let resolved = place.sub_path("dir/b").expect("resolved");
    assert_eq!(fs::read_to_string(&resolved.source).expect("readable"), "2");
    assert_eq!(resolved.access, Access::ReadOnly);
    place.tear_down();
}

#[test]
fn sub_paths_never_leave_the_volume() {
    let Some(place) = Place::new() else { return };
    let path = place.set_up(empty_dir()).expect("set up");
    let outside = place.root().join("outside");
    fs::create_dir(&outside).expect("made");
    symlink("/etc", path.join("absolute")).expect("linked");
    symlink("../../../../../outside", path.join("relative")).expect("linked");
    symlink("nowhere", path.join("dangling")).expect("linked");
    symlink("loop", path.join("loop")).expect("linked");
    for sub_path in [
        "absolute",
        "absolute/passwd",
        "absolute/new",
        "relative",
        "relative/new",
        "dangling",
        "dangling/new",
        "loop",
        "../v",
        "/etc",
        "a/../../x",
    ] {
        match place.sub_path(sub_path) {
            Err(MountError::Config(text)) => {
                let hidden = place.root().display().to_string();
                assert!(!text.contains(&hidden), "names no path of the host: {text}");
            }
            other => panic!("{sub_path}: {other:?}"),
        }
    }
    assert_eq!(fs::read_dir(&outside).expect("lists").count(), 0);
    assert!(!Path::new("/etc/new").exists());
    place.tear_down();
}

#[test]
#[allow(clippy::disallowed_methods)] // the attacker needs a thread of its own
fn a_link_that_is_swapped_in_while_mounting_never_leads_outside() {
    let Some(place) = Place::new() else { return };
    let path = place.set_up(empty_dir()).expect("set up");
    let outside = place.root().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("secret"), "x").expect("written");
    fs::create_dir(path.join("good")).expect("made");
    symlink(&outside, path.join("evil")).expect("linked");
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, at) = (stop.clone(), path.clone());
    let attacker = std::thread::spawn(move || {
        while !flag.load(Ordering::Relaxed) {
            let _ = fs::rename(at.join("good"), at.join("x"));
            let _ = fs::rename(at.join("evil"), at.join("good"));
            let _ = fs::rename(at.join("good"), at.join("evil"));
            let _ = fs::rename(at.join("x"), at.join("good"));
        }
    });
    let mut resolved = 0;
    for _ in 0..300 {
        if let Ok(mount) = place.sub_path("good/sub") {
            resolved += 1;
            let shown = fs::canonicalize(&mount.source).expect("exists");
            assert!(!shown.join("../secret").exists());
            fs::write(mount.source.join("mark"), "x").expect("written");
        }
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().expect("ends");
    let left: Vec<_> = fs::read_dir(&outside).expect("lists").flatten().collect();
    assert_eq!(left.len(), 1, "nothing was made outside: {left:?}");
    assert!(resolved > 0, "at least one mount succeeded");
    place.tear_down();
}

#[test]
fn mountinfo_lines_parse() {
    let text = "36 35 98:0 / /a\\040b rw,noatime shared:1 master:7 - ext3 /dev/root rw\n\
                37 35 0:5 / /plain rw - proc proc rw\n";
    let parsed = mounts::parse(text);
    assert_eq!(parsed[0].target, Path::new("/a b"));
    assert!(parsed[0].shared && parsed[0].slave);
    assert_eq!(parsed[1].target, Path::new("/plain"));
    assert!(!parsed[1].shared && !parsed[1].slave);
}
