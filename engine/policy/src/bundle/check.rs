//! What a manifest must keep to beyond its form: that it fits the files beside it.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::{Id, Level, Mode, SubjectKind};
use serde_json::Value;

use super::manifest::{
    Budget, Entry, Language, MAX_POLICIES, MAX_WAIVABLE, Manifest, PARAMS_CODES,
};
use super::place::{Step, locate};
use super::{MANIFEST, MAX_MANIFEST_BYTES, params};
use crate::document;
use crate::error::Fault;
use crate::facts::MAX_REVISION_BYTES;
use crate::metadata::Metadata;
use crate::rego::MAX_TICKS;
use crate::wasm::{MAX_FUEL, MAX_MEMORY_BYTES};

/// Longest text of a policy's metadata in bytes: a page.
const MAX_METADATA_BYTES: usize = 4_096;
/// Most controls that a policy names: more than any framework has for one concern.
const MAX_CONTROLS: usize = 64;

/// A manifest with its text, in which faults have places.
pub(super) struct Checked<'a> {
    pub(super) text: &'a str,
    pub(super) files: &'a BTreeMap<String, Vec<u8>>,
}

/// The manifest of a bundle, checked against its files, and the schemas of params by path.
pub(super) fn manifest(
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<(Manifest, BTreeMap<String, Value>), Fault> {
    let (text, manifest) = read(files)?;
    let checked = Checked { text, files };
    checked.all(&manifest).into_iter().next().map_or(Ok(()), Err)?;
    let schemas = params::check(&manifest, &checked)?;
    Ok((manifest, schemas))
}

/// The manifest's text, and what it says.
fn read(files: &BTreeMap<String, Vec<u8>>) -> Result<(&str, Manifest), Fault> {
    let bytes = files.get(MANIFEST).map_or(&[][..], Vec::as_slice);
    if bytes.len() > MAX_MANIFEST_BYTES {
        let fault = Fault::new(MANIFEST, format!("has more than {MAX_MANIFEST_BYTES} bytes"));
        return Err(fault.hint("keep long tables of params in fewer, shorter values"));
    }
    let text = document::text(bytes, MANIFEST)?;
    let manifest = document::parse(text, MANIFEST)
        .map_err(|fault| or_hint(fault, "its format is that of `bundle.schema.json`"))?;
    Ok((text, manifest))
}

/// What a manifest says, and schemas of params by path.
type Read = (Manifest, BTreeMap<String, Value>);

/// All faults of a manifest, the first one of [`manifest`] among them, and the rules that they
/// break; and what it says with those schemas of params that can be used.
pub(super) fn survey(files: &BTreeMap<String, Vec<u8>>) -> (Option<Read>, Vec<Fault>) {
    let (text, manifest) = match read(files) {
        Ok(read) => read,
        Err(fault) => return (None, vec![fault.of_rule("manifest")]),
    };
    let checked = Checked { text, files };
    let all = checked.all(&manifest).into_iter();
    let mut faults: Vec<_> = all.map(|fault| fault.of_rule("manifest")).collect();
    let (schemas, wrong) = params::survey(&manifest, &checked);
    faults.extend(wrong.into_iter().map(|fault| {
        let rule = if fault.file == MANIFEST { "params" } else { "params-schema" };
        fault.of_rule(rule)
    }));
    (Some((manifest, schemas)), faults)
}

/// A fault with a remedy, its own if it has one.
pub(super) fn or_hint(fault: Fault, hint: &str) -> Fault {
    if fault.hint.is_some() { fault } else { fault.hint(hint) }
}

impl Checked<'_> {
    /// A fault at a place of the manifest.
    pub(super) fn wrong(&self, path: &[Step], message: impl Into<String>) -> Fault {
        let fault = Fault::new(MANIFEST, message);
        match locate(self.text, path) {
            Some((line, column)) => fault.at(line, Some(column)),
            None => fault,
        }
    }

    /// All that is wrong, at most one fault of each policy and of each that is required.
    fn all(&self, manifest: &Manifest) -> Vec<Fault> {
        let mut faults: Vec<_> = self.whole(manifest).err().into_iter().collect();
        // More policies than there may be are not looked at one by one.
        if manifest.policies.len() > MAX_POLICIES {
            return faults;
        }
        let mut names = BTreeSet::new();
        for (at, entry) in manifest.policies.iter().enumerate() {
            let entry = self.name(at, &entry.name, &mut names).and_then(|()| self.entry(at, entry));
            faults.extend(entry.err());
        }
        for kind in [SubjectKind::Lease, SubjectKind::Job] {
            for (at, name) in manifest.required.of(kind).iter().enumerate() {
                faults.extend(self.required(manifest, kind, at, name).err());
            }
        }
        faults
    }

    fn name<'n>(&self, at: usize, name: &'n Id, names: &mut BTreeSet<&'n Id>) -> Result<(), Fault> {
        let place = [Step::from("policies"), at.into(), "name".into()];
        if name.as_str() == "placet" {
            let fault = self.wrong(&place, "`placet` is the name of the engine itself");
            return Err(fault.hint("choose another"));
        }
        if !names.insert(name) {
            let fault = self.wrong(&place, format!("`{name}` is the name of two policies"));
            return Err(fault.hint("give each policy a name of its own"));
        }
        Ok(())
    }

    fn whole(&self, manifest: &Manifest) -> Result<(), Fault> {
        if manifest.revision.is_empty() || manifest.revision.len() > MAX_REVISION_BYTES {
            let message = format!("`revision` is not 1 to {MAX_REVISION_BYTES} bytes");
            let fault = self.wrong(&["revision".into()], message);
            return Err(fault.hint("name this state of the bundle, such as a date or a version"));
        }
        if manifest.revision.contains(char::is_control) {
            let fault = self.wrong(&["revision".into()], "`revision` has a control character");
            return Err(fault.hint("name this state of the bundle, such as a date or a version"));
        }
        if manifest.policies.is_empty() || manifest.policies.len() > MAX_POLICIES {
            let message = format!("`policies` does not have 1 to {MAX_POLICIES} entries");
            let fault = self.wrong(&["policies".into()], message);
            return Err(fault.hint("a bundle without policies admits nothing"));
        }
        Ok(())
    }

    fn entry(&self, at: usize, entry: &Entry) -> Result<(), Fault> {
        let language = self.source(at, entry, "source", &entry.source)?;
        let twin = match &entry.twin {
            Some(twin) => Some(self.source(at, entry, "twin", twin)?),
            None => None,
        };
        self.budget(at, entry, &[Some(language), twin])?;
        self.waivable(at, entry)?;
        let place = || [Step::from("policies"), at.into(), "metadata".into()];
        let Some(metadata) = &entry.metadata else { return Ok(()) };
        if language == Language::Rego {
            let message = format!("`metadata` of policy `{}` stands beside Rego", entry.name);
            let hint = "write it as `# METADATA` above the policy's package";
            return Err(self.wrong(&place(), message).hint(hint));
        }
        if let Some((field, hint)) = metadata_fault(metadata) {
            let mut path = place().to_vec();
            path.push(field.into());
            let message = format!("`metadata.{field}` of policy `{}` is not usable", entry.name);
            return Err(self.wrong(&path, message).hint(hint));
        }
        Ok(())
    }

    fn waivable(&self, at: usize, entry: &Entry) -> Result<(), Fault> {
        let Some(codes) = &entry.waivable else { return Ok(()) };
        let place = [Step::from("policies"), at.into(), "waivable".into()];
        if entry.level != Level::Overridable {
            let message =
                format!("`waivable` of policy `{}`, which is not overridable", entry.name);
            let hint = "leave it out, or set `level` to `overridable`";
            return Err(self.wrong(&place, message).hint(hint));
        }
        if codes.len() > MAX_WAIVABLE {
            let message = format!("`waivable` of policy `{}` has too many codes", entry.name);
            return Err(self.wrong(&place, message).hint("leave it out to let all be lifted"));
        }
        let mut seen = BTreeSet::new();
        for (number, code) in codes.iter().enumerate() {
            let mut place = place.to_vec();
            place.push(number.into());
            if code.as_str().starts_with(PARAMS_CODES) {
                let message = format!("`{code}` of policy `{}` cannot be lifted", entry.name);
                let hint = "mend the params: a policy that cannot be relied on denies";
                return Err(self.wrong(&place, message).hint(hint));
            }
            if !seen.insert(code) {
                let message = format!("`{code}` of policy `{}` stands there twice", entry.name);
                return Err(self.wrong(&place, message).hint("name each once"));
            }
        }
        Ok(())
    }

    fn source(&self, at: usize, entry: &Entry, key: &str, source: &str) -> Result<Language, Fault> {
        let place = [Step::from("policies"), at.into(), key.into()];
        let Some(language) = Language::of(source) else {
            let message = format!("`{source}` is neither a `.rego` nor a `.wasm` file");
            let hint = "write Rego, or build a component with `placet build`";
            return Err(self.wrong(&place, message).hint(hint));
        };
        self.is_file(&place, entry, source)?;
        Ok(language)
    }

    /// Checks that a path names a file of the bundle.
    pub(super) fn is_file(&self, place: &[Step], entry: &Entry, path: &str) -> Result<(), Fault> {
        if self.files.contains_key(path) {
            return Ok(());
        }
        let message = format!("`{path}` of policy `{}` is not a file of the bundle", entry.name);
        let hint = match document::nearest(path, self.files.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "give its path from the bundle's directory on, without `..`".into(),
        };
        Err(self.wrong(place, message).hint(hint))
    }

    fn budget(
        &self,
        at: usize,
        entry: &Entry,
        languages: &[Option<Language>],
    ) -> Result<(), Fault> {
        let Budget { ticks, fuel, memory_bytes } = entry.budget;
        let limits = [
            ("ticks", ticks, MAX_TICKS, Language::Rego),
            ("fuel", fuel, MAX_FUEL, Language::Wasm),
            ("memory_bytes", memory_bytes, MAX_MEMORY_BYTES, Language::Wasm),
        ];
        for (name, value, max, language) in limits {
            let Some(value) = value else { continue };
            let of = &entry.name;
            let place = [Step::from("policies"), at.into(), "budget".into(), name.into()];
            if !languages.contains(&Some(language)) {
                let message = format!("`{name}` of policy `{of}` does not fit its language");
                let fault = self.wrong(&place, message);
                return Err(fault.hint("Rego has `ticks`, Wasm has `fuel` and `memory_bytes`"));
            }
            if !(1..=max).contains(&value) {
                let message = format!("`{name}` of policy `{of}` is not 1 to {max}");
                return Err(self.wrong(&place, message).hint("leave it out for the default"));
            }
        }
        Ok(())
    }

    fn required(
        &self,
        manifest: &Manifest,
        kind: SubjectKind,
        at: usize,
        name: &Id,
    ) -> Result<(), Fault> {
        let place = [Step::from("required"), kind.as_str().into(), at.into()];
        let wrong = |what: &str, hint: String| {
            let message = format!("`required.{}` names `{name}`, which {what}", kind.as_str());
            Err(self.wrong(&place, message).hint(hint))
        };
        let Some(entry) = manifest.policies.iter().find(|entry| entry.name == *name) else {
            let names = manifest.policies.iter().map(|entry| entry.name.as_str());
            let hint = match document::nearest(name.as_str(), names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "list it under `policies`".into(),
            };
            return wrong("is no policy", hint);
        };
        if entry.mode != Mode::Enforce || entry.level == Level::Advisory {
            return wrong("has no say", "enforce it, as mandatory or overridable".into());
        }
        if !entry.select.kinds.is_empty() && !entry.select.kinds.contains(&kind) {
            let hint = "add the kind to its `select.kinds`".into();
            return wrong("does not select this kind", hint);
        }
        Ok(())
    }
}

/// The first field of metadata that is too long or has no form, with a remedy.
fn metadata_fault(metadata: &Metadata) -> Option<(&'static str, String)> {
    let texts = [
        ("title", &metadata.title),
        ("description", &metadata.description),
        ("owner", &metadata.owner),
    ];
    for (field, text) in texts {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > MAX_METADATA_BYTES) {
            return Some((
                field,
                format!("write 1 to {MAX_METADATA_BYTES} bytes, or leave it out"),
            ));
        }
    }
    if metadata.controls.len() > MAX_CONTROLS {
        return Some(("controls", format!("name at most {MAX_CONTROLS}")));
    }
    let formed = |control: &String| {
        let parts = control.split_once(':').filter(|_| control.len() <= MAX_METADATA_BYTES);
        parts.is_some_and(|(framework, number)| {
            let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            plain(framework) && plain(number)
        })
    };
    match metadata.controls.iter().all(formed) {
        true => None,
        false => Some(("controls", "write `<framework>:<control>`, such as SOC2:CC6.1".into())),
    }
}
