//! What is too much to be compiled, and what is not.

use super::*;

fn module(fields: &str) -> Vec<u8> {
    guest(NOT_APPLICABLE, fields)
}

fn of_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("well-formed")
}

#[test]
fn ten_thousand_functions_are_compiled() {
    content(&module(&"(func)".repeat(10_000)));
}

#[test]
fn a_component_with_too_much_in_it_is_refused_before_it_is_compiled() {
    let many =
        |field: &str, count: usize| format!("(component (core module {}))", field.repeat(count));
    let exports: String = (0..30_001).map(|n| format!("(export \"{n}\" (func $f))")).collect();
    for (text, what) in [
        (many("(func)", 50_001), "50000 functions"),
        (many("(type (func))", 10_001), "10000 function types"),
        (many("(import \"\" \"\" (func))", 20_001), "20000 imports of modules"),
        (many("(global i32 (i32.const 0))", 10_001), "10000 globals"),
        (format!("(component (core module (func $f) {exports}))"), "30000 exports of modules"),
        (
            format!("(component (core module (memory 1) {}))", "(data \"\")".repeat(50_001)),
            "50000 data segments",
        ),
        (many("(elem funcref)", 1_001), "1000 element segments"),
        (
            format!("(component (core module (func $f) (elem func {})))", "$f ".repeat(65_537)),
            "65536 elements in its segments",
        ),
        (
            format!("(component (core module (func (param {}))))", "i64 ".repeat(65)),
            "64 parameters of a function",
        ),
        (
            format!("(component (core module (func (result {}) unreachable)))", "i64 ".repeat(17)),
            "16 results of a function",
        ),
        (format!("(component {})", "(core module)".repeat(65)), "64 modules"),
        (format!("(component {})", "(component)".repeat(17)), "16 components within it"),
        (
            format!(
                "(component (core module $m) {})",
                "(core instance (instantiate $m))".repeat(501)
            ),
            "500 instances",
        ),
        (
            format!("(component {})", "(type (record (field \"a\" u8)))".repeat(1_001)),
            "1000 component types",
        ),
    ] {
        refused(&of_text(&text), &format!("has more than {what}"));
    }
}

#[test]
fn one_function_too_large_to_compile_is_refused() {
    let function =
        |body: &str| of_text(&format!("(component (core module (func (param i32) {body})))"));
    let nops = "nop ".repeat(800_000);
    refused(&function(&nops), "has more than 786432 bytes of code in one function");
    let locals = format!("(local {})", "i64 ".repeat(4_097));
    refused(&function(&locals), "has more than 4096 locals in one function");
    let nested = format!("{} {}", "block ".repeat(4_097), "end ".repeat(4_097));
    refused(&function(&nested), "has more than 4096 blocks inside one another");
    let loops = format!("{} {}", "loop ".repeat(65), "end ".repeat(65));
    refused(&function(&loops), "has more than 64 loops inside one another");
    let fine = format!("{} {}", "block ".repeat(4_096), "end ".repeat(4_096));
    content(&module(&format!("(func {fine})")));
    let whole = format!("(func {})", "nop ".repeat(780_000)).repeat(22);
    refused(
        &of_text(&format!("(component (core module {whole}))")),
        "has more than 16777216 bytes of code",
    );
}

/// Few bytes in which the compiler finds billions of things to do: each of them would take minutes
/// or hours.
#[test]
fn small_functions_that_multiply_are_refused() {
    let locals = |count: usize| format!("(local {})", "i64 ".repeat(count));
    let uses =
        |count: usize| (0..count).map(|n| format!("local.get {n} drop ")).collect::<String>();
    let one = "has more than 4000000 values on the edges of one function";
    let all = "has more than 64000000 values on the edges of its functions";
    let flat = |count: usize, blocks: usize| {
        let blocks = "block local.get 0 br_if 0 end ".repeat(blocks);
        format!("(func (param i32) {} {} {blocks} {})", locals(count), uses(count), uses(count))
    };
    let table = |targets: usize| {
        let table = "0 ".repeat(targets);
        let body = format!("block local.get 0 br_table {table} end");
        format!("(func (param i32) {} {} {body} {})", locals(4_000), uses(4_000), uses(4_000))
    };
    for (functions, why) in
        [(flat(4_000, 10_000), one), (table(20_000), one), (flat(2_000, 900).repeat(18), all)]
    {
        let bytes = of_text(&format!("(component (core module {functions}))"));
        assert!(bytes.len() < 400_000, "{} bytes", bytes.len());
        refused(&bytes, why);
    }
}

/// The compiler's work on one function grows with the square of its branches, and its memory too.
#[test]
fn one_function_of_many_branches_is_refused() {
    let squared = "has more than 2000000000 branches in its functions, each squared";
    for (instruction, count) in [
        ("block local.get 0 br_if 0 end ", 23_000),
        ("local.get 0 if else end ", 15_000),
        ("loop end ", 6_500),
        ("i32.const 0 memory.grow drop ", 15_000),
        ("local.get 0 call_indirect ", 15_000),
        ("local.get 0 local.get 0 local.get 0 memory.copy ", 15_000),
        ("local.get 0 table.get 0 drop ", 15_000),
    ] {
        let body = instruction.repeat(count);
        let text = format!(
            "(component (core module (memory 1) (table 1 funcref) (func (param i32) {body})))"
        );
        refused(&of_text(&text), squared);
    }
    let table = "0 ".repeat(45_000);
    let text = format!("(component (core module (func (param i32) local.get 0 br_table {table})))");
    refused(&of_text(&text), squared);
    // The same number of branches over many functions is no burden.
    let function = format!("(func (param i32) {})", "local.get 0 if end ".repeat(100));
    content(&module(&function.repeat(150)));
}
