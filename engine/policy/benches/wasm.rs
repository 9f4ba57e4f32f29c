//! What a policy in Wasm costs: a fresh instance and one call for each decision, of a guest that
//! does nothing and of the shipped isolation policy; and what it costs at load, compiled and from
//! the cache.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use placet_policy::{Bundle, Evaluator, Input, PolicySet, WasmRuntime, check_component};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

const ISOLATION: &[u8] = include_bytes!("../../../policies/reference/isolation/isolation.wasm");

/// The sample, with one acceptable model: one call a decision.
fn input() -> Input {
    let mut input: Input =
        serde_json::from_str(include_str!("../tests/it/sample.json")).expect("it is an input");
    if let Some(workload) = input.lease.as_mut().or(input.job.as_mut()) {
        workload.gpu_models.truncate(1);
    }
    input
}

/// A guest that takes the input and has no opinion.
fn empty() -> Vec<u8> {
    let text = r#"(module
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 1024))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "evaluate") (param i32) (result i32)
            (i32.store8 (i32.const 16) (i32.const 1)) (i32.const 16)))"#;
    let mut module = wat::parse_str(text).expect("the text is well-formed");
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path("../../proto/wit").expect("the world parses");
    let world = resolve.select_world(&[package], Some("policy")).expect("there is one");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
        .expect("it fits");
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).expect("it is a module").encode().expect("it follows the ABI")
}

/// An evaluator of one component alone.
fn evaluator(component: &[u8], params: &str) -> Evaluator {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = format!(
        "schema: placet.bundle/v1\nrevision: \"1\"\n\
         policies: [{{name: p, source: p.wasm, params: {params}}}]\n"
    );
    std::fs::write(directory.path().join("bundle.yaml"), manifest).expect("it is written");
    std::fs::write(directory.path().join("p.wasm"), component).expect("it is written");
    let bundle = Bundle::load(directory.path()).expect("the bundle loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    Evaluator::new(Arc::new(PolicySet::compile(&bundle, &runtime).expect("it compiles")))
}

fn calls(bench: &mut Criterion) {
    let input = input();
    for (name, component, params) in [
        ("wasm/empty", empty(), "{}"),
        ("wasm/isolation", ISOLATION.to_vec(), "{network_obligation_from: PARTITIONED}"),
    ] {
        let mut evaluator = evaluator(&component, params);
        bench.bench_function(name, |b| {
            b.iter(|| evaluator.evaluate(black_box(&input)).expect("no backstop"));
        });
    }
}

fn compile(bench: &mut Criterion) {
    let runtime = WasmRuntime::new().expect("the engine starts");
    let directory = tempfile::tempdir().expect("a directory");
    let cached = WasmRuntime::with_cache(&directory.path().join("code")).expect("it opens");
    for (name, runtime) in [("wasm/compile_isolation", runtime), ("wasm/load_isolation", cached)] {
        bench.bench_function(name, |b| {
            b.iter(|| {
                check_component(&runtime, "isolation.wasm", black_box(ISOLATION)).expect("it loads")
            });
        });
    }
}

criterion_group!(benches, calls, compile);
criterion_main!(benches);
