//! Somebody with containerd's socket, who makes names mean something else, and whose timing is sometimes perfect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::TAGS;
use super::dice::Dice;
use super::kubelet::Kubelet;
use super::town::Town;
use crate::harness::cri::container;
use crate::harness::image::{Blob, Image, Recipe};

/// Between two attacks: kubelet is to run something, too.
const PAUSES: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(400)];
/// How long CRI may take until it has failed on the event of a record that leads nowhere.
const CRI_FAILS: Duration = Duration::from_millis(60);

/// One attacker.
pub(super) struct Attacker {
    /// Its pod, in which it asks the gate for containers.
    own: Kubelet,
}

impl Attacker {
    pub(super) const fn new(town: Arc<Town>, dice: Dice) -> Self {
        Self { own: Kubelet::new(town, dice) }
    }

    pub(super) async fn work(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            match self.own.dice.below(7) {
                0..=1 => self.retarget().await,
                2 => self.import_under_a_signed_name().await,
                3 => self.delete_a_record().await,
                4 => self.bring_unsigned().await,
                _ => self.ambush().await,
            }
            let [least, most] = PAUSES;
            tokio::time::sleep(self.own.dice.between(least, most)).await;
        }
    }

    fn town(&self) -> Arc<Town> {
        Arc::clone(&self.own.town)
    }

    fn evil(&mut self) -> Image {
        let town = self.town();
        self.own.dice.pick(&town.evil).0.clone()
    }

    /// A record that a pull has left: of the tag, of a digest, or of the image ID.
    fn record(&mut self) -> String {
        let town = self.town();
        let tag = self.own.dice.below(TAGS);
        let image = self.own.dice.pick(&town.images[tag]);
        self.own.dice.pick(&[town.tag(tag), town.by_digest(image), image.id().to_string(), town.guarded.0.clone()]).clone()
    }

    async fn retarget(&mut self) {
        let (record, evil) = (self.record(), self.evil());
        let moved = self.own.town.ctr.retarget(&record, evil.top()).await;
        self.own.town.account.ended("attack: retarget a record", &moved, Duration::ZERO);
    }

    /// As an import leaves it: the content is here already.
    async fn import_under_a_signed_name(&mut self) {
        let (record, evil) = (self.record(), self.evil());
        let made = self.own.town.ctr.create_record(&record, evil.top()).await;
        self.own.town.account.ended("attack: take a name", &made, Duration::ZERO);
    }

    /// Whoever removes an image by a name that was taken removes the unsigned one, with all its names.
    async fn bring_unsigned(&mut self) {
        let town = self.town();
        let (_, name) = self.own.dice.pick(&town.evil);
        let pulled = town.behind.pull(name).await;
        town.account.ended("attack: pull past the gate", &pulled, Duration::ZERO);
    }

    async fn delete_a_record(&mut self) {
        let record = self.record();
        let gone = self.own.town.ctr.delete_record(&record).await;
        self.own.town.account.ended("attack: delete a record", &gone, Duration::ZERO);
    }

    /// The records of an image are good while the gate looks, and mean another one when its create comes to containerd,
    /// whose CRI does not see that they have changed.
    async fn ambush(&mut self) {
        let town = self.town();
        let tag = self.own.dice.below(TAGS);
        let (name, evil) = (town.tag(tag), self.evil());
        if self.own.pod.is_none() {
            self.own.pod = town.pod().await;
        }
        let Some(pod) = self.own.pod.clone() else { return };
        let Ok(id) = town.call("pull signed", town.cri.pull_with(&name, None, Some(&pod.config))).await else { return };
        let Some(image) = town.images[tag].iter().find(|image| image.id().to_string() == id) else { return };
        let records = [name.clone(), town.by_digest(image), id.clone()];
        let nowhere = Recipe::prints("an image that is not here").build();
        retarget_all(&town, &records, nowhere.top()).await;
        tokio::time::sleep(CRI_FAILS).await;
        retarget_all(&town, &records, image.top()).await;
        let config = container(&id, &name);
        let own_name = config.metadata.as_ref().unwrap().name.clone();
        let (strikes, at) = (Arc::clone(&town), records.clone());
        town.relay.before(&own_name, async move {
            strikes.account.fault("records switched in the moment that counts");
            retarget_all(&strikes, &at, evil.top()).await;
        });
        if let Ok(made) = town.create("create in an ambush", &pod, config).await {
            let _ = town.call("start in an ambush", town.cri.start(&made)).await;
            town.stands_on_signed("start in an ambush", &made).await;
            town.remove(&own_name, &made).await;
        }
    }
}

async fn retarget_all(town: &Town, records: &[String], target: &Blob) {
    for record in records {
        // One of them may be gone, or containerd may be.
        let _ = town.ctr.retarget(record, target).await;
    }
}
