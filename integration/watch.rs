//! What comes past the gate is seen, and what runs is judged again: on the real containerd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

mod bypasses;
mod doctor;
mod inventory;
mod self_proof;

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;

use super::gate::binary;
use super::harness::containerd::{Version, program};
use super::harness::cri::Cri;
use super::harness::gate::{Gate, GateConfig};
use super::harness::image::Recipe;
use super::harness::leftovers::cgroup_of;
use super::harness::signer::RootIds;
use super::harness::world::World;

/// How long anything may take that takes a moment on an idle machine.
const SOON: Duration = Duration::from_secs(20);
/// The repository whose images are signed.
const REPOSITORY: &str = "team/app";
const STOP: &str = "[watch]\non-bypass = \"stop\"";

/// A world with one signed image that stays, and a gate that enforces.
struct Scene {
    world: World,
    /// Of the signed image.
    name: String,
    root: RootIds,
}

impl Scene {
    async fn new(test: &str) -> Self {
        Self::with(test, |configuration| configuration).await
    }

    async fn with(test: &str, change: impl FnOnce(GateConfig) -> GateConfig) -> Self {
        Self::on(Version::default(), test, change).await
    }

    async fn on(containerd: Version, test: &str, change: impl FnOnce(GateConfig) -> GateConfig) -> Self {
        let mut world = World::on(containerd, test).await;
        let image = Recipe::prints_and_stays("signed").build();
        let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
        let configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.clone());
        world.start_gate(binary(), &change(configuration)).await;
        // What was made in the second in which the gate began to keep a record counts as older.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        Self { world, name, root }
    }

    fn configuration(&self) -> GateConfig {
        self.world.gate_config().root_key(self.world.gun(REPOSITORY), self.root.canonical.clone())
    }

    fn gate(&self) -> &Gate {
        self.world.gate.as_ref().unwrap()
    }

    fn cri(&self) -> &Cri {
        self.gate().cri()
    }

    /// As somebody with containerd's socket asks.
    fn behind(&self) -> Cri {
        self.world.cri()
    }

    async fn restart_with(&mut self, configuration: &GateConfig) {
        let gate = self.world.gate.as_mut().unwrap();
        gate.configure(configuration);
        gate.restart().await;
    }

    /// An image that nobody has signed, on the node.
    async fn unsigned(&self) -> (String, String) {
        let name = self.world.push(&Recipe::prints_and_stays("unsigned").build(), "other/app", "1").await;
        let id = self.behind().pull(&name).await.unwrap();
        (name, id)
    }

    /// Runs a container with `ctr` in CRI's namespace. It may be stopped before `ctr` is done with it.
    async fn ctr_run(&self, image: &str, id: &str) {
        let containerd = &self.world.containerd;
        let runc = self.world.folder.path().join("containerd/runc");
        let mut command = Command::new(program(containerd.version(), "ctr"));
        command.arg("--address").arg(containerd.socket()).args(["--namespace", "k8s.io", "run", "--detach", "--null-io"]);
        // By default all tests' containers of this ID would share one control group, and be killed together.
        let cgroup = format!("{}/{id}", cgroup_of(self.world.folder.path()));
        command.args(["--snapshotter", self.snapshotter(), "--cgroup", &cgroup]).arg("--runc-root").arg(runc).args([image, id]);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("container that has stopped"), "{said}");
    }

    /// The one that the containerd of the tests uses.
    fn snapshotter(&self) -> &'static str {
        let written = std::fs::read_to_string(self.world.folder.path().join("containerd.toml")).unwrap_or_default();
        if written.contains("\"native\"") { "native" } else { "overlayfs" }
    }

    async fn countersign(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--output").arg("json").arg("--config").arg(self.gate().configuration());
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), value)
    }

    /// What the audit log says of what nobody asked the gate for: verdict and container, or image of what is none; sorted.
    async fn on_record(&self) -> Vec<(String, String)> {
        let mut command = Command::new(binary());
        command.args(["decisions", "--denied", "--output", "json", "--config"]).arg(self.gate().configuration());
        let output = command.output().await.unwrap();
        let lines: Vec<Value> =
            String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = |line: &Value| if line["container"].is_null() { text(&line["image"]) } else { text(&line["container"]) };
        let watched = lines.iter().filter(|line| line["method"] == "Watch");
        let mut told: Vec<_> = watched.map(|line| (text(&line["verdict"]), named(line))).collect();
        told.sort_unstable();
        told
    }

    async fn status(&self) -> (Option<i32>, Value) {
        self.countersign(&["status"]).await
    }

    /// Asks for the status until `fits`.
    #[track_caller]
    fn status_until<'s>(&'s self, fits: impl Fn(&Value) -> bool + 's) -> impl Future<Output = Value> + 's {
        let place = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + SOON;
            loop {
                let (_, status) = self.status().await;
                if fits(&status) {
                    return status;
                }
                assert!(Instant::now() < deadline, "{place}: not so: {status:#}\n{}", self.gate().log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Whether the task of a container runs.
    async fn runs(&self, id: &str) -> bool {
        let tasks = self.world.containerd.ctr().run(&["tasks", "list"]).await;
        tasks.lines().any(|line| line.starts_with(id) && line.contains("RUNNING"))
    }

    /// Waits until it does not run.
    async fn stops(&self, id: &str) {
        let deadline = Instant::now() + SOON;
        while self.runs(id).await {
            assert!(Instant::now() < deadline, "{id} runs on\n{}", self.gate().log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The bypasses of a status with this code.
fn with_code<'s>(status: &'s Value, code: &str) -> Vec<&'s Value> {
    status["bypasses"].as_array().unwrap().iter().filter(|bypass| bypass["code"] == code).collect()
}
