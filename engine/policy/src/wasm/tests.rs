//! Guests that misbehave, and what is made of them.

use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use placet_core::{Digest, IsolationLevel, PriorityClass};
use proptest::prelude::*;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::*;
use crate::answer::Finding;
use crate::input::{Cluster, FabricKind, Tenant, TenantKind, Workload};

/// Each runtime reserves address space, so the tests share one.
static RUNTIME: LazyLock<WasmRuntime> = LazyLock::new(|| WasmRuntime::new().expect("it starts"));

/// Enough for a small guest, and soon spent by a loop.
const BUDGET: WasmBudget = WasmBudget { fuel: 1_000_000, memory_bytes: 4 << 20 };

const ISOLATION: &[u8] = include_bytes!("../../../../policies/reference/isolation/isolation.wasm");
const ISOLATION_PARAMS: &str = r#"{"network_obligation_from":"PARTITIONED"}"#;

mod answers;
mod cache;
mod compile;
mod determinism;
mod limits;
mod load;

fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

fn component_of(module: &[u8]) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path("../../proto/wit").expect("the world parses");
    let world = resolve.select_world(&[package], Some("policy")).expect("there is one");
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
        .expect("it fits");
    let mut encoder = ComponentEncoder::default();
    let encoder = encoder.validate(true).module(&module).expect("it is a module");
    encoder.encode().expect("it follows the canonical ABI")
}

/// An allocator that only counts upwards from page 1; page 0 is the guest's own.
const COUNTING: &str = "(local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at)";

/// A guest with this body of `evaluate`, which leaves the address of its answer, and these further
/// fields.
fn guest(body: &str, fields: &str) -> Vec<u8> {
    guest_with(COUNTING, body, fields)
}

/// The same with this body of its allocator, which gets the old address and size, the alignment and
/// the new size.
fn guest_with(allocator: &str, body: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 8)
            (global $next (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {allocator})
            (func (export "evaluate") (param $input i32) (result i32) {body})
            {fields})"#
    );
    component_of(&wat::parse_str(&text).expect("the text is well-formed"))
}

/// Answers `not-applicable`, variant 1 of 3.
const NOT_APPLICABLE: &str = "(i32.store8 (i32.const 16) (i32.const 1)) (i32.const 16)";

fn policy(component: &[u8]) -> Result<WasmPolicy, LoadError> {
    policy_with(component, BUDGET)
}

fn policy_with(component: &[u8], budget: WasmBudget) -> Result<WasmPolicy, LoadError> {
    let name = id("hostile");
    WasmPolicy::compile(&RUNTIME, name, "hostile.wasm", component, "{}".into(), budget)
}

fn input() -> Input {
    let workload = Workload {
        checkpoint_jurisdictions: vec![],
        duration_seconds: 3_600,
        fabric_gbps: 0,
        gpu_count: 8,
        gpu_milli: 1_000,
        gpu_model: id("H100"),
        gpu_models: vec![id("H100"), id("A100")],
        gpu_seconds: 28_800,
        isolation_level: IsolationLevel::Shared,
        may_preempt: false,
        milli_gpus: 8_000,
        start: 1_795_305_600,
        extends: None,
        lease_id: None,
        egress_bytes: 0,
        egress_jurisdictions: vec![],
        model_use: None,
        storage_io_bytes: 0,
    };
    let tenant = Tenant {
        allowed_jurisdictions: vec![],
        attestations: vec![],
        id: id("acme"),
        kind: TenantKind::Customer,
        licences: vec![],
        licensed_models: vec![],
        min_isolation: IsolationLevel::Partitioned,
        priority_classes: vec![PriorityClass::ExternalCommercial],
        seat: None,
        sla: None,
    };
    let cluster = Cluster {
        attestations: vec![],
        fabric_gbps: 3_200,
        fabric_kind: FabricKind::Infiniband,
        gpus: vec![],
        id: id("c-1"),
        isolation_levels: vec![IsolationLevel::Dedicated, IsolationLevel::Shared],
        jurisdiction: id("DE"),
    };
    Input {
        cluster,
        day: "2026-11-22".into(),
        datasets: vec![],
        job: None,
        lease: Some(workload),
        models: vec![],
        month: "2026-11".into(),
        principal: None,
        priority_class: PriorityClass::ExternalCommercial,
        tenant,
        time: 1_795_305_600,
    }
}

fn evaluate(policy: &WasmPolicy) -> Answer {
    policy.evaluate(&input(), &id("A100")).expect("the backstop is far away")
}

#[track_caller]
fn indeterminate(component: &[u8], why: &str) -> Cost {
    let answer = evaluate(&policy(component).expect("it loads"));
    assert_eq!(answer.finding, Finding::Indeterminate(why.into()));
    answer.cost
}

/// A directory that nobody else can look into, whatever the process's file mode mask.
fn private_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(directory.path(), mode).expect("it is changed");
    directory
}

/// Asserts that a guest answers `not-applicable`: those that check something trap otherwise.
#[track_caller]
fn content(component: &[u8]) {
    let answer = evaluate(&policy(component).expect("it loads"));
    assert_eq!(answer.finding, Finding::NotApplicable);
}

#[track_caller]
fn refused(component: &[u8], why: &str) {
    let error = policy(component).expect_err("it must not load").to_string();
    assert!(error.starts_with(&format!("hostile.wasm: {why}")), "{error}");
    assert!(error.contains("\nhint: "), "{error}");
}

fn isolation(params: &str) -> WasmPolicy {
    let (name, budget) = (id("isolation"), WasmBudget::default());
    WasmPolicy::compile(&RUNTIME, name, "isolation.wasm", ISOLATION, params.into(), budget)
        .expect("the shipped component loads")
}
