//! Signing and verifying one decision, and appending one leaf.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use placet_core::{Digest, Expect, KeySet, SigningKey, Verifier, merkle, sign_decision};

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

criterion_group!(benches, tokens, tree);
criterion_main!(benches);
