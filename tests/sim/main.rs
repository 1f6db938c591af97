//! Whole nodes in one thread, under one seed and a virtual clock.
//!
//! `LOWTIDE_SEEDS=n` runs that many seeds; `LOWTIDE_SEED=x` runs one and prints what happened;
//! `LOWTIDE_ALL=1` goes on after a failure and lists all that fail.
//! A failing seed is a reproduction: everything that is random comes from it.
//!
//! ```text
//!   run ──► node (real code, or the stub that tests the checkers)
//!    │        └── world seams ──► host { kernel, disk, images, volumes, net } ──► judge (safety)
//!    └── timeline, faults, manifests ──► check (convergence, litmus)
//! ```

mod check;
mod disk;
mod host;
mod images;
mod judge;
mod kernel;
mod manifests;
mod net;
mod random;
mod real;
mod run;
mod runtime;
mod script;
mod spec;
mod stub;
mod timeline;
mod trace;
mod volumes;

use real::RealNode;
use run::{Failure, Node, simulate};
use stub::{Mutation, StubNode};
use trace::Tracing;

/// Seeds of the real node: about half a minute.
const SEEDS: u64 = 1000;
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

/// Runs the seeds, or the one that the user asked for with its trace; panics with the first failure.
fn run_seeds(default: u64, node: impl Fn() -> Box<dyn Node>) {
    if let Some(seed) = number("LOWTIDE_SEED") {
        match simulate(seed, Tracing::On, node()) {
            Ok(trace) => println!("{}\nseed {seed} is fine", trace.join("\n")),
            Err(failure) => report(&failure),
        }
        return;
    }
    if std::env::var_os("LOWTIDE_ALL").is_some() {
        return list_failures(default, node);
    }
    for seed in 0..number("LOWTIDE_SEEDS").unwrap_or(default) {
        if simulate(seed, Tracing::Off, node()).is_err() {
            // The same seed again, this time with its story.
            match simulate(seed, Tracing::On, node()) {
                Ok(_) => panic!("seed {seed} fails only sometimes: something is not deterministic"),
                Err(failure) => report(&failure),
            }
        }
    }
}

/// One line for each seed that fails: how far-reaching a fault is.
fn list_failures(default: u64, node: impl Fn() -> Box<dyn Node>) {
    let mut failures = 0;
    for seed in 0..number("LOWTIDE_SEEDS").unwrap_or(default) {
        if let Err(failure) = simulate(seed, Tracing::Off, node()) {
            println!("seed {seed}: {}", failure.what.replace('\n', " "));
            failures += 1;
        }
    }
    assert_eq!(failures, 0, "seeds failed");
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
