//! `placet log tail`: the events that fit, as they happen.

use clap::Args;
use placet_proto::audit::v1::TailRequest;

use super::connect;
use super::filter::{FilterArgs, line};
use crate::connection::{ServerArgs, block_on};
use crate::exit::{Exit, Failure};
use crate::follow::{Broken, follow, hear, until_told};
use crate::print::Printer;

const EXAMPLES: &str = "\
A line begins with the position of its event; to go on later, give the position
after the last one to --from. If the connection breaks, it is made again, and
the tail goes on where it was. Ctrl-C ends it. `placet log list --help` explains
which events fit.

Examples:
  placet log tail --kind eviction_order
  placet log tail --tenant acme --from 0
  placet log tail --effect deny --format json --no-reconnect";

/// Show the events that fit, as they happen
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// First position to look at [default: the next one to come]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// End when the connection breaks
    #[arg(long)]
    no_reconnect: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn tail(args: &TailArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut request = TailRequest { filter: Some(args.filter.filter()), position: args.from };
    let listen = async |request: &mut TailRequest, printer: &mut Printer, heard: &mut bool| {
        let mut client = match connect(&args.server).await {
            Ok(client) => client,
            Err(failure) => return Broken::unconnected(failure),
        };
        let events = match client.tail(request.clone()).await {
            Ok(events) => events.into_inner(),
            Err(status) => return Broken::of(&status),
        };
        hear(events, printer, heard, |told, printer| {
            if let Some(event) = &told.event {
                printer.data(&line(printer, event))?;
            }
            request.position = told.next;
            Ok(())
        })
        .await
    };
    let position = |request: &TailRequest| request.position.unwrap_or_default();
    block_on(until_told(follow(args.no_reconnect, &mut request, printer, position, listen)))?;
    printer.flush()?;
    if let Some(position) = request.position {
        printer.note(&format!("to go on: --from {position}"));
    }
    Ok(Exit::Done)
}
