//! Whole nodes in one thread, under one seed and a virtual clock.
//!
//! `LOWTIDE_SEEDS=n` runs that many seeds; `LOWTIDE_SEED=x` runs one and prints what happened;
//! `LOWTIDE_ALL=1` goes on after a failure and lists all that fail; `LOWTIDE_FROM=x` begins elsewhere.
//! `LOWTIDE_LIE=name` tries one of the lies between node and cluster.
//! A failing seed is a reproduction: everything that is random comes from it.
//!
//! ```text
//!   run ──► node (real code, or the stub that tests the checkers)
//!    │        └── world seams ──► host { kernel, disk, images, volumes, net } ──► judge (safety)
//!    └── timeline, faults, manifests ──► check (convergence, litmus)
//! ```
//! `cluster/` joins the node to a second lowtide: there the sync, HTTP, authentication, authorization,
//! admission, controllers, registry and store of both ends are real; links, disks, clocks, containers
//! and TLS are not. `cargo test --test sim joined` runs it alone, with the same variables.

mod check;
mod client;
mod cluster;
mod disk;
mod host;
mod images;
mod judge;
mod kernel;
mod manifests;
mod net;
mod pressure;
mod random;
mod real;
mod reboot;
mod replaced;
mod run;
mod runtime;
mod script;
mod spec;
mod stats;
mod stops;
mod stub;
mod timeline;
mod trace;
mod volumes;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use real::RealNode;
use run::{Failure, simulate};
use stub::{Mutation, StubNode};
use trace::Tracing;

/// Seeds of the real node: a minute of two cores that nobody else uses much. Longer runs are
/// for LOWTIDE_SEEDS.
const SEEDS: u64 = 150;
/// Seeds of the node and its cluster; each takes some three seconds of a debug build.
const JOINED_SEEDS: u64 = 3;
/// Seeds of the stub: it only has to show that the simulation is fair.
const STUB_SEEDS: u64 = 300;
/// Within so many seeds every lie between node and cluster must be found.
const LIAR_SEEDS: u64 = 100;
/// Within so many seeds every mutation must be found.
const MUTANT_SEEDS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: no number")),
    )
}

/// Threads at most; each runs whole seeds, so what a seed does depends on no other.
const THREADS_MAX: usize = 8;

/// Tells the story of one seed.
type Tell = fn(u64, Tracing) -> Result<Vec<String>, Failure>;

fn real(seed: u64, tracing: Tracing) -> Result<Vec<String>, Failure> {
    simulate(seed, tracing, Box::new(RealNode::default()))
}

fn stub(seed: u64, tracing: Tracing) -> Result<Vec<String>, Failure> {
    simulate(seed, tracing, Box::new(StubNode::new(Mutation::None)))
}

/// Runs the seeds, or the one that the user asked for with its trace; panics with the first failure.
fn run_seeds(default: u64, tell: Tell) {
    if let Some(seed) = number("LOWTIDE_SEED") {
        match tell(seed, Tracing::On) {
            Ok(trace) => println!("{}\nseed {seed} is fine", trace.join("\n")),
            Err(failure) => report(&failure),
        }
        return;
    }
    let first = number("LOWTIDE_FROM").unwrap_or(0);
    let seeds = first..first + number("LOWTIDE_SEEDS").unwrap_or(default);
    let all = std::env::var_os("LOWTIDE_ALL").is_some();
    let failures = failures(seeds, tell, if all { usize::MAX } else { 1 });
    if let Some(Failure { seed, .. }) = failures.first() {
        // The same seed again, this time with its story.
        match tell(*seed, Tracing::On) {
            Ok(_) => panic!("seed {seed} fails only sometimes: something is not deterministic"),
            Err(failure) => report(&failure),
        }
    }
}

/// The failures of a range of seeds, lowest first; stops once there are `enough`.
fn failures(seeds: std::ops::Range<u64>, tell: Tell, enough: usize) -> Vec<Failure> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let have = found.lock().expect("no panic under it").len();
                    if seed >= seeds.end || have >= enough {
                        return;
                    }
                    if enough > 1 && seed.is_multiple_of(100) {
                        println!("at seed {seed}");
                    }
                    if let Err(failure) = tell(seed, Tracing::Off) {
                        if enough > 1 {
                            println!("seed {seed}: {}", failure.what.replace('\n', " "));
                        }
                        found.lock().expect("no panic under it").push(failure);
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().expect("all threads have ended well");
    found.sort_by_key(|failure| failure.seed);
    found
}

fn report(failure: &Failure) {
    let Failure { seed, what, trace } = failure;
    println!("{}", trace.join("\n"));
    panic!("seed {seed}: {what}\nreproduce with LOWTIDE_SEED={seed}");
}

#[test]
fn the_node_is_safe_in_every_storm_and_converges_in_the_calm() {
    run_seeds(SEEDS, real);
}

#[test]
fn joined_to_a_second_lowtide_the_node_is_safe_and_both_ends_agree_in_the_calm() {
    run_seeds(JOINED_SEEDS, cluster::simulate);
}

#[test]
#[ignore = "by hand, of a build that is optimised: it takes long"]
fn joined_every_lie_between_node_and_cluster_is_found() {
    let only = std::env::var("LOWTIDE_LIE").ok();
    for (mutation, charge) in cluster::Mutation::ALL {
        if only
            .as_ref()
            .is_some_and(|only| *only != format!("{mutation:?}"))
        {
            continue;
        }
        // Others may see it too, but it is that one which is to be known to.
        let lie = |seed| {
            let failure = cluster::simulate_with(seed, Tracing::Off, mutation).err()?;
            println!("{mutation:?}: seed {seed}: {}", failure.what);
            failure.what.contains(charge).then_some(())
        };
        let found = (0..LIAR_SEEDS).find_map(lie);
        assert!(
            found.is_some(),
            "{mutation:?} passes {LIAR_SEEDS} seeds and nobody says {charge:?}: a checker is blind"
        );
    }
}

#[test]
fn the_stub_survives_all_weathers() {
    run_seeds(STUB_SEEDS, stub);
}

#[test]
fn every_mutation_of_the_stub_is_found() {
    for mutation in Mutation::ALL {
        let found = (0..MUTANT_SEEDS)
            .find_map(|seed| simulate(seed, Tracing::Off, Box::new(StubNode::new(mutation))).err());
        match found {
            Some(failure) => println!("{mutation:?}: seed {}: {}", failure.seed, failure.what),
            None => panic!("{mutation:?} passes {MUTANT_SEEDS} seeds: a checker is blind"),
        }
    }
}

#[test]
fn one_seed_is_one_story() {
    for seed in 0..20 {
        let story = || match stub(seed, Tracing::On) {
            Ok(trace) => trace,
            Err(failure) => failure.trace,
        };
        assert_eq!(story(), story(), "seed {seed}");
    }
}
