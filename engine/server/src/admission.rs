//! The pipeline as one value: resolve and evaluate on the workers, then the sequencer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use placet_core::{AdmissionRequest, Digest, Effect, Id, Reason, canonical_json};
use placet_policy::{LoadError, WasmRuntime};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard};

use crate::activation::{
    ActivateError, ActiveSource, Attempt, Attempts, Loader, RefuseError, Source, chain,
};
use crate::clock::Clock;
use crate::error::AdmitError;
use crate::grpc::convert::SettleRequest;
use crate::metrics::{Metrics, Stage, Stopwatch};
use crate::sequencer::{
    Decided, Options, Pending, Proposal, SequencerError, SequencerHandle, Settle, SettleKind,
    Settled,
};
use crate::settings::Settings;
use crate::signer::Signer;
use crate::workers::{Active, Workers};

/// How often an activation of unknown outcome is asked for again before it is given up.
const ACTIVATE_TRIES: usize = 3;

/// The decision point: cheap to clone, and every clone is the same one.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What requests are evaluated with. Whoever puts an evaluation in the order reads it until
    /// that is done; whoever replaces it writes, so that nothing is put in the order meanwhile.
    active: RwLock<Arc<Active>>,
    attempts: Attempts,
    clock: Clock,
    /// Whether the log may name as active what is not active here: the store failed in between.
    doubtful: AtomicBool,
    jwks: String,
    /// One activation at a time.
    loader: Mutex<Loader>,
    metrics: Arc<Metrics>,
    sequencer: SequencerHandle,
    workers: Workers,
}

/// A request that has been evaluated, ready to take its place in the order.
#[derive(Debug)]
pub struct Prepared(Box<Proposal>);

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
    /// The engine of components does not start, or its cache is not to be trusted.
    #[error("the engine of WebAssembly components cannot be started")]
    Engine(#[source] LoadError),
    /// The keys are missing, readable by others, or wrong.
    #[error("the signing keys in `{path}` cannot be used")]
    Keys {
        /// Their directory.
        path: String,
        /// Why.
        source: crate::signer::SignerError,
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
        let runtime = runtime(settings).map_err(OpenError::Engine)?;
        let loader = Loader {
            bundle: settings.bundle.clone(),
            bundle_keys: settings.bundle_keys.clone(),
            facts: settings.facts.clone(),
            runtime,
        };
        let (policies, cases) = loader
            .bundle(None, None)
            .map_err(|source| OpenError::Bundle { path: path(&settings.bundle), source })?;
        let facts = loader
            .facts(None, None)
            .map_err(|source| OpenError::Facts { path: path(&settings.facts), source })?;
        let took = watch.elapsed();
        let active = Arc::new(Active { policies, facts });
        let signer = Signer::open(&settings.keys)
            .map_err(|source| OpenError::Keys { path: path(&settings.keys), source })?;
        let jwks = signer.jwks();
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let options = Options {
            audience: settings.audience.clone(),
            clock: settings.clock,
            confirm_within_seconds: settings.confirm_within_seconds,
            issuer: settings.issuer.clone(),
        };
        let workers = Workers::start(settings.workers, &metrics).map_err(OpenError::Threads)?;
        let sequencer = SequencerHandle::start(&settings.store, options, signer, active.names())
            .map_err(|source| OpenError::Store { path: path(&settings.store), source })?;
        let (clock, attempts) = (settings.clock, Attempts::default());
        for source in Source::ALL {
            let cases = if source == Source::Bundle { cases } else { 0 };
            let time = Clock::now();
            attempts.note(source, Attempt { time, changed: true, error: None, took, cases });
            let (digest, revision) = active.name(source);
            metrics.activated(source.as_str(), &digest.to_string(), revision);
        }
        let (active, loader) = (RwLock::new(active), Mutex::new(loader));
        let doubtful = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner {
            active,
            attempts,
            clock,
            doubtful,
            jwks,
            loader,
            metrics,
            sequencer,
            workers,
        })))
    }

    /// Reads sources again and makes them active in one step, if all of them are good; what has not
    /// changed stays as it is. Requests are decided all the while.
    ///
    /// `expected` is the digest that the sources must have.
    ///
    /// # Errors
    /// [`ActivateError`]: nothing was switched.
    pub async fn activate(
        &self,
        sources: &[Source],
        expected: Option<Digest>,
    ) -> Result<Vec<ActiveSource>, ActivateError> {
        let loader = self.0.loader.lock().await;
        let watch = Stopwatch::start();
        let current = Arc::clone(&*self.0.active.read().await);
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
        let attempts = |source| {
            let now = Arc::clone(&current);
            let took = watch.elapsed();
            move |active: &Active, result: Result<usize, String>| Attempt {
                time: Clock::now(),
                changed: result.is_ok() && now.name(source).0 != active.name(source).0,
                cases: result.as_ref().copied().unwrap_or_default(),
                error: result.err(),
                took,
            }
        };
        let active = Arc::clone(&*self.0.active.read().await);
        for source in sources {
            let result = match &switched {
                Ok(cases) => Ok(if *source == Source::Bundle { *cases } else { 0 }),
                Err(ActivateError::Refused { refused, reason }) if refused == source => {
                    Err(chain(reason))
                }
                Err(ActivateError::Refused { refused, .. }) => {
                    Err(RefuseError::Together { other: *refused }.to_string())
                }
                Err(error @ ActivateError::Store(_)) => Err(chain(error)),
            };
            self.note(*source, &active, attempts(*source)(&active, result));
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
        if next.names() == current.names() && !self.is_doubtful() {
            return Ok(());
        }
        // From here on nothing is put in the order until what is active has changed there and here.
        let mut active = self.0.active.write().await;
        self.0.doubtful.store(true, Ordering::Release);
        let mut tries = 0_usize;
        loop {
            let time = match self.0.clock {
                Clock::Events => self.0.sequencer.high_water(),
                Clock::System => Clock::now(),
            };
            match self.0.sequencer.activate(next.names(), time).await {
                Ok(()) => {
                    *active = next;
                    self.0.doubtful.store(false, Ordering::Release);
                    return Ok(());
                }
                // Whether it is in the log is found out by asking for it again: what is active
                // already is not logged twice.
                Err(SequencerError::OutcomeUnknown) if tries < ACTIVATE_TRIES => {
                    tries = tries.saturating_add(1);
                }
                Err(error) => return Err(ActivateError::Store(error)),
            }
        }
    }

    /// Whether the last activation could not be stored, so that it should be tried again.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.0.doubtful.load(Ordering::Acquire)
    }

    /// What is active, and what became of the last attempts to replace it.
    pub async fn active(&self) -> Vec<ActiveSource> {
        let active = Arc::clone(&*self.0.active.read().await);
        self.states(&active, &Source::ALL)
    }

    fn states(&self, active: &Active, sources: &[Source]) -> Vec<ActiveSource> {
        let state = |source: &Source| {
            let (digest, revision) = active.name(*source);
            let last = self.0.attempts.last(*source);
            ActiveSource { source: *source, digest, revision: revision.to_owned(), last }
        };
        sources.iter().map(state).collect()
    }

    /// Resolves and evaluates a request. Stores nothing; several may run at once.
    ///
    /// `time` is the time of the event, for a server whose clock is the events.
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
        let active = Arc::clone(&*self.0.active.read().await);
        let considered = self.0.workers.consider(active, caller.clone(), request, time).await?;
        Ok(Prepared(considered.proposal))
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
    ) -> Result<impl Future<Output = Result<Decided, AdmitError>> + Send + 'static, AdmitError>
    {
        let (proposal, _active) = self.current(prepared).await?;
        let pending: Pending<Decided> = self.0.sequencer.propose(proposal).await?;
        let (metrics, watch) = (Arc::clone(&self.0.metrics), Stopwatch::start());
        Ok(async move {
            let decided = pending.await?;
            metrics.took(Stage::Sequence, watch.elapsed());
            metrics.decided(effect_name(decided.effect), decided.position);
            for code in &decided.codes {
                metrics.denied(code.as_str());
            }
            Ok(decided)
        })
    }

    /// The proposal, evaluated again if what it was evaluated with has been replaced meanwhile.
    /// Nothing is replaced as long as the guard is held.
    ///
    /// Evaluating again takes place where the caller already waits for its turn, so that requests
    /// of one stream keep their order.
    async fn current(
        &self,
        prepared: Prepared,
    ) -> Result<(Box<Proposal>, RwLockReadGuard<'_, Arc<Active>>), AdmitError> {
        let mut proposal = prepared.0;
        loop {
            let active = self.0.active.read().await;
            if (proposal.bundle, proposal.facts)
                == (active.policies.digest(), active.facts.digest())
            {
                return Ok((proposal, active));
            }
            let newer = Arc::clone(&active);
            drop(active);
            let Proposal { caller, request, time, .. } = *proposal;
            proposal = self.0.workers.consider(newer, caller, request, time).await?.proposal;
        }
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
        let prepared = self.prepare(caller, request, None).await?;
        let (proposal, _active) = self.current(prepared).await?;
        let input = proposal.input.clone().unwrap_or_default();
        let evaluation = proposal.evaluation.clone();
        let (effect, reasons): (Effect, Vec<Reason>) = self.0.sequencer.probe(proposal).await?;
        let reasons = canonical_json(&reasons).map_err(AdmitError::internal)?;
        Ok(Explained {
            effect,
            input: text(input)?,
            evaluation: text(evaluation)?,
            reasons: text(reasons)?,
        })
    }

    /// A request that was not decided, for the metrics.
    pub(crate) fn failed(&self, error: &AdmitError) {
        self.0.metrics.failed(error.code());
    }

    /// The public keys as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> &str {
        &self.0.jwks
    }

    /// The metrics as text.
    pub(crate) fn metrics_text(&self) -> String {
        self.0.metrics.text()
    }

    /// Whether the sequencer still takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.sequencer.is_alive()
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
    Ok((Arc::new(Active { policies, facts }), cases))
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
