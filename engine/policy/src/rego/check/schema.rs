//! What a JSON Schema says a value can be, as far as it says it plainly.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Wrong;
use crate::document::nearest;

/// Most references that are followed to one schema: a schema may refer to itself.
const MAX_FOLLOWED: usize = 16;
/// Most things that one value is looked at as: a schema may offer a choice at each step.
const MAX_FORMS: usize = 64;

/// One value of a document, as its schema describes it.
#[derive(Debug, Clone)]
pub(in crate::rego) struct Node<'a> {
    /// The document's whole schema, to which references point.
    pub(in crate::rego) root: &'a Json,
    pub(in crate::rego) schema: &'a Json,
    /// How an author would write it.
    pub(in crate::rego) path: String,
}

/// One thing that a value can be.
#[derive(Debug, Clone, Copy)]
pub(in crate::rego) enum Form<'a> {
    Null,
    Bool,
    Number,
    /// A text: one of these, where there is a list.
    Text(Option<&'a Json>),
    List(&'a Json),
    Fields(&'a Json),
}

/// What a step from a value leads to.
#[derive(Debug)]
pub(in crate::rego) enum Step<'a> {
    /// Anything, perhaps.
    Unknown,
    To(Vec<Node<'a>>),
    /// Nothing, ever: the fields that there are instead.
    Nowhere(BTreeSet<&'a str>),
}

impl Form<'_> {
    /// In the words of a message.
    pub(in crate::rego) fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Fields(_) => "an object",
        }
    }
}

impl<'a> Node<'a> {
    /// The value that a schema as a whole describes.
    pub(in crate::rego) fn root(schema: &'a Json, path: &str) -> Self {
        Self { root: schema, schema, path: path.to_owned() }
    }

    /// All that the value can be, if the schema says so.
    pub(in crate::rego) fn forms(&self) -> Option<Vec<Form<'a>>> {
        let mut forms = Vec::new();
        self.collect(self.schema, 0, &mut forms)?;
        (!forms.is_empty()).then_some(forms)
    }

    fn collect(&self, schema: &'a Json, followed: usize, forms: &mut Vec<Form<'a>>) -> Option<()> {
        let object = schema.as_object()?;
        let unclear = ["allOf", "$dynamicRef", "$recursiveRef", "not", "if"];
        if followed > MAX_FOLLOWED
            || forms.len() > MAX_FORMS
            || unclear.iter().any(|key| object.contains_key(*key))
        {
            return None;
        }
        if let Some(reference) = object.get("$ref") {
            let target = self.root.pointer(reference.as_str()?.strip_prefix('#')?)?;
            return self.collect(target, followed + 1, forms);
        }
        let options = object.get("anyOf").or_else(|| object.get("oneOf"));
        if let Some(options) = options {
            // What stands beside a choice narrows it in ways that are not looked at.
            if object.contains_key("type") || object.contains_key("properties") {
                return None;
            }
            return options
                .as_array()?
                .iter()
                .try_for_each(|option| self.collect(option, followed + 1, forms));
        }
        match object.get("type") {
            Some(Json::String(one)) => forms.push(form(one, schema)?),
            Some(Json::Array(all)) => {
                for one in all {
                    forms.push(form(one.as_str()?, schema)?);
                }
            }
            Some(_) => return None,
            None => {
                let listed = object.get("enum").and_then(Json::as_array);
                let values = listed.into_iter().flatten().chain(object.get("const"));
                for value in values {
                    forms.push(form(kind(value), schema)?);
                }
            }
        }
        Some(())
    }

    /// Where a field leads. Only what can never be there is nowhere.
    pub(in crate::rego) fn field(&self, name: &str) -> Step<'a> {
        let Some(forms) = self.forms() else { return Step::Unknown };
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        for form in forms {
            let Form::Fields(schema) = form else { continue };
            let properties = schema.get("properties").and_then(Json::as_object);
            let path = format!("{}.{name}", self.path);
            if let Some(next) = properties.and_then(|properties| properties.get(name)) {
                found.push(Node { root: self.root, schema: next, path });
                continue;
            }
            match schema.get("additionalProperties") {
                Some(Json::Bool(false)) if schema.get("patternProperties").is_none() => {}
                Some(next @ Json::Object(_)) if schema.get("patternProperties").is_none() => {
                    found.push(Node { root: self.root, schema: next, path });
                    continue;
                }
                Some(_) | None => return Step::Unknown,
            }
            known.extend(properties.into_iter().flatten().map(|(name, _)| name.as_str()));
        }
        if found.is_empty() { Step::Nowhere(known) } else { Step::To(found) }
    }

    /// The elements of a list, if it is one.
    pub(in crate::rego) fn items(&self) -> Option<Vec<Node<'a>>> {
        let forms = self.forms()?.into_iter();
        let items: Option<Vec<_>> = forms
            .filter(|form| !matches!(form, Form::Null))
            .map(|form| {
                let Form::List(schema) = form else { return None };
                if schema.get("prefixItems").is_some() {
                    return None;
                }
                let path = format!("{}[_]", self.path);
                Some(Node { root: self.root, schema: schema.get("items")?, path })
            })
            .collect();
        items.filter(|items| !items.is_empty())
    }
}

fn form<'a>(kind: &str, schema: &'a Json) -> Option<Form<'a>> {
    Some(match kind {
        "null" => Form::Null,
        "boolean" => Form::Bool,
        "integer" | "number" => Form::Number,
        "string" => Form::Text(schema.get("enum").or_else(|| schema.get("const"))),
        "array" => Form::List(schema),
        "object" => Form::Fields(schema),
        _ => return None,
    })
}

/// The JSON Schema's word for what a value is.
fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// The texts that a list of allowed values names; `None` if anything is allowed.
pub(in crate::rego) fn texts<'a>(forms: &[Form<'a>]) -> Option<BTreeSet<&'a str>> {
    let mut texts = BTreeSet::new();
    for form in forms {
        let Form::Text(allowed) = form else { continue };
        let allowed = allowed.as_ref()?;
        match allowed.as_array() {
            Some(items) => texts.extend(items.iter().filter_map(Json::as_str)),
            None => texts.extend(allowed.as_str()),
        }
    }
    Some(texts)
}

/// What is known of a value.
#[derive(Debug, Clone)]
pub(in crate::rego) enum Type<'a> {
    Unknown,
    /// One of these.
    Of(Vec<Node<'a>>),
    /// A list or a set of such elements, made by the policy itself.
    Made(Box<Type<'a>>),
}

/// Where a field of any of these leads.
pub(super) fn step<'a>(nodes: &[Node<'a>], name: &str) -> Result<Type<'a>, Wrong> {
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    for node in nodes {
        match node.field(name) {
            Step::Unknown => return Ok(Type::Unknown),
            Step::To(next) => found.extend(next),
            Step::Nowhere(fields) => known.extend(fields),
        }
    }
    if !found.is_empty() {
        return Ok(Type::Of(found));
    }
    let of = nodes.first().map_or("input", |node| node.path.as_str());
    let message = format!("`{of}` has no field `{name}`");
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if of == "data.params" => {
            format!("set it in the manifest, or ask by `object.get(data.params, \"{name}\", ...)`")
        }
        None => "see the schema for its fields".into(),
    };
    Err(Wrong::new(message, hint).meant(name, known))
}

/// What the elements of a list can be.
pub(in crate::rego) fn elements<'a>(of: &Type<'a>) -> Type<'a> {
    match of {
        Type::Unknown => Type::Unknown,
        Type::Made(element) => element.as_ref().clone(),
        Type::Of(nodes) => {
            let items: Option<Vec<_>> = nodes.iter().map(Node::items).collect();
            items.map_or(Type::Unknown, |items| Type::Of(items.into_iter().flatten().collect()))
        }
    }
}
