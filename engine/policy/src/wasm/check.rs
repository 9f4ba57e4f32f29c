//! What a component must be before it can be a policy, with the remedy for each way of not being
//! one.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex};
use wasmtime::{Engine, Error};

use super::MAX_COMPONENT_BYTES;

/// The interface of types, without its version.
const TYPES: &str = "placet:policy/types";
/// The version that this engine speaks.
const VERSION: &str = "0.1.0";
/// What every WebAssembly file starts with.
const MAGIC: &[u8] = b"\0asm";
/// Version and layer of a core module: version 1, layer 0 (WebAssembly core specification,
/// §5.5.16).
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];

const BUILD: &str = "build it with `placet build`";
const NO_IMPORTS: &str =
    "a policy gets everything from its input: there is no clock, no randomness and no I/O";

/// A message and its remedy.
type Broken = (String, &'static str);

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
        let ComponentItem::ComponentInstance(instance) = &import.ty else {
            return Err((format!("imports `{name}`"), NO_IMPORTS));
        };
        let asks =
            instance.exports(engine).find(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)));
        if let Some((item, _)) = asks {
            return Err((format!("imports `{item}` of `{name}`"), NO_IMPORTS));
        }
        match name.split_once('@') {
            Some((TYPES, VERSION)) => {}
            Some((TYPES, other)) => {
                let message =
                    format!("is built for version {other} of the policy world, not {VERSION}");
                return Err((message, "build it again with the `placet-guest` of this release"));
            }
            _ => return Err((format!("imports `{name}`"), NO_IMPORTS)),
        }
    }
    component.get_export_index(None, "evaluate").ok_or_else(|| {
        let message = "does not export `evaluate`".to_owned();
        (message, "make it a component of the world `policy` in proto/wit/policy.wit")
    })
}

/// The compiler refuses it.
pub(super) fn not_valid(error: &Error) -> Broken {
    (format!("is not a valid component: {}", one_line(&error.root_cause().to_string())), BUILD)
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
