//! Reading the log for somebody else: past the writer, and no faster than it is taken.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use placet_proto::FieldError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::AdmitError;
use crate::metrics::Stopwatch;
use crate::sequencer::LogNews;
use crate::store::{ReadError, Reader};

/// Most watchers of what becomes of reservations at once. Each reads the whole log behind the
/// writer, about as much work as folding it; those who execute orders are few, and may hand on what
/// they hear.
pub(super) const MAX_WATCHERS: usize = 32;
/// Most watchers that read at the same moment: however many watch, most of the machine is left to
/// those who decide.
const MAX_READING: usize = 2;
/// Leaves of one read. What a watcher has not taken yet is at most what they hold: some hundred
/// kilobytes, and 16 MiB if each leaf were as long as can be.
pub(super) const LEAVES_AT_ONCE: u64 = 256;
/// Longest time without a response: short enough that a client which stores how far it has got
/// repeats little, and that a dead server is found within half a minute; long enough to cost
/// nothing.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What somebody looks for in the log.
pub(super) trait Question: Send + Sync + 'static {
    /// One finding, or how far the log was looked at.
    type Answer: Send + 'static;

    /// What is found in a range of the log, with its positions, in the order of the log. Blocks.
    ///
    /// # Errors
    /// If the log cannot be read, or has fewer leaves.
    fn find(
        &self,
        reader: &Reader,
        range: Range<u64>,
    ) -> Result<Vec<(u64, Self::Answer)>, ReadError>;

    /// How far the log has been looked at: `place` is as [`Course::place`] has it.
    fn progress(&self, place: u64) -> Self::Answer;
}

/// Which leaves are still to be looked at, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    rest: Range<u64>,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In the order of the log, and on as it grows.
    Following,
    /// In the order of the log.
    Forward,
    /// Against the order of the log.
    Backward,
}

impl Course {
    /// From a position of a log that has `size` leaves on, and on as it grows.
    pub(super) fn following(position: u64, size: u64) -> Self {
        Self { rest: position..size, way: Way::Following }
    }

    /// Once over a range, in the order of the log.
    pub(super) fn forward(range: Range<u64>) -> Self {
        Self { rest: range, way: Way::Forward }
    }

    /// Once over a range, against the order of the log.
    pub(super) fn backward(range: Range<u64>) -> Self {
        Self { rest: range, way: Way::Backward }
    }

    /// The end that moves: the next leaf, or, against the order, the last one that was looked at.
    fn place(&self) -> u64 {
        if self.way == Way::Backward { self.rest.end } else { self.rest.start }
    }

    /// The leaves to look at next.
    fn block(&self) -> Option<Range<u64>> {
        let Range { start, end } = self.rest;
        if start >= end {
            return None;
        }
        Some(if self.way == Way::Backward {
            end.saturating_sub(LEAVES_AT_ONCE).max(start)..end
        } else {
            start..end.min(start.saturating_add(LEAVES_AT_ONCE))
        })
    }

    fn looked_at(&mut self, block: &Range<u64>) {
        match self.way {
            Way::Following | Way::Forward => self.rest.start = block.end,
            Way::Backward => self.rest.end = block.start,
        }
    }

    /// The place when everything up to a position, and no more, has been looked at.
    fn behind(&self, position: u64) -> u64 {
        if self.way == Way::Backward { position } else { position.saturating_add(1) }
    }
}

/// Refuses a position beyond the end of a log.
///
/// # Errors
/// `POSITION_AHEAD`.
pub(super) fn check_reached(position: u64, size: u64) -> Result<(), AdmitError> {
    if position <= size { Ok(()) } else { Err(ahead(position, size)) }
}

/// The refusal of a position that a log does not have.
pub(super) fn ahead(position: u64, size: u64) -> AdmitError {
    let message = format!("is {position}, but this log has {size} leaves");
    let hint = "ask the server that gave the position; a store that was restored from a copy may \
                have lost it";
    let ahead = FieldError::new("POSITION_AHEAD", message, hint);
    AdmitError::FailedPrecondition(ahead.inside("position"))
}

/// Room for those who watch. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Watchers {
    places: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    pub(super) heartbeat: Duration,
}

impl Default for Watchers {
    fn default() -> Self {
        let (places, reading) = (Semaphore::new(MAX_WATCHERS), Semaphore::new(MAX_READING));
        Self { places: Arc::new(places), reading: Arc::new(reading), heartbeat: HEARTBEAT }
    }
}

impl Watchers {
    /// Room for others, at most so many, who take turns in reading with these.
    pub(super) fn beside(&self, most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), ..self.clone() }
    }

    /// Reads once, when it is the reader's turn.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, AdmitError> {
        in_turn(&self.reading, read).await
    }

    /// Everything that is asked for along a course, at most `most`. What is not taken is not read.
    ///
    /// The stream ends with its course, after a last answer that tells of its end; a course that
    /// follows the log does not, until the server stops.
    ///
    /// # Errors
    /// There are too many watchers. Later ones come in the stream, which they end.
    pub(super) fn open<Q: Question>(
        &self,
        (reader, news): (Reader, LogNews),
        question: Q,
        course: Course,
        most: Option<u64>,
        stopped: watch::Receiver<bool>,
    ) -> Result<impl Stream<Item = Result<Q::Answer, AdmitError>> + use<Q>, AdmitError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let watcher = Watcher {
            _place: place.map_err(|_full| AdmitError::TooManyWatchers)?,
            caught_up_at: (course.way == Way::Following).then_some(course.rest.end),
            found: Vec::new().into_iter(),
            heartbeat: self.heartbeat,
            is_over: false,
            left: most,
            news,
            question: Arc::new(question),
            quiet: Stopwatch::start(),
            reader,
            reading: Arc::clone(&self.reading),
            stopped,
            told: course.place(),
            course,
        };
        Ok(stream::unfold(watcher, |mut watcher| async move {
            let answer = watcher.answer().await?;
            watcher.is_over |= answer.is_err();
            Some((answer, watcher))
        }))
    }
}

/// Reads on a thread that may block, as one of few at a time.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, AdmitError> {
    let turn = Arc::clone(turns).acquire_owned().await;
    let turn = turn.map_err(AdmitError::internal)?;
    let read = tokio::task::spawn_blocking(move || {
        let found = read();
        // Given back by the thread: a watcher that has gone does not stop it.
        drop(turn);
        found
    });
    read.await.map_err(AdmitError::internal)?.map_err(AdmitError::log_not_read)
}

/// One who watches.
#[derive(Debug)]
struct Watcher<Q: Question> {
    /// The size that the log had when the watcher came, until it was told that it has all of that;
    /// only of one who follows the log.
    caught_up_at: Option<u64>,
    course: Course,
    /// Found and not yet taken.
    found: std::vec::IntoIter<(u64, Q::Answer)>,
    heartbeat: Duration,
    /// Whether there is nothing more to tell.
    is_over: bool,
    /// How many findings may still be told.
    left: Option<u64>,
    news: LogNews,
    question: Arc<Q>,
    /// Since the last response.
    quiet: Stopwatch,
    reader: Reader,
    reading: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
    /// The place at which whoever watches would go on.
    told: u64,
    _place: OwnedSemaphorePermit,
}

impl<Q: Question> Watcher<Q> {
    /// The next answer; `None` after the last one.
    async fn answer(&mut self) -> Option<Result<Q::Answer, AdmitError>> {
        loop {
            if self.is_over {
                return None;
            }
            if *self.stopped.borrow() || *self.news.ended.borrow() {
                return Some(Err(AdmitError::stopping()));
            }
            if self.left == Some(0) {
                self.is_over = true;
                return Some(Ok(self.question.progress(self.told)));
            }
            if let Some((position, answer)) = self.found.next() {
                self.left = self.left.map(|left| left.saturating_sub(1));
                return Some(Ok(self.tell(self.course.behind(position), answer)));
            }
            if self.caught_up_at.is_some_and(|size| self.course.place() >= size) {
                self.caught_up_at = None;
                return Some(Ok(self.beat()));
            }
            let quiet = self.heartbeat.saturating_sub(self.quiet.elapsed());
            let size = *self.news.size.borrow_and_update();
            if self.course.way == Way::Following {
                self.course.rest.end = size;
            }
            // A long way without anything to tell is told in between.
            let worth_telling = quiet.is_zero() && self.course.place() != self.told;
            match self.course.block() {
                Some(block) if !worth_telling => {
                    if let Err(error) = self.read(block).await {
                        return Some(Err(error));
                    }
                    continue;
                }
                None if self.course.way != Way::Following => {
                    self.is_over = true;
                    return Some(Ok(self.beat()));
                }
                Some(_) | None => {}
            }
            if quiet.is_zero() {
                return Some(Ok(self.beat()));
            }
            if let Err(error) = self.wait(quiet).await {
                return Some(Err(error));
            }
        }
    }

    /// Waits until the log has grown, or so much time has passed.
    async fn wait(&mut self, most: Duration) -> Result<(), AdmitError> {
        tokio::select! {
            biased;
            // Senders that are gone mean the same as ones that say stop.
            _ = self.stopped.wait_for(|stop| *stop) => return Err(AdmitError::stopping()),
            _ = self.news.ended.wait_for(|end| *end) => return Err(AdmitError::stopping()),
            // The same here, and it is found out in the next turn.
            _ = self.news.size.changed() => {}
            () = tokio::time::sleep(most) => {}
        }
        Ok(())
    }

    fn tell(&mut self, place: u64, answer: Q::Answer) -> Q::Answer {
        self.quiet = Stopwatch::start();
        self.told = place;
        answer
    }

    fn beat(&mut self) -> Q::Answer {
        let place = self.course.place();
        self.tell(place, self.question.progress(place))
    }

    /// Looks at the next leaves, which the log has.
    async fn read(&mut self, block: Range<u64>) -> Result<(), AdmitError> {
        let (reader, question, range) =
            (self.reader.clone(), Arc::clone(&self.question), block.clone());
        let found = in_turn(&self.reading, move || question.find(&reader, range)).await;
        let mut found = found?;
        if self.course.way == Way::Backward {
            found.reverse();
        }
        self.found = found.into_iter();
        self.course.looked_at(&block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;

    use futures::stream::StreamExt as _;

    use super::*;
    use crate::store::{Store, StoreOptions};

    /// Finds something at every position, and notes what was read.
    struct Everything(Arc<Mutex<Vec<Range<u64>>>>);

    impl Question for Everything {
        type Answer = Option<u64>;

        fn find(
            &self,
            _reader: &Reader,
            range: Range<u64>,
        ) -> Result<Vec<(u64, Option<u64>)>, ReadError> {
            self.0.lock().unwrap().push(range.clone());
            Ok(range.map(|position| (position, Some(position))).collect())
        }

        fn progress(&self, _place: u64) -> Option<u64> {
            None
        }
    }

    /// A log that has so many leaves, as far as is told, and room for those who read it.
    struct Log {
        folder: tempfile::TempDir,
        size: watch::Sender<u64>,
        ended: watch::Sender<bool>,
        watchers: Watchers,
    }

    impl Log {
        fn new(size: u64) -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                size: watch::Sender::new(size),
                ended: watch::Sender::new(false),
                watchers: Watchers::default(),
            }
        }

        fn open(
            &self,
            course: Course,
            most: Option<u64>,
            read: &Arc<Mutex<Vec<Range<u64>>>>,
        ) -> impl Stream<Item = Result<Option<u64>, AdmitError>> + use<> {
            let store = Store::open(&self.folder.path().join("s"), StoreOptions::default());
            let news = LogNews { size: self.size.subscribe(), ended: self.ended.subscribe() };
            let log = (store.unwrap().reader(), news);
            let question = Everything(Arc::clone(read));
            self.watchers.open(log, question, course, most, self.ended.subscribe()).unwrap()
        }
    }

    #[tokio::test]
    async fn what_is_not_taken_is_not_read() {
        const MANY: u64 = 1 << 40;
        for (course, third) in [
            (Course::forward(0..MANY), 512..768),
            (Course::following(0, MANY), 512..768),
            (Course::backward(0..MANY), MANY - 768..MANY - 512),
        ] {
            let log = Log::new(MANY);
            let read = Arc::default();
            let mut found = pin!(log.open(course, None, &read));
            for taken in 1..=768_u64 {
                assert!(found.next().await.unwrap().unwrap().is_some());
                let blocks = read.lock().unwrap().len() as u64;
                assert_eq!(blocks, taken.div_ceil(LEAVES_AT_ONCE), "after {taken}");
            }
            assert_eq!(read.lock().unwrap().last(), Some(&third));
        }
    }

    #[tokio::test]
    async fn a_course_is_gone_through_once_and_its_end_is_told() {
        for size in [0, 1, 255, 256, 257, 600] {
            let log = Log::new(size);
            let read = Arc::default();
            let forward: Vec<_> = log.open(Course::forward(0..size), None, &read).collect().await;
            let forward: Vec<_> = forward.into_iter().map(Result::unwrap).collect();
            assert_eq!(forward, (0..size).map(Some).chain([None]).collect::<Vec<_>>());
            let backward = log.open(Course::backward(0..size), Some(3), &read);
            let backward: Vec<_> = backward.map(Result::unwrap).collect().await;
            let last = (0..size).rev().take(3).map(Some).chain([None]);
            assert_eq!(backward, last.collect::<Vec<_>>());
        }
    }
}
