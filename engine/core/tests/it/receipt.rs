//! Receipts: what is written is read back, and each wrong part is told.

use std::convert::Infallible;

use placet_core::merkle::{self, InclusionProof, MAX_DEPTH, MAX_TREE_SIZE};
use placet_core::{
    Checkpoint, CheckpointError, Digest, Event, KeySet, Leaf, Logged, MAX_CHECKPOINT_BYTES,
    MAX_LEAF_BYTES, MAX_RECEIPT_BYTES, Receipt, ReceiptError, SigningKey, Verifier, VerifyError,
    canonical_json,
};
use proptest::prelude::*;

use crate::sample::{self, Log, ORIGIN};

fn log() -> Log {
    Log::new([sample::genesis(), sample::decided()])
}

fn verify(receipt: &Receipt) -> Result<Logged, ReceiptError> {
    receipt.verify(ORIGIN, sample::key().verifying_key())
}

fn read(text: &str) -> Result<Receipt, ReceiptError> {
    Receipt::from_text(text.as_bytes())
}

/// An error and what caused it, as one text.
fn told(error: &ReceiptError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_receipt_proves_its_decision_offline() {
    let file = log().receipt(1, 2).to_text();
    let logged = verify(&read(&file).expect("reads back")).expect("verifies");
    assert_eq!((logged.index, logged.checkpoint.size), (1, 2));
    let decision = logged.decision(&sample::verifier(), sample::ISSUER).expect("a decision");
    assert_eq!(decision, sample::decision());
}

#[test]
fn what_is_proved_need_not_be_a_decision_that_one_trusts() {
    let genesis = verify(&log().receipt(0, 2)).expect("verifies");
    let decision = genesis.decision(&sample::verifier(), sample::ISSUER);
    assert!(matches!(decision, Err(ReceiptError::NoDecision)), "{decision:?}");

    let logged = verify(&log().receipt(1, 2)).expect("verifies");
    let other = SigningKey::generate().expect("randomness").verifying_key().clone();
    let strangers = Verifier::new(KeySet::new([other]).expect("one key"));
    let error = logged.decision(&strangers, sample::ISSUER).expect_err("another's key");
    assert!(matches!(error, ReceiptError::Token(VerifyError::UnknownKey { .. })), "{error}");
    let error = logged.decision(&sample::verifier(), "https://other.example").expect_err("other");
    assert!(matches!(error, ReceiptError::Token(VerifyError::Issuer { .. })), "{error}");
}

#[test]
fn each_wrong_part_is_named() {
    let log = Log::new((0..9).map(|at| {
        let event = Event::Genesis { origin: ORIGIN.to_owned(), store: format!("{at:032}") };
        canonical_json(&Leaf { event, time: sample::NOW, v: 1 }).expect("canonical")
    }));
    let (leaf, proof, note) = (log.leaf(2), log.inclusion(2, 9), log.note(9));
    let refused = |leaf: &[u8], index, proof: InclusionProof, note: &str| {
        let receipt = Receipt::new(leaf.to_vec(), index, proof, note).expect("a receipt");
        verify(&receipt).expect_err("refused")
    };
    assert!(verify(&log.receipt(2, 9)).is_ok());

    for (leaf, index, proof) in
        [(log.leaf(3), 2, proof.clone()), (leaf, 3, proof.clone()), (leaf, 2, log.inclusion(3, 9))]
    {
        let error = refused(leaf, index, proof, &note);
        assert!(matches!(error, ReceiptError::Proof { .. }), "{error}");
        assert!(error.to_string().contains("belongs to another leaf"), "{error}");
    }
    let error = refused(leaf, 2, log.inclusion(2, 4), &note);
    let found = (2, 9, 2, 4);
    assert!(
        matches!(error, ReceiptError::ProofLength { index, size, found: a, expected: b }
            if (index, size, a, b) == found),
        "{error}"
    );
    let error = refused(leaf, 2, proof.clone(), &log.note(2));
    assert!(matches!(error, ReceiptError::Position { index: 2, size: 2 }), "{error}");

    let other = Log::of(9).note(9);
    let error = refused(leaf, 2, proof.clone(), &other);
    assert!(matches!(error, ReceiptError::Proof { index: 2 }), "{error}");
    let checkpoint = Checkpoint { origin: "other.example".into(), root: log.root(9), size: 9 };
    let theirs = checkpoint.sign(&sample::key()).expect("signs");
    let error = refused(leaf, 2, proof.clone(), &theirs);
    assert!(told(&error).contains("another log, `other.example`"), "{}", told(&error));
    let stranger = SigningKey::generate().expect("randomness");
    let ours = Checkpoint { origin: ORIGIN.into(), ..checkpoint };
    let error = refused(leaf, 2, proof.clone(), &ours.sign(&stranger).expect("signs"));
    assert!(matches!(error, ReceiptError::Checkpoint(CheckpointError::Unsigned)), "{error}");
    let error = refused(leaf, 2, proof, &note.replacen("\n9\n", "\n8\n", 1));
    assert!(matches!(error, ReceiptError::Checkpoint(CheckpointError::Signature)), "{error}");
}

#[test]
fn what_is_in_the_log_but_no_event_is_told_so() {
    let event = String::from_utf8(sample::genesis()).expect("UTF-8");
    let newer = event.replace("\"v\":1", "\"v\":2");
    let future = newer.replace("genesis", "invented");
    let spaced = event.replacen(',', ", ", 1);
    let twice = event.replacen("\"store\"", "\"store\":\"x\",\"store\"", 1);
    let leaves = ["no JSON", &newer, &future, &spaced, &twice].map(|leaf| leaf.as_bytes().to_vec());
    let log = Log::new(leaves);
    let error = |at| verify(&log.receipt(at, 5)).expect_err("refused");
    assert!(matches!(error(0), ReceiptError::Leaf(_)), "{}", error(0));
    assert!(matches!(error(1), ReceiptError::Version { version: 2 }), "{}", error(1));
    assert!(matches!(error(2), ReceiptError::Version { version: 2 }), "{}", error(2));
    assert!(matches!(error(3), ReceiptError::NotCanonical), "{}", error(3));
    assert!(matches!(error(4), ReceiptError::Leaf(_)), "{}", error(4));
}

#[test]
fn what_is_no_receipt_is_told_with_its_line() {
    let file = log().receipt(1, 2).to_text();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!((lines.len(), lines[4]), (10, ""), "{file}");
    let with = |number: usize, line: &str| {
        let mut lines = lines.clone();
        lines[number - 1] = line;
        lines.join("\n") + "\n"
    };
    let hash = lines[3];
    let leaf = lines[1];
    for (text, line, problem) in [
        (String::new(), 1, "is missing"),
        (file.replacen("@v1", "@v2", 1), 1, "is not `c2sp.org/tlog-proof@v1`"),
        (file.replace('\n', "\r\n"), 1, "is not `c2sp.org/tlog-proof@v1`"),
        (with(2, "index 1"), 2, "is not `extra`"),
        (with(2, "extra "), 2, "empty or too long"),
        (with(2, "extra e"), 2, "not base64"),
        (with(2, &format!("{leaf} ")), 2, "not base64"),
        (with(3, "index"), 3, "is not `index`"),
        (with(3, "index 01"), 3, "no number"),
        (with(3, "index +1"), 3, "no number"),
        (with(3, "index 281474976710656"), 3, "no number"),
        (with(4, hash.trim_end_matches('=')), 4, "is not a hash"),
        (with(4, &format!("{hash}{hash}")), 4, "is not a hash"),
        (with(4, &[hash; 49].join("\n")), 52, "one hash more"),
        (lines[..4].join("\n"), 4, "has no line feed"),
        (lines[..5].join("\n"), 5, "has no line feed"),
    ] {
        match read(&text).expect_err("refused") {
            ReceiptError::Malformed { line: found, problem: why } => {
                assert_eq!(found, line, "{text}: {why}");
                assert!(why.contains(problem), "{text}: {why}");
            }
            other => panic!("{text}: {other}"),
        }
    }
    for (text, problem) in [
        (lines[..5].join("\n") + "\n", "no empty line"),
        (file.trim_end().to_owned(), "no line break"),
        (file.replacen("\n2\n", "\n2\t\n", 1), "control characters"),
        (format!("{file}more\n"), "a signature line"),
    ] {
        let error = read(&text).expect_err("refused");
        assert!(matches!(error, ReceiptError::Note { line: 6, .. }), "{text}: {error}");
        assert!(error.to_string().contains(problem), "{text}: {error}");
    }
    let mut bytes = file.clone().into_bytes();
    let at = file.find("index").expect("its line");
    bytes[at] = 0xff;
    let error = Receipt::from_text(&bytes).expect_err("refused");
    assert!(error.to_string().contains("line 3 is not UTF-8"), "{error}");
}

#[test]
fn the_longest_receipt_fits_and_no_longer_one_is_read() {
    let log = Log::of(2);
    let short = log.note(2);
    let line = format!("\u{2014} w {}\n", "A".repeat(400));
    let mut note = short.clone();
    while note.len() + line.len() <= MAX_CHECKPOINT_BYTES {
        note.push_str(&line);
    }
    let hashes = vec![Digest::of(b"hash"); MAX_DEPTH];
    let leaf = vec![b'x'; MAX_LEAF_BYTES];
    let new = |leaf: &[u8], index, hashes: &[Digest], note: &str| {
        Receipt::new(leaf.to_vec(), index, InclusionProof { hashes: hashes.to_vec() }, note)
    };
    let longest = new(&leaf, MAX_TREE_SIZE - 1, &hashes, &note).expect("possible");
    let text = longest.to_text();
    assert!(text.len() <= MAX_RECEIPT_BYTES, "{}", text.len());
    assert_eq!(read(&text).expect("reads back"), longest);
    let spaces = vec![b' '; MAX_RECEIPT_BYTES + 1];
    let error = Receipt::from_text(&spaces).expect_err("refused");
    assert!(matches!(error, ReceiptError::TooLong { .. }), "{error}");

    let more = [hashes.as_slice(), &[Digest::of(b"")]].concat();
    for (leaf, index, hashes, note) in [
        (&b""[..], 0, &[][..], short.as_str()),
        (&[leaf.as_slice(), b"x"].concat(), 0, &[], &short),
        (b"x", MAX_TREE_SIZE, &[], &short),
        (b"x", 0, &more, &short),
        (b"x", 0, &[], "no note"),
        (b"x", 0, &[], &format!("{note}{line}")),
    ] {
        let error = new(leaf, index, hashes, note).expect_err("refused");
        assert!(matches!(error, ReceiptError::Impossible { .. }), "{error}");
    }
}

#[test]
fn one_flipped_bit_anywhere_is_refused() {
    let receipt = Log::new([sample::genesis(), b"other".to_vec()]).receipt(0, 2);
    let file = receipt.to_text().into_bytes();
    assert!(verify(&receipt).is_ok());
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            let logged = Receipt::from_text(&damaged).and_then(|receipt| verify(&receipt));
            assert!(logged.is_err(), "bit {bit} of byte {at}: {logged:?}");
        }
    }
}

#[test]
fn a_proof_has_the_hashes_that_its_place_asks_for() {
    let log = Log::of(70);
    for size in 1..=70 {
        for at in 0..size {
            let hashes = log.inclusion(at, size).hashes.len();
            assert_eq!(merkle::inclusion_hashes(at, size), hashes, "{at} of {size}");
        }
    }
    assert_eq!(merkle::inclusion_hashes(1, 1), 0);
    assert_eq!(merkle::inclusion_hashes(0, 0), 0);
}

proptest! {
    #[test]
    fn a_proof_of_any_tree_has_so_many_hashes(
        (at, size) in (1..=MAX_TREE_SIZE).prop_flat_map(|size| (0..size, Just(size))),
    ) {
        let none = |numbers: &[u64]| Ok::<_, Infallible>(vec![Digest::of(b""); numbers.len()]);
        let proof = InclusionProof::new(at, size, none).expect("a proof");
        prop_assert_eq!(merkle::inclusion_hashes(at, size), proof.hashes.len());
    }

    #[test]
    fn every_receipt_survives_its_file(
        leaf in proptest::collection::vec(any::<u8>(), 1..300),
        index in 0..MAX_TREE_SIZE,
        hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..=MAX_DEPTH),
        lines in proptest::collection::vec("[!-~]{1,40} [A-Za-z0-9+/]{4}{2,20}", 0..5),
    ) {
        let hashes = hashes.into_iter().map(Digest::from_bytes).collect();
        let mut note = Log::of(1).note(1);
        for line in lines {
            note.push_str(&format!("\u{2014} {line}\n"));
        }
        let receipt = Receipt::new(leaf, index, InclusionProof { hashes }, note).expect("possible");
        let text = receipt.to_text();
        let read = read(&text);
        prop_assert_eq!(read.as_ref().ok(), Some(&receipt));
        prop_assert_eq!(read.expect("a receipt").to_text(), text);
    }

    #[test]
    fn every_leaf_is_proved_by_its_receipt(
        (at, size) in (1..64_u64).prop_flat_map(|size| (0..size, Just(size))),
    ) {
        let leaf = |at: u64| {
            let event = Event::Genesis { origin: ORIGIN.to_owned(), store: at.to_string() };
            canonical_json(&Leaf { event, time: at, v: 1 }).expect("canonical")
        };
        let receipt = Log::new((0..size).map(leaf)).receipt(at, size);
        let logged = verify(&read(&receipt.to_text()).expect("reads back")).expect("verifies");
        prop_assert_eq!((logged.index, logged.leaf.time, logged.checkpoint.size), (at, at, size));
    }

    /// A changed byte is refused, or belongs to a signature that nobody checks.
    #[test]
    fn no_changed_byte_proves_another_event(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let good = log().receipt(1, 2);
        let stranger = "\u{2014} stranger.example AAAAAAAAAAAA\n";
        let note = format!("{}{stranger}", good.note());
        let good = Receipt::new(good.leaf().to_vec(), 1, good.proof().clone(), note);
        let good = good.expect("possible");
        let proved = verify(&good).expect("verifies");
        let mut text = good.to_text().into_bytes();
        let at = at.index(text.len());
        let unchecked = text.len() - stranger.len();
        text[at] = byte;
        if let Ok(receipt) = Receipt::from_text(&text) {
            let unchanged = receipt == good;
            match verify(&receipt) {
                Ok(logged) => {
                    prop_assert_eq!(logged, proved);
                    prop_assert!(unchanged || at >= unchecked, "byte {}", at);
                }
                Err(_) => prop_assert!(!unchanged),
            }
        }
    }

    #[test]
    fn no_file_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in "(?s).{0,200}",
    ) {
        prop_assert!(Receipt::from_text(&bytes).is_err());
        let text = format!("c2sp.org/tlog-proof@v1\nextra eA==\nindex 0\n{text}");
        if let Ok(receipt) = read(&text) {
            prop_assert!(verify(&receipt).is_err());
        }
    }
}
