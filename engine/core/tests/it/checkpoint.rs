//! Checkpoints: ours read by a library that we did not write, and damaged ones refused.

use placet_core::{Checkpoint, CheckpointError, Digest, SigningKey, note_verifier_key};
use proptest::prelude::*;
use signed_note::{Note, StandardVerifier, VerifierList};

use crate::sample;

const ORIGIN: &str = "log.example.com/placet";

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: ORIGIN.to_owned(), root: Digest::of(b"root"), size: 42 }
}

fn note() -> String {
    checkpoint().sign(&sample::key()).expect("signs")
}

fn verify(note: &str) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::verify(note, ORIGIN, sample::key().verifying_key())
}

#[test]
fn another_library_reads_our_checkpoints() {
    let vkey = note_verifier_key(ORIGIN, sample::key().verifying_key()).expect("an origin");
    let verifier = StandardVerifier::new(&vkey).expect("a verifier key");
    let note = Note::from_bytes(note().as_bytes()).expect("a note");
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let (good, unknown) = note.verify(&known).expect("verifies");
    assert_eq!((good.len(), unknown.len()), (1, 0));
    let text = tlog_tiles::Checkpoint::from_bytes(note.text()).expect("a checkpoint");
    assert_eq!((text.origin(), text.size()), (ORIGIN, 42));
    assert_eq!(text.hash().0, *checkpoint().root.as_bytes());
}

#[test]
fn extensions_and_witnesses_are_passed_over() {
    assert_eq!(verify(&note()), Ok(checkpoint()));
    let witnessed = format!("{}\u{2014} witness.example AAAAAAAA\n", note());
    assert_eq!(verify(&witnessed), Ok(checkpoint()));
}

#[test]
fn one_flipped_bit_anywhere_is_refused() {
    let note = note().into_bytes();
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut damaged = note.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(damaged) {
                assert!(verify(&text).is_err(), "bit {bit} of byte {at}: {text}");
            }
        }
    }
}

#[test]
fn each_fault_is_named() {
    let key = sample::key();
    let stranger = SigningKey::generate().expect("randomness");
    let theirs = checkpoint().sign(&stranger).expect("signs");
    assert_eq!(verify(&theirs), Err(CheckpointError::Unsigned));
    let other = Checkpoint { origin: "other.example".to_owned(), ..checkpoint() };
    let other = other.sign(&key).expect("signs");
    let error = verify(&other).expect_err("refused");
    let (found, expected) = ("other.example".to_owned(), ORIGIN.to_owned());
    assert_eq!(error, CheckpointError::OtherLog { found, expected });
    let changed = note().replacen("\n42\n", "\n43\n", 1);
    assert_eq!(verify(&changed), Err(CheckpointError::Signature));
    let twice = format!("{}{}", note(), note().lines().last().expect("a line"));
    let half: String = note().chars().take(150).collect();
    for broken in ["", "\n", "\n\n", &twice, &note().replace('\n', "\r\n"), &half] {
        let error = verify(broken).expect_err("refused");
        assert!(matches!(error, CheckpointError::Malformed { .. }), "`{broken}`: {error}");
    }
    for origin in ["", "two words", "a+b", "line\nbreak", &"x".repeat(256)] {
        let bad = Checkpoint { origin: origin.to_owned(), ..checkpoint() };
        assert!(matches!(bad.sign(&key), Err(CheckpointError::Origin { .. })), "`{origin}`");
    }
    let large = Checkpoint { size: u64::MAX, ..checkpoint() };
    assert!(matches!(large.sign(&key), Err(CheckpointError::Size { .. })));
}

proptest! {
    #[test]
    fn every_checkpoint_survives(size in 0_u64..=1 << 48, root in any::<[u8; 32]>()) {
        let checkpoint = Checkpoint { root: Digest::from_bytes(root), size, ..checkpoint() };
        let note = checkpoint.sign(&sample::key()).expect("signs");
        prop_assert_eq!(verify(&note), Ok(checkpoint));
    }

    #[test]
    fn no_text_panics(text in "(?s).{0,200}", tail in "(?s).{0,60}") {
        prop_assert!(verify(&text).is_err());
        let signed = format!("{text}\n\n\u{2014} {tail}\n");
        prop_assert!(verify(&signed).is_err());
    }
}
