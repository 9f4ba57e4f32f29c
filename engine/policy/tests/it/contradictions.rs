//! Params that contradict each other: the policy itself says so when the bundle is loaded, and it
//! is refused where they stand.

use std::fs;
use std::path::Path;

use placet_policy::{Bundle, LoadError, PolicySet, WasmRuntime};

fn compile(directory: &Path) -> Result<PolicySet, String> {
    let bundle = Bundle::load(directory).map_err(|error| error.to_string())?;
    let runtime = WasmRuntime::new().expect("the engine starts");
    PolicySet::compile(&bundle, &runtime).map_err(|error| match error {
        LoadError::Invalid(fault) => {
            assert!(fault.hint.is_some(), "no remedy: {fault}");
            fault.to_string()
        }
        error => panic!("not refused as invalid: {error}"),
    })
}

/// What is said of a policy `p` with params `params`, a list and a mapping on lines 7 to 10.
fn said(rules: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n  - name: p\n    \
        source: p.rego\n    params:\n      list: [1, 2]\n      by.name:\n        \
        {one: 1,\n         two.and: [2]}\n";
    let policy = format!(
        "package placet[\"with-dash\"].p\n\nimport rego.v1\n\n{rules}\n\ndeny contains \
         {{\"code\": \"D\", \"message\": \"d\"}} if not data.params.list\n"
    );
    fs::write(directory.path().join("bundle.yaml"), manifest).expect("written");
    fs::write(directory.path().join("p.rego"), policy).expect("written");
    compile(directory.path()).map_or_else(|error| error, |_| "loaded".to_owned())
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    let wrong = |entries: &str| said(&format!("params_wrong(given) := {entries}"));
    insta::assert_snapshot!(
        wrong(r#"{{"path": "list[1]", "message": sprintf("is %d", [given.list[1]])}}"#), @r"
    bundle.yaml:7:17: `params.list[1]` of policy `p` is 2
    hint: mend one of the params that contradict each other
    ");
    // The first by its place, whatever its name.
    insta::assert_snapshot!(
        wrong(r#"{{"path": "list", "message": "is last"}, {"path": "by.name.two.and[0]",
            "message": "is first"}, {"path": "list[0]", "message": "is before"}}"#), @r"
    bundle.yaml:7:13: `params.list` of policy `p` is last
    hint: mend one of the params that contradict each other; 2 more are wrong
    ");
    insta::assert_snapshot!(
        wrong(r#"{{"path": "by.name.two.and[0]", "message": "is in there"}}"#), @r"
    bundle.yaml:10:20: `params.by.name.two.and[0]` of policy `p` is in there
    hint: mend one of the params that contradict each other
    ");
    // What is not there is told at what is.
    insta::assert_snapshot!(
        wrong(r#"{{"path": "by.name.three.x", "message": "is missing"}}"#), @r"
    bundle.yaml:9:9: `params.by.name.three.x` of policy `p` is missing
    hint: mend one of the params that contradict each other
    ");
    assert_eq!(wrong("set()"), "loaded");
}

#[test]
fn what_cannot_say_refuses_the_bundle() {
    for (rules, expected) in [
        ("params_wrong(given) := {1} if given.none", "is undefined for these params"),
        ("params_wrong(given) := [1]", "does not give a set"),
        ("params_wrong(given) := {1}", "gives an entry that is no object"),
        (
            "params_wrong(given) := {{\"path\": \"list\"}}",
            "`message` is no line of 1 to 1024 bytes",
        ),
        ("params_wrong(given) := {{\"path\": \"\", \"message\": \"m\"}}", "`path` is no line"),
        ("params_wrong(given) := {{\"path\": \"list\", \"message\": \"a\\nb\"}}", "is no line"),
        ("params_wrong(given) := {{\"path\": \"l\", \"message\": \"m\", \"x\": 1}}", "more than"),
        ("params_wrong(given) := {x | some x in numbers.range(1, 33)}", "more than 32 entries"),
        ("params_wrong(given) := {1 | to_number(\"x\") == 1}", "`params_wrong` of policy `p`"),
        (
            "params_wrong(given) := {[x, y] | some x in numbers.range(1, 1000); \
             some y in numbers.range(1, 1000)}",
            "spent its budget of 100000 ticks",
        ),
    ] {
        let said = said(rules);
        assert!(said.contains(expected), "{rules}: {said}");
        assert!(said.starts_with("bundle.yaml:7:7: "), "{rules}: {said}");
    }
}

#[test]
fn what_is_no_function_of_the_params_alone_is_refused_in_the_policy() {
    for (rules, line, expected) in [
        ("params_wrong := set()", 5, "is not a function of the params"),
        ("params_wrong contains 1 if data.params.list", 5, "is not a function of the params"),
        ("params_wrong(a, b) := set()", 5, "is not a function of the params"),
        ("params_wrong(given) := {1 | input.tenant.id == given.list}", 5, "reads `input`"),
        (
            "params_wrong(given) := {1 | far(given)}\n\nfar(given) if near\n\n\
             near if who == \"a\"\n\nwho := input.tenant.id",
            11,
            "reads `input`, by `who`",
        ),
        (
            "params_wrong(given) := {1 | data.placet[\"with-dash\"].p.who == \"a\"}\n\n\
             who := input.tenant.id",
            7,
            "reads `input`, by `who`",
        ),
        ("params_wrong(given) := {1 | time.now_ns() > given.list[0]}", 5, "reads `time.now_ns`"),
    ] {
        let said = said(rules);
        assert!(said.contains(expected), "{rules}: {said}");
        assert!(said.starts_with(&format!("p.rego:{line}:")), "{rules}: {said}");
    }
    assert_eq!(said("import input.tenant as who\n\nx := who.id"), "loaded");
    let imported =
        "import input.tenant as who\n\nparams_wrong(given) := {1 | who.id == given.list}";
    assert!(said(imported).contains("reads `who`"), "{}", said(imported));
}

/// The shipped bundle with one text of its manifest in the place of another.
fn shipped(from: &str, to: &str) -> String {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("it is made");
        for entry in fs::read_dir(from).expect("a directory") {
            let path = entry.expect("an entry").path();
            let to = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                copy(&path, &to);
            } else {
                fs::copy(&path, &to).expect("it is copied");
            }
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference"), directory.path());
    let manifest = directory.path().join("bundle.yaml");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    assert!(text.contains(from), "{from}");
    fs::write(manifest, text.replacen(from, to, 1)).expect("it is written");
    let said = compile(directory.path()).expect_err(to);
    said.lines().next().expect("a line").to_owned()
}

#[test]
fn shipped_policies_refuse_what_contradicts() {
    for (from, to, expected) in [
        (
            "grace_seconds: 300",
            "grace_seconds: 1801",
            "`params.grace_seconds` of policy `preemption` comes to 1801, above a \
             min_runtime_seconds of 1800",
        ),
        (
            "grace_seconds: 600, min_runtime_seconds: 3600",
            "grace_seconds: 1801",
            "`params.terms[0].grace_seconds` of policy `preemption` comes to 1801, above",
        ),
        (
            "EXTERNAL_COMMERCIAL: 31622400 # 366 days",
            "EXTERNAL_COMMERCIAL: 7775999",
            "`params.max_extended_seconds.EXTERNAL_COMMERCIAL` of policy `quota` is 7775999, below",
        ),
        (
            "from_hour: 0, until_hour: 9",
            "from_hour: 9, until_hour: 9",
            "`params.busy_hours[0].until_hour` of policy `capacity` is 9, as from_hour",
        ),
        (
            "from_gbps: 100000",
            "from_gbps: 1",
            "`params.congestion_profiles[1].from_gbps` of policy `capacity` is 1, as that of",
        ),
        (
            "embargoed: [IR, KP]",
            "embargoed: [IR, JP]",
            "`params.export_control[0].cluster_jurisdictions[4]` of policy `compliance` is JP,",
        ),
        (
            "RESTRICTED: {at_rest: tenant-keys, in_transit: mutual-tls}",
            "INTERNAL: {at_rest: tenant-keys, in_transit: tls}",
            "`params.encryption.levels.CONFIDENTIAL.at_rest` of policy `compliance` is \
             operator-keys, weaker than that of INTERNAL",
        ),
        (
            "cover_whole_work: [SOC2]",
            "cover_whole_work: [SOC2, C5]",
            "`params.cover_whole_work[1]` of policy `compliance` is C5, which nothing requires",
        ),
        (
            "adequate: [AT,",
            "adequate: [XA, AT,",
            "`params.adequate[0]` of policy `residency` is XA, which is not in more_jurisdictions",
        ),
    ] {
        let said = shipped(from, to);
        assert!(said.starts_with("bundle.yaml:"), "{to}: {said}");
        assert!(said.contains(expected), "{to}: {said}");
    }
}
