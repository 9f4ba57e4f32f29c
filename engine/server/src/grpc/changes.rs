//! What becomes of reservations, read from the log for whoever watches it.

use std::ops::Range;

use futures::stream::Stream;
use placet_core::Leaf;
use placet_proto::FieldError;
use placet_proto::ledger::v1 as proto;
use tokio::sync::watch;

use super::convert;
use super::follow::{Course, Question, Watchers, check_reached};
use crate::error::AdmitError;
use crate::sequencer::LogNews;
use crate::store::{ReadError, Reader};

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

/// Everything that is asked for, from the log and then as it comes, until the server stops.
///
/// # Errors
/// There are too many watchers, or the log is shorter than the position. Later ones come in the
/// stream, which they end.
pub(super) fn open(
    watchers: &Watchers,
    (reader, news): (Reader, LogNews),
    asked: Asked,
    stopped: watch::Receiver<bool>,
) -> Result<impl Stream<Item = Result<proto::WatchResponse, AdmitError>> + use<>, AdmitError> {
    let size = *news.size.borrow();
    check_reached(asked.position, size)?;
    let course = Course::following(asked.position, size);
    watchers.open((reader, news), asked, course, None, stopped)
}

impl Question for Asked {
    type Answer = proto::WatchResponse;

    fn find(
        &self,
        reader: &Reader,
        range: Range<u64>,
    ) -> Result<Vec<(u64, proto::WatchResponse)>, ReadError> {
        let leaves = reader.leaves(range.start, range.end)?;
        let mut changes = Vec::new();
        let mut position = range.start;
        for leaf in leaves {
            let leaf: Leaf = serde_json::from_slice(&leaf)
                .map_err(|_malformed| ReadError::Damaged("a leaf is no leaf"))?;
            let change = convert::change(position, leaf).filter(|change| self.wants(change));
            changes.extend(change.map(|change| (position, change)));
            position = position.saturating_add(1);
        }
        if position < range.end {
            return Err(ReadError::Damaged("a leaf is missing"));
        }
        Ok(changes)
    }

    /// At least the genesis has been looked at, which every log has.
    fn progress(&self, place: u64) -> proto::WatchResponse {
        let position = place.saturating_sub(1);
        proto::WatchResponse { position, ..proto::WatchResponse::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::Duration;

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
        let open_one = |watchers: Watchers, position| {
            let (reader, news) = (sequencer.reader(), sequencer.news());
            open(&watchers, (reader, news), from(position), stopped.clone()).unwrap()
        };
        let mut always = Watchers::default();
        always.heartbeat = Duration::ZERO;
        let (mut always, mut now_and_then) =
            (pin!(open_one(always, 0)), pin!(open_one(Watchers::default(), 3)));
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
        let open_one = |position| {
            let (reader, news) = (sequencer.reader(), sequencer.news());
            open(&watchers, (reader, news), from(position), stopped.clone())
        };
        assert_eq!(open_one(4).map(drop).unwrap_err().code(), "POSITION_AHEAD");
        let mut open_ones: Vec<_> =
            (0..crate::grpc::follow::MAX_WATCHERS).map(|_| open_one(0).unwrap()).collect();
        assert_eq!(open_one(0).map(drop).unwrap_err().code(), "TOO_MANY_WATCHERS");
        drop(open_ones.pop());
        assert!(open_one(0).is_ok());
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
