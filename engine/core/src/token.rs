//! Signed decisions: compact JWS (RFC 7515 §3.1) with Ed25519 (RFC 8037), typed (RFC 8725 §3.11).
//!
//! What is signed is what is stored and sent. A verifier reads the very bytes, and refuses every
//! other spelling of them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::signature::SIGNATURE_BYTES;
use crate::{
    CanonicalError, DECISION_TYP, DECISION_VERSION, Decision, Effect, KeyError, KeyId, KeySet,
    SigningKey, canonical_json,
};

/// Longest token in bytes: it must fit an entry of a C2SP tile (a 16-bit length).
pub const MAX_TOKEN_BYTES: usize = 65_535;
/// Seconds by which the clock of a verifier may be behind that of the issuer. None is granted at
/// the end of a token.
pub const CLOCK_LEEWAY_SECONDS: u64 = 60;

/// Longest header in bytes, decoded: ours has 100.
const MAX_HEADER_BYTES: usize = 512;
/// Characters of an encoded signature.
const SIGNATURE_CHARS: usize = SIGNATURE_BYTES.div_ceil(3) * 4 - 2;

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
    #[error("is of type `{typ}`, not `{DECISION_TYP}`\nhint: pass the token of a decision")]
    Type {
        /// The `typ` of its header, cut to a printable length.
        typ: String,
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

/// The encoded header of decisions signed by that key.
pub(crate) fn encoded_header(kid: &KeyId) -> String {
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{DECISION_TYP}"}}"#);
    URL_SAFE_NO_PAD.encode(header)
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
    let header = key.header();
    let encoded_claims = (claims.len() * 4).div_ceil(3);
    let bytes = header.len() + 1 + encoded_claims + 1 + SIGNATURE_CHARS;
    if bytes > MAX_TOKEN_BYTES {
        return Err(SignError::TooLong { bytes });
    }
    let mut token = String::with_capacity(bytes);
    token.push_str(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
    let signature = key.sign(token.as_bytes()).map_err(SignError::Key)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
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

    /// Checks a token before acting on it.
    ///
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong. Whoever gets one must refuse.
    pub fn verify(&self, token: &str, expect: &Expect<'_>) -> Result<Decision, VerifyError> {
        let decision = self.verify_issued(token, expect.issuer)?;
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
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong.
    pub fn verify_issued(&self, token: &str, issuer: &str) -> Result<Decision, VerifyError> {
        let claims = self.signed_claims(token)?;
        let decision = read_claims(&claims)?;
        if decision.iss != issuer {
            let expected = issuer.to_owned();
            return Err(VerifyError::Issuer { issuer: decision.iss, expected });
        }
        Ok(decision)
    }

    /// The claims of a token, once its signature is found good.
    fn signed_claims(&self, token: &str) -> Result<Vec<u8>, VerifyError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VerifyError::TooLong { bytes: token.len() });
        }
        let Some((input, signature)) = token.rsplit_once('.') else {
            return Err(VerifyError::NotAToken { part: "the number of its parts" });
        };
        let Some((header, claims)) = input.split_once('.').filter(|(_, tail)| !tail.contains('.'))
        else {
            return Err(VerifyError::NotAToken { part: "the number of its parts" });
        };
        let kid = Header::read(&decode(header, "its header")?)?.check()?;
        let claims = decode(claims, "its payload")?;
        let signature = decode(signature, "its signature")?;
        let Some(key) = self.keys.find(&kid) else {
            return Err(VerifyError::UnknownKey { kid: printable(&kid) });
        };
        if !key.verifies(input.as_bytes(), &signature) {
            return Err(VerifyError::Signature { kid: key.id().clone() });
        }
        Ok(claims)
    }
}

fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, VerifyError> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(VerifyError::NotAToken { part }),
    }
}

/// What a stranger wrote, made fit for a message of ours.
fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    text.chars().take(MAX_CHARS).flat_map(char::escape_default).collect()
}

/// The members of a header, each once, in the order written.
struct Header(Vec<(String, serde_json::Value)>);

impl Header {
    fn read(json: &[u8]) -> Result<Self, VerifyError> {
        if json.len() > MAX_HEADER_BYTES {
            return Err(VerifyError::NotAToken { part: "its header" });
        }
        match serde_json::from_slice(json) {
            Ok(header) => Ok(header),
            Err(_) => Err(VerifyError::NotAToken { part: "its header" }),
        }
    }

    /// The key id of a header that is that of a decision.
    ///
    /// Members that we do not write are refused, not passed over: `jku`, `jwk` and their kin bring
    /// keys along, `crit` and `b64` change what is signed, and nobody but Placet issues tokens of
    /// this type.
    fn check(self) -> Result<String, VerifyError> {
        let (mut alg, mut typ, mut kid) = (None, None, None);
        for (name, value) in self.0 {
            let member = match name.as_str() {
                "alg" => &mut alg,
                "typ" => &mut typ,
                "kid" => &mut kid,
                other => return Err(VerifyError::Header { member: printable(other) }),
            };
            *member = value.as_str().map(str::to_owned);
        }
        match alg {
            Some(alg) if alg == "EdDSA" || alg == "Ed25519" => {}
            other => {
                let alg = printable(&other.unwrap_or_default());
                return Err(VerifyError::Algorithm { alg });
            }
        }
        match typ {
            Some(typ) if typ == DECISION_TYP => {}
            other => {
                return Err(VerifyError::Type { typ: printable(&other.unwrap_or_default()) });
            }
        }
        Ok(kid.unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut members: Vec<(String, serde_json::Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a member stands there twice"));
                    }
                    members.push((name, value));
                }
                Ok(Header(members))
            }
        }
        deserializer.deserialize_map(Members)
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
    } else {
        return Ok(());
    };
    Err(VerifyError::Contradiction { problem })
}
