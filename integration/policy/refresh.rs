//! What is held is brought up to date while nobody asks.

use std::time::{Duration, Instant};

use super::*;

/// The shortest interval that may be configured.
const EVERY_TEN_SECONDS: &str = "[refresh]\ninterval = \"10s\"";
/// Far more than one interval.
const WITHIN: Duration = Duration::from_secs(90);

/// Waits until no container of the scene's image can be made any more, without a pull, and returns why.
async fn refused_at_last(scene: &Scene, pod: &Pod) -> Status {
    let deadline = Instant::now() + WITHIN;
    loop {
        match create(scene, pod).await {
            Err(refused) => return refused,
            Ok(made) => scene.cri().remove(&made).await.unwrap(),
        }
        assert!(Instant::now() < deadline, "it is still allowed after {WITHIN:?}: {:?}", scene.front.seen());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Requests of refreshes so far: how many there were, and how many refreshes. Each asks for the timestamp.
fn requests(scene: &Scene) -> (usize, usize) {
    (scene.front.seen().len(), scene.front.count("timestamp.json"))
}

#[tokio::test]
async fn a_tag_that_was_unsigned_is_refused_without_a_pull_and_unchanged_data_costs_two_requests_at_most() {
    let mut scene = Scene::new("refresh_of_an_unsigned_tag").await;
    let config = scene.config.clone().table(EVERY_TEN_SECONDS);
    reconfigure(&mut scene, &config).await;
    let pod = pod(&scene, "default").await;
    runs(&scene, "default").await;
    create(&scene, &pod).await.unwrap();

    let (before, began) = (requests(&scene), Instant::now());
    while requests(&scene).1 < before.1 + 2 {
        assert!(began.elapsed() < WITHIN, "it is not refreshed: {:?}", scene.front.seen());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The other request of the last one may still be under way.
    let (asked, refreshes) = requests(&scene);
    assert!(asked - before.0 <= 2 * (refreshes - before.1), "{:?}", scene.front.seen());

    scene.world.notary.signer("admin").remove_tag(&gun(&scene), "1").await;
    let pulls = scene.world.registry.requests().len();
    let refused = refused_at_last(&scene, &pod).await;
    let sentence = format!("image or trust data does not exist for {}: the tag `1` is not signed", scene.name);
    assert_refused(&refused, DENIED, &sentence, "CS-TAG-NOT-SIGNED");
    assert_eq!(scene.world.registry.requests().len(), pulls, "nothing was pulled");
    scene.serves().await;
}

#[tokio::test]
async fn a_signer_who_was_removed_counts_no_more_without_a_pull() {
    let mut scene = Scene::new("refresh_of_a_removed_signer").await;
    let people = People::signed_by_alice(&scene).await;
    let config = people.known_to(&scene.config).signed_by(&["acme/dev"]).table(EVERY_TEN_SECONDS);
    reconfigure(&mut scene, &config).await;
    runs(&scene, "default").await;
    let pod = pod(&scene, "default").await;

    scene.world.notary.signer("admin").undelegate(&gun(&scene), "targets/alice").await;
    let refused = refused_at_last(&scene, &pod).await;
    let sentence = format!("{}: image did not meet required signing policy: ", scene.name);
    assert_refused(&refused, DENIED, &sentence, "CS-SIGNING-POLICY");
    only_stand_on(&scene.world, &[&scene.image], 1).await;
}
