//! Following what a server tells as it happens, over as many connections as it takes.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Status, Streaming};

use crate::connection::status_failure;
use crate::exit::{Exit, Failure};
use crate::print::Printer;

/// Between two attempts to reach the server again: doubled from the first up to the last, so that
/// a restart is hardly noticed and a server that stays away is not besieged.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a server may say nothing: three of its heartbeats, of 10 seconds.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
/// Most responses taken at once before the output is handed on.
const AT_ONCE: usize = 256;

/// Why a connection no longer tells anything.
pub(crate) enum Broken {
    /// Asking again is of no use.
    ForGood(Failure),
    /// It may be of use.
    ForNow(Failure),
}

impl Broken {
    /// What a status says about asking again.
    pub(crate) fn of(status: &Status) -> Self {
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

    /// The same of a connection that was not made.
    pub(crate) fn unconnected(failure: Failure) -> Self {
        if failure.exit() == Exit::Usage { Self::ForGood(failure) } else { Self::ForNow(failure) }
    }
}

/// Does something until it ends, or a signal says that it should.
///
/// # Errors
/// Those of what is done, or signals cannot be heard.
pub(crate) async fn until_told(
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
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
        ended = work => ended,
    }
}

/// Listens again and again, from where it was: `listen` moves the request on, and says whether it
/// heard anything; `position` tells how far it is.
///
/// # Errors
/// The server refuses, was never reached, or is not to be asked again.
pub(crate) async fn follow<R>(
    is_once: bool,
    request: &mut R,
    printer: &mut Printer,
    position: impl Fn(&R) -> u64,
    mut listen: impl AsyncFnMut(&mut R, &mut Printer, &mut bool) -> Broken,
) -> Result<(), Failure> {
    let (mut pause, longest) = AGAIN;
    let mut heard_once = false;
    loop {
        let mut heard = false;
        let failure = match listen(request, printer, &mut heard).await {
            Broken::ForGood(failure) => return Err(failure),
            Broken::ForNow(failure) => failure,
        };
        heard_once |= heard;
        // Who was never answered has more likely named the wrong server than met it restarting.
        if is_once || !heard_once {
            return Err(failure);
        }
        if heard {
            pause = AGAIN.0;
        }
        let why = failure.message().lines().next().unwrap_or_default().to_owned();
        printer.note(&format!(
            "{why}; trying again in {} s from position {}",
            pause.as_secs_f32(),
            position(request)
        ));
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(longest);
    }
}

/// Hears one stream to its end, and hands on what was printed whenever nothing more is there.
pub(crate) async fn hear<T>(
    stream: Streaming<T>,
    printer: &mut Printer,
    heard: &mut bool,
    mut each: impl FnMut(T, &mut Printer) -> Result<(), Failure>,
) -> Broken {
    let mut stream = stream.ready_chunks(AT_ONCE);
    loop {
        let chunk = match tokio::time::timeout(SILENCE, stream.next()).await {
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
            if let Err(failure) = each(told, printer) {
                return Broken::ForGood(failure);
            }
        }
        if let Err(failure) = printer.flush() {
            return Broken::ForGood(failure);
        }
    }
}
