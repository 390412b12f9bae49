//! What is done about what came past the gate.

use countersign_trust::name::shown;

use super::OnBypass;
use super::fault::Fault;
use super::shape::{At, Notes};

/// What is written, or that it is reported if nothing is. A word that is neither is noted.
pub(super) fn check(written: Option<&At<String>>, notes: &mut Notes) -> OnBypass {
    match written.map(|written| (written.value.as_str(), written.at)) {
        None | Some(("report", _)) => OnBypass::Report,
        Some(("stop", _)) => OnBypass::Stop,
        Some((other, at)) => {
            notes.fault(at, Fault::OnBypass { value: shown(other) });
            OnBypass::Report
        }
    }
}
