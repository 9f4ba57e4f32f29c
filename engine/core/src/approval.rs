//! What approvers sign: waivers, freezes and thaws, each a compact JWS with Ed25519 of its own
//! type.
//!
//! Approvers are people, or services of theirs, with keys of their own: never those of the issuer
//! of decisions. What a key may approve is not in here: whoever verifies knows the keys and what
//! each was granted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::jws::{self, Refusal};
use crate::{CanonicalError, Id, KeyError, KeyId, KeySet, SigningKey, canonical_json};

/// Longest waiver, freeze or thaw in bytes: one that names 64 tenants of ten characters has 2,000.
pub const MAX_APPROVAL_BYTES: usize = 4_096;
/// Version of the claims; a reader refuses others.
pub const APPROVAL_VERSION: u8 = 1;
/// Longest reason of an approval in bytes: a ticket, or a sentence.
pub const MAX_APPROVAL_REASON_BYTES: usize = 256;
/// Longest `aud` of an approval in bytes.
const MAX_AUDIENCE_BYTES: usize = 256;
/// Most tenants, and most clusters, that a scope names: more than a person looks over.
pub const MAX_SCOPE_NAMES: usize = 64;

/// Why something was not signed, or is not what an approver signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// It has more bytes than an approval can have.
    #[error(
        "has {bytes} bytes, at most {MAX_APPROVAL_BYTES} are allowed\n\
         hint: name fewer tenants and clusters, or sign several"
    )]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
    },
    /// It is no compact JWS.
    #[error(
        "is not signed: {part} is not what a compact JWS has there\n\
         hint: pass it as it was signed, three parts of base64url joined by dots"
    )]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// It asks for no signature, or for another algorithm.
    #[error(
        "is signed with `{alg}`; only `EdDSA` and `Ed25519` are accepted\n\
         hint: sign it with `placet waiver sign` or `placet freeze`"
    )]
    Algorithm {
        /// The `alg` of its header, cut to a printable length.
        alg: String,
    },
    /// It is something else that was signed, such as a decision.
    #[error("is of type `{typ}`, not `{expected}`\nhint: pass what was signed for this")]
    Type {
        /// The `typ` of its header, cut to a printable length.
        typ: String,
        /// Which was expected.
        expected: &'static str,
    },
    /// Its header asks for something that ours never have, such as `crit`, `jku` or `jwk`.
    #[error(
        "has `{member}` in its header, which an approval never has\n\
         hint: refuse it: keys come from the list of approvers only"
    )]
    Header {
        /// Name of the first such member, cut to a printable length.
        member: String,
    },
    /// The key that it names is not known.
    #[error(
        "is by the key `{kid}`, which is no approver's\n\
         hint: have the key added to the list of approvers if it is to be trusted"
    )]
    UnknownKey {
        /// The `kid` of its header, cut to a printable length.
        kid: String,
    },
    /// The signature does not match.
    #[error(
        "is not what the key `{kid}` signed: the signature does not match\n\
         hint: it was changed or damaged on its way; ask for it again"
    )]
    Mismatch {
        /// The key that should have signed.
        kid: KeyId,
    },
    /// Its key did not sign then, or was revoked.
    #[error("is not to be relied on: its key `{kid}` {problem}\nhint: ask for a new one")]
    Lapsed {
        /// The key.
        kid: KeyId,
        /// Why what it signed does not count.
        problem: String,
    },
    /// Its claims are not those of its type.
    #[error("is signed, but its claims are not those of its type")]
    Claims(#[source] serde_json::Error),
    /// Its claims are not in canonical form, so a member or a value may stand there twice.
    #[error("is signed, but its claims are not in canonical form (RFC 8785, lists in order)")]
    NotCanonical,
    /// It makes no sense, whoever signed it.
    #[error("makes no sense: `{field}` {problem}\nhint: sign another")]
    Senseless {
        /// Which claim.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The claims have no canonical form.
    #[error("has no canonical form")]
    Canonical(#[source] CanonicalError),
    /// The key gave no signature.
    #[error("cannot be made: the key gave no signature")]
    Key(#[source] KeyError),
}

impl ApprovalError {
    fn of(refusal: Refusal, expected: &'static str) -> Self {
        match refusal {
            Refusal::TooLong { bytes } => Self::TooLong { bytes },
            Refusal::Malformed { part } => Self::Malformed { part },
            Refusal::Algorithm { alg } => Self::Algorithm { alg },
            Refusal::Type { typ } => Self::Type { typ, expected },
            Refusal::Header { member } => Self::Header { member },
            Refusal::UnknownKey { kid } => Self::UnknownKey { kid },
            Refusal::Mismatch { kid } => Self::Mismatch { kid },
        }
    }
}

/// Claims that an approver signs: those of a waiver, a freeze or a thaw, and no others.
pub trait Approval: Serialize + DeserializeOwned + private::Sealed {
    /// `typ` of the header (RFC 8725 §3.11: explicit typing).
    const TYP: &'static str;

    /// Its `jti`: the name of the waiver, or of the freeze.
    fn name(&self) -> &Id;

    /// When it was signed, in seconds since 1970-01-01 UTC.
    fn iat(&self) -> u64;

    /// Checks what the types leave open: bounds, and that the claims do not contradict one another.
    ///
    /// # Errors
    /// [`ApprovalError::Senseless`] names the first claim that cannot be.
    fn check(&self) -> Result<(), ApprovalError>;
}

pub(crate) mod private {
    /// Nobody else's claims are signed under types of ours.
    pub trait Sealed {}
}

/// Signs an approval. Same key and claims, same text.
///
/// # Errors
/// [`ApprovalError`]: it makes no sense, is too long, or the key gave no signature.
///
/// # Example
/// ```
/// use std::collections::BTreeSet;
/// use placet_core::{
///     FreezeClaims, FreezeScope, Id, KeySet, SigningKey, sign_approval, verify_approval,
/// };
/// let key = SigningKey::generate()?;
/// let freeze = FreezeClaims {
///     aud: "placet".to_owned(),
///     by: Id::new("duty")?,
///     iat: 1_800_000_000,
///     jti: Id::new("fire-drill-7")?,
///     placet: 1,
///     reason: "INC-7: smoke in hall 2".to_owned(),
///     scope: FreezeScope {
///         clusters: BTreeSet::from([Id::new("de-fra-1")?]),
///         ..FreezeScope::default()
///     },
/// };
/// let token = sign_approval(&key, &freeze)?;
/// let keys = KeySet::new([key.verifying_key().clone()])?;
/// let (signed, kid) = verify_approval::<FreezeClaims>(&keys, &token)?;
/// assert_eq!((signed, &kid), (freeze, key.id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sign_approval<T: Approval>(key: &SigningKey, claims: &T) -> Result<String, ApprovalError> {
    claims.check()?;
    let payload = canonical_json(claims).map_err(ApprovalError::Canonical)?;
    let header = jws::encoded_header(T::TYP, key.id());
    let bytes = jws::encoded_bytes(&header, &payload);
    if bytes > MAX_APPROVAL_BYTES {
        return Err(ApprovalError::TooLong { bytes });
    }
    jws::sign(key, &header, &payload).map_err(ApprovalError::Key)
}

/// Checks an approval before acting on it: what was approved, and by which key. The key must have
/// been in use at its `iat` and not be revoked since: a thief writes any `iat`.
///
/// # Errors
/// [`ApprovalError`] names the first thing that is wrong. Whoever gets one must refuse.
///
/// # Example
/// See [`sign_approval`].
pub fn verify_approval<T: Approval>(
    keys: &KeySet,
    token: &str,
) -> Result<(T, KeyId), ApprovalError> {
    verified(keys, token, true)
}

/// Checks that an approval was signed, however long ago: for auditors and logs. Its key must not
/// have been revoked as of its `iat`.
///
/// # Errors
/// [`ApprovalError`] names the first thing that is wrong.
pub fn verify_approval_issued<T: Approval>(
    keys: &KeySet,
    token: &str,
) -> Result<(T, KeyId), ApprovalError> {
    verified(keys, token, false)
}

fn verified<T: Approval>(
    keys: &KeySet,
    token: &str,
    is_relied_on: bool,
) -> Result<(T, KeyId), ApprovalError> {
    let verified = jws::verified(keys, token, T::TYP, MAX_APPROVAL_BYTES);
    let (payload, kid) = verified.map_err(|refusal| ApprovalError::of(refusal, T::TYP))?;
    let claims: T = read(&payload)?;
    if let Some(lapse) = keys.lapse(&kid, claims.iat(), is_relied_on) {
        return Err(ApprovalError::Lapsed { kid, problem: lapse.to_string() });
    }
    Ok((claims, kid))
}

/// What an approval says, whoever signed it: to show it, and to read what a log holds. Never to act
/// on it.
///
/// # Errors
/// [`ApprovalError`] if it has not the form of one.
pub fn read_approval<T: Approval>(token: &str) -> Result<T, ApprovalError> {
    if token.len() > MAX_APPROVAL_BYTES {
        return Err(ApprovalError::TooLong { bytes: token.len() });
    }
    jws::named_key(token, T::TYP).map_err(|refusal| ApprovalError::of(refusal, T::TYP))?;
    let payload = token.split('.').nth(1).map(|payload| URL_SAFE_NO_PAD.decode(payload));
    match payload {
        Some(Ok(payload)) => read(&payload),
        Some(Err(_)) | None => Err(ApprovalError::Malformed { part: "its payload" }),
    }
}

/// The name of the key that an approval claims to be of, without checking anything.
///
/// # Errors
/// [`ApprovalError`] if its header is not that of one.
pub fn approval_signer<T: Approval>(token: &str) -> Result<String, ApprovalError> {
    jws::named_key(token, T::TYP).map_err(|refusal| ApprovalError::of(refusal, T::TYP))
}

fn read<T: Approval>(payload: &[u8]) -> Result<T, ApprovalError> {
    let claims: T = serde_json::from_slice(payload).map_err(ApprovalError::Claims)?;
    // One spelling for one approval: this also refuses members that stand there twice, and lists
    // that are out of order or name something twice.
    match canonical_json(&claims) {
        Ok(canonical) if canonical == payload => {}
        Ok(_) | Err(_) => return Err(ApprovalError::NotCanonical),
    }
    claims.check()?;
    Ok(claims)
}

/// The checks that all approvals have in common.
pub(crate) fn check_shared(placet: u8, aud: &str, reason: &str) -> Result<(), ApprovalError> {
    let wrong = |field, problem| Err(ApprovalError::Senseless { field, problem });
    if placet != APPROVAL_VERSION {
        return wrong("placet", "is not 1, the one version that is known");
    }
    if aud.is_empty() || aud.len() > MAX_AUDIENCE_BYTES || aud.contains(char::is_control) {
        return wrong("aud", "is not 1 to 256 bytes of text without control characters");
    }
    let is_long = reason.len() > MAX_APPROVAL_REASON_BYTES;
    if reason.trim().is_empty() || is_long || reason.contains(char::is_control) {
        return wrong("reason", "is not 1 to 256 bytes of text without control characters");
    }
    Ok(())
}
