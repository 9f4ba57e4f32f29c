//! A bundle: policies with a manifest, content-addressed; a directory, or its archive.

mod archive;
mod check;
mod files;
mod manifest;
mod params;
pub(crate) mod place;
mod summary;
mod written;
mod wrong;

use std::collections::BTreeMap;
use std::path::Path;

use placet_core::{
    BundleClaims, Digest, Id, KeyId, KeySet, SignatureError, SigningKey, SubjectKind, sign_bundle,
    verify_bundle,
};
use serde_json::Value;

use crate::document;
use crate::error::{Fault, LoadError};
pub use manifest::{Budget, Language, Selector};
pub(crate) use manifest::{Entry, Manifest, PARAMS_CODES, Required};
pub use summary::PolicySummary;

/// Name of the manifest in a bundle.
pub(crate) const MANIFEST: &str = "bundle.yaml";
/// Name of the signature beside the manifest. It signs the digest, and so is no part of it.
pub const SIGNATURE: &str = "bundle.sig";
/// Largest manifest in bytes: four thousand for each of the most policies.
const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// The files of a bundle and its manifest, checked.
#[derive(Debug)]
pub struct Bundle {
    digest: Digest,
    files: BTreeMap<String, Vec<u8>>,
    manifest: Manifest,
    /// Schemas of params, by path.
    schemas: BTreeMap<String, Value>,
    signature: Option<String>,
}

impl Bundle {
    /// Reads a directory, or an archive of one; whichever it is, by what it holds and not by its
    /// name. Checks the manifest and the params. At most 4,096 files, 32 MiB each, 256 MiB in all,
    /// no symbolic links inside.
    ///
    /// # Errors
    /// [`LoadError`] with file, line, column and remedy where known.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::of(read(path)?, &path.display().to_string(), None)
    }

    /// Reads what [`Bundle::load`] reads, and checks its signature as [`Bundle::verify`] does;
    /// before anything in it is parsed, as what nobody signed may be hostile.
    ///
    /// # Errors
    /// [`LoadError::Signature`] if there is no signature or it is not good, and what
    /// [`Bundle::load`] gives.
    pub fn load_verified(path: &Path, keys: &KeySet) -> Result<Self, LoadError> {
        Self::of(read(path)?, &path.display().to_string(), Some(keys))
    }

    /// Reads an archive: a gzip member with a tar file (ustar) that holds regular files only.
    /// `name` is what errors call it as a whole. The bounds are those of [`Bundle::load`].
    ///
    /// # Errors
    /// [`LoadError::Invalid`] with the entry's name, or place, and a remedy.
    pub fn from_archive(name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        Self::of(archive::read(name, bytes)?, name, None)
    }

    /// Takes files by their paths, none of which needs to be on a disk. `name` is what errors call
    /// them as a whole. The bounds are those of [`Bundle::load`].
    ///
    /// # Errors
    /// [`LoadError::Invalid`] with the file, or its place, and a remedy.
    pub fn from_files(
        name: &str,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, LoadError> {
        let mut all = files::Files::new();
        for (path, bytes) in files {
            files::check_path(&path)?;
            let max = files::limit(&path);
            if u64::try_from(bytes.len()).is_ok_and(|length| length > max) {
                let fault = Fault::new(path, format!("has more than {max} bytes"));
                return Err(fault.hint("split it, or leave out what is not needed").into());
            }
            all.add(path, bytes)?;
        }
        Self::of(all, name, None)
    }

    fn of(files: files::Files, name: &str, keys: Option<&KeySet>) -> Result<Self, LoadError> {
        files.check(name)?;
        let files::Files { by_path: files, signature, .. } = files;
        let digest = files::digest(&files);
        if let Some(keys) = keys {
            let signature = signature.as_deref().ok_or(SignatureError::Missing);
            let signature = signature.map_err(LoadError::Signature)?;
            match verify_bundle(keys, signature, digest, "") {
                // The revision is in the manifest, so it is compared below; it is the last thing
                // that is compared, after signature and digest.
                Ok(_) | Err(SignatureError::Revision { .. }) => {}
                Err(error) => return Err(LoadError::Signature(error)),
            }
        }
        let (manifest, schemas) = check::manifest(&files)?;
        let bundle = Self { digest, files, manifest, schemas, signature };
        if let Some(keys) = keys {
            bundle.verify(keys).map_err(LoadError::Signature)?;
        }
        Ok(bundle)
    }

    /// What can be said of files that need not be a bundle: all that is wrong with them as one, and
    /// the bundle, as far as it can be read.
    pub(crate) fn survey(files: &BTreeMap<String, Vec<u8>>) -> (Option<Self>, Vec<Fault>) {
        let mut taken = files::Files::new();
        let mut faults = Vec::new();
        for (path, bytes) in files {
            let added = files::check_path(path).and_then(|()| {
                let most = files::limit(path);
                if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
                    return taken.add(path.clone(), bytes.clone());
                }
                let fault = Fault::new(path.as_str(), format!("has more than {most} bytes"));
                Err(fault.hint("split it, or leave out what is not needed"))
            });
            faults.extend(added.err().map(|fault| fault.of_rule("file")));
        }
        if let Err(fault) = taken.check("the bundle") {
            let rule = if fault.file == MANIFEST { "manifest" } else { "file" };
            faults.push(fault.of_rule(rule));
        }
        if !taken.by_path.contains_key(MANIFEST) {
            return (None, faults);
        }
        let (read, wrong) = check::survey(&taken.by_path);
        faults.extend(wrong);
        let files::Files { by_path: files, signature, .. } = taken;
        let bundle = read.map(|(manifest, schemas)| {
            let digest = files::digest(&files);
            Self { digest, files, manifest, schemas, signature }
        });
        (bundle, faults)
    }

    /// The archive of the bundle, its signature included. Same content, same bytes, wherever it was
    /// read from.
    #[must_use]
    pub fn to_archive(&self) -> Vec<u8> {
        archive::write(&self.files, self.signature.as_deref())
    }

    /// SHA-256 of the text with one line `<64 hexadecimal digits>  <relative path>` per file,
    /// sorted by path: what `sha256sum` prints. The same for a directory and its archive. The
    /// signature has no line.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the manifest calls this state of the bundle.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.manifest.revision
    }

    /// The signature that came with the bundle, as it was written; nobody checked it yet.
    #[must_use]
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// Signs the bundle, and keeps the signature. `iat` is when it is signed, in seconds since
    /// 1970-01-01 UTC; without it the same bundle and key give the same signature.
    ///
    /// # Errors
    /// [`SignatureError`] if the key gives no signature.
    pub fn sign(&mut self, key: &SigningKey, iat: Option<u64>) -> Result<&str, SignatureError> {
        let claims =
            BundleClaims { digest: self.digest, iat, revision: self.revision().to_owned() };
        Ok(self.signature.insert(sign_bundle(key, &claims)?))
    }

    /// Checks the signature with the keys of those who may publish bundles: what was signed, and by
    /// which key.
    ///
    /// # Errors
    /// [`SignatureError`]: there is no signature, or the first thing that is wrong with it. Whoever
    /// gets one must refuse the bundle.
    pub fn verify(&self, keys: &KeySet) -> Result<(BundleClaims, KeyId), SignatureError> {
        let signature = self.signature().ok_or(SignatureError::Missing)?;
        verify_bundle(keys, signature, self.digest, self.revision())
    }

    /// Every file by its path, sorted, without the signature.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// What the manifest says of each policy, in its order.
    pub fn policies(&self) -> impl Iterator<Item = PolicySummary> {
        self.manifest.policies.iter().map(|it| PolicySummary::of(it, self.file(&it.source)))
    }

    /// Names of the policies without which no subject of that kind is admitted.
    #[must_use]
    pub fn required(&self, kind: SubjectKind) -> &[Id] {
        self.manifest.required.of(kind)
    }

    /// The JSON Schema that a policy's params keep to, by the path that the manifest names.
    #[must_use]
    pub fn params_schema(&self, path: &str) -> Option<&Value> {
        self.schemas.get(path)
    }

    /// Paths of the files of cases, `<directory>/cases/<name>.yaml`, sorted.
    #[must_use]
    pub fn case_files(&self) -> Vec<String> {
        let is_case = |path: &&String| {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let in_cases = parent == "cases" || parent.ends_with("/cases");
            in_cases && (path.ends_with(".yaml") || path.ends_with(".yml"))
        };
        self.files.keys().filter(is_case).cloned().collect()
    }

    /// The published JSON Schema (draft 2020-12) of the manifest.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Manifest)
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A file; none if there is none with that path.
    pub(crate) fn find(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Paths of all files, sorted.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(crate) fn file(&self, path: &str) -> &[u8] {
        self.find(path).unwrap_or_default()
    }
}

/// The files of a directory or of an archive, by path; without the signature, which is checked
/// elsewhere.
pub(crate) fn read_files(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, LoadError> {
    read(path).map(|files| files.by_path)
}

/// The files of a directory or of an archive.
fn read(path: &Path) -> Result<files::Files, LoadError> {
    let name = path.display().to_string();
    let cannot = |source| LoadError::Read { path: path.to_owned(), source };
    let kind = std::fs::metadata(path).map_err(cannot)?.file_type();
    if kind.is_dir() {
        return files::Files::of_directory(path);
    }
    let bytes = match kind.is_file() {
        true => document::read(path, &name, archive::MAX_ARCHIVE_BYTES)?,
        false => Vec::new(),
    };
    if !bytes.starts_with(&archive::MAGIC) {
        let fault = Fault::new(name, "is neither a directory nor an archive of a bundle");
        let hint = "name the directory that holds `bundle.yaml`, or what `placet bundle build` \
                    wrote";
        return Err(fault.hint(hint).into());
    }
    Ok(archive::read(&name, &bytes)?)
}
