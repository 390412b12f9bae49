//! What an operator makes a node forget, and what stays on record of it.

use super::*;

const REASON: &str = "created anew by its owners, ticket 7";

async fn reset(scene: &Scene, args: &[&str]) -> (Option<i32>, String) {
    let config = configuration(scene);
    let (exit, out, err) = countersign(&[&["reset"], args, &["--config", &config]].concat()).await;
    (exit, format!("{out}{err}"))
}

#[tokio::test]
async fn a_repository_that_was_created_anew_runs_after_an_operator_reset_it() {
    let scene = Scene::new("a_repository_that_was_created_anew").await;
    runs(&scene, "default").await;
    let (gun, admin) = (gun(&scene), scene.world.notary.signer("admin"));
    admin.delete(&gun).await;
    let sentence =
        format!("image or trust data does not exist for {}: the trust server has no trust data for {gun}; it had some", scene.name);
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &sentence, "CS-NO-TRUST-DATA");
    let root = admin.init(&gun).await;
    assert_eq!(root.canonical, scene.root.canonical, "the pin still fits");
    admin.sign(&gun, "1", &scene.image).await;
    let mismatch = format!("potential malicious behavior - trust data mismatch for repository {gun}: root 1 does not follow root 1");
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &mismatch, "CS-ROOT-REPLACED");

    let other = scene.world.gun("team/other");
    for (args, exit, part) in [
        (vec![gun.as_str()], 2, "--reason"),
        (vec![&gun, "--reason", " "], 2, "--reason must say why"),
        (vec!["--reason", REASON], 2, "REPOSITORY"),
        (vec![&gun, "--clock", "--reason", REASON], 2, "--clock"),
        (vec!["--clock", "--role", "targets", "--reason", REASON], 2, "--role"),
        (vec![&scene.name, "--reason", REASON], 1, "CS-NAME"),
        (vec![&other, "--reason", REASON], 1, "CS-NOT-HELD"),
        (vec![&gun, "--role", "no role", "--reason", REASON], 1, "CS-NOT-HELD"),
        (vec![&gun, "--role", "root", "--reason", REASON], 2, "the root has no version floor of its own"),
        (vec!["--list", "--role", "targets"], 2, "--role"),
    ] {
        let (found, told) = reset(&scene, &args).await;
        assert_eq!((found, told.contains(part)), (Some(exit), true), "{args:?}: {told}");
    }
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &mismatch, "CS-ROOT-REPLACED");

    let (exit, told) = reset(&scene, &[&gun, "--reason", REASON]).await;
    assert_eq!((exit, told.contains("the next pull is a first contact")), (Some(0), true), "{told}");
    let log = gate(&scene).log();
    let act = log.lines().find(|line| line.contains("an operator resets") && line.contains(&format!("everything about {gun}")));
    assert!(act.is_some_and(|line| line.contains(REASON) && line.contains("uid 0")), "{log}");
    let (exit, told) = reset(&scene, &["--list"]).await;
    assert_eq!((exit, told.contains(REASON), told.contains(&gun)), (Some(0), true, true), "{told}");
    let pod = pod(&scene, "default").await;
    // The image is here, and its trust data is fetched as at a first contact.
    create(&scene, &pod).await.unwrap();
    runs(&scene, "default").await;
    create(&scene, &pod).await.unwrap();
    only_stand_on(&scene.world, &[&scene.image], 4).await;
}

#[tokio::test]
async fn the_floor_of_one_role_is_forgotten_with_the_daemon_and_without() {
    for with_daemon in [true, false] {
        let mut scene = Scene::new(&format!("the_floor_of_one_role_{with_daemon}")).await;
        let (people, gun, admin) = (People::of(&scene), gun(&scene), scene.world.notary.signer("admin"));
        admin.delegate(&gun, "targets/alice", &[&people.alice]).await;
        admin.import_key(&people.alice.certificate().key, "alice").await;
        admin.sign_as(&gun, "1", scene.image.top(), &["targets/alice"]).await;
        runs(&scene, "default").await;
        // Who keeps the snapshot key cannot take a role away and give it again.
        admin.undelegate(&gun, "targets/alice").await;
        admin.delegate(&gun, "targets/alice", &[&people.alice]).await;
        let mismatch =
            format!("potential malicious behavior - trust data mismatch for repository {gun}: targets/alice, which was published");
        assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &mismatch, "CS-ROLE-DISAPPEARED");
        let (exit, told) = reset(&scene, &[&gun, "--role", "targets/bob", "--reason", REASON]).await;
        assert_eq!((exit, told.contains("CS-NOT-HELD")), (Some(1), true), "bob has never signed: {told}");

        if !with_daemon {
            scene.world.gate.as_mut().unwrap().server.stop();
        }
        let (exit, told) = reset(&scene, &[&gun, "--role", "targets/alice", "--reason", REASON]).await;
        assert_eq!((exit, told.contains(&format!("Any version of targets/alice of {gun} is taken"))), (Some(0), true), "{told}");
        if !with_daemon {
            scene.world.gate.as_mut().unwrap().start_again().await;
        }
        runs(&scene, "default").await;
    }
}
