//! The keys that decisions and checkpoints are signed with, and where they are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use placet_core::{
    Checkpoint, CheckpointError, Decision, EvictionOrder, KeyError, KeySet, SignError, SigningKey,
    note_verifier_key, sign_decision, sign_eviction,
};

/// The file of the key of decisions, in the directory of keys.
pub const KEY_FILE: &str = "signing-key.pkcs8";
/// The file of the key of checkpoints, in the directory of keys.
pub const CHECKPOINT_KEY_FILE: &str = "checkpoint-key.pkcs8";
/// Longest key file in bytes: an Ed25519 key has about 80.
const MAX_KEY_BYTES: u64 = 1_024;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The directory or the file cannot be made or read.
    #[error(
        "`{path}` cannot be made or read\nhint: it must belong to the user that runs the server"
    )]
    Access {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may read the key, or write it.
    #[error("`{path}` is open to others (mode {mode:o})\nhint: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key.
    #[error(
        "`{path}` holds no Ed25519 key\n\
         hint: restore it, or move it away and a new key is made; tokens of the old one then need\n\
         its public key"
    )]
    NoKey {
        /// The file.
        path: String,
        /// Why.
        source: KeyError,
    },
    /// One key for decisions and for checkpoints.
    #[error(
        "`{path}` is the key that signs decisions\n\
         hint: move it away and a new key is made; whoever has one of the keys must not have both"
    )]
    Shared {
        /// The file of the key of checkpoints.
        path: String,
    },
    /// The library makes no key.
    #[error("no key can be made")]
    Make(#[source] KeyError),
}

/// Signs decisions; cheap to clone, from any thread.
#[derive(Debug, Clone)]
pub struct Signer(Arc<SigningKey>);

impl Signer {
    /// With a key of the caller's.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self(Arc::new(key))
    }

    /// With the key of a directory. Makes the directory with mode 0700 and the key with mode 0600
    /// if there are none.
    ///
    /// # Errors
    /// [`SignerError`]: unreadable, readable by others, or no key.
    pub fn open(directory: &Path) -> Result<Self, SignerError> {
        open_key(directory, KEY_FILE).map(Self::new)
    }

    /// The public keys as a JWK set: canonical JSON.
    ///
    /// # Panics
    /// Never: a set may have one key.
    #[must_use]
    pub fn jwks(&self) -> String {
        let key = self.0.verifying_key().clone();
        KeySet::new([key]).expect("one key is neither none nor too many").to_json()
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.0
    }

    /// Signs a decision.
    /// Signs an order of eviction.
    pub(crate) fn sign_order(&self, order: &EvictionOrder) -> Result<String, SignError> {
        sign_eviction(self.key(), order)
    }

    pub(crate) fn sign(&self, decision: &Decision) -> Result<String, SignError> {
        sign_decision(&self.0, decision)
    }
}

/// Signs checkpoints of the log; cheap to clone. A type of its own, so that neither key can sign
/// what is the other's.
#[derive(Debug, Clone)]
pub struct CheckpointSigner(Arc<SigningKey>);

impl CheckpointSigner {
    /// With a key of the caller's.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self(Arc::new(key))
    }

    /// With the key of a directory, made there if there is none, as [`Signer::open`] does.
    ///
    /// # Errors
    /// [`SignerError`]: unreadable, readable by others, no key, or the key of decisions.
    pub fn open(directory: &Path, decisions: &Signer) -> Result<Self, SignerError> {
        let key = open_key(directory, CHECKPOINT_KEY_FILE)?;
        if key.id() == decisions.key().id() {
            let path = directory.join(CHECKPOINT_KEY_FILE).display().to_string();
            return Err(SignerError::Shared { path });
        }
        Ok(Self::new(key))
    }

    /// The public key as tools of the C2SP family take it, for the log of that name.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`] if no log can have that name.
    pub fn verifier(&self, origin: &str) -> Result<String, CheckpointError> {
        note_verifier_key(origin, self.0.verifying_key())
    }

    /// Whether this key signed a note of the log of that name: not, if another one did.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is no checkpoint, or was changed.
    pub(crate) fn signed(&self, note: &str, origin: &str) -> Result<bool, CheckpointError> {
        match Checkpoint::verify(note, origin, self.0.verifying_key()) {
            Ok(_) => Ok(true),
            Err(CheckpointError::Unsigned) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn sign(&self, checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
        checkpoint.sign(&self.0)
    }
}

/// The key of a file, which is made if there is none.
fn open_key(directory: &Path, file_name: &str) -> Result<SigningKey, SignerError> {
    let path = directory.join(file_name);
    let access = |path: &Path| {
        let path = path.display().to_string();
        move |source| SignerError::Access { path, source }
    };
    if !path.exists() {
        make_directory(directory).map_err(access(directory))?;
        let key = SigningKey::generate().map_err(SignerError::Make)?;
        let der = key.to_pkcs8().map_err(SignerError::Make)?;
        match write_new(directory, file_name, key.id().as_str(), der.as_ref()) {
            Ok(()) => {}
            // Another process was faster: its key is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(access(&path)(error)),
        }
    }
    let file = File::open(&path).map_err(access(&path))?;
    check_mode(&file, &path)?;
    let mut der = Vec::new();
    file.take(MAX_KEY_BYTES).read_to_end(&mut der).map_err(access(&path))?;
    let key = SigningKey::from_pkcs8(&der)
        .map_err(|source| SignerError::NoKey { path: path.display().to_string(), source })?;
    Ok(key)
}

fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Writes a file whole or not at all, and never over another one.
///
/// The draft is named after the key. A process id would do until a process is killed over its
/// draft: in a container the next one has the same.
fn write_new(directory: &Path, file_name: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = directory.join(format!(".{file_name}.{name}"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A link, unlike a renaming, fails where a file already stands.
    let linked = written.and_then(|()| fs::hard_link(&draft, directory.join(file_name)));
    fs::remove_file(&draft)?;
    linked?;
    File::open(directory)?.sync_all()
}

#[cfg(unix)]
fn check_mode(file: &File, path: &Path) -> Result<(), SignerError> {
    use std::os::unix::fs::MetadataExt as _;
    let path = path.display().to_string();
    match file.metadata() {
        Ok(metadata) if metadata.mode() & 0o077 == 0 => Ok(()),
        Ok(metadata) => Err(SignerError::Exposed { path, mode: metadata.mode() & 0o777 }),
        Err(source) => Err(SignerError::Access { path, source }),
    }
}

#[cfg(not(unix))]
fn check_mode(_file: &File, _path: &Path) -> Result<(), SignerError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("a/keys");
        let first = Signer::open(&keys).unwrap();
        assert_eq!(Signer::open(&keys).unwrap().jwks(), first.jwks());
        let file = keys.join(KEY_FILE);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1, "no draft is left behind");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Signer::open(&keys).unwrap_err();
        assert!(matches!(error, SignerError::Exposed { mode: 0o640, .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"));
    }

    #[test]
    fn the_key_of_checkpoints_is_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let decisions = Signer::open(directory.path()).unwrap();
        let first = CheckpointSigner::open(directory.path(), &decisions).unwrap();
        let again = CheckpointSigner::open(directory.path(), &decisions).unwrap();
        assert_eq!(first.verifier("log").unwrap(), again.verifier("log").unwrap());
        assert!(first.verifier("two words").is_err());
        let (own, other) = (directory.path().join(KEY_FILE), CHECKPOINT_KEY_FILE);
        let file = directory.path().join(other);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::copy(own, file).unwrap();
        let error = CheckpointSigner::open(directory.path(), &decisions).unwrap_err();
        assert!(matches!(error, SignerError::Shared { .. }), "{error}");
    }

    #[test]
    fn the_draft_of_a_killed_process_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let own = format!(".{KEY_FILE}.{}", std::process::id());
        fs::write(directory.path().join(own), b"half a key").unwrap();
        let first = Signer::open(directory.path()).unwrap();
        assert_eq!(Signer::open(directory.path()).unwrap().jwks(), first.jwks());
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        Signer::open(directory.path()).unwrap();
        fs::write(directory.path().join(KEY_FILE), b"").unwrap();
        let error = Signer::open(directory.path()).unwrap_err();
        assert!(matches!(error, SignerError::NoKey { .. }), "{error}");
        let missing = Signer::open(&directory.path().join(KEY_FILE)).unwrap_err();
        assert!(matches!(missing, SignerError::Access { .. }), "{missing}");
    }
}
