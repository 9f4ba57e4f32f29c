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

criterion_group!(benches, document, one_policy, shipped);
criterion_main!(benches);
