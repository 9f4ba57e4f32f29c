//! Policies in Rego: from a small grammar over the contract's rules and the built-ins, with hostile
//! pieces, and the shipped ones with wounds.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::damage::{damaged, spoiled};

const SHIPPED: [&str; 4] = [
    include_str!("../../../policies/reference/capacity/capacity.rego"),
    include_str!("../../../policies/reference/isolation/isolation.rego"),
    include_str!("../../../policies/reference/preemption/preemption.rego"),
    include_str!("../../../policies/reference/quota/quota.rego"),
];

/// Terms without parts.
const LEAVES: [&str; 46] = [
    "0",
    "1",
    "-1",
    "8",
    "1e3",
    "0.1",
    "9007199254740993",
    "99999999999999999999999999",
    "1e400",
    "true",
    "false",
    "null",
    "\"\"",
    "\"a\"",
    "\"%999d\"",
    "\"(a+)+$\"",
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\"",
    "\"\\u0000\"",
    "`[a-z]{1000}{1000}`",
    "\"2026-11-22T00:00:00Z\"",
    "[]",
    "{}",
    "set()",
    "input",
    "input.time",
    "input.month",
    "input.lease",
    "input.lease.gpu_count",
    "input.lease.gpu_models",
    "input.lease.gpu_models[_]",
    "input.lease.gpu_cout",
    "input.job.gpu_count",
    "input.tenant.id",
    "input.tenant.attestations[i].framework",
    "input.cluster.gpus[_].count",
    "input.datasets[x].id",
    "data.params",
    "data.params.limit",
    "data.params.regions[_]",
    "data.params.table.a[2].b",
    "data.placet.p.deny",
    "helping",
    "x",
    "y",
    "i",
    "_",
];

/// Terms that ask for too much, or for what no policy gets.
const HOSTILE: [&str; 24] = [
    "numbers.range(1, 100000000)",
    "numbers.range(1, 9999)",
    "count(numbers.range(1, 10000))",
    "[a | a := numbers.range(1, 300)[_]; b := numbers.range(1, 300)[_]; a == b]",
    "{a: b | a := input.lease[b]}",
    "concat(\"\", [s | numbers.range(1, 9000)[_]; s := \"0123456789\"])",
    "replace(\"aaaaaaaaaaaaaaaa\", \"a\", \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\")",
    "sprintf(\"%s %d %v %x %5.3f\", [input, 1, [2], 3, 4.5])",
    "sprintf(\"%999999999d\", [1])",
    "bits.lsh(1, 100000)",
    "regex.match(`(a|aa)+$`, \"aaaaaaaaaaaaaaaaaaaaaaaaaaaa!\")",
    "regex.match(`(((a{99}){99}){99}){99}`, \"a\")",
    "regex.replace(\"abc\", `(.)`, \"$1$1$1\")",
    "glob.match(\"{a,b,[c-z]}*\", [\".\"], \"abc\")",
    "json.unmarshal(\"[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\")",
    "json.marshal(input)",
    "object.union_n([input, input.lease, {}])",
    "walk(input)",
    "time.now_ns()",
    "rand.intn(\"x\", 10)",
    "http.send({\"method\": \"get\", \"url\": \"x\"})",
    "opa.runtime()",
    "f(f(f(1)))",
    "1 / 0",
];

/// Built-ins, each with how many arguments it takes.
const FUNCTIONS: [(&str, usize); 48] = [
    ("abs", 1),
    ("array.concat", 2),
    ("array.slice", 3),
    ("base64.encode", 1),
    ("base64url.decode", 1),
    ("bits.lsh", 2),
    ("ceil", 1),
    ("concat", 2),
    ("contains", 2),
    ("count", 1),
    ("endswith", 2),
    ("f", 1),
    ("format_int", 2),
    ("glob.match", 3),
    ("graph.reachable", 2),
    ("hex.encode", 1),
    ("indexof", 2),
    ("intersection", 1),
    ("is_number", 1),
    ("json.filter", 2),
    ("json.marshal", 1),
    ("json.patch", 2),
    ("json.unmarshal", 1),
    ("lower", 1),
    ("max", 1),
    ("min", 1),
    ("numbers.range", 2),
    ("object.get", 3),
    ("object.remove", 2),
    ("object.union", 2),
    ("object.union_n", 1),
    ("product", 1),
    ("regex.match", 2),
    ("regex.split", 2),
    ("replace", 3),
    ("semver.compare", 2),
    ("sort", 1),
    ("split", 2),
    ("sprintf", 2),
    ("startswith", 2),
    ("substring", 3),
    ("sum", 1),
    ("time.parse_rfc3339_ns", 1),
    ("to_number", 1),
    ("trim", 2),
    ("type_name", 1),
    ("union", 1),
    ("upper", 1),
];

/// Operators between two terms.
const OPERATORS: [&str; 16] =
    ["+", "-", "*", "/", "%", "&", "|", "==", "!=", "<", "<=", ">", ">=", "in", ":=", "="];

/// Words that take the place of others in the shipped policies.
const WORDS: [&str; 41] = [
    "if",
    "contains",
    "not",
    "some",
    "every",
    "in",
    "with",
    "as",
    "else",
    "default",
    "import",
    "package",
    "deny",
    "warn",
    "claims",
    "obligations",
    "preemption",
    "terms",
    "applicable",
    "input",
    "data",
    "data.params",
    "rego.v1",
    "true",
    "0",
    "1",
    "1e9",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ":=",
    "==",
    "|",
    "\n",
    "\"",
    "`",
    "#",
    "numbers.range(1, 10000)",
];

fn term() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![9 => select(LEAVES.to_vec()), 1 => select(HOSTILE.to_vec())];
    leaf.prop_map(str::to_owned).prop_recursive(4, 16, 4, |inner| {
        let call = (select(FUNCTIONS.to_vec()), vec(inner.clone(), 4)).prop_map(
            |((name, count), arguments)| {
                let arguments: Vec<_> = arguments.into_iter().take(count).collect();
                format!("{name}({})", arguments.join(", "))
            },
        );
        let binary = (inner.clone(), select(OPERATORS.to_vec()), inner.clone())
            .prop_map(|(one, operator, other)| format!("({one} {operator} {other})"));
        let list = (vec(inner.clone(), 0..4), any::<bool>()).prop_map(|(items, set)| {
            let items = items.join(", ");
            if set { format!("{{{items}}}") } else { format!("[{items}]") }
        });
        let pairs = vec((inner.clone(), inner.clone()), 0..3);
        let object = pairs.prop_map(|pairs| {
            let fields = pairs.iter().map(|(key, value)| format!("{key}: {value}"));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        });
        let comprehension = (0..3, inner.clone(), inner.clone(), inner.clone()).prop_map(
            |(kind, term, one, other)| match kind {
                0 => format!("[{term} | {one}; {other}]"),
                1 => format!("{{{term} | some x in {one}; {other}}}"),
                _ => format!("{{{term}: {other} | some i, x in {one}}}"),
            },
        );
        let reference = (inner.clone(), inner).prop_map(|(one, key)| format!("{one}[{key}]"));
        prop_oneof![4 => call, 3 => binary, 2 => list, 1 => object, 3 => comprehension,
            1 => reference]
    })
}

fn statement() -> impl Strategy<Value = String> {
    (0..9, term(), term()).prop_map(|(kind, one, other)| match kind {
        0 => format!("x := {one}"),
        1 => format!("some x in {one}"),
        2 => format!("some i, y in {one}"),
        3 => format!("not {one}"),
        4 => format!("every y in {one} {{ {other} }}"),
        5 => format!("{one} with input as {other}"),
        6 => format!("{one} with input.lease.gpu_count as {other}"),
        7 => format!("{one} == {other}"),
        _ => one,
    })
}

/// An entry of a rule, right or nearly so.
fn entry() -> impl Strategy<Value = String> {
    (0..8, term()).prop_map(|(kind, term)| match kind {
        0 => format!("{{\"code\": \"NO\", \"message\": {term}}}"),
        1 => {
            "{\"code\": \"NO\", \"message\": \"no\", \"field\": \"lease\", \"retry\": true}".into()
        }
        2 => format!("{{\"code\": \"NO\", \"message\": sprintf(\"%v\", [{term}])}}"),
        3 => format!("{{\"id\": \"o\", \"params\": {{\"a\": {term}}}}}"),
        4 => format!("{{\"account\": \"tenant/a/gpu\", \"amount\": {term}}}"),
        5 => format!("{{\"account\": \"tenant/a/gpu\", \"amount\": 1, \"limit\": {term}}}"),
        6 => "{\"id\": \"o\"}".into(),
        _ => term,
    })
}

fn rule() -> impl Strategy<Value = String> {
    let body = vec(statement(), 0..4).prop_map(|statements| {
        let lines = if statements.is_empty() { "true".into() } else { statements.join("\n\t") };
        format!("{{\n\t{lines}\n}}")
    });
    let body = body.boxed();
    (0..15, entry(), body.clone(), body, term()).prop_map(|(kind, entry, body, other, term)| {
        match kind {
            0..=3 => format!("deny contains {entry} if {body}"),
            4 => format!("warn contains {entry} if {body}"),
            5 => format!("obligations contains {entry} if {body}"),
            6 => format!("claims contains {entry} if {body}"),
            7 => format!("default applicable := false\n\napplicable if {body}"),
            8 => format!(
                "preemption := {{\"grace_seconds\": {term}, \"max_victims\": 1, \
                 \"min_runtime_seconds\": 0, \"victim_classes\": [\"EXTERNAL_COMMERCIAL\"]}} if \
                 {body}"
            ),
            9 => format!("helping := {term} if {body}"),
            10 => format!("f(x) := {term} if {body}\n\nelse := 1 if {other}"),
            11 => format!("f(x) := y if {{\n\ty := f(x)\n\t{term}\n}}"),
            12 => format!("helping := {term}"),
            13 => format!(
                "terms := {{\"min_runtime_seconds\": 0, \"notice_seconds\": {term}}} if {body}"
            ),
            _ => format!("table[x] := y if {body}"),
        }
    })
}

/// Texts that nest deeply, repeat or are long.
fn bomb() -> impl Strategy<Value = String> {
    let depth = prop_oneof![4 => 1_usize..64, 1 => 64_usize..4_000];
    (0..9, depth).prop_map(|(kind, depth)| {
        let term = match kind {
            0 => format!("{}1{}", "(".repeat(depth), ")".repeat(depth)),
            1 => format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
            2 => format!("{}1{}", "{\"a\":\n".repeat(depth), "}".repeat(depth)),
            3 => format!("{}1", "1 +\n".repeat(depth)),
            4 => format!("input{}", "[0]".repeat(depth)),
            5 => format!("{}1{}", "count([".repeat(depth), "])".repeat(depth)),
            6 => format!("{}1", "- ".repeat(depth)),
            7 => format!("{}1{}", "[x | x := ".repeat(depth), "]".repeat(depth)),
            _ => format!("\"{}\"", "a".repeat(depth)),
        };
        format!("package placet.p\n\ndeny contains {{\"code\": \"NO\", \"message\": {term}}}\n")
    })
}

/// Policies, a few of them not even text.
pub fn rego() -> impl Strategy<Value = Vec<u8>> {
    let grown = vec(rule(), 1..5)
        .prop_map(|rules| format!("package placet.p\n\nimport rego.v1\n\n{}\n", rules.join("\n\n")))
        .boxed();
    let shipped = select(SHIPPED.to_vec()).prop_map(str::to_owned);
    prop_oneof![
        12 => grown.clone().prop_map(String::into_bytes),
        4 => spoiled(grown.clone(), &WORDS).prop_map(String::into_bytes),
        3 => spoiled(shipped, &WORDS).prop_map(String::into_bytes),
        1 => bomb().prop_map(String::into_bytes),
        1 => damaged(grown.prop_map(String::into_bytes)),
    ]
}
