//! Whose signatures count: mode, pins, teams, revocations.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_trust::CanonicalKeyId;
use countersign_trust::mode::Mode;
use countersign_trust::name::{Sha256, shown};
use countersign_trust::pattern::RepositoryPattern;
use countersign_trust::pin::{OfficialKeys, PinError, Pins};
use countersign_trust::policy::people::People;
use countersign_trust::policy::{JsonForm, Policy, SignerCertificates};

use super::duration::{self, Allowed};
use super::fault::{Fault, Remark};
use super::file::{ContentTrustFile, PinningFile};
use super::people::{key_id, required_teams};
use super::place::{Place, name_of};
use super::rules::{self, RuleFile, digest_of, pattern};
use super::shape::{At, NamedList, Notes};
use super::{ExpiredTrustData, Registry};

/// A list of official root keys has some twenty lines.
const MAX_OFFICIAL_KEYS_BYTES: u64 = 64 * 1024;
/// Expired trust data is used for so long when nothing else is said: a node that is cut off for longer than a month has
/// other troubles, and its operator should say so.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 86_400;
const MAX_AGE: Allowed = Allowed {
    key: "content-trust.expired-trust-data-max-age",
    least: Duration::from_secs(3600),
    most: Duration::from_secs(3650 * DAY),
    example: "30d",
};

/// What the rest of the file has to do with trust.
pub(super) struct Beside<'a> {
    pub(super) people: People,
    pub(super) rules: &'a [RuleFile],
    pub(super) registries: &'a [Registry],
    pub(super) place: &'a Place,
}

/// Services that ran before their images were enforced go on for so long: time to have their images signed, and no more.
const DEFAULT_GRANDFATHER_FOR: Duration = Duration::from_secs(30 * DAY);
const GRANDFATHER_FOR: Allowed = Allowed {
    key: "content-trust.grandfather-for",
    // Nothing goes on by itself.
    least: Duration::ZERO,
    most: Duration::from_secs(366 * DAY),
    example: "30d",
};

/// For how long services go on that ran before their images were enforced. None if a fault was noted.
pub(super) fn grandfather_for(file: &ContentTrustFile, notes: &mut Notes) -> Option<Option<Duration>> {
    let length = duration::check(file.grandfather_for.as_ref(), GRANDFATHER_FOR, DEFAULT_GRANDFATHER_FOR, notes)?;
    Some((!length.is_zero()).then_some(length))
}

/// A revision is replaced within weeks mostly. One that is older than half a year has other troubles than its pin.
const DEFAULT_SUPERSEDED_MAX_AGE: Duration = Duration::from_secs(180 * DAY);
const SUPERSEDED_MAX_AGE: Allowed = Allowed {
    key: "content-trust.superseded-max-age",
    // Each tag means what is signed now.
    least: Duration::ZERO,
    most: Duration::from_secs(3650 * DAY),
    example: "180d",
};

/// For how long a service keeps a digest that its tag is not signed as any more. None if a fault was noted.
pub(super) fn superseded_max_age(file: &ContentTrustFile, notes: &mut Notes) -> Option<Duration> {
    duration::check(file.superseded_max_age.as_ref(), SUPERSEDED_MAX_AGE, DEFAULT_SUPERSEDED_MAX_AGE, notes)
}

/// What is demanded of images, and for how long expired trust data serves. None if something essential is missing or wrong;
/// that was noted.
pub(super) fn check(file: &ContentTrustFile, beside: Beside<'_>, notes: &mut Notes) -> Option<(Policy, ExpiredTrustData, Vec<String>)> {
    let mut contents = Vec::new();
    let revoked_keys = revoked_keys(file, notes);
    let mut pins = pins(&file.pinning, beside.registries, notes);
    add_official(&file.pinning, beside.place, &mut pins, &mut contents, notes);
    let mode = file.mode.as_ref().and_then(|written| mode(written, notes));
    refuse_nothing_pinned(file, mode, notes);
    let rules = rules::check(beside.rules, &beside.people, mode, notes);
    let signed_by = required_teams(file.signed_by.as_deref().unwrap_or_default(), "content-trust.signed-by", &beside.people, notes);
    let expired = expired(file, notes);
    let signer_certificates = signer_certificates(file, notes);
    let releases_required: Vec<Option<RepositoryPattern>> =
        file.pinning.require_releases.iter().map(|name| pattern(name, "trust-pinning.require-releases-role", notes)).collect();
    let json_form = if file.strict_json.as_ref().is_none_or(|strict| strict.value) { JsonForm::Canonical } else { JsonForm::AnyOrder };
    let policy = Policy {
        mode: mode?,
        signed_by: signed_by?,
        pins,
        people: beside.people,
        rules: rules?,
        revoked_keys,
        denied_digests: denied_digests(file, notes),
        signer_certificates: signer_certificates?,
        releases_required: releases_required.into_iter().collect::<Option<_>>()?,
        json_form,
    };
    Some((policy, expired?, contents))
}

fn refuse_nothing_pinned(file: &ContentTrustFile, mode: Option<Mode>, notes: &mut Notes) {
    let has_official = file.pinning.official_images.as_ref().is_some_and(|switch| switch.value);
    let is_written = file.pinning.root_keys.is_written || file.pinning.cert_ids.is_written || has_official;
    if mode.is_some_and(Mode::verifies) && !is_written {
        notes.fault(file.pinning.at, Fault::NothingPinned);
    }
}

pub(super) fn mode(written: &At<String>, notes: &mut Notes) -> Option<Mode> {
    match written.value.parse() {
        Ok(mode) => Some(mode),
        Err(error) => {
            notes.fault(written.at, Fault::Mode(error));
            None
        }
    }
}

fn expired(file: &ContentTrustFile, notes: &mut Notes) -> Option<ExpiredTrustData> {
    let is_allowed = file.allow_expired.as_ref().is_some_and(|allowed| allowed.value);
    let written = file.expired_max_age.as_ref();
    if let Some(unused) = written.filter(|_| !is_allowed) {
        notes.remark(unused.at, Remark::MaxAgeUnused);
    }
    let max_age = duration::check(written, MAX_AGE, DEFAULT_MAX_AGE, notes)?;
    Some(if is_allowed { ExpiredTrustData::AllowedFor(max_age) } else { ExpiredTrustData::Refused })
}

fn signer_certificates(file: &ContentTrustFile, notes: &mut Notes) -> Option<SignerCertificates> {
    let Some(written) = &file.signer_cert_expiry else { return Some(SignerCertificates::Warn) };
    match written.value.as_str() {
        "warn" => Some(SignerCertificates::Warn),
        "enforce" => Some(SignerCertificates::Enforce),
        other => {
            notes.fault(written.at, Fault::SignerCertExpiry { value: shown(other) });
            None
        }
    }
}

fn revoked_keys(file: &ContentTrustFile, notes: &mut Notes) -> BTreeSet<CanonicalKeyId> {
    let keys: BTreeSet<_> = file.revoked_keys.iter().filter_map(|id| key_id(id, "content-trust.revoked-keys", notes)).collect();
    for id in file.pinning.root_keys.lists.iter().flat_map(|list| &list.items) {
        let is_revoked = Sha256::from_hex(&id.value.to_ascii_lowercase()).is_ok_and(|hash| keys.contains(&CanonicalKeyId::new(hash)));
        if is_revoked {
            notes.remark(id.at, Remark::PinnedAndRevoked { id: shown(&id.value) });
        }
    }
    keys
}

fn denied_digests(file: &ContentTrustFile, notes: &mut Notes) -> BTreeSet<Sha256> {
    let digests = file.deny_digests.iter().filter_map(|digest| digest_of(digest, "content-trust.deny-digests", notes));
    digests.map(|digest| *digest.hash()).collect()
}

/// Pins official images, if that is asked for.
fn add_official(file: &PinningFile, place: &Place, pins: &mut Pins, contents: &mut Vec<String>, notes: &mut Notes) {
    let Some(switch) = file.official_images.as_ref().filter(|switch| switch.value) else {
        if let Some(unused) = &file.official_keys_file {
            notes.remark(unused.at, Remark::OfficialKeysUnused);
        }
        return;
    };
    notes.remark(switch.at, Remark::OfficialImagesEnd);
    let keys = match &file.official_keys_file {
        None => Ok(OfficialKeys::built_in()),
        Some(written) => official_keys(&written.value, place, contents).map_err(|fault| notes.fault(written.at, fault)),
    };
    if let Ok(keys) = keys {
        pins.add_official_library(keys);
    }
}

fn official_keys(file: &str, place: &Place, contents: &mut Vec<String>) -> Result<OfficialKeys, Fault> {
    let path = place.resolve(file);
    let named = || name_of(&path);
    let text = place.read(&path, MAX_OFFICIAL_KEYS_BYTES).map_err(|source| Fault::OfficialKeysFile { path: named(), source })?;
    let keys = OfficialKeys::read(&text).map_err(|source| Fault::OfficialKeys { path: named(), source })?;
    contents.push(text);
    if keys.is_empty() { Err(Fault::OfficialKeysEmpty { path: named() }) } else { Ok(keys) }
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

fn note(entry: &NamedList, read: Result<RepositoryPattern, Vec<PinError>>, registries: &[Registry], notes: &mut Notes) {
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

fn remark(entry: &NamedList, name: &RepositoryPattern, registries: &[Registry], notes: &mut Notes) {
    if name.host_is_assumed() {
        let written = shown(&entry.name.value);
        notes.remark(entry.name.at, Remark::HostAssumed { written, read_as: name.to_string() });
    }
    let Some(host) = name.host() else { return };
    if !registries.iter().any(|registry| registry.host == *host) {
        notes.remark(entry.name.at, Remark::NotRegistered { name: name.to_string(), host: host.to_string() });
    }
}
