//! What the process around the ledger should do: what a fault lets through, what a restart finds.

use std::collections::VecDeque;
use std::rc::Rc;

use placet_server::sequencer::{SequencerError, Step};
use placet_server::store::Fault;

use super::foretold::{Answer, Predicted};
use super::model::{Model, Named};
use super::world::{Revisions, Rules};

/// What should become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is stored, and answered.
    Done,
    /// Nothing of it is stored; what was stored before is answered all the same.
    Failed,
    /// Nothing of it is stored, and nothing is answered.
    Refused,
    /// Nobody knows: the store could not be opened again. Whether it is stored.
    Unknown(bool),
    /// The process has died. Whether it is stored.
    Died(bool),
}

impl Fate {
    fn is_stored(self) -> bool {
        matches!(self, Self::Done | Self::Unknown(true) | Self::Died(true))
    }
}

/// A process with its store.
#[derive(Debug)]
pub(super) struct Twin {
    /// What the process knows; while it cannot open its store, what is in there.
    pub(super) model: Model,
    /// The time that is stored with the log: the process may be ahead of it while it has nothing to
    /// write.
    stored_now: u64,
    /// Faults to come.
    pub(super) faults: VecDeque<Fault>,
    /// Whether the process could not open its store again.
    is_away: bool,
}

fn failed(error: SequencerError) -> Answer {
    Answer::Failed(error)
}

fn unavailable() -> Answer {
    failed(SequencerError::Unavailable { reason: String::new() })
}

impl Twin {
    pub(super) fn new(rules: Rules) -> Self {
        Self { model: Model::new(rules), stored_now: 0, faults: VecDeque::new(), is_away: false }
    }

    fn take(&mut self, among: &[Fault]) -> Option<Fault> {
        let next = self.faults.front().copied().filter(|fault| among.contains(fault))?;
        self.faults.pop_front();
        Some(next)
    }

    /// What becomes of a batch of so many leaves once it is signed.
    fn fate(&mut self, leaves: u64) -> Fate {
        if leaves == 0 {
            return Fate::Done;
        }
        if self.take(&[Fault::CrashBeforeCommit]).is_some() {
            return Fate::Died(false);
        }
        match self.take(&[Fault::Commit, Fault::CommitUnknown, Fault::CommitPersisted]) {
            Some(Fault::Commit) => return Fate::Failed,
            Some(fault) => {
                let is_stored = fault == Fault::CommitPersisted;
                if self.take(&[Fault::Reopen]).is_some() {
                    return Fate::Unknown(is_stored);
                }
                if !is_stored {
                    return Fate::Failed;
                }
            }
            None => {}
        }
        if self.take(&[Fault::CrashAfterCommit]).is_some() {
            return Fate::Died(true);
        }
        Fate::Done
    }

    /// Takes over what a batch came to.
    fn settle(&mut self, before: Model, fate: Fate) {
        let leaves = self.model.size() - before.size();
        if !fate.is_stored() {
            self.model = before;
        } else if leaves > 0 {
            self.stored_now = self.model.now;
        }
        if matches!(fate, Fate::Died(_)) {
            self.model.now = self.stored_now;
        }
        self.is_away = matches!(fate, Fate::Unknown(_));
    }

    /// A start, of a process that is dead or new. Only one that is done leaves a process alive.
    pub(super) fn start(&mut self, active: Revisions, clock: u64) -> Fate {
        self.model.now = self.stored_now;
        let before = self.model.clone();
        self.model.begin(active, clock);
        let fate = match self.take(&[Fault::Sign]) {
            Some(_) => Fate::Refused,
            None => self.fate(self.model.size() - before.size()),
        };
        self.settle(before, fate);
        self.is_away = false;
        fate
    }

    /// A batch: what it should be answered with if it is stored, what becomes of it, and what was
    /// before. `named` are the victims of what it decides.
    pub(super) fn serve(
        &mut self,
        steps: &[Step],
        clock: u64,
        named: Named,
    ) -> (Vec<Predicted>, Fate, Model) {
        self.model.named = Rc::new(named);
        if self.is_away {
            if self.take(&[Fault::Reopen]).is_some() {
                let answers = vec![(unavailable(), false); steps.len()];
                return (answers, Fate::Refused, self.model.clone());
            }
            self.is_away = false;
            self.model.now = self.stored_now;
        }
        let before = self.model.clone();
        let mut fate = None;
        let predicted = self.model.batch(steps, clock, || {
            // A batch is signed anew for each command that is taken out of it.
            let faulty = self.faults.front() == Some(&Fault::Sign);
            if faulty {
                self.faults.pop_front();
                fate = Some(Fate::Refused);
            }
            faulty
        });
        let leaves = self.model.size() - before.size();
        let fate = fate.unwrap_or_else(|| self.fate(leaves));
        self.settle(before.clone(), fate);
        (predicted, fate, before)
    }

    /// Takes back a batch for which there was no room.
    pub(super) fn undo(&mut self, before: Model, stored_now: u64) {
        (self.model, self.stored_now) = (before, stored_now);
    }

    pub(super) fn stored_now(&self) -> u64 {
        self.stored_now
    }
}

/// What is answered of a batch with that fate.
pub(super) fn answer((answer, is_firm): Predicted, fate: Fate) -> Answer {
    match fate {
        Fate::Done => answer,
        Fate::Failed | Fate::Unknown(_) if is_firm => answer,
        Fate::Failed | Fate::Refused => unavailable(),
        Fate::Unknown(_) => failed(SequencerError::OutcomeUnknown),
        Fate::Died(_) => failed(SequencerError::Stopped),
    }
}
