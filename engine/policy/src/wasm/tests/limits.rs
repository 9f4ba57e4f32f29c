//! Guests that want too much: time, memory, tables, stack.

use super::*;

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
fn a_budget_is_each_policys_own() {
    let rounds = "(local $n i32) (loop $again
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $n) (i32.const 1000))))";
    let component = guest(&format!("{rounds} {NOT_APPLICABLE}"), "");
    let spent = |fuel| {
        let budget = WasmBudget { fuel, ..BUDGET };
        evaluate(&policy_with(&component, budget).expect("it loads"))
    };
    let enough = spent(100_000);
    assert_eq!(enough.finding, Finding::NotApplicable);
    let exactly = spent(enough.cost.fuel + 1);
    assert_eq!(exactly, enough, "the budget does not change what is spent");
    let too_little = "the policy spent its fuel of 3000".to_owned();
    assert_eq!(spent(3_000).finding, Finding::Indeterminate(too_little));
}

#[test]
fn growth_to_the_limit_and_long_copies_end_by_fuel() {
    let grow = "(drop (memory.grow (i32.const 4088)))";
    let budget = WasmBudget { fuel: MAX_FUEL, memory_bytes: MAX_MEMORY_BYTES };
    for bulk in [
        "(memory.copy (i32.const 0) (i32.const 134217728) (i32.const 134217728))",
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 268435456))",
        "(memory.copy (i32.const 0) (i32.const 134217728) (local.get $n))",
        "(memory.fill (i32.const 0) (i32.const 1) (local.get $n))",
    ] {
        let n = "(local $n i32) (local.set $n (i32.const 1000000))";
        let body = format!("{n} {grow} (loop $again {bulk} (br $again)) (unreachable)");
        let answer = evaluate(&policy_with(&guest(&body, ""), budget).expect("it loads"));
        let spent = "the policy spent its fuel of 50000000".to_owned();
        assert_eq!(answer.finding, Finding::Indeterminate(spent), "{bulk}");
        assert_eq!(answer.cost.fuel, MAX_FUEL);
    }
}

#[test]
fn instructions_that_call_the_engine_cost_what_they_take() {
    let fields = "(table $t 4 funcref) (func $f) (elem declare func $f) (data $d \"x\")";
    let cost = |instruction: &str| {
        let body = format!("{} {NOT_APPLICABLE}", instruction.repeat(100));
        let answer = evaluate(&policy(&guest(&body, fields)).expect("it loads"));
        assert_eq!(answer.finding, Finding::NotApplicable, "{instruction}");
        answer.cost.fuel
    };
    let nothing = cost("");
    for (instruction, least) in [
        ("(drop (memory.grow (i32.const 0)))", 200),
        ("(drop (table.grow $t (ref.null func) (i32.const 0)))", 200),
        ("(drop (ref.func $f))", 100),
        ("(data.drop $d)", 100),
        ("(memory.copy (i32.const 0) (i32.const 0) (i32.const 0))", 20),
        ("(memory.fill (i32.const 0) (i32.const 0) (i32.const 100))", 120),
        ("(drop (i32.load (i32.const 0)))", 8),
        ("(drop (f64.sqrt (f64.const 2)))", 12),
        ("(drop (i64.div_u (i64.const 2) (i64.const 3)))", 8),
        ("(call $f)", 4),
    ] {
        let each = (cost(instruction) - nothing) / 100;
        assert!(each >= least, "{instruction} costs {each}");
    }
}

#[test]
fn growth_is_paid_by_the_page() {
    let fuel = |pages: u32| {
        let body = format!("(drop (memory.grow (i32.const {pages}))) {NOT_APPLICABLE}");
        evaluate(&policy(&guest(&body, "")).expect("it loads")).cost.fuel
    };
    assert_eq!(fuel(50) - fuel(0), 50 * u64::from(cost::GROW));
}

#[test]
fn numbers_of_memories_tables_and_instances_are_bounded() {
    let memories = |n: usize| guest(NOT_APPLICABLE, &"(memory 1)".repeat(n));
    content(&memories(usize::from(MAX_MEMORIES) - 1));
    let five = "is not a valid component: defined memories count of 5 exceeds";
    refused(&memories(usize::from(MAX_MEMORIES)), five);
    let tables = |n: usize| guest(NOT_APPLICABLE, &"(table 1 funcref)".repeat(n));
    content(&tables(usize::from(MAX_TABLES)));
    let seventeen = "is not a valid component: defined tables count of 17 exceeds";
    refused(&tables(usize::from(MAX_TABLES) + 1), seventeen);
    let instances = format!(
        r#"(component (core module $m (func (export "f"))) {}
            (core instance $i (instantiate $m))
            (func (export "evaluate") (canon lift (core func $i "f"))))"#,
        "(core instance (instantiate $m))".repeat(64)
    );
    let instances = wat::parse_str(instances).expect("well-formed");
    refused(&instances, "is not a valid component: The component transitively contains 65 core");
}

#[test]
fn tables_count_together_and_from_the_start() {
    let grow = "(drop (table.grow $t (ref.null func) (i32.const 40000)))
        (drop (table.grow $u (ref.null func) (i32.const 40000)))";
    let fields = "(table $t 1 funcref) (table $u 1 funcref)";
    let component = guest(&format!("{grow} {NOT_APPLICABLE}"), fields);
    indeterminate(&component, "the policy needs tables of more than 65536 elements");
    let large = guest(NOT_APPLICABLE, "(table 65537 funcref)");
    let larger = "is not a valid component: table index 0 has a minimum element size of 65537";
    refused(&large, larger);
}

#[test]
fn recursion_ends_by_its_stack_or_its_fuel() {
    let deeper = "(func $deeper (param i64) (result i64)
        (i64.add (local.get 0) (call $deeper (i64.add (local.get 0) (i64.const 1)))))";
    let body = "(drop (call $deeper (i64.const 0))) (unreachable)";
    indeterminate(&guest(body, deeper), "the policy trapped: its stack overflowed");
    let flat = "(func $flat (param i64) (result i64)
        (return_call $flat (i64.add (local.get 0) (i64.const 1))))";
    let body = "(drop (call $flat (i64.const 0))) (unreachable)";
    indeterminate(&guest(body, flat), "the policy spent its fuel of 1000000");
}

#[test]
fn nothing_that_a_guest_keeps_is_there_at_its_next_call() {
    // Traps unless memory, a global and a table are as they were at the start.
    let body = format!(
        "(if (i32.load (i32.const 1024)) (then (unreachable)))
         (if (i32.load (i32.const 400000)) (then (unreachable)))
         (if (global.get $seen) (then (unreachable)))
         (if (i32.eqz (ref.is_null (table.get $t (i32.const 0)))) (then (unreachable)))
         (if (i32.ne (memory.size) (i32.const 8)) (then (unreachable)))
         (i32.store (i32.const 1024) (i32.const 1))
         (i32.store (i32.const 400000) (i32.const 1))
         (global.set $seen (i32.const 1))
         (table.set $t (i32.const 0) (ref.func $f))
         (drop (memory.grow (i32.const 1)))
         {NOT_APPLICABLE}"
    );
    let fields = "(global $seen (mut i32) (i32.const 0)) (table $t 1 funcref)
        (func $f) (elem declare func $f)";
    let policy = policy(&guest(&body, fields)).expect("it loads");
    let first = evaluate(&policy);
    assert_eq!(first.finding, Finding::NotApplicable);
    for _ in 0..300 {
        assert_eq!(evaluate(&policy), first, "more often than there are slots");
    }
}

#[test]
fn a_hostile_guest_leaves_nothing_to_the_next_in_its_slot() {
    let dirty = "(memory.fill (i32.const 0) (i32.const 255) (i32.const 524288)) (unreachable)";
    let dirty = policy(&guest(dirty, "")).expect("it loads");
    let clean = "(local $at i32)
        (loop $next
            (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (unreachable)))
            (local.set $at (i32.add (local.get $at) (i32.const 4096)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 65536))))";
    let clean = policy(&guest(&format!("{clean} {NOT_APPLICABLE}"), "")).expect("it loads");
    for _ in 0..50 {
        assert!(matches!(evaluate(&dirty).finding, Finding::Indeterminate(_)));
        assert_eq!(evaluate(&clean).finding, Finding::NotApplicable);
    }
}
