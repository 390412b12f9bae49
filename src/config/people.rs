//! Users with their keys, and teams of users.

use std::collections::BTreeSet;
use std::path::Path;

use countersign_trust::CanonicalKeyId;
use countersign_trust::name::{Sha256, shown};
use countersign_trust::policy::people::{People, PeopleError, SignerName, TeamName};
use countersign_trust::policy::signer_key::SignerKey;
use countersign_trust::time::UnixTime;

use super::fault::Fault;
use super::place::{Place, name_of};
use super::shape::{At, Notes};

/// A client bundle's certificate has a few KiB, and the authorities behind it no more.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// An entry of `[[signers]]`.
#[derive(Debug)]
pub(super) struct SignerFile {
    pub(super) name: Option<At<String>>,
    pub(super) certificates: Vec<At<String>>,
    pub(super) keys: Vec<At<String>>,
}

/// An entry of `[[teams]]`.
#[derive(Debug)]
pub(super) struct TeamFile {
    pub(super) name: Option<At<String>>,
    pub(super) members: Vec<At<String>>,
}

/// A signer's certificate, for those who watch over its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerCertificate {
    /// Whose it is.
    pub signer: SignerName,
    /// The file that holds it.
    pub file: String,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
}

/// What the configuration says of users and teams.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) people: People,
    pub(super) certificates: Vec<SignerCertificate>,
    /// The content of every file that was read: part of what names the policy.
    pub(super) contents: Vec<String>,
}

/// All users and teams without a fault; the others' faults are noted.
pub(super) fn check(signers: &[SignerFile], teams: &[TeamFile], place: &Place, notes: &mut Notes) -> Checked {
    let mut checked = Checked::default();
    for entry in signers {
        add_signer(entry, place, &mut checked, notes);
    }
    for entry in teams {
        add_team(entry, &mut checked.people, notes);
    }
    checked
}

fn add_signer(entry: &SignerFile, place: &Place, checked: &mut Checked, notes: &mut Notes) {
    let mut keys = BTreeSet::new();
    let mut is_whole = true;
    let name = entry.name.as_ref().and_then(|name| parsed::<SignerName>(name, notes));
    for file in &entry.certificates {
        match read_key(&file.value, place) {
            Ok((key, text)) => {
                keys.insert(key.id);
                checked.contents.push(text);
                if let (Some(name), Some((not_before, not_after))) = (&name, key.validity) {
                    let file = name_of(Path::new(&file.value));
                    checked.certificates.push(SignerCertificate { signer: name.clone(), file, not_before, not_after });
                }
            }
            Err(fault) => {
                is_whole = false;
                notes.fault(file.at, fault);
            }
        }
    }
    for id in &entry.keys {
        match key_id(id, "signers.keys", notes) {
            Some(key) => drop(keys.insert(key)),
            None => is_whole = false,
        }
    }
    let (Some(name), Some(written)) = (name, &entry.name) else { return };
    // A user whose keys could not be read would be told to have none.
    if is_whole && let Err(error) = checked.people.add_signer(name, keys) {
        notes.fault(written.at, Fault::People(error));
    }
}

fn read_key(file: &str, place: &Place) -> Result<(SignerKey, String), Fault> {
    let path = place.resolve(file);
    let text = place.read(&path, MAX_KEY_FILE_BYTES).map_err(|source| Fault::SignerFile { path: name_of(&path), source })?;
    let key = SignerKey::read(&text).map_err(|source| Fault::SignerKey { path: name_of(&path), source })?;
    Ok((key, text))
}

/// Reads a canonical key ID.
pub(super) fn key_id(written: &At<String>, key: &'static str, notes: &mut Notes) -> Option<CanonicalKeyId> {
    let Ok(hash) = Sha256::from_hex(&written.value.to_ascii_lowercase()) else {
        notes.fault(written.at, Fault::KeyId { key, value: shown(&written.value) });
        return None;
    };
    Some(CanonicalKeyId::new(hash))
}

fn add_team(entry: &TeamFile, people: &mut People, notes: &mut Notes) {
    let members: Vec<_> = entry.members.iter().map(|member| parsed::<SignerName>(member, notes)).collect();
    let name = entry.name.as_ref().and_then(|name| parsed::<TeamName>(name, notes));
    let (Some(name), Some(written)) = (name, &entry.name) else { return };
    let Some(members) = members.into_iter().collect::<Option<BTreeSet<_>>>() else { return };
    if let Err(error) = people.add_team(name, members) {
        let at_member = |member: &SignerName| entry.members.iter().find(|written| written.value == member.to_string());
        let at = if let PeopleError::UnknownMember { member, .. } = &error { at_member(member) } else { None };
        let at = at.map_or(written.at, |written| written.at);
        notes.fault(at, Fault::People(error));
    }
}

/// Teams that must have signed; each must be one that is listed. None if a fault was noted.
pub(super) fn required_teams(written: &[At<String>], key: &'static str, people: &People, notes: &mut Notes) -> Option<BTreeSet<TeamName>> {
    let mut teams = Some(BTreeSet::new());
    for name in written {
        let team = parsed::<TeamName>(name, notes).filter(|team| {
            let is_known = people.members(team).is_some();
            if !is_known {
                notes.fault(name.at, Fault::UnknownTeam { key, team: team.to_string() });
            }
            is_known
        });
        teams = teams.zip(team).map(|(mut teams, team)| {
            teams.insert(team);
            teams
        });
    }
    teams
}

fn parsed<T: std::str::FromStr<Err = PeopleError>>(written: &At<String>, notes: &mut Notes) -> Option<T> {
    written.value.parse().map_err(|error| notes.fault(written.at, Fault::People(error))).ok()
}
