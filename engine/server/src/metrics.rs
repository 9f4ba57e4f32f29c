//! Counters and timings, read by Prometheus.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::sequencer::UsageReport;
use crate::workers::Lane;

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

/// Names a source that is or was to be active.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActiveLabel {
    source: String,
    digest: String,
    revision: String,
}

/// Names an attempt to replace a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabel {
    source: String,
    result: String,
}

/// Says why a source was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    source: String,
    reason: String,
}

/// Names an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabel {
    account: String,
    unit: String,
}

/// The labels of one source that are set.
#[derive(Debug, Default)]
struct Standing {
    active: Option<ActiveLabel>,
    refused: Option<RefusedLabel>,
}

/// Most accounts that are told apart: a page of them, and what a scraper takes from one server
/// without being told to. The first in the order of their paths, so that the same are told from
/// scrape to scrape; the others are counted.
pub(crate) const MAX_ACCOUNT_SERIES: usize = crate::quota::MAX_USAGE_PAGE;

/// Longest reason in a label, in bytes: place and message of one fault.
const MAX_REASON_BYTES: usize = 256;

/// The stages of a decision that are timed apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for a thread that evaluates, of this lane.
    Queue(Lane),
    /// Resolve, evaluate, digest.
    Evaluate,
    /// Ledger, signature, log and commit, waiting for them included.
    Sequence,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Queue(Lane::Fast) => "queue_fast",
            Self::Queue(Lane::Slow) => "queue_slow",
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
    active: Family<ActiveLabel, Gauge>,
    activations: Family<AttemptLabel, Counter>,
    refused: Family<RefusedLabel, Gauge>,
    /// The labels of `active` and `refused` that stand, by source: each source has at most one of
    /// each.
    standing: Mutex<BTreeMap<String, Standing>>,
    waiting_fast: Gauge,
    waiting_slow: Gauge,
    held: Held,
    waivers: Family<Label, Counter>,
    freezes: Family<Label, Gauge>,
}

/// What the ledger held when it was last asked.
#[derive(Debug, Default)]
struct Held {
    used: Family<AccountLabel, Gauge>,
    limit: Family<AccountLabel, Gauge>,
    /// How many accounts, told apart or not.
    accounts: Family<Label, Gauge>,
    reservations: Family<Label, Gauge>,
}

impl Held {
    fn register(&self, registry: &mut Registry) {
        let Self { used, limit, accounts, reservations } = self;
        registry.register("account_use", "Use of an account now, in its unit", used.clone());
        registry.register(
            "account_limit",
            "Limit of an account by the active facts, in its unit",
            limit.clone(),
        );
        registry.register(
            "accounts",
            "Accounts in use, `told` or `untold` by account_use",
            accounts.clone(),
        );
        registry.register("reservations", "Reservations held", reservations.clone());
    }

    fn clear(&self) {
        self.used.clear();
        self.limit.clear();
        self.accounts.clear();
        self.reservations.clear();
    }
}

impl Metrics {
    /// With everything at zero. `version` is that of the server.
    pub(crate) fn new(version: &str) -> Self {
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
            active: Family::default(),
            activations: Family::default(),
            refused: Family::default(),
            standing: Mutex::default(),
            waiting_fast: Gauge::default(),
            waiting_slow: Gauge::default(),
            held: Held::default(),
            waivers: Family::default(),
            freezes: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "waivers",
            "Denials lifted by waivers, by policy and code",
            metrics.waivers.clone(),
        );
        registry.register("freezes", "1 for each freeze that stands", metrics.freezes.clone());
        metrics.held.register(&mut registry);
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
        registry.register("active", "What decisions are made with", metrics.active.clone());
        registry.register(
            "activations",
            "Attempts to replace bundle or facts by result",
            metrics.activations.clone(),
        );
        registry.register(
            "activation_refused",
            "1 for a source whose last state was refused, with the reason",
            metrics.refused.clone(),
        );
        let build =
            prometheus_client::metrics::info::Info::new(vec![("version", version.to_owned())]);
        registry.register("build", "What is running", build);
        let waiting = Family::<Label, Gauge>::default();
        registry.register("waiting", "Requests that wait for a thread by lane", waiting.clone());
        let waiting_in = |lane: &str| waiting.get_or_create_owned(&Label { name: lane.to_owned() });
        let (waiting_fast, waiting_slow) = (waiting_in("fast"), waiting_in("slow"));
        Self { registry, waiting_fast, waiting_slow, ..metrics }
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

    /// A waiver lifted a denial for a permit.
    pub(crate) fn waived(&self, policy: &str, code: &str) {
        self.waivers.get_or_create(&Label { name: format!("{policy}/{code}") }).inc();
    }

    /// These freezes stand. To be told by one thread at a time.
    pub(crate) fn frozen<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.freezes.clear();
        for name in names {
            self.freezes.get_or_create(&Label { name: name.to_owned() }).set(1);
        }
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

    /// Another state of a source is active.
    pub(crate) fn activated(&self, source: &str, digest: &str, revision: &str) {
        self.attempted(source, "activated");
        let label = ActiveLabel {
            source: source.to_owned(),
            digest: digest.to_owned(),
            revision: escaped(revision),
        };
        self.active.get_or_create(&label).set(1);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let Standing { active, refused } = standing.entry(source.to_owned()).or_default();
        if let Some(before) = active.replace(label.clone()).filter(|before| *before != label) {
            self.active.remove(&before);
        }
        if let Some(before) = refused.take() {
            self.refused.remove(&before);
        }
    }

    /// A source was read and is what is active.
    pub(crate) fn unchanged(&self, source: &str) {
        self.attempted(source, "unchanged");
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = standing.entry(source.to_owned()).or_default().refused.take() {
            self.refused.remove(&before);
        }
    }

    /// A source was refused, for a reason of one line.
    pub(crate) fn refused(&self, source: &str, reason: &str) {
        self.attempted(source, "refused");
        let end = reason.floor_char_boundary(MAX_REASON_BYTES);
        let reason = escaped(reason.get(..end).unwrap_or_default());
        let label = RefusedLabel { source: source.to_owned(), reason };
        self.refused.get_or_create(&label).set(1);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.entry(source.to_owned()).or_default().refused.replace(label.clone());
        if let Some(before) = before.filter(|before| *before != label) {
            self.refused.remove(&before);
        }
    }

    fn attempted(&self, source: &str, result: &str) {
        let label = AttemptLabel { source: source.to_owned(), result: result.to_owned() };
        self.activations.get_or_create(&label).inc();
    }

    /// So many requests wait for a thread, in each lane. To be told in the order in which it is so.
    pub(crate) fn waiting(&self, fast: usize, slow: usize) {
        self.waiting_fast.set(i64::try_from(fast).unwrap_or(i64::MAX));
        self.waiting_slow.set(i64::try_from(slow).unwrap_or(i64::MAX));
    }

    /// What the ledger holds: the first page of its accounts, and the limit of each. To be told by
    /// one thread at a time.
    pub(crate) fn held(&self, report: &UsageReport, limits: &[Option<u64>]) {
        self.held.clear();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        for (it, limit) in report.accounts.iter().zip(limits) {
            let account = it.account.as_str().to_owned();
            let label = AccountLabel { account, unit: unit_name(it.unit).to_owned() };
            self.held.used.get_or_create(&label).set(gauge(it.used));
            if let Some(limit) = limit {
                self.held.limit.get_or_create(&label).set(gauge(*limit));
            }
        }
        let told = report.accounts.len();
        let number = |name: &str| Label { name: name.to_owned() };
        self.held.accounts.get_or_create(&number("told")).set(count(told));
        let untold = count(report.total.saturating_sub(told));
        self.held.accounts.get_or_create(&number("untold")).set(untold);
        self.held.reservations.get_or_create(&number("held")).set(count(report.live));
    }

    /// What the ledger holds cannot be had now.
    pub(crate) fn held_unknown(&self) {
        self.held.clear();
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String cannot fail");
        text
    }
}

fn unit_name(unit: placet_core::Unit) -> &'static str {
    use placet_core::Unit;
    match unit {
        Unit::MilliGpu => "milli-gpu",
        Unit::GpuSecond => "gpu-second",
        Unit::Gbps => "gbps",
        Unit::Byte => "byte",
        Unit::Count => "count",
    }
}

/// A label's value as the text format wants it: the library writes it as it is given.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Measures one stretch of wall time. The only clock reading outside of `clock`: it feeds metrics,
/// heartbeats and the order in which requests are served, never a decision.
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
        let metrics = Metrics::new("0");
        metrics.activated("bundle", "sha256:a", "1");
        metrics.activated("bundle", "sha256:b", "2");
        metrics.refused("facts", "facts.yaml:3: is wrong");
        metrics.refused("facts", "facts.yaml:4: is wrong");
        metrics.decided("PERMIT", 4);
        metrics.denied("QUOTA_EXCEEDED");
        metrics.took(Stage::Evaluate, Duration::from_micros(15));
        metrics.took(Stage::Queue(Lane::Slow), Duration::from_micros(15));
        metrics.waiting(3, 2);
        let text = metrics.text();
        for line in [
            "placet_decisions_total{name=\"PERMIT\"} 1",
            "placet_denials_total{name=\"QUOTA_EXCEEDED\"} 1",
            "placet_log_size 5",
            "placet_active{source=\"bundle\",digest=\"sha256:b\",revision=\"2\"} 1",
            "placet_activation_refused{source=\"facts\",reason=\"facts.yaml:4: is wrong\"} 1",
            "placet_activations_total{source=\"facts\",result=\"refused\"} 2",
            "placet_stage_seconds_count{name=\"evaluate\"} 1",
            "placet_stage_seconds_count{name=\"queue_slow\"} 1",
            "placet_waiting{name=\"fast\"} 3",
            "placet_waiting{name=\"slow\"} 2",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("sha256:a") && !text.contains("yaml:3"), "{text}");
        metrics.unchanged("facts");
        assert!(!metrics.text().contains("yaml:4"), "what is mended is no longer said");
    }

    #[test]
    fn accounts_are_told_as_they_are_now_or_not_at_all() {
        use placet_core::{AccountKind, AccountPath, Unit};
        let metrics = Metrics::new("0");
        let account = |name: &str, used| crate::quota::AccountUse {
            account: AccountPath::new(name).unwrap(),
            kind: AccountKind::Level,
            unit: Unit::MilliGpu,
            used,
        };
        let mut report = UsageReport {
            position: 9,
            time: 1_000,
            accounts: vec![account("tenant/a/gpu", 8_000), account("tenant/b/gpu", 7_000)],
            next: None,
            total: 1_702,
            live: 3,
        };
        metrics.held(&report, &[Some(40_000), None]);
        report.accounts.remove(1);
        report.total = 1_701;
        metrics.held(&report, &[Some(40_000)]);
        let text = metrics.text();
        for line in [
            "placet_account_use{account=\"tenant/a/gpu\",unit=\"milli-gpu\"} 8000",
            "placet_account_limit{account=\"tenant/a/gpu\",unit=\"milli-gpu\"} 40000",
            "placet_accounts{name=\"told\"} 1",
            "placet_accounts{name=\"untold\"} 1700",
            "placet_reservations{name=\"held\"} 3",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("tenant/b"), "{text}");
        metrics.held_unknown();
        assert!(!metrics.text().contains("tenant/"), "no answer leaves no old figures");
    }

    /// The labels of a line, as a scraper reads them.
    fn labels(line: &str) -> Option<Vec<(String, String)>> {
        let (_, mut rest) = line.split_once('{')?;
        let mut labels = Vec::new();
        loop {
            let (name, value) = rest.split_once("=\"")?;
            let (mut text, mut chars) = (String::new(), value.char_indices());
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match chars.next()?.1 {
                        'n' => '\n',
                        same @ ('"' | '\\') => same,
                        _ => return None,
                    }),
                    (_, '\n') => return None,
                    (_, other) => text.push(other),
                }
            };
            labels.push((name.to_owned(), text));
            rest = value.get(end + 1..)?;
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest.strip_prefix("} ")?.parse::<f64>().ok().map(|_| labels)
    }

    #[test]
    fn foreign_text_in_labels_does_not_break_the_page() {
        let metrics = Metrics::new("0");
        let (revision, reason) = ("1\"} 7\nx{y=\"\\", "at `\"a\\nb\"`: is \\ wrong");
        metrics.activated("bundle", "sha256:a", revision);
        metrics.refused("facts", reason);
        // A cut never leaves half of what stands for one character.
        metrics.refused("bundle", &"\"".repeat(2 * MAX_REASON_BYTES));
        let text = metrics.text();
        let mut found = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && line.contains('{')) {
            let labels = labels(line).unwrap_or_else(|| panic!("{line}"));
            found.extend(labels.into_iter().map(|(_, value)| value));
        }
        for value in [revision, reason, &"\"".repeat(MAX_REASON_BYTES)] {
            assert!(found.iter().any(|it| it == value), "{value} in\n{text}");
        }
    }
}
