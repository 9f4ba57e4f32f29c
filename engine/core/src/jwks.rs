//! Public keys as a JWK set (RFC 7517 §5, RFC 8037 §2): how verifiers in any language learn them.
//!
//! A key may say when it signs, and that it was revoked, with the members that OpenID Federation
//! 1.0 registers for keys of the past (`nbf`, `exp`, `revoked`). Libraries that do not know them
//! pass them over (RFC 7517 §4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{KeyId, VerifyingKey, canonical_json};

/// Largest JWK set in bytes: over a hundred bytes a key leave room for every member of RFC 7517.
pub const MAX_JWKS_BYTES: usize = 65_536;
/// Most keys of a set: replicas times overlapping rotations, with room.
pub const MAX_KEYS: usize = 256;
/// Latest time that is taken: the largest integer that every JSON reader keeps (RFC 8785 §3.2.2.3).
const MAX_TIME: u64 = (1 << 53) - 1;
/// Longest reason of a revocation in characters; more is cut off.
pub const MAX_REASON_CHARS: usize = 64;

/// Why a text is no JWK set of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It is too long.
    #[error("has {bytes} bytes, at most {MAX_JWKS_BYTES} are allowed")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
    },
    /// It is not the JSON of a JWK set.
    #[error("is not a JWK set: {{\"keys\": [..]}} (RFC 7517 section 5)")]
    Json(#[source] serde_json::Error),
    /// It has no key that can verify, or too many.
    #[error("has {keys} Ed25519 keys, between 1 and {MAX_KEYS} are needed")]
    Count {
        /// Ed25519 keys that it has.
        keys: usize,
    },
    /// A key carries its secret.
    #[error(
        "`keys[{at}]` holds a private key (`d`)\n\
         hint: take this key out of use, it has been published; a JWK set carries `x` only"
    )]
    Private {
        /// Position in the set, from 0.
        at: usize,
    },
    /// A member of a key is not usable.
    #[error("`keys[{at}].{member}` {problem}")]
    Member {
        /// Position in the set, from 0.
        at: usize,
        /// Name of the member.
        member: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing)]
    d: Option<serde::de::IgnoredAny>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    kty: String,
    // Of any type: keys that are not ours may have anything there.
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Value>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// When a key signs, and whether it still counts. Times are in seconds since 1970-01-01 UTC; what
/// is absent bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyValidity {
    /// First second at which it signs: `nbf` of its JWK.
    pub from: Option<u64>,
    /// First second at which it no longer signs: `exp` of its JWK. What it signed before counts.
    pub until: Option<u64>,
    /// That it must no longer be relied on: `revoked` of its JWK.
    pub revoked: Option<Revocation>,
}

/// That a key was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Since when others than its owner may have signed with it, in seconds since 1970-01-01 UTC:
    /// `revoked_at`.
    pub since: u64,
    /// Why: `unspecified`, `compromised`, `superseded` (OpenID Federation 1.0), or what the issuer
    /// calls it; at most 64 characters, empty if it does not say.
    pub reason: String,
}

/// Why what a key signed does not count, although the key is in the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// It was issued before the key signed.
    NotYet { from: u64 },
    /// It was issued when the key no longer signed.
    Retired { until: u64 },
    /// The key was revoked.
    Revoked(Revocation),
}

impl std::fmt::Display for Lapse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotYet { from } => write!(f, "signs from {from} on"),
            Self::Retired { until } => write!(f, "was retired at {until}"),
            Self::Revoked(Revocation { since, reason }) => {
                write!(f, "was revoked as of {since} ({reason})")
            }
        }
    }
}

impl KeyValidity {
    /// Whether the key signs at that time.
    #[must_use]
    pub fn signs_at(&self, time: u64) -> bool {
        self.lapse(time, true).is_none()
    }

    /// Why something that says that it was issued at `iat` does not count. `is_relied_on` says that
    /// somebody is about to act on it, with nothing but the signature to vouch for `iat`: then
    /// nothing of a revoked key counts, since whoever stole it writes any `iat` that suits.
    pub(crate) fn lapse(&self, iat: u64, is_relied_on: bool) -> Option<Lapse> {
        let revoked = self.revoked.as_ref();
        if let Some(revoked) = revoked.filter(|revoked| is_relied_on || iat >= revoked.since) {
            return Some(Lapse::Revoked(revoked.clone()));
        }
        if let Some(from) = self.from.filter(|from| iat < *from) {
            return Some(Lapse::NotYet { from });
        }
        self.until.filter(|until| iat >= *until).map(|until| Lapse::Retired { until })
    }
}

/// Public keys, each once, in the order of the set: 1 to 256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    /// Of the key in the same place, each.
    validities: Vec<KeyValidity>,
}

impl KeySet {
    /// Of the keys given, which sign at any time; one given twice counts once.
    ///
    /// # Errors
    /// [`JwksError::Count`] if there are none or too many.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Result<Self, JwksError> {
        Self::with_validity(keys.into_iter().map(|key| (key, KeyValidity::default())))
    }

    /// Of the keys given; one given twice counts once.
    ///
    /// # Errors
    /// [`JwksError`]: none, too many, or one that is given twice and signs at different times.
    ///
    /// # Example
    /// ```
    /// use placet_core::{KeySet, KeyValidity, SigningKey};
    /// let (old, new) = (SigningKey::generate()?, SigningKey::generate()?);
    /// let turn = 1_800_000_000;
    /// let before = KeyValidity { until: Some(turn), ..KeyValidity::default() };
    /// let after = KeyValidity { from: Some(turn), ..KeyValidity::default() };
    /// let keys = [(old.verifying_key().clone(), before), (new.verifying_key().clone(), after)];
    /// let set = KeySet::with_validity(keys)?;
    /// assert!(set.to_json().contains(r#""nbf":1800000000"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_validity(
        keys: impl IntoIterator<Item = (VerifyingKey, KeyValidity)>,
    ) -> Result<Self, JwksError> {
        let mut set = Self { keys: Vec::new(), validities: Vec::new() };
        for (at, (key, validity)) in keys.into_iter().enumerate() {
            match set.validity(key.id()) {
                None => {
                    set.keys.push(key);
                    set.validities.push(validity);
                }
                Some(known) if *known == validity => {}
                Some(_) => {
                    let problem = "stands there before, with other times";
                    return Err(JwksError::Member { at, member: "kid", problem });
                }
            }
        }
        set.counted()
    }

    /// Reads a JWK set. Keys of other types are passed over, as RFC 7517 section 5 asks.
    ///
    /// # Errors
    /// [`JwksError`]: too long, no JSON, no key, a private key, or a member that contradicts the
    /// key.
    pub fn from_json(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > MAX_JWKS_BYTES {
            return Err(JwksError::TooLong { bytes: json.len() });
        }
        let set: Set = serde_json::from_slice(json).map_err(JwksError::Json)?;
        let mut keys = Vec::new();
        for (at, jwk) in set.keys.iter().enumerate() {
            if jwk.d.is_some() {
                return Err(JwksError::Private { at });
            }
            if jwk.kty == "OKP" && jwk.crv.as_deref() == Some("Ed25519") {
                keys.push((read(at, jwk)?, read_validity(at, jwk)?));
            }
        }
        Self::with_validity(keys)
    }

    /// Canonical JSON of the set.
    ///
    /// # Example
    /// ```
    /// use placet_core::{KeySet, SigningKey};
    /// let key = SigningKey::generate()?;
    /// let set = KeySet::new([key.verifying_key().clone()])?;
    /// assert_eq!(KeySet::from_json(set.to_json().as_bytes())?, set);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "strings and times have a canonical form")]
    pub fn to_json(&self) -> String {
        let keys = self.keys.iter().zip(&self.validities).map(|(key, validity)| Jwk {
            alg: Some("EdDSA".to_owned()),
            crv: Some("Ed25519".to_owned()),
            d: None,
            exp: validity.until.map(Value::from),
            kid: Some(key.id().to_string()),
            kty: "OKP".to_owned(),
            nbf: validity.from.map(Value::from),
            revoked: validity.revoked.as_ref().map(|revoked| match revoked.reason.as_str() {
                "" => json!({"revoked_at": revoked.since}),
                reason => json!({"revoked_at": revoked.since, "reason": reason}),
            }),
            usage: Some("sig".to_owned()),
            x: Some(URL_SAFE_NO_PAD.encode(key.as_bytes())),
        });
        let json = canonical_json(&Set { keys: keys.collect() });
        String::from_utf8(json.expect("strings and times have a canonical form"))
            .expect("canonical JSON is UTF-8")
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The key of that name.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&VerifyingKey> {
        self.find(id.as_str())
    }

    /// When the key of that name signs.
    #[must_use]
    pub fn validity(&self, id: &KeyId) -> Option<&KeyValidity> {
        let at = self.keys.iter().position(|key| key.id() == id)?;
        self.validities.get(at)
    }

    pub(crate) fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| key.id().as_str() == kid)
    }

    /// See [`KeyValidity::lapse`].
    pub(crate) fn lapse(&self, kid: &KeyId, iat: u64, is_relied_on: bool) -> Option<Lapse> {
        self.validity(kid).and_then(|validity| validity.lapse(iat, is_relied_on))
    }

    fn counted(self) -> Result<Self, JwksError> {
        match self.keys.len() {
            1..=MAX_KEYS => Ok(self),
            keys => Err(JwksError::Count { keys }),
        }
    }
}

fn read(at: usize, jwk: &Jwk) -> Result<VerifyingKey, JwksError> {
    let problem = |member, problem| JwksError::Member { at, member, problem };
    if !matches!(jwk.usage.as_deref(), None | Some("sig")) {
        return Err(problem("use", "is not `sig`"));
    }
    if !matches!(jwk.alg.as_deref(), None | Some("EdDSA" | "Ed25519")) {
        return Err(problem("alg", "is neither `EdDSA` nor `Ed25519`"));
    }
    let x = jwk.x.as_deref().ok_or_else(|| problem("x", "is missing"))?;
    let key = match URL_SAFE_NO_PAD.decode(x).as_deref().map(VerifyingKey::from_bytes) {
        Ok(Ok(key)) => key,
        Ok(Err(_)) | Err(_) => {
            return Err(problem("x", "is not an Ed25519 public key in base64url"));
        }
    };
    // Another name could make one key stand in for another.
    if jwk.kid.as_deref().is_some_and(|kid| kid != key.id().as_str()) {
        return Err(problem("kid", "is not the thumbprint (RFC 7638) of the key beside it"));
    }
    Ok(key)
}

fn read_validity(at: usize, jwk: &Jwk) -> Result<KeyValidity, JwksError> {
    let problem = |member, problem| JwksError::Member { at, member, problem };
    let time = |member, value: Option<&Value>| match value.map(Value::as_u64) {
        None => Ok(None),
        Some(Some(time)) if time <= MAX_TIME => Ok(Some(time)),
        Some(_) => Err(problem(member, "is not a whole number of seconds since 1970")),
    };
    let from = time("nbf", jwk.nbf.as_ref())?;
    let until = time("exp", jwk.exp.as_ref())?;
    if from.zip(until).is_some_and(|(from, until)| until <= from) {
        return Err(problem("exp", "is not after `nbf`"));
    }
    let Some(revoked) = &jwk.revoked else { return Ok(KeyValidity { from, until, revoked: None }) };
    let since = time("revoked.revoked_at", revoked.get("revoked_at"))?;
    let since = since.ok_or_else(|| problem("revoked.revoked_at", "is missing"))?;
    let reason = match revoked.get("reason") {
        None => String::new(),
        Some(Value::String(reason)) => printable(reason),
        Some(_) => return Err(problem("revoked.reason", "is not a text")),
    };
    Ok(KeyValidity { from, until, revoked: Some(Revocation { since, reason }) })
}

/// A reason, without what a terminal would obey.
fn printable(reason: &str) -> String {
    reason.chars().filter(|char| !char.is_control()).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8037 appendix A.2 and A.3.
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    fn set(members: &str) -> Result<KeySet, JwksError> {
        let text = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519",{members}}}]}}"#);
        KeySet::from_json(text.as_bytes())
    }

    #[test]
    fn the_key_of_rfc_8037_has_its_thumbprint() {
        let read = set(&format!(r#""x":"{X}""#)).expect("a key");
        assert_eq!(read.keys()[0].id().as_str(), KID);
        let written = read.to_json();
        assert_eq!(KeySet::from_json(written.as_bytes()).expect("reads back"), read);
        assert!(written.contains(r#""use":"sig""#), "{written}");
    }

    #[test]
    fn each_fault_is_named() {
        let faults = [
            (format!(r#""x":"{X}","use":"enc""#), "`keys[0].use` is not `sig`"),
            (format!(r#""x":"{X}","alg":"HS256""#), "`keys[0].alg` is neither"),
            (format!(r#""x":"{X}","kid":"mine""#), "`keys[0].kid` is not the thumbprint"),
            (format!(r#""x":"{X}=""#), "`keys[0].x` is not an Ed25519 public key"),
            (r#""kid":"mine""#.to_owned(), "`keys[0].x` is missing"),
            (format!(r#""x":"{X}","d":"{X}""#), "`keys[0]` holds a private key"),
            (format!(r#""x":"{X}","nbf":"1""#), "`keys[0].nbf` is not a whole number"),
            (format!(r#""x":"{X}","exp":1.5"#), "`keys[0].exp` is not a whole number"),
            (format!(r#""x":"{X}","exp":-1"#), "`keys[0].exp` is not a whole number"),
            (format!(r#""x":"{X}","nbf":7,"exp":7"#), "`keys[0].exp` is not after `nbf`"),
            (format!(r#""x":"{X}","revoked":true"#), "`keys[0].revoked.revoked_at` is missing"),
            (
                format!(r#""x":"{X}","revoked":{{"revoked_at":1,"reason":2}}"#),
                "`keys[0].revoked.reason` is not a text",
            ),
        ];
        for (members, message) in faults {
            let error = set(&members).expect_err(&members).to_string();
            assert!(error.starts_with(message), "{members}: {error}");
        }
    }

    #[test]
    fn what_a_key_says_of_itself_survives_its_text() {
        let members = r#""nbf":5,"exp":9,"revoked":{"revoked_at":7,"reason":"compro\u001bmised"}"#;
        let set = set(&format!(r#""x":"{X}",{members}"#)).expect("a key");
        let key = &set.keys()[0];
        let revoked = Revocation { since: 7, reason: "compromised".to_owned() };
        let (from, until) = (Some(5), Some(9));
        let expected = KeyValidity { from, until, revoked: Some(revoked) };
        assert_eq!(set.validity(key.id()), Some(&expected));
        assert_eq!(KeySet::from_json(set.to_json().as_bytes()).expect("reads back"), set);

        let twice = [(key.clone(), expected), (key.clone(), KeyValidity::default())];
        let error = KeySet::with_validity(twice).expect_err("two sayings").to_string();
        assert!(error.starts_with("`keys[1].kid` stands there before"), "{error}");
        let other = r#"{"keys":[{"kty":"RSA","nbf":"x"},{"kty":"OKP","crv":"Ed25519","x":"X"}]}"#;
        assert!(KeySet::from_json(other.replace("\"X\"", &format!("\"{X}\"")).as_bytes()).is_ok());
    }

    #[test]
    fn sets_without_a_key_of_ours_are_refused() {
        for text in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}"#] {
            let error = KeySet::from_json(text.as_bytes()).expect_err(text);
            assert!(matches!(error, JwksError::Count { keys: 0 }), "{error}");
        }
        assert!(matches!(KeySet::from_json(b"{}"), Err(JwksError::Json(_))));
        let long = vec![b' '; MAX_JWKS_BYTES + 1];
        assert!(matches!(KeySet::from_json(&long), Err(JwksError::TooLong { .. })));
    }
}
