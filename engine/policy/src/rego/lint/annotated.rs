//! What annotations have to say and do not, and the codes that a policy gives.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Rule};

use super::super::check::refs::{self, text};
use super::super::check::walk::{self, Visit};
use super::context::{Context, extent};
use super::{Codes, Finding};
use crate::metadata::RuleMetadata;

const RULE: &str = "missing-metadata";

pub(super) fn find(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    // What cannot be read is told of as such.
    let Some(metadata) = context.metadata else { return };
    let missing = [
        ("title", metadata.policy.title.is_none()),
        ("description", metadata.policy.description.is_none()),
        ("custom.owner", metadata.policy.owner.is_none()),
    ];
    let missing: Vec<_> = missing.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let span = &context.module.package.span;
        let message = format!("the package's metadata has no {}", missing.join(", no "));
        let hint = "write it in a block `# METADATA` above `package`";
        found.push(Finding::new(RULE, (span.start, span.end), message, hint));
    }
    for (set, rule) in context.set_rules() {
        let line = rule.span().line;
        let said = metadata.rules.iter().find(|it| it.line == line);
        of_rule(set, rule, said, found);
    }
}

fn of_rule(set: &str, rule: &Rule, said: Option<&RuleMetadata>, found: &mut Vec<Finding>) {
    let defined = refs::defined(rule).span();
    let here = (defined.start, defined.end);
    if said.is_none_or(|said| said.title.is_none()) {
        let message = format!("this rule of `{set}` has no title");
        let hint = "write `# title: ...` in a block `# METADATA` above the rule";
        found.push(Finding::new(RULE, here, message, hint));
        return;
    }
    let (key, custom) = match set {
        "deny" | "warn" => ("code", said.and_then(|said| said.code.as_ref())),
        "obligations" => ("id", said.and_then(|said| said.obligation.as_ref())),
        _ => return,
    };
    let field = if key == "id" { "obligation" } else { "code" };
    let given = given(rule, key);
    for (name, bytes) in &given.told {
        if custom == Some(name) {
            continue;
        }
        let message = match custom {
            Some(other) => format!("the rule gives `{name}`, and its metadata says `{other}`"),
            None => format!("the rule gives `{name}`, which its metadata does not say"),
        };
        let hint = format!("write `{field}: {name}` under `custom` above the rule");
        found.push(Finding::new(RULE, *bytes, message, hint));
    }
}

/// What a module's denials and warnings are called.
pub(super) fn codes(context: &Context<'_, '_>) -> Codes {
    let mut codes = Codes::default();
    let mut seen = BTreeSet::new();
    let all = context.set_rules().filter(|(set, _)| matches!(*set, "deny" | "warn"));
    for (_, rule) in all {
        let given = given(rule, "code");
        codes.open |= given.open;
        let new = given.told.into_iter().filter(|(code, _)| seen.insert(code.clone()));
        codes.told.extend(new);
    }
    let declared = context.metadata.into_iter().flat_map(|it| &it.rules);
    let declared = declared.filter_map(|rule| rule.code.clone());
    // Where it stands is not known: it is only what may be expected.
    codes.told.extend(declared.filter(|code| seen.insert(code.clone())).map(|it| (it, (0, 0))));
    codes
}

/// The texts under a key of the entries that a rule gives.
fn given(rule: &Rule, key: &'static str) -> Codes {
    struct Entries {
        key: &'static str,
        codes: Codes,
    }
    impl<'m> Visit<'m> for Entries {
        fn expr(&mut self, expr: &'m Expr) {
            let Expr::Object { fields, .. } = expr else { return };
            for (_, _, value) in fields.iter().filter(|(_, name, _)| text(name) == Some(self.key)) {
                match text(value) {
                    Some(code) => self.codes.told.push((code.to_owned(), extent(value))),
                    None => self.codes.open = true,
                }
            }
        }
    }
    let mut entries = Entries { key, codes: Codes::default() };
    walk::rule(rule, &mut entries);
    entries.codes.open |= entries.codes.told.is_empty();
    entries.codes
}
