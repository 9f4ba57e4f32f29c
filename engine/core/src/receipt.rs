//! Receipts: one file that proves offline that an event is in the log (C2SP tlog-proof).
//!
//! A receipt has the very bytes of a leaf, the proof that they are in a tree, and the checkpoint of
//! that tree. Whoever has the log's key needs nothing else, and nobody's word.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::MAX_CHECKPOINT_BYTES;
use crate::merkle::{self, InclusionProof, MAX_DEPTH, MAX_TREE_SIZE};
use crate::note::SignedNote;
use crate::{
    Checkpoint, CheckpointError, Decision, Digest, Event, LEAF_VERSION, Leaf, MAX_LEAF_BYTES,
    Verifier, VerifyError, VerifyingKey, canonical_json,
};

/// Longest receipt in bytes: the longest leaf in base64 has 87,380, 48 hashes have 2,160, and the
/// longest checkpoint has 65,536.
pub const MAX_RECEIPT_BYTES: usize = 163_840;

/// First line (C2SP tlog-proof, "Format").
const VERSION_LINE: &str = "c2sp.org/tlog-proof@v1";
/// How the line with the leaf begins.
const EXTRA: &str = "extra ";
/// How the line with the position begins.
const INDEX: &str = "index ";

/// Why a receipt was not made, cannot be read, or proves nothing: one variant for each part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It has more bytes than a receipt can have.
    #[error("is not a receipt: it has {bytes} bytes, at most {MAX_RECEIPT_BYTES} are possible")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
    },
    /// A line is not of the form.
    #[error(
        "is not a receipt: line {line} {problem}\n\
         hint: pass the file as it was received, with line feeds between its lines"
    )]
    Malformed {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What stands where its checkpoint should is none.
    #[error(
        "is not a receipt: what begins in line {line} is no signed checkpoint: {problem}\n\
         hint: pass the whole file as it was received"
    )]
    Note {
        /// First line of it, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It cannot be written.
    #[error("cannot be a receipt: {problem}")]
    Impossible {
        /// What is wrong.
        problem: &'static str,
    },
    /// Its checkpoint is none of the log.
    #[error("has a checkpoint that is refused")]
    Checkpoint(#[source] CheckpointError),
    /// Its leaf would come after the end of its tree.
    #[error(
        "is about leaf {index}, counted from 0, but its checkpoint is of {size} leaves\n\
         hint: the checkpoint is older than the leaf, or the position was changed"
    )]
    Position {
        /// Position of the leaf, from 0.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// Its proof is of another tree.
    #[error(
        "has a proof of {found} hashes, but leaf {index} of {size} is proved by {expected}\n\
         hint: proof and checkpoint are of different trees; ask for the receipt again"
    )]
    ProofLength {
        /// Position of the leaf, from 0.
        index: u64,
        /// Leaves of the tree.
        size: u64,
        /// Hashes that it has.
        found: usize,
        /// Hashes that a proof of that leaf has.
        expected: usize,
    },
    /// Its proof does not lead from its leaf to the root.
    #[error(
        "has a proof that does not lead from its leaf, as number {index}, to the root of its \
         checkpoint\nhint: the proof belongs to another leaf, or something was changed; do not \
         rely on it"
    )]
    Proof {
        /// Position of the leaf, from 0.
        index: u64,
    },
    /// Its leaf is in the log, but in a newer format.
    #[error(
        "has a leaf of version {version}, this verifier reads {LEAF_VERSION}\n\
         hint: install a newer verifier"
    )]
    Version {
        /// The `v` of the leaf.
        version: u64,
    },
    /// What is in the log is no leaf of ours.
    #[error("has a leaf that is in the log, but is no event of Placet")]
    Leaf(#[source] serde_json::Error),
    /// What is in the log is another spelling of a leaf of ours.
    #[error("has a leaf that is in the log, but not in canonical form (RFC 8785)")]
    NotCanonical,
    /// Its event is no decision.
    #[error("proves an event that is no decision\nhint: there is no decision token in it")]
    NoDecision,
    /// Its decision was not issued.
    #[error("proves a decision whose token is refused")]
    Token(#[source] VerifyError),
}

/// An event of the log, its proof and the checkpoint under which it is proved. Nothing of it is
/// verified before [`Receipt::verify`].
///
/// # Example
/// ```
/// use placet_core::merkle::{self, InclusionProof};
/// use placet_core::{Checkpoint, Event, Leaf, Receipt, SigningKey, canonical_json};
/// let key = SigningKey::generate()?;
/// let origin = "log.example.com".to_owned();
/// let event = Event::Genesis { origin: origin.clone(), store: "0".repeat(32) };
/// let leaf = canonical_json(&Leaf { event, time: 1_793_491_200, v: 1 })?;
/// let checkpoint = Checkpoint { origin, root: merkle::leaf_hash(&leaf), size: 1 };
///
/// let proof = InclusionProof { hashes: vec![] };
/// let receipt = Receipt::new(leaf, 0, proof, checkpoint.sign(&key)?)?;
/// let file = receipt.to_text();
///
/// let read = Receipt::from_text(file.as_bytes())?;
/// let logged = read.verify("log.example.com", key.verifying_key())?;
/// assert_eq!(logged.leaf.time, 1_793_491_200);
/// assert_eq!(logged.checkpoint, checkpoint);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    leaf: Vec<u8>,
    index: u64,
    proof: InclusionProof,
    note: String,
}

/// What a receipt proves, once it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The head of the log under which it is proved.
    pub checkpoint: Checkpoint,
    /// Position of the leaf in the log, from 0.
    pub index: u64,
    /// The event.
    pub leaf: Leaf,
}

impl Logged {
    /// The decision that is proved, however long ago it was issued and for whomever: for auditors,
    /// not for PEPs.
    ///
    /// # Errors
    /// [`ReceiptError::NoDecision`] if it is another event, [`ReceiptError::Token`] if its token
    /// was not issued by `issuer`.
    pub fn decision(&self, verifier: &Verifier, issuer: &str) -> Result<Decision, ReceiptError> {
        let Event::Decision { token, .. } = &self.leaf.event else {
            return Err(ReceiptError::NoDecision);
        };
        verifier.verify_issued(token, issuer).map_err(ReceiptError::Token)
    }
}

impl Receipt {
    /// Of the leaf at `index` (from 0), of which `proof` is to prove that it is in the tree of the
    /// signed checkpoint `note`.
    ///
    /// # Errors
    /// [`ReceiptError::Impossible`] if it has no file: the leaf is empty or too long, the position
    /// or the proof beyond every tree, the checkpoint no signed note.
    pub fn new(
        leaf: Vec<u8>,
        index: u64,
        proof: InclusionProof,
        note: impl Into<String>,
    ) -> Result<Self, ReceiptError> {
        let note = note.into();
        let problem = if leaf.is_empty() || leaf.len() > MAX_LEAF_BYTES {
            "its leaf is empty or too long"
        } else if index >= MAX_TREE_SIZE {
            "no log has a leaf of that number"
        } else if proof.hashes.len() > MAX_DEPTH {
            "no proof has so many hashes"
        } else if note.len() > MAX_CHECKPOINT_BYTES {
            "its checkpoint is too long"
        } else if let Err(problem) = SignedNote::read(&note) {
            problem
        } else {
            return Ok(Self { leaf, index, proof, note });
        };
        Err(ReceiptError::Impossible { problem })
    }

    /// The bytes of the leaf: 1 to 65,535.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        &self.leaf
    }

    /// Position of the leaf in the log, from 0: below 2^48.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The proof that the leaf is in the tree.
    #[must_use]
    pub fn proof(&self) -> &InclusionProof {
        &self.proof
    }

    /// The signed checkpoint, for [`crate::Witnesses::quorum`] too.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The file: text of at most [`MAX_RECEIPT_BYTES`].
    #[must_use]
    pub fn to_text(&self) -> String {
        let leaf = STANDARD.encode(&self.leaf);
        let mut text = format!("{VERSION_LINE}\n{EXTRA}{leaf}\n{INDEX}{}\n", self.index);
        for hash in &self.proof.hashes {
            STANDARD.encode_string(hash.as_bytes(), &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Reads the file. There is one spelling of each receipt.
    ///
    /// # Errors
    /// [`ReceiptError::TooLong`], or [`ReceiptError::Malformed`] or [`ReceiptError::Note`] that
    /// name the line.
    pub fn from_text(text: &[u8]) -> Result<Self, ReceiptError> {
        if text.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLong { bytes: text.len() });
        }
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                let before = text.iter().take(error.valid_up_to());
                let line = before.filter(|byte| **byte == b'\n').count().saturating_add(1);
                return Err(malformed(line, "is not UTF-8"));
            }
        };
        Lines { rest: text, number: 0 }.receipt()
    }

    /// Checks it against the name and the key of a log, and tells what it proves. Cosignatures are
    /// passed over: see [`crate::Witnesses::quorum`].
    ///
    /// Of a log that has changed its key, old receipts verify with the old one: with others the
    /// error is [`CheckpointError::Unsigned`].
    ///
    /// # Errors
    /// [`ReceiptError`] names the first part that is wrong: the checkpoint, the position, the
    /// proof, the leaf.
    pub fn verify(&self, origin: &str, key: &VerifyingKey) -> Result<Logged, ReceiptError> {
        let checkpoint =
            Checkpoint::verify(&self.note, origin, key).map_err(ReceiptError::Checkpoint)?;
        let (index, size) = (self.index, checkpoint.size);
        if index >= size {
            return Err(ReceiptError::Position { index, size });
        }
        let (found, expected) = (self.proof.hashes.len(), merkle::inclusion_hashes(index, size));
        if found != expected {
            return Err(ReceiptError::ProofLength { index, size, found, expected });
        }
        let leaf = merkle::leaf_hash(&self.leaf);
        match self.proof.verify(index, size, checkpoint.root, leaf) {
            Ok(()) => {}
            Err(_) => return Err(ReceiptError::Proof { index }),
        }
        Ok(Logged { checkpoint, index, leaf: read_leaf(&self.leaf)? })
    }
}

fn malformed(line: usize, problem: &'static str) -> ReceiptError {
    ReceiptError::Malformed { line, problem }
}

/// The lines of a file, read one after the other.
struct Lines<'a> {
    rest: &'a str,
    /// Of the line last read, from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, ReceiptError> {
        self.number = self.number.saturating_add(1);
        let Some((line, rest)) = self.rest.split_once('\n') else {
            return Err(self.malformed("is missing or has no line feed"));
        };
        self.rest = rest;
        Ok(line)
    }

    fn malformed(&self, problem: &'static str) -> ReceiptError {
        malformed(self.number, problem)
    }

    fn receipt(mut self) -> Result<Receipt, ReceiptError> {
        if self.next()? != VERSION_LINE {
            return Err(self.malformed("is not `c2sp.org/tlog-proof@v1`"));
        }
        let Some(encoded) = self.next()?.strip_prefix(EXTRA) else {
            return Err(self.malformed("is not `extra` and the leaf, which every receipt has"));
        };
        let leaf = match STANDARD.decode(encoded) {
            Ok(leaf) if (1..=MAX_LEAF_BYTES).contains(&leaf.len()) => leaf,
            Ok(_) => return Err(self.malformed("has a leaf that is empty or too long")),
            Err(_) => return Err(self.malformed("has a leaf that is not base64")),
        };
        let Some(index) = self.next()?.strip_prefix(INDEX) else {
            return Err(self.malformed("is not `index` and a number"));
        };
        let index = match index.parse::<u64>() {
            Ok(number) if number < MAX_TREE_SIZE && number.to_string() == index => number,
            Ok(_) | Err(_) => return Err(self.malformed("has no number that a leaf can have")),
        };
        let proof = self.proof()?;
        // The checkpoint begins behind the empty line.
        let line = self.number.saturating_add(1);
        if self.rest.len() > MAX_CHECKPOINT_BYTES {
            return Err(ReceiptError::Note { line, problem: "it is too long" });
        }
        match SignedNote::read(self.rest) {
            Ok(_) => Ok(Receipt { leaf, index, proof, note: self.rest.to_owned() }),
            Err(problem) => Err(ReceiptError::Note { line, problem }),
        }
    }

    fn proof(&mut self) -> Result<InclusionProof, ReceiptError> {
        let mut hashes = Vec::new();
        loop {
            let line = self.next()?;
            if line.is_empty() {
                return Ok(InclusionProof { hashes });
            }
            if hashes.len() == MAX_DEPTH {
                return Err(self.malformed("is one hash more than any proof has"));
            }
            let mut bytes = [0; 32];
            match STANDARD.decode(line) {
                Ok(decoded) if decoded.len() == bytes.len() => bytes.copy_from_slice(&decoded),
                Ok(_) | Err(_) => return Err(self.malformed("is not a hash: 32 bytes in base64")),
            }
            hashes.push(Digest::from_bytes(bytes));
        }
    }
}

/// The event of a leaf that the log has.
fn read_leaf(bytes: &[u8]) -> Result<Leaf, ReceiptError> {
    /// Read first where the rest cannot be read: another version may have other members.
    #[derive(serde::Deserialize)]
    struct Versioned {
        v: u64,
    }
    let leaf: Leaf = match serde_json::from_slice(bytes) {
        Ok(leaf) => leaf,
        Err(error) => match serde_json::from_slice::<Versioned>(bytes) {
            Ok(Versioned { v }) if v != u64::from(LEAF_VERSION) => {
                return Err(ReceiptError::Version { version: v });
            }
            Ok(_) | Err(_) => return Err(ReceiptError::Leaf(error)),
        },
    };
    if leaf.v != LEAF_VERSION {
        return Err(ReceiptError::Version { version: u64::from(leaf.v) });
    }
    // One spelling for one event: this also refuses members that stand there twice.
    match canonical_json(&leaf) {
        Ok(canonical) if canonical == bytes => Ok(leaf),
        Ok(_) | Err(_) => Err(ReceiptError::NotCanonical),
    }
}
