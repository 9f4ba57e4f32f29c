//! Components and core modules: small guests made of statements, and wounds in their bytes.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::damage::damaged;
use crate::guest::{component_of, guest, module_of};

const SHIPPED: &[u8] = include_bytes!("../../../policies/reference/isolation/isolation.wasm");

/// What the statements use.
const FIELDS: &str = r#"
    (table $t 4 funcref) (elem (i32.const 0) $deeper $quiet)
    (type $v (func (result i32)))
    (func $deeper (result i32) (i32.add (call $deeper) (call $deeper)))
    (func $quiet (result i32) (i32.const 0))
    (global $g (mut i64) (i64.const 0)) (global $f (mut f64) (f64.const 0))
    (data $d "0123456789")"#;

/// Statements that leave nothing behind; `N` is a number.
const STATEMENTS: [&str; 26] = [
    "(nop)",
    "(i32.store (i32.const N) (i32.const N))",
    "(i64.store (i32.const N) (i64.const -1))",
    "(i32.store8 (i32.const N) (i32.const N))",
    "(drop (i32.load (i32.const N)))",
    "(drop (memory.grow (i32.const N)))",
    "(memory.copy (i32.const N) (i32.const N) (i32.const N))",
    "(memory.fill (i32.const N) (i32.const 1) (i32.const N))",
    "(memory.init $d (i32.const N) (i32.const 0) (i32.const N))",
    "(data.drop $d)",
    "(drop (table.grow $t (ref.null func) (i32.const N)))",
    "(table.fill $t (i32.const 0) (ref.null func) (i32.const N))",
    "(drop (call $quiet))",
    "(drop (call $deeper))",
    "(drop (call_indirect $t (type $v) (i32.const N)))",
    "(drop (i32.div_s (i32.const N) (i32.const 0)))",
    "(drop (i32.rem_u (i32.const N) (local.get $input)))",
    "(drop (i32.trunc_f32_s (f32.div (f32.const 0) (f32.const 0))))",
    "(drop (i64.trunc_sat_f64_u (f64.const 1e300)))",
    "(global.set $f (f64.sqrt (f64.sub (global.get $f) (f64.const 1))))",
    "(i64.store (i32.const N) (i64.reinterpret_f64 (global.get $f)))",
    "(global.set $g (i64.rotl (i64.mul (global.get $g) (i64.const 31)) (i64.const N)))",
    "(v128.store (i32.const N) (i8x16.swizzle (v128.const i64x2 1 2) (v128.const i64x2 3 4)))",
    "(if (i32.eqz (i32.load8_u (i32.const N))) (then (unreachable)))",
    "(return (i32.const N))",
    "(loop $again (br $again))",
];

/// Numbers at the edges of memory, tables and types.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "4",
    "16",
    "20",
    "1000",
    "65535",
    "65536",
    "100000",
    "524284",
    "524288",
    "1048576",
    "2147483647",
    "-1",
];

fn statement() -> impl Strategy<Value = String> {
    let one = (select(STATEMENTS.to_vec()), vec(select(NUMBERS.to_vec()), 3)).prop_map(
        |(statement, numbers)| {
            let mut pieces = statement.split(" N");
            let mut text = pieces.next().unwrap_or_default().to_owned();
            for (piece, number) in pieces.zip(numbers.iter().cycle()) {
                text.push(' ');
                text.push_str(number);
                text.push_str(piece);
            }
            text
        },
    );
    one.prop_recursive(3, 12, 4, |inner| {
        let block = ["(block ", "(loop ", "(if (local.get $input) (then "];
        (select(block.to_vec()), vec(inner, 1..4)).prop_map(|(opening, statements)| {
            let closing = if opening.starts_with("(if") { "))" } else { ")" };
            format!("{opening}{}{closing}", statements.concat())
        })
    })
}

/// Core modules that are valid, and make a policy in the right shell.
fn modules() -> impl Strategy<Value = Vec<u8>> {
    let answer = prop_oneof![6 => Just(16_u32), 1 => select(vec![0, 17, 524_284, u32::MAX])];
    (vec(statement(), 0..6), answer)
        .prop_map(|(statements, answer)| module_of(&guest(&statements.concat(), answer, FIELDS)))
}

/// Small components that are policies.
pub(crate) static COMPONENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let bodies = [
        "",
        "(drop (memory.grow (i32.const 1)))",
        "(i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
         (i32.store (i32.const 24) (i32.const 3)) (i32.store (i32.const 64) (i32.const 6513249))",
    ];
    let guests = bodies.iter().map(|body| module_of(&guest(body, 16, FIELDS)));
    guests.map(|module| component_of(&module)).collect()
});

/// Core modules and components, most of them with wounds.
pub fn component() -> impl Strategy<Value = Vec<u8>> {
    let modules = modules().boxed();
    prop_oneof![
        20 => modules.clone(),
        100 => damaged(modules),
        80 => damaged(select(COMPONENTS.clone())),
        // Compiling the shipped one takes a hundred times as long.
        1 => damaged(Just(SHIPPED.to_vec())),
    ]
}
