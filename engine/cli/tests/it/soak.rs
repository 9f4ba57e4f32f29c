//! The crash test: the real server, under load, killed at any moment and started again, and an
//! auditor in another language that reads nothing but the store and what the clients wrote down.
//!
//! The seed draws the load and the kind of each kill. What the kill falls into is up to the
//! machine: that is the point, and why what was found names the folder in which everything is kept.

mod client;
mod load;
mod log;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use placet_core::Decision;
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_proto::admission::v1::stream_response::Answer;
use placet_proto::control::v1::control_service_client::ControlServiceClient;
use placet_proto::control::v1::{ActivateRequest, Source};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;

use crate::server::{READY, Starting, claims, placet, root};
use client::{Client, Cycle, Record, Via};
use load::Dice;
use log::LogReader;

/// Cycles that share a store. A start folds the whole log, so that a store for all would make later
/// cycles ever slower; and every new store is killed at its birth as well.
const CYCLES_PER_STORE: u64 = 20;
/// Clients: enough for batches of several commands on few cores.
const UNARY: u64 = 16;
const STREAMS: u64 = 2;
/// Answers after which a kill under load comes: the fewest, and how many more it may take.
const ANSWERS: (u64, u64) = (100, 800);
/// Answers after which a kill comes that is to fall into the first batch of a process.
const FIRST_ANSWERS: u64 = 4;
/// Milliseconds after the start within which a kill comes that is to fall into loading: a little
/// more than it takes.
const LOADING_MS: u64 = 60;
/// Milliseconds after the store was locked within which a kill comes that is to fall into folding
/// the log.
const RECOVERY_MS: u64 = 4;
/// Milliseconds for which no server runs after a kill: so that what is due meanwhile is the next
/// one's to end, and reservations have the time to become old enough to be displaced.
const DEAD_MS: u64 = 400;
/// Seconds for which the last server of a store goes on when all is answered: the longest grace of
/// an eviction, and one more.
const REST_SECONDS: u64 = 3;
/// One in how many cycles under load has other facts, with other trees of quotas, put into place.
const REPLACED: u64 = 5;
/// Cycles of a run that is doctored: it is audited once for every lie, and so kept short. Nearly
/// everything that somebody lies about happens in as many.
const DOCTORED_CYCLES: u64 = 4;
/// Their seeds: the further ones for the lies that the earlier ones have nothing for.
const DOCTORED: Range<u64> = 7..12;
/// What the doctor exits with when there are such.
const UNTOLD: i32 = 3;
/// Turns of the scheduler that a kill waits at most once it is due, so that it falls into any part
/// of a batch.
const TURNS: u64 = 64;

/// Into what a kill is to fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Bundle, facts and keys are read; on a new store's first start, keys are made.
    Loading,
    /// The store is open: its write-ahead log is recovered, its log folded.
    Recovery,
    /// The first batches, with everything that clients ask again.
    First,
    /// Load.
    Load,
}

impl Phase {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0 => Self::Loading,
            1..=2 => Self::Recovery,
            3 => Self::First,
            _ => Self::Load,
        }
    }
}

/// One store, its server and its clients.
struct World {
    folder: PathBuf,
    runtime: Runtime,
    clients: Vec<Client>,
    /// Absent while a server is under load.
    reader: Option<LogReader>,
    /// The key of the witness that it is, too.
    witness: String,
    runner: Record,
    marks: Marks,
    dice: Dice,
    /// States of the facts that were written so far, the first left out.
    states: u64,
}

impl World {
    fn new(folder: PathBuf, seed: u64) -> Self {
        load::write_world(&folder);
        let records = folder.join("records");
        std::fs::create_dir(&records).unwrap();
        let mut runner = Record::new(&records.join("runner.jsonl"));
        runner.line(&load::terms());
        runner.line(&load::told_facts(0));
        load::write_facts(&folder, 0);
        let record = Record::new(&records.join("marks.jsonl"));
        let marks = Marks { record, asked: 0, first: None };
        let via = |number| if number < UNARY { Via::Unary } else { Via::Stream };
        let clients = (0..UNARY + STREAMS)
            .map(|number| Client::new(&records, number, via(number), seed))
            .collect();
        let (runtime, dice) = (Runtime::new().unwrap(), Dice::new(seed, u64::MAX));
        let reader = Some(LogReader::new(&records, seed));
        let witness = reader.as_ref().map(LogReader::verifier_key).unwrap_or_default();
        Self { folder, runtime, clients, reader, witness, runner, marks, dice, states: 0 }
    }

    fn start(&self) -> Starting {
        let within = load::CONFIRM_WITHIN.to_string();
        // Several snapshots in the life of a store, so that kills fall into making and using them.
        let every = ["--snapshot-every", "1000"];
        // As often as can be, so that many are made and served, and kills fall into that.
        let checkpoints = ["--checkpoint-every", "1"];
        let more = ["--confirm-within", &within, "--watch", "0"];
        let witness = ["--witness", &self.witness];
        let more = [&more[..], &every, &checkpoints, &witness].concat();
        Starting::new(&self.folder, &self.folder.join("bundle"), &more)
    }

    /// Starts the server, and kills it in one of the phases; a line that says how it went. The last
    /// cycle of a store waits until everything is answered first.
    fn cycle(&mut self, number: u64, last: bool) -> String {
        let phase = if last { Phase::Load } else { Phase::draw(&mut self.dice) };
        let dead = self.dice.below(DEAD_MS);
        self.runtime.block_on(moment(dead));
        let (said, phase) = match phase {
            Phase::Loading | Phase::Recovery => self.kill_at_start(phase),
            Phase::First | Phase::Load => self.kill_under_load(number, phase, last),
        };
        let bad = ["panicked", "ERROR", "error: "].iter().any(|word| said.contains(word));
        assert!(!bad, "the server of {} says:\n{said}", self.folder.display());
        self.runner.line(&json!({"event": "kill", "cycle": number, "phase": phase}));
        let pending: usize = self.clients.iter().map(Client::pending).sum();
        format!("killed in {phase}, {pending} requests to be asked again")
    }

    fn kill_at_start(&mut self, phase: Phase) -> (String, &'static str) {
        let mut starting = self.start();
        let lock = self.folder.join("placet.db.lock");
        let (pid, dice) = (starting.id().to_string(), &mut self.dice);
        self.runtime.block_on(async {
            if phase == Phase::Recovery {
                let opened = || std::fs::read_to_string(&lock).is_ok_and(|holder| holder == pid);
                while !opened() && !starting.has_ended() {
                    tokio::task::yield_now().await;
                }
                moment(dice.below(RECOVERY_MS)).await;
            } else {
                moment(dice.below(LOADING_MS)).await;
            }
        });
        let opened = std::fs::read_to_string(&lock).ok() == Some(pid);
        let said = starting.kill();
        let fell = match (said.contains(READY), opened) {
            (true, _) => "idleness after the start",
            (false, true) => "recovery",
            (false, false) => "loading",
        };
        (said, fell)
    }

    /// Puts another state of the facts into place at some time up to a kill that comes after so
    /// many answers; it may fall into that.
    fn other_facts(
        &mut self,
        cycle: &Cycle,
        count: watch::Receiver<u64>,
        due: u64,
    ) -> impl Future<Output = ()> + 'static + use<> {
        self.states += 1;
        self.runner.line(&load::told_facts(self.states));
        let after = self.dice.below(due + 1);
        replace_facts((self.folder.clone(), self.states), count, after, cycle.url.clone())
    }

    fn kill_under_load(&mut self, number: u64, phase: Phase, last: bool) -> (String, &'static str) {
        let folder = self.folder.display().to_string();
        let mut server = self.start().ready();
        let jwks: Value = serde_json::from_str(&published_keys(server.http)).unwrap();
        let log_key = log_key(&self.folder);
        self.runner.line(&json!({
            "event": "ready", "cycle": number, "jwks": jwks, "log_key": log_key,
            "witness": self.witness,
        }));
        let due = match phase {
            Phase::Load => ANSWERS.0 + self.dice.below(ANSWERS.1),
            _ => self.dice.below(FIRST_ANSWERS),
        };
        let (answers, mut count) = watch::channel(0);
        let drain = Arc::new(AtomicBool::new(false));
        let cycle = Cycle { number, url: server.grpc_url(), drain: Arc::clone(&drain), answers };
        let replaced = phase == Phase::Load && !last && self.dice.once_in(REPLACED);
        let replace = replaced.then(|| self.other_facts(&cycle, count.clone(), due));
        let clients = std::mem::take(&mut self.clients);
        let (dice, marks, all) = (&mut self.dice, &mut self.marks, clients.len());
        let reader = self.reader.take().expect("no other server is under load");
        let (said, clients, reader) = self.runtime.block_on(async {
            let reading = tokio::spawn(reader.run(number, server.http, server.grpc_url()));
            if phase == Phase::Load {
                marks.ask(&cycle).await;
            }
            let mut running = JoinSet::new();
            for client in clients {
                running.spawn(client.run(cycle.clone()));
            }
            let replacing = replace.map(tokio::spawn);
            let mut ended = Vec::new();
            while ended.len() < all {
                tokio::select! {
                    reached = count.wait_for(|count| *count >= due) => {
                        reached.expect("the cycle keeps the sender");
                        break;
                    }
                    Some(client) = running.join_next() => ended.push(client.unwrap()),
                }
            }
            let gone = ended.len() == all;
            assert!(!gone, "in {}, it went before it was killed:\n{}", folder, server.kill());
            if last {
                drain.store(true, Ordering::Relaxed);
                while let Some(client) = running.join_next().await {
                    ended.push(client.unwrap());
                }
                marks.rest(&cycle).await;
            }
            for _ in 0..dice.below(TURNS) {
                tokio::task::yield_now().await;
            }
            let said = server.kill();
            while let Some(client) = running.join_next().await {
                ended.push(client.unwrap());
            }
            if let Some(replacing) = replacing {
                replacing.await.unwrap();
            }
            (said, ended, reading.await.unwrap())
        });
        (self.clients, self.reader) = (clients, Some(reader));
        self.clients.sort_by(|a, b| a.name().cmp(b.name()));
        (said, fell(phase, last))
    }
}

/// In what a server was killed that answers.
fn fell(phase: Phase, last: bool) -> &'static str {
    match phase {
        _ if last => "idleness at the end",
        Phase::Load => "load",
        Phase::First | Phase::Loading | Phase::Recovery => "the first batches",
    }
}

/// Writes another state of the facts after so many answers, and has the server take it, which may
/// be killed over it: then the next one takes it at its start.
async fn replace_facts(
    (folder, number): (PathBuf, u64),
    mut count: watch::Receiver<u64>,
    after: u64,
    url: String,
) {
    count.wait_for(|count| *count >= after).await.expect("the cycle keeps the sender");
    load::write_facts(&folder, number);
    let Ok(mut service) = ControlServiceClient::connect(url).await else { return };
    let request = ActivateRequest { sources: vec![Source::Facts.into()], ..Default::default() };
    if let Err(status) = service.activate(request).await {
        let refused = status.code() == Code::FailedPrecondition;
        assert!(!refused, "the facts of {} were refused: {status}", folder.display());
    }
}

/// Waits for a drawn while. Nothing depends on how long it really is.
async fn moment(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Questions of the runner's own.
struct Marks {
    record: Record,
    asked: u64,
    /// When the first was decided.
    first: Option<u64>,
}

impl Marks {
    /// Waits until who was told to go is gone, and what nobody confirmed has expired.
    async fn rest(&mut self, cycle: &Cycle) {
        let answered = self.ask(cycle).await;
        while self.ask(cycle).await <= answered + REST_SECONDS {
            moment(50).await;
        }
    }

    /// Asks something new; how many seconds, by the server's clock, after the first time.
    ///
    /// The first of a process is asked before anybody else asks: what the log has before it was
    /// stored by another process.
    async fn ask(&mut self, cycle: &Cycle) -> u64 {
        self.asked += 1;
        let ask = load::probe(format!("mark-{}", self.asked));
        let mut service = AdmissionServiceClient::connect(cycle.url.clone()).await.unwrap();
        self.record.asked(cycle.number, Via::Unary, &ask);
        let answer = client::call(&mut service, &ask).await.expect("nobody kills it yet");
        self.record.answered(cycle.number, &ask.request_id, &answer);
        let Answer::Admitted(admitted) = answer else { panic!("{answer:?} is no decision") };
        let decided: Decision = claims(&admitted.token);
        decided.iat - *self.first.get_or_insert(decided.iat)
    }
}

/// The server's JWK set.
fn published_keys(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // HTTP/1.0: the answer ends with the connection (RFC 1945 section 7.2.2).
    stream.write_all(b"GET /.well-known/jwks.json HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").expect("head and body").1.to_owned()
}

/// The key of the log's checkpoints, as its auditors get it.
fn log_key(folder: &Path) -> String {
    let mut command = placet();
    command.args(["keys", "log", "--keys"]).arg(folder.join("keys"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs a script of `tests/python`.
fn python(script: &str, arguments: &[&Path]) -> Output {
    let interpreter = root().join("target/venv/bin/python");
    assert!(interpreter.exists(), "{} is missing: run `make setup`", interpreter.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    Command::new(interpreter).arg("-B").arg(script).args(arguments).output().unwrap()
}

/// What the audits of all stores came to.
#[derive(Debug, Default)]
struct Summary {
    stores: u64,
    /// By what is counted.
    counts: BTreeMap<String, u64>,
    /// By code.
    denials: BTreeMap<String, u64>,
    /// The most that an account ever had, and its limit then.
    peaks: BTreeMap<String, (u64, u64)>,
    findings: Vec<String>,
}

impl Summary {
    /// A snapshot beside the store is what its log folds to, whatever it was killed over.
    fn verify(&mut self, folder: &Path) {
        let store = folder.join("placet.db");
        let mut command = placet();
        command.args(["ledger", "verify", "--format", "json", "--store"]).arg(&store);
        let output = command.output().unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            self.findings.push(format!("{}: {said}", folder.display()));
            return;
        }
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        *self.counts.entry("snapshots compared".into()).or_default() +=
            u64::from(told["snapshot"].is_u64());
    }

    fn audit(&mut self, folder: &Path) {
        let format = Path::new("--format=json");
        let (store, records) = (folder.join("placet.db"), folder.join("records"));
        let output = python("audit.py", &[&store, &records, format]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {error}", folder.display());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        self.stores += 1;
        let number = |value: &Value| value.as_u64().expect("the auditor counts");
        for (to, from) in [(&mut self.counts, "counts"), (&mut self.denials, "denials")] {
            for (name, count) in found[from].as_object().expect("an object") {
                *to.entry(name.clone()).or_default() += number(count);
            }
        }
        *self.counts.entry("signatures verified".into()).or_default() += number(&found["verified"]);
        for (account, peak) in found["peaks"].as_object().expect("an object") {
            let entry = self.peaks.entry(account.clone()).or_default();
            let peak = (number(&peak[0]), number(&peak[1]));
            *entry = if peak.0 > entry.0 { peak } else { *entry };
        }
        let findings = found["findings"].as_array().expect("a list");
        let of_store = |finding: &Value| format!("{}: {finding}", folder.display());
        self.findings.extend(findings.iter().map(of_store));
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn to_json(&self) -> Value {
        json!({
            "stores": self.stores, "counts": self.counts, "denials": self.denials,
            "peaks": self.peaks, "findings": self.findings,
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!("{:45} {:>10}\n", "stores", self.stores);
        for (name, count) in &self.counts {
            text.push_str(&format!("{name:45} {count:>10}\n"));
        }
        for (code, count) in &self.denials {
            text.push_str(&format!("{:45} {count:>10}\n", format!("denials: {code}")));
        }
        for (account, (most, limit)) in &self.peaks {
            let name = format!("peak of {account}");
            text.push_str(&format!("{name:45} {most:>10} of {limit}\n"));
        }
        text.push_str(&format!("{:45} {:>10}\n", "findings", self.findings.len()));
        text
    }
}

/// Runs so many cycles. `tell` hears a line for each. A store in which something was found is kept.
fn soak(cycles: u64, seed: u64, mut tell: impl FnMut(&str)) -> Summary {
    let mut summary = Summary::default();
    for first in (0..cycles).step_by(usize::try_from(CYCLES_PER_STORE).unwrap()) {
        let folder = tempfile::tempdir().unwrap();
        // Whatever goes wrong from here on, it is kept until the store is found to be good.
        let path = folder.keep();
        let mut world = World::new(path.clone(), seed ^ first.rotate_right(16));
        let end = cycles.min(first + CYCLES_PER_STORE);
        for number in first..end {
            let said = world.cycle(number, number + 1 == end);
            tell(&format!("cycle {}/{cycles}: {said}", number + 1));
        }
        drop(world);
        let before = summary.findings.len();
        summary.verify(&path);
        summary.audit(&path);
        let found = summary.findings.len() - before;
        tell(&format!("store {}: {found} findings", path.display()));
        if found == 0 {
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
    summary
}

#[test]
fn twenty_kills_lose_and_double_nothing() {
    let summary = soak(20, 4, |_| {});
    assert!(summary.findings.is_empty(), "{:#?}", summary.findings);
    assert_eq!(summary.count("kills"), 20);
    // A load worth the name, whatever the machine: none of these depends on when a kill came.
    for (name, least) in [
        ("PERMIT", 200),
        ("DENY", 50),
        ("asks by unary", 300),
        ("asks by stream", 300),
        ("asks repeated", 50),
        ("denials worked out again: level", 20),
        ("denials worked out again: cohort", 20),
        ("permits in advance", 20),
        ("permits on borrowed quota", 20),
        ("permits that displace others", 2),
        ("extensions", 20),
        ("jobs inside leases", 20),
        ("expiries: lease_ended", 1),
        ("gangs: PERMIT", 2),
        ("gangs: DENY", 10),
        ("leaves: expiry", 10),
        ("signatures verified", 250),
        ("snapshots compared", 1),
        ("checkpoints served", 8),
        ("checkpoints stored", 8),
        ("checkpoint signatures verified", 16),
        ("cosignatures acknowledged", 4),
        ("cosignatures verified", 4),
        ("tiles served: hashes", 8),
        ("tiles served: entries", 8),
    ] {
        assert!(summary.count(name) >= least, "{name}:\n{}", summary.to_text());
    }
}

/// Lies are told of what is in a run, which is up to the machine: what one run has nothing for is
/// told of the next one.
#[test]
fn the_auditor_finds_every_lie() {
    let mut untold: Vec<String> = Vec::new();
    for seed in DOCTORED {
        // Kept until all is found.
        let folder = tempfile::tempdir().unwrap().keep();
        let mut world = World::new(folder.clone(), seed);
        for number in 0..DOCTORED_CYCLES {
            world.cycle(number, number + 1 == DOCTORED_CYCLES);
        }
        drop(world);
        let names = untold.iter().map(Path::new);
        let arguments: Vec<&Path> = [folder.as_path()].into_iter().chain(names).collect();
        let output = python("doctor.py", &arguments);
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | UNTOLD)), "{}:\n{said}", folder.display());
        std::fs::remove_dir_all(&folder).unwrap();
        if code == Some(0) {
            return;
        }
        let lines = said.lines().filter_map(|line| line.strip_prefix("untold: "));
        untold = lines.map(str::to_owned).collect();
        assert!(!untold.is_empty(), "{said}");
    }
    panic!("none of {} runs has what these lies are about: {untold:#?}", DOCTORED.count());
}

#[test]
#[ignore = "takes as long as it is told to: `make soak`"]
fn as_many_kills_as_asked_for() {
    #[expect(clippy::disallowed_methods, reason = "libtest takes no arguments of a test's own")]
    let setting = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let number = |name: &str, default: u64| {
        setting(name).map_or(default, |value| value.parse().expect("a number was given"))
    };
    let (cycles, seed) = (number("SOAK_CYCLES", 500), number("SOAK_SEED", 1));
    let summary = soak(cycles, seed, |line| writeln!(std::io::stderr(), "{line}").unwrap());
    let text = match setting("SOAK_FORMAT").as_deref() {
        Some("json") => summary.to_json().to_string(),
        _ => summary.to_text(),
    };
    writeln!(std::io::stdout(), "{text}").unwrap();
    assert!(summary.findings.is_empty(), "{:#?}", summary.findings);
}
