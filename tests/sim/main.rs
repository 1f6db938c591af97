//! Whole nodes in one thread, under one seed and a virtual clock.
//!
//! `LOWTIDE_SEEDS=n` runs that many seeds; `LOWTIDE_SEED=x` runs one and prints what happened;
//! `LOWTIDE_ALL=1` goes on after a failure and lists all that fail; `LOWTIDE_FROM=x` begins elsewhere.
//! A failing seed is a reproduction: everything that is random comes from it.
//!
//! ```text
//!   run ──► node (real code, or the stub that tests the checkers)
//!    │        └── world seams ──► host { kernel, disk, images, volumes, net } ──► judge (safety)
//!    └── timeline, faults, manifests ──► check (convergence, litmus)
//! ```

mod check;
mod client;
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
mod run;
mod runtime;
mod script;
mod spec;
mod stats;
mod stub;
mod timeline;
mod trace;
mod volumes;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use real::RealNode;
use run::{Failure, Node, simulate};
use stub::{Mutation, StubNode};
use trace::Tracing;

/// Seeds of the real node: a minute of two cores that nobody else uses much. Longer runs are
/// for LOWTIDE_SEEDS.
const SEEDS: u64 = 150;
/// Seeds of the stub: it only has to show that the simulation is fair.
const STUB_SEEDS: u64 = 300;
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

type MakeNode = fn() -> Box<dyn Node>;

/// Runs the seeds, or the one that the user asked for with its trace; panics with the first failure.
fn run_seeds(default: u64, node: MakeNode) {
    if let Some(seed) = number("LOWTIDE_SEED") {
        match simulate(seed, Tracing::On, node()) {
            Ok(trace) => println!("{}\nseed {seed} is fine", trace.join("\n")),
            Err(failure) => report(&failure),
        }
        return;
    }
    let first = number("LOWTIDE_FROM").unwrap_or(0);
    let seeds = first..first + number("LOWTIDE_SEEDS").unwrap_or(default);
    let all = std::env::var_os("LOWTIDE_ALL").is_some();
    let failures = failures(seeds, node, if all { usize::MAX } else { 1 });
    for failure in failures.iter().filter(|_| all) {
        println!("seed {}: {}", failure.seed, failure.what.replace('\n', " "));
    }
    if let Some(Failure { seed, .. }) = failures.first() {
        // The same seed again, this time with its story.
        match simulate(*seed, Tracing::On, node()) {
            Ok(_) => panic!("seed {seed} fails only sometimes: something is not deterministic"),
            Err(failure) => report(&failure),
        }
    }
}

/// The failures of a range of seeds, lowest first; stops once there are `enough`.
fn failures(seeds: std::ops::Range<u64>, node: MakeNode, enough: usize) -> Vec<Failure> {
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
                    if let Err(failure) = simulate(seed, Tracing::Off, node()) {
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
    run_seeds(SEEDS, || Box::new(RealNode::default()));
}

#[test]
fn the_stub_survives_all_weathers() {
    run_seeds(STUB_SEEDS, || Box::new(StubNode::new(Mutation::None)));
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
        let story = || match simulate(seed, Tracing::On, Box::new(StubNode::new(Mutation::None))) {
            Ok(trace) => trace,
            Err(failure) => failure.trace,
        };
        assert_eq!(story(), story(), "seed {seed}");
    }
}
