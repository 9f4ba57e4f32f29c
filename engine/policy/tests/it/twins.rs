//! Policies that ship in two languages are one policy: on any input of the domain, and under any
//! params, both say the same, word for word.
//!
//! Inputs come in batches, each with params of its own, from a seed; whatever fails is told with
//! seed and batch, and with an input made as small as it gets.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use placet_core::{Cost, PolicyVerdict, Verdict};
use placet_policy::{Bundle, Evaluator, Input, LoadError, PolicySet, WasmRuntime};
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::{Value, json};

mod domain;
mod laws;
mod mutants;

/// Of every change's run. Any other finds other inputs, see [`as_many_as_asked_for`].
const SEED: u64 = 1;
/// Inputs through each pair at every change.
const INPUTS: u32 = 10_000;
/// Inputs under the same params: to compile a pair takes as long as to ask it for so many.
const BATCH: u32 = 250;
/// Inputs for one that goes through the laws, which asks each twin five times.
const LAWS_EVERY: u64 = 25;
/// Steps in which a failing input is made smaller: enough for what has a few dozen parts.
const MAX_SHRINK_STEPS: u32 = 4_096;

/// A policy in both languages.
struct Pair {
    name: &'static str,
    /// What its schema admits.
    params: fn() -> BoxedStrategy<Value>,
    /// Laws that it keeps, by themselves; each tells how one was broken.
    laws: fn(&mut Evaluator, &Input) -> Result<(), String>,
}

const ISOLATION: Pair =
    Pair { name: "isolation", params: domain::isolation_params, laws: laws::of_isolation };
const RESIDENCY: Pair =
    Pair { name: "residency", params: domain::residency_params, laws: laws::of_residency };

impl Pair {
    fn file(&self, ending: &str) -> PathBuf {
        let name = self.name;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
        root.join(format!("{name}/{name}.{ending}"))
    }

    fn rego(&self) -> String {
        std::fs::read_to_string(self.file("rego")).expect("it ships")
    }
}

/// The engine, and compiled code that is used again under other params.
struct Machine {
    runtime: WasmRuntime,
    _cache: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let cache = tempfile::tempdir().expect("a directory");
        let runtime = WasmRuntime::with_cache(&cache.path().join("code")).expect("it starts");
        Self { runtime, _cache: cache }
    }
}

/// How a pair is loaded.
struct Terms {
    /// Budget of the interpreter.
    ticks: u64,
    /// Whether the schema checks the params.
    schema: bool,
}

/// As the shipped bundle does.
const DEFAULT: Terms = Terms { ticks: 100_000, schema: true };
/// With the largest budget there is: lists as long as they get cost more than the default.
const LARGE: Terms = Terms { ticks: 2_000_000, schema: true };
/// The same with nobody who checks the params.
const UNCHECKED: Terms = Terms { schema: false, ..LARGE };

/// A pair at work under some params.
struct Twins {
    rego: Evaluator,
    wasm: Evaluator,
}

impl Twins {
    /// A bundle of this pair alone, with the Rego as it is given.
    fn load(
        pair: &Pair,
        rego: &str,
        params: &Value,
        terms: &Terms,
        machine: &Machine,
    ) -> Result<Self, LoadError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("p.rego"), rego).expect("it is written");
        for ending in ["wasm", "schema.json"] {
            std::fs::copy(pair.file(ending), path(&format!("p.{ending}"))).expect("it is copied");
        }
        let mut entry = json!({
            "name": pair.name, "source": "p.rego", "twin": "p.wasm", "params": params,
            "budget": {"ticks": terms.ticks},
        });
        if terms.schema {
            entry["params_schema"] = "p.schema.json".into();
        }
        let manifest = json!({"schema": "placet.bundle/v1", "revision": "1", "policies": [entry]});
        std::fs::write(path("bundle.yaml"), manifest.to_string()).expect("it is written");
        let bundle = Bundle::load(directory.path())?;
        let rego = PolicySet::compile(&bundle, &machine.runtime)?;
        let wasm = PolicySet::compile_twins(&bundle, &machine.runtime)?.expect("it has a twin");
        Ok(Self { rego: Evaluator::new(Arc::new(rego)), wasm: Evaluator::new(Arc::new(wasm)) })
    }

    /// What both say, without what may differ: cost, and the words of an error.
    fn ask(&mut self, input: &Input) -> [PolicyVerdict; 2] {
        [&mut self.rego, &mut self.wasm].map(|evaluator| verdict(evaluator, input))
    }
}

fn verdict(evaluator: &mut Evaluator, input: &Input) -> PolicyVerdict {
    let evaluation = evaluator.evaluate(input).expect("no backstop");
    let [candidate] = &evaluation.candidates[..] else { panic!("one GPU model: {evaluation:?}") };
    let [verdict] = &candidate.verdicts[..] else { panic!("one policy: {candidate:?}") };
    PolicyVerdict { cost: Cost::default(), error: None, ..verdict.clone() }
}

/// Codes of denials and ids of obligations.
fn words(verdict: &PolicyVerdict) -> impl Iterator<Item = String> {
    let codes = verdict.reasons.iter().map(|reason| reason.code.to_string());
    codes.chain(verdict.obligations.iter().map(|duty| duty.id.to_string()))
}

/// Where inputs come from.
#[derive(Clone, Copy)]
struct Source {
    seed: u64,
    batch: u32,
    inputs: u32,
    shrink: bool,
}

impl Source {
    fn runner(&self) -> TestRunner {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&self.batch.to_le_bytes());
        let max_shrink_iters = if self.shrink { MAX_SHRINK_STEPS } else { 0 };
        let (cases, failure_persistence) = (self.inputs, None);
        let config = Config { cases, failure_persistence, max_shrink_iters, ..Config::default() };
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }

    /// A batch of inputs; the first that fails.
    fn each(
        &self,
        mut runner: TestRunner,
        mut check: impl FnMut(&Input) -> Result<(), String>,
    ) -> Result<(), String> {
        let check = RefCell::new(&mut check);
        let failed = runner.run(&domain::input(), |input| {
            let checked = (check.borrow_mut())(&input);
            checked.map_err(TestCaseError::fail)
        });
        failed.map_err(|error| match error {
            TestError::Fail(reason, input) => {
                let input = String::from_utf8(input.canonical()).expect("it is JSON");
                let Self { seed, batch, .. } = self;
                format!("seed {seed}, batch {batch}: {reason}\ninput: {input}")
            }
            TestError::Abort(reason) => format!("it was given up: {reason}"),
        })
    }
}

/// What a run has met.
#[derive(Debug, Default)]
struct Met {
    inputs: u64,
    permits: u64,
    denials: u64,
    words: BTreeSet<String>,
}

/// Puts one batch through a pair, some of its inputs through the laws too.
fn batch(
    pair: &Pair,
    rego: &str,
    source: &Source,
    machine: &Machine,
    met: &mut Met,
) -> Result<(), String> {
    let mut runner = source.runner();
    let params = (pair.params)().new_tree(&mut runner).expect("there are some").current();
    let twins = Twins::load(pair, rego, &params, &LARGE, machine);
    let mut twins = twins.unwrap_or_else(|error| panic!("params {params}: {error}"));
    let checked = source.each(runner, |input| {
        let [rego, wasm] = twins.ask(input);
        if rego != wasm {
            return Err(format!("Rego says {rego:?}, and Wasm {wasm:?}"));
        }
        if met.inputs.is_multiple_of(LAWS_EVERY) {
            (pair.laws)(&mut twins.rego, input)?;
            (pair.laws)(&mut twins.wasm, input)?;
        }
        met.inputs += 1;
        met.permits += u64::from(rego.verdict == Verdict::Permit);
        met.denials += u64::from(rego.verdict == Verdict::Deny);
        met.words.extend(words(&rego));
        Ok(())
    });
    checked.map_err(|error| format!("{}: {error}\nparams: {params}", pair.name))
}

/// So many inputs through a pair, and whether they were such that equality says something.
#[track_caller]
fn are_equal(pair: &Pair, seed: u64, inputs: u32) -> Met {
    let (machine, rego, mut met) = (Machine::new(), pair.rego(), Met::default());
    for number in 0..inputs.div_ceil(BATCH) {
        let source = Source { seed, batch: number, inputs: BATCH, shrink: true };
        batch(pair, &rego, &source, &machine, &mut met).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(met.inputs >= u64::from(inputs));
    assert!(met.permits * 20 > met.inputs && met.denials * 20 > met.inputs, "{met:?}");
    let said = declared(&rego);
    assert!(said.is_subset(&met.words), "never met: {:?}", said.difference(&met.words));
    met
}

/// The codes and obligations that a policy declares in its annotations.
fn declared(rego: &str) -> BTreeSet<String> {
    let line = |line: &str| {
        let declared = line.strip_prefix("#   code: ").or(line.strip_prefix("#   obligation: "));
        declared.map(str::to_owned)
    };
    let found: BTreeSet<_> = rego.lines().filter_map(line).collect();
    assert!(found.len() > 3, "{found:?}");
    found
}

#[test]
fn isolation_says_the_same_in_both_languages() {
    are_equal(&ISOLATION, SEED, INPUTS);
}

#[test]
fn residency_says_the_same_in_both_languages() {
    are_equal(&RESIDENCY, SEED, INPUTS);
}

/// Params that the schema refuses never get as far as a decision. A bundle without the schema may
/// have them; then the component, which reads them by their types, either says what the Rego says
/// or cannot tell, which denies.
#[track_caller]
fn survive_hostile_params(pair: &Pair, hostile: &[Value]) {
    let (machine, rego) = (Machine::new(), pair.rego());
    for (number, params) in (0..).zip(hostile) {
        let refused = Twins::load(pair, &rego, params, &LARGE, &machine);
        let Err(refused) = refused else { panic!("{}: {params} is taken", pair.name) };
        assert!(refused.to_string().contains("bundle.yaml"), "{params}: {refused}");
        // The interpreter may see at load that these cannot be read as the policy reads them.
        let Ok(mut twins) = Twins::load(pair, &rego, params, &UNCHECKED, &machine) else {
            continue;
        };
        let source = Source { seed: SEED, batch: number, inputs: 25, shrink: true };
        let checked = source.each(source.runner(), |input| {
            let [rego, wasm] = twins.ask(input);
            if wasm.verdict != Verdict::Indeterminate && rego != wasm {
                return Err(format!("Rego says {rego:?}, and Wasm {wasm:?}"));
            }
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{}: {error}\nparams: {params}", pair.name));
    }
}

#[test]
fn hostile_params_are_refused_or_read_alike() {
    survive_hostile_params(&ISOLATION, &domain::hostile_isolation_params());
    survive_hostile_params(&RESIDENCY, &domain::hostile_residency_params());
}

/// The most that a request may read and write, all of it personal and at home in thirty countries,
/// within the budget that a policy has by default.
#[test]
fn the_largest_permit_is_told_by_both_within_the_default_budget() {
    let (machine, params) = (Machine::new(), json!({"adequate": []}));
    let rego = RESIDENCY.rego();
    let twins = Twins::load(&RESIDENCY, &rego, &params, &DEFAULT, &machine);
    let told = twins.expect("it loads").ask(&domain::largest(30));
    for verdict in &told {
        assert_eq!(verdict.verdict, Verdict::Permit, "{verdict:?}");
        assert_eq!(verdict.obligations.len(), 1, "{verdict:?}");
    }
    assert_eq!(told[0], told[1]);
}

/// Run with `make twins INPUTS=1000000 SEED=1`.
#[test]
#[ignore = "takes minutes: `make twins INPUTS=1000000 SEED=1`"]
fn as_many_as_asked_for() {
    #[expect(clippy::disallowed_methods, reason = "nothing else can be told to a test")]
    fn asked<T: std::str::FromStr>(name: &str, default: T) -> T {
        let text = std::env::var(name).unwrap_or_default();
        if text.is_empty() {
            return default;
        }
        text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    }
    let (seed, inputs) = (asked("TWINS_SEED", SEED), asked("TWINS_INPUTS", 100 * INPUTS));
    for pair in [&ISOLATION, &RESIDENCY] {
        let met = are_equal(pair, seed, inputs);
        let Met { inputs, permits, denials, .. } = met;
        let rest = inputs - permits - denials;
        let name = pair.name;
        #[expect(clippy::print_stdout, reason = "it is run by a person, for this line")]
        {
            println!(
                "{name}: seed {seed}, {inputs} inputs, no difference; {permits} permits, \
                 {denials} denials, {rest} indeterminate"
            );
        }
    }
}
