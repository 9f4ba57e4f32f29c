//! Params and the schemas that they keep to.
//!
//! A schema is checked more strictly than JSON Schema asks: a keyword that nobody knows checks
//! nothing, so it is refused; references stay in the file and never lead back, so that checking
//! ends, and in a time that the file's size bounds.

use std::collections::BTreeMap;

use jsonschema::PatternOptions;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::check::{Checked, or_hint};
use super::manifest::{Entry, Manifest};
use super::place::{Shown, Step, locate};
use super::written::Written;
use crate::document::{self, nearest};
use crate::error::Fault;

/// Largest schema in bytes: a person still has to read it.
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Most subschemas that one value may meet, references followed: tens of times what people
/// write.
const MAX_SUBSCHEMAS: usize = 2_000;
/// Deepest way through subschemas and references: checking recurses.
const MAX_SCHEMA_DEPTH: usize = 64;
/// Largest compiled pattern in bytes; patterns are matched without backtracking.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Largest whole number of a policy's params: what every JSON reader keeps exact (RFC 8785 section
/// 3.2.2.3).
const MAX_PARAM: u64 = placet_core::MAX_AMOUNT;
/// The only dialect: JSON Schema Core 2020-12, section 8.1.1.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Checks the params of every policy, and gives the schemas by path.
pub(super) fn check(
    manifest: &Manifest,
    checked: &Checked<'_>,
) -> Result<BTreeMap<String, Value>, Fault> {
    let mut schemas = BTreeMap::new();
    for (at, entry) in manifest.policies.iter().enumerate() {
        check_entry(at, entry, checked, &mut schemas)?;
    }
    Ok(schemas.into_iter().map(|(file, (schema, _))| (file, schema)).collect())
}

/// All that is wrong with params and schemas, at most one fault of each policy, and the schemas
/// that can be used by path.
pub(super) fn survey(
    manifest: &Manifest,
    checked: &Checked<'_>,
) -> (BTreeMap<String, Value>, Vec<Fault>) {
    let (mut schemas, mut faults) = (BTreeMap::new(), Vec::new());
    for (at, entry) in manifest.policies.iter().enumerate() {
        faults.extend(check_entry(at, entry, checked, &mut schemas).err());
    }
    (schemas.into_iter().map(|(file, (schema, _))| (file, schema)).collect(), faults)
}

/// Schemas that were compiled, by path.
type Schemas = BTreeMap<String, (Value, jsonschema::Validator)>;

/// Checks the params of the policy at a position of the manifest.
pub(super) fn check_entry(
    at: usize,
    entry: &Entry,
    checked: &Checked<'_>,
    schemas: &mut Schemas,
) -> Result<(), Fault> {
    let place = [Step::from("policies"), at.into(), "params".into()];
    for (name, value) in &entry.params {
        let mut path = place.to_vec();
        path.push(name.as_str().into());
        numbers(value, &mut path, entry, checked)?;
    }
    let Some(file) = &entry.params_schema else { return Ok(()) };
    if !schemas.contains_key(file) {
        let place = [Step::from("policies"), at.into(), "params_schema".into()];
        checked.is_file(&place, entry, file)?;
        let bytes = checked.files.get(file).map_or(&[][..], Vec::as_slice);
        schemas.insert(file.clone(), compile(file, bytes)?);
    }
    let Some((schema, validator)) = schemas.get(file) else { return Ok(()) };
    let params = Value::Object(entry.params.clone());
    match validator.validate(&params) {
        Ok(()) => Ok(()),
        Err(error) => Err(refused(&error, file, schema, at, entry, checked)),
    }
}

/// Checks that every number is one that all readers keep exact.
fn numbers(
    value: &Value,
    path: &mut Vec<Step>,
    entry: &Entry,
    checked: &Checked<'_>,
) -> Result<(), Fault> {
    match value {
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if whole.is_none_or(|whole| whole <= MAX_PARAM) {
                return Ok(());
            }
            let (name, shown) = (&entry.name, Shown(path.get(2..).unwrap_or_default()));
            let message = format!("`{shown}` of policy `{name}` is beyond 2^53 - 1");
            let fault = checked.wrong(path, message);
            Err(fault.hint("give large amounts in a larger unit, or as text"))
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(at, item)| {
            path.push(at.into());
            let result = numbers(item, path, entry, checked);
            path.pop();
            result
        }),
        Value::Object(fields) => fields.iter().try_for_each(|(key, field)| {
            path.push(key.as_str().into());
            let result = numbers(field, path, entry, checked);
            path.pop();
            result
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// Reads, checks and compiles a schema.
fn compile(file: &str, bytes: &[u8]) -> Result<(Value, jsonschema::Validator), Fault> {
    if bytes.len() > MAX_SCHEMA_BYTES {
        let fault = Fault::new(file, format!("has more than {MAX_SCHEMA_BYTES} bytes"));
        return Err(fault.hint("a schema of params is read by people; make it smaller"));
    }
    let text = document::text(bytes, file)?;
    let read = document::parse(text, file);
    let Written(schema) = read.map_err(|fault| or_hint(fault, "write JSON or YAML"))?;
    let mut walk =
        Walk { file, text, root: &schema, on_the_way: Vec::new(), extents: BTreeMap::new() };
    walk.measure("", 0)?;
    let compiled = jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
        .build(&schema);
    match compiled {
        Ok(validator) => Ok((schema, validator)),
        Err(error) => {
            let path = steps(error.instance_path().as_str(), &schema);
            let message = format!("`{}` is no JSON Schema: {}", Shown(&path), brief(&error));
            Err(at(file, text, &path, message).hint("see JSON Schema 2020-12"))
        }
    }
}

fn at(file: &str, text: &str, path: &[Step], message: String) -> Fault {
    let fault = Fault::new(file, message);
    match locate(text, path) {
        Some((line, column)) => fault.at(line, Some(column)),
        None => fault,
    }
}

/// A fault of params against their schema.
fn refused(
    error: &jsonschema::ValidationError<'_>,
    file: &str,
    schema: &Value,
    position: usize,
    entry: &Entry,
    checked: &Checked<'_>,
) -> Fault {
    let params = Value::Object(entry.params.clone());
    let mut path = vec![Step::from("policies"), position.into(), "params".into()];
    path.extend(steps(error.instance_path().as_str(), &params));
    let pointer = error.schema_path().as_str();
    let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    let name = &entry.name;
    let member = |part: &str| schema.pointer(parent).and_then(|schema| schema.get(part));
    // What the author of the schema says of a value helps more than the schema's own words.
    let says = |described: Option<&Value>| {
        described.and_then(|it| it.get("description")).and_then(Value::as_str).map(one_line)
    };
    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind()
        && let Some(first) = unexpected.first()
    {
        path.push(first.as_str().into());
        let known = member("properties").and_then(Value::as_object).into_iter().flatten();
        let hint = match nearest(first, known.map(|(key, _)| key.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("remove it, or let `{file}` know it"),
        };
        let shown = Shown(path.get(2..).unwrap_or_default());
        let message = format!("`{shown}` of policy `{name}` is not in its schema");
        return checked.wrong(&path, message).hint(hint);
    }
    if let ValidationErrorKind::Required { property } = error.kind()
        && let Some(absent) = property.as_str()
    {
        let said = says(member("properties").and_then(|known| known.get(absent)));
        let said = said.map(|text| format!(": {text}")).unwrap_or_default();
        let shown = Shown(path.get(2..).unwrap_or_default());
        let message = format!("`{shown}.{absent}` of policy `{name}` is missing");
        return checked.wrong(&path, message).hint(format!("add `{absent}`{said}"));
    }
    let shown = Shown(path.get(2..).unwrap_or_default());
    let message = format!("`{shown}` of policy `{name}` does not fit: {}", brief(error));
    let hint = match says(schema.pointer(parent)) {
        Some(text) => format!("`{file}` says: {text}"),
        None => format!("see `#{pointer}` in `{file}`"),
    };
    checked.wrong(&path, message).hint(hint)
}

/// What a validator says, on one line of bounded length: of a long value only what is wrong.
fn brief(error: &jsonschema::ValidationError<'_>) -> String {
    const MAX_SHOWN: usize = 80;
    let value = error.instance().to_string();
    match value.len() > MAX_SHOWN {
        true => one_line(&error.masked_with("the value").to_string()),
        false => one_line(&error.to_string()),
    }
}

fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 240;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = words.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
    line.trim_end_matches('.').to_owned()
}

/// The steps of a JSON pointer (RFC 6901) into a value.
fn steps(pointer: &str, mut value: &Value) -> Vec<Step> {
    let mut steps = Vec::new();
    for segment in pointer.split('/').skip(1) {
        let key = segment.replace("~1", "/").replace("~0", "~");
        let index = key.parse::<usize>().ok().filter(|_| value.is_array());
        let inner = match index {
            Some(at) => value.get(at),
            None => value.get(&key),
        };
        steps.push(index.map_or_else(|| Step::Key(key), Step::At));
        let Some(inner) = inner else { break };
        value = inner;
    }
    steps
}

/// What the value of a keyword is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Schema,
    Schemas,
    ByName,
    Reference,
    Dialect,
}

/// The keywords that may stand in a schema of params: JSON Schema 2020-12 but for what gives a
/// schema or a part of it another name (`$anchor`, `$dynamicRef`) or another dialect
/// (`$vocabulary`).
fn keyword(name: &str) -> Option<Kind> {
    Some(match name {
        "$comment" | "$id" | "title" | "description" | "default" | "examples" | "deprecated"
        | "readOnly" | "writeOnly" | "type" | "enum" | "const" | "multipleOf" | "maximum"
        | "exclusiveMaximum" | "minimum" | "exclusiveMinimum" | "maxLength" | "minLength"
        | "pattern" | "maxItems" | "minItems" | "uniqueItems" | "maxContains" | "minContains"
        | "maxProperties" | "minProperties" | "required" | "dependentRequired" | "format"
        | "contentEncoding" | "contentMediaType" => Kind::Plain,
        "additionalProperties"
        | "items"
        | "contains"
        | "propertyNames"
        | "not"
        | "if"
        | "then"
        | "else"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "contentSchema" => Kind::Schema,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Kind::Schemas,
        "properties" | "patternProperties" | "dependentSchemas" | "$defs" => Kind::ByName,
        "$ref" => Kind::Reference,
        "$schema" => Kind::Dialect,
        _ => return None,
    })
}

/// Those that people write and mistype.
const KEYWORDS: [&str; 16] = [
    "additionalProperties",
    "allOf",
    "anyOf",
    "default",
    "description",
    "enum",
    "items",
    "maximum",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "uniqueItems",
];

/// Goes through a schema, references followed.
struct Walk<'a> {
    file: &'a str,
    text: &'a str,
    root: &'a Value,
    /// Pointers of the schemas that the walk is inside of.
    on_the_way: Vec<String>,
    /// What was measured of each schema that was walked.
    extents: BTreeMap<String, Extent>,
}

/// How much of a schema a value meets: itself included, references followed.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    schemas: usize,
    depth: usize,
}

impl Walk<'_> {
    fn wrong(&self, pointer: &str, message: &str, hint: impl Into<String>) -> Fault {
        let path = steps(pointer, self.root);
        let shown = Shown(&path).to_string();
        let message =
            if shown.is_empty() { message.to_owned() } else { format!("`{shown}` {message}") };
        at(self.file, self.text, &path, message).hint(hint)
    }

    /// Checks the schema at a pointer and all that a value meets from there on.
    fn measure(&mut self, pointer: &str, above: usize) -> Result<Extent, Fault> {
        if self.on_the_way.iter().any(|walked| walked == pointer) {
            let hint = "params have a known depth: write the levels out";
            return Err(self.wrong(pointer, "leads back to itself", hint));
        }
        if let Some(extent) = self.extents.get(pointer) {
            return Ok(*extent);
        }
        if above > MAX_SCHEMA_DEPTH {
            return Err(self.too_deep(pointer));
        }
        self.on_the_way.push(pointer.to_owned());
        let root = self.root;
        let mut extent = Extent { schemas: 1, depth: 1 };
        match root.pointer(pointer) {
            Some(Value::Object(members)) => {
                for (name, value) in members {
                    let below = self.member(pointer, name, value, above)?;
                    extent.schemas = extent.schemas.saturating_add(below.schemas);
                    extent.depth = extent.depth.max(below.depth.saturating_add(1));
                }
            }
            Some(Value::Bool(_)) => {}
            _ => {
                let hint = "a schema is a mapping of keywords, `true` or `false`";
                return Err(self.wrong(pointer, "is no schema", hint));
            }
        }
        self.on_the_way.pop();
        if extent.depth > MAX_SCHEMA_DEPTH {
            return Err(self.too_deep(pointer));
        }
        if extent.schemas > MAX_SUBSCHEMAS {
            let message =
                format!("has more than {MAX_SUBSCHEMAS} schemas below it, references followed");
            return Err(self.wrong(pointer, &message, "make the params simpler"));
        }
        self.extents.insert(pointer.to_owned(), extent);
        Ok(extent)
    }

    fn too_deep(&self, pointer: &str) -> Fault {
        let message = format!("is deeper than {MAX_SCHEMA_DEPTH} schemas, references followed");
        self.wrong(pointer, &message, "make the params flatter")
    }

    fn member(
        &mut self,
        pointer: &str,
        name: &str,
        value: &Value,
        above: usize,
    ) -> Result<Extent, Fault> {
        let here = format!("{pointer}/{}", escaped(name));
        let Some(kind) = keyword(name) else {
            let hint = match nearest(name, KEYWORDS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "remove it: a keyword that nobody knows checks nothing".to_owned(),
            };
            return Err(self.wrong(&here, "is no keyword that params may use", hint));
        };
        if name == "$id" && !pointer.is_empty() {
            let hint = "name parts under `$defs`, and refer to them by `#/$defs/<name>`";
            return Err(self.wrong(&here, "gives a part of the schema a name of its own", hint));
        }
        let mut extent = Extent::default();
        for pointer in self.below(kind, here, value)? {
            let below = self.measure(&pointer, above.saturating_add(1))?;
            extent.schemas = extent.schemas.saturating_add(below.schemas);
            extent.depth = extent.depth.max(below.depth);
        }
        // Definitions count where they are referred to.
        Ok(if name == "$defs" { Extent::default() } else { extent })
    }

    /// Pointers of the schemas that a keyword's value holds or leads to.
    fn below(&self, kind: Kind, here: String, value: &Value) -> Result<Vec<String>, Fault> {
        Ok(match (kind, value) {
            (Kind::Plain, _) => Vec::new(),
            (Kind::Schema, _) => vec![here],
            (Kind::Schemas, Value::Array(items)) => {
                (0..items.len()).map(|at| format!("{here}/{at}")).collect()
            }
            (Kind::ByName, Value::Object(named)) => {
                named.keys().map(|key| format!("{here}/{}", escaped(key))).collect()
            }
            (Kind::Reference, Value::String(target)) => vec![self.target(&here, target)?],
            (Kind::Dialect, Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => {
                Vec::new()
            }
            (Kind::Dialect, _) => {
                let hint = format!("write `{DIALECT}`, or leave it out");
                return Err(self.wrong(&here, "is not JSON Schema 2020-12", hint));
            }
            (Kind::Schemas | Kind::ByName | Kind::Reference, _) => {
                return Err(self.wrong(&here, "is of the wrong type", "see JSON Schema 2020-12"));
            }
        })
    }

    /// The pointer that a reference leads to.
    fn target(&self, here: &str, target: &str) -> Result<String, Fault> {
        let hint = "refer to parts of the same file, by `#/$defs/<name>`";
        let Some(pointer) = target.strip_prefix('#').filter(|pointer| !pointer.contains('%'))
        else {
            return Err(self.wrong(here, "leads out of the file", hint));
        };
        let pointed = pointer.is_empty() || pointer.starts_with('/');
        if !pointed || self.root.pointer(pointer).is_none() {
            return Err(self.wrong(here, "leads nowhere", hint));
        }
        Ok(pointer.to_owned())
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
