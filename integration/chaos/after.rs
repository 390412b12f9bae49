//! When all is well again: everything signed runs, nothing else does, nothing is left over, and the gate's state is whole.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use k8s_cri::v1::{ContainerState, ListPodSandboxRequest, PodSandboxConfig};

use super::account::{Account, Fate, Invariant, code_in};
use super::town::Town;
use super::watch::{look_at_what_runs, taken_by};
use super::{FDS_WHEN_IDLE, Plan};
use crate::harness::cri::{Pod, container};
use crate::harness::faulty::FaultyServer;
use crate::harness::gate::Gate;
use crate::verify::countersign;

/// How long a signed image may need until it runs again. CRI goes on for seconds with what it believed of a record.
const RUNS_AGAIN_WITHIN: Duration = Duration::from_secs(90);
/// How long the gate may need to let go of what was asked of it, and containerd of what was removed.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// Between two tries.
const TRIES_EACH: Duration = Duration::from_millis(250);

/// What a run is judged by at its end.
pub(super) struct After<'a> {
    pub(super) town: &'a Town,
    pub(super) gate: &'a mut Gate,
    pub(super) front: &'a mut FaultyServer,
    /// For each tag which of its images is signed now.
    pub(super) versions: Vec<usize>,
}

impl After<'_> {
    const fn account(&self) -> &Account {
        &self.town.account
    }

    pub(super) async fn judge(&mut self, plan: &Plan) {
        self.descriptors_are_let_go().await;
        self.what_is_left_has_an_owner().await;
        self.nothing_unsigned_starts().await;
        self.everything_signed_runs("after the run").await;
        self.state_is_whole().await;
        self.everything_signed_runs_without_its_server().await;
        look_at_what_runs(self.town, &mut HashSet::new()).await;
        self.everything_can_be_removed().await;
        something_happened(self.account(), plan);
    }

    async fn descriptors_are_let_go(&self) {
        let pid = self.gate.server.pid().unwrap().to_string();
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let (_, fds) = taken_by(&pid).unwrap();
            if fds <= FDS_WHEN_IDLE {
                return self.account().highest("descriptors when idle", fds);
            }
            if Instant::now() > deadline {
                return self.account().breach(Invariant::TheGateAnswers, format!("{fds} descriptors are open when nobody asks"));
            }
            tokio::time::sleep(TRIES_EACH).await;
        }
    }

    /// A create that was refused leaves no container, and no sandbox is there that was refused or removed.
    async fn what_is_left_has_an_owner(&self) {
        let containers = self.town.behind.list_containers().await.unwrap();
        let names = containers.iter().map(|container| container.metadata.as_ref().unwrap().name.clone());
        let pods = self.pods().await;
        for name in names.chain(pods.iter().map(|pod| pod.config.metadata.as_ref().unwrap().name.clone())) {
            self.account().checked("things left that have an owner");
            match self.account().fate_of(&name) {
                Some(Fate::Made | Fate::Broken) => {}
                fate @ (None | Some(Fate::Denied | Fate::Removed)) => {
                    self.account().breach(Invariant::NothingIsLeftOver, format!("{name} is there, and its fate was {fate:?}"));
                }
            }
        }
    }

    async fn pods(&self) -> Vec<Pod> {
        let list = self.town.behind.runtime().list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
        let pod = |metadata| PodSandboxConfig { metadata, ..Default::default() };
        list.items.into_iter().map(|sandbox| Pod { id: sandbox.id, config: pod(sandbox.metadata) }).collect()
    }

    /// Neither what was left by chance nor what is made now.
    async fn nothing_unsigned_starts(&self) {
        let town = self.town;
        let pod = town.pod().await.expect("a sandbox is made when all is well");
        for (image, name) in &town.evil {
            let id = image.id().to_string();
            // Whoever removed an image by a name that had been taken has removed this one.
            town.behind.pull(name).await.expect("an unsigned image is pulled past the gate");
            let own = container(&id, &town.tag(0));
            town.account.fate(&own.metadata.as_ref().unwrap().name, Fate::Made);
            if let Err(status) = town.behind.create(&pod, own).await {
                self.account().breach(Invariant::SomethingHappened, format!("{name} is not on the node in the end: {status:?}"));
            }
            for named in [name.clone(), town.tag(0), town.guarded.0.clone()] {
                self.is_refused("create unsigned", &town.create("create unsigned", &pod, container(&id, &named)).await);
            }
            self.is_refused("pull unsigned", &town.call("pull unsigned", town.cri.pull(name)).await);
        }
        for left in town.behind.list_containers().await.unwrap() {
            let Ok(chain) = town.ctr.root_file_system(&left.id).await else { continue };
            if left.state() == ContainerState::ContainerCreated && !town.account.is_signed(&chain) {
                town.account.checked("unsigned containers that were left");
                self.is_refused("start unsigned", &town.call("start unsigned", town.cri.start(&left.id)).await);
            }
        }
    }

    fn is_refused<T>(&self, action: &str, answer: &Result<T, tonic::Status>) {
        match answer {
            Err(status) if code_in(status.message()).is_some() => {}
            // It was not let through, but by whom?
            Err(status) => self.account().breach(Invariant::SomethingHappened, format!("`{action}` ended with {status:?}")),
            Ok(_) => self.account().breach(Invariant::OnlySignedRuns, format!("`{action}` was let through after the run")),
        }
    }

    async fn everything_signed_runs(&self, when: &str) {
        let town = self.town;
        let tags = self.versions.iter().enumerate().map(|(tag, version)| (town.tag(tag), &town.images[tag][*version]));
        for (name, image) in tags.chain([(town.guarded.0.clone(), &town.guarded.1)]) {
            let began = Instant::now();
            while let Err(why) = self.runs(&name, &image.chain_id().to_string()).await {
                if began.elapsed() > RUNS_AGAIN_WITHIN {
                    town.account.breach(Invariant::NothingSignedIsLost, format!("{name} does not run {when}: {why}"));
                    break;
                }
                tokio::time::sleep(TRIES_EACH).await;
            }
            town.account.checked("signed images that run in the end");
            town.account.highest("slowest to run again, ms", usize::try_from(began.elapsed().as_millis()).unwrap());
        }
    }

    /// In a pod of its own: one that asked before the gate had heard of the newest signature keeps what it began with.
    async fn runs(&self, name: &str, chain: &str) -> Result<(), String> {
        let (town, told) = (self.town, |status: tonic::Status| format!("{status:?}"));
        let pod = &town.pod().await.ok_or("no sandbox was made")?;
        let id = town.call("pull signed, after", town.cri.pull_with(name, None, Some(&pod.config))).await.map_err(told)?;
        let made = town.create("create signed, after", pod, container(&id, name)).await.map_err(told)?;
        town.call("start signed, after", town.cri.start(&made)).await.map_err(told)?;
        let found = town.ctr.root_file_system(&made).await.map_err(told)?;
        if found == chain { Ok(()) } else { Err(format!("it stands on {found}, and {chain} is signed")) }
    }

    /// It starts, answers its operator, and nothing half made is in its folder.
    async fn state_is_whole(&mut self) {
        let before = self.gate.log().len();
        self.gate.restart().await;
        let config = self.gate.configuration().to_str().unwrap().to_owned();
        let (exit, out, err) = countersign(&["status", "--config", &config]).await;
        // It ends with 1 where something runs that was signed when it was started, and is not any more.
        if !matches!(exit, Some(0 | 1)) || !out.starts_with("mode enforced") {
            self.account().breach(Invariant::NothingSignedIsLost, format!("status ends with {exit:?}: {out}{err}"));
        }
        if self.gate.log()[before..].contains("the ledger cannot be used") {
            self.account().breach(Invariant::NothingSignedIsLost, "the ledger could not be used");
        }
        let files = fs::read_dir(self.gate.state().join("ledger")).unwrap();
        let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        if files != ["ledger.lock", "ledger.redb"].map(str::to_owned).into() {
            self.account().breach(Invariant::NothingSignedIsLost, format!("half made: {files:?}"));
        }
        self.account().checked("restarts on the state in the end");
    }

    /// What the ledger holds is enough.
    async fn everything_signed_runs_without_its_server(&mut self) {
        self.front.stop();
        self.everything_signed_runs("by what the ledger holds").await;
        self.front.start().await;
    }

    /// On whichever snapshotter this machine's file system takes.
    async fn snapshots(&self) -> Vec<String> {
        let mut found = self.town.ctr.active_snapshots("overlayfs").await.unwrap_or_default();
        found.extend(self.town.ctr.active_snapshots("native").await.unwrap_or_default());
        found
    }

    /// Through the gate, and then nothing is there any more but what containerd left of creates that were broken off.
    async fn everything_can_be_removed(&self) {
        for pod in self.pods().await {
            if let Err(status) = self.town.call("remove a sandbox, after", self.town.cri.remove_pod(&pod)).await {
                self.account().breach(Invariant::NothingIsLeftOver, format!("sandbox {} cannot be removed: {status:?}", pod.id));
            }
        }
        let broken = self.account().fates(Fate::Broken);
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let (containers, snapshots) = (self.town.ctr.container_records().await.unwrap(), self.snapshots().await);
            if containers.is_empty() && snapshots.len() <= broken {
                self.account().highest("snapshots that broken calls left", snapshots.len());
                return;
            }
            if Instant::now() > deadline {
                let what = format!("containers {containers:?}, snapshots {snapshots:?}; {broken} calls were broken off");
                return self.account().breach(Invariant::NothingIsLeftOver, what);
            }
            tokio::time::sleep(TRIES_EACH).await;
        }
    }
}

/// A run that exercised nothing has shown nothing.
fn something_happened(account: &Account, plan: &Plan) {
    for missing in not_met(account, plan) {
        account.breach(Invariant::SomethingHappened, missing);
    }
}

/// What a run is for, and has not met often enough.
pub(super) fn not_met(account: &Account, plan: &Plan) -> Vec<String> {
    let refused = |outcome: &str| outcome.starts_with("CS-");
    let counted = [
        ("start signed", account.count("start signed", |outcome| outcome == "ok")),
        ("pull unsigned", account.count("pull unsigned", refused)),
        ("create unsigned", account.count("create unsigned", refused)),
        ("start unsigned", account.count("start unsigned", refused)),
        ("containers that run", account.checks("containers that run")),
        ("calls in settled weather", account.checks("calls in settled weather")),
        ("answers in settled weather", account.checks("answers in settled weather")),
        ("tag signed for other content", account.faults("tag signed for other content")),
    ];
    let seldom = counted.into_iter().filter(|(_, count)| *count < plan.at_least);
    let seldom = seldom.map(|(what, count)| format!("`{what}` was met {count} times, not {}", plan.at_least));
    let faults = super::faults::FAULTS.iter().map(|fault| format!("{fault:?}"));
    let faults = faults.chain(["records switched in the moment that counts".to_owned()]);
    seldom.chain(faults.filter(|fault| account.faults(fault) == 0).map(|fault| format!("no {fault} happened"))).collect()
}
