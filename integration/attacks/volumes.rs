//! Image volumes, which containerd mounts from 2.1 on: from the record of exactly the name that is given, whatever its CRI
//! shows for that name.

use std::time::Duration;

use k8s_cri::v1::ContainerConfig;

use super::super::harness::containerd::Version;
use super::super::harness::cri::{Pod, container, image_volume};
use super::super::harness::image::{Image, Recipe};
use super::super::harness::relay::Relay;
use super::super::harness::world::World;
use super::super::verify::countersign;
use super::{REPOSITORY, Scene, assert_denied, binary};

/// Where the volume is, in it a file of the signed image or of the evil one.
const VOLUME: &str = "/volume";

/// Another repository, whose images have a rule of their own.
const DATA: &str = "team/data";

/// A gate behind a relay, with a signed image whose file says so, and an evil one with the same file on the node.
struct Volumes {
    scene: Scene,
    relay: Relay,
    evil: Image,
    id: String,
    pod: Pod,
}

impl Volumes {
    async fn new(test: &str) -> Self {
        let mut world = World::on(Version::V2_1, test).await;
        let image = Recipe::shell("cat /volume/which").file("/which", "signed\n").build();
        let evil = Recipe::shell("cat /volume/which").file("/which", "evil\n").build();
        let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
        let relay = Relay::start(&world.folder, &world.containerd.socket());
        let mut configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.clone());
        configuration.containerd = Some(relay.socket().to_owned());
        world.start_gate(binary(), &configuration).await;
        let scene = Scene { world, image, name, root };
        let id = scene.pull().await;
        scene.ctr().import(&evil, "example.com/evil:1").await;
        let pod = scene.pod().await;
        Self { scene, relay, evil, id, pod }
    }

    /// A container of the signed image with this image as its volume.
    fn container(&self, volumes: &[&str]) -> ContainerConfig {
        let mount = |volume: &&str| image_volume(VOLUME, volume, &self.scene.name);
        ContainerConfig { mounts: volumes.iter().map(mount).collect(), ..container(&self.id, &self.scene.name) }
    }

    /// Makes a record lead to the evil image when everything was looked at and the create is on its way.
    fn switch_before_the_create(&self, config: &ContainerConfig, record: &str) {
        let (ctr, evil, record) = (self.scene.ctr(), self.evil.top().clone(), record.to_owned());
        self.relay.before(&config.metadata.as_ref().unwrap().name, async move { ctr.retarget(&record, &evil).await.unwrap() });
    }
}

#[tokio::test]
async fn a_signed_images_files_are_seen_in_a_volume_before_and_after_a_restart() {
    let mut volumes = Volumes::new("a_signed_volume").await;
    for given in [volumes.id.clone(), volumes.scene.name.clone()] {
        let made = volumes.scene.cri().create(&volumes.pod, volumes.container(&[&given])).await.unwrap();
        volumes.scene.world.gate.as_mut().unwrap().restart().await;
        volumes.scene.cri().start(&made).await.unwrap();
        volumes.scene.cri().exit_code(&made).await.unwrap();
        assert_eq!(volumes.scene.cri().output(&made).await.unwrap(), "signed\n", "{given}");
    }
}

#[tokio::test]
async fn a_volume_whose_place_is_written_in_a_roundabout_way_is_looked_at_where_it_is() {
    let volumes = Volumes::new("a_roundabout_place").await;
    for (number, place) in ["/w/../volume", "//./volume/", "/../volume"].into_iter().enumerate() {
        let pod = volumes.scene.pod().await;
        let mut config = volumes.container(&[]);
        config.mounts = vec![image_volume(place, &volumes.id, &volumes.scene.name)];
        let made = volumes.scene.cri().create(&pod, config.clone()).await.unwrap();
        volumes.scene.cri().start(&made).await.unwrap();
        volumes.scene.cri().exit_code(&made).await.unwrap();
        assert_eq!(volumes.scene.cri().output(&made).await.unwrap(), "signed\n", "{place}");
        volumes.scene.cri().remove(&made).await.unwrap();

        let pod = volumes.scene.pod().await;
        config.metadata.as_mut().unwrap().name = format!("switched-{number}");
        volumes.switch_before_the_create(&config, &volumes.id);
        let refused = volumes.scene.cri().create(&pod, config).await.unwrap_err();
        assert!(!volumes.relay.is_waiting(), "the create was sent: {refused:?}");
        assert_denied(&refused, "CS-OTHER-VOLUME");
        volumes.scene.ctr().retarget(&volumes.id, volumes.scene.image.top()).await.unwrap();
    }
}

#[tokio::test]
async fn a_volumes_record_that_leads_elsewhere_is_refused() {
    let volumes = Volumes::new("a_volumes_record").await;
    // CRI goes on to take the ID for what it was.
    volumes.scene.ctr().retarget(&volumes.id, volumes.evil.top()).await.unwrap();
    let refused = volumes.scene.cri().create(&volumes.pod, volumes.container(&[&volumes.id])).await.unwrap_err();
    assert_denied(&refused, "CS-OTHER-RECORD");
    volumes.scene.runs_nothing().await;
}

#[tokio::test]
async fn a_volumes_record_that_is_switched_on_the_way_is_caught_by_what_is_mounted() {
    let volumes = Volumes::new("a_switched_volume").await;
    let config = volumes.container(&[&volumes.id]);
    volumes.switch_before_the_create(&config, &volumes.id);
    let refused = volumes.scene.cri().create(&volumes.pod, config).await.unwrap_err();
    assert!(!volumes.relay.is_waiting(), "the create was sent: {refused:?}");
    assert_denied(&refused, "CS-OTHER-VOLUME");
    volumes.scene.runs_nothing().await;
    let line = volumes.scene.audit_line(|line| line["method"] == "CreateContainer" && line["verdict"] == "deny");
    assert_eq!((&line["code"], &line["image"]), (&"CS-OTHER-VOLUME".into(), &volumes.scene.name.as_str().into()), "{line:#}");
    let log = std::fs::read_to_string(volumes.scene.world.gate.as_ref().unwrap().state().join("audit/decisions.jsonl")).unwrap();
    let allowed = log.lines().filter(|line| line.contains("\"CreateContainer\"") && line.contains("\"allow\"")).count();
    assert_eq!(allowed, 2, "the image and that of its volume were judged, each with a line: {log}");
}

#[tokio::test]
async fn of_two_volumes_at_one_place_both_are_looked_at() {
    let volumes = Volumes::new("two_volumes").await;
    // By the name it stays what it is; by the ID it is switched. containerd mounts an image once for a pod, and uses that again.
    for (given, is_evil) in [([volumes.scene.name.as_str(), volumes.id.as_str()], false), ([&volumes.id, &volumes.scene.name], true)] {
        let pod = volumes.scene.pod().await;
        let config = volumes.container(&given);
        volumes.switch_before_the_create(&config, &volumes.id);
        let created = volumes.scene.cri().create(&pod, config).await;
        assert!(!volumes.relay.is_waiting(), "the create was sent: {created:?}");
        if is_evil {
            assert_denied(&created.unwrap_err(), "CS-OTHER-VOLUME");
        } else {
            let made = created.unwrap();
            volumes.scene.cri().start(&made).await.unwrap();
            volumes.scene.cri().exit_code(&made).await.unwrap();
            assert_eq!(volumes.scene.cri().output(&made).await.unwrap(), "signed\n");
            volumes.scene.cri().remove(&made).await.unwrap();
        }
        volumes.scene.runs_nothing().await;
        volumes.scene.ctr().retarget(&volumes.id, volumes.scene.image.top()).await.unwrap();
    }
}

#[tokio::test]
async fn the_strictest_rule_of_an_image_and_its_volume_counts_for_both_until_the_digest_of_the_other_is_listed() {
    let mut volumes = Volumes::new("a_lenient_volume").await;
    let evil = "example.com/evil:1";
    let listed = format!("allow-digests = [\"{}\"]", volumes.evil.digest());
    for (lines, is_listed) in [("mode = \"permissive\"", false), (listed.as_str(), true)] {
        let mut configuration = volumes.scene.configuration().rule("example.com/*", lines);
        configuration.containerd = Some(volumes.relay.socket().to_owned());
        let gate = volumes.scene.world.gate.as_mut().unwrap();
        gate.configure(&configuration);
        gate.restart().await;
        let signed = volumes.scene.name.clone();
        for (root, volume, content) in [(signed.as_str(), evil, "evil\n"), (evil, &signed, "signed\n")] {
            let mut config = container(root, root);
            config.mounts = vec![image_volume(VOLUME, volume, volume)];
            let created = volumes.scene.cri().create(&volumes.pod, config).await;
            if !is_listed {
                assert_denied(&created.unwrap_err(), "CS-NOT-REGISTERED");
                continue;
            }
            let made = created.unwrap();
            volumes.scene.cri().start(&made).await.unwrap();
            volumes.scene.cri().exit_code(&made).await.unwrap();
            assert_eq!(volumes.scene.cri().output(&made).await.unwrap(), content, "{root} with {volume}");
            volumes.scene.cri().remove(&made).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_enforced_volume_of_an_image_whose_rule_is_permissive_is_looked_at_to_the_end() {
    let mut volumes = Volumes::new("an_enforced_volume").await;
    let data = Recipe::prints("data").file("/which", "data\n").build();
    let (data_name, data_root) = volumes.scene.world.push_signed(&data, DATA, "1").await;
    let world = &volumes.scene.world;
    let mut configuration = volumes.scene.configuration().root_key(world.gun(DATA), data_root.canonical);
    configuration = configuration.rule(&world.gun(REPOSITORY), "mode = \"permissive\"");
    configuration.containerd = Some(volumes.relay.socket().to_owned());
    let gate = volumes.scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration);
    gate.restart().await;
    let data_id = volumes.scene.cri().pull(&data_name).await.unwrap();
    let with_data = || {
        let mut config = container(&volumes.id, &volumes.scene.name);
        config.mounts = vec![image_volume(VOLUME, &data_id, &data_name)];
        config
    };

    let made = volumes.scene.cri().create(&volumes.pod, with_data()).await.unwrap();
    volumes.scene.cri().start(&made).await.unwrap();
    volumes.scene.cri().exit_code(&made).await.unwrap();
    assert_eq!(volumes.scene.cri().output(&made).await.unwrap(), "data\n");
    volumes.scene.cri().remove(&made).await.unwrap();

    let pod = volumes.scene.pod().await;
    let waiting = volumes.scene.cri().create(&pod, with_data()).await.unwrap();
    let data_gun = volumes.scene.world.gun(DATA);
    let gate = volumes.scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration.clone().rule(&data_gun, "deny = true"));
    let file = gate.configuration().to_str().unwrap().to_owned();
    assert_eq!(countersign(&["reload", "--config", &file]).await.0, Some(0));
    assert_denied(&volumes.scene.cri().start(&waiting).await.unwrap_err(), "CS-DENIED-BY-RULE");
    volumes.scene.cri().remove(&waiting).await.unwrap();
    volumes.scene.world.gate.as_ref().unwrap().configure(&configuration);
    assert_eq!(countersign(&["reload", "--config", &file]).await.0, Some(0));

    let pod = volumes.scene.pod().await;
    let config = with_data();
    volumes.switch_before_the_create(&config, &data_id);
    let refused = volumes.scene.cri().create(&pod, config).await.unwrap_err();
    assert!(!volumes.relay.is_waiting(), "the create was sent: {refused:?}");
    assert_denied(&refused, "CS-OTHER-VOLUME");
    volumes.scene.runs_nothing().await;
}

/// Both images are signed, so that nothing has to be let pass before the create.
#[tokio::test]
async fn a_signed_volume_of_a_permissive_rule_that_is_switched_to_a_denied_image_is_denied() {
    let mut volumes = Volumes::new("a_volume_switched_to_a_denied_image").await;
    let denied = format!("deny-digests = [\"{}\"]", volumes.evil.digest());
    let gun = volumes.scene.world.gun(REPOSITORY);
    for (table, is_denied) in [(denied.as_str(), true), ("", false)] {
        let mut configuration = volumes.scene.configuration().rule(&gun, "mode = \"permissive\"").content_trust(table);
        configuration.containerd = Some(volumes.relay.socket().to_owned());
        let gate = volumes.scene.world.gate.as_mut().unwrap();
        gate.configure(&configuration);
        gate.restart().await;
        let pod = volumes.scene.pod().await;
        let config = volumes.container(&[&volumes.id]);
        volumes.switch_before_the_create(&config, &volumes.id);
        let created = volumes.scene.cri().create(&pod, config).await;
        assert!(!volumes.relay.is_waiting(), "the create was sent: {created:?}");
        if is_denied {
            assert_denied(&created.unwrap_err(), "CS-OTHER-VOLUME");
            volumes.scene.runs_nothing().await;
        } else {
            created.expect("its rule lets pass what is no denied digest");
        }
        volumes.scene.ctr().retarget(&volumes.id, volumes.scene.image.top()).await.unwrap();
    }
}

#[tokio::test]
async fn a_container_with_an_unsigned_volume_that_was_made_past_the_gate_does_not_start() {
    let volumes = Volumes::new("past_with_a_volume").await;
    let made = volumes.scene.behind().create(&volumes.pod, volumes.container(&["example.com/evil:1"])).await.unwrap();
    let refused = volumes.scene.cri().start(&made).await.unwrap_err();
    assert_denied(&refused, "CS-UNKNOWN-ROOTFS");
    let place = format!("has the root file system {} of the image volume at {VOLUME};", volumes.evil.chain_id());
    assert!(refused.message().contains(&place), "{}", refused.message());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(volumes.scene.cri().container_status(&made).await.unwrap().started_at, 0, "it was never started");
}
