//! Signed decisions: compact JWS (RFC 7515 §3.1) with Ed25519 (RFC 8037), typed (RFC 8725 §3.11).
//!
//! What is signed is what is stored and sent. A verifier reads the very bytes, and refuses every
//! other spelling of them.

use serde::Deserialize;

use crate::jwks::Lapse;
use crate::jws::{self, Refusal};
use crate::{
    CanonicalError, DECISION_TYP, DECISION_VERSION, Decision, Effect, KeyError, KeyId, KeySet,
    Revocation, SigningKey, SubjectKind, canonical_json,
};

/// Longest token in bytes: it must fit an entry of a C2SP tile (a 16-bit length).
pub const MAX_TOKEN_BYTES: usize = 65_535;
/// Seconds by which the clock of a verifier may be behind that of the issuer. None is granted at
/// the end of a token.
pub const CLOCK_LEEWAY_SECONDS: u64 = 60;

/// Why a decision was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// It has no canonical form.
    #[error("the decision has no canonical form")]
    Canonical(#[source] CanonicalError),
    /// It is too long.
    #[error(
        "the token would have {bytes} bytes, at most {MAX_TOKEN_BYTES} are allowed\n\
         hint: policies should give fewer or shorter reasons, warnings and obligations"
    )]
    TooLong {
        /// Bytes that the token would have.
        bytes: usize,
    },
    /// The key gave no signature.
    #[error("the key gave no signature")]
    Key(#[source] KeyError),
}

/// Why a token is refused: one variant for each cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It has more bytes than a token can have.
    #[error("is not a token: it has {bytes} bytes, at most {MAX_TOKEN_BYTES} are allowed")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
    },
    /// It is no compact JWS.
    #[error(
        "is not a token: {part} is not what a compact JWS has there\n\
         hint: pass the token as it was sent, three parts of base64url joined by dots"
    )]
    NotAToken {
        /// Which part.
        part: &'static str,
    },
    /// It asks for no signature, or for another algorithm.
    #[error(
        "is signed with `{alg}`; only `EdDSA` and `Ed25519` are accepted\n\
         hint: refuse it, Placet signs with nothing else"
    )]
    Algorithm {
        /// The `alg` of its header, cut to a printable length.
        alg: String,
    },
    /// It is a token of another kind.
    #[error("is of type `{typ}`, not `{expected}`\nhint: pass the token of a decision")]
    Type {
        /// The `typ` of its header, cut to a printable length.
        typ: String,
        /// Which was expected.
        expected: &'static str,
    },
    /// Its header asks for something that a decision never has, such as `crit`, `jku` or `jwk`.
    #[error(
        "has `{member}` in its header, which a decision never has\n\
         hint: refuse it, keys come from the issuer's JWK set only"
    )]
    Header {
        /// Name of the first such member, cut to a printable length.
        member: String,
    },
    /// The key that it names is not in the set.
    #[error(
        "is signed by the key `{kid}`, which is not in the JWK set\n\
         hint: fetch the issuer's JWK set again; if the key is still missing, refuse the token"
    )]
    UnknownKey {
        /// The `kid` of its header, cut to a printable length.
        kid: String,
    },
    /// The key signed nothing yet when it says that it was issued.
    #[error(
        "says that it was issued at {iat}, but its key `{kid}` signs from {from} on\n\
         hint: fetch the issuer's JWK set again, its turn may have come early; if it says the \
         same, refuse the token"
    )]
    KeyNotYet {
        /// The key.
        kid: KeyId,
        /// Its `iat`, in seconds since 1970-01-01 UTC.
        iat: u64,
        /// When the key begins to sign, in seconds since 1970-01-01 UTC.
        from: u64,
    },
    /// The key signed nothing any more when it says that it was issued.
    #[error(
        "says that it was issued at {iat}, but its key `{kid}` was retired at {until}\n\
         hint: fetch the issuer's JWK set again, it may go on after all; if it says the same, \
         refuse the token"
    )]
    KeyRetired {
        /// The key.
        kid: KeyId,
        /// Its `iat`, in seconds since 1970-01-01 UTC.
        iat: u64,
        /// When the key ended to sign, in seconds since 1970-01-01 UTC.
        until: u64,
    },
    /// The key was revoked.
    #[error(
        "is signed by the key `{kid}`, which was revoked as of {since} ({reason})\n\
         hint: refuse it, others may have signed it; ask for a new decision"
    )]
    KeyRevoked {
        /// The key.
        kid: KeyId,
        /// Since when others may have signed with it, in seconds since 1970-01-01 UTC.
        since: u64,
        /// Why, as the issuer says.
        reason: String,
    },
    /// The signature does not match.
    #[error(
        "is not what the key `{kid}` signed: the signature does not match\n\
         hint: it was changed or damaged on its way; ask for it again"
    )]
    Signature {
        /// The key that should have signed.
        kid: KeyId,
    },
    /// It was issued in a newer format.
    #[error(
        "has version {version} of the claims, this verifier reads {DECISION_VERSION}\n\
         hint: install a newer verifier"
    )]
    Version {
        /// The `placet` claim.
        version: u64,
    },
    /// Its claims are not those of a decision.
    #[error("is signed, but its claims are not those of a decision")]
    Claims(#[source] serde_json::Error),
    /// Its claims are not in canonical form, so a member may stand there twice.
    #[error("is signed, but its claims are not in canonical form (RFC 8785)")]
    NotCanonical,
    /// Its claims contradict one another.
    #[error("is signed, but contradicts itself: {problem}")]
    Contradiction {
        /// What does not fit.
        problem: &'static str,
    },
    /// Somebody else issued it.
    #[error("was issued by `{issuer}`, not `{expected}`\nhint: ask the PDP that you trust")]
    Issuer {
        /// Its `iss`.
        issuer: String,
        /// Who was expected.
        expected: String,
    },
    /// It is for somebody else.
    #[error(
        "is for {audience:?}, not `{expected}`\n\
         hint: a token for another service must not be used here"
    )]
    Audience {
        /// Its `aud`.
        audience: Vec<String>,
        /// Who was expected.
        expected: String,
    },
    /// Its time is over.
    #[error("expired at {exp}, it is {now}\nhint: ask for a new decision")]
    Expired {
        /// Its `exp`, in seconds since 1970-01-01 UTC.
        exp: u64,
        /// The time given, in seconds since 1970-01-01 UTC.
        now: u64,
    },
    /// It comes from the future.
    #[error("was issued at {iat}, but it is {now}\nhint: set the clock of this machine")]
    NotYetIssued {
        /// Its `iat`, in seconds since 1970-01-01 UTC.
        iat: u64,
        /// The time given, in seconds since 1970-01-01 UTC.
        now: u64,
    },
}

/// Signs a decision: the token that is stored and sent.
///
/// Needs nothing but the key, so that any number of threads can sign with one key.
///
/// # Errors
/// [`SignError`]: too long for a log entry, or no signature.
///
/// # Example
/// See [`Verifier`].
pub fn sign_decision(key: &SigningKey, decision: &Decision) -> Result<String, SignError> {
    let claims = canonical_json(decision).map_err(SignError::Canonical)?;
    let bytes = jws::encoded_bytes(key.header(), &claims);
    if bytes > MAX_TOKEN_BYTES {
        return Err(SignError::TooLong { bytes });
    }
    jws::sign(key, key.header(), &claims).map_err(SignError::Key)
}

/// What a verifier relies on besides the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect<'a> {
    /// Who must have issued the token: its `iss`.
    pub issuer: &'a str,
    /// Who the verifier is: one of its `aud`.
    pub audience: &'a str,
    /// The verifier's time, in seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// Verifies decisions offline, with the issuer's public keys alone.
///
/// # Example
/// ```no_run
/// use placet_core::{Expect, KeySet, Verifier};
/// # fn verify(jwks: &[u8], token: &str, now: u64) -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = Verifier::new(KeySet::from_json(jwks)?);
/// let expect = Expect { issuer: "https://placet.example", audience: "provisioner", now };
/// let decision = verifier.verify(token, &expect)?;
/// println!("{:?}", decision.effect);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: KeySet,
}

impl Verifier {
    /// With the keys of the issuer.
    #[must_use]
    pub fn new(keys: KeySet) -> Self {
        Self { keys }
    }

    pub(crate) fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Checks a token before acting on it. Its key must have been in use at its `iat` and not be
    /// revoked since: a thief writes any `iat`.
    ///
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong. Whoever gets one must refuse.
    pub fn verify(&self, token: &str, expect: &Expect<'_>) -> Result<Decision, VerifyError> {
        let decision = self.issued(token, expect.issuer, true)?;
        if !decision.aud.iter().any(|audience| audience == expect.audience) {
            let expected = expect.audience.to_owned();
            return Err(VerifyError::Audience { audience: decision.aud, expected });
        }
        if expect.now >= decision.exp {
            return Err(VerifyError::Expired { exp: decision.exp, now: expect.now });
        }
        if decision.iat > expect.now.saturating_add(CLOCK_LEEWAY_SECONDS) {
            return Err(VerifyError::NotYetIssued { iat: decision.iat, now: expect.now });
        }
        Ok(decision)
    }

    /// Checks that a token was issued, however long ago and for whomever: for auditors and logs,
    /// not for PEPs.
    ///
    /// Its key must have been in use at its `iat`, and not have been revoked as of then. That the
    /// `iat` is true, only the log can show of what a revoked key signed: a leaf under a checkpoint
    /// that was seen before the key was stolen.
    ///
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong.
    pub fn verify_issued(&self, token: &str, issuer: &str) -> Result<Decision, VerifyError> {
        self.issued(token, issuer, false)
    }

    fn issued(
        &self,
        token: &str,
        issuer: &str,
        is_relied_on: bool,
    ) -> Result<Decision, VerifyError> {
        let verified = jws::verified(&self.keys, token, DECISION_TYP, MAX_TOKEN_BYTES);
        let (claims, kid) = verified.map_err(|refusal| VerifyError::of(refusal, DECISION_TYP))?;
        let decision = read_claims(&claims)?;
        self.check_key(kid, decision.iat, is_relied_on)?;
        if decision.iss != issuer {
            let expected = issuer.to_owned();
            return Err(VerifyError::Issuer { issuer: decision.iss, expected });
        }
        Ok(decision)
    }

    /// Whether what that key signed counts, if it was issued at `iat`.
    pub(crate) fn check_key(
        &self,
        kid: KeyId,
        iat: u64,
        is_relied_on: bool,
    ) -> Result<(), VerifyError> {
        Err(match self.keys.lapse(&kid, iat, is_relied_on) {
            None => return Ok(()),
            Some(Lapse::NotYet { from }) => VerifyError::KeyNotYet { kid, iat, from },
            Some(Lapse::Retired { until }) => VerifyError::KeyRetired { kid, iat, until },
            Some(Lapse::Revoked(Revocation { since, reason })) => {
                VerifyError::KeyRevoked { kid, since, reason }
            }
        })
    }
}

impl VerifyError {
    /// Of what was to be of the expected type.
    pub(crate) fn of(refusal: Refusal, expected: &'static str) -> Self {
        match refusal {
            Refusal::TooLong { bytes } => Self::TooLong { bytes },
            Refusal::Malformed { part } => Self::NotAToken { part },
            Refusal::Algorithm { alg } => Self::Algorithm { alg },
            Refusal::Type { typ } => Self::Type { typ, expected },
            Refusal::Header { member } => Self::Header { member },
            Refusal::UnknownKey { kid } => Self::UnknownKey { kid },
            Refusal::Mismatch { kid } => Self::Signature { kid },
        }
    }
}

fn read_claims(claims: &[u8]) -> Result<Decision, VerifyError> {
    /// Read first where the rest cannot be read: another version may have other claims.
    #[derive(Deserialize)]
    struct Versioned {
        placet: u64,
    }
    let decision: Decision = match serde_json::from_slice(claims) {
        Ok(decision) => decision,
        Err(error) => match serde_json::from_slice::<Versioned>(claims) {
            Ok(Versioned { placet }) if placet != u64::from(DECISION_VERSION) => {
                return Err(VerifyError::Version { version: placet });
            }
            Ok(_) | Err(_) => return Err(VerifyError::Claims(error)),
        },
    };
    if decision.placet != DECISION_VERSION {
        return Err(VerifyError::Version { version: u64::from(decision.placet) });
    }
    // One spelling for one decision: this also refuses members that stand there twice.
    match canonical_json(&decision) {
        Ok(canonical) if canonical == claims => {}
        Ok(_) | Err(_) => return Err(VerifyError::NotCanonical),
    }
    check_sense(&decision)?;
    Ok(decision)
}

/// Whether what is granted continues what the decision extends, if it extends anything.
fn goes_on(decision: &Decision) -> bool {
    let (Some(extends), Some(granted)) = (&decision.extends, &decision.reservation) else {
        return true;
    };
    (&extends.reservation_id, extends.end) == (&granted.id, granted.start)
        && extends.start < extends.end
        && extends.epoch.checked_add(1) == Some(granted.epoch)
        && decision.evictions.is_empty()
}

fn check_sense(decision: &Decision) -> Result<(), VerifyError> {
    let permits = match decision.effect {
        Effect::Permit => true,
        Effect::Deny => false,
    };
    let problem = if permits != decision.reasons.is_empty() {
        "reasons must stand there exactly if it denies"
    } else if permits != decision.reservation.is_some() {
        "a reservation must stand there exactly if it permits"
    } else if decision.sub != format!("{}/{}", decision.kind.as_str(), decision.jti) {
        "`sub` is not made of `kind` and `jti`"
    } else if decision.exp <= decision.iat {
        "it expires before it is issued"
    } else if !goes_on(decision) {
        "what it grants is not what goes on"
    } else if decision.gang.as_ref().is_some_and(|gang| gang.index >= gang.size) {
        "its place in the gang is none of it"
    } else if !permits && !decision.waivers.is_empty() {
        "a waiver is used by what it permits only"
    } else if decision.lease_id.is_some() && decision.kind != SubjectKind::Job {
        "only a job runs inside a lease"
    } else {
        return Ok(());
    };
    Err(VerifyError::Contradiction { problem })
}
