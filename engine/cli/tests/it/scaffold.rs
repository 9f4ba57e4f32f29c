//! `placet new`: what it makes works, and it never harms what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use placet_proto::schema;
use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::{placet, root};

/// Runs to the end in a directory.
fn run_in(directory: &Path, args: &[&str]) -> Ran {
    let mut command = placet();
    command.args(args).current_dir(directory).stdin(Stdio::null());
    Ran::of(command.output().unwrap())
}

/// Every file below a directory, hidden ones too.
fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn bundle_in(directory: &Path) -> String {
    let ran = run_in(directory, &["new", "bundle", "acme"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    directory.join("acme").to_str().unwrap().to_owned()
}

/// Whether every YAML file below a directory that names a schema keeps to it.
fn check_schemas(directory: &Path) -> usize {
    let mut checked = 0;
    for (path, bytes) in tree(directory) {
        let text = String::from_utf8(bytes).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let Some(named) = first.strip_prefix("# yaml-language-server: $schema=") else {
            assert!(!path.ends_with(".yaml"), "{path} names no schema");
            continue;
        };
        let schema = directory.join(&path).parent().unwrap().join(named);
        let schema: Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
        let document: Value = yaml_serde::from_str(&text).unwrap();
        jsonschema::validate(&schema, &document).unwrap_or_else(|why| panic!("{path}: {why}"));
        checked += 1;
    }
    checked
}

#[test]
fn a_new_bundle_passes_and_tells_what_comes_next() {
    let directory = tempfile::tempdir().unwrap();
    let ran = run_in(directory.path(), &["new", "bundle", "acme"]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 0
    --- stdout
    acme/.schemas/bundle.schema.json
    acme/.schemas/cases.schema.json
    acme/.schemas/facts.schema.json
    acme/README.md
    acme/bundle.yaml
    acme/duration/cases/duration.yaml
    acme/duration/duration.rego
    acme/duration/duration.schema.json
    acme/duration/duration_test.rego
    acme/facts.yaml
    acme/requests/lease.json
    --- stderr
    wrote 11 files; 7 cases and tests pass
    next:
      placet test acme
      placet new rego NAME --bundle acme
      placet admit --local --bundle acme --facts acme/facts.yaml \
        acme/requests/lease.json
    ");
    let ran = run_in(directory.path(), &["test", "--coverage", "--min", "100", "acme"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.starts_with("7 passed, 0 failed"), "{}", ran.stderr);
    let args = ["admit", "--local", "--bundle", "acme", "--facts", "acme/facts.yaml"];
    let ran = run_in(directory.path(), &[&args[..], &["acme/requests/lease.json"]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(check_schemas(directory.path()), 3);
    let files = tree(&directory.path().join("acme"));
    let schemas = [("bundle", schema::BUNDLE), ("cases", schema::CASES), ("facts", schema::FACTS)];
    for (what, text) in schemas {
        assert_eq!(files[&format!(".schemas/{what}.schema.json")], text.as_bytes(), "{what}");
    }
}

#[test]
fn nothing_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle_in(directory.path());
    let before = tree(directory.path());
    let ran = run_in(directory.path(), &["new", "bundle", "acme"]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: `acme` exists already
     hint: choose another name: nothing is ever written over
    ");
    // A file, an empty directory and a link to nowhere are somebody's, too.
    fs::write(directory.path().join("file"), "mine").unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("link")).unwrap();
    for name in ["file", "empty", "link"] {
        let ran = run_in(directory.path(), &["new", "bundle", name]);
        assert_eq!(ran.code, 1, "{name}: {}", ran.stdout);
        assert!(ran.stderr.contains("exists already"), "{name}: {}", ran.stderr);
    }
    let ran = run(["new", "rego", "duration", "--bundle", &bundle]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    fs::remove_file(directory.path().join("link")).unwrap();
    fs::remove_file(directory.path().join("file")).unwrap();
    assert_eq!(tree(directory.path()), before);
}

#[test]
fn a_policy_joins_the_bundle_that_one_stands_in() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle_in(directory.path());
    let manifest = Path::new(&bundle).join("bundle.yaml");
    let mut before = fs::read_to_string(&manifest).unwrap();
    before.push_str("\n# The end.\n");
    fs::write(&manifest, &before).unwrap();
    let ran = run_in(&Path::new(&bundle).join("duration"), &["new", "rego", "eu-only"]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 0
    --- stdout
    ../eu-only/cases/eu-only.yaml
    ../eu-only/eu-only.rego
    ../eu-only/eu-only.schema.json
    ../eu-only/eu-only_test.rego
    --- stderr
    wrote 4 files, changed ../bundle.yaml; 7 cases and tests pass
    next:
      placet test .. --only eu-only
      placet test .. --coverage
    ");
    let after = fs::read_to_string(&manifest).unwrap();
    let added = after.strip_prefix(before.strip_suffix("\n# The end.\n").unwrap());
    insta::assert_snapshot!(added.unwrap(), @r"
      - name: eu-only
        source: eu-only/eu-only.rego
        params_schema: eu-only/eu-only.schema.json
        params:
          # Longest work by class, in seconds. A class that is left out may not run.
          max_duration_seconds:
            EXTERNAL_COMMERCIAL: 604800 # 7 days
            INTERNAL_RESEARCH: 2592000 # 30 days

    # The end.
    ");
    let ran = run(["test", &bundle]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.starts_with("14 passed, 0 failed"), "{}", ran.stderr);
    assert_eq!(check_schemas(directory.path()), 4);
    // The same again, and one whose package would be the same.
    for name in ["eu-only", "eu_only"] {
        let ran = run(["new", "rego", name, "--bundle", &bundle]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
    }
    assert_eq!(fs::read_to_string(&manifest).unwrap(), after);
}

#[test]
fn names_that_yaml_or_rego_read_otherwise_work() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle_in(directory.path());
    for name in ["24", "default", "No", "a:b@c.d-", "import"] {
        let ran = run(["new", "rego", name, "--bundle", &bundle]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
    }
    let ran = run(["test", &bundle]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.starts_with("42 passed, 0 failed"), "{}", ran.stderr);
}

#[test]
fn a_policy_joins_the_shipped_ones() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("reference");
    for (path, bytes) in tree(&root().join("policies/reference")) {
        let path = bundle.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let path = bundle.to_str().unwrap();
    let before = fs::read_to_string(bundle.join("bundle.yaml")).unwrap();
    let args = ["new", "rego", "maintenance", "--bundle", path, "--format", "json"];
    let ran = run(args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let made: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(made["changed"], serde_json::json!([format!("{path}/bundle.yaml")]));
    let files = made["files"].as_array().unwrap();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert!(Path::new(file.as_str().unwrap()).is_file(), "{file}");
    }
    assert!(fs::read_to_string(bundle.join("bundle.yaml")).unwrap().starts_with(&before));
    let ran = run(["test", path, "--only", "maintenance"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.starts_with("7 passed, 0 failed"), "{}", ran.stderr);
}

#[test]
fn the_cases_of_a_new_policy_hold_in_whatever_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle_in(directory.path());
    let path = |name: &str| Path::new(&bundle).join(name);
    // The facts know nobody that the cases would ask for.
    for file in ["facts.yaml", "duration/cases/duration.yaml"] {
        let text = fs::read_to_string(path(file)).unwrap().replace("acme", "initech");
        fs::write(path(file), text).unwrap();
    }
    let ran = run(["new", "rego", "own", "--bundle", &bundle]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("wrote 5 files, changed"), "{}", ran.stderr);
    let cases = fs::read_to_string(path("own/cases/own.yaml")).unwrap();
    assert!(cases.contains("\nfacts: ../facts.yaml\n"), "{cases}");
    assert!(cases.contains("{effect: DENY, codes: [DURATION_ABOVE_MAXIMUM]}"), "{cases}");
    assert_eq!(check_schemas(directory.path()), 5);
    // Another policy refuses whatever is asked for.
    let no = "package placet.no\n\ndeny contains {\"code\": \"NO\", \"message\": \"no\"}\n";
    fs::write(path("no.rego"), no).unwrap();
    let mut manifest = fs::read_to_string(path("bundle.yaml")).unwrap();
    manifest.push_str("  - {name: no, source: no.rego}\n");
    fs::write(path("bundle.yaml"), manifest).unwrap();
    let ran = run(["new", "rego", "alone", "--bundle", &bundle]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let cases = fs::read_to_string(path("alone/cases/alone.yaml")).unwrap();
    assert!(cases.contains("{verdicts: {alone: DENY}}"), "{cases}");
    let ran = run(["test", &bundle, "--only", "alone"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(check_schemas(directory.path()), 7);
}

#[test]
fn what_cannot_be_done_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ran = run_in(at, &["new", "rego", "x"]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: neither this directory nor one above has a bundle.yaml
     hint: make a bundle with `placet new bundle NAME`, or name one with --bundle
    ");
    for (args, code) in [
        (&["new", "bundle", "two words"][..], 64),
        (&["new", "bundle", "a/b"], 64),
        (&["new", "bundle", "placet"], 64),
        (&["new", "bundle", "x", "--in", "nowhere"], 1),
        (&["new", "rego", "x", "--bundle", "nowhere"], 1),
        (&["new", "wasm", "x", "--sdk", "nowhere"], 1),
        (&["new", "wasm", "x"], 1),
        (&["new"], 64),
        (&["new", "lua", "x"], 64),
    ] {
        let ran = run_in(at, args);
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{args:?}: {}", ran.stderr);
        assert!(code == 64 || ran.stderr.contains(" hint: "), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(tree(at), BTreeMap::new());

    let bundle = bundle_in(at);
    let manifest = Path::new(&bundle).join("bundle.yaml");
    let flow = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies: [{name: d, source: \
                duration/duration.rego, params: {max_duration_seconds: {}}}]\n";
    fs::write(&manifest, flow).unwrap();
    let before = tree(at);
    let ran = run_in(at, &["new", "rego", "x", "--bundle", "acme"]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: cannot tell where `policies` of bundle.yaml ends; nothing was written
    An entry would be:
      - name: x
        source: x/x.rego
        params_schema: x/x.schema.json
        params:
          # Longest work by class, in seconds. A class that is left out may not run.
          max_duration_seconds:
            EXTERNAL_COMMERCIAL: 604800 # 7 days
            INTERNAL_RESEARCH: 2592000 # 30 days
     hint: write `policies:` with a line `  - name: ...` for each policy
    ");
    fs::write(&manifest, "polices: []\n").unwrap();
    let ran = run_in(at, &["new", "rego", "x", "--bundle", "acme"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    fs::write(&manifest, flow).unwrap();
    assert_eq!(tree(at), before);
}

#[test]
fn a_component_begins_as_a_crate_and_a_bundle_that_tests_it() {
    let directory = tempfile::tempdir().unwrap();
    let sdk = root().join("sdk-guest").to_str().unwrap().to_owned();
    let ran = run_in(directory.path(), &["new", "wasm", "burst", "--sdk", &sdk]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 0
    --- stdout
    burst/.gitignore
    burst/Cargo.lock
    burst/Cargo.toml
    burst/README.md
    burst/bundle/.schemas/bundle.schema.json
    burst/bundle/.schemas/cases.schema.json
    burst/bundle/.schemas/facts.schema.json
    burst/bundle/bundle.yaml
    burst/bundle/burst/burst.schema.json
    burst/bundle/burst/cases/burst.yaml
    burst/bundle/facts.yaml
    burst/src/lib.rs
    --- stderr
    wrote 12 files
    next:
      placet build burst --output burst/bundle/burst/burst.wasm
      placet test burst/bundle
    ");
    let cargo = fs::read_to_string(directory.path().join("burst/Cargo.toml")).unwrap();
    let cargo: toml::Value = toml::from_str(&cargo).unwrap();
    assert_eq!(cargo["dependencies"]["placet-guest"]["path"].as_str(), Some(sdk.as_str()));
    assert_eq!(check_schemas(&directory.path().join("burst/bundle")), 3);
    let lock = fs::read_to_string(directory.path().join("burst/Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"placet-policy-burst\""), "{lock}");
    // Until it is built, the bundle says what is missing.
    let ran = run_in(directory.path(), &["test", "burst/bundle"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("burst/burst.wasm"), "{}", ran.stderr);
}
