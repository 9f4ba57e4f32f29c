//! Sends events over one stream and hands their answers back in the order of the events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryFutureExt};
use placet_proto::admission::v1::{StreamRequest, StreamResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::{Client, status_failure};
use crate::events::{Line, LineError, Source, request_id};
use crate::exit::Failure;
use crate::tally;

/// Lines read ahead of what is sent, so that reading and parsing run beside the server.
const READ_AHEAD: usize = 256;
/// Most answers taken at once before the output is handed on.
const ANSWERS_AT_ONCE: usize = 256;

/// What became of one event.
#[derive(Debug)]
pub(crate) struct Row {
    /// Which source, from 0.
    pub(crate) source: usize,
    /// Line in the source, from 1.
    pub(crate) line: u64,
    /// Bytes of the source up to the line's end.
    pub(crate) bytes: u64,
    /// Of the event; empty if it has none.
    pub(crate) request_id: String,
    /// The answer, with how long it took; or why the line was never sent.
    pub(crate) outcome: Result<(StreamResponse, Duration), LineError>,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Events that were sent and never answered.
    pub(crate) unanswered: usize,
    /// Why not everything was sent and answered.
    pub(crate) failures: Vec<Failure>,
}

/// An event on its way.
struct Slot {
    source: usize,
    line: u64,
    bytes: u64,
    request_id: String,
    sent: Instant,
    outcome: Option<Result<(StreamResponse, Duration), LineError>>,
}

/// Takes rows in the order of the events.
pub(crate) trait Sink {
    /// One event is done.
    ///
    /// # Errors
    /// Nobody takes rows any more: the stream is given up.
    fn row(&mut self, row: Row) -> Result<(), Failure>;

    /// No more rows are ready for now.
    ///
    /// # Errors
    /// As [`Sink::row`].
    fn pause(&mut self) -> Result<(), Failure>;
}

/// Events on their way, in the order sent.
struct Flight {
    slots: VecDeque<Slot>,
}

impl Flight {
    fn answer(&mut self, response: StreamResponse) -> Result<(), Failure> {
        let waiting = |slot: &Slot| slot.outcome.is_none();
        let same = |slot: &&mut Slot| waiting(slot) && slot.request_id == response.request_id;
        let Some(slot) = self.slots.iter_mut().find(same) else {
            let id = crate::print::plain(&response.request_id);
            return Err(Failure::new(format!("the server answered `{id}`, which nobody asked")));
        };
        let took = slot.sent.elapsed();
        slot.outcome = Some(Ok((response, took)));
        Ok(())
    }

    fn push(&mut self, source: usize, line: &Line) {
        let (request_id, outcome) = match &line.event {
            Ok(event) => (request_id(event).to_owned(), None),
            Err(error) => (String::new(), Some(Err(error.clone()))),
        };
        let (bytes, line) = (line.bytes, line.number);
        self.slots.push_back(Slot { source, line, bytes, request_id, sent: tally::now(), outcome });
    }

    /// Hands on what is done, up to the first event that still waits.
    fn emit(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        while self.slots.front().is_some_and(|slot| slot.outcome.is_some()) {
            if let Some(Slot { source, line, bytes, request_id, outcome: Some(outcome), .. }) =
                self.slots.pop_front()
            {
                sink.row(Row { source, line, bytes, request_id, outcome })?;
            }
        }
        Ok(())
    }
}

/// Sends all events of the sources over one stream, with at most `in_flight` unanswered at a time.
///
/// # Errors
/// The sink takes no more rows. Everything else that goes wrong is told in [`Ended`].
pub(crate) async fn run(
    mut client: Client,
    sources: Vec<Source>,
    in_flight: usize,
    sink: &mut impl Sink,
) -> Result<Ended, Failure> {
    let mut lines = read(sources);
    let (send, events) = mpsc::channel::<StreamRequest>(in_flight);
    let mut send = Some(send);
    let answers = async move {
        client.admit_stream(ReceiverStream::new(events)).await.map(tonic::Response::into_inner)
    };
    let mut answers = std::pin::pin!(answers.try_flatten_stream().ready_chunks(ANSWERS_AT_ONCE));
    let mut flight = Flight { slots: VecDeque::new() };
    let mut failures = Vec::new();
    let mut alive = true;
    while alive && (send.is_some() || !flight.slots.is_empty()) {
        tokio::select! {
            line = lines.recv(), if send.is_some() && flight.slots.len() < in_flight => match line {
                Some(Ok((source, line))) => {
                    flight.push(source, &line);
                    // There is room for all on their way; a dead stream shows in its answers.
                    if let (Ok(event), Some(send)) = (line.event, &send) {
                        drop(send.send(*event).await);
                    }
                }
                Some(Err(failure)) => failures.push(failure),
                None => send = None,
            },
            chunk = answers.next() => {
                alive = chunk.is_some();
                for answer in chunk.unwrap_or_default() {
                    let kept = match answer {
                        Ok(response) => flight.answer(response),
                        Err(status) => Err(status_failure(&status).context("the server gave up")),
                    };
                    if let Err(failure) = kept {
                        failures.push(failure);
                        alive = false;
                    }
                }
                if !alive && failures.is_empty() {
                    failures.push(Failure::new("the server ended the stream"));
                }
            }
        }
        flight.emit(sink)?;
        sink.pause()?;
    }
    let unanswered = flight.slots.iter().filter(|slot| slot.outcome.is_none()).count();
    for slot in flight.slots {
        if let Some(outcome) = slot.outcome {
            let Slot { source, line, bytes, request_id, .. } = slot;
            sink.row(Row { source, line, bytes, request_id, outcome })?;
        }
    }
    sink.pause()?;
    Ok(Ended { unanswered, failures })
}

/// Reads all sources in order on a thread of its own, which ends with them or with the receiver.
fn read(sources: Vec<Source>) -> mpsc::Receiver<Result<(usize, Line), Failure>> {
    let (send, receive) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        for (at, mut source) in sources.into_iter().enumerate() {
            loop {
                let (line, last) = match source.next() {
                    Ok(Some(line)) => (Ok((at, line)), false),
                    Ok(None) => break,
                    Err(failure) => (Err(failure), true),
                };
                if send.blocking_send(line).is_err() {
                    return;
                }
                if last {
                    break;
                }
            }
        }
    });
    receive
}
