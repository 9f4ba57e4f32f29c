//! `placet log checkpoint`: the head of the log, and what a witness has to be sent with it.

use std::path::PathBuf;

use clap::Args;
use placet_proto::audit::v1::{GetCheckpointRequest, GetConsistencyProofRequest};
use placet_proto::json;

use super::connect;
use crate::connection::{ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::Printer;

const EXAMPLES: &str = "\
A checkpoint is a signed note (C2SP tlog-checkpoint): how many leaves the log
has, and the root of their tree. Whoever keeps one finds out if the log is cut
back or written anew (`placet log verify --seen`).

A witness does so for everybody: it cosigns only what continues all that it
cosigned before. With --old, what is written is the body of a request to it
(C2SP tlog-witness, add-checkpoint): SIZE is what it cosigned last, 0 at first.
One that cosigned another size answers with that size. What else it answers is
for `placet log cosign`:

  placet log checkpoint --old 0 --output request
  curl --data-binary @request https://witness.example/add-checkpoint > answer
  placet log cosign request answer

Examples:
  placet log checkpoint --output monday.checkpoint
  placet log checkpoint --witnesses 2 --format json";

/// Write the newest checkpoint, or a request to have it cosigned
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckpointArgs {
    /// The newest that at least so many witnesses cosigned
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    witnesses: u32,
    /// Write a request to a witness that last cosigned a log of so many leaves
    #[arg(long, value_name = "SIZE")]
    old: Option<u64>,
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn checkpoint(args: &CheckpointArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let request = GetCheckpointRequest { witnesses: args.witnesses };
    let (told, hashes) = block_on(async {
        let mut client = connect(&args.server).await?;
        let told = client.get_checkpoint(request).await;
        let told = told.map_err(|status| status_failure(&status))?.into_inner();
        let hashes = match args.old {
            // A log without leaves is the beginning of every log: nothing is to be proved.
            None | Some(0) => Vec::new(),
            Some(old_size) => {
                let request = GetConsistencyProofRequest { old_size, new_size: told.size };
                let proof = client.get_consistency_proof(request).await;
                proof.map_err(|status| status_failure(&status))?.into_inner().hashes
            }
        };
        Ok((told, hashes))
    })?;
    let text = match args.old {
        None => told.checkpoint.clone(),
        Some(old) => {
            let hashes: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
            format!("old {old}\n{hashes}\n{}", told.checkpoint)
        }
    };
    if let Some(file) = &args.output {
        std::fs::write(file, &text)
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", file.display())))?;
    } else if !printer.json() {
        // It ends with a line feed of its own.
        printer.data(text.trim_end_matches('\n'))?;
    }
    if printer.json() {
        let mut line = json::to_json(&told);
        if args.old.is_some() {
            line["request"] = text.into();
        }
        printer.data(&line.to_string())?;
    }
    printer.note(&format!("a log of {} leaves", told.size));
    Ok(Exit::Done)
}
