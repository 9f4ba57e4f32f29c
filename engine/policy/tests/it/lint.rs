//! What a check says of faulty policies, and that it says nothing of the shipped ones.

use std::collections::BTreeMap;
use std::path::Path;

use placet_policy::WasmRuntime;
use placet_policy::lint::{self, Diagnostic, RULES, Report, Severity};
use proptest::prelude::*;

type Files = BTreeMap<String, Vec<u8>>;

/// A head that says all that there is to say.
const HEAD: &str = "# METADATA
# title: A policy
# description: For tests.
# custom:
#   owner: tests
package placet.p

import rego.v1
";

/// The metadata and the head of a denial `D`; a body follows.
const DENY: &str = "# METADATA
# title: A denial
# custom:
#   code: D
deny contains {\"code\": \"D\", \"message\": \"m\"}";

/// A rule that leaves nothing to say of the kinds of subject.
const SUBJECT: &str = "subject := input.lease\n\nsubject := input.job\n";

const SCHEMA: &str = r#"{"type": "object", "additionalProperties": false, "required": ["max"],
    "properties": {"max": {"type": "integer"}, "most": {"type": "integer"},
    "blocked": {"type": "array", "items": {"type": "string"}}}}"#;

fn manifest(more: &str) -> String {
    format!(
        "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n  \
            - name: p\n    source: p.rego\n    \
         params: {{max: 3}}\n    params_schema: p.schema.json\n{more}"
    )
}

fn files(all: &[(&str, &str)]) -> Files {
    all.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

fn check(files: &Files) -> Report {
    lint::check(files, &WasmRuntime::new().expect("the engine starts"))
}

/// A bundle of one policy, with a test rule that names its code.
fn bundle(policy: &str) -> Files {
    files(&[
        ("bundle.yaml", &manifest("")),
        ("p.rego", policy),
        ("p.schema.json", SCHEMA),
        ("p_test.rego", "package placet.p_test\n\nimport rego.v1\n\ncodes := {\"D\", \"W\"}\n"),
    ])
}

fn shown(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |it: &Diagnostic| it.span.map_or(0, |span| span.start.line);
    diagnostics
        .iter()
        .map(|it| format!("{}:{}: {}: {}", it.file, line(it), it.rule, it.message))
        .collect()
}

/// Checks a policy that consists of a head and these rules: what is told is of this rule, on the
/// line with the mark.
#[track_caller]
fn told(rule: &str, rules: &str) {
    let text = format!("{HEAD}\n{rules}\n");
    let marked = text.lines().position(|line| line.contains("# <")).expect("a line is marked");
    let report = check(&bundle(&text));
    let lines: Vec<_> = report
        .diagnostics
        .iter()
        .map(|it| (it.rule, it.file.as_str(), it.span.map(|span| span.start.line)))
        .collect();
    let line = u32::try_from(marked + 1).expect("few lines");
    assert_eq!(
        lines,
        [(rule, "p.rego", Some(line))],
        "{rules}\n{}",
        shown(&report.diagnostics).join("\n")
    );
    let one = &report.diagnostics[0];
    assert!(one.hint.is_some(), "no remedy: {}", one.message);
}

/// Checks that nothing is told of a head with these rules.
#[track_caller]
fn silent(rules: &str) {
    let report = check(&bundle(&format!("{HEAD}\n{rules}\n")));
    assert!(report.diagnostics.is_empty(), "{rules}\n{}", shown(&report.diagnostics).join("\n"));
}

/// A denial with this body.
fn deny(body: &str) -> String {
    format!("{DENY} if {{\n{body}\n}}\n\n{SUBJECT}")
}

#[test]
fn what_a_load_refuses_is_told_where_it_stands() {
    for (rule, body) in [
        ("syntax", "\tsubject.gpu_count >> 3 # <"),
        ("unknown-path", "\tinput.cluster.jurisdicton == \"US\" # <\n\tsubject.gpu_count > 1"),
        ("unknown-path", "\tsubject.gpu_cout > data.params.max # <"),
        ("unknown-path", "\tsubject.gpu_count > data.params.maxx # <"),
        (
            "unknown-path",
            "\tsome pool in input.cluster.gpus\n\tpool.modle == subject.gpu_model # <",
        ),
        ("type", "\tsubject.gpu_count == \"8\" # <"),
        ("type", "\tinput.priority_class == \"INTERNAL_RESEACH\" # <\n\tsubject.gpu_count > 1"),
        ("type", "\tinput.tenant.kind in {\"OWNN\"} # <\n\tsubject.gpu_count > 1"),
        ("call", "\tcountt(input.datasets) > subject.gpu_count # <"),
        ("call", "\thttp.send({\"method\": \"get\", \"url\": subject.gpu_model}).ok # <"),
        ("deviation", "\tsubject.gpu_milli > 9007199254740993 # <"),
        ("compile", "\tsubject.gpu_count > limitt # <"),
    ] {
        told(rule, &deny(body));
    }
    told("import", &format!("import data.other # <\n\n{}", deny("subject.gpu_count > other.max")));
    told("contract", &format!("{}\ndeny[x] := y if {{ x := 1; y := subject }} # <", SUBJECT));
    let annotated = deny("subject.gpu_count > 3").replace("# title", "# titel");
    let annotated = annotated.replace("# titel: A denial", "# titel: A # <");
    told("annotation", &annotated);
}

#[test]
fn denials_that_absence_gets_around_are_told() {
    for body in [
        // What nobody has to say is never something else.
        "\tinput.tenant.seat != \"US\" # <\n\tsubject.gpu_count > 1",
        "\tseat := input.tenant.seat # <\n\tnot seat in {\"US\", \"CA\"}\n\tsubject.gpu_count > 1",
        "\tseat := input.tenant.seat # <\n\tseat != input.cluster.jurisdiction\n\
            \tsubject.gpu_count > 1",
        "\ttenant := input.tenant\n\ttenant.seat != \"US\" # <\n\tsubject.gpu_count > 1",
        "\tsubject.model_use != \"TRAINING\" # <",
        "\tinput.principal.issuer != \"https://id.example\" # <\n\tsubject.gpu_count > 1",
        // A bound that is left out bounds nothing.
        "\tsubject.gpu_count > data.params.most # <",
        "\tmost := data.params.most # <\n\tsubject.gpu_count > most",
        // Above a table's entries there may be none.
        "\tsubject.gpu_count > {\"OWN\": 8}[input.tenant.kind] # <",
    ] {
        told("undefined-deny", &deny(body));
    }
    let other = "other(place) if not place in {\"US\"}\n";
    told(
        "undefined-deny",
        &format!("{}\n{other}", deny("\tother(input.tenant.seat) # <\n\tsubject.gpu_count > 1")),
    );
    let most = "most := data.params.most\n";
    told("undefined-deny", &format!("{}\n{most}", deny("\tsubject.gpu_count > most # <")));
    let abroad = "abroad if input.tenant.seat != \"US\" # <\n";
    told("undefined-deny", &format!("{}\n{abroad}", deny("\tabroad\n\tsubject.gpu_count > 1")));
    let head = deny("\tsubject.gpu_count > 8");
    let issuer = "sprintf(\"%s\", [input.principal.issuer])} if { # <";
    told("undefined-deny", &head.replace("\"m\"} if {", issuer));
    // Each definition of what the head reads needs the seat.
    let place = "place := input.tenant.seat if input.tenant.kind == \"OWN\"\n\nplace := \
        lower(input.tenant.seat) if input.tenant.kind == \"CUSTOMER\"\n";
    let reads = head.replace("\"m\"} if {", "place} if { # <");
    told("undefined-deny", &format!("{reads}\n{place}"));
    told("undefined-deny", &format!("{DENY} if {{\n\tinput.lease.gpu_count > 8 # <\n}}\n"));
    let claim = "# METADATA\n# title: A claim\nclaims contains {\n\
            \t\"account\": \"tenant/t/gpu\",\n\t\
        \"amount\": subject.milli_gpus,\n\t\"limit\": data.params.most, # <\n}\n";
    told("undefined-deny", &format!("{claim}\n{SUBJECT}"));
}

#[test]
fn denials_that_know_of_absence_are_not() {
    for body in [
        "\tinput.tenant.seat\n\tinput.tenant.seat != \"US\"\n\tsubject.gpu_count > 1",
        "\tnot input.tenant.seat in {\"US\"}\n\tsubject.gpu_count > 1",
        "\tobject.get(input.tenant, \"seat\", \"\") != \"US\"\n\tsubject.gpu_count > 1",
        "\tinput.tenant.seat == \"US\"\n\tsubject.gpu_count > 1",
        "\tsubject.gpu_count > data.params.max",
        "\tsubject.gpu_count > object.get(data.params, \"most\", 0)",
        "\tinput.tenant.id in data.params.blocked\n\tsubject.gpu_count > 1",
        "\tinput.principal.issuer == \"a\"\n\tnot \"g\" in input.principal.groups\n\
            \tsubject.gpu_count > 1",
        "\tsubject.gpu_count > {\"OWN\": 8, \"CUSTOMER\": 4}[input.tenant.kind]",
        "\tsubject.start - subject.extends.start > 3",
    ] {
        silent(&deny(body));
    }
    let other = "\n# METADATA\n# title: None\n# custom:\n#   code: W\n\
            deny contains {\"code\": \"W\", \
        \"message\": \"m\"} if not input.tenant.seat\n";
    silent(&format!("{}{other}", deny("\tinput.tenant.seat != \"US\"\n\tsubject.gpu_count > 1")));
    let applicable = "\ndefault applicable := false\n\napplicable if input.tenant.seat\n";
    silent(&format!(
        "{}{applicable}",
        deny("\tinput.tenant.seat != \"US\"\n\tsubject.gpu_count > 1")
    ));
    let place = "place := input.tenant.seat if input.tenant.seat\n\nplace := \"?\" if not \
        input.tenant.seat\n";
    let reads = deny("\tsubject.gpu_count > 8").replace("\"m\"} if {", "place} if {");
    silent(&format!("{reads}\n{place}"));
    silent(&format!("{DENY} if {{\n\tinput.lease\n\tinput.lease.gpu_count > 8\n}}\n"));
}

#[test]
fn rules_that_never_hold_are_told() {
    for body in [
        "\tsubject.gpu_count > 1\n\tfalse # <",
        "\t1 > 2 # <\n\tsubject.gpu_count > 1",
        "\tsubject.gpu_count > 8\n\tsubject.gpu_count < 4 # <",
        "\tsubject.gpu_count > 8\n\tsubject.gpu_count < 9 # <",
        "\tsubject.gpu_count < 0 # <",
        "\tsubject.gpu_count != subject.gpu_count # <",
        "\tsubject.gpu_count > 1\n\tinput.tenant.kind == \"OWN\"\n\
            \tinput.tenant.kind == \"CUSTOMER\" # <",
        "\tsubject.gpu_count > 1\n\tinput.tenant.kind in {\"OWN\"}\n\
            \tinput.tenant.kind == \"CUSTOMER\" # <",
        "\tinput.lease.gpu_count > 1\n\tinput.job.gpu_count > 1 # <\n\tsubject",
        "\tnot input.lease\n\tnot input.job # <\n\tsubject",
        "\tnot input.principal\n\tinput.principal # <\n\tsubject",
    ] {
        told("unreachable-rule", &deny(body));
    }
    let rules = deny("\tsubject.gpu_count > 1");
    told("unreachable-rule", &format!("{rules}\nlimit := 3 # <\n"));
    told("unreachable-rule", &format!("{rules}\nlimit(x) := x + floor(x) # <\n"));
    let chosen = "chosen := 1 if true\nelse := 2 if subject # <\n";
    told("unreachable-rule", &format!("{}\n{chosen}", deny("\tsubject.gpu_count > chosen")));
    silent(&deny("\tsubject.gpu_count > 3\n\tsubject.gpu_count < 5"));
    silent(&deny("\tshare := subject.gpu_count / 7\n\tshare > 0\n\tshare < 1"));
    silent(&deny(
        "\tsome one in input.datasets\n\tsome two in input.datasets\n\tone.id == \"a\"\n\t\
        two.id == \"b\"\n\tone.owner != two.owner\n\tsubject",
    ));
}

#[test]
fn what_is_not_said_is_told() {
    let rules = deny("\tsubject.gpu_count > 1");
    for (rule, text) in [
        ("missing-metadata", rules.replace("# title: A denial\n", "")),
        ("missing-metadata", rules.replace("#   code: D\n", "#   controls: [\"SOC2:CC6.1\"]\n")),
        ("missing-metadata", rules.replace("code: D\n", "code: E\n")),
    ] {
        let text = text.replace("\"message\": \"m\"} if {", "\"message\": \"m\"} if { # <");
        told(rule, &text);
    }
    let report = check(&bundle(&format!("package placet.p # x\n\n{rules}")));
    let told = shown(&report.diagnostics);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with("p.rego:1: missing-metadata: the package's metadata has no title"));
    let controls = |control: &str| {
        rules.replace("#   code: D\n", &format!("#   code: D\n#   controls: [\"{control}\"] # <\n"))
    };
    for control in ["SOC2:CC6.9", "ISO27001:A.5.38", "GDPR:Art.100", "SOC:CC6.1", "ACME:1"] {
        super::lint::told("unknown-control", &controls(control));
    }
    silent(&controls("ISO27001:A.5.37"));
}

#[test]
fn names_and_imports_and_amounts_and_loops_are_told() {
    for (rule, body) in [
        ("shadowed-name", "\tmost := subject.gpu_count # <\n\tmost > 8"),
        ("shadowed-name", "\tcount := count(input.datasets) # <\n\tcount > 8\n\tsubject"),
        ("float-money", "\tsubject.gpu_count * 0.5 > 8 # <"),
        ("float-money", "\tsubject.gpu_count > 8.5 # <"),
        ("unbounded-iteration", "\tcount(numbers.range(0, subject.gpu_count)) > 8 # <"),
        (
            "unbounded-iteration",
            "\tsome one in input.datasets\n\tsome other in input.models # <\n\tone.personal\n\t\
             other.classification == \"PUBLIC\"\n\tsubject",
        ),
    ] {
        let most = if body.contains("most :=") {
            "\n\n# METADATA\n# title: W\n# custom:\n#   code: W\nwarn contains {\"code\": \"W\", \
             \"message\": \"m\"} if input.time > most\n\nmost := 3\n"
        } else {
            ""
        };
        told(rule, &format!("{}{most}", deny(body)));
    }
    let hidden = deny("\ttenant := input.tenant.id # <\n\ttenant == \"t\"\n\tsubject");
    told("shadowed-name", &format!("import input.tenant\n\n{hidden}"));
    told("unused-import", &format!("import input.tenant # <\n\n{}", deny("subject.gpu_count > 1")));
    let claim = "# METADATA\n# title: A claim\nclaims contains {\n\
            \t\"account\": \"tenant/t/gpu\",\n\t\
        \"amount\": half, # <\n}\n\nhalf := subject.milli_gpus / 2\n";
    let claim = claim.replace(", # <", ",");
    told("float-money", &format!("{} # <\n\n{SUBJECT}", claim.trim_end()));
    silent(&format!("{}\n{SUBJECT}", claim.replace("milli_gpus / 2", "milli_gpus")));
    silent(&deny(
        "\tsome one in input.datasets\n\tsome other in input.models\n\tone.owner == other.owner\n\t\
         subject",
    ));
}

fn with(mut files: Files, path: &str, text: &str) -> Files {
    files.insert(path.to_owned(), text.as_bytes().to_vec());
    files
}

#[test]
fn manifests_params_and_cases_are_told_and_the_rest_is_looked_at() {
    let faulty = format!("{HEAD}\n{}", deny("\tsubject.gpu_cout > 1"));
    let good = format!("{HEAD}\n{}", deny("\tsubject.gpu_count > 1"));
    let facts = include_str!("../../../../policies/reference/facts.yaml");
    let cases = |text: &str| with(with(bundle(&good), "facts.yaml", facts), "cases/c.yaml", text);
    for (files, expected) in [
        (with(bundle(&faulty), "bundle.yaml", "revision: [\n"), "bundle.yaml:1: manifest"),
        (
            with(bundle(&faulty), "bundle.yaml", &manifest("    levle: advisory\n")),
            "bundle.yaml:8: manifest",
        ),
        (
            with(bundle(&faulty), "bundle.yaml", &manifest("").replace("{max: 3}", "{max: no}")),
            "bundle.yaml:6: params",
        ),
        (with(bundle(&faulty), "p.schema.json", "{\"tipe\": 1}"), "p.schema.json:1: params-schema"),
        (with(bundle(&faulty), "q_test.rego", "package q\n\nx := {"), "q_test.rego:3: syntax"),
        (with(bundle(&faulty), "q.rego", "package q\n"), "q.rego:0: unlisted-file"),
        (with(bundle(&faulty), "/etc/x", "x"), "/etc/x:0: file"),
    ] {
        let told = shown(&check(&files).diagnostics);
        assert!(told.iter().any(|one| one.starts_with(expected)), "{expected}: {told:#?}");
        let wrong = "p.rego:15: unknown-path: `input.lease` has no field `gpu_cout`";
        assert!(told.iter().any(|one| one == wrong), "{expected}: {told:#?}");
    }
    let case = "{name: a, time: 1, expect: {codes: [D]}}";
    for (text, expected) in [
        ("facts: ../facts.yaml\ncases: []\n".to_owned(), "cases/c.yaml:2: case-file"),
        (format!("facts: ../facts.yaml\nkases: [{case}]\n"), "cases/c.yaml:2: case-file"),
        (format!("facts: ../fact.yaml\ncases: [{case}]\n"), "cases/c.yaml:1: case-file"),
        (
            format!("facts: ../facts.yaml\ncases:\n  - {case}\n  - {case}\n"),
            "cases/c.yaml:4: duplicate-case",
        ),
        (
            format!("facts: ../facts.yaml\ncases:\n  - {}\n", case.replace("[D]", "[E]")),
            "cases/c.yaml:3: unknown-code",
        ),
        (
            format!(
                "facts: ../facts.yaml\ncases:\n  - {}\n",
                case.replace("time: 1,", "time: 1, params: {q: {}},")
            ),
            "cases/c.yaml:3: case-file",
        ),
        (format!("facts: c.yaml\ncases:\n  - {case}\n"), "cases/c.yaml:1: facts"),
    ] {
        let told = shown(&check(&cases(&text)).diagnostics);
        assert_eq!(told.len(), 1, "{text}: {told:#?}");
        assert!(told[0].starts_with(expected), "{expected}: {told:#?}");
    }
    let report = check(&cases(&format!("facts: ../facts.yaml\ncases:\n  - {case}\n")));
    assert_eq!(shown(&report.diagnostics), Vec::<String>::new());
    let mut untested = bundle(&good);
    untested.remove("p_test.rego");
    let told = shown(&check(&untested).diagnostics);
    assert_eq!(told, ["p.rego:14: code-without-case: no case and no `test_` rule expects `D`"]);
}

#[test]
fn a_warning_is_allowed_with_a_reason_and_an_error_is_not() {
    let allowed = |comment: &str| {
        let rules =
            deny(&format!("\t{comment}\n\tinput.tenant.seat != \"US\"\n\tsubject.gpu_count > 1"));
        shown(&check(&bundle(&format!("{HEAD}\n{rules}"))).diagnostics)
    };
    assert!(allowed("# placet:allow undefined-deny a seat is always known here").is_empty());
    for (comment, expected) in [
        ("# placet:allow undefined-deny", "no reason is given to allow `undefined-deny`"),
        ("# placet:allow undefind-deny because", "`undefind-deny` is no rule"),
        ("# placet:allow float-money because", "nothing here is told as `float-money`"),
        ("# placet:allow type because", "`type` is an error, which cannot be allowed"),
    ] {
        let told = allowed(comment);
        assert_eq!(told.len(), 2, "{comment}: {told:#?}");
        assert_eq!(told[0], format!("p.rego:15: allow: {expected}"));
    }
}

/// Puts all fixes in until there are none.
fn mend(files: &mut Files) -> usize {
    for round in 0..10 {
        let report = check(files);
        let mut changed = false;
        for (path, bytes) in &mut *files {
            let of_file = report.diagnostics.iter().filter(|it| it.file == *path);
            let of_file: Vec<_> = of_file.cloned().collect();
            let text = std::str::from_utf8(bytes).expect("it is text").to_owned();
            if let Some(fixed) = lint::fixed(&text, &of_file) {
                *bytes = fixed.into_bytes();
                changed = true;
            }
        }
        if !changed {
            return round;
        }
    }
    panic!("the fixes never end");
}

#[test]
fn fixes_mend_what_was_obviously_meant_and_nothing_else() {
    let good = format!(
        "{HEAD}\n{}",
        deny(
            "\tcount(input.datasets) > 1\n\tinput[\"cluster\"].jurisdiction == \"US\"\n\t\
             input.priority_class == \"INTERNAL_RESEARCH\"\n\tsubject.gpu_count > data.params.max"
        )
    );
    let mut files = bundle(
        &good
            .replace("count(", "cuont(")
            .replace("\"cluster\"", "\"clutser\"")
            .replace("jurisdiction", "jurisdicton")
            .replace("\"INTERNAL_RESEARCH\"", "\"INTERNAL_RESEACH\"")
            .replace("gpu_count", "gpu_cuont")
            .replace(
                "import rego.v1\n",
                "import rego.v1\nimport input.models\nimport data.params as p\n",
            ),
    );
    assert!(mend(&mut files) > 0);
    assert_eq!(String::from_utf8(files["p.rego"].clone()).expect("text"), good);
    assert_eq!(mend(&mut files), 0);
    assert!(check(&files).diagnostics.is_empty());
    // Two names are as near: nobody knows which was meant.
    let mut files = bundle(&format!("{HEAD}\n{}", deny("\tsubject.gpu_m == \"H100\"")));
    assert_eq!(mend(&mut files), 0);
}

fn shipped() -> Files {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    lint::read(&path).expect("the bundle is read")
}

#[test]
fn nothing_is_told_of_the_shipped_bundle() {
    let report = check(&shipped());
    assert!(report.diagnostics.is_empty(), "{}", shown(&report.diagnostics).join("\n"));
    assert!(report.files > 20);
}

#[test]
fn what_is_told_is_bounded() {
    let many = "\tsubject.gpu_cout > 1\n".repeat(lint::MAX_DIAGNOSTICS + 7);
    let report = check(&bundle(&format!("{HEAD}\n{}", deny(&many))));
    assert_eq!((report.diagnostics.len(), report.cut), (lint::MAX_DIAGNOSTICS, 7));
}

#[test]
fn what_leads_to_what_is_followed_once() {
    // Followed each time that it is named, this would be looked at 40^20 times.
    let mut rules = deny("\tsubject.gpu_count > r0");
    for at in 0..20 {
        let next = vec![format!("r{}", at + 1); 40].join(", ");
        rules.push_str(&format!("\nr{at} := max([{next}])\n"));
    }
    rules.push_str(
        "\nr20 := data.params.most # <\n\n# METADATA\n# title: A claim\n\
        claims contains {\"account\": \"tenant/t/gpu\", \"amount\": r0}\n",
    );
    let text = format!("{HEAD}\n{rules}\n");
    let report = check(&bundle(&text));
    let told: BTreeMap<&str, usize> =
        report.diagnostics.iter().fold(BTreeMap::new(), |mut all, one| {
            *all.entry(one.rule).or_default() += 1;
            all
        });
    assert_eq!(told, BTreeMap::from([("undefined-deny", 2)]), "{:#?}", report.diagnostics);
}

#[test]
fn every_rule_is_in_the_reference() {
    let page = include_str!("../../../docs/check.md");
    let named: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let ids: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(named, ids);
    assert!(RULES.iter().any(|rule| rule.severity == Severity::Warning));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_text_makes_a_check_panic(
        file in 0_usize..6,
        kind in 0_u8..8,
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_u8..3, any::<u8>()), 1..6
        ),
    ) {
        let mut files = shipped();
        files.retain(|path, _| !path.ends_with(".wasm"));
        let manifest = files.get_mut("bundle.yaml").expect("it is there");
        let text = String::from_utf8(manifest.clone()).expect("text");
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("twin:")).collect();
        *manifest = kept.join("\n").into_bytes();
        let names = ["capacity", "compliance", "isolation", "preemption", "quota", "residency"];
        files.retain(|path, _| !path.contains('/') || path.starts_with(names[file]));
        let domain = names[file];
        let path = match kind {
            0 => "bundle.yaml".to_owned(),
            1 => format!("{domain}/cases/{domain}.yaml"),
            2 => format!("{domain}/{domain}.schema.json"),
            _ => format!("{domain}/{domain}.rego"),
        };
        let text = files.get_mut(&path).expect("it is there");
        for (at, how, byte) in changes {
            let at = at.index(text.len());
            match how {
                0 => { text.remove(at); }
                1 => text.insert(at, byte),
                _ => { let end = (at + usize::from(byte)).min(text.len()); text.drain(at..end); }
            }
        }
        let report = check(&files);
        prop_assert!(report.diagnostics.len() <= lint::MAX_DIAGNOSTICS);
    }
}
