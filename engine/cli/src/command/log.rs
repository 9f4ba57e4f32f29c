//! `placet log`: the decision log, checked and copied without a server.

mod files;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::print::Printer;
use files::{ExportArgs, VerifyArgs};

const EXAMPLES: &str = "\
The log has every change of the ledger in one order: signed decisions,
confirmations, releases, expiries, evictions, activations. It is a Merkle tree
(RFC 6962) whose head the server publishes in signed checkpoints, so that
nobody, its owner neither, can change what was logged without being found out:
by whoever kept a checkpoint.

Examples:
  placet log export --store placet.db --to mirror/
  placet log verify --directory mirror/ --jwks jwks.json --log-key log.key
  placet log verify --store placet.db --jwks jwks.json --log-key log.key \\
    --seen last-week.checkpoint";

/// Check and export the decision log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(VerifyArgs),
    Export(ExportArgs),
}

pub(super) fn run(args: &LogArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Verify(args) => files::verify(args, printer),
        Action::Export(args) => files::export(args, printer),
    }
}
