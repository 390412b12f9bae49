//! What ends by itself.

use std::time::{SystemTime, UNIX_EPOCH};

use countersign_trust::time::UnixTime;

use super::super::harness::image::Recipe;
use super::*;

const DAY: u64 = 86_400;

/// Starts the gate anew, with a clock that is so many days ahead.
async fn restart_days_ahead(scene: &mut Scene, days: u64) {
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.set_env("COUNTERSIGN_CLOCK_OFFSET", (days * DAY).to_string());
    gate.restart().await;
}

fn in_days(days: u64) -> UnixTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    UnixTime::from_seconds(i64::try_from(now + days * DAY).unwrap())
}

#[tokio::test]
async fn an_exception_ends_by_itself() {
    let mut scene = Scene::new("an_exception_ends_by_itself").await;
    let (tools, legacy) = (Recipe::prints("tools").build(), Recipe::prints("legacy").build());
    scene.world.push(&tools, "third/tools", "1").await;
    let by_digest = format!("{}@{}", scene.world.gun("third/tools"), tools.digest());
    let by_tag = scene.world.push(&legacy, "legacy/app", "1").await;
    let exception = format!("owner = \"platform\"\nreason = \"until it is signed\"\nuntil = {}", in_days(2));
    let listed = format!("allow-digests = [\"{}\"]\n{exception}", tools.digest());
    let config = scene.config.clone().rule(&scene.world.gun("third/tools"), &listed);
    let config = config.rule(&scene.world.gun("legacy/app"), &format!("mode = \"permissive\"\n{exception}"));
    reconfigure(&mut scene, &config).await;
    let pod = pod(&scene, "default").await;
    for (name, output) in [(&by_digest, "tools\n"), (&by_tag, "legacy\n")] {
        assert_eq!(scene.cri().run(name, "default").await.unwrap().output, output);
    }

    restart_days_ahead(&mut scene, 3).await;
    for (name, image) in [(&by_digest, &tools), (&by_tag, &legacy)] {
        assert_refused(&scene.cri().run(name, "default").await.unwrap_err(), DENIED, "no pin covers ", "CS-NOT-PINNED");
        let refused = scene.cri().create(&pod, container(&image.id().to_string(), name)).await.unwrap_err();
        assert_refused(&refused, DENIED, "no pin covers ", "CS-NOT-PINNED");
    }
    runs(&scene, "default").await;
    only_stand_on(&scene.world, &[&tools, &legacy, &scene.image], 3).await;
}

#[tokio::test]
async fn the_ended_certificate_of_a_signer_is_warned_of_and_refused_where_that_is_enforced() {
    let mut scene = Scene::new("an_ended_certificate").await;
    let end = in_days(4).to_string();
    let date: Vec<u32> = end.split(['-', 'T']).take(3).map(|part| part.parse().unwrap()).collect();
    let end = (i32::try_from(date[0]).unwrap(), u8::try_from(date[1]).unwrap(), u8::try_from(date[2]).unwrap());
    People::of(&scene).alice.certificate_until(end);
    let people = People::signed_by_alice(&scene).await;
    let key = people.alice.key_id().await;
    let warning = people.known_to(&scene.config).signed_by(&["acme/dev"]);
    let enforcing = warning.clone().content_trust("signer-cert-expiry = \"enforce\"");
    let told = "the certificate of a signer has ended";
    reconfigure(&mut scene, &enforcing).await;
    runs(&scene, "default").await;
    let pod = pod(&scene, "default").await;
    assert!(!gate(&scene).log().contains(told));

    restart_days_ahead(&mut scene, 5).await;
    let sentence =
        format!("targets/releases of {} cannot be used: the certificate of a key that signed it is not valid any more: {key}", gun(&scene));
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &sentence, "CS-RELEASES-UNUSABLE");
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &sentence, "CS-RELEASES-UNUSABLE");
    only_stand_on(&scene.world, &[&scene.image], 1).await;
    reconfigure(&mut scene, &warning).await;
    runs(&scene, "default").await;
    let log = gate(&scene).log();
    assert!(log.lines().any(|line| line.contains(told) && line.contains(&key)), "{log}");
}
