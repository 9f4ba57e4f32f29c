//! Answers that cannot be read, and guests that do not keep the canonical ABI.

use super::*;

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

/// `decided` with one list, at 20, of this many elements from this address on.
fn listing(field: u32, address: u32, length: u32) -> String {
    format!(
        "(i32.store (i32.const {}) (i32.const {address}))
         (i32.store (i32.const {}) (i32.const {length})) (i32.const 16)",
        16 + field,
        20 + field
    )
}

const UNREADABLE: &str =
    "the answer cannot be read: it is too large, or not of the contract's types";

#[test]
fn lists_that_lie_about_where_they_are_are_unreadable() {
    // Denials, warnings, obligations and claims stand one after another in the record.
    for field in [4, 12, 20, 28] {
        for (address, length) in [
            (64, u32::MAX),
            (64, 1 << 28),
            (524_288, 1),
            (524_280, 1),
            (u32::MAX, 1),
            (u32::MAX - 7, 2),
            (65, 1),
        ] {
            indeterminate(&guest(&listing(field, address, length), ""), UNREADABLE);
        }
        // An empty list may lie anywhere inside.
        let answer = evaluate(&policy(&guest(&listing(field, 64, 0), "")).expect("it loads"));
        assert!(matches!(answer.finding, Finding::Decided(_)), "{answer:?}");
    }
}

#[test]
fn an_answer_of_100_mb_is_unreadable_and_was_never_copied() {
    let budget = WasmBudget { fuel: MAX_FUEL, memory_bytes: MAX_MEMORY_BYTES };
    let grow = "(drop (memory.grow (i32.const 1600)))";
    let text = "(i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
        (i32.store (i32.const 24) (i32.const 100000000)) (i32.const 16)";
    let denials = listing(4, 64, 1_000_000);
    for answer in [text, &denials] {
        let component = guest(&format!("{grow} {answer}"), "");
        let answer = evaluate(&policy_with(&component, budget).expect("it loads"));
        assert_eq!(answer.finding, Finding::Indeterminate(UNREADABLE.into()));
    }
}

#[test]
fn texts_may_overlap_and_are_still_only_texts() {
    // One denial whose code and message are the same four bytes.
    let text = r#"(data (i32.const 200) "NOPE")"#;
    let body = "(i32.store (i32.const 64) (i32.const 200)) (i32.store (i32.const 68) (i32.const 4))
        (i32.store (i32.const 72) (i32.const 200)) (i32.store (i32.const 76) (i32.const 4))
        (i32.store8 (i32.const 104) (i32.const 255))";
    let component = guest(&format!("{body} {}", listing(4, 64, 1)), text);
    let Finding::Decided(decided) = evaluate(&policy(&component).expect("it loads")).finding else {
        panic!("it decides")
    };
    let [denial] = decided.denials.as_slice() else { panic!("{decided:?}") };
    assert_eq!((denial.code.as_str(), denial.message.as_str()), ("NOPE", "NOPE"));
    assert!(denial.retry, "any byte but zero is true: canonical ABI, `convert_int_to_bool`");
}

#[test]
fn numbers_that_name_no_value_are_unreadable() {
    // `preemption` is present (1 at 52), with one class at 300.
    let rule = |present: u32, class: u32| {
        format!(
            "(i32.store8 (i32.const 52) (i32.const {present}))
             (i32.store (i32.const 56) (i32.const 300)) (i32.store (i32.const 60) (i32.const 1))
             (i32.store (i32.const 72) (i32.const 5))
             (i32.store8 (i32.const 300) (i32.const {class})) (i32.const 16)"
        )
    };
    let fine = evaluate(&policy(&guest(&rule(1, 1), "")).expect("it loads")).finding;
    assert!(matches!(fine, Finding::Decided(ref it) if it.preemption.is_some()), "{fine:?}");
    for (present, class) in [(1, 2), (1, 255), (2, 1), (255, 1)] {
        indeterminate(&guest(&rule(present, class), ""), UNREADABLE);
    }
}

#[test]
fn invalid_utf8_is_named() {
    for bytes in [r"\ff", r"\c0\80", r"\ed\a0\80", r"\f4\90\80\80", r"a\e2\82"] {
        let length = bytes.matches('\\').count() + usize::from(bytes.starts_with('a'));
        let body = format!(
            "(i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
             (i32.store (i32.const 24) (i32.const {length})) (i32.const 16)"
        );
        let component = guest(&body, &format!("(data (i32.const 64) \"{bytes}\")"));
        indeterminate(&component, "the answer cannot be read: a text in it is not UTF-8");
    }
}

#[test]
fn an_allocator_that_lies_is_the_guests_fault() {
    let lies = "the policy cannot take its input: its allocator gave an address that is not \
        aligned or not in its memory";
    for address in [524_284, 524_289, -8, 65_537, 1] {
        let allocator = format!("(i32.const {address})");
        indeterminate(&guest_with(&allocator, "(unreachable)", ""), lies);
    }
    // Every text at the same place: the guest harms itself alone.
    content(&guest_with("(i32.const 1024)", NOT_APPLICABLE, ""));
    let fuel = "the policy spent its fuel of 1000000";
    indeterminate(&guest_with("(loop $a (br $a)) (unreachable)", NOT_APPLICABLE, ""), fuel);
    let trap = "the policy trapped: it panicked or executed `unreachable`";
    indeterminate(&guest_with("(unreachable)", NOT_APPLICABLE, ""), trap);
    let memory = "the policy needs more memory than the limit of 4194304 bytes";
    let grow = "(drop (memory.grow (i32.const 60))) (i32.const 1024)";
    indeterminate(&guest_with(grow, NOT_APPLICABLE, ""), memory);
}

#[test]
fn what_follows_the_answer_is_bounded_and_can_spoil_it() {
    let after = |body: &str| {
        guest(NOT_APPLICABLE, &format!("(func (export \"cabi_post_evaluate\") (param i32) {body})"))
    };
    content(&after(""));
    indeterminate(&after("(loop $a (br $a))"), "the policy spent its fuel of 1000000");
    let trap = "the policy trapped: it panicked or executed `unreachable`";
    indeterminate(&after("(unreachable)"), trap);
    let grow = "(drop (memory.grow (i32.const 100)))";
    let memory = "the policy needs more memory than the limit of 4194304 bytes";
    indeterminate(&after(grow), memory);
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
    assert!(
        matches!(failed, Finding::Indeterminate(why) if why == "a param is no isolation level")
    );
}
