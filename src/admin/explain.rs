//! What a verdict rests on, as messages.

use countersign_trust::explain::{DataAnswer, Member, PassedOver, RoleAnswer, RuleAnswer, SignatureAnswer, TeamAnswer, UnusableRole};
use countersign_trust::view::Standing;

use super::inspect::pin_message;
use super::{moment, v1};
use crate::admit::{Explained, Origin, TrustData};

/// Signatures and keys of one role that are shown. A role has a handful; a document can list thousands, and messages have
/// bounds.
pub(super) const MOST_KEYS: usize = 64;
/// Roles of one image that are shown. Real repositories have a role for each person who signs.
const MOST_ROLES: usize = 256;

/// The explanation of a verdict, if there is one.
#[must_use]
pub fn explanation(explained: &Explained) -> Option<v1::Explanation> {
    let explanation = explained.explanation.as_ref()?;
    let data = explanation.data.as_ref();
    let held = explained.trust_data.as_ref().filter(|_| data.is_some());
    let (roles, more_roles) = cut(data.map(|data| data.roles.as_slice()).unwrap_or_default(), MOST_ROLES, role);
    let (unusable, more_unusable) = cut(data.map(|data| data.unusable.as_slice()).unwrap_or_default(), MOST_ROLES, unusable_role);
    Some(v1::Explanation {
        now: explained.now.to_string(),
        rule: explanation.rule.as_ref().map(rule),
        passed_over: explanation.passed_over.iter().map(passed_over).collect(),
        namespace_matters: explanation.namespace_matters(),
        pin: explanation.pin.as_ref().map(pin_message),
        trust_data: held.zip(data).map(|(held, data)| of_verdict(explained, held, data)),
        tag: data.and_then(|data| data.tag.as_ref()).map(ToString::to_string).unwrap_or_default(),
        released: data.and_then(|data| data.released).map(|digest| digest.to_string()).unwrap_or_default(),
        roles,
        more_roles,
        teams: data.map(|data| data.teams.iter().map(team).collect()).unwrap_or_default(),
        unusable,
        more_unusable,
    })
}

/// The first `most` of `items` as messages, and how many more there are.
pub(super) fn cut<T, M>(items: &[T], most: usize, message: impl Fn(&T) -> M) -> (Vec<M>, u64) {
    let more = items.len().saturating_sub(most);
    (items.iter().take(most).map(message).collect(), more as u64)
}

pub(super) fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn rule(rule: &RuleAnswer) -> v1::Rule {
    let exception = rule.exception.as_ref();
    v1::Rule {
        name: rule.name.clone(),
        mode: rule.mode.to_string(),
        deny: rule.deny,
        is_written: rule.is_written,
        namespaces: texts(rule.namespaces.iter().flatten()),
        signed_by: texts(&rule.signed_by),
        owner: exception.map(|exception| exception.owner.clone()).unwrap_or_default(),
        reason: exception.map(|exception| exception.reason.clone()).unwrap_or_default(),
        until: exception.map(|exception| moment(exception.until)).unwrap_or_default(),
    }
}

fn passed_over(rule: &PassedOver) -> v1::PassedOver {
    v1::PassedOver { name: rule.name.clone(), why: rule.why.to_string(), namespaces: texts(rule.namespaces.iter().flatten()) }
}

fn of_verdict(explained: &Explained, held: &TrustData, data: &DataAnswer) -> v1::TrustData {
    v1::TrustData {
        server: held.server.clone(),
        from_held_evidence: explained.origin != Some(Origin::Server),
        found_good_at: moment(held.found_good_at),
        ignores_expiry: data.ignores_expiry,
        valid_until: moment(data.valid_until),
    }
}

fn role(role: &RoleAnswer) -> v1::ListingRole {
    let (signatures, more_signatures) = cut(&role.signatures, MOST_KEYS, signature);
    v1::ListingRole {
        role: role.role.to_string(),
        version: role.version,
        expires: moment(role.expires),
        digest: role.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        agrees: role.agrees,
        releases: role.releases,
        is_personal: role.is_personal,
        signatures,
        more_signatures,
    }
}

fn signature(signature: &SignatureAnswer) -> v1::Signature {
    v1::Signature {
        key: signature.key.to_string(),
        signer: signature.signer.as_ref().map(ToString::to_string).unwrap_or_default(),
        teams: texts(&signature.teams),
        certificate_ends: signature.certificate_ends.map(moment).unwrap_or_default(),
        standing: standing(signature.standing).into(),
    }
}

pub(super) const fn standing(standing: Standing) -> v1::Standing {
    match standing {
        Standing::Counts => v1::Standing::Counts,
        Standing::Revoked => v1::Standing::Revoked,
        Standing::CertificateEnded => v1::Standing::CertificateEnded,
        Standing::NotSigned => v1::Standing::NotSigned,
    }
}

fn team(team: &TeamAnswer) -> v1::RequiredTeam {
    let signed_by = team.signed_by.as_ref();
    v1::RequiredTeam {
        team: team.team.to_string(),
        signer: signed_by.map(|(signer, _)| signer.to_string()).unwrap_or_default(),
        role: signed_by.map(|(_, role)| role.to_string()).unwrap_or_default(),
        members: team.members.iter().map(member).collect(),
    }
}

fn member(member: &Member) -> v1::Member {
    let signed_other = member.signed_other.map(|digest| digest.to_string()).unwrap_or_default();
    v1::Member { signer: member.signer.to_string(), can_sign: member.can_sign, signed_other, is_revoked: member.is_revoked }
}

fn unusable_role(role: &UnusableRole) -> v1::UnusableRole {
    let (signatures, more_signatures) = cut(&role.signatures, MOST_KEYS, signature);
    v1::UnusableRole { role: role.role.to_string(), why: role.fault.to_string(), signatures, more_signatures }
}
