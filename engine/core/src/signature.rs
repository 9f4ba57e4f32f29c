//! Ed25519 keys (RFC 8032) and their names.
//!
//! One kind of key signs two kinds of bytes, and neither can pass for the other: the signing input
//! of a token, or of a bundle's signature, is base64url text without any line break, that of a
//! checkpoint is a note, in which every line ends with one. Texts of the first kind carry their
//! type in the header, which is signed.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Digest;

/// Bytes of a public key.
pub(crate) const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// Characters of a [`KeyId`]: 32 bytes in base64url without padding.
const KEY_ID_CHARS: usize = 43;

/// Why something is no usable key, or a key could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are no private key.
    #[error(
        "is not an unencrypted Ed25519 private key in PKCS#8 form\n\
         hint: `openssl genpkey -algorithm ed25519 -outform DER` writes one"
    )]
    Pkcs8,
    /// The bytes are no public key.
    #[error("is not an Ed25519 public key: 32 bytes that name a point of the curve")]
    Public,
    /// The text is no key id.
    #[error("is not a key id: 43 characters of base64url, a JWK thumbprint (RFC 7638)")]
    KeyId,
    /// The cryptographic library gave no result, as when the system has no randomness.
    #[error("the cryptographic library failed")]
    Library,
    /// No key signs at that time: it is before or behind that of all, or they were revoked.
    #[error("no key is in use at that time\nhint: `placet keys list` tells when which signs")]
    NoneInUse,
    /// The private part is elsewhere, and whoever has it gave no good signature, or not in time.
    #[error("whoever keeps the private key gave no signature")]
    Elsewhere,
}

/// Name of a key: the SHA-256 thumbprint of its JWK (RFC 7638, RFC 8037 §2), 43 characters of
/// base64url.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Takes the text of a key id after checking it.
    ///
    /// # Errors
    /// [`KeyError::KeyId`] unless it is the base64url form of 32 bytes.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        if text.len() != KEY_ID_CHARS {
            return Err(KeyError::KeyId);
        }
        match URL_SAFE_NO_PAD.decode_slice_unchecked(&text, &mut bytes) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(KeyError::KeyId),
        }
    }

    fn of(public: &[u8]) -> Self {
        // RFC 7638 §3: the required members only, sorted by name, without spaces.
        let x = URL_SAFE_NO_PAD.encode(public);
        let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        Self(URL_SAFE_NO_PAD.encode(Digest::of(jwk.as_bytes()).as_bytes()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The DER bytes of a private key (PKCS#8 version 1, RFC 5208). Wiped when dropped, and never
/// printed.
pub struct PrivateKeyDer(aws_lc_rs::pkcs8::Document);

impl AsRef<[u8]> for PrivateKeyDer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl fmt::Debug for PrivateKeyDer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyDer(..)")
    }
}

/// What signs bytes with a key that is kept elsewhere, as in a hardware security module: from any
/// thread, and the bytes of RFC 8032 §5.1.6.
type SignElsewhere = dyn Fn(&[u8]) -> Result<[u8; SIGNATURE_BYTES], KeyError> + Send + Sync;

/// Where the private part of a key is.
enum Secret {
    /// In the library's memory.
    Here(Ed25519KeyPair),
    /// Where only its signatures come from.
    Elsewhere(Box<SignElsewhere>),
}

/// A private key. Shared between threads without a lock: signing changes nothing in it.
///
/// The library keeps the secret in memory of its own and wipes it when the key is dropped; `Debug`
/// shows the name only.
pub struct SigningKey {
    secret: Secret,
    verifying: VerifyingKey,
    /// The header of every decision that it signs, encoded once.
    header: String,
}

impl SigningKey {
    /// A fresh key from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Library`] if the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        match Ed25519KeyPair::generate() {
            Ok(pair) => Self::of(pair),
            Err(_) => Err(KeyError::Library),
        }
    }

    /// Reads PKCS#8 DER (RFC 8410), version 1 or 2.
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`] if the bytes are anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        match Ed25519KeyPair::from_pkcs8(der) {
            Ok(pair) => Self::of(pair),
            Err(_) => Err(KeyError::Pkcs8),
        }
    }

    /// A key whose private part is elsewhere: `sign` gives the signature of its public half for the
    /// bytes that it gets, 64 bytes (RFC 8032 §5.1.6), from any thread. It is called for everything
    /// that the key signs; what it takes, signing takes.
    ///
    /// Has it sign a probe, and checks that.
    ///
    /// # Errors
    /// What `sign` gave, or [`KeyError::Elsewhere`] if the probe is signed by another key.
    ///
    /// # Example
    /// ```
    /// use placet_core::{KeyError, SigningKey};
    /// let key = SigningKey::generate()?;
    /// let public = key.verifying_key().clone();
    /// let refusing = SigningKey::elsewhere(public, |_bytes| Err(KeyError::Elsewhere));
    /// assert!(refusing.is_err());
    /// # Ok::<(), KeyError>(())
    /// ```
    pub fn elsewhere(
        verifying: VerifyingKey,
        sign: impl Fn(&[u8]) -> Result<[u8; SIGNATURE_BYTES], KeyError> + Send + Sync + 'static,
    ) -> Result<Self, KeyError> {
        // No kind of text that we sign has an empty line at its end.
        let probe = format!("placet key probe {}\n\n", verifying.id());
        if !verifying.verifies(probe.as_bytes(), &sign(probe.as_bytes())?) {
            return Err(KeyError::Elsewhere);
        }
        Ok(Self::with(Secret::Elsewhere(Box::new(sign)), verifying))
    }

    fn of(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let verifying = VerifyingKey::from_bytes(pair.public_key().as_ref())?;
        Ok(Self::with(Secret::Here(pair), verifying))
    }

    fn with(secret: Secret, verifying: VerifyingKey) -> Self {
        let header = crate::jws::encoded_header(crate::DECISION_TYP, verifying.id());
        Self { secret, verifying, header }
    }

    /// Its PKCS#8 DER, version 1, as `openssl` writes it.
    ///
    /// # Errors
    /// [`KeyError::Library`] if there is no memory for it, [`KeyError::Elsewhere`] if the private
    /// part is not here.
    pub fn to_pkcs8(&self) -> Result<PrivateKeyDer, KeyError> {
        let Secret::Here(pair) = &self.secret else { return Err(KeyError::Elsewhere) };
        match pair.to_pkcs8v1() {
            Ok(document) => Ok(PrivateKeyDer(document)),
            Err(_) => Err(KeyError::Library),
        }
    }

    /// Its public half.
    #[must_use]
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        self.verifying.id()
    }

    /// The encoded header of the decisions that it signs.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// Signs bytes that carry their own domain, see the module's first lines.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], KeyError> {
        let pair = match &self.secret {
            Secret::Here(pair) => pair,
            Secret::Elsewhere(sign) => return sign(message),
        };
        let signature = match pair.try_sign(message) {
            Ok(signature) => signature,
            Err(_) => return Err(KeyError::Library),
        };
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(signature.as_ref());
        Ok(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, ..)", self.id())
    }
}

/// A public key.
#[derive(Clone)]
pub struct VerifyingKey {
    id: KeyId,
    parsed: ParsedPublicKey,
    bytes: [u8; PUBLIC_KEY_BYTES],
}

impl VerifyingKey {
    /// Reads the 32 bytes of RFC 8032 §5.1.5.
    ///
    /// # Errors
    /// [`KeyError::Public`] if there are not 32 of them, or they name no point of the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let Ok(bytes) = <[u8; PUBLIC_KEY_BYTES]>::try_from(bytes) else {
            return Err(KeyError::Public);
        };
        match ParsedPublicKey::new(&ED25519, bytes) {
            Ok(parsed) => Ok(Self { id: KeyId::of(&bytes), parsed, bytes }),
            Err(_) => Err(KeyError::Public),
        }
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.bytes
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for VerifyingKey {}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_shared_between_threads<T: Send + Sync>(_: &T) {}

    #[test]
    fn a_key_survives_its_file_and_shows_no_secret() {
        let key = SigningKey::generate().expect("the system has randomness");
        let der = key.to_pkcs8().expect("a key can be written");
        let again = SigningKey::from_pkcs8(der.as_ref()).expect("and read");
        assert_eq!(again.verifying_key(), key.verifying_key());
        assert_eq!(format!("{key:?}"), format!("SigningKey({}, ..)", key.id()));
        assert_eq!(format!("{der:?}"), "PrivateKeyDer(..)");
        assert_shared_between_threads(&key);
    }

    #[test]
    fn a_key_elsewhere_signs_the_same_bytes_and_only_as_itself() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let (key, other) = (key.expect("randomness"), other.expect("randomness"));
        let expected = key.sign(b"placet").expect("signs");
        let public = key.verifying_key().clone();
        let away = SigningKey::elsewhere(public.clone(), move |bytes| key.sign(bytes));
        let away = away.expect("its probe is good");
        assert_eq!(away.sign(b"placet"), Ok(expected));
        assert_eq!(away.to_pkcs8().expect_err("it is not here"), KeyError::Elsewhere);
        let wrong = SigningKey::elsewhere(public, move |bytes| other.sign(bytes));
        assert_eq!(wrong.expect_err("another key"), KeyError::Elsewhere);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(SigningKey::from_pkcs8(b"no key").expect_err("no DER"), KeyError::Pkcs8);
        assert_eq!(VerifyingKey::from_bytes(&[0; 31]), Err(KeyError::Public));
        for text in ["", "short", &"A".repeat(44), &"+".repeat(43), &"B".repeat(43)] {
            assert_eq!(KeyId::new(text), Err(KeyError::KeyId), "`{text}`");
        }
        assert!(KeyId::new("A".repeat(43)).is_ok());
    }

    #[test]
    fn a_signature_covers_every_byte() {
        let key = SigningKey::generate().expect("the system has randomness");
        let signature = key.sign(b"placet").expect("signs");
        assert!(key.verifying_key().verifies(b"placet", &signature));
        assert!(!key.verifying_key().verifies(b"placer", &signature));
        assert!(!key.verifying_key().verifies(b"placet", &signature[1..]));
    }
}
