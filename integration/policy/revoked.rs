//! Keys that count nowhere any more.

use std::fs;

use super::super::harness::signer::Rotation;
use super::*;

fn revoking(config: &GateConfig, key: &str) -> GateConfig {
    config.clone().content_trust(&format!("revoked-keys = [\"{key}\"]"))
}

/// A pull, and without its server a create, are refused for this reason.
async fn is_refused(scene: &mut Scene, pod: &Pod, sentence: &str, code: &str) {
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, sentence, code);
    scene.front.stop();
    assert_refused(&create(scene, pod).await.unwrap_err(), DENIED, sentence, code);
    scene.front.start().await;
}

#[tokio::test]
async fn what_a_revoked_signer_signed_is_neither_released_nor_counted_for_a_team() {
    let mut scene = Scene::new("a_revoked_signer").await;
    let people = People::signed_by_alice(&scene).await;
    let config = people.known_to(&scene.config).signed_by(&["acme/dev"]);
    reconfigure(&mut scene, &config).await;
    runs(&scene, "default").await;
    let pod = pod(&scene, "default").await;

    let alice = people.alice.key_id().await;
    let config = revoking(&people.known_to(&scene.config), &alice);
    reconfigure(&mut scene, &config.clone().signed_by(&["acme/dev"])).await;
    let sentence = format!("targets/releases of {} cannot be used: it is signed with a revoked key: {alice}; ", gun(&scene));
    is_refused(&mut scene, &pod, &sentence, "CS-RELEASES-UNUSABLE").await;

    // Bob releases what he signs; alice's own list still counts for nobody.
    people.bob.sign_as(&gun(&scene), "1", scene.image.top(), &["targets/bob"]).await;
    people.bob.witness(&gun(&scene), "targets/releases").await;
    let sentence = format!("{}: image did not meet required signing policy: ", scene.name);
    is_refused(&mut scene, &pod, &sentence, "CS-SIGNING-POLICY").await;
    only_stand_on(&scene.world, &[&scene.image], 1).await;

    reconfigure(&mut scene, &config.signed_by(&["acme/qa"])).await;
    runs(&scene, "default").await;
}

#[tokio::test]
async fn a_revoked_repository_key_and_a_revoked_root_key_count_again_only_when_they_were_replaced() {
    let mut scene = Scene::new("revoked_keys_of_a_repository").await;
    runs(&scene, "default").await;
    let (pod, gun, admin) = (pod(&scene, "default").await, gun(&scene), scene.world.notary.signer("admin"));

    let targets = admin.targets_key_id(&gun).await;
    let config = revoking(&scene.config, &targets);
    reconfigure(&mut scene, &config).await;
    let sentence = format!("targets of {gun} is signed with a revoked key ({targets}): have it signed with another key");
    is_refused(&mut scene, &pod, &sentence, "CS-KEY-REVOKED").await;
    admin.rotate(&gun, Rotation::Targets).await;
    runs(&scene, "default").await;

    let old = scene.root.canonical.clone();
    let config = revoking(&scene.config, &old);
    reconfigure(&mut scene, &config).await;
    let sentence = format!("root of {gun} is signed with a revoked key ({old}): ");
    is_refused(&mut scene, &pod, &sentence, "CS-KEY-REVOKED").await;

    admin.rotate(&gun, Rotation::Root).await;
    let new = admin.root_ids(&gun).await;
    assert_ne!(new.canonical, old);
    // Not yet pinned here, whoever has signed it; and what is held is as it was.
    let unpinned = "could not validate the path to a trusted root: unable to match any certificates to trust-pinning: ";
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, unpinned, "CS-ROOT-NOT-PINNED");
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &sentence, "CS-KEY-REVOKED");
    only_stand_on(&scene.world, &[&scene.image], 2).await;
    let config = GateConfig { root_keys: vec![(gun, vec![new.canonical])], ..config };
    reconfigure(&mut scene, &config).await;
    runs(&scene, "default").await;
    scene.front.stop();
    create(&scene, &pod).await.unwrap();

    // So does a node that never saw the old root.
    scene.front.start().await;
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    fs::remove_dir_all(gate.state()).unwrap();
    gate.start_again().await;
    runs(&scene, "default").await;
}
