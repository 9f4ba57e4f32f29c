//! Compact JWS (RFC 7515 §3.1) with Ed25519 (RFC 8037): what everything that Placet signs as text
//! has in common.
//!
//! Each kind of text has a `typ` of its own (RFC 8725 §3.11), which is signed with it: a text of
//! one kind never verifies as one of another, though one key signed both.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::signature::SIGNATURE_BYTES;
use crate::{KeyError, KeyId, KeySet, SigningKey};

/// Longest header in bytes, decoded: ours have about 100.
const MAX_HEADER_BYTES: usize = 512;
/// Characters of an encoded signature.
const SIGNATURE_CHARS: usize = SIGNATURE_BYTES.div_ceil(3) * 4 - 2;

/// Why a text is refused before its claims are read. Each kind of text tells it in words of its
/// own.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It has more bytes than its kind may have.
    TooLong { bytes: usize },
    /// It is no compact JWS.
    Malformed { part: &'static str },
    /// It asks for no signature, or for another algorithm; cut to a printable length.
    Algorithm { alg: String },
    /// It is of another kind; cut to a printable length.
    Type { typ: String },
    /// Its header asks for something that ours never have; cut to a printable length.
    Header { member: String },
    /// The key that it names is not in the set; cut to a printable length.
    UnknownKey { kid: String },
    /// The signature does not match.
    Mismatch { kid: KeyId },
}

/// The encoded header of texts of that kind, signed by that key.
pub(crate) fn encoded_header(typ: &str, kid: &KeyId) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}"}}"#))
}

/// Bytes of the text that [`sign`] would give.
pub(crate) fn encoded_bytes(header: &str, claims: &[u8]) -> usize {
    let encoded_claims = (claims.len() * 4).div_ceil(3);
    header.len() + 1 + encoded_claims + 1 + SIGNATURE_CHARS
}

/// Signs claims under a header that [`encoded_header`] gave.
pub(crate) fn sign(key: &SigningKey, header: &str, claims: &[u8]) -> Result<String, KeyError> {
    let mut text = String::with_capacity(encoded_bytes(header, claims));
    text.push_str(header);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}

/// The claims of a text of that kind and the key that signed it, once its signature is found good.
pub(crate) fn verified(
    keys: &KeySet,
    text: &str,
    typ: &str,
    max_bytes: usize,
) -> Result<(Vec<u8>, KeyId), Refusal> {
    if text.len() > max_bytes {
        return Err(Refusal::TooLong { bytes: text.len() });
    }
    let Some((input, signature)) = text.rsplit_once('.') else {
        return Err(Refusal::Malformed { part: "the number of its parts" });
    };
    let Some((header, claims)) = input.split_once('.').filter(|(_, tail)| !tail.contains('.'))
    else {
        return Err(Refusal::Malformed { part: "the number of its parts" });
    };
    let kid = Header::read(&decode(header, "its header")?)?.check(typ)?;
    let claims = decode(claims, "its payload")?;
    let signature = decode(signature, "its signature")?;
    let Some(key) = keys.find(&kid) else {
        return Err(Refusal::UnknownKey { kid: printable(&kid) });
    };
    if !key.verifies(input.as_bytes(), &signature) {
        return Err(Refusal::Mismatch { kid: key.id().clone() });
    }
    Ok((claims, key.id().clone()))
}

/// The key that a text of that kind names, whether or not it signed it.
pub(crate) fn named_key(text: &str, typ: &str) -> Result<String, Refusal> {
    let header = text.split('.').next().unwrap_or_default();
    let kid = Header::read(&decode(header, "its header")?)?.check(typ)?;
    Ok(printable(&kid))
}

fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, Refusal> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Refusal::Malformed { part }),
    }
}

/// What a stranger wrote, made fit for a message of ours.
pub(crate) fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    text.chars().take(MAX_CHARS).flat_map(char::escape_default).collect()
}

/// The members of a header, each once, in the order written.
struct Header(Vec<(String, serde_json::Value)>);

impl Header {
    fn read(json: &[u8]) -> Result<Self, Refusal> {
        if json.len() > MAX_HEADER_BYTES {
            return Err(Refusal::Malformed { part: "its header" });
        }
        match serde_json::from_slice(json) {
            Ok(header) => Ok(header),
            Err(_) => Err(Refusal::Malformed { part: "its header" }),
        }
    }

    /// The key id of a header that is one of ours, of that kind.
    ///
    /// Members that we do not write are refused, not passed over: `jku`, `jwk` and their kin bring
    /// keys along, `crit` and `b64` change what is signed, and nobody but Placet issues texts of
    /// these types.
    fn check(self, expected: &str) -> Result<String, Refusal> {
        let (mut alg, mut typ, mut kid) = (None, None, None);
        for (name, value) in self.0 {
            let member = match name.as_str() {
                "alg" => &mut alg,
                "typ" => &mut typ,
                "kid" => &mut kid,
                other => return Err(Refusal::Header { member: printable(other) }),
            };
            *member = value.as_str().map(str::to_owned);
        }
        match alg {
            Some(alg) if alg == "EdDSA" || alg == "Ed25519" => {}
            other => {
                let alg = printable(&other.unwrap_or_default());
                return Err(Refusal::Algorithm { alg });
            }
        }
        match typ {
            Some(typ) if typ == expected => {}
            other => return Err(Refusal::Type { typ: printable(&other.unwrap_or_default()) }),
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
