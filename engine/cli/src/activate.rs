//! Having a server read bundle or facts again, and telling what is active: what the commands
//! `bundle` and `facts` share.

use clap::Args;
use placet_proto::control::v1::control_service_client::ControlServiceClient;
use placet_proto::control::v1::{ActivateRequest, Active, GetActiveRequest, Source};
use placet_proto::json;
use tonic::{Code, Status};

use crate::connection::{ServerArgs, block_on, channel, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer, Tone, plain};

/// What is to be read again.
#[derive(Debug, Args)]
pub(crate) struct ActivateArgs {
    /// Digest that it must have, `sha256:...`; anything else is refused
    #[arg(long, value_name = "DIGEST", conflicts_with = "both")]
    expect: Option<String>,
    /// Bundle and facts together, switched in one step
    #[arg(long)]
    both: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which server is asked.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Has the server read a source again.
///
/// # Errors
/// The server cannot be reached, or refuses: then what was active stays active.
pub(crate) fn activate(
    source: Source,
    args: &ActivateArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let sources = if args.both { Vec::new() } else { vec![source.into()] };
    let expected_digest = args.expect.clone().unwrap_or_default();
    let active = block_on(async {
        let mut client = ControlServiceClient::new(channel(&args.server).await?);
        let request = ActivateRequest { sources, expected_digest };
        let answer = client.activate(request).await.map_err(|status| refused(&status))?;
        Ok(answer.into_inner().active)
    })?;
    show(&active, printer)?;
    Ok(Exit::Done)
}

/// Tells what a server decides with. Exit code 0 even where the last attempt was refused: what is
/// active is good.
///
/// # Errors
/// The server cannot be reached.
pub(crate) fn status(
    source: Source,
    args: &StatusArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let active = block_on(async {
        let mut client = ControlServiceClient::new(channel(&args.server).await?);
        let answer = client.get_active(GetActiveRequest {}).await;
        Ok(answer.map_err(|status| status_failure(&status))?.into_inner().active)
    })?;
    let active: Vec<Active> = active.into_iter().filter(|it| it.source() == source).collect();
    show(&active, printer)?;
    Ok(Exit::Done)
}

/// A bundle or facts that were refused have the exit code of invalid policies.
fn refused(status: &Status) -> Failure {
    let failure = status_failure(status);
    if status.code() == Code::FailedPrecondition {
        failure.with_exit(Exit::PolicyInvalid)
    } else {
        failure
    }
}

fn show(active: &[Active], printer: &mut Printer) -> Result<(), Failure> {
    for one in active {
        if printer.json() {
            printer.data(&json::to_json(one).to_string())?;
            continue;
        }
        // On a line of its own a digest fits 80 columns, and can be copied.
        printer.data(&format!("{} {}", name(one), plain(&one.digest)))?;
        let mut table = print::pairs();
        table.add_row(["revision", &plain(&one.revision)]);
        let attempt = one.last_attempt.clone().unwrap_or_default();
        let word = match (attempt.error.is_empty(), attempt.changed) {
            (false, _) => printer.tone(Tone::Bad, "refused"),
            (true, true) => printer.tone(Tone::Good, "activated"),
            (true, false) => "unchanged".to_owned(),
        };
        table.add_row(["last attempt", &format!("{word} at {}", placet_core::utc(attempt.time))]);
        if attempt.changed && attempt.cases > 0 {
            table.add_row(["cases", &format!("{} passed", attempt.cases)]);
        }
        let milliseconds = attempt.took_micros.div_ceil(1_000);
        table.add_row(["took", &format!("{milliseconds} ms")]);
        if !attempt.error.is_empty() {
            table.add_row(["reason", &plain(&attempt.error)]);
        }
        printer.data(&table.to_string())?;
    }
    Ok(())
}

fn name(active: &Active) -> &'static str {
    match active.source() {
        Source::Bundle => "bundle",
        Source::Facts => "facts",
        Source::Unspecified => "unknown",
    }
}
