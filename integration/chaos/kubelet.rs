//! Workers that do what kubelet does, for images that are signed and for images that are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::account::{Fate, Invariant};
use super::dice::Dice;
use super::town::Town;
use super::{TAGS, VERSIONS};
use crate::harness::cri::{Pod, container};

/// Containers that one worker leaves running.
const KEPT: usize = 3;
/// After an action, so that a node that refuses everything is not only asked.
const BREATH: Duration = Duration::from_millis(20);

/// One worker with a pod of its own.
pub(super) struct Kubelet {
    pub(super) town: Arc<Town>,
    pub(super) dice: Dice,
    pub(super) pod: Option<Pod>,
    /// Name and ID.
    pub(super) containers: Vec<(String, String)>,
}

impl Kubelet {
    pub(super) const fn new(town: Arc<Town>, dice: Dice) -> Self {
        Self { town, dice, pod: None, containers: Vec::new() }
    }

    pub(super) async fn work(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            if self.pod.is_none() {
                self.pod = self.town.pod().await;
            }
            match self.dice.below(20) {
                0..=8 => self.run_signed().await,
                9..=10 => self.run_guarded().await,
                11..=12 => self.pull_unsigned().await,
                13..=14 => self.create_unsigned().await,
                15..=16 => self.start_unsigned().await,
                17 => self.remove_image().await,
                18 => self.forget_pod().await,
                _ => self.run_by_name().await,
            }
            while self.containers.len() > KEPT {
                let (name, id) = self.containers.remove(0);
                self.town.remove(&name, &id).await;
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn run_signed(&mut self) {
        let tag = self.dice.below(TAGS);
        let name =
            if self.dice.once_in(4) { self.town.by_digest(&self.town.images[tag][self.dice.below(VERSIONS)]) } else { self.town.tag(tag) };
        self.pull_and_run(&name).await;
    }

    async fn run_guarded(&mut self) {
        let name = self.town.guarded.0.clone();
        self.pull_and_run(&name).await;
    }

    async fn pull_and_run(&mut self, name: &str) {
        let (town, began) = (Arc::clone(&self.town), self.town.account.weather());
        let Some(pod) = self.pod.clone() else { return };
        let Ok(id) = town.call("pull signed", town.cri.pull_with(name, None, Some(&pod.config))).await else { return };
        town.was_allowed("pull signed", name, began);
        self.create_and_start("create signed", &id, name).await;
    }

    /// Without a look at the name before: whatever it means now.
    async fn run_by_name(&mut self) {
        let name = self.town.tag(self.dice.below(TAGS));
        self.create_and_start("create by name", &name, &name).await;
    }

    async fn create_and_start(&mut self, action: &'static str, image: &str, name: &str) {
        let (town, began) = (Arc::clone(&self.town), self.town.account.weather());
        let Some(pod) = self.pod.clone() else { return };
        let config = container(image, name);
        let own_name = config.metadata.as_ref().unwrap().name.clone();
        let Ok(created) = town.create(action, &pod, config).await else { return };
        town.was_allowed(action, name, began);
        self.containers.push((own_name, created.clone()));
        let began = town.account.weather();
        if town.call("start signed", town.cri.start(&created)).await.is_ok() {
            town.was_allowed("start signed", name, began);
            town.stands_on_signed("start signed", &created).await;
        }
    }

    async fn pull_unsigned(&mut self) {
        let (_, name) = self.dice.pick(&self.town.evil).clone();
        if self.town.call("pull unsigned", self.town.cri.pull(&name)).await.is_ok() {
            self.town.account.breach(Invariant::OnlySignedRuns, format!("{name} was pulled"));
        }
    }

    /// The unsigned image is on the node. The pod may say that it is a signed one, or nothing.
    async fn create_unsigned(&mut self) {
        let Some(pod) = self.pod.clone() else { return };
        let (image, own) = self.dice.pick(&self.town.evil).clone();
        let names = [own, String::new(), self.town.tag(self.dice.below(TAGS)), self.town.guarded.0.clone()];
        let named = self.dice.pick(&names).clone();
        let config = container(&image.id().to_string(), &named);
        if let Ok(id) = self.town.create("create unsigned", &pod, config).await {
            self.town.account.breach(Invariant::OnlySignedRuns, format!("{id} was created of an unsigned image"));
        }
    }

    /// Somebody with containerd's socket has made the container; it is to be started through the gate.
    async fn start_unsigned(&mut self) {
        let Some(pod) = self.pod.clone() else { return };
        let (image, _) = self.dice.pick(&self.town.evil).clone();
        let config = container(&image.id().to_string(), &self.town.tag(self.dice.below(TAGS)));
        let name = config.metadata.as_ref().unwrap().name.clone();
        self.town.account.fate(&name, Fate::Broken);
        let Ok(id) = self.town.behind.create(&pod, config).await else { return };
        // By its content: a name of the image may have been mended meanwhile, so that it was made of the signed one.
        if self.town.call("start unsigned", self.town.cri.start(&id)).await.is_ok() {
            self.town.stands_on_signed("start unsigned", &id).await;
        }
        // Some stay for the end of the run, where they still must not start.
        if !self.dice.once_in(4) {
            self.town.remove(&name, &id).await;
        }
    }

    async fn remove_image(&mut self) {
        let name = self.town.tag(self.dice.below(TAGS));
        let _ = self.town.call("remove an image", self.town.cri.remove_image(&name)).await;
    }

    /// The pod goes with its containers.
    async fn forget_pod(&mut self) {
        let Some(pod) = self.pod.take() else { return };
        for (name, id) in std::mem::take(&mut self.containers) {
            self.town.remove(&name, &id).await;
        }
        if self.town.call("remove a sandbox", self.town.cri.remove_pod(&pod)).await.is_ok() {
            self.town.account.fate(&pod.config.metadata.as_ref().unwrap().name, Fate::Removed);
        }
    }
}
