//! Compiled components kept on disk, so that a restart does not compile every bundle again.
//!
//! An entry is native code: whoever can choose its bytes runs in this process. So nothing is loaded
//! but what this node wrote itself. The directory is private to the user who runs the engine, and
//! each entry is authenticated with a random key that never leaves the directory. Whatever is
//! missing, altered or not understood is compiled anew and replaced; the cache is never the reason
//! that a policy does not load.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::{constant_time, hmac, rand};
use placet_core::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::LoadError;
use crate::error::Fault;

/// What every entry starts with: the version of its format.
const MAGIC: [u8; 16] = *b"placet.code/v1\n\0";
/// Bytes of the authentication code, HMAC-SHA-256.
const TAG_BYTES: usize = 32;
/// File that holds the node's key.
const KEY_FILE: &str = "key";
/// Bytes of the key: as many as the hash gives (RFC 2104 section 3).
const KEY_BYTES: usize = 32;
/// Suffix of entries.
const ENTRY: &str = ".code";
/// Prefix of files that are being written.
const PARTIAL: &str = "partial-";
/// Bytes of one entry: a Python guest of 18 MB gives some 40 MB.
const MAX_ENTRY_BYTES: u64 = 256 << 20;
/// Bytes of all entries: ten large guests, or thousands of small ones.
const MAX_CACHE_BYTES: u64 = 512 << 20;
/// Notes kept until somebody asks for them.
const MAX_NOTES: usize = 32;

/// What became of the components that a runtime was given since it was last asked.
///
/// # Example
/// ```
/// let directory = tempfile::tempdir()?;
/// let runtime = placet_policy::WasmRuntime::with_cache(&directory.path().join("code"))?;
/// let activity = runtime.take_cache_activity();
/// assert_eq!((activity.loaded, activity.compiled), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheActivity {
    /// Components whose compiled code came from the cache.
    pub loaded: u64,
    /// Components that were compiled.
    pub compiled: u64,
    /// Entries that were removed to make room.
    pub evicted: u64,
    /// One line for each thing that went wrong without harm, such as an entry that was altered; at
    /// most 32. For the log.
    pub notes: Vec<String>,
}

/// Why an entry is not used. Each costs one compilation.
#[derive(Debug, thiserror::Error)]
enum Flaw {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is {0}")]
    NotPrivate(&'static str),
    #[error("is larger than {MAX_ENTRY_BYTES} bytes")]
    TooLarge,
    #[error("is not an entry of this version, or cut short")]
    Malformed,
    #[error("was not written by this node, or altered since")]
    Forged,
    #[error("is refused by the engine: {0}")]
    Refused(String),
}

/// Compiled components in one directory. Several threads and processes may share it: entries appear
/// whole, by renaming, and whoever finds none compiles for itself.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    key: hmac::Key,
    /// Of the engine, its settings and the CPU: code is for them alone.
    engine: Digest,
    /// The user that owns everything here.
    owner: u32,
    pub(super) max_bytes: u64,
    activity: Mutex<CacheActivity>,
}

impl Cache {
    /// Opens a directory, which is created if need be, and the node's key in it.
    ///
    /// # Errors
    /// [`LoadError::Invalid`] if others could read or write it, [`LoadError::Read`] if the system
    /// refuses.
    pub(super) fn open(directory: &Path, engine: &Engine) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Read { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let owner = rustix::process::geteuid().as_raw();
        let found = fs::symlink_metadata(directory).map_err(failed)?;
        let refused = |path: &Path, why: &str, hint: &str| {
            LoadError::from(Fault::new(path.display().to_string(), why).hint(hint))
        };
        if !found.is_dir() {
            let hint = "name the directory itself, not a link to it";
            return Err(refused(directory, "is not a directory", hint));
        }
        private(&found, owner).map_err(|why| {
            let hint = "compiled code is trusted: make it your own, with mode 0700";
            refused(directory, &format!("is {why}"), hint)
        })?;
        let path = directory.join(KEY_FILE);
        let key = key(&path, owner).map_err(|flaw| {
            if let Flaw::Unreadable(source) = flaw {
                return LoadError::Read { path: path.clone(), source };
            }
            refused(&path, &flaw.to_string(), "remove it: a new one is made, and all compiled anew")
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            engine: compatibility(engine),
            owner,
            max_bytes: MAX_CACHE_BYTES,
            activity: Mutex::default(),
        })
    }

    /// A component ready to run: from its entry, or compiled and then entered.
    pub(super) fn component(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
        let name = self.name(bytes);
        match self.load(engine, &name) {
            Ok(Some(component)) => {
                self.record(|activity| activity.loaded += 1);
                return Ok(component);
            }
            Ok(None) => {}
            Err(flaw) => self.note(format!("`{name}` {flaw}; it is compiled anew")),
        }
        let component = Component::from_binary(engine, bytes)?;
        self.record(|activity| activity.compiled += 1);
        match component.serialize() {
            Ok(code) => self.enter(&name, &code),
            Err(error) => self.note(format!("`{name}` cannot be written: {error}")),
        }
        Ok(component)
    }

    /// What happened since this was last asked.
    pub(super) fn take_activity(&self) -> CacheActivity {
        std::mem::take(&mut *self.activity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Of the entry of a component: its digest, the engine's, and the version of the format.
    pub(super) fn name(&self, bytes: &[u8]) -> String {
        let component = Digest::of(bytes);
        let name = Digest::of_parts(&[&MAGIC, self.engine.as_bytes(), component.as_bytes()]);
        name.hex() + ENTRY
    }

    fn load(&self, engine: &Engine, name: &str) -> Result<Option<Component>, Flaw> {
        let Some(entry) = read(&self.directory.join(name), self.owner, MAX_ENTRY_BYTES)? else {
            return Ok(None);
        };
        let rest = entry.strip_prefix(&MAGIC).ok_or(Flaw::Malformed)?;
        let (tag, code) = rest.split_at_checked(TAG_BYTES).ok_or(Flaw::Malformed)?;
        constant_time::verify_slices_are_equal(tag, self.tag(name, code).as_ref())
            .map_err(|_unequal| Flaw::Forged)?;
        #[expect(unsafe_code, reason = "native code is loaded, which this node wrote itself")]
        // SAFETY: `deserialize` asks for bytes that `Component::serialize` gave, unaltered. The tag
        // is over exactly the bytes that are loaded, which are in our memory and no longer in the
        // file, and over the name that binds them to the component and to the engine's
        // compatibility hash. Only a holder of the key can make the tag, and `store` is the only
        // code that does, of the output of `serialize`. The key is random, was read from a file
        // that only this user can read, and is never sent or logged. Who can read it is this user,
        // who can run any code anyway.
        let component = unsafe { Component::deserialize(engine, code) };
        component.map(Some).map_err(|error| Flaw::Refused(error.to_string()))
    }

    /// Binds code to the name of its entry: an entry under another's name is not accepted.
    fn tag(&self, name: &str, code: &[u8]) -> hmac::Tag {
        let mut tag = hmac::Context::with_key(&self.key);
        tag.update(&MAGIC);
        // Names have one length, so no two pairs of name and code give the same bytes.
        tag.update(name.as_bytes());
        tag.update(code);
        tag.sign()
    }

    pub(super) fn enter(&self, name: &str, code: &[u8]) {
        match self.store(name, code) {
            Ok(()) => self.evict(name),
            Err(error) => self.note(format!("`{name}` cannot be written: {error}")),
        }
    }

    fn store(&self, name: &str, code: &[u8]) -> io::Result<()> {
        let bytes = u64::try_from(code.len()).unwrap_or(u64::MAX);
        if bytes >= MAX_ENTRY_BYTES.min(self.max_bytes) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
        }
        let tag = self.tag(name, code);
        let partial = write(&self.directory, &[&MAGIC, tag.as_ref(), code])?;
        let entered = fs::rename(&partial, self.directory.join(name))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if entered.is_err() {
            discard(&partial);
        }
        entered
    }

    /// Removes the oldest entries, and what a crash left half written, until the rest fits.
    fn evict(&self, newest: &str) {
        let entries = match entries(&self.directory) {
            Ok(entries) => entries,
            Err(error) => return self.note(format!("the cache cannot be listed: {error}")),
        };
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries.iter().filter(|entry| entry.name != newest) {
            if bytes <= self.max_bytes {
                break;
            }
            bytes -= entry.bytes;
            match fs::remove_file(self.directory.join(&entry.name)) {
                Ok(()) => self.record(|activity| activity.evicted += 1),
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.note(format!("`{}` cannot be removed: {error}", entry.name)),
            }
        }
    }

    fn record(&self, change: impl FnOnce(&mut CacheActivity)) {
        change(&mut self.activity.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note(&self, note: String) {
        self.record(|activity| {
            if activity.notes.len() < MAX_NOTES {
                activity.notes.push(note);
            }
        });
    }
}

/// An entry, or one that was never finished.
#[derive(Debug)]
struct Entry {
    written: (i64, i64),
    name: String,
    bytes: u64,
}

/// Everything in the cache but the key, the oldest first.
fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.ends_with(ENTRY) && !name.starts_with(PARTIAL) {
            continue;
        }
        // It may be gone by now.
        let Ok(found) = entry.metadata() else { continue };
        let written = (found.mtime(), found.mtime_nsec());
        entries.push(Entry { written, name, bytes: found.len() });
    }
    entries.sort_by(|one, other| (one.written, &one.name).cmp(&(other.written, &other.name)));
    Ok(entries)
}

/// The engine's version, settings and CPU as one digest.
fn compatibility(engine: &Engine) -> Digest {
    /// Keeps what is hashed, for SHA-256: the standard hashers are not made to tell settings apart
    /// that somebody chose.
    struct Written(Vec<u8>);
    impl Hasher for Written {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn finish(&self) -> u64 {
            // Asked by nobody: the bytes themselves are taken.
            0
        }
    }
    let mut written = Written(Vec::new());
    engine.precompile_compatibility_hash().hash(&mut written);
    Digest::of(&written.0)
}

/// Whether nobody but `owner` can read or write a file or directory.
pub(super) fn private(found: &Metadata, owner: u32) -> Result<(), &'static str> {
    if found.uid() != owner {
        return Err("owned by another user");
    }
    if found.mode() & 0o077 != 0 {
        return Err("open to other users");
    }
    Ok(())
}

/// A private file's bytes; `None` if there is no such file.
fn read(path: &Path, owner: u32, most: u64) -> Result<Option<Vec<u8>>, Flaw> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Flaw::Unreadable(error)),
    };
    if !found.is_file() {
        return Err(Flaw::NotPrivate("not a regular file"));
    }
    let file = File::open(path).map_err(Flaw::Unreadable)?;
    let opened = file.metadata().map_err(Flaw::Unreadable)?;
    private(&opened, owner).map_err(Flaw::NotPrivate)?;
    let mut bytes = Vec::with_capacity(usize::try_from(opened.len().min(most)).unwrap_or(0));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(Flaw::Unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(Flaw::TooLarge);
    }
    Ok(Some(bytes))
}

/// The node's key, made at first need. Whichever process links its file first has made it.
fn key(path: &Path, owner: u32) -> Result<[u8; KEY_BYTES], Flaw> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if let Err(error) = fs::symlink_metadata(path) {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(Flaw::Unreadable(error));
        }
        let key = random::<KEY_BYTES>().map_err(Flaw::Unreadable)?;
        let partial = write(directory, &[&key]).map_err(Flaw::Unreadable)?;
        let made = fs::hard_link(&partial, path);
        discard(&partial);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Flaw::Unreadable(error));
            }
            _ => {}
        }
    }
    let most = u64::try_from(KEY_BYTES).unwrap_or(u64::MAX);
    let bytes = read(path, owner, most)?.ok_or(Flaw::Malformed)?;
    <[u8; KEY_BYTES]>::try_from(bytes).map_err(|_wrong_length| Flaw::Malformed)
}

/// Writes a new private file to the disk, under a name of its own.
fn write(directory: &Path, parts: &[&[u8]]) -> io::Result<PathBuf> {
    let name = random::<16>()?;
    let path = directory.join(format!("{PARTIAL}{}", hex(&name)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written =
        parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            discard(&path);
            Err(error)
        }
    }
}

/// A file that was not finished. If it cannot be removed now, eviction will.
fn discard(partial: &Path) {
    drop(fs::remove_file(partial));
}

/// Bytes that nobody can guess. They name files and make the key; no decision sees them.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_unspecified| io::Error::other("no randomness"))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
