//! Why a verdict is what it is: the evaluation that reached it, with everything that it looked at.

mod account;

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use account::Account;

use crate::evidence::Gun;
use crate::facts::Facts;
use crate::key::CanonicalKeyId;
use crate::mode::Mode;
use crate::name::{ManifestDigest, Tag};
use crate::pin::Pin;
use crate::policy::people::{SignerName, TeamName};
use crate::policy::rule::{Exception, Hindrance};
use crate::policy::{Consulted, Demand, Policy, Question};
use crate::refusal::RoleFault;
use crate::role::{DelegationRole, RoleName};
use crate::time::UnixTime;
use crate::trusted::TrustedRepository;
use crate::verdict::{Holding, Verdict, decide};
use crate::view::Standing;

/// The rule that answers for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAnswer {
    /// Its name.
    pub name: String,
    /// What becomes of the image if it does not pass.
    pub mode: Mode,
    /// No image passes.
    pub deny: bool,
    /// Whether it is a rule that the configuration writes down; else it is what holds for all images.
    pub is_written: bool,
    /// The namespaces that it is for; none: all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Set if it ends by itself.
    pub exception: Option<Exception>,
    /// Teams that must all have signed. Empty: any trusted signature.
    pub signed_by: BTreeSet<TeamName>,
}

/// A rule that is for images of the repository and does not answer for this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Its name.
    pub name: String,
    /// Why it does not answer.
    pub why: Hindrance,
    /// The namespaces that it is for; none: all.
    pub namespaces: Option<BTreeSet<String>>,
}

/// A key that has signed a role's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureAnswer {
    /// The key.
    pub key: CanonicalKeyId,
    /// The user whose key it is, if the policy knows one.
    pub signer: Option<SignerName>,
    /// The teams that the user is in.
    pub teams: Vec<TeamName>,
    /// When the key's certificate ends, if it has one.
    pub certificate_ends: Option<UnixTime>,
    /// Whether it counts.
    pub standing: Standing,
}

/// A trusted role that lists the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleAnswer {
    /// The role.
    pub role: RoleName,
    /// The version of its list.
    pub version: u64,
    /// When its list runs out.
    pub expires: UnixTime,
    /// What it gives for the tag; none if that is no digest.
    pub digest: Option<ManifestDigest>,
    /// Whether that is what the tag is released as.
    pub agrees: bool,
    /// Whether the tag is released by this role.
    pub releases: bool,
    /// Whether its signatures can be those of a team: they are not where the repository or whoever came last signs.
    pub is_personal: bool,
    /// Who has signed its list.
    pub signatures: Vec<SignatureAnswer>,
}

/// A member of a team that has not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub signer: SignerName,
    /// Whether a delegation of the repository lists a key of the user that is not revoked, so that the user can sign at once.
    pub can_sign: bool,
    /// Whether it lists none but revoked ones.
    pub is_revoked: bool,
    /// What the user has signed for the tag instead, if anything.
    pub signed_other: Option<ManifestDigest>,
}

/// A team that must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamAnswer {
    /// The team.
    pub team: TeamName,
    /// The member who has, and where. None: nobody has.
    pub signed_by: Option<(SignerName, RoleName)>,
    /// If nobody has: everybody who could.
    pub members: Vec<Member>,
}

/// A delegation whose file counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableRole {
    /// The role.
    pub role: DelegationRole,
    /// Why.
    pub fault: RoleFault,
    /// Who has signed it all the same.
    pub signatures: Vec<SignatureAnswer>,
}

/// What the trust data says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataAnswer {
    /// The data has run out and was refused; what follows is shown as if it had not.
    pub ignores_expiry: bool,
    /// From when on some of the data is out of date.
    pub valid_until: UnixTime,
    /// The tag that this is about; none for a digest that no tag is released as.
    pub tag: Option<Tag>,
    /// What the tag is released as; none if it is not.
    pub released: Option<ManifestDigest>,
    /// Every trusted role that lists the tag.
    pub roles: Vec<RoleAnswer>,
    /// Every team that must have signed; empty also where the tag is not released.
    pub teams: Vec<TeamAnswer>,
    /// Roles that count for nothing, whatever they list.
    pub unusable: Vec<UnusableRole>,
}

/// A verdict with everything that it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict, as [`crate::verify`] gives it. None where it takes trust data and there is none.
    pub verdict: Option<Verdict>,
    /// The rule that answers; none where rules contradict each other, which the verdict says.
    pub rule: Option<RuleAnswer>,
    /// Rules that do not answer, though they are for images of the repository.
    pub passed_over: Vec<PassedOver>,
    /// The pin that answers for the repository.
    pub pin: Option<Pin>,
    /// What the trust data says; none where none was needed, or it cannot be used.
    pub data: Option<DataAnswer>,
}

impl Explanation {
    /// Whether another namespace could have led to another rule.
    #[must_use]
    pub fn namespace_matters(&self) -> bool {
        let is_limited = self.rule.as_ref().is_some_and(|rule| rule.namespaces.is_some());
        is_limited || self.passed_over.iter().any(|rule| matches!(rule.why, Hindrance::OtherNamespaces | Hindrance::NoNamespace))
    }
}

/// Judges an image as [`crate::verify`] does, and says what the verdict rests on. `held` is none if nothing is held of the
/// repository.
#[must_use]
pub fn explain(question: Question<'_>, held: Option<Holding<'_>>, policy: &Policy, now: UnixTime, facts: &mut Facts) -> Explanation {
    let (verdict, repository) = judged(question, held, policy, now, facts);
    let ignores_expiry = verdict.is_some() && repository.is_none();
    let repository = repository.or_else(|| as_if_unexpired(question, held?, policy, now, facts));
    let demand = policy.demand_for(question, now).ok();
    let data = repository.zip(demand).map(|(repository, demand)| {
        let account = Account { repository: &repository, policy, demand, now, ignores_expiry };
        account.of(question, verdict.as_ref())
    });
    Explanation {
        rule: demand.map(rule_answer),
        passed_over: passed_over(question, policy, now),
        pin: policy.pins.pin_for(&Gun::for_repository(question.image.repository())),
        verdict,
        data,
    }
}

type Judged = (Option<Verdict>, Option<Box<TrustedRepository>>);

fn judged(question: Question<'_>, held: Option<Holding<'_>>, policy: &Policy, now: UnixTime, facts: &mut Facts) -> Judged {
    let Some(held) = held else {
        let verdict = match policy.consult(question, now) {
            Ok(Consulted::Allowed(approval)) => Some(Verdict::Allow(approval)),
            Ok(Consulted::Signatures { .. }) => None,
            Err(refusal) => Some(Verdict::Deny(refusal)),
        };
        return (verdict, None);
    };
    let decision = decide(question, held, policy, now, facts);
    (Some(decision.verdict), decision.accepted)
}

/// Data that was refused only because it has run out, so that it can be shown which of it.
fn as_if_unexpired(
    question: Question<'_>,
    held: Holding<'_>,
    policy: &Policy,
    now: UnixTime,
    facts: &mut Facts,
) -> Option<Box<TrustedRepository>> {
    decide(question, Holding { allow_expired: true, ..held }, policy, now, facts).accepted
}

fn rule_answer(demand: Demand<'_>) -> RuleAnswer {
    RuleAnswer {
        name: demand.rule.to_owned(),
        mode: demand.mode,
        deny: demand.deny,
        is_written: demand.written.is_some(),
        namespaces: demand.written.and_then(|rule| rule.namespaces.clone()),
        exception: demand.written.and_then(|rule| rule.exception.clone()),
        signed_by: demand.signed_by.clone(),
    }
}

fn passed_over(question: Question<'_>, policy: &Policy, now: UnixTime) -> Vec<PassedOver> {
    let rules = policy.passed_over(question, now).into_iter();
    rules.map(|(rule, why)| PassedOver { name: rule.name.clone(), why, namespaces: rule.namespaces.clone() }).collect()
}
