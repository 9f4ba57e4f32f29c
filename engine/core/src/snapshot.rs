//! Signed headers of snapshots: what a file that caches the fold of a log says of itself.
//!
//! Nobody but the server that signed a snapshot reads it. The signature is no proof towards others:
//! it keeps a file that somebody else wrote from being taken for what the server folded.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::jws::{self, Refusal};
use crate::token::SignError;
use crate::{Digest, KeySet, SigningKey, canonical_json};

/// `typ` of the header of a snapshot's claims (RFC 8725 §3.11: explicit typing).
pub const SNAPSHOT_TYP: &str = "placet-snapshot+jwt";
/// Longest signed claims of a snapshot in bytes: ours have about 700.
pub const MAX_SNAPSHOT_CLAIMS_BYTES: usize = 2_048;

/// What a snapshot says of itself. Its canonical JSON is the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotClaims {
    /// Bytes of the content.
    pub content_bytes: u64,
    /// SHA-256 of the content.
    pub content_digest: Digest,
    /// Format of the content: see `engine/docs/formats.md`.
    pub format: u32,
    /// Items of the content.
    pub items: u64,
    /// Root of the log's Merkle tree at `size` (RFC 6962 §2.1).
    pub root: Digest,
    /// Leaves that were folded, 1 or more.
    pub size: u64,
    /// Name of the store: 32 hexadecimal digits.
    pub store: String,
    /// Time of the last of these leaves, in seconds since 1970-01-01 UTC.
    pub time: u64,
}

/// Why the claims of a snapshot are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotClaimsError {
    /// They are not signed by one of the keys.
    #[error("its header {0}")]
    Signature(String),
    /// The payload is not that of a snapshot.
    #[error("its header is not that of a snapshot")]
    Claims(#[source] serde_json::Error),
    /// The payload is not in canonical form.
    #[error("its header is not in canonical form (RFC 8785)")]
    NotCanonical,
}

/// Signs what a snapshot says of itself. Same key and claims, same text.
///
/// # Errors
/// [`SignError`]: no signature, or too long.
///
/// # Example
/// ```
/// use placet_core::{Digest, KeySet, SigningKey, SnapshotClaims, sign_snapshot, verify_snapshot};
/// let key = SigningKey::generate()?;
/// let claims = SnapshotClaims {
///     content_bytes: 0,
///     content_digest: Digest::of(b""),
///     format: 1,
///     items: 0,
///     root: Digest::of(b"x"),
///     size: 1,
///     store: "0".repeat(32),
///     time: 0,
/// };
/// let signed = sign_snapshot(&key, &claims)?;
/// let keys = KeySet::new([key.verifying_key().clone()])?;
/// assert_eq!(verify_snapshot(&keys, &signed)?, claims);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sign_snapshot(key: &SigningKey, claims: &SnapshotClaims) -> Result<String, SignError> {
    let payload = canonical_json(claims).map_err(SignError::Canonical)?;
    let header = jws::encoded_header(SNAPSHOT_TYP, key.id());
    let bytes = jws::encoded_bytes(&header, &payload);
    if bytes > MAX_SNAPSHOT_CLAIMS_BYTES {
        return Err(SignError::TooLong { bytes });
    }
    jws::sign(key, &header, &payload).map_err(SignError::Key)
}

/// What a snapshot says of itself, once its signature is found good.
///
/// # Errors
/// [`SnapshotClaimsError`]. Whoever gets one must not use the snapshot.
///
/// # Example
/// See [`sign_snapshot`].
pub fn verify_snapshot(keys: &KeySet, text: &str) -> Result<SnapshotClaims, SnapshotClaimsError> {
    match jws::verified(keys, text, SNAPSHOT_TYP, MAX_SNAPSHOT_CLAIMS_BYTES) {
        Ok((payload, _)) => read(&payload),
        Err(refusal) => Err(SnapshotClaimsError::Signature(refused(&refusal))),
    }
}

/// What a snapshot says of itself, whoever signed it: for whoever checks all of its content against
/// the log, and has no key.
///
/// # Errors
/// [`SnapshotClaimsError`].
pub fn read_snapshot_claims(text: &str) -> Result<SnapshotClaims, SnapshotClaimsError> {
    let malformed = || SnapshotClaimsError::Signature("is no compact JWS".to_owned());
    if text.len() > MAX_SNAPSHOT_CLAIMS_BYTES {
        return Err(SnapshotClaimsError::Signature(refused(&Refusal::TooLong {
            bytes: text.len(),
        })));
    }
    if let Err(refusal) = jws::named_key(text, SNAPSHOT_TYP) {
        return Err(SnapshotClaimsError::Signature(refused(&refusal)));
    }
    let payload = text.split('.').nth(1).ok_or_else(malformed)?;
    match URL_SAFE_NO_PAD.decode(payload) {
        Ok(payload) => read(&payload),
        Err(_) => Err(malformed()),
    }
}

fn read(payload: &[u8]) -> Result<SnapshotClaims, SnapshotClaimsError> {
    let claims: SnapshotClaims =
        serde_json::from_slice(payload).map_err(SnapshotClaimsError::Claims)?;
    // One spelling for one signature: this also refuses members that stand there twice.
    match canonical_json(&claims) {
        Ok(canonical) if canonical == payload => Ok(claims),
        Ok(_) | Err(_) => Err(SnapshotClaimsError::NotCanonical),
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::TooLong { bytes } => {
            format!("has {bytes} bytes, at most {MAX_SNAPSHOT_CLAIMS_BYTES} are allowed")
        }
        Refusal::Malformed { part } => {
            format!("is not signed: {part} is not what a compact JWS has there")
        }
        Refusal::Algorithm { alg } => format!("is signed with `{alg}`"),
        Refusal::Type { typ } => format!("is of type `{typ}`, not `{SNAPSHOT_TYP}`"),
        Refusal::Header { member } => format!("has `{member}`, which ours never have"),
        Refusal::UnknownKey { kid } => format!("is signed by another key, `{kid}`"),
        Refusal::Mismatch { kid } => format!("is not what the key `{kid}` signed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DECISION_TYP, KeyId};

    fn claims() -> SnapshotClaims {
        SnapshotClaims {
            content_bytes: 7,
            content_digest: Digest::of(b"content"),
            format: 1,
            items: 2,
            root: Digest::of(b"root"),
            size: 3,
            store: "ab".repeat(16),
            time: 1_000,
        }
    }

    #[test]
    fn only_what_the_key_signed_as_a_snapshot_is_taken() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let keys = KeySet::new([key.verifying_key().clone()]).unwrap();
        let signed = sign_snapshot(&key, &claims()).unwrap();
        assert_eq!(verify_snapshot(&keys, &signed).unwrap(), claims());
        assert_eq!(read_snapshot_claims(&signed).unwrap(), claims());
        let refused = |text: &str| verify_snapshot(&keys, text).unwrap_err().to_string();

        let foreign = sign_snapshot(&other, &claims()).unwrap();
        assert!(refused(&foreign).contains("another key"), "{}", refused(&foreign));
        let payload = canonical_json(&claims()).unwrap();
        let typed = |typ: &str, kid: &KeyId| {
            jws::sign(&key, &jws::encoded_header(typ, kid), &payload).unwrap()
        };
        let decision = typed(DECISION_TYP, key.id());
        assert!(refused(&decision).contains("of type"), "a key signs for one purpose at a time");
        let changed = sign_snapshot(&key, &SnapshotClaims { size: 4, ..claims() }).unwrap();
        let (body, _) = changed.rsplit_once('.').unwrap();
        let (_, signature) = signed.rsplit_once('.').unwrap();
        assert!(refused(&format!("{body}.{signature}")).contains("is not what the key"));
        let spaced = [b" ", &*payload].concat();
        let spaced = jws::sign(&key, &jws::encoded_header(SNAPSHOT_TYP, key.id()), &spaced);
        assert!(refused(&spaced.unwrap()).contains("canonical"));
        for text in ["", ".", "a.b.c", &"x".repeat(MAX_SNAPSHOT_CLAIMS_BYTES + 1)] {
            assert!(verify_snapshot(&keys, text).is_err(), "{text}");
            assert!(read_snapshot_claims(text).is_err(), "{text}");
        }
    }
}
