//! Looking at everything: what runs, judged by today's policy, and what no event told of.

use std::collections::HashSet;
use std::sync::Arc;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, shown};
use tokio::time::Instant;

use super::Watch;
use super::board::{Elsewhere, Inventory, MAX_SHOWN, Unverified};
use super::consider::Known;
use super::follow::Round;
use super::in_use::Tally;
use crate::admit::{Asked, Refusal, chain};
use crate::containerd::{ContainerdError, Listed, NAMESPACE};

/// Other namespaces of containerd that are looked at.
const MAX_NAMESPACES: usize = 64;

/// What stands in place of a container's name for the sandbox itself.
const SANDBOX: &str = "(sandbox)";

/// A container that runs.
struct Runs {
    id: String,
    created_at: i64,
    /// Namespace and name of the pod, and its own name.
    names: (String, String, String),
    asked: Asked,
    image_id: Option<ImageId>,
    may_show_images: bool,
}

impl Watch {
    /// Looks at everything. What is found that came past the gate is told of, as if it had just been heard of.
    pub(super) async fn look_at_everything(&self, round: &mut Round) {
        let verifies = self.admit.verifies();
        if let Some(now) = self.now() {
            round.book.gate_verifies(verifies, now);
        }
        let looked = self.look_through(round).await;
        let failure = looked.as_ref().err().map(|error| chain(error));
        self.with_board(|board| match looked {
            Ok(inventory) => board.inventory = inventory,
            Err(_) => board.inventory.failure = failure,
        });
        self.consider_due(round).await;
    }

    async fn look_through(&self, round: &mut Round) -> Result<Inventory, ContainerdError> {
        let (version, known, listed, namespaces) = tokio::try_join!(
            self.containerd.version(),
            self.known(),
            self.containerd.containers_of(NAMESPACE),
            self.containerd.namespaces()
        )?;
        self.with_board(|board| board.containerd = shown(&version));
        for container in &listed {
            self.came_through(round, &container.id);
            self.forget_used_again(round, container);
        }
        let there: HashSet<&str> = listed.iter().map(|container| container.id.as_str()).collect();
        round.book.keep_only(|id| there.contains(id));
        round.keep_starts(|id| there.contains(id));
        self.note_modes(round, &listed, &known).await;
        self.admit.keep_pins(known.pods.values().filter_map(|pod| pod.revision.clone()).collect()).await;
        self.find(round, NAMESPACE, listed.iter().filter(|container| !known.pods.contains_key(&container.id)));
        let elsewhere = self.look_elsewhere(round, namespaces).await?;
        let mut inventory = Inventory { at: self.now(), elsewhere, sandboxes: known.pods.len(), ..Inventory::default() };
        let mut tally = Tally::default();
        for runs in self.running(round, listed, &known).await? {
            self.judge_one(&mut inventory, &mut tally, runs).await;
        }
        self.with_board(|board| board.in_use = Some(Arc::new(tally.finish())));
        self.judge_sandboxes(&mut inventory, &known).await;
        self.finish(&mut inventory);
        Ok(inventory)
    }

    /// Sandboxes are of one image, of which no pod speaks.
    async fn judge_sandboxes(&self, inventory: &mut Inventory, known: &Known) {
        if !self.admit.mode().verifies() {
            return;
        }
        let Some(image) = self.image_of_sandboxes().await else {
            inventory.unknown = inventory.unknown.saturating_add(known.pods.len());
            return;
        };
        let contents = self.admit.sandbox_contents(&image).await;
        for (id, pod) in &known.pods {
            let judged = match &contents {
                // Its content was removed from the node.
                Ok(contents) if contents.is_empty() => Err(Refusal::NotPresent { image: image.to_string() }),
                Ok(contents) => self.admit.check_sandbox(id, contents).await,
                Err(refusal) => Err(refusal.clone()),
            };
            let Err(refusal) = judged else { continue };
            if !refusal.says_unverified() || matches!(refusal, Refusal::NotPresent { .. }) {
                inventory.unknown = inventory.unknown.saturating_add(1);
                continue;
            }
            let names = (shown(&pod.namespace), shown(&pod.name), SANDBOX.to_owned());
            let asked = Asked { image: image.to_string(), name: Some(image.clone()), ..Asked::default() };
            let runs = Runs { id: id.clone(), created_at: pod.created_at, names, asked, image_id: None, may_show_images: false };
            self.show(inventory, runs, &refusal, (self.admit.mode(), None));
        }
    }

    /// That a container came through says nothing of another one that has its ID by now. Kubernetes uses no ID twice.
    fn forget_used_again(&self, round: &mut Round, container: &Listed) {
        let made_at = round.book.asked_for(&container.id).and_then(|asked| asked.made_at);
        if made_at.is_some_and(|made_at| made_at != container.made_at) {
            self.admit.forget_container(&container.id);
            round.book.forget(&container.id);
        }
    }

    /// Takes up what came past the gate without an event that told of it.
    fn find<'l>(&self, round: &mut Round, namespace: &str, listed: impl Iterator<Item = &'l Listed>) {
        if !self.admit.verifies() {
            return;
        }
        for container in listed {
            let is_older = container.made_at.seconds <= round.book.since();
            let came_through = namespace == NAMESPACE && round.book.asked_for(&container.id).is_some();
            if !is_older && !came_through && !round.was_told(namespace, &container.once()) {
                round.pending.find(namespace, &container.id, Instant::now());
            }
        }
    }

    async fn look_elsewhere(&self, round: &mut Round, namespaces: Vec<String>) -> Result<Vec<Elsewhere>, ContainerdError> {
        let mut elsewhere = Vec::new();
        for namespace in namespaces.into_iter().filter(|namespace| namespace != NAMESPACE).take(MAX_NAMESPACES) {
            let listed = self.containerd.containers_of(&namespace).await?;
            self.find(round, &namespace, listed.iter());
            if !listed.is_empty() {
                elsewhere.push(Elsewhere { namespace: shown(&namespace), containers: listed.len() });
            }
        }
        Ok(elsewhere)
    }

    /// The containers of Kubernetes' namespace that run, sandboxes aside.
    async fn running(&self, round: &Round, listed: Vec<Listed>, known: &Known) -> Result<Vec<Runs>, ContainerdError> {
        let mut running = Vec::new();
        for listed in listed.into_iter().filter(|listed| !known.pods.contains_key(&listed.id)) {
            // CRI hears of no task that was started past it.
            let runs_for_cri = known.containers.get(&listed.id).is_some_and(|container| container.is_running);
            if runs_for_cri || self.containerd.task_runs(NAMESPACE, &listed.id).await? {
                let (asked, image_id) = round.asked_of(&listed, known);
                let names = known.names_of(&listed);
                let Listed { id, made_at, may_show_images, .. } = listed;
                running.push(Runs { id, created_at: made_at.seconds, names, asked, image_id, may_show_images });
            }
        }
        Ok(running)
    }

    async fn judge_one(&self, inventory: &mut Inventory, tally: &mut Tally, runs: Runs) {
        inventory.running = inventory.running.saturating_add(1);
        let judged = self.admit.judge_running(&runs.id, &runs.asked, runs.image_id).await;
        let digest = judged.as_ref().ok().map(|(admission, _)| admission.digest);
        self.tally(tally, &runs.id, &runs.asked, digest).await;
        match judged {
            Ok(_) => inventory.verified = inventory.verified.saturating_add(1),
            Err(refusal) if !refusal.says_unverified() => inventory.unknown = inventory.unknown.saturating_add(1),
            Err(refusal) => {
                let mode = self.mode_of_running(&runs.id, &runs.asked, runs.may_show_images).await;
                let until = self.admit.running_service(&runs.id, &runs.asked).await.map(|service| service.until);
                self.show(inventory, runs, &refusal, (mode, until));
            }
        }
    }

    /// Adds what runs without evidence, or would need none.
    fn show(&self, inventory: &mut Inventory, runs: Runs, refusal: &Refusal, (mode, until): (Mode, Option<i64>)) {
        let Runs { id, created_at, names: (pod_namespace, pod, container), asked, .. } = runs;
        let count = match (mode, until) {
            (Mode::Disabled, _) => &mut inventory.exempt,
            (Mode::Permissive | Mode::Enforced, Some(_)) => &mut inventory.grandfathered,
            (Mode::Permissive | Mode::Enforced, None) => &mut inventory.unverified,
        };
        *count = count.saturating_add(1);
        if inventory.shown.len() >= MAX_SHOWN {
            return;
        }
        let now = self.now().unwrap_or_default();
        inventory.shown.push(Unverified {
            since: self.with_board(|board| board.without_evidence_since(&id, now)),
            id: shown(&id),
            pod_namespace,
            pod,
            container,
            image: shown(&asked.image),
            created_at,
            code: refusal.code().to_owned(),
            reason: refusal.to_string(),
            mode,
            until,
        });
    }

    fn finish(&self, inventory: &mut Inventory) {
        inventory.shown.sort_by(|one, other| (one.since, &one.id).cmp(&(other.since, &other.id)));
        self.with_board(|board| board.keep_without_evidence(|id| inventory.shown.iter().any(|shown| shown.id == id)));
    }
}
