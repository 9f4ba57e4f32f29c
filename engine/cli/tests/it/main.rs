//! The binary as its users meet it: exit code, standard output and standard error.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so; clippy grants this to test functions alone"
)]

mod activation;
mod bad_input;
mod bundle;
mod check;
mod commands;
mod coverage;
mod crash;
mod help;
mod keys;
mod ledger;
mod local;
mod log;
mod log_files;
mod log_witnesses;
mod opa;
mod reports;
mod requests;
mod reserve;
mod running;
mod scaffold;
mod server;
mod settings;
mod soak;
mod stories;
mod stories_waivers;
mod tokens;
mod tutorial;
