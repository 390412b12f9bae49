//! Containers that ran before their images were enforced, and what configurations said of modes before.
//!
//! A ledger that has neither table says that nothing was let go on, which denies.

use std::collections::BTreeSet;

use countersign_trust::name::{ChainId, ImageId, ManifestDigest};
use redb::{TableDefinition, WriteTransaction};

use super::store::Store;
use super::{Effect, LedgerError, record};
use crate::crash::Step;

/// Containers that may be made again, by their workload.
const GRANDFATHERED: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("grandfathered");
/// What configurations said of modes, in the order in which they came into force first.
const MODES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("modes");

/// Containers that may be made again. A node has some hundred pods.
pub const MAX_GRANDFATHERED: usize = 4096;
/// Images of volumes of one of them, once for each name. What is on record is kept in memory, too.
pub const MAX_RAN_VOLUMES: usize = 32;
/// Configurations that differ in modes. They come from an operator's hand.
pub const MAX_MODES: usize = 1024;

/// One container of one pod. Its name and the pod's UID are the same however often it is restarted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The UID of the pod.
    pub pod_uid: String,
    /// The name of the container in it.
    pub container: String,
}

impl Workload {
    /// No UID has a line break.
    fn key(&self) -> String {
        format!("{}\n{}", self.pod_uid, self.container)
    }
}

/// What a container was made from, by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RanContent {
    /// What the image's record led to: an index or a manifest.
    pub target: ManifestDigest,
    /// The manifest.
    pub manifest: ManifestDigest,
    /// The config.
    pub image_id: ImageId,
    /// The root file system.
    pub chain_id: ChainId,
}

/// An image that a container saw in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RanVolume {
    /// A name of it, for whoever asks for it by that; empty if none is known.
    pub image: String,
    /// What it is.
    pub content: RanContent,
}

/// A container that ran before its image was enforced. Its pod may make it again, of the same content, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grandfathered {
    /// Which.
    pub workload: Workload,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The image, as the pod names it.
    pub image: String,
    /// What it runs.
    pub content: RanContent,
    /// That image had valid evidence: it is judged as everybody's, and only its volumes had none.
    pub is_verified: bool,
    /// What it sees in its image volumes without valid evidence.
    pub volumes: Vec<RanVolume>,
    /// When it was taken down, in seconds since the Unix epoch.
    pub taken_at: i64,
    /// From when on it is like any other, in seconds since the Unix epoch.
    pub until: i64,
    /// Who let it go on, and why.
    pub by: String,
}

impl Grandfathered {
    /// Everything that it may be made of without valid evidence, with what each image is called.
    pub fn lenient(&self) -> impl Iterator<Item = (&str, &RanContent)> {
        let root = (!self.is_verified).then_some((self.image.as_str(), &self.content));
        root.into_iter().chain(self.volumes.iter().map(|volume| (volume.image.as_str(), &volume.content)))
    }

    /// Whether it had ended when one of `more` was taken down.
    fn makes_room_for(&self, more: &[Self]) -> bool {
        more.iter().any(|later| self.until <= later.taken_at)
    }
}

impl Store {
    pub(super) fn grandfathered(&self) -> Result<Vec<Grandfathered>, LedgerError> {
        let mut all = Vec::new();
        self.each_if_any(GRANDFATHERED, |key, sealed| {
            let read = record::open(key.as_bytes(), sealed).and_then(record::decode_grandfathered);
            let grandfathered = read.map_err(|why| self.damaged("a container that may be made again", &why))?;
            all.push(grandfathered);
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn modes(&self) -> Result<Vec<String>, LedgerError> {
        let mut all = Vec::new();
        self.each_if_any(MODES, |number, sealed| {
            let read = record::open(&number.to_be_bytes(), sealed).and_then(record::decode_text);
            all.push(read.map_err(|why| self.damaged("the modes of an earlier configuration", &why))?);
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn store_modes(&mut self, modes: &str, grandfathered: &[Grandfathered]) -> Result<(), LedgerError> {
        let before = self.modes()?;
        refuse_over("the configurations that differ in modes", before.len() + 1, MAX_MODES)?;
        let effect = Effect::Admit(grandfathered.to_vec());
        self.refuse_too_many_grandfathered(&effect)?;
        let number = before.len() as u64;
        let sealed = record::seal(&number.to_be_bytes(), modes.as_bytes());
        self.commit(Step::RefreshCommitted, |transaction| {
            transaction.open_table(MODES)?.insert(number, sealed.as_slice())?;
            write(transaction, &effect)
        })
    }

    pub(super) fn refuse_too_many_grandfathered(&self, effect: &Effect) -> Result<(), LedgerError> {
        let Effect::Admit(more) = effect else { return Ok(()) };
        let lasting = self.grandfathered()?.into_iter().filter(|one| !one.makes_room_for(more));
        let mut keys: BTreeSet<String> = lasting.map(|one| one.workload.key()).collect();
        keys.extend(more.iter().map(|grandfathered| grandfathered.workload.key()));
        refuse_over("the containers that may be made again", keys.len(), MAX_GRANDFATHERED)
    }
}

fn refuse_over(what: &'static str, size: usize, limit: usize) -> Result<(), LedgerError> {
    if size <= limit { Ok(()) } else { Err(LedgerError::Full { what, size: size as u64, limit: limit as u64, largest: None }) }
}

/// Writes what an effect does to these tables.
pub(super) fn write(transaction: &WriteTransaction, effect: &Effect) -> Result<(), redb::Error> {
    match effect {
        Effect::Admit(more) => {
            let mut table = transaction.open_table(GRANDFATHERED)?;
            table.retain(|key, sealed| {
                let read = record::open(key.as_bytes(), sealed).and_then(record::decode_grandfathered);
                !read.is_ok_and(|one| one.makes_room_for(more))
            })?;
            for grandfathered in more {
                let key = grandfathered.workload.key();
                table.insert(key.as_str(), record::seal(key.as_bytes(), &record::encode_grandfathered(grandfathered)).as_slice())?;
            }
        }
        Effect::End(workloads) => {
            let mut table = transaction.open_table(GRANDFATHERED)?;
            for workload in workloads {
                table.remove(workload.key().as_str())?;
            }
        }
        Effect::Forget(_) | Effect::Replace(_) | Effect::ClockNotAfter(_) => {}
    }
    Ok(())
}
