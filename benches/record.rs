//! What it costs to tell of a decision: the line of the audit log is written before a call is answered.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::admit::{Admit, Policy, Refusal, SandboxImage};
use countersign::audit::{Archive, Call, LogSettings, Recorder};
use countersign::clock::SystemClock;
use countersign::containerd::Containerd;
use countersign::ledger::Ledger;
use countersign::metrics::Metrics;
use countersign_trust::mode::Mode;
use countersign_trust::name::Sha256;
use countersign_trust::pin::Pins;
use tokio::runtime::Handle;

use crate::MICROSECONDS;
use crate::harness::Must as _;
use crate::report::{Goal, Report};
use crate::samples::{P50, P99, Samples};

/// Decisions that are told of. The log is rotated some times meanwhile.
const DECISIONS: usize = 20_000;
const IMAGE: &str = "registry.test:5000/team/app:1";

/// Measures telling of a denial by local data: line, figures and write.
pub(crate) fn measure(report: &mut Report, folder: &Path) {
    crate::say("telling of a decision");
    let directory = folder.join("record");
    std::fs::create_dir_all(directory.join("ledger")).must("making a folder");
    let trust = countersign_trust::Policy::new(Mode::Enforced, Pins::default());
    let digest = Sha256::of(b"policy");
    let policy = Policy {
        trust,
        servers: std::collections::HashMap::new(),
        expired_serves_for: None,
        node_credentials: None,
        grandfather_for: None,
        superseded_max_age: std::time::Duration::ZERO,
        sandbox: SandboxImage::default(),
        refresh_interval: Duration::from_secs(3600),
        digest,
        shared_digest: digest,
    };
    let ledger = Ledger::open(&directory.join("ledger"));
    let admit = Arc::new(Admit::new(policy, Arc::new(SystemClock), Containerd::new(Path::new("/nowhere")), ledger, Handle::current()));
    let settings = LogSettings { path: directory.join("log"), max_bytes: 16 << 20, makes_directory: false };
    let archive = Archive::open(&directory).must("opening an archive");
    let recorder = Recorder::new(admit, settings, Some(Arc::new(archive)), &Metrics::new(), Handle::current());
    let refusal = Refusal::NotRegistered { host: "registry.test:5000".parse().must("naming a registry") };
    let mut samples = Samples::default();
    let durations = (0..DECISIONS).map(|_| {
        let began = Instant::now();
        let call = Call { method: "CreateContainer", image: IMAGE, namespace: Some("default"), container: None, began };
        recorder.denied(call, &refusal);
        began.elapsed()
    });
    samples.add(durations.collect(), None);
    report.goal("telling of a decision, p50", samples.at(P50) * 1e6, MICROSECONDS, Goal::AtMost(30.0));
    report.value("telling of a decision, p99", samples.at(P99) * 1e6, MICROSECONDS);
}
