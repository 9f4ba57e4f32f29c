//! Params and their schemas: what does not fit is refused at load, at its place; and no schema
//! makes loading long or deep.

use std::fs;

use placet_policy::{Bundle, Evaluator, Input, LoadError, PolicySet, WasmRuntime};
use tempfile::TempDir;

const POLICY: &str = "package placet.p\n\n\
    deny contains {\"code\": \"SEEN\", \"message\": json.marshal(data.params)}\n";
const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "grace_seconds": {
      "description": "Seconds, 0 to 86400.", "type": "integer", "minimum": 0, "maximum": 86400
    },
    "regions": {"type": "array", "items": {"$ref": "#/$defs/region"}, "uniqueItems": true},
    "mode": {"enum": ["fast", "safe"], "default": "safe"}
  },
  "required": ["grace_seconds"],
  "additionalProperties": false,
  "$defs": {"region": {"description": "Two letters.", "type": "string", "pattern": "^[A-Z]{2}$"}}
}
"##;

fn bundle(params: &str, schema: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = format!(
        "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n  - name: p\n    \
         source: p.rego\n    params_schema: p.schema.json\n    params:\n{params}"
    );
    for (path, text) in
        [("bundle.yaml", manifest.as_str()), ("p.rego", POLICY), ("p.schema.json", schema)]
    {
        fs::write(directory.path().join(path), text).expect("written");
    }
    directory
}

fn refusal(params: &str, schema: &str) -> String {
    match Bundle::load(bundle(params, schema).path()) {
        Err(LoadError::Invalid(fault)) => {
            assert!(fault.hint.is_some(), "no remedy: {fault}");
            fault.to_string()
        }
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[track_caller]
fn refused(params: &str, expected: &str) {
    let message = refusal(params, SCHEMA);
    assert!(message.contains(expected), "wanted `{expected}`: {message}");
}

#[track_caller]
fn schema_refused(schema: &str, expected: &str) {
    let message = refusal("      {}\n", schema);
    assert!(message.contains(expected), "wanted `{expected}`: {message}");
    assert!(message.starts_with("p.schema.json:"), "{message}");
}

#[test]
fn params_that_fit_reach_the_policy_exactly_as_written() {
    let directory = bundle("      grace_seconds: 300\n      regions: [DE, FR]\n", SCHEMA);
    let bundle = Bundle::load(directory.path()).expect("the params fit");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
    let input: Input = serde_json::from_str(include_str!("sample.json")).expect("an input");
    let evaluation = Evaluator::new(set.into()).evaluate(&input).expect("no backstop");
    // The schema's default of `mode` is for people; it is not filled in.
    let message = &evaluation.candidates[0].outcome.reasons[0].message;
    assert_eq!(message, r#"{"grace_seconds":300,"regions":["DE","FR"]}"#);
}

#[test]
fn params_that_do_not_fit_are_refused_where_they_stand() {
    insta::assert_snapshot!(refusal("      grace_seconds: 86401\n", SCHEMA), @r"
    bundle.yaml:8:22: `params.grace_seconds` of policy `p` does not fit: 86401 is greater than the maximum of 86400
    hint: `p.schema.json` says: Seconds, 0 to 86400
    ");
    insta::assert_snapshot!(refusal("      grace_secnods: 300\n", SCHEMA), @r"
    bundle.yaml:8:22: `params.grace_secnods` of policy `p` is not in its schema
    hint: did you mean `grace_seconds`?
    ");
    insta::assert_snapshot!(
        refusal("      grace_seconds: 5\n      regions:\n       - DE\n       - germany\n", SCHEMA),
        @r#"
    bundle.yaml:11:10: `params.regions[1]` of policy `p` does not fit: "germany" does not match "^[A-Z]{2}$"
    hint: `p.schema.json` says: Two letters
    "#
    );
    insta::assert_snapshot!(refusal("      regions: []\n", SCHEMA), @r"
    bundle.yaml:8:7: `params.grace_seconds` of policy `p` is missing
    hint: add `grace_seconds`: Seconds, 0 to 86400
    ");
    refused(
        "      {grace_seconds: 5,\n       mode: quick}\n",
        "bundle.yaml:9:14: `params.mode` of policy",
    );
    refused("      grace_seconds: \"5\"\n", "is not of type \"integer\"");
    refused("      grace_seconds: 5\n      regions: [DE, DE]\n", "`params.regions` of policy `p`");
}

#[test]
fn params_that_json_would_change_are_refused() {
    refused(
        "      grace_seconds: 5\n      grace_seconds: 6\n",
        "`grace_seconds` stands there twice",
    );
    refused("      grace_seconds: .inf\n", "not finite");
    let large = "      grace_seconds: 5\n      regions: [{a: [0, 9007199254740992]}]\n";
    refused(large, "bundle.yaml:9:25: `params.regions[0].a[1]` of policy `p` is beyond 2^53 - 1");
    let large = "      grace_seconds: -9007199254740992\n";
    refused(large, "`params.grace_seconds` of policy `p` is beyond 2^53 - 1");
    refused("      [1, 2]\n", "params are not a mapping");
}

#[test]
fn a_schema_that_is_none_is_refused_at_its_place() {
    schema_refused("{\"type\": \"objekt\"}", "p.schema.json:1:10: `type` is no JSON Schema");
    schema_refused(
        "{\n\"properties\": {\"a\": 5}}",
        "p.schema.json:2:21: `properties.a` is no schema",
    );
    schema_refused("{\"propertys\": {}}", "hint: did you mean `properties`?");
    schema_refused("{\"items\": {\"minumum\": 1}}", "`items.minumum` is no keyword");
    schema_refused("{\"foo\": 1}", "a keyword that nobody knows checks nothing");
    schema_refused("{\"allOf\": {}}", "`allOf` is of the wrong type");
    schema_refused(
        "{\"$schema\": \"http://json-schema.org/draft-07/schema#\"}",
        "`$schema` is not",
    );
    schema_refused("{\"pattern\": \"(\"}", "`pattern` is no JSON Schema");
    schema_refused("{\"pattern\": \"(a)\\\\1\"}", "`pattern` is no JSON Schema");
    schema_refused("{\"pattern\": \"(a{1000}){1000}\"}", "`pattern` is no JSON Schema");
    schema_refused("{\"a\": 1, \"a\": 2}", "`a` stands there twice");
    schema_refused("[]", "is no schema");
    schema_refused("{", "p.schema.json:");
    schema_refused(&format!("{{\"title\": \"{}\"}}", "x".repeat(300_000)), "has more than 262144");
    let message = refusal("      {}\n", "{\"type\": \"string\"}");
    assert!(message.contains("`params` of policy `p` does not fit"), "{message}");
}

#[test]
fn references_stay_in_the_file() {
    for reference in [
        "https://example.com/schema.json",
        "file:///etc/hostname",
        "other.schema.json",
        "other.schema.json#/$defs/a",
        "https://json-schema.org/draft/2020-12/schema",
        "#/$defs/%61",
        "",
    ] {
        let schema = format!("{{\"$ref\": \"{reference}\", \"$defs\": {{\"a\": true}}}}");
        schema_refused(&schema, "`$ref` leads out of the file");
    }
    schema_refused("{\"$ref\": \"#/$defs/b\", \"$defs\": {\"a\": true}}", "leads nowhere");
    schema_refused("{\"$ref\": \"#a\", \"$defs\": {\"a\": {\"$anchor\": \"a\"}}}", "is no keyword");
    schema_refused("{\"$dynamicRef\": \"#\"}", "`$dynamicRef` is no keyword");
    schema_refused("{\"items\": {\"$id\": \"x\"}}", "gives a part of the schema a name of its own");
    // A bundle may share one schema between policies, but not name what it does not hold.
    let directory = bundle("      {}\n", "true");
    let manifest = directory.path().join("bundle.yaml");
    let text = fs::read_to_string(&manifest).expect("there");
    for path in ["../p.schema.json", "/etc/hostname", "p.schema.jsn"] {
        fs::write(&manifest, text.replace("p.schema.json", path)).expect("written");
        let message = Bundle::load(directory.path()).expect_err(path).to_string();
        let expected = format!("bundle.yaml:6:20: `{path}` of policy `p` is not a file");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn no_schema_makes_checking_endless_long_or_deep() {
    schema_refused("{\"$ref\": \"#\"}", "leads back to itself");
    let circle = r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
        "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}"##;
    schema_refused(circle, "leads back to itself");
    schema_refused(r##"{"properties": {"a": {"items": {"$ref": "#"}}}}"##, "leads back to itself");
    // Each level twice the one below: 2^25 ways to the same value.
    let doubling = |at: usize| {
        let below = format!(r##"{{"$ref": "#/$defs/d{}"}}"##, at + 1);
        format!(r#""d{at}": {{"allOf": [{below}, {below}]}}"#)
    };
    let definitions: Vec<_> = (0..25).map(doubling).collect();
    let definitions = definitions.join(", ");
    let schema = format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{definitions}, "d25": true}}}}"##);
    schema_refused(&schema, "has more than 2000 schemas below it");
    // A chain, in an order in which each link is met when the next is measured already.
    for reversed in [false, true] {
        let mut links: Vec<_> = (0..90)
            .map(|at| format!(r##""l{at:02}": {{"$ref": "#/$defs/l{:02}"}}"##, at + 1))
            .collect();
        links.push(r#""l90": true"#.into());
        if reversed {
            links = (0..90)
                .map(|at| format!(r##""l{:02}": {{"$ref": "#/$defs/l{at:02}"}}"##, at + 1))
                .collect();
            links.push(r#""l00": true"#.into());
        }
        let schema = format!(r#"{{"$defs": {{{}}}}}"#, links.join(", "));
        schema_refused(&schema, "is deeper than 64 schemas");
    }
    let nested = format!("{}true{}", "{\"items\": ".repeat(70), "}".repeat(70));
    schema_refused(&nested, "is deeper than 64 schemas");
    let text = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let message = refusal(&format!("      a: {text}\n"), SCHEMA);
    assert!(message.contains("recursion limit"), "{message}");
}

#[test]
fn a_pattern_is_matched_in_time_that_its_text_bounds() {
    let schema = SCHEMA.replace("^[A-Z]{2}$", "^(a+)+$");
    let params = format!("      grace_seconds: 5\n      regions: [\"{}!\"]\n", "a".repeat(5_000));
    assert!(refusal(&params, &schema).contains("does not match"));
}

#[test]
fn metadata_stands_in_the_manifest_for_components_only() {
    let text = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n  - name: p\n    \
                source: p.rego\n    metadata: {owner: me}\n";
    let directory = bundle("      {}\n", "true");
    let manifest = directory.path().join("bundle.yaml");
    let load = |text: &str| {
        fs::write(&manifest, text).expect("written");
        Bundle::load(directory.path()).map_err(|error| error.to_string())
    };
    let message = load(text).expect_err("it is Rego");
    assert!(message.starts_with("bundle.yaml:6:15: `metadata` of policy `p`"), "{message}");
    fs::write(directory.path().join("p.wasm"), b"\0asm").expect("written");
    let wasm = text.replace("p.rego", "p.wasm");
    let bundle = load(&wasm).expect("the component is not read yet");
    let policy = bundle.policies().next().expect("one policy");
    assert_eq!(policy.metadata.and_then(|metadata| metadata.owner).as_deref(), Some("me"));
    for (metadata, expected) in [
        ("{owner: \"\"}", "`metadata.owner` of policy `p` is not usable"),
        ("{controls: [SOC2]}", "`<framework>:<control>`"),
        ("{controls: [\"SOC2:\"]}", "`<framework>:<control>`"),
        ("{ownr: me}", "did you mean `owner`?"),
    ] {
        let message = load(&wasm.replace("{owner: me}", metadata)).expect_err(metadata);
        assert!(message.contains(expected), "{metadata} gave: {message}");
    }
}
