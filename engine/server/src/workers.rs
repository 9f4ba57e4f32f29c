//! The threads that evaluate policies: each has engines of its own, so nothing is shared but what
//! is read-only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use placet_core::{AdmissionRequest, Digest, Id, canonical_json};
use placet_policy::{EvaluateError, Evaluation, Evaluator, Facts, PolicySet, resolve};
use tokio::sync::oneshot;

use crate::metrics::{Metrics, Stage, Stopwatch};
use crate::sequencer::{Candidate, Personal, Proposal};

/// Requests that wait for a thread. Past it callers wait: a longer queue would only make every
/// answer late.
const QUEUE: usize = 1_024;
/// Where the one personal field of a request stands.
const SUBJECT_PATH: &str = "principal.subject";

/// What decisions are made with: switched as one, so that no decision mixes two.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) policies: Arc<PolicySet>,
    pub(crate) facts: Arc<Facts>,
}

/// A question for a worker.
struct Job {
    active: Arc<Active>,
    caller: Id,
    request: AdmissionRequest,
    time: u64,
    queued: Stopwatch,
    span: tracing::Span,
    answer: oneshot::Sender<Result<Considered, WorkError>>,
}

/// What a worker made of a request: all that the sequencer needs, and the documents that were
/// judged.
#[derive(Debug)]
pub(crate) struct Considered {
    pub(crate) proposal: Box<Proposal>,
}

/// Why a worker gave no answer. Never a denial: nothing was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// Evaluation hit the wall-clock backstop.
    #[error("the policies could not be evaluated in time")]
    Evaluate(#[source] EvaluateError),
    /// The system gave no random bytes for a salt.
    #[error("no random bytes could be had")]
    Randomness,
    /// A document has no canonical form.
    #[error("a document could not be written as canonical JSON")]
    Canonical(#[source] placet_core::CanonicalError),
    /// A bug: the evaluation panicked. Its engines are not trusted any further: they are made
    /// anew.
    #[error("the evaluation panicked")]
    Panicked,
    /// The workers have stopped.
    #[error("the server is stopping")]
    Stopped,
}

/// A fixed set of threads behind a bounded queue.
#[derive(Debug)]
pub(crate) struct Workers {
    jobs: async_channel::Sender<Job>,
    metrics: Arc<Metrics>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(count: usize, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let (jobs, queue) = async_channel::bounded::<Job>(QUEUE);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let queue = queue.clone();
            let metrics = Arc::clone(metrics);
            let thread = std::thread::Builder::new()
                .name(format!("evaluate-{number}"))
                .spawn(move || work(&queue, &metrics))?;
            threads.push(thread);
        }
        Ok(Self { jobs, metrics: Arc::clone(metrics), threads })
    }

    /// Resolves and evaluates one request; waits for a free thread.
    pub(crate) async fn consider(
        &self,
        active: Arc<Active>,
        caller: Id,
        request: AdmissionRequest,
        time: u64,
    ) -> Result<Considered, WorkError> {
        let (answer, considered) = oneshot::channel();
        let queued = Stopwatch::start();
        let span = tracing::Span::current();
        let job = Job { active, caller, request, time, queued, span, answer };
        self.jobs.send(job).await.map_err(|_closed| WorkError::Stopped)?;
        considered.await.map_err(|_dropped| WorkError::Stopped)?
    }

    /// Lets the threads finish what is queued, then ends them.
    pub(crate) fn stop(&mut self) {
        self.jobs.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that evaluates had died");
                self.metrics.failed("WORKER_DIED");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(queue: &async_channel::Receiver<Job>, metrics: &Metrics) {
    let mut ready: Option<(Arc<Active>, Evaluator)> = None;
    while let Ok(job) = queue.recv_blocking() {
        let Job { active, caller, request, time, queued, span, answer } = job;
        if answer.is_closed() {
            // The caller has gone: there is nobody to tell.
            continue;
        }
        metrics.took(Stage::Queue, queued.elapsed());
        let evaluator = match &mut ready {
            Some((current, evaluator)) if Arc::ptr_eq(current, &active) => evaluator,
            other => {
                let evaluator = Evaluator::new(Arc::clone(&active.policies));
                &mut other.insert((Arc::clone(&active), evaluator)).1
            }
        };
        let considered = span.in_scope(|| {
            let _stage = tracing::debug_span!("evaluate").entered();
            let watch = Stopwatch::start();
            let considered = guarded(|| consider(&active, evaluator, caller, request, time));
            metrics.took(Stage::Evaluate, watch.elapsed());
            considered
        });
        if matches!(considered, Err(WorkError::Panicked)) {
            ready = None;
        }
        // A caller that has gone meanwhile needs no answer, and nothing was stored for it.
        drop(answer.send(considered));
    }
}

/// Turns a panic into an error, so that one request cannot take the thread from the others.
fn guarded<T>(work: impl FnOnce() -> Result<T, WorkError>) -> Result<T, WorkError> {
    // What a panic may leave half done is the evaluator alone, which the caller throws away.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(WorkError::Panicked))
}

fn consider(
    active: &Active,
    evaluator: &mut Evaluator,
    caller: Id,
    request: AdmissionRequest,
    time: u64,
) -> Result<Considered, WorkError> {
    let facts = &active.facts;
    let request_digest = Digest::of(&canonical_json(&request).map_err(WorkError::Canonical)?);
    let mut salt = [0; 32];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_unspecified| WorkError::Randomness)?;
    let personal = request.principal.iter().map(|principal| Personal {
        path: SUBJECT_PATH.to_owned(),
        salt: salt.to_vec(),
        value: principal.subject.clone(),
    });
    let personal = personal.collect();
    let (input, evaluation, rejected) = match resolve(facts, &request, time, &salt) {
        Ok((input, _commitments)) => {
            let evaluation = evaluator.evaluate(&input).map_err(WorkError::Evaluate)?;
            (Some(input.canonical()), evaluation, Vec::new())
        }
        Err(reasons) => (None, Evaluation::unresolved(active.policies.digest()), reasons),
    };
    let proposal = Proposal {
        bundle: active.policies.digest(),
        caller,
        candidates: candidates(&evaluation, facts),
        evaluation: canonical_json(&evaluation).map_err(WorkError::Canonical)?,
        facts: facts.digest(),
        input,
        personal,
        rejected,
        request,
        request_digest,
        time,
    };
    Ok(Considered { proposal: Box::new(proposal) })
}

fn candidates(evaluation: &Evaluation, facts: &Facts) -> Vec<Candidate> {
    let candidates = evaluation.candidates.iter().map(|candidate| Candidate {
        gpu_model: candidate.gpu_model.clone(),
        limits: candidate
            .outcome
            .claims
            .iter()
            .map(|claim| facts.limit(&claim.claim.account).map(|l| (l.kind, l.unit, l.limit)))
            .collect(),
        outcome: candidate.outcome.clone(),
    });
    candidates.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_decision_and_no_end() {
        let panicked = guarded::<()>(|| panic!("as a bug would"));
        assert!(matches!(panicked, Err(WorkError::Panicked)));
        assert!(matches!(guarded(|| Ok(1)), Ok(1)));
    }
}
