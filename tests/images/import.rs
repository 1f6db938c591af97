//! Archives and the image directory.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;

use futures_lite::future;
use lowtide::runtime::images::{Depth, ImageStore};
use lowtide::world::Images;

use crate::image::{Packing, Recipe, pack};
use crate::world::{leftovers, open, options, run, temporary};

#[test]
fn every_form_of_archive_gives_the_same_image() {
    let recipe = Recipe::busybox();
    let docker = recipe.docker_archive(&["busybox:1"]);
    let oci = recipe.oci_archive("docker.io/library/busybox:1");
    let zstd_layers = Recipe {
        packing: Packing::Zstd,
        ..recipe.clone()
    };
    let table = [
        ("a.tar", docker.clone()),
        ("misleading.txt", pack(&docker, Packing::Gzip)),
        ("a.tar.zst", pack(&docker, Packing::Zstd)),
        ("oci.tar", oci.clone()),
        ("oci.tar.gz", pack(&oci, Packing::Gzip)),
        ("zstd-layers.tar", zstd_layers.oci_archive("busybox:1")),
        ("busybox.tar", recipe.oci_archive("1")),
    ];
    for (file, bytes) in table {
        let directory = temporary();
        let path = directory.path().join(file);
        fs::write(&path, bytes).unwrap();
        run(async {
            let store = open(options(directory.path())).await;
            let images = store.import(path, None).await.unwrap();
            assert_eq!(images[0].id, recipe.id(), "{file}");
            assert_eq!(images[0].tags, ["docker.io/library/busybox:1"], "{file}");
            let layers = store.layers(&images[0].id).unwrap();
            assert!(
                layers[0].join("etc/passwd").is_file(),
                "topmost first: {file}"
            );
            assert!(layers[1].join("bin/busybox").is_file(), "{file}");
            assert_eq!(images[0].config.env, ["PATH=/bin", "FROM_IMAGE=yes"]);
            assert!(store.verify(Depth::Content).await.unwrap().is_empty());
        });
        assert!(leftovers(directory.path()).is_empty());
    }
}

#[test]
fn an_image_outlives_the_process_and_is_found_by_all_its_names() {
    let directory = temporary();
    let recipe = Recipe::small("tide");
    let layout = directory.path().join("layout");
    recipe.write_layout(&layout, "ghcr.io/a/b:1");
    run(async {
        let store = open(options(directory.path())).await;
        store.import(layout, Some("mine:2")).await.unwrap();
        assert!(store.find("ghcr.io/a/b:1").is_none());
        let store = open(options(directory.path())).await;
        let id = recipe.id();
        for name in ["mine:2", "docker.io/library/mine:2", &id, &id[7..]] {
            assert_eq!(store.find(name).unwrap().id, id, "{name}");
        }
        store
            .remove("mine:2", std::slice::from_ref(&id))
            .await
            .unwrap();
        assert!(store.find("mine:2").is_none());
        assert!(
            store.layers(&id).unwrap()[0].exists(),
            "a container still uses it"
        );
        assert_eq!(store.collect(&[]).await.unwrap(), 1);
        assert!(store.list().is_empty());
    });
}

/// Polls the watcher beside `done`.
async fn watching(store: &ImageStore, done: impl Future<Output = ()>) {
    let watch = async {
        store.watch_image_dir().await;
    };
    future::or(done, watch).await;
}

async fn until_found(store: &ImageStore, name: &str) {
    let mut seen = store.generation();
    while store.find(name).is_none() {
        seen = store.changed(seen).await;
    }
}

#[test]
fn archives_are_imported_as_they_appear_and_once_only() {
    let directory = temporary();
    let preload = directory.path().join("preload");
    fs::create_dir(&preload).unwrap();
    let mut options = options(directory.path());
    options.image_dir = Some(preload.clone());
    fs::write(
        preload.join("one.tar"),
        Recipe::small("1").docker_archive(&["one:1"]),
    )
    .unwrap();
    fs::write(preload.join("bad.tar"), b"no archive at all").unwrap();
    run(async {
        let store = open(options.clone()).await;
        watching(&store, async {
            store.first_scan().await;
            assert!(store.find("one:1").unwrap().pinned);
            Recipe::small("2").write_layout(&preload.join("two"), "two:1");
            until_found(&store, "two:1").await;
            // A copy under way: cut short at first.
            let bytes = Recipe::small("3").docker_archive(&["three:1"]);
            fs::write(preload.join("three.tar"), &bytes[..bytes.len() / 2]).unwrap();
            fs::write(preload.join("three.tar"), &bytes).unwrap();
            until_found(&store, "three:1").await;
            // A name that exists moves.
            fs::write(
                preload.join("z.tar"),
                Recipe::small("4").docker_archive(&["one:1"]),
            )
            .unwrap();
            while store.find("one:1").unwrap().id != Recipe::small("4").id() {
                store.changed(store.generation()).await;
            }
        })
        .await;
        let store = open(options.clone()).await;
        let generation = store.generation();
        watching(&store, store.first_scan()).await;
        assert_eq!(store.generation(), generation, "nothing was imported again");
        assert!(store.collect(&[]).await.unwrap() == 0, "pinned images stay");
    });
}

fn layer_file(store: &ImageStore, name: &str) -> std::path::PathBuf {
    let image = store.find(name).unwrap();
    store.layers(&image.id).unwrap()[0].join("text")
}

#[test]
fn a_file_emptied_by_a_bad_card_is_noticed_and_healed_from_its_archive() {
    let directory = temporary();
    let preload = directory.path().join("preload");
    fs::create_dir(&preload).unwrap();
    let mut options = options(directory.path());
    options.image_dir = Some(preload.clone());
    fs::write(
        preload.join("a.tar"),
        Recipe::small("tide").docker_archive(&["a:1"]),
    )
    .unwrap();
    run(async {
        let store = open(options.clone()).await;
        watching(&store, store.first_scan()).await;
        fs::write(layer_file(&store, "a:1"), b"").unwrap();
        options.boot_id = "next-boot".into();
        let store = open(options.clone()).await;
        assert!(store.find("a:1").is_none(), "a broken image is not here");
        watching(&store, store.first_scan()).await;
        assert_eq!(fs::read(layer_file(&store, "a:1")).unwrap(), b"tide");
        // Same size, other bytes: only the deep look sees it.
        fs::write(layer_file(&store, "a:1"), b"TIDE").unwrap();
        assert!(store.verify(Depth::Listing).await.unwrap().is_empty());
        assert_eq!(store.verify(Depth::Content).await.unwrap().len(), 1);
        assert!(store.find("a:1").is_none());
    });
}

#[test]
fn a_damaged_archive_leaves_nothing_behind() {
    let directory = temporary();
    let whole = Recipe::busybox().oci_archive("busybox:1");
    let path = directory.path().join("a.tar");
    let mut damaged = whole.clone();
    damaged[700_000] ^= 1;
    let table: [&[u8]; 4] = [&whole[..whole.len() / 2], &damaged, b"", b"{}"];
    for bytes in table {
        fs::write(&path, bytes).unwrap();
        run(async {
            let store = open(options(directory.path())).await;
            let error = store.import(path.clone(), None).await.unwrap_err();
            assert!(error.to_string().contains("a.tar"), "{error}");
            assert!(store.list().is_empty());
        });
        assert!(leftovers(directory.path()).is_empty());
    }
    assert!(Path::new(&path).exists());
}

/// A small file system of its own, gone with the value.
pub struct Tmpfs(pub std::path::PathBuf);

impl Tmpfs {
    pub fn mounted(path: std::path::PathBuf, option: &str) -> Tmpfs {
        fs::create_dir_all(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", option, "tmpfs"];
        let mount = std::process::Command::new("mount")
            .args(options)
            .arg(&path)
            .status();
        assert!(mount.unwrap().success());
        Tmpfs(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let umount = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
        assert!(umount.unwrap().success());
    }
}

#[test]
fn an_archive_for_which_there_was_no_space_is_imported_once_there_is() {
    let directory = temporary();
    let mut options = options(directory.path());
    let image_disk = Tmpfs::mounted(options.root.clone(), "size=8m");
    options.limits.reserve_bytes = 4 << 20;
    let preload = directory.path().join("preload");
    fs::create_dir(&preload).unwrap();
    options.image_dir = Some(preload.clone());
    let ballast = image_disk.0.join("ballast");
    fs::write(&ballast, vec![0; 6 << 20]).unwrap();
    fs::write(
        preload.join("a.tar"),
        Recipe::small("tide").docker_archive(&["a:1"]),
    )
    .unwrap();
    run(async {
        let store = open(options.clone()).await;
        watching(&store, async {
            store.first_scan().await;
            assert!(store.find("a:1").is_none());
            fs::remove_file(&ballast).unwrap();
            // The archive is as it was: only time brings it back.
            until_found(&store, "a:1").await;
        })
        .await;
    });
}

#[test]
fn a_discarded_image_is_gone_at_once_and_leaves_what_others_need() {
    let directory = temporary();
    let mut options = options(directory.path());
    let _image_disk = Tmpfs::mounted(options.root.clone(), "size=64m");
    options.limits.reserve_bytes = 0;
    let [one, two] = ["1", "2"].map(Recipe::small);
    let paths =
        [("one.tar", &one, "one:1"), ("two.tar", &two, "two:1")].map(|(file, recipe, name)| {
            let path = directory.path().join(file);
            fs::write(&path, recipe.docker_archive(&[name])).unwrap();
            path
        });
    run(async {
        let store = open(options.clone()).await;
        for path in paths {
            store.import(path, None).await.unwrap();
        }
        let disk = store.disk_use().await.unwrap();
        assert_eq!(disk.capacity_bytes, 64 << 20);
        assert!(disk.free_bytes < disk.capacity_bytes && disk.free_bytes > 32 << 20);
        let layer = store.layers(&one.id()).unwrap()[0].clone();
        let id = one.id();
        let discard = store.discard(&id, Vec::new());
        assert!(
            store.find("one:1").is_none(),
            "nobody starts from it any more"
        );
        discard.await.unwrap();
        assert!(!layer.exists());
        assert!(store.discard(&id, Vec::new()).await.is_err());
        assert!(store.layers(&two.id()).unwrap()[0].exists());
        let store = open(options).await;
        assert!(store.find("one:1").is_none() && store.find("two:1").is_some());
    });
}
