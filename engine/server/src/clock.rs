//! Where time comes from: the one place that reads the system's clock for a decision.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Latest time that is taken, in seconds since 1970-01-01 UTC: the last second of the year 9999,
/// the largest that the usual date formats can write. Adding a duration to it can neither overflow
/// nor leave the integers that JSON keeps.
pub(crate) const MAX_TIME: u64 = 253_402_300_799;

/// Seconds by which the system's clock may run ahead, from one reading to a later one, of a clock
/// that nobody sets. Half an hour: longer than a virtual machine is held up while it is moved, or
/// than what a late correction mends; shorter than the smallest mistake about a time zone or
/// daylight saving.
pub const MAX_FORWARD_SECONDS: u64 = 1_800;

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

/// Holds the system's clock against one that nobody sets, as long as the process runs. What the
/// clock says at the start is taken as it is: a server may have been off for a year.
#[derive(Debug)]
pub(crate) struct Steady {
    /// `None` if no time passes.
    begun: Option<Instant>,
    /// The latest reading that was taken, and the time since `begun` at which it was.
    time: u64,
    at: Duration,
    /// Whether the last reading was refused: said once, when it begins and when it ends.
    jumped: bool,
}

impl Steady {
    /// Begins with the time that is taken as it is.
    #[expect(clippy::disallowed_methods, reason = "this is a clock that others are told to use")]
    pub(crate) fn begin(time: u64) -> Self {
        Self { begun: Some(Instant::now()), ..Self::still(time) }
    }

    /// The same where no time passes between readings: for whoever tells the time itself.
    pub(crate) fn still(time: u64) -> Self {
        Self { begun: None, time, at: Duration::ZERO, jumped: false }
    }

    /// Takes a reading of the system's clock, unless it is ahead of what it can be by more than
    /// [`MAX_FORWARD_SECONDS`].
    ///
    /// # Errors
    /// What it should be: nothing was taken.
    pub(crate) fn take(&mut self, time: u64) -> Result<(), u64> {
        let at = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let taken = self.take_at(time, at);
        match &taken {
            Err(expected) if !self.jumped => {
                tracing::error!(
                    time,
                    expected,
                    "the system's clock jumped ahead: nothing is decided and nothing expires"
                );
            }
            Ok(()) if self.jumped => tracing::warn!(time, "the system's clock is right again"),
            Err(_) | Ok(()) => {}
        }
        self.jumped = taken.is_err();
        taken
    }

    fn take_at(&mut self, time: u64, at: Duration) -> Result<(), u64> {
        let expected = self.time.saturating_add(at.saturating_sub(self.at).as_secs());
        if time > expected.saturating_add(MAX_FORWARD_SECONDS) {
            return Err(expected);
        }
        // A reading from before, of a request that waited, or of a clock that was set back, leaves
        // what is expected: a clock that stood still would else run ahead for ever.
        if time > expected {
            (self.time, self.at) = (time, at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_run_and_be_mended_but_not_jump() {
        const START: u64 = 1_800_000_000;
        const YEAR: u64 = 31_536_000;
        let seconds = Duration::from_secs;
        let mut steady = Steady::begin(START);
        assert_eq!(steady.take_at(START, seconds(0)), Ok(()));
        assert_eq!(steady.take_at(START + YEAR, seconds(1)), Err(START + 1), "a year ahead");
        let late = START + 2 + MAX_FORWARD_SECONDS;
        assert_eq!(steady.take_at(late + 1, seconds(2)), Err(START + 2), "one second too far");
        assert_eq!(steady.take_at(START + 3, seconds(3)), Ok(()), "set right again");
        assert_eq!(steady.take_at(START + 4 + MAX_FORWARD_SECONDS, seconds(4)), Ok(()), "held up");
        let next = START + 5 + MAX_FORWARD_SECONDS;
        assert_eq!(steady.take_at(next, seconds(5)), Ok(()), "and on from there");

        let mut steady = Steady::begin(START);
        assert_eq!(steady.take_at(START + 10 * YEAR, seconds(10 * YEAR)), Ok(()), "a long run");
        for second in 0..3 * MAX_FORWARD_SECONDS {
            let at = seconds(10 * YEAR + second);
            assert_eq!(steady.take_at(START, at), Ok(()), "going back is another one's to judge");
        }
        let end = 10 * YEAR + 3 * MAX_FORWARD_SECONDS;
        assert_eq!(steady.take_at(START + end, seconds(end)), Ok(()), "a clock that stood still");
    }
}
