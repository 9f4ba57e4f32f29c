//! Signatures of bundles: what is refused, and that no other signed text passes for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_core::{
    BUNDLE_TYP, BundleClaims, Digest, Expect, KeyId, KeySet, MAX_BUNDLE_SIGNATURE_BYTES,
    SignatureError, SigningKey, VerifyError, bundle_signer, sign_bundle, sign_decision,
    verify_bundle,
};

use crate::sample::{self, ISSUER, NOW};

fn claims() -> BundleClaims {
    BundleClaims { digest: Digest::of(b"bundle"), iat: Some(NOW), revision: "2026-11-01".into() }
}

fn keys() -> KeySet {
    KeySet::new([sample::key().verifying_key().clone()]).expect("one key")
}

fn signature() -> String {
    sign_bundle(&sample::key(), &claims()).expect("signs")
}

fn verify(signature: &str) -> Result<(BundleClaims, KeyId), SignatureError> {
    verify_bundle(&keys(), signature, claims().digest, &claims().revision)
}

fn refusal(signature: &str) -> SignatureError {
    verify(signature).expect_err("must be refused")
}

fn with_header(header: &str) -> String {
    let signature = signature();
    let (_, rest) = signature.split_once('.').expect("three parts");
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

#[test]
fn a_signature_verifies_and_is_the_same_each_time() {
    let (signed, kid) = verify(&signature()).expect("verifies");
    assert_eq!((signed, &kid), (claims(), sample::key().id()));
    assert_eq!(signature(), signature());
    assert_eq!(bundle_signer(&signature()).expect("names its key"), kid.as_str());
    let (header, payload) = (signature(), signature());
    let part = |text: &str, at: usize| {
        let part = text.split('.').nth(at).expect("three parts").to_owned();
        String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
    };
    assert_eq!(
        part(&header, 0),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{BUNDLE_TYP}"}}"#)
    );
    assert_eq!(
        part(&payload, 1),
        format!(r#"{{"digest":"{}","iat":{NOW},"revision":"2026-11-01"}}"#, claims().digest)
    );
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let signature = signature().into_bytes();
    for at in 0..signature.len() {
        for bit in 0..8 {
            let mut damaged = signature.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(damaged) {
                assert!(verify(&text).is_err(), "bit {bit} of byte {at}: {text}");
            }
        }
    }
}

#[test]
fn other_files_and_another_revision_are_refused() {
    let other = Digest::of(b"other");
    let error = verify_bundle(&keys(), &signature(), other, &claims().revision).expect_err("other");
    assert!(matches!(error, SignatureError::Digest { found, .. } if found == other), "{error}");
    let error = verify_bundle(&keys(), &signature(), claims().digest, "2").expect_err("other");
    assert!(matches!(error, SignatureError::Revision { .. }), "{error}");
}

#[test]
fn a_stranger_is_refused_under_either_name() {
    let stranger = SigningKey::generate().expect("randomness");
    let foreign = sign_bundle(&stranger, &claims()).expect("signs");
    assert!(matches!(refusal(&foreign), SignatureError::UnknownKey { .. }));
    let (_, rest) = foreign.split_once('.').expect("three parts");
    let own = signature();
    let (header, _) = own.split_once('.').expect("three parts");
    assert!(matches!(refusal(&format!("{header}.{rest}")), SignatureError::Mismatch { .. }));
}

#[test]
fn headers_that_are_not_ours_are_refused() {
    let kid = sample::key().id().clone();
    for (header, expected) in [
        (format!(r#"{{"alg":"none","kid":"{kid}","typ":"{BUNDLE_TYP}"}}"#), "signed with `none`"),
        (format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"{BUNDLE_TYP}"}}"#), "`HS256`"),
        (format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), "is of type ``"),
        (format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"JWT"}}"#), "is of type `JWT`"),
        (
            format!(r#"{{"alg":"EdDSA","jku":"x","kid":"{kid}","typ":"{BUNDLE_TYP}"}}"#),
            "has `jku` in its header",
        ),
        (format!(r#"{{"alg":"EdDSA","alg":"EdDSA","kid":"{kid}"}}"#), "its header is not"),
        (format!(r#"{{"alg":"EdDSA","typ":"{BUNDLE_TYP}"}}"#), "by the key ``"),
        ("[]".to_owned(), "its header is not"),
        ("{".repeat(600), "its header is not"),
    ] {
        let error = refusal(&with_header(&header)).to_string();
        assert!(error.contains(expected), "{header} gave: {error}");
    }
}

#[test]
fn claims_of_another_form_are_refused() {
    for text in ["", "a", "a.b", "a.b.c.d", "....", "\u{e4}.b.c"] {
        assert!(matches!(refusal(text), SignatureError::Malformed { .. }), "{text}");
    }
    let long = "a".repeat(MAX_BUNDLE_SIGNATURE_BYTES + 1);
    assert!(matches!(refusal(&long), SignatureError::TooLong { .. }));
    assert!(matches!(bundle_signer(&long), Err(SignatureError::TooLong { .. })));
    let claims = BundleClaims { revision: "r".repeat(4_000), ..claims() };
    let error = sign_bundle(&sample::key(), &claims).expect_err("too long");
    assert!(matches!(error, SignatureError::TooLong { .. }), "{error}");
}

#[test]
fn a_decision_is_no_signature_of_a_bundle_nor_the_reverse() {
    let decision = sign_decision(&sample::key(), &sample::decision()).expect("signs");
    assert!(matches!(refusal(&decision), SignatureError::Type { .. }));
    let expect = Expect { issuer: ISSUER, audience: "provisioner", now: NOW + 1 };
    let error = sample::verifier().verify(&signature(), &expect).expect_err("no decision");
    assert!(matches!(error, VerifyError::Type { .. }), "{error}");
    // Nor with the header of the other kind put in front: the header is signed too.
    let (bundle, token) = (signature(), decision);
    let swap = |header: &str, body: &str| {
        let (header, _) = header.split_once('.').expect("three parts");
        let (_, body) = body.split_once('.').expect("three parts");
        format!("{header}.{body}")
    };
    let error = refusal(&swap(&bundle, &token));
    assert!(matches!(error, SignatureError::Mismatch { .. }), "{error}");
    let error = sample::verifier().verify(&swap(&token, &bundle), &expect).expect_err("swapped");
    assert!(matches!(error, VerifyError::Signature { .. }), "{error}");
}
