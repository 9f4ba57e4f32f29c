//! What one decision costs in the policies: the input's document, one Rego policy, the shipped
//! bundle, combining.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use placet_core::combine;
use placet_policy::{Bundle, Evaluator, Input, PolicySet, WasmRuntime};

fn input() -> Input {
    serde_json::from_str(include_str!("../tests/it/sample.json")).expect("it is an input")
}

fn set(directory: &Path) -> Arc<PolicySet> {
    let bundle = Bundle::load(directory).expect("the bundle loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    Arc::new(PolicySet::compile(&bundle, &runtime).expect("it compiles"))
}

fn document(bench: &mut Criterion) {
    let input = input();
    bench.bench_function("input/value", |b| b.iter(|| black_box(&input).to_value()));
    bench.bench_function("input/canonical", |b| b.iter(|| black_box(&input).canonical()));
}

fn one_policy(bench: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\n\
        policies: [{name: p, source: p.rego}]\n";
    let policy = "package placet.p\n\
        deny contains {\"code\": \"NO\", \"message\": \"no\"} if {\n\
        \tsome pool in input.cluster.gpus\n\
        \tpool.model == input.lease.gpu_model\n\
        \tinput.lease.gpu_count > pool.count - pool.safety_buffer\n\
        }\n";
    std::fs::write(directory.path().join("bundle.yaml"), manifest).expect("it is written");
    std::fs::write(directory.path().join("p.rego"), policy).expect("it is written");
    let mut evaluator = Evaluator::new(set(directory.path()));
    let mut input = input();
    if let Some(lease) = &mut input.lease {
        lease.gpu_models.truncate(1);
    }
    bench.bench_function("evaluate/one_rego_policy", |b| {
        b.iter(|| evaluator.evaluate(black_box(&input)).expect("no backstop"));
    });
}

fn shipped(bench: &mut Criterion) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    let mut evaluator = Evaluator::new(set(&directory));
    let mut input = input();
    if let Some(lease) = &mut input.lease {
        lease.gpu_models.truncate(1);
    }
    bench.bench_function("evaluate/shipped_bundle", |b| {
        b.iter(|| evaluator.evaluate(black_box(&input)).expect("no backstop"));
    });
    let evaluation = evaluator.evaluate(&input).expect("no backstop");
    let verdicts = &evaluation.candidates.first().expect("one candidate").verdicts;
    bench.bench_function("combine", |b| b.iter(|| combine(black_box(verdicts), &[])));
}

const POLICY: &str = "package placet.p\n\
    deny contains {\"code\": \"NO\", \"message\": \"no\"} if {\n\
    \tsome pool in input.cluster.gpus\n\
    \tpool.model == input.lease.gpu_model\n\
    \tinput.lease.gpu_count > pool.count - pool.safety_buffer\n\
    }\n";

/// An evaluator of a bundle of which five policies select the sample, and others do not, each for
/// a reason of its own.
fn installed(others: usize) -> Evaluator {
    let directory = tempfile::tempdir().expect("a directory");
    let mut manifest = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n".to_owned();
    let mut add = |name: &str, select: &str| {
        manifest.push_str(&format!("  - {{name: {name}, source: p.rego, select: {select}}}\n"));
    };
    for (at, select) in [
        "{}",
        "{kinds: [lease]}",
        "{tenants: [t-1]}",
        "{clusters: [c-1]}",
        "{tenants: [t-1], clusters: [c-1]}",
    ]
    .into_iter()
    .enumerate()
    {
        add(&format!("m-{at}"), select);
    }
    for at in 0..others {
        let select = match at % 5 {
            0 => format!("{{tenants: [other-{at}]}}"),
            1 => format!("{{clusters: [other-{at}]}}"),
            2 => format!("{{tenants: [t-1], clusters: [other-{at}]}}"),
            3 => "{jurisdictions: [ZZ]}".to_owned(),
            _ => "{kinds: [job]}".to_owned(),
        };
        add(&format!("o-{at}"), &select);
    }
    std::fs::write(directory.path().join("bundle.yaml"), manifest).expect("it is written");
    std::fs::write(directory.path().join("p.rego"), POLICY).expect("it is written");
    Evaluator::new(set(directory.path()))
}

/// Five policies that match, alone and among a thousand. The rounds take turns, so that what else
/// the machine does meets both alike; the ratio is of the medians.
#[expect(clippy::disallowed_methods, reason = "the ratio is measured within one run")]
#[expect(clippy::print_stderr, reason = "the ratio is what the benchmark is for")]
fn among_a_thousand(bench: &mut Criterion) {
    const ROUNDS: usize = 200;
    const CALLS: u32 = 50;
    let mut input = input();
    if let Some(lease) = &mut input.lease {
        lease.gpu_models.truncate(1);
    }
    let mut few = installed(0);
    let mut many = installed(995);
    let asked = |evaluator: &mut Evaluator| {
        let evaluation = evaluator.evaluate(&input).expect("no backstop");
        evaluation.candidates.first().expect("one candidate").verdicts.len()
    };
    assert_eq!((asked(&mut few), asked(&mut many)), (5, 5), "the same five are asked");
    bench.bench_function("evaluate/5_of_5", |b| b.iter(|| few.evaluate(black_box(&input))));
    bench.bench_function("evaluate/5_of_1000", |b| b.iter(|| many.evaluate(black_box(&input))));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (evaluator, times) in [&mut few, &mut many].into_iter().zip(&mut times) {
            let start = std::time::Instant::now();
            for _ in 0..CALLS {
                black_box(evaluator.evaluate(black_box(&input)).expect("no backstop"));
            }
            times.push(start.elapsed() / CALLS);
        }
    }
    let [few, many] = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    let percent = many.as_nanos() * 100 / few.as_nanos().max(1);
    eprintln!("5 of 5: {few:?}, 5 of 1000: {many:?}, ratio {}.{:02}", percent / 100, percent % 100);
}

criterion_group!(benches, document, one_policy, shipped, among_a_thousand);
criterion_main!(benches);
