//! Stores that earlier versions wrote: this version opens them, reads the same out of them, and
//! goes on.
//!
//! `PLACET_UPDATE=1 cargo test -p placet-server` writes the fixture of this version's schema where
//! there is none: what a version wrote is never written again by a later one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use placet_core::{Digest, Effect};
use placet_server::quota::{Accounts, Filter};
use placet_server::sequencer::{SequencerHandle, SettleKind};
use placet_server::store::{Store, StoreOptions};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use crate::world::{World, activation, decide, proposal, run, settle, settled};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One of each thing that can stand in a log, so that live, ended and refused ones are all there.
async fn history(sequencer: &SequencerHandle) {
    for (name, gpus, time) in
        [("r-1", 8, 1_000), ("r-2", 4, 1_010), ("r-3", 2, 1_020), ("r-4", 6, 1_030)]
    {
        let decided = decide(sequencer, proposal(name, gpus, 3_600, time)).await.unwrap();
        assert_eq!(decided.effect, Effect::Permit);
    }
    let refused = decide(sequencer, proposal("r-5", 30, 3_600, 1_040)).await.unwrap();
    assert_eq!(refused.effect, Effect::Deny);
    for name in ["r-1", "r-2"] {
        settled(sequencer, settle(SettleKind::Confirm, name, 1_100)).await.unwrap();
    }
    settled(sequencer, settle(SettleKind::Release, "r-2", 1_900)).await.unwrap();
    let mut other = activation();
    other.bundle = (Digest::of(b"another"), "2".to_owned());
    other.facts = (Digest::of(b"other facts"), "2".to_owned());
    sequencer.activate(other, 1_950).await.unwrap();
    sequencer.activate(activation(), 1_960).await.unwrap();
    // By now the third and the fourth have expired; the next one is held, and another active.
    decide(sequencer, proposal("r-6", 3, 600, 2_000)).await.unwrap();
    decide(sequencer, proposal("r-7", 5, 900, 2_010)).await.unwrap();
    settled(sequencer, settle(SettleKind::Confirm, "r-7", 2_020)).await.unwrap();
}

/// What a store holds, in terms that outlive the code's own types.
async fn described(sequencer: &SequencerHandle) -> Value {
    let snapshot = sequencer.inspect().await.unwrap();
    let all = Accounts::Under { prefix: None, after: None, most: usize::MAX };
    let accounts = sequencer.usage(all, None).await.unwrap().accounts;
    let accounts: Vec<Value> =
        accounts.iter().map(|it| json!([it.account, it.kind, it.unit, it.used])).collect();
    let held = sequencer.reservations(Filter::default(), None, usize::MAX, None).await.unwrap();
    let held: Vec<Value> = held
        .reservations
        .iter()
        .map(|it| {
            let booking = &it.booking;
            json!({
                "caller": booking.caller, "charges": booking.charges, "epoch": it.epoch,
                "confirm_by": booking.confirm_by, "end": booking.end, "id": booking.id,
                "since": it.since, "start": booking.start, "state": it.state,
                "tenant": booking.tenant,
            })
        })
        .collect();
    json!({
        "accounts": accounts, "high_water": snapshot.high_water, "reservations": held,
        "root": snapshot.head.root, "size": snapshot.head.size,
    })
}

/// A database as SQL text, which a person can read and compare.
fn dump(store: &Path) -> String {
    let connection = Connection::open(store).unwrap();
    let number = |pragma: &str| -> i64 {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
    };
    let mut text = String::new();
    for pragma in ["application_id", "user_version"] {
        writeln!(text, "PRAGMA {pragma} = {};", number(pragma)).unwrap();
    }
    let tables: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .and_then(|mut all| all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .unwrap();
    for (name, sql) in tables {
        writeln!(text, "{sql};").unwrap();
        let mut select =
            connection.prepare(&format!("SELECT * FROM {name} ORDER BY 1, 2")).unwrap();
        let columns = select.column_count();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|at| literal(row.get_ref(at).unwrap()));
            let values = values.collect::<Vec<_>>().join(", ");
            writeln!(text, "INSERT INTO {name} VALUES ({values});").unwrap();
        }
    }
    text
}

fn literal(value: ValueRef<'_>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(_) => unreachable!("no table holds fractions"),
        ValueRef::Text(text) => quoted(std::str::from_utf8(text).unwrap()),
        ValueRef::Blob(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => {
                format!("CAST({} AS BLOB)", quoted(text))
            }
            Ok(_) | Err(_) => {
                let hex = |byte: &u8| format!("{byte:02x}");
                format!("x'{}'", bytes.iter().map(hex).collect::<String>())
            }
        },
    }
}

fn schema(store: &Path) -> Vec<(String, String, Option<String>)> {
    let connection = Connection::open(store).unwrap();
    connection
        .prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")
        .and_then(|mut all| {
            all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .unwrap()
}

fn version(store: &Path) -> i64 {
    let connection = Connection::open(store).unwrap();
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

/// Path of an empty store of this version.
fn fresh(folder: &Path) -> PathBuf {
    let path = folder.join("fresh.db");
    drop(Store::open(&path, StoreOptions::default()).unwrap());
    path
}

#[test]
fn stores_of_every_version_are_read_the_same_and_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = fresh(folder.path());
    let own = fixtures().join(format!("store-v{}.sql", version(&fresh)));
    if std::env::var_os("PLACET_UPDATE").is_some() && !own.exists() {
        let world = World::new();
        let recorded = run(async {
            let sequencer = world.start();
            history(&sequencer).await;
            let recorded = described(&sequencer).await;
            sequencer.close().await;
            recorded
        });
        fs::write(&own, dump(&world.store())).unwrap();
        let recorded = serde_json::to_string_pretty(&recorded).unwrap();
        fs::write(own.with_extension("json"), format!("{recorded}\n")).unwrap();
    }
    assert!(own.exists(), "no fixture: run PLACET_UPDATE=1 cargo test -p placet-server");

    for entry in fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        if fixture.extension().is_none_or(|it| it != "sql") {
            continue;
        }
        let recorded = fs::read_to_string(fixture.with_extension("json")).unwrap();
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        let world = World::new();
        let sql = fs::read_to_string(&fixture).unwrap();
        Connection::open(world.store()).unwrap().execute_batch(&sql).unwrap();
        let found = version(&world.store());
        let name = format!("store-v{found}.sql");
        assert!(fixture.ends_with(&name), "{fixture:?} holds version {found}");

        // To look at an old store does not change it.
        let verified = placet_server::verify(&world.store()).unwrap();
        assert_eq!(recorded["size"], verified.head.size, "{name}");
        assert_eq!(version(&world.store()), found, "{name}");
        run(async {
            let sequencer = world.start();
            assert_eq!(described(&sequencer).await, recorded, "{name}: it folds to what it was");
            let first = decide(&sequencer, proposal("r-1", 8, 3_600, 1_000)).await.unwrap();
            assert_eq!(first.position, 3, "{name}: what was decided is answered again");
            let next = decide(&sequencer, proposal("r-8", 1, 60, 2_030)).await.unwrap();
            assert_eq!(next.effect, Effect::Permit, "{name}: and it goes on");
            assert_eq!(next.position, verified.head.size);
            sequencer.close().await;
        });
        assert_eq!(version(&world.store()), version(&fresh), "{name} is migrated");
        assert_eq!(schema(&world.store()), schema(&fresh), "{name}: as a fresh one");
        placet_server::verify(&world.store()).unwrap();
    }
}
