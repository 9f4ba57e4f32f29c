//! A compiled bundle, and the pure function from an input to an evaluation.

mod variant;

use std::sync::Arc;

use placet_core::{
    Code, Cost, Digest, Effect, Id, Level, Mode, Outcome, PolicyVerdict, Reason, SubjectKind,
    Verdict, Waived, Warning, canonical_json, combine_waived,
};
use regorus::Value;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Decided, Finding};
use crate::bundle::{Bundle, Entry, Language, MANIFEST, PARAMS_CODES, Required, Selector};
use crate::coverage::{self, Recorder};
use crate::document;
use crate::error::{EvaluateError, Fault, LoadError};
use crate::index::Index;
use crate::input::{Input, Workload};
use crate::metadata::PolicyMetadata;
use crate::rego::{self, RegoPolicy};
use crate::wasm::{WasmPolicy, WasmRuntime};
pub(crate) use variant::Overrides;

/// Every policy of a bundle, compiled and indexed. Shared by all threads; each has an [`Evaluator`]
/// of its own.
#[derive(Debug, Clone)]
pub struct PolicySet {
    digest: Digest,
    revision: String,
    required: Required,
    /// Sorted by name, which is the order of verdicts.
    policies: Vec<Policy>,
    index: Index,
    how: How,
}

#[derive(Debug, Clone)]
struct Policy {
    name: Id,
    level: Level,
    mode: Mode,
    /// What of its denials can be lifted; all of them if absent.
    waivable: Option<Vec<Code>>,
    select: Selector,
    metadata: PolicyMetadata,
    program: Program,
}

#[derive(Debug, Clone)]
enum Program {
    // Boxed: an interpreter is many times the size of a compiled component.
    Rego(Box<RegoPolicy>),
    Wasm(Box<WasmPolicy>),
}

impl Program {
    /// What the policy says of itself: in its annotations, or for a component in the manifest.
    fn metadata(&self, entry: &Entry) -> PolicyMetadata {
        match self {
            Self::Rego(program) => program.metadata().clone(),
            Self::Wasm(_) => PolicyMetadata {
                policy: entry.metadata.clone().unwrap_or_default(),
                ..PolicyMetadata::default()
            },
        }
    }
}

/// What a bundle says of one input: for each acceptable GPU model, in the request's order. Its
/// canonical JSON is what the signed decision digests and what a replay must give again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// SHA-256 of the bundle.
    pub bundle: Digest,
    /// One for each GPU model; empty if the request could not be resolved to an input.
    pub candidates: Vec<Candidate>,
    /// The denials that the request's waivers lift, in their order; left out if it brought none. A
    /// replay evaluates with them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lifts: Vec<Waived>,
}

/// What a bundle says of an input with one of its GPU models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The model.
    pub gpu_model: Id,
    /// The verdicts combined.
    pub outcome: Outcome,
    /// Every selected policy's verdict, by name.
    pub verdicts: Vec<PolicyVerdict>,
}

impl Evaluation {
    /// Of a request that could not be resolved to an input: no policy was asked.
    #[must_use]
    pub fn unresolved(bundle: Digest) -> Self {
        Self { bundle, candidates: Vec::new(), lifts: Vec::new() }
    }

    /// The first candidate that is permitted, before the ledger has its say.
    #[must_use]
    pub fn permitted(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.outcome.effect == Effect::Permit)
    }
}

impl PolicySet {
    /// Compiles every policy of a bundle. All or nothing.
    ///
    /// # Errors
    /// [`LoadError`] with file, line, column and remedy where known: the first policy that does not
    /// compile.
    pub fn compile(bundle: &Bundle, runtime: &WasmRuntime) -> Result<Self, LoadError> {
        Self::with(bundle, runtime, How::Served)
    }

    /// The same bundle with what its Rego reaches in a record. It says the same, at a higher cost:
    /// only tests evaluate it.
    ///
    /// # Errors
    /// As [`PolicySet::compile`].
    pub fn compile_recorded(
        bundle: &Bundle,
        runtime: &WasmRuntime,
        recorder: &Recorder,
    ) -> Result<Self, LoadError> {
        Self::with(bundle, runtime, How::Recorded(recorder.clone()))
    }

    /// The same bundle with every twin in the place of its policy; `None` if it has no twins. Only
    /// tests evaluate it.
    ///
    /// # Errors
    /// As [`PolicySet::compile`].
    pub fn compile_twins(
        bundle: &Bundle,
        runtime: &WasmRuntime,
    ) -> Result<Option<Self>, LoadError> {
        if bundle.manifest().policies.iter().all(|entry| entry.twin.is_none()) {
            return Ok(None);
        }
        Self::with(bundle, runtime, How::Twins).map(Some)
    }

    fn with(bundle: &Bundle, runtime: &WasmRuntime, how: How) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let mut entries: Vec<_> = manifest.policies.iter().collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let mut policies = Vec::with_capacity(entries.len());
        let index = Index::of(entries.iter().map(|entry| &entry.select));
        for entry in entries {
            let program = compile(entry, &how, bundle, runtime)?;
            policies.push(Policy {
                name: entry.name.clone(),
                level: entry.level,
                mode: entry.mode,
                waivable: entry.waivable.clone(),
                select: entry.select.clone(),
                metadata: program.metadata(entry),
                program,
            });
        }
        Ok(Self {
            digest: bundle.digest(),
            revision: bundle.revision().to_owned(),
            required: manifest.required.clone(),
            policies,
            index,
            how,
        })
    }

    /// SHA-256 of the bundle.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the bundle's manifest calls this state of it.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Names of the policies, sorted.
    pub fn names(&self) -> impl Iterator<Item = &Id> {
        self.policies.iter().map(|policy| &policy.name)
    }

    /// What a policy says of itself, and of its rules.
    #[must_use]
    pub fn metadata(&self, policy: &str) -> Option<&PolicyMetadata> {
        let named = |other: &&Policy| other.name.as_str() == policy;
        self.policies.iter().find(named).map(|policy| &policy.metadata)
    }

    /// Whether a policy may say whom a request displaces; a component may.
    pub(crate) fn may_displace(&self, policy: &str) -> bool {
        let named = self.policies.iter().find(|other| other.name.as_str() == policy);
        named.is_some_and(|policy| match &policy.program {
            Program::Rego(program) => program.may_displace(),
            Program::Wasm(_) => true,
        })
    }

    /// Whether a policy is one whose denials can be lifted, and this is one of these.
    fn lets_lift(&self, lift: &Waived) -> bool {
        let named = |policy: &&Policy| policy.name == lift.policy;
        self.policies.iter().find(named).is_some_and(|policy| {
            policy.level == Level::Overridable
                && !lift.code.as_str().starts_with(PARAMS_CODES)
                && policy.waivable.as_ref().is_none_or(|codes| codes.contains(&lift.code))
        })
    }

    /// Fills `selected` with the positions of the policies that select an input, sorted.
    fn select(&self, input: &Input, kind: SubjectKind, selected: &mut Vec<usize>) {
        selected.clear();
        selected.extend(self.index.filed(input, kind).filter(|at| {
            self.policies.get(*at).is_some_and(|policy| policy.select.matches(input, kind))
        }));
        selected.sort_unstable();
    }
}

/// Which source of each policy is compiled, and what for.
#[derive(Debug, Clone)]
enum How {
    /// What decides.
    Served,
    /// Twins, where there are any.
    Twins,
    /// Rego, where there is any, to know what is reached of it.
    Recorded(Recorder),
}

impl How {
    fn source<'e>(&self, entry: &'e Entry) -> &'e String {
        match self {
            Self::Served => &entry.source,
            Self::Twins => entry.twin.as_ref().unwrap_or(&entry.source),
            Self::Recorded(_) => coverage::measured(entry),
        }
    }
}

fn compile(
    entry: &Entry,
    how: &How,
    bundle: &Bundle,
    runtime: &WasmRuntime,
) -> Result<Program, LoadError> {
    let source = how.source(entry);
    match Language::of(source) {
        Some(Language::Wasm) => {
            let (name, budget) = (entry.name.clone(), entry.budget.wasm());
            let (bytes, params) = (bundle.file(source), params(entry)?);
            let policy = WasmPolicy::compile(runtime, name, source, bytes, params, budget)?;
            Ok(Program::Wasm(Box::new(policy)))
        }
        // The manifest's check let nothing else pass.
        Some(Language::Rego) | None => rego_program(entry, how, bundle, true),
    }
}

/// A policy in Rego with an entry's params; `checked` if it may refuse them itself.
fn rego_program(
    entry: &Entry,
    how: &How,
    bundle: &Bundle,
    checked: bool,
) -> Result<Program, LoadError> {
    let source = how.source(entry);
    let params = rego::params(&params(entry)?);
    let text = document::text(bundle.file(source), source)?;
    let schema = entry.params_schema.as_deref().and_then(|path| bundle.params_schema(path));
    let budget = entry.budget.ticks();
    let policy = match how {
        How::Served | How::Twins => RegoPolicy::compile(text, source, &params, schema, budget),
        How::Recorded(recorder) => {
            let record = recorder.of(source);
            RegoPolicy::with_record(text, source, &params, schema, budget, record)
        }
    }?;
    if checked {
        bundle.refuse_params(entry, policy.wrong_params())?;
    }
    Ok(Program::Rego(Box::new(policy)))
}

/// The key by which the interpreter's JSON reader hands over numbers.
const NUMBER_KEY: &str = "$serde_json::private";

/// Params as canonical JSON. The bundle's check left nothing in them that has none.
pub(crate) fn params(entry: &Entry) -> Result<String, Fault> {
    let wrong = || {
        let name = &entry.name;
        Fault::new(MANIFEST, format!("params of policy `{name}` hold what JSON cannot hold"))
            .hint("write names, texts, numbers, lists and mappings")
    };
    let bytes = canonical_json(&entry.params).map_err(|_error| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_error| wrong())?;
    // The interpreter's reader takes an object with this key for a number of any length.
    if text.contains(NUMBER_KEY) { Err(wrong()) } else { Ok(text) }
}

/// Evaluates inputs on one thread, with engines of its own. Gives the same evaluation for the same
/// input, whatever it evaluated before.
#[derive(Debug)]
pub struct Evaluator {
    set: Arc<PolicySet>,
    /// An interpreter for each Rego policy that was asked so far, by position.
    engines: Vec<Option<Box<RegoPolicy>>>,
    /// Positions of the policies that select the input at hand; kept so that no evaluation
    /// allocates it again.
    selected: Vec<usize>,
}

impl Evaluator {
    /// An evaluator for one thread.
    #[must_use]
    pub fn new(set: Arc<PolicySet>) -> Self {
        let engines = set.policies.iter().map(|_| None).collect();
        Self { set, engines, selected: Vec::new() }
    }

    /// What it evaluates.
    pub(crate) fn set(&self) -> &PolicySet {
        &self.set
    }

    /// Asks every policy that selects the input, once for each of its acceptable GPU models, and
    /// combines the verdicts.
    ///
    /// # Errors
    /// [`EvaluateError::Backstop`] if a policy ran into the wall clock: nothing is decided.
    pub fn evaluate(&mut self, input: &Input) -> Result<Evaluation, EvaluateError> {
        self.evaluate_waived(input, Vec::new())
    }

    /// The same under waivers that were found good: `lifts` are the denials that they lift, in
    /// their order. What a policy's entry in the manifest does not let be lifted stays.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn evaluate_waived(
        &mut self,
        input: &Input,
        lifts: Vec<Waived>,
    ) -> Result<Evaluation, EvaluateError> {
        let set = Arc::clone(&self.set);
        let (kind, workload) = match (&input.lease, &input.job) {
            (Some(lease), _) => (SubjectKind::Lease, lease),
            (None, Some(job)) => (SubjectKind::Job, job),
            // Such an input is never resolved; one that was made up has no candidates, and so no
            // permit.
            (None, None) => return Ok(Evaluation::unresolved(set.digest)),
        };
        let mut selected = std::mem::take(&mut self.selected);
        set.select(input, kind, &mut selected);
        let counted: Vec<Waived> =
            lifts.iter().filter(|lift| set.lets_lift(lift)).cloned().collect();
        let asked = (kind, workload, &*counted);
        let candidates = self.candidates(&set, &selected, input, asked);
        self.selected = selected;
        Ok(Evaluation { bundle: set.digest, candidates: candidates?, lifts })
    }

    fn candidates(
        &mut self,
        set: &PolicySet,
        selected: &[usize],
        input: &Input,
        (kind, workload, lifts): (SubjectKind, &Workload, &[Waived]),
    ) -> Result<Vec<Candidate>, EvaluateError> {
        let document = input.to_value();
        let mut candidates = Vec::with_capacity(workload.gpu_models.len());
        for gpu_model in &workload.gpu_models {
            let document = if *gpu_model == workload.gpu_model {
                document.clone()
            } else {
                rego::with_gpu_model(&document, kind.as_str(), gpu_model)
            };
            let mut verdicts = Vec::with_capacity(selected.len());
            for at in selected {
                let Some(policy) = set.policies.get(*at) else { continue };
                let answer = self.ask(*at, policy, input, &document, gpu_model)?;
                verdicts.push(verdict(policy, answer));
            }
            let outcome = combine_waived(&verdicts, set.required.of(kind), lifts);
            candidates.push(Candidate { gpu_model: gpu_model.clone(), outcome, verdicts });
        }
        Ok(candidates)
    }

    fn ask(
        &mut self,
        at: usize,
        policy: &Policy,
        input: &Input,
        document: &Value,
        gpu_model: &Id,
    ) -> Result<Answer, EvaluateError> {
        match &policy.program {
            Program::Wasm(program) => program.evaluate(input, gpu_model),
            Program::Rego(program) => match self.engines.get_mut(at) {
                Some(slot) => {
                    let engine = slot.get_or_insert_with(|| program.clone());
                    let answer = engine.evaluate(document, input.time);
                    // An interpreter that stopped in the middle keeps loop variables, rules under
                    // way and what `with` put in: the next evaluation must not begin there.
                    if matches!(answer.finding, Finding::Indeterminate(_)) {
                        *slot = None;
                    }
                    Ok(answer)
                }
                None => Ok(Answer::indeterminate("has no engine", Cost::default())),
            },
        }
    }
}

/// An answer under the policy's name.
fn verdict(policy: &Policy, answer: Answer) -> PolicyVerdict {
    let Answer { finding, cost } = answer;
    let (decided, verdict, error) = match finding {
        Finding::Decided(decided) if decided.denials.is_empty() => (decided, Verdict::Permit, None),
        Finding::Decided(decided) => (decided, Verdict::Deny, None),
        Finding::NotApplicable => (Decided::default(), Verdict::NotApplicable, None),
        Finding::Indeterminate(error) => (Decided::default(), Verdict::Indeterminate, Some(error)),
    };
    let name = || policy.name.clone();
    let reasons = decided.denials.into_iter().map(|denial| Reason {
        counterfactual: None,
        code: denial.code,
        field: denial.field,
        hint: denial.hint,
        message: denial.message,
        policy: name(),
        retry: denial.retry,
    });
    let warnings = decided.warnings.into_iter().map(|caution| Warning {
        code: caution.code,
        message: caution.message,
        policy: name(),
    });
    PolicyVerdict {
        claims: decided.claims,
        cost,
        error,
        level: policy.level,
        mode: policy.mode,
        obligations: decided.obligations,
        policy: name(),
        preemption: decided.preemption,
        reasons: reasons.collect(),
        terms: decided.terms,
        verdict,
        warnings: warnings.collect(),
    }
}
