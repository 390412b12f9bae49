//! What the reports come to: a pure function.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ManifestDigest, Sha256};
use countersign_trust::time::UnixTime;

use super::finding::{Finding, FindingKind, Pinned, Subject};
use super::read::Unreadable;
use super::report::{NODES, PinInUse, Report};
use crate::resolve::Pin;
use crate::store::Key;

/// Evidence that ends within this time is pointed out. A timestamp lives for 14 days, and its server signs it again by itself, at
/// the latest when somebody asks for one that has run out: one that is so old is not being looked after.
pub const EVIDENCE_SOON_SECONDS: i64 = 3 * 24 * 60 * 60;
/// Findings of one kind that are kept; all are counted, and no kind takes the place of another.
pub const MAX_FINDINGS_OF_A_KIND: usize = 256;
/// Findings of one kind about the pins of one node that are kept, so that no node takes the place of the others.
const MAX_FINDINGS_OF_A_NODE: usize = 16;
/// Pins for which is compared what different nodes run: as many as a store has entries.
const MAX_COMPARED: usize = 65_536;
/// Digests that are told of for one pin.
const MAX_DIGESTS: usize = 8;
/// Clocks that differ by less are as good as equal, and so is what took so long on its way.
const CLOCK_TOLERANCE_SECONDS: i64 = 300;

/// What this node knows by itself.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Its name.
    pub own: &'a str,
    /// The digest of its configuration, which counts where as many nodes have another.
    pub config: Sha256,
    /// Its version of countersign.
    pub version: &'a str,
    /// Every pin that it holds.
    pub pins: &'a [PinSeen],
    /// What stands in the store as pins and counts for nothing here, with the reason.
    pub void: &'a [(Subject, String)],
    /// The present moment.
    pub now: UnixTime,
}

/// A pin, and what is said of its tag today.
#[derive(Debug, Clone)]
pub struct PinSeen {
    /// The pin.
    pub pin: Arc<Pin>,
    /// What this node judges of its tag now.
    pub today: Today,
}

/// What a node judges of the tag of a pin, by what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Today {
    /// It cannot tell: it holds nothing of the repository, or cannot judge now.
    Unknown,
    /// The tag is signed.
    Signed {
        /// As what.
        digest: ManifestDigest,
        /// From when on what the pin rests on is out of date. [`UnixTime::NEVER`]: never.
        ends: UnixTime,
    },
    /// It would be refused.
    Refused {
        /// The stable code of the reason.
        code: String,
        /// The reason.
        reason: String,
    },
}

/// A node, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its version of countersign.
    pub version: String,
    /// The digest of its configuration.
    pub config: Sha256,
    /// Its mode where no rule says another.
    pub mode: Mode,
    /// containerd's name and version there.
    pub containerd: String,
    /// Since when it has said the same, by its clock.
    pub since: UnixTime,
    /// For how many seconds that is.
    pub age: u64,
    /// Pins in use.
    pub pins: usize,
    /// Containers of these pins.
    pub containers: u64,
}

/// What the reports come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overview {
    /// The nodes, by name.
    pub nodes: Vec<NodeSeen>,
    /// What an operator should know, the worst first; at most [`MAX_FINDINGS_OF_A_KIND`] of each kind.
    pub findings: Vec<Finding>,
    /// How many there are of each kind.
    pub counts: BTreeMap<FindingKind, u64>,
}

impl Overview {
    /// Whether all nodes can be seen, and agree.
    #[must_use]
    pub fn all_agree(&self) -> bool {
        !self.counts.keys().any(|kind| kind.is_disagreement())
    }
}

/// What the reports come to. They are read one after the other, in any order, and none is kept.
#[must_use]
pub fn overview(reports: impl IntoIterator<Item = Result<Report, Unreadable>>, given: Given<'_>) -> Overview {
    let mut gathering = Gathering::new(given);
    for (subject, why) in given.void {
        gathering.find(Finding::Void { subject: subject.clone(), why: why.clone() });
    }
    for report in reports {
        match report {
            Ok(report) => gathering.add(report),
            Err(unreadable) => gathering.find(Finding::Unreadable(unreadable)),
        }
    }
    gathering.finish()
}

/// What is kept of the reports.
struct Gathering<'a> {
    given: Given<'a>,
    /// The pins that this node holds, by where they stand.
    held: HashMap<Key, &'a PinSeen>,
    nodes: Vec<NodeSeen>,
    /// What runs for each pin.
    runs: HashMap<Key, Runs>,
    /// There were more pins than are compared.
    is_cut: bool,
    kept: BTreeMap<FindingKind, Vec<Finding>>,
    counts: BTreeMap<FindingKind, u64>,
}

/// What runs for one pin: each digest with the place of the first node that runs it, and on how many nodes.
struct Runs {
    subject: Subject,
    digests: Vec<(ManifestDigest, usize, u64)>,
}

impl<'a> Gathering<'a> {
    fn new(given: Given<'a>) -> Self {
        let key = |seen: &'a PinSeen| Some((Pin::key(&seen.pin.revision, &seen.pin.image)?, seen));
        let held = given.pins.iter().filter_map(key).collect();
        let (kept, counts) = (BTreeMap::new(), BTreeMap::new());
        Self { given, held, nodes: Vec::new(), runs: HashMap::new(), is_cut: false, kept, counts }
    }

    fn find(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.kind()).or_default();
        *count = count.saturating_add(1);
        let kept = self.kept.entry(finding.kind()).or_default();
        // Findings about one node come one after the other.
        let of_this_node = kept.iter().rev().take_while(|other| other.node().is_some() && other.node() == finding.node()).count();
        if kept.len() < MAX_FINDINGS_OF_A_KIND && of_this_node < MAX_FINDINGS_OF_A_NODE {
            kept.push(finding);
        }
    }

    fn add(&mut self, report: Report) {
        let Report { node, version, config, mode, since, containerd, in_use, left_out } = report;
        let age = self.given.now.seconds().saturating_sub(since.seconds());
        if age < -CLOCK_TOLERANCE_SECONDS {
            self.find(Finding::Clock { node: node.clone(), ahead: age.saturating_neg() });
        }
        if left_out > 0 {
            self.find(Finding::LeftOut { node: node.clone(), pins: left_out });
        }
        let containers = in_use
            .iter()
            .map(|pin| pin.others.iter().map(|other| u64::from(other.containers)).sum::<u64>() + u64::from(pin.containers))
            .sum();
        let (name, age, pins) = (node.clone(), u64::try_from(age).unwrap_or_default(), in_use.len());
        self.nodes.push(NodeSeen { name, version, config, mode, containerd, since, age, pins, containers });
        for pin in in_use {
            self.compare(&node, pin);
        }
    }

    /// Compares one pin of a node with what is held here, and with what other nodes run.
    fn compare(&mut self, node: &str, pin: PinInUse) {
        let PinInUse { revision, image, generation, digest, containers, others } = pin;
        let Some(key) = Pin::key(&revision, &image) else { return };
        let subject = Subject { revision, image };
        let there = Pinned { digest, generation };
        let here = self.held.get(&key).map(|seen| Pinned { digest: seen.pin.meaning.digest, generation: seen.pin.generation });
        if here != Some(there) {
            self.find(Finding::OtherPin { node: node.to_owned(), subject: subject.clone(), there, here });
        }
        let pinned = here.unwrap_or(there).digest;
        let run = std::iter::once((digest, containers)).chain(others.iter().map(|other| (other.digest, other.containers)));
        for (digest, containers) in run.filter(|(_, containers)| *containers > 0) {
            if digest != pinned {
                let (node, subject) = (node.to_owned(), subject.clone());
                self.find(Finding::RunsOther { node, subject, digest, containers, pinned });
            }
            self.note_runs(&key, &subject, digest);
        }
    }

    fn note_runs(&mut self, key: &Key, subject: &Subject, digest: ManifestDigest) {
        let node = self.nodes.len().saturating_sub(1);
        if self.runs.len() >= MAX_COMPARED && !self.runs.contains_key(key) {
            self.is_cut = true;
            return;
        }
        let runs = self.runs.entry(key.clone()).or_insert_with(|| Runs { subject: subject.clone(), digests: Vec::new() });
        if let Some((_, _, nodes)) = runs.digests.iter_mut().find(|(known, _, _)| *known == digest) {
            *nodes = nodes.saturating_add(1);
        } else if runs.digests.len() < MAX_DIGESTS {
            runs.digests.push((digest, node, 1));
        }
    }

    fn finish(mut self) -> Overview {
        if !self.nodes.iter().any(|node| node.name == self.given.own) {
            self.find(Finding::Untold { node: self.given.own.to_owned() });
        }
        if self.is_cut {
            let why = format!("the nodes tell of more than {MAX_COMPARED} pins, and not all of them were compared");
            self.find(Finding::Unreadable(Unreadable { key: format!("{NODES}/"), why }));
        }
        self.find_apart();
        self.find_drift();
        self.find_prospects();
        let mut nodes = self.nodes;
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Overview { nodes, findings: self.kept.into_values().flatten().collect(), counts: self.counts }
    }

    /// Revisions of which nodes run different digests.
    fn find_apart(&mut self) {
        let mut apart: Vec<(Key, Runs)> = std::mem::take(&mut self.runs).into_iter().filter(|(_, runs)| runs.digests.len() > 1).collect();
        apart.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (_, Runs { subject, digests }) in apart {
            let name = |place: usize| self.nodes.get(place).map(|node| node.name.clone()).unwrap_or_default();
            let digests = digests.into_iter().map(|(digest, place, nodes)| (digest, name(place), nodes)).collect();
            self.find(Finding::Apart { subject, digests });
        }
    }

    /// Nodes that are not as most are.
    fn find_drift(&mut self) {
        let Some(config) = majority(self.nodes.iter().map(|node| node.config), self.given.config) else { return };
        let versions = self.nodes.iter().map(|node| node.version.as_str());
        let version = majority(versions, self.given.version).unwrap_or_default().to_owned();
        let nodes = std::mem::take(&mut self.nodes);
        for NodeSeen { name, config: its_config, version: its_version, .. } in &nodes {
            if *its_config != config {
                self.find(Finding::Config { node: name.clone(), config: *its_config, majority: config });
            }
            if *its_version != version {
                self.find(Finding::Version { node: name.clone(), version: its_version.clone(), majority: version.clone() });
            }
        }
        self.nodes = nodes;
    }

    /// What is to come of the pins that are held here.
    fn find_prospects(&mut self) {
        let mut pins: Vec<(Subject, &PinSeen)> = self.given.pins.iter().map(|seen| (subject_of(&seen.pin), seen)).collect();
        pins.sort_by(|(one, _), (other, _)| (&one.revision, &one.image).cmp(&(&other.revision, &other.image)));
        for (subject, PinSeen { pin, today }) in pins {
            match today {
                Today::Unknown => {}
                Today::Refused { code, reason } => {
                    self.find(Finding::Refused { subject, code: code.clone(), reason: reason.clone() });
                }
                Today::Signed { digest, ends } => {
                    if *ends < self.given.now.plus_seconds(EVIDENCE_SOON_SECONDS) {
                        let (subject, has_ended) = (subject.clone(), *ends <= self.given.now);
                        self.find(Finding::EvidenceEnds { subject, ends: *ends, has_ended });
                    }
                    if *digest != pin.meaning.digest {
                        self.find(Finding::Update { subject, pinned: pin.meaning.digest, signed: *digest });
                    }
                }
            }
        }
    }
}

fn subject_of(pin: &Pin) -> Subject {
    Subject { revision: pin.revision.clone(), image: pin.image.clone() }
}

/// What most have; `own` where as many have something else. None of nothing.
fn majority<T: Ord + Copy>(all: impl Iterator<Item = T>, own: T) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(one, count)| (*count, *one == own)).map(|(one, _)| one)
}

#[cfg(test)]
mod tests;
