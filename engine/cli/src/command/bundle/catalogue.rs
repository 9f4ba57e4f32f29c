//! `placet bundle catalogue`: what the policies of a bundle can do, as a page for people.

use std::path::PathBuf;

use clap::Args;
use placet_policy::bundle::Language;
use placet_policy::catalogue::{
    Catalogue, CatalogueEntry, CatalogueItem, CatalogueParam, Shape, Source,
};
use placet_policy::{PolicySet, WasmRuntime};
use serde_json::Value;

use super::{invalid, is_inside, load, replace, selects};
use crate::exit::{Exit, Failure};
use crate::print::{Printer, plain};

/// Longest value of a param that is written out: longer ones are counted.
const MAX_VALUE_BYTES: usize = 160;
/// Columns of a line of text outside of tables.
const WIDTH: usize = 100;

const EXAMPLES: &str = "\
Taken from the annotations of the policies, the schemas of their params and the
manifest; the same content gives the same page. A policy that is only a
component says nothing of its codes, obligations and claims.

Examples:
  placet bundle catalogue policies/reference
  placet bundle catalogue policies/reference --output policies/catalogue.md
  placet bundle catalogue policies/reference --format json";

/// Write the page of what the policies can do: owners, controls, params, codes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CatalogueArgs {
    /// The bundle: a directory, or an archive of one
    #[arg(value_name = "PATH")]
    bundle: PathBuf,
    /// Where to write it; a file that is there is replaced [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &CatalogueArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    if let Some(output) = args.output.as_ref().filter(|output| is_inside(output, &args.bundle)) {
        let shown = output.display();
        return Err(Failure::usage(format!("`{shown}` would become a part of the bundle itself"))
            .hint("write the page outside of the bundle's directory"));
    }
    let bundle = load(&args.bundle)?;
    let runtime = WasmRuntime::new().map_err(|error| invalid(&error))?;
    let set = PolicySet::compile(&bundle, &runtime).map_err(|error| invalid(&error))?;
    let catalogue = Catalogue::of(&bundle, &set);
    let text = match printer.json() {
        true => serde_json::to_string(&catalogue)
            .map_err(|error| Failure::new(format!("cannot write the catalogue: {error}")))?,
        false => page(&catalogue),
    };
    match &args.output {
        Some(output) => {
            replace(output, format!("{}\n", text.trim_end()).as_bytes())?;
            let (shown, count) = (output.display(), catalogue.policies.len());
            printer.note(&format!("wrote {shown}: {count} policies"));
        }
        None => printer.data(text.trim_end())?,
    }
    Ok(Exit::Done)
}

fn page(catalogue: &Catalogue) -> String {
    let mut page = Page(String::from("# Catalogue of policies\n\n"));
    page.text("Made by `placet bundle catalogue`; not to be edited.");
    page.table(
        &["policy", "what", "owner", "level", "mode", "needed by", "written in"],
        catalogue.policies.iter().map(|entry| {
            let languages = [Some(&entry.source), entry.twin.as_ref()];
            let languages = languages.into_iter().flatten().map(|it| language(it.language));
            vec![
                format!("[{0}](#{1})", entry.name, anchor(entry)),
                escaped(entry.title.as_deref().unwrap_or_default()),
                escaped(entry.owner.as_deref().unwrap_or("nobody")),
                word(&entry.level),
                word(&entry.mode),
                entry.required.join(", "),
                languages.collect::<Vec<_>>().join(", "),
            ]
        }),
    );
    for entry in &catalogue.policies {
        policy(&mut page, entry);
    }
    page.0
}

/// The heading's name in a link, as GitHub makes it.
fn anchor(entry: &CatalogueEntry) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    entry.name.as_str().to_ascii_lowercase().chars().filter(|c| kept(*c)).collect()
}

fn policy(page: &mut Page, entry: &CatalogueEntry) {
    page.0.push_str(&format!("## {}\n\n", entry.name));
    if let Some(title) = &entry.title {
        page.text(&format!("**{}.**", escaped(title)));
    }
    if let Some(description) = &entry.description {
        page.text(&escaped(description));
    }
    let source = |it: &Source| format!("{}, {}", quoted(&it.path), language(it.language));
    let needed = match entry.required.as_slice() {
        [] => "nothing".to_owned(),
        kinds => kinds.join(", "),
    };
    let mut rows = vec![
        vec!["owner".into(), escaped(entry.owner.as_deref().unwrap_or("nobody"))],
        vec!["controls".into(), escaped(&entry.controls.join(", "))],
        vec!["level, mode".into(), format!("{}, {}", word(&entry.level), word(&entry.mode))],
        vec!["needed by".into(), needed],
        vec!["asked about".into(), escaped(&selects(&entry.select))],
        vec!["source".into(), source(&entry.source)],
    ];
    let twin = entry.twin.as_ref().map_or_else(|| "none".to_owned(), source);
    rows.push(vec!["twin".into(), twin]);
    let may = if entry.preemption { "may say whom" } else { "never" };
    rows.push(vec!["displaces others".into(), may.to_owned()]);
    page.table(&["", ""], rows);
    page.table(
        &["param", "is", "in this bundle", "meaning"],
        entry.params.iter().map(|param| {
            let optional = if param.required { "" } else { ", optional" };
            vec![
                quoted(&param.path),
                format!("{}{optional}", shape(&param.shape)),
                value(param),
                escaped(param.meaning.as_deref().unwrap_or_default()),
            ]
        }),
    );
    let row = |item: &CatalogueItem| {
        let mut row = vec![quoted(&item.says)];
        row.extend(item.kind.map(|kind| match kind {
            "claim" => "denial, by the ledger".to_owned(),
            kind => kind.to_owned(),
        }));
        let texts = [&item.title, &item.description].into_iter().flatten();
        let texts: Vec<_> = texts.map(|text| sentence(&escaped(text))).collect();
        row.extend([texts.join(" "), escaped(&item.controls.join(", "))]);
        row
    };
    page.table(&["code", "is a", "when", "controls"], entry.codes.iter().map(row));
    page.table(&["obligation", "what", "controls"], entry.obligations.iter().map(row));
    page.table(&["claims from", "what", "controls"], entry.claims.iter().map(row));
}

/// A page of Markdown.
struct Page(String);

impl Page {
    /// A paragraph, broken into lines.
    fn text(&mut self, text: &str) {
        let mut column = 0;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > WIDTH {
                self.0.push('\n');
                column = 0;
            } else if column > 0 {
                self.0.push(' ');
                column += 1;
            }
            self.0.push_str(word);
            column += length;
        }
        self.0.push_str("\n\n");
    }

    /// A table, unless it has no rows.
    fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        self.0.push_str(&format!("| {} |\n|{}\n", header.join(" | "), "---|".repeat(header.len())));
        for row in rows {
            self.0.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        self.0.push('\n');
    }
}

/// One line in which nothing of Markdown's tables or of HTML is left.
fn escaped(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut escaped = String::with_capacity(line.len());
    let mut code = false;
    for c in plain(&line).chars() {
        code ^= c == '`';
        if c == '|' || !code && matches!(c, '\\' | '*' | '[') {
            escaped.push('\\');
        }
        match c {
            '<' if !code => escaped.push_str("&lt;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', ':']) { text.to_owned() } else { format!("{text}.") }
}

fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn language(language: Language) -> &'static str {
    match language {
        Language::Rego => "Rego",
        Language::Wasm => "WebAssembly",
    }
}

fn shape(shape: &Shape) -> String {
    if !shape.values.is_empty() {
        let values: Vec<_> = shape.values.iter().map(shown).collect();
        return values.join(" or ");
    }
    if let Some(of) = &shape.of {
        return format!("{} of {}", shape.kind, self::shape(of));
    }
    let name = shape.name.as_ref().map(|name| format!(" ({})", escaped(name)));
    let range = match (&shape.minimum, &shape.maximum) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        (None, None) => String::new(),
    };
    format!("{}{}{range}", shape.kind, name.unwrap_or_default())
}

/// What a param is set to; of parts of lists nothing.
fn value(param: &CatalogueParam) -> String {
    match (&param.value, &param.default) {
        (Some(Value::Array(items)), _) if shown(&param.value).len() > MAX_VALUE_BYTES => {
            format!("{} entries", items.len())
        }
        (Some(Value::Object(fields)), _) if shown(&param.value).len() > MAX_VALUE_BYTES => {
            format!("{} entries", fields.len())
        }
        (Some(value), _) => shown(value),
        (None, _) if param.path.contains("[]") || param.path.contains('<') => String::new(),
        (None, Some(default)) => format!("absent: {}", shown(default)),
        (None, None) => "absent".to_owned(),
    }
}

fn shown(value: &impl serde::Serialize) -> String {
    quoted(&serde_json::to_string(value).unwrap_or_default())
}

/// Code, in which only the bars of tables mean something.
fn quoted(text: &str) -> String {
    format!("`{}`", plain(text).replace('|', "\\|"))
}
