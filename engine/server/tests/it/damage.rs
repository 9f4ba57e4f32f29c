//! A store with a damaged byte: whatever was read from it before is read again, or it is refused,
//! and what to do is said.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use placet_server::sequencer::SettleKind;
use placet_server::store::{Store, StoreOptions};
use placet_server::{BackupError, Verified, VerifyError, backup, verify};
use rusqlite::Connection;

use crate::world::{World, decide, proposal, run, settle, settled};

const PAGE: u64 = 4_096;

/// A store of some pages for each table, with nothing in its write-ahead log.
fn used() -> (World, Verified) {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        for number in 0..60 {
            let name = format!("r-{number}");
            let mut asked = proposal(&name, 1, 600, 1_000 + number);
            asked.evaluation = vec![b'e'; 300];
            decide(&sequencer, asked).await.unwrap();
            if number % 2 == 0 {
                settled(&sequencer, settle(SettleKind::Confirm, &name, 1_000 + number))
                    .await
                    .unwrap();
            }
        }
        sequencer.close().await;
    });
    let whole = verify(&world.store()).unwrap();
    (world, whole)
}

fn flip(store: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(store).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
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

/// Everything that a store holds of the log and of decisions.
fn contents(store: &Path) -> Vec<String> {
    let connection = Connection::open(store).unwrap();
    let mut rows = Vec::new();
    for query in [
        "SELECT quote(leaf) FROM leaves ORDER BY position",
        "SELECT quote(hash) FROM tree ORDER BY number",
        "SELECT quote(name) || quote(caller) || quote(request_id) || quote(request_digest) \
         || position FROM decisions ORDER BY caller, request_id",
        "SELECT quote(input) || quote(evaluation) FROM evidence ORDER BY position",
    ] {
        let mut select = connection.prepare(query).unwrap();
        let found = select.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.extend(found.map(Result::unwrap));
    }
    rows
}

#[test]
fn a_flipped_bit_anywhere_is_found_or_changes_nothing() {
    let (world, whole) = used();
    let (store, bytes) = (world.store(), fs::read(world.store()).unwrap());
    let before = contents(&store);
    let pages = bytes.len() as u64 / PAGE;
    assert!(pages > 30, "leaves, inner pages and indices: {pages}");
    let (mut found, mut harmless, mut wrong) = (0, 0, Vec::new());
    for page in 0..pages {
        // The header of the page, its cells' places, the middle, and the end, where cells begin.
        for offset in [0, 3, 5, 9, 13, 18, 60, 100, 108, 1_500, 2_900, 4_000, 4_090] {
            let at = page * PAGE + offset;
            flip(&store, at);
            match verify(&store) {
                Err(error) => {
                    let error = chain(&error);
                    if !error.contains("hint: ") {
                        wrong.push(format!("at {at}: {error}"));
                    }
                    found += 1;
                }
                Ok(verified) => {
                    let same = (verified.head, verified.live) == (whole.head, whole.live);
                    if !same || contents(&store) != before {
                        wrong.push(format!("at {at}: not found"));
                    }
                    harmless += 1;
                }
            }
            fs::write(&store, &bytes).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(found > pages * 3, "{found} of {} found, {harmless} harmless", found + harmless);
    assert_eq!(verify(&store).unwrap(), whole, "restored, it is whole again");
}

/// Page on which a table begins.
fn root_of(store: &Path, table: &str) -> u64 {
    let connection = Connection::open(store).unwrap();
    let root: i64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
        .unwrap();
    u64::try_from(root).unwrap() - 1
}

#[test]
fn damage_is_told_with_its_place_and_the_remedy() {
    let (world, _) = used();
    let (store, bytes) = (world.store(), fs::read(world.store()).unwrap());
    let (leaves, decisions) = (root_of(&store, "leaves"), root_of(&store, "decisions"));
    for (at, refused_at_start, says) in [
        (1, true, "it is no SQLite database"),
        (69, true, "is a database of another program"),
        (leaves * PAGE, true, "the log cannot be read at position 0"),
        (decisions * PAGE, false, "the database file is damaged"),
    ] {
        flip(&store, at);
        let error = chain(&verify(&store).unwrap_err());
        for words in [says, "restore"] {
            assert!(error.contains(words), "at {at}: {words}: {error}");
        }
        let copy = store.with_extension("copy");
        match backup(&store, &copy).unwrap_err() {
            BackupError::Copy(error) => assert!(chain(&error).contains("hint: "), "{error}"),
            BackupError::Verify(VerifyError::Log(_) | VerifyError::Check(_)) => {}
            other => panic!("at {at}: {}", chain(&other)),
        }
        assert!(!copy.exists(), "at {at}: no copy of a damaged store");
        let started = world.start_with(crate::world::options(), None);
        assert_eq!(started.is_err(), refused_at_start, "at {at}");
        if let Err(error) = started {
            assert!(chain(&error).contains("hint: "), "at {at}: {error}");
        }
        for beside in ["db-wal", "db-shm"] {
            drop(fs::remove_file(store.with_extension(beside)));
        }
        fs::write(&store, &bytes).unwrap();
    }
}

#[test]
fn rows_that_do_not_belong_together_are_found() {
    let delete = "DELETE FROM decisions WHERE request_id = 'r-7'";
    for (sql, says) in [
        (delete, "its request is missing"),
        ("UPDATE decisions SET position = 3 WHERE request_id = 'r-7'", "leads to another decision"),
        ("UPDATE decisions SET request_digest = zeroblob(32)", "its request is another one"),
        ("DELETE FROM evidence WHERE position = 9", "its evidence is missing"),
        ("UPDATE evidence SET evaluation = x'00' WHERE position = 3", "evaluation is another one"),
        ("UPDATE evidence SET input = NULL WHERE position = 3", "input is another one"),
        ("INSERT INTO evidence VALUES (5000, NULL, x'00')", "`evidence` has 61 rows"),
        ("UPDATE meta SET high_water = 1", "is before the last leaf"),
    ] {
        let (world, _) = used();
        Connection::open(world.store()).unwrap().execute_batch(sql).unwrap();
        let error = chain(&verify(&world.store()).unwrap_err());
        assert!(error.contains(says) && error.contains("hint: restore"), "{sql}: {error}");
    }
}

#[test]
fn a_copy_is_verified_and_takes_no_one_elses_name() {
    let (world, whole) = used();
    let copy = world.store().with_extension("copy");
    // A server, or whoever else has the store open, is not in the way.
    let open = Store::open(&world.store(), StoreOptions::default()).unwrap();
    let told = backup(&world.store(), &copy).unwrap();
    drop(open);
    assert_eq!((told.head, &told.name), (whole.head, &whole.name), "the same store");
    assert_eq!(told.accounts, whole.accounts);
    assert_eq!(contents(&copy), contents(&world.store()));
    let before = fs::read(&copy).unwrap();
    assert!(matches!(backup(&world.store(), &copy), Err(BackupError::Copy(_))));
    std::os::unix::fs::symlink("nowhere", copy.with_extension("link")).unwrap();
    let link = copy.with_extension("link");
    assert!(matches!(backup(&world.store(), &link), Err(BackupError::Copy(_))), "not through it");
    assert_eq!(fs::read(&copy).unwrap(), before);
}
