//! Pulls over a bad link, to a full disk, and of images that do not say what they are.
#![allow(clippy::disallowed_methods)]

use std::process::Command;
use std::time::{Duration, Instant};

use futures_lite::future;
use lowtide::world::{Images, PullError};

use crate::image::{Entry, Recipe, digest, tar_of};
use crate::import::Tmpfs;
use crate::pull::{big, plain, pull, request};
use crate::registry::{Fake, Reply, honest};
use crate::world::{PATIENCE, open, options, run, temporary};

/// Requests for the layers of an image.
fn layers_asked(fake: &Fake, recipe: &Recipe) -> usize {
    let config = digest(&recipe.configuration());
    let asked = fake.seen("/blobs/");
    asked
        .iter()
        .filter(|one| !one.path.contains(&config))
        .count()
}

#[test]
fn an_outage_loses_nothing_and_keeps_nobody_from_collecting_images() {
    let mut recipe = big();
    let first = tar_of(&[Entry::File("first", 0o644, b"x")]);
    recipe.layers.insert(0, first);
    let large = digest(&recipe.packed_layers()[1]);
    let size = recipe.packed_layers()[1].len();
    let whole = honest(&recipe);
    let begun = Instant::now();
    let wanted = large.clone();
    let fake = Fake::start(move |seen| {
        let reply = whole(seen);
        match (seen.path.contains(&wanted), seen.headers.get("range")) {
            (true, None) => Reply {
                cut: Some(400_000),
                ..reply
            },
            // More than a minute of the store's.
            (true, Some(_)) if begun.elapsed() < Duration::from_secs(4) => Reply::status(503),
            _ => reply,
        }
    });
    let directory = temporary();
    let archive = directory.path().join("other.tar");
    std::fs::write(
        &archive,
        Recipe::small("other").docker_archive(&["other:1"]),
    )
    .unwrap();
    run(async {
        let store = open(plain(directory.path(), &fake.address)).await;
        let other = store.import(archive, None).await.unwrap().remove(0);
        let name = format!("{}/big", fake.address);
        let collecting = async {
            while fake.seen(&large).len() < 2 {
                async_io::Timer::after(Duration::from_millis(10)).await;
            }
            store.discard(&other.id, Vec::new()).await.unwrap();
            assert!(
                begun.elapsed() < Duration::from_secs(4),
                "it waited for the pull"
            );
        };
        let (pulled, ()) = future::zip(store.pull(request(&name)), collecting).await;
        let image = pulled.unwrap();
        for layer in store.layers(&image.id).unwrap() {
            assert!(layer.exists(), "{layer:?}");
        }
    });
    let sent = *fake.sent.lock().unwrap();
    assert!(sent < size * 3 / 2, "{sent} bytes for {size}");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn what_does_not_fit_is_not_fetched_again_before_there_is_room() {
    let zeros = vec![0; 20 << 20];
    let recipe = Recipe {
        layers: vec![tar_of(&[Entry::File("zeros", 0o644, &zeros)])],
        ..Recipe::small("")
    };
    let fake = Fake::start(honest(&recipe));
    let noise = Fake::start(honest(&big()));
    let directory = temporary();
    let text = format!(
        "mirrors: {{'{0}': {{endpoint: ['http://{0}']}}, '{1}': {{endpoint: ['http://{1}']}}}}",
        fake.address, noise.address
    );
    let mut options = crate::pull::configured(directory.path(), &text);
    let disk = Tmpfs::mounted(options.root.clone(), "size=8m");
    options.limits.reserve_bytes = 2 << 20;
    run(async {
        let store = open(options).await;
        let name = format!("{}/x", fake.address);
        for _ in 0..3 {
            let refused = store.pull(request(&name)).await;
            assert!(matches!(refused, Err(PullError::Disk(_))), "{refused:?}");
            assert_eq!(layers_asked(&fake, &recipe), 1);
        }
        let ballast = disk.0.join("ballast");
        std::fs::write(&ballast, vec![0; 4 << 20]).unwrap();
        let refused = store.pull(request(&format!("{}/big", noise.address))).await;
        assert!(matches!(refused, Err(PullError::Disk(_))), "{refused:?}");
        assert_eq!(layers_asked(&noise, &big()), 0);
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,size=64m"]).arg(&disk.0);
        assert!(remount.status().unwrap().success());
        store.pull(request(&name)).await.unwrap();
    });
}

#[test]
fn an_image_of_another_architecture_is_taken_at_the_operators_word() {
    let recipe = Recipe {
        architecture: "s390x",
        ..Recipe::small("x")
    };
    let fake = Fake::start(honest(&recipe));
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    let pulled = pull(plain(directory.path(), &fake.address), request(&name));
    assert_eq!(pulled.unwrap().id, recipe.id());
    let directory = temporary();
    let fits = Recipe::small("x");
    let path = directory.path().join("x.tar");
    run(async {
        let store = open(options(directory.path())).await;
        for wanted in [&recipe, &fits] {
            std::fs::write(&path, wanted.docker_archive(&["x:1"])).unwrap();
            let images = store.import(path.clone(), None).await.unwrap();
            assert_eq!(images[0].id, wanted.id());
        }
        let layout = directory.path().join("layout");
        recipe.write_layout(&layout, "x:2");
        let images = store.import(layout, None).await.unwrap();
        assert_eq!(images[0].id, recipe.id());
    });
}
