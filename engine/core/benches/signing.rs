//! Signing and verifying one decision, appending one leaf, and verifying one receipt.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use placet_core::merkle::{self, InclusionProof};
use placet_core::{
    Checkpoint, Digest, Expect, KeySet, Receipt, SigningKey, Verifier, sign_decision,
};

/// A permit like those of the shipped bundle, from the vector.
fn vector() -> serde_json::Value {
    let text = include_str!("../tests/vectors/token.json");
    serde_json::from_str(text).expect("the vector is JSON")
}

fn tokens(criterion: &mut Criterion) {
    let vector = vector();
    let text = |member: &str| vector[member].as_str().expect("a text");
    let decision = serde_json::from_str(text("claims")).expect("claims of a decision");
    let key = SigningKey::generate().expect("the system has randomness");
    let keys = KeySet::from_json(text("jwks").as_bytes()).expect("a JWK set");
    let verifier = Verifier::new(keys);
    let now = vector["now"].as_u64().expect("seconds");
    let expect = Expect { issuer: text("issuer"), audience: text("audience"), now };
    criterion.bench_function("sign one decision", |bencher| {
        bencher.iter(|| sign_decision(&key, black_box(&decision)));
    });
    criterion.bench_function("verify one decision", |bencher| {
        bencher.iter(|| verifier.verify(black_box(text("token")), &expect));
    });
}

fn tree(criterion: &mut Criterion) {
    let leaf = vec![b'x'; 2_000];
    let read = |indexes: &[u64]| Ok::<_, Infallible>(vec![Digest::of(b""); indexes.len()]);
    let mut size = 0;
    criterion.bench_function("hash and append one leaf of 2,000 bytes", |bencher| {
        bencher.iter(|| {
            size += 1;
            merkle::append(size, merkle::leaf_hash(black_box(&leaf)), read)
        });
    });
}

/// Of a log of 2^30 leaves, so that the proof has 30 hashes.
fn receipts(criterion: &mut Criterion) {
    let leaves: serde_json::Value =
        serde_json::from_str(include_str!("../tests/vectors/leaf.json")).expect("JSON");
    let leaf = leaves["leaves"][1].as_str().expect("a text").as_bytes();
    let beside = Digest::of(b"");
    let hashes = vec![beside; 30];
    let pair = |below: Digest, _| Digest::of_parts(&[&[1], below.as_bytes(), beside.as_bytes()]);
    let root = hashes.iter().fold(merkle::leaf_hash(leaf), pair);
    let origin = "log.example.com".to_owned();
    let key = SigningKey::generate().expect("the system has randomness");
    let note = Checkpoint { origin, root, size: 1 << 30 }.sign(&key).expect("signs");
    let receipt = Receipt::new(leaf.to_vec(), 0, InclusionProof { hashes }, note);
    let file = receipt.expect("a receipt").to_text();
    criterion.bench_function("read and verify one receipt, without its token", |bencher| {
        bencher.iter(|| {
            let receipt = Receipt::from_text(black_box(file.as_bytes())).expect("reads");
            receipt.verify("log.example.com", key.verifying_key()).expect("verifies")
        });
    });
}

criterion_group!(benches, tokens, tree, receipts);
criterion_main!(benches);
