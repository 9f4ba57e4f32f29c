//! Components that are refused before anybody is asked to trust them.

use super::*;

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
    let types = r#"(component (import "placet:policy/types@0.5.0"
        (instance (export "input" (type (eq 0))))))"#
        .replace("(component ", "(component (type u8) ")
        .replace(
            r#"(export "input" (type (eq 0)))"#,
            r#"(alias outer 1 0 (type)) (export "input" (type (eq 0)))"#,
        );
    refused(&wat(&types), "is built for version 0.5.0 of the policy world, not 0.4.0");
}

#[test]
fn an_export_of_another_type_is_refused() {
    let text = r#"(component
        (core module $m (func (export "f") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "evaluate") (result u32) (canon lift (core func $i "f"))))"#;
    let component = wat::parse_str(text).expect("well-formed");
    refused(&component, "`evaluate` is not that of the world placet:policy/policy@0.4.0");
}

#[test]
fn the_checked_in_component_is_small_and_names_no_machine() {
    assert!(ISOLATION.len() < 120_000, "{} bytes", ISOLATION.len());
    let text = String::from_utf8_lossy(ISOLATION);
    for path in ["/root/", "/home/", "/work/", "/tmp/", ".cargo"] {
        assert!(!text.contains(path), "{path} in {}", Digest::of(ISOLATION));
    }
}

#[test]
fn wasi_is_refused_with_the_way_to_leave_it_out() {
    let wat = |text: &str| wat::parse_str(text).expect("well-formed");
    for name in ["wasi:cli/environment@0.2.0", "wasi:random/random@0.2.3", "wasi:io/streams@0.2.0"]
    {
        let text = format!(
            r#"(component (import "{name}" (instance (export "get" (func (result u64))))))"#
        );
        let error = policy(&wat(&text)).expect_err("it must not load").to_string();
        assert!(error.contains(&format!("imports `get` of `{name}`")), "{error}");
        for way in ["--stub-wasi", "disableFeatures", "wasm32-unknown-unknown"] {
            assert!(error.contains(way), "{error}");
        }
    }
}

#[test]
fn another_version_is_named_with_what_to_do() {
    for (version, remedy) in [
        ("0.5.0", "update the engine"),
        ("1.0.0", "update the engine"),
        ("0.4.1", "update the engine"),
        ("0.3.0", "build it again"),
        ("0.4.0-draft", "build it again"),
    ] {
        let text = format!(
            r#"(component (type u8) (import "placet:policy/types@{version}"
                (instance (alias outer 1 0 (type)) (export "input" (type (eq 0))))))"#
        );
        let bytes = wat::parse_str(text).expect("well-formed");
        let error = policy(&bytes).expect_err("it must not load").to_string();
        let message = format!("is built for version {version} of the policy world, not 0.4.0");
        assert!(error.contains(&message) && error.contains(remedy), "{error}");
    }
}

#[test]
fn a_component_that_calls_itself_through_the_model_is_refused() {
    let text = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $lifted (canon lift (core func $i "f")))
        (core func $lowered (canon lower (func $lifted)))
        (core module $n (import "" "f" (func $f)) (start $f))
        (core instance (instantiate $n (with "" (instance (export "f" (func $lowered))))))
        (func (export "evaluate") (canon lift (core func $i "f"))))"#;
    let bytes = wat::parse_str(text).expect("well-formed");
    refused(&bytes, "cannot be instantiated: the policy trapped: it called itself");
}

#[test]
fn a_start_function_that_loops_is_told_what_would_help() {
    let start = "(func $start (loop $again (br $again))) (start $start)";
    let error = policy(&guest(NOT_APPLICABLE, start)).expect_err("refused").to_string();
    assert_eq!(
        error,
        "hostile.wasm: cannot be instantiated: the policy spent its fuel of 1000000\n\
         hint: give it a larger budget, or do less when it starts"
    );
    let copy = "(func $start (loop $again
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 524288)) (br $again))) (start $start)";
    refused(&guest(NOT_APPLICABLE, copy), "cannot be instantiated: the policy spent its fuel");
    let grow = "(func $start (drop (memory.grow (i32.const 1000)))) (start $start)";
    refused(&guest(NOT_APPLICABLE, grow), "cannot be instantiated: the policy needs more memory");
}

#[test]
fn fifty_megabytes_are_refused_by_their_size() {
    let mut component = guest(NOT_APPLICABLE, "");
    component.resize(50 << 20, 0);
    refused(&component, "has 52428800 bytes, at most 33554432 are allowed");
}
