//! What the ledger costs as it fills, and what a start costs as the log grows.
//!
//! `cargo bench --workspace --bench ledger`. Four tables: the rules alone with 10, 10,000 and
//! 1,000,000 live reservations; durable reservations a second by the size of the batch and by how
//! many accounts they contend for; the time to start on a log of so many decisions, all of them
//! held, by folding it and from a snapshot; what a writer and its callers feel of a snapshot that
//! is made beside it; and the time that checking a whole log takes, by its length and by threads.
//! Words on the command line choose among `rules`, `preemption`, `durable`, `start`, `beside` and
//! `verify`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock, prints, and stops at the first surprise"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use placet_core::{
    AccountKind, AccountPath, Charge, Effect, Grant, Id, IsolationLevel, KeySet, MAX_AMOUNT,
    PreemptionRule, PriorityClass, QuotaNode, SigningKey, SubjectKind, Unit, Verifier,
};
use placet_server::quota::{Booking, Ledger, ReserveError, Work};
use placet_server::sequencer::{Proposal, SequencerHandle};
use placet_server::signer::{CheckpointSigner, Signer};
use placet_server::store::{CheckpointOptions, SNAPSHOT_EVERY, StoreOptions};
use placet_server::{LogExpect, LogSource, export_log, verify_log};

#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the benchmark uses a part of the tests' world")]
mod world;

/// Live reservations.
const LIVE: [u64; 3] = [10, 10_000, 1_000_000];
/// Operations of each kind that are timed.
const TIMED: u64 = 10_000;
/// Tenants that the reservations are spread over.
const TENANTS: u64 = 100;
const NOW: u64 = 1_000_000;
const DAY: u64 = 86_400;

fn path(text: &str) -> AccountPath {
    AccountPath::new(text.to_owned()).unwrap()
}

fn charge(account: &str, kind: AccountKind, amount: u64, limit: u64) -> Charge {
    let unit = if kind == AccountKind::Level { Unit::MilliGpu } else { Unit::GpuSecond };
    Charge { account: path(account), amount, kind, limit, unit }
}

fn work() -> Arc<Work> {
    let id = |text: &str| Id::new(text).unwrap();
    let grant = Grant {
        cluster_id: id("c-1"),
        fabric_gbps: 0,
        gpu_count: 1,
        gpu_milli: 1_000,
        gpu_model: id("H100"),
        isolation_level: IsolationLevel::Dedicated,
    };
    Arc::new(Work { kind: SubjectKind::Lease, grant, lease_id: None })
}

/// A lease of one GPU for up to a day: on its cluster, its tenant's GPUs and its tenant's budget.
fn lease(number: u64, start: u64, cluster_limit: u64) -> Booking {
    let tenant = number % TENANTS;
    let length = 600 + number.wrapping_mul(7_919) % (DAY - 600);
    let (level, budget) = (AccountKind::Level, AccountKind::Budget);
    Booking {
        id: Id::new(format!("rsv-{number:032x}")).unwrap(),
        tenant: Id::new(format!("tenant-{tenant}")).unwrap(),
        caller: Id::new("scheduler").unwrap(),
        class: PriorityClass::ExternalCommercial,
        work: work(),
        start,
        end: start + length,
        confirm_by: start + 300,
        charges: vec![
            charge("cluster/c-1/gpu/H100", level, 1_000, cluster_limit),
            charge(&format!("tenant/tenant-{tenant}/gpu"), level, 1_000, MAX_AMOUNT),
            charge(&format!("tenant/tenant-{tenant}/gpu-seconds"), budget, length, MAX_AMOUNT),
        ],
        terms: None,
    }
}

/// Bytes that the process has in memory (Linux, proc(5): the second field, in pages).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

fn timed(times: u64, mut each: impl FnMut(u64)) -> Histogram<u64> {
    let mut latencies = Histogram::new(3).unwrap();
    for number in 0..times {
        let begun = Instant::now();
        each(number);
        let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        latencies.record(nanoseconds.max(1)).unwrap();
    }
    latencies
}

fn row(what: &str, live: u64, latencies: &Histogram<u64>) {
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
    println!(
        "{what:<34} {live:>9} {:>9.2} {:>9.2} {:>9.2}",
        at(0.5),
        at(0.99),
        latencies.max() as f64 / 1_000.0
    );
}

/// A ledger with so many confirmed leases, in trees of quotas or not.
fn filled(live: u64, trees: bool) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.advance(NOW).unwrap();
    if trees {
        let node = |account: String, cohort: Option<&str>| QuotaNode {
            account: path(&account),
            borrowing_limit: None,
            cohort: cohort.map(path),
            lending_limit: None,
            nominal: 20_000_000,
            unit: Unit::MilliGpu,
        };
        let tenants = (0..TENANTS).map(|tenant| format!("tenant/tenant-{tenant}/gpu"));
        let mut nodes: Vec<_> = tenants.map(|account| node(account, Some("pool"))).collect();
        nodes.push(node("pool".to_owned(), None));
        ledger.set_quotas(&nodes, &[]).unwrap();
    }
    for number in 0..live {
        let booking = lease(number, NOW, MAX_AMOUNT);
        let id = booking.id.clone();
        ledger.reserve(booking).unwrap();
        ledger.confirm(&id, 1).unwrap();
        ledger.keep();
    }
    ledger
}

fn rules() {
    println!("the rules alone, microseconds");
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "", "live", "p50", "p99", "max");
    for live in LIVE {
        let before = resident();
        let mut ledger = filled(live, false);
        let bytes = resident().saturating_sub(before);
        let admitted = timed(TIMED, |number| {
            let mark = lease(live + number, NOW, MAX_AMOUNT);
            let id = mark.id.clone();
            ledger.reserve(mark).unwrap();
            ledger.release(&id, 1).unwrap();
            ledger.keep();
        });
        row("reserve and release", live, &admitted);
        let ahead = timed(TIMED, |number| {
            let booking = lease(live + TIMED + number, NOW + 7_200, MAX_AMOUNT);
            let id = booking.id.clone();
            ledger.reserve(booking).unwrap();
            ledger.release(&id, 1).unwrap();
            ledger.keep();
        });
        row("the same, two hours ahead", live, &ahead);
        let full = live * 1_000;
        let denied = timed(TIMED, |number| {
            let booking = lease(live + 2 * TIMED + number, NOW, full);
            assert!(matches!(ledger.reserve(booking), Err(ReserveError::Refused(_))));
        });
        row("a refusal", live, &denied);
        let told = timed(TIMED / 10, |number| {
            let booking = lease(live + 3 * TIMED + number, NOW, full);
            ledger.fit(&booking, 1).unwrap();
        });
        row("what would be admitted instead", live, &told);
        preempted(&mut ledger, live);
        drop(ledger);
        let mut ledger = filled(live, true);
        let borrowed = timed(TIMED, |number| {
            let booking = lease(live + number, NOW, MAX_AMOUNT);
            let id = booking.id.clone();
            ledger.reserve(booking).unwrap();
            ledger.release(&id, 1).unwrap();
            ledger.keep();
        });
        row("reserve and release in a cohort", live, &borrowed);
        println!("bytes of each live reservation: {}", bytes / live);
    }
}

/// Preemptions by a booking for which there is no room, each taken back.
fn preempted(ledger: &mut Ledger, live: u64) {
    let full = live * 1_000;
    let preempted = timed(TIMED / 100, |number| {
        let start = NOW + 60;
        let booking = Booking {
            class: PriorityClass::InternalResearch,
            confirm_by: start,
            ..lease(live + 4 * TIMED + number, start, full)
        };
        let rule = PreemptionRule {
            grace_seconds: 60,
            max_victims: 8,
            min_runtime_seconds: 60,
            victim_classes: vec![PriorityClass::ExternalCommercial],
            ..PreemptionRule::default()
        };
        let id = booking.id.clone();
        ledger.preempt(&booking, &rule).unwrap();
        ledger.release(&id, 1).unwrap();
        ledger.keep();
    });
    row("a preemption, taken back", live, &preempted);
}

/// Preemptions alone.
fn preemption() {
    println!("preemption, microseconds");
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "", "live", "p50", "p99", "max");
    for live in LIVE {
        preempted(&mut filled(live, false), live);
    }
}

fn lease_of(number: u64, accounts: u64) -> Box<Proposal> {
    let mut asked = world::proposal(&format!("r-{number}"), 8, 3_600, 1_000);
    let candidate = &mut asked.candidates[0];
    for (_, _, limit) in candidate.limits.iter_mut().flatten() {
        *limit = MAX_AMOUNT;
    }
    for claimed in &mut candidate.outcome.claims {
        let own = format!("{}/{}", claimed.claim.account, number % accounts);
        claimed.claim.account = path(&own);
    }
    asked
}

fn started(store: &std::path::Path, signer: &Signer, snapshot_every: u64) -> SequencerHandle {
    let options = StoreOptions { snapshot_every, ..StoreOptions::default() };
    let (of, active) = (world::options(), world::activation());
    SequencerHandle::start_with(store, of, options, signer.clone(), active).unwrap()
}

/// Decides so many leases, so many at a time, and tells how long it took.
fn decide(
    sequencer: &SequencerHandle,
    first: u64,
    all: u64,
    batch: u64,
    accounts: u64,
) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut spent = Duration::ZERO;
    let mut number = first;
    while number < first + all {
        let leases: Vec<_> = (number..number + batch).map(|at| lease_of(at, accounts)).collect();
        number += batch;
        let begun = Instant::now();
        runtime.block_on(async {
            let mut pending = Vec::with_capacity(leases.len());
            for lease in leases {
                pending.push(sequencer.propose(lease).await.unwrap());
            }
            for decided in pending {
                assert_eq!(decided.await.unwrap().effect, Effect::Permit);
            }
        });
        spent += begun.elapsed();
    }
    spent
}

fn durable(folder: &std::path::Path) {
    println!("durable reservations");
    println!("{:>9} {:>9} {:>12}", "batch", "accounts", "a second");
    let signer = Signer::new(SigningKey::generate().unwrap());
    for accounts in [1, 1_000] {
        for batch in [1, 8, 64, 256] {
            let store = folder.join(format!("durable-{accounts}-{batch}.db"));
            let sequencer = started(&store, &signer, 0);
            let all = (batch * 200).min(20_000);
            let spent = decide(&sequencer, 0, all, batch, accounts);
            println!("{batch:>9} {accounts:>9} {:>12.0}", all as f64 / spent.as_secs_f64());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(sequencer.close());
        }
    }
}

/// Seconds for which the process has had a core (Linux, proc(5): the fields 14 and 15, counted from
/// behind its name, in hundredths): what a busy machine does not make longer.
fn core_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
    f64::from(ticks.sum::<u32>()) / 100.0
}

/// Starts, and stops again: seconds, those with a core, and reservations that were held.
fn restarted(store: &std::path::Path, signer: &Signer, snapshot_every: u64) -> ((f64, f64), usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (begun, before) = (Instant::now(), core_seconds());
    let sequencer = started(store, signer, snapshot_every);
    let spent = (begun.elapsed().as_secs_f64(), core_seconds() - before);
    let live = runtime.block_on(sequencer.inspect()).unwrap().live;
    runtime.block_on(sequencer.close());
    (spent, live)
}

fn snapshot_of(store: &std::path::Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".snapshot");
    name.into()
}

fn start(folder: &std::path::Path) {
    println!("a start, seconds and of these with a core: without a snapshot, the same and one is");
    println!("written, and from it");
    println!(
        "{:>12} {:>9} {:>15} {:>15} {:>15} {:>12}",
        "decisions", "held", "without", "writing", "from it", "its bytes"
    );
    let signer = Signer::new(SigningKey::generate().unwrap());
    let store = folder.join("start.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut decided = 0_u64;
    for all in [1_000_u64, 10_000, 100_000, 1_000_000] {
        let sequencer = started(&store, &signer, 0);
        let more = (all - decided).next_multiple_of(256);
        decide(&sequencer, decided, more, 256, 1_000);
        decided += more;
        runtime.block_on(sequencer.close());
        let (without, live) = restarted(&store, &signer, 0);
        let (writing, _) = restarted(&store, &signer, 1);
        let (with, _) = restarted(&store, &signer, u64::MAX);
        let file = snapshot_of(&store);
        let bytes = std::fs::metadata(&file).unwrap().len();
        let shown = |(all, core): (f64, f64)| format!("{all:.2} {core:.2}");
        let [without, writing, with] = [without, writing, with].map(shown);
        println!("{decided:>12} {live:>9} {without:>15} {writing:>15} {with:>15} {bytes:>12}");
        std::fs::remove_file(&file).unwrap();
    }
}

/// One decision after another, while nothing else is done and while a snapshot is made.
fn beside(folder: &std::path::Path) {
    println!("a decision alone, microseconds, on top of so many that are held");
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "", "held", "p50", "p99", "max");
    let signer = Signer::new(SigningKey::generate().unwrap());
    let store = folder.join("beside.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let held = 100_096;
    let sequencer = started(&store, &signer, 0);
    decide(&sequencer, 0, held, 256, 1_000);
    runtime.block_on(sequencer.close());
    restarted(&store, &signer, 1);
    let file = snapshot_of(&store);
    let made = || std::fs::metadata(&file).unwrap().modified().unwrap();
    for (what, every) in [("no snapshot", 0), ("snapshots all the time", 1_000)] {
        let sequencer = started(&store, &signer, every);
        let (mut number, before) = (held + every * 1_000, made());
        // Until the first one is to be made: what is behind it has to be a quarter of its items.
        let more = if every == 0 { 0 } else { SNAPSHOT_EVERY / 4 };
        decide(&sequencer, number, more.next_multiple_of(256), 256, 1_000);
        number += more.next_multiple_of(256);
        let mut latencies = Histogram::new(3).unwrap();
        // A while, or until the snapshot is made.
        let ended = |count| if every == 0 { count == TIMED / 5 } else { made() > before };
        for count in 0.. {
            if ended(count) {
                break;
            }
            let lease = lease_of(number + count, 1_000);
            let one = timed(1, |_| {
                runtime
                    .block_on(async { sequencer.propose(lease.clone()).await.unwrap().await })
                    .unwrap();
            });
            latencies.add(one).unwrap();
        }
        row(what, held, &latencies);
        runtime.block_on(sequencer.close());
    }
}

/// Checks whole logs with public keys alone: in the store, and as static files.
fn verified(folder: &std::path::Path) {
    println!("a whole log checked, seconds and of these with a core, and microseconds a leaf");
    println!(
        "{:>12} {:>8} {:>15} {:>8} {:>15} {:>8} {:>12}",
        "leaves", "threads", "store", "a leaf", "static files", "a leaf", "export"
    );
    let signer = Signer::new(SigningKey::generate().unwrap());
    let key = SigningKey::generate().unwrap();
    let keys = vec![key.verifying_key().clone()];
    let checkpoints = CheckpointSigner::new(key);
    let decisions = Verifier::new(KeySet::from_json(signer.jwks().as_bytes()).unwrap());
    let (store, mirror) = (folder.join("verify.db"), folder.join("mirror"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut decided = 0_u64;
    for all in [100_000_u64, 1_000_000] {
        let options = CheckpointOptions {
            signer: checkpoints.clone(),
            every_seconds: 1,
            witnesses: placet_core::Witnesses::default(),
        };
        let options = StoreOptions {
            checkpoints: Some(options),
            snapshot_every: 0,
            ..StoreOptions::default()
        };
        let (of, active) = (world::options(), world::activation());
        let sequencer =
            SequencerHandle::start_with(&store, of, options, signer.clone(), active).unwrap();
        let more = (all - decided).next_multiple_of(256);
        decide(&sequencer, decided, more, 256, 1_000);
        decided += more;
        runtime.block_on(sequencer.close());
        let begun = Instant::now();
        export_log(&store, &mirror, |_, _| {}).unwrap();
        let export = begun.elapsed().as_secs_f64();
        for threads in [1, 2] {
            let check = |source: LogSource| {
                let expect = LogExpect {
                    origin: world::ISSUER.to_owned(),
                    keys: keys.clone(),
                    decisions: decisions.clone(),
                    issuer: world::ISSUER.to_owned(),
                    approvers: None,
                    seen: Vec::new(),
                };
                let (begun, before) = (Instant::now(), core_seconds());
                let walked = verify_log(&source, expect, threads, |_| {}).unwrap();
                let (spent, core) = (begun.elapsed().as_secs_f64(), core_seconds() - before);
                let leaves = walked.head.size;
                let each = format!("{:.1}", spent * 1e6 / leaves as f64);
                (leaves, format!("{spent:.1} {core:.1}"), each)
            };
            let (leaves, stored, each) = check(LogSource::store(&store).unwrap());
            let (_, files, of_files) = check(LogSource::directory(&mirror).unwrap());
            println!(
                "{leaves:>12} {threads:>8} {stored:>15} {each:>8} {files:>15} {of_files:>8} \
                 {export:>12.1}"
            );
        }
    }
}

fn main() {
    // `cargo test --benches` passes `--test`: nothing is measured then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let chosen: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let folder = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    if wanted("rules") {
        rules();
    }
    if chosen.iter().any(|chosen| chosen == "preemption") {
        preemption();
    }
    if wanted("durable") {
        durable(folder.path());
    }
    if wanted("start") {
        start(folder.path());
    }
    if wanted("beside") {
        beside(folder.path());
    }
    if wanted("verify") {
        verified(folder.path());
    }
}
