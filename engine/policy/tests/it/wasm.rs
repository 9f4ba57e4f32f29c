//! Components as a bundle meets them: what is refused at load, and how the refusal reads.

use std::path::Path;
use std::process::Command;

use placet_policy::{Bundle, LoadError, PolicySet, WasmRuntime, check_component};

use wit_parser::{Docs, Resolve, TypeDefKind};

const ISOLATION: &[u8] = include_bytes!("../../../../policies/reference/isolation/isolation.wasm");
const RESIDENCY: &[u8] = include_bytes!("../../../../policies/reference/residency/residency.wasm");

fn refusal(bytes: &[u8]) -> String {
    let runtime = WasmRuntime::new().expect("the engine starts");
    check_component(&runtime, "p.wasm", bytes).expect_err("it must not load").to_string()
}

#[test]
fn the_shipped_components_are_such() {
    let runtime = WasmRuntime::new().expect("the engine starts");
    check_component(&runtime, "isolation.wasm", ISOLATION).expect("it loads");
    check_component(&runtime, "residency.wasm", RESIDENCY).expect("it loads");
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
    let clock = refusal(&clock);
    let named = "p.wasm: imports `now` of `wasi:clocks/wall-clock@0.2.0`\n\
        hint: build it without WASI: Rust for wasm32-unknown-unknown, as `placet build` does; ";
    assert!(clock.starts_with(named), "{clock}");
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

/// One of several processes that fill one cache; it is the directory that it runs in.
#[test]
#[ignore = "run by the test below, in a directory of its own"]
fn one_process_of_several() {
    let runtime = WasmRuntime::with_cache(Path::new(".")).expect("it opens");
    check_component(&runtime, "isolation.wasm", ISOLATION).expect("it loads");
    let activity = runtime.take_cache_activity();
    assert_eq!(activity.loaded + activity.compiled, 1);
    assert!(activity.notes.is_empty(), "{:?}", activity.notes);
}

#[test]
fn several_processes_may_share_a_cache() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("code");
    // Made by the engine, so with the right mode whatever the process's mask.
    drop(WasmRuntime::with_cache(&directory).expect("it opens"));
    let program = std::env::current_exe().expect("it has a path");
    let start = || {
        let mut child = Command::new(&program);
        child.args(["--exact", "wasm::one_process_of_several", "--ignored"]);
        child.current_dir(&directory).output()
    };
    std::thread::scope(|scope| {
        let children: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        for child in children {
            let output = child.join().expect("no panic").expect("it starts");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
    });
    let runtime = WasmRuntime::with_cache(&directory).expect("it opens");
    check_component(&runtime, "isolation.wasm", ISOLATION).expect("it loads");
    let activity = runtime.take_cache_activity();
    assert_eq!((activity.loaded, activity.compiled), (1, 0), "{:?}", activity.notes);
    let files = std::fs::read_dir(&directory).expect("it lists").count();
    assert_eq!(files, 2, "the key and one entry");
}

#[test]
fn a_cached_component_is_still_checked_like_any_other() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("code");
    let clock = r#"(component (import "wasi:clocks/wall-clock@0.2.0"
        (instance (export "now" (func (result u64))))))"#;
    let clock = wat::parse_str(clock).expect("well-formed");
    for expected in [(0, 1), (1, 0)] {
        let runtime = WasmRuntime::with_cache(&directory).expect("it opens");
        let error = check_component(&runtime, "p.wasm", &clock).expect_err("it must not load");
        assert!(error.to_string().contains("imports `now`"), "{error}");
        let activity = runtime.take_cache_activity();
        assert_eq!((activity.loaded, activity.compiled), expected);
    }
}

/// Whether a comment says something.
fn documented(docs: &Docs) -> bool {
    docs.contents.as_ref().is_some_and(|text| !text.trim().is_empty())
}

#[test]
fn the_world_is_documented_field_by_field() {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path("../../proto/wit").expect("the world parses");
    let mut silent = Vec::new();
    let mut seen = 0;
    let mut check = |name: String, docs: &Docs| {
        seen += 1;
        if !documented(docs) {
            silent.push(name);
        }
    };
    let package = &resolve.packages[package];
    assert_eq!(package.name.to_string(), "placet:policy@0.4.0", "it has a version");
    check(package.name.to_string(), &package.docs);
    for (name, interface) in &package.interfaces {
        let interface = &resolve.interfaces[*interface];
        check(name.clone(), &interface.docs);
        for (name, id) in &interface.types {
            let ty = &resolve.types[*id];
            check(name.clone(), &ty.docs);
            let part = |part: &str| format!("{name}.{part}");
            match &ty.kind {
                TypeDefKind::Record(it) => {
                    it.fields.iter().for_each(|field| check(part(&field.name), &field.docs));
                }
                TypeDefKind::Enum(it) => {
                    it.cases.iter().for_each(|case| check(part(&case.name), &case.docs));
                }
                TypeDefKind::Variant(it) => {
                    it.cases.iter().for_each(|case| check(part(&case.name), &case.docs));
                }
                other => {
                    panic!("`{name}` is a kind of type that this test does not know: {other:?}")
                }
            }
        }
    }
    for (name, world) in &package.worlds {
        let world = &resolve.worlds[*world];
        check(name.clone(), &world.docs);
        for item in world.exports.values() {
            let wit_parser::WorldItem::Function(function) = item else { panic!("{item:?}") };
            check(function.name.clone(), &function.docs);
        }
    }
    assert!(seen > 80, "only {seen} parts were found");
    assert!(silent.is_empty(), "without a comment: {silent:?}");
}
