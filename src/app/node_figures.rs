//! What runs, what came past the gate, and when enforcement was last proven, as figures that are looked up when somebody asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::admit::{Admit, Shown, Trials};
use crate::metrics::Metrics;
use crate::watch::{Following, Inventory, Kind, Watch};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evidence {
    evidence: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Default)]
struct Figures {
    running: Family<Evidence, Gauge>,
    inventory_at: Gauge,
    bypasses: Family<Way, Counter>,
    stopped: Family<Way, Counter>,
    is_heard: Gauge,
    is_enforced: Gauge,
    proven_at: Gauge,
    trials: Family<Outcome, Counter>,
}

/// Shows what the watcher has seen, without asking containerd for it, and what the gate's trials of itself have shown.
pub(super) fn register(watch: Arc<Watch>, admit: Arc<Admit>, metrics: &Metrics) {
    let figures = Figures::default();
    metrics.register(
        "containers_running",
        "Containers of pods that run, by whether they have valid evidence today",
        figures.running.clone(),
    );
    metrics.register("inventory_timestamp_seconds", "When it was looked what runs; 0: not yet", figures.inventory_at.clone());
    metrics.register("bypasses", "How often something was seen to come past the gate, by the code of how", figures.bypasses.clone());
    metrics.register("bypass_stopped", "Tasks that were stopped since they came past the gate without evidence", figures.stopped.clone());
    metrics.register("events_heard", "Whether containerd's events are followed", figures.is_heard.clone());
    let help = "Whether the newest trial of the gate has shown that it enforces; 0 also before the first, and in mode disabled";
    metrics.register("self_proof_enforced", help, figures.is_enforced.clone());
    let help = "When the gate was last proven to enforce, since it began; 0: never";
    metrics.register("self_proof_timestamp_seconds", help, figures.proven_at.clone());
    metrics.register("self_proofs", "Trials of the gate by itself, by what they have shown", figures.trials.clone());
    metrics.before_reading(move || figures.refresh(&watch, &admit));
}

impl Figures {
    fn refresh(&self, watch: &Watch, admit: &Admit) {
        let seen = watch.seen();
        self.show_inventory(&seen.inventory);
        // They count themselves, and never less than before.
        for kind in Kind::ALL {
            let (way, counts) = (Way { kind: kind.code() }, seen.bypasses_of.get(&kind).copied().unwrap_or_default());
            self.bypasses.get_or_create(&way).inner().store(counts.seen, Ordering::Relaxed);
            self.stopped.get_or_create(&way).inner().store(counts.stopped, Ordering::Relaxed);
        }
        self.is_heard.set(i64::from(matches!(seen.following, Following::Since(_))));
        let proofs = admit.proofs();
        let is_enforced = proofs.newest.is_some_and(|(_, shown)| shown == Shown::Enforced);
        self.is_enforced.set(i64::from(is_enforced));
        self.proven_at.set(proofs.proven_at.unwrap_or_default());
        self.show_trials(proofs.trials);
    }

    fn show_trials(&self, trials: Trials) {
        let Trials { enforced, nothing_to_enforce, not_made, wrongly_refused, wrongly_allowed } = trials;
        let counts = [
            ("enforced", enforced),
            ("nothing-to-enforce", nothing_to_enforce),
            ("not-made", not_made),
            ("wrongly-refused", wrongly_refused),
            ("wrongly-allowed", wrongly_allowed),
        ];
        for (outcome, count) in counts {
            self.trials.get_or_create(&Outcome { outcome }).inner().store(count, Ordering::Relaxed);
        }
    }

    fn show_inventory(&self, inventory: &Inventory) {
        let Inventory { at, verified, exempt, grandfathered, unverified, unknown, .. } = inventory;
        self.inventory_at.set(at.unwrap_or_default());
        let counts =
            [("valid", verified), ("not-needed", exempt), ("grandfathered", grandfathered), ("missing", unverified), ("unknown", unknown)];
        for (evidence, count) in counts {
            self.running.get_or_create(&Evidence { evidence }).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}
