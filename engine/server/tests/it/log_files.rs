//! The log in a store and as static files, checked with public keys alone: what is whole is said to
//! be, and whatever was done to either is named with its place.

use std::fs;
use std::path::{Path, PathBuf};

use placet_core::tile::{TilePath, tiles};
use placet_core::{Checkpoint, KeySet, SigningKey, Verifier, Walked};
use placet_server::sequencer::Step;
use placet_server::{
    Exported, LogExpect, LogSource, LogVerifyError, SourceError, export_log, verify_log,
};
use proptest::prelude::*;

use crate::checkpoints::{EVERY, Notary, told};
use crate::world::{ISSUER, proposal};

/// Leaves of the first checkpoint: two full tiles, and some more.
const FIRST: u64 = 600;
/// Leaves of the second: so many that the partial tiles of the first are full.
const SECOND: u64 = 800;

/// A log that was exported when it had [`FIRST`] leaves, and has [`SECOND`] now.
struct Archive {
    notary: Notary,
    folder: tempfile::TempDir,
    first: Exported,
    first_note: String,
}

impl Archive {
    fn new() -> Self {
        let (notary, folder) = (Notary::new(), tempfile::tempdir().unwrap());
        grow(&notary, 3, FIRST, 100);
        let to = folder.path().join("mirror/of/placet");
        let first = export_log(&notary.world.store(), &to, |_, _| {}).unwrap();
        let first_note = fs::read_to_string(to.join("checkpoint")).unwrap();
        grow(&notary, FIRST, SECOND, 500);
        Self { notary, folder, first, first_note }
    }

    fn mirror(&self) -> PathBuf {
        self.folder.path().join("mirror/of/placet")
    }

    fn export(&self) -> Exported {
        export_log(&self.notary.world.store(), &self.mirror(), |_, _| {}).unwrap()
    }

    fn expect(&self, seen: Vec<Checkpoint>) -> LogExpect {
        let decisions = KeySet::from_json(self.notary.world.signer.jwks().as_bytes());
        LogExpect {
            origin: ISSUER.to_owned(),
            keys: vec![self.notary.key.verifying_key().clone()],
            decisions: Verifier::new(decisions.unwrap()),
            issuer: ISSUER.to_owned(),
            approvers: None,
            seen,
        }
    }

    fn read(&self, note: &str) -> Checkpoint {
        Checkpoint::verify(note, ISSUER, self.notary.key.verifying_key()).unwrap()
    }

    fn of_store(&self) -> Result<Walked, LogVerifyError> {
        let source = LogSource::store(&self.notary.world.store())?;
        verify_log(&source, self.expect(vec![self.read(&self.first_note)]), 2, |_| {})
    }

    fn of_mirror(&self) -> Result<Walked, LogVerifyError> {
        let source = LogSource::directory(&self.mirror())?;
        verify_log(&source, self.expect(vec![self.read(&self.first_note)]), 2, |_| {})
    }
}

/// Decides until the log has so many leaves, and one checkpoint of them.
fn grow(notary: &Notary, from: u64, to: u64, now: u64) {
    let mut stepper = notary.open(now).unwrap();
    // All at one time, at which nothing expires: most of them are denied.
    let ask = |number| Step::Propose(proposal(&format!("r-{number}"), 1, 60, 1_000));
    let asked = (from..to).map(ask).collect();
    assert!(stepper.serve(asked, now).iter().all(Result::is_ok));
    stepper.serve(Vec::new(), now + EVERY);
    assert_eq!(stepper.published().unwrap().head.size, to);
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => found.extend(files(&path).into_iter().map(|file| format!("{name}/{file}"))),
            false if name == ".lock" => {}
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[test]
fn store_and_export_are_the_same_log() {
    let archive = Archive::new();
    assert_eq!((archive.first.before, archive.first.checkpoint.size), (0, FIRST));
    let old = LogSource::directory(&archive.mirror()).unwrap();
    let old = verify_log(&old, archive.expect(Vec::new()), 3, |_| {}).unwrap();
    assert_eq!((old.head.size, old.checkpoints), (FIRST, 1));

    let second = archive.export();
    assert_eq!((second.before, second.checkpoint.size), (FIRST, SECOND));
    assert!(second.files < archive.first.files + 4, "{second:?}: only what is new");
    // Who reads by the old checkpoint goes on to do so: by what was cut off, or is full by now.
    let kept = tiles(FIRST).filter(|tile| !tile.full().is_within(SECOND));
    let mut expected: Vec<_> = tiles(SECOND).chain(kept).map(|tile| tile.to_string()).collect();
    expected.push("checkpoint".to_owned());
    expected.sort();
    expected.dedup();
    assert_eq!(files(&archive.mirror()), expected);
    assert_eq!(archive.export(), Exported { before: SECOND, files: 0, ..second.clone() });

    let of_store = archive.of_store().unwrap();
    assert_eq!(archive.of_mirror().unwrap(), of_store);
    assert_eq!((of_store.head.size, of_store.head.root), (SECOND, second.checkpoint.root));
    assert_eq!((of_store.decisions, of_store.checkpoints), (SECOND - 3, 2));
    assert_eq!(of_store.published, SECOND);
    let mut told = Vec::new();
    let source = LogSource::directory(&archive.mirror()).unwrap();
    let one = verify_log(&source, archive.expect(Vec::new()), 1, |done| told.push(done)).unwrap();
    assert_eq!((one.head, told), (of_store.head, vec![SECOND]));
}

/// Bytes of a file of the mirror are changed, and a check is made.
fn doctored(archive: &Archive, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let place = archive.mirror().join(path);
    let whole = fs::read(&place).unwrap();
    let mut bytes = whole.clone();
    change(&mut bytes);
    fs::write(&place, bytes).unwrap();
    let error = told(&archive.of_mirror().unwrap_err());
    fs::write(&place, whole).unwrap();
    error
}

#[test]
fn what_was_done_to_files_is_named() {
    let archive = Archive::new();
    archive.export();
    let entries = |index: u32| format!("tile/entries/{index:03}");
    let error = doctored(&archive, &entries(1), |bytes| bytes.truncate(bytes.len() - 1));
    assert!(
        error.contains("`tile/entries/001` is not what its name says: ends within its entry 255"),
        "{error}"
    );
    let error = doctored(&archive, &entries(1), |bytes| bytes.extend([0, 1, 7]));
    assert!(error.contains("`tile/entries/001`") && error.contains("3 bytes"), "{error}");
    let error = doctored(&archive, &entries(2), |bytes| {
        // The first two leaves change places.
        let length =
            |at: usize, bytes: &[u8]| 2 + usize::from(bytes[at]) * 256 + usize::from(bytes[at + 1]);
        let (one, two) = (length(0, bytes), length(length(0, bytes), bytes));
        bytes[..one + two].rotate_left(one);
    });
    assert!(error.contains("leaf 512 is not what was logged"), "{error}");
    let error = doctored(&archive, "tile/0/001", |bytes| bytes.swap(32, 33));
    assert!(error.contains("leaf 257 is not what was logged"), "{error}");
    let error = doctored(&archive, "tile/0/003.p/32", |bytes| bytes[31 * 32] ^= 1);
    assert!(error.contains("leaf 799 is not what was logged"), "{error}");
    let error = doctored(&archive, "tile/1/000.p/3", |bytes| bytes[32] ^= 1);
    assert!(error.contains("the leaves from 256 up to 512"), "{error}");
    let error = doctored(&archive, "tile/0/002", |bytes| bytes.truncate(31));
    assert!(error.contains("has 31 bytes, but 8192"), "{error}");
    fs::remove_file(archive.mirror().join("tile/entries/000")).unwrap();
    let error = told(&archive.of_mirror().unwrap_err());
    assert!(error.contains("`tile/entries/000` cannot be read"), "{error}");
}

#[test]
fn what_was_done_to_checkpoints_is_named() {
    let archive = Archive::new();
    archive.export();
    let as_text = |change: &dyn Fn(String) -> String| {
        doctored(&archive, "checkpoint", |bytes| {
            let text = String::from_utf8(std::mem::take(bytes)).unwrap();
            *bytes = change(text).into_bytes();
        })
    };
    let error = as_text(&|text| text.replace("\n800\n", "\n799\n"));
    assert!(error.contains("is not what the log's key signed"), "{error}");
    let error = as_text(&|text| text.replace(ISSUER, "another.test"));
    assert!(error.contains("its newest checkpoint cannot be trusted"), "{error}");
    let error = as_text(&|_| "nothing".to_owned());
    assert!(error.contains("second line"), "{error}");
    let error = as_text(&|text| text.repeat(1_000));
    assert!(error.contains("longer than any"), "{error}");
    // The old one is a checkpoint of this log, but one of more leaves was seen.
    let seen = archive.read(&fs::read_to_string(archive.mirror().join("checkpoint")).unwrap());
    fs::write(archive.mirror().join("checkpoint"), &archive.first_note).unwrap();
    let source = LogSource::directory(&archive.mirror()).unwrap();
    let old = verify_log(&source, archive.expect(vec![seen]), 2, |_| {}).unwrap_err();
    assert!(told(&old).contains("has 600 leaves, but 800 were published"), "{old}");
    // Some of its tiles were cut off and are full by now.
    let old = verify_log(&source, archive.expect(Vec::new()), 2, |_| {}).unwrap();
    assert_eq!((old.head.size, old.head.root), (FIRST, archive.first.checkpoint.root));
    fs::remove_file(archive.mirror().join("checkpoint")).unwrap();
    let none = LogSource::directory(&archive.mirror()).unwrap_err();
    assert!(matches!(none, SourceError::NoCheckpoint { .. }), "{none}");
}

#[test]
fn a_log_that_went_back_or_apart_is_found_out() {
    let archive = Archive::new();
    let other = Notary::new();
    grow(&other, 3, 4, 100);
    let store = LogSource::store(&other.world.store()).unwrap();
    let error = verify_log(&store, archive.expect(Vec::new()), 2, |_| {}).unwrap_err();
    assert!(told(&error).contains("no signature of the log's key"), "{error}");

    // The same key, and another history.
    let fork = Checkpoint { size: 700, ..archive.read(&archive.first_note) };
    let store = LogSource::store(&archive.notary.world.store()).unwrap();
    let seen = vec![fork, archive.read(&archive.first_note)];
    let error = told(&verify_log(&store, archive.expect(seen), 2, |_| {}).unwrap_err());
    assert!(error.contains("first 700 leaves") && error.contains("up to leaf 600"), "{error}");
    let later = Checkpoint { size: 801, ..archive.read(&archive.first_note) };
    let error = verify_log(&store, archive.expect(vec![later]), 2, |_| {}).unwrap_err();
    assert!(told(&error).contains("has 800 leaves, but 801 were published"), "{error}");

    // Keys that signed nothing here.
    let strangers = SigningKey::generate().unwrap();
    let decisions = Verifier::new(KeySet::new([strangers.verifying_key().clone()]).unwrap());
    let expect = LogExpect { decisions, ..archive.expect(Vec::new()) };
    let error = told(&verify_log(&store, expect, 2, |_| {}).unwrap_err());
    assert!(error.contains("leaf 3 is none of this log: it holds a decision"), "{error}");
    let expect = LogExpect { origin: "other.test".to_owned(), ..archive.expect(Vec::new()) };
    let error = told(&verify_log(&store, expect, 2, |_| {}).unwrap_err());
    assert!(error.contains("another log"), "{error}");
}

#[test]
fn an_export_never_touches_the_log_of_another() {
    let (archive, other) = (Archive::new(), Notary::new());
    grow(&other, 3, 900, 100);
    let before = files(&archive.mirror());
    let refused = |notary: &Notary| {
        let error = export_log(&notary.world.store(), &archive.mirror(), |_, _| {}).unwrap_err();
        assert_eq!(files(&archive.mirror()), before);
        told(&error)
    };
    let error = refused(&other);
    assert!(error.contains("the first leaves of the store are others"), "{error}");
    let younger = Notary::new();
    grow(&younger, 3, 4, 100);
    assert!(refused(&younger).contains("more leaves than the store has published"));
    fs::write(archive.mirror().join("checkpoint"), "x\n1\n").unwrap();
    assert!(refused(&other).contains("it is damaged"));
    let nowhere = archive.folder.path().join("nowhere");
    assert!(export_log(&nowhere, &archive.mirror(), |_, _| {}).is_err());
    let never = Notary::new();
    drop(never.open_without_checkpoints(100));
    assert!(refused(&never).contains("has no checkpoint"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    /// One byte of one leaf in the store, changed in any way, is named by its place.
    #[test]
    fn a_changed_byte_of_the_store_is_named(changes in prop::collection::vec(
        (3..SECOND, any::<prop::sample::Index>(), 1_u8..=255), 12,
    )) {
        let archive = Archive::new();
        let connection = rusqlite::Connection::open(archive.notary.world.store()).unwrap();
        for (at, byte, other) in changes {
            let select = "SELECT leaf FROM leaves WHERE position = ?1";
            let row = connection.query_row(select, [at.cast_signed()], |row| row.get(0));
            let whole: Vec<u8> = row.unwrap();
            let mut leaf = whole.clone();
            leaf[byte.index(whole.len())] ^= other;
            let update = "UPDATE leaves SET leaf = ?1 WHERE position = ?2";
            connection.execute(update, rusqlite::params![leaf, at.cast_signed()]).unwrap();
            let error = told(&archive.of_store().unwrap_err());
            prop_assert!(error.contains(&format!("leaf {at} ")), "{}: {}", at, error);
            connection.execute(update, rusqlite::params![whole, at.cast_signed()]).unwrap();
        }
        prop_assert!(archive.of_store().is_ok());
    }
}

#[test]
fn what_is_missing_is_written_again_and_what_is_over_goes() {
    let archive = Archive::new();
    grow(&archive.notary, SECOND, 850, 900);
    archive.export();
    let parts = |file: &String| file.starts_with("tile/entries/003.p/");
    grow(&archive.notary, 850, 900, 1_300);
    archive.export();
    assert_eq!(files(&archive.mirror()).into_iter().filter(parts).count(), 2, "of two exports");
    for lost in ["tile/entries/001", "tile/0/002"] {
        fs::remove_file(archive.mirror().join(lost)).unwrap();
    }
    fs::write(archive.mirror().join("tile/0/001"), "cut").unwrap();
    fs::create_dir_all(archive.folder.path().join("elsewhere")).unwrap();
    let linked = archive.folder.path().join("elsewhere/file");
    fs::write(&linked, "of somebody else").unwrap();
    let partial = archive.mirror().join("checkpoint.partial");
    std::os::unix::fs::symlink(&linked, partial).unwrap();
    grow(&archive.notary, 900, 1_100, 1_700);
    archive.export();
    assert_eq!(fs::read_to_string(&linked).unwrap(), "of somebody else");
    assert_eq!(files(&archive.mirror()).into_iter().filter(parts).count(), 0, "003 is full");
    assert_eq!(archive.of_mirror().unwrap().head.size, 1_100);

    let held = fs::File::open(archive.mirror().join(".lock")).unwrap();
    held.lock().unwrap();
    let busy = export_log(&archive.notary.world.store(), &archive.mirror(), |_, _| {});
    assert!(told(&busy.unwrap_err()).contains("another export writes"));
    drop(held);
    archive.export();
    fs::remove_file(archive.mirror().join("tile/0/002")).unwrap();
    fs::create_dir(archive.mirror().join("tile/0/002")).unwrap();
    assert!(told(&archive.of_mirror().unwrap_err()).contains("it is no file"));
}

#[test]
fn a_path_of_a_tile_is_the_file_that_holds_it() {
    let archive = Archive::new();
    archive.export();
    for file in files(&archive.mirror()).iter().filter(|file| *file != "checkpoint") {
        assert_eq!(file.parse::<TilePath>().unwrap().to_string(), *file);
    }
}
