//! Logs: one line an event, to standard error, which systemd keeps.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Chooses what is logged, as `tracing-subscriber`'s filter directives.
pub const FILTER_VARIABLE: &str = "COUNTERSIGN_LOG";

/// Begins to log. Call it once.
pub fn init() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    // The journal has its own time.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() { log.without_time().try_init() } else { log.try_init() };
}
