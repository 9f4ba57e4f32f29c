//! Checkpoints of the log: C2SP tlog-checkpoint, a C2SP signed note with an Ed25519 signature (type
//! 0x01).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::jws::printable;
use crate::merkle::MAX_TREE_SIZE;
use crate::note::{self, SignedNote, Signer};
use crate::{Digest, KeyError, SigningKey, VerifyingKey};

/// Longest signed checkpoint in bytes: room for a hundred witnesses.
pub const MAX_CHECKPOINT_BYTES: usize = 65_536;
/// Longest origin in bytes: that of a host name and a short path.
pub const MAX_ORIGIN_BYTES: usize = note::MAX_NAME_BYTES;

/// Why a checkpoint was not signed, or is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The origin cannot name a log.
    #[error(
        "`{origin}` cannot name a log: 1 to {MAX_ORIGIN_BYTES} printable ASCII characters \
         without space and plus\nhint: use a host name, such as `log.example.com/placet`"
    )]
    Origin {
        /// The origin.
        origin: String,
    },
    /// The tree is larger than any log.
    #[error("names a tree of {size} leaves, at most {MAX_TREE_SIZE} are possible")]
    Size {
        /// Leaves.
        size: u64,
    },
    /// It is not of the form.
    #[error("is not a signed checkpoint: {problem}")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
    },
    /// It is of another log.
    #[error("is a checkpoint of another log, `{found}`, not of `{expected}`")]
    OtherLog {
        /// Which log it names, cut to a printable length.
        found: String,
        /// Which log was expected.
        expected: String,
    },
    /// The key did not sign it.
    #[error("has no signature of the log's key")]
    Unsigned,
    /// A signature of the log's key does not match.
    #[error("is not what the log's key signed: it was changed or damaged")]
    Signature,
    /// The text is no verifier key of a log.
    #[error(
        "is not the verifier key of a log: {problem}\n\
         hint: pass it as the log publishes it, `origin+hash+base64`"
    )]
    VerifierKey {
        /// What is wrong.
        problem: &'static str,
    },
    /// The key gave no signature.
    #[error("the key gave no signature")]
    Key(#[source] KeyError),
}

/// The head of a log: so many leaves, under that root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log: 1 to 255 printable ASCII characters without space and plus.
    pub origin: String,
    /// Root of the tree (RFC 6962 §2.1).
    pub root: Digest,
    /// Leaves: 0..=2^48.
    pub size: u64,
}

impl Checkpoint {
    /// What is signed: three lines. A signed note of this log and head begins with it and an empty
    /// line, unless it has extension lines.
    #[must_use]
    pub fn text(&self) -> String {
        let root = STANDARD.encode(self.root.as_bytes());
        format!("{}\n{}\n{root}\n", self.origin, self.size)
    }

    /// The signed note, as it is published.
    ///
    /// # Errors
    /// [`CheckpointError`]: the origin or the size is not possible, or there is no signature.
    ///
    /// # Example
    /// ```
    /// use placet_core::{Checkpoint, SigningKey, merkle};
    /// let key = SigningKey::generate()?;
    /// let origin = "log.example.com".to_owned();
    /// let checkpoint = Checkpoint { origin, root: merkle::empty_root(), size: 0 };
    /// let note = checkpoint.sign(&key)?;
    /// let read = Checkpoint::verify(&note, "log.example.com", key.verifying_key())?;
    /// assert_eq!(read, checkpoint);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sign(&self, key: &SigningKey) -> Result<String, CheckpointError> {
        check_origin(&self.origin)?;
        check_size(self.size)?;
        let text = self.text();
        let signature = key.sign(text.as_bytes()).map_err(CheckpointError::Key)?;
        let line = log(&self.origin, key.verifying_key()).line(&signature);
        Ok(format!("{text}\n{line}"))
    }

    /// What a signed note says, whoever signed it: for those who have the log itself to hold it
    /// against.
    ///
    /// # Errors
    /// [`CheckpointError`]: it is not of the form.
    pub fn read_unverified(note: &str) -> Result<Self, CheckpointError> {
        if note.len() > MAX_CHECKPOINT_BYTES {
            return Err(malformed("it is too long"));
        }
        let note = SignedNote::read(note).map_err(malformed)?;
        let origin = note.text.lines().next().unwrap_or_default();
        check_origin(origin)?;
        read_text(note.text, origin)
    }

    /// Reads a signed note of the log `origin` whose key is `key`. Extension lines and other
    /// signers are passed over.
    ///
    /// # Errors
    /// [`CheckpointError`] names the first thing that is wrong.
    pub fn verify(note: &str, origin: &str, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        check_origin(origin)?;
        if note.len() > MAX_CHECKPOINT_BYTES {
            return Err(malformed("it is too long"));
        }
        let note = SignedNote::read(note).map_err(malformed)?;
        check_signatures(&note, origin, key)?;
        read_text(note.text, origin)
    }

    /// The same of a log that has had several keys: one of them signed.
    ///
    /// # Errors
    /// [`CheckpointError`] names the first thing that is wrong; [`CheckpointError::Unsigned`] if
    /// none signed, or there is none.
    pub fn verify_any(
        note: &str,
        origin: &str,
        keys: &[VerifyingKey],
    ) -> Result<Self, CheckpointError> {
        let tried = keys.iter().map(|key| Self::verify(note, origin, key));
        let mut passed_over = Err(CheckpointError::Unsigned);
        for result in tried {
            if !matches!(result, Err(CheckpointError::Unsigned)) {
                return result;
            }
            passed_over = result;
        }
        passed_over
    }
}

/// The key of a log as tools of the C2SP family take it: `origin+hash+key` (C2SP signed-note,
/// "Verifier keys").
///
/// # Errors
/// [`CheckpointError::Origin`] if the origin cannot name a log.
pub fn note_verifier_key(origin: &str, key: &VerifyingKey) -> Result<String, CheckpointError> {
    check_origin(origin)?;
    Ok(log(origin, key).verifier_key())
}

/// The origin and the key of a log from what [`note_verifier_key`] wrote.
///
/// # Errors
/// [`CheckpointError::VerifierKey`] if it is anything else, or is damaged.
///
/// # Example
/// ```
/// use placet_core::{SigningKey, note_verifier_key, read_note_verifier_key};
/// let key = SigningKey::generate()?;
/// let text = note_verifier_key("log.example.com", key.verifying_key())?;
/// let (origin, read) = read_note_verifier_key(&text)?;
/// assert_eq!((origin.as_str(), &read), ("log.example.com", key.verifying_key()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_note_verifier_key(text: &str) -> Result<(String, VerifyingKey), CheckpointError> {
    match note::read_verifier_key(text, note::ED25519) {
        Ok((origin, key)) => Ok((origin.to_owned(), key)),
        Err(problem) => Err(CheckpointError::VerifierKey { problem }),
    }
}

fn malformed(problem: &'static str) -> CheckpointError {
    CheckpointError::Malformed { problem }
}

fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    if note::is_name(origin) {
        Ok(())
    } else {
        Err(CheckpointError::Origin { origin: origin.to_owned() })
    }
}

fn check_size(size: u64) -> Result<(), CheckpointError> {
    if size <= MAX_TREE_SIZE { Ok(()) } else { Err(CheckpointError::Size { size }) }
}

fn log<'a>(origin: &'a str, key: &'a VerifyingKey) -> Signer<'a> {
    Signer { name: origin, key, kind: note::ED25519 }
}

fn check_signatures(
    note: &SignedNote<'_>,
    origin: &str,
    key: &VerifyingKey,
) -> Result<(), CheckpointError> {
    let signer = log(origin, key);
    let mut signed = false;
    for line in note.lines.iter().filter(|line| line.is_of(&signer)) {
        if signed {
            return Err(malformed("the log's key signed twice"));
        }
        if !key.verifies(note.text.as_bytes(), &line.signature) {
            return Err(CheckpointError::Signature);
        }
        signed = true;
    }
    match note.text.lines().next() {
        _ if signed => Ok(()),
        // Nobody vouches for the name, but it tells why.
        Some(name) if name != origin => Err(other_log(name, origin)),
        Some(_) | None => Err(CheckpointError::Unsigned),
    }
}

fn other_log(found: &str, expected: &str) -> CheckpointError {
    CheckpointError::OtherLog { found: printable(found), expected: expected.to_owned() }
}

fn read_text(text: &str, origin: &str) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.lines();
    let (Some(name), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(malformed("it has fewer than three lines"));
    };
    if name != origin {
        return Err(other_log(name, origin));
    }
    if lines.any(str::is_empty) {
        return Err(malformed("an extension line is empty"));
    }
    let size = match size.parse::<u64>() {
        Ok(number) if number.to_string() == size => number,
        Ok(_) | Err(_) => return Err(malformed("the second line is not a size")),
    };
    check_size(size)?;
    let mut bytes = [0; 32];
    let root = match STANDARD.decode(root) {
        Ok(decoded) if decoded.len() == bytes.len() => {
            bytes.copy_from_slice(&decoded);
            Digest::from_bytes(bytes)
        }
        Ok(_) | Err(_) => return Err(malformed("the third line is not a root")),
    };
    Ok(Checkpoint { origin: origin.to_owned(), root, size })
}
