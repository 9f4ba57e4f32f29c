//! The threads that evaluate policies: each has engines of its own, so nothing is shared but what
//! is read-only.
//!
//! A verdict depends on nothing here: only who waits for how long does. Tenants share the threads
//! by the time that their evaluations take, and those whose policies are expensive have a few
//! threads apart, so that no policy keeps the others' requests waiting. Of `n` workers there are
//! `n` threads for most tenants and half as many for the expensive ones.

mod effort;
mod queue;
mod room;
mod threads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use placet_core::{AdmissionRequest, Digest, Id, canonical_json};
use placet_policy::{
    Approvers, EvaluateError, Evaluation, Evaluator, Facts, PolicySet, resolve, waiver,
};
use tokio::sync::oneshot;

use effort::Effort;
pub(crate) use queue::Lane;
use room::{Hall, Seated};
use threads::Threads;
pub(crate) use threads::stand_back;

use crate::metrics::{Metrics, Stage, Stopwatch};
use crate::sequencer::{Candidate, Personal, Proposal};

/// Where the one personal field of a request stands.
pub(crate) const SUBJECT_PATH: &str = "principal.subject";

/// What decisions are made with: switched as one, so that no decision mixes two.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) policies: Arc<PolicySet>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) approvers: Arc<Approvers>,
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

/// Whose time an evaluation takes. Tenants that the facts do not know are one, or made-up names
/// would each get a share.
type Payer = Option<Id>;

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

/// A fixed set of threads behind bounded queues.
#[derive(Debug)]
pub(crate) struct Workers {
    hall: Hall<Payer, Job>,
    threads: Threads<Payer, Seated<Job>>,
}

impl Workers {
    /// Starts `count` threads, and half as many, at least one, for tenants whose policies are
    /// expensive.
    pub(crate) fn start(count: usize, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let counts = (count, (count / 2).max(1));
        let measured = Arc::clone(metrics);
        let worker = move || {
            let (effort, metrics) = (Effort::of_this_thread(), Arc::clone(&measured));
            let mut worker = Worker { ready: None, effort, metrics };
            move |seated: Seated<Job>, lane| worker.work(seated.stand_up(), lane)
        };
        let threads = Threads::start(counts, metrics, worker)?;
        Ok(Self { hall: Hall::new(threads.entrance()), threads })
    }

    /// Resolves and evaluates one request; waits for room, then for the tenant's turn. What waits
    /// needs nobody to poll it, and is given up when the future is dropped.
    pub(crate) async fn consider(
        &self,
        active: Arc<Active>,
        caller: Id,
        request: AdmissionRequest,
        time: u64,
    ) -> Result<Considered, WorkError> {
        let (payer, job, considered) = job(active, caller, request, time);
        let _waiting = self.hall.enter(payer, job);
        considered.await.map_err(|_dropped| WorkError::Stopped)?
    }

    /// The same for a request that was evaluated before, with what is no longer active. It takes no
    /// room: it holds up its stream, whose later requests may have taken all that there is. There
    /// is at most one for each stream and each call.
    pub(crate) async fn consider_again(
        &self,
        active: Arc<Active>,
        caller: Id,
        request: AdmissionRequest,
        time: u64,
    ) -> Result<Considered, WorkError> {
        let (payer, job, considered) = job(active, caller, request, time);
        self.hall.pass(&payer, job);
        considered.await.map_err(|_dropped| WorkError::Stopped)?
    }

    /// Lets the threads finish what is queued, then ends them.
    pub(crate) fn stop(&mut self) {
        self.hall.close();
        self.threads.stop();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

type Answer = oneshot::Receiver<Result<Considered, WorkError>>;

/// A question, who pays for it, and where the answer will be.
fn job(
    active: Arc<Active>,
    caller: Id,
    request: AdmissionRequest,
    time: u64,
) -> (Payer, Job, Answer) {
    let (answer, considered) = oneshot::channel();
    let (queued, span) = (Stopwatch::start(), tracing::Span::current());
    let known = active.facts.has_tenant(&request.tenant_id);
    let payer = known.then(|| request.tenant_id.clone());
    (payer, Job { active, caller, request, time, queued, span, answer }, considered)
}

/// What a thread keeps between two jobs.
struct Worker {
    ready: Option<(Arc<PolicySet>, Evaluator)>,
    effort: Effort,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// Does a job and answers it. Gives the time that it took of this thread, without what others
    /// on the same core took meanwhile.
    fn work(&mut self, job: Job, lane: Lane) -> Option<Duration> {
        let Job { active, caller, request, time, queued, span, answer } = job;
        if answer.is_closed() {
            // The caller has gone: there is nobody to tell.
            return None;
        }
        let Self { ready, effort, metrics } = self;
        metrics.took(Stage::Queue(lane), queued.elapsed());
        let started = effort.start();
        let considered = span.in_scope(|| {
            let _stage = tracing::debug_span!("evaluate").entered();
            let watch = Stopwatch::start();
            let considered = guarded(|| {
                let evaluator = evaluator(ready, &active);
                consider(&active, evaluator, caller, request, time)
            });
            metrics.took(Stage::Evaluate, watch.elapsed());
            considered
        });
        if matches!(considered, Err(WorkError::Panicked)) {
            *ready = None;
        }
        let spent = effort.since(&started);
        // A caller that has gone meanwhile needs no answer, and nothing was stored for it.
        drop(answer.send(considered));
        Some(spent)
    }
}

/// The thread's own engines, made anew when other policies are active: facts are no part of them.
fn evaluator<'a>(
    ready: &'a mut Option<(Arc<PolicySet>, Evaluator)>,
    active: &Active,
) -> &'a mut Evaluator {
    let policies = &active.policies;
    let kept = ready.take().filter(|(current, _)| Arc::ptr_eq(current, policies));
    let made = || (Arc::clone(policies), Evaluator::new(Arc::clone(policies)));
    &mut ready.insert(kept.unwrap_or_else(made)).1
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
    // Before anything is evaluated: a waiver that is not good denies, whatever policies would say.
    let waivers = active.approvers.check_waivers(&request, &caller, time);
    let resolved = resolve(facts, &request, time, &salt);
    let unresolved = || Evaluation::unresolved(active.policies.digest());
    let (input, evaluation, waivers, rejected) = match (resolved, waivers) {
        (Ok((input, _commitments)), Ok(waivers)) => {
            let evaluation = evaluator.evaluate_waived(&input, waiver::lifts(&waivers));
            let evaluation = evaluation.map_err(WorkError::Evaluate)?;
            (Some(input.canonical()), evaluation, waivers, Vec::new())
        }
        (resolved, waivers) => {
            let mut reasons = waivers.err().unwrap_or_default();
            reasons.extend(resolved.err().unwrap_or_default());
            (None, unresolved(), Vec::new(), reasons)
        }
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
        waivers,
        approvers: active.approvers.digest(),
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
mod tests;
