//! `placet ledger watch`: what becomes of reservations, a line for each change, until it is told to
//! stop.

use clap::{Args, ValueEnum};
use placet_core::utc;
use placet_proto::json;
use placet_proto::ledger::v1::watch_response::Change;
use placet_proto::ledger::v1::{ChangeKind, WatchRequest, WatchResponse};

use super::connect;
use crate::connection::{ServerArgs, block_on};
use crate::exit::{Exit, Failure};
use crate::follow::{Broken, follow, hear, until_told};
use crate::print::{Printer, Tone, plain};

const EXAMPLES: &str = "\
Changes come in the order of the decision log, each once: first those that it
has, then each one as it happens. A line begins with its position; to go on
later, give the position after the last one to --from. If the connection breaks,
it is made again, and the watch goes on where it was. Ctrl-C ends it.

An order of eviction takes effect when the reservation that it makes room for is
CONFIRMED, and is over when its victim has EXPIRED as EVICTED. With --format
json, the line has the signed order.

Examples:
  placet ledger watch
  placet ledger watch --from 1043 --kind eviction-ordered --kind expired
  placet ledger watch --format json --no-reconnect";

/// Show what becomes of reservations, as it happens
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// First position of the log to look at
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    from: u64,
    /// Only changes of this kind; may be repeated [default: all]
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Vec<Kind>,
    /// End when the connection breaks
    #[arg(long)]
    no_reconnect: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Told to make room for another
    EvictionOrdered,
    /// Became active
    Confirmed,
    /// Ended by its holder
    Released,
    /// Ended by itself
    Expired,
}

impl From<Kind> for ChangeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::EvictionOrdered => Self::EvictionOrdered,
            Kind::Confirmed => Self::Confirmed,
            Kind::Released => Self::Released,
            Kind::Expired => Self::Expired,
        }
    }
}

pub(super) fn watch(args: &WatchArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut request = WatchRequest {
        position: args.from,
        kinds: args.kind.iter().map(|kind| ChangeKind::from(*kind).into()).collect(),
    };
    let listen = async |request: &mut WatchRequest, printer: &mut Printer, heard: &mut bool| {
        let mut client = match connect(&args.server).await {
            Ok(client) => client,
            Err(failure) => return Broken::unconnected(failure),
        };
        let changes = match client.watch(request.clone()).await {
            Ok(changes) => changes.into_inner(),
            Err(status) => return Broken::of(&status),
        };
        hear(changes, printer, heard, |told, printer| {
            line(printer, &told).map_or(Ok(()), |line| printer.data(&line))?;
            request.position = told.position.saturating_add(1);
            Ok(())
        })
        .await
    };
    let position = |request: &WatchRequest| request.position;
    block_on(until_told(follow(args.no_reconnect, &mut request, printer, position, listen)))?;
    printer.flush()?;
    printer.note(&format!("to go on: --from {}", request.position));
    Ok(Exit::Done)
}

/// One change; `None` for a sign of life.
fn line(printer: &Printer, told: &WatchResponse) -> Option<String> {
    let change = told.change.as_ref()?;
    if printer.json() {
        return Some(json::to_json(told).to_string());
    }
    let what = match change {
        Change::EvictionOrdered(order) => format!(
            "{} {} by {}, for {}, then epoch {}",
            plain(&order.victim),
            printer.tone(Tone::Bad, "EVICTION_ORDERED"),
            utc(order.evict_by),
            plain(&order.preemptor),
            order.epoch,
        ),
        Change::Confirmed(own) => {
            let word = printer.tone(Tone::Good, "CONFIRMED");
            format!("{} {word} epoch {}", plain(&own.reservation_id), own.epoch)
        }
        Change::Released(own) => {
            let word = printer.tone(Tone::Strong, "RELEASED");
            format!("{} {word} epoch {}", plain(&own.reservation_id), own.epoch)
        }
        Change::Expired(own) => {
            let word = printer.tone(Tone::Warn, "EXPIRED");
            let (id, cause) = (plain(&own.reservation_id), own.cause().as_str_name());
            format!("{id} {word} epoch {} {cause}", own.epoch)
        }
    };
    Some(format!("{} {} {what}", told.position, utc(told.time)))
}
