//! Personal values: they go whole, for good and only where they must, and every proof stays.

use std::collections::BTreeMap;
use std::path::Path;

use placet_core::{Event, Id, Leaf, Receipt, SigningKey};
use placet_proto::admission::v1 as admission;
use placet_proto::audit::v1 as audit;
use placet_proto::audit::v1::audit_service_client::AuditServiceClient;
use placet_proto::audit::v1::get_decision_request::Decision as Named;
use placet_proto::audit::v1::get_receipt_request::Leaf as Wanted;
use placet_proto::control::v1 as control;
use placet_server::sequencer::{
    Erase, MAX_ERASED, Options, Proposal, Reply, SequencerError, Step, Stepper,
};
use placet_server::signer::CHECKPOINT_KEY_FILE;
use placet_server::store::{Fault, OpenError, StoreOptions};
use placet_server::{Clock, EraseError, Person, backup, erase_personal, verify};
use proptest::prelude::*;
use rusqlite::Connection;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::running::Running;
use crate::world::{ISSUER, World, activation, decide, id, options, proposal, run};

const FIELD: &str = "principal.subject";
const HOUR: u64 = 3_600;

/// Whether a file has a text anywhere, free pages included.
fn has(file: &Path, text: &str) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The store's file and all that stands beside it.
fn is_anywhere(store: &Path, text: &str) -> bool {
    let name = store.file_name().unwrap().to_str().unwrap();
    let beside = std::fs::read_dir(store.parent().unwrap()).unwrap().map(|it| it.unwrap().path());
    let mut beside = beside.filter(|it| it.file_name().unwrap().to_str().unwrap().contains(name));
    beside.any(|file| has(&file, text))
}

fn asked(number: u64, subject: &str, time: u64) -> Box<Proposal> {
    let mut asked = proposal(&format!("r-{number}"), 1, 1, time);
    asked.personal[0].value = subject.to_owned();
    asked
}

async fn start() -> (Running, AuditServiceClient<Channel>) {
    let server = Running::start_with(|settings, _| {
        settings.operators = vec![Id::new("loopback").unwrap()];
        settings.checkpoint_every_seconds = 1;
    })
    .await;
    let audit = AuditServiceClient::new(server.channel.clone());
    (server, audit)
}

fn admit(request_id: &str, tenant: &str, subject: &str) -> admission::AdmitRequest {
    let lease = r#"{"priority_class": "INTERNAL_RESEARCH",
        "principal": {"issuer": "https://idp.example"},
        "lease": {"cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["A100"]}}"#;
    let mut request: admission::AdmitRequest = placet_proto::json::from_json(lease).unwrap();
    request.principal.as_mut().unwrap().subject = subject.to_owned();
    let (request_id, tenant_id) = (request_id.to_owned(), tenant.to_owned());
    admission::AdmitRequest { request_id, tenant_id, ..request }
}

fn erasing(subject: &str, tenant: &str, dry_run: bool) -> control::ErasePersonalRequest {
    let (subject, tenant_id) = (subject.to_owned(), tenant.to_owned());
    control::ErasePersonalRequest { subject, tenant_id, dry_run }
}

async fn kept(audit: &mut AuditServiceClient<Channel>, position: u64) -> Option<String> {
    let decision = Some(Named::Position(position));
    let request = audit::GetDecisionRequest { decision, with_evidence: false };
    let told = audit.get_decision(request).await.unwrap().into_inner();
    let [value] = &told.personal[..] else { panic!("{:?}", told.personal) };
    assert_eq!(value.erased, value.value.is_empty() && value.salt.is_empty(), "{value:?}");
    (!value.erased).then(|| value.value.clone())
}

async fn receipt(audit: &mut AuditServiceClient<Channel>, position: u64) -> Receipt {
    let leaf = Some(Wanted::Position(position));
    let request = audit::GetReceiptRequest { leaf, wait_seconds: 60, witnesses: 0 };
    let told = audit.get_receipt(request).await.unwrap().into_inner();
    Receipt::from_text(told.receipt.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_for_good_and_every_proof_stays() {
    const WHO: &str = "ada-7f3a@example.org";
    let (server, mut audit) = start().await;
    let mut decided = Vec::new();
    for (number, (tenant, subject)) in [
        ("platform-tools", WHO),
        ("platform-tools", "bob"),
        ("nobody-knows-it", WHO),
        ("platform-tools", WHO),
    ]
    .into_iter()
    .enumerate()
    {
        let request = admit(&format!("r-{number}"), tenant, subject);
        let answer = server.client().admit(request.clone()).await.unwrap().into_inner();
        assert_eq!(kept(&mut audit, answer.position).await.as_deref(), Some(subject));
        decided.push((request, answer));
    }
    let place = |number: usize| decided[number].1.position;
    let before = receipt(&mut audit, place(0)).await;
    let mut control = server.control();
    let told = control.erase_personal(erasing(WHO, "", true)).await.unwrap().into_inner();
    assert_eq!((told.decisions, told.pending), (3, false), "{told:?}");
    assert!(kept(&mut audit, place(0)).await.is_some(), "nothing was erased");
    let one = erasing(WHO, "platform-tools", false);
    let told = control.erase_personal(one).await.unwrap().into_inner();
    assert_eq!((told.decisions, told.pending), (2, false));
    assert_eq!(told.size, place(3) + 1);
    assert_eq!(kept(&mut audit, place(0)).await, None);
    assert_eq!(kept(&mut audit, place(2)).await.as_deref(), Some(WHO), "another tenant's");
    let told = control.erase_personal(erasing(WHO, "", false)).await.unwrap().into_inner();
    assert_eq!((told.decisions, told.pending), (1, false));
    let store = server.directory.path().join("placet.db");
    assert!(!is_anywhere(&store, WHO), "neither a row nor a page nor the write-ahead log has it");
    assert!(is_anywhere(&store, "bob"));
    let told = control.erase_personal(erasing(WHO, "", false)).await.unwrap().into_inner();
    assert_eq!(told.decisions, 0);

    // Who asks again gets what was decided, though nobody can say any more who asked first.
    for (request, answer) in &decided {
        let again = server.client().admit(request.clone()).await.unwrap().into_inner();
        assert_eq!((&again.token, again.position), (&answer.token, answer.position));
    }
    assert_eq!(kept(&mut audit, place(1)).await.as_deref(), Some("bob"));
    let key = std::fs::read(server.directory.path().join("keys").join(CHECKPOINT_KEY_FILE));
    let key = SigningKey::from_pkcs8(&key.unwrap()).unwrap();
    for receipt in [before, receipt(&mut audit, place(0)).await] {
        receipt.verify(ISSUER, key.verifying_key()).unwrap();
        assert_eq!(receipt.index(), place(0));
    }
    let filter = audit::EventFilter {
        kinds: vec![audit::EventKind::Erasure.into()],
        ..audit::EventFilter::default()
    };
    let request = audit::ListEventsRequest { filter: Some(filter), ..Default::default() };
    let mut listed = audit.list_events(request).await.unwrap().into_inner();
    for decisions in [2, 1] {
        let event = listed.message().await.unwrap().unwrap().event.unwrap();
        let leaf: Leaf = serde_json::from_str(&event.leaf).unwrap();
        assert_eq!(leaf.event, Event::Erasure { caller: id("loopback"), decisions });
    }
    assert_eq!(listed.message().await.unwrap().unwrap().event, None, "nothing erased, no leaf");
    let directory = server.stop().await;
    let verified = verify(&directory.path().join("placet.db")).unwrap();
    assert_eq!(verified.decisions, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_what_nobody_is_called_is_refused() {
    let (server, _) = start().await;
    for (request, field) in [
        (erasing("", "", false), "subject"),
        (erasing(&"a".repeat(257), "", false), "subject"),
        (erasing("a\nb", "", false), "subject"),
        (erasing("ada", "no tenant", false), "tenant_id"),
    ] {
        let status = server.control().erase_personal(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let message = status.message();
        assert!(message.contains(&format!("`{field}`")) && message.contains("hint: "), "{message}");
    }
    server.stop().await;
    let server = Running::start().await;
    let status = server.control().erase_personal(erasing("ada", "", true)).await.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().map(|it| it.reason.as_str());
    assert_eq!((status.code(), reason), (Code::PermissionDenied, Some("NOT_AN_OPERATOR")));
    server.stop().await;
}

#[test]
fn a_copy_is_erased_without_a_word_in_its_log() {
    const WHO: &str = "ada-91c2@example.org";
    let world = World::new();
    let (store, copy) = (world.store(), world.store().with_file_name("copy.db"));
    let person = Person::new(WHO, "").unwrap();
    run(async {
        let sequencer = world.start();
        for number in 0..5 {
            let subject = if number == 3 { "bob" } else { WHO };
            decide(&sequencer, asked(number, subject, 1_000)).await.unwrap();
        }
        let in_use = erase_personal(&store, &person, false).unwrap_err();
        assert!(matches!(in_use, EraseError::Open(OpenError::InUse { .. })), "{in_use}");
        sequencer.close().await;
    });
    let made = backup(&store, &copy).unwrap();
    assert!(has(&copy, WHO));
    let would = erase_personal(&copy, &person, true).unwrap();
    assert_eq!((would.decisions, has(&copy, WHO)), (4, true));
    let others = Person::new(WHO, "north").unwrap();
    assert_eq!(erase_personal(&copy, &others, false).unwrap().decisions, 0);
    let erased = erase_personal(&copy, &person, false).unwrap();
    assert_eq!((erased.decisions, erased.is_pending), (4, false));
    assert!(!is_anywhere(&copy, WHO) && has(&copy, "bob"));
    assert!(has(&store, WHO), "what was copied keeps what it has");
    assert_eq!(verify(&copy).unwrap().head, made.head);
    let nothing = world.store().with_file_name("nothing.db");
    erase_personal(&nothing, &person, false).unwrap_err();
    assert!(!nothing.exists(), "looking must not make it");
}

#[test]
fn no_page_keeps_a_copy_of_what_was_moved() {
    // A page that is full is split, and one that has holes is packed: whatever SQLite moves then
    // must not be left where it was. So: many values of every length, and many gone in between.
    const ROUNDS: u64 = 24;
    const SUBJECTS: u64 = 40;
    let world = World::new();
    let mut stepper = open(&world, None, 1_000);
    let (mut number, mut kept) = (0_u64, 0);
    for round in 0..ROUNDS {
        let steps = (0..240).map(|_| {
            number += 1;
            let who = number * 7_919 % SUBJECTS;
            let filler = "x".repeat(usize::try_from(number * 31 % 190).unwrap());
            Step::Propose(asked(number, &format!("who-{who}-{filler}-gone"), 1_000))
        });
        stepper.serve(steps.collect(), 1_000);
        for who in (0..SUBJECTS).filter(|who| who % ROUNDS == round || who % 3 == round % 3) {
            let prefix = format!("who-{who}-");
            let positions = all_kept(&world.store())
                .into_iter()
                .filter(|(_, value)| value.starts_with(&prefix))
                .map(|(position, _)| position)
                .collect();
            let erase = Erase { caller: id("officer"), positions, time: 1_000 };
            stepper.serve(vec![Step::Erase(erase)], 1_000);
        }
        kept = all_kept(&world.store()).len();
    }
    assert!(kept > 0, "some stay to the last");
    let positions = all_kept(&world.store()).into_keys().collect();
    let erase = Erase { caller: id("officer"), positions, time: 1_000 };
    stepper.serve(vec![Step::Erase(erase)], 1_000);
    stepper.serve(Vec::new(), 1_001);
    assert!(!is_anywhere(&world.store(), "-gone") && !is_anywhere(&world.store(), "who-"));
}

#[test]
fn whoever_reads_by_the_write_ahead_log_delays_only_its_end() {
    const WHO: &str = "ada-55d0@example.org";
    let world = World::new();
    run(async {
        let sequencer = world.start();
        decide(&sequencer, asked(0, WHO, 1_000)).await.unwrap();
        let position = sequencer.size() - 1;
        let reading = Connection::open(world.store()).unwrap();
        reading.execute_batch("BEGIN; SELECT count(*) FROM leaves;").unwrap();
        let erase = Erase { caller: id("officer"), positions: vec![position], time: 1_000 };
        assert_eq!(sequencer.erase(erase).await.unwrap(), 1);
        assert!(!sequencer.purge().await.unwrap(), "it is read by");
        decide(&sequencer, asked(1, "bob", 1_000)).await.unwrap();
        reading.execute_batch("COMMIT").unwrap();
        assert!(sequencer.purge().await.unwrap());
        assert!(!is_anywhere(&world.store(), WHO));
        sequencer.close().await;
    });
}

fn open(world: &World, kept_for: Option<u64>, now: u64) -> Stepper {
    let store = StoreOptions {
        faults: world.faults.clone(),
        personal_for_seconds: kept_for,
        ..StoreOptions::default()
    };
    let options = Options { clock: Clock::System, ..options() };
    let (name, signer) = ("0123456789abcdef0123456789abcdef", world.signer.clone());
    Stepper::open(&world.store(), options, store, signer, activation(), (name, now)).unwrap()
}

/// Positions at which a value is kept, by subject.
fn all_kept(store: &Path) -> BTreeMap<u64, String> {
    let reading = Connection::open(store).unwrap();
    let mut select = reading
        .prepare("SELECT number / 16, path, value FROM personal_values WHERE kept = 1")
        .unwrap();
    let rows = select.query_map([], |row| {
        Ok((
            u64::try_from(row.get::<_, i64>(0)?).unwrap(),
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
        ))
    });
    let row = |row: rusqlite::Result<(u64, String, String)>| {
        let (position, path, value) = row.unwrap();
        assert_eq!(path, FIELD);
        (position, value)
    };
    rows.unwrap().map(row).collect()
}

#[test]
fn values_go_when_they_are_old_enough_and_not_before() {
    const FIRST: u64 = 10_000;
    let world = World::new();
    let mut stepper = open(&world, Some(HOUR), FIRST);
    // More than are erased in one commit, and one that is a second younger.
    let count = 2 * MAX_ERASED as u64 + 7;
    let all: Vec<u64> = (0..count).collect();
    for some in all.chunks(256) {
        let ask = |number: &u64| Step::Propose(asked(*number, "ada", FIRST));
        stepper.serve(some.iter().map(ask).collect(), FIRST);
    }
    stepper.serve(vec![Step::Propose(asked(count, "ada", FIRST + 1))], FIRST + 1);
    let kept = || all_kept(&world.store()).len() as u64;
    let at = |stepper: &mut Stepper, time| {
        assert!(stepper.serve(Vec::new(), time).is_empty());
        kept()
    };
    // It is looked at every 15 minutes: the last time when none is older than an hour.
    for time in [FIRST + HOUR / 2, FIRST + HOUR, FIRST + HOUR + 1, FIRST + HOUR + 899] {
        assert_eq!(at(&mut stepper, time), count + 1, "{time}");
    }
    drop(stepper);
    let mut stepper = open(&world, None, FIRST + HOUR + 1);
    assert_eq!(at(&mut stepper, FIRST + HOUR + 1), count + 1, "kept for ever");
    drop(stepper);
    // The first look is a while after the start, in which a wrong clock can be mended.
    let mut stepper = open(&world, Some(HOUR), FIRST + HOUR + 1 - 900);
    assert_eq!(at(&mut stepper, FIRST + HOUR), count + 1);
    let leaves = stepper.reader().size().unwrap();
    assert_eq!(at(&mut stepper, FIRST + HOUR + 1), 1, "all that are old enough, at once");
    assert_eq!(stepper.reader().size().unwrap(), leaves, "age needs no leaf");
    // What fails is tried again at the next look.
    for (look, fault) in [(1, Some(Fault::Commit)), (2, Some(Fault::CommitUnknown)), (3, None)] {
        fault.iter().for_each(|fault| world.faults.push(*fault));
        let time = FIRST + HOUR + 1 + look * 900;
        assert_eq!(at(&mut stepper, time), u64::from(fault.is_some()), "{fault:?}");
        assert_eq!(world.faults.pending(), 0);
    }
    assert_eq!(stepper.reader().size().unwrap(), leaves);
    // A clock that has jumped makes nothing old.
    let time = FIRST + 2 * HOUR;
    stepper.serve(vec![Step::Propose(asked(count + 1, "bob", time))], time);
    assert_eq!(at(&mut stepper, time + 1_000 * HOUR), 1);
    drop(stepper);
    verify(&world.store()).unwrap();
}

/// Names that nothing else in a file looks like.
const WHO: [&str; 3] = ["ada-6b1f@example.org", "bob-6b1f@example.org", "eve-6b1f@example.org"];

/// What happens to a log and to what is kept beside it.
#[derive(Debug, Clone)]
enum Act {
    Decide(&'static str),
    /// Erases what one is named by, the same twice in one batch, and positions that have nothing.
    Erase(&'static str, Option<Fault>),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let who = || prop::sample::select(WHO.to_vec());
    let fault = prop::option::of(prop::sample::select(vec![
        Fault::Commit,
        Fault::CommitUnknown,
        Fault::CommitPersisted,
        Fault::Sign,
    ]));
    let act = prop_oneof![
        6 => who().prop_map(Act::Decide),
        3 => (who(), fault).prop_map(|(who, fault)| Act::Erase(who, fault)),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..40)
}

/// Erasures that the log tells of, and of how many decisions each.
fn told(stepper: &Stepper) -> Vec<u64> {
    let size = stepper.reader().size().unwrap();
    let leaves = stepper.reader().leaves(0, size).unwrap();
    let events = leaves.iter().map(|leaf| serde_json::from_slice::<Leaf>(leaf).unwrap().event);
    let erased = events.filter_map(|event| match event {
        Event::Erasure { decisions, .. } => Some(decisions),
        _ => None,
    });
    erased.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is kept is what was decided and not erased, and the log counts every erasure once,
    /// whatever fails.
    #[test]
    fn a_model_keeps_what_the_store_keeps(acts in acts()) {
        let world = World::new();
        let mut stepper = open(&world, None, 1_000);
        let mut kept = BTreeMap::new();
        let (mut erasures, mut number) = (Vec::new(), 0);
        for act in acts {
            number += 1;
            match act {
                Act::Decide(who) => {
                    let asked = Step::Propose(asked(number, who, 1_000));
                    let answer = stepper.serve(vec![asked], 1_000);
                    let Ok(Reply::Decided(decided)) = &answer[0] else { panic!("{answer:?}") };
                    kept.insert(decided[0].position, who.to_owned());
                }
                Act::Erase(who, fault) => {
                    let size = stepper.reader().size().unwrap();
                    let found = stepper.reader().personal_of((FIELD, who), 0..size).unwrap();
                    let expected: Vec<u64> = kept
                        .iter()
                        .filter(|(_, of)| *of == who)
                        .map(|(position, _)| *position)
                        .collect();
                    prop_assert_eq!(&found, &expected);
                    let count = found.len() as u64;
                    let positions = [vec![0, size, u64::MAX], found.clone(), found].concat();
                    let erase = Erase { caller: id("officer"), positions, time: 1_000 };
                    world.faults.clear();
                    fault.iter().for_each(|fault| world.faults.push(*fault));
                    let twice = vec![Step::Erase(erase.clone()), Step::Erase(erase)];
                    let answers = stepper.serve(twice, 1_000);
                    let is_lost = |answer: &Result<Reply, SequencerError>| answer.is_err();
                    if answers.iter().any(is_lost) {
                        prop_assert!(fault.is_some() && answers.iter().all(is_lost));
                        prop_assert_eq!(all_kept(&world.store()), kept.clone(), "none of it");
                    } else {
                        prop_assert_eq!(&answers[0], &Ok(Reply::Erased(count)));
                        prop_assert_eq!(&answers[1], &Ok(Reply::Erased(0)));
                        kept.retain(|_, of| of != who);
                        erasures.extend(Some(count).filter(|count| *count > 0));
                    }
                    world.faults.clear();
                }
                Act::Restart => {
                    drop(stepper);
                    stepper = open(&world, None, 1_000);
                }
            }
            prop_assert_eq!(&all_kept(&world.store()), &kept);
            prop_assert_eq!(&told(&stepper), &erasures);
        }
        // What is written next empties the write-ahead log, too.
        stepper.serve(Vec::new(), 1_002);
        for who in WHO {
            let is_kept = kept.values().any(|of| of == who);
            prop_assert_eq!(is_anywhere(&world.store(), who), is_kept, "{}", who);
        }
        drop(stepper);
        verify(&world.store()).unwrap();
    }
}
