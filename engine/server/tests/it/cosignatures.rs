//! What witnesses say of checkpoints: taken once it is proved, stored before it is shown, never
//! lost, and nothing else is taken.

use std::collections::BTreeMap;
use std::path::Path;

use placet_core::{
    Checkpoint, Digest, MAX_CHECKPOINT_BYTES, Receipt, SigningKey, Witness, Witnesses, cosign,
};
use placet_proto::audit::v1 as proto;
use placet_proto::audit::v1::get_receipt_request::Leaf as Wanted;
use placet_server::sequencer::{Cosigned, Cosigning, SequencerError, Stepper};
use placet_server::store::Fault;
use placet_server::{Clock, Settings, verify};
use signed_note::{Note, StandardVerifier, VerifierList};
use tonic::Code as Status;

use crate::audit::{Client, admit, client, key_of, reason, receipt};
use crate::checkpoints::{EVERY, Notary, ask, fetch, told};
use crate::running::Running;
use crate::world::{ISSUER, id};

/// A witness that believes everybody: what it is given it signs.
struct Signing {
    name: &'static str,
    key: SigningKey,
}

impl Signing {
    fn new(name: &'static str) -> Self {
        Self { name, key: SigningKey::generate().unwrap() }
    }

    fn witness(&self) -> Witness {
        Witness::new(self.name, self.key.verifying_key().clone()).unwrap()
    }

    fn line(&self, note: &str, time: u64) -> String {
        cosign(note, self.name, &self.key, time).unwrap()
    }
}

fn pair() -> [Signing; 2] {
    [Signing::new("witness.example.com/w1"), Signing::new("witness.example.org/w2")]
}

fn known(witnesses: &[Signing]) -> Witnesses {
    Witnesses::new(witnesses.iter().map(Signing::witness)).unwrap()
}

fn add(
    stepper: &mut Stepper,
    number: u64,
    lines: &[&str],
    now: u64,
) -> Result<Cosigned, SequencerError> {
    let lines = lines.iter().map(|line| line.trim_end().to_owned()).collect();
    stepper.cosign(Cosigning { number, lines }, now)
}

#[test]
fn of_each_witness_the_first_line_stays_and_is_found_again() {
    let both = pair();
    let [w1, w2] = &both;
    let mut notary = Notary { witnesses: known(&both), ..Notary::new() };
    let mut stepper = notary.open(100).unwrap();
    let first = stepper.published().unwrap().note.clone();
    assert_eq!(stepper.published_with(1), None);
    let line = w1.line(&first, 101);
    let added = add(&mut stepper, 0, &[&line], 100).unwrap();
    let grown = format!("{first}{line}");
    assert_eq!((added.note.as_str(), added.added.as_slice()), (&*grown, &[w1.name.to_owned()][..]));
    assert_eq!(stepper.published().unwrap().note, grown, "the newest one is shown with it");

    assert!(ask(&mut stepper, 1, 100 + EVERY));
    let second = stepper.published().unwrap().note.clone();
    assert_eq!(stepper.published().unwrap().cosigned, 0);
    assert_eq!(stepper.published_with(1).unwrap().note, grown, "an older one has it");
    let again = add(&mut stepper, 0, &[&w1.line(&first, 105)], 110).unwrap();
    assert_eq!((again.note.as_str(), again.added.len()), (&*grown, 0), "the first one stays");
    let lines = [w2.line(&second, 111), w1.line(&second, 112)];
    let added = add(&mut stepper, 1, &[&lines[0], &lines[1], &lines[0]], 111).unwrap();
    assert_eq!(added.added, [w2.name, w1.name], "two answers in one");
    assert!(ask(&mut stepper, 2, 100 + 2 * EVERY));
    let added = add(&mut stepper, 0, &[&w2.line(&first, 120)], 120).unwrap();
    assert_eq!(added.added, [w2.name], "however old it is");
    let numbers = |stepper: &Stepper| {
        let number = |least| stepper.published_with(least).map(|published| published.number);
        [number(0), number(1), number(2), number(3)]
    };
    assert_eq!(numbers(&stepper), [Some(2), Some(1), Some(1), None]);

    drop(stepper);
    verify(&notary.world.store()).unwrap();
    let stepper = notary.open(200).unwrap();
    assert_eq!(numbers(&stepper), [Some(2), Some(1), Some(1), None], "the next start finds them");
    let shown = stepper.published_with(2).unwrap();
    assert_eq!(shown.note, format!("{second}{}{}", lines[0], lines[1]));
    drop(stepper);
    notary.witnesses = known(&both[..1]);
    assert_eq!(numbers(&notary.open(200).unwrap()), [Some(2), Some(1), None, None]);
    notary.witnesses = Witnesses::default();
    assert_eq!(numbers(&notary.open(200).unwrap()), [Some(2), None, None, None]);
}

#[test]
fn a_checkpoint_is_found_by_its_size() {
    let notary = Notary::new();
    let mut stepper = notary.open(100).unwrap();
    let mut now = 100;
    let mut made = BTreeMap::from([(3, stepper.published().unwrap().note.clone())]);
    for number in 1..40 {
        // Two of three are of two leaves more than the one before.
        now += EVERY / (1 + number % 2);
        assert!(ask(&mut stepper, number, now));
        let newest = stepper.published().unwrap();
        made.insert(newest.head.size, newest.note.clone());
    }
    let size = stepper.reader().size().unwrap();
    assert!(made.len() > 10 && size > made.len() as u64 + 5, "{} of {size}", made.len());
    for size in 0..=size + 1 {
        let found = stepper.reader().checkpoint_of(size).unwrap();
        assert_eq!(found.as_ref().map(|found| &found.note), made.get(&size), "{size}");
        assert!(found.is_none_or(|found| found.size == size));
    }
}

#[test]
fn what_is_shown_is_durable_whatever_fails() {
    for faults in [
        &[Fault::Commit][..],
        &[Fault::CommitUnknown],
        &[Fault::CommitPersisted],
        &[Fault::CommitPersisted, Fault::Reopen],
    ] {
        let both = pair();
        let notary = Notary { witnesses: known(&both), ..Notary::new() };
        let mut stepper = notary.open(100).unwrap();
        let first = stepper.published().unwrap().note.clone();
        let lines = [both[0].line(&first, 100), both[1].line(&first, 100)];
        faults.iter().for_each(|fault| notary.world.faults.push(*fault));
        let failed = add(&mut stepper, 0, &[&lines[0]], 100).unwrap_err();
        let unknown = faults[0] != Fault::Commit;
        assert_eq!(matches!(failed, SequencerError::OutcomeUnknown), unknown, "{failed}");
        assert_eq!(stepper.published().unwrap().note, first, "{faults:?}: it is not shown");
        // Whatever is asked next looks first what the store holds; a fault may be left for that.
        drop(add(&mut stepper, 0, &[&lines[0]], 100));
        let cosigned = add(&mut stepper, 0, &[&lines[0], &lines[1]], 100).unwrap();
        assert_eq!(cosigned.note, format!("{first}{}{}", lines[0], lines[1]), "{faults:?}");
        let shown = stepper.published_with(2).unwrap();
        assert_eq!(shown.note, cosigned.note);
        assert!(ask(&mut stepper, 1, 101), "{faults:?}: it decides as before");
        drop(stepper);
        assert_eq!(notary.open(200).unwrap().published_with(2), Some(shown));
    }
}

#[test]
fn the_writer_takes_nothing_that_is_not_proved() {
    let (both, stranger) = (pair(), Signing::new("witness.example.net/w3"));
    let notary = Notary { witnesses: known(&both), ..Notary::new() };
    let mut stepper = notary.open(100).unwrap();
    let first = stepper.published().unwrap();
    assert!(ask(&mut stepper, 1, 100 + EVERY));
    let second = stepper.published().unwrap();
    let good = both[0].line(&first.note, 100);
    for (number, lines) in [
        (0, [&*good, &*stranger.line(&first.note, 100)]),
        (0, [&*good, &*both[1].line(&second.note, 100)]),
        (0, [&*good, "no line"]),
        (1, [&*both[1].line(&second.note, 100), &*good]),
        (2, [&*good, &*good]),
    ] {
        let refused = add(&mut stepper, number, &lines, 110).unwrap_err();
        let cosign = matches!(refused, SequencerError::Cosign(_));
        assert!(cosign || number == 2, "{lines:?}: {refused}");
    }
    assert_eq!(stepper.published(), Some(second), "nothing half done");
    assert_eq!(stepper.published_with(1), None);
    let rows = "SELECT group_concat(note, '') FROM checkpoints";
    let stored: String = notary.query(rows);
    assert_eq!(stored, format!("{}{}", first.note, stepper.published().unwrap().note));
}

#[test]
fn a_damaged_cosignature_is_found_at_the_start() {
    let both = pair();
    let notary = Notary { witnesses: known(&both), ..Notary::new() };
    let mut stepper = notary.open(100).unwrap();
    let first = stepper.published().unwrap().note.clone();
    add(&mut stepper, 0, &[&both[0].line(&first, 100)], 100).unwrap();
    assert!(ask(&mut stepper, 1, 100 + EVERY));
    drop(stepper);
    let good: String = notary.query("SELECT note FROM checkpoints WHERE number = 0");
    // The time, which the witness signed.
    let (head, _) = good.rsplit_once(' ').unwrap();
    let other = both[0].line(&first, 101);
    let line = both[0].line(&first, 100);
    let mixed: String = {
        let (old, new) = (line.rsplit(' ').next().unwrap(), other.rsplit(' ').next().unwrap());
        [new.split_at(20).0, old.split_at(20).1].concat()
    };
    notary.sql(&format!("UPDATE checkpoints SET note = '{head} {mixed}' WHERE number = 0"));
    let error = told(&notary.open(200).unwrap_err());
    assert!(error.contains("of the checkpoint of 3 leaves does not match"), "{error}");
    assert!(error.contains(both[0].name), "{error}");
}

/// A server that knows both witnesses, and its log's key.
async fn witnessed(both: &[Signing], every: u64) -> (Running, Client, SigningKey) {
    let witnesses = known(both);
    let server = Running::start_with(move |settings, _| {
        settings.operators = vec![id("loopback")];
        settings.checkpoint_every_seconds = every;
        settings.witnesses = witnesses;
    })
    .await;
    let (client, key) = (client(&server), key_of(&server.directory.path().join("keys")));
    (server, client, key)
}

async fn newest(client: &mut Client, witnesses: u32) -> Result<(String, u64), tonic::Status> {
    let told = client.get_checkpoint(proto::GetCheckpointRequest { witnesses }).await?;
    let told = told.into_inner();
    Ok((told.checkpoint, told.size))
}

async fn submit(
    client: &mut Client,
    note: String,
) -> Result<proto::AddCosignaturesResponse, tonic::Status> {
    let request = proto::AddCosignaturesRequest { note };
    client.add_cosignatures(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn cosignatures_are_added_shown_and_asked_for() {
    let (both, stranger) = (pair(), Signing::new("witness.example.net/w3"));
    let (server, mut client, key) = witnessed(&both, 1).await;
    let (first, size) = newest(&mut client, 0).await.unwrap();
    let none = newest(&mut client, 1).await.unwrap_err();
    assert_eq!(reason(&none), "NOT_YET_PUBLISHED");
    let now = Clock::now();
    let line = both[0].line(&first, now);
    let answer = format!("{line}{}", stranger.line(&first, now));
    let told = submit(&mut client, format!("{first}{answer}")).await.unwrap();
    let cosignature =
        |added| proto::Cosignature { witness: both[0].name.to_owned(), time: now, added };
    assert_eq!(told.cosignatures, [cosignature(true)]);
    assert_eq!((told.size, told.checkpoint), (size, format!("{first}{line}")));
    assert_eq!(told.passed_over, [stranger.name], "who is not known is told");
    let later = both[0].line(&first, now + 1);
    let told = submit(&mut client, format!("{first}{later}")).await.unwrap();
    assert_eq!(told.cosignatures, [cosignature(false)], "it was there already");

    // A decision that the first checkpoint does not reach.
    let position = server.client().admit(admit("r-1")).await.unwrap().into_inner().position;
    client.get_receipt(receipt(Some(Wanted::Position(position)), 60)).await.unwrap();
    assert_eq!(newest(&mut client, 1).await.unwrap(), (format!("{first}{line}"), size));
    let wanted = move |wait_seconds, witnesses| {
        let leaf = Some(Wanted::Position(position));
        proto::GetReceiptRequest { leaf, wait_seconds, witnesses }
    };
    let early = client.get_receipt(wanted(0, 1)).await.unwrap_err();
    assert_eq!(reason(&early), "NOT_YET_PUBLISHED");
    assert!(
        early.message().contains("that 1 of the witnesses cosigned is of 3 leaves"),
        "{early:?}"
    );
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.get_receipt(wanted(60, 2)).await }
    });
    let (second, size) = newest(&mut client, 0).await.unwrap();
    let lines = both.each_ref().map(|one| one.line(&second, now));
    submit(&mut client, format!("{second}{}{}", lines[0], lines[1])).await.unwrap();
    let proved = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!(proved.size, size);
    let read = Receipt::from_text(proved.receipt.as_bytes()).unwrap();
    read.verify(ISSUER, key.verifying_key()).unwrap();
    assert_eq!(known(&both).quorum(read.note(), 2).unwrap().len(), 2);

    let (_, _, served) = fetch(&server, "/log/checkpoint").await;
    assert_eq!(String::from_utf8(served.clone()).unwrap(), read.note(), "with both of them");
    let vkey = placet_core::note_verifier_key(ISSUER, key.verifying_key()).unwrap();
    let theirs = VerifierList::new(vec![Box::new(StandardVerifier::new(&vkey).unwrap())]);
    let (good, others) = Note::from_bytes(&served).unwrap().verify(&theirs).unwrap();
    assert_eq!((good.len(), others.len()), (1, 2), "another library passes over them");
    let store = server.stop().await;
    verify(&store.path().join("placet.db")).unwrap();
}

/// A checkpoint with other lines, of a key of the log's name.
fn signed(key: &SigningKey, size: u64, root: Digest) -> String {
    Checkpoint { origin: ISSUER.to_owned(), root, size }.sign(key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_nothing_is_refused_by_its_reason() {
    let (both, stranger) = (pair(), Signing::new("witness.example.net/w3"));
    let (server, mut client, key) = witnessed(&both, 3_600).await;
    let (note, size) = newest(&mut client, 0).await.unwrap();
    let other_key = SigningKey::generate().unwrap();
    let (now, root) = (Clock::now(), Digest::of(b"another log"));
    let good = both[0].line(&note, now);
    let fork = signed(&key, size, root);
    let forged = signed(&other_key, size, root);
    let other = Checkpoint { origin: "other.test".to_owned(), root, size }.sign(&key).unwrap();
    let elsewhere = both[0].line(&other, now);
    let text = note.rsplit_once("\n\n").unwrap().0;
    let extended = format!("{text}\nmore\n\n{}", note.rsplit_once("\n\n").unwrap().1);
    let many = stranger.line(&note, now).repeat(200);
    let bad = (Status::InvalidArgument, Status::FailedPrecondition, Status::NotFound);
    let (invalid, precondition, absent) = bad;
    for (submitted, code, why, says) in [
        (String::new(), invalid, "BAD_NOTE", "`note` is not a signed checkpoint"),
        (good.clone(), invalid, "BAD_NOTE", "`note` is not a signed checkpoint"),
        (note.clone(), invalid, "UNKNOWN_WITNESS", "no cosignature of a witness"),
        (
            format!("{note}{}", stranger.line(&note, now)),
            invalid,
            "UNKNOWN_WITNESS",
            "only of `witness.example.net/w3`",
        ),
        (format!("{note}{elsewhere}"), invalid, "BAD_COSIGNATURE", both[0].name),
        (format!("{note}{good}{elsewhere}"), invalid, "BAD_COSIGNATURE", both[0].name),
        (format!("{note}{good}no line\n"), invalid, "BAD_NOTE", "`note` is not a signed"),
        (format!("{note}{good}{many}"), invalid, "TOO_LARGE", "has 202 signature lines"),
        (format!("{}\n{note}", "x".repeat(40_000)), invalid, "BAD_NOTE", "`note` `xxx"),
        ("x".repeat(MAX_CHECKPOINT_BYTES + 1), invalid, "TOO_LARGE", "has 65537 bytes"),
        (format!("{other}{elsewhere}"), invalid, "OTHER_LOG", "not of `placet.test`"),
        (forged.clone(), absent, "NEVER_PUBLISHED", "no key of this log signed it"),
        (signed(&other_key, 900, root), absent, "NEVER_PUBLISHED", "no key of this log"),
        (format!("{extended}{good}"), absent, "NEVER_PUBLISHED", "another text there"),
        (fork.clone(), precondition, "FORK", "which the key of this log signed"),
        (
            format!("{forged}{}", both[1].line(&forged, now)),
            precondition,
            "NEVER_SIGNED",
            "which `witness.example.org/w2` cosigned although",
        ),
        (signed(&key, 900, root), precondition, "FORK", "this log has 3 leaves"),
        (
            format!("{note}{good}{}", both[1].line(&note, now + 9_999)),
            precondition,
            "TIME_AHEAD",
            "was cosigned by `witness.example.org/w2`",
        ),
        (
            format!("{note}{}", both[1].line(&note, (1 << 63) - 1)),
            precondition,
            "TIME_AHEAD",
            "but it is",
        ),
    ] {
        let refused = submit(&mut client, submitted).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (code, why), "{refused:?}");
        assert!(refused.message().contains(says), "{says}: {refused:?}");
        assert!(refused.message().len() < 2_000, "{why}: it comes in a header");
    }
    // Both roots are named: whoever reads it can compare them.
    let fork = submit(&mut client, fork).await.unwrap_err();
    for root in [root, Checkpoint::read_unverified(&note).unwrap().root] {
        assert!(fork.message().contains(&root.to_string()), "{fork:?}");
    }
    assert_eq!(newest(&mut client, 0).await.unwrap().0, note, "nothing of it was taken");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_witnesses_than_there_are_cannot_be_asked_for() {
    let (server, mut client, _) = witnessed(&pair(), 3_600).await;
    let (invalid, precondition) = (Status::InvalidArgument, Status::FailedPrecondition);
    for (witnesses, code, why) in
        [(3, precondition, "TOO_FEW_WITNESSES"), (101, invalid, "OUT_OF_BOUNDS")]
    {
        let leaf = Some(Wanted::Position(0));
        let asked = proto::GetReceiptRequest { leaf, wait_seconds: 0, witnesses };
        for refused in [
            newest(&mut client, witnesses).await.unwrap_err(),
            client.get_receipt(asked).await.unwrap_err(),
        ] {
            assert_eq!((refused.code(), &*reason(&refused)), (code, why), "{refused:?}");
            assert!(refused.message().contains("`witnesses` is "), "{refused:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_witnesses_takes_none() {
    let server = Running::start_with(|settings, _| settings.operators = vec![id("loopback")]).await;
    let mut client = client(&server);
    let (note, _) = newest(&mut client, 0).await.unwrap();
    let refused = submit(&mut client, note).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_WITNESSES");
    server.stop().await;
    let server = Running::start().await;
    let mut client = self::client(&server);
    let refused = submit(&mut client, String::new()).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_AN_OPERATOR");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_with_a_key_of_the_server_is_refused() {
    let server = Running::start().await;
    let directory = server.stop().await;
    for file in ["checkpoint-key.pkcs8", "signing-key.pkcs8"] {
        let key = std::fs::read(directory.path().join("keys").join(file)).unwrap();
        let key = SigningKey::from_pkcs8(&key).unwrap();
        let own = Witness::new("own", key.verifying_key().clone()).unwrap();
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let bundle = policies.join("reference");
        let facts = bundle.join("facts.yaml");
        let mut settings = Settings::local(bundle, facts, directory.path());
        settings.witnesses = Witnesses::new([own]).unwrap();
        let never = std::future::pending();
        let error = placet_server::serve(settings, never, |_| {}).await.unwrap_err();
        let error = told(&error);
        assert!(error.contains("the witness `own` is one of this server's own"), "{error}");
        assert!(error.contains("hint: "), "{error}");
    }
}
