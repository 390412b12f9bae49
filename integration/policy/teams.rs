//! Images that must be signed by people of several teams.

use super::super::harness::image::Recipe;
use super::*;

/// The sentence that its users know, up to the team that is missing.
fn missing(scene: &Scene, signers: &str, teams: &str) -> String {
    format!(
        "{}: image did not meet required signing policy: {} is signed for the tag `1` by {signers}, and by no member of {teams}; a \
         member of each must sign this tag",
        scene.name,
        scene.image.digest()
    )
}

#[tokio::test]
async fn an_image_runs_as_soon_as_a_member_of_every_required_team_has_signed_it() {
    let mut scene = Scene::new("a_member_of_every_required_team").await;
    let people = People::signed_by_alice(&scene).await;
    let config = people.known_to(&scene.config);
    reconfigure(&mut scene, &config.clone().signed_by(&["acme/dev"])).await;
    runs(&scene, "default").await;

    reconfigure(&mut scene, &config.signed_by(&["acme/dev", "acme/qa"])).await;
    let (pod, sentence) = (pod(&scene, "default").await, missing(&scene, "alice", "acme/qa"));
    scene.front.stop();
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &sentence, "CS-SIGNING-POLICY");
    scene.front.start().await;
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &sentence, "CS-SIGNING-POLICY");
    let by_digest = format!("{}@{}", gun(&scene), scene.image.digest());
    assert_refused(&scene.cri().pull(&by_digest).await.unwrap_err(), DENIED, &by_digest, "CS-SIGNING-POLICY");
    only_stand_on(&scene.world, &[&scene.image], 1).await;

    people.bob.sign_as(&gun(&scene), "1", scene.image.top(), &["targets/bob"]).await;
    runs(&scene, "default").await;
    create(&scene, &pod).await.unwrap();
    let log = gate(&scene).log();
    let admitted = log.lines().rfind(|line| line.contains("admitted") && line.contains("call=StartContainer")).unwrap();
    assert!(admitted.contains("(alice)") && admitted.contains("(bob)"), "the log says who signed: {admitted}");
}

#[tokio::test]
async fn one_person_who_is_in_every_required_team_is_enough() {
    let mut scene = Scene::new("one_person_in_every_team").await;
    let people = People::signed_by_alice(&scene).await;
    let certificate = people.alice.certificate().certificate;
    let (both, none) = (["acme/dev", "acme/qa"], ["acme/dev", "acme/security"]);
    let config = scene.config.clone().signer("alice", &certificate).signer("carol", &people.bob.certificate().certificate);
    let config = config.team("acme/dev", &["alice"]).team("acme/qa", &["carol", "alice"]).team("acme/security", &["carol"]);
    reconfigure(&mut scene, &config.clone().signed_by(&both)).await;
    runs(&scene, "default").await;

    reconfigure(&mut scene, &config.signed_by(&none)).await;
    let sentence = missing(&scene, "alice", "acme/security");
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &sentence, "CS-SIGNING-POLICY");
    only_stand_on(&scene.world, &[&scene.image], 1).await;
}

#[tokio::test]
async fn signatures_of_another_digest_and_in_shared_lists_count_for_no_team() {
    let mut scene = Scene::new("signatures_that_count_for_no_team").await;
    let (people, gun) = (People::delegated(&scene).await, gun(&scene));
    let config = people.known_to(&scene.config).signed_by(&["acme/qa"]);
    reconfigure(&mut scene, &config).await;
    let nobody = missing(&scene, "nobody with a list of their own", "acme/qa");

    // In `targets` alone, with the repository's own key.
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &nobody, "CS-SIGNING-POLICY");
    // In the list that all share.
    people.bob.sign_as(&gun, "1", scene.image.top(), &["targets/releases"]).await;
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &nobody, "CS-SIGNING-POLICY");
    // By a person of another team.
    people.alice.sign_as(&gun, "1", scene.image.top(), &["targets/alice"]).await;
    let alice = missing(&scene, "alice", "acme/qa");
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &alice, "CS-SIGNING-POLICY");
    // For the same tag, and another image.
    let older = Recipe::prints("older").build();
    people.bob.sign_as(&gun, "1", older.top(), &["targets/bob"]).await;
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &alice, "CS-SIGNING-POLICY");
    only_stand_on(&scene.world, &[], 0).await;

    people.bob.sign_as(&gun, "1", scene.image.top(), &["targets/bob"]).await;
    runs(&scene, "default").await;
}

#[tokio::test]
async fn a_renewed_certificate_and_the_keys_own_id_stand_for_the_same_person() {
    let mut scene = Scene::new("a_renewed_certificate").await;
    let people = People::signed_by_alice(&scene).await;
    let (renewed, key) = (people.alice.renewed_certificate(), people.alice.key_id().await);
    assert_ne!(std::fs::read(&renewed).unwrap(), std::fs::read(people.alice.certificate().certificate).unwrap());
    let by_certificate = scene.config.clone().signer("alice", &renewed);
    let by_key = scene.config.clone().table(&format!("[[signers]]\nname = \"alice\"\nkeys = [\"{key}\"]"));
    for config in [by_certificate, by_key] {
        reconfigure(&mut scene, &config.team("acme/dev", &["alice"]).signed_by(&["acme/dev"])).await;
        runs(&scene, "default").await;
    }
}

#[tokio::test]
async fn where_releases_are_required_what_the_repository_key_signs_is_not_released() {
    let mut scene = Scene::new("where_releases_are_required").await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    let config = scene.config.clone().trust_pinning(&format!("require-releases-role = [\"{}\"]", gun(&scene)));
    reconfigure(&mut scene, &config).await;
    let sentence = format!(
        "image or trust data does not exist for {}: only targets/releases releases tags of {} (require-releases-role)",
        scene.name,
        gun(&scene)
    );
    let pod = pod(&scene, "default").await;
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &sentence, "CS-RELEASES-REQUIRED");
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &sentence, "CS-RELEASES-REQUIRED");
    only_stand_on(&scene.world, &[], 0).await;

    let people = People::signed_by_alice(&scene).await;
    drop(people);
    runs(&scene, "default").await;
    assert_eq!(create(&scene, &pod).await.unwrap().len(), 64);
    assert_eq!(id, scene.image.id().to_string());
}
