//! Replacing bundle and facts of a running server from the command line.

use std::path::Path;

use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::{Server, root};

/// A server on a copy of the reference bundle in its folder, as `bundle`, which it reads again only
/// when told.
fn serve(folder: &Path) -> Server {
    copy(&root().join("policies/reference"), &folder.join("bundle"));
    std::fs::copy(folder.join("bundle/facts.yaml"), folder.join("facts.yaml")).unwrap();
    let bundle = folder.join("bundle");
    Server::start_with(folder, &bundle, &["--watch", "0"])
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn ask(server: &Server, args: &[&str]) -> Ran {
    run(args.iter().chain(&["--server", &server.grpc_url()]))
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(ran.stdout.lines().next().unwrap_or_default()).unwrap()
}

#[test]
fn a_bundle_is_replaced_or_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path());
    let bundle = folder.path().join("bundle");
    let first = json(&ask(&server, &["bundle", "status", "--format", "json"]));
    assert_eq!((&first["source"], &first["revision"]), (&"SOURCE_BUNDLE".into(), &"1".into()));

    edit(&bundle.join("bundle.yaml"), "revision: \"1\"", "revision: \"2\"");
    let second = json(&ask(&server, &["bundle", "activate", "--format", "json"]));
    assert_eq!(second["revision"], "2");
    assert_ne!(second["digest"], first["digest"]);
    assert!(second["last_attempt"]["cases"].as_u64().unwrap() >= 100, "{second}");
    let inspected = run(["bundle", "inspect", bundle.to_str().unwrap(), "--format", "json"]);
    assert_eq!(json(&inspected)["digest"], second["digest"], "the digest is the bundle's own");

    edit(&bundle.join("quota/quota.rego"), "input.month", "input.monht");
    let refused = ask(&server, &["bundle", "activate"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (3, ""), "{}", refused.stderr);
    for words in ["quota/quota.rego:", "`input` has no field `monht`", "did you mean `month`?"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let status = ask(&server, &["bundle", "status"]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    for words in ["refused at", "monht", second["digest"].as_str().unwrap()] {
        assert!(status.stdout.contains(words), "{words}: {}", status.stdout);
    }
}

#[test]
fn facts_are_checked_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path());
    let facts = folder.path().join("facts.yaml");
    let checked = run(["facts", "check", facts.to_str().unwrap(), "--format", "json"]);
    let status = json(&ask(&server, &["facts", "status", "--format", "json"]));
    assert_eq!(json(&checked)["digest"], status["digest"]);

    edit(&facts, "revision: \"", "revision: \"next of ");
    let wrong = ["facts", "activate", "--expect", status["digest"].as_str().unwrap()];
    let refused = ask(&server, &wrong);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("its digest is sha256:"), "{}", refused.stderr);
    let shown = ask(&server, &["facts", "activate"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains("next of ") && shown.stdout.contains("activated at"));
    let both = ask(&server, &["facts", "activate", "--both"]);
    assert_eq!(both.stdout.matches("unchanged at").count(), 2, "{}", both.stdout);

    edit(&facts, "tenants:", "tenats:");
    let broken = run(["facts", "check", facts.to_str().unwrap()]);
    assert_eq!(broken.code, 3, "{}", broken.stderr);
    assert!(broken.stderr.contains("did you mean `tenants`?"), "{}", broken.stderr);
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let ran = run(["bundle", "activate", "--server", "http://127.0.0.1:1"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot reach the server at `http://127.0.0.1:1`"));
    let ran = run(["facts", "activate", "--both", "--expect", "sha256:0"]);
    assert_eq!(ran.code, 64, "{}", ran.stderr);
}

#[test]
fn a_bundle_whose_cases_fail_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    copy(&root().join("policies/reference"), &bundle);
    edit(&bundle.join("bundle.yaml"), "warn_days: 30", "warn_days: 3");
    let ran = run([
        "serve",
        "--bundle",
        bundle.to_str().unwrap(),
        "--facts",
        bundle.join("facts.yaml").to_str().unwrap(),
        "--store",
        folder.path().join("placet.db").to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("cases of the bundle fail: compliance/cases/"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`placet test`"), "{}", ran.stderr);
    assert!(!folder.path().join("placet.db").exists(), "the store is touched last");
}
