use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use futures_lite::future::{self, block_on};

use crate::os::process::effective_uid;

use super::{Content, Directory, FileText, Listing, ManifestFiles};

const DEADLINE: Duration = Duration::from_secs(10);

struct Place {
    directory: tempfile::TempDir,
    files: Directory,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().expect("temporary directory");
        let files = Directory::new(directory.path().to_owned());
        Place { directory, files }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("write");
        self.mode(name, 0o644);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn scan(&mut self) -> Listing {
        block_on(self.files.scan()).expect("complete")
    }

    /// Does something while a scan is under way.
    fn scan_while(&mut self, act: impl FnOnce()) -> Listing {
        loop {
            let mut scan = self.files.scan();
            // A small one may be over at once.
            if block_on(future::poll_once(&mut scan)).is_none() {
                act();
                return block_on(scan).expect("complete");
            }
        }
    }

    /// File names with their text, `=` if unchanged, or why they were refused.
    fn texts(&mut self) -> Vec<(String, String)> {
        let listing = self.scan();
        listing
            .files
            .iter()
            .map(|file| (base(&file.path), shown(file)))
            .collect()
    }

    fn wait(&mut self) {
        #[allow(clippy::disallowed_methods)] // a deadline of the test's own
        let late = async {
            async_io::Timer::after(DEADLINE).await;
            panic!("no change within {DEADLINE:?}");
        };
        block_on(future::or(self.files.changed(), late));
    }

    fn is_quiet(&mut self) -> bool {
        block_on(future::poll_once(self.files.changed())).is_none()
    }
}

fn base(path: &str) -> String {
    let name = Path::new(path).file_name().expect("a name");
    name.to_string_lossy().into_owned()
}

fn shown(file: &FileText) -> String {
    match &file.content {
        Content::Read(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Content::Same => "=".to_owned(),
        Content::Refused(why) => why.clone(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    pairs.iter().map(own).collect()
}

#[test]
fn only_whole_regular_files_of_trusted_owners_are_read() {
    let mut place = Place::new();
    place.put("b.yaml", "b");
    place.put("a.json", "a");
    for skipped in [
        ".hidden",
        "web.yaml~",
        "web.swp",
        "web.bak",
        "x.tmp",
        "#web.yaml#",
    ] {
        place.put(skipped, "never");
    }
    fs::create_dir(place.path("sub")).expect("mkdir");
    #[allow(clippy::disallowed_methods)] // std makes no FIFOs
    let made = std::process::Command::new("mkfifo")
        .arg(place.path("fifo"))
        .status();
    assert!(made.expect("mkfifo of coreutils").success());
    let _socket = std::os::unix::net::UnixListener::bind(place.path("sock")).expect("bind");
    symlink("/dev/zero", place.path("device")).expect("symlink");
    symlink("nowhere", place.path("dangling")).expect("symlink");
    symlink("a.json", place.path("link")).expect("symlink");
    let huge = fs::File::create(place.path("huge")).expect("create");
    huge.set_len((10 << 20) + 1).expect("sparse");
    place.mode("huge", 0o644);
    place.put("open", "o");
    place.mode("open", 0o664);
    let mut expected = pairs(&[
        ("a.json", "a"),
        ("b.yaml", "b"),
        ("dangling", "symlink leads nowhere"),
        ("device", "not a regular file, not opened"),
        ("fifo", "not a regular file, not opened"),
        ("huge", "bigger than 10485760 bytes"),
        ("link", "a"),
        ("open", "mode 0664 lets others write it (chmod go-w)"),
        ("sock", "not a regular file, not opened"),
    ]);
    if effective_uid() == 0 {
        place.put("stranger", "s");
        chown(place.path("stranger"), Some(12345), None).expect("chown");
        expected.push((
            "stranger".into(),
            "owned by uid 12345, must be root's (chown root)".into(),
        ));
    } else {
        eprintln!("skipped: foreign owners need root");
    }
    assert_eq!(place.texts(), expected);
    let mut skipped: Vec<String> = place
        .scan()
        .skipped
        .iter()
        .map(|(path, _)| base(path))
        .collect();
    skipped.sort();
    assert_eq!(
        skipped,
        [
            "#web.yaml#",
            "sub",
            "web.bak",
            "web.swp",
            "web.yaml~",
            "x.tmp"
        ]
    );
}

#[test]
fn a_missing_directory_is_an_empty_list_and_an_unreadable_one_is_none() {
    let mut files = Directory::new("/nonexistent/manifests".into());
    let nothing = Listing {
        warnings: vec!["/nonexistent/manifests does not exist: it states no pods".to_owned()],
        ..Listing::default()
    };
    assert_eq!(block_on(files.scan()), Ok(nothing));
    let place = Place::new();
    // A symlink loop is what root cannot read either.
    symlink("loop", place.path("loop")).expect("symlink");
    let mut files = Directory::new(place.path("loop"));
    assert!(block_on(files.scan()).is_err_and(|why| why.contains("loop")));
}

#[test]
fn a_single_file_is_read_and_watched() {
    let mut place = Place::new();
    place.put("only.yaml", "1");
    place.put("other.yaml", "no");
    place.files = Directory::new(place.path("only.yaml"));
    assert_eq!(place.texts(), pairs(&[("only.yaml", "1")]));
    place.put("next", "2");
    fs::rename(place.path("next"), place.path("only.yaml")).expect("rename");
    place.wait();
    assert_eq!(place.texts(), pairs(&[("only.yaml", "2")]));
}

#[test]
fn a_file_that_did_not_change_for_long_is_not_read_again() {
    let mut place = Place::new();
    place.put("a", "1");
    // Just written: equal times would not prove equal contents yet.
    assert_eq!(place.texts(), pairs(&[("a", "1")]));
    assert_eq!(place.texts(), pairs(&[("a", "1")]));
    let meta = fs::metadata(place.path("a")).expect("stat");
    place
        .files
        .seen
        .insert("a".into(), super::Fingerprint::of(&meta));
    assert_eq!(place.texts(), pairs(&[("a", "=")]));
    place.mode("a", 0o600);
    assert_eq!(place.texts(), pairs(&[("a", "1")]));
}

#[test]
fn a_half_written_file_waits_for_its_close() {
    use std::io::Write;
    let mut place = Place::new();
    assert!(place.texts().is_empty());
    let mut file = fs::File::create(place.path("slow")).expect("create");
    file.write_all(b"half ").expect("write");
    assert_eq!(place.texts(), pairs(&[("slow", "=")]));
    assert!(place.is_quiet());
    file.write_all(b"whole").expect("write");
    drop(file);
    place.wait();
    assert_eq!(place.texts(), pairs(&[("slow", "half whole")]));
}

#[test]
fn a_file_that_is_written_while_it_is_read_stays_as_it_was() {
    use std::io::Write;
    let mut place = Place::new();
    place.put("a", "old");
    place.put("b", "other");
    assert_eq!(place.texts(), pairs(&[("a", "old"), ("b", "other")]));
    let mut file = None;
    // Before or after it is read: nobody knows.
    let path = place.path("a");
    let listing = place.scan_while(|| file = Some(fs::File::create(&path).expect("truncate")));
    let texts: Vec<String> = listing.files.iter().map(shown).collect();
    assert_eq!(texts, ["=", "other"]);
    assert!(place.is_quiet());
    let mut file = file.expect("created");
    file.write_all(b"new").expect("write");
    drop(file);
    place.wait();
    assert_eq!(place.texts(), pairs(&[("a", "new"), ("b", "other")]));
    // Written and closed between: told all the same.
    let path = place.path("b");
    place.scan_while(|| fs::write(&path, "late").expect("write"));
    place.wait();
    assert_eq!(place.texts(), pairs(&[("a", "new"), ("b", "late")]));
}

#[test]
fn renames_swaps_links_and_removals_are_seen_at_once() {
    let mut place = Place::new();
    place.put("a", "1");
    place.put("b", "2");
    place.texts();
    place.put(".new", "3");
    fs::rename(place.path(".new"), place.path("c")).expect("rename");
    place.wait();
    assert_eq!(place.texts(), pairs(&[("a", "1"), ("b", "2"), ("c", "3")]));
    fs::rename(place.path("a"), place.path(".swap")).expect("rename");
    fs::rename(place.path("b"), place.path("a")).expect("rename");
    fs::rename(place.path(".swap"), place.path("b")).expect("rename");
    place.wait();
    assert_eq!(place.texts(), pairs(&[("a", "2"), ("b", "1"), ("c", "3")]));
    fs::remove_file(place.path("a")).expect("remove");
    symlink("b", place.path("d")).expect("symlink");
    place.wait();
    assert_eq!(place.texts(), pairs(&[("b", "1"), ("c", "3"), ("d", "1")]));
}

#[test]
fn a_directory_that_was_replaced_is_watched_anew() {
    let mut place = Place::new();
    fs::create_dir(place.path("m")).expect("mkdir");
    place.put("m/a", "1");
    place.files = Directory::new(place.path("m"));
    assert_eq!(place.texts(), pairs(&[("a", "1")]));
    fs::rename(place.path("m"), place.path("old")).expect("rename");
    fs::create_dir(place.path("m")).expect("mkdir");
    place.wait();
    assert!(place.texts().is_empty());
    place.put("m/b", "2");
    place.wait();
    assert_eq!(place.texts(), pairs(&[("b", "2")]));
}

#[test]
fn a_directory_that_others_may_write_is_warned_about() {
    let mut place = Place::new();
    place.mode(".", 0o777);
    assert!(place.scan().warnings[0].contains("mode 0777"));
    place.mode(".", 0o755);
    assert!(place.scan().warnings.is_empty());
}
