//! What a bundle's policies can do, for those who answer for it: owners, controls, params, codes,
//! obligations and claims, out of annotations, schemas and the manifest.

use placet_core::{Id, Level, Mode, SubjectKind};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::bundle::{Bundle, Entry, Language, Selector};
use crate::evaluate::PolicySet;
use crate::metadata::RuleMetadata;

/// Most values of an enumeration that are listed; longer ones are known by their name.
const MAX_VALUES: usize = 12;

/// Every policy of a bundle, by name. No digests and no times: the same content gives the same
/// catalogue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Catalogue {
    /// Sorted by name.
    pub policies: Vec<CatalogueEntry>,
}

/// What one policy can do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CatalogueEntry {
    /// Its name.
    pub name: Id,
    /// One line.
    pub title: Option<String>,
    /// What it is for, in sentences.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Controls that it implements as a whole.
    pub controls: Vec<String>,
    /// Whether its denial can be lifted.
    pub level: Level,
    /// Whether its verdict counts.
    pub mode: Mode,
    /// Kinds of subject that are not admitted without it: `lease`, `job`.
    pub required: Vec<&'static str>,
    /// Which requests it is asked about.
    pub select: Selector,
    /// What is evaluated.
    pub source: Source,
    /// The same policy in the other language, held equal by the cases.
    pub twin: Option<Source>,
    /// Its params, each below the one that it is part of.
    pub params: Vec<CatalogueParam>,
    /// Codes of its denials, warnings and refused claims, by code and line.
    pub codes: Vec<CatalogueItem>,
    /// Obligations that it may give, by id and line.
    pub obligations: Vec<CatalogueItem>,
    /// Accounts that it may claim from, by account and line.
    pub claims: Vec<CatalogueItem>,
    /// Whether it may give a rule by which others are displaced.
    pub preemption: bool,
}

/// A source of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Path in the bundle.
    pub path: String,
    /// What it is written in.
    pub language: Language,
}

impl Source {
    fn of(path: &str) -> Self {
        // The manifest's check let nothing else pass.
        let language = Language::of(path).unwrap_or(Language::Rego);
        Self { path: path.to_owned(), language }
    }
}

/// One param, or a part of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CatalogueParam {
    /// Where it is: `busy_hours[].from_hour`; `<name>` stands for any name.
    pub path: String,
    /// What it may be.
    pub shape: Shape,
    /// Whether it has to be there, where what it is part of is.
    pub required: bool,
    /// What its absence means; absent if the schema does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What this bundle sets; absent if it does not, and for parts of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// What it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// `integer`, `number`, `boolean`, `text`, `list`, `mapping`, or `any`.
    pub kind: &'static str,
    /// Of a text: what its definition in the schema is called, such as `jurisdiction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Least number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Value>,
    /// Greatest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Value>,
    /// The only values, if they are at most 12.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Of a list or a mapping of any names: what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<Box<Shape>>,
}

/// One thing that a rule may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogueItem {
    /// The code, the obligation's id, or the account with what varies in angle brackets.
    pub says: String,
    /// Of a code: `denial`, `warning`, or `claim` if the ledger gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// One line.
    pub title: Option<String>,
    /// When, in sentences.
    pub description: Option<String>,
    /// Controls that the rule implements.
    pub controls: Vec<String>,
}

impl Catalogue {
    /// The catalogue of a bundle that was compiled.
    #[must_use]
    pub fn of(bundle: &Bundle, set: &PolicySet) -> Self {
        let policies = &bundle.manifest().policies;
        let mut policies: Vec<_> = policies.iter().map(|it| entry(it, bundle, set)).collect();
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        Self { policies }
    }
}

fn entry(entry: &Entry, bundle: &Bundle, set: &PolicySet) -> CatalogueEntry {
    let said = set.metadata(entry.name.as_str()).cloned().unwrap_or_default();
    let required = [SubjectKind::Lease, SubjectKind::Job]
        .into_iter()
        .filter(|kind| bundle.required(*kind).contains(&entry.name))
        .map(SubjectKind::as_str);
    let schema = entry.params_schema.as_deref().and_then(|path| bundle.params_schema(path));
    let mut params = Vec::new();
    if let Some(root) = schema {
        let set = Value::Object(entry.params.clone());
        Walk { root, into: &mut params }.below(root, "", Some(&set));
    }
    CatalogueEntry {
        name: entry.name.clone(),
        title: said.policy.title,
        description: said.policy.description,
        owner: said.policy.owner,
        controls: said.policy.controls,
        level: entry.level,
        mode: entry.mode,
        required: required.collect(),
        select: entry.select.clone(),
        source: Source::of(&entry.source),
        twin: entry.twin.as_deref().map(Source::of),
        params,
        codes: items(&said.rules, |rule| rule.code.as_ref(), true),
        obligations: items(&said.rules, |rule| rule.obligation.as_ref(), false),
        claims: items(&said.rules, |rule| rule.account.as_ref(), false),
        preemption: set.may_displace(entry.name.as_str()),
    }
}

/// What the rules say of one kind, sorted.
fn items(
    rules: &[RuleMetadata],
    says: impl Fn(&RuleMetadata) -> Option<&String>,
    coded: bool,
) -> Vec<CatalogueItem> {
    let kind = |rule: &RuleMetadata| match rule.rule.as_str() {
        "warn" => "warning",
        "claims" => "claim",
        _ => "denial",
    };
    let mut items: Vec<_> = rules
        .iter()
        .filter_map(|rule| {
            Some(CatalogueItem {
                says: says(rule)?.clone(),
                kind: coded.then(|| kind(rule)),
                title: rule.title.clone(),
                description: rule.description.clone(),
                controls: rule.controls.clone(),
            })
        })
        .collect();
    // The order of the text is kept among equals.
    items.sort_by(|one, other| one.says.cmp(&other.says));
    items
}

/// Goes through a schema of params. It leads nowhere back to itself, which was checked at load.
struct Walk<'a> {
    root: &'a Value,
    into: &'a mut Vec<CatalogueParam>,
}

impl Walk<'_> {
    /// Adds what is below a schema; `set` is the value that it describes, where there is one.
    fn below(&mut self, schema: &Value, path: &str, set: Option<&Value>) {
        let schema = self.resolved(schema);
        let required = schema.get("required").and_then(Value::as_array);
        let required = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, inner) in properties.into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let value = set.and_then(|set| set.get(name));
            let said = self.resolved(inner);
            let meaning = said.get("description").and_then(Value::as_str).map(str::to_owned);
            self.into.push(CatalogueParam {
                path: path.clone(),
                shape: self.shape(inner),
                required: required(name),
                default: said.get("default").cloned(),
                value: value.cloned(),
                meaning,
            });
            self.below(inner, &path, value);
        }
        for (keyword, step) in [("items", "[]"), ("additionalProperties", ".<name>")] {
            if let Some(inner) = schema.get(keyword) {
                self.below(inner, &format!("{path}{step}"), None);
            }
        }
    }

    /// A schema with what it refers to; what stands beside a reference goes before it.
    fn resolved(&self, schema: &Value) -> Map<String, Value> {
        let mut whole = schema.as_object().cloned().unwrap_or_default();
        while let Some(reference) = whole.remove("$ref") {
            let target = reference.as_str().and_then(|it| it.strip_prefix('#'));
            let target = target.and_then(|pointer| self.root.pointer(pointer));
            for (keyword, value) in target.and_then(Value::as_object).into_iter().flatten() {
                whole.entry(keyword).or_insert_with(|| value.clone());
            }
        }
        whole
    }

    fn shape(&self, schema: &Value) -> Shape {
        let name = schema.get("$ref").and_then(Value::as_str);
        let name = name.and_then(|name| name.strip_prefix("#/$defs/"));
        let schema = self.resolved(schema);
        let values = schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("integer") => "integer",
            Some("number") => "number",
            Some("boolean") => "boolean",
            Some("string") => "text",
            Some("array") => "list",
            Some("object") => "mapping",
            Some(_) | None => "any",
        };
        let of = match kind {
            "list" => schema.get("items"),
            "mapping" => schema.get("additionalProperties").filter(|it| it.is_object()),
            _ => None,
        };
        Shape {
            kind,
            name: name.filter(|_| kind == "text").map(str::to_owned),
            minimum: schema.get("minimum").cloned(),
            maximum: schema.get("maximum").cloned(),
            values: if values.len() <= MAX_VALUES { values } else { Vec::new() },
            of: of.map(|of| Box::new(self.shape(of))),
        }
    }
}
