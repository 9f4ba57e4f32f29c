//! Counters and timings, read by Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds: 10 us to 10 s, about three a decade.
const BUCKETS: [f64; 19] = [
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// A label that is one stable code or name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    name: String,
}

/// The stages of a decision that are timed apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for a thread that evaluates.
    Queue,
    /// Resolve, evaluate, digest.
    Evaluate,
    /// Ledger, signature, log and commit, waiting for them included.
    Sequence,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Evaluate => "evaluate",
            Self::Sequence => "sequence",
        }
    }
}

/// All that is counted. Cheap to share; every method may be called from any thread.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    decisions: Family<Label, Counter>,
    denials: Family<Label, Counter>,
    settlements: Family<Label, Counter>,
    errors: Family<Label, Counter>,
    stages: Family<Label, Histogram, fn() -> Histogram>,
    log_size: Gauge,
}

impl Metrics {
    /// With everything at zero. `bundle`, `facts` and `version` name what is served.
    pub(crate) fn new(bundle: &str, facts: &str, version: &str) -> Self {
        let mut registry = Registry::with_prefix("placet");
        let stages: Family<Label, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let metrics = Self {
            decisions: Family::default(),
            denials: Family::default(),
            settlements: Family::default(),
            errors: Family::default(),
            stages: stages.clone(),
            log_size: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("decisions", "Decisions by effect", metrics.decisions.clone());
        registry.register("denials", "Reasons of denials by code", metrics.denials.clone());
        registry.register(
            "settlements",
            "Confirms and releases by resulting state",
            metrics.settlements.clone(),
        );
        registry.register("errors", "Requests not decided by code", metrics.errors.clone());
        registry.register_with_unit("stage", "Time by stage", Unit::Seconds, stages);
        registry.register("log_size", "Leaves of the decision log", metrics.log_size.clone());
        let served = prometheus_client::metrics::info::Info::new(vec![
            ("bundle", bundle.to_owned()),
            ("facts", facts.to_owned()),
            ("version", version.to_owned()),
        ]);
        registry.register("served", "What is active", served);
        Self { registry, ..metrics }
    }

    /// A decision was sent.
    pub(crate) fn decided(&self, effect: &str, position: u64) {
        self.decisions.get_or_create(&Label { name: effect.to_owned() }).inc();
        let size = i64::try_from(position).unwrap_or(i64::MAX).saturating_add(1);
        if size > self.log_size.get() {
            self.log_size.set(size);
        }
    }

    /// A denial named a code.
    pub(crate) fn denied(&self, code: &str) {
        self.denials.get_or_create(&Label { name: code.to_owned() }).inc();
    }

    /// A reservation reached a state.
    pub(crate) fn settled(&self, state: &str) {
        self.settlements.get_or_create(&Label { name: state.to_owned() }).inc();
    }

    /// A request was not decided.
    pub(crate) fn failed(&self, code: &str) {
        self.errors.get_or_create(&Label { name: code.to_owned() }).inc();
    }

    /// A stage took some time.
    pub(crate) fn took(&self, stage: Stage, time: Duration) {
        let label = Label { name: stage.name().to_owned() };
        self.stages.get_or_create(&label).observe(time.as_secs_f64());
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String cannot fail");
        text
    }
}

/// Measures one stretch of wall time. The only clock reading outside of `clock`: it feeds metrics,
/// never a decision.
#[derive(Debug)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts.
    #[expect(clippy::disallowed_methods, reason = "measures for metrics, decides nothing")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = Metrics::new("sha256:b", "sha256:f", "0");
        metrics.decided("PERMIT", 4);
        metrics.denied("QUOTA_EXCEEDED");
        metrics.took(Stage::Evaluate, Duration::from_micros(15));
        let text = metrics.text();
        for line in [
            "placet_decisions_total{name=\"PERMIT\"} 1",
            "placet_denials_total{name=\"QUOTA_EXCEEDED\"} 1",
            "placet_log_size 5",
            "placet_stage_seconds_count{name=\"evaluate\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
