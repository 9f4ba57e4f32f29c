//! Tokens as others meet them: by `placet verify`, and by another language's JWT library.

use std::io::Write;
use std::process::{Command, Stdio};

use placet_proto::admission::v1 as pb;

use crate::server::{Server, placet, root};

async fn token(server: &Server) -> String {
    let text = std::fs::read_to_string(root().join("policies/requests/lease-permitted.json"))
        .expect("shipped");
    let request: pb::AdmitRequest = placet_proto::json::from_json(&text).expect("a request");
    let answer = server.client().await.admit(request).await.expect("decided").into_inner();
    answer.token
}

fn verify(server: &Server, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let jwks = format!("http://127.0.0.1:{}/.well-known/jwks.json", server.http);
    let output = placet()
        .args(["verify", token, "--jwks", &jwks])
        .args(arguments)
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

fn started(folder: &std::path::Path) -> Server {
    std::fs::copy(root().join("policies/reference/facts.yaml"), folder.join("facts.yaml"))
        .expect("copied");
    Server::start(folder, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_and_every_forgery_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    let token = token(&server).await;
    let (code, said) = verify(&server, &token, &[]);
    assert_eq!(code, Some(0), "{said}");
    // One bit of the payload, and one of the signature.
    for at in [token.find('.').expect("dots") + 10, token.len() - 10] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] ^= 1;
        let flipped = String::from_utf8(bytes).expect("still ASCII");
        let (code, said) = verify(&server, &flipped, &[]);
        assert_eq!(code, Some(1), "{said}");
    }
    let (code, said) = verify(&server, &token, &["--audience", "somebody-else"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not `somebody-else`"), "{said}");
    let (code, said) = verify(&server, &token, &["--at", "4000000000"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expired"), "{said}");
    let (_, payload) = token.split_once('.').expect("dots");
    let (payload, _) = payload.split_once('.').expect("dots");
    // {"alg":"none","typ":"placet-decision+jwt"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoicGxhY2V0LWRlY2lzaW9uK2p3dCJ9";
    let (code, said) = verify(&server, &format!("{none}.{payload}."), &[]);
    assert_eq!(code, Some(1), "{said}");
    // A server with another key.
    let other = tempfile::tempdir().expect("a folder");
    let (code, said) = verify(&started(other.path()), &token, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("key"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_languages_library_verifies_with_the_key_set_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = started(folder.path());
    let token = token(&server).await;
    let python = root().join("target/venv/bin/python");
    assert!(python.exists(), "no Python with PyJWT: run `make setup`");
    let script = root().join("engine/core/tests/python/verify_token.py");
    let keys = folder.path().join("keys");
    let set = placet().args(["keys", "jwks", "--keys"]).arg(keys).output().expect("the keys");
    let jwks = folder.path().join("jwks.json");
    std::fs::write(&jwks, set.stdout).expect("written");
    let run = |token: &str| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(&jwks).args(["placet", "provisioner"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python runs");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(token.as_bytes()).expect("it reads");
        drop(input);
        child.wait_with_output().expect("it ends")
    };
    let output = run(&token);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("PERMIT"));
    let mut forged = token.into_bytes();
    let last = forged.len() - 20;
    forged[last] ^= 1;
    let output = run(&String::from_utf8(forged).expect("ASCII"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("refused: "));
}
