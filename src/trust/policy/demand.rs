//! What is demanded of one image, and whether its signatures are enough.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::people::{People, TeamName};
use super::rule::Rule;
use super::{Approval, Basis, DEFAULT_RULE, Policy};
use crate::key::CanonicalKeyId;
use crate::mode::Mode;
use crate::name::ManifestDigest;
use crate::refusal::{Reason, Unsigned};
use crate::time::UnixTime;
use crate::trusted::Release;

/// What is demanded of one image: what its rule says, and where that says nothing, what the policy does.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The rule that answers.
    pub rule: &'a str,
    /// What becomes of the image if it does not pass.
    pub mode: Mode,
    /// It does not pass.
    pub deny: bool,
    /// Teams that must all have signed. Empty: any trusted signature.
    pub signed_by: &'a BTreeSet<TeamName>,
    allow_digests: Option<&'a BTreeSet<ManifestDigest>>,
    /// The rule as it was written; none where no rule answers.
    pub written: Option<&'a Rule>,
    ends: UnixTime,
    people: &'a People,
    policy: &'a Policy,
}

impl<'a> Demand<'a> {
    pub(super) fn new(policy: &'a Policy, rule: Option<&'a Rule>) -> Self {
        let never = UnixTime::NEVER;
        Self {
            rule: rule.map_or(DEFAULT_RULE, |rule| rule.name.as_str()),
            mode: rule.and_then(|rule| rule.mode).unwrap_or(policy.mode),
            deny: rule.is_some_and(|rule| rule.deny),
            signed_by: rule.and_then(|rule| rule.signed_by.as_ref()).unwrap_or(&policy.signed_by),
            allow_digests: rule.map(|rule| &rule.allow_digests),
            written: rule,
            ends: rule.and_then(|rule| rule.exception.as_ref()).map_or(never, |exception| exception.until),
            people: &policy.people,
            policy,
        }
    }

    /// Digests that pass without a signature.
    pub fn allowed_digests(&self) -> impl Iterator<Item = ManifestDigest> {
        self.allow_digests.into_iter().flatten().copied()
    }

    /// The approval of a digest that passes without a signature.
    #[must_use]
    pub fn listed(&self, digest: ManifestDigest) -> Option<Approval> {
        let is_listed = self.allow_digests.is_some_and(|allowed| allowed.contains(&digest));
        is_listed.then(|| Approval { digest, basis: Basis::ListedByRule, rule: self.rule.to_owned(), valid_until: self.ends })
    }

    /// Approves what one tag is released as, or says why its signatures are not enough.
    pub(crate) fn approve(&self, mut release: Release) -> Result<Approval, Reason> {
        self.policy.refuse_denied(release.digest.hash())?;
        for by in &mut release.signed_by {
            by.signer = self.people.owner_of(&by.key).cloned();
        }
        let missing = self.missing_teams(&release);
        if !missing.is_empty() {
            let signed_by = release.personal().map(|by| (by.key, by.signer.clone())).collect();
            return Err(Reason::SigningPolicy(Unsigned { tag: release.tag, digest: release.digest, missing, signed_by }));
        }
        let valid_until = release.valid_until.min(self.ends);
        Ok(Approval { digest: release.digest, basis: Basis::Signed(release), rule: self.rule.to_owned(), valid_until })
    }

    /// Teams of which no member has signed this digest for this tag in a list of a member's own (`docs/notary-v1.md`, 12.5).
    fn missing_teams(&self, release: &Release) -> Vec<TeamName> {
        self.teams(release).into_iter().filter(|(_, key)| key.is_none()).map(|(team, _)| team.clone()).collect()
    }

    /// Every team that must have signed, with the key of a member who has.
    pub(crate) fn teams(&self, release: &Release) -> Vec<(&'a TeamName, Option<CanonicalKeyId>)> {
        let keys: Vec<CanonicalKeyId> = release.personal().map(|by| by.key).collect();
        self.signed_by.iter().map(|team| (team, self.people.signed_for(team, &keys))).collect()
    }
}
