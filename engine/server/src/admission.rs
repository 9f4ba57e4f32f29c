//! The pipeline as one value: resolve and evaluate on the workers, then the sequencer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use placet_core::{AdmissionRequest, Digest, Effect, Id, Reason, canonical_json};
use placet_policy::{Approvers, LoadError, WasmRuntime};
use tokio::sync::{Mutex, OwnedSemaphorePermit, oneshot, watch};

use crate::activation::{
    ActivateError, ActiveSource, Attempt, Attempts, Loader, RefuseError, Source, chain, told,
};
use crate::clock::Clock;
use crate::erase::{self, Erased, Person};
use crate::error::AdmitError;
use crate::grpc::convert::SettleRequest;
use crate::log::Files;
use crate::metrics::{MAX_ACCOUNT_SERIES, Metrics, Stage, Stopwatch};
use crate::quota::{AccountUse, Accounts, Due, Filter};
use crate::sequencer::{
    Cosigned, Cosigning, Decided, Freeze, FreezeOrder, Freezes, Freezing, LogNews, Options,
    Pending, Proposal, ReservationsReport, SequencerError, SequencerHandle, Settle, SettleKind,
    Settled, UsageReport,
};
use crate::settings::Settings;
use crate::signer::{CheckpointSigner, Signer, SignerError};
use crate::store::{CheckpointOptions, Reader, StoreOptions};
use crate::workers::{Active, Workers};

/// How often an activation of unknown outcome is asked for again before it is given up.
const ACTIVATE_TRIES: usize = 3;
/// How often a request is evaluated to explain it, if what is active is replaced each time.
const EXPLAIN_TRIES: usize = 8;
/// Between two attempts to bring the log to what is active here: doubled from the first up to the
/// last.
const AGREE_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How old what the metrics say of the accounts may be: scrapes that come faster see the same.
const ACCOUNTS_FRESH: Duration = Duration::from_secs(1);
/// How long metrics wait for the ledger. Without its answer they go without the accounts: when the
/// store hangs, the rest is what one wants to see.
const ACCOUNTS_WAIT: Duration = Duration::from_secs(2);

/// The decision point: cheap to clone, and every clone is the same one.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    attempts: Attempts,
    clock: Clock,
    /// Looked at for moments only: nobody waits with it in hand, since whoever waits may not be
    /// polled for long.
    gate: watch::Sender<Gate>,
    signer: Signer,
    /// One activation at a time.
    loader: Mutex<Loader>,
    /// One look at the ledger at a time: however many ask, a batch has one page to work out.
    look: Mutex<()>,
    metrics: Arc<Metrics>,
    /// One scrape at a time, and when the accounts were last brought up to date for one.
    scrape: Mutex<Option<Stopwatch>>,
    sequencer: SequencerHandle,
    workers: Workers,
}

/// What stands between evaluating and the order.
#[derive(Debug)]
struct Gate {
    /// What requests are evaluated with.
    active: Arc<Active>,
    /// Whether another one is being logged: nothing is put in the order meanwhile.
    held: bool,
    /// Whether the log may name as active what is not active here: the store failed in between.
    doubtful: bool,
}

/// Holds the gate until it is dropped, whatever happens.
struct Held<'a>(&'a watch::Sender<Gate>);

impl<'a> Held<'a> {
    fn new(gate: &'a watch::Sender<Gate>) -> Self {
        gate.send_modify(|gate| gate.held = true);
        Self(gate)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|gate| gate.held = false);
    }
}

/// What became of a proposal at the gate.
enum Offered {
    /// It has its place in the order.
    Placed(Pending<Vec<Decided>>),
    /// It has to wait until the gate opens.
    Held(Vec<Proposal>),
    /// It has to be evaluated again, with this.
    Outdated(Vec<Proposal>, Arc<Active>),
}

/// What has been evaluated, ready to take its place in the order: one request, or a gang.
#[derive(Debug)]
pub struct Prepared(Vec<Proposal>);

/// What would be decided now.
#[derive(Debug)]
pub struct Explained {
    /// The outcome, ledger included.
    pub effect: Effect,
    /// The canonical input; empty if the request could not be resolved to one.
    pub input: String,
    /// The canonical evaluation.
    pub evaluation: String,
    /// The denials that stand, as a JSON array.
    pub reasons: String,
}

/// Why the decision point cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The bundle is missing or wrong.
    #[error("the bundle `{path}` cannot be served")]
    Bundle {
        /// Its directory or archive.
        path: String,
        /// Why.
        source: RefuseError,
    },
    /// The facts are missing or wrong.
    #[error("the facts `{path}` cannot be served")]
    Facts {
        /// Their file.
        path: String,
        /// Why.
        source: RefuseError,
    },
    /// The approvers' file is missing or wrong.
    #[error("the approvers in `{path}` cannot be served")]
    Approvers {
        /// Their file.
        path: String,
        /// Why.
        source: RefuseError,
    },
    /// The engine of components does not start, or its cache is not to be trusted.
    #[error("the engine of WebAssembly components cannot be started")]
    Engine(#[source] LoadError),
    /// The keys are missing, readable by others, or wrong.
    #[error("the signing keys in `{path}` cannot be used")]
    Keys {
        /// Their directory.
        path: String,
        /// Why.
        source: SignerError,
    },
    /// The store is foreign, held by another process, or damaged.
    #[error("the store `{path}` cannot be opened")]
    Store {
        /// Its file.
        path: String,
        /// Why.
        source: crate::sequencer::OpenError,
    },
    /// The system gives no threads.
    #[error("the threads that evaluate cannot be started")]
    Threads(#[source] std::io::Error),
}

impl Admission {
    /// Opens bundle, facts, keys and store, in this order: what is cheap to get wrong is checked
    /// first, and the store is touched last. Blocks; may take seconds.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let path = |path: &std::path::Path| path.display().to_string();
        let watch = Stopwatch::start();
        // Told before anything is made: the cache is a directory beside the store.
        std::fs::metadata(&settings.bundle).map_err(|source| {
            let missing = LoadError::Read { path: settings.bundle.clone(), source };
            OpenError::Bundle { path: path(&settings.bundle), source: missing.into() }
        })?;
        let runtime = runtime(settings).map_err(OpenError::Engine)?;
        let loader = Loader::new(settings, runtime);
        let (policies, cases) = loader
            .bundle(None, None)
            .map_err(|source| OpenError::Bundle { path: path(&settings.bundle), source })?;
        let facts = loader
            .facts(None, None)
            .map_err(|source| OpenError::Facts { path: path(&settings.facts), source })?;
        let approvers = approvers(&loader)?;
        let took = watch.elapsed();
        let active = Arc::new(Active { policies, facts, approvers });
        let signer = Signer::open(&settings.keys)
            .map_err(|source| OpenError::Keys { path: path(&settings.keys), source })?;
        let checkpoints = checkpoints(settings, &signer)
            .map_err(|source| OpenError::Keys { path: path(&settings.keys), source })?;
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let options = Options {
            audience: settings.audience.clone(),
            clock: settings.clock,
            confirm_within_seconds: settings.confirm_within_seconds,
            issuer: settings.issuer.clone(),
        };
        let workers = Workers::start(settings.workers, &metrics).map_err(OpenError::Threads)?;
        let snapshot_every = settings.snapshot_every;
        let personal_for_seconds = settings.personal_for_seconds;
        let store = StoreOptions {
            checkpoints,
            snapshot_every,
            personal_for_seconds,
            ..StoreOptions::default()
        };
        let names = active.names();
        let sequencer =
            SequencerHandle::start_with(&settings.store, options, store, signer.clone(), names)
                .map_err(|source| OpenError::Store { path: path(&settings.store), source })?;
        let (clock, attempts) = (settings.clock, Attempts::default());
        for source in Source::ALL {
            let cases = if source == Source::Bundle { cases } else { 0 };
            let time = Clock::now();
            attempts.note(source, Attempt { time, changed: true, error: None, took, cases });
            let (digest, revision) = active.name(source);
            metrics.activated(source.as_str(), &digest.to_string(), revision);
        }
        let gate = watch::Sender::new(Gate { active, held: false, doubtful: false });
        Ok(Self(Arc::new(Inner {
            attempts,
            clock,
            gate,
            signer,
            loader: Mutex::new(loader),
            look: Mutex::new(()),
            metrics,
            scrape: Mutex::new(None),
            sequencer,
            workers,
        })))
    }

    /// The log as static files.
    pub(crate) fn files(&self) -> Files {
        self.0.sequencer.files()
    }

    /// How checkpoints are made, and whose cosignatures they are given; none if none are made.
    pub(crate) fn checkpoints(&self) -> Option<&CheckpointOptions> {
        self.0.sequencer.checkpoints()
    }

    /// Adds cosignatures to a checkpoint: those of witnesses that have none there.
    ///
    /// # Errors
    /// [`AdmitError`]: nothing of it is stored, unless it says that this is not known.
    pub(crate) async fn cosign(&self, cosigning: Cosigning) -> Result<Cosigned, AdmitError> {
        self.0.sequencer.cosign(cosigning).await.map_err(not_cosigned)
    }

    /// Reads sources again and makes them active in one step, if all of them are good; what has not
    /// changed stays as it is. Requests are decided all the while.
    ///
    /// `expected` is the digest that the sources must have. What has begun is carried through even
    /// if the future is dropped: log and memory must not part.
    ///
    /// # Errors
    /// [`ActivateError`]: nothing was switched.
    pub async fn activate(
        &self,
        sources: &[Source],
        expected: Option<Digest>,
    ) -> Result<Vec<ActiveSource>, ActivateError> {
        let refused = sources.first().copied().unwrap_or(Source::Bundle);
        let (own, sources) = (self.clone(), sources.to_vec());
        let (answer, answered) = oneshot::channel();
        // Nobody waits for its end: what is waited for is the answer, which comes before.
        drop(tokio::spawn(async move {
            let loader = own.0.loader.lock().await;
            let result = own.activate_now(&loader, &sources, expected).await;
            // Whoever asked may have gone.
            drop(answer.send(result));
            own.agree().await;
        }));
        let panicked = ActivateError::Refused { refused, reason: RefuseError::Panicked };
        answered.await.unwrap_or(Err(panicked))
    }

    async fn activate_now(
        &self,
        loader: &Loader,
        sources: &[Source],
        expected: Option<Digest>,
    ) -> Result<Vec<ActiveSource>, ActivateError> {
        let watch = Stopwatch::start();
        let current = self.current();
        let (wanted, own) = (sources.to_vec(), loader.clone());
        let before = Arc::clone(&current);
        let loading =
            tokio::task::spawn_blocking(move || load(&own, &before, &wanted, expected)).await;
        let loaded = loading.unwrap_or_else(|_died| {
            let refused = sources.first().copied().unwrap_or(Source::Bundle);
            Err(ActivateError::Refused { refused, reason: RefuseError::Panicked })
        });
        let switched = match loaded {
            Ok((next, cases)) => self.switch(&current, next).await.map(|()| cases),
            Err(error) => Err(error),
        };
        let active = self.current();
        for source in sources {
            let result = match &switched {
                Ok(cases) => Ok(if *source == Source::Bundle { *cases } else { 0 }),
                Err(ActivateError::Refused { refused, reason }) if refused == source => {
                    Err(told(reason))
                }
                Err(ActivateError::Refused { refused, .. }) => {
                    Err(RefuseError::Together { other: *refused }.to_string())
                }
                Err(error @ ActivateError::Store(_)) => Err(told(error)),
            };
            let attempt = Attempt {
                time: Clock::now(),
                changed: result.is_ok() && current.name(*source).0 != active.name(*source).0,
                cases: result.as_ref().copied().unwrap_or_default(),
                error: result.err(),
                took: watch.elapsed(),
            };
            self.note(*source, &active, attempt);
        }
        switched.map(|_cases| self.states(&active, sources))
    }

    /// Notes an attempt where it can be seen: in the log, in the metrics and for `active`.
    fn note(&self, source: Source, active: &Active, attempt: Attempt) {
        let (digest, revision) = active.name(source);
        match &attempt.error {
            Some(error) => {
                let error = error.replace('\n', "; ");
                tracing::warn!(%source, %error, "not activated: what was active stays active");
                self.0.metrics.refused(source.as_str(), &error);
            }
            None if attempt.changed => {
                let took = attempt.took;
                tracing::info!(%source, %digest, revision, ?took, "activated");
                self.0.metrics.activated(source.as_str(), &digest.to_string(), revision);
            }
            None => self.0.metrics.unchanged(source.as_str()),
        }
        self.0.attempts.note(source, attempt);
    }

    /// Makes another state active: first in the log, then here.
    async fn switch(&self, current: &Active, next: Arc<Active>) -> Result<(), ActivateError> {
        if next.names() == current.names() {
            // Approvers are no part of what the log names: what they sign is.
            if next.approvers.digest() != current.approvers.digest() {
                tracing::info!(approvers = next.approvers.count(), "approvers were replaced");
                self.0.gate.send_modify(|gate| gate.active = next);
            }
            return Ok(());
        }
        // From here on nothing is put in the order until what is active has changed there and here:
        // what came before was evaluated with the one, what comes after with the other.
        let _held = Held::new(&self.0.gate);
        let mut tries = 0_usize;
        loop {
            let time = match self.0.clock {
                Clock::Events => self.0.sequencer.high_water(),
                Clock::System => Clock::now(),
            };
            match self.0.sequencer.activate(next.names(), time).await {
                Ok(()) => {
                    self.0.gate.send_modify(|gate| gate.active = next);
                    return Ok(());
                }
                // Whether it is in the log is found out by asking for it again: what is active
                // already is not logged twice.
                Err(SequencerError::OutcomeUnknown) if tries < ACTIVATE_TRIES => {
                    tries = tries.saturating_add(1);
                }
                Err(error) => {
                    self.0.gate.send_modify(|gate| gate.doubtful = true);
                    return Err(ActivateError::Store(error));
                }
            }
        }
    }

    /// After a switch whose outcome is not known: has the log name what is active here, until it
    /// does. What is active already is not logged twice.
    async fn agree(&self) {
        let (mut pause, longest) = AGREE_AGAIN;
        let mut jumped = None;
        while self.0.gate.borrow().doubtful {
            let held = Held::new(&self.0.gate);
            // The log's own time if it is ahead: what heals must not fail for a clock.
            let time = match self.0.clock {
                Clock::Events => self.0.sequencer.high_water(),
                Clock::System => {
                    jumped.unwrap_or_else(Clock::now).max(self.0.sequencer.high_water())
                }
            };
            let names = self.current().names();
            match self.0.sequencer.activate(names, time).await {
                Ok(()) => self.0.gate.send_modify(|gate| gate.doubtful = false),
                Err(SequencerError::Stopped) => return,
                Err(SequencerError::ClockJumped { expected, .. }) => jumped = Some(expected),
                Err(error) => {
                    let error = chain(&error).replace('\n', "; ");
                    tracing::error!(%error, "the log may not name what is active; trying again");
                    // Meanwhile requests are told at once that the store fails.
                    drop(held);
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
            }
        }
    }

    fn current(&self) -> Arc<Active> {
        Arc::clone(&self.0.gate.borrow().active)
    }

    /// What is active, and what became of the last attempts to replace it.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveSource> {
        self.states(&self.current(), &Source::ALL)
    }

    fn states(&self, active: &Active, sources: &[Source]) -> Vec<ActiveSource> {
        let state = |source: &Source| {
            let (digest, revision) = active.name(*source);
            let last = self.0.attempts.last(*source);
            ActiveSource { source: *source, digest, revision: revision.to_owned(), last }
        };
        sources.iter().map(state).collect()
    }

    /// Erases the personal values of somebody, and logs that `caller` asked for it.
    ///
    /// # Errors
    /// If the store cannot be read or written: some may be erased.
    pub async fn erase_personal(
        &self,
        caller: &Id,
        person: &Person,
        dry_run: bool,
    ) -> Result<Erased, AdmitError> {
        let time = || match self.0.clock {
            Clock::Events => self.0.sequencer.high_water(),
            Clock::System => Clock::now(),
        };
        let erased = erase::erase(&self.0.sequencer, (caller, time), person, dry_run).await?;
        if !dry_run {
            let Erased { decisions, size, .. } = erased;
            tracing::info!(%caller, decisions, size, "personal values were erased");
        }
        Ok(erased)
    }

    /// Freezes what a signed order covers, if an approver signed it who may; `caller` sent it.
    ///
    /// # Errors
    /// [`AdmitError`]: nothing changed, unless it says that this is not known.
    pub async fn freeze(&self, caller: &Id, token: String) -> Result<Freeze, AdmitError> {
        let claims = self.current().approvers.check_freeze(&token)?;
        let time = self.time_of(claims.iat);
        let order = Freezing::Freeze(claims);
        let frozen = self.0.sequencer.freeze(FreezeOrder { order, token, time }).await?;
        let (name, by) = (&frozen.claims.jti, &frozen.claims.by);
        tracing::warn!(%caller, freeze = %name, %by, reason = frozen.claims.reason, "frozen");
        Ok(frozen)
    }

    /// Lifts a freeze by a signed order, if an approver signed it who may; `caller` sent it. Gives
    /// the freeze that was.
    ///
    /// # Errors
    /// [`AdmitError`]: nothing changed, unless it says that this is not known.
    pub async fn thaw(&self, caller: &Id, token: String) -> Result<Freeze, AdmitError> {
        let (claims, grant) = self.current().approvers.check_thaw(&token)?;
        let (time, by) = (self.time_of(claims.iat), claims.by.clone());
        let order = Freezing::Thaw(claims, grant);
        let lifted = self.0.sequencer.freeze(FreezeOrder { order, token, time }).await?;
        tracing::warn!(%caller, freeze = %lifted.claims.jti, %by, "a freeze was lifted");
        Ok(lifted)
    }

    /// The freezes that stand, as far as they are durable.
    #[must_use]
    pub fn freezes(&self) -> Arc<Freezes> {
        self.0.sequencer.freezes()
    }

    /// The time at which an order is carried out that was signed at `iat`: where events tell the
    /// time, it is one.
    fn time_of(&self, iat: u64) -> u64 {
        match self.0.clock {
            Clock::Events => iat.max(self.0.sequencer.high_water()),
            Clock::System => Clock::now(),
        }
    }

    /// Resolves and evaluates a request. Stores nothing; several may run at once.
    ///
    /// `time` is the time of the event, for a server whose clock is the events. To be called on a
    /// Tokio runtime.
    ///
    /// # Errors
    /// If the time is not to be had, or the policies could not be evaluated: nothing was decided.
    pub async fn prepare(
        &self,
        caller: &Id,
        request: AdmissionRequest,
        time: Option<u64>,
    ) -> Result<Prepared, AdmitError> {
        let time = self.time(time)?;
        let active = self.current();
        let considered = self.0.workers.consider(active, caller.clone(), request, time).await?;
        Ok(Prepared(vec![*considered.proposal]))
    }

    /// Resolves and evaluates requests that are to be admitted together or not at all, as of one
    /// instant. Stores nothing.
    ///
    /// # Errors
    /// As [`Admission::prepare`].
    pub async fn prepare_gang(
        &self,
        caller: &Id,
        members: Vec<AdmissionRequest>,
    ) -> Result<Prepared, AdmitError> {
        let time = self.time(None)?;
        let active = self.current();
        let considered = members.into_iter().map(|request| {
            self.0.workers.consider(Arc::clone(&active), caller.clone(), request, time)
        });
        let considered = try_join_all(considered).await?;
        Ok(Prepared(considered.into_iter().map(|one| *one.proposal).collect()))
    }

    /// Gives a prepared request its place in the order: that of the calls of this function.
    ///
    /// The answer comes when the decision is durable.
    ///
    /// # Errors
    /// If the server is stopping. The answer may be an error too: then nothing was decided.
    pub async fn sequence(
        &self,
        prepared: Prepared,
    ) -> Result<impl Future<Output = Result<Vec<Decided>, AdmitError>> + Send + 'static, AdmitError>
    {
        let mut changes = self.0.gate.subscribe();
        let mut proposals = prepared.0;
        // Waiting for a place, for the gate and for another evaluation, nothing is held. It takes
        // place where the caller already waits for its turn, so that requests of one stream keep
        // their order.
        let pending = loop {
            let places = self.0.sequencer.places(proposals.len()).await?;
            proposals = match self.offer(places, proposals)? {
                Offered::Placed(pending) => break pending,
                Offered::Held(proposals) => {
                    // The sender is part of `self`: it is not gone.
                    drop(changes.wait_for(|gate| !gate.held).await);
                    proposals
                }
                Offered::Outdated(proposals, active) => {
                    let mut again = Vec::with_capacity(proposals.len());
                    // One after the other: what takes no room is one at a time.
                    for one in proposals {
                        again.push(self.again(Arc::clone(&active), one).await?);
                    }
                    again
                }
            };
        };
        let (metrics, watch) = (Arc::clone(&self.0.metrics), Stopwatch::start());
        Ok(async move {
            let all = pending.await?;
            metrics.took(Stage::Sequence, watch.elapsed());
            for decided in &all {
                metrics.decided(effect_name(decided.effect), decided.position);
                for code in &decided.codes {
                    metrics.denied(code.as_str());
                }
                for waived in &decided.waived {
                    metrics.waived(waived.policy.as_str(), waived.code.as_str());
                }
            }
            Ok(all)
        })
    }

    /// Puts proposals in the order together, if the gate is open and they were evaluated with what
    /// is active.
    fn offer(
        &self,
        place: OwnedSemaphorePermit,
        proposals: Vec<Proposal>,
    ) -> Result<Offered, AdmitError> {
        // Whoever closes the gate waits for this guard: what is sent under it comes before the
        // activation.
        let gate = self.0.gate.borrow();
        if gate.held {
            return Ok(Offered::Held(proposals));
        }
        let active = &gate.active;
        let current = (active.policies.digest(), active.facts.digest());
        let approvers = active.approvers.digest();
        let is_outdated = |one: &Proposal| {
            let brings_waivers = !one.request.waivers.is_empty();
            (one.bundle, one.facts) != current || (brings_waivers && one.approvers != approvers)
        };
        if proposals.iter().any(is_outdated) {
            return Ok(Offered::Outdated(proposals, Arc::clone(active)));
        }
        Ok(Offered::Placed(self.0.sequencer.propose_at(place, proposals)?))
    }

    async fn again(&self, active: Arc<Active>, proposal: Proposal) -> Result<Proposal, AdmitError> {
        let Proposal { caller, request, time, .. } = proposal;
        let considered = self.0.workers.consider_again(active, caller, request, time).await?;
        Ok(*considered.proposal)
    }

    /// Gives a confirm or release its place in the order: that of the calls of this function and of
    /// `sequence`.
    ///
    /// # Errors
    /// If the time is not to be had or the server is stopping. The answer may be an error
    /// too: nothing has changed.
    pub async fn settle(
        &self,
        caller: &Id,
        kind: SettleKind,
        request: SettleRequest,
        time: Option<u64>,
    ) -> Result<impl Future<Output = Result<Settled, AdmitError>> + Send + 'static, AdmitError>
    {
        let time = self.time(time)?;
        let (caller, tenant, epoch) = (caller.clone(), request.tenant_id, request.epoch);
        let settle = Settle { kind, caller, tenant, target: request.target, epoch, time };
        let pending = self.0.sequencer.settle(settle).await?;
        let metrics = Arc::clone(&self.0.metrics);
        Ok(async move {
            let settled: Settled = pending.await?;
            metrics.settled(settled.state.map_or("NOT_RESERVED", state_name));
            Ok(settled)
        })
    }

    /// Tells what would be decided now. Stores, reserves and signs nothing.
    ///
    /// # Errors
    /// If the policies could not be evaluated.
    pub async fn explain(
        &self,
        caller: &Id,
        request: AdmissionRequest,
    ) -> Result<Explained, AdmitError> {
        let mut changes = self.0.gate.subscribe();
        let mut proposal = {
            let (time, active) = (self.time(None)?, self.current());
            self.0.workers.consider(active, caller.clone(), request, time).await?.proposal
        };
        let mut tries = 0_usize;
        let (effect, reasons): (Effect, Vec<Reason>) = loop {
            match self.0.sequencer.probe(proposal.clone()).await {
                Err(SequencerError::Superseded) if tries < EXPLAIN_TRIES => {
                    tries = tries.saturating_add(1);
                    drop(changes.wait_for(|gate| !gate.held).await);
                    *proposal = self.again(self.current(), *proposal).await?;
                }
                probed => break probed?,
            }
        };
        let Proposal { input, evaluation, .. } = *proposal;
        let input = input.unwrap_or_default();
        let reasons = canonical_json(&reasons).map_err(AdmitError::internal)?;
        Ok(Explained {
            effect,
            input: text(input)?,
            evaluation: text(evaluation)?,
            reasons: text(reasons)?,
        })
    }

    /// A page of accounts and their use, and the limit of each by the facts that are active.
    ///
    /// # Errors
    /// If the log has no leaf at `at_least`, or the ledger cannot be asked.
    pub(crate) async fn usage(
        &self,
        accounts: Accounts,
        at_least: Option<u64>,
    ) -> Result<(UsageReport, Vec<Option<u64>>), AdmitError> {
        let _turn = self.0.look.lock().await;
        let report = self.0.sequencer.usage(accounts, at_least).await.map_err(not_looked)?;
        let active = self.current();
        let limit = |it: &AccountUse| {
            let known = active.facts.limit(&it.account);
            // Facts that have changed the meaning of an account say nothing of what it holds.
            let known = known.filter(|known| (known.kind, known.unit) == (it.kind, it.unit));
            known.map(|known| known.limit)
        };
        let limits = report.accounts.iter().map(limit).collect();
        Ok((report, limits))
    }

    /// A page of reservations that are held.
    ///
    /// # Errors
    /// If the log has no leaf at `at_least`, or the ledger cannot be asked.
    pub(crate) async fn reservations(
        &self,
        filter: Filter,
        after: Option<Due>,
        most: usize,
        at_least: Option<u64>,
    ) -> Result<ReservationsReport, AdmitError> {
        let _turn = self.0.look.lock().await;
        let report = self.0.sequencer.reservations(filter, after, most, at_least).await;
        report.map_err(not_looked)
    }

    /// The log as far as it is durable: what reads it, and what tells how long it is.
    pub(crate) fn log(&self) -> (Reader, LogNews) {
        (self.0.sequencer.reader(), self.0.sequencer.news())
    }

    /// A request that was not decided, for the metrics.
    pub(crate) fn failed(&self, error: &AdmitError) {
        self.0.metrics.failed(error.code());
    }

    /// The public keys as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.0.signer.jwks()
    }

    /// The metrics as text, the accounts brought up to date before.
    pub(crate) async fn metrics_text(&self) -> String {
        let mut last = self.0.scrape.lock().await;
        if last.as_ref().is_none_or(|last| last.elapsed() >= ACCOUNTS_FRESH) {
            let first = Accounts::Under { prefix: None, after: None, most: MAX_ACCOUNT_SERIES };
            let asked = tokio::time::timeout(ACCOUNTS_WAIT, self.usage(first, None)).await;
            match asked {
                Ok(Ok((report, limits))) => {
                    self.0.metrics.held(&report, &limits);
                    *last = Some(Stopwatch::start());
                }
                // Old figures would look like new ones.
                Ok(Err(_)) | Err(_) => {
                    self.0.metrics.held_unknown();
                    *last = None;
                }
            }
        }
        let freezes = self.freezes();
        self.0.metrics.frozen(freezes.standing.keys().map(Id::as_str));
        self.0.metrics.text()
    }

    /// Whether requests can be decided now.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.sequencer.is_alive() && !self.0.gate.borrow().doubtful
    }

    /// Whether no request will ever be decided any more.
    pub(crate) fn has_ended(&self) -> bool {
        !self.0.sequencer.is_alive()
    }

    /// Answers what is under way and closes the store.
    pub async fn close(&self) {
        self.0.sequencer.close().await;
    }

    fn time(&self, of_event: Option<u64>) -> Result<u64, AdmitError> {
        match (self.0.clock, of_event) {
            (Clock::Events, Some(time)) => Ok(time),
            (Clock::Events, None) => Ok(self.0.sequencer.high_water()),
            (Clock::System, None) => Ok(Clock::now()),
            (Clock::System, Some(_)) => Err(AdmitError::time_not_taken()),
        }
    }
}

/// The error of cosignatures that the store did not take.
fn not_cosigned(error: SequencerError) -> AdmitError {
    let (code, message) = match &error {
        SequencerError::Unavailable { .. } => (
            "STORE_FAILED",
            "the cosignatures could not be stored\nhint: send them again after a moment",
        ),
        SequencerError::OutcomeUnknown => (
            "OUTCOME_UNKNOWN",
            "it is not known whether the cosignatures were stored\nhint: send them again",
        ),
        _ => return error.into(),
    };
    AdmitError::Unavailable { code, message, source: Some(Box::new(error)) }
}

/// The error of a look at the ledger that shared a batch with what could not be stored.
fn not_looked(error: SequencerError) -> AdmitError {
    match error {
        SequencerError::Unavailable { .. } | SequencerError::OutcomeUnknown => {
            let message = "the ledger cannot be told from what is durable now\n\
                           hint: ask again after a moment";
            let source = Some(Box::new(error).into());
            AdmitError::Unavailable { code: "STORE_FAILED", message, source }
        }
        other => other.into(),
    }
}

/// How checkpoints are made; their key is made where they are, and only there.
fn checkpoints(
    settings: &Settings,
    decisions: &Signer,
) -> Result<Option<CheckpointOptions>, SignerError> {
    let every_seconds = settings.checkpoint_every_seconds;
    if every_seconds == 0 {
        return Ok(None);
    }
    let signer = CheckpointSigner::open(&settings.keys, decisions)?;
    let witnesses = settings.witnesses.clone();
    if let Some(own) =
        witnesses.as_slice().iter().find(|one| signer.has(one.key()) || decisions.has(one.key()))
    {
        return Err(SignerError::OwnWitness { name: own.name().to_owned() });
    }
    Ok(Some(CheckpointOptions { signer, every_seconds, witnesses }))
}

/// Who may waive and freeze.
fn approvers(loader: &Loader) -> Result<Arc<Approvers>, OpenError> {
    loader.approvers(None).map_err(|source| {
        let path = loader.approvers.as_deref().map(|path| path.display().to_string());
        OpenError::Approvers { path: path.unwrap_or_default(), source }
    })
}

/// The engine of components, with a cache of what it compiled if there is a place for one.
fn runtime(settings: &Settings) -> Result<WasmRuntime, LoadError> {
    match &settings.cache {
        Some(directory) => WasmRuntime::with_cache(directory),
        None => WasmRuntime::new(),
    }
}

/// Loads what is wanted; the rest stays. Blocks.
fn load(
    loader: &Loader,
    current: &Active,
    wanted: &[Source],
    expected: Option<Digest>,
) -> Result<(Arc<Active>, usize), ActivateError> {
    let refused = |refused| move |reason| ActivateError::Refused { refused, reason };
    let (mut policies, mut facts) = (Arc::clone(&current.policies), Arc::clone(&current.facts));
    let mut cases = 0;
    if wanted.contains(&Source::Bundle) {
        let loaded = loader.bundle(Some(&policies), expected);
        (policies, cases) = loaded.map_err(refused(Source::Bundle))?;
    }
    if wanted.contains(&Source::Facts) {
        let loaded = loader.facts(Some(&facts), expected);
        facts = loaded.map_err(refused(Source::Facts))?;
    }
    let approvers = loader.approvers(Some(&current.approvers));
    let approvers = approvers.map_err(|reason| {
        refused(wanted.first().copied().unwrap_or(Source::Bundle))(RefuseError::Approvers(
            Box::new(reason),
        ))
    })?;
    Ok((Arc::new(Active { policies, facts, approvers }), cases))
}

fn text(canonical: Vec<u8>) -> Result<String, AdmitError> {
    String::from_utf8(canonical).map_err(AdmitError::internal)
}

fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Permit => "PERMIT",
        Effect::Deny => "DENY",
    }
}

fn state_name(state: placet_core::ReservationState) -> &'static str {
    use placet_core::ReservationState as State;
    match state {
        State::Reserved => "RESERVED",
        State::Active => "ACTIVE",
        State::Released => "RELEASED",
        State::Expired => "EXPIRED",
        State::Revoked => "REVOKED",
    }
}
