//! What a run of many events came to: counts, rate and latencies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::exit::Failure;
use crate::print;

/// Longest latency that is told apart, in microseconds: a minute; longer ones count as that.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Significant decimal digits of latencies.
const LATENCY_DIGITS: u8 = 3;

/// The time, to measure how long answers take.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "measures for a person, decides nothing")]
    Instant::now()
}

/// Counts answers as they come.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    admitted: u64,
    denied: u64,
    denied_by_code: BTreeMap<String, u64>,
    settled: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    unanswered: u64,
    latencies: Histogram<u64>,
}

/// Counts as they are printed.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    admitted: u64,
    denied: u64,
    /// One denial may have several codes.
    denied_by_code: BTreeMap<String, u64>,
    settled: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    unanswered: u64,
    elapsed_ms: u64,
    decisions_per_second: u64,
    latency_us: Latency,
}

/// From sending an event to its answer, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Tally {
    /// Starts counting, and the clock.
    ///
    /// # Errors
    /// Never: the bounds of the latencies are ours.
    pub(crate) fn new() -> Result<Self, Failure> {
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_US, LATENCY_DIGITS)
            .map_err(|error| Failure::new(format!("cannot count latencies: {error}")))?;
        Ok(Self {
            started: now(),
            admitted: 0,
            denied: 0,
            denied_by_code: BTreeMap::new(),
            settled: BTreeMap::new(),
            errors: BTreeMap::new(),
            unanswered: 0,
            latencies,
        })
    }

    /// A permit.
    pub(crate) fn admitted(&mut self) {
        self.admitted += 1;
    }

    /// A denial with its codes.
    pub(crate) fn denied(&mut self, codes: &[&str]) {
        self.denied += 1;
        for code in codes {
            count(&mut self.denied_by_code, code);
        }
    }

    /// A confirm or a release, and the state that it led to.
    pub(crate) fn settled(&mut self, state: &str) {
        count(&mut self.settled, state);
    }

    /// An event that was not decided.
    pub(crate) fn error(&mut self, code: &str) {
        count(&mut self.errors, code);
    }

    /// Events that were sent and never answered.
    pub(crate) fn unanswered(&mut self, events: usize) {
        self.unanswered += u64::try_from(events).unwrap_or(u64::MAX);
    }

    /// How long an answer took.
    pub(crate) fn took(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US);
        self.latencies.saturating_record(us.clamp(1, MAX_LATENCY_US));
    }

    /// Decisions and settlements so far.
    pub(crate) fn answered(&self) -> u64 {
        self.admitted + self.denied + self.settled.values().sum::<u64>()
    }

    /// Whether every event was decided.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.unanswered == 0
    }

    /// Whether a decision was a denial.
    pub(crate) fn has_denials(&self) -> bool {
        self.denied > 0
    }

    /// Stops the clock.
    pub(crate) fn summary(&self) -> Summary {
        let elapsed = self.started.elapsed();
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let decisions = self.admitted + self.denied;
        let rate = u128::from(decisions) * 1_000_000 / u128::from(elapsed_us);
        Summary {
            admitted: self.admitted,
            denied: self.denied,
            denied_by_code: self.denied_by_code.clone(),
            settled: self.settled.clone(),
            errors: self.errors.clone(),
            unanswered: self.unanswered,
            elapsed_ms: elapsed_us / 1_000,
            decisions_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            latency_us: Latency {
                p50: self.latencies.value_at_quantile(0.5),
                p99: self.latencies.value_at_quantile(0.99),
                max: self.latencies.max(),
            },
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    *counts.entry(name.to_owned()).or_default() += 1;
}

impl Summary {
    /// As one line of JSON.
    ///
    /// # Errors
    /// Never: it holds numbers and names only.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::from_error(&error))
    }

    /// As a table.
    pub(crate) fn human(&self) -> String {
        let mut table = print::pairs();
        table.add_row(["admitted".to_owned(), self.admitted.to_string()]);
        table.add_row(["denied".to_owned(), self.denied.to_string()]);
        let mut list = |name: &str, counts: &BTreeMap<String, u64>| {
            for (key, count) in counts {
                table.add_row([format!("{name}{}", print::plain(key)), count.to_string()]);
            }
        };
        list("  ", &self.denied_by_code);
        list("settled ", &self.settled);
        list("error ", &self.errors);
        if self.unanswered > 0 {
            table.add_row(["unanswered".to_owned(), self.unanswered.to_string()]);
        }
        let seconds = format!("{}.{:03} s", self.elapsed_ms / 1_000, self.elapsed_ms % 1_000);
        table.add_row(["elapsed".to_owned(), seconds]);
        table.add_row(["decisions per second".to_owned(), self.decisions_per_second.to_string()]);
        let Latency { p50, p99, max } = self.latency_us;
        for (name, us) in [("latency p50", p50), ("latency p99", p99), ("latency max", max)] {
            table.add_row([name.to_owned(), format!("{}.{:03} ms", us / 1_000, us % 1_000)]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_with_two_codes_is_one_denial() {
        let mut tally = Tally::new().unwrap();
        tally.admitted();
        tally.denied(&["A", "B"]);
        tally.settled("RELEASED");
        tally.took(Duration::from_millis(2));
        assert!(tally.is_clean() && tally.has_denials());
        assert_eq!(tally.answered(), 3);
        let json: serde_json::Value =
            serde_json::from_str(&tally.summary().json().unwrap()).unwrap();
        assert_eq!(json["denied"], 1);
        assert_eq!(json["denied_by_code"]["B"], 1);
        assert!(json["latency_us"]["p99"].as_u64().unwrap() >= 2_000);
        let text = tally.summary().human();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        tally.error("MALFORMED_JSON");
        assert!(!tally.is_clean());
    }
}
