//! Who may sign: users with the keys that they sign with, and teams of users (`docs/notary-v1.md`, 12.5).

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::key::CanonicalKeyId;
use crate::name::shown;

/// Longer names than any directory of users has.
const MAX_NAME_BYTES: usize = 128;

/// Why users and teams cannot be as they are written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeopleError {
    /// A name of a user with characters that no user's name has.
    #[error("`{0}` is not the name of a signer: write 1 to 128 letters, digits and `.`, `_`, `-`, `@`")]
    SignerName(String),
    /// A name of a team that is not `organisation/team`.
    #[error("`{0}` is not the name of a team: write `organisation/team`")]
    TeamName(String),
    /// One user twice.
    #[error("signer `{0}` is listed twice: give all keys of a user in one entry")]
    SignerTwice(SignerName),
    /// A user without a key.
    #[error("signer `{0}` has no key: give `certificates` or `keys`")]
    NoKey(SignerName),
    /// A key that would stand for two users.
    #[error("key {key} is of both `{first}` and `{second}`: a key stands for one user, or nobody could tell who signed")]
    KeyOfTwo {
        /// The key's canonical ID.
        key: CanonicalKeyId,
        /// The user who was listed first.
        first: SignerName,
        /// The other one.
        second: SignerName,
    },
    /// One team twice.
    #[error("team `{0}` is listed twice: give all members of a team in one entry")]
    TeamTwice(TeamName),
    /// A team without members.
    #[error("team `{0}` has no members, so nothing could be signed by it")]
    NoMembers(TeamName),
    /// A member who is no listed user.
    #[error("team `{team}` has the member `{member}`, who is no signer: add `[[signers]]` with this name")]
    UnknownMember {
        /// The team.
        team: TeamName,
        /// The member.
        member: SignerName,
    },
}

fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The name of a user who signs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignerName(String);

impl FromStr for SignerName {
    type Err = PeopleError;

    fn from_str(text: &str) -> Result<Self, PeopleError> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(PeopleError::SignerName(shown(text))) }
    }
}

impl fmt::Display for SignerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a team with its organisation, `acme/qa`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TeamName(String);

impl FromStr for TeamName {
    type Err = PeopleError;

    fn from_str(text: &str) -> Result<Self, PeopleError> {
        let is_team = text.split_once('/').is_some_and(|(organisation, team)| is_name(organisation) && is_name(team));
        if is_team { Ok(Self(text.to_owned())) } else { Err(PeopleError::TeamName(shown(text))) }
    }
}

impl fmt::Display for TeamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All users and teams that a configuration knows. A key that is in none of them signs for nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct People {
    signers: BTreeMap<SignerName, BTreeSet<CanonicalKeyId>>,
    owners: BTreeMap<CanonicalKeyId, SignerName>,
    teams: BTreeMap<TeamName, BTreeSet<SignerName>>,
}

impl People {
    /// Adds a user with the canonical IDs of the keys that are this user's.
    ///
    /// # Errors
    /// [`PeopleError`] for a user that is there, no key, or a key that is another user's; then nothing is added.
    pub fn add_signer(&mut self, name: SignerName, keys: BTreeSet<CanonicalKeyId>) -> Result<(), PeopleError> {
        if self.signers.contains_key(&name) {
            return Err(PeopleError::SignerTwice(name));
        }
        if keys.is_empty() {
            return Err(PeopleError::NoKey(name));
        }
        if let Some((key, first)) = keys.iter().find_map(|key| Some((*key, self.owners.get(key)?.clone()))) {
            return Err(PeopleError::KeyOfTwo { key, first, second: name });
        }
        self.owners.extend(keys.iter().map(|key| (*key, name.clone())));
        self.signers.insert(name, keys);
        Ok(())
    }

    /// Adds a team of users that were added before.
    ///
    /// # Errors
    /// [`PeopleError`] for a team that is there, one without members, or an unknown member; then nothing is added.
    pub fn add_team(&mut self, name: TeamName, members: BTreeSet<SignerName>) -> Result<(), PeopleError> {
        if self.teams.contains_key(&name) {
            return Err(PeopleError::TeamTwice(name));
        }
        if members.is_empty() {
            return Err(PeopleError::NoMembers(name));
        }
        if let Some(member) = members.iter().find(|member| !self.signers.contains_key(*member)) {
            return Err(PeopleError::UnknownMember { team: name, member: member.clone() });
        }
        self.teams.insert(name, members);
        Ok(())
    }

    /// The user whose key this is.
    #[must_use]
    pub fn owner_of(&self, key: &CanonicalKeyId) -> Option<&SignerName> {
        self.owners.get(key)
    }

    /// The teams that a user is in.
    pub fn teams_of<'a>(&'a self, signer: &'a SignerName) -> impl Iterator<Item = &'a TeamName> {
        self.teams.iter().filter(|(_, members)| members.contains(signer)).map(|(team, _)| team)
    }

    /// The members of a team; none if there is no such team.
    #[must_use]
    pub fn members(&self, team: &TeamName) -> Option<&BTreeSet<SignerName>> {
        self.teams.get(team)
    }

    /// Every user with the keys.
    pub fn signers(&self) -> impl Iterator<Item = (&SignerName, &BTreeSet<CanonicalKeyId>)> {
        self.signers.iter()
    }

    /// The first of `keys` that is a member's of `team`.
    #[must_use]
    pub fn signed_for<'k>(&self, team: &TeamName, keys: impl IntoIterator<Item = &'k CanonicalKeyId>) -> Option<CanonicalKeyId> {
        let members = self.members(team)?;
        keys.into_iter().copied().find(|key| self.owner_of(key).is_some_and(|owner| members.contains(owner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Sha256;
    use alloc::string::ToString as _;

    fn key(text: &str) -> CanonicalKeyId {
        CanonicalKeyId::new(Sha256::of(text.as_bytes()))
    }

    fn signer(name: &str) -> SignerName {
        name.parse().unwrap()
    }

    fn team(name: &str) -> TeamName {
        name.parse().unwrap()
    }

    fn alice_and_bob() -> People {
        let mut people = People::default();
        people.add_signer(signer("alice"), [key("a1"), key("a2")].into()).unwrap();
        people.add_signer(signer("bob"), [key("b")].into()).unwrap();
        people
    }

    #[test]
    fn a_key_that_stands_for_two_users_is_an_error() {
        let mut people = alice_and_bob();
        let error = people.add_signer(signer("eve"), [key("e"), key("a2")].into()).unwrap_err();
        assert_eq!(error, PeopleError::KeyOfTwo { key: key("a2"), first: signer("alice"), second: signer("eve") });
        assert_eq!(people.owner_of(&key("e")), None, "nothing is added");
    }

    #[test]
    fn every_key_of_a_user_signs_for_each_team_of_the_user() {
        let mut people = alice_and_bob();
        people.add_team(team("acme/qa"), [signer("alice")].into()).unwrap();
        people.add_team(team("acme/security"), [signer("alice"), signer("bob")].into()).unwrap();
        assert_eq!(people.signed_for(&team("acme/qa"), [&key("a2")]), Some(key("a2")));
        assert_eq!(people.signed_for(&team("acme/security"), [&key("x"), &key("b")]), Some(key("b")));
        assert_eq!(people.signed_for(&team("acme/qa"), [&key("b")]), None);
        assert_eq!(people.signed_for(&team("acme/none"), [&key("a1")]), None);
        assert_eq!(people.teams_of(&signer("alice")).count(), 2);
    }

    #[test]
    fn users_and_teams_that_make_no_sense_are_refused_by_name() {
        let mut people = alice_and_bob();
        assert_eq!(people.add_signer(signer("bob"), [key("c")].into()), Err(PeopleError::SignerTwice(signer("bob"))));
        assert_eq!(people.add_signer(signer("carol"), BTreeSet::new()), Err(PeopleError::NoKey(signer("carol"))));
        assert_eq!(people.add_team(team("acme/qa"), BTreeSet::new()), Err(PeopleError::NoMembers(team("acme/qa"))));
        let unknown = people.add_team(team("acme/qa"), [signer("zoe")].into()).unwrap_err();
        assert_eq!(unknown, PeopleError::UnknownMember { team: team("acme/qa"), member: signer("zoe") });
        people.add_team(team("acme/qa"), [signer("bob")].into()).unwrap();
        assert_eq!(people.add_team(team("acme/qa"), [signer("bob")].into()), Err(PeopleError::TeamTwice(team("acme/qa"))));
    }

    #[test]
    fn names_have_the_characters_of_names() {
        for bad in ["", "a b", "a/b", "\u{1b}[31m", &"a".repeat(129)] {
            assert!(bad.parse::<SignerName>().is_err(), "{bad}");
        }
        for bad in ["qa", "acme/", "/qa", "acme/qa/x", "acme/q a"] {
            let error = bad.parse::<TeamName>().unwrap_err();
            assert!(error.to_string().ends_with("write `organisation/team`"), "{error}");
        }
        assert!("first.last@acme.example".parse::<SignerName>().is_ok());
    }
}
