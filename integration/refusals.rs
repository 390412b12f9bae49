//! What is refused although every server works: withdrawn signatures, rotated roots, what nobody registered or pinned,
//! a registry that is not to be believed, and names that are none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use super::faults::{Scene, assert_refused};
use super::gate::binary;
use super::harness::cri::container;
use super::harness::faulty::{Answer, FaultyServer};
use super::harness::gate::GateConfig;
use super::harness::image::Recipe;
use super::harness::signer::Rotation;
use super::harness::world::World;

const DENIED: &str = "SignatureValidationFailed";

#[tokio::test]
async fn a_tag_that_is_signed_again_runs_the_new_image_and_one_that_is_unsigned_runs_no_more() {
    let mut scene = Scene::new("a_tag_that_is_signed_again").await;
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n");
    let (admin, gun) = (scene.world.notary.signer("admin"), scene.world.gun("team/app"));
    let next = Recipe::prints("signed again").build();
    scene.world.push(&next, "team/app", "1").await;
    admin.sign(&gun, "1", &next).await;

    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("signed again\n", next.id().to_string()));

    admin.remove_tag(&gun, "1").await;
    let sentence = format!("image or trust data does not exist for {}: the tag `1` is not signed", scene.name);
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-TAG-NOT-SIGNED");

    scene.front.stop();
    scene.world.registry.server.stop();
    let refused = scene.cri().create(&ran.pod, container(&next.id().to_string(), &scene.name)).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-TAG-NOT-SIGNED");
    let id = next.id().to_string();
    let by_digest = format!("{gun}@{}", next.digest());
    let refused = scene.cri().create(&ran.pod, container(&id, &by_digest)).await.unwrap_err();
    assert_refused(&refused, DENIED, &format!("no trust signature found for {by_digest}"), "CS-DIGEST-NOT-SIGNED");
}

/// Only the server's own snapshots go on listing a role whose delegation was taken away; the reference client's do not.
#[tokio::test]
async fn a_delegation_that_is_given_again_is_missed_only_where_its_owner_keeps_the_snapshot_key() {
    for at_server in [true, false] {
        let scene = Scene::new(&format!("a_delegation_that_is_given_again_{at_server}")).await;
        let gun = scene.world.gun("team/app");
        let (admin, alice) = (scene.world.notary.signer("admin"), scene.world.notary.signer("alice"));
        if at_server {
            admin.rotate(&gun, Rotation::SnapshotToServer).await;
        }
        admin.delegate(&gun, "targets/alice", &[&alice]).await;
        let key = alice.certificate().key;
        admin.import_key(&key, "alice").await;
        admin.sign_as(&gun, "1", scene.image.top(), &["targets/alice"]).await;
        scene.cri().pull(&scene.name).await.unwrap();
        admin.undelegate(&gun, "targets/alice").await;
        admin.delegate(&gun, "targets/alice", &[&alice]).await;

        if !at_server {
            let refused = scene.cri().pull(&scene.name).await.unwrap_err();
            let sentence = "potential malicious behavior - trust data mismatch";
            assert_refused(&refused, DENIED, sentence, "CS-ROLE-DISAPPEARED");
            admin.undelegate(&gun, "targets/alice").await;
        }
        scene.cri().pull(&scene.name).await.unwrap();
    }
}

#[tokio::test]
async fn a_root_that_is_rotated_away_from_its_pin_is_refused_with_the_ids_to_pin() {
    let mut scene = Scene::new("a_root_that_is_rotated_away").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let (admin, gun) = (scene.world.notary.signer("admin"), scene.world.gun("team/app"));
    admin.rotate(&gun, Rotation::Root).await;
    let root = admin.root_ids(&gun).await;
    assert_ne!(root, scene.root);

    let sentence = format!(
        "could not validate the path to a trusted root: unable to match any certificates to trust-pinning: the root of {gun} carries \
         certificate ID {} (root key ID {}); if the root was changed on purpose, pin one of these",
        root.certificate, root.canonical
    );
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-ROOT-NOT-PINNED");
    let refused = scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-ROOT-NOT-PINNED");

    let config = GateConfig { root_keys: vec![(gun, vec![root.canonical])], ..scene.config.clone() };
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.restart().await;
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n", "the new root is pinned");
}

#[tokio::test]
async fn what_local_data_can_deny_is_denied_without_a_packet() {
    let scene = Scene::new("denied_without_a_packet").await;
    let unpinned = scene.world.push(&Recipe::prints("unpinned").build(), "other/app", "1").await;
    let pushed = scene.world.registry.requests().len();

    let refused = scene.cri().pull("localhost:1/team/app:1").await.unwrap_err();
    let sentence = "localhost:1 must be a registered trusted registry. Register it in the configuration";
    assert_refused(&refused, DENIED, sentence, "CS-NOT-REGISTERED");
    let refused = scene.cri().pull("app:1").await.unwrap_err();
    assert_refused(&refused, DENIED, "docker.io must be a registered trusted registry. ", "CS-NOT-REGISTERED");
    let refused = scene.cri().pull(&unpinned).await.unwrap_err();
    let sentence = format!("no pin covers {}: add its root to trust-pinning", scene.world.gun("other/app"));
    assert_refused(&refused, DENIED, &sentence, "CS-NOT-PINNED");

    assert_eq!((scene.front.connections(), scene.front.seen()), (0, Vec::new()));
    assert_eq!(scene.world.registry.requests()[pushed..], [] as [String; 0], "the registry was asked for nothing");
    scene.serves().await;
}

#[tokio::test]
async fn a_registry_that_answers_differently_each_time_gets_only_the_signed_digest_run() {
    let mut world = World::new("a_registry_that_answers_differently").await;
    let fickle = FaultyServer::plain_before(&format!("http://{}", world.registry.host()), &world.ca).await;
    let (good, evil) = (Recipe::prints("good").build(), Recipe::prints("evil").build());
    world.push(&good, "team/app", "1").await;
    world.push(&evil, "team/app", "evil").await;
    let (name, gun) = (format!("{}/team/app:1", fickle.host()), format!("{}/team/app", fickle.host()));
    let admin = world.notary.signer("admin");
    let root = admin.init(&gun).await;
    admin.sign(&gun, "1", &good).await;
    let mut config = world.gate_config().root_key(&gun, root.canonical);
    config.registries[0].host_address = fickle.host();
    let cri = world.start_gate(binary(), &config).await.cri().clone();
    let in_turn = || Answer::InTurn(vec![Answer::Instead("/v2/team/app/manifests/evil".to_owned()), Answer::Relay]);

    fickle.answer("/manifests/1", in_turn());
    for _ in 0..3 {
        assert_eq!(cri.run(&name, "default").await.unwrap().output, "good\n");
    }
    // What was asked for by its digest is something else each time, too: containerd refuses or pulls the right one.
    fickle.answer(&format!("/manifests/{}", good.digest()), in_turn());
    let mut ran = 0;
    for _ in 0..4 {
        cri.remove_image(&good.id().to_string()).await.unwrap();
        match cri.run(&name, "default").await {
            Ok(container) => {
                assert_eq!(container.output, "good\n");
                ran += 1;
            }
            Err(status) => eprintln!("{}", status.message()),
        }
    }
    assert!(ran > 0, "containerd asks twice for a manifest, and gets the right one at the second time");
    let asked = fickle.count(&format!("/manifests/{}", good.digest()));
    assert!(asked >= 4, "the signed digest was asked for {asked} times");
    fickle.answer(&format!("/manifests/{}", good.digest()), Answer::Instead("/v2/team/app/manifests/evil".to_owned()));
    cri.remove_image(&good.id().to_string()).await.unwrap();
    let refused = cri.pull(&name).await.unwrap_err();
    let sentence = format!("unexpected commit digest {}, expected {}", evil.digest(), good.digest());
    assert!(refused.message().contains(&sentence), "{refused:?}");
    let digests: Vec<String> = world.containerd.ctr().records().await.unwrap().into_iter().map(|(_, digest)| digest).collect();
    assert!(!digests.contains(&evil.digest().to_string()), "{digests:?}");
}

#[tokio::test]
async fn a_malformed_reference_is_refused_with_what_is_wrong_with_it() {
    let scene = Scene::new("a_malformed_reference").await;
    let host = scene.world.registry.host();
    let upper = "AB".repeat(32);
    let long = format!("{host}/{}:1", "a/".repeat(3000));
    let cases: Vec<(String, String)> = vec![
        (String::new(), "the image name is empty".into()),
        (long, "the image name is longer than ".into()),
        (format!("{host}/{}:1", "a".repeat(300)), "the repository name is longer than 255 bytes".into()),
        (format!("{host}/Team/App:1"), "`Team/App` is not a repository path: lower-case letters, digits".into()),
        (format!("{host}/team//app:1"), "`team//app` is not a repository path".into()),
        (format!("{host}/../app:1"), "`../app` is not a repository path".into()),
        (format!("{host}/team/app:"), "`` is not a tag".into()),
        (format!("{host}/team/app:-x"), "`-x` is not a tag".into()),
        (format!("{host}/team/app:{}", "x".repeat(129)), format!("`{}` is not a tag", "x".repeat(129))),
        (format!("{host}/team/app@sha256:abc"), "`sha256:abc` is not a sha256 digest of 64 lower-case hexadecimal digits".into()),
        (format!("{host}/team/app@sha256:{upper}"), format!("`sha256:{upper}` is not a sha256 digest of 64")),
        (format!("{host}/team/app@sha512:{}", "a".repeat(128)), format!("`sha512:{}` is not a sha256 digest", "a".repeat(128))),
        ("a".repeat(64), format!("`{}` is an image ID, not an image name", "a".repeat(64))),
        (format!("https://{host}/team/app:1"), String::new()),
        (format!("{host}/team/app:1\n"), "`1\\n` is not a tag".into()),
        (format!("{host}/team/\u{1b}[31mapp:1"), String::new()),
        (format!("{host}/team/app:1 "), "`1 ` is not a tag".into()),
    ];
    for (reference, sentence) in cases {
        let refused = scene.cri().pull(&reference).await.unwrap_err();
        eprintln!("{}", refused.message());
        assert_refused(&refused, DENIED, &sentence, "CS-NAME");
        assert!(refused.message().contains("; a pod's image must be a name such as registry.example/team/app:1"), "{refused:?}");
        assert!(!refused.message().contains(char::is_control), "{refused:?}");
    }
    assert_eq!(scene.front.connections(), 0, "a name that is none is nobody's to answer");
    scene.serves().await;
}
