//! The server against real stores.
#![expect(
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so; clippy grants this to test functions alone"
)]

mod activation;
mod audit;
mod changes;
mod checkpoints;
mod cosignatures;
mod crash_faults;
mod damage;
mod erase;
mod fixture;
mod grpc;
mod hostile;
mod keys;
mod leases;
mod ledger;
mod log_files;
mod look;
mod preemption;
mod running;
mod snapshots;
mod store;
mod waivers;
mod world;
