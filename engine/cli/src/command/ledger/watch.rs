//! `placet ledger watch`: what becomes of reservations, a line for each change, until it is told to
//! stop.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use placet_core::utc;
use placet_proto::json;
use placet_proto::ledger::v1::watch_response::Change;
use placet_proto::ledger::v1::{ChangeKind, WatchRequest, WatchResponse};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Status};

use super::connect;
use crate::connection::{ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{Printer, Tone, plain};

/// Between two attempts to reach the server again: doubled from the first up to the last, so that
/// a restart is hardly noticed and a server that stays away is not besieged.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a server may say nothing: three of its heartbeats, of 10 seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Most changes taken at once before the output is handed on.
const CHANGES_AT_ONCE: usize = 256;

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

/// Why a connection no longer tells anything.
enum Broken {
    /// Asking again is of no use.
    ForGood(Failure),
    ForNow(Failure),
}

impl Broken {
    fn of(status: &Status) -> Self {
        let failure = status_failure(status);
        match status.code() {
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented => Self::ForGood(failure),
            _ => Self::ForNow(failure),
        }
    }
}

pub(super) fn watch(args: &WatchArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut request = WatchRequest {
        position: args.from,
        kinds: args.kind.iter().map(|kind| ChangeKind::from(*kind).into()).collect(),
    };
    block_on(async {
        let listen = |kind| {
            let cannot = |error| Failure::new(format!("cannot listen for signals: {error}"));
            signal(kind).map_err(cannot)
        };
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            ended = follow(args, &mut request, printer) => ended,
        }
    })?;
    printer.flush()?;
    printer.note(&format!("to go on: --from {}", request.position));
    Ok(Exit::Done)
}

/// Follows the log over as many connections as it takes.
async fn follow(
    args: &WatchArgs,
    request: &mut WatchRequest,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let (mut pause, longest) = AGAIN;
    let mut heard_once = false;
    loop {
        let mut heard = false;
        let failure = match listen(args, request, printer, &mut heard).await {
            Broken::ForGood(failure) => return Err(failure),
            Broken::ForNow(failure) => failure,
        };
        heard_once |= heard;
        // Who was never answered has more likely named the wrong server than met it restarting.
        if args.no_reconnect || !heard_once {
            return Err(failure);
        }
        if heard {
            pause = AGAIN.0;
        }
        let why = failure.message().lines().next().unwrap_or_default().to_owned();
        printer.note(&format!(
            "{why}; trying again in {} s from position {}",
            pause.as_secs_f32(),
            request.position
        ));
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(longest);
    }
}

/// Follows the log over one connection, and moves the request on with what it tells.
async fn listen(
    args: &WatchArgs,
    request: &mut WatchRequest,
    printer: &mut Printer,
    heard: &mut bool,
) -> Broken {
    let mut client = match connect(&args.server).await {
        Ok(client) => client,
        Err(failure) if failure.exit() == Exit::Usage => return Broken::ForGood(failure),
        Err(failure) => return Broken::ForNow(failure),
    };
    let changes = match client.watch(request.clone()).await {
        Ok(changes) => changes.into_inner(),
        Err(status) => return Broken::of(&status),
    };
    let mut changes = changes.ready_chunks(CHANGES_AT_ONCE);
    loop {
        let chunk = match tokio::time::timeout(SILENCE, changes.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Broken::ForNow(Failure::new("the server ended the stream")),
            Err(_elapsed) => {
                return Broken::ForNow(Failure::new("the server says nothing any more"));
            }
        };
        for told in chunk {
            let told = match told {
                Ok(told) => told,
                Err(status) => return Broken::of(&status),
            };
            *heard = true;
            let shown = line(printer, &told).map_or(Ok(()), |line| printer.data(&line));
            if let Err(failure) = shown {
                return Broken::ForGood(failure);
            }
            request.position = told.position.saturating_add(1);
        }
        if let Err(failure) = printer.flush() {
            return Broken::ForGood(failure);
        }
    }
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
