//! Public keys as a JWK set (RFC 7517 §5, RFC 8037 §2): how verifiers in any language learn them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::{KeyError, KeyId, VerifyingKey, canonical_json};

/// Largest JWK set in bytes: over a hundred bytes a key leave room for every member of RFC 7517.
pub const MAX_JWKS_BYTES: usize = 65_536;
/// Most keys of a set: replicas times overlapping rotations, with room.
pub const MAX_KEYS: usize = 256;

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
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// Public keys, each once, in the order of the set: 1 to 256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
}

impl KeySet {
    /// Of the keys given; one given twice counts once.
    ///
    /// # Errors
    /// [`JwksError::Count`] if there are none or too many.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Result<Self, JwksError> {
        let mut set = Self { keys: Vec::new() };
        for key in keys {
            if set.get(key.id()).is_none() {
                set.keys.push(key);
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
                keys.push(read(at, jwk)?);
            }
        }
        Self::new(keys)
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
    #[expect(clippy::missing_panics_doc, reason = "a set of strings always has a canonical form")]
    pub fn to_json(&self) -> String {
        let keys = self.keys.iter().map(|key| Jwk {
            alg: Some("EdDSA".to_owned()),
            crv: Some("Ed25519".to_owned()),
            d: None,
            kid: Some(key.id().to_string()),
            kty: "OKP".to_owned(),
            usage: Some("sig".to_owned()),
            x: Some(URL_SAFE_NO_PAD.encode(key.as_bytes())),
        });
        let json = canonical_json(&Set { keys: keys.collect() });
        String::from_utf8(json.expect("a set of strings has a canonical form"))
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

    pub(crate) fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| key.id().as_str() == kid)
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
        Ok(Err(KeyError::Pkcs8 | KeyError::Public | KeyError::KeyId | KeyError::Library))
        | Err(_) => return Err(problem("x", "is not an Ed25519 public key in base64url")),
    };
    // Another name could make one key stand in for another.
    if jwk.kid.as_deref().is_some_and(|kid| kid != key.id().as_str()) {
        return Err(problem("kid", "is not the thumbprint (RFC 7638) of the key beside it"));
    }
    Ok(key)
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
        ];
        for (members, message) in faults {
            let error = set(&members).expect_err(&members).to_string();
            assert!(error.starts_with(message), "{members}: {error}");
        }
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
