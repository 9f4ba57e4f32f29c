//! Checkpoints and the served log: what was ever shown to anybody holds, and other people's
//! libraries rebuild the tree from what is served.

use std::path::Path;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use placet_core::merkle::{self, ConsistencyProof};
use placet_core::tile::{TileKind, read_entries, read_hashes, tiles};
use placet_core::{Checkpoint, Digest, SigningKey, Witnesses};
use placet_server::sequencer::{OpenError, Published, Step, Stepper};
use placet_server::signer::{CHECKPOINT_KEY_FILE, CheckpointSigner, Signer};
use placet_server::store::{CheckpointOptions, Fault, StoreOptions};
use placet_server::verify;
use rusqlite::Connection;
use sha2::Sha256;
use signed_note::{Note, StandardVerifier, VerifierList};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::running::Running;
use crate::world::{ISSUER, World, activation, decide, options, proposal, run};

/// Seconds between two checkpoints of these tests.
pub(crate) const EVERY: u64 = 10;

/// An error with all its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

pub(crate) struct Notary {
    pub(crate) world: World,
    pub(crate) signer: CheckpointSigner,
    pub(crate) key: SigningKey,
    pub(crate) witnesses: Witnesses,
}

impl Notary {
    pub(crate) fn new() -> Self {
        let key = SigningKey::generate().unwrap();
        let own = SigningKey::from_pkcs8(key.to_pkcs8().unwrap().as_ref()).unwrap();
        let (world, signer) = (World::new(), CheckpointSigner::new(own));
        Self { world, signer, key, witnesses: Witnesses::default() }
    }

    fn options(&self, signer: CheckpointSigner, every_seconds: u64) -> CheckpointOptions {
        CheckpointOptions { signer, every_seconds, witnesses: self.witnesses.clone() }
    }

    pub(crate) fn open(&self, now: u64) -> Result<Stepper, OpenError> {
        self.open_with(Some(self.signer.clone()), now)
    }

    /// One that makes no checkpoints.
    pub(crate) fn open_without_checkpoints(&self, now: u64) -> Stepper {
        self.open_with(None, now).unwrap()
    }

    fn open_with(&self, signer: Option<CheckpointSigner>, now: u64) -> Result<Stepper, OpenError> {
        let checkpoints = signer.map(|signer| self.options(signer, EVERY));
        let faults = self.world.faults.clone();
        let store = StoreOptions { checkpoints, faults, ..StoreOptions::default() };
        let (path, signer) = (self.world.store(), self.world.signer.clone());
        let name = "0123456789abcdef0123456789abcdef";
        Stepper::open(&path, options(), store, signer, activation(), (name, now))
    }

    /// Why it does not start, with all causes.
    fn refused(&self, now: u64) -> String {
        told(&self.open(now).unwrap_err())
    }

    fn read(&self, published: &Published) -> Checkpoint {
        Checkpoint::verify(&published.note, ISSUER, self.key.verifying_key()).unwrap()
    }

    pub(crate) fn query(&self, sql: &str) -> String {
        Connection::open(self.world.store()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn sql(&self, sql: &str) {
        Connection::open(self.world.store()).unwrap().execute_batch(sql).unwrap();
    }
}

pub(crate) fn ask(stepper: &mut Stepper, number: u64, now: u64) -> bool {
    let name = format!("r-{number}");
    let asked = proposal(&name, 1, 60, 1_000 + number);
    stepper.serve(vec![Step::Propose(asked)], now).pop().unwrap().is_ok()
}

#[test]
fn one_is_made_when_it_is_time_and_the_log_has_grown() {
    let notary = Notary::new();
    let mut stepper = notary.open(100).unwrap();
    let size = |stepper: &Stepper| stepper.published().unwrap().head.size;
    assert_eq!(size(&stepper), 3, "the first at once: genesis and what is active");
    assert!(ask(&mut stepper, 1, 100 + EVERY - 1));
    assert_eq!(size(&stepper), 3, "it is not time yet");
    stepper.serve(Vec::new(), 100 + EVERY);
    assert_eq!(size(&stepper), 4, "nobody need ask for anything");
    let before = stepper.published();
    stepper.serve(Vec::new(), 100 + 9 * EVERY);
    assert_eq!(stepper.published(), before, "the log has not grown");
    drop(stepper);
    let stepper = notary.open(1_000).unwrap();
    assert_eq!(stepper.published(), before, "the next start serves the same");
    drop(stepper);
    let stepper = notary.open_with(None, 1_000).unwrap();
    assert_eq!(stepper.published(), None, "none are made, none are served");
}

#[test]
fn the_log_begins_with_every_log_that_was_published() {
    let notary = Notary::new();
    let mut seen: Vec<Checkpoint> = Vec::new();
    let (mut now, mut number) = (100, 0);
    for faults in [
        &[][..],
        &[Fault::Commit],
        &[Fault::CommitUnknown],
        &[Fault::CommitPersisted],
        &[Fault::CommitPersisted, Fault::Reopen],
        &[Fault::CrashBeforeCommit],
        &[Fault::CrashAfterCommit],
    ] {
        let mut stepper = notary.open(now).unwrap();
        for step in 0..6 {
            now += EVERY / 2;
            // Once for the commit of a decision, once for that of a checkpoint.
            if step == 1 || step == 4 {
                let due = step == 4;
                faults.iter().filter(|_| !due).for_each(|fault| notary.world.faults.push(*fault));
            }
            number += 1;
            ask(&mut stepper, number, now);
            if step == 2 {
                faults.iter().for_each(|fault| notary.world.faults.push(*fault));
                now += EVERY;
                stepper.serve(Vec::new(), now);
            }
            notary.world.faults.clear();
            stepper.serve(Vec::new(), now);
            if let Some(published) = stepper.published() {
                let checkpoint = notary.read(&published);
                let last = seen.last().map_or(0, |last| last.size);
                assert!(checkpoint.size >= last, "{faults:?}: it went back");
                if checkpoint.size > last {
                    seen.push(checkpoint);
                }
            }
            if !stepper.is_alive() {
                break;
            }
        }
    }
    let stepper = notary.open(now + EVERY).unwrap();
    let reader = stepper.reader().clone();
    let newest = notary.read(&stepper.published().unwrap());
    assert!(seen.len() > 10 && newest.size > 20, "{} of {newest:?}", seen.len());
    for checkpoint in &seen {
        let (old, new) = (checkpoint.size, newest.size);
        let proof = ConsistencyProof::new(old, new, |numbers| reader.hashes(numbers)).unwrap();
        proof.verify((old, checkpoint.root), (new, newest.root)).unwrap();
    }
    drop(stepper);
    verify(&notary.world.store()).unwrap();
}

#[test]
fn a_log_that_is_not_the_published_one_is_refused() {
    // Leaf 4 with other bytes, and hashes that are right for it.
    let fork = "UPDATE leaves SET leaf = (SELECT leaf FROM leaves WHERE position = 4) \
        WHERE position = 5; UPDATE tree SET hash = (SELECT hash FROM tree WHERE number = 7) \
        WHERE number = 8;";
    for (sql, at_start, in_store) in [
        (
            "UPDATE checkpoints SET size = 9 WHERE number = 1",
            "6 leaves, but a checkpoint of 9",
            "shorter",
        ),
        ("UPDATE checkpoints SET size = 5 WHERE number = 1", "first 5 leaves", "another root"),
        (
            "UPDATE checkpoints SET note = replace(note, 'placet.test', 'another.test')",
            "first 6",
            "another root",
        ),
        ("UPDATE checkpoints SET note = 'x'", "first 6 leaves", "another root"),
        ("UPDATE checkpoints SET note = substr(note, 1, length(note) - 2)", "checkpoint", ""),
        (fork, "", ""),
        (
            "UPDATE checkpoints SET size = 6, \
          note = (SELECT note FROM checkpoints WHERE number = 1) \
          WHERE number = 0; UPDATE checkpoints SET size = 3 WHERE number = 1",
            "first 3",
            "before it has more",
        ),
        ("DELETE FROM checkpoints WHERE number = 0", "", "a checkpoint is missing"),
    ] {
        let notary = Notary::new();
        let mut stepper = notary.open(100).unwrap();
        (1..=3).for_each(|number| assert!(ask(&mut stepper, number, 100)));
        stepper.serve(Vec::new(), 100 + EVERY);
        assert_eq!(stepper.published().unwrap().head.size, 6);
        drop(stepper);
        notary.sql(sql);
        let found = verify(&notary.world.store()).map_err(|error| told(&error));
        if !in_store.is_empty() || sql == fork {
            let error = found.unwrap_err();
            assert!(error.contains(in_store), "{sql}: {error}");
        }
        if !at_start.is_empty() || sql == fork {
            let error = notary.refused(200);
            assert!(error.contains(at_start) && error.contains("hint: "), "{sql}: {error}");
        }
    }
}

/// A log that folds, and of which every hash is right, but that lost leaves that were published.
#[test]
fn an_older_log_under_newer_checkpoints_is_refused() {
    let notary = Notary::new();
    let mut stepper = notary.open(100).unwrap();
    assert!(ask(&mut stepper, 1, 100));
    drop(stepper);
    let older = std::fs::read(notary.world.store()).unwrap();
    let mut stepper = notary.open(200).unwrap();
    assert!(ask(&mut stepper, 2, 200 + EVERY));
    let note = stepper.published().unwrap().note.clone();
    drop(stepper);
    std::fs::write(notary.world.store(), older).unwrap();
    notary.open(300).unwrap();
    let insert =
        "INSERT INTO checkpoints VALUES ((SELECT max(number) + 1 FROM checkpoints), 5, ?1)";
    Connection::open(notary.world.store()).unwrap().execute(insert, [note]).unwrap();
    let error = notary.refused(300);
    let says = "the log has 4 leaves, but a checkpoint of 5 was published: its end is lost";
    assert!(error.contains(says), "{error}");
    let error = verify(&notary.world.store()).unwrap_err().to_string();
    assert!(error.contains("of 5 leaves") && error.contains("the log is shorter"), "{error}");
}

#[test]
fn another_key_signs_the_same_log_again() {
    let notary = Notary::new();
    let first = notary.open(100).unwrap().published().unwrap();
    let key = SigningKey::generate().unwrap();
    let next =
        CheckpointSigner::new(SigningKey::from_pkcs8(key.to_pkcs8().unwrap().as_ref()).unwrap());
    let second = notary.open_with(Some(next), 100).unwrap().published().unwrap();
    assert_eq!(second.head, first.head);
    let read = Checkpoint::verify(&second.note, ISSUER, key.verifying_key()).unwrap();
    assert_eq!(read, notary.read(&first), "the older one is still good");
    verify(&notary.world.store()).unwrap();
}

#[test]
fn a_log_goes_on_under_one_issuer() {
    let world = World::new();
    run(async { world.start().close().await });
    let options = placet_server::sequencer::Options { issuer: "another".to_owned(), ..options() };
    let refused = told(&world.start_with(options, None).unwrap_err());
    assert!(refused.contains(&format!("of the issuer `{ISSUER}`, not of `another`")), "{refused}");
    run(async { world.start().close().await });
}

#[test]
fn a_name_that_no_log_can_have_is_refused() {
    let notary = Notary::new();
    let checkpoints = notary.options(notary.signer.clone(), EVERY);
    let store = StoreOptions { checkpoints: Some(checkpoints), ..StoreOptions::default() };
    let options = placet_server::sequencer::Options { issuer: "two words".to_owned(), ..options() };
    let (path, signer) = (notary.world.store(), notary.world.signer.clone());
    let error = Stepper::open(&path, options, store, signer, activation(), ("00", 1)).unwrap_err();
    assert!(error.to_string().contains("checkpoint-every"), "{error}");
}

#[test]
fn a_closing_server_publishes_all_that_it_answered() {
    let notary = Notary::new();
    let checkpoints = notary.options(notary.signer.clone(), 3_600);
    let store = StoreOptions { checkpoints: Some(checkpoints), ..StoreOptions::default() };
    let (path, signer) = (notary.world.store(), notary.world.signer.clone());
    run(async {
        let start = placet_server::sequencer::SequencerHandle::start_with;
        let sequencer = start(&path, options(), store, signer, activation()).unwrap();
        decide(&sequencer, proposal("r-1", 1, 60, 1_000)).await.unwrap();
        assert_eq!(sequencer.published().unwrap().head.size, 3);
        sequencer.close().await;
        assert_eq!(sequencer.published().unwrap().head.size, 4);
    });
}

/// Status, headers and body of a path.
pub(crate) async fn fetch(server: &Running, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: placet\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, bytes[end + 4..].to_vec())
}

fn verifier(keys: &Path, origin: &str) -> String {
    let decisions = Signer::open(keys).unwrap();
    assert!(keys.join(CHECKPOINT_KEY_FILE).exists(), "made at the first start");
    CheckpointSigner::open(keys, &decisions).unwrap().verifier(origin).unwrap()
}

#[tokio::test]
async fn other_libraries_rebuild_the_served_log() {
    // The log of an earlier run, longer than a tile; what this server adds comes behind it.
    let server = Running::start_with(|settings, directory| {
        let options = placet_server::sequencer::Options { ..options() };
        let signer = Signer::open(&directory.join("keys")).unwrap();
        let store = StoreOptions::default();
        let name = "0123456789abcdef0123456789abcdef";
        let told = (name, 1);
        let mut stepper =
            Stepper::open(&settings.store, options, store, signer, activation(), told).unwrap();
        (1..=700).for_each(|number| assert!(ask(&mut stepper, number, 1)));
    })
    .await;
    let (status, head, note) = fetch(&server, "/log/checkpoint").await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
    assert!(head.contains("cache-control: public, max-age=2"), "{head}");
    let vkey = verifier(&server.directory.path().join("keys"), ISSUER);
    let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&vkey).unwrap())]);
    let note = Note::from_bytes(&note).unwrap();
    assert_eq!(note.verify(&known).unwrap().0.len(), 1, "their library takes our signature");
    let read = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    let (size, root) = (read.size(), Digest::from_bytes(read.hash().0));
    assert!(size > 703, "{size}");

    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut level = Vec::new();
    for path in tiles(size) {
        let (status, head, bytes) = fetch(&server, &format!("/log/{path}")).await;
        assert_eq!(status, 200, "{path}: {head}");
        assert!(head.contains("content-type: application/octet-stream"), "{head}");
        assert!(head.contains("cache-control: public, max-age=31536000, immutable"), "{head}");
        match path.kind() {
            TileKind::Entries => {
                let leaves = read_entries(&bytes, path.width()).unwrap();
                leaves.into_iter().for_each(|leaf| tree.push(leaf.to_vec()));
            }
            TileKind::Hashes(0) => level.extend(read_hashes(&bytes, path.width()).unwrap()),
            TileKind::Hashes(_) => assert!(!read_hashes(&bytes, path.width()).unwrap().is_empty()),
        }
    }
    assert_eq!(Digest::from_bytes((*tree.root().as_bytes()).into()), root);
    let hashes: Vec<_> = tree.items().iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
    assert_eq!(level, hashes);

    let not_yet_full = format!("/log/tile/0/{:03}", size / 256);
    let beyond = format!("/log/tile/0/{:03}.p/1", size / 256 + 1);
    for (path, expected) in [
        (beyond.as_str(), 404),
        (not_yet_full.as_str(), 404),
        ("/log/tile/3/000.p/1", 404),
        ("/log/tile/63/000", 404),
        ("/log/tile/entries/x001/000", 404),
        ("/log/tile/0/000.p/256", 400),
        ("/log/tile/0/x000/000", 400),
        ("/log/tile/0/%30%30%30", 400),
        ("/log/tile/data/000", 400),
        ("/log/tile/0/../../checkpoint", 400),
        ("/log/tile/", 404),
        ("/log/leaves", 404),
    ] {
        let (status, head, body) = fetch(&server, path).await;
        assert_eq!(status, expected, "{path}: {head}");
        assert!(!head.contains("immutable"), "{path}: {head}");
        assert!(body.is_empty() || head.contains("cache-control: no-store"), "{path}: {head}");
    }
    let part = fetch(&server, "/log/tile/0/000.p/7").await;
    assert_eq!((part.0, part.2.len()), (200, 7 * 32), "a part of a full tile is still there");
    server.stop().await;
}
