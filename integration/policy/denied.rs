//! Digests that are never used, whatever anybody signed or excepted.

use std::time::Duration;

use k8s_cri::v1::{ContainerConfig, ImageSpec, Mount};

use super::super::harness::containerd::Version;
use super::super::harness::image::Recipe;
use super::super::harness::relay::Relay;
use super::super::harness::world::World;
use super::*;

on_every_containerd! {
    records_that_are_moved_to_a_denied_image_on_the_way_make_no_container_of_it,
    a_container_that_was_let_pass_does_not_start_once_its_digest_is_denied,
}

/// How often a record is moved in a race.
const MOVES: usize = 10;

/// Index, this machine's manifest and config of an image.
fn digests_of(image: &Image) -> [String; 3] {
    [image.digest().to_string(), image.manifest_digest().to_string(), image.id().to_string()]
}

fn denying(config: &GateConfig, digest: &str) -> GateConfig {
    config.clone().content_trust(&format!("deny-digests = [\"{digest}\"]"))
}

#[tokio::test]
async fn a_denied_index_manifest_or_config_is_refused_whatever_a_rule_says() {
    let mut world = World::new("a_denied_index_manifest_or_config").await;
    let image = Recipe::prints("signed").index().build();
    let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
    let gun = world.gun(REPOSITORY);
    let config = world.gate_config().root_key(&gun, root.canonical);
    let cri = world.start_gate(binary(), &config).await.cri().clone();
    assert_eq!(cri.run(&name, "default").await.unwrap().output, "signed\n");
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    let (id, by_digest) = (image.id().to_string(), format!("{gun}@{}", image.digest()));
    let waiting = cri.create(&pod, container(&id, &name)).await.unwrap();

    let listed = format!("allow-digests = [\"{}\", \"{}\"]", image.digest(), image.manifest_digest());
    for digest in digests_of(&image) {
        for rule in ["", "mode = \"permissive\"", "mode = \"disabled\"", &listed] {
            let config = denying(&config, &digest);
            let config = if rule.is_empty() { config } else { config.rule(&gun, rule) };
            let gate = world.gate.as_mut().unwrap();
            gate.configure(&config);
            gate.restart().await;
            let sentence = format!(": {digest} is denied by `deny-digests`; use another image");
            for reference in [&name, &by_digest] {
                let refused = cri.pull_with(reference, None, Some(&pod.config)).await.unwrap_err();
                assert_refused(&refused, DENIED, &format!("{reference}{sentence}"), "CS-DIGEST-DENIED");
            }
            for (image, specified) in [(&id, &name), (&id, &by_digest), (&name, &name), (&by_digest, &by_digest), (&id, &String::new())] {
                let refused = cri.create(&pod, container(image, specified)).await.unwrap_err();
                assert_refused(&refused, DENIED, "", "CS-DIGEST-DENIED");
            }
            assert_refused(&cri.start(&waiting).await.unwrap_err(), DENIED, "", "CS-DIGEST-DENIED");
        }
    }
    // The one that ran, and the one that waits.
    only_stand_on(&world, &[&image], 2).await;

    let gate = world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.restart().await;
    assert_eq!(cri.run(&name, "default").await.unwrap().output, "signed\n");
}

#[tokio::test]
async fn a_denied_image_without_a_signature_does_not_run_where_a_rule_lets_others_pass() {
    let mut world = World::new("a_denied_image_without_a_signature").await;
    let (bad, good) = (Recipe::prints("bad").index().build(), Recipe::prints("good").build());
    let bad_name = world.push(&bad, "legacy/app", "1").await;
    let good_name = world.push(&good, "legacy/app", "2").await;
    let pinned = world.gate_config().root_key(world.gun("team/*"), "00".repeat(32));
    let imported = "example.com/renamed:1";
    for mode in ["permissive", "disabled"] {
        for digest in digests_of(&bad) {
            let rule = format!("mode = \"{mode}\"");
            let config = denying(&pinned, &digest).rule(&world.gun("legacy/*"), &rule).rule("example.com/*", &rule);
            let cri = world.start_gate(binary(), &config).await.cri().clone();
            let pod = cri.run_pod(cri.pod("default")).await.unwrap();
            // Nobody knows what a tag without a signature is before it is here; what is here is looked at.
            let id = cri.pull_with(&bad_name, None, Some(&pod.config)).await.unwrap_or_else(|_| bad.id().to_string());
            world.containerd.ctr().import(&bad, imported).await;
            let by_id = cri.create(&pod, container(&id, "")).await.unwrap_err();
            let called = |name: &str| by_id.message().contains(&format!(": {name}: {digest} is denied by `deny-digests`"));
            assert!(called(&bad_name) || called(imported), "{by_id:?}");
            for (image, specified) in [(id.as_str(), bad_name.as_str()), (&bad_name, &bad_name), (imported, imported), (&id, imported)] {
                let refused = cri.create(&pod, container(image, specified)).await;
                let refused = refused.expect_err(&format!("{digest} runs as {specified} in mode {mode}"));
                assert_refused(&refused, DENIED, &format!("{specified}: {digest} is denied by `deny-digests`"), "CS-DIGEST-DENIED");
            }
            cri.remove_pod(&pod).await.unwrap();
        }
    }
    only_stand_on(&world, &[], 0).await;
    let cri = world.gate.as_ref().unwrap().cri();
    assert_eq!(cri.run(&good_name, "default").await.unwrap().output, "good\n");
    only_stand_on(&world, &[&good], 1).await;
}

/// A gate behind a relay that lets unsigned images pass under a rule, and denies one of them; the good image, and what the tag can be
/// made to lead to.
struct Lenient {
    world: World,
    relay: Relay,
    pinned: GateConfig,
    bad: Image,
    good: Image,
    good_name: String,
    id: String,
}

impl Lenient {
    async fn on(version: Version, test: &str) -> Self {
        let world = World::on(version, test).await;
        let (bad, good) = (Recipe::prints("bad").build(), Recipe::prints("good").build());
        let good_name = world.push(&good, "legacy/app", "1").await;
        let relay = Relay::start(&world.folder, &world.containerd.socket());
        let mut pinned = world.gate_config().root_key(world.gun("team/*"), "00".repeat(32));
        pinned.containerd = Some(relay.socket().to_owned());
        world.containerd.ctr().import(&bad, "example.com/bad:1").await;
        let id = world.containerd.cri().pull(&good_name).await.unwrap();
        Self { world, relay, pinned, bad, good, good_name, id }
    }

    fn config(&self, mode: &str) -> GateConfig {
        let config = denying(&self.pinned, &self.bad.digest().to_string());
        config.rule(&self.world.gun("legacy/*"), &format!("mode = \"{mode}\""))
    }

    /// Makes every record of the good image lead to the denied one, when it was looked at and the create is on its way.
    fn switch_before(&self, config: &ContainerConfig) {
        let (ctr, bad, good) = (self.world.containerd.ctr().clone(), self.bad.top().clone(), self.good.digest().to_string());
        self.relay.before(&config.metadata.as_ref().unwrap().name, async move {
            for (name, _) in ctr.records().await.unwrap().into_iter().filter(|(_, target)| *target == good) {
                ctr.retarget(&name, &bad).await.unwrap();
            }
        });
    }

    /// Pulls it again, and waits until CRI shows it.
    async fn switch_back(&self) {
        let cri = self.world.containerd.cri();
        cri.pull(&self.good_name).await.unwrap();
        while cri.image_status(&self.id).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_tag_that_is_moved_to_a_denied_image_on_the_way_makes_no_container_of_it() {
    let mut lenient = Lenient::on(Version::V1_6, "a_tag_moved_to_a_denied_image").await;
    for mode in ["permissive", "disabled"] {
        let config = lenient.config(mode);
        let cri = lenient.world.start_gate(binary(), &config).await.cri().clone();
        let pod = cri.run_pod(cri.pod("default")).await.unwrap();
        let wanted = container(&lenient.good_name, &lenient.good_name);
        let (ctr, behind) = (lenient.world.containerd.ctr().clone(), lenient.world.containerd.cri().clone());
        let (bad, moved) = (lenient.bad.clone(), lenient.good_name.clone());
        lenient.relay.before(&wanted.metadata.as_ref().unwrap().name, async move {
            ctr.import(&bad, &moved).await;
            // Until CRI has heard of it.
            while behind.image_status(&moved).await.unwrap().is_none_or(|image| image.id != bad.id().to_string()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let created = cri.create(&pod, wanted).await;
        assert!(!lenient.relay.is_waiting(), "the create was sent: {created:?}");
        only_stand_on(&lenient.world, &[&lenient.good], usize::from(created.is_ok())).await;
        cri.remove_pod(&pod).await.unwrap();
        lenient.world.containerd.cri().pull(&lenient.good_name).await.unwrap();
    }
}

/// Moments before the create, so that CRI has not always heard of it: then it makes a container of the image that it knows, on what
/// the record leads to.
async fn records_that_are_moved_to_a_denied_image_on_the_way_make_no_container_of_it(containerd: Version) {
    let mut lenient = Lenient::on(containerd, "records_moved_to_a_denied_image").await;
    let config = lenient.config("permissive");
    let cri = lenient.world.start_gate(binary(), &config).await.cri().clone();
    for _ in 0..MOVES {
        let pod = cri.run_pod(cri.pod("default")).await.unwrap();
        let wanted = container(&lenient.id, &lenient.good_name);
        lenient.switch_before(&wanted);
        let refused = cri.create(&pod, wanted).await.unwrap_err();
        assert!(!lenient.relay.is_waiting(), "the create was sent: {refused:?}");
        let is_heard_of = refused.code() == tonic::Code::NotFound;
        assert!(is_heard_of || refused.message().ends_with("(CS-OTHER-ROOTFS)"), "{refused:?}");
        only_stand_on(&lenient.world, &[], 0).await;
        lenient.switch_back().await;
        cri.remove_pod(&pod).await.unwrap();
    }
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    let made = cri.create(&pod, container(&lenient.id, &lenient.good_name)).await.unwrap();
    cri.start(&made).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_moved_to_a_denied_image_on_the_way_is_not_mounted() {
    let mut lenient = Lenient::on(Version::V2_1, "a_volume_moved_to_a_denied_image").await;
    let config = lenient.config("permissive");
    let cri = lenient.world.start_gate(binary(), &config).await.cri().clone();
    let other = lenient.world.push(&Recipe::prints("other").build(), "legacy/other", "1").await;
    lenient.world.containerd.cri().pull(&other).await.unwrap();
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    let wanted = with_volumes(&other, &[&lenient.good_name]);
    lenient.switch_before(&wanted);
    let refused = cri.create(&pod, wanted).await.unwrap_err();
    assert!(!lenient.relay.is_waiting(), "the create was sent: {refused:?}");
    assert_refused(&refused, DENIED, "potential malicious behavior - the image volume at ", "CS-OTHER-VOLUME");
    only_stand_on(&lenient.world, &[], 0).await;
}

async fn a_container_that_was_let_pass_does_not_start_once_its_digest_is_denied(containerd: Version) {
    let mut world = World::on(containerd, "a_container_that_was_let_pass").await;
    let bad = Recipe::prints("bad").build();
    let name = world.push(&bad, "legacy/app", "1").await;
    for mode in ["permissive", "disabled"] {
        let pinned = world.gate_config().root_key(world.gun("team/*"), "00".repeat(32));
        let config = pinned.rule(&world.gun("legacy/*"), &format!("mode = \"{mode}\""));
        let cri = world.start_gate(binary(), &config).await.cri().clone();
        let pod = cri.run_pod(cri.pod("default")).await.unwrap();
        let id = cri.pull_with(&name, None, Some(&pod.config)).await.unwrap();
        let waiting = cri.create(&pod, container(&id, &name)).await.unwrap();
        let gate = world.gate.as_ref().unwrap();
        for digest in digests_of(&bad) {
            gate.configure(&denying(&config, &digest));
            assert_eq!(countersign(&["reload", "--config", gate.configuration().to_str().unwrap()]).await.0, Some(0));
            assert_refused(&cri.start(&waiting).await.unwrap_err(), DENIED, &format!("{name}: {digest} is denied"), "CS-DIGEST-DENIED");
        }
        gate.configure(&config);
        assert_eq!(countersign(&["reload", "--config", gate.configuration().to_str().unwrap()]).await.0, Some(0));
        cri.start(&waiting).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
}

/// A container of an image with others as its volumes, each named as a pod names it.
fn with_volumes(root: &str, volumes: &[&str]) -> ContainerConfig {
    let mount = |volume: &&str| Mount {
        container_path: format!("/{}", volume.len()),
        readonly: true,
        image: Some(ImageSpec { image: (*volume).to_owned(), user_specified_image: (*volume).to_owned(), ..Default::default() }),
        ..Default::default()
    };
    ContainerConfig { mounts: volumes.iter().map(mount).collect(), ..container(root, root) }
}

/// What is refused first, and let pass, hides no denied digest: an unsigned volume beside it, or a record that leads nowhere.
#[tokio::test]
async fn a_denied_image_hides_behind_nothing_else_that_a_rule_lets_pass() {
    let mut world = World::on(Version::V2_1, "a_denied_image_hides_behind_nothing").await;
    let (bad, good) = (Recipe::prints("bad").build(), Recipe::prints("good").build());
    let bad_name = world.push(&bad, "legacy/app", "1").await;
    let good_name = world.push(&good, "legacy/data", "1").await;
    let pinned = world.gate_config().root_key(world.gun("team/*"), "00".repeat(32));
    let config = denying(&pinned, &bad.digest().to_string()).rule(&world.gun("legacy/*"), "mode = \"permissive\"");
    let cri = world.start_gate(binary(), &config).await.cri().clone();
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    for name in [&bad_name, &good_name] {
        world.containerd.cri().pull(name).await.unwrap();
    }
    let sentence = format!("{bad_name}: {} is denied by `deny-digests`", bad.digest());
    for (root, volumes) in
        [(&bad_name, &[good_name.as_str()][..]), (&good_name, &[&good_name, &bad_name]), (&good_name, &[&bad_name, &good_name])]
    {
        let refused = cri.create(&pod, with_volumes(root, volumes)).await.expect_err(&format!("{root} with {volumes:?}"));
        assert_refused(&refused, DENIED, &sentence, "CS-DIGEST-DENIED");
    }

    // The same image by its ID, which goes by a name of refused content, too.
    let checkpoint = Recipe::prints("bad").annotation("org.criu.checkpoint.container.name", "x").build();
    assert_eq!(checkpoint.id(), bad.id());
    world.containerd.ctr().import(&checkpoint, "a.example/first:1").await;
    for name in [&bad_name, &bad.id().to_string()] {
        let refused = cri.create(&pod, container(name, &bad_name)).await.unwrap_err();
        assert_refused(&refused, DENIED, &sentence, "CS-DIGEST-DENIED");
    }
    only_stand_on(&world, &[], 0).await;
}
