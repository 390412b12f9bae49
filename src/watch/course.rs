//! What is done about a container that was heard of. Pure, so that every case can be tried.

use std::time::Duration;

use countersign_trust::mode::Mode;

/// A create may stay unanswered for as long as kubelet waits for one (2 minutes), and as long again; then what was made is told
/// of all the same.
pub(super) const LONGEST_CREATE: Duration = Duration::from_secs(240);
/// A sandbox is not shown by CRI before it runs, for which kubelet waits 4 minutes.
pub(super) const LONGEST_SANDBOX: Duration = Duration::from_secs(300);

/// What is done about what came past the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBypass {
    /// It is reported.
    #[default]
    Report,
    /// It is reported, and if it has no valid evidence its task is stopped.
    Stop,
}

/// What is known of a container that was heard of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sighting {
    /// It is in CRI's namespace.
    pub(super) is_kubernetes: bool,
    /// The gate has let it be made.
    pub(super) created_here: bool,
    /// Its task was started, as far as is known.
    pub(super) was_started: bool,
    /// The gate has let it be started.
    pub(super) started_here: bool,
    /// CRI shows it as the sandbox of a pod.
    pub(super) is_sandbox: bool,
    /// It says so itself.
    pub(super) claims_sandbox: bool,
    /// It says that it is in a sandbox in which the gate waits for the answer to a create.
    pub(super) create_is_unanswered: bool,
    /// It was made before this node began to keep a record.
    pub(super) is_older: bool,
    /// For how long it has been known.
    pub(super) known_for: Duration,
}

/// How something came past the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A container that the gate did not let be made.
    Container,
    /// A task that the gate did not let be started.
    Task,
    /// A container in a namespace that no kubelet looks at.
    OtherNamespace,
    /// An image record that does not lead to what is signed for its name.
    Image,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Container, Self::Task, Self::OtherNamespace, Self::Image];

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Container => "CS-BYPASS-CONTAINER",
            Self::Task => "CS-BYPASS-TASK",
            Self::OtherNamespace => "CS-BYPASS-NAMESPACE",
            Self::Image => "CS-BYPASS-IMAGE",
        }
    }

    /// What it says.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Container => "a container was made past the gate",
            Self::Task => "a task was started past the gate",
            Self::OtherNamespace => "a container was made in another namespace of containerd, which the gate does not serve",
            Self::Image => "an image record was written past the gate that does not lead to what is signed for its name",
        }
    }
}

/// What becomes of a container that was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It cannot be told yet whether the gate has to do with it.
    Wait,
    /// It is nothing to wonder about.
    Nothing,
    /// It came past the gate.
    PastTheGate(Kind),
}

/// What becomes of it.
pub(super) fn course(sighting: Sighting) -> Course {
    let Sighting { is_kubernetes, created_here, was_started, started_here, is_sandbox, is_older, .. } = sighting;
    if is_older {
        return Course::Nothing;
    }
    if !is_kubernetes {
        return Course::PastTheGate(Kind::OtherNamespace);
    }
    if is_sandbox {
        return Course::Nothing;
    }
    if created_here {
        return if was_started && !started_here { Course::PastTheGate(Kind::Task) } else { Course::Nothing };
    }
    if sighting.create_is_unanswered && sighting.known_for < LONGEST_CREATE {
        return Course::Wait;
    }
    // CRI shows a sandbox when it runs. One that claims to be a sandbox for longer than that takes is none.
    if sighting.claims_sandbox && sighting.known_for < LONGEST_SANDBOX {
        return Course::Wait;
    }
    Course::PastTheGate(Kind::Container)
}

/// Whether a container has valid evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It has.
    Valid,
    /// It has not.
    Missing,
    /// That could not be found out.
    Unknown,
}

/// What is known of a task that came past the gate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) kind: Kind,
    pub(super) proof: Proof,
    /// What the rule of its image says.
    pub(super) mode: Mode,
    pub(super) create_is_unanswered: bool,
}

/// Whether a task that came past the gate is to be stopped.
pub(super) fn is_to_be_stopped(on_bypass: OnBypass, running: Running) -> bool {
    let Running { kind, proof, mode, create_is_unanswered } = running;
    let is_of_kubernetes = match kind {
        Kind::Container | Kind::Task => true,
        Kind::OtherNamespace | Kind::Image => false,
    };
    on_bypass == OnBypass::Stop && is_of_kubernetes && proof == Proof::Missing && mode == Mode::Enforced && !create_is_unanswered
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAST: Sighting = Sighting {
        is_kubernetes: true,
        created_here: false,
        was_started: true,
        started_here: false,
        is_sandbox: false,
        claims_sandbox: false,
        create_is_unanswered: false,
        is_older: false,
        known_for: Duration::ZERO,
    };

    #[test]
    fn what_the_gate_did_not_let_be_made_came_past_it() {
        assert_eq!(course(PAST), Course::PastTheGate(Kind::Container));
        assert_eq!(course(Sighting { is_kubernetes: false, ..PAST }), Course::PastTheGate(Kind::OtherNamespace));
        assert_eq!(course(Sighting { created_here: true, ..PAST }), Course::PastTheGate(Kind::Task));
    }

    #[test]
    fn what_came_through_is_older_or_is_a_sandbox_is_nothing_to_wonder_about() {
        for sighting in [
            Sighting { created_here: true, started_here: true, ..PAST },
            Sighting { created_here: true, was_started: false, ..PAST },
            Sighting { is_older: true, ..PAST },
            Sighting { is_older: true, is_kubernetes: false, ..PAST },
            Sighting { is_sandbox: true, ..PAST },
        ] {
            assert_eq!(course(sighting), Course::Nothing, "{sighting:?}");
        }
    }

    #[test]
    fn an_unanswered_create_and_a_claim_to_be_a_sandbox_are_waited_for_and_not_for_ever() {
        for (waiting, limit) in [
            (Sighting { create_is_unanswered: true, ..PAST }, LONGEST_CREATE),
            (Sighting { claims_sandbox: true, ..PAST }, LONGEST_SANDBOX),
        ] {
            let just_before = limit - Duration::from_millis(1);
            assert_eq!(course(Sighting { known_for: just_before, ..waiting }), Course::Wait, "{waiting:?}");
            assert_eq!(course(Sighting { known_for: limit, ..waiting }), Course::PastTheGate(Kind::Container), "{waiting:?}");
        }
    }

    #[test]
    fn only_an_enforced_image_without_valid_evidence_is_stopped() {
        let running = Running { kind: Kind::Container, proof: Proof::Missing, mode: Mode::Enforced, create_is_unanswered: false };
        assert!(is_to_be_stopped(OnBypass::Stop, running));
        assert!(is_to_be_stopped(OnBypass::Stop, Running { kind: Kind::Task, ..running }));
        assert!(!is_to_be_stopped(OnBypass::Report, running));
        for other in [
            Running { proof: Proof::Valid, ..running },
            Running { proof: Proof::Unknown, ..running },
            Running { mode: Mode::Permissive, ..running },
            Running { mode: Mode::Disabled, ..running },
            Running { create_is_unanswered: true, ..running },
            Running { kind: Kind::OtherNamespace, ..running },
            Running { kind: Kind::Image, ..running },
        ] {
            assert!(!is_to_be_stopped(OnBypass::Stop, other), "{other:?}");
        }
    }
}
