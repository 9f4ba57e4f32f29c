//! `placet log`: what the decision log holds, the proofs of it and what witnesses say of it, asked
//! of a server; and the whole of it, checked and copied without one.

mod checkpoint;
mod cosign;
mod erase;
mod files;
mod filter;
mod list;
mod prove;
mod show;
mod tail;

use clap::{Args, Subcommand};
use placet_proto::audit::v1::audit_service_client::AuditServiceClient;
use tonic::transport::Channel;

use crate::connection::{ServerArgs, channel};
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use checkpoint::CheckpointArgs;
use cosign::CosignArgs;
use erase::EraseArgs;
use files::{ExportArgs, VerifyArgs};
use list::ListArgs;
use prove::ProveArgs;
use show::ShowArgs;
use tail::TailArgs;

/// Largest answer in bytes: the evidence of a decision, far below it, with its token and leaf.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
The decision log holds every decision and what became of it, in one order: its
positions count from 0. It is a Merkle tree (RFC 6962), whose head the server
publishes in signed checkpoints, so that nobody, its owner neither, can change
what was logged without being found out by whoever kept one, and by everybody
where witnesses cosign them. `verify` and `export` read the store's file; all
others ask a running server, as one of its operators. Personal values are beside
the log: `erase` removes them.

Examples:
  placet log list --tenant acme --effect deny --since 2026-11-20T00:00:00Z
  placet log show dec-2107b8e7922912419a51bf7e78b3bbd7
  placet log prove dec-2107b8e7922912419a51bf7e78b3bbd7 --output receipt.txt
  placet log tail --kind eviction_order
  placet log export --store placet.db --to mirror/
  placet log verify --directory mirror/ --jwks jwks.json --log-key log.key
  placet log erase --subject ada@acme.example --dry-run";

/// Show, search, follow, prove, check and export what was decided
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Show(ShowArgs),
    // Boxed: they have many more options than the others.
    List(Box<ListArgs>),
    Prove(ProveArgs),
    Tail(Box<TailArgs>),
    Checkpoint(CheckpointArgs),
    Cosign(CosignArgs),
    Verify(VerifyArgs),
    Export(ExportArgs),
    Erase(EraseArgs),
}

pub(super) fn run(args: &LogArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Show(args) => show::show(args, printer),
        Action::List(args) => list::list(args, printer),
        Action::Prove(args) => prove::prove(args, printer),
        Action::Tail(args) => tail::tail(args, printer),
        Action::Checkpoint(args) => checkpoint::checkpoint(args, printer),
        Action::Cosign(args) => cosign::cosign(args, printer),
        Action::Verify(args) => files::verify(args, printer),
        Action::Export(args) => files::export(args, printer),
        Action::Erase(args) => erase::erase(args, printer),
    }
}

async fn connect(server: &ServerArgs) -> Result<AuditServiceClient<Channel>, Failure> {
    let client = AuditServiceClient::new(channel(server).await?);
    Ok(client.max_decoding_message_size(MAX_ANSWER_BYTES))
}
