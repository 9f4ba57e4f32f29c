//! Signed notes (C2SP signed-note): a text, an empty line, and one line for each signature.
//!
//! What a note says is not looked at here: [`crate::Checkpoint`] reads the text, and each kind of
//! signature is checked by whoever knows its message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::signature::PUBLIC_KEY_BYTES;
use crate::{Digest, VerifyingKey};

/// Longest name of a signer in bytes: that of a host name and a short path.
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// Bytes of a note's key hash.
const KEY_HASH_BYTES: usize = 4;
/// How a signature line begins: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// Ed25519 over the text (C2SP signed-note, "Signature types").
pub(crate) const ED25519: u8 = 1;
/// Ed25519 over a time and the text (C2SP tlog-cosignature).
pub(crate) const COSIGNATURE: u8 = 4;

/// A key under a name, for one type of signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signer<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a VerifyingKey,
    /// The type of its signatures.
    pub(crate) kind: u8,
}

impl Signer<'_> {
    fn typed_key(&self) -> Vec<u8> {
        [&[self.kind], self.key.as_bytes().as_slice()].concat()
    }

    /// C2SP signed-note, "Signatures": the first bytes of SHA-256 over name, line break, type and
    /// key.
    fn key_hash(&self) -> [u8; KEY_HASH_BYTES] {
        let digest = Digest::of_parts(&[self.name.as_bytes(), b"\n", &self.typed_key()]);
        let [a, b, c, d, ..] = *digest.as_bytes();
        [a, b, c, d]
    }

    /// The key as tools of the C2SP family take it: `name+hash+key` (C2SP signed-note, "Verifier
    /// keys").
    pub(crate) fn verifier_key(&self) -> String {
        let hash = u32::from_be_bytes(self.key_hash());
        format!("{}+{hash:08x}+{}", self.name, STANDARD.encode(self.typed_key()))
    }

    /// The line of a signature, with its line break.
    pub(crate) fn line(&self, signature: &[u8]) -> String {
        let bytes = [self.key_hash().as_slice(), signature].concat();
        format!("{SIGNATURE_MARK}{} {}\n", self.name, STANDARD.encode(bytes))
    }
}

/// A line below the text: who says to have signed, and the bytes that shall show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignatureLine<'a> {
    pub(crate) name: &'a str,
    hash: [u8; KEY_HASH_BYTES],
    pub(crate) signature: Vec<u8>,
}

impl<'a> SignatureLine<'a> {
    /// Reads a line without its line break.
    pub(crate) fn read(line: &'a str) -> Result<Self, &'static str> {
        let parts = line.strip_prefix(SIGNATURE_MARK).and_then(|line| line.split_once(' '));
        let Some((name, encoded)) = parts else {
            return Err("a signature line is not `\u{2014} name base64`");
        };
        let bytes = match STANDARD.decode(encoded) {
            Ok(bytes) => bytes,
            Err(_) => return Err("a signature is not base64"),
        };
        let Some((hash, signature)) = bytes.split_first_chunk::<KEY_HASH_BYTES>() else {
            return Err("a signature is too short");
        };
        Ok(Self { name, hash: *hash, signature: signature.to_vec() })
    }

    /// Whether it says to be of that signer. Both name and hash count: others may share one of
    /// them.
    pub(crate) fn is_of(&self, signer: &Signer<'_>) -> bool {
        self.name == signer.name && self.hash == signer.key_hash()
    }
}

/// A note taken apart; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedNote<'a> {
    /// What is signed, with its last line break.
    pub(crate) text: &'a str,
    /// One or more, in the order of the note.
    pub(crate) lines: Vec<SignatureLine<'a>>,
}

impl<'a> SignedNote<'a> {
    /// Takes a note apart. Whoever calls it has bounded its length.
    pub(crate) fn read(note: &'a str) -> Result<Self, &'static str> {
        if note.chars().any(|char| char < ' ' && char != '\n') {
            return Err("it has control characters");
        }
        // The last empty line parts the text from the signatures; the text keeps its own line
        // break.
        let Some((head, signatures)) = note.rsplit_once("\n\n") else {
            return Err("no empty line stands before the signatures");
        };
        let Some(text) = note.get(..=head.len()) else {
            return Err("it is empty");
        };
        let Some(signatures) = signatures.strip_suffix('\n') else {
            return Err("the last line has no line break");
        };
        let lines = signatures.split('\n').map(SignatureLine::read).collect::<Result<_, _>>()?;
        Ok(Self { text, lines })
    }
}

/// Whether a signer can have that name: 1 to 255 printable ASCII characters without space and plus.
///
/// The specification allows more than ASCII; we do not, so that no two names look alike.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+')
}

/// The name and the key of a verifier key of that type.
pub(crate) fn read_verifier_key(
    text: &str,
    kind: u8,
) -> Result<(&str, VerifyingKey), &'static str> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("it is not `name+hash+base64`");
    };
    if !is_name(name) {
        return Err("its name is not 1 to 255 printable ASCII characters without space and plus");
    }
    let bytes = match STANDARD.decode(encoded) {
        Ok(bytes) => bytes,
        Err(_) => return Err("its key is not base64"),
    };
    let key = match bytes.split_first() {
        Some((found, key)) if *found == kind && key.len() == PUBLIC_KEY_BYTES => key,
        Some((&ED25519, _)) if kind == COSIGNATURE => {
            return Err("it is the key of a log (type 1), not of a witness (type 4)");
        }
        Some((&COSIGNATURE, _)) if kind == ED25519 => {
            return Err("it is the key of a witness (type 4), not of a log (type 1)");
        }
        Some(_) | None => return Err("it is not an Ed25519 key of the type expected"),
    };
    let Ok(key) = VerifyingKey::from_bytes(key) else {
        return Err("its key names no point of the curve");
    };
    let signer = Signer { name, key: &key, kind };
    if signer.verifier_key() == text {
        Ok((name, key))
    } else {
        Err("its hash is not that of its name and key")
    }
}
