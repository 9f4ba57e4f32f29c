//! The writer's thread: batch, stage, sign, append, commit, answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use placet_core::merkle::Tree;
use placet_core::{Decision, Event, SignError, Waived};
use tokio::sync::watch;

use super::checkpoints::Checkpoints;
use super::retention::{RetainError, Retention};
use super::snapshots::Snapshots;
use super::stage::{Abort, Answer, Draft, Stage, Staged, decided};
use super::{
    Activation, Command, Cosigning, MAX_BATCH, OpenError, Options, Queued, Reply, SequencerError,
    Shared, Shown, Snapshot, sign,
};
use crate::clock::{Clock, Steady};
use crate::log;
use crate::quota::{AccountNames, Defect, Ledger};
use crate::signer::Signer;
use crate::store::{Batch, CommitError, Fault, Reader, Store, StoreOptions};

/// How often is looked, while nothing is asked, whether a checkpoint is to be made, and under the
/// system's clock for reservations that are due.
const TICK: Duration = Duration::from_secs(1);

/// Everything that the one thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    /// Ahead of the store: whoever makes one is waited for before the store is closed.
    snapshots: Snapshots,
    checkpoints: Checkpoints,
    retention: Retention,
    store: Store,
    pub(super) ledger: Ledger,
    /// Of the accounts of `ledger`, as far as it is kept.
    pub(super) names: AccountNames,
    pub(super) tree: Tree,
    /// Random name of the store.
    name: String,
    active: Activation,
    signer: Signer,
    /// Most threads that sign a batch.
    signing_threads: usize,
    options: Options,
    shared: Arc<Shared>,
    steady: Steady,
    /// Whether the last commit had no known outcome and the store could not be opened again since.
    unsettled: bool,
    /// Present if chance and time are the caller's.
    told: Option<Told>,
}

/// What a [`Stepper`](super::Stepper) is told, in place of chance and the system's clock.
#[derive(Debug)]
pub(super) struct Told {
    /// Name of a new store.
    pub(super) name: String,
    /// Seconds since 1970-01-01 UTC.
    pub(super) now: u64,
}

/// A batch, signed: what goes to the store, and the answers.
struct Signed<'a> {
    batch: Batch<'a>,
    tree: Tree,
    answers: Vec<Answer>,
    /// The signed decisions, by their drafts' numbers.
    tokens: Vec<Option<SignedDraft>>,
    active: Option<Activation>,
}

/// A decision with its token, and what waivers lifted for it.
type SignedDraft = (Decision, String, Vec<Waived>);

enum SignFailure {
    /// The decision of that command is longer than a leaf can be.
    TooLong(usize),
    Batch(Abort),
}

/// The process is to die here, for a test.
pub(super) struct Crash;

/// What became of a commit.
enum Committed {
    Yes,
    No(SequencerError),
    Crash,
}

impl Writer {
    pub(super) fn open(
        path: &Path,
        options: Options,
        store: StoreOptions,
        signer: Signer,
        activation: Activation,
        shared: Arc<Shared>,
        told: Option<Told>,
    ) -> Result<Self, OpenError> {
        let (every, signing) = (store.snapshot_every, store.checkpoints.clone());
        let signing_threads = store.signing_threads;
        let retention = Retention::new(store.personal_for_seconds, told.as_ref().map(|it| it.now));
        let store = Store::open(path, store).map_err(OpenError::Store)?;
        let mut snapshots = Snapshots::new(path, every, signer.clone(), told.is_some());
        let folded = snapshots.fold(&store).map_err(OpenError::Log)?;
        let checkpoints = Checkpoints::open(&store, signing, &options.issuer, told.is_some());
        let checkpoints = checkpoints.map_err(OpenError::Log)?;
        snapshots.begin(&folded);
        let (bundle, facts) = (folded.bundle.clone(), folded.facts.clone());
        let is_new = folded.tree.size() == 0;
        let name = match (is_new, &told) {
            (false, _) => folded.name.clone(),
            (true, Some(told)) => told.name.clone(),
            (true, None) => store.random_name().map_err(|error| OpenError::Log(error.into()))?,
        };
        let (ledger, tree) = (folded.ledger, folded.tree);
        let mut writer = Self {
            names: AccountNames::of(&ledger),
            steady: match &told {
                Some(told) => Steady::still(told.now.max(ledger.now())),
                None => Steady::begin(Clock::now().max(ledger.now())),
            },
            snapshots,
            checkpoints,
            retention,
            store,
            ledger,
            tree,
            name,
            active: activation.clone(),
            signer,
            signing_threads,
            options,
            shared,
            unsettled: false,
            told,
        };
        writer.begin(is_new, bundle, facts, &activation).map_err(OpenError::First)?;
        writer.shared.published.send_replace(writer.checkpoints.shown());
        writer.publish(false);
        Ok(writer)
    }

    /// Logs the genesis of a new log and what is active, in one commit.
    fn begin(
        &mut self,
        is_new: bool,
        bundle: Option<(placet_core::Digest, String)>,
        facts: Option<(placet_core::Digest, String)>,
        activation: &Activation,
    ) -> Result<(), SequencerError> {
        let now = match self.options.clock {
            Clock::System => self.clock().max(self.ledger.now()),
            Clock::Events => self.ledger.now(),
        };
        let mut staged = Staged::default();
        let expired = self.ledger.advance(now);
        let expired =
            expired.map_err(|error| SequencerError::Unavailable { reason: error.to_string() })?;
        if is_new {
            let (origin, store) = (self.options.issuer.clone(), self.name.clone());
            let genesis = log::leaf(now, Event::Genesis { origin, store });
            staged.drafts.push(Draft::Leaf(genesis));
        }
        staged.drafts.extend(expired.into_iter().map(log::leaf_of_expiry).map(Draft::Leaf));
        let none = || (placet_core::Digest::of(b""), String::new());
        let before = Activation {
            bundle: bundle.unwrap_or_else(none),
            facts: facts.unwrap_or_else(none),
            quotas: Arc::default(),
        };
        staged.activate(&mut self.ledger, &before, activation, now)?;
        let failed = |Abort(reason)| SequencerError::Unavailable { reason };
        let signed = match self.sign(staged) {
            Ok(signed) => signed,
            Err(SignFailure::TooLong(_)) => return Err(SequencerError::TooLong),
            Err(SignFailure::Batch(abort)) => return Err(failed(abort)),
        };
        match self.commit(&signed.batch) {
            Committed::Yes => {
                self.keep(signed.tree, signed.active);
                Ok(())
            }
            Committed::No(error) => Err(error),
            Committed::Crash => Err(SequencerError::Stopped),
        }
    }

    pub(super) fn check_snapshot(&self) -> Result<Option<u64>, String> {
        self.snapshots.check(&self.store)
    }

    pub(super) fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// What the system's clock says, or what is to be taken for it.
    fn clock(&self) -> u64 {
        self.told.as_ref().map_or_else(Clock::now, |told| told.now)
    }

    /// Says what is to be taken for the system's clock from now on.
    pub(super) fn tell(&mut self, now: u64) {
        if let Some(told) = &mut self.told {
            told.now = now;
        }
    }

    /// Serves until it is told to close, or everybody who could ask has gone.
    pub(super) fn run(mut self, commands: &Receiver<Queued>, end: watch::Sender<bool>) {
        let shared = Arc::clone(&self.shared);
        let alive = Alive(&shared);
        let mut is_busy = false;
        while let Some((batch, closing)) = self.next_batch(commands, is_busy) {
            // Where events tell the time, nothing happens while there are none.
            let is_idle =
                batch.is_empty() && self.options.clock == Clock::Events && !self.unsettled;
            if !is_idle && self.serve(batch).is_err() {
                break;
            }
            self.publish(closing);
            if closing {
                break;
            }
            is_busy = self.retain();
        }
        // The store is closed and its lock given back before anybody hears of the end.
        drop(self);
        drop(alive);
        end.send_replace(true);
    }

    /// What is there, up to a bound, without waiting for more; empty if it is time to look for what
    /// is due, or there is something else to do. `None` if there will be no more. The flag says
    /// that this is the last.
    fn next_batch(
        &self,
        commands: &Receiver<Queued>,
        is_busy: bool,
    ) -> Option<(Vec<Queued>, bool)> {
        let wait = if is_busy { Duration::ZERO } else { TICK };
        let first = match commands.recv_timeout(wait) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return Some((Vec::new(), false)),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let mut weight = first.command.weight();
        let mut batch = vec![first];
        while weight < MAX_BATCH
            && let Ok(next) = commands.try_recv()
        {
            weight = weight.saturating_add(next.command.weight());
            batch.push(next);
        }
        let closing = batch.iter().any(|queued| matches!(queued.command, Command::Close));
        Some((batch, closing))
    }

    /// Carries out a batch and answers it.
    pub(super) fn serve(&mut self, batch: Vec<Queued>) -> Result<(), Crash> {
        let is_cosign = |queued: &Queued| matches!(queued.command, Command::Cosign(_));
        let (cosignings, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_cosign);
        if !batch.is_empty() || cosignings.is_empty() {
            self.serve_in_order(batch)?;
        }
        if !cosignings.is_empty() {
            self.cosign(cosignings);
        }
        Ok(())
    }

    /// Gives checkpoints their cosignatures. A crash here leaves all of them or none, unanswered:
    /// whoever adds them again gets the same answer.
    fn cosign(&mut self, batch: Vec<Queued>) {
        if self.unsettled
            && let Err(error) = self.settle_store()
        {
            return answer_all(batch, Vec::new(), &error);
        }
        let asked: Vec<&Cosigning> = batch
            .iter()
            .filter_map(|queued| match &queued.command {
                Command::Cosign(cosigning) => Some(cosigning),
                _ => None,
            })
            .collect();
        match self.checkpoints.cosign(&mut self.store, &asked) {
            Ok(answers) => {
                // Durable, and only now shown.
                self.shared.published.send_replace(self.checkpoints.shown());
                for (queued, answer) in batch.into_iter().zip(answers) {
                    send(queued, answer.map(Reply::Cosigned));
                }
            }
            Err(CommitError::Refused(error)) => {
                tracing::error!(%error, "the store did not take cosignatures");
                let reason = error.to_string();
                answer_all(batch, Vec::new(), &SequencerError::Unavailable { reason });
            }
            Err(CommitError::Unknown(error)) => {
                tracing::error!(%error, "the store does not say whether it took cosignatures");
                self.unsettled = true;
                answer_all(batch, Vec::new(), &SequencerError::OutcomeUnknown);
            }
        }
    }

    fn serve_in_order(&mut self, batch: Vec<Queued>) -> Result<(), Crash> {
        if self.unsettled
            && let Err(error) = self.settle_store()
        {
            answer_all(batch, Vec::new(), &error);
            return Ok(());
        }
        let mut too_long = Vec::new();
        loop {
            // 1. Apply to the ledger, in memory. A crash here costs nothing: nobody was told
            // anything.
            let staged = match self.stage(&batch, &too_long) {
                Ok(staged) => staged,
                Err(Abort(reason)) => {
                    self.ledger.undo_all();
                    answer_all(batch, Vec::new(), &SequencerError::Unavailable { reason });
                    return Ok(());
                }
            };
            // 2. Sign. A crash here costs nothing: a signature that nobody has seen binds nobody.
            let signed = match self.sign(staged) {
                Ok(signed) => signed,
                Err(SignFailure::TooLong(command)) => {
                    // Rare: start over without it, so that the others are decided as if it had
                    // never been asked.
                    self.ledger.undo_all();
                    too_long.push(command);
                    continue;
                }
                Err(SignFailure::Batch(Abort(reason))) => {
                    self.ledger.undo_all();
                    answer_all(batch, Vec::new(), &SequencerError::Unavailable { reason });
                    return Ok(());
                }
            };
            // 3. Append and commit. A crash here leaves all of the batch or nothing, unanswered:
            // whoever asks again gets the decision that is stored, or the first one.
            return match self.commit(&signed.batch) {
                Committed::Crash => {
                    self.shared.alive.store(false, Ordering::Release);
                    Err(Crash)
                }
                Committed::No(error) => {
                    if !self.ledger.breaks(Defect::FailedBatchNotUndone) {
                        self.ledger.undo_all();
                    }
                    let answers = signed.answers;
                    answer_all(batch, answers, &error);
                    Ok(())
                }
                Committed::Yes => {
                    let Signed { batch: stored, tree, answers, tokens, active } = signed;
                    let first = stored.first;
                    if !stored.erased.is_empty() {
                        self.retention.erased();
                    }
                    drop(stored);
                    self.keep(tree, active);
                    self.note_accounts(&tokens);
                    // 4. Answer. A crash here costs answers, no decisions: whoever asks again gets
                    // the stored one.
                    self.answer(batch, answers, &tokens, first);
                    self.snapshots.consider(self.tree.size(), &self.store);
                    Ok(())
                }
            };
        }
    }

    /// Makes a checkpoint of the log, if it is time for it; the last one when the server stops, so
    /// that all that was answered is in one.
    pub(super) fn publish(&mut self, is_last: bool) {
        if self.unsettled {
            return;
        }
        let now = self.told.as_ref().map(|told| told.now);
        match self.checkpoints.consider(&self.tree, &mut self.store, now, is_last) {
            Ok(Some(published)) => {
                tracing::debug!(size = published.head.size, "a checkpoint of the log was made");
                self.shared.published.send_replace(self.checkpoints.shown());
            }
            Ok(None) => {}
            Err(CommitError::Refused(error)) => {
                tracing::warn!(%error, "the store did not take a checkpoint of the log");
            }
            Err(CommitError::Unknown(error)) => {
                // It was shown to nobody. What the store holds is looked at before anything else.
                tracing::error!(%error, "the store does not say whether it took a checkpoint");
                self.unsettled = true;
            }
        }
    }

    /// Erases some of the personal values that were kept long enough, if any; says whether there is
    /// more to do.
    pub(super) fn retain(&mut self) -> bool {
        if self.unsettled {
            return false;
        }
        // A clock that has jumped makes nothing old.
        let high_water = self.ledger.now();
        let now = match self.options.clock {
            Clock::Events => high_water,
            Clock::System => Some(self.clock())
                .filter(|now| self.steady.take(*now).is_ok())
                .map_or(high_water, |now| now.max(high_water)),
        };
        match self.retention.consider(&mut self.store, self.tree.size(), now) {
            Ok(is_more) => return is_more,
            Err(RetainError::Read(error)) => {
                tracing::warn!(%error, "personal values past their age could not be erased");
            }
            Err(RetainError::Purge(error)) => {
                tracing::warn!(%error, "the write-ahead log was not emptied of what was erased");
            }
            Err(RetainError::Commit(CommitError::Refused(error))) => {
                tracing::warn!(%error, "the store did not erase personal values past their age");
            }
            Err(RetainError::Commit(CommitError::Unknown(error))) => {
                tracing::error!(%error, "the store does not say whether it erased values");
                self.unsettled = true;
            }
        }
        false
    }

    pub(super) fn shown(&self) -> Shown {
        self.shared.published.borrow().clone()
    }

    fn stage<'a>(&mut self, batch: &'a [Queued], too_long: &[usize]) -> Result<Staged<'a>, Abort> {
        let tick = match self.options.clock {
            Clock::System => Some(self.clock()),
            Clock::Events => None,
        };
        let mut stage = Stage {
            ledger: &mut self.ledger,
            store: &self.store,
            options: &self.options,
            name: &self.name,
            active: &self.active,
            steady: &mut self.steady,
        };
        stage.apply(batch, tick, too_long)
    }

    /// Signs what is to be signed, and makes leaves and hashes of everything.
    fn sign<'a>(&self, staged: Staged<'a>) -> Result<Signed<'a>, SignFailure> {
        let failed = |reason: String| SignFailure::Batch(Abort(reason));
        if self.store.faults().take(&[Fault::Sign]).is_some() {
            return Err(failed("a fault of the test".to_owned()));
        }
        let decisions: Vec<&Decision> = staged
            .drafts
            .iter()
            .filter_map(|draft| match draft {
                Draft::Decision(draft) => Some(&draft.decision),
                Draft::Leaf(_) | Draft::Order(..) => None,
            })
            .collect();
        let signatures = sign::sign_all(&self.signer, &decisions, self.signing_threads);
        let mut signatures = signatures.into_iter();
        let mut tree = self.tree.clone();
        let mut batch = Batch {
            first: tree.size(),
            first_hash: tree.row(),
            high_water: self.ledger.now(),
            ..Batch::default()
        };
        let mut tokens = Vec::with_capacity(staged.drafts.len());
        for draft in staged.drafts {
            let (leaf, command, token) = match draft {
                Draft::Leaf(leaf) => (leaf, None, None),
                Draft::Order(command, order) => {
                    let token = self.signer.sign_order(&order).map_err(|error| match error {
                        SignError::TooLong { .. } => SignFailure::TooLong(command),
                        error => failed(error.to_string()),
                    })?;
                    (log::leaf_of_order(*order, token), Some(command), None)
                }
                Draft::Decision(draft) => {
                    let token = match signatures.next() {
                        Some(Ok(token)) => token,
                        Some(Err(SignError::TooLong { .. })) => {
                            return Err(SignFailure::TooLong(draft.command));
                        }
                        Some(Err(error)) => return Err(failed(error.to_string())),
                        None => return Err(failed("a decision was not signed".to_owned())),
                    };
                    let event = Event::Decision { caller: draft.caller, token: token.clone() };
                    let leaf = log::leaf(draft.decision.iat, event);
                    (leaf, Some(draft.command), Some((draft.decision, token, draft.waived)))
                }
            };
            let bytes = match (log::leaf_bytes(&leaf), command) {
                (Some(bytes), _) => bytes,
                (None, Some(command)) => return Err(SignFailure::TooLong(command)),
                (None, None) => return Err(failed("a leaf is too long".to_owned())),
            };
            let hashes =
                log::append(&mut tree, &bytes).map_err(|error| failed(error.to_string()))?;
            batch.hashes.extend(hashes);
            batch.leaves.push(bytes);
            tokens.push(token);
        }
        if self.ledger.breaks(Defect::LeafWithoutHash) {
            batch.hashes.pop();
        }
        batch.erased = staged.erased.into_iter().collect();
        batch.records = staged.records;
        for record in &mut batch.records {
            record.position = record.position.saturating_add(batch.first);
        }
        Ok(Signed { batch, tree, answers: staged.answers, tokens, active: staged.active })
    }

    fn commit(&mut self, batch: &Batch<'_>) -> Committed {
        if batch.leaves.is_empty() {
            return Committed::Yes;
        }
        if self.store.faults().take(&[Fault::CrashBeforeCommit]).is_some() {
            return Committed::Crash;
        }
        let committed = match self.store.commit(batch) {
            Ok(()) => Committed::Yes,
            Err(_) if self.ledger.breaks(Defect::RefusedCommitAnswered) => Committed::Yes,
            Err(CommitError::Unknown(error))
                if self.ledger.breaks(Defect::UnknownTakenForFailed) =>
            {
                Committed::No(SequencerError::Unavailable { reason: error.to_string() })
            }
            Err(CommitError::Refused(error)) => {
                tracing::error!(%error, "the store did not take a batch");
                Committed::No(SequencerError::Unavailable { reason: error.to_string() })
            }
            Err(CommitError::Unknown(error)) => {
                tracing::error!(%error, "the store does not say whether it took a batch");
                self.look(batch)
            }
        };
        if matches!(committed, Committed::Yes)
            && self.store.faults().take(&[Fault::CrashAfterCommit]).is_some()
        {
            return Committed::Crash;
        }
        committed
    }

    /// After a commit of unknown outcome: opens the store again and looks whether the batch is
    /// there. Never guesses.
    fn look(&mut self, batch: &Batch<'_>) -> Committed {
        let found = match self.store.reopen() {
            Ok(()) => self.store.size(),
            Err(error) => {
                tracing::error!(%error, "the store cannot be opened again");
                self.unsettled = true;
                return Committed::No(SequencerError::OutcomeUnknown);
            }
        };
        let Ok(size) = found else {
            self.unsettled = true;
            return Committed::No(SequencerError::OutcomeUnknown);
        };
        if size == batch.first {
            let reason = "the commit failed".to_owned();
            return Committed::No(SequencerError::Unavailable { reason });
        }
        let mut leaves = Vec::new();
        let read = self.store.for_each_leaf(batch.first, |leaf| {
            leaves.push(leaf.to_vec());
            Ok::<(), crate::store::ReadError>(())
        });
        if read.is_ok() && leaves == batch.leaves {
            return Committed::Yes;
        }
        // Neither the batch nor nothing: the store is not what this thread knows. Fold it anew
        // before going on.
        self.unsettled = true;
        Committed::No(SequencerError::OutcomeUnknown)
    }

    /// Opens the store again and takes over what it holds, whatever became of the batch before.
    fn settle_store(&mut self) -> Result<(), SequencerError> {
        let unavailable = |error: &dyn std::error::Error| SequencerError::Unavailable {
            reason: error.to_string(),
        };
        self.store.reopen().map_err(|error| unavailable(&error))?;
        let folded = self.snapshots.fold(&self.store).map_err(|error| unavailable(&error))?;
        self.checkpoints.take_up(&self.store).map_err(|error| unavailable(&error))?;
        let (Some(bundle), Some(facts)) = (folded.bundle, folded.facts) else {
            let reason = "the log does not say what is active".to_owned();
            return Err(SequencerError::Unavailable { reason });
        };
        let quotas = folded.ledger.quotas().cloned().collect();
        self.ledger = folded.ledger;
        self.names = AccountNames::of(&self.ledger);
        self.tree = folded.tree;
        self.active = Activation { bundle, facts, quotas };
        self.unsettled = false;
        self.shared.published.send_replace(self.checkpoints.shown());
        // A batch of unknown outcome may be there after all.
        self.shared.grown_to(self.tree.size());
        self.shared.now_frozen(self.ledger.freezes());
        tracing::warn!("the store was opened again and its log folded");
        Ok(())
    }

    /// Makes a batch that is durable final in memory.
    fn keep(&mut self, tree: Tree, active: Option<Activation>) {
        self.ledger.keep();
        self.tree = tree;
        if let Some(active) = active {
            self.active = active;
            // The trees of quotas may have other accounts.
            self.names = AccountNames::of(&self.ledger);
        }
        self.shared.high_water.store(self.ledger.now(), Ordering::Release);
        self.shared.grown_to(self.tree.size());
        self.shared.now_frozen(self.ledger.freezes());
    }

    /// Adds the accounts of decisions that were kept to the names.
    fn note_accounts(&mut self, tokens: &[Option<SignedDraft>]) {
        let decisions = tokens.iter().flatten().map(|(decision, ..)| decision);
        for grant in decisions.filter_map(|decision| decision.reservation.as_ref()) {
            self.names.note(&self.ledger, &grant.charges);
        }
    }

    fn answer(
        &self,
        batch: Vec<Queued>,
        answers: Vec<Answer>,
        tokens: &[Option<SignedDraft>],
        first: u64,
    ) {
        for (queued, answer) in batch.into_iter().zip(answers) {
            let result = match answer {
                Answer::Firm(result) | Answer::OnCommit(result) => result,
                Answer::Decisions(drafts) => {
                    let decided = |draft: usize| {
                        let (decision, token, waived) = tokens
                            .get(draft)
                            .and_then(Option::as_ref)
                            .expect("a decision that was staged was signed");
                        let draft = u64::try_from(draft).expect("a batch is far smaller than 2^64");
                        let position = first.saturating_add(draft);
                        decided(decision, token.clone(), position, waived.clone())
                    };
                    Ok(Reply::Decided(drafts.into_iter().map(decided).collect()))
                }
                Answer::Snapshot => Ok(Reply::Inspected(Box::new(self.snapshot()))),
                Answer::Report => self.report(&queued.command),
                Answer::Purge => match self.store.purge() {
                    Ok(purged) => Ok(Reply::Purged(purged)),
                    Err(error) => Err(SequencerError::Unavailable { reason: error.to_string() }),
                },
            };
            send(queued, result);
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            high_water: self.ledger.now(),
            head: self.tree.head(),
            ledger: self.ledger.state_digest(),
            live: self.ledger.live(),
            usage: self.ledger.usages(),
        }
    }
}

/// Answers a batch that was not carried out. What is firm holds all the same.
fn answer_all(batch: Vec<Queued>, answers: Vec<Answer>, error: &SequencerError) {
    let mut answers = answers.into_iter();
    for queued in batch {
        let result = match answers.next() {
            Some(Answer::Firm(result)) => result,
            Some(
                Answer::OnCommit(_)
                | Answer::Decisions(_)
                | Answer::Snapshot
                | Answer::Report
                | Answer::Purge,
            )
            | None => Err(error.clone()),
        };
        send(queued, result);
    }
}

fn send(queued: Queued, result: Result<Reply, SequencerError>) {
    // Whoever asked may have gone: what was decided is durable and will be found when asked again.
    drop(queued.answer.send(result));
}

/// Tells that the thread has ended, however it ends.
struct Alive<'a>(&'a Shared);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
    }
}
