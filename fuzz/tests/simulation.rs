//! The simulation on fixed seeds with every change, and on any seeds for `make simulate`.
#![expect(clippy::panic, clippy::print_stdout, reason = "a test says on what it failed")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use placet_fuzz::sim::{self, Failure, Run};
use placet_server::quota::Defect;

/// Seeds of `make test`: with debug assertions, two threads take about 160 seconds for them and
/// the broken rules.
const SEEDS: u64 = 1_000;
/// Seeds of `make simulate` unless it is told otherwise.
const MANY: u64 = 10_000;
/// Every kind of answer, fate and event, each of which these seeds must reach. A workload that
/// never got there would find nothing there.
const REACHED: [&str; 82] = [
    "activated",
    "already ended",
    "another leaf",
    "batch done",
    "batch failed",
    "batch refused",
    "batch unknown, not stored",
    "batch unknown, stored",
    "chosen among more than eight",
    "clock jumped",
    "clock went back",
    "confirm deadline passed",
    "denied",
    "denied: nobody makes room",
    "died after the commit",
    "died before the commit",
    "disk full",
    "disk full at start",
    "ended with its lease",
    "erased",
    "evicted",
    "expired",
    "failed start",
    "freeze is not theirs to lift",
    "freeze refused",
    "frozen",
    "frozen or thawed",
    "gang denied",
    "gang permitted",
    "inspected",
    "killed",
    "malformed",
    "not found",
    "not yours",
    "outcome unknown",
    "permitted",
    "permitted: in advance",
    "permitted: inside a lease",
    "permitted: others make room",
    "permitted: others make room after a longer notice",
    "permitted: to go on",
    "permitted: under a waiver",
    "probed",
    "read again",
    "refunded",
    "refused: a conflict of units",
    "refused: a lease that is not claimed",
    "refused: a start in the past",
    "refused: a start too far ahead",
    "refused: a waiver of a time to come",
    "refused: a waiver that has expired",
    "refused: a waiver that is used up",
    "refused: another waiver of that name",
    "refused: frozen",
    "refused: inside an unconfirmed lease",
    "refused: inside no lease",
    "refused: no room",
    "refused: nothing that could go on",
    "refused: nothing to borrow",
    "refused: outside its lease",
    "refused: the gang is not whole",
    "refused: to go on as something else",
    "refused: to go on instead of going",
    "refused: to go on once too often",
    "refused: to go on unconfirmed",
    "refused: to go on under a stale epoch",
    "refused: to go on when it is over",
    "refused: unknown account",
    "repeated",
    "request id reused",
    "settled",
    "snapshot taken up",
    "snapshot torn",
    "stale epoch",
    "stopped",
    "stopped in order",
    "superseded",
    "time out of range",
    "told to make room",
    "too long",
    "trees changed",
    "unavailable",
];

/// Why no lock is poisoned.
const HELD: &str = "nothing panics while it is held";

type Counts = BTreeMap<&'static str, u64>;

/// Runs seeds on all cores: what they reached, or those that failed.
fn run_all(seeds: Range<u64>, bar: &ProgressBar) -> Result<Counts, Vec<Failure>> {
    let next = AtomicU64::new(seeds.start);
    let (counts, failures) = (Mutex::new(Counts::new()), Mutex::new(Vec::new()));
    let has_failed = AtomicBool::new(false);
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match sim::run(seed) {
                Ok(run) => add(&mut counts.lock().expect(HELD), run),
                Err(failure) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failures.lock().expect(HELD).push(failure);
                }
            }
            bar.inc(1);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().expect(HELD);
    if failures.is_empty() { Ok(counts.into_inner().expect(HELD)) } else { Err(failures) }
}

fn add(counts: &mut Counts, run: Run) {
    for (what, count) in run.counts {
        *counts.entry(what).or_default() += count;
    }
}

/// What a person needs to see it again.
fn report(failures: &[Failure]) -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = output.map_or_else(
        |_no_git| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let mut text = String::new();
    for failure in failures {
        let seed = failure.seed;
        text.push_str(&format!("{failure}\n  again: make simulate SEED={seed}\n"));
    }
    format!("{text}  commit: {commit}\n  keep the seed in fuzz/regressions/simulation.txt")
}

/// The seeds of a file with one a line, and words about it.
fn regressions() -> Vec<u64> {
    let text = include_str!("../regressions/simulation.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let seed = |line: &str| line.split_whitespace().next()?.parse().ok();
    lines.map(|line| seed(line).unwrap_or_else(|| panic!("`{line}` begins with no seed"))).collect()
}

#[test]
fn every_answer_is_the_models() {
    let counts = run_all(0..SEEDS, &ProgressBar::hidden());
    let counts = counts.unwrap_or_else(|failures| panic!("{}", report(&failures)));
    println!("{counts:#?}");
    let reached: Vec<_> = counts.keys().copied().collect();
    assert_eq!(reached, REACHED);
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in regressions() {
        sim::run(seed).unwrap_or_else(|failure| panic!("{}", report(&[failure])));
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 0..4 {
        let [one, two] = [sim::run(seed), sim::run(seed)].map(Result::unwrap);
        assert_eq!(one, two, "seed {seed}");
    }
}

/// A simulation that finds nothing says something only if it finds what is there.
#[test]
fn every_broken_rule_is_found() {
    let mut missed = Vec::new();
    for rule in Defect::ALL {
        let mut failures = (0..SEEDS).filter_map(|seed| sim::run_broken(seed, rule).err());
        match failures.next() {
            Some(Failure { seed, step, wrong }) => {
                let what = wrong.lines().next().unwrap_or_default();
                println!("{rule:?}: {} seeds, at step {step}: {what}", seed + 1);
            }
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "{SEEDS} seeds do not show {missed:?}");
}

/// A number out of the environment; absent if it is empty.
#[expect(clippy::disallowed_methods, reason = "nothing else can be told to a test")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
#[ignore = "as long as one likes: `make simulate` runs it"]
fn any_seeds() {
    let (first, many) = match (setting("SEED"), setting("SEEDS")) {
        (Some(seed), seeds) => (seed, seeds.unwrap_or(1)),
        // Those before are those of `make test`.
        (None, seeds) => (SEEDS, seeds.unwrap_or(MANY)),
    };
    let bar = ProgressBar::new(many);
    let style = "{bar:40} {pos} of {len} seeds, {elapsed}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).unwrap());
    let counts = run_all(first..first.saturating_add(many), &bar);
    bar.finish();
    let counts = counts.unwrap_or_else(|failures| panic!("{}", report(&failures)));
    for (what, count) in counts {
        println!("{count:>12} {what}");
    }
}
