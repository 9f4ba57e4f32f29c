//! A whole log, walked along: what was published is recognised, and whatever was done to it is
//! found, at its place.

use placet_core::{
    Checkpoint, Decision, Digest, Event, EvictionOrder, LeafChecker, LeafError, LogWalk, Verifier,
    WalkError, Walked, canonical_json, sign_decision, sign_eviction,
};
use proptest::prelude::*;

use crate::sample::{self, ISSUER, Log, NOW, ORIGIN};

fn leaf(time: u64, event: Event) -> Vec<u8> {
    canonical_json(&placet_core::Leaf { event, time, v: 1 }).expect("canonical")
}

fn decided(at: u64, iat: u64) -> Vec<u8> {
    let decision =
        Decision { request_id: sample::id(&format!("r-{at}")), iat, ..sample::decision() };
    let token = sign_decision(&sample::key(), &decision).expect("signs");
    leaf(iat, Event::Decision { caller: sample::id("scheduler"), token })
}

fn confirmed(at: u64, time: u64) -> Vec<u8> {
    let reservation = sample::id(&format!("rsv-{at}"));
    leaf(time, Event::Confirmation { caller: sample::id("scheduler"), epoch: 1, reservation })
}

fn order(iat: u64) -> EvictionOrder {
    EvictionOrder {
        aud: vec!["provisioner".to_owned()],
        epoch: 2,
        evict_by: iat + 60,
        exp: iat + 600,
        iat,
        iss: ISSUER.to_owned(),
        jti: sample::id("dec-1"),
        placet: 1,
        preemptor: sample::id("rsv-9"),
        reservation: sample::id("rsv-1"),
        tenant_id: sample::id("acme"),
    }
}

fn ordered(iat: u64) -> Event {
    let EvictionOrder { epoch, evict_by, preemptor, reservation: victim, .. } = order(iat);
    let token = sign_eviction(&sample::key(), &order(iat)).expect("signs");
    Event::EvictionOrder { epoch, evict_by, preemptor, token, victim }
}

/// A log of so many leaves, of several kinds.
fn log(size: u64) -> Log {
    Log::new((0..size).map(|at| match at {
        0 => sample::genesis(),
        at if at % 5 == 4 => leaf(NOW + at, ordered(NOW + at)),
        at if at % 3 == 2 => confirmed(at, NOW + at),
        at => decided(at, NOW + at),
    }))
}

fn checker() -> LeafChecker {
    LeafChecker::new(sample::verifier(), ISSUER)
}

fn published(log: &Log, size: u64) -> Checkpoint {
    Checkpoint::verify(&log.note(size), ORIGIN, sample::key().verifying_key()).expect("ours")
}

fn walk(leaves: &[Vec<u8>], checkpoints: Vec<Checkpoint>) -> Result<Walked, WalkError> {
    let mut walk = LogWalk::new(ORIGIN, checkpoints)?;
    for bytes in leaves {
        let position = walk.size();
        let checked = checker().check(bytes);
        walk.push(checked.map_err(|source| WalkError::Leaf { position, source })?)?;
    }
    walk.finish()
}

#[test]
fn a_log_is_what_was_published() {
    let log = log(11);
    let walked = walk(&log.leaves, vec![published(&log, 11), published(&log, 3)]).expect("whole");
    assert_eq!((walked.head.size, walked.head.root), (11, log.root(11)));
    assert_eq!((walked.decisions, walked.orders, walked.checkpoints), (5, 2, 2));
    assert_eq!(walked.published, 11);
    let walked = walk(&log.leaves, vec![published(&log, 3)]).expect("whole so far");
    assert_eq!((walked.head.size, walked.published), (11, 3), "who signed the rest?");
    assert_eq!(walked.times.map(|(_, last)| last), Some(NOW + 10));
}

#[test]
fn what_is_signed_in_a_leaf_is_looked_at() {
    let refused = |bytes: &[u8]| checker().check(bytes).expect_err("refused");
    assert!(matches!(refused(b"{}"), LeafError::NotALeaf(_)));
    let endless = placet_core::Event::Revocation {
        epoch: 1,
        reason: "x".repeat(placet_core::MAX_LEAF_BYTES),
        refunds: Vec::new(),
        reservation: sample::id("rsv-1"),
    };
    assert!(matches!(refused(&leaf(NOW, endless)), LeafError::Length { .. }));
    assert!(matches!(refused(b""), LeafError::Length { bytes: 0 }));
    let spaced = [decided(1, NOW), b" ".to_vec()].concat();
    assert!(matches!(refused(&spaced), LeafError::NotCanonical));
    let newer = String::from_utf8(confirmed(1, NOW)).expect("text").replace("\"v\":1", "\"v\":2");
    assert!(matches!(refused(newer.as_bytes()), LeafError::Version { version: 2 }));

    // A signature that is ours, of something else than the leaf says.
    let decision = Decision { iat: NOW, ..sample::decision() };
    let token = sign_decision(&sample::key(), &decision).expect("signs");
    let caller = sample::id("scheduler");
    let late = leaf(NOW + 1, Event::Decision { caller: caller.clone(), token });
    assert!(matches!(refused(&late), LeafError::Contradiction { what: "when it was decided" }));
    let late = leaf(NOW + 1, ordered(NOW));
    assert!(matches!(refused(&late), LeafError::Contradiction { what: "when it was ordered" }));
    for change in 0..4 {
        let mut event = ordered(NOW);
        let Event::EvictionOrder { epoch, evict_by, preemptor, victim, .. } = &mut event else {
            panic!("it is one");
        };
        match change {
            0 => *epoch += 1,
            1 => *evict_by += 1,
            2 => *preemptor = sample::id("rsv-8"),
            _ => *victim = sample::id("rsv-2"),
        }
        let error = refused(&leaf(NOW, event));
        assert!(error.to_string().contains("who makes room for whom"), "{error}");
    }
    // Signed by nobody we know, or for another issuer.
    let stranger = placet_core::SigningKey::generate().expect("randomness");
    let token = sign_decision(&stranger, &sample::decision()).expect("signs");
    let forged = leaf(sample::decision().iat, Event::Decision { caller, token });
    assert!(matches!(refused(&forged), LeafError::Decision(_)));
    let other: Verifier = sample::verifier();
    let other = LeafChecker::new(other, "https://other.example");
    assert!(matches!(other.check(&decided(1, NOW)), Err(LeafError::Decision(_))));
    assert!(matches!(other.check(&leaf(NOW, ordered(NOW))), Err(LeafError::Order(_))));
}

#[test]
fn what_is_wrong_with_the_whole_is_told() {
    let log = log(9);
    let refused = |leaves: &[Vec<u8>], at: &[u64]| {
        let seen = at.iter().map(|size| published(&log, *size)).collect();
        walk(leaves, seen).expect_err("refused")
    };
    // Cut back.
    let error = refused(&log.leaves[..6], &[3, 9]);
    assert!(matches!(error, WalkError::RolledBack { leaves: 6, published: 9 }), "{error}");
    // Another history behind the third leaf.
    let mut forked = log.leaves.clone();
    forked[5] = confirmed(77, NOW + 5);
    let error = refused(&forked, &[3, 6, 9]);
    assert!(matches!(error, WalkError::Forked { size: 6, before: 3, .. }), "{error}");
    assert!(error.to_string().contains("up to leaf 3 it is"), "{error}");
    // Twice begun, or never.
    let error = refused(&log.leaves[1..], &[]);
    assert!(matches!(error, WalkError::Genesis { position: 0 }), "{error}");
    let mut twice = log.leaves.clone();
    twice[4] = sample::genesis();
    let error = refused(&twice, &[]);
    assert!(matches!(error, WalkError::Genesis { position: 4 }), "{error}");
    // Out of order.
    let mut swapped = log.leaves.clone();
    swapped.swap(5, 7);
    let error = refused(&swapped, &[]);
    assert!(matches!(error, WalkError::Time { position: 6, .. }), "{error}");
    // Another log.
    let mut other = published(&log, 9);
    other.origin = "log.other.example".to_owned();
    let error = LogWalk::new(ORIGIN, [other]).expect_err("another log");
    assert!(matches!(error, WalkError::OtherLog { .. }), "{error}");
    let mut walk = LogWalk::new("log.other.example", []).expect("no checkpoint");
    let error = walk.push(checker().check(&sample::genesis()).expect("ours"));
    assert!(matches!(error, Err(WalkError::OtherLog { .. })));
    // A checkpoint of nothing holds for every log, if it is that of nothing.
    let empty = Checkpoint { root: Digest::of(b""), size: 0, ..published(&log, 9) };
    assert!(LogWalk::new(ORIGIN, [empty.clone()]).is_ok());
    let wrong = Checkpoint { root: log.root(1), ..empty };
    assert!(matches!(LogWalk::new(ORIGIN, [wrong]), Err(WalkError::Forked { size: 0, .. })));
}

proptest! {
    /// One byte of one leaf, changed in any way, is found: by the leaf itself, or by the next
    /// checkpoint behind it, never later.
    #[test]
    fn a_changed_byte_is_found(
        size in 1_u64..24, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(),
        other in 1_u8..=255, checkpoints in prop::collection::btree_set(1_u64..24, 0..4),
    ) {
        let log = log(size);
        let mut sizes: Vec<u64> = checkpoints.into_iter().filter(|it| *it < size).collect();
        sizes.push(size);
        let seen: Vec<_> = sizes.iter().map(|size| published(&log, *size)).collect();
        prop_assert!(walk(&log.leaves, seen.clone()).is_ok());
        let mut leaves = log.leaves.clone();
        let at = at.index(leaves.len());
        let byte = byte.index(leaves[at].len());
        leaves[at][byte] ^= other;
        let next = *sizes.iter().find(|size| **size > at as u64).expect("the last is behind all");
        match walk(&leaves, seen).expect_err("found") {
            WalkError::Forked { size, .. } => prop_assert_eq!(size, next),
            // A time that moved may be too late for the leaf behind it.
            WalkError::Leaf { position, .. } | WalkError::Time { position, .. } => {
                prop_assert!((position == at as u64) || (position == at as u64 + 1));
            }
            WalkError::Genesis { .. } | WalkError::OtherLog { .. } => prop_assert_eq!(at, 0),
            other => prop_assert!(false, "{}", other),
        }
    }
}
