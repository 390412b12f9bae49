//! What there is to be seen of a repository, as messages that are small however large it is.

use std::sync::Arc;

use countersign_trust::name::{Repository, shown};
use countersign_trust::offered::{OfferedRoot, RootKey};
use countersign_trust::pin::{Anchor, Pin};
use countersign_trust::view::{KeyCertificate, ListedKey, RoleState, RoleView, TagState, TagView};
use countersign_trust::{Policy, Reason, TrustedRepository};

use super::explain::{MOST_KEYS, cut, standing, texts};
use super::{moment, refused, signed_by, v1};
use crate::admit::{Admit, Inspected, Origin, Refusal};

/// Roles that are shown. No evaluation loads more; lists can name more, for which nothing was published.
const MOST_ROLES: usize = 1024;
/// Tags in one message, which has some 100 KiB then.
const TAGS_IN_A_PIECE: usize = 256;

/// A repository, piece by piece: first itself, then its roles, then its tags. Each piece is made when it is asked for.
#[derive(Debug)]
pub struct Parts {
    first: Option<v1::Repository>,
    roles: std::vec::IntoIter<v1::Role>,
    tags: std::vec::IntoIter<String>,
    repository: Option<(Box<TrustedRepository>, Policy)>,
}

/// Looks at a repository, in whatever process.
pub async fn inspect(admit: &Arc<Admit>, request: &v1::InspectRequest) -> Parts {
    match request.repository.parse::<Repository>() {
        Ok(repository) => Parts::of(admit.inspect(&repository).await),
        Err(error) => {
            let refusal = Some(refused(&Refusal::Name { error }, String::new()));
            Parts::without_data(v1::Repository { refusal, ..v1::Repository::default() })
        }
    }
}

impl Parts {
    /// The pieces of what there is to be seen.
    #[must_use]
    pub fn of(inspected: Inspected) -> Self {
        let mut first = repository_message(&inspected);
        let Some(repository) = inspected.repository else { return Self::without_data(first) };
        let policy = inspected.policy;
        let roles: Vec<v1::Role> = repository.roles().take(MOST_ROLES).map(|view| role(&view, &policy)).collect();
        let tags: Vec<String> = repository.tags().into_iter().map(str::to_owned).collect();
        first.roles = repository.number_of_roles() as u64;
        first.tags = tags.len() as u64;
        let longest = tags.iter().map(|tag| shown(tag).len()).max().unwrap_or_default();
        first.longest_tag = u32::try_from(longest).unwrap_or(u32::MAX);
        Self { first: Some(first), roles: roles.into_iter(), tags: tags.into_iter(), repository: Some((repository, policy)) }
    }

    fn without_data(first: v1::Repository) -> Self {
        Self { first: Some(first), roles: Vec::new().into_iter(), tags: Vec::new().into_iter(), repository: None }
    }

    fn next_tags(&mut self) -> Option<v1::Tags> {
        let (repository, policy) = self.repository.as_ref()?;
        let tags: Vec<v1::Tag> = self.tags.by_ref().take(TAGS_IN_A_PIECE).map(|name| tag(&repository.tag(&name), policy)).collect();
        (!tags.is_empty()).then_some(v1::Tags { tags })
    }
}

impl Iterator for Parts {
    type Item = v1::InspectResponse;

    fn next(&mut self) -> Option<v1::InspectResponse> {
        use v1::inspect_response::Part;
        let part = if let Some(first) = self.first.take() {
            Part::Repository(first)
        } else if let Some(role) = self.roles.next() {
            Part::Role(role)
        } else {
            Part::Tags(self.next_tags()?)
        };
        Some(v1::InspectResponse { part: Some(part) })
    }
}

fn repository_message(inspected: &Inspected) -> v1::Repository {
    let anchor = inspected.pin.as_ref().map(|pin| &pin.anchor);
    v1::Repository {
        repository: inspected.gun.to_string(),
        server: inspected.server.clone(),
        now: moment(inspected.now),
        pin: inspected.pin.as_ref().map(pin_message),
        refusal: inspected.refusal.as_ref().map(|refusal| refused(refusal, inspected.gun.to_string())),
        trust_data: inspected.repository.as_ref().map(|repository| trust_data(inspected, repository)),
        root: inspected.root.as_ref().map(|root| root_message(root, anchor)),
        ..v1::Repository::default()
    }
}

fn trust_data(inspected: &Inspected, repository: &TrustedRepository) -> v1::TrustData {
    v1::TrustData {
        server: repository.evidence().server().to_owned(),
        from_held_evidence: inspected.origin != Origin::Server,
        found_good_at: inspected.trust_data.as_ref().map(|data| moment(data.found_good_at)).unwrap_or_default(),
        ignores_expiry: inspected.ignores_expiry,
        valid_until: moment(repository.valid_until()),
    }
}

/// A root, with what the pin that answers says of its keys.
#[must_use]
pub fn root_message(root: &OfferedRoot, anchor: Option<&Anchor>) -> v1::Root {
    let (keys, more_keys) = cut(&root.keys, MOST_KEYS, |key| root_key(key, anchor));
    v1::Root { version: root.version, expires: moment(root.expires), threshold: root.threshold, keys, more_keys }
}

fn root_key(key: &RootKey, anchor: Option<&Anchor>) -> v1::RootKey {
    let (common_name, not_before, not_after) = certificate(key.certificate.as_ref());
    v1::RootKey {
        root_key_id: key.canonical_id.map(|id| id.to_string()).unwrap_or_default(),
        certificate_id: key.id.to_string(),
        common_name,
        not_before,
        not_after,
        fault: key.fault.as_ref().map(ToString::to_string).unwrap_or_default(),
        has_signed: key.has_signed,
        is_pinned: anchor.is_some_and(|anchor| anchor.names(&key.id, key.canonical_id.as_ref())),
    }
}

/// The pin that answers for a repository.
#[must_use]
pub fn pin_message(pin: &Pin) -> v1::Pin {
    v1::Pin { list: pin.source.to_string(), name: pin.name.clone(), ids: texts(pin.anchor.ids()) }
}

fn certificate(certificate: Option<&KeyCertificate>) -> (String, String, String) {
    let Some(KeyCertificate { common_name, not_before, not_after }) = certificate else { return Default::default() };
    (common_name.clone().unwrap_or_default(), moment(*not_before), moment(*not_after))
}

fn role(view: &RoleView, policy: &Policy) -> v1::Role {
    let (keys, more_keys) = cut(&view.keys, MOST_KEYS, |key| listed_key(key, policy));
    let fault = match &view.state {
        RoleState::Unusable(fault) => fault.to_string(),
        RoleState::Usable | RoleState::NothingPublished => String::new(),
    };
    v1::Role {
        name: view.name.to_string(),
        version: view.file.map(|file| file.version).unwrap_or_default(),
        expires: view.file.map(|file| moment(file.expires)).unwrap_or_default(),
        threshold: view.threshold,
        tags: view.file.map(|file| file.tags as u64).unwrap_or_default(),
        fault,
        paths: view.paths.iter().take(MOST_KEYS).cloned().collect(),
        keys,
        more_keys,
    }
}

fn listed_key(key: &ListedKey, policy: &Policy) -> v1::Key {
    let canonical_id = key.canonical_id.as_ref().ok();
    let signer = canonical_id.and_then(|id| policy.people.owner_of(id));
    let (common_name, not_before, not_after) = certificate(key.certificate.as_ref());
    v1::Key {
        key: canonical_id.map(ToString::to_string).unwrap_or_default(),
        id: key.id.to_string(),
        fault: key.canonical_id.as_ref().err().map(ToString::to_string).unwrap_or_default(),
        common_name,
        not_before,
        not_after,
        signer: signer.map(ToString::to_string).unwrap_or_default(),
        teams: signer.map(|signer| texts(policy.people.teams_of(signer))).unwrap_or_default(),
        is_revoked: canonical_id.is_some_and(|id| policy.revoked_keys.contains(id)),
        standing: standing(key.standing).into(),
    }
}

fn tag(view: &TagView, policy: &Policy) -> v1::Tag {
    let shown = v1::Tag {
        tag: view.tag.clone(),
        listed_in: view.listed.iter().take(MOST_KEYS).map(|(role, _)| role.to_string()).collect(),
        ..v1::Tag::default()
    };
    match &view.state {
        TagState::Released(release) => {
            let (signed_by, more_signed_by) = cut(&release.signed_by, MOST_KEYS, |by| signed_by(by, &policy.people));
            let is_denied = policy.refuse_denied(release.digest.hash()).is_err();
            let fault = if is_denied { "denied by deny-digests".to_owned() } else { String::new() };
            let (digest, released_by) = (release.digest.to_string(), release.released_by.to_string());
            v1::Tag { digest, released_by, signed_by, more_signed_by, fault, ..shown }
        }
        TagState::NotReleased(reason) => v1::Tag { fault: why_not_released(reason), ..shown },
        TagState::NoTag => v1::Tag { fault: "not released: no image has such a tag".to_owned(), ..shown },
    }
}

fn why_not_released(reason: &Reason) -> String {
    let why = match reason {
        reason if *reason == Reason::TagNotSigned => "neither targets/releases nor targets lists it",
        reason if *reason == Reason::TargetUnusable => "its entry has no usable digest",
        reason if *reason == Reason::ReleasesRequired => "targets/releases does not list it (require-releases-role)",
        reason => reason.code(),
    };
    format!("not released: {why}")
}
