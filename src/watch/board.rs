//! What is shown of what was seen.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use countersign_trust::mode::Mode;

use super::course::Kind;
use super::in_use::InUse;

/// Bypasses that are kept, the newest. All of them are counted.
pub const MAX_BYPASSES: usize = 256;
/// Containers without evidence that are shown. All of them are counted.
pub const MAX_SHOWN: usize = 1024;

/// Whether containerd's events are heard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Following {
    /// Not yet since the daemon began.
    #[default]
    NotYet,
    /// Since this moment, in seconds since the Unix epoch.
    Since(i64),
    /// Not any more, and why.
    Lost {
        /// Since when, in seconds since the Unix epoch.
        at: i64,
        /// What containerd, or the connection, said.
        why: String,
    },
}

/// What was done about something that came past the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It was told of.
    Reported,
    /// Its task was stopped.
    Stopped,
    /// Its task could not be stopped, and why.
    NotStopped(String),
}

/// Something that came past the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    /// When it was noticed, in seconds since the Unix epoch.
    pub at: i64,
    /// How it came.
    pub kind: Kind,
    /// The namespace of containerd.
    pub namespace: String,
    /// The container's ID, or the record's name.
    pub id: String,
    /// The namespace of the pod that it says it is of; empty if none.
    pub pod_namespace: String,
    /// The pod.
    pub pod: String,
    /// The container's name there.
    pub container: String,
    /// The image that it says it runs, or what the record leads to.
    pub image: String,
    /// Why it has no valid evidence, with its code. None: it has, or that was not asked.
    pub refusal: Option<(String, String)>,
    /// What was done.
    pub action: Action,
}

/// A container that runs without valid evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// Its ID.
    pub id: String,
    /// The pod's namespace; empty: it is of no pod.
    pub pod_namespace: String,
    /// The pod.
    pub pod: String,
    /// Its name there.
    pub container: String,
    /// The image that it was made for, as it was named.
    pub image: String,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at: i64,
    /// When it was first seen to be without evidence, in seconds since the Unix epoch.
    pub since: i64,
    /// The code of the reason.
    pub code: String,
    /// The reason.
    pub reason: String,
    /// What the rule of its image says of such images.
    pub mode: Mode,
    /// Until when its pod may make it again all the same, in seconds since the Unix epoch: it ran before its image was enforced.
    pub until: Option<i64>,
}

/// Another namespace of containerd with containers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its name.
    pub namespace: String,
    /// How many containers it has.
    pub containers: usize,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// When it was looked at, in seconds since the Unix epoch. None: not yet.
    pub at: Option<i64>,
    /// Why it is not newer, if that was tried.
    pub failure: Option<String>,
    /// Containers of Kubernetes that run, sandboxes aside.
    pub running: usize,
    /// How many of them have valid evidence.
    pub verified: usize,
    /// How many, sandboxes with them, have none and need none, since their rule says `disabled`.
    pub exempt: usize,
    /// How many have none and go on for a while: they ran before their images were enforced.
    pub grandfathered: usize,
    /// How many, sandboxes with them, have none and would need some. Those that are shown are in `shown`.
    pub unverified: usize,
    /// Of how many it could not be found out.
    pub unknown: usize,
    /// Sandboxes of pods.
    pub sandboxes: usize,
    /// Containers without evidence, exempt ones too, the longest known first.
    pub shown: Vec<Unverified>,
    /// Other namespaces.
    pub elsewhere: Vec<Elsewhere>,
}

/// What came past the gate in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How often something did.
    pub seen: u64,
    /// How many tasks were stopped for it.
    pub stopped: u64,
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Whether events are heard.
    pub following: Following,
    /// containerd's name and version; empty as long as it has not told.
    pub containerd: String,
    /// What runs.
    pub inventory: Inventory,
    /// What came past the gate since the daemon began, the newest last.
    pub bypasses: Vec<Bypass>,
    /// How often something did.
    pub bypasses_seen: u64,
    /// The same, by how it came.
    pub bypasses_of: HashMap<Kind, Counts>,
    /// How many tasks were stopped.
    pub stopped: u64,
}

/// What is shown, as it becomes known.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) following: Following,
    pub(super) containerd: String,
    pub(super) inventory: Inventory,
    pub(super) in_use: Option<Arc<Vec<InUse>>>,
    bypasses: VecDeque<Bypass>,
    bypasses_of: HashMap<Kind, Counts>,
    /// Since when containers are known to be without evidence.
    without_evidence: HashMap<String, i64>,
}

impl Board {
    pub(super) fn seen(&self) -> Seen {
        Seen {
            following: self.following.clone(),
            containerd: self.containerd.clone(),
            inventory: self.inventory.clone(),
            bypasses: self.bypasses.iter().cloned().collect(),
            bypasses_seen: self.bypasses_of.values().map(|counts| counts.seen).sum(),
            stopped: self.bypasses_of.values().map(|counts| counts.stopped).sum(),
            bypasses_of: self.bypasses_of.clone(),
        }
    }

    pub(super) fn add(&mut self, bypass: Bypass) {
        let seen = &mut self.bypasses_of.entry(bypass.kind).or_default().seen;
        *seen = seen.saturating_add(1);
        if self.bypasses.len() >= MAX_BYPASSES {
            self.bypasses.pop_front();
        }
        self.bypasses.push_back(bypass);
    }

    /// Notes what was done about something of this kind that was told of.
    pub(super) fn acted(&mut self, kind: Kind, namespace: &str, id: &str, action: &Action) {
        if *action == Action::Stopped {
            let stopped = &mut self.bypasses_of.entry(kind).or_default().stopped;
            *stopped = stopped.saturating_add(1);
        }
        let is_meant = |bypass: &&mut Bypass| bypass.namespace == namespace && bypass.id == id;
        if let Some(bypass) = self.bypasses.iter_mut().rev().find(is_meant) {
            bypass.action = action.clone();
        }
    }

    /// Since when a container is without evidence.
    pub(super) fn without_evidence_since(&mut self, id: &str, now: i64) -> i64 {
        *self.without_evidence.entry(id.to_owned()).or_insert(now)
    }

    /// Forgets since when containers were without evidence that are so no more.
    pub(super) fn keep_without_evidence(&mut self, is_so: impl Fn(&str) -> bool) {
        self.without_evidence.retain(|id, _| is_so(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bypass(id: &str) -> Bypass {
        Bypass {
            at: 0,
            kind: Kind::Container,
            namespace: "k8s.io".to_owned(),
            id: id.to_owned(),
            pod_namespace: String::new(),
            pod: String::new(),
            container: String::new(),
            image: String::new(),
            refusal: None,
            action: Action::Reported,
        }
    }

    #[test]
    fn the_newest_bypasses_are_kept_and_all_are_counted() {
        let mut board = Board::default();
        for number in 0..MAX_BYPASSES + 3 {
            board.add(bypass(&number.to_string()));
        }
        board.acted(Kind::Container, "k8s.io", "10", &Action::Stopped);
        let seen = board.seen();
        assert_eq!((seen.bypasses.len(), seen.bypasses_seen, seen.stopped), (MAX_BYPASSES, (MAX_BYPASSES + 3) as u64, 1));
        assert_eq!(seen.bypasses_of, [(Kind::Container, Counts { seen: seen.bypasses_seen, stopped: 1 })].into());
        assert_eq!(seen.bypasses[0].id, "3");
        let acted: Vec<&str> =
            seen.bypasses.iter().filter(|bypass| bypass.action == Action::Stopped).map(|bypass| bypass.id.as_str()).collect();
        assert_eq!(acted, ["10"]);
    }

    #[test]
    fn it_is_kept_since_when_a_container_is_without_evidence() {
        let mut board = Board::default();
        assert_eq!(board.without_evidence_since("a", 10), 10);
        assert_eq!(board.without_evidence_since("a", 20), 10);
        board.keep_without_evidence(|id| id != "a");
        assert_eq!(board.without_evidence_since("a", 30), 30);
    }
}
