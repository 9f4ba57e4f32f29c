//! One schema: the proto, the WIT records, the Rust types and the published JSON Schemas say the
//! same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use placet_policy::{Approvers, Bundle, CaseRunner, Facts, Input};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use serde_json::Value;
use wit_parser::{Resolve, Type, TypeDefKind, TypeId};

/// Fields by record, with their types in words of their own; names of values by enum. All in
/// `snake_case`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    records: BTreeMap<String, BTreeMap<String, String>>,
    enums: BTreeMap<String, BTreeSet<String>>,
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            snake.push('_');
        }
        snake.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}

fn from_proto() -> Model {
    let pool = DescriptorPool::decode(placet_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut model = Model::default();
    let input = pool.get_message_by_name("placet.policy.v1.Input").expect("the input");
    proto_record(&input, &mut model);
    model
}

fn proto_record(message: &MessageDescriptor, model: &mut Model) {
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(|field| field.number());
    let names: Vec<_> = fields.iter().map(|field| field.name().to_owned()).collect();
    assert!(names.is_sorted(), "{}: fields stand in alphabetical order", message.name());
    let mut record = BTreeMap::new();
    for field in fields {
        let base = match field.kind() {
            Kind::String => "string".to_owned(),
            Kind::Uint32 => "u32".to_owned(),
            Kind::Uint64 => "u64".to_owned(),
            Kind::Bool => "bool".to_owned(),
            Kind::Message(inner) => {
                proto_record(&inner, model);
                snake(inner.name())
            }
            Kind::Enum(inner) => {
                let values = inner.values().map(|value| value.name().to_owned());
                let values = values.filter(|name| !name.ends_with("_UNSPECIFIED"));
                model.enums.insert(snake(inner.name()), values.collect());
                snake(inner.name())
            }
            other => panic!("{other:?} is no type of the input"),
        };
        let kind = if field.is_list() {
            format!("list<{base}>")
        } else if field.field_descriptor_proto().proto3_optional() {
            format!("option<{base}>")
        } else {
            base
        };
        record.insert(field.name().to_owned(), kind);
    }
    model.records.insert(snake(message.name()), record);
}

fn from_wit() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/wit/policy.wit");
    let text = std::fs::read_to_string(path).expect("the world");
    let mut resolve = Resolve::default();
    resolve.push_str("policy.wit", &text).expect("it parses");
    let (_, types) = resolve.interfaces.iter().next().expect("the interface");
    let mut model = Model::default();
    wit_type(&resolve, types.types["input"], &mut model);
    model
}

fn wit_type(resolve: &Resolve, id: TypeId, model: &mut Model) -> String {
    let definition = &resolve.types[id];
    let name = || snake(definition.name.as_deref().expect("it is named"));
    match &definition.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            let fields = fields.map(|f| (snake(&f.name), wit_kind(resolve, &f.ty, model)));
            let fields = fields.collect();
            model.records.insert(name(), fields);
            name()
        }
        TypeDefKind::Enum(cases) => {
            let cases = cases.cases.iter().map(|case| snake(&case.name).to_ascii_uppercase());
            model.enums.insert(name(), cases.collect());
            name()
        }
        TypeDefKind::List(inner) => format!("list<{}>", wit_kind(resolve, inner, model)),
        TypeDefKind::Option(inner) => format!("option<{}>", wit_kind(resolve, inner, model)),
        other => panic!("{} is no type of the input", other.as_str()),
    }
}

fn wit_kind(resolve: &Resolve, kind: &Type, model: &mut Model) -> String {
    match kind {
        Type::String => "string".into(),
        Type::U32 => "u32".into(),
        Type::U64 => "u64".into(),
        Type::Bool => "bool".into(),
        Type::Id(id) => wit_type(resolve, *id, model),
        other => panic!("{other:?} is no type of the input"),
    }
}

fn from_schema(schema: &Value) -> Model {
    let mut model = Model::default();
    schema_record("Input", schema, schema, &mut model);
    model
}

fn schema_record(name: &str, node: &Value, root: &Value, model: &mut Model) {
    assert_eq!(node["additionalProperties"], false, "{name} refuses unknown fields");
    let required: BTreeSet<_> =
        node["required"].as_array().expect("required").iter().map(|n| n.as_str()).collect();
    let mut record = BTreeMap::new();
    for (field, node) in node["properties"].as_object().expect("properties") {
        let kind = schema_kind(node, root, model);
        let optional = kind.starts_with("option<");
        assert_ne!(required.contains(&Some(field.as_str())), optional, "{name}.{field}");
        record.insert(field.clone(), kind);
    }
    model.records.insert(snake(name), record);
}

fn schema_kind(node: &Value, root: &Value, model: &mut Model) -> String {
    if let Some(options) = node["anyOf"].as_array() {
        assert_eq!(options[1]["type"], "null");
        return format!("option<{}>", schema_kind(&options[0], root, model));
    }
    if let Some(reference) = node["$ref"].as_str() {
        let name = reference.rsplit('/').next().expect("a name");
        let target =
            root.pointer(reference.strip_prefix('#').expect("local")).expect("it is there");
        if target["type"] == "object" {
            schema_record(name, target, root, model);
            return snake(name);
        }
        let consts = target["oneOf"].as_array().map(|one_of| {
            one_of.iter().filter_map(|one| one["const"].as_str()).map(str::to_owned).collect()
        });
        let plain = target["enum"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        return match consts.or(plain) {
            Some(values) => {
                model.enums.insert(snake(name), values);
                snake(name)
            }
            None => schema_kind(target, root, model),
        };
    }
    match (node["type"].as_str(), node["format"].as_str()) {
        (Some("string"), _) => "string".into(),
        (Some("boolean"), _) => "bool".into(),
        (Some("integer"), Some("uint32")) => "u32".into(),
        (Some("integer"), Some("uint64")) => "u64".into(),
        (Some("array"), _) => format!("list<{}>", schema_kind(&node["items"], root, model)),
        other => panic!("{other:?} is no type of the input: {node}"),
    }
}

#[test]
fn proto_wit_and_rust_agree_field_by_field() {
    let proto = from_proto();
    assert_eq!(proto.records.len(), 11);
    assert_eq!(proto.enums.len(), 7);
    assert_eq!(proto, from_wit());
    assert_eq!(proto, from_schema(Input::json_schema().as_value()));
}

fn published(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/schema").join(name)
}

/// Compares with the checked-in file; with `PLACET_UPDATE=1` in the environment it writes it.
fn compare(name: &str, schema: &schemars::Schema) {
    let text = serde_json::to_string_pretty(schema).expect("it is JSON") + "\n";
    let path = published(name);
    if std::env::var_os("PLACET_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("it is made");
        std::fs::write(&path, &text).expect("it is written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{name} has drifted: run this test with PLACET_UPDATE=1");
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    compare("input.schema.json", &Input::json_schema());
    compare("facts.schema.json", &Facts::json_schema());
    compare("bundle.schema.json", &Bundle::json_schema());
    compare("approvers.schema.json", &Approvers::json_schema());
    compare("cases.schema.json", &CaseRunner::json_schema());
}

#[test]
fn the_sample_and_what_is_shipped_keep_to_the_published_schemas() {
    let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
    let sample: Value = serde_json::from_str(include_str!("sample.json")).expect("JSON");
    jsonschema::validate(Input::json_schema().as_value(), &sample).expect("the sample keeps to it");
    let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference/facts.yaml");
    let facts: Value = yaml_serde::from_str(&read(&facts)).expect("YAML");
    jsonschema::validate(Facts::json_schema().as_value(), &facts).expect("the facts keep to it");
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference/bundle.yaml");
    let bundle: Value = yaml_serde::from_str(&read(&bundle)).expect("YAML");
    jsonschema::validate(Bundle::json_schema().as_value(), &bundle)
        .expect("the bundle keeps to it");
}
