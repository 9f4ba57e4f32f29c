//! Digests and message authentication codes, in hexadecimal as OPA gives them.

use std::fmt::Write as _;

use aws_lc_rs::{constant_time, digest, hmac};
use hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512};
use md5::{Digest as _, Md5};
use regorus::Value;

use super::text::text;
use crate::rego::weigh::Refused;

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("writing to a string does not fail");
    }
    digits
}

/// `crypto.md5`.
pub(super) fn md5(given: &[Value]) -> Result<Value, Refused> {
    let digest = Md5::digest(text(given, 0, "the text")?.as_bytes());
    Ok(Value::from(hexadecimal(&digest)))
}

/// `crypto.sha1`.
pub(super) fn sha1(given: &[Value]) -> Result<Value, Refused> {
    digested(given, &digest::SHA1_FOR_LEGACY_USE_ONLY)
}

/// `crypto.sha256`.
pub(super) fn sha256(given: &[Value]) -> Result<Value, Refused> {
    digested(given, &digest::SHA256)
}

fn digested(given: &[Value], algorithm: &'static digest::Algorithm) -> Result<Value, Refused> {
    let digest = digest::digest(algorithm, text(given, 0, "the text")?.as_bytes());
    Ok(Value::from(hexadecimal(digest.as_ref())))
}

/// `crypto.hmac.md5`.
pub(super) fn hmac_md5(given: &[Value]) -> Result<Value, Refused> {
    use ::hmac::{Hmac, Mac as _};
    let (message, key) = (text(given, 0, "the text")?, text(given, 1, "the key")?);
    let mut code = Hmac::<Md5>::new_from_slice(key.as_bytes())
        .map_err(|_length| Refused::Wrong("the key has no valid length".to_owned()))?;
    code.update(message.as_bytes());
    Ok(Value::from(hexadecimal(&code.finalize().into_bytes())))
}

/// `crypto.hmac.sha1`.
pub(super) fn hmac_sha1(given: &[Value]) -> Result<Value, Refused> {
    authenticated(given, HMAC_SHA1_FOR_LEGACY_USE_ONLY)
}

/// `crypto.hmac.sha256`.
pub(super) fn hmac_sha256(given: &[Value]) -> Result<Value, Refused> {
    authenticated(given, HMAC_SHA256)
}

/// `crypto.hmac.sha512`.
pub(super) fn hmac_sha512(given: &[Value]) -> Result<Value, Refused> {
    authenticated(given, HMAC_SHA512)
}

fn authenticated(given: &[Value], algorithm: hmac::Algorithm) -> Result<Value, Refused> {
    let (message, key) = (text(given, 0, "the text")?, text(given, 1, "the key")?);
    let key = hmac::Key::new(algorithm, key.as_bytes());
    let code = hmac::sign(&key, message.as_bytes());
    Ok(Value::from(hexadecimal(code.as_ref())))
}

/// `crypto.hmac.equal`: in a time that tells nothing of where they differ.
pub(super) fn equal(given: &[Value]) -> Result<Value, Refused> {
    let (one, other) = (text(given, 0, "the first code")?, text(given, 1, "the second code")?);
    let same = constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes());
    Ok(Value::from(same.is_ok()))
}
