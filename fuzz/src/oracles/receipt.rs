//! Anything as a receipt, before a log whose key has signed exactly one checkpoint.

use std::sync::LazyLock;

use placet_core::merkle::{self, InclusionProof};
use placet_core::{
    Checkpoint, Cosignature, Digest, Event, Leaf, Logged, Receipt, SigningKey, VerifyingKey,
    Witness, Witnesses, canonical_json, cosign, note_verifier_key, read_note_verifier_key,
};

use super::token::KEY;
use super::work::{accept, bounded};

const ORIGIN: &str = "log.example.com/placet";
const WITNESS: &str = "witness.example.com/w1";
/// 2026-11-01T00:00:00Z.
const NOW: u64 = 1_793_491_200;

struct Genuine {
    cosignatures: Vec<Cosignature>,
    key: VerifyingKey,
    log_key: String,
    logged: Logged,
    receipt: Receipt,
    witness_key: String,
    witnesses: Witnesses,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let key = SigningKey::from_pkcs8(&KEY).expect("RFC 8037's key is a key");
    let event = Event::Genesis { origin: ORIGIN.to_owned(), store: "0".repeat(32) };
    let leaf = Leaf { event, time: NOW, v: 1 };
    let bytes = canonical_json(&leaf).expect("a leaf has a canonical form");
    let beside = [b"leaf 1", b"leaf 2"].map(|leaf| merkle::leaf_hash(leaf));
    let [first, second] = beside;
    let pair = node(merkle::leaf_hash(&bytes), first);
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), root: node(pair, second), size: 3 };
    let note = checkpoint.sign(&key).expect("the sample can be signed");
    let line = cosign(&note, WITNESS, &key, NOW).expect("the sample can be cosigned");
    let witness = Witness::new(WITNESS, key.verifying_key().clone()).expect("a name");
    let witness_key = witness.to_string();
    let witnesses = Witnesses::new([witness]).expect("one witness");
    let note = witnesses.add(&note, &line).expect("a good line");
    let cosignatures = witnesses.quorum(&note, 1).expect("one witness");
    let proof = InclusionProof { hashes: beside.to_vec() };
    Genuine {
        cosignatures,
        key: key.verifying_key().clone(),
        log_key: note_verifier_key(ORIGIN, key.verifying_key()).expect("an origin"),
        logged: Logged { checkpoint, index: 0, leaf },
        receipt: Receipt::new(bytes, 0, proof, note).expect("the sample is a receipt"),
        witness_key,
        witnesses,
    }
});

fn node(left: Digest, right: Digest) -> Digest {
    Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// The one receipt that is genuine, its checkpoint, and the keys of the log and the witness.
pub fn proved() -> [String; 4] {
    let Genuine { receipt, log_key, witness_key, .. } = &*GENUINE;
    [receipt.to_text(), receipt.note().to_owned(), log_key.clone(), witness_key.clone()]
}

/// As a receipt: refused, or written again to the same bytes; proved is only the one leaf of the
/// one tree. As a checkpoint: only that tree's, and cosigned only by the one witness, once. As a
/// verifier key: refused, or the same text again.
///
/// # Panics
/// If the bytes show a bug.
pub fn receipt(bytes: &[u8]) {
    let genuine = &*GENUINE;
    match bounded("reading a receipt", || Receipt::from_text(bytes)) {
        Ok(receipt) => {
            accept();
            assert_eq!(receipt.to_text().as_bytes(), bytes, "two spellings of one receipt");
            proves(&receipt);
        }
        Err(error) => {
            assert!(error.to_string().len() < 4_096, "{error}");
            assert_ne!(bytes, genuine.receipt.to_text().as_bytes(), "{error}");
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        says(text);
        is_key(text);
    }
}

fn proves(receipt: &Receipt) {
    let genuine = &*GENUINE;
    match bounded("verifying a receipt", || receipt.verify(ORIGIN, &genuine.key)) {
        Ok(logged) => assert_eq!(logged, genuine.logged, "nobody has logged this"),
        Err(error) => {
            assert!(error.to_string().len() < 4_096, "{error}");
            assert_ne!(*receipt, genuine.receipt, "the genuine one is refused: {error}");
        }
    }
    says(receipt.note());
}

fn says(note: &str) {
    let genuine = &*GENUINE;
    if let Ok(checkpoint) = Checkpoint::verify(note, ORIGIN, &genuine.key) {
        accept();
        assert_eq!(checkpoint, genuine.logged.checkpoint, "nobody has signed this");
    }
    match bounded("finding cosignatures", || genuine.witnesses.cosignatures(note)) {
        Ok(found) if found.is_empty() => {}
        Ok(found) => assert_eq!(found, genuine.cosignatures, "nobody has cosigned this"),
        Err(error) => assert!(error.to_string().len() < 4_096, "{error}"),
    }
}

fn is_key(text: &str) {
    if let Ok(witness) = text.parse::<Witness>() {
        accept();
        assert_eq!(witness.to_string(), text, "two spellings of one witness");
    }
    if let Ok((origin, key)) = read_note_verifier_key(text) {
        accept();
        let again = note_verifier_key(&origin, &key).expect("what was read is an origin");
        assert_eq!(again, text, "two spellings of one log");
    }
}
