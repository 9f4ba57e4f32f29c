//! When something was last done that is done again and again.

use crate::metrics::Stopwatch;

/// When it was last done, or tried.
#[derive(Debug)]
pub(super) enum Tried {
    /// By a clock that nobody sets; never, at first.
    Clock(Option<Stopwatch>),
    /// By what the caller says that it is, in seconds.
    Told(Option<u64>),
}

impl Tried {
    /// Not yet. `is_told` says that the caller tells the time.
    pub(super) fn never(is_told: bool) -> Self {
        if is_told { Self::Told(None) } else { Self::Clock(None) }
    }

    /// Now: what the caller says that it is, if it tells the time.
    pub(super) fn at(now: Option<u64>) -> Self {
        match now {
            Some(now) => Self::Told(Some(now)),
            None => Self::Clock(Some(Stopwatch::start())),
        }
    }

    /// Whether so many seconds have passed since.
    pub(super) fn is_due(&self, every_seconds: u64, now: Option<u64>) -> bool {
        let since = match self {
            Self::Clock(tried) => tried.as_ref().map(|tried| tried.elapsed().as_secs()),
            Self::Told(tried) => tried.map(|tried| now.unwrap_or(tried).saturating_sub(tried)),
        };
        since.is_none_or(|since| since >= every_seconds)
    }
}
