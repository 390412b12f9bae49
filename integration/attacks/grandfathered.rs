//! Services that ran before their images were enforced: they go on, by content, one container of one pod; nothing slips in with
//! them.

use std::time::Duration;

use k8s_cri::v1::{ContainerConfig, Mount};
use serde_json::Value;

use super::super::harness::containerd::Version;
use super::super::harness::cri::{Pod, Ran, container, image_volume};
use super::super::harness::image::{Image, Recipe};
use super::super::harness::relay::Relay;
use super::super::verify::countersign;
use super::{Scene, assert_denied};

on_every_containerd! {
    a_service_that_was_let_pass_goes_on_when_its_image_is_enforced_and_nothing_slips_in_with_it,
    what_ran_before_countersign_came_goes_on_when_an_operator_says_so,
    a_service_is_made_of_what_it_ran_by_content_whatever_its_name_means_now,
}

const DENIED: &str = "CS-TAG-NOT-SIGNED";
/// How long the watcher may take to see what it is told of.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
/// Where a service sees the image of a volume.
const VOLUME: &str = "/volume";
const SECOND: Duration = Duration::from_millis(1100);

impl Scene {
    async fn countersign(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let file = self.gate().configuration().to_str().unwrap().to_owned();
        countersign(&[words, &["--config", &file]].concat()).await
    }

    /// An operator changes the configuration of the running daemon.
    async fn reload(&mut self, change: impl FnOnce(super::GateConfig) -> super::GateConfig) {
        let configuration = change(self.configuration());
        self.gate().configure(&configuration);
        let (exit, out, err) = self.countersign(&["reload"]).await;
        assert_eq!(exit, Some(0), "{out}{err}");
    }

    /// As on a node where countersign is installed now: it has no record, and knows nothing of what runs. What was made within the
    /// second in which its record begins counts as older.
    async fn is_installed(&mut self, change: impl FnOnce(super::GateConfig) -> super::GateConfig) {
        let configuration = change(self.configuration());
        let gate = self.world.gate.as_mut().unwrap();
        gate.kill();
        std::fs::remove_dir_all(gate.state()).unwrap();
        tokio::time::sleep(SECOND).await;
        gate.configure(&configuration);
        gate.start_again().await;
    }

    async fn status(&self) -> Value {
        let (_, out, _) = self.countersign(&["status", "--output", "json"]).await;
        serde_json::from_str(&out).unwrap()
    }

    async fn services(&self) -> Vec<Value> {
        let (exit, out, err) = self.countersign(&["grandfather", "list", "--output", "json"]).await;
        assert_eq!(exit, Some(0), "{out}{err}");
        serde_json::from_str::<Value>(&out).unwrap()["services"].as_array().unwrap().clone()
    }

    /// Waits until so many services are on record.
    async fn services_are(&self, count: usize) -> Vec<Value> {
        let deadline = std::time::Instant::now() + SEEN_WITHIN;
        loop {
            let services = self.services().await;
            if services.len() == count {
                return services;
            }
            assert!(std::time::Instant::now() < deadline, "not {count} services: {services:#?}\n{}", self.gate().log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The watcher has seen what runs.
    async fn is_running(&self, count: u64) {
        let deadline = std::time::Instant::now() + SEEN_WITHIN;
        while self.status().await["inventory"]["running"] != count {
            assert!(std::time::Instant::now() < deadline, "{:#}", self.status().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A service: one container of one pod.
struct Service {
    pod: Pod,
    /// The image, as the pod names it.
    name: String,
    image_id: String,
    volumes: Vec<Mount>,
    container: String,
    attempt: u32,
}

impl Service {
    /// Runs it: through the gate, or before there is one.
    async fn run(cri: &super::Cri, namespace: &str, name: &str) -> Self {
        Self::run_with(cri, namespace, name, &[]).await
    }

    /// As [`Service::run`], with images in volumes.
    async fn run_with(cri: &super::Cri, namespace: &str, name: &str, volumes: &[&str]) -> Self {
        let pod = cri.run_pod(cri.pod(namespace)).await.unwrap();
        let image_id = cri.pull_with(name, None, Some(&pod.config)).await.unwrap();
        let (name, container) = (name.to_owned(), String::new());
        let mut service = Self { pod, name, image_id, volumes: Vec::new(), container, attempt: 0 };
        for volume in volumes {
            let id = cri.pull_with(volume, None, Some(&service.pod.config)).await.unwrap();
            service.volumes.push(image_volume(VOLUME, &id, volume));
        }
        service.container = cri.create(&service.pod, service.wanted()).await.unwrap();
        cri.start(&service.container).await.unwrap();
        cri.first_output(&service.container).await.unwrap();
        service
    }

    /// What kubelet asks for.
    fn wanted(&self) -> ContainerConfig {
        let mut wanted = container(&self.image_id, &self.name);
        let metadata = wanted.metadata.as_mut().unwrap();
        (metadata.name, metadata.attempt) = ("web".to_owned(), self.attempt);
        wanted.mounts.clone_from(&self.volumes);
        wanted
    }

    /// What kubelet asks for when the container has ended.
    fn restarted(&self) -> ContainerConfig {
        let mut wanted = self.wanted();
        wanted.metadata.as_mut().unwrap().attempt += 1;
        wanted
    }

    /// What kubelet does when the container has ended: it is made anew in its pod, with the next number.
    async fn restart(&mut self, cri: &super::Cri) -> Result<(), tonic::Status> {
        cri.stop(&self.container).await?;
        self.attempt += 1;
        let container = cri.create(&self.pod, self.wanted()).await?;
        cri.start(&container).await?;
        cri.first_output(&container).await?;
        cri.remove(&self.container).await?;
        self.container = container;
        Ok(())
    }
}

fn unsigned(line: &str) -> Image {
    Recipe::prints_and_stays(line).build()
}

/// A service that was let pass, on a node whose mode was permissive and is enforced now.
async fn service_of_before(containerd: Version, test: &str) -> (Scene, Service) {
    let mut scene = Scene::on(containerd, test).await;
    scene.is_installed(|config| config.mode("permissive")).await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    let service = Service::run(scene.cri(), "shop", &name).await;
    scene.is_running(1).await;
    (scene, service)
}

async fn a_service_that_was_let_pass_goes_on_when_its_image_is_enforced_and_nothing_slips_in_with_it(containerd: Version) {
    let (mut scene, mut service) = service_of_before(containerd, "grandfathered").await;
    let evil = scene.world.push(&unsigned("evil"), "team/app", "evil").await;
    let evil_id = scene.behind().pull(&evil).await.unwrap();
    scene.reload(|config| config.mode("enforced")).await;

    let services = scene.services_are(1).await;
    assert_eq!((&services[0]["namespace"], &services[0]["container"]), (&"shop".into(), &"web".into()), "{services:#?}");
    assert_eq!(services[0]["image-id"], service.image_id);
    let status = scene.status().await;
    assert_eq!((&status["inventory"]["grandfathered"], &status["inventory"]["unverified"]), (&1.into(), &0.into()), "{status:#}");
    assert_eq!(status["inventory"]["containers"][0]["until"], services[0]["until"], "{status:#}");

    // It is made again, as often as needed, also after a restart of the daemon, and the pod's pull is answered by what it has.
    service.restart(scene.cri()).await.unwrap();
    let before = scene.world.registry.requests().len();
    let pulled = scene.cri().pull_with(&service.name, None, Some(&service.pod.config)).await.unwrap();
    assert_eq!((pulled, scene.world.registry.requests().len()), (service.image_id.clone(), before));
    for method in ["PullImage", "CreateContainer", "StartContainer"] {
        let line = scene.audit_line(|line| line["method"] == method && line["verdict"] == "goes-on");
        assert_eq!((&line["code"], &line["namespace"]), (&"CS-GRANDFATHERED".into(), &"shop".into()), "{line:#}");
    }
    scene.world.gate.as_mut().unwrap().restart().await;
    service.restart(scene.cri()).await.unwrap();

    // Nothing else passes by it: no other pod, no other container, no other image, whatever it is called.
    let other = scene.pod().await;
    assert_denied(&scene.cri().create(&other, service.wanted()).await.unwrap_err(), DENIED);
    assert_denied(&scene.cri().pull_with(&service.name, None, Some(&other.config)).await.unwrap_err(), DENIED);
    let mut claims = service.wanted();
    claims.metadata.as_mut().unwrap().name = "other".to_owned();
    assert_denied(&scene.cri().create(&service.pod, claims).await.unwrap_err(), DENIED);
    let mut request = service.wanted();
    request.image.as_mut().unwrap().image = evil_id;
    assert_denied(&scene.cri().create(&service.pod, request).await.unwrap_err(), DENIED);
    // What the request says of its pod counts for nothing.
    let imitated = Pod { id: other.id.clone(), config: service.pod.config.clone() };
    assert_denied(&scene.cri().create(&imitated, service.wanted()).await.unwrap_err(), DENIED);

    // A rule that denies comes first, at the start of what was made before it came, too.
    service.attempt += 1;
    let made = scene.cri().create(&service.pod, service.wanted()).await.unwrap();
    let gun = scene.world.gun(super::REPOSITORY);
    scene.reload(|config| config.rule(&gun, "deny = true")).await;
    assert_denied(&scene.cri().start(&made).await.unwrap_err(), "CS-DENIED-BY-RULE");
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), "CS-DENIED-BY-RULE");
    scene.reload(|config| config).await;
    scene.cri().remove(&made).await.unwrap();

    // Revocation comes first.
    let denied = format!("deny-digests = [\"{}\"]", service.image_id);
    scene.reload(|config| config.content_trust(&denied)).await;
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), "CS-DIGEST-DENIED");
    scene.reload(|config| config).await;
    service.restart(scene.cri()).await.unwrap();
    scene.runs_the_signed_image().await;
}

async fn what_ran_before_countersign_came_goes_on_when_an_operator_says_so(containerd: Version) {
    let mut scene = Scene::on(containerd, "before_it_came").await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    scene.world.gate.as_mut().unwrap().kill();
    let mut service = Service::run(&scene.behind(), "shop", &name).await;
    scene.is_installed(|config| config).await;
    scene.is_running(1).await;
    assert_eq!(scene.services().await, [] as [Value; 0], "nothing goes on by itself");
    let (exit, out, err) = scene.countersign(&["grandfather", "take", "--until", "2027-01-31", "--reason", "installation"]).await;
    assert_eq!(exit, Some(0), "{out}{err}");
    assert!(out.contains("2027-01-31T00:00:00Z"), "{out}");
    service.restart(scene.cri()).await.unwrap();
}

#[tokio::test]
async fn what_an_operator_takes_down_goes_on_until_it_is_ended_and_what_came_past_the_gate_is_left_out() {
    let mut scene = Scene::new("operator_takes").await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    scene.world.gate.as_mut().unwrap().kill();
    let mut service = Service::run(&scene.behind(), "shop", &name).await;
    let mut lab = Service::run(&scene.behind(), "lab", &name).await;
    scene.is_installed(|config| config).await;
    scene.is_running(2).await;
    tokio::time::sleep(SECOND).await;
    let past: Service = Service::run(&scene.behind(), "shop", &name).await;
    scene.is_running(3).await;

    let take = ["grandfather", "take", "--namespace", "shop", "--output", "json"];
    assert_eq!(scene.countersign(&[&take[..], &["--reason", " "]].concat()).await.0, Some(2), "a reason is needed");
    for (until, why) in [("2020-01-01", "is past"), ("2126-01-01", "more than a year"), ("soon", "is no moment")] {
        let (exit, _, err) = scene.countersign(&[&take[..], &["--reason", "x", "--until", until]].concat()).await;
        assert_eq!(exit, Some(2), "{err}");
        assert!(err.contains(why), "{err}");
    }
    let (exit, out, _) = scene.countersign(&[&take[..], &["--reason", "installation", "--dry-run"]].concat()).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &shown["written"], shown["services"].as_array().unwrap().len()), (Some(1), &false.into(), 1), "{shown:#}");
    assert_eq!(scene.services().await, [] as [Value; 0]);

    let (_, out, _) = scene.countersign(&[&take[..], &["--reason", "installation"]].concat()).await;
    let taken: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(taken["services"].as_array().unwrap().len(), 1, "{taken:#}");
    assert_eq!(taken["left-out"][0]["why"], "it came past the gate", "{taken:#}");
    assert!(taken["services"][0]["by"].as_str().unwrap().ends_with(": installation"), "{taken:#}");
    service.restart(scene.cri()).await.unwrap();
    assert_denied(&lab.restart(scene.cri()).await.unwrap_err(), DENIED);
    assert_denied(&scene.cri().create(&past.pod, past.wanted()).await.unwrap_err(), DENIED);

    let place = format!("shop/{}", service.pod.config.metadata.as_ref().unwrap().name);
    let end = ["grandfather", "end", "--reason", "it is over"];
    let (exit, _, err) = scene.countersign(&[&end[..], &["shop/nobody"]].concat()).await;
    assert_eq!(exit, Some(2), "{err}");
    let (exit, out, err) = scene.countersign(&[&end[..], &[place.as_str()]].concat()).await;
    assert_eq!(exit, Some(0), "{out}{err}");
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), DENIED);
    let (_, out, _) = scene.countersign(&["reset", "--list"]).await;
    assert!(out.contains("installation") && out.contains("it is over"), "{out}");
}

async fn a_service_is_made_of_what_it_ran_by_content_whatever_its_name_means_now(containerd: Version) {
    let (mut scene, mut service) = service_of_before(containerd, "service_content").await;
    scene.reload(|config| config).await;
    scene.services_are(1).await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    let good = scene.root_of(&service.container).await;

    // A container of the same name in the same pod that the gate did not make.
    let mut imitation = container(&evil.id().to_string(), &service.name);
    imitation.metadata.as_mut().unwrap().name = "web".to_owned();
    imitation.metadata.as_mut().unwrap().attempt = 9;
    let imitation = scene.behind().create(&service.pod, imitation).await.unwrap();
    assert_denied(&scene.cri().start(&imitation).await.unwrap_err(), "CS-UNKNOWN-ROOTFS");
    scene.behind().remove(&imitation).await.unwrap();

    // CRI keeps its view of the name, and the record moves on.
    scene.world.containerd.blind_cri(&service.name).await.unwrap();
    scene.ctr().retarget(&service.name, evil.top()).await.unwrap();
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), "CS-OTHER-RECORD");
    scene.only_runs(&[good.parse().unwrap()]).await;
}

/// A service of before with an image volume of another repository: the service, the volume's name and the repository's.
async fn service_with_volume_of_before(test: &str) -> (Scene, Service, String, String) {
    let mut scene = Scene::on(Version::V2_1, test).await;
    scene.is_installed(|config| config.mode("permissive")).await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    let data = scene.world.push(&Recipe::sleeps().file("/which", "data").build(), "team/data", "1").await;
    let service = Service::run_with(scene.cri(), "shop", &name, &[&data]).await;
    scene.is_running(1).await;
    let gun = scene.world.gun("team/data");
    (scene, service, data, gun)
}

#[tokio::test]
async fn a_service_of_which_a_volume_alone_becomes_enforced_goes_on_with_that_volume_and_no_other() {
    let (mut scene, mut service, data, gun) = service_with_volume_of_before("volume_enforced").await;
    let evil = scene.world.push(&Recipe::sleeps().file("/which", "evil").build(), "team/data", "evil").await;
    let evil_id = scene.behind().pull(&evil).await.unwrap();
    let enforce = |config: super::GateConfig, lines: &str| config.mode("permissive").rule(&gun, lines);
    scene.reload(|config| enforce(config, "mode = \"enforced\"")).await;
    let services = scene.services_are(1).await;
    let volume_id = service.volumes[0].image.as_ref().unwrap().image.clone();
    assert_eq!(services[0]["volumes"], serde_json::json!([{"image": data, "image-id": volume_id}]), "{services:#?}");
    assert_eq!(scene.status().await["inventory"]["grandfathered"], 1);

    service.restart(scene.cri()).await.unwrap();
    let before = scene.world.registry.requests().len();
    let pulled = scene.cri().pull_with(&data, None, Some(&service.pod.config)).await.unwrap();
    assert_eq!((&pulled, scene.world.registry.requests().len()), (&volume_id, before));
    scene.world.gate.as_mut().unwrap().restart().await;
    service.restart(scene.cri()).await.unwrap();
    scene.is_running(1).await;
    assert_eq!(scene.status().await["inventory"]["grandfathered"], 1);

    // No other image in that place, not the volume's as the container's own, not for another container or pod.
    let other_volume = ContainerConfig { mounts: vec![image_volume(VOLUME, &evil_id, &data)], ..service.wanted() };
    let mut other_root = service.wanted();
    other_root.image.as_mut().unwrap().image.clone_from(&volume_id);
    let mut other_container = service.wanted();
    other_container.metadata.as_mut().unwrap().name = "other".to_owned();
    for config in [other_volume, other_root, other_container] {
        assert_denied(&scene.cri().create(&service.pod, config).await.unwrap_err(), "CS-NOT-PINNED");
    }
    let other = scene.pod().await;
    assert_denied(&scene.cri().create(&other, service.wanted()).await.unwrap_err(), "CS-NOT-PINNED");
    assert_denied(&scene.cri().pull_with(&data, None, Some(&other.config)).await.unwrap_err(), "CS-NOT-PINNED");

    // What forbids an image comes first, at the start of what was made before, too.
    service.attempt += 1;
    let made = scene.cri().create(&service.pod, service.wanted()).await.unwrap();
    let denied = format!("deny-digests = [\"{volume_id}\"]");
    for (lines, table, code, at_start) in [
        ("mode = \"enforced\"\ndeny = true", "", "CS-DENIED-BY-RULE", "CS-DENIED-BY-RULE"),
        ("mode = \"enforced\"", denied.as_str(), "CS-DIGEST-DENIED", "CS-UNKNOWN-ROOTFS"),
    ] {
        scene.reload(|config| enforce(config, lines).content_trust(table)).await;
        assert_denied(&scene.cri().start(&made).await.unwrap_err(), at_start);
        assert_denied(&scene.cri().create(&service.pod, service.restarted()).await.unwrap_err(), code);
    }
    scene.reload(|config| enforce(config, "mode = \"enforced\"")).await;
    scene.cri().remove(&made).await.unwrap();
    service.restart(scene.cri()).await.unwrap();
}

#[tokio::test]
async fn a_container_of_a_service_with_another_image_in_its_volume_that_was_made_past_the_gate_does_not_start() {
    let (mut scene, service, data, _) = service_with_volume_of_before("volume_past").await;
    let evil = scene.world.push(&Recipe::sleeps().file("/which", "evil").build(), "team/data", "evil").await;
    let evil_id = scene.behind().pull(&evil).await.unwrap();
    scene.reload(|config| config.mode("enforced")).await;
    scene.services_are(1).await;
    for (attempt, volume, goes_on) in [(8, &service.volumes[0].image.as_ref().unwrap().image, true), (9, &evil_id, false)] {
        let mut wanted = ContainerConfig { mounts: vec![image_volume(VOLUME, volume, &data)], ..service.wanted() };
        wanted.metadata.as_mut().unwrap().attempt = attempt;
        let made = scene.cri().create(&service.pod, wanted.clone()).await;
        assert_eq!(made.is_ok(), goes_on, "{made:?}");
        let made = match made {
            Ok(made) => made,
            Err(_) => scene.behind().create(&service.pod, wanted).await.unwrap(),
        };
        match scene.cri().start(&made).await {
            Ok(()) => assert!(goes_on),
            Err(refused) => {
                assert!(!goes_on, "{refused:?}");
                assert_denied(&refused, "CS-UNKNOWN-ROOTFS");
            }
        }
    }
}

#[tokio::test]
async fn the_volume_of_a_service_that_is_switched_on_the_way_is_caught_by_what_is_mounted() {
    let mut scene = Scene::on(Version::V2_1, "service_volume_switched").await;
    let relay = Relay::start(&scene.world.folder, &scene.world.containerd.socket());
    let behind = || Some(relay.socket().to_owned());
    scene.is_installed(|config| super::GateConfig { containerd: behind(), ..config.mode("permissive") }).await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    let data = scene.world.push(&Recipe::sleeps().file("/which", "data").build(), "team/data", "1").await;
    let service = Service::run_with(scene.cri(), "shop", &name, &[&data]).await;
    let evil = Recipe::sleeps().file("/which", "evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    scene.is_running(1).await;
    scene.reload(|config| super::GateConfig { containerd: behind(), ..config.mode("enforced") }).await;
    scene.services_are(1).await;
    let good = scene.root_of(&service.container).await;

    // kubelet makes the pod a new sandbox: containerd mounts an image once for each.
    let mut config = service.pod.config.clone();
    config.metadata.as_mut().unwrap().attempt += 1;
    let pod = scene.cri().run_pod(config).await.unwrap();
    let wanted = service.restarted();
    let (ctr, record) = (scene.ctr(), service.volumes[0].image.as_ref().unwrap().image.clone());
    relay.before(&wanted.log_path, async move { ctr.retarget(&record, evil.top()).await.unwrap() });
    let refused = scene.cri().create(&pod, wanted).await.unwrap_err();
    assert!(!relay.is_waiting(), "the create was sent: {refused:?}");
    assert_denied(&refused, "CS-OTHER-VOLUME");
    assert_eq!(scene.only_runs(&[good.parse().unwrap()]).await, 1);
    assert_denied(&scene.cri().create(&pod, service.restarted()).await.unwrap_err(), "CS-OTHER-RECORD");
}

#[tokio::test]
async fn what_of_a_service_had_valid_evidence_is_judged_as_everybodys() {
    let mut scene = Scene::with(Version::V2_1, "verified_part", &Recipe::prints_and_stays("signed")).await;
    scene.is_installed(|config| config.mode("permissive")).await;
    let data = scene.world.push(&Recipe::sleeps().file("/which", "data").build(), "team/data", "1").await;
    let name = scene.name.clone();
    let mut service = Service::run_with(scene.cri(), "shop", &name, &[&data]).await;
    scene.is_running(1).await;
    scene.reload(|config| config.mode("enforced")).await;
    let services = scene.services_are(1).await;
    assert_eq!(services[0]["volumes"].as_array().unwrap().len(), 1, "{services:#?}");
    service.restart(scene.cri()).await.unwrap();
    service.attempt += 1;
    let made = scene.cri().create(&service.pod, service.wanted()).await.unwrap();

    let nobody = "[[signers]]\nname = \"nobody\"\nkeys = [\"0bf4028f1e0626984f4ca21bf5afb64eaf78246618a04009d967fba14ac31492\"]";
    scene.reload(|config| config.signed_by(&["acme/qa"]).table(nobody).team("acme/qa", &["nobody"])).await;
    assert_denied(&scene.cri().start(&made).await.unwrap_err(), "CS-SIGNING-POLICY");
    assert_denied(&scene.cri().create(&service.pod, service.restarted()).await.unwrap_err(), "CS-SIGNING-POLICY");
    assert_eq!(scene.status().await["inventory"]["grandfathered"], 0);
    scene.reload(|config| config).await;
    scene.cri().start(&made).await.unwrap();
}

#[tokio::test]
async fn an_operator_takes_down_what_ran_with_a_volume_before_countersign_came() {
    let mut scene = Scene::on(Version::V2_1, "volume_before_it_came").await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    let data = scene.world.push(&Recipe::sleeps().file("/which", "data").build(), "team/data", "1").await;
    scene.world.gate.as_mut().unwrap().kill();
    let mut service = Service::run_with(&scene.behind(), "shop", &name, &[&data]).await;
    scene.is_installed(|config| config).await;
    scene.is_running(1).await;
    let (exit, out, err) = scene.countersign(&["grandfather", "take", "--reason", "installation"]).await;
    assert_eq!(exit, Some(0), "{out}{err}");
    service.restart(scene.cri()).await.unwrap();
    scene.cri().pull_with(&data, None, Some(&service.pod.config)).await.unwrap();
}

#[tokio::test]
async fn a_service_ends_at_its_date() {
    let (mut scene, mut service) = service_of_before(Version::default(), "ends_at_its_date").await;
    scene.reload(|config| config.mode("enforced").content_trust("grandfather-for = \"12s\"")).await;
    scene.services_are(1).await;
    service.restart(scene.cri()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), DENIED);
    let services = scene.services().await;
    assert_eq!(services[0]["ended"], true, "{services:#?}");
    assert_eq!(scene.status().await["inventory"]["grandfathered"], 0);
}

#[tokio::test]
async fn a_node_that_lets_nothing_go_on_by_itself_denies() {
    let (mut scene, mut service) = service_of_before(Version::default(), "lets_nothing_go_on").await;
    scene.reload(|config| config.mode("enforced").content_trust("grandfather-for = \"0s\"")).await;
    scene.is_running(1).await;
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), DENIED);
    assert_eq!(scene.services().await, [] as [Value; 0]);
}

#[tokio::test]
async fn what_was_let_pass_while_enforcement_was_switched_off_for_a_while_is_no_service() {
    let mut scene = Scene::new("switched_off").await;
    let name = scene.world.push(&unsigned("crept in"), "team/app", "new").await;
    let denied = scene.cri().run(&name, "shop").await.unwrap_err();
    assert_denied(&denied, DENIED);
    scene.is_running(0).await;
    scene.reload(|config| config.mode("permissive")).await;
    let mut service = Service::run(scene.cri(), "shop", &name).await;
    scene.is_running(1).await;
    scene.reload(|config| config).await;
    scene.is_running(1).await;
    assert_eq!(scene.services().await, [] as [Value; 0], "it was enforced before");
    assert_denied(&service.restart(scene.cri()).await.unwrap_err(), DENIED);
    let ran: Ran = scene.cri().run(&scene.name, "shop").await.unwrap();
    assert_eq!(ran.output, "signed\n");
}

#[tokio::test]
async fn a_team_after_the_other_is_enforced_and_the_services_of_each_go_on() {
    let mut scene = Scene::new("team_after_team").await;
    scene.is_installed(|config| config.mode("permissive")).await;
    let name = scene.world.push(&unsigned("old"), "team/app", "old").await;
    let mut shop = Service::run(scene.cri(), "shop", &name).await;
    let mut lab = Service::run(scene.cri(), "lab", &name).await;
    scene.is_running(2).await;
    let gun = scene.world.gun(super::REPOSITORY);
    for (namespaces, count) in [("\"shop\"", 1), ("\"shop\", \"lab\"", 2)] {
        let rule = format!("namespaces = [{namespaces}]\nmode = \"enforced\"");
        scene.reload(|config| config.mode("permissive").rule(&gun, &rule)).await;
        scene.services_are(count).await;
    }
    shop.restart(scene.cri()).await.unwrap();
    lab.restart(scene.cri()).await.unwrap();
}
