//! The deterministic simulation: one process with its store, driven by a seed.
//!
//! A seed drives the clock, requests, confirms, releases, activations, faults at every step of a
//! commit, kills and restarts. The engine is the real one, on the real SQLite store; only chance
//! and time are the seed's. After every batch an auditor holds each answer, each new leaf of the
//! log and the use of each account against a simple model of its own.

mod approvals;
mod auditor;
mod books;
mod eviction;
mod foretold;
mod gangs;
mod leases;
mod model;
mod reservation;
mod rng;
mod twin;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use placet_core::Digest;
use placet_server::quota::Defect;
use placet_server::sequencer::{OpenError, Proposal, Step, Stepper};
use placet_server::store::Faults;

use auditor::{Auditor, Wrong, check_limits, digests};
use eviction::BEST_OF;
use foretold::Answer;
use model::Named;
use twin::{Fate, Twin, answer};
use workload::{Action, Driver};
use world::{Revisions, World};

/// Batches and restarts of one run.
pub const STEPS: u32 = 120;
/// Requests that are asked once more at the end.
const ASKED_AGAIN: usize = 12;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How often what happened, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Leaves of the log, and their root: the same for the same seed, to the last signed byte.
    pub log: (u64, Digest),
}

/// Where a run went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Of the run.
    pub seed: u64,
    /// After how many steps, from 0.
    pub step: u32,
    /// What is wrong, for a person to read.
    pub wrong: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "seed {}, step {}: {}", self.seed, self.step, self.wrong)
    }
}

/// Runs one seed.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn run(seed: u64) -> Result<Run, Failure> {
    guarded(seed, Faults::default())
}

/// Runs one seed on an engine that breaks a rule.
///
/// # Errors
/// The first thing that is not as it should be: there had better be one.
pub fn run_broken(seed: u64, rule: Defect) -> Result<Run, Failure> {
    guarded(seed, Faults::breaking(rule))
}

fn guarded(seed: u64, faults: Faults) -> Result<Run, Failure> {
    let mut step = 0;
    // A seed that makes the engine panic must be told like any other that fails.
    let ran = catch_unwind(AssertUnwindSafe(|| simulate(seed, faults, &mut step)));
    let ran = ran.unwrap_or_else(|_panic| Err("it panicked".to_owned()));
    ran.map_err(|wrong| Failure { seed, step, wrong })
}

fn simulate(seed: u64, faults: Faults, step: &mut u32) -> Result<Run, Wrong> {
    let workload = Driver::new(seed);
    let rules = workload.rules.clone();
    let world = World::new(rules.clone(), faults)?;
    let auditor = Auditor::new(&world.jwks())?;
    let (twin, stepper) = (Twin::new(rules), None);
    let (is_bounded, is_full) = (false, false);
    let mut run = Simulation { world, twin, workload, auditor, stepper, is_bounded, is_full };
    while *step < STEPS {
        run.step()?;
        *step += 1;
    }
    run.finish()?;
    Ok(Run { log: run.auditor.log(), counts: run.auditor.counts })
}

struct Simulation {
    world: World,
    twin: Twin,
    workload: Driver,
    auditor: Auditor,
    /// `None` while no process lives.
    stepper: Option<Stepper>,
    /// Whether the disk may be full.
    is_bounded: bool,
    /// Whether it was, for the last batch.
    is_full: bool,
}

impl Simulation {
    fn step(&mut self) -> Result<(), Wrong> {
        let action = match self.stepper {
            Some(_) => self.workload.next(&self.twin.model, self.is_full),
            None => self.workload.restart_dead(&self.twin.model),
        };
        if self.twin.faults.is_empty() && !self.is_bounded {
            self.fault();
        }
        match action {
            Action::Serve(steps) => self.serve(steps)?,
            Action::Restart { kill, active, room } => self.restart(kill, active, room)?,
        }
        check_limits(&self.twin.model)
    }

    fn fault(&mut self) {
        for fault in self.workload.faults() {
            self.world.faults.push(fault);
            self.twin.faults.push_back(fault);
        }
    }

    fn serve(&mut self, steps: Vec<Step>) -> Result<(), Wrong> {
        let is_told = self.serve_once(steps)?;
        // What a batch that failed left behind; asking would use up a fault that still waits.
        if !is_told && self.stepper.is_some() && self.twin.faults.is_empty() {
            self.serve_once(vec![Step::Inspect])?;
        }
        Ok(())
    }

    /// Carries out a batch; whether it ended with a look at the state.
    fn serve_once(&mut self, steps: Vec<Step>) -> Result<bool, Wrong> {
        let Some(mut stepper) = self.stepper.take() else { return Ok(false) };
        let clock = self.workload.clock;
        let stored_now = self.twin.stored_now();
        let size = self.twin.model.size();
        let found = stepper.serve(steps.clone(), clock);
        let stored = stepper.reader().size().map_err(|error| error.to_string())?;
        let named = self.auditor.named(stepper.reader(), size, stored)?;
        let (predicted, mut fate, before) = self.twin.serve(&steps, clock, named);
        let is_new = self.twin.model.size() > before.size();
        self.is_full = self.is_bounded && is_new && fate == Fate::Done && stored == before.size();
        if self.is_full {
            self.auditor.count("disk full");
            fate = Fate::Failed;
            self.twin.undo(before, stored_now);
        }
        let reader = stepper.reader().clone();
        let is_alive = stepper.is_alive();
        if is_alive {
            self.stepper = Some(stepper);
        } else {
            self.world.kill(stepper)?;
        }
        self.auditor.count(name(fate));
        if is_alive == matches!(fate, Fate::Died(_)) {
            return Err(format!("the process lives: {is_alive}, but its fate is {fate:?}"));
        }
        let mut is_told = false;
        for ((step, predicted), found) in steps.iter().zip(predicted).zip(&found) {
            let expected = answer(predicted, fate);
            let checked = self.auditor.check_answer(&self.twin.model, &expected, found);
            checked.map_err(|wrong| format!("{wrong}\n  to {step:?}"))?;
            is_told = matches!((step, &expected), (Step::Inspect, Answer::Inspected));
        }
        if is_alive {
            self.auditor.read_on(&reader, &self.twin.model)?;
        }
        Ok(is_told)
    }

    fn restart(&mut self, kill: bool, active: Revisions, room: Option<u32>) -> Result<(), Wrong> {
        match self.stepper.take() {
            Some(stepper) if kill => self.world.kill(stepper)?,
            other => drop(other),
        }
        self.auditor.count(if kill { "killed" } else { "stopped in order" });
        (self.is_bounded, self.is_full) = (room.is_some(), false);
        if self.is_bounded {
            // A fault and a full disk at once: which of them strikes could not be foretold.
            self.world.faults.clear();
            self.twin.faults.clear();
        }
        let clock = self.workload.clock;
        let (before, stored_now) = (self.twin.model.clone(), self.twin.stored_now());
        let fate = self.twin.start(active, clock);
        let pages = room.map(|room| self.world.pages().saturating_add(room));
        match (self.world.open(active, pages, clock), fate) {
            (Ok(stepper), Fate::Done) => {
                // What it began with is what the whole log folds to.
                if stepper.check_snapshot()?.is_some() {
                    let is_torn = std::mem::take(&mut self.world.is_torn);
                    self.auditor.count(if is_torn { "snapshot torn" } else { "snapshot taken up" });
                }
                let reader = stepper.reader().clone();
                self.stepper = Some(stepper);
                self.auditor.read_on(&reader, &self.twin.model)?;
                self.look(&reader)
            }
            (Err(OpenError::First(error)), Fate::Done) if self.is_bounded => {
                self.auditor.count("disk full at start");
                self.twin.undo(before, stored_now);
                check_open(&mut self.auditor, &error, Fate::Failed)
            }
            (Err(OpenError::First(error)), _) => {
                self.auditor.count("failed start");
                check_open(&mut self.auditor, &error, fate)
            }
            (found, _) => Err(format!("the start came to {found:?}, not to {fate:?}")),
        }
    }

    /// The state and the whole log, right after a start.
    fn look(&mut self, reader: &placet_server::store::Reader) -> Result<(), Wrong> {
        if !self.twin.faults.is_empty() || self.is_bounded {
            return Ok(());
        }
        let Some(stepper) = &mut self.stepper else { return Ok(()) };
        let clock = self.workload.clock;
        let (predicted, ..) = self.twin.serve(&[Step::Inspect], clock, Named::new());
        let found = stepper.serve(vec![Step::Inspect], clock);
        let ([predicted], [found]) = (&*predicted, &*found) else {
            return Err("one command has one answer".to_owned());
        };
        self.auditor.check_answer(&self.twin.model, &predicted.0, found)?;
        let Ok(placet_server::sequencer::Reply::Inspected(snapshot)) = found else {
            return Err(format!("a look at the state gave {found:?}"));
        };
        self.auditor.read_again(reader, snapshot.head.root)
    }

    /// A last process without faults: the log says all that was ever answered, and whoever asks
    /// again is answered the same.
    fn finish(&mut self) -> Result<(), Wrong> {
        if self.twin.model.widest.get() > BEST_OF {
            self.auditor.count("chosen among more than eight");
        }
        self.world.faults.clear();
        self.twin.faults.clear();
        self.restart(true, self.twin.model.active, None)?;
        self.auditor.check_answered()?;
        let steps = self.again();
        self.serve(steps)
    }

    /// The last requests once more, those that were never answered too.
    fn again(&self) -> Vec<Step> {
        let (bundle, facts) = digests(&self.twin.model);
        let again = |members: &[Proposal]| {
            let again = |proposal: &Proposal| Proposal { bundle, facts, ..proposal.clone() };
            match members {
                [alone] => Step::Propose(Box::new(again(alone))),
                _ => Step::Gang(members.iter().map(again).collect()),
            }
        };
        self.workload.asked().rev().take(ASKED_AGAIN).map(again).chain([Step::Inspect]).collect()
    }
}

fn name(fate: Fate) -> &'static str {
    match fate {
        Fate::Done => "batch done",
        Fate::Failed => "batch failed",
        Fate::Refused => "batch refused",
        Fate::Unknown(false) => "batch unknown, not stored",
        Fate::Unknown(true) => "batch unknown, stored",
        Fate::Died(false) => "died before the commit",
        Fate::Died(true) => "died after the commit",
    }
}

/// A start that failed, as foretold.
fn check_open(
    auditor: &mut Auditor,
    error: &placet_server::sequencer::SequencerError,
    fate: Fate,
) -> Result<(), Wrong> {
    match answer((Answer::Activated, false), fate) {
        Answer::Failed(expected) => auditor.check_failure(&expected, error),
        expected => Err(format!("a start came to {error:?}, not to {expected:?}")),
    }
}
