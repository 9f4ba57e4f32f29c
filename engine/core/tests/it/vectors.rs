//! The vectors for other implementations. A change of any byte here is a change of the format.

use std::fs;

use placet_core::{
    BundleClaims, Checkpoint, Digest, Event, Expect, Id, KeySet, Leaf, Verifier, canonical_json,
    merkle, note_verifier_key, sign_bundle, sign_decision, verify_bundle,
};
use serde_json::{Value, json};

use crate::sample;

fn read(name: &str) -> Value {
    let path = sample::vector_path(name);
    let text = fs::read_to_string(&path).expect("the vector is in the tree");
    serde_json::from_str(&text).expect("a vector is JSON")
}

fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
    vector[member].as_str().expect("a text")
}

fn leaf(token: &str) -> Leaf {
    let caller = Id::new("scheduler-1").expect("an id");
    let event = Event::Decision { caller, token: token.to_owned() };
    Leaf { event, time: sample::NOW, v: 1 }
}

fn genesis() -> Leaf {
    let origin = "log.example.com/placet".to_owned();
    Leaf { event: Event::Genesis { origin, store: "0".repeat(32) }, time: sample::NOW, v: 1 }
}

fn canonical<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8(canonical_json(value).expect("canonical")).expect("UTF-8")
}

/// What our code makes of RFC 8037's key and the sample decision, as the files have it.
fn current() -> [(&'static str, Value); 4] {
    let key = sample::key();
    let jwks = KeySet::new([key.verifying_key().clone()]).expect("one key").to_json();
    let token = sign_decision(&key, &sample::decision()).expect("signs");
    let leaves = [canonical(&genesis()), canonical(&leaf(&token))];
    let hashes = leaves.clone().map(|leaf| merkle::leaf_hash(leaf.as_bytes()));
    let root = Digest::of_parts(&[&[1], hashes[0].as_bytes(), hashes[1].as_bytes()]);
    let origin = "log.example.com/placet";
    let checkpoint = Checkpoint { origin: origin.to_owned(), root, size: 2 };
    let note = checkpoint.sign(&key).expect("signs");
    let bundle = BundleClaims {
        digest: Digest::of(b"bundle"),
        iat: Some(sample::NOW),
        revision: "2026-11-01".to_owned(),
    };
    let signature = sign_bundle(&key, &bundle).expect("signs");
    let source = "placet-core; written by the test `write_vectors`";
    let key_source = "RFC 8037 appendix A.1, wrapped as RFC 8410 section 7 says";
    [
        (
            "token.json",
            json!({
                "source": source, "key_source": key_source,
                "private_key_pkcs8_hex": sample::KEY_HEX,
                "jwks": jwks, "claims": canonical(&sample::decision()), "token": token,
                "issuer": sample::ISSUER, "audience": "provisioner", "now": sample::NOW,
            }),
        ),
        (
            "bundle_signature.json",
            json!({
                "source": source, "key_source": key_source, "jwks": jwks,
                "claims": canonical(&bundle), "signature": signature,
            }),
        ),
        (
            "leaf.json",
            json!({
                "source": source, "leaves": leaves,
                "leaf_hashes_hex": hashes.map(|hash| hash.hex()), "root_hex": root.hex(),
            }),
        ),
        (
            "checkpoint.json",
            json!({
                "source": source, "key_source": key_source, "origin": origin, "size": 2,
                "root_hex": root.hex(), "note": note,
                "verifier_key": note_verifier_key(origin, key.verifying_key()).expect("an origin"),
            }),
        ),
    ]
}

#[test]
fn the_bytes_are_those_of_the_vectors() {
    for (name, vector) in current() {
        assert_eq!(vector, read(name), "{name}: the format changed, or its vector is old");
    }
}

/// Writes the vectors anew: only together with a new version of the format.
#[test]
#[ignore = "overwrites the vectors"]
fn write_vectors() {
    for (name, vector) in current() {
        let text = serde_json::to_string_pretty(&vector).expect("JSON") + "\n";
        fs::write(sample::vector_path(name), text).expect("the tree is writable");
    }
}

#[test]
fn the_vectors_verify() {
    let vector = read("token.json");
    let keys = KeySet::from_json(text(&vector, "jwks").as_bytes()).expect("a JWK set");
    let expect = Expect {
        issuer: text(&vector, "issuer"),
        audience: text(&vector, "audience"),
        now: vector["now"].as_u64().expect("seconds"),
    };
    let verifier = Verifier::new(keys.clone());
    let decision = verifier.verify(text(&vector, "token"), &expect).expect("verifies");
    assert_eq!(canonical(&decision), text(&vector, "claims"));
    let vector = read("bundle_signature.json");
    let digest = Digest::of(b"bundle");
    let (claims, _) =
        verify_bundle(&keys, text(&vector, "signature"), digest, "2026-11-01").expect("verifies");
    assert_eq!(canonical(&claims), text(&vector, "claims"));
    let vector = read("checkpoint.json");
    let [key] = keys.keys() else { panic!("one key") };
    Checkpoint::verify(text(&vector, "note"), text(&vector, "origin"), key).expect("verifies");
}

#[test]
fn keys_have_the_names_of_rfc_8037() {
    let vector = read("key.json");
    let key = sample::key();
    assert_eq!(key.id().as_str(), text(&vector, "thumbprint"));
    let public = KeySet::from_json(text(&vector, "jwks").as_bytes()).expect("a JWK set");
    assert_eq!(public.keys(), [key.verifying_key().clone()]);
}

#[test]
fn trees_have_the_roots_of_certificate_transparency() {
    let vector = read("tree.json");
    let mut row: Vec<Digest> = Vec::new();
    let leaves = vector["leaves_hex"].as_array().expect("leaves");
    let roots = vector["roots_hex"].as_array().expect("roots");
    assert_eq!(leaves.len(), roots.len());
    for (size, (leaf, root)) in (0..).zip(leaves.iter().zip(roots)) {
        let leaf = merkle::leaf_hash(&sample::bytes(leaf.as_str().expect("hexadecimal")));
        let read = |indexes: &[u64]| -> Result<Vec<Digest>, std::num::TryFromIntError> {
            indexes.iter().map(|index| Ok(row[usize::try_from(*index)?])).collect()
        };
        let new = merkle::append(size, leaf, read).expect("appends");
        row.extend(new);
        let read = |indexes: &[u64]| -> Result<Vec<Digest>, std::num::TryFromIntError> {
            indexes.iter().map(|index| Ok(row[usize::try_from(*index)?])).collect()
        };
        let computed = merkle::root(size + 1, read).expect("a root");
        assert_eq!(computed.hex(), root.as_str().expect("hexadecimal"), "{} leaves", size + 1);
    }
}
