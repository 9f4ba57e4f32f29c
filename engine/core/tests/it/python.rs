//! PyJWT and `cryptography`, which know nothing of Placet, read our tokens with the JWK set alone,
//! and our receipts with the log's key. `hashlib` and the definitions of RFC 6962 give the vectors.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use placet_core::{Checkpoint, KeySet, Receipt, SigningKey, Witnesses, cosign, note_verifier_key};
use serde_json::Value;

use crate::sample::{self, Log, ORIGIN, Sampled};

fn interpreter() -> PathBuf {
    let path = sample::workspace().join("target/venv/bin/python");
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

fn verify(jwks: &Path, token: &str, audience: &str, now: u64) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verify_token.py");
    let mut child = Command::new(interpreter())
        .arg(script)
        .arg(jwks)
        .args([sample::ISSUER, audience, &now.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(token.as_bytes()).expect("the script reads the token");
    drop(stdin);
    child.wait_with_output().expect("the script ends")
}

#[test]
fn pyjwt_verifies_our_token() {
    let vector = fs::read_to_string(sample::vector_path("token.json")).expect("the vector");
    let vector: Value = serde_json::from_str(&vector).expect("JSON");
    let text = |member: &str| vector[member].as_str().expect("a text");
    let jwks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pyjwt-jwks.json");
    fs::write(&jwks, text("jwks")).expect("the target folder is writable");
    let token = text("token");

    let good = verify(&jwks, token, "provisioner", sample::NOW);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let claims: Value = serde_json::from_slice(&good.stdout).expect("claims as JSON");
    assert_eq!(claims, serde_json::from_str::<Value>(text("claims")).expect("JSON"));

    for (token, audience, now) in [
        (token.replacen(".eyJ", ".eyK", 1), "provisioner", sample::NOW),
        (token.to_owned(), "billing", sample::NOW),
        (token.to_owned(), "provisioner", sample::NOW + 300),
    ] {
        let refused = verify(&jwks, &token, audience, now);
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{audience} at {now}: {message}");
        assert!(message.starts_with("refused: "), "{message}");
    }
}

/// What `verify_receipt.py` is given.
#[derive(Clone)]
struct Receipted {
    text: String,
    log_key: String,
    jwks: PathBuf,
    issuer: &'static str,
    quorum: u8,
    witnesses: Vec<String>,
}

impl Receipted {
    fn verify(&self, name: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verify_receipt.py");
        let name = format!("{}.tlog-proof", name.replace(' ', "-"));
        let receipt = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&receipt, &self.text).expect("the target folder is writable");
        Command::new(interpreter())
            .arg(script)
            .arg(receipt)
            .arg(&self.log_key)
            .arg(&self.jwks)
            .args([self.issuer, &self.quorum.to_string()])
            .args(&self.witnesses)
            .output()
            .expect("the interpreter starts")
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// With the receipt of another log of ours, or of other leaves.
    fn of(&self, log: &Log, at: u64, note: String) -> Self {
        let size = u64::try_from(log.leaves.len()).expect("a small number");
        let receipt = Receipt::new(log.leaf(at).to_vec(), at, log.inclusion(at, size), note);
        self.with(|it| it.text = receipt.expect("a receipt").to_text())
    }
}

/// The sample's decision as leaf 4 of 7, cosigned by both witnesses.
fn receipted() -> (Receipted, Log) {
    let mut leaves = Log::of(7).leaves;
    leaves[4] = sample::decided();
    let log = Log::new(leaves);
    let witnesses = sample::witnesses();
    let known = Witnesses::new(witnesses.iter().map(Sampled::witness)).expect("two witnesses");
    let mut note = log.note(7);
    for sampled in &witnesses {
        let line = cosign(&note, sampled.name, &sampled.key, sample::NOW).expect("cosigns");
        note = known.add(&note, &line).expect("a good line");
    }
    let good = Receipted {
        text: String::new(),
        log_key: note_verifier_key(ORIGIN, sample::key().verifying_key()).expect("an origin"),
        jwks: sample::vector_path("jwks.json"),
        issuer: sample::ISSUER,
        quorum: 2,
        witnesses: witnesses.iter().map(|sampled| sampled.witness().to_string()).collect(),
    };
    (good.of(&log, 4, note), log)
}

fn line(text: &str, number: usize) -> &str {
    text.lines().nth(number - 1).expect("so many lines")
}

#[test]
fn other_libraries_verify_our_receipt_offline() {
    let (good, _) = receipted();
    let committed = fs::read_to_string(sample::vector_path("receipt.tlog-proof"));
    let committed = good.with(|it| it.text = committed.expect("it is in the tree"));
    for (receipt, place) in [(good, (4, 7)), (committed, (1, 2))] {
        let output = receipt.verify("good receipt");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let proved: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let decision = serde_json::to_value(sample::decision()).expect("JSON");
        assert_eq!(proved["claims"], decision);
        assert_eq!((&proved["index"], &proved["size"]), (&place.0.into(), &place.1.into()));
        assert_eq!(proved["witnesses"].as_object().expect("by name").len(), 2);
    }
}

/// A log that holds a token that nobody signed, and that is honest about all else.
fn log_of_changed_token() -> Log {
    let leaf = String::from_utf8(sample::decided()).expect("JSON");
    let changed = leaf.replacen(".eyJ", ".eyK", 1);
    assert_ne!(changed, leaf);
    Log::new([sample::genesis(), changed.into_bytes()])
}

#[test]
fn other_libraries_refuse_what_was_tampered_with() {
    let (good, log) = receipted();
    let stranger = SigningKey::generate().expect("randomness");
    let strange_key = note_verifier_key(ORIGIN, stranger.verifying_key()).expect("an origin");
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), root: log.root(7), size: 7 };
    let other = Checkpoint { origin: "other.example".to_owned(), ..checkpoint };
    let other = other.sign(&sample::key()).expect("signs");
    let forged = log_of_changed_token();
    let forged_note = forged.note(2);
    let swap = |number: usize, to: String| {
        let mut lines: Vec<_> = good.text.split_inclusive('\n').map(str::to_owned).collect();
        lines[number - 1] = to;
        good.with(|it| it.text = lines.concat())
    };
    let strange_jwks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strange-jwks.json");
    let strange = KeySet::new([stranger.verifying_key().clone()]).expect("one key").to_json();
    fs::write(&strange_jwks, strange).expect("the target folder is writable");

    let changed_leaf = line(&good.text, 2).replacen("eyJ", "eyK", 1) + "\n";
    for (kind, tampered, told) in [
        ("a changed leaf", swap(2, changed_leaf), "does not lead"),
        ("a changed position", swap(3, "index 5\n".to_owned()), "does not lead"),
        ("a changed proof", swap(4, format!("{}\n", line(&good.text, 5))), "does not lead"),
        ("a cut proof", swap(4, String::new()), "too short"),
        ("a changed root", swap(10, format!("{}\n", line(&good.text, 4))), "a signature"),
        ("a changed size", swap(9, "8\n".to_owned()), "a signature"),
        (
            "the proof of another leaf",
            good.of(&log, 3, log.note(7)).with(|it| {
                it.text = it.text.replacen(line(&it.text, 2), line(&good.text, 2), 1);
                it.quorum = 0;
            }),
            "does not lead",
        ),
        ("another event", good.of(&log, 3, log.note(7)).with(|it| it.quorum = 0), "refused"),
        ("a checkpoint of another log", good.of(&log, 4, other), "not signed by"),
        ("another key of the log", good.with(|it| it.log_key = strange_key), "not signed by"),
        ("a changed token", good.of(&forged, 1, forged_note).with(|it| it.quorum = 0), "verif"),
        ("another key of decisions", good.with(|it| it.jwks = strange_jwks), "refused"),
        ("another issuer", good.with(|it| it.issuer = "https://other.example"), "issuer"),
        ("no cosignatures", good.of(&log, 4, log.note(7)), "0 of these witnesses"),
        ("one voice twice", good.with(|it| it.witnesses[1] = it.witnesses[0].clone()), "one key"),
    ] {
        let output = tampered.verify(kind);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{kind}: {message}");
        assert!(message.starts_with("refused: "), "{kind}: {message}");
        assert!(message.contains(told), "{kind}: {message}");
    }
}

fn verify_vectors(folder: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verify_vectors.py");
    // Without `-B` it would leave what it compiled in the tree.
    let mut command = Command::new(interpreter());
    command.arg("-B").arg(script).arg(folder).output().expect("the interpreter starts")
}

#[test]
fn the_vectors_of_the_log_follow_from_the_definitions() {
    let vectors = sample::vector_path("");
    let output = verify_vectors(&vectors);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count = String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().expect("a number");
    assert!(count > 90, "only {count} values");

    let changed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("changed-vectors");
    fs::create_dir_all(&changed).expect("the target folder is writable");
    for (name, pointer) in [
        ("tree.json", "/roots_hex/3"),
        ("proofs.json", "/inclusion/1/hashes_hex/0"),
        ("tiles.json", "/tiles/0/sha256_hex"),
        ("consistency.json", "/hashes_hex/0"),
    ] {
        for entry in fs::read_dir(&vectors).expect("it is in the tree") {
            let path = entry.expect("an entry").path();
            let copy = changed.join(path.file_name().expect("a name"));
            fs::copy(&path, copy).expect("the target folder is writable");
        }
        let text = fs::read_to_string(vectors.join(name)).expect("it is in the tree");
        let vector: Value = serde_json::from_str(&text).expect("JSON");
        let hash = vector.pointer(pointer).and_then(Value::as_str).expect("a hash");
        let other: String = hash.chars().rev().collect();
        fs::write(changed.join(name), text.replace(hash, &other)).expect("it is writable");
        let output = verify_vectors(&changed);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {message}");
        assert!(message.contains(": found "), "{name}: {message}");
    }
}
