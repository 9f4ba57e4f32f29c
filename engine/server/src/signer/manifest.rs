//! `keys.json`: which keys there are, what each is for, where its private part is, and when it
//! signs.
//!
//! It holds no secret, but whoever writes it chooses the keys and names a library that is loaded:
//! nobody but the owner may.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_core::{KeyId, KeyValidity, MAX_KEYS, MAX_REASON_CHARS, Revocation, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{CHECKPOINT_KEY_FILE, KEY_FILE, SignerError, check_mode};

/// The manifest, in the directory of keys.
pub const MANIFEST_FILE: &str = "keys.json";
/// What whoever changes the manifest holds meanwhile.
const LOCK_FILE: &str = ".keys.lock";
/// Where the next manifest is written.
const DRAFT_FILE: &str = ".keys.json.draft";
/// Stands there since the first manifest was written: without it, one that is gone would look like
/// one that never was, and the first key, perhaps revoked, would sign again.
const MARK_FILE: &str = ".keys.json.written";
/// Longest manifest in bytes: 256 keys of less than a kilobyte.
const MAX_MANIFEST_BYTES: u64 = 262_144;
/// Longest name of a file, a variable, a token or a key in bytes: that of most file systems, far
/// above the 32 of a PKCS#11 token.
const MAX_NAME_BYTES: usize = 255;
/// Bits of the mode by which others may write.
const OTHERS_WRITE: u32 = 0o022;
/// What the names of variables begin with that are read: another one could hold anything.
pub const VARIABLE_PREFIX: &str = "PLACET_";

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyUse {
    /// Decisions, orders of eviction and snapshots.
    Decision,
    /// Checkpoints of the log.
    Checkpoint,
}

impl KeyUse {
    /// Its name, as in the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// The file of the key that stands where the manifest names none.
    #[must_use]
    pub fn first_file(self) -> &'static str {
        match self {
            Self::Decision => KEY_FILE,
            Self::Checkpoint => CHECKPOINT_KEY_FILE,
        }
    }

    /// The file of a key that a rotation made.
    pub(super) fn file_of(self, kid: &KeyId) -> String {
        format!("{}-{kid}.pkcs8", self.as_str())
    }
}

/// Where the private part of a key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In a file of the directory, mode 0600: PKCS#8 DER.
    File(String),
    /// In a variable of the server's environment, which begins with `PLACET_`: PKCS#8 as PEM, or
    /// its DER in base64.
    Env(String),
    /// In a token that is reached through PKCS#11.
    Pkcs11(Token),
}

/// A key in a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Absolute path of the library that reaches it.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key; at least one of label and id is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Id of the key, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where the PIN of its user is.
    pub pin: Pin,
}

/// Where a PIN is: never in the manifest, never on a command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// In a file, mode 0600, named by its absolute path; a line break at its end is not part of it.
    File(PathBuf),
    /// In a variable of the environment, which begins with `PLACET_`.
    Env(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name) => write!(f, "file {name}"),
            Self::Env(variable) => write!(f, "variable {variable}"),
            Self::Pkcs11(token) => {
                let key = token.label.as_ref().or(token.id.as_ref());
                let key = key.map_or("", String::as_str);
                write!(f, "key {key} of token {}", token.token)
            }
        }
    }
}

/// A key that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// What it signs.
    pub usage: KeyUse,
    /// Its public half.
    pub public: VerifyingKey,
    /// Where its private part is.
    pub place: Place,
    /// When it signs.
    pub validity: KeyValidity,
}

/// The keys of a directory that its manifest names, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) keys: Vec<ListedKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u8,
    keys: Vec<WrittenKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    kid: String,
    #[serde(rename = "use")]
    usage: KeyUse,
    public: String,
    place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signs_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signs_until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<WrittenRevocation>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRevocation {
    since: u64,
    reason: String,
}

impl Manifest {
    /// Reads the manifest of a directory; an empty one if it has none yet.
    ///
    /// # Errors
    /// [`SignerError`]: unreadable, open to others, damaged, or lost though keys were rotated.
    pub(super) fn read(directory: &Path) -> Result<Self, SignerError> {
        let path = directory.join(MANIFEST_FILE);
        let shown = path.display().to_string();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_lost =
                    directory.join(MARK_FILE).exists() || !key_files(directory).is_empty();
                return if is_lost {
                    Err(SignerError::Lost { path: shown })
                } else {
                    Ok(Self::default())
                };
            }
            Err(source) => return Err(SignerError::Access { path: shown, source }),
        };
        check_mode(&file, &path, OTHERS_WRITE)?;
        let mut json = Vec::new();
        let read = file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut json);
        let bytes = read.map_err(|source| SignerError::Access { path: shown.clone(), source })?;
        if u64::try_from(bytes).is_ok_and(|bytes| bytes > MAX_MANIFEST_BYTES) {
            let problem = format!("it has more than {MAX_MANIFEST_BYTES} bytes");
            return Err(SignerError::Manifest { path: shown, problem });
        }
        Self::parse(&json).map_err(|problem| SignerError::Manifest { path: shown, problem })
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if written.version != 1 {
            return Err(format!("it is of version {}, this reads 1", written.version));
        }
        if written.keys.len() > MAX_KEYS {
            return Err(format!("it names {} keys, at most {MAX_KEYS}", written.keys.len()));
        }
        let mut manifest = Self::default();
        for (at, key) in written.keys.into_iter().enumerate() {
            let key = key.checked().map_err(|problem| format!("`keys[{at}]` {problem}"))?;
            if manifest.get(key.public.id()).is_some() {
                return Err(format!("`keys[{at}]` stands there twice"));
            }
            manifest.keys.push(key);
        }
        Ok(manifest)
    }

    /// The key of that name.
    pub(super) fn get(&self, kid: &KeyId) -> Option<&ListedKey> {
        self.keys.iter().find(|key| key.public.id() == kid)
    }

    /// Whether it names a key of that use.
    pub(super) fn names(&self, usage: KeyUse) -> bool {
        self.keys.iter().any(|key| key.usage == usage)
    }

    /// Writes it if the directory has none yet.
    ///
    /// # Errors
    /// As [`Manifest::write`].
    pub(super) fn begin(&self, directory: &Path, lock: &Lock) -> Result<(), SignerError> {
        if directory.join(MANIFEST_FILE).exists() { Ok(()) } else { self.write(directory, lock) }
    }

    /// Puts it in the place of the one before: whole or not at all, and durable. What could not be
    /// read again is not written.
    ///
    /// # Errors
    /// [`SignerError::Access`]; [`SignerError::Manifest`] if it could not be read.
    pub(super) fn write(&self, directory: &Path, _lock: &Lock) -> Result<(), SignerError> {
        let path = directory.join(MANIFEST_FILE);
        let keys = self.keys.iter().map(WrittenKey::of).collect();
        let written = Written { version: 1, keys };
        let mut json =
            serde_json::to_vec_pretty(&written).expect("texts and numbers have a JSON form");
        json.push(b'\n');
        let unfit = |problem| SignerError::Manifest { path: path.display().to_string(), problem };
        if u64::try_from(json.len()).is_ok_and(|bytes| bytes > MAX_MANIFEST_BYTES) {
            return Err(unfit(format!("it would have more than {MAX_MANIFEST_BYTES} bytes")));
        }
        Self::parse(&json).map_err(unfit)?;
        let put = || {
            let draft = directory.join(DRAFT_FILE);
            // Whoever was killed over its draft left it; nobody else has the lock.
            let mut file = owner_only().create(true).truncate(true).open(&draft)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            owner_only().create(true).truncate(true).open(directory.join(MARK_FILE))?;
            File::open(directory)?.sync_all()
        };
        put().map_err(|source| SignerError::Access { path: path.display().to_string(), source })
    }
}

/// Held while the manifest is read, changed and written; given back when it is dropped or its
/// process dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl Lock {
    /// Waits for it.
    ///
    /// # Errors
    /// [`SignerError::Access`].
    pub(super) fn take(directory: &Path) -> Result<Self, SignerError> {
        let path = directory.join(LOCK_FILE);
        let take = || {
            let file = owner_only().create(true).open(&path)?;
            file.lock()?;
            Ok(Self(file))
        };
        take().map_err(|source| SignerError::Access { path: path.display().to_string(), source })
    }
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The files that rotations made, sorted.
pub(super) fn key_files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let made = |name: &String| {
        let uses = [KeyUse::Decision, KeyUse::Checkpoint];
        let kid = name.strip_suffix(".pkcs8").and_then(|name| {
            uses.iter().find_map(|usage| name.strip_prefix(usage.as_str())?.strip_prefix('-'))
        });
        kid.is_some_and(|kid| KeyId::new(kid).is_ok())
    };
    let mut names: Vec<String> = names.filter(made).collect();
    names.sort();
    names
}

impl WrittenKey {
    fn of(key: &ListedKey) -> Self {
        let KeyValidity { from, until, revoked } = key.validity.clone();
        let revoked =
            revoked.map(|Revocation { since, reason }| WrittenRevocation { since, reason });
        Self {
            kid: key.public.id().to_string(),
            usage: key.usage,
            public: URL_SAFE_NO_PAD.encode(key.public.as_bytes()),
            place: key.place.clone(),
            signs_from: from,
            signs_until: until,
            revoked,
        }
    }

    fn checked(self) -> Result<ListedKey, String> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.public).ok();
        let public = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let public = public.ok_or("has no Ed25519 public key in base64url (`public`)")?;
        if public.id().as_str() != self.kid {
            return Err("has a `kid` that is not the thumbprint of its public key".to_owned());
        }
        if self.signs_from.zip(self.signs_until).is_some_and(|(from, until)| until <= from) {
            return Err("ends to sign before it begins".to_owned());
        }
        let reason = self.revoked.as_ref().map_or("", |revoked| &*revoked.reason);
        check_reason(reason)?;
        self.place.check()?;
        let revoked =
            self.revoked.map(|WrittenRevocation { since, reason }| Revocation { since, reason });
        let validity = KeyValidity { from: self.signs_from, until: self.signs_until, revoked };
        Ok(ListedKey { usage: self.usage, public, place: self.place, validity })
    }
}

/// Whether a reason can be published.
///
/// # Errors
/// What is wrong.
pub(super) fn check_reason(reason: &str) -> Result<(), String> {
    if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
        return Err(format!("has a reason of more than {MAX_REASON_CHARS} printable characters"));
    }
    Ok(())
}

impl Place {
    /// Checks what the types leave open.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::File(name) => {
                let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == &**name);
                if is_plain && is_name(name) {
                    return Ok(());
                }
                Err("has a file that is not in this directory".to_owned())
            }
            Self::Env(variable) => check_variable(variable),
            Self::Pkcs11(token) => token.check(),
        }
    }
}

impl Token {
    fn check(&self) -> Result<(), String> {
        if !self.module.is_absolute() {
            return Err("has a module whose path is not absolute".to_owned());
        }
        if !is_name(&self.token) || !self.label.as_deref().is_none_or(is_name) {
            return Err("has no usable label of a token or key".to_owned());
        }
        if self.label.is_none() && self.id.is_none() {
            return Err("names neither the label nor the id of a key".to_owned());
        }
        if self.id.as_deref().is_some_and(|id| id_bytes(id).is_none()) {
            return Err("has an id that is not of hexadecimal digits".to_owned());
        }
        match &self.pin {
            Pin::File(path) if path.is_absolute() => Ok(()),
            Pin::File(_) => Err("has a PIN file whose path is not absolute".to_owned()),
            Pin::Env(variable) => check_variable(variable),
        }
    }
}

/// The bytes of an id in hexadecimal digits.
pub(super) fn id_bytes(id: &str) -> Option<Vec<u8>> {
    if id.is_empty() || id.len() > MAX_NAME_BYTES || !id.len().is_multiple_of(2) {
        return None;
    }
    let pairs = id.as_bytes().chunks_exact(2).map(std::str::from_utf8);
    pairs.map(|pair| u8::from_str_radix(pair.ok()?, 16).ok()).collect()
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn check_variable(variable: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if variable.starts_with(VARIABLE_PREFIX) && is_name(variable) && variable.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "has a variable that is not {VARIABLE_PREFIX} and capital letters, digits or underscores"
    ))
}
