//! The same input, the same bytes and the same fuel: on every thread, in every engine, from the
//! cache or not.

use super::*;

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

/// The shipped policy in three engines that know nothing of one another: compiled by two of them,
/// and loaded from the second's cache by the third.
static ELSEWHERE: LazyLock<[WasmPolicy; 3]> = LazyLock::new(|| {
    let directory = private_directory();
    let runtimes = [
        WasmRuntime::new(),
        WasmRuntime::with_cache(directory.path()),
        WasmRuntime::with_cache(directory.path()),
    ];
    let mut loaded = 0;
    let policies = runtimes.map(|runtime| {
        let runtime = runtime.expect("it starts");
        let (name, budget) = (id("isolation"), WasmBudget::default());
        let params = ISOLATION_PARAMS.into();
        let policy = WasmPolicy::compile(&runtime, name, "p.wasm", ISOLATION, params, budget);
        loaded += runtime.take_cache_activity().loaded;
        policy.expect("it loads")
    });
    assert_eq!(loaded, 1, "the last one was not compiled");
    policies
});

proptest! {
    #[test]
    fn engines_and_the_cache_make_no_difference(input in crate::input::tests::input()) {
        let model = id("A100");
        let [first, rest @ ..] = &*ELSEWHERE;
        let first = first.evaluate(&input, &model).expect("no backstop");
        for policy in rest {
            prop_assert_eq!(policy.evaluate(&input, &model).expect("no backstop"), first.clone());
        }
    }

    #[test]
    fn memory_and_fuel_run_out_at_the_same_place(pages in 0_u32..80, rounds in 0_u32..400_000) {
        let body = format!(
            "(local $n i32) (drop (memory.grow (i32.const {pages})))
             (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const {rounds})))) {NOT_APPLICABLE}"
        );
        let component = guest(&body, "");
        let one = evaluate(&policy(&component).expect("it loads"));
        let other = evaluate(&policy(&component).expect("it loads"));
        prop_assert_eq!(&one, &other);
        prop_assert!(one.cost.fuel <= BUDGET.fuel);
        if pages > 56 {
            let Finding::Indeterminate(why) = one.finding else { panic!("{pages} pages") };
            prop_assert!(why.contains("memory"), "{}", why);
        }
    }
}

/// Traps unless the two are equal.
fn same(found: &str, expected: &str) -> String {
    format!("(if (i64.ne {found} (i64.const {expected})) (then (unreachable)))")
}

#[test]
fn there_is_one_nan() {
    let bits = |float: &str| format!("(i64.reinterpret_f64 {float})");
    let narrow = |float: &str| format!("(i64.extend_i32_u (i32.reinterpret_f32 {float}))");
    let one = "0x7ff8000000000000";
    let body = [
        same(&bits("(f64.div (f64.const 0) (f64.const 0))"), one),
        same(&bits("(f64.sub (f64.const inf) (f64.const inf))"), one),
        same(&bits("(f64.add (f64.const nan:0x123456) (f64.const 1))"), one),
        same(&bits("(f64.add (f64.const 1) (f64.const -nan:0x8000000000001))"), one),
        same(&bits("(f64.sqrt (f64.const -1))"), one),
        same(&bits("(f64.min (f64.const -nan:0x1) (f64.const 1))"), one),
        same(&bits("(f64.promote_f32 (f32.const -nan:0x1))"), one),
        same(&narrow("(f32.mul (f32.const -inf) (f32.const 0))"), "0x7fc00000"),
        same(&narrow("(f32.demote_f64 (f64.const -nan:0x1))"), "0x7fc00000"),
    ];
    content(&guest(&format!("{} {NOT_APPLICABLE}", body.join("\n")), ""));
}

#[test]
fn relaxed_instructions_are_the_same_on_every_cpu() {
    let lane = |vector: &str| format!("(i64x2.extract_lane 0 {vector})");
    let bytes = "(i8x16.splat (i32.const 7))";
    let body = [
        // An index out of range but below 128, of which an x86 takes the low bits, gives zero.
        same(&lane(&format!("(i8x16.relaxed_swizzle {bytes} (i8x16.splat (i32.const 17)))")), "0"),
        // Out of range saturates instead of giving the smallest number.
        same(
            &lane("(i32x4.relaxed_trunc_f32x4_s (f32x4.splat (f32.const 1e20)))"),
            "0x7fffffff7fffffff",
        ),
    ];
    content(&guest(&format!("{} {NOT_APPLICABLE}", body.join("\n")), ""));
}
