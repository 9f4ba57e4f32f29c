//! Waivers, freezes and thaws: what is refused, and that no other signed text passes for one.

use std::collections::BTreeSet;

use placet_core::{
    Approval, ApprovalError, Code, Event, FreezeClaims, FreezeScope, KeySet, KeyValidity,
    LeafChecker, LeafError, Level, Lift, MAX_APPROVAL_BYTES, PriorityClass, Revocation, SigningKey,
    SubjectKind, ThawClaims, WaiverClaims, WaiverScope, approval_signer, canonical_json,
    read_approval, sign_approval, sign_decision, verify_approval, verify_approval_issued,
};
use proptest::prelude::*;

use crate::sample::{self, ISSUER, NOW, id};

pub(crate) fn waiver() -> WaiverClaims {
    let lift = |policy: &str, code| Lift { code: Code::known(code), policy: id(policy) };
    WaiverClaims {
        approved_by: id("compliance-duty"),
        aud: ISSUER.to_owned(),
        exp: NOW + 86_400,
        iat: NOW,
        jti: id("w-2026-17"),
        lifts: [lift("compliance", "ATTESTATION_EXPIRED"), lift("quota", "DURATION_ABOVE_MAXIMUM")]
            .into(),
        max_duration_seconds: None,
        max_gpu_count: Some(16),
        nbf: NOW,
        placet: 1,
        reason: "CHG-1887: audit report is late".to_owned(),
        requested_by: id("ops-duty"),
        scope: WaiverScope {
            clusters: BTreeSet::new(),
            kinds: [SubjectKind::Lease].into(),
            tenants: [id("acme")].into(),
        },
        uses: 3,
    }
}

pub(crate) fn freeze() -> FreezeClaims {
    FreezeClaims {
        aud: ISSUER.to_owned(),
        by: id("site-duty"),
        iat: NOW,
        jti: id("f-2026-3"),
        placet: 1,
        reason: "INC-77: smoke in hall 2".to_owned(),
        scope: FreezeScope { clusters: [id("de-fra-1")].into(), ..FreezeScope::default() },
    }
}

pub(crate) fn thaw() -> ThawClaims {
    ThawClaims {
        aud: ISSUER.to_owned(),
        by: id("site-duty"),
        iat: NOW + 60,
        jti: id("f-2026-3"),
        placet: 1,
        reason: "INC-77: cleared".to_owned(),
    }
}

fn keys() -> KeySet {
    KeySet::new([sample::key().verifying_key().clone()]).expect("one key")
}

fn signed<T: Approval>(claims: &T) -> String {
    sign_approval(&sample::key(), claims).expect("signs")
}

#[test]
fn each_kind_verifies_as_itself_and_as_nothing_else() {
    let (waiver, freeze, thaw) = (signed(&waiver()), signed(&freeze()), signed(&thaw()));
    assert_eq!(
        verify_approval::<WaiverClaims>(&keys(), &waiver).expect("verifies").0,
        self::waiver()
    );
    assert_eq!(
        verify_approval::<FreezeClaims>(&keys(), &freeze).expect("verifies").0,
        self::freeze()
    );
    assert_eq!(read_approval::<ThawClaims>(&thaw).expect("reads"), self::thaw());
    let kid = sample::key().id().to_string();
    assert_eq!(approval_signer::<WaiverClaims>(&waiver).expect("names its key"), kid);
    let decision = sign_decision(&sample::key(), &sample::decision()).expect("signs");
    for other in [&freeze, &thaw, &decision] {
        let error = verify_approval::<WaiverClaims>(&keys(), other).expect_err("no waiver");
        assert!(matches!(error, ApprovalError::Type { .. }), "{error}");
        let error = read_approval::<WaiverClaims>(other).expect_err("no waiver");
        assert!(matches!(error, ApprovalError::Type { .. }), "{error}");
    }
    // A thaw has all that a freeze has but its scope: the type alone must tell them apart.
    assert!(verify_approval::<ThawClaims>(&keys(), &freeze).is_err());
    // Nor with the header of the other kind put in front: the header is signed too.
    let (header, _) = waiver.split_once('.').expect("three parts");
    let (_, body) = freeze.split_once('.').expect("three parts");
    let error = verify_approval::<WaiverClaims>(&keys(), &format!("{header}.{body}"));
    assert!(matches!(error.expect_err("swapped"), ApprovalError::Mismatch { .. }));
    let error = sample::verifier().verify_issued(&waiver, ISSUER).expect_err("no decision");
    assert!(error.to_string().contains("is of type"), "{error}");
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let waiver = signed(&waiver()).into_bytes();
    for at in 0..waiver.len() {
        for bit in 0..8 {
            let mut damaged = waiver.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(damaged) {
                let verified = verify_approval::<WaiverClaims>(&keys(), &text);
                assert!(verified.is_err(), "bit {bit} of byte {at}: {text}");
            }
        }
    }
}

#[test]
fn a_key_counts_while_it_signs_and_is_not_revoked() {
    let token = signed(&waiver());
    let stranger = SigningKey::generate().expect("randomness");
    let foreign = sign_approval(&stranger, &waiver()).expect("signs");
    let error = verify_approval::<WaiverClaims>(&keys(), &foreign).expect_err("a stranger");
    assert!(matches!(error, ApprovalError::UnknownKey { .. }), "{error}");
    let with = |validity| {
        KeySet::with_validity([(sample::key().verifying_key().clone(), validity)]).expect("a key")
    };
    let until = |until| with(KeyValidity { until: Some(until), ..KeyValidity::default() });
    assert!(verify_approval::<WaiverClaims>(&until(NOW + 1), &token).is_ok());
    let error = verify_approval::<WaiverClaims>(&until(NOW), &token).expect_err("retired");
    assert!(matches!(error, ApprovalError::Lapsed { .. }), "{error}");
    // Who acts on it trusts no time that a thief may have written; the log shows when it was used.
    let revoked = Revocation { since: NOW + 7, reason: "compromised".to_owned() };
    let keys = with(KeyValidity { revoked: Some(revoked), ..KeyValidity::default() });
    let error = verify_approval::<WaiverClaims>(&keys, &token).expect_err("revoked");
    assert!(error.to_string().contains("compromised"), "{error}");
    assert!(verify_approval_issued::<WaiverClaims>(&keys, &token).is_ok());
}

fn senseless<T: Approval>(claims: &T, field: &str) {
    let error = sign_approval(&sample::key(), claims).expect_err(field);
    let named = matches!(&error, ApprovalError::Senseless { field: found, .. } if *found == field);
    assert!(named, "`{field}` is wrong, but: {error}");
}

#[test]
fn what_makes_no_sense_is_neither_signed_nor_read() {
    let names = |count: usize| (0..count).map(|at| id(&format!("n-{at}"))).collect();
    senseless(&WaiverClaims { placet: 2, ..waiver() }, "placet");
    senseless(&WaiverClaims { aud: String::new(), ..waiver() }, "aud");
    senseless(&WaiverClaims { reason: " ".to_owned(), ..waiver() }, "reason");
    senseless(&WaiverClaims { reason: "x".repeat(257), ..waiver() }, "reason");
    senseless(&WaiverClaims { reason: "a\u{1b}[2J".to_owned(), ..waiver() }, "reason");
    senseless(&WaiverClaims { nbf: NOW - 1, ..waiver() }, "nbf");
    senseless(&WaiverClaims { exp: NOW, ..waiver() }, "exp");
    senseless(&WaiverClaims { exp: NOW + 7_776_001, ..waiver() }, "exp");
    senseless(&WaiverClaims { lifts: BTreeSet::new(), ..waiver() }, "lifts");
    let engine = Lift { code: Code::known("FROZEN"), policy: id("placet") };
    senseless(&WaiverClaims { lifts: [engine].into(), ..waiver() }, "lifts");
    let scope = |tenants| WaiverScope { tenants, ..waiver().scope };
    senseless(&WaiverClaims { scope: scope(names(0)), ..waiver() }, "scope.tenants");
    senseless(&WaiverClaims { scope: scope(names(65)), ..waiver() }, "scope.tenants");
    let scope = WaiverScope { clusters: names(65), ..waiver().scope };
    senseless(&WaiverClaims { scope, ..waiver() }, "scope.clusters");
    senseless(&WaiverClaims { uses: 0, ..waiver() }, "uses");
    senseless(&WaiverClaims { uses: 1_001, ..waiver() }, "uses");
    senseless(&WaiverClaims { max_gpu_count: Some(0), ..waiver() }, "max_gpu_count");
    let none = Some(0);
    senseless(&WaiverClaims { max_duration_seconds: none, ..waiver() }, "max_duration_seconds");
    senseless(&FreezeClaims { scope: FreezeScope::default(), ..freeze() }, "scope");
    let both = FreezeScope { everything: true, ..freeze().scope };
    senseless(&FreezeClaims { scope: both, ..freeze() }, "scope");
    let many = FreezeScope { tenants: names(65), ..FreezeScope::default() };
    senseless(&FreezeClaims { scope: many, ..freeze() }, "scope");
    senseless(&ThawClaims { reason: String::new(), ..thaw() }, "reason");

    let long: BTreeSet<_> = (0..64).map(|at| id(&format!("{at:0>128}"))).collect();
    let scope = WaiverScope { tenants: long, ..waiver().scope };
    let error = sign_approval(&sample::key(), &WaiverClaims { scope, ..waiver() });
    assert!(matches!(error.expect_err("too long"), ApprovalError::TooLong { .. }));
    for text in ["", "a.b", "a.b.c", &"x".repeat(MAX_APPROVAL_BYTES + 1)] {
        assert!(verify_approval::<WaiverClaims>(&keys(), text).is_err(), "{text}");
        assert!(read_approval::<WaiverClaims>(text).is_err(), "{text}");
    }
}

#[test]
fn a_freeze_covers_what_fits_all_that_it_names() {
    let covers = |scope: &FreezeScope, tenant: &str, cluster: &str| {
        let class = PriorityClass::ExternalCommercial;
        scope.covers(&id(tenant), &id(cluster), SubjectKind::Lease, class)
    };
    let here = freeze().scope;
    assert!(covers(&here, "acme", "de-fra-1") && !covers(&here, "acme", "se-sto-1"));
    let one = FreezeScope { tenants: [id("acme")].into(), ..here.clone() };
    assert!(covers(&one, "acme", "de-fra-1") && !covers(&one, "other", "de-fra-1"));
    let jobs = FreezeScope { kinds: [SubjectKind::Job].into(), ..here.clone() };
    assert!(!covers(&jobs, "acme", "de-fra-1"));
    let own = PriorityClass::InternalResearch;
    let own = FreezeScope { priority_classes: [own].into(), ..here };
    assert!(!covers(&own, "acme", "de-fra-1"));
    let all = FreezeScope { everything: true, ..FreezeScope::default() };
    assert!(covers(&all, "anybody", "anywhere"));
    assert!(!covers(&FreezeScope::default(), "acme", "de-fra-1"));
}

#[test]
fn leaves_say_what_is_signed_in_them() {
    let leaf =
        |time, event| canonical_json(&placet_core::Leaf { event, time, v: 1 }).expect("canonical");
    let used = |time, level, name: &str, token: &str| {
        leaf(time, Event::Waiver { id: id(name), level, token: token.to_owned() })
    };
    let token = signed(&waiver());
    let (name, level) = ("w-2026-17", Level::Overridable);
    let read = LeafChecker::new(sample::verifier(), ISSUER);
    let checked = read.clone().with_approvers(keys());
    for checker in [&read, &checked] {
        assert!(checker.check(&used(NOW, level, name, &token)).is_ok());
        for wrong in [
            used(NOW - 1, level, name, &token),
            used(NOW + 86_400, level, name, &token),
            used(NOW, Level::Mandatory, name, &token),
            used(NOW, level, "w-2026-18", &token),
        ] {
            let error = checker.check(&wrong).expect_err("it says otherwise");
            assert!(matches!(error, LeafError::Contradiction { .. }), "{error}");
        }
        let elsewhere = signed(&WaiverClaims { aud: "other".to_owned(), ..waiver() });
        assert!(checker.check(&used(NOW, level, name, &elsewhere)).is_err());
        let frozen =
            |time| leaf(time, Event::Freeze { id: id("f-2026-3"), token: signed(&freeze()) });
        assert!(checker.check(&frozen(NOW + 300)).is_ok());
        assert!(checker.check(&frozen(NOW + 301)).is_err(), "it was kept for later");
        let thawed = |time| leaf(time, Event::Thaw { id: id("f-2026-3"), token: signed(&thaw()) });
        assert!(checker.check(&thawed(NOW + 60)).is_ok());
        let as_freeze = Event::Thaw { id: id("f-2026-3"), token: signed(&freeze()) };
        assert!(checker.check(&leaf(NOW, as_freeze)).is_err());
    }
    let stranger = SigningKey::generate().expect("randomness");
    let foreign = sign_approval(&stranger, &waiver()).expect("signs");
    assert!(read.check(&used(NOW, level, name, &foreign)).is_ok(), "only the keys tell");
    let error = checked.check(&used(NOW, level, name, &foreign)).expect_err("nobody's");
    assert!(matches!(error, LeafError::Approval(ApprovalError::UnknownKey { .. })), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_refused_or_read(text in "[A-Za-z0-9_.-]{0,200}") {
        prop_assert!(verify_approval::<WaiverClaims>(&keys(), &text).is_err());
        prop_assert!(read_approval::<FreezeClaims>(&text).is_err());
    }
}
