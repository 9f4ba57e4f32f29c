//! `placet`: the policy decision point, and the commands of those who use it.
#![forbid(unsafe_code)]

mod activate;
mod answer;
mod command;
mod connection;
mod events;
mod exit;
mod follow;
mod jwks_source;
mod log_key;
mod print;
mod proof;
mod replace;
mod report;
mod settings;
mod settle;
mod stream;
mod tally;
mod witnesses;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run().into()
}
