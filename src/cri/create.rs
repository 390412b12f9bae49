//! CreateContainer: the image is judged again for the name that the pod gave, and what was really made is compared with
//! it by content. No packet leaves the node.

use std::collections::BTreeSet;
use std::time::Instant;

use countersign_trust::Question;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ChainId, ImageId, ImageReference, shown};

use super::checked::{Guard, Judged, Refused, to_the_end, unanswered};
use super::checks::CheckedCall;
use super::denied::LookedAt;
use super::messages::{
    CreateContainerRequest, Image, ImageMount, ImageSpec, create_container_response, image_status_request, image_status_response,
    remove_container_request,
};
use super::methods::{CREATE_CONTAINER, CheckedMethod, IMAGE_STATUS, REMOVE_CONTAINER};
use super::patch;
use super::sandbox::whole_sandbox_id;
use super::status::Status;
use super::upstream::{Reply, Upstream};
use crate::admit::{
    Admission, Asked, AskedVolume, Asker, GoesOn, Grandfathered, KeyGuard, RecordsRead, Refusal, Subject, Volume, Workload, record_name,
};
use crate::crash::Step;
use crate::ledger::{RanContent, VerifiedImage};

/// The image that is meant.
struct Resolved {
    /// What containerd's CRI says of it.
    image: Image,
    id: ImageId,
    /// Held until the container is there; of its volumes' images too.
    held: Vec<KeyGuard<ImageId>>,
    /// What was found out meanwhile, under the lock, if it was known which image is meant.
    ahead: Option<Ahead>,
}

/// The image that the caller wants, and for a pod of which namespace and service.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    spec: &'a ImageSpec,
    asker: Asker<'a>,
    began: Instant,
}

impl<'a> Wanted<'a> {
    fn judged(self) -> Judged<'a> {
        Judged { image: shown_name(self.spec), container: None, namespace: self.asker.namespace, began: self.began }
    }
}

/// An image of which a container may be made, and what the caller called it.
struct Admitted {
    root: Content,
    /// Where the container sees which image.
    volumes: Vec<(String, Content)>,
    mode: Mode,
    asked: Asked,
    began: Instant,
}

/// A create that is refused, and that the rules of its images let pass: the strictest says `mode`.
struct LetPass {
    asked: Asked,
    mode: Mode,
    refusal: Refusal,
    began: Instant,
}

impl Admitted {
    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.volumes.iter().map(|(_, content)| content).chain([&self.root])
    }

    fn judged(&self) -> Judged<'_> {
        Judged { image: &self.asked.image, container: None, namespace: self.asked.namespace.as_deref(), began: self.began }
    }
}

/// What a container has to stand on, or to show in a volume.
enum Content {
    /// The root file system of a verified image, and what allows it.
    Verified(VerifiedImage, Box<Admission>),
    /// What the same container of the same pod ran with before its image was enforced. No image counts as verified by that.
    RanBefore(RanContent),
}

impl Content {
    const fn image_id(&self) -> &ImageId {
        match self {
            Self::Verified(image, _) => &image.image_id,
            Self::RanBefore(content) => &content.image_id,
        }
    }

    const fn chain_id(&self) -> &ChainId {
        match self {
            Self::Verified(image, _) => &image.chain_id,
            Self::RanBefore(content) => &content.chain_id,
        }
    }

    const fn verified(&self) -> Option<&VerifiedImage> {
        match self {
            Self::Verified(image, _) => Some(image),
            Self::RanBefore(_) => None,
        }
    }
}

/// An image volume, and what containerd's CRI says of its image.
struct ResolvedVolume<'a> {
    mount: &'a ImageMount,
    image: Image,
    id: ImageId,
}

struct Ahead {
    admitted: Result<(Admission, VerifiedImage), Refusal>,
    records: Option<RecordsRead>,
}

impl Guard {
    /// Until containerd is asked for the container, a caller that goes away takes everything with it, the image's lock too:
    /// containerd may never answer what it is asked first.
    pub(super) async fn create(&self, call: CheckedCall) -> Result<Reply, Status> {
        let began = Instant::now();
        let request = CreateContainerRequest::read(&call.message)?;
        let of_no_pod = |refusal| {
            let judged = Judged { image: shown_name(&request.image), container: None, namespace: None, began };
            self.denied(Refused { method: CheckedMethod::CreateContainer, judged, mode: self.admit.mode() }, &refusal)
        };
        let sandbox_id = whole_sandbox_id(&request.pod_sandbox_id, &call.upstream).await.map_err(of_no_pod)?;
        let call = if sandbox_id == request.pod_sandbox_id { call } else { in_sandbox(call, &sandbox_id)? };
        let _creating = self.admit.creating(&sandbox_id);
        let pod = self.pod_of(&sandbox_id, &call.upstream).await.map_err(of_no_pod)?;
        let revision = pod.as_ref().and_then(|pod| pod.revision.clone());
        let workload = pod.as_ref().map(|pod| Workload { pod_uid: pod.uid.clone(), container: request.container_name.clone() });
        let namespace = pod.map(|pod| pod.namespace).filter(|namespace| !namespace.is_empty());
        let mut asked = self.asked(&request.image, namespace.clone(), &call.upstream).await;
        for mount in &request.image_mounts {
            let Asked { name, given, .. } = self.asked(&mount.image, namespace.clone(), &call.upstream).await;
            asked.volumes.push(AskedVolume { path: mount.container_path.clone(), given, name });
        }
        let mode = self.admit.mode_of_asked(&asked);
        let asked = Asked { workload, was_let_pass: mode != Mode::Enforced, revision, ..asked };
        if !self.verifies(mode) {
            let judged = Judged { image: &asked.image, container: None, namespace: asked.namespace.as_deref(), began };
            self.not_judged(CheckedMethod::CreateContainer, judged);
            for mount in &request.image_mounts {
                self.not_judged(CheckedMethod::CreateContainer, Judged { image: shown_name(&mount.image), ..judged });
            }
            let reply = call.forward(CheckedMethod::CreateContainer).await?;
            return Ok(self.unchecked(reply, asked));
        }
        match self.admit_request(&request, &asked, &call.upstream, began).await {
            Ok((admitted, held)) => {
                let guard = self.clone();
                to_the_end(async move {
                    // Of its own, since the caller's ends with the caller.
                    let _creating = guard.admit.creating(&sandbox_id);
                    guard.create_admitted(&call, admitted, held).await
                })
                .await
            }
            Err(refusal) if mode == Mode::Enforced => {
                let refusal = self.admit.drop_wrong_record(refusal).await;
                let judged = Judged { image: &asked.image, container: None, namespace: asked.namespace.as_deref(), began };
                self.refused(&call, Refused { method: CheckedMethod::CreateContainer, judged, mode }, refusal).await
            }
            Err(refusal) => self.create_let_pass(call, sandbox_id, LetPass { asked, mode, refusal, began }).await,
        }
    }

    /// What becomes of a create that is refused, and that the rules of all its images let pass.
    async fn create_let_pass(&self, call: CheckedCall, sandbox_id: String, let_pass: LetPass) -> Result<Reply, Status> {
        let found = match self.look_for_denied(&let_pass.asked, &call.upstream).await {
            Ok(Some(looked_at)) if self.admit.mode() == Mode::Enforced => {
                let guard = self.clone();
                return to_the_end(async move {
                    // Of its own, since the caller's ends with the caller.
                    let _creating = guard.admit.creating(&sandbox_id);
                    guard.create_looked_at(&call, looked_at, let_pass).await
                })
                .await;
            }
            Ok(_) => None,
            Err(found) => Some(found),
        };
        let LetPass { asked, mode, refusal, began } = let_pass;
        let judged = Judged { image: &asked.image, container: None, namespace: asked.namespace.as_deref(), began };
        let refused = Refused { method: CheckedMethod::CreateContainer, judged, mode };
        let reply = match found {
            None => self.refused(&call, refused, refusal).await?,
            Some(found) => self.refused_for(&call, refused, refusal, found).await?,
        };
        Ok(self.unchecked(reply, asked))
    }

    /// Creates a container of images of which no digest is denied, and looks what it was made from.
    async fn create_looked_at(&self, call: &CheckedCall, looked_at: LookedAt, let_pass: LetPass) -> Result<Reply, Status> {
        let LetPass { asked, mode, refusal, began } = let_pass;
        let given = looked_at.image_id.to_string();
        let message = patch::create_container_image(&call.message, &given)?;
        let reply = call.upstream.to_its_end(CREATE_CONTAINER, message, &call.metadata).await?;
        let container_id = create_container_response(&reply.message)?;
        let judged = Judged { image: &asked.image, container: Some(&container_id), namespace: asked.namespace.as_deref(), began };
        let refused = Refused { method: CheckedMethod::CreateContainer, judged, mode };
        match self.stands_on(&container_id, &looked_at).await {
            Ok(()) => self.let_pass(refused, &refusal),
            Err(found) => {
                let refused = Refused { mode: self.admit.mode(), ..refused };
                self.refuse_created(&container_id, refused, &found, &call.upstream).await?;
            }
        }
        self.admit.remember_container(&container_id, Asked { given, ..asked });
        Ok(reply)
    }

    /// For what a container is wanted. A name chooses a rule that is more lenient than the rest only if containerd knows the very
    /// image by it: an ID, or a prefix of one, of another image could be read as such a name.
    async fn asked(&self, spec: &ImageSpec, namespace: Option<String>, upstream: &Upstream) -> Asked {
        let image = shown_name(spec).to_owned();
        let name = named(spec);
        let unnamed = Asked { image, namespace, given: spec.image.clone(), ..Asked::default() };
        let asked = Asked { name, ..unnamed.clone() };
        let Some(name) = asked.name.as_ref().filter(|_| self.admit.mode_of_asked(&asked) < self.admit.mode_of_asked(&unnamed)) else {
            return asked;
        };
        let known = canonical(upstream, &spec.image).await;
        let is_called_so = |image: &Image| image.repo_tags.iter().chain(&image.repo_digests).any(|called| *called == record_name(name));
        if known.is_ok_and(|image| is_called_so(&image)) { asked } else { unnamed }
    }

    /// The reply about a container that was made of whatever the caller named, since its image's rule lets that pass. Its start
    /// is judged for the same image and namespace, else no rule would answer for it.
    fn unchecked(&self, reply: Reply, asked: Asked) -> Reply {
        if let Ok(container_id) = create_container_response(&reply.message) {
            self.admit.remember_container(&container_id, asked);
        }
        reply
    }

    async fn admit_request(
        &self,
        request: &CreateContainerRequest,
        asked: &Asked,
        upstream: &Upstream,
        began: Instant,
    ) -> Result<(Admitted, Vec<KeyGuard<ImageId>>), Refusal> {
        Step::CreateAsked.reached();
        let wanted = Wanted { spec: &request.image, asker: asked.asker(), began };
        // Before any lock is taken: a trust server may not answer for long, and for a service that goes on none needs to be asked.
        let service = wanted.spec.image.parse().ok().and_then(|image_id| self.admit.grandfathered(asked.workload.as_ref(), image_id));
        for spec in request.image_mounts.iter().map(|mount| &mount.image).chain([wanted.spec]) {
            let ran_before = service.as_ref().is_some_and(|service| has_image(service, spec));
            if let Some(image) = named(spec).filter(|_| !ran_before) {
                self.admit.bring(Question { image: &image, namespace: wanted.asker.namespace }, spec.image.parse().ok()).await?;
            }
        }
        let (resolved, resolved_volumes) = match request.image_mounts.as_slice() {
            [] => (self.resolve(upstream, wanted).await?, Vec::new()),
            mounts => self.resolve_with_volumes(upstream, wanted, mounts).await?,
        };
        Step::CreateResolved.reached();
        let Resolved { id, image, held, ahead } = resolved;
        let workload = asked.workload.as_ref();
        let mode = self.admit.mode_of_asked(asked);
        let mut volumes = Vec::new();
        for ResolvedVolume { mount, image, id: volume } in &resolved_volumes {
            let wanted = Wanted { spec: &mount.image, ..wanted };
            let outlives = |refusal| self.admit.volume_outlives(refusal, workload, id, *volume);
            let content = self.admit_or_go_on(wanted, (image, *volume), None, mode, outlives).await?;
            self.tell(&content, wanted.judged());
            volumes.push((mount.container_path.clone(), content));
        }
        let root = self.admit_or_go_on(wanted, (&image, id), ahead, mode, |refusal| self.admit.outlives(refusal, workload, id)).await?;
        Ok((Admitted { root, volumes, mode, asked: asked.clone(), began }, held))
    }

    /// What a container has to be made of for this image of it: what was verified, or what it ran with before.
    async fn admit_or_go_on(
        &self,
        wanted: Wanted<'_>,
        (image, image_id): (&Image, ImageId),
        ahead: Option<Ahead>,
        mode: Mode,
        outlives: impl FnOnce(Refusal) -> Result<GoesOn, Refusal>,
    ) -> Result<Content, Refusal> {
        let refusal = match self.admit_create(wanted, image, image_id, ahead).await {
            Ok((admission, verified)) => return Ok(Content::Verified(verified, Box::new(admission))),
            Err(refusal) => refusal,
        };
        // Where refused images are let pass, they are let pass as they came.
        if mode != Mode::Enforced {
            return Err(refusal);
        }
        let goes_on = outlives(refusal)?;
        self.admit.check_records(&names_of(image, &wanted.spec.image), None, image_id, Mode::Enforced).await?;
        self.goes_on(CheckedMethod::CreateContainer, wanted.judged(), &goes_on);
        Ok(Content::RanBefore(goes_on.content))
    }

    /// Finds out what images are meant by a container with image volumes, and takes the locks of all.
    async fn resolve_with_volumes<'a>(
        &self,
        upstream: &Upstream,
        wanted: Wanted<'_>,
        mounts: &'a [ImageMount],
    ) -> Result<(Resolved, Vec<ResolvedVolume<'a>>), Refusal> {
        let image = canonical(upstream, &wanted.spec.image).await?;
        let id = parsed_id(&image)?;
        let mut volumes = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let image = canonical(upstream, &mount.image.image).await?;
            volumes.push(ResolvedVolume { mount, id: parsed_id(&image)?, image });
        }
        let held = self.admit.image_locks.share_all(volumes.iter().map(|volume| volume.id).chain([id])).await;
        Ok((Resolved { held, id, image, ahead: None }, volumes))
    }

    /// Creates a container of the verified image, and looks what it was made from. Under the image's lock until the end.
    async fn create_admitted(&self, call: &CheckedCall, admitted: Admitted, _held: Vec<KeyGuard<ImageId>>) -> Result<Reply, Status> {
        // By its ID, whatever the caller named it by: what a name means may have changed since, and the container would have
        // the config of another image, which its root file system does not show.
        let message = patch::create_container_image(&call.message, &admitted.root.image_id().to_string())?;
        let _awaiting = self.admit.awaiting_container();
        let took = admitted.began.elapsed();
        let told = async {
            // The request goes first: it is written when this task waits, and the decision is on record before the answer.
            tokio::task::yield_now().await;
            let judged = admitted.judged();
            // What is waited for meanwhile is no part of the decision.
            let began = Instant::now().checked_sub(took).unwrap_or(judged.began);
            self.tell(&admitted.root, Judged { began, ..judged });
        };
        let (reply, ()) = tokio::join!(call.upstream.to_its_end(CREATE_CONTAINER, message, &call.metadata), told);
        let reply = reply?;
        Step::CreateCreated.reached();
        self.check_created(&reply, admitted, &call.upstream).await.map(|()| reply)
    }

    /// Writes down that an image was verified. An image that goes on unverified was written down when that was decided.
    fn tell(&self, content: &Content, judged: Judged<'_>) {
        match content {
            Content::Verified(image, admission) => {
                self.admitted(CheckedMethod::CreateContainer, judged, admission, Some(image.image_id));
            }
            Content::RanBefore(_) => {}
        }
    }

    /// Finds out what image is meant, and takes its lock. kubelet gives an ID: while containerd's CRI is asked which names that
    /// image goes by, it is judged, and its records are read.
    async fn resolve(&self, upstream: &Upstream, wanted: Wanted<'_>) -> Result<Resolved, Refusal> {
        let spec = wanted.spec;
        let Some((likely_id, named)) = likely(spec) else {
            let image = canonical(upstream, &spec.image).await?;
            let id = parsed_id(&image)?;
            return Ok(Resolved { held: vec![self.admit.image_locks.share(id).await], id, image, ahead: None });
        };
        let held = self.admit.image_locks.share(likely_id).await;
        let judge = async {
            // The questions go first: what is written to containerd is written when this task waits.
            tokio::task::yield_now().await;
            self.judge(wanted, likely_id).await
        };
        let records = self.admit.read_likely_records(&named, likely_id);
        let (image, records, admitted) = tokio::join!(canonical(upstream, &spec.image), records, judge);
        let image = image?;
        let id = parsed_id(&image)?;
        if id == likely_id {
            return Ok(Resolved { held: vec![held], id, image, ahead: Some(Ahead { admitted, records }) });
        }
        // Never two at once: only `lock_all` takes them in an order.
        drop(held);
        Ok(Resolved { held: vec![self.admit.image_locks.share(id).await], id, image, ahead: None })
    }

    async fn judge(&self, wanted: Wanted<'_>, image_id: ImageId) -> Result<(Admission, VerifiedImage), Refusal> {
        let Wanted { spec, asker, began: _ } = wanted;
        self.admit.admit_container(&subject(spec, image_id)?, asker, image_id, shown_name(spec)).await
    }

    async fn admit_create(
        &self,
        wanted: Wanted<'_>,
        image: &Image,
        image_id: ImageId,
        ahead: Option<Ahead>,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        let names = names_of(image, &wanted.spec.image);
        if let Some(called) = called(image, named(wanted.spec)) {
            self.admit.refuse_denied_content(&called, &names, image_id).await?;
        }
        let (admitted, records) = match ahead {
            Some(ahead) => (ahead.admitted, ahead.records),
            None => (self.judge(wanted, image_id).await, None),
        };
        let (admission, verified) = admitted?;
        Step::CreateAdmitted.reached();
        self.admit.check_records(&names, records, image_id, admission.mode).await?;
        Step::CreateRecordsChecked.reached();
        Ok((admission, verified))
    }

    /// Compares what was made with what was verified. In enforced mode a container of anything else does not stay.
    async fn check_created(&self, reply: &Reply, admitted: Admitted, upstream: &Upstream) -> Result<(), Status> {
        let container_id = create_container_response(&reply.message)?;
        let volume = |(path, content): &(String, Content)| Volume { path: path.clone(), chain_id: *content.chain_id() };
        let volumes: Vec<Volume> = admitted.volumes.iter().map(volume).collect();
        let checked = match self.admit.check_made(&container_id, admitted.root.chain_id()).await {
            Ok(made_at) => self.admit.check_volumes(&container_id, &volumes).await.map(|()| made_at),
            Err(refusal) => Err(refusal),
        };
        let refusal = match checked {
            Ok(made_at) => {
                Step::CreateRootFsChecked.reached();
                admitted.contents().filter_map(Content::verified).for_each(|image| self.admit.remember(image));
                let given = admitted.root.image_id().to_string();
                self.admit.remember_container(&container_id, Asked { given, made_at: Some(made_at), ..admitted.asked });
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        let Admitted { asked, mode, began, .. } = admitted;
        // It may be a denied digest, which no rule lets pass.
        let mode = if self.admit.has_denied_digests() { mode.max(self.admit.mode()) } else { mode };
        let judged = Judged { image: &asked.image, container: Some(&container_id), namespace: asked.namespace.as_deref(), began };
        let refused = Refused { method: CheckedMethod::CreateContainer, judged, mode };
        self.refuse_created(&container_id, refused, &refusal, upstream).await?;
        self.admit.remember_container(&container_id, asked);
        Ok(())
    }

    /// What becomes of a container that was made, and that is not what it should be: in enforced mode it does not stay.
    async fn refuse_created(&self, container_id: &str, refused: Refused<'_>, refusal: &Refusal, upstream: &Upstream) -> Result<(), Status> {
        if refused.mode != Mode::Enforced {
            self.let_pass(refused, refusal);
            return Ok(());
        }
        let denial = self.denied(refused, refusal);
        let container = shown(container_id);
        tracing::error!(container, code = refusal.code(), "denied; the container is removed");
        Step::CreateRootFsRefused.reached();
        // With no deadline of the caller's: the container must go even if the caller is out of patience.
        if let Err(status) = upstream.remove(REMOVE_CONTAINER, remove_container_request(container_id)).await {
            tracing::error!(container, error = status.message(), "a denied container could not be removed; its start will be refused");
        }
        Step::CreateRemoved.reached();
        Err(denial)
    }
}

/// Whether this is an image that the service ran with and for which no evidence is needed, as kubelet gives it: by its ID.
fn has_image(service: &Grandfathered, spec: &ImageSpec) -> bool {
    spec.image.parse::<ImageId>().is_ok_and(|image_id| service.lenient().any(|(_, content)| content.image_id == image_id))
}

/// The call with the whole ID of its sandbox.
fn in_sandbox(call: CheckedCall, sandbox_id: &str) -> Result<CheckedCall, Status> {
    let message = patch::create_container_sandbox(&call.message, sandbox_id)?;
    Ok(CheckedCall { message, ..call })
}

/// What containerd's CRI says that `given` means.
pub(super) async fn canonical(upstream: &Upstream, given: &str) -> Result<Image, Refusal> {
    let answer = |what: String| Refusal::Answer { what };
    let reply = upstream.ask(IMAGE_STATUS, image_status_request(given)).await;
    let reply = reply.map_err(|status| unanswered(&format!("ImageStatus of `{}`", shown(given)), &status))?;
    let image = image_status_response(&reply.message).map_err(|error| answer(format!("a malformed ImageStatus: {error}")))?;
    image.ok_or_else(|| Refusal::NotPresent { image: shown(given) })
}

/// Every name that could be taken for the image, each once: a record that is removed takes its content with it, and could not be
/// looked at again. An image volume is made from the record of exactly the name that was given (containerd, `mutateImageMount`).
pub(super) fn names_of(image: &Image, given: &str) -> Vec<String> {
    let names = image.repo_tags.iter().chain(&image.repo_digests).map(String::as_str).chain([image.id.as_str(), given]);
    names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

pub(super) fn parsed_id(image: &Image) -> Result<ImageId, Refusal> {
    image.id.parse().map_err(|_| Refusal::Answer { what: format!("an image ID that is none: `{}`", shown(&image.id)) })
}

/// kubelet's way to name an image: by its ID, with the name that the pod gave.
fn likely(spec: &ImageSpec) -> Option<(ImageId, ImageReference)> {
    Some((spec.image.parse().ok()?, spec.user_specified_image.parse().ok()?))
}

/// The name that the pod gave, if it is one: an image ID reads as a name too.
fn named(spec: &ImageSpec) -> Option<ImageReference> {
    let name = shown_name(spec);
    if name.parse::<ImageId>().is_ok() { None } else { name.parse().ok() }
}

/// What a denied image is called: what the pod called it, or a name that it goes by here, or its ID.
pub(super) fn called(image: &Image, named: Option<ImageReference>) -> Option<ImageReference> {
    let known = || image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]).find_map(|name| name.parse().ok());
    named.or_else(known)
}

/// Under which name the image is judged: the one that the pod gave.
fn subject(spec: &ImageSpec, image_id: ImageId) -> Result<Subject, Refusal> {
    let name = shown_name(spec);
    // containerd reads a whole digest as an image ID before it tries names.
    if let Ok(named) = name.parse::<ImageId>() {
        return if named == image_id { Ok(Subject::Unnamed) } else { Err(Refusal::NotPresent { image: shown(name) }) };
    }
    let image: ImageReference = name.parse().map_err(|error| Refusal::Name { error })?;
    Ok(Subject::Named(image))
}

fn shown_name(spec: &ImageSpec) -> &str {
    if spec.user_specified_image.is_empty() { &spec.image } else { &spec.user_specified_image }
}
