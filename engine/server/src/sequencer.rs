//! The only writer: it puts everything that happens into one order and makes it durable before
//! anybody hears of it.
//!
//! Commands wait in a bounded queue; a thread of its own takes what is there, applies it to the
//! ledger in order, signs, appends to the log, commits once, and only then answers. What could not
//! be committed is taken back in the ledger.

mod checkpoints;
mod decide;
mod published;
mod report;
mod retention;
mod sign;
mod snapshots;
mod stage;
mod stepper;
mod tried;
mod writer;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};

use placet_core::{
    AccountKind, AccountPath, AdmissionRequest, Code, CosignatureError, Digest, Effect,
    FreezeClaims, Id, Outcome, Reason, ReservationState, ThawClaims, Unit, Waived,
};
use placet_policy::{FreezeGrant, Waiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::clock::Clock;
use crate::log::Files;
pub use crate::log::{Activation, Head, LogError};
use crate::quota::{Accounts, Due, Filter};
pub use crate::quota::{Freeze, FreezeError, Freezes, SettleError};
use crate::signer::Signer;
pub use crate::store::Personal;
use crate::store::{self, CheckpointOptions, Reader, StoreOptions};
pub use published::Published;
pub(crate) use published::Shown;
pub use report::{ReservationsReport, UsageReport};
pub use stepper::{Step, Stepper};

/// Commands that may wait. Past it callers wait: a longer queue would only make every answer late.
pub const QUEUE: usize = 4_096;
/// Most commands of one commit: enough to share one sync of the disk among many, few enough for a
/// short wait.
pub const MAX_BATCH: usize = 256;
/// Most decisions whose personal values one command erases: some ten milliseconds, which whoever
/// asks meanwhile has to wait.
pub const MAX_ERASED: usize = 2_048;
/// Seconds by which the time of a command may be behind that of an earlier one, under the system's
/// clock. Threads overtake one another by milliseconds and clocks are adjusted by little; more is a
/// clock that cannot be trusted.
pub const MAX_BACKWARD_SECONDS: u64 = 60;
/// Seconds for which a denial may be relied on: the state of the ledger may be another after it.
pub const DENIAL_SECONDS: u64 = 300;

/// What the sequencer is told at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// `aud` of every decision.
    pub audience: Vec<String>,
    /// Where time comes from. Time of events must never go back; the system's may, by
    /// [`MAX_BACKWARD_SECONDS`].
    pub clock: Clock,
    /// Seconds from its start on within which a reservation must be confirmed; at most its own
    /// length counts.
    pub confirm_within_seconds: u64,
    /// `iss` of every decision, and the origin of the log.
    pub issuer: String,
}

/// One GPU model that the request accepts, evaluated.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which model.
    pub gpu_model: Id,
    /// The facts' kind, unit and limit of the account of each of the outcome's claims, in the same
    /// order; `None` for an account that the facts do not know.
    pub limits: Vec<Option<(AccountKind, Unit, u64)>>,
    /// What the policies say.
    pub outcome: Outcome,
}

/// A request with everything that deciding it takes, the ledger apart.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The bundle that evaluated it.
    pub bundle: Digest,
    /// Who asks.
    pub caller: Id,
    /// Candidates in the order of preference; empty if the request could not be resolved.
    pub candidates: Vec<Candidate>,
    /// Canonical evaluation.
    pub evaluation: Vec<u8>,
    /// The facts that resolved it.
    pub facts: Digest,
    /// Canonical input; absent if the request could not be resolved.
    pub input: Option<Vec<u8>>,
    /// Personal values, each path once.
    pub personal: Vec<Personal>,
    /// Why the request could not be resolved; empty if there are candidates.
    pub rejected: Vec<Reason>,
    /// What is asked.
    pub request: AdmissionRequest,
    /// Of the canonical request.
    pub request_digest: Digest,
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// The waivers that the request brings, each found good for it, and the state of the approvers
    /// that said so; empty if it brings none.
    pub waivers: Vec<Waiver>,
    /// The approvers against whom waivers were checked; it matters only if the request brings some.
    pub approvers: Digest,
}

/// A decision, durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The signed decision: the very bytes of the log.
    pub token: String,
    /// Its effect.
    pub effect: Effect,
    /// Its place in the log, from 0.
    pub position: u64,
    /// Codes of its reasons; empty if permitted.
    pub codes: Vec<Code>,
    /// What waivers lifted for it; empty too if this answers a retry, which uses none.
    pub waived: Vec<Waived>,
}

/// What an approver orders, found good: who may, and for this deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freezing {
    /// Freeze a scope.
    Freeze(FreezeClaims),
    /// Lift a freeze, which has to be within what the approver may.
    Thaw(ThawClaims, FreezeGrant),
}

impl Freezing {
    /// Name of the freeze.
    #[must_use]
    pub fn name(&self) -> &Id {
        match self {
            Self::Freeze(claims) => &claims.jti,
            Self::Thaw(claims, _) => &claims.jti,
        }
    }
}

/// A freeze or a thaw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeOrder {
    /// What is ordered.
    pub order: Freezing,
    /// As it was signed.
    pub token: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
}

/// What to do with a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettleKind {
    /// Make it active.
    Confirm,
    /// End it.
    Release,
}

/// Names a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By its own name.
    ById(Id),
    /// By the request, of the same caller, that was answered with it.
    ByRequest(Id),
}

/// A confirm or a release.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which of them.
    pub kind: SettleKind,
    /// Who asks: must be who asked for the reservation.
    pub caller: Id,
    /// Who holds the reservation.
    pub tenant: Id,
    /// Which reservation.
    pub target: Target,
    /// The epoch in which the caller believes it to be.
    pub epoch: u64,
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
}

/// An erasure of personal values, as part of one that is asked for.
#[derive(Debug, Clone)]
pub struct Erase {
    /// Who asks.
    pub caller: Id,
    /// Positions of decisions, at most [`MAX_ERASED`].
    pub positions: Vec<u64>,
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
}

/// What became of a reservation, durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which; absent if the named request was denied, so that there is none.
    pub reservation: Option<Id>,
    /// Where it stands; absent with it.
    pub state: Option<ReservationState>,
    /// Its current epoch; 0 without one.
    pub epoch: u64,
    /// When the state was reached, or the request denied.
    pub time: u64,
    /// GPU-seconds given back.
    pub refunded_gpu_seconds: u64,
}

/// The state after a batch, for audits and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The time up to which everything due has been done.
    pub high_water: u64,
    /// The log.
    pub head: Head,
    /// Digest of the ledger: equal for ledgers that behave alike.
    pub ledger: Digest,
    /// Reservations that are held.
    pub live: usize,
    /// Use of every account now, in the order of their paths.
    pub usage: Vec<(AccountPath, AccountKind, u64)>,
}

/// What witnesses signed, to be added to a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigning {
    /// How many checkpoints were made before it.
    pub number: u64,
    /// Lines of known witnesses on it, without line breaks.
    pub lines: Vec<String>,
}

/// A checkpoint with what was added, durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// Leaves that it counts.
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// Whose cosignatures are new.
    pub added: Vec<String>,
}

/// Why a command was not carried out. It is a failure, never a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SequencerError {
    /// The caller used the request id for another request before.
    #[error(
        "the request id `{request_id}` was used for another request\n\
         hint: a new attempt takes a new id; a retry repeats the request unchanged"
    )]
    RequestIdReused {
        /// The id.
        request_id: Id,
    },
    /// The time is before that of what has been decided.
    #[error(
        "the time {time} is before {high_water}, up to which everything was decided\n\
         hint: set the clock, or send events in the order of their times"
    )]
    ClockWentBack {
        /// Time of the command.
        time: u64,
        /// The latest time of an earlier one.
        high_water: u64,
    },
    /// The system's clock is far ahead of where it was, and of the time since then.
    #[error(
        "the time {time} is more than {} seconds ahead of {expected}, which it should be\n\
         hint: set the clock; if it is right, restart the server",
        crate::clock::MAX_FORWARD_SECONDS
    )]
    ClockJumped {
        /// Time of the command.
        time: u64,
        /// What it should be, by a clock that nobody sets.
        expected: u64,
    },
    /// The answer was to include a leaf that the log does not have.
    #[error(
        "the position {at_least} is not in this log, which has {size} leaves\n\
         hint: ask the server that gave the position; a store that was restored may have lost it"
    )]
    PositionAhead {
        /// What was asked for.
        at_least: u64,
        /// Leaves of the log.
        size: u64,
    },
    /// The time is after the year 9999.
    #[error("the time {time} is after the year 9999")]
    TimeOutOfRange {
        /// Time of the command.
        time: u64,
    },
    /// Bundle or facts were replaced while the request was evaluated.
    #[error("the policies or facts were replaced meanwhile\nhint: evaluate the request again")]
    Superseded,
    /// The evaluation cannot be turned into a decision.
    #[error("the evaluation {0}")]
    Malformed(&'static str),
    /// The signed decision would be longer than an entry of the log can be.
    #[error(
        "the decision would be longer than 65,535 bytes\n\
         hint: policies should give fewer or shorter reasons, warnings and obligations"
    )]
    TooLong,
    /// The reservation cannot be settled like this.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// Nothing can be frozen or thawed like this.
    #[error("the order cannot be carried out: {0}")]
    Freeze(FreezeError),
    /// The freeze covers more than who wants to lift it may.
    #[error("the freeze `{name}` covers more than its approver may lift")]
    FreezeOverBroad {
        /// Name of the freeze.
        name: Id,
    },
    /// The cosignatures cannot be added.
    #[error("the checkpoint {0}")]
    Cosign(#[source] CosignatureError),
    /// The queue is full.
    #[error("too many requests wait\nhint: try again shortly")]
    Overloaded,
    /// The batch could not be signed or stored: nothing of it is.
    #[error("nothing was stored: {reason}\nhint: try again with the same request id")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The store does not say whether the batch is stored.
    #[error("it is not known whether it was stored\nhint: try again with the same request id")]
    OutcomeUnknown,
    /// The server is stopping, or has stopped before it answered.
    #[error("the server is stopping\nhint: try again with the same request id")]
    Stopped,
}

/// Why the sequencer did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(store::OpenError),
    /// The log cannot be carried on.
    #[error(transparent)]
    Log(LogError),
    /// The first batch, that of the activation, could not be committed.
    #[error("the store cannot be written")]
    First(#[source] SequencerError),
    /// The system gives no thread.
    #[error("the writer's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// What can be asked of the writer.
#[derive(Debug)]
enum Command {
    /// What is admitted together or not at all: one request, or the members of a gang.
    Propose(Vec<(Proposal, Evidence)>),
    Probe(Box<Proposal>),
    Settle(Settle),
    Activate(Activation, u64),
    Freeze(Box<FreezeOrder>),
    Erase(Erase),
    Purge,
    /// Not a part of the batch: it changes neither the log nor the ledger.
    Cosign(Cosigning),
    Inspect,
    Usage(Accounts, Option<u64>),
    Reservations(Filter, Option<Due>, usize, Option<u64>),
    Close,
}

/// Digests that the caller's thread works out, to spare the writer's.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    input: Option<Digest>,
    evaluation: Digest,
}

/// What a command is answered with, in kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A proposal, or the members of a gang in their order.
    Decided(Vec<Decided>),
    /// A probe: the effect, and every denial.
    Probed(Effect, Vec<Reason>),
    /// A confirm or a release.
    Settled(Settled),
    /// An activation.
    Activated,
    /// A freeze that stands now, or that was lifted.
    Frozen(Box<Freeze>),
    /// An erasure: of how many decisions values were kept until now.
    Erased(u64),
    /// Whether nothing of what was erased is left in the write-ahead log.
    Purged(bool),
    /// Cosignatures.
    Cosigned(Cosigned),
    /// A question for the state.
    Inspected(Box<Snapshot>),
    /// A question for a page of accounts.
    Usage(Box<UsageReport>),
    /// A question for a page of reservations.
    Reservations(Box<ReservationsReport>),
}

/// A command on its way. Dropping it unanswered tells the caller that the sequencer has stopped.
#[derive(Debug)]
struct Queued {
    command: Command,
    answer: oneshot::Sender<Result<Reply, SequencerError>>,
    /// Its place in the queue, given back with the answer.
    _place: Option<OwnedSemaphorePermit>,
}

/// What the writer's thread tells the others.
#[derive(Debug, Default)]
struct Shared {
    alive: AtomicBool,
    high_water: AtomicU64,
    /// Leaves of the log that are durable.
    size: watch::Sender<u64>,
    /// Checkpoints that may be shown; none if none is made.
    published: watch::Sender<Shown>,
    /// The freezes that stand, durable.
    freezes: watch::Sender<Arc<Freezes>>,
}

impl Shared {
    /// Tells whoever reads along how many leaves are durable; waits for nobody.
    fn grown_to(&self, size: u64) {
        self.size.send_if_modified(|known| std::mem::replace(known, size) != size);
    }
}

impl Shared {
    /// Tells which freezes stand.
    fn now_frozen(&self, freezes: &Arc<Freezes>) {
        self.freezes.send_if_modified(|known| {
            let is_same = Arc::ptr_eq(known, freezes);
            known.clone_from(freezes);
            !is_same
        });
    }
}

/// What whoever reads the log behind the writer is told.
#[derive(Debug, Clone)]
pub(crate) struct LogNews {
    /// How many leaves are durable, and can be read.
    pub(crate) size: watch::Receiver<u64>,
    /// Whether there will be no more.
    pub(crate) ended: watch::Receiver<bool>,
}

/// The way to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SequencerHandle {
    queue: mpsc::Sender<Queued>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
    reader: Reader,
    checkpoints: Option<CheckpointOptions>,
    ended: watch::Receiver<bool>,
}

/// An answer that comes when what it says is durable.
#[derive(Debug)]
pub struct Pending<T> {
    answer: oneshot::Receiver<Result<Reply, SequencerError>>,
    take: fn(Reply) -> Option<T>,
}

impl<T> Future for Pending<T> {
    type Output = Result<T, SequencerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let take = self.take;
        Pin::new(&mut self.answer).poll(context).map(|answered| match answered {
            Ok(Ok(reply)) => Ok(take(reply).expect("a command is answered in kind")),
            Ok(Err(error)) => Err(error),
            Err(_dropped) => Err(SequencerError::Stopped),
        })
    }
}

impl SequencerHandle {
    /// Opens a store, or makes one, checks its log, and starts the writer's thread. Blocks.
    ///
    /// The activation is logged if bundle or facts are not those of the log's last activation.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn start(
        path: &Path,
        options: Options,
        signer: Signer,
        activation: Activation,
    ) -> Result<Self, OpenError> {
        Self::start_with(path, options, StoreOptions::default(), signer, activation)
    }

    /// The same with special settings of the store.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn start_with(
        path: &Path,
        options: Options,
        store: StoreOptions,
        signer: Signer,
        activation: Activation,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::default());
        let checkpoints = store.checkpoints.clone();
        let told = None;
        let writer = writer::Writer::open(
            path,
            options,
            store,
            signer,
            activation,
            Arc::clone(&shared),
            told,
        )?;
        let reader = writer.reader();
        let (queue, commands) = mpsc::channel();
        let (end, ended) = watch::channel(false);
        shared.alive.store(true, Ordering::Release);
        let thread = std::thread::Builder::new().name("sequencer".to_owned());
        // Nobody joins the thread: that it has ended, and closed the store, is told by `end`.
        drop(thread.spawn(move || writer.run(&commands, end)).map_err(OpenError::Thread)?);
        let places = Arc::new(Semaphore::new(QUEUE));
        Ok(Self { queue, places, shared, reader, checkpoints, ended })
    }

    /// Puts an evaluated request in the order; waits while the queue is full.
    ///
    /// # Errors
    /// `Stopped`. Others come with the answer.
    pub async fn propose(
        &self,
        proposal: Box<Proposal>,
    ) -> Result<Pending<Decided>, SequencerError> {
        let place = self.place().await?;
        self.send(propose(vec![*proposal]), Some(place), take_decided)
    }

    /// Waits for a place in the queue.
    async fn place(&self) -> Result<OwnedSemaphorePermit, SequencerError> {
        self.places(1).await
    }

    /// Waits for as many places in the queue as there are decisions to be made together.
    pub(crate) async fn places(
        &self,
        count: usize,
    ) -> Result<OwnedSemaphorePermit, SequencerError> {
        // More than there are would never come.
        let count = u32::try_from(count.min(QUEUE)).unwrap_or(u32::MAX);
        let places = Arc::clone(&self.places).acquire_many_owned(count).await;
        places.map_err(|_closed| SequencerError::Stopped)
    }

    /// Puts evaluated requests in the order at once: whoever calls it knows what comes before it.
    pub(crate) fn propose_at(
        &self,
        place: OwnedSemaphorePermit,
        proposals: Vec<Proposal>,
    ) -> Result<Pending<Vec<Decided>>, SequencerError> {
        self.send(propose(proposals), Some(place), take_all)
    }

    /// Puts evaluated requests in the order that are admitted together or not at all; waits while
    /// the queue is full. Their digests have to tell that they belong together
    /// ([`AdmissionRequest::gang`]).
    ///
    /// # Errors
    /// `Stopped`. Others come with the answer.
    pub async fn propose_gang(
        &self,
        proposals: Vec<Proposal>,
    ) -> Result<Pending<Vec<Decided>>, SequencerError> {
        let places = self.places(proposals.len()).await?;
        self.propose_at(places, proposals)
    }

    /// The same, but fails at once if the queue is full.
    ///
    /// # Errors
    /// `Overloaded` or `Stopped`.
    pub fn try_propose(&self, proposal: Box<Proposal>) -> Result<Pending<Decided>, SequencerError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|error| match error {
            tokio::sync::TryAcquireError::Closed => SequencerError::Stopped,
            tokio::sync::TryAcquireError::NoPermits => SequencerError::Overloaded,
        })?;
        self.send(propose(vec![*proposal]), Some(place), take_decided)
    }

    /// Puts a confirm or a release in the order; waits while the queue is full.
    ///
    /// # Errors
    /// `Stopped`. Others come with the answer.
    pub async fn settle(&self, settle: Settle) -> Result<Pending<Settled>, SequencerError> {
        let take = |reply| match reply {
            Reply::Settled(settled) => Some(settled),
            _ => None,
        };
        self.submit(Command::Settle(settle), take).await
    }

    /// What would be decided now: the effect and the denials. Changes nothing, and forgets that it
    /// was asked.
    ///
    /// # Errors
    /// [`SequencerError`].
    pub async fn probe(
        &self,
        proposal: Box<Proposal>,
    ) -> Result<(Effect, Vec<Reason>), SequencerError> {
        let take = |reply| match reply {
            Reply::Probed(effect, reasons) => Some((effect, reasons)),
            _ => None,
        };
        self.submit(Command::Probe(proposal), take).await?.await
    }

    /// Logs that a bundle or facts became active; proposals made with others are refused from here
    /// on.
    ///
    /// # Errors
    /// [`SequencerError`].
    pub async fn activate(&self, activation: Activation, time: u64) -> Result<(), SequencerError> {
        let take = |reply| matches!(reply, Reply::Activated).then_some(());
        self.submit(Command::Activate(activation, time), take).await?.await
    }

    /// Freezes or thaws; gives the freeze that stands now, or that was lifted.
    ///
    /// # Errors
    /// [`SequencerError`].
    pub async fn freeze(&self, order: FreezeOrder) -> Result<Freeze, SequencerError> {
        let take = |reply| match reply {
            Reply::Frozen(freeze) => Some(*freeze),
            _ => None,
        };
        self.submit(Command::Freeze(Box::new(order)), take).await?.await
    }

    /// The freezes that stand, as far as they are durable.
    #[must_use]
    pub fn freezes(&self) -> Arc<Freezes> {
        Arc::clone(&self.shared.freezes.borrow())
    }

    /// Erases personal values and logs that it was asked for: of how many decisions there were any.
    ///
    /// # Errors
    /// [`SequencerError`]: nothing of it was erased, unless the outcome is unknown.
    pub async fn erase(&self, erase: Erase) -> Result<u64, SequencerError> {
        let take = |reply| match reply {
            Reply::Erased(decisions) => Some(decisions),
            _ => None,
        };
        self.submit(Command::Erase(erase), take).await?.await
    }

    /// Empties the write-ahead log, which has what was erased: false if somebody reads by it. The
    /// writer then does it as soon as nobody does.
    ///
    /// # Errors
    /// [`SequencerError`].
    pub async fn purge(&self) -> Result<bool, SequencerError> {
        let take = |reply| match reply {
            Reply::Purged(purged) => Some(purged),
            _ => None,
        };
        self.submit(Command::Purge, take).await?.await
    }

    /// Adds cosignatures to a checkpoint, those of witnesses that have none there.
    ///
    /// # Errors
    /// [`SequencerError`].
    pub async fn cosign(&self, cosigning: Cosigning) -> Result<Cosigned, SequencerError> {
        let take = |reply| match reply {
            Reply::Cosigned(cosigned) => Some(cosigned),
            _ => None,
        };
        self.submit(Command::Cosign(cosigning), take).await?.await
    }

    /// The state after everything that was put in the order before.
    ///
    /// # Errors
    /// [`SequencerError`].
    pub async fn inspect(&self) -> Result<Snapshot, SequencerError> {
        let take = |reply| match reply {
            Reply::Inspected(snapshot) => Some(*snapshot),
            _ => None,
        };
        self.submit(Command::Inspect, take).await?.await
    }

    /// A page of accounts and their use, after everything that was put in the order before; of a
    /// log that has a leaf at position `at_least`, if that is given.
    ///
    /// # Errors
    /// `PositionAhead`, or [`SequencerError`].
    pub async fn usage(
        &self,
        accounts: Accounts,
        at_least: Option<u64>,
    ) -> Result<UsageReport, SequencerError> {
        let take = |reply| match reply {
            Reply::Usage(report) => Some(*report),
            _ => None,
        };
        self.submit(Command::Usage(accounts, at_least), take).await?.await
    }

    /// A page of reservations that fit a filter, behind a place in the order in which they end by
    /// themselves; otherwise as [`SequencerHandle::usage`].
    ///
    /// # Errors
    /// `PositionAhead`, or [`SequencerError`].
    pub async fn reservations(
        &self,
        filter: Filter,
        after: Option<Due>,
        most: usize,
        at_least: Option<u64>,
    ) -> Result<ReservationsReport, SequencerError> {
        let take = |reply| match reply {
            Reply::Reservations(report) => Some(*report),
            _ => None,
        };
        self.submit(Command::Reservations(filter, after, most, at_least), take).await?.await
    }

    /// The time up to which everything due has been done, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn high_water(&self) -> u64 {
        self.shared.high_water.load(Ordering::Acquire)
    }

    /// Leaves of the log that are durable.
    #[must_use]
    pub fn size(&self) -> u64 {
        *self.shared.size.borrow()
    }

    /// Tells of every commit that makes the log longer.
    #[must_use]
    pub(crate) fn news(&self) -> LogNews {
        LogNews { size: self.shared.size.subscribe(), ended: self.ended.clone() }
    }

    /// The newest checkpoint; none if none is made.
    #[must_use]
    pub fn published(&self) -> Option<Arc<Published>> {
        self.shared.published.borrow().newest()
    }

    /// How checkpoints are made, and whose cosignatures they are given; none if none are made.
    #[must_use]
    pub(crate) fn checkpoints(&self) -> Option<&CheckpointOptions> {
        self.checkpoints.as_ref()
    }

    /// The log as static files.
    #[must_use]
    pub(crate) fn files(&self) -> Files {
        Files::new(self.reader(), self.shared.published.subscribe())
    }

    /// Whether the writer's thread runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire)
    }

    /// For look-ups that need no place in the order.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Takes no more commands, answers those that wait, and closes the store.
    pub async fn close(&self) {
        self.places.close();
        // If nobody takes the command, or answers it, the thread has ended: that is what is waited
        // for below.
        drop(self.send(Command::Close, None, |_| Some(())));
        let mut ended = self.ended.clone();
        // A sender that is gone means the same as one that says so.
        drop(ended.wait_for(|ended| *ended).await);
    }

    async fn submit<T>(
        &self,
        command: Command,
        take: fn(Reply) -> Option<T>,
    ) -> Result<Pending<T>, SequencerError> {
        let place = self.place().await?;
        self.send(command, Some(place), take)
    }

    fn send<T>(
        &self,
        command: Command,
        place: Option<OwnedSemaphorePermit>,
        take: fn(Reply) -> Option<T>,
    ) -> Result<Pending<T>, SequencerError> {
        let (sender, answer) = oneshot::channel();
        let queued = Queued { command, answer: sender, _place: place };
        self.queue.send(queued).map_err(|_ended| SequencerError::Stopped)?;
        Ok(Pending { answer, take })
    }
}

impl Command {
    /// What it is of a batch, in decisions.
    fn weight(&self) -> usize {
        match self {
            Self::Propose(members) => members.len(),
            // One a batch: it takes as long as a whole one of decisions.
            Self::Erase(_) => MAX_BATCH,
            // Up to a hundred signatures are verified, twice.
            Self::Cosign(_) => MAX_BATCH / 16,
            _ => 1,
        }
    }
}

fn propose(proposals: Vec<Proposal>) -> Command {
    let evident = |proposal: Proposal| {
        let input = proposal.input.as_deref().map(Digest::of);
        let evidence = Evidence { input, evaluation: Digest::of(&proposal.evaluation) };
        (proposal, evidence)
    };
    Command::Propose(proposals.into_iter().map(evident).collect())
}

fn take_decided(reply: Reply) -> Option<Decided> {
    take_all(reply)?.pop()
}

fn take_all(reply: Reply) -> Option<Vec<Decided>> {
    match reply {
        Reply::Decided(decided) => Some(decided),
        _ => None,
    }
}
