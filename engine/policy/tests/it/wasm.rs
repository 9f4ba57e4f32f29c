//! Components as a bundle meets them: what is refused at load, and how the refusal reads.

use std::path::Path;

use placet_policy::{Bundle, LoadError, PolicySet, WasmRuntime, check_component};

const ISOLATION: &[u8] = include_bytes!("../../../../policies/reference/isolation/isolation.wasm");

fn refusal(bytes: &[u8]) -> String {
    let runtime = WasmRuntime::new().expect("the engine starts");
    check_component(&runtime, "p.wasm", bytes).expect_err("it must not load").to_string()
}

#[test]
fn the_shipped_component_is_one() {
    let runtime = WasmRuntime::new().expect("the engine starts");
    check_component(&runtime, "isolation.wasm", ISOLATION).expect("it loads");
}

#[test]
fn a_refusal_names_the_file_and_the_remedy() {
    insta::assert_snapshot!(refusal(b"a text"), @r"
    p.wasm: is not a WebAssembly file
    hint: build it with `placet build`
    ");
    let module = wat::parse_str("(module)").expect("well-formed");
    insta::assert_snapshot!(refusal(&module), @r"
    p.wasm: is a core module, not a component
    hint: build it with `placet build`
    ");
    let clock = r#"(component (import "wasi:clocks/wall-clock@0.2.0"
        (instance (export "now" (func (result u64))))))"#;
    let clock = wat::parse_str(clock).expect("well-formed");
    insta::assert_snapshot!(refusal(&clock), @r"
    p.wasm: imports `now` of `wasi:clocks/wall-clock@0.2.0`
    hint: a policy gets everything from its input: there is no clock, no randomness and no I/O
    ");
}

#[test]
fn one_flipped_byte_never_brings_the_loader_down() {
    let runtime = WasmRuntime::new().expect("the engine starts");
    let mut refused = 0;
    // A prime stride meets every section of the file without compiling it ten thousand times.
    for at in (0..ISOLATION.len()).step_by(499) {
        let mut bytes = ISOLATION.to_vec();
        bytes[at] ^= 0x55;
        if check_component(&runtime, "p.wasm", &bytes).is_err() {
            refused += 1;
        }
    }
    assert!(refused > 0, "some of the bytes matter");
}

fn compile(directory: &Path) -> Result<PolicySet, LoadError> {
    let runtime = WasmRuntime::new().expect("the engine starts");
    PolicySet::compile(&Bundle::load(directory)?, &runtime)
}

#[test]
fn a_bundle_with_an_unreadable_component_does_not_compile() {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\n\
        policies: [{name: p, source: p.wasm}]\n";
    std::fs::write(directory.path().join("bundle.yaml"), manifest).expect("it is written");
    std::fs::write(directory.path().join("p.wasm"), &ISOLATION[..1_000]).expect("it is written");
    let error = compile(directory.path()).expect_err("half a component").to_string();
    assert!(error.contains("p.wasm: is not a valid component"), "{error}");
    std::fs::write(directory.path().join("p.wasm"), ISOLATION).expect("it is written");
    compile(directory.path()).expect("the whole component");
}
