//! Every known way to make containerd run something else than what was verified, tried on the real parts.
//!
//! Each test asserts the reason of the refusal, and that nothing wrong runs: no container is left on a root file system
//! that the test did not sign.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

mod content;
mod creates;
mod doors;
mod fence;
mod grandfathered;
mod imported;
mod lying_registry;
mod malformed;
mod modes;
mod namespaces;
mod past_the_gate;
mod pulls;
mod race;
mod raw;
mod retargeted;
mod sandbox;
mod volumes;

use std::time::{Duration, Instant};

use countersign_trust::name::ChainId;
use tonic::{Code, Status};

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::{Cri, Pod};
use super::harness::ctr::Ctr;
use super::harness::gate::{Gate, GateConfig};
use super::harness::image::{Image, Recipe};
use super::harness::signer::RootIds;
use super::harness::world::World;

/// How long CRI may take to follow a record: it does in 2 ms, but lags seconds after an event that failed.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(15);
/// How long a line may take to stand in the gate's log.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);
/// The repository whose images are signed.
const REPOSITORY: &str = "team/app";

/// A world with one signed image, and a gate that enforces in front of its containerd.
struct Scene {
    world: World,
    /// Signed as [`Scene::name`].
    image: Image,
    /// `host/team/app:1`.
    name: String,
    root: RootIds,
}

impl Scene {
    /// For what does not depend on the release of containerd.
    async fn new(test: &str) -> Self {
        Self::on(Version::default(), test).await
    }

    async fn on(containerd: Version, test: &str) -> Self {
        Self::with(containerd, test, &Recipe::prints("signed")).await
    }

    async fn with(containerd: Version, test: &str, recipe: &Recipe) -> Self {
        let mut world = World::on(containerd, test).await;
        let image = recipe.build();
        let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
        let configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.clone());
        world.start_gate(binary(), &configuration).await;
        Self { world, image, name, root }
    }

    fn configuration(&self) -> GateConfig {
        self.world.gate_config().root_key(self.world.gun(REPOSITORY), self.root.canonical.clone())
    }

    /// The same gate in another mode.
    async fn switch_to(&mut self, mode: &'static str) {
        let configuration = self.configuration().mode(mode);
        let gate = self.world.gate.as_mut().unwrap();
        gate.configure(&configuration);
        gate.restart().await;
    }

    fn gate(&self) -> &Gate {
        self.world.gate.as_ref().unwrap()
    }

    /// As kubelet asks: through the gate.
    fn cri(&self) -> &Cri {
        self.gate().cri()
    }

    /// As an agent with containerd's socket asks: past the gate.
    fn behind(&self) -> Cri {
        self.world.cri()
    }

    fn ctr(&self) -> Ctr {
        self.world.containerd.ctr()
    }

    /// Pulls the signed image through the gate. Returns its image ID.
    async fn pull(&self) -> String {
        let id = self.cri().pull(&self.name).await.unwrap();
        assert_eq!(id, self.image.id().to_string());
        id
    }

    async fn pod(&self) -> Pod {
        self.cri().run_pod(self.cri().pod("default")).await.unwrap()
    }

    /// The signed image by digest.
    fn by_digest(&self) -> String {
        self.repository_digest(&self.image)
    }

    /// `host/team/app@sha256:…`.
    fn repository_digest(&self, image: &Image) -> String {
        format!("{}@{}", self.world.gun(REPOSITORY), image.digest())
    }

    /// The name of another tag of the same repository.
    fn tag(&self, tag: &str) -> String {
        format!("{}:{tag}", self.world.gun(REPOSITORY))
    }

    /// All requests that registry and notary server have answered so far.
    fn packets(&self) -> usize {
        self.world.registry.requests().len() + self.world.notary.requests().len()
    }

    /// Every container that exists stands on one of these. Returns how many there are.
    async fn only_runs(&self, allowed: &[ChainId]) -> usize {
        let found = self.world.root_file_systems().await;
        for root in &found {
            assert!(allowed.iter().any(|chain| chain.to_string() == *root), "a container stands on {root}");
        }
        found.len()
    }

    /// No container exists, in any state.
    async fn runs_nothing(&self) {
        assert_eq!(self.only_runs(&[]).await, 0);
    }

    /// A container of the signed image runs through the gate, for its own name: nobody is locked out.
    async fn runs_the_signed_image(&self) {
        let ran = self.cri().run(&self.name, "default").await.unwrap();
        assert_eq!(ran.output, "signed\n");
        assert_eq!(self.root_of(&ran.container).await, self.image.chain_id().to_string());
    }

    async fn root_of(&self, container: &str) -> String {
        self.ctr().root_file_system(container).await.unwrap()
    }

    /// Waits until CRI shows this image for the name, as it does when it has followed the record.
    async fn wait_until_shown(&self, name: &str, image: &Image) {
        let deadline = Instant::now() + FOLLOWS_WITHIN;
        loop {
            let shown = self.behind().image_status(name).await.unwrap();
            if shown.is_some_and(|shown| shown.id == image.id().to_string()) {
                return;
            }
            assert!(Instant::now() < deadline, "CRI does not follow {name}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The last line of the audit log of which this holds.
    #[track_caller]
    fn audit_line(&self, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let log = std::fs::read_to_string(self.world.gate.as_ref().unwrap().state().join("audit/decisions.jsonl")).unwrap();
        let mut lines = log.lines().rev().map(|line| serde_json::from_str(line).unwrap());
        lines.find(holds).unwrap_or_else(|| panic!("no such line: {log}"))
    }

    /// Waits for a line of the gate's log with all of these words.
    async fn logged(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + LOGGED_WITHIN;
        loop {
            let log = self.gate().log();
            if let Some(line) = log.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "no line with {words:?} in:\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A denial that kubelet shows as `SignatureValidationFailed`, for this reason.
#[track_caller]
pub(super) fn assert_denied(status: &Status, code: &str) {
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    assert!(status.message().starts_with("SignatureValidationFailed: "), "{}", status.message());
    assert!(status.message().ends_with(&format!("({code})")), "not {code}: {}", status.message());
}

/// The stable code at the end of a denial.
#[track_caller]
fn code_of(status: &Status) -> String {
    let code = status.message().rsplit_once('(').and_then(|(_, code)| code.strip_suffix(')'));
    code.unwrap_or_else(|| panic!("no code: {status:?}")).to_owned()
}
