//! What a component must be before it can be a policy, with the remedy for each way of not being
//! one.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex};
use wasmtime::{Engine, Error};

use super::MAX_COMPONENT_BYTES;

/// The interface of types, without its version.
const TYPES: &str = "placet:policy/types";
/// The version that this engine speaks.
const VERSION: &str = "0.4.0";
/// What every WebAssembly file starts with.
const MAGIC: &[u8] = b"\0asm";
/// Version and layer of a core module: version 1, layer 0 (WebAssembly core specification,
/// §5.5.16).
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];

const BUILD: &str = "build it with `placet build`";
const NO_IMPORTS: &str =
    "a policy gets everything from its input: there is no clock, no randomness and no I/O";

/// What every import from WASI starts with.
const WASI: &str = "wasi:";
const NO_WASI: &str = "build it without WASI: Rust for wasm32-unknown-unknown, as `placet build` \
    does; Python with `componentize-py componentize --stub-wasi`; JavaScript with componentize-js \
    and disableFeatures of random, stdio, clocks, http and fetch-event; C and Zig freestanding";

/// A message and its remedy.
pub(super) type Broken = (String, &'static str);

/// Size and kind of file, before anything looks inside.
pub(super) fn form(bytes: &[u8]) -> Result<(), Broken> {
    if bytes.len() > MAX_COMPONENT_BYTES {
        let message =
            format!("has {} bytes, at most {MAX_COMPONENT_BYTES} are allowed", bytes.len());
        return Err((message, "build it with optimisation for size, and strip it"));
    }
    if Engine::detect_precompiled(bytes).is_some() {
        let hint = "put the component in the bundle: each node compiles it for itself";
        return Err(("is precompiled native code, which is not accepted".to_owned(), hint));
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(("is not a WebAssembly file".to_owned(), BUILD));
    };
    if rest.starts_with(&CORE_MODULE) {
        return Err(("is a core module, not a component".to_owned(), BUILD));
    }
    Ok(())
}

/// Imports nothing but the contract's types, and exports `evaluate`.
pub(super) fn interface(
    engine: &Engine,
    component: &Component,
) -> Result<ComponentExportIndex, Broken> {
    let ty = component.component_type();
    for (name, import) in ty.imports(engine) {
        let remedy = if name.starts_with(WASI) { NO_WASI } else { NO_IMPORTS };
        let ComponentItem::ComponentInstance(instance) = &import.ty else {
            return Err((format!("imports `{name}`"), remedy));
        };
        let asks =
            instance.exports(engine).find(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)));
        if let Some((item, _)) = asks {
            return Err((format!("imports `{item}` of `{name}`"), remedy));
        }
        match name.split_once('@') {
            Some((TYPES, VERSION)) => {}
            Some((TYPES, other)) => return Err(other_version(other)),
            _ => return Err((format!("imports `{name}`"), remedy)),
        }
    }
    component.get_export_index(None, "evaluate").ok_or_else(|| {
        let message = "does not export `evaluate`".to_owned();
        (message, "make it a component of the world `policy` in proto/wit/policy.wit")
    })
}

/// It speaks another version of the contract.
fn other_version(other: &str) -> Broken {
    let message = format!("is built for version {other} of the policy world, not {VERSION}");
    let numbers = |version: &str| -> Vec<u64> {
        version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    if numbers(other) > numbers(VERSION) {
        return (message, "update the engine, or build it with the `placet-guest` of this release");
    }
    (message, "build it again with the `placet-guest` of this release")
}

/// The compiler refuses it.
pub(super) fn not_valid(error: &dyn std::fmt::Display) -> Broken {
    (format!("is not a valid component: {}", one_line(&error.to_string())), BUILD)
}

/// Its export has another type.
pub(super) fn not_our_world(error: &Error) -> Broken {
    let causes: Vec<String> = error.chain().map(|cause| one_line(&cause.to_string())).collect();
    let message = format!(
        "`evaluate` is not that of the world placet:policy/policy@{VERSION}: {}",
        causes.join(": ")
    );
    (message, "build it again with the `placet-guest` or the WIT file of this release")
}

/// No instance of it can be made.
pub(super) fn no_instance(why: &str) -> Broken {
    let message = format!("cannot be instantiated: {}", one_line(why));
    (message, "give it a larger budget, or do less when it starts")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
