//! Where time comes from: the one place that reads the system's clock for a decision.

use std::time::{SystemTime, UNIX_EPOCH};

/// Latest time that is taken, in seconds since 1970-01-01 UTC: the last second of the year 9999,
/// the largest that the usual date formats can write. Adding a duration to it can neither overflow
/// nor leave the integers that JSON keeps.
pub(crate) const MAX_TIME: u64 = 253_402_300_799;

/// Source of the time of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The system's clock. Reservations also expire while nothing is asked.
    System,
    /// The events themselves, for development and runs of traces: time stands still between them.
    Events,
}

impl Clock {
    /// The system's time in seconds since 1970-01-01 UTC; 0 if its clock stands before that.
    #[must_use]
    pub fn now() -> u64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that others are told to use"
        )]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
