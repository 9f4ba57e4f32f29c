//! Cosignatures of witnesses: good ones are found, and no other counts.

use placet_core::{
    Checkpoint, CosignatureError, MAX_CHECKPOINT_BYTES, MAX_WITNESSES, SigningKey, Witness,
    WitnessError, Witnesses, cosign, note_verifier_key, read_note_verifier_key,
};
use proptest::prelude::*;
use signed_note::{Note, StandardVerifier, VerifierList};

use crate::sample::{self, Log, ORIGIN, Sampled};

const TIME: u64 = sample::NOW + 5;

fn note() -> String {
    Log::of(3).note(3)
}

fn known() -> Witnesses {
    Witnesses::new(sample::witnesses().iter().map(Sampled::witness)).expect("two witnesses")
}

fn cosigned() -> String {
    let mut note = note();
    for (at, sampled) in (0..).zip(sample::witnesses()) {
        let line = cosign(&note, sampled.name, &sampled.key, TIME + at).expect("cosigns");
        note = known().add(&note, &line).expect("a good line");
    }
    note
}

fn checkpoint(note: &str) -> Checkpoint {
    Checkpoint::verify(note, ORIGIN, sample::key().verifying_key()).expect("verifies")
}

fn stranger(name: &str) -> (Witness, SigningKey) {
    let key = SigningKey::generate().expect("randomness");
    (Witness::new(name, key.verifying_key().clone()).expect("a name"), key)
}

#[test]
fn the_witnesses_of_a_checkpoint_are_listed() {
    let note = cosigned();
    let found = known().cosignatures(&note).expect("good ones");
    let found: Vec<_> = found.iter().map(|it| (it.witness.as_str(), it.time)).collect();
    let [w1, w2] = sample::witnesses();
    assert_eq!(found, [(w1.name, TIME), (w2.name, TIME + 1)]);
    assert_eq!(checkpoint(&note), checkpoint(&Log::of(3).note(3)), "they are passed over");
    // Who knows only one passes over the other.
    let one = Witnesses::new([w2.witness()]).expect("one witness");
    assert_eq!(one.cosignatures(&note).expect("good ones").len(), 1);
    assert_eq!(Witnesses::default().cosignatures(&note), Ok(vec![]));
}

#[test]
fn a_quorum_counts_known_witnesses_only() {
    let note = cosigned();
    assert_eq!(known().quorum(&note, 2).expect("both").len(), 2);
    let error = known().quorum(&note, 3).expect_err("there are two");
    assert_eq!(error, CosignatureError::Quorum { found: 2, least: 3 });
    let (other, _) = stranger("witness.example.net");
    let [w1, _] = sample::witnesses();
    let known = Witnesses::new([w1.witness(), other]).expect("two witnesses");
    let error = known.quorum(&note, 2).expect_err("one is a stranger");
    assert_eq!(error, CosignatureError::Quorum { found: 1, least: 2 });
    // Its name alone makes nobody a witness.
    let (namesake, _) = stranger(w1.name);
    let namesake = Witnesses::new([namesake]).expect("one witness");
    assert_eq!(namesake.cosignatures(&note), Ok(vec![]));
}

#[test]
fn another_library_passes_over_cosignatures() {
    let vkey = note_verifier_key(ORIGIN, sample::key().verifying_key()).expect("an origin");
    let verifier = StandardVerifier::new(&vkey).expect("a verifier key");
    let note = Note::from_bytes(cosigned().as_bytes()).expect("a note");
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let (good, unknown) = note.verify(&known).expect("verifies");
    assert_eq!((good.len(), unknown.len()), (1, 2));
}

#[test]
fn only_good_lines_are_added_and_each_once() {
    let note = note();
    let [w1, w2] = sample::witnesses();
    let line = cosign(&note, w1.name, &w1.key, TIME).expect("cosigns");
    let once = known().add(&note, &line).expect("a good line");
    assert_eq!(known().add(&note, line.trim_end()).expect("its line break is optional"), once);
    let again = cosign(&note, w1.name, &w1.key, TIME + 1).expect("cosigns");
    let twice = Err(CosignatureError::Twice { name: w1.name.to_owned() });
    assert_eq!(known().add(&once, &again), twice);
    let doubled = known().cosignatures(&format!("{once}{again}"));
    assert_eq!(doubled.map(|_| String::new()), twice, "whoever put it there");

    let mismatch = Err(CosignatureError::Mismatch { name: w1.name.to_owned() });
    assert_eq!(known().add(&Log::of(4).note(4), &line), mismatch, "of another checkpoint");
    let pasted = format!("{}{line}", Log::of(4).note(4));
    assert_eq!(known().cosignatures(&pasted).map(|_| String::new()), mismatch);
    let (_, other) = stranger("any");
    let forged = cosign(&note, w1.name, &other, TIME).expect("cosigns");
    let unknown = Err(CosignatureError::Unknown { name: w1.name.to_owned() });
    assert_eq!(known().add(&note, &forged), unknown, "the name is known, the key is not");
    let own = note.lines().last().expect("the log's line");
    let unknown = Err(CosignatureError::Unknown { name: ORIGIN.to_owned() });
    assert_eq!(known().add(&note, own), unknown, "the log's signature is no cosignature");

    let second = cosign(&note, w2.name, &w2.key, TIME).expect("cosigns");
    for bad in ["", "no line", "\u{2014} name", &format!("{line}{second}"), &format!("{line}\n")] {
        let error = known().add(&note, bad).expect_err("refused");
        assert!(matches!(error, CosignatureError::Line { .. }), "`{bad}`: {error}");
    }
    let long = "x".repeat(MAX_CHECKPOINT_BYTES + 1);
    let error = known().add(&note, &long).expect_err("refused");
    assert!(matches!(error, CosignatureError::Line { .. }), "{error}");
    for bad in ["", "text\n", &long] {
        let error = known().add(bad, &line).expect_err("refused");
        assert!(matches!(error, CosignatureError::Note { .. }), "`{bad}`: {error}");
        let error = cosign(bad, w1.name, &w1.key, TIME).expect_err("refused");
        assert!(matches!(error, CosignatureError::Note { .. }), "`{bad}`: {error}");
    }
}

#[test]
fn what_no_witness_can_be_or_say_is_not_made() {
    let [w1, _] = sample::witnesses();
    for name in ["", "two words", "a+b", &"x".repeat(256)] {
        let error = cosign(&note(), name, &w1.key, TIME).expect_err("refused");
        assert!(matches!(error, CosignatureError::Name { .. }), "`{name}`: {error}");
        let error = Witness::new(name, w1.key.verifying_key().clone()).expect_err("refused");
        assert!(matches!(error, WitnessError::Name { .. }), "`{name}`: {error}");
    }
    let latest = (1 << 63) - 1;
    let line = cosign(&note(), w1.name, &w1.key, latest).expect("cosigns");
    let note = known().add(&note(), &line).expect("a good line");
    assert_eq!(known().cosignatures(&note).expect("a good one")[0].time, latest);
    let error = cosign(&note, w1.name, &w1.key, 1 << 63).expect_err("refused");
    assert_eq!(error, CosignatureError::Time { time: 1 << 63 });
}

#[test]
fn a_hundred_witnesses_with_the_longest_names_fit() {
    let (name, mut note) = ("x".repeat(251), note());
    let both: Vec<_> = (0..=MAX_WITNESSES).map(|at| stranger(&format!("{name}/{at:03}"))).collect();
    let all = both.iter().map(|(witness, _)| witness.clone());
    assert_eq!(Witnesses::new(all.clone()), Err(WitnessError::Count));
    let known = Witnesses::new(all.clone().take(MAX_WITNESSES)).expect("a hundred");
    for (witness, key) in both.iter().take(MAX_WITNESSES) {
        let line = cosign(&note, witness.name(), key, TIME).expect("cosigns");
        note = known.add(&note, &line).expect("there is room");
    }
    assert_eq!(known.quorum(&note, MAX_WITNESSES).expect("all").len(), MAX_WITNESSES);
    assert_eq!(checkpoint(&note).size, 3);
    let last = Witnesses::new(all.skip(MAX_WITNESSES)).expect("one more");
    let (witness, key) = both.last().expect("one more");
    let line = cosign(&note, witness.name(), key, TIME).expect("cosigns");
    assert_eq!(last.add(&note, &line), Err(CosignatureError::Full));
}

#[test]
fn one_voice_counts_once() {
    let [w1, w2] = sample::witnesses();
    let alias = Witness::new("alias.example", w1.key.verifying_key().clone()).expect("a name");
    let namesake = Witness::new(w1.name, w2.key.verifying_key().clone()).expect("a name");
    for same in [w1.witness(), alias, namesake] {
        let name = same.name().to_owned();
        assert_eq!(Witnesses::new([w1.witness(), same]), Err(WitnessError::Same { name }));
    }
}

#[test]
fn a_verifier_key_is_read_only_as_it_is_written() {
    let [w1, _] = sample::witnesses();
    let text = w1.witness().to_string();
    assert_eq!(text.parse(), Ok(w1.witness()));
    let log = note_verifier_key(w1.name, w1.key.verifying_key()).expect("a name");
    let (name, rest) = text.split_once('+').expect("three parts");
    let (hash, key) = rest.split_once('+').expect("three parts");
    for (bad, problem) in [
        (String::new(), "it is not `name+hash+base64`"),
        (name.to_owned(), "it is not `name+hash+base64`"),
        (format!("+{hash}+{key}"), "its name"),
        (format!("two words+{hash}+{key}"), "its name"),
        (format!("{name}+{hash}+{key}="), "not base64"),
        (format!("{name}+{hash}+"), "not an Ed25519 key"),
        (format!("{name}+{hash}+BAAA"), "not an Ed25519 key"),
        (format!("other+{hash}+{key}"), "its hash"),
        (format!("{name}+00000000+{key}"), "its hash"),
        (format!("{name}+{}+{key}", hash.to_uppercase()), "its hash"),
        (log, "it is the key of a log"),
    ] {
        let error = bad.parse::<Witness>().expect_err("refused").to_string();
        assert!(error.contains(problem), "`{bad}`: {error}");
    }
    // That of a log is read by the same rules.
    let error = read_note_verifier_key(&text).expect_err("of a witness").to_string();
    assert!(error.contains("it is the key of a witness"), "{error}");
    let log = note_verifier_key(w1.name, w1.key.verifying_key()).expect("a name");
    let read = (w1.name.to_owned(), w1.key.verifying_key().clone());
    assert_eq!(read_note_verifier_key(&log), Ok(read));
}

#[test]
fn one_flipped_bit_anywhere_changes_nothing_unseen() {
    let good = cosigned();
    let (key, known) = (sample::key(), known());
    let said = (checkpoint(&good), known.cosignatures(&good).expect("good ones"));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut damaged = good.clone().into_bytes();
            damaged[at] ^= 1 << bit;
            let Ok(note) = String::from_utf8(damaged) else { continue };
            // The name or the hash of a witness may be damaged: it is then a stranger's line.
            let verified = Checkpoint::verify(&note, ORIGIN, key.verifying_key());
            if let (Ok(checkpoint), Ok(found)) = (verified, known.cosignatures(&note)) {
                assert_eq!(checkpoint, said.0, "bit {bit} of byte {at}");
                assert!(found.len() < said.1.len(), "bit {bit} of byte {at}: {note}");
                assert!(found.iter().all(|one| said.1.contains(one)), "bit {bit} of byte {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn every_cosignature_is_found_again(time in 0_u64..1 << 63, name in "[!-*,-~]{1,255}") {
        let (witness, key) = stranger(&name);
        let known = Witnesses::new([witness]).expect("one witness");
        let line = cosign(&note(), &name, &key, time).expect("cosigns");
        let note = known.add(&note(), &line).expect("a good line");
        let found = known.quorum(&note, 1).expect("one");
        prop_assert_eq!((found[0].time, &found[0].witness), (time, &name));
    }

    #[test]
    fn no_text_panics(note in "(?s).{0,200}", line in "(?s).{0,100}", key in "(?s).{0,100}") {
        prop_assert!(key.parse::<Witness>().is_err());
        prop_assert!(known().add(&cosigned(), &line).is_err());
        let note = format!("{note}\n\n\u{2014} {line}\n");
        if let Ok(found) = known().cosignatures(&note) {
            prop_assert_eq!(found, vec![]);
        }
    }
}
