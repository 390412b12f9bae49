//! Figures for Prometheus.
//!
//! Every room makes its own and registers them here; this room knows none of them. Labels have few values that somebody here
//! chose: never an image, never anything that a caller writes.

mod serve;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub use serve::{MetricsListener, serve};

/// What every name begins with.
const PREFIX: &str = "countersign";
/// What the text is, for those who read it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Refresh = Arc<dyn Fn() + Send + Sync>;

/// All figures of this process.
pub struct Metrics {
    registry: Mutex<Registry>,
    refreshes: Mutex<Vec<Refresh>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// None but the version of the program.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self { registry: Mutex::new(Registry::with_prefix(PREFIX)), refreshes: Mutex::default() };
        let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
        build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))]).set(1);
        metrics.register("build_info", "The version of countersign; always 1", build);
        metrics
    }

    /// Shows `metric` from now on as `countersign_<name>`; a counter gets `_total` behind that. The clone that the caller keeps
    /// is the same metric.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric);
    }

    /// Calls `refresh` before figures are given out, for those that are looked up and not counted. It may take some
    /// milliseconds, and runs where it holds up nobody else.
    pub fn before_reading(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(refresh));
    }

    /// All figures, as they are now.
    #[must_use]
    pub fn text(&self) -> String {
        let refreshes = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        refreshes.iter().for_each(|refresh| refresh());
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn what_a_room_registers_is_shown_as_it_is_when_somebody_reads() {
        let metrics = Metrics::new();
        let (counted, looked_up) = (Counter::<u64>::default(), Gauge::<f64, AtomicU64>::default());
        metrics.register("doors_closed", "Doors", counted.clone());
        metrics.register("age_days", "Age", looked_up.clone());
        metrics.before_reading(move || {
            looked_up.set(1.5);
        });
        counted.inc_by(3);
        let text = metrics.text();
        for line in ["countersign_doors_closed_total 3", "countersign_age_days 1.5", "# HELP countersign_age_days Age.", "# EOF"] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains(&format!("countersign_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    }
}
