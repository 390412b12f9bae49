//! What this node tells the others of itself.

use std::sync::Arc;

use crate::admit::Admit;
use crate::nodes::{MAX_VERSION_BYTES, Ran, Report, Told, pins_in_use};
use crate::watch::{InUse, Watch};

/// What the node of this name tells, as often as it is asked. Nothing before everything that runs was looked at once, while there
/// is no store of pins, or while the clock cannot be right.
#[must_use]
pub fn node_report(admit: Arc<Admit>, watch: Arc<Watch>, node: String) -> Told {
    Arc::new(move || {
        let ran = watch.in_use()?.iter().cloned().map(ran).collect::<Vec<_>>();
        Some(Report {
            node: node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: admit.shared_digest(),
            mode: admit.mode(),
            since: admit.moment()?,
            // It is escaped, so that each character is a byte.
            containerd: watch.containerd().chars().take(MAX_VERSION_BYTES).collect(),
            in_use: pins_in_use(ran, admit.pins()?),
            left_out: 0,
        })
    })
}

fn ran(InUse { revision, image, digest, containers }: InUse) -> Ran {
    Ran { revision, image, digest, containers }
}
