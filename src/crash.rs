//! Named steps between which the daemon may be killed.
//!
//! With the feature `crash-points`, which no release has, `COUNTERSIGN_CRASH_AT=<step>` makes the process kill itself
//! when it comes to that step, as a power cut would. A test walks all steps.

/// Declares the steps once, so that none can be missing in [`STEPS`].
macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal,)*) => {
        /// A moment between two effects.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        /// Every step, in the order in which a first start, a sandbox, a pull, a create and a start meet them.
        pub const STEPS: &[Step] = &[$(Step::$step,)*];

        impl Step {
            /// The step's name, as `COUNTERSIGN_CRASH_AT` takes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    /// The file of a new ledger is made and empty; it does not have its own name yet.
    LedgerBegun = "ledger.begun",
    /// The new ledger is whole and on disk; it does not have its own name yet.
    LedgerWritten = "ledger.written",
    /// The new ledger has its own name; the directory is not on disk.
    LedgerRenamed = "ledger.renamed",
    /// A sandbox is asked for; containerd was asked nothing.
    SandboxAsked = "sandbox.asked",
    /// The image of sandboxes is admitted, and is not on the node under its name; it is about to be pulled.
    SandboxPullDue = "sandbox.pull-due",
    /// containerd has pulled its digest; its name does not lead to it yet.
    SandboxPulled = "sandbox.pulled",
    /// The image of sandboxes is on the node, and its name leads to it; no sandbox was made.
    SandboxReady = "sandbox.ready",
    /// containerd runs the sandbox; nothing was compared.
    SandboxMade = "sandbox.made",
    /// What it stands on was compared, and is the verified image.
    SandboxChecked = "sandbox.checked",
    /// What it stands on was compared, and is another image; it still runs.
    SandboxRefused = "sandbox.refused",
    /// It is stopped, since it stood on another image; it is still there.
    SandboxStopped = "sandbox.stopped",
    /// It was removed.
    SandboxRemoved = "sandbox.removed",
    /// Trust data is accepted; nothing is on disk.
    RefreshFetched = "refresh.fetched",
    /// It is committed once; the ledger commits everything twice.
    RefreshCommitted = "refresh.committed",
    /// It is on disk.
    RefreshRecorded = "refresh.recorded",
    /// The image may be pulled; containerd knows nothing of it.
    PullVerified = "pull.verified",
    /// containerd has pulled the digest.
    PullPulled = "pull.pulled",
    /// What was pulled is refused for its content; the records that containerd made for it are still there.
    PullContentRefused = "pull.content-refused",
    /// The records of refused content are removed.
    PullTakenBack = "pull.taken-back",
    /// What was pulled is followed down to its root file system; the ledger does not have it.
    PullFollowed = "pull.followed",
    /// The ledger has the image committed once.
    PullImageCommitted = "pull.image-committed",
    /// The ledger has the image.
    PullImageRecorded = "pull.image-recorded",
    /// The tag record is about to be written.
    PullTagDue = "pull.tag-due",
    /// There is a tag record with another target; it is about to be changed.
    PullTagTaken = "pull.tag-taken",
    /// The tag record is written.
    PullTagWritten = "pull.tag-written",
    /// containerd's CRI shows the tag.
    PullTagShown = "pull.tag-shown",
    /// A container is asked for; containerd was asked nothing.
    CreateAsked = "create.asked",
    /// containerd's CRI has said which image is meant.
    CreateResolved = "create.resolved",
    /// The container's image is admitted.
    CreateAdmitted = "create.admitted",
    /// The image's records were checked.
    CreateRecordsChecked = "create.records-checked",
    /// containerd has created the container; nothing was compared.
    CreateCreated = "create.created",
    /// Its root file system was compared, and is the verified image's.
    CreateRootFsChecked = "create.root-fs-checked",
    /// Its root file system was compared, and is another; the container is still there.
    CreateRootFsRefused = "create.root-fs-refused",
    /// It was removed, since its root file system was another.
    CreateRemoved = "create.removed",
    /// The start of a container is asked for; containerd was asked nothing.
    StartAsked = "start.asked",
    /// containerd's CRI has said which container is meant.
    StartResolved = "start.resolved",
    /// The container may be started.
    StartAdmitted = "start.admitted",
    /// containerd has started it.
    StartStarted = "start.started",
}

impl Step {
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
