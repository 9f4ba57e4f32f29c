//! `placet facts`: what is known of tenants, clusters and quotas, apart from the policies.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use placet_policy::{Facts, LoadError};
use placet_proto::control::v1::Source;

use crate::activate::{self, ActivateArgs, StatusArgs};
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};

const EXAMPLES: &str = "\
A server reads its file of facts again when it changes; `activate` does it now
and tells what came of it. Facts that break a rule never become active.

Exit codes: 0 done, 1 the server cannot be asked, 3 the facts are refused.

Examples:
  placet facts check policies/reference/facts.yaml
  placet facts activate
  placet facts status --format json";

/// Check facts, or make them active in a server
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FactsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check a file of facts and print its digest
    Check(CheckArgs),
    /// Have a server read its facts again, now
    Activate(ActivateArgs),
    /// Tell which facts are active in a server, and what became of the last attempt
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// File of the facts
    file: PathBuf,
}

pub(super) fn run(args: &FactsArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Check(args) => check(args, printer),
        Action::Activate(args) => activate::activate(Source::Facts, args, printer),
        Action::Status(args) => activate::status(Source::Facts, args, printer),
    }
}

fn check(args: &CheckArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let facts = Facts::load(&args.file).map_err(|error| {
        let exit = match error {
            LoadError::Invalid(_) => Exit::PolicyInvalid,
            _ => Exit::Failed,
        };
        Failure::from_error(&error).with_exit(exit)
    })?;
    let (digest, revision) = (facts.digest().to_string(), facts.revision());
    if printer.json() {
        let line = serde_json::json!({"digest": digest, "revision": revision});
        printer.data(&line.to_string())?;
    } else {
        printer.data(&format!("facts {digest}"))?;
        printer.data(&format!("revision {}", print::plain(revision)))?;
    }
    Ok(Exit::Done)
}
