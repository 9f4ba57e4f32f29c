//! Keys from files, from the environment and from a token, as their operator meets them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::placet;

/// Where the system's package puts the module; `SOFTHSM2_MODULE` says it elsewhere.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "4321-geheim";
const REQUEST: &str = "policies/requests/lease-permitted.json";

fn run_in<S: AsRef<std::ffi::OsStr>>(
    environment: &[(&str, &str)],
    args: impl IntoIterator<Item = S>,
) -> Ran {
    let mut command = placet();
    command.args(args).envs(environment.iter().copied()).stdin(Stdio::null());
    Ran::of(command.output().unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Decides a request in a process of its own, which opens the keys anew.
fn admit(state: &Path, environment: &[(&str, &str)]) -> Ran {
    let (store, keys) = (state.join("placet.db"), state.join("keys"));
    let (store, keys) = (store.to_str().unwrap(), keys.to_str().unwrap());
    let (bundle, facts) = ("policies/reference", "policies/reference/facts.yaml");
    let args = ["admit", "--local", "--bundle", bundle, "--facts", facts, "--format", "json"];
    run_in(environment, args.into_iter().chain(["--store", store, "--keys", keys, REQUEST]))
}

fn verified(state: &Path, admitted: &Ran) -> Ran {
    let keys = state.join("keys");
    let jwks = run(["keys", "jwks", "--keys", keys.to_str().unwrap()]);
    assert_eq!(jwks.code, 0, "{}", jwks.stderr);
    let file = state.join("jwks.json");
    std::fs::write(&file, &jwks.stdout).unwrap();
    let decision = json(&admitted.stdout);
    let token = decision["token"].as_str().unwrap();
    let audience = ["--audience", "scheduler", "--issuer", "placet"];
    run(["verify", token, "--jwks", file.to_str().unwrap()].into_iter().chain(audience))
}

/// The DER of a fresh key.
fn fresh_key() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().to_str().unwrap();
    assert_eq!(run(["keys", "generate", "--keys", keys]).code, 0);
    std::fs::read(directory.path().join("signing-key.pkcs8")).unwrap()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

#[test]
fn a_rotation_and_a_revocation_are_told_and_listed() {
    let state = tempfile::tempdir().unwrap();
    let keys = state.path().to_str().unwrap();
    let with = |args: &[&str]| run(args.iter().copied().chain(["--keys", keys]));
    assert_eq!(with(&["keys", "generate"]).code, 0);
    let first = with(&["keys", "show", "--format", "json"]);
    let first = json(&first.stdout)["kid"].as_str().unwrap().to_owned();
    let rotated = with(&["keys", "rotate", "--overlap", "2d", "--format", "json"]);
    assert_eq!((rotated.code, rotated.stderr.as_str()), (0, ""));
    let rotated = json(&rotated.stdout);
    let next = rotated["next"]["kid"].as_str().unwrap().to_owned();
    assert_eq!(rotated["before"]["kid"], first.as_str());
    assert_eq!(rotated["before"]["signs_until"], rotated["next"]["signs_from"]);

    let again = with(&["keys", "rotate"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("the last rotation is not over\n hint: "), "{}", again.stderr);
    let shown = json(&with(&["keys", "show", "--format", "json"]).stdout);
    assert_eq!(shown["kid"], first.as_str(), "it signs still");
    let made = with(&["keys", "generate"]);
    assert!(made.code == 1 && made.stderr.contains("keys rotate"), "{}", made.stderr);

    let since = ["--since", "2026-01-01T00:00:00Z", "--reason", "compromised"];
    let revoked = with(&[&["keys", "revoke", &first], &since[..]].concat());
    assert_eq!((revoked.code, revoked.stderr.as_str()), (0, ""), "{}", revoked.stderr);
    let listed = json(&with(&["keys", "list", "--format", "json"]).stdout);
    let states: Vec<_> = listed["keys"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["revoked", "next"]);
    let table = with(&["keys", "list"]);
    assert!(table.stdout.contains("2026-01-01T00:00:00Z (compromised)"), "{}", table.stdout);
    let jwks = with(&["keys", "jwks"]).stdout;
    assert!(!jwks.contains(&first) && jwks.contains(&next), "{jwks}");
    let history = with(&["keys", "jwks", "--history"]).stdout;
    assert!(history.contains("\"revoked_at\":1767225600"), "{history}");
}

#[test]
fn a_key_comes_from_the_environment_and_is_never_shown() {
    let state = tempfile::tempdir().unwrap();
    let keys = state.path().join("keys");
    let keys = keys.to_str().unwrap();
    let (der, other) = (STANDARD.encode(fresh_key()), STANDARD.encode(fresh_key()));
    let rotate = ["keys", "rotate", "--keys", keys, "--from-env"];
    let rotate = |environment: &[(&str, &str)], variable: &'static str| {
        run_in(environment, rotate.into_iter().chain([variable]))
    };
    for (environment, variable, problem) in [
        (&[][..], "PLACET_NEXT_KEY", "`PLACET_NEXT_KEY` of the environment is not set"),
        (&[("PLACET_NEXT_KEY", "hunter2")], "PLACET_NEXT_KEY", "no unencrypted Ed25519 key"),
        (&[("HOME", &*der)], "HOME", "PLACET_"),
    ] {
        let refused = rotate(environment, variable);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains(problem), "{problem}: {}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2") && !refused.stderr.contains(&der));
    }
    let text = pem(&STANDARD.decode(&der).unwrap());
    let rotated = rotate(&[("PLACET_NEXT_KEY", &text)], "PLACET_NEXT_KEY");
    assert_eq!((rotated.code, rotated.stderr.as_str()), (0, ""), "PEM is read too");
    let admitted = admit(state.path(), &[("PLACET_NEXT_KEY", &der)]);
    assert_eq!(admitted.code, 0, "{}", admitted.stderr);
    let seen = verified(state.path(), &admitted);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    for (environment, problem) in [
        (&[][..], "is not set"),
        (&[("PLACET_NEXT_KEY", &*other)], "is not the private part of the key"),
    ] {
        let refused = admit(state.path(), environment);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains(problem), "{problem}: {}", refused.stderr);
        assert!(!refused.stderr.contains(&other), "{}", refused.stderr);
    }
}

/// A token of SoftHSM in a directory of its own.
struct Hsm {
    directory: tempfile::TempDir,
    configuration: PathBuf,
}

impl Hsm {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tokens")).unwrap();
        let tokens = directory.path().join("tokens");
        let configuration = directory.path().join("softhsm2.conf");
        let told = format!("directories.tokendir = {}\n", tokens.display());
        std::fs::write(&configuration, told).unwrap();
        let hsm = Self { directory, configuration };
        hsm.tool(&["--init-token", "--free", "--label", "placet", "--so-pin", "12345678"]);
        hsm.write_pin(PIN, 0o600);
        hsm
    }

    fn pin_file(&self) -> PathBuf {
        self.directory.path().join("pin")
    }

    fn write_pin(&self, pin: &str, mode: u32) {
        std::fs::write(self.pin_file(), format!("{pin}\n")).unwrap();
        std::fs::set_permissions(self.pin_file(), Permissions::from_mode(mode)).unwrap();
    }

    fn tool(&self, args: &[&str]) {
        let mut command = Command::new("softhsm2-util");
        command.args(args).args(["--pin", PIN]).env("SOFTHSM2_CONF", &self.configuration);
        let ran = command.output().expect("softhsm2-util is installed: run `.ci/setup test`");
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn import(&self, der: &[u8], label: &str, id: &str) {
        let file = self.directory.path().join("key.pem");
        std::fs::write(&file, pem(der)).unwrap();
        let file = file.to_str().unwrap();
        self.tool(&["--import", file, "--token", "placet", "--label", label, "--id", id]);
    }

    fn rotate(&self, keys: &Path, change: &[(&str, &str)]) -> Ran {
        let module = std::env::var_os("SOFTHSM2_MODULE").unwrap_or_else(|| MODULE.into());
        let pin_file = self.pin_file();
        let mut flags = vec![
            ("--keys", keys.to_str().unwrap()),
            ("--pkcs11", module.to_str().unwrap()),
            ("--token", "placet"),
            ("--key-label", "decisions-1"),
            ("--pin-file", pin_file.to_str().unwrap()),
        ];
        for (flag, value) in change {
            flags.retain(|(known, _)| known != flag);
            flags.push((flag, value));
        }
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag, value]);
        run_in(&self.environment(), ["keys", "rotate", "--overlap", "0s"].into_iter().chain(flags))
    }

    fn environment(&self) -> [(&'static str, &str); 1] {
        [("SOFTHSM2_CONF", self.configuration.to_str().unwrap())]
    }
}

#[test]
fn a_key_in_a_token_signs_what_others_verify() {
    let (hsm, state) = (Hsm::new(), tempfile::tempdir().unwrap());
    hsm.import(&fresh_key(), "decisions-1", "a1");
    let keys = state.path().join("keys");
    let rotated = hsm.rotate(&keys, &[]);
    assert_eq!((rotated.code, rotated.stderr.as_str()), (0, ""));
    assert!(rotated.stdout.contains("key decisions-1 of token placet"), "{}", rotated.stdout);
    let admitted = admit(state.path(), &hsm.environment());
    assert_eq!(admitted.code, 0, "{}", admitted.stderr);
    let seen = verified(state.path(), &admitted);
    assert_eq!((seen.code, seen.stderr.as_str()), (0, "verified\n"));
    let manifest = std::fs::read_to_string(keys.join("keys.json")).unwrap();
    assert!(!manifest.contains(PIN) && !keys.join("signing-key.pkcs8").exists(), "{manifest}");

    // The PIN changed, the token is gone, another key has its name: nothing starts, and why.
    hsm.write_pin("0000", 0o600);
    let refused = admit(state.path(), &hsm.environment());
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("the token `placet` refuses the PIN"), "{}", refused.stderr);
    hsm.write_pin(PIN, 0o600);
    std::fs::remove_dir_all(hsm.directory.path().join("tokens")).unwrap();
    std::fs::create_dir(hsm.directory.path().join("tokens")).unwrap();
    let refused = admit(state.path(), &hsm.environment());
    assert!(refused.stderr.contains("no token is called `placet`"), "{}", refused.stderr);
    hsm.tool(&["--init-token", "--free", "--label", "placet", "--so-pin", "12345678"]);
    let refused = admit(state.path(), &hsm.environment());
    assert!(refused.stderr.contains("has 0 private keys"), "{}", refused.stderr);
    hsm.import(&fresh_key(), "decisions-1", "a2");
    let refused = admit(state.path(), &hsm.environment());
    assert!(refused.stderr.contains("does not sign as"), "{}", refused.stderr);
}

#[test]
fn what_is_wrong_with_a_token_is_named_and_nothing_changes() {
    let (hsm, state) = (Hsm::new(), tempfile::tempdir().unwrap());
    hsm.import(&fresh_key(), "decisions-1", "a1");
    hsm.import(&fresh_key(), "twice", "b1");
    hsm.import(&fresh_key(), "twice", "b2");
    let random = SystemRandom::new();
    let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    hsm.import(p256.as_ref(), "p256", "c1");
    for (change, problem) in [
        (&[("--token", "elsewhere")][..], "no token is called `elsewhere`; there are: `placet`"),
        (&[("--key-label", "nobody")], "has 0 public keys"),
        (&[("--key-label", "twice")], "has 2 public keys"),
        (&[("--key-label", "p256")], "is not an Ed25519 key"),
        (&[("--key-id", "b1")], "has 0 public keys"),
        (&[("--key-id", "xy")], "not of hexadecimal digits"),
        (&[("--pkcs11", "/nowhere/module.so")], "the module `/nowhere/module.so` cannot be loaded"),
        (&[("--pkcs11", "module.so")], "not absolute"),
        (&[("--pin-file", "/nowhere/pin")], "`/nowhere/pin` cannot be made or read"),
    ] {
        let refused = hsm.rotate(state.path(), change);
        assert_eq!(refused.code, 1, "{change:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(problem), "{change:?}: {}", refused.stderr);
    }
    hsm.write_pin("9999", 0o600);
    let refused = hsm.rotate(state.path(), &[]);
    assert!(refused.stderr.contains("refuses the PIN"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("9999"), "{}", refused.stderr);
    hsm.write_pin(PIN, 0o644);
    let refused = hsm.rotate(state.path(), &[]);
    assert!(refused.stderr.contains("is open to others (mode 644)"), "{}", refused.stderr);
    hsm.write_pin(PIN, 0o600);
    assert!(!state.path().join("keys.json").exists());
    let rotated = hsm.rotate(state.path(), &[("--key-label", "twice"), ("--key-id", "b2")]);
    assert_eq!((rotated.code, rotated.stderr.as_str()), (0, ""), "label and id name one");
}
