//! The pipeline as one value: resolve and evaluate on the workers, then the sequencer.

use std::future::Future;
use std::sync::Arc;

use placet_core::{AdmissionRequest, Effect, Id, Reason, canonical_json};
use placet_policy::{Bundle, Facts, LoadError, PolicySet, WasmRuntime};

use crate::clock::Clock;
use crate::error::AdmitError;
use crate::grpc::convert::SettleRequest;
use crate::metrics::{Metrics, Stage, Stopwatch};
use crate::sequencer::{
    Activation, Decided, Options, Pending, Proposal, SequencerHandle, Settle, SettleKind, Settled,
};
use crate::settings::Settings;
use crate::signer::Signer;
use crate::workers::{Active, Workers};

/// The decision point: cheap to clone, and every clone is the same one.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    active: Arc<Active>,
    clock: Clock,
    jwks: String,
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
        /// Its directory.
        path: String,
        /// Why.
        source: LoadError,
    },
    /// The facts are missing or wrong.
    #[error("the facts `{path}` cannot be served")]
    Facts {
        /// Their file.
        path: String,
        /// Why.
        source: LoadError,
    },
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
        let bundle_error = |source| OpenError::Bundle { path: path(&settings.bundle), source };
        let bundle = Bundle::load(&settings.bundle).map_err(bundle_error)?;
        let runtime = WasmRuntime::new().map_err(bundle_error)?;
        let policies = Arc::new(PolicySet::compile(&bundle, &runtime).map_err(bundle_error)?);
        let facts = Facts::load(&settings.facts)
            .map_err(|source| OpenError::Facts { path: path(&settings.facts), source })?;
        let signer = Signer::open(&settings.keys)
            .map_err(|source| OpenError::Keys { path: path(&settings.keys), source })?;
        let jwks = signer.jwks();
        let bundle_digest = policies.digest();
        let metrics = Arc::new(Metrics::new(
            &bundle_digest.to_string(),
            &facts.digest().to_string(),
            env!("CARGO_PKG_VERSION"),
        ));
        let activation = Activation {
            bundle: (bundle_digest, policies.revision().to_owned()),
            facts: (facts.digest(), facts.revision().to_owned()),
        };
        let options = Options {
            audience: settings.audience.clone(),
            clock: settings.clock,
            confirm_within_seconds: settings.confirm_within_seconds,
            issuer: settings.issuer.clone(),
        };
        let workers = Workers::start(settings.workers, &metrics).map_err(OpenError::Threads)?;
        let sequencer = SequencerHandle::start(&settings.store, options, signer, activation)
            .map_err(|source| OpenError::Store { path: path(&settings.store), source })?;
        let active = Arc::new(Active { policies, facts: Arc::new(facts) });
        let clock = settings.clock;
        Ok(Self(Arc::new(Inner { active, clock, jwks, metrics, sequencer, workers })))
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
        let active = Arc::clone(&self.0.active);
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
        let pending: Pending<Decided> = self.0.sequencer.propose(prepared.0).await?;
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
        let Prepared(proposal) = self.prepare(caller, request, None).await?;
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
