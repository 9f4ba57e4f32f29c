//! Whose file a store is, who holds it, and what it keeps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use placet_core::{Digest, Event, Leaf};
use placet_server::sequencer::{self, SequencerError};
use placet_server::store::{OpenError, Store, StoreOptions};

use crate::world::{World, decide, options, proposal, run};

fn open(path: &std::path::Path) -> Result<Store, OpenError> {
    Store::open(path, StoreOptions::default())
}

#[test]
fn a_second_holder_is_refused_and_told_who_holds_it() {
    let world = World::new();
    let sequencer = world.start();
    let error = world.start_with(options(), None).unwrap_err().to_string();
    let pid = format!("process {}", std::process::id());
    assert!(error.contains(&pid) && error.contains("hint:"), "{error}");
    run(sequencer.close());
    assert!(world.start_with(options(), None).is_ok(), "closing gives the lock back");
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);

    assert!(matches!(open(directory.path()), Err(OpenError::Directory)));
    assert!(matches!(open(&path("missing/store")), Err(OpenError::Access(_))));

    fs::write(path("text"), "not a database\n".repeat(100)).unwrap();
    let before = fs::read(path("text")).unwrap();
    let error = open(&path("text")).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(fs::read(path("text")).unwrap(), before);

    let database = |name: &str, sql: &str| {
        rusqlite::Connection::open(path(name)).unwrap().execute_batch(sql).unwrap();
        fs::read(path(name)).unwrap()
    };
    for (name, sql) in [
        ("no-id", "CREATE TABLE t (a)"),
        ("other-id", "PRAGMA application_id = 77; CREATE TABLE t (a)"),
        ("no-version", "PRAGMA application_id = 0x504c4354; CREATE TABLE t (a)"),
    ] {
        let before = database(name, sql);
        let error = open(&path(name)).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{name}: {error}");
        assert!(error.to_string().contains("hint:"), "{error}");
        assert_eq!(fs::read(path(name)).unwrap(), before, "{name} is left as it was");
    }

    let before = database("newer", "PRAGMA application_id = 0x504c4354; PRAGMA user_version = 4");
    let error = open(&path("newer")).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 4, known: 3 }), "{error}");
    assert_eq!(fs::read(path("newer")).unwrap(), before);
}

#[test]
fn a_store_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    drop(store);
    assert!(open(&path).is_ok(), "an empty store opens again");
}

#[test]
fn what_is_decided_can_be_read_from_other_threads() {
    let world = World::new();
    let sequencer = world.start();
    let reader = sequencer.reader();
    let proposed = proposal("r-1", 8, 3_600, 1_000);
    let decided = run(decide(&sequencer, proposed.clone())).unwrap();
    let leaves = std::thread::scope(|scope| {
        let read = || {
            let caller = &proposed.caller;
            let stored = reader.decision_on(caller, &proposed.request.request_id).unwrap().unwrap();
            assert_eq!((&stored.token, stored.position), (&decided.token, decided.position));
            assert_eq!(stored.personal, proposed.personal);
            assert_eq!(stored.request_digest, proposed.request_digest);
            let evidence = reader.evidence(decided.position).unwrap().unwrap();
            assert_eq!(evidence, (proposed.input.clone(), proposed.evaluation.clone()));
            reader.leaves(0, u64::MAX).unwrap()
        };
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(read)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).next().unwrap()
    });
    assert_eq!(reader.size().unwrap(), 4);
    let events: Vec<Leaf> =
        leaves.iter().map(|leaf| serde_json::from_slice(leaf).unwrap()).collect();
    assert!(matches!(events[0].event, Event::Genesis { .. }));
    assert!(matches!(events[1].event, Event::BundleActivation { .. }));
    assert!(matches!(events[2].event, Event::FactsActivation { .. }));
    assert!(matches!(events[3].event, Event::Decision { .. }));
    assert_eq!(reader.decision_on(&proposed.caller, &proposed.caller).unwrap(), None);
    run(sequencer.close());
}

#[test]
fn a_full_disk_stops_admission_and_harms_nothing() {
    let world = World::new();
    let sequencer = world.start_with(options(), Some(60)).unwrap();
    let mut answered = Vec::new();
    let error = run(async {
        for number in 0.. {
            let mut proposed = proposal(&format!("r-{number}"), 1, 10, 1_000);
            proposed.evaluation = vec![b'x'; 8_000];
            match decide(&sequencer, proposed).await {
                Ok(decided) => answered.push((number, decided)),
                Err(error) => return error,
            }
        }
        unreachable!("the disk is never full")
    });
    assert!(matches!(error, SequencerError::Unavailable { .. }), "{error}");
    let before = run(sequencer.inspect()).unwrap();
    let repeat = run(decide(&sequencer, {
        let mut proposed = proposal("r-0", 1, 10, 1_000);
        proposed.evaluation = vec![b'x'; 8_000];
        proposed
    }));
    assert_eq!(repeat.as_ref(), Ok(&answered[0].1), "what is stored is still answered");
    run(sequencer.close());

    let sequencer = world.start();
    let after = run(sequencer.inspect()).unwrap();
    assert_eq!((after.ledger, after.head), (before.ledger, before.head));
    assert_eq!(after.live, answered.len());
    let next = run(decide(&sequencer, proposal("r-next", 1, 10, 1_000)));
    assert!(next.is_ok(), "with room again it goes on");
    run(sequencer.close());
}

#[test]
fn damage_is_found_when_the_store_is_opened() {
    for (sql, says) in [
        ("DELETE FROM leaves WHERE position = 1", "a leaf is missing"),
        ("DELETE FROM leaves WHERE position = 0", "a leaf is missing"),
        ("UPDATE leaves SET leaf = x'7b7d' WHERE position = 3", "position 3"),
        ("UPDATE tree SET hash = zeroblob(32)", "hashes do not match"),
        ("DELETE FROM tree", "hashes do not match"),
        ("DELETE FROM leaves WHERE position = 3", "hash"),
    ] {
        let world = World::new();
        let sequencer = world.start();
        run(decide(&sequencer, proposal("r-1", 8, 3_600, 1_000))).unwrap();
        run(sequencer.close());
        rusqlite::Connection::open(world.store()).unwrap().execute_batch(sql).unwrap();
        let error = world.start_with(options(), None).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        assert!(matches!(error, sequencer::OpenError::Log(_)), "{sql}: {text}");
        assert!(text.contains(says), "{sql}: {text}");
    }
}

#[test]
fn another_bundle_is_logged_once() {
    let world = World::new();
    let sequencer = world.start();
    let mut other = crate::world::activation();
    other.bundle = (Digest::of(b"another"), "2".to_owned());
    run(async {
        sequencer.activate(other.clone(), 1_000).await.unwrap();
        sequencer.activate(other, 1_001).await.unwrap();
        let late = decide(&sequencer, proposal("r-1", 8, 3_600, 1_002)).await;
        assert_eq!(late, Err(SequencerError::Superseded), "evaluated by the bundle before");
        assert_eq!(sequencer.reader().size().unwrap(), 4);
        sequencer.close().await;
        let sequencer = world.start();
        assert_eq!(sequencer.reader().size().unwrap(), 5, "started with the first one again");
        sequencer.close().await;
    });
}
