//! JSON Web Tokens that policies are given: read, and verified.
//!
//! Nothing here signs, and nothing here looks at a clock: where a time is not given, it is the
//! request's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regorus::Value;
use regorus::value::Object;

use super::crypto::hexadecimal;
use super::keys::{self, Key};
use super::text::text;
use super::time_ns;
use crate::rego::weigh::Refused;

/// Most tokens inside of each other.
const MAX_NESTED: usize = 4;
/// Header parameters that are understood here: a token that needs another is not accepted.
const UNDERSTOOD: [&str; 4] = ["alg", "cty", "kid", "typ"];

fn wrong(what: &str) -> Refused {
    Refused::Wrong(what.to_owned())
}

fn bytes(encoded: &str) -> Result<Vec<u8>, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('='));
    bytes.map_err(|_invalid| wrong("a part of the token is not base64url"))
}

fn object(encoded: &str) -> Result<Value, Refused> {
    let text = String::from_utf8(bytes(encoded)?)
        .map_err(|_invalid| wrong("a part of the token is no text"))?;
    let value = keys::json(&text, "a part of the token is no JSON")?;
    if matches!(value, Value::Object(_)) {
        Ok(value)
    } else {
        Err(wrong("a part of the token is not an object"))
    }
}

/// A compact token with its three parts.
struct Token<'a> {
    signed: &'a str,
    header: Value,
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    fn read(token: &'a str) -> Result<Self, Refused> {
        let sections = || wrong("an encoded token has three sections");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(sections)?;
        let (header, payload) = signed.split_once('.').ok_or_else(sections)?;
        if payload.contains('.') {
            return Err(sections());
        }
        let header = object(header)?;
        if field(&header, "enc").is_some() {
            return Err(wrong("the token is encrypted, which is not supported"));
        }
        Ok(Self { signed, header, payload, signature: bytes(signature)? })
    }

    fn name(&self, name: &str) -> Option<&str> {
        named(&self.header, name)
    }

    /// The token inside, if this one holds another.
    fn inside(&self) -> Result<Option<String>, Refused> {
        if !self.name("cty").is_some_and(|kind| kind.eq_ignore_ascii_case("JWT")) {
            return Ok(None);
        }
        let text = String::from_utf8(bytes(self.payload)?)
            .map_err(|_invalid| wrong("the token inside is no text"))?;
        Ok(Some(text.trim_matches('"').to_owned()))
    }

    /// Whether one of the keys, or the one with the token's `kid`, signed it.
    fn verified(&self, keys: &[Key], algorithm: &str) -> Result<bool, Refused> {
        let message = self.signed.as_bytes();
        if let Some(id) = self.name("kid").filter(|id| !id.is_empty())
            && let Some(key) = keys.iter().find(|key| key.id.as_deref() == Some(id))
        {
            return key.verifies(algorithm, message, &self.signature);
        }
        for key in keys {
            let fits = key.algorithm.as_deref().is_none_or(|own| self.name("alg") == Some(own));
            if fits && key.verifies(algorithm, message, &self.signature)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.as_object().ok().and_then(|object| object.get(&Value::from(name)))
}

fn named<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    match field(object, name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// `io.jwt.decode`: header, payload and the signature in hexadecimal, of the innermost token.
pub(super) fn decode(given: &[Value]) -> Result<Value, Refused> {
    let mut token = text(given, 0, "the token")?.to_owned();
    for _ in 0..MAX_NESTED {
        let read = Token::read(&token)?;
        match read.inside()? {
            Some(inside) => token = inside,
            None => {
                let signature = Value::from(hexadecimal(&read.signature));
                return Ok(Value::from(vec![read.header, object(read.payload)?, signature]));
            }
        }
    }
    Err(wrong("the token holds too many tokens"))
}

/// `io.jwt.verify_*`: whether the signature is right, by the named algorithm.
pub(super) fn verify(given: &[Value], algorithm: &str) -> Result<Value, Refused> {
    let token = Token::read(text(given, 0, "the token")?)?;
    let key = text(given, 1, "the key")?;
    let keys = if algorithm.starts_with("HS") { vec![keys::secret(key)] } else { keys::read(key)? };
    Ok(Value::from(token.verified(&keys, algorithm)?))
}

/// What a token must be to be accepted.
struct Constraints {
    keys: Vec<Key>,
    symmetric: bool,
    algorithm: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    time_ns: Value,
}

impl Constraints {
    fn read(given: Option<&Value>) -> Result<Self, Refused> {
        let Some(Value::Object(object)) = given else {
            return Err(wrong("the constraints are not an object"));
        };
        let mut read = Self {
            keys: Vec::new(),
            symmetric: false,
            algorithm: None,
            issuer: None,
            audience: None,
            time_ns: Value::from(time_ns()),
        };
        let (mut certificate, mut secret) = (None, None);
        for (name, value) in object.iter_sorted() {
            let text = || match value.as_string() {
                Ok(text) => Ok(text.to_string()),
                Err(_other) => Err(Refused::Wrong(format!("constraint {name} is not a text"))),
            };
            match name.as_string().map(AsRef::as_ref) {
                Ok("alg") => read.algorithm = Some(text()?),
                Ok("iss") => read.issuer = Some(text()?),
                Ok("aud") => read.audience = Some(text()?),
                Ok("cert") => certificate = Some(text()?),
                Ok("secret") => secret = Some(text()?),
                Ok("time") if matches!(value, Value::Number(_)) => read.time_ns = value.clone(),
                Ok("time") => return Err(wrong("constraint `time` is not a number")),
                _ => {
                    return Err(wrong("a constraint is none of alg, aud, cert, iss, secret, time"));
                }
            }
        }
        match (certificate, secret) {
            (Some(key), None) => read.keys = keys::read(&key)?,
            (None, Some(key)) => (read.keys, read.symmetric) = (vec![keys::secret(&key)], true),
            (Some(_), Some(_)) => return Err(wrong("constraints name a `cert` and a `secret`")),
            (None, None) => return Err(wrong("constraints name neither `cert` nor `secret`")),
        }
        Ok(read)
    }

    /// Whether issuer, audience and times of a verified payload are as they must be.
    fn hold(&self, payload: &Value) -> Result<bool, Refused> {
        if let Some(issuer) = &self.issuer
            && named(payload, "iss") != Some(issuer)
        {
            return Ok(false);
        }
        let meant = match (&self.audience, field(payload, "aud")) {
            (None, None) => true,
            (Some(audience), Some(Value::String(text))) => text.as_ref() == audience.as_str(),
            (Some(audience), Some(Value::Array(items))) => {
                items.iter().any(|item| *item == Value::from(audience.as_str()))
            }
            _ => false,
        };
        Ok(meant && self.in_time(payload)?)
    }

    /// `exp` is the first second at which a token is no longer good, `nbf` the first at which it
    /// is. Both may be fractions; compared in nanoseconds, they are exact to the double's last bit.
    fn in_time(&self, payload: &Value) -> Result<bool, Refused> {
        let at = |name: &str| match field(payload, name) {
            None => Ok(None),
            Some(Value::Number(seconds)) => {
                let factor = regorus::Value::from(1_000_000_000_u64);
                let Value::Number(factor) = factor else { return Ok(None) };
                let time = seconds.mul(&factor);
                time.map(|time| Some(Value::from(time)))
                    .map_err(|_overflow| Refused::Wrong(format!("`{name}` is out of range")))
            }
            Some(_) => Err(Refused::Wrong(format!("`{name}` value must be a number"))),
        };
        let (expires, begins) = (at("exp")?, at("nbf")?);
        Ok(expires.is_none_or(|time| self.time_ns < time)
            && begins.is_none_or(|time| self.time_ns >= time))
    }
}

/// `io.jwt.decode_verify`: whether it is good, its header and its payload.
pub(super) fn decode_verify(given: &[Value]) -> Result<Value, Refused> {
    let nothing = || Value::from(Object::new());
    let refused = || Ok(Value::from(vec![Value::from(false), nothing(), nothing()]));
    let constraints = Constraints::read(given.get(1))?;
    let mut encoded = text(given, 0, "the token")?.to_owned();
    for _ in 0..MAX_NESTED {
        let token = Token::read(&encoded)?;
        let Some(algorithm) = token.name("alg") else { return refused() };
        if !understood(&token.header)
            || constraints.algorithm.as_deref().is_some_and(|wanted| wanted != algorithm)
        {
            return refused();
        }
        if !keys::exists(algorithm) {
            return Err(wrong("the token names an unknown algorithm"));
        }
        if constraints.symmetric != algorithm.starts_with("HS")
            || !token.verified(&constraints.keys, algorithm)?
        {
            return refused();
        }
        if let Some(inside) = token.inside()? {
            encoded = inside;
            continue;
        }
        let payload = object(token.payload)?;
        if !constraints.hold(&payload)? {
            return refused();
        }
        return Ok(Value::from(vec![Value::from(true), token.header, payload]));
    }
    Err(wrong("the token holds too many tokens"))
}

/// Whether everything that the token calls critical is understood.
fn understood(header: &Value) -> bool {
    match field(header, "crit") {
        None => true,
        Some(Value::Array(names)) => names
            .iter()
            .all(|name| name.as_string().is_ok_and(|name| UNDERSTOOD.contains(&name.as_ref()))),
        Some(_) => false,
    }
}
