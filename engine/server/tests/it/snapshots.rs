//! Starts from snapshots: they are what a start without one is, and no snapshot is ever the reason
//! that there is none.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use placet_core::{Effect, SigningKey};
use placet_server::sequencer::{SequencerHandle, SettleKind, Snapshot};
use placet_server::signer::Signer;
use placet_server::store::StoreOptions;
use placet_server::{SnapshotFound, VerifyError, backup, verify};

use crate::world::{World, activation, decide, options, proposal, run, settle, settled};

/// More leaves than any of these logs have: nothing is written, what is there is used.
const NEVER: u64 = 1_000_000;

fn beside(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".snapshot");
    path.into()
}

fn start(world: &World, snapshot_every: u64) -> SequencerHandle {
    start_as(world, snapshot_every, &world.signer)
}

fn start_as(world: &World, snapshot_every: u64, signer: &Signer) -> SequencerHandle {
    let store = StoreOptions { snapshot_every, ..StoreOptions::default() };
    let path = world.store();
    SequencerHandle::start_with(&path, options(), store, signer.clone(), activation()).unwrap()
}

/// Some decisions, some of them confirmed, released and expired.
async fn history(sequencer: &SequencerHandle, first: u64, count: u64) {
    for number in first..first + count {
        let (name, time) = (format!("r-{number}"), 1_000 + 40 * number);
        let decided = decide(sequencer, proposal(&name, 2, 600, time)).await.unwrap();
        if decided.effect == Effect::Permit && number % 3 != 0 {
            settled(sequencer, settle(SettleKind::Confirm, &name, time)).await.unwrap();
        }
        if number % 5 == 0 {
            settled(sequencer, settle(SettleKind::Release, &name, time + 20)).await.unwrap();
        }
    }
}

/// What a start comes to, told by the process that it starts.
fn told(world: &World, snapshot_every: u64) -> Snapshot {
    run(async {
        let sequencer = start(world, snapshot_every);
        let told = sequencer.inspect().await.unwrap();
        sequencer.close().await;
        told
    })
}

/// A store with a snapshot and some leaves behind it; how many leaves the snapshot holds.
fn used() -> (World, u64) {
    let world = World::new();
    run(async {
        let sequencer = start(&world, 0);
        history(&sequencer, 0, 40).await;
        sequencer.close().await;
    });
    let size = told(&world, 1).head.size;
    run(async {
        let sequencer = start(&world, NEVER);
        history(&sequencer, 40, 10).await;
        sequencer.close().await;
    });
    (world, size)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[test]
fn a_start_from_a_snapshot_is_the_fold_of_the_log() {
    let (world, size) = used();
    let file = beside(&world.store());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let verified = verify(&world.store()).unwrap();
    assert_eq!(verified.snapshot, SnapshotFound::Equal { size });
    assert!(verified.head.size > size && verified.live > 0, "there is something behind it");

    let (with, without) = (told(&world, NEVER), told(&world, 0));
    assert_eq!(with, without);
    fs::remove_file(&file).unwrap();
    assert_eq!(told(&world, NEVER), without, "deleting it is safe");
    assert!(!file.exists(), "so short a log needs none");
    assert_eq!(verify(&world.store()).unwrap().snapshot, SnapshotFound::Absent);
    assert_eq!(told(&world, 1), without);
    let size = without.head.size;
    assert_eq!(verify(&world.store()).unwrap().snapshot, SnapshotFound::Equal { size });
}

#[test]
fn snapshots_are_made_beside_the_writer() {
    let world = World::new();
    for round in 0..4 {
        run(async {
            // Again and again, and given up whenever the process stops.
            let sequencer = start(&world, 1);
            history(&sequencer, 10 * round, 10).await;
            sequencer.close().await;
        });
        let found = verify(&world.store()).unwrap().snapshot;
        assert!(round == 0 || matches!(found, SnapshotFound::Equal { size } if size > 10));
    }
    assert_eq!(told(&world, NEVER), told(&world, 0));
}

#[test]
fn a_damaged_snapshot_is_not_used() {
    let (world, _) = used();
    let file = beside(&world.store());
    let (bytes, expected) = (fs::read(&file).unwrap(), told(&world, 0));
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let mut dots = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'.');
    let [claims, signature] = [(); 2].map(|()| dots.next().unwrap().0);
    let mut wrong = Vec::new();
    let places = (0..bytes.len()).step_by(37).chain([claims, signature, end, end + 1]);
    for at in places {
        fs::write(&file, &bytes).unwrap();
        let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
        open.write_all_at(&[bytes[at] ^ 0x04], at as u64).unwrap();
        if told(&world, NEVER) != expected {
            wrong.push(format!("a start at {at}"));
        }
        // Who verifies has no key: which one signed, and whether it did, is not looked at.
        let is_claims = (claims..signature).contains(&at) || at > end;
        match verify(&world.store()) {
            Err(error) if chain(&error).contains("hint: delete it") => {}
            Ok(_) if !is_claims => {}
            other => wrong.push(format!("at {at}: {other:?}")),
        }
    }
    for length in [0, 1, signature, end, end + 1, 4_095, 4_096, 4_097, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        if told(&world, NEVER) != expected || verify(&world.store()).is_ok() {
            wrong.push(format!("cut to {length}"));
        }
    }
    fs::write(&file, [&*bytes, b"\0"].concat()).unwrap();
    assert_eq!(told(&world, NEVER), expected);
    assert!(wrong.is_empty(), "{wrong:#?}");
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(verify(&world.store()).unwrap().snapshot, SnapshotFound::Equal { .. }));
}

#[test]
fn a_snapshot_of_something_else_is_not_used() {
    let (world, size) = used();
    let file = beside(&world.store());
    let (bytes, expected) = (fs::read(&file).unwrap(), told(&world, 0));

    // Of another log that the same key signs, with as many leaves.
    let mut other = World::new();
    other.signer = world.signer.clone();
    run(async {
        let sequencer = start(&other, 0);
        for number in 0..size - 3 {
            decide(&sequencer, proposal(&format!("r-{number}"), 1, 600, 1_000)).await.unwrap();
        }
        sequencer.close().await;
    });
    assert_eq!(told(&other, 1).head.size, size);
    fs::copy(beside(&other.store()), &file).unwrap();
    assert_eq!(told(&world, NEVER), expected);
    let error = verify(&world.store()).unwrap_err();
    assert!(matches!(error, VerifyError::Snapshot { .. }), "{}", chain(&error));
    assert!(chain(&error).contains("of another log"), "{}", chain(&error));

    // Of this log, and signed by nobody whom this server knows.
    fs::write(&file, &bytes).unwrap();
    let key = Signer::new(SigningKey::generate().unwrap());
    run(async {
        let sequencer = start_as(&world, NEVER, &key);
        assert_eq!(sequencer.inspect().await.unwrap(), expected);
        sequencer.close().await;
    });
    assert_eq!(fs::read(&file).unwrap(), bytes, "the other key's server leaves it alone");

    // Of what is to come: the store was replaced by an older copy.
    let copy = world.store().with_extension("copy");
    let verified = backup(&world.store(), &copy).unwrap();
    assert_eq!(verified.snapshot, SnapshotFound::Absent);
    assert!(!beside(&copy).exists(), "a copy has no snapshot");
    run(async {
        let sequencer = start(&world, 0);
        history(&sequencer, 50, 10).await;
        sequencer.close().await;
    });
    told(&world, 1);
    for ending in ["db-wal", "db-shm"] {
        drop(fs::remove_file(world.store().with_extension(ending)));
    }
    fs::rename(&copy, world.store()).unwrap();
    assert_eq!(told(&world, NEVER), expected);
    let error = chain(&verify(&world.store()).unwrap_err());
    assert!(error.contains("ahead of the log") && error.contains("hint: delete it"), "{error}");
}

#[test]
fn no_room_for_a_snapshot_is_no_reason_to_stop() {
    let world = World::new();
    // A directory that is not empty can be neither deleted nor replaced.
    let file = beside(&world.store());
    fs::create_dir_all(file.with_extension("snapshot.partial").join("in-the-way")).unwrap();
    fs::create_dir_all(file.join("in-the-way")).unwrap();
    run(async {
        let sequencer = start(&world, 1);
        history(&sequencer, 0, 10).await;
        sequencer.close().await;
    });
    assert_eq!(told(&world, 1), told(&world, 0));
}
