//! Tokens: what is refused, and that nothing panics.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_core::{
    Decision, Effect, Expect, Extends, GangPlace, KeySet, KeyValidity, MAX_TOKEN_BYTES, Revocation,
    SignError, SigningKey, Verifier, VerifyError, Warning, canonical_json, sign_decision,
};
use proptest::prelude::*;

use crate::sample::{self, ISSUER, NOW};

const EXPECT: Expect<'static> = Expect { issuer: ISSUER, audience: "provisioner", now: NOW + 1 };

fn token() -> String {
    sign_decision(&sample::key(), &sample::decision()).expect("the sample fits a token")
}

fn refusal(token: &str) -> VerifyError {
    sample::verifier().verify(token, &EXPECT).expect_err("must be refused")
}

/// The sample with its header replaced, and not signed again.
fn with_header(header: &str) -> String {
    let token = token();
    let (_, rest) = token.split_once('.').expect("three parts");
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

#[test]
fn a_decision_survives_signing_and_verifying() {
    let decision = sample::verifier().verify(&token(), &EXPECT).expect("verifies");
    assert_eq!(decision, sample::decision());
    let long_after = sample::verifier().verify_issued(&token(), ISSUER).expect("stays issued");
    assert_eq!(long_after, decision);
}

#[test]
fn one_flipped_bit_anywhere_is_refused() {
    let token = token().into_bytes();
    let verifier = sample::verifier();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut damaged = token.clone();
            damaged[at] ^= 1 << bit;
            // Bytes that are no UTF-8 never reach the verifier as text.
            if let Ok(text) = String::from_utf8(damaged) {
                let verdict = verifier.verify(&text, &EXPECT);
                assert!(verdict.is_err(), "bit {bit} of byte {at}: {text}");
            }
        }
    }
}

#[test]
fn threads_share_a_key() {
    let (key, decision, expected) = (sample::key(), sample::decision(), token());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..16 {
                    assert_eq!(sign_decision(&key, &decision).expect("signs"), expected);
                }
            });
        }
    });
}

#[test]
fn another_key_is_refused() {
    let stranger = SigningKey::generate().expect("randomness");
    let token = sign_decision(&stranger, &sample::decision()).expect("signs");
    assert!(matches!(refusal(&token), VerifyError::UnknownKey { .. }), "its own name");
    // Under the name of the trusted key.
    let (_, rest) = token.split_once('.').expect("three parts");
    let trusted = self::token();
    let (header, _) = trusted.split_once('.').expect("three parts");
    let token = format!("{header}.{rest}");
    assert!(matches!(refusal(&token), VerifyError::Signature { .. }), "a borrowed name");
}

/// A verifier that knows the sample's key as one that signs then.
fn bounded(validity: KeyValidity) -> Verifier {
    let keys = [(sample::key().verifying_key().clone(), validity)];
    // As everybody reads it.
    let keys = KeySet::with_validity(keys).expect("one key").to_json();
    Verifier::new(KeySet::from_json(keys.as_bytes()).expect("a JWK set"))
}

#[test]
fn a_key_counts_in_its_time_and_until_it_is_revoked() {
    let token = token();
    let issued = |validity| bounded(validity).verify_issued(&token, ISSUER);
    let relied = |validity| bounded(validity).verify(&token, &EXPECT);
    let none = KeyValidity::default;

    let early = KeyValidity { from: Some(NOW + 1), ..none() };
    let error = issued(early).expect_err("too early");
    assert!(matches!(error, VerifyError::KeyNotYet { iat: NOW, .. }), "{error}");
    let late = KeyValidity { until: Some(NOW), ..none() };
    let error = issued(late.clone()).expect_err("too late");
    assert!(matches!(error, VerifyError::KeyRetired { until: NOW, .. }), "{error}");
    assert!(relied(late).is_err());
    let within = KeyValidity { from: Some(NOW), until: Some(NOW + 1), ..none() };
    assert!(issued(within.clone()).is_ok() && relied(within).is_ok(), "and verified afterwards");

    let revoked = |since| {
        let reason = "compromised".to_owned();
        KeyValidity { revoked: Some(Revocation { since, reason }), ..none() }
    };
    let error = issued(revoked(NOW)).expect_err("signed since").to_string();
    assert!(error.contains(&format!("revoked as of {NOW} (compromised)")), "{error}");
    assert!(issued(revoked(NOW + 1)).is_ok(), "it was signed before");
    let error = relied(revoked(NOW + 1)).expect_err("a thief writes any time");
    assert!(matches!(error, VerifyError::KeyRevoked { .. }), "{error}");
}

#[test]
fn another_audience_issuer_and_time_are_refused() {
    let token = token();
    let verifier = sample::verifier();
    let verify = |expect: Expect<'_>| verifier.verify(&token, &expect).expect_err("refused");
    let other = verify(Expect { audience: "billing", ..EXPECT });
    assert!(matches!(other, VerifyError::Audience { .. }), "{other}");
    let other = verify(Expect { issuer: "https://elsewhere.example", ..EXPECT });
    assert!(matches!(other, VerifyError::Issuer { .. }), "{other}");
    let late = verify(Expect { now: NOW + 300, ..EXPECT });
    assert!(matches!(late, VerifyError::Expired { .. }), "{late}");
    let early = verify(Expect { now: NOW - 61, ..EXPECT });
    assert!(matches!(early, VerifyError::NotYetIssued { .. }), "{early}");
    for now in [NOW - 60, NOW, NOW + 299] {
        verifier.verify(&token, &Expect { now, ..EXPECT }).expect("within its time");
    }
}

#[test]
fn the_header_must_be_ours() {
    let kid = sample::key().id().to_string();
    let typ = "placet-decision+jwt";
    for alg in ["none", "None", "HS256", "ES256", "eddsa", ""] {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"{typ}"}}"#);
        let error = refusal(&with_header(&header));
        assert!(matches!(error, VerifyError::Algorithm { .. }), "{alg}: {error}");
    }
    for typ in ["JWT", "placet-decision", "PLACET-DECISION+JWT", ""] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}"}}"#);
        let error = refusal(&with_header(&header));
        assert!(matches!(error, VerifyError::Type { .. }), "{typ}: {error}");
    }
    for member in ["crit", "jku", "jwk", "x5u", "x5c", "x5t", "b64", "cty", "zip", "nonsense"] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}","{member}":["exp"]}}"#);
        let error = refusal(&with_header(&header));
        assert!(matches!(error, VerifyError::Header { .. }), "{member}: {error}");
    }
    for header in [
        format!(r#"{{"alg":"none","alg":"EdDSA","kid":"{kid}","typ":"{typ}"}}"#),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}"}} {{}}"#),
        format!(r#"["EdDSA","{kid}","{typ}"]"#),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}"}}{}"#, " ".repeat(600)),
    ] {
        let error = refusal(&with_header(&header));
        assert!(matches!(error, VerifyError::NotAToken { part: "its header" }), "{error}");
    }
    let error = refusal(&with_header(&format!(r#"{{"alg":"EdDSA","typ":"{typ}"}}"#)));
    assert!(matches!(error, VerifyError::UnknownKey { .. }), "{error}");
}

#[test]
fn ed25519_as_the_algorithm_is_accepted() {
    // RFC 9864 names the algorithm so; we write the older name.
    let kid = sample::key().id().to_string();
    let header = format!(r#"{{"alg":"Ed25519","kid":"{kid}","typ":"placet-decision+jwt"}}"#);
    let claims = canonical_json(&sample::decision()).expect("canonical");
    let token = sign_by_hand(&header, &claims);
    sample::verifier().verify(&token, &EXPECT).expect("verifies");
}

/// A token with any header and claims, signed by the trusted key through another library.
fn sign_by_hand(header: &str, claims: &[u8]) -> String {
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(&sample::bytes(sample::KEY_HEX));
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = pair.expect("a key").sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn with_claims(claims: &str) -> VerifyError {
    let kid = sample::key().id().to_string();
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"placet-decision+jwt"}}"#);
    refusal(&sign_by_hand(&header, claims.as_bytes()))
}

#[test]
fn signed_claims_must_be_one_canonical_decision() {
    let claims = canonical_json(&sample::decision()).expect("canonical");
    let claims = String::from_utf8(claims).expect("UTF-8");
    let claims = claims.as_str();
    let twice = claims.replacen(r#""placet":1"#, r#""placet":1,"placet":1"#, 1);
    assert!(matches!(with_claims(&twice), VerifyError::Claims(_)), "a claim twice");
    let twice = claims.replacen(r#"{"tenant":"#, r#"{"tenant":"evil","tenant":"#, 1);
    assert_ne!(twice, claims);
    assert!(matches!(with_claims(&twice), VerifyError::NotCanonical), "a parameter twice");
    let spaced = claims.replacen(':', ": ", 1);
    assert!(matches!(with_claims(&spaced), VerifyError::NotCanonical), "white space");
    let more = claims.replacen("{", r#"{"admin":true,"#, 1);
    assert!(matches!(with_claims(&more), VerifyError::Claims(_)), "an unknown claim");
    assert!(matches!(with_claims("{}"), VerifyError::Claims(_)), "none at all");
    let newer = more.replacen(r#""placet":1"#, r#""placet":2"#, 1);
    assert!(matches!(with_claims(&newer), VerifyError::Version { version: 2 }), "a later version");
    let newer = claims.replacen(r#""placet":1"#, r#""placet":2"#, 1);
    assert!(matches!(with_claims(&newer), VerifyError::Version { version: 2 }), "version alone");
}

#[test]
fn a_decision_that_contradicts_itself_is_refused() {
    let extends = |decision: &placet_core::Decision| {
        let granted = decision.reservation.clone().expect("a permit");
        let (reservation_id, end) = (granted.id, granted.start);
        Extends { end, epoch: granted.epoch, reservation_id, start: end - 60 }
    };
    let changes: [&dyn Fn(&mut placet_core::Decision); 10] = [
        &|decision| decision.effect = Effect::Deny,
        &|decision| decision.reservation = None,
        &|decision| decision.sub = "job/d-1".to_owned(),
        &|decision| decision.exp = decision.iat,
        // The epoch has to be the next.
        &|decision| decision.extends = Some(extends(decision)),
        &|decision| decision.extends = Some(Extends { epoch: 0, end: 1, ..extends(decision) }),
        &|decision| decision.extends = Some(Extends { epoch: 0, start: NOW, ..extends(decision) }),
        &|decision| {
            let reservation_id = sample::id("another");
            decision.extends = Some(Extends { epoch: 0, reservation_id, ..extends(decision) });
        },
        &|decision| {
            decision.gang = Some(GangPlace { id: sample::id("g"), index: 2, size: 2 });
        },
        &|decision| decision.lease_id = Some(sample::id("rsv-1")),
    ];
    for change in changes {
        let mut decision = sample::decision();
        change(&mut decision);
        let token = sign_decision(&sample::key(), &decision).expect("signs");
        let error = sample::verifier().verify_issued(&token, ISSUER).expect_err("refused");
        assert!(matches!(error, VerifyError::Contradiction { .. }), "{error}");
    }
}

#[test]
fn a_token_never_exceeds_its_bound() {
    let key = sample::key();
    let mut decision = sample::decision();
    let fill = |bytes: usize| Warning {
        code: placet_core::Code::known("LONG"),
        message: "x".repeat(bytes),
        policy: sample::id("capacity"),
    };
    let (mut fits, mut too_long) = (0, 100_000);
    while too_long - fits > 1 {
        let middle = usize::midpoint(fits, too_long);
        decision.warnings = vec![fill(middle)];
        match sign_decision(&key, &decision) {
            Ok(token) => {
                assert!(token.len() <= MAX_TOKEN_BYTES);
                assert_eq!(token.capacity(), token.len(), "one allocation of the right size");
                sample::verifier().verify(&token, &EXPECT).expect("the longest verify too");
                fits = middle;
            }
            Err(SignError::TooLong { bytes }) => {
                assert!(bytes > MAX_TOKEN_BYTES);
                too_long = middle;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(fits > 40_000);
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    assert!(matches!(refusal(&long), VerifyError::TooLong { .. }));
}

#[test]
fn what_is_no_token_is_told_so() {
    let token = token();
    for text in ["", ".", "..", "...", "a.b", "not a token", &format!("{token}."), "\u{1f512}.."] {
        let error = refusal(text);
        assert!(matches!(error, VerifyError::NotAToken { .. }), "`{text}`: {error}");
    }
    for damage in [format!("{token}="), format!(" {token}"), format!("{token}\n")] {
        let error = refusal(&damage);
        assert!(matches!(error, VerifyError::NotAToken { .. }), "`{damage}`: {error}");
    }
    // Base64 of 64 bytes leaves four bits over, which must be zero: no second spelling of one
    // signature.
    let last = token.chars().last().expect("not empty");
    let other = char::from_u32(u32::from(last) + 1).expect("a letter");
    let respelled = format!("{}{other}", token.strip_suffix(last).expect("its last letter"));
    assert!(matches!(refusal(&respelled), VerifyError::NotAToken { part: "its signature" }));
}

#[test]
fn each_refusal_names_a_remedy() {
    let token = token();
    let expired =
        sample::verifier().verify(&token, &Expect { now: NOW + 300, ..EXPECT }).expect_err("late");
    assert_eq!(
        expired.to_string(),
        "expired at 1793491500, it is 1793491500\nhint: ask for a new decision"
    );
    let hidden = refusal(&with_header("{\"alg\":\"\\u001b[31mred\"}"));
    assert!(!hidden.to_string().contains('\u{1b}'), "no control characters in messages");
}

proptest! {
    #[test]
    fn what_was_issued_counts_exactly_as_the_times_say(
        from in proptest::option::of(0..40_u64),
        length in proptest::option::of(1..40_u64),
        since in proptest::option::of(0..40_u64),
        iat in 0..40_u64,
    ) {
        let (base, decision) = (NOW, sample::decision());
        let until = length.map(|length| from.unwrap_or_default() + length);
        let revoked = since.map(|at| Revocation { since: base + at, reason: String::new() });
        let validity = KeyValidity {
            from: from.map(|at| base + at),
            until: until.map(|at| base + at),
            revoked,
        };
        let decision = Decision { iat: base + iat, exp: base + 1_000, ..decision };
        let token = sign_decision(&sample::key(), &decision).expect("signs");
        let verifier = bounded(validity);
        let in_time = from.is_none_or(|from| iat >= from) && until.is_none_or(|until| iat < until);
        let before = since.is_none_or(|since| iat < since);
        prop_assert_eq!(verifier.verify_issued(&token, ISSUER).is_ok(), in_time && before);
        // Whoever acts on it relies on no revoked key at all.
        let expect = Expect { now: base + 40, ..EXPECT };
        let relied = verifier.verify(&token, &expect).is_ok();
        prop_assert_eq!(relied, in_time && since.is_none());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,300}") {
        prop_assert!(sample::verifier().verify(&text, &EXPECT).is_err());
    }

    #[test]
    fn no_header_and_no_claims_panic(
        header in ".{0,80}",
        claims in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let kid = sample::key().id().to_string();
        let ours = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"placet-decision+jwt"}}"#);
        for token in [sign_by_hand(&header, &claims), sign_by_hand(&ours, &claims)] {
            prop_assert!(sample::verifier().verify(&token, &EXPECT).is_err());
        }
    }

    #[test]
    fn no_jwks_panics(json in ".{0,200}") {
        if let Ok(keys) = KeySet::from_json(json.as_bytes()) {
            prop_assert!(Verifier::new(keys).verify(&token(), &EXPECT).is_err());
        }
    }

    #[test]
    fn no_mutilated_token_passes(cut in 0_usize..2_000, fill in "[A-Za-z0-9_.-]{0,8}") {
        let token = token();
        let mut damaged = token.clone();
        let at = cut % token.len();
        damaged.replace_range(at..(at + fill.len()).min(token.len()), &fill);
        if damaged != token {
            prop_assert!(sample::verifier().verify(&damaged, &EXPECT).is_err());
        }
    }
}
