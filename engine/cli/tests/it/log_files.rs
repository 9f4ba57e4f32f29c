//! The log in a store and in a directory, checked on the command line with public keys alone.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::Server;

fn log(args: &[&str]) -> Ran {
    run(["log"].iter().chain(args))
}

/// A store on which a server ran, with what an auditor was given beside it.
struct Audited {
    folder: tempfile::TempDir,
}

impl Audited {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), &["--clock", "events"]);
        let day = ["admit", "policies/requests/day.jsonl", "--server", &server.grpc_url()];
        assert_eq!(run(day).code, 0);
        assert_eq!(server.stop().0, 0);
        let audited = Self { folder };
        let keys = audited.path("keys");
        let jwks = run(["keys", "jwks", "--keys", &keys]);
        fs::write(audited.path("jwks.json"), jwks.stdout).unwrap();
        let key = run(["keys", "log", "--keys", &keys]);
        fs::write(audited.path("log.key"), key.stdout).unwrap();
        audited
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// With what the auditor was given, where nothing else is said.
    fn verify(&self, more: &[&str]) -> Ran {
        let (store, jwks, key) =
            (self.path("placet.db"), self.path("jwks.json"), self.path("log.key"));
        let mut args = vec!["verify", "--store", &store, "--jwks", &jwks];
        if !more.contains(&"--log-key") {
            args.extend(["--log-key", &key]);
        }
        args.extend(more);
        log(&args)
    }

    fn export(&self, to: &str) -> Ran {
        log(&["export", "--store", &self.path("placet.db"), "--to", &self.path(to)])
    }
}

fn only_file(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_log_is_exported_and_verified() {
    let audited = Audited::new();
    let exported = audited.export("mirror");
    assert_eq!((exported.code, exported.stderr.lines().count()), (0, 1), "{}", exported.stderr);
    assert!(
        exported.stdout.contains(" leaves  70, of which 0 were there before\n"),
        "{exported:?}"
    );
    let verified = audited.verify(&[]);
    assert_eq!((verified.code, verified.stderr.as_str()), (0, "verified\n"));
    let lines: Vec<_> = verified.stdout.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            " leaves       70, 70 of them published",
            " signed       34 decisions, 0 orders of eviction",
            " time         1970-01-01T00:00:00Z to 2026-11-21T19:00:00Z",
            " checkpoints  1, all of them continued",
        ]
    );
    let root = |ran: &Ran| ran.stdout.lines().next().unwrap().to_owned();
    assert_eq!(root(&exported), root(&verified));
    let mirror = audited.path("mirror");
    let seen = audited.path("mirror/checkpoint");
    let verified = audited.verify(&["--directory", &mirror, "--seen", &seen, "--format", "json"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let line: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(line["checkpoint"], fs::read_to_string(&seen).unwrap());
    assert_eq!(line["checkpoints"], 2);
    assert_eq!(audited.export("mirror").code, 0, "again");
}

#[test]
fn what_is_wrong_is_named() {
    let audited = Audited::new();
    assert_eq!(audited.export("mirror").code, 0);
    let mirror = audited.path("mirror");
    let bundle = only_file(&Path::new(&mirror).join("tile/entries/000.p"));
    let mut bytes = fs::read(&bundle).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&bundle, &bytes).unwrap();
    let ran = audited.verify(&["--directory", &mirror]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let told = &ran.stderr;
    assert!(told.starts_with("error: the log in `") && told.contains("leaf "), "{told}");
    bytes.truncate(at);
    fs::write(&bundle, &bytes).unwrap();
    let ran = audited.verify(&["--directory", &mirror]);
    assert!(ran.stderr.contains("tile/entries/000.p/"), "{}", ran.stderr);

    let other = Audited::new();
    fs::write(audited.path("empty"), "\n").unwrap();
    let (empty, foreign) = (audited.path("empty"), other.path("log.key"));
    for (more, expected) in [
        (["--log-key", "a+b+c"], "the key of the log is not the verifier key of a log"),
        (["--log-key", "nowhere"], "cannot read `nowhere`"),
        (["--log-key", &empty], "there is no key of the log in the file"),
        (["--log-key", &foreign], "its newest checkpoint cannot be trusted"),
        (["--directory", "policies"], "it has no checkpoint"),
        (["--seen", "README.md"], "`README.md` is not a signed checkpoint"),
        (["--issuer", "another"], "leaf 3 is none of this log"),
    ] {
        let ran = audited.verify(&more);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{more:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{more:?}: {}", ran.stderr);
    }
    let export = log(&["export", "--store", &other.path("placet.db"), "--to", &mirror]);
    assert_eq!(export.code, 1);
    assert!(export.stderr.contains("that this log does not continue"), "{}", export.stderr);
}
