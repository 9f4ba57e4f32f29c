//! Checkpoints of the log: C2SP tlog-checkpoint, a C2SP signed note with an Ed25519 signature (type
//! 0x01).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::MAX_TREE_SIZE;
use crate::signature::SIGNATURE_BYTES;
use crate::{Digest, KeyError, SigningKey, VerifyingKey};

/// Longest signed checkpoint in bytes: room for a hundred witnesses.
pub const MAX_CHECKPOINT_BYTES: usize = 65_536;
/// Longest origin in bytes: that of a host name and a short path.
pub const MAX_ORIGIN_BYTES: usize = 255;

/// Signature type of C2SP signed-note, "Signature types": Ed25519.
const TYPE_ED25519: u8 = 1;
/// Bytes of a note's key hash.
const KEY_HASH_BYTES: usize = 4;
/// How a signature line begins: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";

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
    #[error("is a checkpoint of another log, not of `{expected}`")]
    OtherLog {
        /// Which log was expected.
        expected: String,
    },
    /// The key did not sign it.
    #[error("has no signature of the log's key")]
    Unsigned,
    /// A signature of the log's key does not match.
    #[error("is not what the log's key signed: it was changed or damaged")]
    Signature,
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
        let mut note = self.text();
        let signature = key.sign(note.as_bytes()).map_err(CheckpointError::Key)?;
        let mut line = Vec::with_capacity(KEY_HASH_BYTES + SIGNATURE_BYTES);
        line.extend_from_slice(&key_hash(&self.origin, key.verifying_key()));
        line.extend_from_slice(&signature);
        let line = STANDARD.encode(line);
        writeln!(note, "\n{SIGNATURE_MARK}{} {line}", self.origin)
            .expect("writing to a String cannot fail");
        Ok(note)
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
        if note.chars().any(|char| char < ' ' && char != '\n') {
            return Err(malformed("it has control characters"));
        }
        // The last empty line parts the text from the signatures; the text keeps its own line
        // break.
        let Some((head, signatures)) = note.rsplit_once("\n\n") else {
            return Err(malformed("no empty line stands before the signatures"));
        };
        let Some(text) = note.get(..=head.len()) else {
            return Err(malformed("it is empty"));
        };
        check_signatures(text, signatures, origin, key)?;
        read_text(text, origin)
    }
}

/// The key of a log as tools of the C2SP family take it: `origin+hash+key` (C2SP signed-note,
/// "Verifier keys").
///
/// # Errors
/// [`CheckpointError::Origin`] if the origin cannot name a log.
pub fn note_verifier_key(origin: &str, key: &VerifyingKey) -> Result<String, CheckpointError> {
    check_origin(origin)?;
    let hash = u32::from_be_bytes(key_hash(origin, key));
    Ok(format!("{origin}+{hash:08x}+{}", STANDARD.encode(typed_key(key))))
}

fn malformed(problem: &'static str) -> CheckpointError {
    CheckpointError::Malformed { problem }
}

fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    let possible = (1..=MAX_ORIGIN_BYTES).contains(&origin.len())
        && origin.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+');
    if possible { Ok(()) } else { Err(CheckpointError::Origin { origin: origin.to_owned() }) }
}

fn check_size(size: u64) -> Result<(), CheckpointError> {
    if size <= MAX_TREE_SIZE { Ok(()) } else { Err(CheckpointError::Size { size }) }
}

fn typed_key(key: &VerifyingKey) -> Vec<u8> {
    [&[TYPE_ED25519], key.as_bytes().as_slice()].concat()
}

/// C2SP signed-note, "Signatures": the first bytes of SHA-256 over name, line break, type and key.
fn key_hash(origin: &str, key: &VerifyingKey) -> [u8; KEY_HASH_BYTES] {
    let digest = Digest::of_parts(&[origin.as_bytes(), b"\n", &typed_key(key)]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}

fn check_signatures(
    text: &str,
    signatures: &str,
    origin: &str,
    key: &VerifyingKey,
) -> Result<(), CheckpointError> {
    let Some(lines) = signatures.strip_suffix('\n') else {
        return Err(malformed("the last line has no line break"));
    };
    let expected = key_hash(origin, key);
    let mut signed = false;
    for line in lines.split('\n') {
        let parts = line.strip_prefix(SIGNATURE_MARK).and_then(|line| line.split_once(' '));
        let Some((name, encoded)) = parts else {
            return Err(malformed("a signature line is not `\u{2014} name base64`"));
        };
        let bytes = match STANDARD.decode(encoded) {
            Ok(bytes) => bytes,
            Err(_) => return Err(malformed("a signature is not base64")),
        };
        let Some((hash, signature)) = bytes.split_first_chunk::<KEY_HASH_BYTES>() else {
            return Err(malformed("a signature is too short"));
        };
        if name != origin || *hash != expected {
            continue;
        }
        if signed {
            return Err(malformed("the log's key signed twice"));
        }
        if !key.verifies(text.as_bytes(), signature) {
            return Err(CheckpointError::Signature);
        }
        signed = true;
    }
    if signed { Ok(()) } else { Err(CheckpointError::Unsigned) }
}

fn read_text(text: &str, origin: &str) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.lines();
    let (Some(name), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(malformed("it has fewer than three lines"));
    };
    if name != origin {
        return Err(CheckpointError::OtherLog { expected: origin.to_owned() });
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
