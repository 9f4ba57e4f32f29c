//! What it costs to make a decision durable: one alone, and 64 that share a commit.
//!
//! `cargo bench -p placet-server --bench commit`. The store lies in the target directory, on the
//! disk that holds it.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use placet_core::{Effect, MAX_AMOUNT, SigningKey};
use placet_server::sequencer::{Proposal, SequencerHandle};
use placet_server::signer::Signer;

#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the benchmark uses a part of the tests' world")]
mod world;

const GROUP: u64 = 64;

/// A lease that always fits, so that every one of them is a permit.
fn lease(number: u64) -> Box<Proposal> {
    let mut lease = world::proposal(&format!("r-{number}"), 8, 3_600, 1_000);
    for (_, _, limit) in lease.candidates[0].limits.iter_mut().flatten() {
        *limit = MAX_AMOUNT;
    }
    lease
}

fn commit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let signer = Signer::new(SigningKey::generate().unwrap());
    let store = directory.path().join("placet.db");
    let sequencer =
        SequencerHandle::start(&store, world::options(), signer, world::activation()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut number = 0;
    let mut leases = |count: u64| -> Vec<Box<Proposal>> {
        number += count;
        (number - count..number).map(lease).collect()
    };
    let decide = |leases: Vec<Box<Proposal>>| {
        runtime.block_on(async {
            let mut pending = Vec::with_capacity(leases.len());
            for lease in leases {
                pending.push(sequencer.propose(lease).await.unwrap());
            }
            for decided in pending {
                assert_eq!(decided.await.unwrap().effect, Effect::Permit);
            }
        });
    };
    let mut group = criterion.benchmark_group("durable commit");
    for count in [1, GROUP] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} at a time"), |bencher| {
            bencher.iter_batched(|| leases(count), decide, BatchSize::PerIteration);
        });
    }
    group.finish();
    runtime.block_on(sequencer.close());
}

criterion_group!(benches, commit);
criterion_main!(benches);
