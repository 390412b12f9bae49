//! Named steps between which the daemon may be killed.
//!
//! With the feature `crash-points`, which no release has, `COUNTERSIGN_CRASH_AT=<step>` makes the process kill itself
//! when it comes to that step, as a power cut would. A test walks all steps.

/// Every step, in the order in which a pull, a create and a start meet them.
pub const STEPS: [Step; 14] = [
    Step::RefreshFetched,
    Step::RefreshRecorded,
    Step::PullVerified,
    Step::PullPulled,
    Step::PullImageRecorded,
    Step::PullTagWritten,
    Step::PullTagShown,
    Step::CreateAdmitted,
    Step::CreateRecordsChecked,
    Step::CreateCreated,
    Step::CreateRootFsChecked,
    Step::CreateRemoved,
    Step::StartAdmitted,
    Step::StartStarted,
];

/// A moment between two effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Trust data is accepted; nothing is on disk.
    RefreshFetched,
    /// It is on disk.
    RefreshRecorded,
    /// The image may be pulled; containerd knows nothing of it.
    PullVerified,
    /// containerd has pulled the digest.
    PullPulled,
    /// The ledger has the image.
    PullImageRecorded,
    /// The tag record is written.
    PullTagWritten,
    /// containerd's CRI shows the tag.
    PullTagShown,
    /// The container's image is admitted.
    CreateAdmitted,
    /// The image's records were checked.
    CreateRecordsChecked,
    /// containerd has created the container.
    CreateCreated,
    /// Its root file system was compared.
    CreateRootFsChecked,
    /// It was removed, since its root file system was another.
    CreateRemoved,
    /// The container may be started.
    StartAdmitted,
    /// containerd has started it.
    StartStarted,
}

impl Step {
    /// The step's name, as `COUNTERSIGN_CRASH_AT` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RefreshFetched => "refresh.fetched",
            Self::RefreshRecorded => "refresh.recorded",
            Self::PullVerified => "pull.verified",
            Self::PullPulled => "pull.pulled",
            Self::PullImageRecorded => "pull.image-recorded",
            Self::PullTagWritten => "pull.tag-written",
            Self::PullTagShown => "pull.tag-shown",
            Self::CreateAdmitted => "create.admitted",
            Self::CreateRecordsChecked => "create.records-checked",
            Self::CreateCreated => "create.created",
            Self::CreateRootFsChecked => "create.root-fs-checked",
            Self::CreateRemoved => "create.removed",
            Self::StartAdmitted => "start.admitted",
            Self::StartStarted => "start.started",
        }
    }

    /// Marks that this step was reached.
    #[cfg(not(feature = "crash-points"))]
    pub const fn reached(self) {
        let _ = self;
    }

    /// Kills the process if this is the step that was asked for.
    #[cfg(feature = "crash-points")]
    pub fn reached(self) {
        if std::env::var_os("COUNTERSIGN_CRASH_AT").is_some_and(|step| step == self.name()) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
