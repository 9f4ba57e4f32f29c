//! A compiled bundle, and the pure function from an input to an evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use placet_core::{
    Cost, Digest, Effect, Id, Level, Mode, Outcome, PolicyVerdict, Reason, SubjectKind, Verdict,
    Warning, canonical_json, combine,
};
use regorus::Value;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Decided, Finding};
use crate::bundle::{Bundle, Entry, Language, MANIFEST, Required, Select};
use crate::document;
use crate::error::{EvaluateError, Fault, LoadError};
use crate::input::Input;
use crate::rego::{self, RegoPolicy};
use crate::wasm::{WasmPolicy, WasmRuntime};

/// Largest whole number of a policy's parameters: what every JSON reader keeps exact (RFC 8785
/// section 3.2.2.3).
const MAX_PARAM: u64 = placet_core::MAX_AMOUNT;

/// Every policy of a bundle, compiled and indexed. Shared by all threads; each has an [`Evaluator`]
/// of its own.
#[derive(Debug)]
pub struct PolicySet {
    digest: Digest,
    revision: String,
    required: Required,
    /// Sorted by name, which is the order of verdicts.
    policies: Vec<Policy>,
    index: Index,
}

#[derive(Debug)]
struct Policy {
    name: Id,
    level: Level,
    mode: Mode,
    select: Select,
    program: Program,
}

#[derive(Debug)]
enum Program {
    // Boxed: an interpreter is many times the size of a compiled component.
    Rego(Box<RegoPolicy>),
    Wasm(Box<WasmPolicy>),
}

/// Positions of policies by the most telling part of their selector, so that cost follows the
/// policies that match.
#[derive(Debug, Default)]
struct Index {
    by_tenant: BTreeMap<Id, Vec<usize>>,
    by_cluster: BTreeMap<Id, Vec<usize>>,
    rest: Vec<usize>,
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
        Self { bundle, candidates: Vec::new() }
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
        Self::with_sources(bundle, runtime, |entry| &entry.source)
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
        Self::with_sources(bundle, runtime, |entry| entry.twin.as_ref().unwrap_or(&entry.source))
            .map(Some)
    }

    fn with_sources(
        bundle: &Bundle,
        runtime: &WasmRuntime,
        source: fn(&Entry) -> &String,
    ) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let mut entries: Vec<_> = manifest.policies.iter().collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let mut policies = Vec::with_capacity(entries.len());
        let mut index = Index::default();
        for (at, entry) in entries.into_iter().enumerate() {
            let program = compile(entry, source(entry), bundle, runtime)?;
            index.insert(at, &entry.select);
            policies.push(Policy {
                name: entry.name.clone(),
                level: entry.level,
                mode: entry.mode,
                select: entry.select.clone(),
                program,
            });
        }
        Ok(Self {
            digest: bundle.digest(),
            revision: bundle.revision().to_owned(),
            required: manifest.required.clone(),
            policies,
            index,
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

    /// Positions of the policies that select an input, sorted.
    fn selected(&self, input: &Input, kind: SubjectKind) -> Vec<usize> {
        let index = &self.index;
        let tenant = index.by_tenant.get(&input.tenant.id).into_iter().flatten();
        let cluster = index.by_cluster.get(&input.cluster.id).into_iter().flatten();
        let all = tenant.chain(cluster).chain(&index.rest).copied();
        let matches = |at: &usize| {
            self.policies.get(*at).is_some_and(|policy| policy.select.matches(input, kind))
        };
        let selected: BTreeSet<usize> = all.filter(matches).collect();
        selected.into_iter().collect()
    }
}

impl Select {
    fn matches(&self, input: &Input, kind: SubjectKind) -> bool {
        fn any_or<T: PartialEq>(list: &[T], one: &T) -> bool {
            list.is_empty() || list.contains(one)
        }
        any_or(&self.kinds, &kind)
            && any_or(&self.tenants, &input.tenant.id)
            && any_or(&self.clusters, &input.cluster.id)
            && any_or(&self.priority_classes, &input.priority_class)
    }
}

impl Index {
    fn insert(&mut self, at: usize, select: &Select) {
        if !select.tenants.is_empty() {
            for tenant in &select.tenants {
                self.by_tenant.entry(tenant.clone()).or_default().push(at);
            }
        } else if !select.clusters.is_empty() {
            for cluster in &select.clusters {
                self.by_cluster.entry(cluster.clone()).or_default().push(at);
            }
        } else {
            self.rest.push(at);
        }
    }
}

fn compile(
    entry: &Entry,
    source: &str,
    bundle: &Bundle,
    runtime: &WasmRuntime,
) -> Result<Program, LoadError> {
    let params = params(entry)?;
    let bytes = bundle.file(source);
    match Language::of(source) {
        Some(Language::Wasm) => {
            let (name, budget) = (entry.name.clone(), entry.budget.wasm());
            let policy = WasmPolicy::compile(runtime, name, source, bytes, params, budget)?;
            Ok(Program::Wasm(Box::new(policy)))
        }
        // The manifest's check let nothing else pass.
        Some(Language::Rego) | None => {
            let text = document::text(bytes, source)?;
            let params = rego::params(&params);
            let policy = RegoPolicy::compile(text, source, &params, entry.budget.ticks())?;
            Ok(Program::Rego(Box::new(policy)))
        }
    }
}

/// Parameters as canonical JSON, in which every number is exact.
fn params(entry: &Entry) -> Result<String, Fault> {
    let wrong = |message: &str| {
        let name = &entry.name;
        Fault::new(MANIFEST, format!("params of policy `{name}` hold a number {message}"))
            .hint("give large amounts in a larger unit, or as text")
    };
    let mut left: Vec<&serde_json::Value> = entry.params.values().collect();
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Number(number) => {
                let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
                if whole.is_some_and(|whole| whole > MAX_PARAM) {
                    return Err(wrong("beyond 2^53 - 1"));
                }
                if whole.is_none() && number.as_f64().is_none_or(|number| !number.is_finite()) {
                    return Err(wrong("that is not finite"));
                }
            }
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Object(fields) => left.extend(fields.values()),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => {
            }
        }
    }
    let bytes = canonical_json(&entry.params).map_err(|_error| wrong("that JSON cannot hold"))?;
    String::from_utf8(bytes).map_err(|_error| wrong("that JSON cannot hold"))
}

/// Evaluates inputs on one thread, with engines of its own. Gives the same evaluation for the same
/// input, whatever it evaluated before.
#[derive(Debug)]
pub struct Evaluator {
    set: Arc<PolicySet>,
    /// An interpreter for each Rego policy that was asked so far, by position.
    engines: Vec<Option<Box<RegoPolicy>>>,
}

impl Evaluator {
    /// An evaluator for one thread.
    #[must_use]
    pub fn new(set: Arc<PolicySet>) -> Self {
        let engines = set.policies.iter().map(|_| None).collect();
        Self { set, engines }
    }

    /// Asks every policy that selects the input, once for each of its acceptable GPU models, and
    /// combines the verdicts.
    ///
    /// # Errors
    /// [`EvaluateError::Backstop`] if a policy ran into the wall clock: nothing is decided.
    pub fn evaluate(&mut self, input: &Input) -> Result<Evaluation, EvaluateError> {
        let set = Arc::clone(&self.set);
        let (kind, workload) = match (&input.lease, &input.job) {
            (Some(lease), _) => (SubjectKind::Lease, lease),
            (None, Some(job)) => (SubjectKind::Job, job),
            // Such an input is never resolved; one that was made up has no candidates, and so no
            // permit.
            (None, None) => return Ok(Evaluation::unresolved(set.digest)),
        };
        let selected = set.selected(input, kind);
        let document = input.to_value();
        let mut candidates = Vec::with_capacity(workload.gpu_models.len());
        for gpu_model in &workload.gpu_models {
            let document = if *gpu_model == workload.gpu_model {
                document.clone()
            } else {
                rego::with_gpu_model(&document, kind.as_str(), gpu_model)
            };
            let mut verdicts = Vec::with_capacity(selected.len());
            for at in &selected {
                let Some(policy) = set.policies.get(*at) else { continue };
                let answer = self.ask(*at, policy, input, &document, gpu_model)?;
                verdicts.push(verdict(policy, answer));
            }
            let outcome = combine(&verdicts, set.required.of(kind));
            candidates.push(Candidate { gpu_model: gpu_model.clone(), outcome, verdicts });
        }
        Ok(Evaluation { bundle: set.digest, candidates })
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
                Some(engine) => {
                    let engine = engine.get_or_insert_with(|| program.clone());
                    Ok(engine.evaluate(document, input.time))
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
        verdict,
        warnings: warnings.collect(),
    }
}
