//! What clients of CRI do besides running images, and what kubelet builds upon: through the gate it is as without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_cri::v1::{
    AttachRequest, CheckpointContainerRequest, ContainerFilter, ContainerState, ContainerStateValue, ContainerStatsRequest, ExecRequest,
    GetEventsRequest, ImageFilter, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec, LinuxContainerResources, ListContainerStatsRequest,
    ListContainersRequest, ListImagesRequest, ListMetricDescriptorsRequest, ListPodSandboxMetricsRequest, ListPodSandboxRequest,
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxFilter, PodSandboxStats, PodSandboxStatsRequest,
    PodSandboxStatusRequest, PortForwardRequest, RemovePodSandboxRequest, ReopenContainerLogRequest, RuntimeConfigRequest, StatusRequest,
    StopContainerRequest, StopPodSandboxRequest, UpdateContainerResourcesRequest, UpdateRuntimeConfigRequest,
};
use tonic::{Code, Response, Status};

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::{Cri, Pod, container};
use super::harness::image::{Image, Recipe};
use super::harness::world::{World, sandbox};

on_every_containerd! {
    three_tags_of_one_image_are_listed_as_one_and_each_can_be_removed,
    lists_are_filtered_as_containerd_filters_them,
    to_stop_or_remove_twice_is_no_error_and_what_is_not_there_is_said_not_to_be,
    the_urls_for_exec_attach_and_port_forward_are_containerds,
    events_and_statistics_come_through_the_gate,
    the_image_of_sandboxes_is_pinned_if_containerd_pins_it,
    a_container_is_stopped_in_its_time_and_ends_as_containerd_ends_it,
    what_is_asked_of_the_node_and_of_a_running_pod_is_answered_as_by_containerd,
}

/// How long an event may take.
const COMES_WITHIN: Duration = Duration::from_secs(20);

/// A signed image that runs until it is stopped, with a gate before containerd.
struct Scene {
    world: World,
    image: Image,
    name: String,
}

impl Scene {
    async fn on(containerd: Version, test: &str) -> Self {
        let mut world = World::on(containerd, test).await;
        let image = Recipe::prints_and_stays("here").build();
        let (name, root) = world.push_signed(&image, "team/app", "1").await;
        let configuration = world.gate_config().root_key(world.gun("team/app"), root.canonical.to_string());
        world.start_gate(binary(), &configuration).await;
        Self { world, image, name }
    }

    fn cri(&self) -> &Cri {
        self.world.gate.as_ref().unwrap().cri()
    }

    /// Through the gate, and straight to containerd.
    fn ways(&self) -> [Cri; 2] {
        [self.cri().clone(), self.world.cri()]
    }

    async fn runs(&self) -> (Pod, String) {
        let ran = self.cri().run(&self.name, "default").await.unwrap();
        (ran.pod, ran.container)
    }
}

async fn three_tags_of_one_image_are_listed_as_one_and_each_can_be_removed(containerd: Version) {
    let scene = Scene::on(containerd, "three_tags_of_one_image").await;
    let (signer, gun) = (scene.world.notary.signer("admin"), scene.world.gun("team/app"));
    for tag in ["2", "3"] {
        scene.world.push(&scene.image, "team/app", tag).await;
        signer.sign(&gun, tag, &scene.image).await;
    }
    let names: Vec<String> = (1..=3).map(|tag| format!("{gun}:{tag}")).collect();
    for name in &names {
        assert_eq!(scene.cri().pull(name).await.unwrap(), scene.image.id().to_string());
    }
    for cri in scene.ways() {
        let listed = cri.list_images().await.unwrap();
        let of_ours: Vec<_> = listed.into_iter().filter(|image| image.id == scene.image.id().to_string()).collect();
        let [image] = of_ours.as_slice() else { panic!("one image: {of_ours:?}") };
        let mut tags = image.repo_tags.clone();
        tags.sort();
        assert_eq!((tags, &image.repo_digests), (names.clone(), &vec![format!("{gun}@{}", scene.image.digest())]));
        let request = ListImagesRequest { filter: Some(ImageFilter { image: Some(spec(&names[1])) }) };
        let filtered = cri.images().list_images(request).await.unwrap().into_inner().images;
        assert_eq!(filtered.iter().map(|image| &image.id).collect::<Vec<_>>(), [&image.id]);
    }
    // As kubelet's image GC does, which knows IDs: all names go.
    scene.cri().remove_image(&scene.image.id().to_string()).await.unwrap();
    for name in &names {
        assert_eq!(scene.cri().image_status(name).await.unwrap(), None, "{name}");
    }
    scene.cri().remove_image(&names[0]).await.unwrap();
}

async fn lists_are_filtered_as_containerd_filters_them(containerd: Version) {
    let scene = Scene::on(containerd, "lists_are_filtered").await;
    let (pod, running) = scene.runs().await;
    let mut other = container(&scene.image.id().to_string(), &scene.name);
    other.labels = [("role".to_owned(), "other".to_owned())].into();
    let created = scene.cri().create(&pod, other).await.unwrap();
    let labelled = [("role".to_owned(), "other".to_owned())];
    let by = |filter: ContainerFilter| ListContainersRequest { filter: Some(filter) };
    let in_state = |state: i32| Some(ContainerStateValue { state });
    let cases = [
        (by(ContainerFilter { id: running[..12].to_owned(), ..Default::default() }), vec![&running]),
        (by(ContainerFilter { state: in_state(0), ..Default::default() }), vec![&created]),
        (by(ContainerFilter { state: in_state(1), ..Default::default() }), vec![&running]),
        (by(ContainerFilter { label_selector: labelled.clone().into(), ..Default::default() }), vec![&created]),
        (by(ContainerFilter { pod_sandbox_id: pod.id.clone(), state: in_state(1), ..Default::default() }), vec![&running]),
        (by(ContainerFilter { id: "0".repeat(64), ..Default::default() }), vec![]),
    ];
    for cri in scene.ways() {
        for (request, expected) in &cases {
            let listed = cri.runtime().list_containers(request.clone()).await.unwrap().into_inner().containers;
            assert_eq!(listed.iter().map(|container| &container.id).collect::<Vec<_>>(), *expected, "{request:?}");
        }
        for (labels, expected) in [(pod.config.labels.clone(), vec![&pod.id]), (labelled.clone().into(), vec![])] {
            let filter = PodSandboxFilter { label_selector: labels, ..Default::default() };
            let listed = cri.runtime().list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await.unwrap().into_inner().items;
            assert_eq!(listed.iter().map(|sandbox| &sandbox.id).collect::<Vec<_>>(), expected);
        }
    }
}

async fn to_stop_or_remove_twice_is_no_error_and_what_is_not_there_is_said_not_to_be(containerd: Version) {
    let scene = Scene::on(containerd, "to_stop_or_remove_twice").await;
    let (pod, container_id) = scene.runs().await;
    for _ in 0..2 {
        scene.cri().stop(&container_id).await.unwrap();
    }
    for _ in 0..2 {
        scene.cri().remove(&container_id).await.unwrap();
    }
    for _ in 0..2 {
        scene.cri().runtime().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await.unwrap();
    }
    for _ in 0..2 {
        scene.cri().runtime().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await.unwrap();
    }
    let [through, straight] = scene.ways();
    for (id, pod) in [("f".repeat(64), Pod { id: "f".repeat(64), ..pod.clone() }), (container_id, pod)] {
        let (through, straight) = (answers_about(&through, &id, &pod, &scene).await, answers_about(&straight, &id, &pod, &scene).await);
        for (through, straight) in through.into_iter().zip(straight) {
            if through.0 == "StartContainer" {
                // The gate looks for the container itself, and says in its own words that there is none.
                assert!(through.2.contains("CS-NO-CONTAINER"), "{through:?}");
                assert_eq!((through.1, straight.1), (Code::NotFound, Code::NotFound), "{straight:?}");
            } else {
                assert_eq!(through, straight);
            }
        }
    }
}

/// What every call answers that names a container, a sandbox or an image which is not there.
async fn answers_about(cri: &Cri, id: &str, pod: &Pod, scene: &Scene) -> Vec<(&'static str, Code, String)> {
    let none = format!("{}/none:1", scene.world.registry.host());
    let image_id = scene.image.id().to_string();
    let stop = StopContainerRequest { container_id: id.to_owned(), timeout: 0 };
    let status = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
    let answers: [(&'static str, Result<(), Status>); 9] = [
        ("ContainerStatus", cri.container_status(id).await.map(drop)),
        ("StartContainer", cri.start(id).await),
        ("StopContainer", cri.runtime().stop_container(stop).await.map(drop)),
        ("RemoveContainer", cri.remove(id).await),
        ("ExecSync", cri.exec(id, &["true"]).await.map(drop)),
        ("PodSandboxStatus", cri.runtime().pod_sandbox_status(status).await.map(drop)),
        ("CreateContainer", cri.create(pod, container(&image_id, &scene.name)).await.map(drop)),
        ("ImageStatus", cri.image_status(&none).await.map(|image| assert_eq!(image, None))),
        ("RemoveImage", cri.remove_image(&none).await),
    ];
    let told = |answer: Result<(), Status>| {
        answer.map_or_else(|status| (status.code(), status.message().to_owned()), |()| (Code::Ok, String::new()))
    };
    answers.into_iter().map(|(call, answer)| (call, told(answer))).map(|(call, (code, text))| (call, code, text)).collect()
}

async fn the_urls_for_exec_attach_and_port_forward_are_containerds(containerd: Version) {
    let scene = Scene::on(containerd, "the_urls_for_exec").await;
    let (pod, container_id) = scene.runs().await;
    let exec = ExecRequest { container_id: container_id.clone(), cmd: vec!["true".into()], stdout: true, ..Default::default() };
    let attach = AttachRequest { container_id: container_id.clone(), stdout: true, ..Default::default() };
    let forward = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![80] };
    let mut servers = Vec::new();
    for cri in scene.ways() {
        let exec = cri.runtime().exec(exec.clone()).await.unwrap().into_inner().url;
        let attach = cri.runtime().attach(attach.clone()).await.unwrap().into_inner().url;
        let forward = cri.runtime().port_forward(forward.clone()).await.unwrap().into_inner().url;
        for (url, kind) in [(exec, "exec"), (attach, "attach"), (forward, "portforward")] {
            // The last part is a token of containerd's, for one use.
            let (server, token) = url.rsplit_once('/').unwrap();
            assert!(server.starts_with("http://127.0.0.1:") && server.ends_with(&format!("/{kind}")) && !token.is_empty(), "{url}");
            servers.push(server.to_owned());
        }
    }
    assert_eq!(servers[..3], servers[3..], "the gate names containerd's own server");
}

async fn events_and_statistics_come_through_the_gate(containerd: Version) {
    let scene = Scene::on(containerd, "events_and_statistics").await;
    let streams = scene.ways().map(|cri| tokio::spawn(async move { tokio::time::timeout(COMES_WITHIN, first_event(cri)).await }));
    // Its headers come with the first event.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (pod, container_id) = scene.runs().await;
    for cri in scene.ways() {
        let request = ContainerStatsRequest { container_id: container_id.clone() };
        let stats = cri.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap();
        assert_eq!(stats.attributes.unwrap().id, container_id);
        let listed = cri.runtime().list_container_stats(ListContainerStatsRequest::default()).await.unwrap().into_inner().stats;
        assert_eq!(listed.len(), 1);
    }
    let mut told = Vec::new();
    for stream in streams {
        told.push(stream.await.unwrap().expect("an event of the sandbox"));
    }
    assert_eq!(told[0], told[1]);
    match containerd {
        Version::V1_6 => assert_eq!(told[0], Err(Code::Unimplemented)),
        Version::V1_7 | Version::V2_1 => assert_eq!(told[0], Ok(pod.id)),
    }
}

/// kubelet's image garbage collection passes it by then.
async fn the_image_of_sandboxes_is_pinned_if_containerd_pins_it(containerd: Version) {
    let scene = Scene::on(containerd, "the_image_of_sandboxes_is_pinned").await;
    let other = scene.world.another_node("the_image_of_sandboxes_is_pinned_straight").await;
    let straight = other.containerd.cri();
    for cri in [scene.cri(), &straight] {
        cri.run_pod(cri.pod("default")).await.unwrap();
    }
    let pins = containerd != Version::V1_6;
    assert!(is_pinned(&straight, pins).await, "without the gate");
    assert!(is_pinned(scene.cri(), pins).await, "through the gate");
    // 1.6 pins nothing, and 2.1 puts the label back by itself.
    if containerd == Version::V1_7 {
        // As after a pull by hand, which does not know what the image is for.
        let pause = format!("{}:3.10", scene.world.gun("pause"));
        scene.world.containerd.ctr().run(&["images", "label", &pause, "io.cri-containerd.pinned="]).await;
        assert!(is_pinned(scene.cri(), false).await, "containerd follows the record");
        scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
        assert!(is_pinned(scene.cri(), true).await, "again");
    }
}

/// Whether the image of sandboxes gets to be pinned, or not, as it is to be. containerd's CRI follows its records.
async fn is_pinned(cri: &Cri, expected: bool) -> bool {
    let id = sandbox().id().to_string();
    let deadline = Instant::now() + COMES_WITHIN;
    loop {
        let listed = cri.list_images().await.unwrap();
        let image = listed.iter().find(|image| image.id == id).expect("the image of sandboxes is here");
        if image.pinned == expected || Instant::now() > deadline {
            return image.pinned == expected;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_container_is_stopped_in_its_time_and_ends_as_containerd_ends_it(containerd: Version) {
    let scene = Scene::on(containerd, "a_container_is_stopped").await;
    let (pod, id) = (scene.cri().run_pod(scene.cri().pod("default")).await.unwrap(), scene.cri().pull(&scene.name).await.unwrap());
    // SIGTERM, and SIGKILL when there is no time for that.
    for (timeout, code) in [(COMES_WITHIN.as_secs(), 143), (0, 137)] {
        let mut ends = Vec::new();
        for cri in scene.ways() {
            let container_id = scene.cri().run_image(&pod, &id, &scene.name).await.unwrap().container;
            let timeout = i64::try_from(timeout).unwrap();
            cri.runtime().stop_container(StopContainerRequest { container_id: container_id.clone(), timeout }).await.unwrap();
            let status = cri.container_status(&container_id).await.unwrap();
            ends.push((status.state(), status.exit_code, status.reason, status.message, status.image_ref));
            assert_eq!(cri.start(&container_id).await.unwrap_err().code(), Code::Unknown, "what has ended is not started again");
            cri.remove(&container_id).await.unwrap();
        }
        assert_eq!(ends[0], ends[1]);
        assert_eq!((ends[0].0, ends[0].1), (ContainerState::ContainerExited, code));
    }
}

async fn what_is_asked_of_the_node_and_of_a_running_pod_is_answered_as_by_containerd(containerd: Version) {
    let scene = Scene::on(containerd, "what_is_asked_of_the_node").await;
    let (pod, container_id) = scene.runs().await;
    let [through, straight] = scene.ways();
    let (through, straight) = (asked_of(&through, &pod, &container_id).await, asked_of(&straight, &pod, &container_id).await);
    assert_eq!(through, straight);
    let worked: Vec<_> = through.iter().filter(|(_, answer)| answer.is_ok()).map(|(call, _)| *call).collect();
    let always = ["Version", "Status", "ImageFsInfo", "UpdateContainerResources", "ReopenContainerLog", "UpdateRuntimeConfig"];
    assert!(always.iter().all(|call| worked.contains(call)), "{through:?}");
}

/// What crictl asks besides; of statistics, whose figures change, whom they are about.
async fn asked_of(cri: &Cri, pod: &Pod, container_id: &str) -> Vec<(&'static str, Result<String, (Code, String)>)> {
    let (mut runtime, mut images) = (cri.runtime(), cri.images());
    let (pod_id, container_id) = (pod.id.clone(), container_id.to_owned());
    let linux = Some(LinuxContainerResources { memory_limit_in_bytes: 64 << 20, cpu_shares: 512, ..Default::default() });
    let update = UpdateContainerResourcesRequest { container_id: container_id.clone(), linux, ..Default::default() };
    let checkpoint = CheckpointContainerRequest { container_id: container_id.clone(), ..Default::default() };
    let of_pod = PodSandboxStatsRequest { pod_sandbox_id: pod_id };
    vec![
        ("Version", told(cri.version().await)),
        ("Status", told(runtime.status(StatusRequest { verbose: true }).await.map(|answer| answer.into_inner().status))),
        ("RuntimeConfig", told(runtime.runtime_config(RuntimeConfigRequest {}).await.map(Response::into_inner))),
        ("UpdateRuntimeConfig", told(runtime.update_runtime_config(UpdateRuntimeConfigRequest::default()).await.map(Response::into_inner))),
        ("UpdateContainerResources", told(runtime.update_container_resources(update).await.map(Response::into_inner))),
        (
            "ReopenContainerLog",
            told(runtime.reopen_container_log(ReopenContainerLogRequest { container_id }).await.map(Response::into_inner)),
        ),
        ("CheckpointContainer", told(runtime.checkpoint_container(checkpoint).await.map(Response::into_inner))),
        ("PodSandboxStats", told(runtime.pod_sandbox_stats(of_pod).await.map(|answer| answer.into_inner().stats.map(whom)))),
        ("ListPodSandboxStats", told(runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await.map(whom_all))),
        ("ListPodSandboxMetrics", told(runtime.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.map(drop))),
        ("ListMetricDescriptors", told(runtime.list_metric_descriptors(ListMetricDescriptorsRequest {}).await.map(Response::into_inner))),
        ("ImageFsInfo", told(images.image_fs_info(ImageFsInfoRequest {}).await.map(|answer| mountpoints(answer.into_inner())))),
    ]
}

fn told<T: Debug>(answer: Result<T, Status>) -> Result<String, (Code, String)> {
    answer.map(|answer| format!("{answer:?}")).map_err(|status| (status.code(), status.message().to_owned()))
}

fn whom(stats: PodSandboxStats) -> (String, Vec<String>) {
    let containers = stats.linux.unwrap().containers.into_iter().map(|container| container.attributes.unwrap().id);
    (stats.attributes.unwrap().id, containers.collect())
}

fn whom_all(answer: Response<ListPodSandboxStatsResponse>) -> Vec<(String, Vec<String>)> {
    answer.into_inner().stats.into_iter().map(whom).collect()
}

fn mountpoints(answer: ImageFsInfoResponse) -> Vec<String> {
    answer.image_filesystems.into_iter().map(|used| used.fs_id.unwrap().mountpoint).collect()
}

/// Of what the first event is that tells of a container or sandbox.
async fn first_event(cri: Cri) -> Result<String, Code> {
    let mut events = cri.runtime().get_container_events(GetEventsRequest {}).await.map_err(|status| status.code())?.into_inner();
    let event = events.message().await.map_err(|status| status.code())?;
    Ok(event.expect("the stream goes on").container_id)
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}
