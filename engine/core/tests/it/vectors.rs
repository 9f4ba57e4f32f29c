//! The vectors for other implementations. A change of any byte here is a change of the format.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use placet_core::merkle::{ConsistencyProof, InclusionProof};
use placet_core::tile::{TilePath, tiles};
use placet_core::{
    Approval, BundleClaims, Checkpoint, Digest, Expect, FreezeClaims, KeySet, Receipt, ThawClaims,
    Verifier, VerifyingKey, WaiverClaims, Witness, Witnesses, canonical_json, cosign, merkle,
    note_verifier_key, read_note_verifier_key, sign_approval, sign_bundle, sign_decision,
    verify_approval, verify_bundle,
};
use serde_json::{Value, json};

use crate::approval;
use crate::sample::{self, Log, ORIGIN, Sampled};

const SOURCE: &str = "placet-core; written by the test `write_vectors`";
const KEY_SOURCE: &str = "RFC 8037 appendix A.1, wrapped as RFC 8410 section 7 says";

fn read(name: &str) -> Value {
    let path = sample::vector_path(name);
    let text = fs::read_to_string(&path).expect("the vector is in the tree");
    serde_json::from_str(&text).expect("a vector is JSON")
}

fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
    vector[member].as_str().expect("a text")
}

fn canonical<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8(canonical_json(value).expect("canonical")).expect("UTF-8")
}

fn jwks() -> String {
    KeySet::new([sample::key().verifying_key().clone()]).expect("one key").to_json()
}

fn log_key() -> String {
    note_verifier_key(ORIGIN, sample::key().verifying_key()).expect("an origin")
}

/// The log of the vectors: its first leaf, and a decision.
fn log() -> Log {
    Log::new([sample::genesis(), sample::decided()])
}

/// What our code makes of RFC 8037's key and the sample decision, as the files have it.
fn current() -> Vec<(&'static str, Value)> {
    let key = sample::key();
    let token = sign_decision(&key, &sample::decision()).expect("signs");
    let bundle = BundleClaims {
        digest: Digest::of(b"bundle"),
        iat: Some(sample::NOW),
        revision: "2026-11-01".to_owned(),
    };
    let signature = sign_bundle(&key, &bundle).expect("signs");
    let log = log();
    let leaves: Vec<_> = log.leaves.iter().map(|leaf| as_text(leaf)).collect();
    let hashes: Vec<_> = log.leaves.iter().map(|leaf| merkle::leaf_hash(leaf).hex()).collect();
    vec![
        (
            "token.json",
            json!({
                "source": SOURCE, "key_source": KEY_SOURCE,
                "private_key_pkcs8_hex": sample::KEY_HEX,
                "jwks": jwks(), "claims": canonical(&sample::decision()), "token": token,
                "issuer": sample::ISSUER, "audience": "provisioner", "now": sample::NOW,
            }),
        ),
        (
            "bundle_signature.json",
            json!({
                "source": SOURCE, "key_source": KEY_SOURCE, "jwks": jwks(),
                "claims": canonical(&bundle), "signature": signature,
            }),
        ),
        ("waiver.json", approvals()),
        (
            "leaf.json",
            json!({
                "source": SOURCE, "leaves": leaves, "leaf_hashes_hex": hashes,
                "root_hex": log.root(2).hex(),
            }),
        ),
        (
            "checkpoint.json",
            json!({
                "source": SOURCE, "key_source": KEY_SOURCE, "origin": ORIGIN, "size": 2,
                "root_hex": log.root(2).hex(), "note": log.note(2), "verifier_key": log_key(),
            }),
        ),
        ("cosignature.json", cosignatures()),
        ("receipt.json", receipts()),
        ("consistency.json", consistencies()),
        ("proofs.json", proofs()),
        ("tiles.json", tile_bytes()),
    ]
}

/// What approvers sign.
fn approvals() -> Value {
    fn signed<T: Approval>(claims: &T) -> String {
        sign_approval(&sample::key(), claims).expect("signs")
    }
    let (waiver, freeze, thaw) = (approval::waiver(), approval::freeze(), approval::thaw());
    json!({
        "source": SOURCE, "key_source": KEY_SOURCE, "jwks": jwks(), "issuer": sample::ISSUER,
        "waiver_claims": canonical(&waiver), "waiver": signed(&waiver),
        "freeze_claims": canonical(&freeze), "freeze": signed(&freeze),
        "thaw_claims": canonical(&thaw), "thaw": signed(&thaw),
    })
}

/// The same as files, for programs that take files.
fn files() -> [(&'static str, String); 5] {
    let log = log();
    let hashes = log.consistency(1, 2).hashes;
    let hashes = hashes.iter().map(|hash| STANDARD.encode(hash.as_bytes()) + "\n").collect();
    [
        ("decision.jwt", sign_decision(&sample::key(), &sample::decision()).expect("signs")),
        ("jwks.json", jwks()),
        ("receipt.tlog-proof", receipt().to_text()),
        ("older.checkpoint", log.note(1)),
        ("older-to-newer.proof", hashes),
    ]
}

fn as_text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each witness with the line that it gives for a note, and the note with both.
fn cosigned() -> (Vec<(Sampled, u64, String)>, String) {
    let known = Witnesses::new(sample::witnesses().iter().map(Sampled::witness));
    let known = known.expect("two witnesses");
    let mut note = log().note(2);
    let mut lines = Vec::new();
    for (time, sampled) in (sample::NOW + 2..).zip(sample::witnesses()) {
        let line = cosign(&note, sampled.name, &sampled.key, time).expect("cosigns");
        note = known.add(&note, &line).expect("a good line");
        lines.push((sampled, time, line));
    }
    (lines, note)
}

fn cosignatures() -> Value {
    let (lines, note) = cosigned();
    let witness = |(sampled, time, line): &(Sampled, u64, String)| {
        json!({
            "name": sampled.name, "private_key_pkcs8_hex": sampled.key_hex,
            "verifier_key": sampled.witness().to_string(), "time": time, "line": line,
        })
    };
    json!({
        "source": SOURCE,
        "key_source": "RFC 8032 section 7.1, tests 2 and 3, wrapped as RFC 8410 section 7 says",
        "origin": ORIGIN, "verifier_key": log_key(), "note": log().note(2), "cosigned": note,
        "witnesses": lines.iter().map(witness).collect::<Vec<_>>(),
    })
}

fn receipt() -> Receipt {
    let (log, (_, note)) = (log(), cosigned());
    Receipt::new(log.leaf(1).to_vec(), 1, log.inclusion(1, 2), note).expect("a receipt")
}

fn receipts() -> Value {
    let (lines, _) = cosigned();
    let witness = |(sampled, ..): &(Sampled, u64, String)| sampled.witness().to_string();
    json!({
        "source": SOURCE, "origin": ORIGIN, "verifier_key": log_key(), "jwks": jwks(),
        "issuer": sample::ISSUER, "index": 1, "size": 2, "root_hex": log().root(2).hex(),
        "leaf": as_text(log().leaf(1)), "receipt": receipt().to_text(),
        "witnesses": lines.iter().map(witness).collect::<Vec<_>>(),
    })
}

fn hexes(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(Digest::hex).collect()
}

fn consistencies() -> Value {
    let (log, (_, newer)) = (log(), cosigned());
    json!({
        "source": SOURCE, "origin": ORIGIN, "verifier_key": log_key(), "older": log.note(1),
        "newer": newer, "hashes_hex": hexes(&log.consistency(1, 2).hashes),
    })
}

/// The log of certificate transparency's leaves.
fn known_answers() -> Log {
    let vector = read("tree.json");
    let leaves = vector["leaves_hex"].as_array().expect("leaves");
    Log::new(leaves.iter().map(|leaf| sample::bytes(leaf.as_str().expect("hexadecimal"))))
}

/// Every proof of every tree of the leaves of `tree.json`.
fn proofs() -> Value {
    let log = known_answers();
    let (mut inclusions, mut consistencies) = (Vec::new(), Vec::new());
    for size in 1..=8 {
        for at in 0..size {
            let hashes = hexes(&log.inclusion(at, size).hashes);
            inclusions.push(json!({"index": at, "size": size, "hashes_hex": hashes}));
            let old = at + 1;
            let hashes = hexes(&log.consistency(old, size).hashes);
            consistencies.push(json!({"old": old, "new": size, "hashes_hex": hashes}));
        }
    }
    json!({
        "source": SOURCE, "tree": "the leaves and roots of tree.json, `size` of them",
        "inclusion": inclusions, "consistency": consistencies,
    })
}

/// The tiles of a log whose leaves anybody can make; of long ones the digest.
fn tile_bytes() -> Value {
    const SHOWN: usize = 128;
    let size = 260;
    let log = Log::of(size);
    let tile = |path: TilePath| {
        let bytes = log.tile(path);
        let mut tile = json!({
            "path": path.to_string(), "bytes": bytes.len(), "sha256_hex": Digest::of(&bytes).hex(),
        });
        if bytes.len() <= SHOWN {
            tile["hex"] = hex(&bytes).into();
        }
        tile
    };
    json!({
        "source": SOURCE, "leaves": "`leaf 0`, `leaf 1`, and so on, in ASCII", "size": size,
        "root_hex": log.root(size).hex(), "tiles": tiles(size).map(tile).collect::<Vec<_>>(),
    })
}

#[test]
fn the_bytes_are_those_of_the_vectors() {
    for (name, vector) in current() {
        assert_eq!(vector, read(name), "{name}: the format changed, or its vector is old");
    }
    for (name, text) in files() {
        let file = fs::read_to_string(sample::vector_path(name)).expect("it is in the tree");
        assert_eq!(text, file, "{name}: the format changed, or its vector is old");
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
    for (name, text) in files() {
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
    let vector = read("waiver.json");
    let (waiver, _) =
        verify_approval::<WaiverClaims>(&keys, text(&vector, "waiver")).expect("verifies");
    assert_eq!(canonical(&waiver), text(&vector, "waiver_claims"));
    let (freeze, _) =
        verify_approval::<FreezeClaims>(&keys, text(&vector, "freeze")).expect("verifies");
    assert_eq!(canonical(&freeze), text(&vector, "freeze_claims"));
    let (thaw, _) = verify_approval::<ThawClaims>(&keys, text(&vector, "thaw")).expect("verifies");
    assert_eq!(canonical(&thaw), text(&vector, "thaw_claims"));
    let vector = read("checkpoint.json");
    let [key] = keys.keys() else { panic!("one key") };
    Checkpoint::verify(text(&vector, "note"), text(&vector, "origin"), key).expect("verifies");
}

fn log_key_of(vector: &Value) -> VerifyingKey {
    read_note_verifier_key(text(vector, "verifier_key")).expect("a verifier key").1
}

fn digests(vector: &Value) -> Vec<Digest> {
    let hashes = vector["hashes_hex"].as_array().expect("hashes");
    hashes.iter().map(|hash| digest(hash.as_str().expect("hexadecimal"))).collect()
}

fn digest(hex: &str) -> Digest {
    Digest::from_bytes(sample::bytes(hex).try_into().expect("32 bytes"))
}

#[test]
fn the_vectors_of_the_log_verify() {
    let vector = read("receipt.json");
    let receipt = Receipt::from_text(text(&vector, "receipt").as_bytes()).expect("a receipt");
    let logged = receipt.verify(text(&vector, "origin"), &log_key_of(&vector)).expect("verifies");
    assert_eq!(canonical(&logged.leaf), text(&vector, "leaf"));
    let keys = KeySet::from_json(text(&vector, "jwks").as_bytes()).expect("a JWK set");
    let decision = logged.decision(&Verifier::new(keys), text(&vector, "issuer"));
    assert_eq!(decision.expect("was issued"), sample::decision());
    let witnesses = vector["witnesses"].as_array().expect("witnesses");
    let witness = |key: &Value| key.as_str().expect("a text").parse::<Witness>().expect("a key");
    let witnesses = Witnesses::new(witnesses.iter().map(witness)).expect("two");
    assert_eq!(witnesses.quorum(receipt.note(), 2).expect("both").len(), 2);

    let vector = read("cosignature.json");
    let mut note = text(&vector, "note").to_owned();
    for witness in vector["witnesses"].as_array().expect("witnesses") {
        note = witnesses.add(&note, text(witness, "line")).expect("a good line");
    }
    assert_eq!(note, text(&vector, "cosigned"));

    let vector = read("consistency.json");
    let head = |member: &str| {
        let key = log_key_of(&vector);
        let head = Checkpoint::verify(text(&vector, member), text(&vector, "origin"), &key);
        head.map(|head| (head.size, head.root)).expect("verifies")
    };
    let proof = ConsistencyProof { hashes: digests(&vector) };
    proof.verify(head("older"), head("newer")).expect("grew");
}

#[test]
fn the_vectors_of_proofs_verify() {
    let (tree, vector) = (read("tree.json"), read("proofs.json"));
    let number = |value: &Value| value.as_u64().expect("a number");
    let hexes = |member: &str, at: u64| {
        let at = usize::try_from(at).expect("a small number");
        tree[member][at].as_str().expect("hexadecimal").to_owned()
    };
    let root = |size: u64| digest(&hexes("roots_hex", size - 1));
    for proof in vector["inclusion"].as_array().expect("proofs") {
        let (at, size) = (number(&proof["index"]), number(&proof["size"]));
        let leaf = merkle::leaf_hash(&sample::bytes(&hexes("leaves_hex", at)));
        let proof = InclusionProof { hashes: digests(proof) };
        proof.verify(at, size, root(size), leaf).expect("is there");
    }
    for proof in vector["consistency"].as_array().expect("proofs") {
        let (old, new) = (number(&proof["old"]), number(&proof["new"]));
        let proof = ConsistencyProof { hashes: digests(proof) };
        proof.verify((old, root(old)), (new, root(new))).expect("grew");
    }
}

#[test]
fn witnesses_have_the_keys_of_rfc_8032() {
    let public = [
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    ];
    let keys = sample::witnesses().map(|sampled| hex(sampled.key.verifying_key().as_bytes()));
    assert_eq!(keys, public);
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
    let log = known_answers();
    let roots = vector["roots_hex"].as_array().expect("roots");
    assert_eq!(log.leaves.len(), roots.len());
    for (size, root) in (1..).zip(roots) {
        assert_eq!(log.root(size).hex(), root.as_str().expect("hexadecimal"), "{size} leaves");
    }
}
