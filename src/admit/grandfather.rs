//! Services that ran before their images were enforced: they go on, and their pods may make their containers again, of the same
//! content, until a date. Nothing else passes by that: it is about one container of one pod, and revocation comes first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, ImageReference, ManifestDigest, Selector, shown};
use countersign_trust::{Question, Reason};

use super::refusal::Refusal;
use super::{Admit, Asked, ImageContent, blocking, modes, record_name};
use crate::containerd::{ContainerRecord, stands_on};
use crate::ledger::{Act, Effect, Grandfathered, Ledger, LedgerError, MAX_RAN_VOLUMES, RanContent, RanVolume, Workload};

/// Longest text of a pod that is taken down. No name in Kubernetes is longer than 253 characters, no image than 512.
const MAX_TEXT_BYTES: usize = 1024;

/// What is on record of services that go on.
#[derive(Debug, Default)]
pub(super) struct OnRecord {
    services: HashMap<Workload, Grandfathered>,
    /// What every configuration that was in force said of modes.
    modes: Vec<String>,
}

impl OnRecord {
    pub(super) fn read(ledger: &Ledger) -> Result<Self, LedgerError> {
        let services = ledger.grandfathered()?.into_iter().map(|service| (service.workload.clone(), service)).collect();
        Ok(Self { services, modes: ledger.modes()? })
    }
}

/// A container that exists, for whoever wants to take it down.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its ID.
    pub container_id: String,
    /// Which container of which pod it is.
    pub workload: Workload,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The image, as the pod names it.
    pub image: String,
    /// The image's ID.
    pub image_id: ImageId,
    /// For what it was made, as far as that is known.
    pub asked: Asked,
}

/// A service that goes on, and which of its images is meant: that of its root file system, or of a volume.
#[derive(Debug, Clone)]
pub struct GoesOn {
    /// The service.
    pub service: Grandfathered,
    /// The image.
    pub content: RanContent,
}

impl Admit {
    fn on_record(&self) -> RwLockReadGuard<'_, OnRecord> {
        self.on_record.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> RwLockWriteGuard<'_, OnRecord> {
        self.on_record.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self, workload: &Workload) -> Option<Grandfathered> {
        self.on_record().services.get(workload).cloned()
    }

    /// Every service on record, by namespace, pod and container. Some may have ended.
    #[must_use]
    pub fn all_grandfathered(&self) -> Vec<Grandfathered> {
        let mut all: Vec<_> = self.on_record().services.values().cloned().collect();
        all.sort_by(|one, other| place(one).cmp(&place(other)));
        all
    }

    /// The service that may go on: this container of this pod, with this very image, until its date, unless some of its content
    /// is denied.
    #[must_use]
    pub fn grandfathered(&self, workload: Option<&Workload>, image_id: ImageId) -> Option<Grandfathered> {
        let service = self.service(workload?)?;
        (service.content.image_id == image_id && self.lasts(&service)).then_some(service)
    }

    fn lasts(&self, service: &Grandfathered) -> bool {
        let policy = self.policy();
        let mut contents = service.volumes.iter().map(|volume| &volume.content).chain([&service.content]);
        let is_denied = contents.any(|RanContent { target, manifest, image_id, chain_id: _ }| {
            [target.hash(), manifest.hash(), image_id.hash()].into_iter().any(|digest| policy.trust.refuse_denied(digest).is_err())
        });
        // By a clock that cannot be right nothing goes on.
        !is_denied && self.now().is_ok_and(|now| now.seconds() < service.until)
    }

    /// What a container of the image is made from though the image is refused, since it ran before.
    ///
    /// # Errors
    /// `refusal`, if it did not, if it had valid evidence then, or if no service outlives it.
    pub fn outlives(&self, refusal: Refusal, workload: Option<&Workload>, image_id: ImageId) -> Result<GoesOn, Refusal> {
        if !refusal.can_be_outlived() {
            return Err(refusal);
        }
        let service = self.grandfathered(workload, image_id).filter(|service| !service.is_verified).ok_or(refusal)?;
        Ok(GoesOn { content: service.content, service })
    }

    /// As [`Admit::outlives`], of the image of a volume: the same container of the same image saw it in a volume before.
    ///
    /// # Errors
    /// As [`Admit::outlives`].
    pub fn volume_outlives(
        &self,
        refusal: Refusal,
        workload: Option<&Workload>,
        image_id: ImageId,
        volume: ImageId,
    ) -> Result<GoesOn, Refusal> {
        if !refusal.can_be_outlived() {
            return Err(refusal);
        }
        let Some(service) = self.grandfathered(workload, image_id) else { return Err(refusal) };
        let saw = service.volumes.iter().map(|volume| volume.content).find(|content| content.image_id == volume);
        Ok(GoesOn { content: saw.ok_or(refusal)?, service })
    }

    /// As [`Admit::outlives`], of a container that exists: it must stand on the root file system that ran before, and show in its
    /// volumes what it showed then, or images that are allowed.
    ///
    /// # Errors
    /// `refusal`; or why the container cannot be looked at.
    pub async fn start_outlives(self: &Arc<Self>, refusal: Refusal, container_id: &str, asked: Option<&Asked>) -> Result<GoesOn, Refusal> {
        let workload = asked.and_then(|asked| asked.workload.as_ref());
        let Some(service) = workload.and_then(|workload| self.service(workload)).filter(|service| self.lasts(service)) else {
            return Err(refusal);
        };
        if !refusal.can_be_outlived() {
            return Err(refusal);
        }
        self.refuse_forbidden(asked)?;
        if !self.is_made_of(container_id, &service, asked).await? {
            return Err(refusal);
        }
        Ok(GoesOn { content: service.content, service })
    }

    /// Whether a container has the root file system of a service.
    ///
    /// # Errors
    /// Why the container cannot be looked at; or why something that it has is refused, which the service did not have without
    /// valid evidence.
    async fn is_made_of(self: &Arc<Self>, container_id: &str, service: &Grandfathered, asked: Option<&Asked>) -> Result<bool, Refusal> {
        let (container, parent) = self.root_fs_of(container_id).await?;
        if !stands_on(&parent, &service.content.chain_id, container.id_mapping.as_ref()) {
            return Ok(false);
        }
        if service.is_verified {
            self.admit_root_fs(&container, &parent, asked).await?;
        }
        self.admit_volumes(&container, asked.map(Asked::asker).unwrap_or_default(), &service.volumes).await.map(|()| true)
    }

    /// A start is refused for what the container has before anything is asked about the names of its images: a rule may forbid one by
    /// now.
    fn refuse_forbidden(&self, asked: Option<&Asked>) -> Result<(), Refusal> {
        let Some(asked) = asked else { return Ok(()) };
        for image in asked.names() {
            match self.judge(Question { image, namespace: asked.namespace.as_deref() }) {
                Err(refusal) if !refusal.can_be_outlived() => return Err(refusal),
                Err(_) | Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The image that a pod already runs, or sees in a volume, under the name that it wants pulled: nothing has to come from the
    /// registry for a service that goes on.
    ///
    /// # Errors
    /// `refusal`, if there is none, or more than one.
    pub fn pull_outlives(&self, refusal: Refusal, pod_uid: &str, image: &ImageReference) -> Result<GoesOn, Refusal> {
        if !refusal.can_be_outlived() || pod_uid.is_empty() {
            return Err(refusal);
        }
        let is_named = |text: &str| text.parse::<ImageReference>().is_ok_and(|named| named == *image);
        let of_pod = self.all_grandfathered().into_iter().filter(|service| service.workload.pod_uid == pod_uid && self.lasts(service));
        let mut meant = of_pod.flat_map(|service| {
            let named = service.lenient().filter(|(name, _)| is_named(name));
            named.map(|(_, content)| GoesOn { service: service.clone(), content: *content }).collect::<Vec<_>>()
        });
        let Some(first) = meant.next() else { return Err(refusal) };
        if meant.all(|other| other.content.image_id == first.content.image_id) { Ok(first) } else { Err(refusal) }
    }

    /// The service that a container which runs is, if it is one.
    pub async fn running_service(self: &Arc<Self>, container_id: &str, asked: &Asked) -> Option<Grandfathered> {
        let service = self.service(asked.workload.as_ref()?).filter(|service| self.lasts(service))?;
        self.is_made_of(container_id, &service, Some(asked)).await.is_ok_and(|is_made_of| is_made_of).then_some(service)
    }

    /// Takes down what a container runs, by content.
    ///
    /// # Errors
    /// Why it can be of no service: its content is denied, is not here, or is not what it stands on.
    pub async fn take_down(self: &Arc<Self>, ran: &Ran, until: i64, by: &str) -> Result<Grandfathered, Refusal> {
        let now = self.now()?.seconds();
        let texts = [&ran.namespace, &ran.pod, &ran.image, &ran.workload.pod_uid, &ran.workload.container];
        if ran.workload.pod_uid.is_empty() || texts.iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(Refusal::Answer { what: format!("that container {} is of no pod", shown(&ran.container_id)) });
        }
        let content = self.content_run_by(ran).await?;
        let (container, parent) = self.root_fs_of(&ran.container_id).await?;
        let judged = self.judge_root_fs((&ran.container_id, &container, &parent), &ran.asked, Some(ran.image_id)).await;
        let is_verified = match judged {
            Err(refusal) if !refusal.says_unverified() => return Err(refusal),
            judged => judged.is_ok(),
        };
        let volumes = self.volumes_run_by(&container, ran).await?;
        if is_verified && volumes.is_empty() {
            let what = format!("that what container {} shows in volumes is not on this node any more", shown(&ran.container_id));
            return Err(Refusal::Answer { what });
        }
        let service = Grandfathered {
            workload: ran.workload.clone(),
            namespace: ran.namespace.clone(),
            pod: ran.pod.clone(),
            image: ran.image.clone(),
            content,
            is_verified,
            volumes,
            taken_at: now,
            until,
            by: by.to_owned(),
        };
        Ok(service)
    }

    async fn content_run_by(&self, ran: &Ran) -> Result<RanContent, Refusal> {
        let image: ImageReference = ran.image.parse().map_err(|error| Refusal::Name { error })?;
        let names = [super::record_name(&image), ran.image_id.to_string()];
        for record in self.containerd.records(&names).await? {
            let Ok(target) = record.target.digest.parse::<ManifestDigest>() else { continue };
            let Some(content) = self.content_of(target, ran.image_id).await? else { continue };
            self.check_root_fs(&ran.container_id, &content.chain_id).await?;
            self.refuse_denied(&image, [target.hash(), content.manifest.hash(), content.image_id.hash()])?;
            return Ok(RanContent { target, manifest: content.manifest, image_id: content.image_id, chain_id: content.chain_id });
        }
        Err(Refusal::NotPresent { image: shown(&ran.image) })
    }

    /// What a container shows in its image volumes without valid evidence. What is not here any more, or is beyond the limit, is
    /// left out, and is judged as everybody's.
    async fn volumes_run_by(self: &Arc<Self>, container: &ContainerRecord, ran: &Ran) -> Result<Vec<RanVolume>, Refusal> {
        let mut volumes: Vec<RanVolume> = Vec::new();
        for shown_image in self.images_shown_by(container).await? {
            match self.judge_shown(&shown_image, &ran.asked).await {
                Ok(()) => continue,
                Err(refusal) if refusal.says_unverified() => {}
                Err(refusal) => return Err(refusal),
            }
            for (target, ImageContent { manifest, image_id, chain_id }) in self.contents_shown(&shown_image).await? {
                let content = RanContent { target, manifest, image_id, chain_id };
                for image in self.names_in_pod(&target, &ran.asked).await? {
                    if let Ok(named) = image.parse::<ImageReference>() {
                        self.refuse_denied(&named, [target.hash(), manifest.hash(), image_id.hash()])?;
                    }
                    volumes.push(RanVolume { image, content });
                }
            }
        }
        volumes.truncate(MAX_RAN_VOLUMES);
        Ok(volumes)
    }

    /// What a pod calls what `target` is; else any name of it, or none.
    async fn names_in_pod(&self, target: &ManifestDigest, asked: &Asked) -> Result<Vec<String>, Refusal> {
        let leading = self.names_leading_to(target).await?;
        let is_leading = |name: &&ImageReference| leading.iter().any(|other| record_name(other) == record_name(name));
        let called = asked.volumes.iter().filter_map(|volume| volume.name.as_ref()).filter(is_leading);
        let called: BTreeSet<String> = called.map(ToString::to_string).collect();
        if !called.is_empty() {
            return Ok(called.into_iter().collect());
        }
        let has_tag = |name: &&ImageReference| matches!(name.selector(), Selector::Tag(_));
        let any = leading.iter().find(has_tag).or_else(|| leading.first());
        Ok(vec![any.map(ToString::to_string).unwrap_or_default()])
    }

    /// Lets services go on, and keeps on record who wanted it and why.
    ///
    /// # Errors
    /// [`Refusal::Ledger`].
    pub async fn grandfather(&self, services: Vec<Grandfathered>, by: String, reason: String) -> Result<(), Refusal> {
        let what = format!("{} containers may be made again though their images are not signed as the policy demands", services.len());
        self.record_services(Effect::Admit(services.clone()), by, what, reason).await?;
        let mut on_record = self.record();
        on_record.services.extend(services.into_iter().map(|service| (service.workload.clone(), service)));
        Ok(())
    }

    /// Ends what was let go on. What runs, runs on; it is not made again.
    ///
    /// # Errors
    /// [`Refusal::Ledger`].
    pub async fn end_grandfathered(&self, workloads: Vec<Workload>, by: String, reason: String) -> Result<(), Refusal> {
        let what = format!("{} containers may not be made again any more", workloads.len());
        self.record_services(Effect::End(workloads.clone()), by, what, reason).await?;
        let mut on_record = self.record();
        on_record.services.retain(|workload, _| !workloads.contains(workload));
        Ok(())
    }

    async fn record_services(&self, effect: Effect, by: String, what: String, reason: String) -> Result<(), Refusal> {
        let at = u64::try_from(self.clock.now()?.seconds()).unwrap_or_default();
        tracing::warn!(by, what, reason, "an operator says which services go on");
        let (ledger, act) = (self.ledger()?.0.clone(), Act { at, by, what, reason });
        Ok(blocking(move || ledger.store_act(&act, &effect)).await??)
    }

    /// Whether the configuration in force says of modes what none before it said.
    #[must_use]
    pub fn modes_are_new(&self) -> bool {
        let modes = modes::text_of(&self.policy().trust);
        self.ledger().is_ok() && !self.on_record().modes.contains(&modes)
    }

    /// Whether an image that a container was made for, that of a volume too, is enforced now and none of them ever was before: in no
    /// configuration that was in force. Switching enforcement off and on again makes nobody a service.
    /// `knows_all` is false if it shows images in volumes of which no name is known: then anything that was enforced counts.
    #[must_use]
    pub fn is_first_enforced(&self, asked: &Asked, knows_all: bool) -> bool {
        let (Some(_), Some(_), Ok(now)) = (&asked.name, &asked.namespace, self.now()) else { return false };
        let on_record = self.on_record();
        let mut before = on_record.modes.iter();
        if knows_all {
            return self.mode_of_asked(asked) == Mode::Enforced && !before.any(|text| modes::enforced(text, asked, now));
        }
        self.strictest_mode() == Mode::Enforced && !before.any(|text| modes::enforced_anything(text))
    }

    /// Puts on record what the configuration in force says of modes, and the services that go on though it enforces their
    /// images.
    ///
    /// # Errors
    /// [`Refusal::Ledger`]; nothing was recorded then.
    pub async fn record_modes(&self, services: Vec<Grandfathered>) -> Result<(), Refusal> {
        let modes = modes::text_of(&self.policy().trust);
        let ledger = self.ledger()?.0.clone();
        let (text, taken) = (modes.clone(), services.clone());
        blocking(move || ledger.store_modes(&text, &taken)).await??;
        let mut on_record = self.record();
        on_record.modes.push(modes);
        on_record.services.extend(services.into_iter().map(|service| (service.workload.clone(), service)));
        Ok(())
    }

    /// For how long services go on by themselves. None: nothing does unless an operator says so.
    #[must_use]
    pub fn grandfather_for(&self) -> Option<Duration> {
        self.policy().grandfather_for
    }
}

fn place(service: &Grandfathered) -> (&str, &str, &str) {
    (&service.namespace, &service.pod, &service.workload.container)
}

impl Refusal {
    /// Whether a service that ran before may go on though this is said of its image: that it is not signed as it should be, or
    /// that this cannot be told. Not what forbids an image, nor what says that its content is not what it claims to be.
    fn can_be_outlived(&self) -> bool {
        match self {
            Self::Trust(refusal) => {
                !matches!(refusal.reason(), Reason::DigestDenied { .. } | Reason::DeniedByRule { .. } | Reason::RulesAmbiguous { .. })
            }
            Self::NotRegistered { .. }
            | Self::Server { .. }
            | Self::UpdateTimedOut { .. }
            | Self::NamespaceWaited { .. }
            | Self::NamespaceFull { .. }
            | Self::ServerNotAsked { .. }
            | Self::Store { .. }
            | Self::Frozen(_)
            | Self::NotHeld { .. }
            | Self::OtherImage { .. }
            | Self::UnknownRootFs { .. } => true,
            Self::Name { .. }
            | Self::Reserved { .. }
            | Self::Credentials { .. }
            | Self::Evidence { .. }
            | Self::OtherRecord { .. }
            | Self::OtherRootFs { .. }
            | Self::Snapshotter { .. }
            | Self::NotPresent { .. }
            | Self::Content { .. }
            | Self::Containerd { .. }
            | Self::ContainerdAway { .. }
            | Self::Answer { .. }
            | Self::TagNotShown { .. }
            | Self::OtherVolume { .. }
            | Self::RecordDropped { .. }
            | Self::Sandbox { .. }
            | Self::SandboxUnknown
            | Self::Ledger { .. }
            | Self::Clock(_)
            | Self::ClockBack { .. }
            | Self::NoContainer { .. }
            | Self::NoSandbox { .. }
            | Self::Internal { .. } => false,
        }
    }
}
