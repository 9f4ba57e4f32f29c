//! Bytes as a component.

use std::sync::LazyLock;

use placet_policy::{PolicySet, check_component};

use super::work::{accept, bounded};
use super::{evaluation, world};
use crate::guest::{self, Shell};

/// Magic, version and layer of a core module (WebAssembly core specification, §5.5.16).
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// Some hundred times what the small guests need, and soon spent by a loop.
const BUDGET: &str = "{fuel: 500000, memory_bytes: 2097152}";

static SHELL: LazyLock<Shell> = LazyLock::new(Shell::new);

/// A component: refused with its reason, or evaluated to the same bytes in every run, fuel
/// included, within every bound of an answer and of work. A core module is tried as it is, which
/// must be refused, and in the place of the module of a component that is right in all else.
///
/// # Panics
/// If the bytes show a bug.
pub fn component(bytes: &[u8]) {
    if bytes.starts_with(CORE_MODULE) {
        let refused = check_component(&world::RUNTIME, "p.wasm", bytes);
        world::check_refusal(&refused.expect_err("a core module is no component"));
        if bytes.len() <= guest::MAX_MODULE_BYTES {
            check(&SHELL.around(bytes));
        }
    } else {
        check(bytes);
    }
}

fn check(bytes: &[u8]) {
    let compiled = bounded("compiling", || check_component(&world::RUNTIME, "p.wasm", bytes));
    if let Err(error) = compiled {
        return world::check_refusal(&error);
    }
    let bundle = world::bundle("p.wasm", bytes, BUDGET).expect("the manifest is right");
    match PolicySet::compile(&bundle, &world::RUNTIME) {
        // What fits the default budget need not fit the small one.
        Err(error) => world::check_refusal(&error),
        Ok(set) => {
            accept();
            bounded("evaluating", || evaluation::thrice(set, &world::input()));
        }
    }
}
