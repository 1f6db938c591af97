use std::path::Path;

use super::*;
use crate::os::disk::SystemDisk;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a date")
}

fn days(days: u32) -> Duration {
    DAY * days
}

fn names(ips: &[&str]) -> Names {
    Names {
        dns_names: vec!["kubernetes".into(), "pi".into()],
        ips: ips.iter().map(|ip| ip.parse().expect("IP")).collect(),
    }
}

fn open(home: &Path, now: Timestamp) -> Pki {
    let run = home.join("run");
    std::fs::create_dir_all(&run).expect("run");
    let disk = SystemDisk::open(home, &run).expect("open");
    async_io::block_on(Pki::open(Rc::new(disk), now)).expect("pki")
}

fn server(pki: &mut Pki, names: &Names, now: Timestamp) -> Identity {
    async_io::block_on(pki.server(names, now)).expect("server")
}

fn is_fresh(server: &Identity, authority: &str, names: &Names, now: Timestamp) -> bool {
    let root = first_certificate(authority).expect("PEM");
    judge_leaf(server, &root, &server_purpose("kube-apiserver", names), now) == Verdict::Good
}

const ADDRESS: &str = "0.0.0.0:6443";

fn kubeconfig(pki: &mut Pki, home: &Path, now: Timestamp) -> String {
    let made = pki.kubeconfig(ADDRESS.parse().expect("address"), now);
    async_io::block_on(made).expect("kubeconfig");
    std::fs::read_to_string(home.join(KUBECONFIG)).expect("written")
}

#[test]
fn a_second_start_finds_what_the_first_made() {
    let home = tempfile::tempdir().expect("directory");
    let (now, names) = (at(2_000_000_000), names(&["127.0.0.1"]));
    let mut first = open(home.path(), now);
    let shown = server(&mut first, &names, now);
    let config = kubeconfig(&mut first, home.path(), now);
    assert!(
        config.contains("server: https://127.0.0.1:6443\n"),
        "{config}"
    );
    let accounts = std::fs::read(home.path().join(ACCOUNTS)).expect("key");

    let mut second = open(home.path(), now + days(30));
    assert_eq!(second.authority(), first.authority());
    assert_eq!(server(&mut second, &names, now + days(30)), shown);
    assert_eq!(kubeconfig(&mut second, home.path(), now + days(30)), config);
    let kept = std::fs::read(home.path().join(ACCOUNTS)).expect("key");
    assert_eq!(kept, accounts);
    use std::os::unix::fs::PermissionsExt;
    for file in [AUTHORITY, SERVER, ADMIN, ACCOUNTS, KUBECONFIG] {
        let about = std::fs::metadata(home.path().join(file)).expect(file);
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{file}");
    }
    let published = std::fs::read_to_string(home.path().join(AUTHORITY_CERTIFICATE));
    assert_eq!(published.expect("ca.crt"), first.authority());
}

#[test]
fn leaves_are_made_anew_when_late_or_when_a_name_is_missing() {
    let home = tempfile::tempdir().expect("directory");
    let now = at(2_000_000_000);
    let few = names(&["127.0.0.1"]);
    let more = names(&["127.0.0.1", "10.0.0.1"]);
    for (wanted, later, anew) in [
        (&few, 0, false),
        (&more, 0, true),
        // What is superfluous stays.
        (&few, 1, false),
        (&few, 290, false),
        (&few, 293, true),
        (&few, 294, false),
        (&few, 9000, true),
    ] {
        let mut pki = open(home.path(), now);
        let before = server_file(home.path()).unwrap_or_else(|| server(&mut pki, &few, now).text());
        let shown = server(&mut pki, wanted, now + days(later));
        assert_eq!(
            shown.text() != before,
            anew,
            "{wanted:?} after {later} days"
        );
        assert!(is_fresh(&shown, pki.authority(), wanted, now + days(later)));
    }
}

fn server_file(home: &Path) -> Option<String> {
    std::fs::read_to_string(home.join(SERVER)).ok()
}

#[test]
fn a_renewed_ca_has_the_same_key_and_leaves_stay() {
    let home = tempfile::tempdir().expect("directory");
    let (now, names) = (at(2_000_000_000), names(&["127.0.0.1"]));
    let mut pki = open(home.path(), now);
    let old = pki.authority().to_owned();
    let late = now + days(8 * 365 + 10);
    let renewed = |pki: &mut Pki, now| async_io::block_on(pki.renew_authority(now));
    assert_eq!(renewed(&mut pki, now), Ok(false));
    assert_eq!(renewed(&mut pki, late), Ok(true));
    assert_ne!(pki.authority(), old);
    let shown = server(&mut pki, &names, late);
    for root in [&old, &pki.authority().to_owned()] {
        assert!(is_fresh(&shown, root, &names, late), "{root}");
    }
    assert_eq!(open(home.path(), late).authority(), pki.authority());
    let much_later = late + days(8 * 365 + 10);
    assert_ne!(open(home.path(), much_later).authority(), pki.authority());
}

#[test]
fn a_file_that_cannot_be_used_is_set_aside_and_made_anew() {
    let (now, names) = (at(2_000_000_000), names(&["127.0.0.1"]));
    for file in [AUTHORITY, SERVER, ADMIN, ACCOUNTS] {
        let home = tempfile::tempdir().expect("directory");
        let path = home.path().join(file);
        let mut pki = open(home.path(), now);
        server(&mut pki, &names, now);
        let config = kubeconfig(&mut pki, home.path(), now);
        let whole = std::fs::read_to_string(&path).expect(file);
        std::fs::write(&path, &whole[..whole.len() - 60]).expect("torn");

        let mut pki = open(home.path(), now);
        let shown = server(&mut pki, &names, now);
        assert!(is_fresh(&shown, pki.authority(), &names, now), "{file}");
        let changed = kubeconfig(&mut pki, home.path(), now) != config;
        assert_eq!(changed, [AUTHORITY, ADMIN].contains(&file), "{file}");
        let aside = std::fs::read_to_string(home.path().join(format!("{file}.broken")));
        assert_eq!(aside.expect(file), whole[..whole.len() - 60]);
        assert_ne!(std::fs::read_to_string(&path).expect(file), whole);
    }
}

#[test]
fn what_a_user_added_to_the_kubeconfig_stays() {
    let home = tempfile::tempdir().expect("directory");
    let now = at(2_000_000_000);
    let mut pki = open(home.path(), now);
    let own = kubeconfig(&mut pki, home.path(), now) + "# mine\n";
    std::fs::write(home.path().join(KUBECONFIG), &own).expect("write");
    assert_eq!(kubeconfig(&mut pki, home.path(), now), own);
    assert!(!kubeconfig(&mut pki, home.path(), now + days(300)).contains("# mine"));
}

#[test]
fn a_disk_that_takes_nothing_leaves_keys_in_memory_until_it_does() {
    let home = tempfile::tempdir().expect("directory");
    // A file where the directory should be: nothing below it can be written.
    let block = home.path().join("pki");
    std::fs::write(&block, "").expect("write");
    let (now, names) = (at(2_000_000_000), names(&["127.0.0.1"]));
    let mut pki = open(home.path(), now);
    let shown = server(&mut pki, &names, now);
    assert!(is_fresh(&shown, pki.authority(), &names, now));
    assert!(kubeconfig(&mut pki, home.path(), now).contains("https://127.0.0.1:6443"));
    assert!(block.is_file());
}
