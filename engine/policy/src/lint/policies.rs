//! The policies of a bundle, and their tests.

use std::collections::{BTreeMap, BTreeSet};

use super::place::{Position, Text};
use super::{Fix, Found, Span, controls};
use crate::bundle::place::{Step, locate};
use crate::bundle::{Bundle, Entry, Language, MANIFEST};
use crate::document;
use crate::error::{Fault, LoadError};
use crate::evaluate;
use crate::metadata::PolicyMetadata;
use crate::rego::lint::{self, Look, Subject};
use crate::wasm::{WasmPolicy, WasmRuntime};

/// How a file of `test_` rules is known.
const TESTS: &str = "_test.rego";

/// What the policies of a bundle say, for those who look at its cases.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// Codes that stand in policies, by file, with their places.
    pub(super) told: Vec<(String, Span, String)>,
    /// Codes that policies or their annotations name.
    pub(super) known: BTreeSet<String>,
    /// Whether there may be codes that nobody can read: in a component, or put together.
    pub(super) open: bool,
    /// Texts in the files of tests.
    pub(super) tested: BTreeSet<String>,
}

/// Looks at every policy.
pub(super) fn check(
    files: &BTreeMap<String, Vec<u8>>,
    bundle: Option<&Bundle>,
    runtime: &WasmRuntime,
    found: &mut Found,
) -> Codes {
    let mut codes = Codes::default();
    let mut named = BTreeSet::new();
    let entries = bundle.map_or(&[][..], |bundle| bundle.manifest().policies.as_slice());
    for entry in entries {
        for source in std::iter::once(&entry.source).chain(&entry.twin) {
            named.insert(source.as_str());
            let Some(bytes) = files.get(source) else { continue };
            match Language::of(source) {
                Some(Language::Rego) => {
                    rego(source, bytes, bundle.zip(Some(entry)), &mut codes, found)
                }
                Some(Language::Wasm) => component(source, bytes, entry, runtime, found),
                None => {}
            }
        }
        let written = [Some(&entry.source), entry.twin.as_ref()].into_iter().flatten();
        codes.open |= written.into_iter().all(|it| Language::of(it) != Some(Language::Rego));
        if let (Some(Language::Wasm), Some(bundle)) = (Language::of(&entry.source), bundle) {
            described(bundle, entry, found);
        }
    }
    for (path, bytes) in files.iter().filter(|(path, _)| Language::of(path) == Some(Language::Rego))
    {
        if path.ends_with(TESTS) {
            tests(path, bytes, &mut codes, found);
        } else if bundle.is_none() {
            rego(path, bytes, None, &mut codes, found);
        } else if !named.contains(path.as_str()) {
            let message = "is the source of no policy of the manifest: nobody asks it".to_owned();
            let hint = "list it under `policies` of `bundle.yaml`, or remove it";
            found.warn("unlisted-file", path, None, message, hint);
        }
    }
    codes
}

fn rego(
    file: &str,
    bytes: &[u8],
    entry: Option<(&Bundle, &Entry)>,
    codes: &mut Codes,
    found: &mut Found,
) {
    let text = match document::text(bytes, file) {
        Ok(text) => text,
        Err(fault) => return found.fault(fault.of_rule("syntax"), ""),
    };
    let params = entry.map(|(_, entry)| evaluate::params(entry));
    let params = match params {
        Some(Err(fault)) => {
            found.fault(fault.of_rule("params"), "");
            None
        }
        Some(Ok(params)) => Some(params),
        None => None,
    };
    let given = entry.zip(params.as_deref()).map(|((bundle, entry), params)| lint::Entry {
        params,
        schema: entry.params_schema.as_deref().and_then(|path| bundle.params_schema(path)),
        kinds: &entry.select.kinds,
        ticks: entry.budget.ticks(),
    });
    let look = lint::look(Subject { file, text, entry: given });
    if let Some(((bundle, entry), wrong)) = entry.zip(look.wrong_params.clone())
        && let Err(fault) = bundle.refuse_params(entry, wrong)
    {
        let manifest = document::text(bundle.file(MANIFEST), MANIFEST).unwrap_or_default();
        found.fault(fault.of_rule("params"), manifest);
    }
    tell(file, text, look, codes, found);
}

/// Tells what was found in a text.
fn tell(file: &str, text: &str, look: Look, codes: &mut Codes, found: &mut Found) {
    for fault in look.faults {
        found.fault(fault, text);
    }
    let places = Text::of(text);
    for finding in look.findings {
        let span = Some(places.span(finding.bytes));
        let before = found.all.len();
        found.warn(finding.rule, file, span, finding.message, finding.hint);
        if let (Some((bytes, replacement)), Some(new)) = (finding.change, found.all.get_mut(before))
        {
            new.fix = Some(Fix { span: places.span(bytes), replacement });
        }
    }
    if let Some(metadata) = look.metadata {
        controls::check(file, text, &named(&metadata), found);
    }
    let Some(own) = look.codes else {
        codes.open = true;
        return;
    };
    codes.open |= own.open;
    for (code, bytes) in own.told {
        if bytes.1 > 0 {
            codes.told.push((file.to_owned(), places.span(bytes), code.clone()));
        }
        codes.known.insert(code);
    }
}

/// Every control that annotations name, once.
fn named(metadata: &PolicyMetadata) -> Vec<String> {
    let rules = metadata.rules.iter().flat_map(|rule| &rule.controls);
    let all: BTreeSet<&String> = metadata.policy.controls.iter().chain(rules).collect();
    all.into_iter().cloned().collect()
}

fn component(file: &str, bytes: &[u8], entry: &Entry, runtime: &WasmRuntime, found: &mut Found) {
    let Ok(params) = evaluate::params(entry) else { return };
    let (name, budget) = (entry.name.clone(), entry.budget.wasm());
    if let Err(error) = WasmPolicy::compile(runtime, name, file, bytes, params, budget) {
        let fault = if let LoadError::Invalid(fault) = error {
            *fault
        } else {
            Fault::new(file, error.to_string())
        };
        found.fault(fault.of_rule("component"), "");
    }
}

/// What the manifest says of a component, which cannot say it itself.
fn described(bundle: &Bundle, entry: &Entry, found: &mut Found) {
    let Ok(text) = document::text(bundle.file(MANIFEST), MANIFEST) else { return };
    let at = bundle.manifest().policies.iter().position(|other| other.name == entry.name);
    let place = |path: &[&str]| -> Option<Span> {
        let start = [Step::from("policies"), at?.into()];
        let steps: Vec<Step> =
            start.into_iter().chain(path.iter().map(|step| Step::from(*step))).collect();
        let (line, column) = locate(text, &steps)?;
        let start = Position { line, column };
        Some(Span { start, end: Position { column: column.saturating_add(1), ..start } })
    };
    let said = entry.metadata.clone().unwrap_or_default();
    let missing = [
        ("title", said.title.is_none()),
        ("description", said.description.is_none()),
        ("owner", said.owner.is_none()),
    ];
    let missing: Vec<_> = missing.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let message =
            format!("`metadata` of policy `{}` has no {}", entry.name, missing.join(", no "));
        let hint = "a component says nothing of itself: write it under `metadata`";
        found.warn("missing-metadata", MANIFEST, place(&["name"]), message, hint);
    }
    for control in &said.controls {
        if let Some((message, hint)) = controls::wrong(control) {
            let span = place(&["metadata", "controls"]);
            found.warn("unknown-control", MANIFEST, span, message, hint);
        }
    }
}

fn tests(file: &str, bytes: &[u8], codes: &mut Codes, found: &mut Found) {
    let read = document::text(bytes, file).map_err(|fault| fault.of_rule("syntax"));
    match read.and_then(|text| lint::texts(file, text)) {
        Ok(texts) => codes.tested.extend(texts),
        Err(fault) => found.fault(fault, document::text(bytes, file).unwrap_or_default()),
    }
}
