//! What a configuration demands of images: whose roots and signatures count, which images are excepted, and what is
//! revoked.
//!
//! Everything that can be said of an image without trust data is said by [`Policy::consult`]; what its signatures must be is
//! looked at by [`crate::verify`]. Revocation comes first in both.

mod demand;
pub mod people;
pub mod rule;
pub mod signer_key;

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

pub use demand::Demand;
use people::{People, TeamName};
use rule::{Hindrance, Rules};

use crate::evidence::Gun;
use crate::key::CanonicalKeyId;
use crate::mode::Mode;
use crate::name::{ImageReference, ManifestDigest, Selector, Sha256};
use crate::pattern::RepositoryPattern;
use crate::pin::{Anchor, Pins};
use crate::refusal::{Reason, Refusal};
use crate::time::UnixTime;
use crate::trusted::Release;

/// What the rule is called that answers where no other does.
const DEFAULT_RULE: &str = "content-trust";

/// What is done about the certificate of a signer that is not valid at the moment (`docs/notary-v1.md`, 11.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignerCertificates {
    /// Its key counts all the same, as in the reference; whoever shows the verdict can tell.
    #[default]
    Warn,
    /// Its key does not count.
    Enforce,
}

/// How the text of trust data is read (`docs/notary-v1.md`, 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum JsonForm {
    /// The signed part must be written as it is signed, as every tool of Notary does.
    #[default]
    Canonical,
    /// It may be indented and in any order, as the reference takes it. Everything else is as strict.
    AnyOrder,
}

/// What the configuration demands of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of an image that does not pass.
    pub mode: Mode,
    /// Teams that must all have signed. Empty: any trusted signature.
    pub signed_by: BTreeSet<TeamName>,
    /// Which roots are trusted.
    pub pins: Pins,
    /// Who may sign for whom.
    pub people: People,
    /// What holds for some images instead.
    pub rules: Rules,
    /// Keys that count nowhere: in no role of no repository, and for no user.
    pub revoked_keys: BTreeSet<CanonicalKeyId>,
    /// Indexes, manifests and configs that are never used, whatever anybody signed or excepted.
    pub denied_digests: BTreeSet<Sha256>,
    /// What is done about ended certificates of signers.
    pub signer_certificates: SignerCertificates,
    /// Repositories in which only `targets/releases` releases tags, so that a server that hides it hides everything.
    pub releases_required: Vec<RepositoryPattern>,
    /// How trust data is read.
    pub json_form: JsonForm,
}

/// An image, and who asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The image.
    pub image: &'a ImageReference,
    /// The namespace of the pod; none if it is not known, and then no rule makes anything easier.
    pub namespace: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// Asks for an image without a namespace.
    #[must_use]
    pub const fn without_namespace(image: &'a ImageReference) -> Self {
        Self { image, namespace: None }
    }
}

/// What local data alone says of an image.
#[derive(Debug)]
pub enum Consulted<'a> {
    /// A rule allows the digest that the reference names.
    Allowed(Approval),
    /// Its signatures decide.
    Signatures {
        /// What anchors the trust in its repository.
        anchor: &'a Anchor,
        /// What is demanded of its signatures.
        demand: Demand<'a>,
    },
}

/// Why an image is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// Its signatures.
    Signed(Release),
    /// A rule of the configuration names its digest.
    ListedByRule,
}

/// An image that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The digest of an index or of a manifest.
    pub digest: ManifestDigest,
    /// Why.
    pub basis: Basis,
    /// The rule that answered.
    pub rule: String,
    /// From when on it must be asked again.
    pub valid_until: UnixTime,
}

impl Approval {
    /// What the signatures say, unless the image passed without.
    #[must_use]
    pub const fn release(&self) -> Option<&Release> {
        match &self.basis {
            Basis::Signed(release) => Some(release),
            Basis::ListedByRule => None,
        }
    }
}

impl Policy {
    /// A policy without rules, teams and revocations.
    #[must_use]
    pub fn new(mode: Mode, pins: Pins) -> Self {
        Self {
            mode,
            signed_by: BTreeSet::new(),
            pins,
            people: People::default(),
            rules: Rules::default(),
            revoked_keys: BTreeSet::new(),
            denied_digests: BTreeSet::new(),
            signer_certificates: SignerCertificates::default(),
            releases_required: Vec::new(),
            json_form: JsonForm::default(),
        }
    }

    /// Whether any image at all is verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.mode.verifies() || self.rules.iter().any(|rule| rule.mode.is_some_and(Mode::verifies))
    }

    /// What becomes of an image that does not pass. The strictest answer where rules contradict each other.
    #[must_use]
    pub fn mode_for(&self, question: Question<'_>, now: UnixTime) -> Mode {
        self.demand_for(question, now).map_or(Mode::Enforced, |demand| demand.mode)
    }

    /// What becomes of something that is no image name, or of which no name is known: no rule is about it.
    #[must_use]
    pub const fn mode_without_name(&self) -> Mode {
        self.mode
    }

    /// Whether only `targets/releases` releases tags of this repository.
    #[must_use]
    pub fn requires_releases(&self, gun: &Gun) -> bool {
        self.releases_required.iter().any(|pattern| pattern.covers(gun))
    }

    /// Everything that can be said of an image without trust data.
    ///
    /// # Errors
    /// A [`Refusal`] of the image.
    pub fn consult(&self, question: Question<'_>, now: UnixTime) -> Result<Consulted<'_>, Refusal> {
        self.consulted(question, now).map_err(|reason| Refusal::of_image(question.image, reason))
    }

    fn consulted(&self, question: Question<'_>, now: UnixTime) -> Result<Consulted<'_>, Reason> {
        let digest = match question.image.selector() {
            Selector::Digest(digest) | Selector::TagAndDigest(_, digest) => Some(*digest),
            Selector::Tag(_) => None,
        };
        if let Some(digest) = digest {
            self.refuse_denied(digest.hash())?;
        }
        let demand = self.demand_for(question, now)?;
        if demand.deny {
            return Err(Reason::DeniedByRule { rule: demand.rule.to_owned() });
        }
        if let Some(approval) = digest.and_then(|digest| demand.listed(digest)) {
            return Ok(Consulted::Allowed(approval));
        }
        let anchor = self.pins.anchor_for(&Gun::for_repository(question.image.repository())).ok_or(Reason::NotPinned)?;
        Ok(Consulted::Signatures { anchor, demand })
    }

    /// Refuses the digest of an index, manifest or config that must never be used.
    ///
    /// # Errors
    /// [`Reason::DigestDenied`].
    pub fn refuse_denied(&self, digest: &Sha256) -> Result<(), Reason> {
        if self.denied_digests.contains(digest) { Err(Reason::DigestDenied { digest: *digest }) } else { Ok(()) }
    }

    /// What is demanded of an image: by the most specific rule, and by the policy where that says nothing.
    ///
    /// # Errors
    /// [`Reason::RulesAmbiguous`].
    pub fn demand_for(&self, question: Question<'_>, now: UnixTime) -> Result<Demand<'_>, Reason> {
        let gun = Gun::for_repository(question.image.repository());
        let may_answer = |rule: &rule::Rule| question.namespace.is_some() || !self.is_eased_by(rule);
        let chosen = self.rules.choose(&gun, question.namespace, now, may_answer);
        let rule = chosen.map_err(|rule::Ambiguous { first, second }| Reason::RulesAmbiguous { first, second })?;
        Ok(Demand::new(self, rule))
    }

    /// Every rule that is for images of the image's repository and does not answer for this one, and why.
    #[must_use]
    pub fn passed_over(&self, question: Question<'_>, now: UnixTime) -> Vec<(&rule::Rule, Hindrance)> {
        let gun = Gun::for_repository(question.image.repository());
        let demand = self.demand_for(question, now);
        let answers =
            |rule: &rule::Rule| demand.as_ref().is_ok_and(|demand| demand.written.is_some_and(|written| core::ptr::eq(written, rule)));
        let is_left_out = |rule: &rule::Rule| question.namespace.is_none() && self.is_eased_by(rule);
        // Of rules that contradict each other none is less specific; the refusal names them.
        let less_specific = demand.is_ok().then_some(Hindrance::LessSpecific);
        let about = self.rules.about(&gun, question.namespace, now).into_iter().filter(|(rule, _)| !answers(rule));
        let with_why = about.filter_map(|(rule, hindrance)| {
            let why = hindrance.or_else(|| if is_left_out(rule) { Some(Hindrance::NoNamespace) } else { less_specific.clone() });
            Some((rule, why?))
        });
        with_why.collect()
    }

    /// Whether `rule` lets anything pass that would not pass without it.
    fn is_eased_by(&self, rule: &rule::Rule) -> bool {
        let mode_is_lower = rule.mode.is_some_and(|mode| mode < self.mode);
        let fewer_teams = rule.signed_by.as_ref().is_some_and(|teams| !self.signed_by.is_subset(teams));
        mode_is_lower || (!rule.deny && (fewer_teams || !rule.allow_digests.is_empty()))
    }
}
