//! What log and signature cost a decision, and signing in the writer against signing beside it.
//!
//! `cargo bench --workspace --bench log`. Two tables: parts of a decision's way through the
//! sequencer, each measured alone over batches of 64; and the whole, with 64 decisions in flight,
//! once while the writer signs every batch itself and once while other threads share in it, in
//! turns. The share of a part is its median over that of the whole.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock, prints, and stops at the first surprise"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{StreamExt as _, stream};
use hdrhistogram::Histogram;
use placet_core::{
    Checkpoint, Decision, Digest, Event, Id, LEAF_VERSION, Leaf, MAX_AMOUNT, SigningKey,
    canonical_json,
    merkle::{self, Tree},
    sign_decision,
};
use placet_server::sequencer::{Proposal, SequencerHandle};
use placet_server::signer::{CheckpointSigner, Signer};
use placet_server::store::{
    Batch, CheckpointOptions, Record, SIGNING_THREADS, Store, StoreOptions, StoredCheckpoint,
};

#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the benchmark uses a part of the tests' world")]
mod world;

/// Decisions of a batch, and in flight.
const GROUP: usize = 64;
/// Batches of each part that are timed.
const BATCHES: u64 = 200;
/// Turns of the whole: in each, so many decisions with either way of signing.
const TURNS: u64 = 20;
const DECISIONS: u64 = 1_024;
/// A file system in memory (Linux); what is measured there is left out where there is none.
const IN_MEMORY: &str = "/dev/shm";
/// Bytes of input and evaluation of the shipped bundle, about.
const EVIDENCE: [usize; 2] = [2_000, 4_000];

/// A lease that always fits, so that every one of them is a permit.
fn lease(number: u64) -> Proposal {
    let mut lease = *world::proposal(&format!("r-{number}"), 8, 3_600, 1_000);
    for (_, _, limit) in lease.candidates[0].limits.iter_mut().flatten() {
        *limit = MAX_AMOUNT;
    }
    let [input, evaluation] = EVIDENCE.map(|bytes| vec![b'x'; bytes]);
    (lease.input, lease.evaluation) = (Some(input), evaluation);
    lease
}

/// Nanoseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap()
}

fn record(histogram: &mut Histogram<u64>, spent: Duration, among: usize) {
    let nanos = u64::try_from(spent.as_nanos()).unwrap() / u64::try_from(among).unwrap();
    histogram.record(nanos.max(1)).unwrap();
}

/// A row of the table: microseconds, p50 and p99.
struct Part {
    what: &'static str,
    times: Histogram<u64>,
}

impl Part {
    fn new(what: &'static str) -> Self {
        Self { what, times: histogram() }
    }

    /// Times something done for so many decisions.
    fn time<T>(&mut self, among: usize, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = black_box(work());
        record(&mut self.times, begun.elapsed(), among);
        done
    }

    fn median(&self) -> f64 {
        self.times.value_at_quantile(0.5) as f64 / 1_000.0
    }

    fn print(&self, whole: f64) {
        let p99 = self.times.value_at_quantile(0.99) as f64 / 1_000.0;
        let share = 100.0 * self.median() / whole;
        println!("{:<58} {:>9.2} {:>9.2} {share:>8.1}", self.what, self.median(), p99);
    }
}

fn started(store: &Path, signer: &Signer, signing_threads: usize) -> SequencerHandle {
    let key = SigningKey::generate().unwrap();
    let signer_of_log = CheckpointSigner::new(key);
    let checkpoints = CheckpointOptions {
        signer: signer_of_log,
        every_seconds: 10,
        witnesses: placet_core::Witnesses::default(),
    };
    let options = StoreOptions {
        checkpoints: Some(checkpoints),
        signing_threads,
        snapshot_every: 0,
        ..StoreOptions::default()
    };
    let (of, active) = (world::options(), world::activation());
    SequencerHandle::start_with(store, of, options, signer.clone(), active).unwrap()
}

/// Has so many leases decided, 64 in flight; the tokens.
async fn decide(
    sequencer: &SequencerHandle,
    leases: Vec<Proposal>,
    latencies: &mut Histogram<u64>,
) -> Vec<String> {
    let calls = stream::iter(leases.into_iter().map(|lease| async move {
        let sent = Instant::now();
        let decided = sequencer.propose(Box::new(lease)).await.unwrap().await.unwrap();
        (sent.elapsed(), decided.token)
    }));
    let mut calls = std::pin::pin!(calls.buffer_unordered(GROUP));
    let mut tokens = Vec::new();
    while let Some((latency, token)) = calls.next().await {
        record(latencies, latency, 1);
        tokens.push(token);
    }
    tokens
}

/// One way of signing: a sequencer, what a decision takes of its time, and how long one waits.
struct Way {
    sequencer: SequencerHandle,
    whole: Part,
    latencies: Histogram<u64>,
    /// Seconds with a core.
    core: f64,
}

/// Seconds for which the process has had a core (Linux, proc(5): the fields 14 and 15, counted from
/// behind its name, in hundredths): what a busy machine does not make longer.
fn core_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
    f64::from(ticks.sum::<u32>()) / 100.0
}

/// The whole, in turns; the median, and tokens as they come of it.
fn whole(folder: &Path, signer: &Signer) -> (f64, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let way = |what, threads| {
        let sequencer = started(&folder.join(format!("{threads}.db")), signer, threads);
        Way { sequencer, whole: Part::new(what), latencies: histogram(), core: 0.0 }
    };
    let mut ways = [
        way("the whole, signed in the writer", 1),
        way("the whole, signed beside it", SIGNING_THREADS),
    ];
    let mut tokens = Vec::new();
    for turn in 0..TURNS {
        for Way { sequencer, whole, latencies, core } in &mut ways {
            let (first, among) = (turn * DECISIONS, usize::try_from(DECISIONS).unwrap());
            let leases = (first..first + DECISIONS).map(lease).collect();
            let before = core_seconds();
            tokens = whole.time(among, || runtime.block_on(decide(sequencer, leases, latencies)));
            *core += core_seconds() - before;
        }
    }
    println!("with {GROUP} in flight, microseconds a decision, over turns of {DECISIONS};");
    println!("of these with a core; and how long each waited");
    let head = ["p50", "p99", "core", "waited p50", "p99"];
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>12} {:>9}",
        "", head[0], head[1], head[2], head[3], head[4]
    );
    for Way { sequencer, whole, latencies, core } in &ways {
        let at = |times: &Histogram<u64>, part| times.value_at_quantile(part) as f64 / 1_000.0;
        let [p50, p99] = [0.5, 0.99].map(|part| at(&whole.times, part));
        let [half, most] = [0.5, 0.99].map(|part| at(latencies, part));
        let core = core * 1e6 / (TURNS * DECISIONS) as f64;
        println!("{:<34} {p50:>9.2} {p99:>9.2} {core:>9.2} {half:>12.0} {most:>9.0}", whole.what);
        runtime.block_on(sequencer.close());
    }
    let [writer, beside] = ways;
    let ratio = writer.whole.median() / beside.whole.median();
    println!("signing in the writer takes {ratio:.2} times as long");
    (beside.whole.median(), tokens)
}

/// A decision out of its token.
fn claims(token: &str) -> Decision {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Signs a batch in so many threads.
fn sign(key: &SigningKey, decisions: &[Decision], threads: usize) -> usize {
    let sign = |part: &[Decision]| -> usize {
        part.iter().map(|decision| sign_decision(key, decision).unwrap().len()).sum()
    };
    std::thread::scope(|scope| {
        let mut parts = decisions.chunks(decisions.len().div_ceil(threads));
        let own = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(move || sign(part))).collect();
        sign(own) + others.into_iter().map(|other| other.join().unwrap()).sum::<usize>()
    })
}

/// Appends a leaf, and gives the hashes to store.
fn append(tree: &mut Tree, leaf: &[u8]) -> Vec<Digest> {
    tree.append(merkle::leaf_hash(leaf)).unwrap()
}

/// Signatures and leaves, in memory.
fn in_memory(key: &SigningKey, tokens: &[String], whole: f64) {
    let decisions: Vec<Decision> = tokens.iter().map(|token| claims(token)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SIGNING_THREADS);
    let mut one = Part::new("signature: one decision");
    let mut alone = Part::new("signatures: 64, in one thread");
    let mut shared = Part::new("signatures: 64, spread over threads");
    let mut leaves = Part::new("leaf: its bytes");
    let mut hashes = Part::new("leaf: hash, and hashes of the tree");
    let mut tree = Tree::default();
    for _ in 0..BATCHES {
        for decision in &decisions {
            one.time(1, || sign_decision(key, decision).unwrap());
        }
        alone.time(GROUP, || sign(key, &decisions, 1));
        shared.time(GROUP, || sign(key, &decisions, threads));
        let made =
            leaves.time(GROUP, || tokens.iter().map(|token| leaf(token)).collect::<Vec<_>>());
        hashes.time(GROUP, || made.iter().map(|leaf| append(&mut tree, leaf).len()).sum::<usize>());
    }
    println!("signatures are spread over {threads} threads");
    for part in [one, alone, shared, leaves, hashes] {
        part.print(whole);
    }
}

fn leaf(token: &str) -> Vec<u8> {
    let event = Event::Decision { caller: world::id("scheduler"), token: token.to_owned() };
    canonical_json(&Leaf { event, time: 1_000, v: LEAF_VERSION }).unwrap()
}

/// What of a batch is stored.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    Records,
    Leaves,
    Hashes,
}

/// The store's part, and checkpoints: a store each, in turns, so that the disk's moods fall on all.
fn stored(folder: &Path, tokens: &[String], whole: f64) {
    let kinds = [Stored::Records, Stored::Leaves, Stored::Hashes];
    let mut stores = kinds.map(|kind| {
        let path = folder.join(format!("part-{}.db", kind as u8));
        (kind, Store::open(&path, StoreOptions::default()).unwrap(), Tree::default())
    });
    let signer = SigningKey::generate().unwrap();
    let mut parts = [
        Part::new("commit: requests and evidence alone"),
        Part::new("commit: leaves as well"),
        Part::new("commit: leaves and hashes of the tree"),
    ];
    let mut signed = Part::new("checkpoint: root and signature (one, not a decision)");
    let mut published = Part::new("checkpoint: its commit (one, not a decision)");
    let leaves: Vec<Vec<u8>> = tokens.iter().map(|token| leaf(token)).collect();
    let proposal = lease(0);
    for number in 0..BATCHES {
        for ((kind, store, tree), part) in stores.iter_mut().zip(&mut parts) {
            let (first, first_hash) = (tree.size(), tree.row());
            let hashes: Vec<Digest> = leaves.iter().flat_map(|leaf| append(tree, leaf)).collect();
            let ids: Vec<Id> =
                (first..tree.size()).map(|at| world::id(&format!("r-{at}"))).collect();
            let records = (first..).zip(&ids).map(|(at, id)| of(&proposal, at, id)).collect();
            let batch = Batch {
                erased: Vec::new(),
                first,
                leaves: if *kind == Stored::Records { vec![] } else { leaves.clone() },
                first_hash,
                hashes: if *kind == Stored::Hashes { hashes } else { vec![] },
                records,
                high_water: 1_000,
            };
            part.time(GROUP, || store.commit(&batch).unwrap());
        }
        let (_, store, tree) = &mut stores[2];
        let note = signed.time(1, || {
            let (origin, merkle::Head { size, root }) = (world::ISSUER.to_owned(), tree.head());
            Checkpoint { origin, root, size }.sign(&signer).unwrap()
        });
        let checkpoint = StoredCheckpoint { number, size: tree.size(), note };
        published.time(1, || store.publish(&checkpoint).unwrap());
    }
    for part in parts.into_iter().chain([signed, published]) {
        part.print(whole);
    }
}

fn of<'a>(proposal: &'a Proposal, position: u64, request_id: &'a Id) -> Record<'a> {
    // As long and as random as what the server makes of store, caller and request.
    let digits = Digest::of(request_id.as_str().as_bytes()).hex();
    Record {
        name: world::id(&format!("dec-{}", digits.get(..32).unwrap())),
        position,
        caller: &proposal.caller,
        request_id,
        request_digest: proposal.request_digest,
        input: proposal.input.as_deref(),
        evaluation: &proposal.evaluation,
        personal: &proposal.personal,
    }
}

fn main() {
    // `cargo test --benches` passes `--test`: nothing is measured then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let folder = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let key = SigningKey::generate().unwrap();
    let own = SigningKey::from_pkcs8(key.to_pkcs8().unwrap().as_ref());
    let signer = Signer::new(own.unwrap());
    let (whole, mut tokens) = whole(folder.path(), &signer);
    tokens.truncate(GROUP);
    println!();
    println!("parts, microseconds a decision, and percent of the whole, signed beside the writer");
    println!("{:<58} {:>9} {:>9} {:>8}", "", "p50", "p99", "percent");
    in_memory(&key, &tokens, whole);
    println!("on the disk that has the target directory");
    stored(folder.path(), &tokens, whole);
    // Without a disk to wait for, what is left is what the bytes cost.
    if let Ok(folder) = tempfile::tempdir_in(IN_MEMORY) {
        println!("on a file system in memory");
        stored(folder.path(), &tokens, whole);
    }
}
