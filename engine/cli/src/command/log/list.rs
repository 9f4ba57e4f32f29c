//! `placet log list`: the events that fit.

use clap::Args;
use placet_proto::audit::v1::ListEventsRequest;

use super::connect;
use super::filter::{FilterArgs, line};
use crate::command::ledger::reserve::time;
use crate::connection::{ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::follow::SILENCE;
use crate::print::Printer;

const EXAMPLES: &str = "\
KIND is one of genesis, decision, confirmation, release, expiry, revocation,
eviction_order, bundle_activation, facts_activation, quotas, waiver, freeze,
thaw, erasure. A policy named `placet` is the engine itself. An account fits by
its path or the beginning of it, segment by segment.

Events of a reservation, such as its release, are those of the tenant to whom it
was granted. However many events fit, they are shown as they are found. With
--format json, each line has the leaf as the log has it, byte by byte.

Examples:
  placet log list --tenant acme --effect deny \\
    --since 2026-11-20T00:00:00Z --code QUOTA_EXCEEDED
  placet log list --newest-first --most 20
  placet log list --account cluster/de-fra-1 --kind decision --format json";

/// List the events that fit, in the order of the log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// First second, in UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// First second after, in UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// First position to look at [default: the beginning, or the end]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// From the newest to the oldest
    #[arg(long)]
    newest_first: bool,
    /// Most events [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    most: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn list(args: &ListArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let request = ListEventsRequest {
        filter: Some(args.filter.filter()),
        from_time: args.since.unwrap_or_default(),
        until_time: args.until,
        newest_first: args.newest_first,
        position: args.from,
        most: args.most.unwrap_or_default(),
    };
    let (mut count, mut next) = (0_u64, None);
    block_on(async {
        let mut client = connect(&args.server).await?;
        let listed = client.list_events(request).await;
        let mut listed = listed.map_err(|status| status_failure(&status))?.into_inner();
        loop {
            let go_on = |failure: Failure| match next {
                Some(next) => failure.hint(format!("the rest: --from {next}")),
                None => failure,
            };
            let told = tokio::time::timeout(SILENCE, listed.message())
                .await
                .map_err(|_late| go_on(Failure::new("the server says nothing any more")))?;
            let told = told.map_err(|status| go_on(status_failure(&status)))?;
            let Some(told) = told else { return Ok(()) };
            next = told.next;
            if let Some(event) = &told.event {
                count = count.saturating_add(1);
                printer.data(&line(printer, event))?;
            }
        }
    })?;
    printer.flush()?;
    let events = if count == 1 { "event" } else { "events" };
    match next {
        Some(next) => printer.note(&format!("{count} {events}; to go on: --from {next}")),
        None => printer.note(&format!("{count} {events}")),
    }
    Ok(Exit::Done)
}
