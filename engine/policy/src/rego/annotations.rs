//! `# METADATA` annotations: YAML in a block of comments above a package or a rule.
//!
//! The format is OPA's (its policy language reference, "Annotations"): a line `# METADATA`, then
//! YAML, each line a comment that begins in column 1, up to the first line that is no comment. The
//! block speaks of the statement that follows it. OPA leaves `custom` free; here `owner`,
//! `controls`, `code`, `obligation` and `account` of it have a meaning and a form.

use std::collections::BTreeMap;

use placet_core::{AccountPath, Code, Id, NameError};
use regorus::unstable::{Module, Span};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::check::refs;
use crate::document::{self, nearest};
use crate::error::Fault;
use crate::metadata::{Metadata, PolicyMetadata, RuleMetadata};

/// Largest block in bytes: a page of text.
const MAX_BLOCK_BYTES: usize = 16 << 10;
/// Most blocks of a policy: some rules have one each.
const MAX_BLOCKS: usize = 1_024;
/// Longest title in bytes: it stands in one line of a list.
const MAX_TITLE_BYTES: usize = 256;
/// Longest name of an owner in bytes.
const MAX_OWNER_BYTES: usize = 128;
/// Most controls of one block.
const MAX_CONTROLS: usize = 64;
/// Longest framework, and longest control, in bytes.
const MAX_CONTROL_BYTES: usize = 64;
/// What of `custom` is read here.
const CUSTOM: [&str; 5] = ["account", "code", "controls", "obligation", "owner"];

/// The keys that OPA documents. Those without a use here are only held to their type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    scope: Option<Scope>,
    title: Option<String>,
    description: Option<String>,
    #[serde(default)]
    custom: BTreeMap<String, Json>,
    #[serde(rename = "related_resources")]
    _related_resources: Option<Vec<Resource>>,
    #[serde(rename = "authors")]
    _authors: Option<Vec<Author>>,
    #[serde(rename = "organizations")]
    _organizations: Option<Vec<String>>,
    #[serde(rename = "schemas")]
    _schemas: Option<Vec<BTreeMap<String, IgnoredAny>>>,
    #[serde(rename = "entrypoint")]
    _entrypoint: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Rule,
    Document,
    Package,
    Subpackages,
}

/// A text, or the text under a name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Resource {
    Text(#[expect(dead_code, reason = "only its type is looked at")] String),
    Named(#[expect(dead_code, reason = "only its type is looked at")] ResourceFields),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceFields {
    #[serde(rename = "ref")]
    _reference: String,
    #[serde(rename = "description")]
    _description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Author {
    Text(#[expect(dead_code, reason = "only its type is looked at")] String),
    Named(#[expect(dead_code, reason = "only its type is looked at")] AuthorFields),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorFields {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "email")]
    _email: Option<String>,
}

/// Reads what the annotations of a module say.
///
/// # Errors
/// [`Fault`] with the place: a block is no YAML, has a key that OPA does not know or a value of
/// another type, names a control or a code that is none, or stands where it says nothing.
pub(super) fn read(module: &Module, source: &str, file: &str) -> Result<PolicyMetadata, Fault> {
    let statements = statements(module);
    let mut metadata = PolicyMetadata::default();
    let mut has_policy = false;
    for (count, text) in blocks(source, &statements, file)?.iter().enumerate() {
        if count >= MAX_BLOCKS {
            let message = format!("the policy has more than {MAX_BLOCKS} blocks of metadata");
            return Err(text.fault(file, text.line, message).hint("annotate fewer rules"));
        }
        let block = text.parse(file)?;
        let custom = text.custom(&block, file)?;
        let after = statements.iter().find(|statement| statement.line > text.line);
        match (after.map(|after| &after.kind), block.scope) {
            (Some(Kind::Package), None | Some(Scope::Package | Scope::Subpackages)) => {
                if std::mem::replace(&mut has_policy, true) {
                    let fault = text.fault(file, text.line, "the package has two blocks".into());
                    return Err(fault.hint("make them one"));
                }
                metadata.policy = Metadata {
                    title: block.title,
                    description: block.description,
                    owner: custom.owner,
                    controls: custom.controls,
                };
            }
            (Some(Kind::Rule(rule)), None | Some(Scope::Rule | Scope::Document)) => {
                metadata.rules.push(RuleMetadata {
                    rule: rule.clone(),
                    line: after.map_or(text.line, |after| after.line),
                    title: block.title,
                    description: block.description,
                    code: custom.code,
                    obligation: custom.obligation,
                    account: custom.account,
                    controls: custom.controls,
                });
            }
            (None | Some(Kind::Import), _) => {
                let message = "this metadata stands above no package and no rule".into();
                let fault = text.fault(file, text.line, message);
                return Err(fault.hint("move it directly above what it describes"));
            }
            (Some(Kind::Package | Kind::Rule(_)), Some(_)) => {
                let message = "its scope does not fit what follows".into();
                let fault = text.fault(file, text.line_of("scope"), message);
                return Err(fault.hint("a package has `package`, a rule has `rule` or `document`"));
            }
        }
    }
    Ok(metadata)
}

/// A statement of a module: what it is, and which bytes of the text it has.
struct Statement {
    kind: Kind,
    line: u32,
    start: u32,
    end: u32,
}

enum Kind {
    Package,
    Import,
    Rule(String),
}

fn statements(module: &Module) -> Vec<Statement> {
    let statement =
        |kind, span: &Span| Statement { kind, line: span.line, start: span.start, end: span.end };
    let mut all = vec![statement(Kind::Package, &module.package.span)];
    all.extend(module.imports.iter().map(|import| statement(Kind::Import, &import.span)));
    all.extend(module.policy.iter().map(|rule| {
        let refr = refs::defined(rule);
        let name = refs::path(refr).or_else(|| refs::root(refr)).unwrap_or_default();
        statement(Kind::Rule(name), rule.span())
    }));
    all.sort_by_key(|statement| statement.start);
    all
}

/// The text of a block.
struct Text {
    /// Line of its `# METADATA`.
    line: u32,
    /// What follows, with a blank in the place of each `#`: columns stay what they are.
    yaml: String,
}

/// Finds the blocks. A line inside a statement, such as in a raw text, is none.
fn blocks(source: &str, statements: &[Statement], file: &str) -> Result<Vec<Text>, Fault> {
    let mut blocks: Vec<Text> = Vec::new();
    let (mut offset, mut number, mut open) = (0_usize, 0_u32, false);
    for line in source.split_inclusive('\n') {
        number = number.saturating_add(1);
        let start = u32::try_from(offset).unwrap_or(u32::MAX);
        offset = offset.saturating_add(line.len());
        let inside = statements.iter().any(|it| (it.start..it.end).contains(&start));
        let Some(comment) = line.strip_prefix('#').filter(|_| !inside) else {
            open = false;
            let begun = line.trim_start().strip_prefix('#').map(str::trim);
            if begun == Some("METADATA") && !inside {
                let fault = Fault::new(file, "metadata does not begin in column 1");
                return Err(fault.at(number, None).hint("move its `#` to the left"));
            }
            continue;
        };
        match blocks.last_mut().filter(|_| open) {
            Some(block) => {
                block.yaml.push(' ');
                block.yaml.push_str(comment);
                if block.yaml.len() > MAX_BLOCK_BYTES {
                    let message = format!("the metadata has more than {MAX_BLOCK_BYTES} bytes");
                    let fault = Fault::new(file, message).at(number, None);
                    return Err(fault.hint("keep long texts elsewhere"));
                }
            }
            None if comment.trim() == "METADATA" => {
                open = true;
                blocks.push(Text { line: number, yaml: String::new() });
            }
            None if comment.trim().to_ascii_uppercase().trim_end_matches(':') == "METADATA" => {
                let fault = Fault::new(file, "metadata begins with `# METADATA`");
                return Err(fault.at(number, None).hint("write it so, in capitals, alone"));
            }
            None => {}
        }
    }
    Ok(blocks)
}

/// What is read of `custom`.
#[derive(Default)]
struct Custom {
    owner: Option<String>,
    controls: Vec<String>,
    code: Option<String>,
    obligation: Option<String>,
    account: Option<String>,
}

impl Text {
    fn fault(&self, file: &str, line: u32, message: String) -> Fault {
        Fault::new(file, message).at(line, Some(1))
    }

    /// The line on which a word first stands.
    fn line_of(&self, word: &str) -> u32 {
        self.place(word).0
    }

    fn place(&self, word: &str) -> (u32, u32) {
        let found = self.yaml.lines().zip(1_u32..).find_map(|(line, number)| {
            let column = u32::try_from(line.find(word)?).ok()?;
            Some((self.line.saturating_add(number), column.saturating_add(1)))
        });
        found.unwrap_or((self.line, 1))
    }

    fn wrong(&self, file: &str, word: &str, message: String) -> Fault {
        let (line, column) = self.place(word);
        Fault::new(file, message).at(line, Some(column))
    }

    fn parse(&self, file: &str) -> Result<Block, Fault> {
        if self.yaml.trim().is_empty() {
            let fault = self.fault(file, self.line, "the metadata is empty".into());
            return Err(fault.hint("write `# title: ...` below, or remove it"));
        }
        document::parse::<Block>(&self.yaml, file).map_err(|mut fault| {
            fault.line = Some(self.line.saturating_add(fault.line.unwrap_or(0)));
            if fault.hint.is_none() {
                fault.hint = Some("the comment below `# METADATA` is YAML".into());
            }
            fault
        })
    }

    fn custom(&self, block: &Block, file: &str) -> Result<Custom, Fault> {
        let mut custom = Custom::default();
        if let Some(title) = &block.title {
            self.line_of_text(file, "title", title, MAX_TITLE_BYTES)?;
        }
        for (key, value) in &block.custom {
            match key.as_str() {
                "owner" => {
                    let owner = self.text(file, key, value)?;
                    self.line_of_text(file, key, owner, MAX_OWNER_BYTES)?;
                    custom.owner = Some(owner.to_owned());
                }
                "code" => {
                    let code = self.text(file, key, value)?;
                    if let Err(error) = Code::new(code) {
                        let fault = self.wrong(file, code, format!("`{code}` is no code: {error}"));
                        return Err(fault.hint("a code is such as `QUOTA_EXCEEDED`"));
                    }
                    custom.code = Some(code.to_owned());
                }
                "obligation" => {
                    let id = self.text(file, key, value)?;
                    if let Err(error) = Id::new(id) {
                        let fault = self.wrong(file, key, format!("`{id}` is no id: {error}"));
                        return Err(fault.hint("an obligation is such as `network.partition`"));
                    }
                    custom.obligation = Some(id.to_owned());
                }
                "account" => {
                    let account = self.text(file, key, value)?;
                    if let Err(error) = account_pattern(account) {
                        let message = format!("`{account}` is no account: {error}");
                        let hint = "write what varies in angle brackets: `tenant/<tenant>/gpu`";
                        return Err(self.wrong(file, key, message).hint(hint));
                    }
                    custom.account = Some(account.to_owned());
                }
                "controls" => custom.controls = self.controls(file, value)?,
                _ => {
                    if let Some(near) = nearest(key, CUSTOM) {
                        let fault = self.wrong(file, key, format!("unknown field `custom.{key}`"));
                        return Err(fault.hint(format!("did you mean `{near}`?")));
                    }
                }
            }
        }
        Ok(custom)
    }

    fn text<'v>(&self, file: &str, key: &str, value: &'v Json) -> Result<&'v str, Fault> {
        value.as_str().ok_or_else(|| {
            let fault = self.wrong(file, key, format!("`custom.{key}` is not a text"));
            fault.hint("put it in quotes")
        })
    }

    fn line_of_text(&self, file: &str, key: &str, text: &str, max: usize) -> Result<(), Fault> {
        if text.trim().is_empty() || text.len() > max || text.contains(char::is_control) {
            let message = format!("`{key}` is not one line of 1 to {max} bytes");
            return Err(self.wrong(file, key, message).hint("keep it short"));
        }
        Ok(())
    }

    fn controls(&self, file: &str, value: &Json) -> Result<Vec<String>, Fault> {
        let Some(items) = value.as_array().filter(|items| items.len() <= MAX_CONTROLS) else {
            let message = format!("`custom.controls` is not a list of at most {MAX_CONTROLS}");
            let fault = self.wrong(file, "controls", message);
            return Err(fault.hint("write it as [\"SOC2:CC6.1\"]"));
        };
        let control = |item: &Json| {
            let text = item.as_str().unwrap_or_default();
            if is_control(text) {
                return Ok(text.to_owned());
            }
            let word = if text.is_empty() { "controls" } else { text };
            let fault = self.wrong(file, word, format!("`{item}` is no control"));
            Err(fault.hint("a control is `<framework>:<control>`, such as `SOC2:CC6.1`"))
        };
        items.iter().map(control).collect()
    }
}

/// Checks the path of an account in which a whole segment may stand in angle brackets.
fn account_pattern(text: &str) -> Result<(), NameError> {
    let segment = |segment: &str| {
        let inner = segment.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        inner.unwrap_or(segment).to_owned()
    };
    let plain: Vec<String> = text.split('/').map(segment).collect();
    AccountPath::new(plain.join("/")).map(|_| ())
}

/// Whether a text names a control: `SOC2:CC6.1`, `ISO27001:A.5.23`, `NIST-800-53:AC-2(1)`.
fn is_control(text: &str) -> bool {
    let Some((framework, control)) = text.split_once(':') else { return false };
    let of = |text: &str, more: &str| {
        let mut chars = text.chars();
        text.len() <= MAX_CONTROL_BYTES
            && chars.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && chars.all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let named = !framework.contains(|c: char| c.is_ascii_lowercase());
    named && of(framework, "-_.") && of(control, "-_.()/")
}

#[cfg(test)]
mod tests;
