//! What the published schemas of written files say, and what reads these files, is the same: what
//! is shipped keeps to them, and what is refused for its form breaks them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use placet_policy::{Bundle, CaseRunner, Facts, PolicySet, WasmRuntime};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference")
}

fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(reference().join(path)).expect("it is shipped");
    yaml_serde::from_str(&text).expect("it is YAML")
}

/// Files of cases that are shipped.
fn case_files() -> Vec<String> {
    Bundle::load(&reference()).expect("it loads").case_files()
}

#[test]
fn shipped_cases_keep_to_the_published_schema() {
    let schema = CaseRunner::json_schema();
    let validator = jsonschema::validator_for(schema.as_value()).expect("it is a schema");
    let files = case_files();
    assert_eq!(files.len(), 6);
    for file in files {
        validator.validate(&yaml(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

#[test]
fn a_request_in_a_case_has_the_fields_of_the_contract() {
    let pool = DescriptorPool::decode(placet_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let schema = CaseRunner::json_schema();
    let names = [
        ("Request", "AdmitRequest"),
        ("Principal", "Principal"),
        ("Extends", "Extends"),
        ("Lease", "Lease"),
        ("Job", "Job"),
    ];
    for (ours, theirs) in names {
        let message = format!("placet.admission.v1.{theirs}");
        let message = pool.get_message_by_name(&message).expect("it is in the contract");
        let fields: BTreeSet<_> = message.fields().map(|it| it.name().to_owned()).collect();
        let described = &schema.as_value()["$defs"][ours]["properties"];
        let described: BTreeSet<_> =
            described.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(described, fields, "{ours}");
    }
}

/// Every document that differs from one by an unknown key in an object, or by a value of another
/// type, each with what was done to it.
fn mutants(document: &Value) -> Vec<(String, Value)> {
    let mut paths = Vec::new();
    collect(document, String::new(), &mut paths);
    let mut mutants = Vec::new();
    for path in paths {
        let found = document.pointer(&path).expect("it was collected");
        if found.is_object() {
            let mut mutant = document.clone();
            mutant.pointer_mut(&path).expect("it is there")["zz_unknown"] = json!(1);
            mutants.push((format!("{path} with an unknown key"), mutant));
        }
        for other in [json!("zz"), json!(7), json!(true), json!([[]]), json!({"zz": 1})] {
            let kind = |value: &Value| match value {
                Value::Null => 0,
                Value::Bool(_) => 1,
                Value::Number(_) => 2,
                Value::String(_) => 3,
                Value::Array(_) => 4,
                Value::Object(_) => 5,
            };
            if kind(&other) != kind(found) {
                let mut mutant = document.clone();
                mutants.push((format!("{path} as {other}"), {
                    *mutant.pointer_mut(&path).expect("it is there") = other;
                    mutant
                }));
            }
        }
    }
    mutants
}

fn collect(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                collect(field, format!("{path}/{}", name.replace('/', "~1")), paths);
            }
        }
        // The first shows what the others would.
        Value::Array(entries) => {
            if let Some(first) = entries.first() {
                collect(first, format!("{path}/0"), paths);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    paths.push(path);
}

/// Whether an error is about a document's form, as serde words it.
fn is_of_form(error: &str) -> bool {
    let words = ["unknown field", "invalid type", "missing field", "unknown variant"];
    words.iter().any(|word| error.contains(word))
}

/// Holds a schema to what reads the file: how many mutants both refuse.
fn both_refuse(
    schema: &Value,
    document: &Value,
    read: impl Fn(&str) -> Result<(), String>,
) -> usize {
    let validator = jsonschema::validator_for(schema).expect("it is a schema");
    validator.validate(document).unwrap_or_else(|error| panic!("as it is: {error}"));
    let mut refused = 0;
    for (what, mutant) in mutants(document) {
        match read(&mutant.to_string()) {
            Err(error) if is_of_form(&error) => {
                assert!(!validator.is_valid(&mutant), "{what}: refused by {error}");
                refused += 1;
            }
            // YAML reads a number as a text where a text stands; an editor may say so.
            Ok(()) if what.ends_with(" as 7") || what.ends_with(" as true") => {}
            // Nothing else that is read is marked.
            Ok(()) => assert!(validator.is_valid(&mutant), "{what}: is read"),
            Err(_) => {}
        }
    }
    refused
}

#[test]
fn facts_that_are_refused_for_their_form_break_their_schema() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("facts.yaml");
    let refused = both_refuse(Facts::json_schema().as_value(), &yaml("facts.yaml"), |text| {
        std::fs::write(&file, text).expect("it is written");
        Facts::load(&file).map(|_| ()).map_err(|error| error.to_string())
    });
    assert!(refused > 150, "{refused}");
}

#[test]
fn manifests_that_are_refused_for_their_form_break_their_schema() {
    let bundle = Bundle::load(&reference()).expect("it loads");
    let files: Vec<(String, Vec<u8>)> =
        bundle.files().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
    let refused = both_refuse(Bundle::json_schema().as_value(), &yaml("bundle.yaml"), |text| {
        let with = files.iter().map(|(path, bytes)| match path.as_str() {
            "bundle.yaml" => (path.clone(), text.as_bytes().to_vec()),
            _ => (path.clone(), bytes.clone()),
        });
        Bundle::from_files("it", with).map(|_| ()).map_err(|error| error.to_string())
    });
    assert!(refused > 30, "{refused}");
}

/// A file of cases with all that one may have.
fn full() -> Value {
    json!({
        "facts": "../../facts.yaml",
        "cases": [{
            "name": "all",
            "time": 1_795_262_400,
            "unchecked": true,
            "params": {"quota": {"a": 1}},
            "request": {
                "request_id": "a", "tenant_id": "acme", "priority_class": "EXTERNAL_COMMERCIAL",
                "principal": {"issuer": "i", "subject": "s", "groups": ["g"]},
                "job": {
                    "cluster_id": "de-fra-1", "gpu_count": 1, "duration_seconds": 60,
                    "isolation_level": "PARTITIONED", "gpu_models": ["H100"], "gpu_milli": 1000,
                    "fabric_gbps": 1, "dataset_ids": ["d"], "model_ids": ["m"],
                    "checkpoint_jurisdictions": ["DE"], "may_preempt": false, "start": 1,
                    "lease_id": "l", "model_use": "TRAINING", "egress_jurisdictions": ["DE"],
                    "egress_bytes": 1, "storage_io_bytes": 1,
                },
                "extends": {"reservation_id": "r", "epoch": 1, "start": 1, "end": 2},
            },
            "expect": {
                "effect": "PERMIT", "codes": ["A"], "warnings": ["A"], "obligations": ["o"],
                "claims": [{"account": "a/b", "amount": 1, "limit": 2}],
                "verdicts": {"quota": "PERMIT"}, "preemption": false,
                "terms": {"min_runtime_seconds": 1, "notice_seconds": 2},
            },
        }],
    })
}

#[test]
fn cases_that_are_refused_for_their_form_break_their_schema() {
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies: [{name: quota, source: \
                    p.rego}]\n";
    let facts = std::fs::read(reference().join("facts.yaml")).expect("they are shipped");
    let own = |text: &str| {
        let files = [
            ("bundle.yaml", manifest.as_bytes()),
            (
                "p.rego",
                b"package placet.quota\n\napplicable := false\n\ndeny contains {} if false\n"
                    .as_slice(),
            ),
            ("facts.yaml", &facts),
            ("quota/cases/quota.yaml", text.as_bytes()),
        ];
        let files = files.map(|(path, bytes)| (path.to_owned(), bytes.to_vec()));
        Bundle::from_files("it", files).expect("the bundle itself is good")
    };
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = PolicySet::compile(&own("{}"), &runtime).expect("it compiles");
    let set = Arc::new(set);
    let read = |text: &str| {
        let bundle = own(text);
        let mut runner = CaseRunner::new(Arc::clone(&set), None);
        let reports = runner.run(&bundle, "quota/cases/quota.yaml", crate::request::convert);
        let reports = reports.map_err(|error| error.to_string())?;
        let failures = reports.iter().flat_map(|report| &report.failures);
        match failures.into_iter().find(|failure| failure.contains("cannot be read")) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    };
    let schema = CaseRunner::json_schema();
    let mut by_file = BTreeMap::new();
    for file in case_files() {
        let mut document = yaml(&file);
        // Two of each, and all that may be expected of one.
        document["cases"].as_array_mut().expect("a list").truncate(2);
        let refused = both_refuse(schema.as_value(), &document, read);
        by_file.insert(file, refused);
    }
    assert!(by_file.values().all(|refused| *refused > 20), "{by_file:?}");
    let refused = both_refuse(schema.as_value(), &full(), read);
    assert!(refused > 100, "{refused}");
}
