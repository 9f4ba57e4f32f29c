//! Anything as a token, before a verifier whose key has signed exactly one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_core::{
    AccountKind, AccountPath, Charge, Decision, Digest, Effect, Expect, Grant, Id, IsolationLevel,
    KeySet, Obligation, PriorityClass, ReservationGrant, SigningKey, SubjectKind, Unit, Verifier,
    canonical_json, sign_decision,
};

use super::work::accept;

const ISSUER: &str = "https://placet.example";
const AUDIENCE: &str = "scheduler";
/// 2026-11-01T00:00:00Z.
const NOW: u64 = 1_793_491_200;

/// Private key of RFC 8037 appendix A.1, in the PKCS#8 form of RFC 8410 section 7: published, so
/// that it can never be mistaken for a secret.
pub(super) const KEY: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

struct Genuine {
    decision: Decision,
    pair: Ed25519KeyPair,
    token: String,
    verifier: Verifier,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let key = SigningKey::from_pkcs8(&KEY).expect("RFC 8037's key is a key");
    let decision = decision();
    let token = sign_decision(&key, &decision).expect("the sample can be signed");
    let keys = KeySet::new([key.verifying_key().clone()]).expect("one key");
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&KEY).expect("RFC 8037's key is a key");
    Genuine { decision, pair, token, verifier: Verifier::new(keys) }
});

/// The one token that was signed, and its claims.
#[expect(clippy::missing_panics_doc, reason = "the sample has a canonical form, whoever asks")]
pub fn sample() -> (String, Vec<u8>) {
    let claims = canonical_json(&GENUINE.decision).expect("the sample has a canonical form");
    (GENUINE.token.clone(), claims)
}

/// As a token: accepted exactly if it is, byte for byte, the one that was signed. And what looks
/// like claims is signed as such: accepted only if it is the canonical form of the decision that
/// the verifier then tells.
///
/// # Panics
/// If the bytes show a bug.
pub fn token(bytes: &[u8]) {
    if bytes.starts_with(b"{") {
        signed(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let genuine = &*GENUINE;
    let expect = Expect { issuer: ISSUER, audience: AUDIENCE, now: NOW };
    let acting = genuine.verifier.verify(text, &expect);
    let auditing = genuine.verifier.verify_issued(text, ISSUER);
    for verified in [acting, auditing] {
        match verified {
            Ok(decision) => {
                accept();
                assert_eq!(text, genuine.token, "nobody has signed this");
                assert_eq!(decision, genuine.decision);
            }
            Err(error) => {
                assert_ne!(text, genuine.token, "the genuine one is refused: {error}");
                assert!(error.to_string().len() < 4_096, "{error}");
            }
        }
    }
}

/// Any claims, under a good signature.
fn signed(claims: &[u8]) {
    let genuine = &*GENUINE;
    let (header, _) = genuine.token.split_once('.').expect("a token has three parts");
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(genuine.pair.sign(input.as_bytes()));
    let token = format!("{input}.{signature}");
    let issued = genuine.verifier.verify_issued(&token, ISSUER);
    if let Ok(decision) = &issued {
        accept();
        let canonical = canonical_json(decision).expect("what was read has a canonical form");
        assert_eq!(canonical, claims, "two spellings of one decision");
        assert_eq!(decision.iss, ISSUER);
        assert_eq!(decision.effect == Effect::Permit, decision.reservation.is_some());
        assert_eq!(decision.effect == Effect::Permit, decision.reasons.is_empty());
    }
    let expect = Expect { issuer: ISSUER, audience: AUDIENCE, now: NOW };
    if let Ok(decision) = genuine.verifier.verify(&token, &expect) {
        assert_eq!(Some(&decision), issued.as_ref().ok(), "who acts checks what auditors check");
        assert!(decision.exp > NOW && decision.iat <= NOW + 60, "not its time");
        assert!(decision.aud.iter().any(|audience| audience == AUDIENCE), "for another");
    }
}

fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

/// A permit: 8 whole H100 for an hour.
fn decision() -> Decision {
    let charge = Charge {
        account: AccountPath::new("cluster/c-042/gpu/H100").expect("an account path"),
        amount: 8_000,
        kind: AccountKind::Level,
        limit: 56_000,
        unit: Unit::MilliGpu,
    };
    let partition = BTreeMap::from([("tenant".to_owned(), "acme".to_owned())]);
    Decision {
        aud: vec!["provisioner".to_owned(), AUDIENCE.to_owned()],
        bundle_digest: Digest::of(b"bundle"),
        effect: Effect::Permit,
        evictions: Vec::new(),
        evaluation_digest: Digest::of(b"evaluation"),
        exp: NOW + 300,
        extends: None,
        gang: None,
        lease_id: None,
        facts_digest: Digest::of(b"facts"),
        iat: NOW,
        input_digest: Some(Digest::of(b"input")),
        iss: ISSUER.to_owned(),
        jti: id("d-1"),
        kind: SubjectKind::Lease,
        obligations: vec![Obligation { id: id("network.partition"), params: partition }],
        placet: 1,
        preemption: None,
        priority_class: PriorityClass::ExternalCommercial,
        reasons: vec![],
        request_digest: Digest::of(b"request"),
        request_id: id("r-1"),
        reservation: Some(ReservationGrant {
            charges: vec![charge],
            confirm_by: NOW + 300,
            end: NOW + 3_600,
            epoch: 1,
            id: id("v-1"),
            start: NOW,
        }),
        sub: "lease/d-1".to_owned(),
        terms: None,
        tenant_id: id("acme"),
        waivers: vec![],
        warnings: vec![],
        workload: Grant {
            cluster_id: id("c-042"),
            fabric_gbps: 400,
            gpu_count: 8,
            gpu_milli: 1_000,
            gpu_model: id("H100"),
            isolation_level: IsolationLevel::Passthrough,
        },
    }
}
