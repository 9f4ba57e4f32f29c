//! The reference for policy authors names what there is.

use std::collections::BTreeSet;

use serde_json::Value;

/// Names of properties and values of enums, however deep.
fn names(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) => {
                        found.extend(properties.keys().cloned());
                    }
                    ("enum", Value::Array(values)) => {
                        found.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                names(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_field_and_every_value_stands_in_the_reference() {
    let text = include_str!("../../../docs/policies.md");
    let mut found = BTreeSet::new();
    for schema in [
        include_str!("../../../../proto/schema/input.schema.json"),
        include_str!("../../../../proto/schema/bundle.schema.json"),
    ] {
        let schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
        names(&schema, &mut found);
    }
    assert!(found.len() > 60, "the schemas have {} names", found.len());
    let stands = |name: &&String| {
        let endings = [format!("`{name}`"), format!("].{name}`"), format!("required.{name}`")];
        !endings.iter().any(|ending| text.contains(ending.as_str()))
    };
    let missing: Vec<_> = found.iter().filter(stands).collect();
    assert!(missing.is_empty(), "engine/docs/policies.md does not name {missing:?}");
}
