//! Mode and pins.

use countersign_trust::mode::Mode;
use countersign_trust::name::shown;
use countersign_trust::pin::{PinError, PinName, Pins};

use super::fault::{Fault, Remark};
use super::file::{ContentTrustFile, PinningFile};
use super::shape::{At, NamedList, Notes};
use super::{ContentTrust, Registry};

/// Mode and pins. None if there is no mode; that was noted.
pub(super) fn check(file: &ContentTrustFile, registries: &[Registry], notes: &mut Notes) -> Option<ContentTrust> {
    let pins = pins(&file.pinning, registries, notes);
    let mode = mode(file.mode.as_ref()?, notes)?;
    let is_written = file.pinning.root_keys.is_written || file.pinning.cert_ids.is_written || file.pinning.has_official_images;
    if mode.verifies() && !is_written {
        notes.fault(file.pinning.at, Fault::NothingPinned);
    }
    Some(ContentTrust { mode, pins })
}

fn mode(written: &At<String>, notes: &mut Notes) -> Option<Mode> {
    match written.value.parse() {
        Ok(mode) => Some(mode),
        Err(error) => {
            notes.fault(written.at, Fault::Mode(error));
            None
        }
    }
}

fn pins(file: &PinningFile, registries: &[Registry], notes: &mut Notes) -> Pins {
    let mut pins = Pins::default();
    for entry in &file.root_keys.lists {
        let read = pins.add_root_keys(&entry.name.value, ids(entry));
        note(entry, read, registries, notes);
    }
    for entry in &file.cert_ids.lists {
        let read = pins.add_certificate_ids(&entry.name.value, ids(entry));
        note(entry, read, registries, notes);
    }
    pins
}

fn ids(entry: &NamedList) -> impl Iterator<Item = &str> {
    entry.items.iter().map(|id| id.value.as_str())
}

fn note(entry: &NamedList, read: Result<PinName, Vec<PinError>>, registries: &[Registry], notes: &mut Notes) {
    match read {
        Ok(name) => remark(entry, &name, registries, notes),
        Err(errors) => errors.into_iter().for_each(|error| notes.fault(place_of(entry, &error), Fault::Pin(error))),
    }
}

/// A bad ID is told where it stands, everything else at the name.
fn place_of(entry: &NamedList, error: &PinError) -> usize {
    let id = if let PinError::Id { position, .. } = error { entry.items.get(*position) } else { None };
    id.map_or(entry.name.at, |id| id.at)
}

fn remark(entry: &NamedList, name: &PinName, registries: &[Registry], notes: &mut Notes) {
    if name.host_is_assumed() {
        let written = shown(&entry.name.value);
        notes.remark(entry.name.at, Remark::HostAssumed { written, read_as: name.to_string() });
    }
    let Some(host) = name.host() else { return };
    if !registries.iter().any(|registry| registry.host == *host) {
        notes.remark(entry.name.at, Remark::NotRegistered { name: name.to_string(), host: host.to_string() });
    }
}
