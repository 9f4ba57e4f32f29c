//! Signatures of policy bundles: compact JWS with Ed25519 over the bundle's digest and revision.
//!
//! The digest names every file of the bundle, so the signature covers all of it. It stands beside
//! the bundle, never inside what it covers.

use serde::{Deserialize, Serialize};

use crate::jws::{self, Refusal};
use crate::{CanonicalError, Digest, KeyError, KeyId, KeySet, SigningKey, canonical_json};

/// `typ` of the header of a bundle's signature (RFC 8725 §3.11: explicit typing).
pub const BUNDLE_TYP: &str = "placet-bundle+jwt";
/// Longest signature of a bundle in bytes: ours have about 600.
pub const MAX_BUNDLE_SIGNATURE_BYTES: usize = 4_096;

/// What is signed of a bundle. Its canonical JSON is the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleClaims {
    /// SHA-256 of the bundle.
    pub digest: Digest,
    /// When it was signed, in seconds since 1970-01-01 UTC; left out where the same input must give
    /// the same bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iat: Option<u64>,
    /// What the bundle's manifest calls this state of it, 1 to 128 bytes.
    pub revision: String,
}

/// Why a bundle was not signed, or its signature is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is none.
    #[error(
        "has no signature\nhint: sign it with `placet bundle sign`, or ask for the signed bundle"
    )]
    Missing,
    /// It has more bytes than a signature can have.
    #[error("has {bytes} bytes, at most {MAX_BUNDLE_SIGNATURE_BYTES} are allowed")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
    },
    /// It is no compact JWS.
    #[error(
        "is not a signature: {part} is not what a compact JWS has there\n\
         hint: sign the bundle again with `placet bundle sign`"
    )]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// It asks for no signature, or for another algorithm.
    #[error(
        "is signed with `{alg}`; only `EdDSA` and `Ed25519` are accepted\n\
         hint: sign the bundle again with `placet bundle sign`"
    )]
    Algorithm {
        /// The `alg` of its header, cut to a printable length.
        alg: String,
    },
    /// It is something else that was signed, such as a decision.
    #[error(
        "is of type `{typ}`, not `{BUNDLE_TYP}`\n\
         hint: sign the bundle again with `placet bundle sign`"
    )]
    Type {
        /// The `typ` of its header, cut to a printable length.
        typ: String,
    },
    /// Its header asks for something that ours never have, such as `crit`, `jku` or `jwk`.
    #[error(
        "has `{member}` in its header, which a bundle's signature never has\n\
         hint: refuse the bundle, keys come from the JWK set that you trust only"
    )]
    Header {
        /// Name of the first such member, cut to a printable length.
        member: String,
    },
    /// The key that it names is not in the set.
    #[error(
        "is by the key `{kid}`, which is not in the JWK set\n\
         hint: add the key's public half to the set if you trust it; else refuse the bundle"
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
    /// Its claims are not those of a bundle's signature.
    #[error("is signed, but its claims are not those of a bundle")]
    Claims(#[source] serde_json::Error),
    /// Its claims are not in canonical form, so a member may stand there twice.
    #[error("is signed, but its claims are not in canonical form (RFC 8785)")]
    NotCanonical,
    /// Its key did not sign then, or was revoked.
    #[error("is not to be relied on: its key `{kid}` {problem}")]
    Lapsed {
        /// The key.
        kid: KeyId,
        /// Why what it signed does not count.
        problem: String,
    },
    /// It is of other files.
    #[error(
        "is of the bundle {signed}, this one is {found}\n\
         hint: a file was changed after signing; ask for the signed files, or sign again"
    )]
    Digest {
        /// The digest that was signed.
        signed: Digest,
        /// The digest of the bundle.
        found: Digest,
    },
    /// It names another revision, though the files are the same.
    #[error("is of revision `{signed}`, this one is `{found}`\nhint: sign the bundle again")]
    Revision {
        /// The revision that was signed, cut to a printable length.
        signed: String,
        /// The revision of the bundle.
        found: String,
    },
    /// The claims have no canonical form.
    #[error("has no canonical form")]
    Canonical(#[source] CanonicalError),
    /// The key gave no signature.
    #[error("cannot be made: the key gave no signature")]
    Key(#[source] KeyError),
}

impl From<Refusal> for SignatureError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLong { bytes } => Self::TooLong { bytes },
            Refusal::Malformed { part } => Self::Malformed { part },
            Refusal::Algorithm { alg } => Self::Algorithm { alg },
            Refusal::Type { typ } => Self::Type { typ },
            Refusal::Header { member } => Self::Header { member },
            Refusal::UnknownKey { kid } => Self::UnknownKey { kid },
            Refusal::Mismatch { kid } => Self::Mismatch { kid },
        }
    }
}

/// Signs a bundle's claims: the text that stands beside it. Same key and claims, same text.
///
/// # Errors
/// [`SignatureError`]: too long, or no signature.
///
/// # Example
/// ```
/// use placet_core::{BundleClaims, Digest, KeySet, SigningKey, sign_bundle, verify_bundle};
/// let key = SigningKey::generate()?;
/// let claims = BundleClaims { digest: Digest::of(b"x"), iat: None, revision: "7".to_owned() };
/// let signature = sign_bundle(&key, &claims)?;
/// let keys = KeySet::new([key.verifying_key().clone()])?;
/// let (signed, kid) = verify_bundle(&keys, &signature, claims.digest, "7")?;
/// assert_eq!((signed, &kid), (claims, key.id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sign_bundle(key: &SigningKey, claims: &BundleClaims) -> Result<String, SignatureError> {
    let payload = canonical_json(claims).map_err(SignatureError::Canonical)?;
    let header = jws::encoded_header(BUNDLE_TYP, key.id());
    let bytes = jws::encoded_bytes(&header, &payload);
    if bytes > MAX_BUNDLE_SIGNATURE_BYTES {
        return Err(SignatureError::TooLong { bytes });
    }
    jws::sign(key, &header, &payload).map_err(SignatureError::Key)
}

/// Checks the signature of a bundle with that digest and revision: what was signed, and by which
/// key.
///
/// # Errors
/// [`SignatureError`] names the first thing that is wrong. Whoever gets one must refuse the bundle.
///
/// # Example
/// See [`sign_bundle`].
pub fn verify_bundle(
    keys: &KeySet,
    signature: &str,
    digest: Digest,
    revision: &str,
) -> Result<(BundleClaims, KeyId), SignatureError> {
    let (payload, kid) = jws::verified(keys, signature, BUNDLE_TYP, MAX_BUNDLE_SIGNATURE_BYTES)?;
    let claims: BundleClaims = serde_json::from_slice(&payload).map_err(SignatureError::Claims)?;
    // One spelling for one signature: this also refuses members that stand there twice.
    match canonical_json(&claims) {
        Ok(canonical) if canonical == payload => {}
        Ok(_) | Err(_) => return Err(SignatureError::NotCanonical),
    }
    // Without a time of its own it counts as long as the key is not revoked.
    let revoked = keys.validity(&kid).filter(|validity| validity.revoked.is_some());
    let lapse = match claims.iat {
        Some(iat) => keys.lapse(&kid, iat, true),
        None => revoked.and_then(|validity| validity.lapse(0, true)),
    };
    if let Some(lapse) = lapse {
        return Err(SignatureError::Lapsed { kid, problem: lapse.to_string() });
    }
    if claims.digest != digest {
        return Err(SignatureError::Digest { signed: claims.digest, found: digest });
    }
    if claims.revision != revision {
        let signed = jws::printable(&claims.revision);
        return Err(SignatureError::Revision { signed, found: revision.to_owned() });
    }
    Ok((claims, kid))
}

/// The name of the key that a signature claims to be of, without checking anything: to show which
/// key is needed.
///
/// # Errors
/// [`SignatureError`] if its header is not that of a bundle's signature.
pub fn bundle_signer(signature: &str) -> Result<String, SignatureError> {
    if signature.len() > MAX_BUNDLE_SIGNATURE_BYTES {
        return Err(SignatureError::TooLong { bytes: signature.len() });
    }
    Ok(jws::named_key(signature, BUNDLE_TYP)?)
}
