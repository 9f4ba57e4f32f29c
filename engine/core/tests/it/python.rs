//! PyJWT, which knows nothing of Placet, reads our tokens with the JWK set alone.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::sample;

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
