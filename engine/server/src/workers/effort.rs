//! How long a thread has worked: the time that passed, less the time that it waited for a core.
//!
//! On a busy machine a cheap evaluation may take milliseconds because the thread was put aside.
//! That is not its tenant's doing. The kernel counts it: the second field of a thread's
//! `schedstat`, in nanoseconds (Linux, Documentation/scheduler/sched-stats.rst). Where it does not,
//! the time that passed is taken.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::metrics::Stopwatch;

/// Work shorter than this is taken as it is: whether it waited makes no difference.
const SHORT: Duration = Duration::from_millis(1);
/// Longest text of the file: three numbers of at most 20 digits.
const MAX_BYTES: usize = 64;

/// The counters of one thread.
#[derive(Debug)]
pub(super) struct Effort(Option<File>);

/// When some work began.
#[derive(Debug)]
pub(super) struct Started {
    watch: Stopwatch,
    waited: Duration,
}

impl Effort {
    /// Of the thread that calls it, which must be the one that asks later.
    pub(super) fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    pub(super) fn start(&self) -> Started {
        Started { waited: self.waited().unwrap_or_default(), watch: Stopwatch::start() }
    }

    /// Time worked since then.
    pub(super) fn since(&self, started: &Started) -> Duration {
        let passed = started.watch.elapsed();
        if passed < SHORT {
            return passed;
        }
        let waited = self.waited().unwrap_or_default().saturating_sub(started.waited);
        passed.saturating_sub(waited)
    }

    fn waited(&self) -> Option<Duration> {
        let mut text = [0; MAX_BYTES];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        waited(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

fn waited(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_ascii_whitespace().nth(1)?;
    nanoseconds.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read() {
        assert_eq!(waited("153093 1388391 2\n"), Some(Duration::from_nanos(1_388_391)));
        for bad in ["", "1", "1 x 2", "1 -5 2"] {
            assert_eq!(waited(bad), None, "{bad}");
        }
    }

    #[test]
    fn work_is_never_more_than_the_time_that_passed() {
        let counted = Effort::of_this_thread();
        for effort in [counted, Effort(None)] {
            let (watch, started) = (Stopwatch::start(), effort.start());
            let mut digest = placet_core::Digest::of(b"");
            while watch.elapsed() < 3 * SHORT {
                digest = placet_core::Digest::of(digest.hex().as_bytes());
            }
            let worked = effort.since(&started);
            assert!(worked > Duration::ZERO && worked <= watch.elapsed(), "{worked:?} {digest}");
        }
    }
}
