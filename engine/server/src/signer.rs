//! The keys that decisions and checkpoints are signed with: where they are, and when they sign.
//!
//! A directory of keys has a manifest, `keys.json`, as soon as a key was rotated; before that, one
//! file for each use stands for it. Running servers look at the manifest once a second.

mod manifest;
mod pkcs11;
mod private;
mod ring;
mod rotate;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use placet_core::{
    Checkpoint, CheckpointError, Decision, EvictionOrder, KeyError, KeyId, KeySet, SignError,
    SnapshotClaims, note_verifier_key, sign_decision, sign_eviction, sign_snapshot,
};
use placet_core::{SigningKey, VerifyingKey};

pub use manifest::{KeyUse, ListedKey, MANIFEST_FILE, Pin, Place, Token, VARIABLE_PREFIX};
pub use pkcs11::TokenError;
use ring::{Following, Ring};
pub use rotate::{
    MAX_OVERLAP_SECONDS, NextKey, PICKUP_SECONDS, RotateError, Rotated, revoke, rotate,
};

/// The file of the first key of decisions, in the directory of keys.
pub const KEY_FILE: &str = "signing-key.pkcs8";
/// The file of the first key of checkpoints, in the directory of keys.
pub const CHECKPOINT_KEY_FILE: &str = "checkpoint-key.pkcs8";
/// A JWK set without a key.
const EMPTY_JWKS: &str = r#"{"keys":[]}"#;

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
    /// Somebody else owns it.
    #[error(
        "`{path}` belongs to the user {owner}, neither to this one nor to root\n\
         hint: who put it there? chown it if it is yours"
    )]
    Foreign {
        /// The file.
        path: String,
        /// Id of its owner.
        owner: u32,
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
         hint: restore it; if it is lost, move it away and a new key is made; tokens of the old\n\
         one then need its public key"
    )]
    NoKey {
        /// The file.
        path: String,
        /// Why.
        source: KeyError,
    },
    /// The manifest is not as it was written.
    #[error("`{path}` cannot be read as a manifest of keys: {problem}\nhint: restore it")]
    Manifest {
        /// Its file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The manifest is gone.
    #[error(
        "`{path}` is missing, though keys of this directory were rotated\n\
         hint: restore it: without it a key that was retired or revoked would sign again"
    )]
    Lost {
        /// Its file.
        path: String,
    },
    /// A witness has a key of this server.
    #[error(
        "the key of the witness `{name}` is one of this server's own\n\
         hint: leave it out of `witness`: a log cannot be its own witness"
    )]
    OwnWitness {
        /// Its name.
        name: String,
    },
    /// A variable of the environment holds no secret that can be used.
    #[error("the variable `{variable}` of the environment {problem}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong, without what it holds.
        problem: &'static str,
    },
    /// The private part is that of another key.
    #[error("the {place} is not the private part of the key `{kid}`")]
    OtherKey {
        /// Where it is.
        place: String,
        /// Which key the manifest names.
        kid: KeyId,
    },
    /// A key in a token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
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

/// The keys of a directory, those of decisions first, in the order in which they came. Opens none
/// that is not in a file.
///
/// # Errors
/// [`SignerError`].
pub fn listed_keys(directory: &Path) -> Result<Vec<ListedKey>, SignerError> {
    ring::listed(directory)
}

/// The files of a directory that a rotation made, and that no listed key is in: what is left of a
/// rotation that was killed, or was refused behind them.
///
/// # Errors
/// [`SignerError`].
pub fn left_over_files(directory: &Path) -> Result<Vec<String>, SignerError> {
    let listed = ring::listed(directory)?;
    let mut files = manifest::key_files(directory);
    files.retain(|file| {
        !listed.iter().any(|key| matches!(&key.place, Place::File(name) if name == file))
    });
    Ok(files)
}

/// The public keys of decisions of a directory, as a JWK set: canonical JSON. Those that were
/// revoked are in it only if `with_revoked`: for auditors, not for those who act on decisions.
///
/// # Errors
/// [`SignerError`].
pub fn listed_jwks(directory: &Path, with_revoked: bool) -> Result<String, SignerError> {
    let keys = ring::listed(directory)?.into_iter().filter(|key| {
        key.usage == KeyUse::Decision && (with_revoked || key.validity.revoked.is_none())
    });
    Ok(jwks(keys.map(|key| (key.public, key.validity))))
}

fn jwks(keys: impl IntoIterator<Item = (VerifyingKey, placet_core::KeyValidity)>) -> String {
    match KeySet::with_validity(keys) {
        Ok(set) => set.to_json(),
        // Each key is listed once, and there are never too many: there is none.
        Err(_empty) => EMPTY_JWKS.to_owned(),
    }
}

/// Signs decisions; cheap to clone, from any thread. Every clone follows the manifest together.
#[derive(Debug, Clone)]
pub struct Signer(Arc<Following>);

impl Signer {
    /// With a key of the caller's, which signs at any time.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self(Arc::new(Following::fixed(key)))
    }

    /// With the keys of a directory. Makes the directory with mode 0700 and a key with mode 0600 if
    /// there are none.
    ///
    /// # Errors
    /// [`SignerError`]: unreadable, readable by others, or no key.
    pub fn open(directory: &Path) -> Result<Self, SignerError> {
        Ok(Self(Arc::new(Following::open(directory, KeyUse::Decision)?)))
    }

    /// Looks at the manifest at once, not only when a second has passed.
    pub fn look(&self) {
        self.0.look_now();
    }

    /// Whether a key is one of these, be it revoked.
    pub(crate) fn has(&self, key: &VerifyingKey) -> bool {
        self.0.ring().public(true).iter().any(|(own, _)| own == key)
    }

    /// The public keys as a JWK set: canonical JSON. Those to come are in it, those that were
    /// revoked are not.
    #[must_use]
    pub fn jwks(&self) -> String {
        jwks(self.0.ring().public(false))
    }

    /// Those of its keys that what this server wrote for itself may be signed with; none if all
    /// were revoked.
    pub(crate) fn trusted(&self) -> Option<KeySet> {
        self.0.ring().trusted()
    }

    /// The keys as they are now, for all of a batch.
    pub(crate) fn keys(&self) -> DecisionKeys {
        DecisionKeys(self.0.ring())
    }

    /// Signs an order of eviction.
    pub(crate) fn sign_order(&self, order: &EvictionOrder) -> Result<String, SignError> {
        let ring = self.0.ring();
        sign_eviction(ring.at(order.iat).map_err(SignError::Key)?, order)
    }

    /// Signs what a snapshot says of itself.
    pub(crate) fn sign_snapshot(&self, claims: &SnapshotClaims) -> Result<String, SignError> {
        let ring = self.0.ring();
        sign_snapshot(ring.last().map_err(SignError::Key)?, claims)
    }
}

/// The keys of decisions at one moment.
#[derive(Debug)]
pub(crate) struct DecisionKeys(Arc<Ring>);

impl DecisionKeys {
    /// Signs a decision, with the key that is in use at its `iat`.
    pub(crate) fn sign(&self, decision: &Decision) -> Result<String, SignError> {
        sign_decision(self.0.at(decision.iat).map_err(SignError::Key)?, decision)
    }
}

/// Signs checkpoints of the log; cheap to clone. A type of its own, so that neither key can sign
/// what is the other's.
#[derive(Debug, Clone)]
pub struct CheckpointSigner(Arc<Following>);

impl CheckpointSigner {
    /// With a key of the caller's, which signs at any time.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self(Arc::new(Following::fixed(key)))
    }

    /// With the keys of a directory; one is made there if there is none, as [`Signer::open`] does.
    ///
    /// # Errors
    /// [`SignerError`]: unreadable, readable by others, no key, or a key of decisions.
    pub fn open(directory: &Path, decisions: &Signer) -> Result<Self, SignerError> {
        let own = Following::open(directory, KeyUse::Checkpoint)?;
        let others = decisions.0.ring().public(true);
        if own.ring().public(true).iter().any(|key| others.iter().any(|other| other.0 == key.0)) {
            let path = directory.join(CHECKPOINT_KEY_FILE).display().to_string();
            return Err(SignerError::Shared { path });
        }
        Ok(Self(Arc::new(own)))
    }

    /// Looks at the manifest at once, not only when a second has passed.
    pub fn look(&self) {
        self.0.look_now();
    }

    /// Whether a key is one of these, be it revoked.
    pub(crate) fn has(&self, key: &VerifyingKey) -> bool {
        self.0.ring().public(true).iter().any(|(own, _)| own == key)
    }

    /// The public key that signs now, or else the last one, as tools of the C2SP family take it,
    /// for the log of that name.
    ///
    /// # Errors
    /// [`CheckpointError`] if no log can have that name, or there is no key.
    pub fn verifier(&self, origin: &str) -> Result<String, CheckpointError> {
        let ring = self.0.ring();
        let newest = ring.at(crate::Clock::now()).map(|key| key.verifying_key().clone());
        let last = || ring.public(false).pop().map(|(key, _)| key);
        let key = newest.or_else(|error| last().ok_or(CheckpointError::Key(error)))?;
        note_verifier_key(origin, &key)
    }

    /// Whether one of these keys that was not revoked signed a note of the log of that name: not,
    /// if another one did.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is no checkpoint, or was changed.
    pub(crate) fn signed(&self, note: &str, origin: &str) -> Result<bool, CheckpointError> {
        self.signed_by(false, note, origin)
    }

    /// The same of all keys that ever were, revoked ones included.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is no checkpoint, or was changed.
    pub(crate) fn ever_signed(&self, note: &str, origin: &str) -> Result<bool, CheckpointError> {
        self.signed_by(true, note, origin)
    }

    fn signed_by(
        &self,
        with_revoked: bool,
        note: &str,
        origin: &str,
    ) -> Result<bool, CheckpointError> {
        let mut is_signed = false;
        for (key, _) in self.0.ring().public(with_revoked) {
            match Checkpoint::verify(note, origin, &key) {
                Ok(_) => is_signed = true,
                Err(CheckpointError::Unsigned) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(is_signed)
    }

    /// Signs with every key that is in use at that time, the newest first: in an overlap, both.
    ///
    /// # Errors
    /// [`CheckpointError`] if there is no such key, or it gives no signature.
    pub(crate) fn sign(
        &self,
        checkpoint: &Checkpoint,
        now: u64,
    ) -> Result<String, CheckpointError> {
        let ring = self.0.ring();
        let mut note = checkpoint.sign(ring.at(now).map_err(CheckpointError::Key)?)?;
        for key in ring.all_at(now).into_iter().skip(1) {
            // Its text is the same; behind it stands one more line.
            match checkpoint.sign(key) {
                Ok(other) => {
                    let head = checkpoint.text().len().saturating_add(1);
                    note.push_str(other.get(head..).unwrap_or_default());
                }
                // The newest signed: who knows only the older key waits for the next checkpoint.
                Err(error) => tracing::warn!(%error, kid = %key.id(), "a key did not sign"),
            }
        }
        Ok(note)
    }
}

#[cfg(unix)]
fn check_mode(file: &File, path: &Path, refused: u32) -> Result<(), SignerError> {
    use std::os::unix::fs::MetadataExt as _;
    let path = path.display().to_string();
    let own = rustix::process::geteuid().as_raw();
    match file.metadata() {
        // Where others may make files, one of theirs could stand in the place of ours.
        Ok(metadata) if own != 0 && ![own, 0].contains(&metadata.uid()) => {
            Err(SignerError::Foreign { path, owner: metadata.uid() })
        }
        Ok(metadata) if metadata.mode() & refused == 0 => Ok(()),
        Ok(metadata) => Err(SignerError::Exposed { path, mode: metadata.mode() & 0o777 }),
        Err(source) => Err(SignerError::Access { path, source }),
    }
}

#[cfg(not(unix))]
fn check_mode(_file: &File, _path: &Path, _refused: u32) -> Result<(), SignerError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
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
