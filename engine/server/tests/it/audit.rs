//! The service for auditors: what is listed is what a plain search of the log finds, from any
//! position on and in both orders; decisions by every name; proofs of every leaf.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use placet_core::merkle::ConsistencyProof;
use placet_core::{
    Checkpoint, Code, Counterfactual, Digest, Effect, Id, Reason, Receipt, SigningKey, Warning,
};
use placet_proto::admission::v1 as admission;
use placet_proto::audit::v1 as proto;
use placet_proto::audit::v1::EventKind;
use placet_proto::audit::v1::audit_service_client::AuditServiceClient;
use placet_proto::audit::v1::get_decision_request::Decision as Named;
use placet_proto::audit::v1::get_receipt_request::Leaf as Wanted;
use placet_server::sequencer::{Proposal, SequencerHandle, Settle, SettleKind, Target};
use placet_server::signer::CHECKPOINT_KEY_FILE;
use rusqlite::Connection;
use serde_json::Value;
use sha2::Sha256;
use tonic::transport::Channel;
use tonic::{Code as Status, Streaming};
use tonic_types::StatusExt as _;

use crate::preemption::{burst, sold};
use crate::running::Running;
use crate::world::{ISSUER, World, activation, decide, id, path, proposal, run, settled};

pub(crate) type Client = AuditServiceClient<Channel>;

/// Whole numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// One of `0..sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's MMIX constants; the low bits are left out, they repeat soon.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

const TENANTS: [&str; 3] = ["acme", "acme-eu", "north"];
const POLICIES: [&str; 2] = ["isolation", "residency"];
const CODES: [&str; 3] = ["ISOLATION_TOO_WEAK", "DATA_MAY_NOT_LEAVE", "LATE"];

/// A request that is permitted, perhaps with a warning, or denied by a policy.
fn random_request(name: &str, tenant: &str, time: u64, dice: &mut Dice) -> Box<Proposal> {
    let mut asked = proposal(name, 1, 60 + dice.roll(400), time);
    asked.request.tenant_id = id(tenant);
    asked.request_digest = Digest::of(name.as_bytes());
    let outcome = &mut asked.candidates[0].outcome;
    for claimed in &mut outcome.claims {
        let account = claimed.claim.account.as_str().replace("acme", tenant);
        claimed.claim.account = path(&account);
    }
    let policy = dice.pick(&POLICIES);
    let code = Code::new(dice.pick(&CODES)).unwrap();
    if dice.roll(4) == 0 {
        let message = "mind it".to_owned();
        outcome.warnings.push(Warning { code, message, policy: id(policy) });
    } else if dice.roll(3) == 0 {
        outcome.effect = Effect::Deny;
        outcome.claims.clear();
        asked.candidates[0].limits.clear();
        let account = path(&format!("cluster/{policy}/gpu"));
        let counterfactual = (dice.roll(2) == 0).then_some(Counterfactual {
            account,
            duration_seconds: None,
            gpu_count: Some(1),
            start: None,
        });
        let message = "no".to_owned();
        let (field, hint, retry) = (None, None, false);
        let reason =
            Reason { code, counterfactual, field, hint, message, policy: id(policy), retry };
        asked.candidates[0].outcome.reasons.push(reason);
    }
    asked
}

/// A history of everything that the sequencer logs, of several tenants.
async fn history(sequencer: &SequencerHandle, dice: &mut Dice) {
    for name in ["e-1", "e-2"] {
        decide(sequencer, sold(name, 6)).await.unwrap();
        let target = Target::ByRequest(id(name));
        let (kind, caller, tenant) = (SettleKind::Confirm, id("scheduler"), id("acme"));
        let confirm = Settle { kind, caller, tenant, target, epoch: 1, time: 1_000 };
        settled(sequencer, confirm).await.unwrap();
    }
    decide(sequencer, burst("i-1", 36, 1_100)).await.unwrap();
    let mut permitted = Vec::new();
    let mut time = 1_500;
    for number in 0..220 {
        time += dice.roll(20);
        let name = format!("r-{number}");
        match dice.roll(10) {
            0..6 => {
                let tenant = dice.pick(&TENANTS);
                let asked = random_request(&name, tenant, time, dice);
                let decided = decide(sequencer, asked).await.unwrap();
                if decided.effect == Effect::Permit {
                    permitted.push((name, tenant));
                }
            }
            6..9 if !permitted.is_empty() => {
                let at = usize::try_from(dice.roll(permitted.len() as u64)).unwrap();
                let (name, tenant) = permitted[at].clone();
                let kind = dice.pick(&[SettleKind::Confirm, SettleKind::Release]);
                let (caller, tenant) = (id("scheduler"), id(tenant));
                let target = Target::ByRequest(id(&name));
                let settle = Settle { kind, caller, tenant, target, epoch: 1, time };
                // It may have ended meanwhile, which is no event.
                drop(settled(sequencer, settle).await);
            }
            _ => {
                let mut other = activation();
                other.facts = (Digest::of(name.as_bytes()), name);
                sequencer.activate(other, time).await.unwrap();
                sequencer.activate(activation(), time).await.unwrap();
            }
        }
    }
}

/// A server on a store with a random history, whose operator everybody on this machine is.
async fn start(seed: u64) -> (Running, Client) {
    let made = tokio::task::spawn_blocking(move || {
        let world = World::new();
        run(async {
            let sequencer = world.start();
            history(&sequencer, &mut Dice(seed)).await;
            sequencer.close().await;
        });
        std::fs::read(world.store()).unwrap()
    });
    let store = made.await.unwrap();
    let server = Running::start_with(move |settings, directory| {
        settings.operators = vec![Id::new("loopback").unwrap()];
        settings.checkpoint_every_seconds = 1;
        std::fs::write(directory.join("placet.db"), store).unwrap();
    })
    .await;
    let client = client(&server);
    (server, client)
}

pub(crate) fn client(server: &Running) -> Client {
    AuditServiceClient::new(server.channel.clone()).max_decoding_message_size(usize::MAX)
}

/// Events of a stream up to its end, which is told by a last response without one.
async fn all(mut stream: Streaming<proto::EventsResponse>) -> (Vec<proto::Event>, Option<u64>) {
    let mut found = Vec::new();
    loop {
        let told = stream.message().await.unwrap().expect("the last one has no event");
        match told.event {
            Some(event) => found.push(event),
            None => {
                assert!(stream.message().await.unwrap().is_none(), "it ends");
                return (found, told.next);
            }
        }
    }
}

async fn list(
    client: &mut Client,
    request: proto::ListEventsRequest,
) -> (Vec<proto::Event>, Option<u64>) {
    all(client.list_events(request).await.unwrap().into_inner()).await
}

/// The claims of a token.
fn claims(token: &Value) -> Value {
    let claims = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

fn strings<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|it| it[name].as_str()).collect()
}

/// What the model knows of a leaf.
#[derive(Debug, Default)]
struct Known {
    time: u64,
    kind: String,
    tenant: String,
    effect: String,
    policies: Vec<String>,
    codes: Vec<String>,
    accounts: Vec<String>,
}

/// Reads the leaves as JSON, with nothing of what the server does.
fn known(leaves: &[String]) -> Vec<Known> {
    let mut tenants: BTreeMap<String, String> = BTreeMap::new();
    let mut all = Vec::new();
    for leaf in leaves {
        let leaf: Value = serde_json::from_str(leaf).unwrap();
        let event = &leaf["event"];
        let kind = event["kind"].as_str().unwrap().to_owned();
        let mut known = Known { time: leaf["time"].as_u64().unwrap(), kind, ..Known::default() };
        let own = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        if known.kind == "decision" {
            let claims = claims(&event["token"]);
            known.tenant = claims["tenant_id"].as_str().unwrap().to_owned();
            known.effect = claims["effect"].as_str().unwrap().to_owned();
            let charges = &claims["reservation"]["charges"];
            known.accounts = own(strings(charges, "account"));
            for part in ["reasons", "warnings"] {
                known.policies.extend(own(strings(&claims[part], "policy")));
                known.codes.extend(own(strings(&claims[part], "code")));
            }
            for reason in claims["reasons"].as_array().unwrap() {
                let account = reason["counterfactual"]["account"].as_str();
                known.accounts.extend(account.map(str::to_owned));
            }
            if let Some(reservation) = claims["reservation"]["id"].as_str() {
                tenants.insert(reservation.to_owned(), known.tenant.clone());
            }
        }
        for name in ["reservation", "victim"] {
            if let Some(reservation) = event[name].as_str() {
                known.tenant = tenants[reservation].clone();
            }
        }
        known.accounts.extend(own(strings(&event["refunds"], "account")));
        known.accounts.extend(own(strings(&event["changed"], "account")));
        all.push(known);
    }
    all
}

impl Known {
    fn fits(&self, request: &proto::ListEventsRequest) -> bool {
        let filter = request.filter.clone().unwrap_or_default();
        let until = request.until_time.unwrap_or(u64::MAX);
        let one = |wanted: &[String], have: &[String]| {
            wanted.is_empty() || wanted.iter().any(|it| have.contains(it))
        };
        let kinds: Vec<String> =
            filter.kinds().map(|kind| kind.as_str_name().to_lowercase()).collect();
        let effects: Vec<String> =
            filter.effects().map(|effect| effect.as_str_name().to_owned()).collect();
        let under = |wanted: &String, account: &String| {
            account == wanted || account.starts_with(&format!("{wanted}/"))
        };
        let accounts = filter.accounts.is_empty()
            || filter.accounts.iter().any(|it| self.accounts.iter().any(|own| under(it, own)));
        self.time >= request.from_time
            && self.time < until
            && one(&kinds, std::slice::from_ref(&self.kind))
            && one(&filter.tenants, std::slice::from_ref(&self.tenant))
            && one(&effects, std::slice::from_ref(&self.effect))
            && one(&filter.policies, &self.policies)
            && one(&filter.codes, &self.codes)
            && accounts
    }
}

/// A random filter: of each list none, one or two values.
fn random_filter(dice: &mut Dice) -> proto::EventFilter {
    let mut some = |from: &[&str], often: u64| -> Vec<String> {
        let count = if dice.roll(often) == 0 { 1 + dice.roll(2) } else { 0 };
        let picked: BTreeSet<&str> = (0..count).map(|_| dice.pick(from)).collect();
        picked.into_iter().map(str::to_owned).collect()
    };
    let kinds = some(&["DECISION", "CONFIRMATION", "RELEASE", "EXPIRY", "EVICTION_ORDER"], 3);
    let effects = some(&["PERMIT", "DENY"], 5);
    let mut policies = POLICIES.to_vec();
    policies.push("placet");
    let mut codes = CODES.to_vec();
    codes.push("QUOTA_EXCEEDED");
    let accounts = ["tenant/acme", "tenant/north/gpu", "cluster", "tenant/acme-eu/gpu-seconds"];
    let kind = |name: &String| EventKind::from_str_name(name).unwrap().into();
    let effect = |name: &String| admission::Effect::from_str_name(name).unwrap().into();
    proto::EventFilter {
        kinds: kinds.iter().map(kind).collect(),
        tenants: some(&TENANTS, 3),
        effects: effects.iter().map(effect).collect(),
        policies: some(&policies, 5),
        codes: some(&codes, 5),
        accounts: some(&accounts, 4),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_what_a_plain_search_finds() {
    let (server, mut client) = start(1).await;
    let (everything, next) = list(&mut client, proto::ListEventsRequest::default()).await;
    assert_eq!(next, Some(everything.len() as u64));
    let positions: Vec<u64> = everything.iter().map(|event| event.position).collect();
    assert!(positions.iter().copied().eq(0..everything.len() as u64), "each leaf once");
    let leaves: Vec<String> = everything.iter().map(|event| event.leaf.clone()).collect();
    let known = known(&leaves);
    for (event, known) in everything.iter().zip(&known) {
        assert_eq!((event.time, &event.tenant_id), (known.time, &known.tenant));
        assert_eq!(event.kind().as_str_name().to_lowercase(), known.kind);
    }
    let kinds: BTreeSet<&str> = known.iter().map(|it| it.kind.as_str()).collect();
    assert!(kinds.len() >= 8, "one of each kind that is written: {kinds:?}");
    let (first, last) = (known[3].time, known[known.len() - 20].time);

    let (mut dice, mut hits) = (Dice(7), [0_usize; 2]);
    for turn in 0..300 {
        let filter = random_filter(&mut dice);
        let mut request = proto::ListEventsRequest { filter: Some(filter), ..Default::default() };
        if dice.roll(3) == 0 {
            request.from_time = first + dice.roll(last - first);
        }
        if dice.roll(3) == 0 {
            request.until_time = Some(request.from_time.max(first) + 1 + dice.roll(2_000));
        }
        let expected: Vec<u64> =
            (0..).zip(&known).filter(|(_, it)| it.fits(&request)).map(|(at, _)| at).collect();
        let (found, _) = list(&mut client, request.clone()).await;
        let found: Vec<u64> = found.iter().map(|event| event.position).collect();
        assert_eq!(found, expected, "turn {turn}: {request:?}");
        request.newest_first = true;
        let (found, _) = list(&mut client, request.clone()).await;
        let found: Vec<u64> = found.iter().rev().map(|event| event.position).collect();
        assert_eq!(found, expected, "turn {turn}, newest first: {request:?}");
        hits[usize::from(expected.is_empty())] += 1;
    }
    assert!(hits[0] > 60, "{hits:?}: filters that find something");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_from_every_position_and_page_by_page() {
    let (server, mut client) = start(2).await;
    let filter = Some(proto::EventFilter {
        tenants: vec!["acme".to_owned(), "north".to_owned()],
        ..Default::default()
    });
    let request = proto::ListEventsRequest { filter, ..Default::default() };
    let (whole, size) = list(&mut client, request.clone()).await;
    let size = size.unwrap();
    assert!(whole.len() > 100, "{}", whole.len());
    for position in 0..=size {
        let position = Some(position);
        let onward = proto::ListEventsRequest { position, ..request.clone() };
        let (found, next) = list(&mut client, onward).await;
        let rest = whole.iter().filter(|event| Some(event.position) >= position);
        assert!(found.iter().eq(rest), "from {position:?}");
        assert_eq!(next, Some(size));
        let back = proto::ListEventsRequest { position, newest_first: true, ..request.clone() };
        let (found, next) = list(&mut client, back).await;
        let rest = whole.iter().rev().filter(|event| Some(event.position) <= position);
        assert!(found.iter().eq(rest), "back from {position:?}");
        assert_eq!(next, None, "the first leaf was looked at");
    }
    for newest_first in [false, true] {
        let mut page = proto::ListEventsRequest { most: 7, newest_first, ..request.clone() };
        let mut found = Vec::new();
        loop {
            let (events, next) = list(&mut client, page.clone()).await;
            assert!(events.len() <= 7);
            let is_last = events.len() < 7;
            found.extend(events);
            if is_last {
                break;
            }
            page.position = next;
        }
        if newest_first {
            found.reverse();
        }
        assert_eq!(found, whole, "{newest_first}");
    }
    server.stop().await;
}

/// The facts of the shipped bundle admit it.
pub(crate) fn admit(request_id: &str) -> admission::AdmitRequest {
    let lease = r#"{"tenant_id": "platform-tools", "priority_class": "INTERNAL_RESEARCH",
        "principal": {"issuer": "https://idp.example", "subject": "ada"},
        "lease": {"cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["A100"]}}"#;
    let request = placet_proto::json::from_json(lease).unwrap();
    admission::AdmitRequest { request_id: request_id.to_owned(), ..request }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_goes_on_as_the_log_grows() {
    let (server, mut client) = start(3).await;
    let kinds = vec![EventKind::Decision.into()];
    let filter = Some(proto::EventFilter { kinds, ..Default::default() });
    let listed = proto::ListEventsRequest { filter: filter.clone(), ..Default::default() };
    let (old, size) = list(&mut client, listed).await;
    let from_start = proto::TailRequest { filter: filter.clone(), position: Some(0) };
    let mut from_start = client.tail(from_start).await.unwrap().into_inner();
    for event in old {
        let told = from_start.message().await.unwrap().unwrap();
        assert_eq!(told.next, Some(event.position + 1));
        assert_eq!(told.event, Some(event));
    }
    let quiet = from_start.message().await.unwrap().unwrap();
    assert_eq!((quiet.event, quiet.next), (None, size), "it has caught up");
    let mut new_ones = client.tail(proto::TailRequest { filter, position: None }).await.unwrap();
    let caught_up = new_ones.get_mut().message().await.unwrap().unwrap();
    assert_eq!((caught_up.event, caught_up.next), (None, size));
    for number in 0..3 {
        let name = format!("t-{number}");
        let answer = server.client().admit(admit(&name)).await.unwrap().into_inner();
        for tail in [&mut from_start, new_ones.get_mut()] {
            let told = tail.message().await.unwrap().unwrap().event.unwrap();
            assert_eq!(told.position, answer.position);
            assert_eq!(told.tenant_id, "platform-tools");
        }
    }
    let ahead = proto::TailRequest { filter: None, position: Some(1_000_000) };
    let ahead = client.tail(ahead).await.unwrap_err();
    assert_eq!(reason(&ahead), "POSITION_AHEAD");
    server.stop().await;
}

pub(crate) fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    assert!(status.message().contains("hint: "), "{status:?}");
    details.error_info().map(|it| it.reason.clone()).unwrap_or_default()
}

async fn decision(
    client: &mut Client,
    named: Named,
) -> Result<proto::GetDecisionResponse, tonic::Status> {
    let request = proto::GetDecisionRequest { decision: Some(named), with_evidence: true };
    client.get_decision(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_found_by_every_name_and_says_what_is_erased() {
    let (server, mut client) = start(4).await;
    let answer = server.client().admit(admit("new-1")).await.unwrap().into_inner();
    let found = decision(&mut client, Named::Position(answer.position)).await.unwrap();
    assert_eq!((&found.token, found.position), (&answer.token, answer.position));
    assert_eq!((found.caller.as_str(), found.request_id.as_str()), ("loopback", "new-1"));
    let told = claims(&Value::String(found.token.clone()));
    assert_eq!(told["jti"], *found.decision_id);
    let leaf: Value = serde_json::from_str(&found.leaf).unwrap();
    assert_eq!(
        (&leaf["event"]["token"], &leaf["time"]),
        (&found.token.clone().into(), &told["iat"])
    );
    let evidence = found.evidence.clone().unwrap();
    let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
    assert_eq!(told["input_digest"], digest(evidence.input.as_deref().unwrap()));
    assert_eq!(told["evaluation_digest"], digest(&evidence.evaluation));
    let [value] = &found.personal[..] else { panic!("{:?}", found.personal) };
    assert_eq!((value.path.as_str(), value.value.as_str()), ("principal.subject", "ada"));
    let salt = STANDARD.decode(&value.salt).unwrap();
    let commitment = Digest::of_parts(&[&salt, b"principal.subject\0ada"]).hex();
    assert!(evidence.input.as_deref().unwrap().contains(&commitment), "the log commits to it");

    let by_reservation = found.decision_id.replace("dec-", "rsv-");
    let request = proto::RequestName { caller: "loopback".into(), request_id: "new-1".into() };
    for named in
        [Named::Id(found.decision_id.clone()), Named::Id(by_reservation), Named::Request(request)]
    {
        assert_eq!(decision(&mut client, named).await.unwrap(), found);
    }
    let decision_id = proto::GetDecisionRequest {
        decision: Some(Named::Id(found.decision_id.clone())),
        with_evidence: false,
    };
    let short = client.get_decision(decision_id).await.unwrap().into_inner();
    assert_eq!(short.evidence, None);

    let store = server.directory.path().join("placet.db");
    let erase = format!("DELETE FROM personal_values WHERE number / 16 = {}", found.position);
    Connection::open(store).unwrap().execute_batch(&erase).unwrap();
    let erased = decision(&mut client, Named::Position(found.position)).await.unwrap();
    let path = "principal.subject".to_owned();
    let gone = proto::PersonalValue { path, erased: true, ..Default::default() };
    assert_eq!(erased.personal, [gone]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_of_a_log_is_found_and_nothing_else_is_one() {
    let (server, mut client) = start(5).await;
    let (events, _) = list(&mut client, proto::ListEventsRequest::default()).await;
    let mut found = 0;
    for event in events {
        let by_position = decision(&mut client, Named::Position(event.position)).await;
        if event.kind() != EventKind::Decision {
            assert_eq!(reason(&by_position.unwrap_err()), "DECISION_NOT_FOUND");
            continue;
        }
        let by_position = by_position.unwrap();
        assert_eq!((&by_position.leaf, by_position.time), (&event.leaf, event.time));
        let by_id = decision(&mut client, Named::Id(event.decision_id)).await.unwrap();
        assert_eq!(by_id, by_position);
        found += 1;
    }
    assert!(found > 100, "{found}");
    server.stop().await;
}

pub(crate) fn key_of(keys: &std::path::Path) -> SigningKey {
    let der = std::fs::read(keys.join(CHECKPOINT_KEY_FILE)).unwrap();
    SigningKey::from_pkcs8(&der).unwrap()
}

pub(crate) fn receipt(leaf: Option<Wanted>, wait_seconds: u32) -> proto::GetReceiptRequest {
    proto::GetReceiptRequest { leaf, wait_seconds, witnesses: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leaf_has_a_receipt_and_every_size_a_proof() {
    let mut keys = PathBuf::new();
    let server = Running::start_with(|settings, _| {
        settings.operators = vec![Id::new("loopback").unwrap()];
        settings.checkpoint_every_seconds = 1;
        keys.clone_from(&settings.keys);
    })
    .await;
    let mut client = client(&server);
    let mut last = 0;
    for number in 0..30 {
        let name = format!("r-{number}");
        last = server.client().admit(admit(&name)).await.unwrap().into_inner().position;
    }
    let receipt = |leaf, wait_seconds| receipt(Some(leaf), wait_seconds);
    // The checkpoint that reaches the last leaf is waited for; it then reaches all of them.
    client.get_receipt(receipt(Wanted::Position(last), 60)).await.unwrap();
    let (events, _) = list(&mut client, proto::ListEventsRequest::default()).await;
    let key = key_of(&keys);
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut roots = vec![Digest::of(b"")];
    for event in &events {
        let told = client.get_receipt(receipt(Wanted::Position(event.position), 0)).await.unwrap();
        let told = told.into_inner();
        let read = Receipt::from_text(told.receipt.as_bytes()).unwrap();
        let logged = read.verify(ISSUER, key.verifying_key()).unwrap();
        assert_eq!((logged.index, logged.checkpoint.size), (event.position, told.size));
        assert_eq!(read.leaf(), event.leaf.as_bytes());
        if event.kind() == EventKind::Decision {
            let by_id = receipt(Wanted::Id(event.decision_id.clone()), 0);
            let by_id = client.get_receipt(by_id).await.unwrap().into_inner();
            assert_eq!(by_id, told);
        }
        tree.push(event.leaf.as_bytes().to_vec());
        let root: [u8; 32] = tree.root().as_bytes().as_slice().try_into().unwrap();
        roots.push(Digest::from_bytes(root));
    }
    let newest =
        client.get_checkpoint(proto::GetCheckpointRequest::default()).await.unwrap().into_inner();
    let checkpoint = Checkpoint::verify(&newest.checkpoint, ISSUER, key.verifying_key()).unwrap();
    let size = newest.size;
    assert_eq!((checkpoint.size, size), (size, events.len() as u64));
    let root = |size: u64| roots[usize::try_from(size).unwrap()];
    assert_eq!(checkpoint.root, root(size), "as a tree that we did not write has it");
    for new_size in 1..=size {
        for old_size in 1..=new_size {
            let asked = proto::GetConsistencyProofRequest { old_size, new_size };
            let told = client.get_consistency_proof(asked).await.unwrap().into_inner();
            assert_eq!(told.checkpoint, (new_size == size).then(|| newest.checkpoint.clone()));
            let hashes = told
                .hashes
                .iter()
                .map(|hash| Digest::from_bytes(STANDARD.decode(hash).unwrap().try_into().unwrap()));
            let proof = ConsistencyProof { hashes: hashes.collect() };
            proof.verify((old_size, root(old_size)), (new_size, root(new_size))).unwrap();
        }
    }
    let newest_one = proto::GetConsistencyProofRequest { old_size: 1, new_size: 0 };
    let told = client.get_consistency_proof(newest_one).await.unwrap().into_inner();
    assert_eq!((told.new_size, told.checkpoint), (size, Some(newest.checkpoint)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_is_not_proved() {
    let server = Running::start_with(|settings, _| {
        settings.operators = vec![Id::new("loopback").unwrap()];
        settings.checkpoint_every_seconds = 3_600;
    })
    .await;
    let mut client = client(&server);
    // The first checkpoint comes at once, the next one in an hour.
    let first = receipt(Some(Wanted::Position(0)), 60);
    let published = client.get_receipt(first).await.unwrap().into_inner().size;
    let admitted = server.client().admit(admit("r-1")).await.unwrap().into_inner().position;
    assert_eq!(admitted, published, "right behind the checkpoint");
    let leaf = Some(Wanted::Position(admitted));
    let early = receipt(leaf, 0);
    let early = client.get_receipt(early).await.unwrap_err();
    assert_eq!(
        (early.code(), reason(&early)),
        (Status::FailedPrecondition, "NOT_YET_PUBLISHED".into())
    );
    let says = format!("about position {admitted}, but the newest checkpoint is of {published}");
    assert!(early.message().contains(&says), "{early:?}");
    for (old_size, new_size, field) in
        [(1, published + 1, "new_size"), (published + 1, 0, "old_size")]
    {
        let asked = proto::GetConsistencyProofRequest { old_size, new_size };
        let early = client.get_consistency_proof(asked).await.unwrap_err();
        assert_eq!(reason(&early), "NOT_YET_PUBLISHED");
        assert!(early.message().contains(&format!("`{field}`")), "{early:?}");
    }
    server.stop().await;

    let server = Running::start_with(|settings, _| {
        settings.operators = vec![Id::new("loopback").unwrap()];
        settings.checkpoint_every_seconds = 0;
    })
    .await;
    let mut client = self::client(&server);
    let none = client.get_checkpoint(proto::GetCheckpointRequest::default()).await.unwrap_err();
    assert_eq!(reason(&none), "NOT_YET_PUBLISHED");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_names_its_field_and_the_remedy() {
    let (server, mut client) = start(6).await;
    let mut refused = Vec::new();
    for (named, field) in [
        (Some(Named::Id("dec-1".into())), "`id`"),
        (Some(Named::Id("r-1".into())), "`id`"),
        (Some(Named::Request(proto::RequestName::default())), "`request.caller`"),
        (None, "names no decision"),
    ] {
        let request = proto::GetDecisionRequest { decision: named, with_evidence: false };
        refused.push((client.get_decision(request).await.unwrap_err(), field));
    }
    type Change = fn(&mut proto::ListEventsRequest);
    let lists: [(Change, &str); 4] = [
        (|it| (it.from_time, it.until_time) = (7, Some(7)), "`until_time`"),
        (
            |it| it.filter.get_or_insert_default().tenants = vec!["a b".into()],
            "`filter.tenants[0]`",
        ),
        (|it| it.filter.get_or_insert_default().kinds = vec![0], "`filter.kinds[0]`"),
        (
            |it| it.filter.get_or_insert_default().accounts = vec!["a".into(); 65],
            "`filter.accounts`",
        ),
    ];
    for (change, field) in lists {
        let mut request = proto::ListEventsRequest::default();
        change(&mut request);
        refused.push((client.list_events(request).await.unwrap_err(), field));
    }
    let wrong = receipt(Some(Wanted::Position(0)), 61);
    refused.push((client.get_receipt(wrong).await.unwrap_err(), "`wait_seconds`"));
    let wrong = proto::GetReceiptRequest::default();
    refused.push((client.get_receipt(wrong).await.unwrap_err(), "names no leaf"));
    let wait = receipt(Some(Wanted::Position(0)), 60);
    client.get_receipt(wait).await.unwrap();
    for (old_size, new_size) in [(0, 0), (2, 1)] {
        let wrong = proto::GetConsistencyProofRequest { old_size, new_size };
        refused.push((client.get_consistency_proof(wrong).await.unwrap_err(), "`old_size`"));
    }
    for (status, field) in refused {
        assert_eq!(status.code(), Status::InvalidArgument, "{field}: {status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
        assert!(!reason(&status).is_empty());
    }
    let absent = Named::Id(format!("dec-{}", "0".repeat(32)));
    let absent = decision(&mut client, absent).await.unwrap_err();
    assert_eq!((absent.code(), reason(&absent)), (Status::NotFound, "DECISION_NOT_FOUND".into()));
    let beyond = proto::ListEventsRequest { position: Some(1 << 40), ..Default::default() };
    assert_eq!(reason(&client.list_events(beyond).await.unwrap_err()), "POSITION_AHEAD");
    let size = list(&mut client, proto::ListEventsRequest::default()).await.1.unwrap();
    for position in [size, u64::MAX] {
        let leaf = Some(Wanted::Position(position));
        let beyond = receipt(leaf, 0);
        let beyond = client.get_receipt(beyond).await.unwrap_err();
        assert_eq!(reason(&beyond), "POSITION_AHEAD");
        let says = format!("`position` is {position}, but this log has {size} leaves");
        assert!(beyond.message().contains(&says), "{beyond:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_operator_is_told_nothing() {
    let server = Running::start().await;
    let mut client = client(&server);
    let refused = [
        client.get_decision(proto::GetDecisionRequest::default()).await.map(drop),
        client.list_events(proto::ListEventsRequest::default()).await.map(drop),
        client.tail(proto::TailRequest::default()).await.map(drop),
        client.get_receipt(proto::GetReceiptRequest::default()).await.map(drop),
        client.get_checkpoint(proto::GetCheckpointRequest::default()).await.map(drop),
        client.get_consistency_proof(proto::GetConsistencyProofRequest::default()).await.map(drop),
    ];
    for refused in refused {
        let status = refused.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status)),
            (Status::PermissionDenied, "NOT_AN_OPERATOR".into())
        );
    }
    server.stop().await;
}
