//! The shape of a stream: evaluated side by side, sequenced one by one, answered in order.

use std::future::{Future, ready};

use futures::future::{Either, FutureExt as _};
use futures::stream::{Stream, StreamExt as _};

/// Events of one stream that are evaluated at once: enough to keep every worker of a large machine
/// busy.
const MAX_EVALUATING: usize = 64;
/// Events of one stream that wait for their commit at once: enough to fill a group commit by
/// itself, small enough that one stream cannot fill the server's memory (each holds at most some
/// tens of kilobytes).
const MAX_SEQUENCED: usize = 256;

/// Runs events through `prepare` (several at once), `sequence` (in the order of the events, each
/// one done before the next begins) and `finish` (several at once); answers in the order of the
/// events.
///
/// An error among the events is passed on in its place. Nothing runs ahead of a reader that does
/// not read, and nothing goes on when the stream is dropped.
pub(super) fn pipeline<Event, Ready, Placed, Answer, Error, Preparing, Sequencing, Finishing>(
    events: impl Stream<Item = Result<Event, Error>> + Send,
    prepare: impl Fn(Event) -> Preparing + Send,
    sequence: impl Fn(Ready) -> Sequencing + Send,
    finish: impl Fn(Placed) -> Finishing + Send,
) -> impl Stream<Item = Result<Answer, Error>> + Send
where
    Event: Send,
    Ready: Send,
    Placed: Send,
    Answer: Send,
    Error: Send,
    Preparing: Future<Output = Ready> + Send,
    Sequencing: Future<Output = Placed> + Send,
    Finishing: Future<Output = Answer> + Send,
{
    events
        .map(move |event| outcome(event.map(&prepare)))
        .buffered(MAX_EVALUATING)
        .then(move |ready| outcome(ready.map(&sequence)))
        .map(move |placed| outcome(placed.map(&finish)))
        .buffered(MAX_SEQUENCED)
}

/// The outcome of a step that has begun, or at once the error that stands in its place.
fn outcome<Step: Future, Error>(
    step: Result<Step, Error>,
) -> impl Future<Output = Result<Step::Output, Error>> {
    match step {
        Ok(step) => Either::Left(step.map(Ok)),
        Err(error) => Either::Right(ready(Err(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use futures::stream;
    use proptest::prelude::*;
    use tokio::task::yield_now;

    use super::*;

    async fn yields(times: usize) {
        for _ in 0..times {
            yield_now().await;
        }
    }

    /// What one run did: the answers, the order of sequencing, the most that were evaluated at
    /// once.
    struct Run {
        answers: Vec<Result<usize, &'static str>>,
        order: Vec<usize>,
        at_once: usize,
    }

    /// Runs events that take `delays` turns of the executor to evaluate, sequence and commit.
    async fn run(delays: Vec<(usize, usize, usize)>, error_after: Option<usize>) -> Run {
        let order = Arc::new(Mutex::new(Vec::new()));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = delays.len();
        let events = (0..count).map(move |it| match error_after {
            Some(at) if at == it => Err("broken"),
            _ => Ok(it),
        });
        let delays = Arc::new(delays);
        let prepare = {
            let (delays, most) = (Arc::clone(&delays), Arc::clone(&most));
            move |event: usize| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let delay = delays[event].0;
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    yields(delay).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    event
                }
            }
        };
        let sequence = {
            let (order, delays) = (Arc::clone(&order), Arc::clone(&delays));
            move |event: usize| {
                let (order, delays) = (Arc::clone(&order), Arc::clone(&delays));
                async move {
                    yields(delays[event].1).await;
                    order.lock().unwrap().push(event);
                    event
                }
            }
        };
        let finish = move |event: usize| {
            let delays = Arc::clone(&delays);
            async move {
                yields(delays[event].2).await;
                event
            }
        };
        let answers = pipeline(stream::iter(events), prepare, sequence, finish).collect().await;
        let order = order.lock().unwrap().clone();
        Run { answers, order, at_once: most.load(Ordering::SeqCst) }
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn evaluation_is_parallel_and_bounded() {
        let run = block(run(vec![(5, 0, 0); 1_000], None));
        assert_eq!(run.answers.len(), 1_000);
        assert!(run.at_once > 1 && run.at_once <= MAX_EVALUATING, "{}", run.at_once);
    }

    #[test]
    fn earlier_events_are_answered_before_an_error() {
        let run = block(run(vec![(3, 1, 9), (2, 0, 0), (0, 0, 0), (0, 0, 0)], Some(3)));
        assert_eq!(run.answers, [Ok(0), Ok(1), Ok(2), Err("broken")]);
    }

    #[test]
    fn nothing_runs_ahead_of_a_reader_that_does_not_read() {
        block(async {
            let taken = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&taken);
            let events = stream::iter(0..100_000_usize).map(move |event| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ()>(event)
            });
            let answers = pipeline(events, ready, ready, ready);
            let mut answers = std::pin::pin!(answers);
            assert_eq!(answers.next().await, Some(Ok(0)));
            let most = MAX_EVALUATING + MAX_SEQUENCED + 1;
            assert!(taken.load(Ordering::SeqCst) <= most, "{taken:?}");
        });
    }

    proptest! {
        #[test]
        fn order_is_kept_whatever_takes_long(
            delays in prop::collection::vec((0_usize..8, 0_usize..3, 0_usize..8), 0..120),
        ) {
            let expected: Vec<_> = (0..delays.len()).collect();
            let run = block(run(delays, None));
            prop_assert_eq!(&run.order, &expected, "sequenced in order");
            let answers: Vec<_> = run.answers.into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(answers, expected, "answered in order");
        }
    }
}
