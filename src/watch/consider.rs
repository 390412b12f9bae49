//! Looking at one thing that was heard of.

use std::collections::HashMap;
use std::time::Duration;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, ImageReference, ManifestDigest, shown};
use tokio::time::Instant;

use super::Watch;
use super::board::{Action, Bypass};
use super::course::{Course, Kind, OnBypass, Proof, Running, Sighting, course, is_to_be_stopped};
use super::follow::Round;
use super::pending::{Plan, record_wait};
use crate::admit::{Asked, Refusal, Workload, chain};
use crate::audit::{Call, WATCH};
use crate::containerd::{ContainerdError, Listed, NAMESPACE, Pod, PodContainer, Record};

/// How often is looked whether a create was answered or a sandbox runs.
const POLL: Duration = Duration::from_millis(250);
/// After which time is asked again what could not be found out.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often that is done; the look at everything goes on after it.
const ASKED_AGAIN: usize = 30;
/// What records lead to that were let pass, at most.
const MAX_LET_PASS: usize = 16_384;

/// A container that came past the gate.
struct Past<'a> {
    namespace: &'a str,
    listed: &'a Listed,
    kind: Kind,
    create_is_unanswered: bool,
}

/// What containerd's CRI knows of containers.
pub(super) struct Known {
    pub(super) pods: HashMap<String, Pod>,
    pub(super) containers: HashMap<String, PodContainer>,
}

impl Known {
    /// The pod of a container. Only what CRI has made is of one.
    pub(super) fn pod_of(&self, container_id: &str) -> Option<&Pod> {
        self.pods.get(&self.containers.get(container_id)?.sandbox_id)
    }

    /// Which container of which pod it is.
    pub(super) fn workload_of(&self, container_id: &str) -> Option<Workload> {
        let (container, pod) = (self.containers.get(container_id)?, self.pod_of(container_id)?);
        Some(Workload { pod_uid: pod.uid.clone(), container: container.name.clone() })
    }

    /// The namespace and the name of the pod of a container, and its own name there: as CRI knows them, or else as the record
    /// says.
    pub(super) fn names_of(&self, listed: &Listed) -> (String, String, String) {
        let own = |known: Option<&String>, said: &str| shown(known.map_or(said, String::as_str));
        let (pod, container) = (self.pod_of(&listed.id), self.containers.get(&listed.id));
        (
            own(pod.map(|pod| &pod.namespace), &listed.pod_namespace),
            own(pod.map(|pod| &pod.name), &listed.pod),
            own(container.map(|container| &container.name), &listed.name),
        )
    }
}

impl Round {
    /// For what a container was made: as the gate noted when it came through, or else as [`asked_of`] finds it.
    pub(super) fn asked_of(&self, listed: &Listed, known: &Known) -> (Asked, Option<ImageId>) {
        let (said, image_id) = asked_of(listed, known);
        (self.book.asked_for(&listed.id).cloned().unwrap_or(said), image_id)
    }
}

impl Watch {
    /// Looks at a container. Gives back after which time it is to be looked at again.
    pub(super) async fn consider_container(&self, round: &mut Round, namespace: &str, id: &str, plan: Plan) -> Option<Duration> {
        let considered = self.consider(round, namespace, id, plan).await;
        considered.unwrap_or_else(|error| {
            tracing::debug!(container = shown(id), error = chain(&error), "a container could not be looked at");
            (plan.looks < ASKED_AGAIN).then_some(ASK_AGAIN)
        })
    }

    async fn consider(&self, round: &mut Round, namespace: &str, id: &str, plan: Plan) -> Result<Option<Duration>, ContainerdError> {
        let is_kubernetes = namespace == NAMESPACE;
        let came_through = is_kubernetes && self.came_through(round, id);
        // A task that is started once more is no start of the gate's, whose container may have been changed by then.
        let started_here = self.admit.was_started_here(id) && (!plan.was_started || round.is_first_start(id));
        if came_through && (!plan.was_started || started_here) {
            return Ok(None);
        }
        let Some(listed) = self.containerd.listed(namespace, id).await? else { return Ok(None) };
        let is_sandbox = is_kubernetes && self.containerd.pods().await?.contains_key(id);
        // In this order: a create is answered after it was noted what was made.
        let create_is_unanswered = self.admit.is_creating_in(&listed.sandbox_id);
        let sighting = Sighting {
            is_kubernetes,
            created_here: is_kubernetes && self.came_through(round, id),
            was_started: plan.was_started,
            started_here,
            is_sandbox,
            claims_sandbox: listed.claims_sandbox,
            create_is_unanswered,
            is_older: listed.made_at.seconds <= round.book.since(),
            known_for: plan.heard.elapsed(),
        };
        match course(sighting) {
            Course::Nothing => Ok(None),
            Course::Wait => Ok(Some(POLL)),
            Course::PastTheGate(kind) => {
                self.past_the_gate(round, Past { namespace, listed: &listed, kind, create_is_unanswered }, plan).await
            }
        }
    }

    /// Whether the gate has let a container be made, which is then written down.
    pub(super) fn came_through(&self, round: &mut Round, id: &str) -> bool {
        if let Some(asked) = self.admit.asked_for(id) {
            round.book.add(id, &asked);
        }
        round.book.asked_for(id).is_some()
    }

    async fn past_the_gate(&self, round: &mut Round, past: Past<'_>, plan: Plan) -> Result<Option<Duration>, ContainerdError> {
        let Past { namespace, listed, kind, create_is_unanswered } = past;
        let known = self.known().await?;
        let (asked, image_id) = round.asked_of(listed, &known);
        let is_judged = namespace == NAMESPACE;
        let refusal = if is_judged { self.judge_past(&listed.id, &asked, image_id).await.err() } else { None };
        let proof = match &refusal {
            None => Proof::Valid,
            Some(refusal) if refusal.says_unverified() => Proof::Missing,
            Some(_) => Proof::Unknown,
        };
        let seen = Bypass { at: self.now().unwrap_or_default(), ..bypass(&past, known.names_of(listed), &asked, refusal.as_ref()) };
        if round.is_news(namespace, listed.once()) {
            self.report(seen.clone());
        }
        let mode = self.mode_of_running(&listed.id, &asked, listed.may_show_images).await;
        if !is_to_be_stopped(self.on_bypass, Running { kind, proof, mode, create_is_unanswered }) {
            let is_open = is_judged && self.on_bypass == OnBypass::Stop && (proof == Proof::Unknown || create_is_unanswered);
            return Ok((is_open && plan.looks < ASKED_AGAIN).then_some(ASK_AGAIN));
        }
        self.stop(round, &listed.id, &seen).await
    }

    /// What becomes of what runs if it has no valid evidence. If it may show images in volumes of which no name is known, any rule may
    /// be about them.
    pub(super) async fn mode_of_running(&self, id: &str, asked: &Asked, may_show_images: bool) -> Mode {
        if self.knows_volumes(id, asked, may_show_images).await { self.admit.mode_of_asked(asked) } else { self.admit.strictest_mode() }
    }

    /// Whether the names of the images in a container's volumes are known, if it has any.
    pub(super) async fn knows_volumes(&self, id: &str, asked: &Asked, may_show_images: bool) -> bool {
        !may_show_images || !asked.volumes.is_empty() || !self.admit.may_show_images(id).await
    }

    async fn judge_past(&self, id: &str, asked: &Asked, image_id: Option<ImageId>) -> Result<(), Refusal> {
        let Err(refusal) = self.admit.judge_running(id, asked, image_id).await else { return Ok(()) };
        // Whatever it calls itself: what is signed under another name is signed.
        let unnamed = Asked { namespace: asked.namespace.clone(), volumes: asked.volumes.clone(), ..Asked::default() };
        self.admit.judge_running(id, &unnamed, None).await.map(drop).map_err(|_| refusal)
    }

    async fn stop(&self, round: &mut Round, id: &str, seen: &Bypass) -> Result<Option<Duration>, ContainerdError> {
        let kind = seen.kind;
        if !self.containerd.task_runs(NAMESPACE, id).await? {
            return Ok(None);
        }
        if round.stops.is_ending(id, Instant::now()) {
            return Ok(Some(POLL));
        }
        if let Err(wait) = round.stops.take(Instant::now()) {
            let why = "many tasks were stopped just now; this one is next".to_owned();
            tracing::warn!(
                container = shown(id),
                wait_seconds = wait.as_secs(),
                "a task that came past the gate waits to be stopped: {why}"
            );
            self.with_board(|board| board.acted(kind, NAMESPACE, id, &Action::NotStopped(why)));
            return Ok(Some(wait));
        }
        let action = match self.containerd.kill_task(id).await {
            Ok(()) => {
                round.stops.killed(id, Instant::now());
                let decision = self.recorder.stopped(call_of(seen), kind.code(), &reason_of(seen));
                tracing::warn!(container = shown(id), %decision, "a task that came past the gate was stopped (on-bypass = \"stop\")");
                Action::Stopped
            }
            Err(error) => {
                tracing::error!(container = shown(id), error = chain(&error), "a task that came past the gate could not be stopped");
                Action::NotStopped(chain(&error))
            }
        };
        self.with_board(|board| board.acted(kind, NAMESPACE, id, &action));
        Ok((action != Action::Stopped).then_some(ASK_AGAIN))
    }

    /// Looks at an image record. Gives back after which time it is to be looked at again.
    pub(super) async fn consider_record(&self, round: &mut Round, namespace: &str, name: &str, plan: Plan) -> Option<Duration> {
        // kubelet's containers are made of the records of its own namespace.
        if namespace != NAMESPACE {
            return None;
        }
        let record = match self.containerd.records(&[name.to_owned()]).await {
            Ok(records) => records.into_iter().next()?,
            Err(_) => return (plan.looks < ASKED_AGAIN).then_some(ASK_AGAIN),
        };
        if !self.admit.mode_of_record(&record).verifies() || self.is_let_pass(round, &record) {
            return None;
        }
        let refusal = self.admit.judge_record(&record).await.err()?;
        if self.is_of_sandboxes(round, &record).await {
            return None;
        }
        if let Some(wait) = record_wait(name, plan.looks) {
            return Some(wait);
        }
        if refusal.says_unverified() && round.is_news(namespace, format!("{name}@{}", record.target.digest)) {
            let now = self.now().unwrap_or_default();
            self.report(Bypass {
                at: now,
                kind: Kind::Image,
                namespace: namespace.to_owned(),
                id: shown(name),
                pod_namespace: String::new(),
                pod: String::new(),
                container: String::new(),
                image: shown(&record.target.digest),
                refusal: Some((refusal.code().to_owned(), refusal.to_string())),
                action: Action::Reported,
            });
        }
        None
    }

    /// The image of sandboxes: as the configuration names it, or else as containerd tells.
    pub(super) async fn image_of_sandboxes(&self) -> Option<ImageReference> {
        if let Some(image) = self.admit.sandbox_name() {
            return Some(image);
        }
        self.containerd.sandbox_image().await.ok()??.parse().ok()
    }

    /// Whether a record is that of the image of sandboxes, which containerd pulls by itself. It is looked at where it is used.
    async fn is_of_sandboxes(&self, round: &mut Round, record: &Record) -> bool {
        let (Ok(named), Ok(target)) = (record.name.parse::<ImageReference>(), record.target.digest.parse::<ManifestDigest>()) else {
            return false;
        };
        let is_it = self.image_of_sandboxes().await.is_some_and(|image| image.repository() == named.repository());
        if is_it && round.let_pass.len() < MAX_LET_PASS {
            round.let_pass.insert(target);
        }
        is_it
    }

    /// Whether a record is that of an image which was pulled unverified, since its rule lets it pass: by the repository, or by
    /// what such a record leads to.
    fn is_let_pass(&self, round: &mut Round, record: &Record) -> bool {
        let Ok(target) = record.target.digest.parse::<ManifestDigest>() else { return false };
        let named = record.name.parse::<ImageReference>();
        if named.is_ok_and(|image| self.admit.was_let_pass(image.repository())) && round.let_pass.len() < MAX_LET_PASS {
            round.let_pass.insert(target);
        }
        round.let_pass.contains(&target)
    }

    fn report(&self, bypass: Bypass) {
        let Bypass { kind, namespace, id, pod_namespace, pod, container, image, refusal, .. } = &bypass;
        let (reason, has_evidence) = refusal.as_ref().map_or(("", true), |(_, reason)| (reason.as_str(), false));
        let decision = self.recorder.past_the_gate(call_of(&bypass), kind.code(), &reason_of(&bypass));
        tracing::warn!(
            code = kind.code(),
            %decision,
            containerd_namespace = namespace,
            id,
            pod_namespace,
            pod,
            container,
            image,
            has_evidence,
            reason,
            "{}",
            kind.sentence()
        );
        self.with_board(|board| board.add(bypass));
    }

    /// What containerd's CRI knows.
    pub(super) async fn known(&self) -> Result<Known, ContainerdError> {
        let (pods, containers) = tokio::try_join!(self.containerd.pods(), self.containerd.pod_containers())?;
        Ok(Known { pods, containers: containers.into_iter().map(|container| (container.id.clone(), container)).collect() })
    }
}

fn bypass(past: &Past<'_>, names: (String, String, String), asked: &Asked, refusal: Option<&Refusal>) -> Bypass {
    let (pod_namespace, pod, container) = names;
    Bypass {
        at: 0,
        kind: past.kind,
        namespace: shown(past.namespace),
        id: shown(&past.listed.id),
        pod_namespace,
        pod,
        container,
        image: shown(&asked.image),
        refusal: refusal.map(|refusal| (refusal.code().to_owned(), refusal.to_string())),
        action: Action::Reported,
    }
}

/// How the audit log names it. Of a record, its name is the image.
fn call_of(bypass: &Bypass) -> Call<'_> {
    let namespace = Some(bypass.pod_namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let (image, container) = match bypass.kind {
        Kind::Container | Kind::Task | Kind::OtherNamespace => (&bypass.image, Some(bypass.id.as_str())),
        Kind::Image => (&bypass.id, None),
    };
    Call { method: WATCH, image, namespace, container, began: std::time::Instant::now() }
}

/// How it came, and what is known of its evidence.
fn reason_of(bypass: &Bypass) -> String {
    let how = match bypass.kind {
        Kind::Container | Kind::Task => bypass.kind.sentence().to_owned(),
        Kind::OtherNamespace => format!("{}: {}", bypass.kind.sentence(), bypass.namespace),
        Kind::Image => format!("{}: it leads to {}", bypass.kind.sentence(), bypass.image),
    };
    match (&bypass.refusal, bypass.kind) {
        (Some((code, why)), _) => format!("{how}; {why} ({code})"),
        (None, Kind::OtherNamespace) => how,
        (None, Kind::Container | Kind::Task | Kind::Image) => format!("{how}; its image has valid evidence"),
    }
}

/// For what a container was made, as CRI remembers it, or else as its record says.
pub(super) fn asked_of(listed: &Listed, known: &Known) -> (Asked, Option<ImageId>) {
    let container = known.containers.get(&listed.id);
    let named = container.map(|container| [container.named.as_str(), container.image.as_str()]).unwrap_or_default();
    let is_name = |text: &&str| !text.is_empty() && text.parse::<ImageId>().is_err();
    let image = named.into_iter().chain([listed.image.as_str()]).find(is_name).unwrap_or_default().to_owned();
    let image_id = container.and_then(|container| container.image_id.parse().ok().or_else(|| container.image.parse().ok()));
    let namespace = known.pod_of(&listed.id).map(|pod| pod.namespace.clone()).filter(|namespace| !namespace.is_empty());
    let workload = known.workload_of(&listed.id);
    let revision = known.pod_of(&listed.id).and_then(|pod| pod.revision.clone());
    (Asked { name: image.parse().ok(), image, namespace, workload, was_let_pass: false, revision, ..Asked::default() }, image_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: Kind, refusal: Option<(&str, &str)>) -> Bypass {
        Bypass {
            at: 0,
            kind,
            namespace: "moby".to_owned(),
            id: "the-id".to_owned(),
            pod_namespace: String::new(),
            pod: String::new(),
            container: String::new(),
            image: "the-image".to_owned(),
            refusal: refusal.map(|(code, why)| (code.to_owned(), why.to_owned())),
            action: Action::Reported,
        }
    }

    #[test]
    fn what_came_past_the_gate_is_recorded_with_how_it_came_and_why_it_has_no_evidence() {
        let refused = Some(("CS-UNKNOWN-ROOTFS", "nothing that was verified has these files"));
        for (kind, refusal, reason, named) in [
            (
                Kind::Container,
                refused,
                "a container was made past the gate; nothing that was verified has these files (CS-UNKNOWN-ROOTFS)",
                ("the-image", Some("the-id")),
            ),
            (Kind::Task, None, "a task was started past the gate; its image has valid evidence", ("the-image", Some("the-id"))),
            (
                Kind::OtherNamespace,
                None,
                "a container was made in another namespace of containerd, which the gate does not serve: moby",
                ("the-image", Some("the-id")),
            ),
            (
                Kind::Image,
                refused,
                "an image record was written past the gate that does not lead to what is signed for its name: it leads to the-image; \
                 nothing that was verified has these files (CS-UNKNOWN-ROOTFS)",
                ("the-id", None),
            ),
        ] {
            let seen = seen(kind, refusal);
            let call = call_of(&seen);
            assert_eq!(reason_of(&seen), reason);
            assert_eq!((call.image, call.container, call.method, call.namespace), (named.0, named.1, "Watch", None));
        }
    }

    fn known(container: PodContainer) -> Known {
        let pods = [("s".to_owned(), Pod { namespace: "shop".to_owned(), name: "web-1".to_owned(), ..Pod::default() })].into();
        Known { pods, containers: [("c".to_owned(), container)].into() }
    }

    #[test]
    fn a_container_is_judged_for_the_name_that_the_pod_gave_and_else_for_what_it_was_made_from() {
        let id = format!("sha256:{}", "ab".repeat(32));
        let listed = Listed { id: "c".to_owned(), image: "r.test/record:1".to_owned(), ..Listed::default() };
        let container = |named: &str, image: &str| PodContainer {
            id: "c".to_owned(),
            sandbox_id: "s".to_owned(),
            named: named.to_owned(),
            image: image.to_owned(),
            image_id: id.clone(),
            ..PodContainer::default()
        };
        for (named, image, expected) in
            [("r.test/pod:1", id.as_str(), "r.test/pod:1"), ("", "r.test/cri:1", "r.test/cri:1"), ("", id.as_str(), "r.test/record:1")]
        {
            let (asked, image_id) = asked_of(&listed, &known(container(named, image)));
            assert_eq!((asked.image.as_str(), asked.namespace.as_deref()), (expected, Some("shop")));
            assert_eq!(image_id.map(|id| id.to_string()), Some(id.clone()));
        }
        let (asked, image_id) = asked_of(&Listed { id: "other".to_owned(), ..listed }, &known(PodContainer::default()));
        assert_eq!((asked.image.as_str(), asked.namespace, image_id), ("r.test/record:1", None, None));
    }
}
