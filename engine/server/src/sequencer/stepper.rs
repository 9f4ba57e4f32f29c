//! The writer without its thread: batches and times are the caller's, so that a run can be repeated
//! exactly.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::writer::{Told, Writer};
use super::{
    Activation, Command, Cosigned, Cosigning, Erase, FreezeOrder, OpenError, Options, Proposal,
    Published, Queued, Reply, SequencerError, Settle, Shared, propose,
};
use crate::signer::Signer;
use crate::store::{Reader, StoreOptions};

/// One command of a batch.
#[derive(Debug, Clone)]
pub enum Step {
    /// As [`SequencerHandle::propose`](super::SequencerHandle::propose).
    Propose(Box<Proposal>),
    /// Decides requests together.
    Gang(Vec<Proposal>),
    /// As [`SequencerHandle::probe`](super::SequencerHandle::probe).
    Probe(Box<Proposal>),
    /// As [`SequencerHandle::settle`](super::SequencerHandle::settle).
    Settle(Settle),
    /// As [`SequencerHandle::activate`](super::SequencerHandle::activate), with its time.
    Activate(Activation, u64),
    /// As [`SequencerHandle::freeze`](super::SequencerHandle::freeze).
    Freeze(Box<FreezeOrder>),
    /// As [`SequencerHandle::erase`](super::SequencerHandle::erase).
    Erase(Erase),
    /// As [`SequencerHandle::inspect`](super::SequencerHandle::inspect).
    Inspect,
}

/// The only writer, on the thread of whoever calls it: for simulations, which must decide where a
/// batch ends and what time it is. Everything else is what a
/// [`SequencerHandle`](super::SequencerHandle) does.
#[derive(Debug)]
pub struct Stepper {
    writer: Writer,
    reader: Reader,
    is_alive: bool,
}

impl Stepper {
    /// Opens a store, or makes one. `name` is what a new store is called, instead of a random name:
    /// 32 hexadecimal digits. `now` is what the system's clock says, in seconds since 1970-01-01
    /// UTC.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        path: &Path,
        options: Options,
        store: StoreOptions,
        signer: Signer,
        activation: Activation,
        (name, now): (&str, u64),
    ) -> Result<Self, OpenError> {
        let told = Told { name: name.to_owned(), now };
        let shared = Arc::new(Shared::default());
        let writer = Writer::open(path, options, store, signer, activation, shared, Some(told))?;
        let reader = writer.reader();
        Ok(Self { writer, reader, is_alive: true })
    }

    /// Carries out one batch while the system's clock says `now`, in seconds since 1970-01-01 UTC;
    /// one answer for each command, in their order. An empty batch is what the writer does while
    /// nothing is asked.
    pub fn serve(&mut self, batch: Vec<Step>, now: u64) -> Vec<Result<Reply, SequencerError>> {
        self.carry_out(batch.into_iter().map(command), now)
    }

    /// Adds cosignatures to a checkpoint while the system's clock says `now`; otherwise as
    /// [`SequencerHandle::cosign`](super::SequencerHandle::cosign).
    ///
    /// # Errors
    /// [`SequencerError`].
    pub fn cosign(&mut self, cosigning: Cosigning, now: u64) -> Result<Cosigned, SequencerError> {
        match self.carry_out([Command::Cosign(cosigning)], now).pop() {
            Some(Ok(Reply::Cosigned(cosigned))) => Ok(cosigned),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(SequencerError::Stopped),
        }
    }

    fn carry_out(
        &mut self,
        commands: impl IntoIterator<Item = Command>,
        now: u64,
    ) -> Vec<Result<Reply, SequencerError>> {
        let (mut queued, mut answers) = (Vec::new(), Vec::new());
        for command in commands {
            let (sender, answer) = oneshot::channel();
            queued.push(Queued { command, answer: sender, _place: None });
            answers.push(answer);
        }
        if self.is_alive {
            self.writer.tell(now);
            self.is_alive = self.writer.serve(queued).is_ok();
            if self.is_alive {
                self.writer.publish(false);
                while self.writer.retain() {}
            }
        }
        let answer = |mut answer: oneshot::Receiver<_>| {
            answer.try_recv().unwrap_or(Err(SequencerError::Stopped))
        };
        answers.into_iter().map(answer).collect()
    }

    /// Folds the log from its first leaf on, and once more behind its snapshot, and compares all of
    /// it: the leaves of the snapshot, if there is one.
    ///
    /// # Errors
    /// What differs, why the snapshot cannot be used, or why the last one was not made.
    pub fn check_snapshot(&self) -> Result<Option<u64>, String> {
        self.writer.check_snapshot()
    }

    /// The newest checkpoint; none if none is made.
    #[must_use]
    pub fn published(&self) -> Option<Arc<Published>> {
        self.writer.shown().newest()
    }

    /// The newest checkpoint that at least so many witnesses cosigned.
    #[must_use]
    pub fn published_with(&self, witnesses: usize) -> Option<Arc<Published>> {
        self.writer.shown().at_least(witnesses)
    }

    /// Whether it lives: false once a fault made it die. Its files are open until it is dropped, so
    /// that they can be copied as a process leaves them that is killed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.is_alive
    }

    /// For look-ups that need no place in the order.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

fn command(step: Step) -> Command {
    match step {
        Step::Propose(proposal) => propose(vec![*proposal]),
        Step::Gang(members) => propose(members),
        Step::Probe(proposal) => Command::Probe(proposal),
        Step::Settle(settle) => Command::Settle(settle),
        Step::Activate(activation, time) => Command::Activate(activation, time),
        Step::Freeze(order) => Command::Freeze(order),
        Step::Erase(erase) => Command::Erase(erase),
        Step::Inspect => Command::Inspect,
    }
}
