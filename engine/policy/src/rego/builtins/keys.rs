//! Public keys as OPA takes them: a certificate or key in PEM, a JWK, or a set of them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regorus::Value;

use super::super::ticks;
use super::super::weigh::{Refused, at_most, count, pay};

/// Most keys of a set that are tried.
const MAX_KEYS: u64 = 64;
/// What verifying one signature costs in ticks: some tens of microseconds.
const SIGNATURE_TICKS: u64 = 512;

/// A key with what a set says of it.
#[derive(Debug)]
pub(super) struct Key {
    material: Material,
    /// `kid`.
    pub(super) id: Option<String>,
    /// `alg`.
    pub(super) algorithm: Option<String>,
}

#[derive(Debug)]
enum Material {
    /// A `SubjectPublicKeyInfo`, or an RSA public key of PKCS #1.
    Der(Vec<u8>),
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
    /// A point on a curve, uncompressed, or of Ed25519.
    Point(Vec<u8>),
    /// What two sides share.
    Secret(Vec<u8>),
}

/// A key that is a shared secret.
pub(super) fn secret(text: &str) -> Key {
    Key { material: Material::Secret(text.as_bytes().to_vec()), id: None, algorithm: None }
}

/// Reads what OPA calls a certificate.
pub(super) fn read(text: &str) -> Result<Vec<Key>, Refused> {
    if text.contains("-----BEGIN") { pem(text).map(|key| vec![key]) } else { jwks(text) }
}

fn wrong(what: &str) -> Refused {
    Refused::Wrong(what.to_owned())
}

fn pem(text: &str) -> Result<Key, Refused> {
    let (rest, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes())
        .map_err(|_invalid| wrong("the certificate is no valid PEM"))?;
    if rest.iter().any(|byte| !byte.is_ascii_whitespace()) {
        return Err(wrong("extra data after a PEM certificate block"));
    }
    let der = match pem.label.as_str() {
        "CERTIFICATE" => {
            let (_, certificate) = x509_parser::parse_x509_certificate(&pem.contents)
                .map_err(|_invalid| wrong("the certificate is no valid X.509"))?;
            certificate.public_key().raw.to_vec()
        }
        "PUBLIC KEY" | "RSA PUBLIC KEY" => pem.contents,
        _ => return Err(wrong("failed to extract a key from the PEM certificate")),
    };
    Ok(Key { material: Material::Der(der), id: None, algorithm: None })
}

fn jwks(text: &str) -> Result<Vec<Key>, Refused> {
    let document = json(text, "the key is neither PEM nor a JWK")?;
    let field = |document: &Value, name: &str| {
        document.as_object().ok().and_then(|object| object.get(&Value::from(name))).cloned()
    };
    let keys = match field(&document, "keys") {
        Some(Value::Array(keys)) => keys.iter().cloned().collect(),
        _ => vec![document],
    };
    at_most(count(keys.len()), MAX_KEYS, "keys of a set")?;
    let read = keys.iter().map(|key| {
        let text = |name: &str| match field(key, name) {
            Some(Value::String(text)) => Some(text.to_string()),
            _ => None,
        };
        let bytes = |name: &str| {
            let bytes = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            bytes.ok_or_else(|| Refused::Wrong(format!("`{name}` of a JWK is missing or invalid")))
        };
        let material = match text("kty").as_deref() {
            Some("RSA") => Material::Rsa(stripped(bytes("n")?), stripped(bytes("e")?)),
            Some("EC") => {
                let mut point = vec![4];
                point.extend(bytes("x")?);
                point.extend(bytes("y")?);
                Material::Point(point)
            }
            Some("OKP") => Material::Point(bytes("x")?),
            Some("oct") => Material::Secret(bytes("k")?),
            _ => return Err(wrong("`kty` of a JWK is none of RSA, EC, OKP, oct")),
        };
        Ok(Key { material, id: text("kid"), algorithm: text("alg") })
    });
    read.collect()
}

fn stripped(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Reads JSON that came in a text, within the limits of values.
pub(super) fn json(text: &str, otherwise: &str) -> Result<Value, Refused> {
    super::text::json_numbers_are_short(text)?;
    // The parser has a limit of its own for what is nested, 128 levels, and does not recurse
    // further.
    let value = Value::from_json_str(text).map_err(|_invalid| wrong(otherwise))?;
    pay([&value])?;
    Ok(value)
}

/// Whether an algorithm of JWS exists.
pub(super) fn exists(algorithm: &str) -> bool {
    let names = [
        "EdDSA", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "PS256", "PS384", "PS512",
        "RS256", "RS384", "RS512",
    ];
    names.contains(&algorithm)
}

impl Key {
    /// Whether the signature is of the message, by this key and this algorithm. A key of another
    /// kind verifies nothing.
    pub(super) fn verifies(
        &self,
        algorithm: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Refused> {
        ticks::charge(SIGNATURE_TICKS)?;
        let rsa = |parameters: &'static RsaParameters| match &self.material {
            Material::Rsa(n, e) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Material::Der(_) => self.verifies_by(parameters, message, signature),
            Material::Point(_) | Material::Secret(_) => false,
        };
        let hmac = |algorithm: hmac::Algorithm| match &self.material {
            Material::Secret(secret) => {
                let code = hmac::sign(&hmac::Key::new(algorithm, secret), message);
                constant_time::verify_slices_are_equal(code.as_ref(), signature).is_ok()
            }
            Material::Der(_) | Material::Rsa(..) | Material::Point(_) => false,
        };
        let curve = |algorithm| self.verifies_by(algorithm, message, signature);
        Ok(match algorithm {
            "RS256" => rsa(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            "RS384" => rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => rsa(&RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            "PS256" => rsa(&RSA_PSS_2048_8192_SHA256),
            "PS384" => rsa(&RSA_PSS_2048_8192_SHA384),
            "PS512" => rsa(&RSA_PSS_2048_8192_SHA512),
            "ES256" => curve(&ECDSA_P256_SHA256_FIXED),
            "ES384" => curve(&ECDSA_P384_SHA384_FIXED),
            "ES512" => curve(&ECDSA_P521_SHA512_FIXED),
            "EdDSA" => curve(&ED25519),
            "HS256" => hmac(hmac::HMAC_SHA256),
            "HS384" => hmac(hmac::HMAC_SHA384),
            "HS512" => hmac(hmac::HMAC_SHA512),
            _ => false,
        })
    }

    fn verifies_by(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let (Material::Der(key) | Material::Point(key)) = &self.material else { return false };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}
