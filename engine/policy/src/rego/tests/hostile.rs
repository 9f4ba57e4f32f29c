//! What a hostile or broken policy gets: it is refused when it is loaded, or its answer is
//! Indeterminate; always, fast, in little memory, and at the same tick.

use std::fmt::Write as _;

use super::*;

/// Half the stack of a thread that evaluates: what the standard library gives a thread is 2 MiB.
const STACK_BYTES: usize = 1 << 20;
/// Address space of the process that runs all of this, in KiB.
#[cfg(target_os = "linux")]
const MEMORY_KIB: u32 = 512 << 10;

/// What becomes of a policy.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Refused(String),
    Answered(Answer),
}

fn outcome(rules: &str) -> Outcome {
    let (rules, input) = (rules.to_owned(), input());
    let value = input.to_value();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = move || match compile(&rules) {
        Err(fault) => {
            assert!(fault.line.is_some(), "{fault}");
            assert!(fault.hint.is_some(), "{fault}");
            Outcome::Refused(fault.to_string())
        }
        Ok(policy) => {
            let first = policy.clone().evaluate(&value, input.time);
            assert_eq!(policy.clone().evaluate(&value, input.time), first, "in a clone");
            Outcome::Answered(first)
        }
    };
    thread.spawn(run).expect("a thread").join().expect("it does not panic")
}

/// Rules `x0` to `x<n>`, each made of the one before.
fn chain(n: usize, first: &str, next: impl Fn(usize) -> String) -> String {
    let mut rules = format!("x0 := {first}\n");
    for at in 1..=n {
        writeln!(rules, "{}", next(at - 1).replace("NEXT", &format!("x{at}"))).expect("a string");
    }
    rules
}

fn deny(body: &str) -> String {
    format!("deny contains {{\"code\": \"A\", \"message\": \"m\"}} if {{\n\t{body}\n}}\n")
}

/// How a case ends: an answer with this error, or a fault with it.
enum End {
    Indeterminate(&'static str),
    Refused(&'static str),
}

fn numbers() -> Vec<(&'static str, String, End)> {
    let bits = || End::Indeterminate("bits of a");
    let squared = |at: usize| format!("NEXT := x{at} * x{at}");
    let within = (1..41).fold("a0 := input.time".to_owned(), |body, at| {
        let before = at - 1;
        format!("{body}; a{at} := a{before} * a{before}")
    });
    let calls = (1..12).fold("f0(x) := x * x\n".to_owned(), |rules, at| {
        let before = at - 1;
        format!("{rules}f{at}(x) := f{before}(f{before}(x))\n")
    });
    let product = |at: usize| format!("NEXT := product([x{at}, x{at}, x{at}, x{at}])");
    let shift = |at: usize| format!("NEXT := bits.lsh(x{at}, 255)");
    let refused = |what: &str| deny(&format!("{what} > 1"));
    vec![
        ("squares", chain(20, "3 * 1000", squared) + &deny("x20 > 1"), bits()),
        ("squares within", deny(&format!("count([a40 | {within}]) > 0")), bits()),
        ("squares by calls", calls + &deny("f11(input.time) > 1"), bits()),
        ("products", chain(20, "3000", product) + &deny("x20 > 1"), bits()),
        ("shifts", chain(20, "1", shift) + &deny("x20 > 1"), bits()),
        ("digits", refused("to_number(\"1e999999999\")"), End::Indeterminate("exponent")),
        ("units", refused("units.parse(\"1e999999999\")"), End::Indeterminate("exponent")),
        (
            "unmarshalled",
            refused("json.unmarshal(\"1e999999999\")"),
            End::Indeterminate("exponent"),
        ),
        ("written", refused("1e999999999"), End::Refused("exponent")),
        (
            "range",
            refused("count(numbers.range(1, 100000000))"),
            End::Indeterminate("of the range"),
        ),
        ("expanded", refused("count(net.cidr_expand(\"::/0\"))"), End::Indeterminate("addresses")),
    ]
}

fn values() -> Vec<(&'static str, String, End)> {
    let elements = || End::Indeterminate("elements of a value");
    let both = |pair: &str| {
        let pair = pair.to_owned();
        chain(22, "[1]", move |at| pair.replace("OLD", &format!("x{at}")))
    };
    let bomb = |pair: &str| both(pair) + &deny("x22 == [x21, x21]");
    let with = chain(20, "input.lease", |at| {
        format!("NEXT := y if {{ y := x{at} with input.lease as [input.lease, input.lease] }}")
    });
    let copies = vec![r#"{"op": "copy", "from": "/a", "path": "/a/0"}"#; 30].join(", ");
    let graph = "g := {a: [b | some b in numbers.range(1, 20)] | some a in numbers.range(1, 20)}\n";
    vec![
        ("lists", bomb("NEXT := [OLD, OLD]"), elements()),
        ("objects", bomb("NEXT := {\"a\": OLD, \"b\": OLD}"), elements()),
        ("sets", bomb("NEXT := {[1, OLD], [2, OLD]}"), elements()),
        ("comprehensions", bomb("NEXT := [OLD | some _ in [1, 2]]"), elements()),
        ("heads", bomb("NEXT[k] := OLD if some k in [\"a\", \"b\"]"), elements()),
        ("entries", bomb("NEXT contains [k, OLD] if some k in [1, 2]"), elements()),
        ("unified", bomb("NEXT := y if { y = [OLD, OLD] }"), elements()),
        ("unified alone", bomb("NEXT := y if y = [OLD, OLD]"), elements()),
        ("unified apart", bomb("NEXT := y if { [y, z] = [[OLD, OLD], 1]; z > 0 }"), elements()),
        ("else", bomb("NEXT := 1 if { false } else := [OLD, OLD]"), elements()),
        ("array.concat", bomb("NEXT := array.concat([OLD], [OLD])"), elements()),
        ("with", with + &deny("x20 == 1"), elements()),
        (
            "patch",
            deny(&format!("json.patch({{\"a\": [1]}}, [{copies}]) == 1")),
            End::Indeterminate("of the patched document"),
        ),
        (
            "paths",
            graph.to_owned() + &deny("count(graph.reachable_paths(g, [1])) > 1"),
            End::Indeterminate("steps of all paths"),
        ),
        ("keys", deny("true") + "p[[k, k]] := 1 if some k in [1]", End::Refused("in its head")),
        (
            "compared under with",
            deny("some x in [1]; some y in [2]\n\tx = y with input as 1"),
            End::Refused("use `:=` or `==`"),
        ),
        (
            "many rules under with",
            "x := 1 if { 1 == 1 with input as 1 }\n".repeat(1_001) + &deny("x > 1"),
            End::Refused("do without `with`"),
        ),
        (
            "unified under with",
            deny("some x in [1]\n\ty = [x, x] with input as 1\n\ty == 1"),
            End::Refused("use `:=` or `==`"),
        ),
    ]
}

fn texts() -> Vec<(&'static str, String, End)> {
    let text = || End::Indeterminate("bytes of");
    let doubled = |next: &'static str| {
        chain(22, "\"0123456789\"", move |at| next.replace("OLD", &format!("x{at}")))
            + &deny("x22 == \"\"")
    };
    let long = "s := concat(\"\", [\"0123456789\" | some _ in numbers.range(1, 5000)])\n";
    let on_long = |what: &str| long.to_owned() + &deny(what);
    let deep = "d := concat(\"\", [\"[\" | some _ in numbers.range(1, 10000)])\n";
    vec![
        ("sprintf", doubled("NEXT := sprintf(\"%s%s\", [OLD, OLD])"), text()),
        ("concat", doubled("NEXT := concat(\"\", [OLD, OLD])"), text()),
        ("replace", doubled("NEXT := replace(OLD, \"0\", OLD)"), text()),
        ("replace_n", doubled("NEXT := strings.replace_n({\"0\": OLD}, OLD)"), text()),
        ("base64", doubled("NEXT := concat(\"\", [base64.encode(OLD), OLD])"), text()),
        ("marshal", doubled("NEXT := json.marshal([OLD, OLD, OLD])"), text()),
        ("repeated", on_long("count(replace(s, \"0\", s)) > 1"), text()),
        ("joined", on_long("count(concat(s, split(s, \"\"))) > 1"), text()),
        (
            "widths",
            on_long("count(sprintf(\"%0999999999d\", [1])) > 1"),
            End::Indeterminate("digits of a width"),
        ),
        (
            "nested JSON",
            deep.to_owned() + &deny("json.unmarshal(d) == 1"),
            End::Indeterminate("line 7"),
        ),
        (
            "repetition",
            deny("regex.match(\"(a{1000}){1000}\", \"a\")"),
            End::Indeterminate("of a pattern"),
        ),
        (
            "three repetitions",
            deny("regex.match(\"((a{30}){30}){30}\", \"a\")"),
            End::Indeterminate("of a pattern"),
        ),
        ("a long pattern", on_long("regex.match(s, s)"), End::Indeterminate("of a pattern")),
        (
            "searches",
            on_long(
                "count([1 | some _ in numbers.range(1, 900); \
            regex.find_n(\".*[^A-Z]|[A-Z]\", s, -1)]) > 1",
            ),
            End::Indeterminate("spent its budget"),
        ),
        (
            "indented",
            on_long("count(json.marshal_with_options([1], {\"indent\": s})) > 1"),
            End::Indeterminate("of an indentation"),
        ),
    ]
}

fn loops() -> Vec<(&'static str, String, End)> {
    let spent = || End::Indeterminate("spent its budget of 100000 ticks");
    let range = "some a in numbers.range(1, 5000); some b in numbers.range(1, 5000)";
    let big = "big := [[a] | some a in numbers.range(1, 5000)]\n\
               other := [[a] | some a in numbers.range(1, 5000)]\n";
    let each = |what: &str| {
        let body = format!("count([1 | some i in numbers.range(1, 9000); {what}]) > 9");
        big.to_owned() + &deny(&body)
    };
    vec![
        ("endless", deny(&format!("count([1 | {range}; a == b]) > 9")), spent()),
        ("cartesian", deny(&format!("count({{[a, b] | {range}}}) > 9")), spent()),
        ("compared", each("big == other"), spent()),
        ("ordered", each("big <= big"), spent()),
        (
            "united with a name",
            each("y := {i} | small; count(y) > 1")
                .replace("deny contains", "small := {x | some x in big}\ndeny contains"),
            spent(),
        ),
        ("unified", each("big = other"), spent()),
        ("unified with a part", each("xs = [other]; xs[0] = big"), spent()),
        ("not unified", each("not big = [i]"), spent()),
        (
            "put into a set",
            each("x := big").replace("[1 |", "{x |").replace("]) > 9", "}) > 9"),
            spent(),
        ),
        (
            "made a key",
            each("x := big").replace("[1 |", "{x: 1 |").replace("]) > 9", "}) > 9"),
            spent(),
        ),
        ("given by a function", each("f(i) == 1") + "f(_) := x if some x in [big, other]", spent()),
        (
            "entered",
            big.to_owned()
                + "p contains big if some _ in numbers.range(1, 9000)\n"
                + &deny("count(p) > 9"),
            spent(),
        ),
        ("searched", each("not [i, i] in big"), spent()),
        ("sorted", each("count(sort(big)) > 1"), spent()),
        ("united", each("count({x | some x in big} | {1}) > i"), spent()),
        ("walked", each("count([p | walk(big, [p, _])]) > 1"), spent()),
        ("under with", each("count(input) > 1 with input as big"), spent()),
        ("marshalled", each("json.marshal(big) == \"\""), spent()),
        ("hashed", each("crypto.sha256(json.marshal(big)) == \"\""), spent()),
    ]
}

fn depths() -> Vec<(&'static str, String, End)> {
    let recursive = || End::Refused("is recursive");
    let deep = || End::Refused("is too deep");
    let plus = |at: usize| format!("NEXT := x{at} + 1");
    let calls = (1..500).fold("f0(x) := x\n".to_owned(), |rules, at| {
        format!("{rules}f{at}(x) := f{}(x)\n", at - 1)
    });
    let loops = "some _ in [1]\n\t".repeat(500);
    let every = format!("{}true{}", "every x in [1] { ".repeat(40), " }".repeat(40));
    vec![
        ("itself", deny("f(1)") + "f(x) := f(x)", recursive()),
        ("each other", deny("f(1)") + "f(x) := g(x)\ng(x) := f(x)", recursive()),
        ("rules", deny("a == 1") + "a := b\nb := c\nc := a", recursive()),
        ("the document", deny("count(data.placet.test) > 1"), recursive()),
        ("the document by name", deny("some k in [\"a\"]; data.placet[k] == 1"), recursive()),
        ("all documents", deny("walk(data, [_, 1])"), recursive()),
        ("a chain of rules", chain(1_000, "1", plus) + &deny("x1000 > 1"), deep()),
        ("a chain of calls", calls + &deny("f499(1) > 1"), deep()),
        ("loops in loops", deny(&format!("{loops}true")), deep()),
        (
            "brackets",
            deny(&format!("x := {}1{}", "[".repeat(5_000), "]".repeat(5_000))),
            End::Refused("too deep for their number"),
        ),
        (
            "objects",
            deny(&format!("x := {}1{}", "{\"a\": ".repeat(30), "}".repeat(30))),
            End::Refused("too deep for their number"),
        ),
        ("a long reference", deny(&format!("input{} == 1", "[0]".repeat(1_300))), deep()),
        ("every", deny(&every), End::Refused("brackets")),
        ("a sum", deny(&format!("1{} > 1", " + 1".repeat(1_000))), End::Refused("100 levels")),
        ("signs", deny(&format!("x := {}1", "-".repeat(1_000))), End::Refused("100 levels")),
    ]
}

fn conflicts() -> Vec<(&'static str, String, End)> {
    let at = |line: &'static str| End::Indeterminate(line);
    vec![
        ("rules", "x := 1\nx := 2\n".to_owned() + &deny("x == 3"), at("line 6")),
        ("defaults", "default y := 1\ny := 2\ny := 3\n".to_owned() + &deny("y == 3"), at("line")),
        (
            "keys",
            "o[k] := v if { some v in [1, 2]; k := \"a\" }\n".to_owned() + &deny("o.a == 3"),
            at("line"),
        ),
        ("keys of one", deny("{\"a\": v | some v in [1, 2]} == {}"), at("line 6")),
        ("functions", "f(x) := 1\nf(x) := 2\n".to_owned() + &deny("f(1) == 3"), at("line")),
        (
            "far",
            "x := 1\nx := 2\ny := x\nwarn contains {\"code\": \"A\", \"message\": \"m\"} if y == 1"
                .to_owned(),
            at("line"),
        ),
        ("negated", deny("not to_number(\"a\") == 1"), at("line 6, column 18")),
        ("negated bound", deny("not count(numbers.range(1, 100000000)) == 1"), at("line 6")),
    ]
}

fn contained(cases: Vec<(&'static str, String, End)>) {
    for (name, rules, end) in cases {
        let found = outcome(&rules);
        match (&end, &found) {
            (End::Refused(expected), Outcome::Refused(fault)) => {
                assert!(fault.contains(expected), "{name}: {fault}");
            }
            (End::Indeterminate(expected), Outcome::Answered(answer)) => {
                let Finding::Indeterminate(error) = &answer.finding else {
                    panic!("{name}: {answer:?}");
                };
                assert!(error.contains(expected), "{name}: {error}");
                assert!(answer.cost.ticks <= DEFAULT_TICKS + 1, "{name}: {answer:?}");
            }
            (_, found) => panic!("{name}: {found:?}"),
        }
        assert_eq!(outcome(&rules), found, "{name}: on another thread");
    }
}

#[test]
fn long_numbers_are_contained() {
    contained(numbers());
}

#[test]
fn large_values_are_contained() {
    contained(values());
}

#[test]
fn long_texts_and_patterns_are_contained() {
    contained(texts());
}

#[test]
fn long_loops_are_contained() {
    contained(loops());
}

#[test]
fn recursion_and_depth_are_contained() {
    contained(depths());
}

#[test]
fn conflicts_are_indeterminate() {
    contained(conflicts());
}

/// The deepest policy that is loaded fits the stack of a thread that evaluates.
#[test]
fn what_is_loaded_fits_the_stack() {
    let deepest = |rules: &dyn Fn(usize) -> String| {
        let fits = |n: usize| matches!(outcome(&rules(n)), Outcome::Answered(_));
        let (mut most, mut least_not) = (1, 400);
        assert!(fits(most) && !fits(least_not));
        while most + 1 < least_not {
            let middle = usize::midpoint(most, least_not);
            if fits(middle) { most = middle } else { least_not = middle }
        }
        most
    };
    let plus = |at: usize| format!("NEXT := [y | y := x{at} + 1][0]");
    let rules = deepest(&|n| chain(n, "1", plus) + &deny(&format!("x{n} > 1")));
    let calls = deepest(&|n| {
        let functions = (1..=n).fold("f0(x) := x\n".to_owned(), |rules, at| {
            format!("{rules}f{at}(x) := f{}(x)\n", at - 1)
        });
        functions + &deny(&format!("f{n}(1) > 1"))
    });
    let loops = deepest(&|n| deny(&format!("{}true", "some _ in [1]\n\t".repeat(n))));
    let every = |at: usize| format!("NEXT := 1 if every y in [x{at}] {{ y > 0 }}");
    let every = deepest(&|n| chain(n, "1", every) + &deny(&format!("x{n} > 1")));
    let with = |at: usize| format!("NEXT := y if {{ y := x{at} with input.lease as {{}} }}");
    let with = deepest(&|n| chain(n, "1", with) + &deny(&format!("x{n} > 1")));
    let sums = deepest(&|n| deny(&format!("1{} > 1", " + 1".repeat(n))));
    let all = [rules, calls, loops, every, with, sums];
    assert!(
        all.iter().zip([40, 60, 140, 40, 50, 60]).all(|(found, least)| *found >= least),
        "{all:?}"
    );
}

/// All of the above once more, in a process that has little memory: where there is more to be had,
/// nothing is refused for asking.
#[cfg(target_os = "linux")]
#[test]
fn it_fits_in_little_memory() {
    let tests = std::env::current_exe().expect("the tests");
    let script = format!("ulimit -v {MEMORY_KIB} && exec \"$0\" contained --test-threads 1");
    let output = std::process::Command::new("sh").args(["-c", &script]).arg(tests).output();
    let output = output.expect("the tests run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("5 passed"), "{text}");
}
