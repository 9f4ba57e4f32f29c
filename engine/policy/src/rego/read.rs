//! From the documents that a Rego policy's rules give to an answer: strictly, and never an empty
//! list for what cannot be read.

use placet_core::{Cost, PriorityClass, SlaTerms};
use regorus::Value;
use regorus::value::Object;

use super::check::{APPLICABLE, Declared, PREEMPTION, TERMS};
use crate::answer::{
    Answer, MAX_ANSWER_BYTES, MAX_PROTECTED, MAX_REASONS, RawClaim, RawDecided, RawDenial,
    RawObligation, RawRule, RawWarning,
};

/// Most entries of one rule that are looked at; the exact limits are those of answers.
const MAX_ENTRIES: usize = 4 * MAX_REASONS;

/// Reads the answer out of the document of all packages.
pub(super) fn answer(package: &[String], declared: &Declared, data: &Value, cost: Cost) -> Answer {
    let mut here = Some(data);
    for segment in package {
        let object = here.and_then(|value| value.as_object().ok());
        here = object.and_then(|object| object.get(&Value::from(segment.as_str())));
    }
    let Some(Ok(rules)) = here.map(Value::as_object) else {
        return Answer::indeterminate("the package is undefined", cost);
    };
    match decided(declared, rules) {
        Ok(Some(raw)) => Answer::decided(raw, cost),
        Ok(None) => Answer::not_applicable(cost),
        Err(error) => Answer::indeterminate(&error, cost),
    }
}

fn decided(declared: &Declared, rules: &Object) -> Result<Option<RawDecided>, String> {
    match rules.get(&Value::from(APPLICABLE)) {
        Some(Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true) | Value::Undefined) | None => {}
        Some(_) => return Err(format!("`{APPLICABLE}` is neither true nor false")),
    }
    let mut raw = RawDecided::default();
    for rule in &declared.sets {
        let Some(Value::Set(entries)) = rules.get(&Value::from(*rule)) else {
            return Err(format!("`{rule}` is not a set"));
        };
        if entries.len() > MAX_ENTRIES {
            return Err(format!("`{rule}` has more than {MAX_ENTRIES} entries"));
        }
        for entry in entries.iter() {
            let fields = Fields { rule, fields: object(rule, entry)? };
            match *rule {
                "deny" => raw.denials.push(denial(&fields)?),
                "warn" => raw.warnings.push(warning(&fields)?),
                "obligations" => raw.obligations.push(obligation(&fields)?),
                _ => raw.claims.push(claim(&fields)?),
            }
        }
    }
    raw.preemption = match rules.get(&Value::from(PREEMPTION)) {
        Some(Value::Undefined) | None => None,
        Some(value) => Some(preemption(value)?),
    };
    raw.terms = match rules.get(&Value::from(TERMS)) {
        Some(Value::Undefined) | None => None,
        Some(value) => Some(terms(value)?),
    };
    Ok(Some(raw))
}

fn denial(entry: &Fields<'_>) -> Result<RawDenial, String> {
    entry.only(&["code", "field", "hint", "message", "retry"])?;
    let retry = match entry.get("retry") {
        None => false,
        Some(Value::Bool(retry)) => *retry,
        Some(_) => return Err(entry.wrong("retry", "neither true nor false")),
    };
    Ok(RawDenial {
        code: entry.text("code")?,
        message: entry.text("message")?,
        field: entry.optional_text("field")?,
        hint: entry.optional_text("hint")?,
        retry,
    })
}

fn warning(entry: &Fields<'_>) -> Result<RawWarning, String> {
    entry.only(&["code", "message"])?;
    Ok(RawWarning { code: entry.text("code")?, message: entry.text("message")? })
}

fn obligation(entry: &Fields<'_>) -> Result<RawObligation, String> {
    entry.only(&["id", "params"])?;
    let id = entry.text("id")?;
    let mut params = Vec::new();
    if let Some(value) = entry.get("params") {
        let Value::Object(object) = value else {
            return Err(entry.wrong("params", "not an object"));
        };
        if object.len() > MAX_ENTRIES {
            return Err(entry.wrong("params", "too large"));
        }
        for (name, value) in object.iter_sorted() {
            let (Value::String(name), Value::String(value)) = (name, value) else {
                return Err(entry.wrong("params", "not an object of strings"));
            };
            params.push((bounded(name)?, bounded(value)?));
        }
    }
    Ok(RawObligation { id, params })
}

fn claim(entry: &Fields<'_>) -> Result<RawClaim, String> {
    entry.only(&["account", "amount", "code", "limit"])?;
    Ok(RawClaim {
        account: entry.text("account")?,
        amount: entry.number("amount")?,
        limit: entry.get("limit").map(|_| entry.number("limit")).transpose()?,
        code: entry.optional_text("code")?,
    })
}

fn terms(value: &Value) -> Result<SlaTerms, String> {
    let entry = Fields { rule: TERMS, fields: object(TERMS, value)? };
    entry.only(&["min_runtime_seconds", "notice_seconds"])?;
    Ok(SlaTerms {
        min_runtime_seconds: entry.small("min_runtime_seconds")?,
        notice_seconds: entry.small("notice_seconds")?,
    })
}

fn preemption(value: &Value) -> Result<RawRule, String> {
    let entry = Fields { rule: PREEMPTION, fields: object(PREEMPTION, value)? };
    entry.only(&[
        "cool_down_seconds",
        "grace_seconds",
        "max_victims",
        "max_victims_per_tenant",
        "min_runtime_seconds",
        "protected_tenants",
        "victim_classes",
    ])?;
    let optional = |name: &str| entry.get(name).map(|_| entry.small(name)).transpose();
    let wrong = || entry.wrong("victim_classes", "not a list of priority classes");
    let items = entry.list("victim_classes", MAX_ENTRIES).ok_or_else(wrong)?;
    let classes = items.into_iter().map(|item| match item.as_string().map(AsRef::as_ref) {
        Ok("INTERNAL_RESEARCH") => Ok(PriorityClass::InternalResearch),
        Ok("EXTERNAL_COMMERCIAL") => Ok(PriorityClass::ExternalCommercial),
        Ok(_) | Err(_) => Err(wrong()),
    });
    let victim_classes = classes.collect::<Result<_, _>>()?;
    let wrong = || entry.wrong("protected_tenants", "not a list of texts, or too long");
    let protected = match entry.get("protected_tenants") {
        None => Vec::new(),
        Some(_) => entry.list("protected_tenants", 2 * MAX_PROTECTED).ok_or_else(wrong)?,
    };
    let text = |item: &Value| {
        let text = item.as_string().map_err(|_error| wrong())?;
        bounded(text)
    };
    Ok(RawRule {
        cool_down_seconds: optional("cool_down_seconds")?.unwrap_or(0),
        grace_seconds: entry.small("grace_seconds")?,
        max_victims: entry.small("max_victims")?,
        max_victims_per_tenant: optional("max_victims_per_tenant")?,
        min_runtime_seconds: entry.small("min_runtime_seconds")?,
        protected_tenants: protected.into_iter().map(text).collect::<Result<_, _>>()?,
        victim_classes,
    })
}

fn object<'a>(rule: &str, value: &'a Value) -> Result<&'a Object, String> {
    value.as_object().map_err(|_error| format!("an entry of `{rule}` is not an object"))
}

fn bounded(text: &str) -> Result<String, String> {
    if text.len() > MAX_ANSWER_BYTES {
        return Err(format!("a text of the answer has more than {MAX_ANSWER_BYTES} bytes"));
    }
    Ok(text.to_owned())
}

/// The fields of one entry of a rule.
struct Fields<'a> {
    rule: &'a str,
    fields: &'a Object,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(&Value::from(name))
    }

    fn wrong(&self, name: &str, what: &str) -> String {
        format!("`{name}` in an entry of `{}` is {what}", self.rule)
    }

    fn only(&self, names: &[&str]) -> Result<(), String> {
        for (key, _) in self.fields.iter_sorted() {
            let Value::String(name) = key else {
                return Err(format!("an entry of `{}` has a key that is no text", self.rule));
            };
            if !names.contains(&name.as_ref()) {
                let near = crate::document::nearest(name, names.iter().copied());
                let hint = near.map(|near| format!(", did you mean `{near}`?"));
                let (name, hint) = (bounded(name)?, hint.unwrap_or_default());
                return Err(format!("`{}` has no field `{name}`{hint}", self.rule));
            }
        }
        Ok(())
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => bounded(text).map(Some),
            Some(_) => Err(self.wrong(name, "not a text")),
        }
    }

    fn text(&self, name: &str) -> Result<String, String> {
        self.optional_text(name)?.ok_or_else(|| self.wrong(name, "missing"))
    }

    /// The members of a list or a set; `None` if it is neither, or longer.
    fn list(&self, name: &str, most: usize) -> Option<Vec<&Value>> {
        match self.get(name) {
            Some(Value::Array(items)) if items.len() <= most => Some(items.iter().collect()),
            Some(Value::Set(items)) if items.len() <= most => Some(items.iter().collect()),
            Some(_) | None => None,
        }
    }

    fn small(&self, name: &str) -> Result<u32, String> {
        u32::try_from(self.number(name)?).map_err(|_too_large| self.wrong(name, "too large"))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        match self.get(name) {
            None => Err(self.wrong(name, "missing")),
            Some(Value::Number(number)) if number.is_integer() => {
                number.as_u64().ok_or_else(|| self.wrong(name, "out of range"))
            }
            Some(_) => Err(self.wrong(name, "not a whole number")),
        }
    }
}
