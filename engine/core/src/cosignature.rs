//! Cosignatures of witnesses on checkpoints: C2SP tlog-cosignature with Ed25519 (`cosignature/v1`,
//! signature type 0x04).
//!
//! A witness signs that at some time a checkpoint's tree was the largest of that log that it had
//! seen, and that it had only grown until then. A log that shows two people two histories must find
//! witnesses for both.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::checkpoint::MAX_CHECKPOINT_BYTES;
use crate::jws::printable;
use crate::note::{self, SignatureLine, SignedNote, Signer};
use crate::{KeyError, SigningKey, VerifyingKey};

/// Most witnesses that are known at a time, and most cosignatures of a checkpoint: with the longest
/// names they fit [`MAX_CHECKPOINT_BYTES`].
pub const MAX_WITNESSES: usize = 100;
/// Latest time of a cosignature, in seconds since 1970-01-01 UTC (C2SP tlog-cosignature, "Format").
const MAX_TIME: u64 = (1 << 63) - 1;

/// Why a key, or a set of them, is none of witnesses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The text is no verifier key of a witness.
    #[error(
        "is not the verifier key of a witness: {problem}\n\
         hint: pass it as its operator publishes it, `name+hash+base64`"
    )]
    VerifierKey {
        /// What is wrong.
        problem: &'static str,
    },
    /// The name cannot be that of a witness.
    #[error(
        "`{name}` cannot name a witness: 1 to 255 printable ASCII characters without space and \
         plus\nhint: use a host name, such as `witness.example.com/w1`"
    )]
    Name {
        /// The name, cut to a printable length.
        name: String,
    },
    /// Two witnesses have one name or one key, so that one voice would count twice.
    #[error(
        "`{name}` has the name or the key of another witness\n\
         hint: leave one of the two out, they are the same voice"
    )]
    Same {
        /// The second one.
        name: String,
    },
    /// There are too many.
    #[error("more than {MAX_WITNESSES} witnesses are not possible")]
    Count,
}

/// Why a cosignature was not made or added, or those of a checkpoint are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CosignatureError {
    /// The note is not of the form.
    #[error("is not a signed checkpoint: {problem}")]
    Note {
        /// What is wrong.
        problem: &'static str,
    },
    /// The line is not of the form.
    #[error("is not a line of a cosignature: {problem}")]
    Line {
        /// What is wrong.
        problem: &'static str,
    },
    /// The line is of a witness that is not known.
    #[error(
        "is of `{name}`, which is no known witness or has another key\n\
         hint: add its verifier key to the known witnesses first"
    )]
    Unknown {
        /// Who says to have signed, cut to a printable length.
        name: String,
    },
    /// The name cannot be that of a witness.
    #[error("cannot be made by `{name}`: that cannot name a witness")]
    Name {
        /// The name, cut to a printable length.
        name: String,
    },
    /// A cosignature of a known witness does not match.
    #[error("has a cosignature of `{name}` that is not on this checkpoint")]
    Mismatch {
        /// Which witness.
        name: String,
    },
    /// A witness is to stand there twice.
    #[error("has two cosignatures of `{name}`")]
    Twice {
        /// Which witness.
        name: String,
    },
    /// There would be too many signatures.
    #[error("would have more than {MAX_WITNESSES} cosignatures or {MAX_CHECKPOINT_BYTES} bytes")]
    Full,
    /// Too few known witnesses cosigned it.
    #[error(
        "has cosignatures of {found} known witnesses, at least {least} are asked for\n\
         hint: ask the log for it again, witnesses may need a while"
    )]
    Quorum {
        /// How many are there.
        found: usize,
        /// How many are asked for.
        least: usize,
    },
    /// The time is beyond what a cosignature can hold.
    #[error("cannot be made at {time}: at most 2^63 - 1 seconds are possible")]
    Time {
        /// The time, in seconds since 1970-01-01 UTC.
        time: u64,
    },
    /// The key gave no signature.
    #[error("the key gave no signature")]
    Key(#[source] KeyError),
}

/// A witness: a name and a public key. Its text is its verifier key (C2SP signed-note, "Verifier
/// keys"): `name+hash+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    name: String,
    key: VerifyingKey,
}

impl Witness {
    /// Of that name: 1 to 255 printable ASCII characters without space and plus.
    ///
    /// # Errors
    /// [`WitnessError::Name`].
    pub fn new(name: impl Into<String>, key: VerifyingKey) -> Result<Self, WitnessError> {
        let name = name.into();
        if note::is_name(&name) {
            Ok(Self { name, key })
        } else {
            Err(WitnessError::Name { name: printable(&name) })
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public key.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    fn signer(&self) -> Signer<'_> {
        Signer { name: &self.name, key: &self.key, kind: note::COSIGNATURE }
    }

    /// When it cosigned that text, if the line is its own and good.
    fn verified(&self, text: &str, line: &SignatureLine<'_>) -> Result<u64, CosignatureError> {
        let mismatch = || CosignatureError::Mismatch { name: self.name.clone() };
        let (time, signature) = line.signature.split_first_chunk::<8>().ok_or_else(mismatch)?;
        let time = u64::from_be_bytes(*time);
        let good = time <= MAX_TIME && self.key.verifies(&message(time, text), signature);
        if good { Ok(time) } else { Err(mismatch()) }
    }
}

impl FromStr for Witness {
    type Err = WitnessError;

    fn from_str(text: &str) -> Result<Self, WitnessError> {
        match note::read_verifier_key(text, note::COSIGNATURE) {
            Ok((name, key)) => Ok(Self { name: name.to_owned(), key }),
            Err(problem) => Err(WitnessError::VerifierKey { problem }),
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.signer().verifier_key())
    }
}

/// What a witness said of a checkpoint, found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// When it cosigned: seconds since 1970-01-01 UTC, 0..=2^63-1.
    pub time: u64,
    /// Name of the witness.
    pub witness: String,
}

/// The witnesses that somebody trusts: at most [`MAX_WITNESSES`], no two with one name or one key.
///
/// # Example
/// ```
/// use placet_core::{Checkpoint, SigningKey, Witness, Witnesses, cosign, merkle};
/// let log = SigningKey::generate()?;
/// let origin = "log.example.com".to_owned();
/// let note = Checkpoint { origin, root: merkle::empty_root(), size: 0 }.sign(&log)?;
///
/// let key = SigningKey::generate()?;
/// let name = "witness.example.com/w1";
/// let witness = Witness::new(name, key.verifying_key().clone())?;
/// let line = cosign(&note, name, &key, 1_793_491_200)?;
///
/// let witnesses = Witnesses::new([witness.to_string().parse()?])?;
/// let note = witnesses.add(&note, &line)?;
/// let found = witnesses.quorum(&note, 1)?;
/// assert_eq!((found[0].witness.as_str(), found[0].time), (name, 1_793_491_200));
/// // Who does not know the witness passes over it.
/// Checkpoint::verify(&note, "log.example.com", log.verifying_key())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnesses(Vec<Witness>);

impl Witnesses {
    /// These.
    ///
    /// # Errors
    /// [`WitnessError`]: too many, or two that are the same.
    pub fn new(witnesses: impl IntoIterator<Item = Witness>) -> Result<Self, WitnessError> {
        let mut known: Vec<Witness> = Vec::new();
        for witness in witnesses {
            // One key must not count twice: what is signed does not say under which name (C2SP
            // tlog-cosignature, "Ed25519 signed message").
            if known.iter().any(|other| other.name == witness.name || other.key == witness.key) {
                return Err(WitnessError::Same { name: witness.name });
            }
            if known.len() == MAX_WITNESSES {
                return Err(WitnessError::Count);
            }
            known.push(witness);
        }
        Ok(Self(known))
    }

    /// Them, in the order given.
    #[must_use]
    pub fn as_slice(&self) -> &[Witness] {
        &self.0
    }

    /// Which of them cosigned a note, in the order of its lines. Other signers are passed over; the
    /// log's own signature is not looked at: see [`crate::Checkpoint::verify`].
    ///
    /// # Errors
    /// [`CosignatureError`]: it is no note, or a cosignature of one of them does not match or
    /// stands there twice.
    pub fn cosignatures(&self, note: &str) -> Result<Vec<Cosignature>, CosignatureError> {
        let note = read(note)?;
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for line in &note.lines {
            let Some(witness) = self.find(line) else { continue };
            if !seen.insert(witness.name()) {
                return Err(CosignatureError::Twice { name: witness.name.clone() });
            }
            let time = witness.verified(note.text, line)?;
            found.push(Cosignature { time, witness: witness.name.clone() });
        }
        Ok(found)
    }

    /// The same, if at least so many of them cosigned the note.
    ///
    /// # Errors
    /// As [`Witnesses::cosignatures`], and [`CosignatureError::Quorum`].
    pub fn quorum(&self, note: &str, least: usize) -> Result<Vec<Cosignature>, CosignatureError> {
        let found = self.cosignatures(note)?;
        if found.len() >= least {
            Ok(found)
        } else {
            Err(CosignatureError::Quorum { found: found.len(), least })
        }
    }

    /// The note with one more cosignature, which is verified first. `line` is what a witness
    /// answers: one line, with or without its line break.
    ///
    /// # Errors
    /// [`CosignatureError`]: the note is none, the line is none, is of none of them or on another
    /// checkpoint, or there is no room.
    pub fn add(&self, note: &str, line: &str) -> Result<String, CosignatureError> {
        let read_note = read(note)?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line_error = |problem| CosignatureError::Line { problem };
        if line.len() > MAX_CHECKPOINT_BYTES {
            return Err(line_error("it is too long"));
        }
        if line.chars().any(char::is_control) {
            return Err(line_error("it is more than one line, or has control characters"));
        }
        let signature = SignatureLine::read(line).map_err(line_error)?;
        let Some(witness) = self.find(&signature) else {
            return Err(CosignatureError::Unknown { name: printable(signature.name) });
        };
        witness.verified(read_note.text, &signature)?;
        if read_note.lines.iter().any(|other| other.is_of(&witness.signer())) {
            return Err(CosignatureError::Twice { name: witness.name.clone() });
        }
        // The first line is the log's own.
        let grown = format!("{note}{line}\n");
        if read_note.lines.len() > MAX_WITNESSES || grown.len() > MAX_CHECKPOINT_BYTES {
            return Err(CosignatureError::Full);
        }
        Ok(grown)
    }

    fn find(&self, line: &SignatureLine<'_>) -> Option<&Witness> {
        self.0.iter().find(|witness| line.is_of(&witness.signer()))
    }
}

/// The line by which a witness of that name cosigns a note at `time`, in seconds since 1970-01-01
/// UTC.
///
/// Whoever calls it has verified the log's signature on the note, and that the tree began with the
/// one that it cosigned before.
///
/// # Errors
/// [`CosignatureError`]: it is no note, the name or the time is not possible, or the key failed.
///
/// # Example
/// See [`Witnesses`].
pub fn cosign(
    note: &str,
    name: &str,
    key: &SigningKey,
    time: u64,
) -> Result<String, CosignatureError> {
    let note = read(note)?;
    if !note::is_name(name) {
        return Err(CosignatureError::Name { name: printable(name) });
    }
    if time > MAX_TIME {
        return Err(CosignatureError::Time { time });
    }
    let signature = key.sign(&message(time, note.text)).map_err(CosignatureError::Key)?;
    let signer = Signer { name, key: key.verifying_key(), kind: note::COSIGNATURE };
    Ok(signer.line(&[time.to_be_bytes().as_slice(), &signature].concat()))
}

/// What a witness signs (C2SP tlog-cosignature, "Ed25519 signed message").
fn message(time: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

fn read(note: &str) -> Result<SignedNote<'_>, CosignatureError> {
    let error = |problem| CosignatureError::Note { problem };
    if note.len() > MAX_CHECKPOINT_BYTES {
        return Err(error("it is too long"));
    }
    SignedNote::read(note).map_err(error)
}
