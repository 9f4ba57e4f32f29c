//! A bundle: a directory of policies with a manifest, content-addressed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use placet_core::{Digest, Id, Level, Mode, PriorityClass, SubjectKind};
use serde::Deserialize;

use crate::document;
use crate::error::{Fault, LoadError};
use crate::facts::MAX_REVISION_BYTES;
use crate::rego::{DEFAULT_TICKS, MAX_TICKS};
use crate::wasm::{DEFAULT_FUEL, DEFAULT_MEMORY_BYTES, MAX_FUEL, MAX_MEMORY_BYTES, WasmBudget};

/// Name of the manifest in a bundle.
pub(crate) const MANIFEST: &str = "bundle.yaml";
/// Most files of a bundle: each policy has a few, and some have many cases.
const MAX_FILES: usize = 4_096;
/// Deepest directory of a bundle.
const MAX_DEPTH: usize = 16;
/// Largest file of a bundle in bytes: that of the largest component.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Most bytes of a bundle: all of it is held in memory while it is compiled.
const MAX_BUNDLE_BYTES: u64 = 256 << 20;
/// Most policies of a bundle: each worker thread has its own engine for each.
const MAX_POLICIES: usize = 1_024;

/// The files of a bundle and its manifest, checked.
#[derive(Debug)]
pub struct Bundle {
    digest: Digest,
    files: BTreeMap<String, Vec<u8>>,
    manifest: Manifest,
    root: PathBuf,
}

/// The format of `bundle.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Only to name the format; its one value says all.
    #[serde(rename = "schema")]
    _schema: BundleSchema,
    pub(crate) revision: String,
    #[serde(default)]
    pub(crate) required: Required,
    pub(crate) policies: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum BundleSchema {
    #[serde(rename = "placet.bundle/v1")]
    V1,
}

/// Policies without which nothing is admitted, by kind of subject.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Required {
    #[serde(default)]
    pub(crate) lease: Vec<Id>,
    #[serde(default)]
    pub(crate) job: Vec<Id>,
}

impl Required {
    pub(crate) fn of(&self, kind: SubjectKind) -> &[Id] {
        match kind {
            SubjectKind::Lease => &self.lease,
            SubjectKind::Job => &self.job,
        }
    }
}

/// One policy of the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) name: Id,
    pub(crate) source: String,
    pub(crate) twin: Option<String>,
    #[serde(default)]
    pub(crate) params: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub(crate) select: Select,
    #[serde(default = "mandatory")]
    pub(crate) level: Level,
    #[serde(default = "enforce")]
    pub(crate) mode: Mode,
    #[serde(default)]
    pub(crate) budget: Budget,
}

fn mandatory() -> Level {
    Level::Mandatory
}

fn enforce() -> Mode {
    Mode::Enforce
}

/// Which requests a policy is asked about; an empty list is any.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Select {
    #[serde(default)]
    pub(crate) kinds: Vec<SubjectKind>,
    #[serde(default)]
    pub(crate) tenants: Vec<Id>,
    #[serde(default)]
    pub(crate) clusters: Vec<Id>,
    #[serde(default)]
    pub(crate) priority_classes: Vec<PriorityClass>,
}

/// What one evaluation may use; what is absent has its default.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    ticks: Option<u64>,
    fuel: Option<u64>,
    memory_bytes: Option<u64>,
}

impl Budget {
    pub(crate) fn ticks(self) -> u64 {
        self.ticks.unwrap_or(DEFAULT_TICKS)
    }

    pub(crate) fn wasm(self) -> WasmBudget {
        WasmBudget {
            fuel: self.fuel.unwrap_or(DEFAULT_FUEL),
            memory_bytes: self.memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES),
        }
    }
}

/// The languages of policies, by the ending of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Rego,
    Wasm,
}

impl Language {
    pub(crate) fn of(file: &str) -> Option<Self> {
        match file.rsplit_once('.')?.1 {
            "rego" => Some(Self::Rego),
            "wasm" => Some(Self::Wasm),
            _ => None,
        }
    }
}

impl Bundle {
    /// Reads every file of a directory once, and checks the manifest. At most 4,096 files, 32 MiB
    /// each, 256 MiB in all, no symbolic links inside.
    ///
    /// # Errors
    /// [`LoadError`] with file, line, column and remedy where known.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let mut files = BTreeMap::new();
        let mut left = MAX_BUNDLE_BYTES;
        collect(directory, "", 0, &mut files, &mut left)?;
        let Some(manifest) = files.get(MANIFEST) else {
            let fault = Fault::new(MANIFEST, format!("is missing in `{}`", directory.display()));
            return Err(fault.hint("name the directory that holds the bundle's manifest").into());
        };
        let manifest = document::parse(document::text(manifest, MANIFEST)?, MANIFEST)?;
        check(&manifest, &files)?;
        let digest = digest(&files);
        Ok(Self { digest, files, manifest, root: directory.to_owned() })
    }

    /// SHA-256 of the text with one line `<64 hexadecimal digits>  <relative path>` per file,
    /// sorted by path: what `sha256sum` prints.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the manifest calls this state of the bundle.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.manifest.revision
    }

    /// Paths of the files of cases, `<directory>/cases/<name>.yaml`, sorted.
    #[must_use]
    pub fn case_files(&self) -> Vec<PathBuf> {
        let is_case = |path: &&String| {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let in_cases = parent == "cases" || parent.ends_with("/cases");
            in_cases && (path.ends_with(".yaml") || path.ends_with(".yml"))
        };
        self.files.keys().filter(is_case).map(|path| self.root.join(path)).collect()
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn file(&self, path: &str) -> &[u8] {
        self.files.get(path).map_or(&[], Vec::as_slice)
    }
}

fn collect(
    directory: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Vec<u8>>,
    left: &mut u64,
) -> Result<(), LoadError> {
    let cannot = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Read { path, source }
    };
    for entry in std::fs::read_dir(directory).map_err(cannot(directory))? {
        let entry = entry.map_err(cannot(directory))?;
        let path = entry.path();
        let name = entry.file_name();
        let plain = |name: &&str| !name.contains(|c: char| c.is_control() || c == '\\');
        let Some(name) = name.to_str().filter(plain) else {
            let fault =
                Fault::new(path.display().to_string(), "has a name that is not plain UTF-8");
            return Err(fault.hint("rename it").into());
        };
        let relative = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(cannot(&path))?;
        if kind.is_symlink() {
            let fault = Fault::new(relative, "is a symbolic link");
            return Err(fault.hint("put the file itself there").into());
        }
        if kind.is_dir() {
            if depth >= MAX_DEPTH {
                let fault = Fault::new(relative, format!("is deeper than {MAX_DEPTH} directories"));
                return Err(fault.hint("make the bundle flatter").into());
            }
            collect(&path, &format!("{relative}/"), depth + 1, files, left)?;
            continue;
        }
        let bytes = document::read(&path, &relative, MAX_FILE_BYTES)?;
        let rest = u64::try_from(bytes.len()).ok().and_then(|length| left.checked_sub(length));
        let Some(rest) = rest.filter(|_| files.len() < MAX_FILES) else {
            let message =
                format!("the bundle has more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes");
            let hint = "keep only policies and their cases in it";
            return Err(Fault::new(relative, message).hint(hint).into());
        };
        *left = rest;
        files.insert(relative, bytes);
    }
    Ok(())
}

fn digest(files: &BTreeMap<String, Vec<u8>>) -> Digest {
    let mut text = String::new();
    for (path, bytes) in files {
        writeln!(text, "{}  {path}", Digest::of(bytes).hex()).expect("writing to a String works");
    }
    Digest::of(text.as_bytes())
}

fn check(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Fault> {
    let wrong = |path: String, message: &str| {
        let place = locate(files, &path);
        let fault = Fault::new(MANIFEST, format!("`{path}` {message}"));
        match place {
            Some(line) => fault.at(line, None),
            None => fault,
        }
    };
    if manifest.revision.is_empty() || manifest.revision.len() > MAX_REVISION_BYTES {
        let fault = wrong("revision".into(), &format!("is not 1 to {MAX_REVISION_BYTES} bytes"));
        return Err(fault.hint("name this state of the bundle, such as a date or a version"));
    }
    if manifest.policies.is_empty() || manifest.policies.len() > MAX_POLICIES {
        let fault = wrong("policies".into(), &format!("does not have 1 to {MAX_POLICIES} entries"));
        return Err(fault.hint("a bundle without policies admits nothing"));
    }
    let mut names = BTreeSet::new();
    for entry in &manifest.policies {
        let name = &entry.name;
        if name.as_str() == "placet" {
            let fault = wrong(name.to_string(), "is the name of the engine itself");
            return Err(fault.hint("choose another"));
        }
        if !names.insert(name) {
            let fault = wrong(name.to_string(), "is the name of two policies");
            return Err(fault.hint("give each policy a name of its own"));
        }
        let language = check_source(entry, &entry.source, files, &wrong)?;
        if let Some(twin) = &entry.twin {
            check_source(entry, twin, files, &wrong)?;
        }
        check_budget(entry, language, &wrong)?;
    }
    for kind in [SubjectKind::Lease, SubjectKind::Job] {
        for name in manifest.required.of(kind) {
            check_required(manifest, kind, name, &wrong)?;
        }
    }
    Ok(())
}

/// Line of the manifest on which a name first stands by itself.
fn locate(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Option<u32> {
    let text = std::str::from_utf8(files.get(MANIFEST)?).ok()?;
    let at = |line: &str| {
        let mut words = line.split(|c: char| c.is_whitespace() || ",[]{}\"':".contains(c));
        words.any(|word| word == name)
    };
    u32::try_from(text.lines().position(at)?).ok()?.checked_add(1)
}

type WrongAt<'a> = &'a dyn Fn(String, &str) -> Fault;

fn check_source(
    entry: &Entry,
    source: &str,
    files: &BTreeMap<String, Vec<u8>>,
    wrong: WrongAt<'_>,
) -> Result<Language, Fault> {
    let Some(language) = Language::of(source) else {
        let fault = wrong(source.into(), "is neither a `.rego` nor a `.wasm` file");
        return Err(fault.hint("write Rego, or build a component with `placet build`"));
    };
    if files.contains_key(source) {
        return Ok(language);
    }
    let message = format!("of policy `{}` is not a file of the bundle", entry.name);
    let hint = match document::nearest(source, files.keys().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give its path from the bundle's directory on, without `..`".into(),
    };
    Err(wrong(source.into(), &message).hint(hint))
}

fn check_budget(entry: &Entry, language: Language, wrong: WrongAt<'_>) -> Result<(), Fault> {
    let Budget { ticks, fuel, memory_bytes } = entry.budget;
    let twin = entry.twin.as_deref().and_then(Language::of);
    let used = |of: Language| language == of || twin == Some(of);
    let limits = [
        ("ticks", ticks, MAX_TICKS, used(Language::Rego)),
        ("fuel", fuel, MAX_FUEL, used(Language::Wasm)),
        ("memory_bytes", memory_bytes, MAX_MEMORY_BYTES, used(Language::Wasm)),
    ];
    for (name, value, max, used) in limits {
        let Some(value) = value else { continue };
        let of = &entry.name;
        if !used {
            let fault = wrong(name.into(), &format!("of policy `{of}` does not fit its language"));
            return Err(fault.hint("Rego has `ticks`, Wasm has `fuel` and `memory_bytes`"));
        }
        if !(1..=max).contains(&value) {
            let fault = wrong(name.into(), &format!("of policy `{of}` is not 1 to {max}"));
            return Err(fault.hint("leave it out for the default"));
        }
    }
    Ok(())
}

fn check_required(
    manifest: &Manifest,
    kind: SubjectKind,
    name: &Id,
    wrong: WrongAt<'_>,
) -> Result<(), Fault> {
    let path = || format!("required.{}", kind.as_str());
    let Some(entry) = manifest.policies.iter().find(|entry| entry.name == *name) else {
        let names = manifest.policies.iter().map(|entry| entry.name.as_str());
        let hint = match document::nearest(name.as_str(), names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "list it under `policies`".into(),
        };
        return Err(wrong(path(), &format!("names `{name}`, which is no policy")).hint(hint));
    };
    if entry.mode != Mode::Enforce || entry.level == Level::Advisory {
        let fault = wrong(path(), &format!("names `{name}`, which has no say"));
        return Err(fault.hint("enforce it, as mandatory or overridable"));
    }
    if !entry.select.kinds.is_empty() && !entry.select.kinds.contains(&kind) {
        let fault = wrong(path(), &format!("names `{name}`, which does not select this kind"));
        return Err(fault.hint("add the kind to its `select.kinds`"));
    }
    Ok(())
}
