//! `placet log cosign`: hands a server what witnesses said of a checkpoint of its.

use std::path::PathBuf;

use clap::Args;
use placet_core::{Cosignature, MAX_CHECKPOINT_BYTES};
use placet_proto::audit::v1::AddCosignaturesRequest;
use placet_proto::json;

use super::connect;
use crate::connection::{ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::log_key::read_file;
use crate::print::{Printer, plain};
use crate::witnesses;

/// How a request to a witness begins (C2SP tlog-witness, "add-checkpoint").
const REQUEST: &str = "old ";

const EXAMPLES: &str = "\
The server verifies each line against the witnesses that it was started with
(--witness of `placet serve`), stores what is new, and from then on shows the
checkpoint with it. Lines of others are passed over. Any checkpoint that the
server published will do, not the newest alone; of one witness the first line
stays, so that handing in the same again changes nothing.

A server that has another root for the same number of leaves says so: then two
histories of one log are about, and the file proves it.

Examples:
  placet log cosign request answer-of-w1 answer-of-w2
  placet log cosign cosigned.checkpoint";

/// Add cosignatures of witnesses to a checkpoint
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CosignArgs {
    /// A checkpoint, cosigned or not, or the request to a witness with it
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// What witnesses answered: signature lines
    #[arg(value_name = "ANSWER")]
    answers: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn cosign(args: &CosignArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    // A request has at most 63 lines of proof before the checkpoint.
    let text = read_file(&args.checkpoint, MAX_CHECKPOINT_BYTES.saturating_mul(2))?;
    let mut note = match text.split_once("\n\n") {
        Some((_, checkpoint)) if text.starts_with(REQUEST) => checkpoint.to_owned(),
        Some(_) | None => text,
    };
    for path in &args.answers {
        let answer = read_file(path, MAX_CHECKPOINT_BYTES)?;
        if let Ok(size) = answer.trim().parse::<u64>() {
            let shown = plain(&path.display().to_string());
            let own = note.lines().nth(1).and_then(|size| size.parse().ok());
            if own == Some(size) {
                let what = format!(
                    "`{shown}` says that the witness cosigned {size} leaves, as many as these: of \
                     the same root it would cosign again"
                );
                return Err(Failure::new(what).hint(
                    "it may have been shown another history of this log: compare the roots with \
                     its operator",
                ));
            }
            let what = format!("`{shown}` is no cosignature: the witness is at {size} leaves");
            return Err(Failure::new(what)
                .hint(format!("send it what `placet log checkpoint --old {size}` writes")));
        }
        note.push_str(&answer);
        if !note.ends_with('\n') {
            note.push('\n');
        }
    }
    let told = block_on(async {
        let mut client = connect(&args.server).await?;
        let told = client.add_cosignatures(AddCosignaturesRequest { note }).await;
        Ok(told.map_err(|status| status_failure(&status))?.into_inner())
    })?;
    if printer.json() {
        printer.data(&json::to_json(&told).to_string())?;
    } else {
        for found in &told.cosignatures {
            let mark = if found.added { "added" } else { "there already" };
            let (witness, time) = (found.witness.clone(), found.time);
            let text = witnesses::to_text(&Cosignature { time, witness });
            printer.data(&format!("{text}, {mark}"))?;
        }
    }
    for name in &told.passed_over {
        printer.note(&format!("passed over: {}, which the server does not know", plain(name)));
    }
    printer.note(&format!("a log of {} leaves", told.size));
    Ok(Exit::Done)
}
