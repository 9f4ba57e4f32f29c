//! Keys that are rotated, revoked, damaged and lost, under a sequencer and under a whole server.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use placet_core::{
    Checkpoint, Effect, Expect, KeySet, Revocation, SigningKey, Verifier, VerifyError,
};
use placet_proto::admission::v1 as proto;
use placet_proto::json::from_json;
use placet_server::Clock;
use placet_server::sequencer::{SequencerHandle, Step, Stepper};
use placet_server::signer::{
    CheckpointSigner, KEY_FILE, KeyUse, ListedKey, MANIFEST_FILE, NextKey, PICKUP_SECONDS, Place,
    RotateError, Signer, SignerError, left_over_files, listed_jwks, listed_keys, revoke, rotate,
};
use placet_server::store::{CheckpointOptions, StoreOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::running::Running;
use crate::world::{ISSUER, World, activation, decide, options, proposal, run};

/// A day, in seconds.
const DAY: u64 = 86_400;

fn turn(directory: &Path, overlap: u64) -> (ListedKey, u64) {
    let now = Clock::now();
    let rotated = rotate(directory, KeyUse::Decision, &NextKey::Made, overlap, now).unwrap();
    let from = rotated.next.validity.from.unwrap_or_default();
    (rotated.next, from)
}

fn verifier(jwks: &str) -> Verifier {
    Verifier::new(KeySet::from_json(jwks.as_bytes()).unwrap())
}

fn compromised(since: u64) -> Revocation {
    Revocation { since, reason: "compromised".to_owned() }
}

fn first_key(directory: &Path) -> ListedKey {
    listed_keys(directory).unwrap().remove(0)
}

fn start(world: &World, signer: &Signer) -> SequencerHandle {
    let store = StoreOptions::default();
    SequencerHandle::start_with(&world.store(), options(), store, signer.clone(), activation())
        .unwrap()
}

/// Tokens of decisions that are asked for all at once, issued at these times.
async fn tokens(sequencer: &SequencerHandle, name: &str, times: &[u64]) -> Vec<(u64, String)> {
    let asked = times.iter().enumerate().map(|(number, time)| async move {
        let asked = proposal(&format!("{name}-{number}"), 1, 60, *time);
        (*time, decide(sequencer, asked).await.unwrap().token)
    });
    join_all(asked).await
}

fn kid_of(jwks: &str, token: &str) -> Option<usize> {
    let keys = KeySet::from_json(jwks.as_bytes()).unwrap();
    let single = |key: &placet_core::VerifyingKey| {
        Verifier::new(KeySet::new([key.clone()]).unwrap()).verify_issued(token, ISSUER).is_ok()
    };
    keys.keys().iter().position(single)
}

#[test]
fn what_was_issued_before_a_rotation_and_behind_it_verifies_with_the_new_set() {
    let (world, keys) = (World::new(), tempfile::tempdir().unwrap());
    let signer = Signer::open(keys.path()).unwrap();
    let before = signer.jwks();
    let (next, turn) = turn(keys.path(), DAY);
    signer.look();
    let after = signer.jwks();
    assert!(after.contains(next.public.id().as_str()), "it is published before it signs: {after}");
    assert!(after.contains(&format!("\"exp\":{turn}")), "{after}");

    let sequencer = start(&world, &signer);
    let times: Vec<u64> = (turn - 40..turn + 40).collect();
    let signed = run(tokens(&sequencer, "r", &times));
    let (old, new) = (verifier(&before), verifier(&after));
    for (time, token) in &signed {
        // The ledger's time never goes back: what was asked for in another order is issued later.
        let decision = new.verify_issued(token, ISSUER).unwrap();
        assert!(decision.iat >= *time);
        let is_new = decision.iat >= turn;
        assert_eq!(kid_of(&after, token), Some(usize::from(is_new)), "at {}", decision.iat);
        match old.verify_issued(token, ISSUER) {
            Err(VerifyError::UnknownKey { .. }) => assert!(is_new),
            result => assert!(result.is_ok() && !is_new),
        }
    }
    assert!(signed.iter().any(|(_, token)| kid_of(&after, token) == Some(0)), "both signed");
    run(sequencer.close());

    // The next start takes up what the old key signed.
    let again = start(&world, &Signer::open(keys.path()).unwrap());
    let retried = run(decide(&again, proposal("r-0", 1, 60, times[0]))).unwrap();
    assert_eq!(retried.token, signed[0].1);
    run(again.close());
}

async fn page(server: &Running, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: placet\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn lease(request_id: &str) -> proto::AdmitRequest {
    let lease = r#"{"tenant_id": "platform-tools", "priority_class": "INTERNAL_RESEARCH",
        "lease": {"cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["A100"]}}"#;
    proto::AdmitRequest { request_id: request_id.to_owned(), ..from_json(lease).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_under_load_takes_up_a_rotation_and_a_revocation() {
    let server = Running::start().await;
    let keys = server.directory.path().join("keys");
    let old_set = page(&server, "/.well-known/jwks.json").await;
    let old = first_key(&keys);
    let (next, turn) = turn(&keys, 0);
    let (mut client, mut tokens) = (server.client(), Vec::new());
    // Under load until the next key has signed: that it does, nobody has to tell the server.
    for number in 0.. {
        let answer = client.admit(lease(&format!("r-{number}"))).await.unwrap().into_inner();
        let is_new = verifier(&old_set).verify_issued(&answer.token, ISSUER).is_err();
        tokens.push(answer.token);
        if is_new {
            break;
        }
        assert!(Clock::now() <= turn + 60, "the next key never signed");
    }
    let set = page(&server, "/.well-known/jwks.json").await;
    for token in &tokens {
        let decision = verifier(&set).verify_issued(token, ISSUER).unwrap();
        let is_known = verifier(&old_set).verify_issued(token, ISSUER).is_ok();
        assert_eq!(is_known, decision.iat < turn, "each key signed in its time alone");
    }
    // The key that was replaced turns out to be stolen.
    let first = verifier(&set).verify_issued(&tokens[0], ISSUER).unwrap();
    let kid = old.public.id().as_str();
    revoke(&keys, kid, &compromised(first.iat + 1), Clock::now()).unwrap();
    let mut set = page(&server, "/.well-known/jwks.json").await;
    while set.contains(kid) {
        assert!(Clock::now() <= turn + 120, "the revoked key is never left out");
        set = page(&server, "/.well-known/jwks.json").await;
    }
    let expect = Expect { issuer: ISSUER, audience: "scheduler", now: first.iat };
    let error = verifier(&set).verify(&tokens[0], &expect).unwrap_err();
    assert!(matches!(error, VerifyError::UnknownKey { .. }), "{error}");
    assert!(set.contains(next.public.id().as_str()));
    // Auditors read the other set: what was issued before is still good.
    let history = verifier(&listed_jwks(&keys, true).unwrap());
    assert!(history.verify_issued(&tokens[0], ISSUER).is_ok());
    let error = history.verify(&tokens[0], &expect).unwrap_err();
    assert!(matches!(error, VerifyError::KeyRevoked { .. }), "{error}");
    let answer = client.admit(lease("behind")).await.unwrap().into_inner();
    assert!(verifier(&set).verify_issued(&answer.token, ISSUER).is_ok());
    server.stop().await;
}

#[test]
fn without_a_key_in_use_nothing_is_decided() {
    let (world, keys) = (World::new(), tempfile::tempdir().unwrap());
    let signer = Signer::open(keys.path()).unwrap();
    let sequencer = start(&world, &signer);
    let now = Clock::now();
    run(decide(&sequencer, proposal("r-1", 1, 60, now))).unwrap();
    let old = first_key(keys.path());
    let (_, turn) = turn(keys.path(), 0);
    revoke(keys.path(), old.public.id().as_str(), &compromised(now), now).unwrap();
    signer.look();
    let error = run(decide(&sequencer, proposal("r-2", 1, 60, turn - 1))).unwrap_err();
    assert!(error.to_string().contains("no signature"), "{error}");
    run(decide(&sequencer, proposal("r-2", 1, 60, turn))).unwrap();
    let retried = run(decide(&sequencer, proposal("r-1", 1, 60, now))).unwrap();
    assert_eq!(retried.effect, Effect::Permit, "the first answer stands, whoever signed it");
    run(sequencer.close());
}

#[test]
fn a_snapshot_of_a_revoked_key_is_not_taken_up() {
    let (world, keys) = (World::new(), tempfile::tempdir().unwrap());
    let open = |signer: &Signer| {
        let store = StoreOptions { snapshot_every: 2, ..StoreOptions::default() };
        let told = ("0123456789abcdef0123456789abcdef", 1);
        Stepper::open(&world.store(), options(), store, signer.clone(), activation(), told)
    };
    let now = Clock::now();
    let mut stepper = open(&Signer::open(keys.path()).unwrap()).unwrap();
    for number in 0..6 {
        let asked = proposal(&format!("r-{number}"), 1, 60, now);
        assert!(stepper.serve(vec![Step::Propose(asked)], now).pop().unwrap().is_ok());
    }
    assert!(stepper.check_snapshot().unwrap().is_some());
    drop(stepper);
    let (old, (_, turn)) = (first_key(keys.path()), turn(keys.path(), 0));
    let stepper = open(&Signer::open(keys.path()).unwrap()).unwrap();
    assert!(stepper.check_snapshot().unwrap().is_some(), "an old key is still one of ours");
    drop(stepper);
    let signed_by_old = || {
        let path = format!("{}.snapshot", world.store().display());
        let text = std::fs::read(path).unwrap();
        let header = text.split(|byte| *byte == b'.').next().unwrap();
        let header = URL_SAFE_NO_PAD.decode(header).unwrap();
        String::from_utf8(header).unwrap().contains(old.public.id().as_str())
    };
    assert!(signed_by_old());
    revoke(keys.path(), old.public.id().as_str(), &compromised(1), turn).unwrap();
    let stepper = open(&Signer::open(keys.path()).unwrap()).unwrap();
    assert!(!signed_by_old(), "the whole log was folded, and the next key signed what came of it");
    assert!(stepper.check_snapshot().unwrap().is_some());
}

#[test]
fn both_keys_of_an_overlap_sign_checkpoints() {
    let (world, keys) = (World::new(), tempfile::tempdir().unwrap());
    let decisions = Signer::open(keys.path()).unwrap();
    let signer = CheckpointSigner::open(keys.path(), &decisions).unwrap();
    let now = Clock::now();
    let rotated = rotate(keys.path(), KeyUse::Checkpoint, &NextKey::Made, DAY, now).unwrap();
    let (old, new) = (rotated.before.unwrap(), rotated.next);
    let (from, until) = (new.validity.from.unwrap(), old.validity.until.unwrap());
    assert!(from <= now + PICKUP_SECONDS && until == now + DAY);
    signer.look();
    let note = |time: u64, number: u64| {
        let checkpoints = CheckpointOptions {
            signer: signer.clone(),
            every_seconds: 1,
            witnesses: placet_core::Witnesses::default(),
        };
        let store = StoreOptions { checkpoints: Some(checkpoints), ..StoreOptions::default() };
        let told = ("0123456789abcdef0123456789abcdef", time);
        let signer = world.signer.clone();
        let mut stepper =
            Stepper::open(&world.store(), options(), store, signer, activation(), told).unwrap();
        let asked = proposal(&format!("r-{number}"), 1, 60, time);
        stepper.serve(vec![Step::Propose(asked)], time + 1);
        stepper.published().unwrap().note.clone()
    };
    for (number, time, expected) in [
        (1, now - 10, (true, false)),
        (2, from, (true, true)),
        (3, until - 2, (true, true)),
        (4, until, (false, true)),
    ] {
        let note = note(time, number);
        let by = |key: &ListedKey| Checkpoint::verify(&note, ISSUER, &key.public).is_ok();
        assert_eq!((by(&old), by(&new)), expected, "at {time}: {note}");
    }
}

#[test]
fn of_two_rotations_at_once_one_happens() {
    let keys = tempfile::tempdir().unwrap();
    Signer::open(keys.path()).unwrap();
    let now = Clock::now();
    let results: Vec<_> = std::thread::scope(|scope| {
        let one = || rotate(keys.path(), KeyUse::Decision, &NextKey::Made, DAY, now);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, RotateError::UnderWay { .. }), "{error}");
    }
    let listed = listed_keys(keys.path()).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].validity.until, listed[1].validity.from);
    assert_eq!(left_over_files(keys.path()).unwrap(), Vec::<String>::new());
    Signer::open(keys.path()).unwrap();
}

#[test]
fn what_a_killed_rotation_left_is_in_nobodys_way() {
    let keys = tempfile::tempdir().unwrap();
    Signer::open(keys.path()).unwrap();
    turn(keys.path(), 0);
    let made = SigningKey::generate().unwrap();
    let orphan = format!("decision-{}.pkcs8", made.id());
    let put = |name: &str, bytes: &[u8]| std::fs::write(keys.path().join(name), bytes).unwrap();
    put(".keys.json.draft", b"{\"version\":1,\"ke");
    put(&format!(".{orphan}.{}", made.id()), b"half a key");
    put(&orphan, made.to_pkcs8().unwrap().as_ref());
    assert_eq!(left_over_files(keys.path()).unwrap(), [orphan]);
    let later = Clock::now() + 60;
    rotate(keys.path(), KeyUse::Decision, &NextKey::Made, DAY, later).unwrap();
    assert_eq!(listed_keys(keys.path()).unwrap().len(), 3, "none of it counts");
    Signer::open(keys.path()).unwrap();
}

#[test]
fn the_first_rotation_that_is_cut_short_is_in_nobodys_way() {
    let keys = tempfile::tempdir().unwrap();
    let signer = Signer::open(keys.path()).unwrap();
    let first = first_key(keys.path());
    // Its key is made, and the manifest that came before it does not name it yet.
    let manifest = keys.path().join(MANIFEST_FILE);
    turn(keys.path(), DAY);
    let mut written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    written["keys"].as_array_mut().unwrap().truncate(1);
    written["keys"][0].as_object_mut().unwrap().remove("signs_until").unwrap();
    std::fs::write(&manifest, written.to_string()).unwrap();
    assert_eq!(Signer::open(keys.path()).unwrap().jwks(), signer.jwks());
    assert_eq!(listed_keys(keys.path()).unwrap(), [first]);
    turn(keys.path(), DAY);
}

#[test]
fn a_waiting_key_is_replaced_in_the_second_in_which_it_is_called() {
    let keys = tempfile::tempdir().unwrap();
    Signer::open(keys.path()).unwrap();
    let now = Clock::now();
    let stolen = first_key(keys.path());
    rotate(keys.path(), KeyUse::Decision, &NextKey::Made, DAY, now).unwrap();
    revoke(keys.path(), stolen.public.id().as_str(), &compromised(now), now).unwrap();
    let rotated = rotate(keys.path(), KeyUse::Decision, &NextKey::Made, 0, now).unwrap();
    let before = rotated.before.unwrap().validity;
    assert!(before.from.unwrap() < before.until.unwrap(), "{before:?}");
    assert_eq!(listed_keys(keys.path()).unwrap().len(), 3, "it is read again");
    Signer::open(keys.path()).unwrap();
}

#[test]
fn a_rotation_is_refused_where_it_would_harm() {
    let keys = tempfile::tempdir().unwrap();
    Signer::open(keys.path()).unwrap();
    let (at, now) = (keys.path(), Clock::now());
    let again = |now| rotate(at, KeyUse::Decision, &NextKey::Made, DAY, now).unwrap_err();
    let too_long = rotate(at, KeyUse::Decision, &NextKey::Made, u64::MAX, now).unwrap_err();
    assert!(matches!(too_long, RotateError::Overlap), "{too_long}");
    let first = first_key(at);
    let kid = |key: &ListedKey| key.public.id().to_string();
    let only = revoke(at, &kid(&first), &compromised(now), now).unwrap_err();
    assert!(only.to_string().contains("keys rotate --overlap 0s"), "{only}");
    let unknown = revoke(at, "nobody", &compromised(now), now).unwrap_err();
    assert!(matches!(unknown, RotateError::Unknown { .. }), "{unknown}");
    let later = revoke(at, &kid(&first), &compromised(now + 1), now).unwrap_err();
    assert!(matches!(later, RotateError::Revocation { .. }), "{later}");

    let (next, _) = turn(at, DAY);
    assert!(matches!(again(now + 1), RotateError::UnderWay { .. }));
    // The next one is stolen before it signs: the first goes on.
    revoke(at, &kid(&next), &compromised(now), now).unwrap();
    assert_eq!(first_key(at).validity.until, None);
    let earlier = revoke(at, &kid(&next), &compromised(now - 5), now).unwrap();
    assert_eq!(earlier.validity.revoked, Some(compromised(now - 5)));
    let after = revoke(at, &kid(&next), &compromised(now), now).unwrap_err();
    assert!(matches!(after, RotateError::RevokedBefore { .. }), "{after}");
    // The first one is stolen while another waits: that one's turn comes at once.
    let (third, _) = turn(at, DAY);
    revoke(at, &kid(&first), &compromised(now), now).unwrap();
    let listed = listed_keys(at).unwrap();
    let third = listed.iter().find(|key| key.public == third.public).unwrap();
    assert_eq!(third.validity.from, Some(now + PICKUP_SECONDS));
}

#[test]
fn a_manifest_that_is_not_as_it_was_written_is_refused_by_name() {
    let keys = tempfile::tempdir().unwrap();
    Signer::open(keys.path()).unwrap();
    turn(keys.path(), DAY);
    let path = keys.path().join(MANIFEST_FILE);
    let good = std::fs::read_to_string(&path).unwrap();
    let (kid, file) = {
        let first = first_key(keys.path());
        (first.public.id().to_string(), format!("\"file\": \"{KEY_FILE}\""))
    };
    let stranger = SigningKey::generate().unwrap();
    let long = format!("\"reason\": \"{}\"", "x".repeat(65));
    let damages = [
        (good.get(..good.len() / 2).unwrap().to_owned(), "EOF while parsing"),
        (good.replace("\"version\": 1", "\"version\": 2"), "version 2"),
        (good.replace("\"version\": 1", "\"version\": 1, \"more\": 1"), "unknown field `more`"),
        (good.replace("\"use\": \"decision\"", "\"use\": \"both\""), "unknown variant `both`"),
        (good.replacen(&kid, stranger.id().as_str(), 1), "not the thumbprint"),
        (good.replacen(&file, "\"file\": \"../up\"", 1), "not in this directory"),
        (good.replacen(&file, "\"file\": \"\"", 1), "not in this directory"),
        (good.replacen(&file, "\"env\": \"HOME\"", 1), "PLACET_"),
        (good.replacen("\"signs_until\": ", "\"signs_until\": -", 1), "invalid value"),
        (
            good.replacen("\"signs_until\"", "\"signs_from\": 99999999999, \"signs_until\"", 1),
            "ends to sign before it begins",
        ),
        (
            good.replacen(
                "\"signs_until\"",
                &format!("\"revoked\": {{\"since\": 1, {long}}}, \"signs_until\""),
                1,
            ),
            "more than 64 printable characters",
        ),
        (" ".repeat(262_145), "more than 262144 bytes"),
    ];
    for (damaged, problem) in damages {
        assert_ne!(damaged, good, "{problem}");
        std::fs::write(&path, damaged).unwrap();
        let error = Signer::open(keys.path()).unwrap_err();
        assert!(matches!(error, SignerError::Manifest { .. }), "{problem}: {error}");
        assert!(error.to_string().contains(problem), "{problem}: {error}");
        let error = rotate(keys.path(), KeyUse::Decision, &NextKey::Made, 0, 1).unwrap_err();
        assert!(error.to_string().contains(problem), "nothing is written over it: {error}");
    }
    std::fs::write(&path, &good).unwrap();
    Signer::open(keys.path()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
    let error = Signer::open(keys.path()).unwrap_err();
    assert!(matches!(error, SignerError::Exposed { mode: 0o660, .. }), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = Signer::open(keys.path()).unwrap_err();
    assert!(
        matches!(error, SignerError::Lost { .. }),
        "the first key does not sign again: {error}"
    );
}

#[test]
fn a_server_that_runs_keeps_its_keys_while_the_manifest_is_damaged() {
    let keys = tempfile::tempdir().unwrap();
    let signer = Signer::open(keys.path()).unwrap();
    turn(keys.path(), DAY);
    signer.look();
    let (jwks, path) = (signer.jwks(), keys.path().join(MANIFEST_FILE));
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"{}").unwrap();
    signer.look();
    assert_eq!(signer.jwks(), jwks);
    std::fs::remove_file(&path).unwrap();
    signer.look();
    assert_eq!(signer.jwks(), jwks);
    std::fs::write(&path, good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    signer.look();
    assert_eq!(signer.jwks(), jwks);
}

#[test]
fn a_private_part_that_is_missing_or_anothers_is_named() {
    let keys = tempfile::tempdir().unwrap();
    Signer::open(keys.path()).unwrap();
    let (next, turn) = turn(keys.path(), 0);
    let Place::File(file) = &next.place else { panic!("it was made") };
    let (file, old) = (keys.path().join(file), keys.path().join(KEY_FILE));
    // Retired keys need no private part any more.
    let manifest = std::fs::read_to_string(keys.path().join(MANIFEST_FILE)).unwrap();
    let past = manifest.replace(&turn.to_string(), "1000");
    std::fs::write(keys.path().join(MANIFEST_FILE), past).unwrap();
    let kept = std::fs::read(&old).unwrap();
    std::fs::remove_file(&old).unwrap();
    Signer::open(keys.path()).unwrap();
    std::fs::write(&file, kept).unwrap();
    let error = Signer::open(keys.path()).unwrap_err();
    assert!(matches!(error, SignerError::OtherKey { .. }), "{error}");
    assert!(error.to_string().contains(next.public.id().as_str()), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = Signer::open(keys.path()).unwrap_err();
    assert!(matches!(error, SignerError::Access { .. }), "{error}");
}
