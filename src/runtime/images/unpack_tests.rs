use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

/// A tar entry whose name is written raw: the builder refuses what an attacker would write.
fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, link: &str, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_000_000);
    header.set_size(data.len() as u64);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

type Row<'a> = (&'a str, EntryType, &'a str, &'a str);

fn layer(rows: &[Row<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, link, data) in rows {
        add(&mut tar, name, *kind, link, data.as_bytes());
    }
    tar.into_inner().unwrap()
}

/// Unpacks into `fs` of a fresh directory, beside which `outside` must stay as it is.
fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<Tree, PullError>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("fs")).unwrap();
    std::fs::write(directory.path().join("outside"), "untouched").unwrap();
    let limits = Limits {
        reserve_bytes: 0,
        ..Limits::default()
    };
    let result = unpack(bytes, &directory.path().join("fs"), &limits);
    let outside = std::fs::read_to_string(directory.path().join("outside")).unwrap();
    assert_eq!(outside, "untouched");
    (directory, result)
}

use EntryType as T;

#[test]
fn hostile_layers_are_refused_and_name_the_entry() {
    let table: &[(&str, &[Row<'_>])] = &[
        ("../outside", &[("../outside", T::Regular, "", "x")]),
        (
            "a/../../outside",
            &[("a/../../outside", T::Regular, "", "x")],
        ),
        ("/..", &[("/../outside", T::Regular, "", "x")]),
        ("/", &[("/", T::Regular, "", "x")]),
        (".wh...", &[(".wh...", T::Regular, "", "")]),
        ("a/.wh...", &[("a/.wh...", T::Regular, "", "")]),
        (".wh.", &[(".wh.", T::Regular, "", "")]),
        ("link", &[("link", T::Link, "../outside", "")]),
        ("link", &[("link", T::Link, "/../outside", "")]),
        ("link", &[("link", T::Link, "missing", "")]),
        (
            "link",
            &[
                ("up", T::Symlink, "..", ""),
                ("link", T::Link, "up/outside", ""),
            ],
        ),
        (
            "f/x",
            &[("f", T::Regular, "", "x"), ("f/x", T::Regular, "", "x")],
        ),
        ("s", &[("s", T::Symlink, "", "")]),
    ];
    for (named, rows) in table {
        let (_directory, result) = unpacked(&layer(rows));
        match result {
            Err(PullError::Local(text)) => assert!(text.contains(named), "{named}: {text}"),
            other => panic!("{named}: {other:?}"),
        }
    }
}

#[test]
fn symlinks_lead_nowhere_outside_the_layer() {
    let (directory, result) = unpacked(&layer(&[
        ("up", T::Symlink, "../..", ""),
        ("absolute", T::Symlink, "/", ""),
        ("up/outside", T::Regular, "", "inside"),
        ("absolute/also", T::Regular, "", "inside"),
        ("/", T::Directory, "", ""),
        ("//etc/from-root", T::Regular, "", "inside"),
        ("/linked", T::Link, "/etc/from-root", ""),
        ("outside2", T::Symlink, "../outside", ""),
        ("outside2", T::Regular, "", "replaced, not followed"),
    ]));
    result.unwrap();
    let fs = directory.path().join("fs");
    assert_eq!(
        std::fs::read_to_string(fs.join("outside")).unwrap(),
        "inside"
    );
    assert_eq!(std::fs::read_to_string(fs.join("also")).unwrap(), "inside");
    for name in ["etc/from-root", "linked"] {
        assert_eq!(std::fs::read_to_string(fs.join(name)).unwrap(), "inside");
    }
    assert!(fs.join("outside2").symlink_metadata().unwrap().is_file());
}

#[test]
fn every_kind_of_entry_keeps_owner_mode_and_time() {
    let (directory, result) = unpacked(&layer(&[
        ("./", T::Directory, "", ""),
        ("bin/", T::Directory, "", ""),
        ("bin/su", T::Regular, "", "program"),
        ("bin/hard", T::Link, "bin/su", ""),
        ("bin/soft", T::Symlink, "/nowhere", ""),
        ("dev/null", T::Char, "", ""),
        ("dev/disk", T::Block, "", ""),
        ("fifo", T::Fifo, "", ""),
    ]));
    let tree = result.unwrap();
    let fs = directory.path().join("fs");
    assert_eq!((tree.entries, tree.bytes), (8, 7));
    for name in [
        ".", "bin", "bin/su", "bin/hard", "bin/soft", "dev/null", "dev/disk", "fifo",
    ] {
        let metadata = fs.join(name).symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (7, 8), "{name}");
        assert_eq!(metadata.mtime(), 1_000_000, "{name}");
        if !metadata.is_symlink() {
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755, "{name}");
        }
    }
    let inode = |name: &str| fs.join(name).metadata().unwrap().ino();
    assert_eq!(inode("bin/su"), inode("bin/hard"));
    let null = fs.join("dev/null").metadata().unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), 0x103);
    let soft = std::fs::read_link(fs.join("bin/soft")).unwrap();
    assert_eq!(soft, Path::new("/nowhere"));
    assert_eq!(Tree::of(&fs, None).unwrap(), tree);
}

#[test]
fn whiteouts_become_overlay_signs_and_spare_this_layers_own_files() {
    let (directory, result) = unpacked(&layer(&[
        ("etc/.wh.gone", T::Regular, "", ""),
        ("etc/kept", T::Regular, "", "x"),
        ("etc/.wh.kept", T::Regular, "", ""),
        ("etc/.wh.back", T::Regular, "", ""),
        ("etc/back", T::Regular, "", "x"),
        ("etc/.wh..wh.plnk", T::Regular, "", ""),
    ]));
    result.unwrap();
    let etc = directory.path().join("fs/etc");
    let gone = etc.join("gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(etc.join("kept").is_file() && etc.join("back").is_file());
    assert_eq!(std::fs::read_dir(&etc).unwrap().count(), 3);
}

#[test]
fn a_replaced_directory_stays_closed_to_later_entries() {
    let (directory, result) = unpacked(&layer(&[
        ("d/", T::Directory, "", ""),
        ("d/file", T::Regular, "", "x"),
        ("d", T::Symlink, "other", ""),
        ("other/", T::Directory, "", ""),
        ("d/file", T::Regular, "", "y"),
    ]));
    result.unwrap();
    let fs = directory.path().join("fs");
    assert!(fs.join("d").symlink_metadata().unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(fs.join("other/file")).unwrap(), "y");
}

#[test]
fn bombs_end_at_their_limits() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        entries_max: 2,
        bytes_max: 10,
        reserve_bytes: 0,
    };
    let run = |bytes: &[u8]| unpack(bytes, directory.path(), &limits);
    let three = layer(&[
        ("a", T::Regular, "", ""),
        ("b", T::Regular, "", ""),
        ("c", T::Regular, "", ""),
    ]);
    assert!(run(&three).unwrap_err().to_string().contains("2 entries"));
    let big = layer(&[("d", T::Regular, "", "12345678901")]);
    assert!(run(&big).unwrap_err().to_string().contains("10 bytes"));
    let mut tar = tar::Builder::new(Vec::new());
    let long = vec![b'a'; HEADER_BYTES_MAX as usize + 1];
    add(&mut tar, "././@LongLink", T::GNULongName, "", &long);
    let long = tar.into_inner().unwrap();
    assert!(run(&long).unwrap_err().to_string().contains("1 MiB"));
}

#[test]
fn a_full_disk_is_said_plainly() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        reserve_bytes: u64::MAX,
        ..Limits::default()
    };
    let bytes = layer(&[("a", T::Regular, "", "x")]);
    let error = unpack(&bytes[..], directory.path(), &limits).unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
}

#[test]
fn times_before_1970_and_with_fractions_are_read() {
    let table = [
        ("1.5", Some((1, 500_000_000))),
        ("-1.25", Some((-2, 750_000_000))),
        ("3", Some((3, 0))),
        ("1.0000000019", Some((1, 1))),
        ("x", None),
        ("1.x", None),
    ];
    for (text, wanted) in table {
        let wanted = wanted.map(|(seconds, nanoseconds)| Modified {
            seconds,
            nanoseconds,
        });
        assert_eq!(pax_time(text), wanted, "{text}");
    }
}

#[test]
fn a_binary_attribute_refuses_no_layer_and_hides_no_other_record() {
    let records = b"33 SCHILY.xattr.security.ima=a\nb\n13 mtime=5.5\n";
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "pax", T::XHeader, "", records);
    add(&mut tar, "file", T::Regular, "", b"x");
    let (directory, result) = unpacked(&tar.into_inner().unwrap());
    result.unwrap();
    let file = directory.path().join("fs/file").metadata().unwrap();
    assert_eq!((file.mtime(), file.mtime_nsec()), (5, 500_000_000));
}
