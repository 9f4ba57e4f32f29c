//! Guests that misbehave, and what is made of them.

use std::sync::LazyLock;

use placet_core::{Digest, IsolationLevel, PriorityClass};
use proptest::prelude::*;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::*;
use crate::answer::Finding;
use crate::input::{Cluster, Tenant, TenantKind, Workload};

/// Each runtime reserves address space, so the tests share one.
static RUNTIME: LazyLock<WasmRuntime> = LazyLock::new(|| WasmRuntime::new().expect("it starts"));

/// Enough for a small guest, and soon spent by a loop.
const BUDGET: WasmBudget = WasmBudget { fuel: 1_000_000, memory_bytes: 4 << 20 };

const ISOLATION: &[u8] = include_bytes!("../../../../policies/reference/isolation/isolation.wasm");
const ISOLATION_PARAMS: &str = r#"{"network_obligation_from":"PARTITIONED"}"#;

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

/// A guest with this body of `evaluate`, which leaves the address of its answer, and these further
/// fields.
///
/// Its allocator only counts upwards from page 1; page 0 is the guest's own.
fn guest(body: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 8)
            (global $next (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func (export "evaluate") (param $input i32) (result i32) {body})
            {fields})"#
    );
    component_of(&wat::parse_str(&text).expect("the text is well-formed"))
}

/// Answers `not-applicable`, variant 1 of 3.
const NOT_APPLICABLE: &str = "(i32.store8 (i32.const 16) (i32.const 1)) (i32.const 16)";

fn policy(component: &[u8]) -> Result<WasmPolicy, LoadError> {
    let name = id("hostile");
    WasmPolicy::compile(&RUNTIME, name, "hostile.wasm", component, "{}".into(), BUDGET)
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
    };
    let tenant = Tenant {
        allowed_jurisdictions: vec![],
        attestations: vec![],
        id: id("acme"),
        kind: TenantKind::Customer,
        licensed_models: vec![],
        min_isolation: IsolationLevel::Partitioned,
        priority_classes: vec![PriorityClass::ExternalCommercial],
    };
    let cluster = Cluster {
        attestations: vec![],
        fabric_gbps: 3_200,
        gpus: vec![],
        id: id("c-1"),
        isolation_levels: vec![IsolationLevel::Dedicated, IsolationLevel::Shared],
        jurisdiction: id("DE"),
    };
    Input {
        cluster,
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

#[track_caller]
fn refused(component: &[u8], why: &str) {
    let error = policy(component).expect_err("it must not load").to_string();
    assert!(error.starts_with(&format!("hostile.wasm: {why}")), "{error}");
    assert!(error.contains("\nhint: "), "{error}");
}

#[test]
fn a_quiet_guest_has_no_opinion_and_costs_little() {
    let answer = evaluate(&policy(&guest(NOT_APPLICABLE, "")).expect("it loads"));
    assert_eq!(answer.finding, Finding::NotApplicable);
    assert!((1..2_000).contains(&answer.cost.fuel), "{:?}", answer.cost);
}

#[test]
fn an_endless_loop_spends_its_fuel() {
    let cost = indeterminate(
        &guest("(loop $again (br $again)) (unreachable)", ""),
        "the policy spent its fuel of 1000000",
    );
    assert_eq!(cost.fuel, BUDGET.fuel, "all of it");
}

#[test]
fn copying_memory_back_and_forth_spends_fuel_by_the_byte() {
    let copy = "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 393216))";
    let body = format!("(loop $again {copy} (br $again)) (unreachable)");
    indeterminate(&guest(&body, ""), "the policy spent its fuel of 1000000");
}

#[test]
fn growing_beyond_the_limit_is_indeterminate_even_if_the_guest_would_go_on() {
    let body = format!("(drop (memory.grow (i32.const 64))) {NOT_APPLICABLE}");
    indeterminate(
        &guest(&body, ""),
        "the policy needs more memory than the limit of 4194304 bytes",
    );
    let inside = format!("(drop (memory.grow (i32.const 56))) {NOT_APPLICABLE}");
    let answer = evaluate(&policy(&guest(&inside, "")).expect("it loads"));
    assert_eq!(answer.finding, Finding::NotApplicable, "8 and 56 pages are the limit");
}

#[test]
fn tables_are_bounded_too() {
    let grow = "(drop (table.grow $t (ref.null func) (i32.const 100000)))";
    let component = guest(&format!("{grow} {NOT_APPLICABLE}"), "(table $t 1 funcref)");
    indeterminate(&component, "the policy needs tables of more than 65536 elements");
}

#[test]
fn traps_have_one_line_without_addresses() {
    for (body, why) in [
        ("(unreachable)", "the policy trapped: it panicked or executed `unreachable`"),
        (
            "(i32.div_u (i32.const 1) (i32.const 0))",
            "the policy trapped: it divided an integer by zero",
        ),
        ("(i32.load (i32.const -8))", "the policy trapped: it accessed memory out of bounds"),
        (
            "(call_indirect (result i32) (i32.const 3))",
            "the policy trapped: it accessed a table out of bounds",
        ),
        ("(call $deeper)", "the policy trapped: its stack overflowed"),
    ] {
        let fields =
            "(table 1 funcref) (func $deeper (result i32) (i32.add (call $deeper) (call $deeper)))";
        indeterminate(&guest(body, fields), why);
    }
}

#[test]
fn unreadable_answers_are_never_empty_ones() {
    let unknown_variant = "(i32.store8 (i32.const 16) (i32.const 3)) (i32.const 16)";
    let unaligned = "(i32.const 17)";
    let out_of_bounds = "(i32.const 524284)";
    // `failed` with a text at 64.
    let text = |bytes: u32| {
        format!(
            "(i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
             (i32.store (i32.const 24) (i32.const {bytes}))
             (i32.store8 (i32.const 64) (i32.const 255))
             (i32.const 16)"
        )
    };
    // `decided` with 4,000 denials that lie in zeroed memory.
    let many =
        "(i32.store (i32.const 20) (i32.const 64)) (i32.store (i32.const 24) (i32.const 4000))
                (i32.const 16)";
    let bad = "the answer cannot be read: it is too large, or not of the contract's types";
    for body in [unknown_variant, unaligned, out_of_bounds, many, &text(100_000), &text(u32::MAX)] {
        indeterminate(&guest(body, ""), bad);
    }
    indeterminate(&guest(&text(1), ""), "the answer cannot be read: a text in it is not UTF-8");
}

#[test]
fn an_answer_that_breaks_the_contract_is_indeterminate() {
    // `decided` with one denial of empty texts.
    let body = "(i32.store (i32.const 20) (i32.const 64)) (i32.store (i32.const 24) (i32.const 1))
                (i32.const 16)";
    let answer = evaluate(&policy(&guest(body, "")).expect("it loads"));
    let Finding::Indeterminate(why) = answer.finding else { panic!("{:?}", answer.finding) };
    assert!(why.starts_with("code of a denial"), "{why}");
}

#[test]
fn an_allocator_that_lies_is_the_guests_fault() {
    let module = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65530))
        (func (export "evaluate") (param i32) (result i32) (unreachable)))"#;
    let component = component_of(&wat::parse_str(module).expect("well-formed"));
    let answer = evaluate(&policy(&component).expect("it loads"));
    assert!(matches!(answer.finding, Finding::Indeterminate(_)), "{:?}", answer.finding);
}

#[test]
fn what_cannot_start_does_not_load() {
    let start = "(func $start (loop $again (br $again))) (start $start)";
    refused(
        &guest(NOT_APPLICABLE, start),
        "cannot be instantiated: the policy spent its fuel of 1000000",
    );
    let start = "(func $start (unreachable)) (start $start)";
    refused(&guest(NOT_APPLICABLE, start), "cannot be instantiated: the policy trapped");
    let huge = r#"(module (memory (export "memory") 128)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
        (func (export "evaluate") (param i32) (result i32) (i32.const 0)))"#;
    let component = component_of(&wat::parse_str(huge).expect("well-formed"));
    refused(&component, "cannot be instantiated: the policy needs more memory");
}

#[test]
fn what_is_no_policy_does_not_load() {
    let wat = |text: &str| wat::parse_str(text).expect("well-formed");
    refused(b"", "is not a WebAssembly file");
    refused(b"package isolation", "is not a WebAssembly file");
    refused(&wat("(module)"), "is a core module, not a component");
    refused(&wat("(component)"), "does not export `evaluate`");
    refused(&wat("(component)")[..7], "is not a valid component");
    let cut = guest(NOT_APPLICABLE, "");
    refused(&cut[..cut.len() / 2], "is not a valid component");
    refused(&vec![0; MAX_COMPONENT_BYTES + 1], "has 33554433 bytes, at most 33554432 are allowed");
    let native = RUNTIME.engine.precompile_component(&cut).expect("it compiles");
    refused(&native, "is precompiled native code");
}

#[test]
fn whatever_is_imported_is_named_and_refused() {
    let wat = |text: &str| wat::parse_str(text).expect("well-formed");
    refused(&wat(r#"(component (import "now" (func (result u64))))"#), "imports `now`");
    let clock = r#"(component (import "wasi:clocks/wall-clock@0.2.0"
        (instance (export "now" (func (result u64))))))"#;
    refused(&wat(clock), "imports `now` of `wasi:clocks/wall-clock@0.2.0`");
    let types = r#"(component (import "placet:policy/types@0.2.0"
        (instance (export "input" (type (eq 0))))))"#
        .replace("(component ", "(component (type u8) ")
        .replace(
            r#"(export "input" (type (eq 0)))"#,
            r#"(alias outer 1 0 (type)) (export "input" (type (eq 0)))"#,
        );
    refused(&wat(&types), "is built for version 0.2.0 of the policy world, not 0.1.0");
}

#[test]
fn an_export_of_another_type_is_refused() {
    let text = r#"(component
        (core module $m (func (export "f") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "evaluate") (result u32) (canon lift (core func $i "f"))))"#;
    let component = wat::parse_str(text).expect("well-formed");
    refused(&component, "`evaluate` is not that of the world placet:policy/policy@0.1.0");
}

fn isolation(params: &str) -> WasmPolicy {
    let (name, budget) = (id("isolation"), WasmBudget::default());
    WasmPolicy::compile(&RUNTIME, name, "isolation.wasm", ISOLATION, params.into(), budget)
        .expect("the shipped component loads")
}

#[test]
fn the_shipped_component_says_what_it_should() {
    let Finding::Decided(decided) = evaluate(&isolation(ISOLATION_PARAMS)).finding else {
        panic!("it decides")
    };
    let [denial] = decided.denials.as_slice() else { panic!("{decided:?}") };
    assert_eq!(denial.code.as_str(), "ISOLATION_BELOW_CONTRACT");
    assert_eq!(denial.field.as_deref(), Some("lease.isolation_level"));
    assert_eq!(denial.hint.as_deref(), Some("ask for PARTITIONED or above"));
    assert_eq!(decided.obligations[0].params["mode"], "time-slice");

    let failed = evaluate(&isolation("{}")).finding;
    assert!(matches!(failed, Finding::Indeterminate(why) if why.starts_with("params are not")));
}

proptest! {
    #[test]
    fn every_input_crosses_and_costs_the_same_on_every_thread(
        input in crate::input::tests::input()
    ) {
        static POLICY: LazyLock<WasmPolicy> = LazyLock::new(|| isolation(ISOLATION_PARAMS));
        let model = id("H100");
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| POLICY.evaluate(&input, &model))).collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            joined.collect::<Result<_, _>>().expect("no backstop")
        });
        prop_assert!(!matches!(answers[0].finding, Finding::Indeterminate(_)), "{:?}", answers[0]);
        prop_assert!(answers.iter().all(|answer| *answer == answers[0]), "{:?}", answers);
    }
}

#[test]
fn a_runtime_that_is_dropped_stops_its_ticker() {
    let runtime = WasmRuntime::new().expect("it starts");
    let ticker = std::sync::Arc::downgrade(&runtime._ticker);
    let policy = WasmPolicy::compile(
        &runtime,
        id("quiet"),
        "quiet.wasm",
        &guest(NOT_APPLICABLE, ""),
        "{}".into(),
        BUDGET,
    );
    drop(runtime);
    assert!(ticker.upgrade().is_some(), "the policy still needs it");
    drop(policy.expect("it loads"));
    assert!(ticker.upgrade().is_none(), "the thread was joined");
}

#[test]
fn the_backstop_is_no_decision() {
    let everything = WasmBudget { fuel: u64::MAX, memory_bytes: 4 << 20 };
    let component = guest("(loop $again (br $again)) (unreachable)", "");
    let policy =
        WasmPolicy::compile(&RUNTIME, id("slow"), "slow.wasm", &component, "{}".into(), everything)
            .expect("it loads");
    let error = policy.evaluate(&input(), &id("H100")).expect_err("interrupted");
    assert_eq!(error, EvaluateError::Backstop { policy: "slow".into() });
}

#[test]
fn the_checked_in_component_is_small_and_names_no_machine() {
    assert!(ISOLATION.len() < 40_000, "{} bytes", ISOLATION.len());
    let text = String::from_utf8_lossy(ISOLATION);
    for path in ["/root/", "/home/", "/work/", "/tmp/", ".cargo"] {
        assert!(!text.contains(path), "{path} in {}", Digest::of(ISOLATION));
    }
}
