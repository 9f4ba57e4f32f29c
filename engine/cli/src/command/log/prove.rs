//! `placet log prove`: a receipt, which proves offline that something is in the log.

use std::path::PathBuf;

use clap::Args;
use placet_proto::audit::v1::GetReceiptRequest;
use placet_proto::audit::v1::get_receipt_request::Leaf;
use placet_proto::json;

use super::connect;
use crate::connection::{ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::Printer;

const EXAMPLES: &str = "\
A receipt is a text file (C2SP tlog-proof) with the leaf, the proof that it is
in the log and the signed checkpoint of the log. Whoever has the log's key
(`placet keys log`) checks it offline and needs nobody's word.

The log is proved as far as its newest checkpoint reaches, which is a few
seconds behind; --wait waits for it. With --witnesses, it is the newest one
that so many witnesses cosigned: `placet verify --receipt` then can check that
everybody was shown the same log.

Examples:
  placet log prove dec-2107b8e7922912419a51bf7e78b3bbd7 \\
    --output receipt.txt --wait
  placet log prove 1042 --witnesses 2";

/// Write the proof that a decision, or any leaf, is in the log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ProveArgs {
    /// Id of a decision or of its reservation, or a position of the log
    #[arg(value_name = "ID_OR_POSITION")]
    what: String,
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Wait for a checkpoint that reaches the leaf; without a number 60 seconds
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60"
    )]
    wait: Option<u32>,
    /// Under a checkpoint that at least so many witnesses cosigned
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    witnesses: u32,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn prove(args: &ProveArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let leaf = match args.what.parse() {
        Ok(position) => Leaf::Position(position),
        Err(_no_number) => Leaf::Id(args.what.clone()),
    };
    let wait_seconds = args.wait.unwrap_or_default();
    let request = GetReceiptRequest { leaf: Some(leaf), wait_seconds, witnesses: args.witnesses };
    let told = block_on(async {
        let mut client = connect(&args.server).await?;
        let told = client.get_receipt(request).await;
        Ok(told.map_err(|status| status_failure(&status))?.into_inner())
    })?;
    if let Some(file) = &args.output {
        std::fs::write(file, &told.receipt)
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", file.display())))?;
    } else if !printer.json() {
        // The receipt ends with a line feed of its own.
        printer.data(told.receipt.trim_end_matches('\n'))?;
    }
    if printer.json() {
        printer.data(&json::to_json(&told).to_string())?;
    }
    printer.note(&format!("position {} in a log of {} leaves", told.position, told.size));
    Ok(Exit::Done)
}
