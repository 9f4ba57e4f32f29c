//! Guests that the targets need, written in WebAssembly's text form and made into components here.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// Address at which [`ECHO`] writes the first byte; what follows the four bytes of the pointer is
/// at [`MEMORY`].
pub(crate) const POINTER: u32 = 1_020;
/// Address of the fifth byte.
pub(crate) const MEMORY: u32 = POINTER + 4;

/// Largest core module that [`Shell`] takes, in bytes: compiling one must stay cheap.
pub(crate) const MAX_MODULE_BYTES: usize = 64 << 10;

/// Takes the longest text of its input, which is the principal's issuer, as bytes in two letters
/// each, writes them from [`POINTER`] on, and returns what stands there as the address of its
/// answer.
///
/// Its allocator only counts upwards from page 1; page 0 is the guest's own.
pub(crate) const ECHO: &str = r#"(module
    (memory (export "memory") 8)
    (global $next (mut i32) (i32.const 65536))
    (global $text (mut i32) (i32.const 0))
    (global $length (mut i32) (i32.const 0))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
        (global.set $next (i32.add (local.get $at) (local.get 3)))
        (if (i32.and
                (i32.eq (local.get 2) (i32.const 1))
                (i32.gt_u (local.get 3) (global.get $length)))
            (then
                (global.set $text (local.get $at))
                (global.set $length (local.get 3))))
        (local.get $at))
    (func (export "evaluate") (param $input i32) (result i32)
        (local $from i32) (local $to i32) (local $end i32)
        (local.set $from (global.get $text))
        (local.set $end (i32.add (global.get $text) (global.get $length)))
        (local.set $to (i32.const 1020))
        (block $done
            (loop $again
                (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
                (i32.store8 (local.get $to)
                    (i32.add
                        (i32.shl
                            (i32.sub (i32.load8_u (local.get $from)) (i32.const 97))
                            (i32.const 4))
                        (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
                (local.set $from (i32.add (local.get $from) (i32.const 2)))
                (local.set $to (i32.add (local.get $to) (i32.const 1)))
                (br $again)))
        (i32.load (i32.const 1020))))"#;

/// A guest with these statements in `evaluate`, which then returns this address, and these further
/// fields.
pub(crate) fn guest(statements: &str, answer: u32, fields: &str) -> String {
    format!(
        r#"(module
            (memory $m (export "memory") 8)
            (global $next (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func (export "evaluate") (param $input i32) (result i32)
                (i32.store8 (i32.const 16) (i32.const 1)) {statements} (i32.const {answer}))
            {fields})"#
    )
}

/// A core module, from text of our own.
///
/// # Panics
/// If the text is no module.
pub(crate) fn module_of(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("our own text is well-formed")
}

/// A component of the policy world around a core module of our own.
///
/// # Panics
/// If the module does not follow the canonical ABI.
pub(crate) fn component_of(module: &[u8]) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("policy.wit", include_str!("../../proto/wit/policy.wit"));
    let package = package.expect("the world parses");
    let world = resolve.select_world(&[package], Some("policy")).expect("there is one");
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
        .expect("the module can carry the world");
    let mut encoder = ComponentEncoder::default();
    let encoder = encoder.validate(true).module(&module).expect("it is a module");
    encoder.encode().expect("the module follows the canonical ABI")
}

/// A component without its core module: what stands before and after that section.
#[derive(Debug)]
pub(crate) struct Shell {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Shell {
    /// The component of a quiet guest, cut open.
    pub(crate) fn new() -> Self {
        let component = component_of(&module_of(&guest("", 16, "")));
        let (start, end) = module_section(&component).expect("a component has its module");
        let part = |part: Option<&[u8]>| part.expect("the section is inside").to_vec();
        Self { before: part(component.get(..start)), after: part(component.get(end..)) }
    }

    /// The component around another core module, which may be anything.
    pub(crate) fn around(&self, module: &[u8]) -> Vec<u8> {
        let mut bytes = self.before.clone();
        bytes.push(MODULE_SECTION);
        leb128(module.len(), &mut bytes);
        bytes.extend_from_slice(module);
        bytes.extend_from_slice(&self.after);
        bytes
    }
}

/// Id of the section of a component that holds a core module (component model, binary format).
const MODULE_SECTION: u8 = 1;

/// Begin and end of the section with the core module, its id and size included.
fn module_section(component: &[u8]) -> Option<(usize, usize)> {
    // Magic, version and layer.
    let mut at = 8;
    loop {
        let start = at;
        let id = *component.get(at)?;
        at += 1;
        let (mut size, mut shift) = (0_usize, 0);
        loop {
            let byte = usize::from(*component.get(at)?);
            at += 1;
            size |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        at += size;
        if id == MODULE_SECTION {
            return Some((start, at));
        }
    }
}

/// Unsigned LEB128 (WebAssembly core specification, §5.2.2).
fn leb128(mut value: usize, bytes: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit a byte");
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}
