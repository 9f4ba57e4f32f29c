//! What becomes of reservations, read from the log for whoever watches it: past the writer, and no
//! faster than the watcher takes it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use placet_core::Leaf;
use placet_proto::FieldError;
use placet_proto::ledger::v1 as proto;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::convert;
use crate::error::AdmitError;
use crate::metrics::Stopwatch;
use crate::sequencer::LogNews;
use crate::store::{ReadError, Reader};

/// Most watchers at once. Each reads the whole log behind the writer, about as much work as folding
/// it; those who execute orders are few, and may hand on what they hear.
const MAX_WATCHERS: usize = 32;
/// Most watchers that read at the same moment: however many watch, most of the machine is left to
/// those who decide.
const MAX_READING: usize = 2;
/// Leaves of one read. What a watcher has not taken yet is at most what they hold: some hundred
/// kilobytes, and 16 MiB if each leaf were as long as can be.
const LEAVES_AT_ONCE: u64 = 256;
/// Longest time without a response: short enough that a client which stores how far it has got
/// repeats little, and that a dead server is found within half a minute; long enough to cost
/// nothing.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Room for those who watch. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Watchers {
    places: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    heartbeat: Duration,
}

impl Default for Watchers {
    fn default() -> Self {
        let (places, reading) = (Semaphore::new(MAX_WATCHERS), Semaphore::new(MAX_READING));
        Self { places: Arc::new(places), reading: Arc::new(reading), heartbeat: HEARTBEAT }
    }
}

/// What somebody wants to hear.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The first leaf that is looked at.
    position: u64,
    /// None means all.
    kinds: Vec<proto::ChangeKind>,
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// A kind is none, or named twice.
    pub(super) fn read(request: &proto::WatchRequest) -> Result<Self, FieldError> {
        let mut kinds = Vec::new();
        for (at, kind) in request.kinds().enumerate() {
            let wrong = |message: &str| {
                let hint = "name each kind once, or none for all";
                let error = FieldError::new("OUT_OF_BOUNDS", message, hint);
                error.inside(&format!("[{at}]")).inside("kinds")
            };
            if kind == proto::ChangeKind::Unspecified {
                return Err(wrong("is no kind"));
            }
            if kinds.contains(&kind) {
                return Err(wrong("is named twice"));
            }
            kinds.push(kind);
        }
        Ok(Self { position: request.position, kinds })
    }

    fn wants(&self, response: &proto::WatchResponse) -> bool {
        let kind = response.change.as_ref().map(convert::change_kind);
        self.kinds.is_empty() || kind.is_some_and(|kind| self.kinds.contains(&kind))
    }
}

impl Watchers {
    /// Everything that is asked for, from the log and then as it comes, until the server stops.
    /// What is not taken is not read.
    ///
    /// # Errors
    /// There are too many watchers, or the log is shorter than the position. Later ones come in the
    /// stream, which they end.
    pub(super) fn open(
        &self,
        reader: Reader,
        news: LogNews,
        asked: Asked,
        stopped: watch::Receiver<bool>,
    ) -> Result<impl Stream<Item = Result<proto::WatchResponse, AdmitError>> + use<>, AdmitError>
    {
        let size = *news.size.borrow();
        if asked.position > size {
            let position = asked.position;
            let message = format!("is {position}, but this log has {size} leaves");
            let hint = "ask the server that gave the position; a store that was restored from a \
                        copy may have lost it";
            let ahead = FieldError::new("POSITION_AHEAD", message, hint);
            return Err(AdmitError::FailedPrecondition(ahead.inside("position")));
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let watcher = Watcher {
            _place: place.map_err(|_full| AdmitError::TooManyWatchers)?,
            next: asked.position,
            told: asked.position,
            asked: Arc::new(asked),
            caught_up_at: Some(size),
            found: Vec::new().into_iter(),
            heartbeat: self.heartbeat,
            news,
            quiet: Stopwatch::start(),
            reader,
            reading: Arc::clone(&self.reading),
            stopped,
        };
        Ok(stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            let response = watcher.response().await;
            let goes_on = response.is_ok();
            Some((response, goes_on.then_some(watcher)))
        }))
    }
}

/// One who watches.
#[derive(Debug)]
struct Watcher {
    asked: Arc<Asked>,
    /// The size that the log had when the watcher came, until it was told that it has all of that.
    caught_up_at: Option<u64>,
    /// Found and not yet taken.
    found: std::vec::IntoIter<proto::WatchResponse>,
    heartbeat: Duration,
    news: LogNews,
    /// The next leaf to look at.
    next: u64,
    /// Since the last response.
    quiet: Stopwatch,
    reader: Reader,
    reading: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
    /// The position at which whoever watches would go on.
    told: u64,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn response(&mut self) -> Result<proto::WatchResponse, AdmitError> {
        loop {
            if *self.stopped.borrow() || *self.news.ended.borrow() {
                return Err(AdmitError::stopping());
            }
            if let Some(change) = self.found.next() {
                return Ok(self.tell(change));
            }
            if self.caught_up_at.is_some_and(|size| self.next >= size) {
                self.caught_up_at = None;
                return Ok(self.beat());
            }
            let left = self.heartbeat.saturating_sub(self.quiet.elapsed());
            let size = *self.news.size.borrow_and_update();
            // A long way without anything to tell is told in between.
            let worth_telling = left.is_zero() && self.next > self.told;
            if self.next < size && !worth_telling {
                self.read(size).await?;
                continue;
            }
            if left.is_zero() {
                return Ok(self.beat());
            }
            tokio::select! {
                biased;
                // Senders that are gone mean the same as ones that say stop.
                _ = self.stopped.wait_for(|stop| *stop) => return Err(AdmitError::stopping()),
                _ = self.news.ended.wait_for(|end| *end) => return Err(AdmitError::stopping()),
                // The same here, and it is found out in the next turn.
                _ = self.news.size.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn tell(&mut self, response: proto::WatchResponse) -> proto::WatchResponse {
        self.quiet = Stopwatch::start();
        self.told = response.position.saturating_add(1);
        response
    }

    /// How far the log has been looked at: at least the genesis, which every log has.
    fn beat(&mut self) -> proto::WatchResponse {
        let position = self.next.saturating_sub(1);
        self.tell(proto::WatchResponse { position, ..proto::WatchResponse::default() })
    }

    /// Looks at the next leaves, of a log that has `size` of them.
    async fn read(&mut self, size: u64) -> Result<(), AdmitError> {
        let (first, end) = (self.next, size.min(self.next.saturating_add(LEAVES_AT_ONCE)));
        let turn = Arc::clone(&self.reading).acquire_owned().await;
        let turn = turn.map_err(AdmitError::internal)?;
        let (reader, asked) = (self.reader.clone(), Arc::clone(&self.asked));
        let read = tokio::task::spawn_blocking(move || {
            let found = read(&reader, first, end, &asked);
            // Given back by the thread: a watcher that has gone does not stop it.
            drop(turn);
            found
        });
        let found = read.await.map_err(AdmitError::internal)?;
        self.found = found.map_err(AdmitError::log_not_read)?.into_iter();
        self.next = end;
        Ok(())
    }
}

/// The changes that are asked for in a range of the log. Blocks.
fn read(
    reader: &Reader,
    first: u64,
    end: u64,
    asked: &Asked,
) -> Result<Vec<proto::WatchResponse>, ReadError> {
    let leaves = reader.leaves(first, end)?;
    let mut changes = Vec::new();
    let mut position = first;
    for leaf in leaves {
        let leaf: Leaf = serde_json::from_slice(&leaf)
            .map_err(|_malformed| ReadError::Damaged("a leaf is no leaf"))?;
        changes.extend(convert::change(position, leaf).filter(|change| asked.wants(change)));
        position = position.saturating_add(1);
    }
    if position < end {
        return Err(ReadError::Damaged("a leaf is missing"));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::pin;

    use futures::stream::StreamExt as _;
    use placet_core::{Digest, SigningKey};

    use super::*;
    use crate::clock::Clock;
    use crate::sequencer::{Activation, Options, SequencerHandle};
    use crate::signer::Signer;

    fn activation(facts: &str) -> Activation {
        let (bundle, facts) = (Digest::of(b"bundle"), Digest::of(facts.as_bytes()));
        let name = |digest| (digest, "1".to_owned());
        Activation { bundle: name(bundle), facts: name(facts), quotas: Arc::default() }
    }

    /// A sequencer whose log has three leaves, none of them a change of a reservation.
    fn sequencer(folder: &Path) -> SequencerHandle {
        let options = Options {
            audience: vec!["scheduler".to_owned()],
            clock: Clock::Events,
            confirm_within_seconds: 300,
            issuer: "placet.test".to_owned(),
        };
        let signer = Signer::new(SigningKey::generate().unwrap());
        SequencerHandle::start(&folder.join("placet.db"), options, signer, activation("1")).unwrap()
    }

    fn from(position: u64) -> Asked {
        Asked { position, kinds: Vec::new() }
    }

    #[tokio::test]
    async fn a_quiet_watcher_is_told_how_far_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let sequencer = sequencer(folder.path());
        let (_stop, stopped) = watch::channel(false);
        let open = |watchers: Watchers, position| {
            let (reader, news) = (sequencer.reader(), sequencer.news());
            watchers.open(reader, news, from(position), stopped.clone()).unwrap()
        };
        let always = Watchers { heartbeat: Duration::ZERO, ..Watchers::default() };
        let (mut always, mut now_and_then) =
            (pin!(open(always, 0)), pin!(open(Watchers::default(), 3)));
        let beat = |position| proto::WatchResponse { position, ..Default::default() };
        for _ in 0..3 {
            assert_eq!(always.next().await.unwrap().unwrap(), beat(2));
        }
        assert_eq!(now_and_then.next().await.unwrap().unwrap(), beat(2), "it has caught up");
        let more = futures::poll!(now_and_then.next());
        assert!(more.is_pending(), "{more:?}");
        sequencer.activate(activation("2"), 1_000).await.unwrap();
        assert_eq!(always.next().await.unwrap().unwrap(), beat(3));
        let more = futures::poll!(now_and_then.next());
        assert!(more.is_pending(), "{more:?}");
        sequencer.close().await;
        for mut stream in [always.as_mut().boxed_local(), now_and_then.as_mut().boxed_local()] {
            let end = loop {
                match stream.next().await {
                    Some(Ok(response)) => assert_eq!(response, beat(3)),
                    end => break end,
                }
            };
            assert_eq!(end.unwrap().unwrap_err().code(), "STOPPING");
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let sequencer = sequencer(folder.path());
        let (_stop, stopped) = watch::channel(false);
        let watchers = Watchers::default();
        let open = |position| {
            let (reader, news) = (sequencer.reader(), sequencer.news());
            watchers.open(reader, news, from(position), stopped.clone())
        };
        assert_eq!(open(4).map(drop).unwrap_err().code(), "POSITION_AHEAD");
        let mut open_ones: Vec<_> = (0..MAX_WATCHERS).map(|_| open(0).unwrap()).collect();
        assert_eq!(open(0).map(drop).unwrap_err().code(), "TOO_MANY_WATCHERS");
        drop(open_ones.pop());
        assert!(open(0).is_ok());
        sequencer.close().await;
    }

    #[test]
    fn kinds_are_read_strictly() {
        use proto::ChangeKind::{Confirmed, Expired, Unspecified};
        let ask = |kinds: &[proto::ChangeKind]| {
            let kinds = kinds.iter().map(|kind| (*kind).into()).collect();
            Asked::read(&proto::WatchRequest { position: 7, kinds })
        };
        assert_eq!(ask(&[]), Ok(from(7)));
        let two = vec![Expired, Confirmed];
        assert_eq!(ask(&two), Ok(Asked { position: 7, kinds: two }));
        assert_eq!(ask(&[Unspecified]).unwrap_err().field, "kinds[0]");
        assert_eq!(ask(&[Expired, Confirmed, Expired]).unwrap_err().field, "kinds[2]");
    }
}
