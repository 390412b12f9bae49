//! What was heard of and is still to be looked at.

use std::collections::HashMap;
use std::time::Duration;

use countersign_trust::name::ImageId;
use tokio::time::Instant;

use crate::containerd::{Event, Happened};

/// More than a node brings to life while containerd is asked about one. What does not fit is found by the next look at
/// everything.
const MAX_PENDING: usize = 4096;
/// A container is looked at after this time if it is not started before: its create is answered by then, as a rule, and what the gate
/// has let be made needs no look. containerd is asked for all pods of the node to tell whether something else is a sandbox.
const CREATED_WAITS: Duration = Duration::from_millis(250);
/// A record is looked at after this time, and one that is named by an image ID again when it is not good then: a pull writes its
/// records before the image is on record here.
const RECORD_WAITS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

/// Something that is looked at once, however often it was heard of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// A container, by namespace and ID.
    Container(String, String),
    /// An image record, by namespace and name.
    Record(String, String),
}

/// When it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) due: Instant,
    /// When it was first heard of.
    pub(super) heard: Instant,
    /// Its task was started.
    pub(super) was_started: bool,
    /// How often it was looked at.
    pub(super) looks: usize,
}

/// What is still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Pending(HashMap<Subject, Plan>);

impl Pending {
    /// Takes up what an event tells of. False if there is no room.
    pub(super) fn hear(&mut self, event: Event, now: Instant) -> bool {
        let (subject, due, was_started) = match event.what {
            Happened::ContainerCreated(id) => (Subject::Container(event.namespace, id), now + CREATED_WAITS, false),
            Happened::TaskStarted(id) => (Subject::Container(event.namespace, id), now, true),
            Happened::ImageWritten(name) => {
                let wait = RECORD_WAITS.first().copied().unwrap_or_default();
                (Subject::Record(event.namespace, name), now + wait, false)
            }
        };
        self.plan(subject, due, was_started, now)
    }

    /// Takes up a container that was found. False if there is no room.
    pub(super) fn find(&mut self, namespace: &str, id: &str, now: Instant) -> bool {
        self.plan(Subject::Container(namespace.to_owned(), id.to_owned()), now, false, now)
    }

    fn plan(&mut self, subject: Subject, due: Instant, was_started: bool, now: Instant) -> bool {
        if let Some(plan) = self.0.get_mut(&subject) {
            plan.was_started |= was_started;
            plan.due = plan.due.min(due);
            return true;
        }
        let has_room = self.0.len() < MAX_PENDING;
        if has_room {
            self.0.insert(subject, Plan { due, heard: now, was_started, looks: 0 });
        }
        has_room
    }

    /// Takes out what is due at `now`, first what was heard of first.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Subject, Plan)> {
        let mut due: Vec<(Subject, Plan)> = self.0.extract_if(|_, plan| plan.due <= now).collect();
        due.sort_by_key(|(_, plan)| plan.heard);
        due
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|plan| plan.due).min()
    }

    /// Looks at it again after `wait`.
    pub(super) fn again(&mut self, subject: Subject, plan: Plan, wait: Duration, now: Instant) {
        let plan = Plan { due: now + wait, looks: plan.looks.saturating_add(1), ..plan };
        let known = self.0.entry(subject).or_insert(plan);
        known.was_started |= plan.was_started;
        known.heard = known.heard.min(plan.heard);
    }
}

/// After which time a record of this name is looked at again that was not good when it had been looked at `looks` times before.
/// None: it was looked at often enough. What a reference may mean is known before its pull, and does not change by it.
pub(super) fn record_wait(name: &str, looks: usize) -> Option<Duration> {
    name.parse::<ImageId>().ok()?;
    RECORD_WAITS.get(looks.saturating_add(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: Happened) -> Event {
        Event { namespace: "k8s.io".to_owned(), what }
    }

    #[test]
    fn a_task_is_looked_at_at_once_and_a_container_and_a_record_after_a_moment() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        assert!(pending.hear(event(Happened::ImageWritten("r.test/a:1".to_owned())), now));
        assert!(pending.hear(event(Happened::ContainerCreated("c".to_owned())), now));
        assert_eq!((pending.take_due(now).len(), pending.next_due()), (0, Some(now + CREATED_WAITS)));
        assert!(pending.hear(event(Happened::TaskStarted("c".to_owned())), now));
        let due = pending.take_due(now);
        assert_eq!(due.len(), 1, "one container");
        assert!(due[0].1.was_started);
        assert_eq!(pending.next_due(), Some(now + RECORD_WAITS[0]));
        assert_eq!(pending.take_due(now + RECORD_WAITS[0]).len(), 1);
        assert_eq!(pending.next_due(), None);
    }

    #[test]
    fn what_is_looked_at_again_keeps_when_it_was_first_heard_of() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        pending.find("k8s.io", "c", now);
        let (subject, plan) = pending.take_due(now).remove(0);
        let later = now + Duration::from_secs(5);
        pending.again(subject, plan, Duration::from_secs(1), later);
        let (_, plan) = pending.take_due(later + Duration::from_secs(1)).remove(0);
        assert_eq!((plan.heard, plan.looks), (now, 1));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        for number in 0..MAX_PENDING {
            assert!(pending.find("k8s.io", &number.to_string(), now));
        }
        assert!(!pending.find("k8s.io", "one more", now));
        assert!(pending.find("k8s.io", "0", now), "it is known already");
    }

    #[test]
    fn a_record_of_an_image_id_is_looked_at_a_few_times() {
        let id = format!("sha256:{}", "ab".repeat(32));
        assert_eq!([0, 1, 2].map(|looks| record_wait(&id, looks)), [Some(RECORD_WAITS[1]), Some(RECORD_WAITS[2]), None]);
        assert_eq!(record_wait("r.test/a:1", 0), None);
    }
}
