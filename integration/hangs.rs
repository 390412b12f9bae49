//! A containerd that stops answering when a call has been forwarded to it: callers get an answer when their patience ends, what
//! the gate decides by itself goes on, and nothing unchecked is left when containerd is back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::time::{Duration, Instant};

use k8s_cri::v1::{CreateContainerRequest, ImageSpec, PullImageRequest, RunPodSandboxRequest};
use rustix::process::{Pid, Signal, kill_process};
use tonic::{Code, Request, Status};

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::{Cri, container};
use super::harness::image::{Image, Recipe};
use super::harness::relay::Relay;
use super::harness::world::{World, sandbox};

/// How long kubelet waits here; it gives minutes.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long what was left may need to go when containerd is back.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "team/app";

on_every_containerd! {
    a_create_that_containerd_hangs_in_ends_with_its_caller_and_leaves_nothing_unchecked,
    a_pull_that_containerd_hangs_in_ends_with_its_caller_and_the_next_one_works,
    a_sandbox_that_containerd_hangs_in_ends_with_its_caller_and_leaves_nothing_unchecked,
}

/// A gate behind a relay, a signed image on the node, and one that nobody signed.
struct Scene {
    world: World,
    relay: Relay,
    image: Image,
    name: String,
    evil: Image,
    unsigned: String,
}

impl Scene {
    async fn on(containerd: Version, test: &str) -> Self {
        let mut world = World::on(containerd, test).await;
        let image = Recipe::prints("signed").build();
        let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
        let evil = Recipe::prints_and_stays("evil").build();
        let unsigned = world.push(&evil, REPOSITORY, "unsigned").await;
        world.containerd.ctr().import(&evil, "example.com/evil:1").await;
        let relay = Relay::start(&world.folder, &world.containerd.socket());
        let mut configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical);
        configuration.containerd = Some(relay.socket().to_owned());
        world.start_gate(binary(), &configuration).await;
        Self { world, relay, image, name, evil, unsigned }
    }

    fn cri(&self) -> &Cri {
        self.world.gate.as_ref().unwrap().cri()
    }

    fn containerd(&self) -> Pid {
        Pid::from_raw(self.world.containerd.server.pid().unwrap().try_into().unwrap()).unwrap()
    }

    /// Lets containerd hang when a request with this marker comes to it, with this record leading to the unsigned image.
    fn hang_at(&self, marker: &str, record: Option<String>) {
        let (ctr, evil, pid) = (self.world.containerd.ctr(), self.evil.top().clone(), self.containerd());
        self.relay.before(marker, async move {
            if let Some(record) = record {
                ctr.retarget(&record, &evil).await.unwrap();
            }
            kill_process(pid, Signal::STOP).unwrap();
        });
    }

    fn containerd_is_back(&self) {
        kill_process(self.containerd(), Signal::CONT).unwrap();
    }

    /// The call went to a containerd that hangs, and ended when its caller had waited long enough; others are answered.
    async fn has_ended<T: std::fmt::Debug>(&self, answer: Result<T, Status>) {
        assert!(!self.relay.is_waiting(), "it was forwarded: {answer:?}");
        let status = answer.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
        let denied = self.cri().pull(&self.unsigned).await.unwrap_err();
        assert!(denied.message().ends_with("(CS-TAG-NOT-SIGNED)"), "what needs no containerd is decided: {denied:?}");
    }

    /// Waits until this holds of what is on the node.
    async fn settles(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + SETTLES_WITHIN;
        while !holds().await {
            assert!(Instant::now() < deadline, "{what}: {}", self.world.gate.as_ref().unwrap().log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// As a client sends it that waits so long.
fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

async fn a_create_that_containerd_hangs_in_ends_with_its_caller_and_leaves_nothing_unchecked(containerd: Version) {
    let scene = Scene::on(containerd, "a_create_that_containerd_hangs_in").await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
    scene.world.containerd.blind_cri(&scene.name).await.unwrap();
    scene.world.containerd.ctr().retarget(&scene.name, scene.image.top()).await.unwrap();
    let config = container(&id, &scene.name);
    // By the name, so that what is made is made of the switched record, if anything is.
    scene.hang_at(&config.metadata.as_ref().unwrap().name, Some(scene.name.clone()));
    let request = CreateContainerRequest { pod_sandbox_id: pod.id.clone(), config: Some(config), sandbox_config: Some(pod.config.clone()) };

    let created = scene.cri().runtime().create_container(patient(request)).await;

    scene.has_ended(created).await;
    scene.containerd_is_back();
    // What was made all the same is looked at: it stays if it is signed, since containerd may have seen the switch by then, and
    // goes if it is of the switched record.
    let is_removed = || scene.world.gate.as_ref().unwrap().log().contains("denied; the container is removed");
    let is_done = async || is_removed() || scene.world.cri().list_containers().await.is_ok_and(|left| !left.is_empty());
    scene.settles("containerd does what it was asked", is_done).await;
    let (ctr, signed) = (scene.world.containerd.ctr(), scene.image.chain_id().to_string());
    let all_are_signed = async || {
        let Ok(left) = scene.world.cri().list_containers().await else { return false };
        for left in left {
            if ctr.root_file_system(&left.id).await.ok().as_ref() != Some(&signed) {
                return false;
            }
        }
        true
    };
    scene.settles("the container is removed", all_are_signed).await;
    scene.cri().pull(&scene.name).await.unwrap();
    assert_eq!(scene.cri().run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n");
}

async fn a_pull_that_containerd_hangs_in_ends_with_its_caller_and_the_next_one_works(containerd: Version) {
    let scene = Scene::on(containerd, "a_pull_that_containerd_hangs_in").await;
    scene.hang_at(&format!("@{}", scene.image.digest()), None);
    let image = ImageSpec { image: scene.name.clone(), ..Default::default() };

    let pulled = scene.cri().images().pull_image(patient(PullImageRequest { image: Some(image), ..Default::default() })).await;

    scene.has_ended(pulled).await;
    scene.containerd_is_back();
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n");
}

async fn a_sandbox_that_containerd_hangs_in_ends_with_its_caller_and_leaves_nothing_unchecked(containerd: Version) {
    let scene = Scene::on(containerd, "a_sandbox_that_containerd_hangs_in").await;
    scene.cri().run(&scene.name, "default").await.unwrap();
    let config = scene.cri().pod("default");
    std::fs::create_dir_all(&config.log_directory).unwrap();
    let record = format!("{}:3.10", scene.world.gun("pause"));
    scene.hang_at(&config.metadata.as_ref().unwrap().uid, Some(record));

    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let made = scene.cri().runtime().run_pod_sandbox(patient(request)).await;

    scene.has_ended(made).await;
    scene.containerd_is_back();
    scene.world.gate.as_ref().unwrap().logged("denied; the sandbox is removed", SETTLES_WITHIN).await.expect("it is looked at");
    let (cri, ctr, good) = (scene.world.cri(), scene.world.containerd.ctr(), sandbox().chain_id().to_string());
    let all_are_verified = async || {
        let list = cri.runtime().list_pod_sandbox(k8s_cri::v1::ListPodSandboxRequest::default()).await.unwrap().into_inner();
        for left in list.items {
            if ctr.root_file_system(&left.id).await.ok().as_ref() != Some(&good) {
                return false;
            }
        }
        true
    };
    scene.settles("the sandbox is removed", all_are_verified).await;
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n", "kubelet makes another");
}
