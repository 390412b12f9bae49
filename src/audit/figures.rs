//! Decisions as figures.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::line::{Line, Verdict};
use crate::metrics::Metrics;

/// Series of decisions. Each has a price in whatever keeps them; methods, verdicts and codes are few, and rules are as many as
/// the configuration says. What comes after is counted under one name.
const MOST_SERIES: usize = 1000;
/// The rule of decisions beyond [`MOST_SERIES`].
const OTHER_RULES: &str = "(others)";
/// From what judging a container takes to what a trust server may take, in seconds.
const BUCKETS: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    method: String,
    verdict: &'static str,
    rule: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    method: String,
    verdict: &'static str,
}

#[derive(Debug)]
pub(super) struct Figures {
    decisions: Family<DecisionLabels, Counter>,
    /// How often a series of them was new.
    series: AtomicUsize,
    seconds: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    let_pass: Counter,
    pub(super) repeated: Counter,
    pub(super) write_failures: Counter,
    pub(super) archive_failures: Counter,
}

impl Figures {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let figures = Self {
            decisions: Family::default(),
            series: AtomicUsize::new(0),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            let_pass: Counter::default(),
            repeated: Counter::default(),
            write_failures: Counter::default(),
            archive_failures: Counter::default(),
        };
        metrics.register(
            "decisions",
            "Decisions by method, verdict, rule and code; the code of what is allowed is empty",
            figures.decisions.clone(),
        );
        metrics.register("decision_seconds", "From the arrival of a request to its decision", figures.seconds.clone());
        metrics.register(
            "let_pass",
            "Calls that were refused and forwarded all the same, since the mode does not enforce",
            figures.let_pass.clone(),
        );
        let help = "Decisions without a line of their own, since they say what others have said";
        metrics.register("audit_repeated_decisions", help, figures.repeated.clone());
        metrics.register("audit_write_failures", "Decisions that the audit log could not take", figures.write_failures.clone());
        metrics.register(
            "audit_archive_failures",
            "Evidence that could not be kept for replaying decisions",
            figures.archive_failures.clone(),
        );
        figures
    }

    /// What the watcher saw and did has figures of its own (`countersign_bypasses_total`).
    pub(super) fn count(&self, line: &Line) {
        if matches!(line.verdict, Verdict::PastTheGate | Verdict::Stopped) {
            return;
        }
        let verdict = line.verdict.as_str();
        let rule = line.rule.clone().unwrap_or_default();
        let mut labels = DecisionLabels { method: line.method.clone(), verdict, rule, code: line.code.clone().unwrap_or_default() };
        let is_new = self.decisions.get(&labels).is_none();
        if is_new && self.series.fetch_add(1, Ordering::Relaxed) >= MOST_SERIES {
            OTHER_RULES.clone_into(&mut labels.rule);
        }
        self.decisions.get_or_create(&labels).inc();
        let seconds = std::time::Duration::from_micros(line.took_us).as_secs_f64();
        self.seconds.get_or_create(&LatencyLabels { method: labels.method, verdict }).observe(seconds);
        if line.verdict == Verdict::LetPass {
            self.let_pass.inc();
        }
    }
}
