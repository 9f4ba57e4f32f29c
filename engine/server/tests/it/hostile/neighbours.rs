//! A bundle in which two good tenants have the reference policies, and each of their neighbours one
//! policy that is hostile or broken. Shared with the benchmark `neighbours`.

use std::fmt::Write as _;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// The tenant with the reference policies.
pub(crate) const GOOD: &str = "acme";
/// A neighbour with the same policies.
pub(crate) const LIKE_IT: &str = "globex";
/// Its only cluster and GPU model.
pub(crate) const CLUSTER: &str = "c-1";
pub(crate) const GPU_MODEL: &str = "H100";

/// What a hostile policy is written in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    /// Rules after the package line.
    Rego(&'static str),
    /// The body of a guest's `evaluate`, and further fields of its module.
    Wat(&'static str, &'static str),
}

/// A policy that keeps no promise, asked about the requests of tenant `h-<name>` alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    pub(crate) text: Text,
    /// Words of its verdict's error.
    pub(crate) why: &'static str,
}

impl Hostile {
    pub(crate) fn tenant(&self) -> String {
        format!("h-{}", self.name)
    }
}

const fn rego(name: &'static str, why: &'static str, rules: &'static str) -> Hostile {
    Hostile { name, text: Text::Rego(rules), why }
}

const fn wat(
    name: &'static str,
    why: &'static str,
    body: &'static str,
    fields: &'static str,
) -> Hostile {
    Hostile { name, text: Text::Wat(body, fields), why }
}

const TICKS: &str = "spent its budget of 100000 ticks";
const FUEL: &str = "the policy spent its fuel of 20000000";
const NOT_THE_CONTRACTS: &str = "it is too large, or not of the contract's types";

/// One of each kind.
pub(crate) const HOSTILE: [Hostile; 17] = [
    rego(
        "comprehension",
        TICKS,
        "deny contains {\"code\": \"A\", \"message\": \"m\"} if \
        count([1 | some a in numbers.range(1, 5000); some b in numbers.range(1, 5000); \
        a == b]) > 9",
    ),
    rego(
        "power-set",
        TICKS,
        "two := [0, 1]
deny contains {\"code\": \"A\", \"message\": \"m\"} if count([1 |
    some a in two; some b in two; some c in two; some d in two; some e in two; some f in two
    some g in two; some h in two; some i in two; some j in two; some k in two; some l in two
    some m in two; some n in two; some o in two; some p in two; some q in two; some r in two
]) > 9",
    ),
    rego(
        "range",
        "elements of the range would be above 10000",
        "deny contains {\"code\": \"A\", \"message\": \"m\"} if \
        count(numbers.range(1, 100000000)) > 9",
    ),
    rego(
        "long-text",
        "bytes of a text would be above 262144",
        "
ten := \"0123456789\"
long := concat(\"\", [ten | some _ in numbers.range(1, 1000)])
longer := concat(\"\", [long | some _ in numbers.range(1, 90)])
deny contains {\"code\": \"A\", \"message\": concat(longer, split(ten, \"\"))}",
    ),
    rego(
        "pattern",
        "line 5",
        "deny contains {\"code\": \"A\", \"message\": \"m\"} if \
        regex.match(\"(((a{1,99}){1,99}){1,99}){1,99}\", input.tenant.id)",
    ),
    rego(
        "conflict",
        "line",
        "level := 1 if input.lease
level := 2 if input.time > 0
deny contains {\"code\": \"A\", \"message\": \"m\"} if level == 3",
    ),
    rego(
        "type-error",
        "line 5",
        "deny contains {\"code\": \"A\", \"message\": \"m\"} if \
        to_number(input.tenant.id) > 1",
    ),
    wat("loop", FUEL, "(loop $again (br $again)) (unreachable)", ""),
    wat(
        "recursion",
        "the policy trapped: its stack overflowed",
        "(call $deeper)",
        "(func $deeper (result i32) (i32.add (call $deeper) (call $deeper)))",
    ),
    // Touches every page that it is given.
    wat(
        "memory",
        "the policy needs more memory than the limit of 33554432 bytes",
        "
        (local $at i32)
        (loop $again
            (local.set $at (i32.shl (memory.grow (i32.const 1)) (i32.const 16)))
            (loop $touch
                (i32.store8 (local.get $at) (i32.const 1))
                (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                (br_if $touch (i32.and (local.get $at) (i32.const 65535))))
            (br $again))
        (unreachable)",
        "",
    ),
    wat(
        "table",
        "the policy needs tables of more than 65536 elements",
        "
        (loop $again (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $again))
        (unreachable)",
        "(table $t 1 funcref)",
    ),
    wat(
        "copy",
        FUEL,
        "
        (drop (memory.grow (i32.const 500)))
        (loop $again
            (memory.copy (i32.const 16777216) (i32.const 0) (i32.const 16000000)) (br $again))
        (unreachable)",
        "",
    ),
    // `failed` with a text of 100 MB.
    wat(
        "huge-answer",
        NOT_THE_CONTRACTS,
        "
        (i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
        (i32.store (i32.const 24) (i32.const 100000000)) (i32.const 16)",
        "",
    ),
    // `decided` with 8,000 denials in zeroed memory.
    wat(
        "long-answer",
        NOT_THE_CONTRACTS,
        "
        (i32.store (i32.const 20) (i32.const 64)) (i32.store (i32.const 24) (i32.const 8000))
        (i32.const 16)",
        "",
    ),
    wat(
        "not-text",
        "a text in it is not UTF-8",
        "
        (i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
        (i32.store (i32.const 24) (i32.const 1)) (i32.store8 (i32.const 64) (i32.const 255))
        (i32.const 16)",
        "",
    ),
    // `decided` with a preemption rule whose first victim class is the tenth of two.
    wat(
        "no-such-class",
        NOT_THE_CONTRACTS,
        "
        (i32.store8 (i32.const 52) (i32.const 1)) (i32.store (i32.const 56) (i32.const 128))
        (i32.store (i32.const 60) (i32.const 1)) (i32.store8 (i32.const 128) (i32.const 9))
        (i32.const 16)",
        "",
    ),
    wat("trap", "the policy trapped: it panicked or executed `unreachable`", "(unreachable)", ""),
];

/// A component of the policy world with this body of `evaluate` and these further fields. Its
/// allocator only counts upwards from the second page; the first is the guest's own.
pub(crate) fn guest(body: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 8)
            (global $next (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func (export "evaluate") (param $input i32) (result i32) {body})
            {fields})"#
    );
    let mut module = wat::parse_str(&text).expect("the text is well-formed");
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/wit");
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(wit).expect("the world parses");
    let world = resolve.select_world(&[package], Some("policy")).expect("there is one");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
        .expect("it fits");
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).expect("it is a module").encode().expect("it follows the ABI")
}

/// Writes the bundle into `folder/bundle` and the facts into `folder/facts.yaml`.
pub(crate) fn write(folder: &Path) {
    let bundle = folder.join("bundle");
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    let manifest = std::fs::read_to_string(reference.join("bundle.yaml")).expect("it is there");
    let mut text = String::new();
    for line in manifest.lines() {
        // What the good tenant needs is not required of its neighbours.
        if ["required:", "  lease:", "  job:"].iter().any(|start| line.starts_with(start)) {
            continue;
        }
        writeln!(text, "{line}").expect("a String takes all");
        if let Some(name) = line.strip_prefix("  - name: ") {
            writeln!(text, "    select: {{tenants: [{GOOD}, {LIKE_IT}]}}")
                .expect("a String takes all");
            copy(&reference.join(name), &bundle.join(name));
        }
    }
    for hostile in HOSTILE {
        let name = hostile.name;
        let (file, bytes) = match hostile.text {
            Text::Rego(rules) => {
                let text = format!("package placet.hostile\n\nimport rego.v1\n\n{rules}\n");
                (format!("{name}.rego"), text.into_bytes())
            }
            Text::Wat(body, fields) => (format!("{name}.wasm"), guest(body, fields)),
        };
        std::fs::write(bundle.join(&file), bytes).expect("written");
        let tenant = hostile.tenant();
        let select = format!("select: {{tenants: [{tenant}]}}");
        writeln!(text, "  - name: {name}\n    source: {file}\n    {select}").expect("it takes all");
    }
    std::fs::write(bundle.join("bundle.yaml"), text).expect("written");
    std::fs::write(folder.join("facts.yaml"), facts()).expect("written");
}

/// Copies the files of a policy without its cases, which are about other facts.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("it is a directory") {
        let entry = entry.expect("readable");
        if entry.file_type().expect("known").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// Facts in which a small lease of the good tenant always fits.
pub(crate) fn facts() -> String {
    let mut text = format!(
        "schema: placet.facts/v1
revision: \"1\"
clusters:
  - id: {CLUSTER}
    jurisdiction: DE
    attestations:
      - {{framework: SOC2, valid_from: 0, valid_until: 4000000000}}
      - {{framework: ISO27001, valid_from: 0, valid_until: 4000000000}}
    isolation_levels: [SHARED, PARTITIONED, PASSTHROUGH, DEDICATED, CONFIDENTIAL]
    fabric_gbps: 1000000
    gpus: [{{model: {GPU_MODEL}, count: 1000000, safety_buffer: 0}}]
datasets: []
models: []
quotas:
"
    );
    for tenant in [GOOD, LIKE_IT] {
        let level = "kind: level, unit: milli-gpu, limit: 1000000000";
        let budget = "kind: budget, unit: gpu-second, limit: 9000000000000";
        writeln!(
            text,
            "  - {{account: tenant/{tenant}/gpu, {level}}}
  - {{account: 'tenant/{tenant}/gpu-seconds/{{month}}', {budget}}}"
        )
        .expect("a String takes all");
    }
    text.push_str("tenants:\n");
    let hostile = HOSTILE.iter().map(Hostile::tenant);
    for tenant in [GOOD, LIKE_IT].map(str::to_owned).into_iter().chain(hostile) {
        let rest = "kind: OWN, allowed_jurisdictions: [], licensed_models: [], \
            min_isolation: SHARED, priority_classes: [INTERNAL_RESEARCH], \
            attestations: [{framework: SOC2, valid_from: 0, valid_until: 4000000000}]";
        writeln!(text, "  - {{id: {tenant}, {rest}}}").expect("a String takes all");
    }
    text
}
