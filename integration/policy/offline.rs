//! Life without a trust server, and clocks: expired trust data, and a clock that was set back.

use std::path::{Path, PathBuf};

use super::super::faults::Scene;
use super::super::harness::faulty::Answer;
use super::super::harness::process::text;
use super::*;

const CLOCK: &str = "COUNTERSIGN_CLOCK_OFFSET";
const DAY: i64 = 86_400;
const EXPIRED_TOLD: &str = "going on with EXPIRED trust data (allow-expired-cached-trust-data)";

/// Starts the gate anew, with a clock that is so many days ahead.
async fn restart_days_ahead(scene: &mut Scene, days: i64) {
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.set_env(CLOCK, (days * DAY).to_string());
    gate.restart().await;
}

/// Where expired trust data serves for so many days.
fn allowing_expired(config: &GateConfig, days: i64) -> GateConfig {
    let config = config.clone().content_trust("allow-expired-cached-trust-data = true");
    config.content_trust(&format!("expired-trust-data-max-age = \"{days}d\""))
}

async fn export(scene: &Scene) -> PathBuf {
    let file = scene.world.folder.sub("evidence").join("exported");
    let args = ["evidence", "export", &gun(scene), "--out", &text(&file), "--config", &configuration(scene)];
    let (exit, out, err) = countersign(&args).await;
    assert_eq!(exit, Some(0), "{out}{err}");
    file
}

async fn import(file: &Path, config: &Path) -> (Option<i32>, String) {
    let (exit, out, err) = countersign(&["evidence", "import", &text(file), "--config", &text(config)]).await;
    (exit, format!("{out}{err}"))
}

async fn reset_clock(scene: &Scene) {
    let (exit, out, err) =
        countersign(&["reset", "--clock", "--reason", "the node had a wrong date", "--config", &configuration(scene)]).await;
    assert_eq!(exit, Some(0), "{out}{err}");
}

#[tokio::test]
async fn held_trust_data_serves_while_its_server_is_away_and_expired_data_only_where_that_is_allowed() {
    let mut scene = Scene::new("held_and_expired_trust_data").await;
    runs(&scene, "default").await;
    let pod = pod(&scene, "default").await;
    scene.front.stop();
    runs(&scene, "default").await;
    assert!(gate(&scene).log().contains("going on with the trust data that this node holds"), "never silent");

    // The notary server gives a timestamp 14 days.
    restart_days_ahead(&mut scene, 15).await;
    let expired = format!("remote repository {} out-of-date: timestamp expired at ", gun(&scene));
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &expired, "CS-EXPIRED");
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, UNAVAILABLE, "error contacting trust server: ", "CS-SERVER-UNREACHABLE");
    assert!(refused.message().contains(&format!("the trust data that this node holds does not serve: {expired}")), "{refused:?}");

    let config = allowing_expired(&scene.config, 20);
    // Nobody knows whether the server is away before it was asked.
    scene.front.answer("", Answer::Silence);
    scene.front.start().await;
    reconfigure(&mut scene, &config).await;
    let refused = create(&scene, &pod).await.unwrap_err();
    assert_refused(&refused, UNAVAILABLE, "error contacting trust server: the trust server of ", "CS-SERVER-NOT-ASKED");
    scene.front.stop();
    runs(&scene, "default").await;
    create(&scene, &pod).await.unwrap();
    assert!(gate(&scene).log().contains(EXPIRED_TOLD), "never silent");
    let verified = gate(&scene).verify(&scene.name).await;
    assert_eq!((verified.exit_code, verified.output["expired"].as_bool()), (Some(0), Some(true)), "{}", verified.text);

    // A server that answers is believed: it shows a timestamp that has run out.
    scene.front.mend();
    scene.front.start().await;
    assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), DENIED, &expired, "CS-EXPIRED");
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &expired, "CS-EXPIRED");

    scene.front.stop();
    restart_days_ahead(&mut scene, 21).await;
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, UNAVAILABLE, "error contacting trust server: ", "CS-SERVER-UNREACHABLE");
    assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &expired, "CS-EXPIRED");
    only_stand_on(&scene.world, &[&scene.image], 4).await;

    // A clock that ran ahead while nothing was found good binds nobody.
    scene.front.start().await;
    restart_days_ahead(&mut scene, 0).await;
    runs(&scene, "default").await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_tells_nothing_until_an_operator_resets_its_mark() {
    let mut scene = Scene::new("a_clock_that_was_set_back").await;
    restart_days_ahead(&mut scene, 1).await;
    runs(&scene, "default").await;
    let pod = pod(&scene, "default").await;

    for with_daemon in [true, false] {
        restart_days_ahead(&mut scene, 0).await;
        let back = "the node's clock says ";
        assert_refused(&create(&scene, &pod).await.unwrap_err(), UNAVAILABLE, back, "CS-CLOCK-BACK");
        assert_refused(&scene.cri().pull(&scene.name).await.unwrap_err(), UNAVAILABLE, back, "CS-CLOCK-BACK");
        let verified = gate(&scene).verify(&scene.name).await;
        assert_eq!((verified.exit_code, verified.output["code"].as_str()), (Some(3), Some("CS-CLOCK-BACK")), "{}", verified.text);

        let (exit, _, err) = countersign(&["reset", "--clock", "--config", &configuration(&scene)]).await;
        assert_eq!((exit, err.contains("--reason")), (Some(2), true), "{err}");
        if with_daemon {
            reset_clock(&scene).await;
            assert!(gate(&scene).log().contains("the node had a wrong date"), "the act is on record");
            create(&scene, &pod).await.unwrap();
            scene.world.gate.as_mut().unwrap().restart().await;
        } else {
            scene.world.gate.as_mut().unwrap().server.stop();
            reset_clock(&scene).await;
            scene.world.gate.as_mut().unwrap().start_again().await;
        }
        create(&scene, &pod).await.unwrap();
        runs(&scene, "default").await;
        // And so it binds again.
        restart_days_ahead(&mut scene, 1).await;
        runs(&scene, "default").await;
    }
}

#[tokio::test]
async fn the_age_of_expired_data_counts_from_when_it_was_last_found_good() {
    let mut scene = Scene::new("the_age_of_expired_data").await;
    let config = allowing_expired(&scene.config, 8);
    reconfigure(&mut scene, &config).await;
    runs(&scene, "default").await;
    restart_days_ahead(&mut scene, 10).await;
    // The server has nothing newer.
    runs(&scene, "default").await;
    scene.front.stop();
    restart_days_ahead(&mut scene, 17).await;
    runs(&scene, "default").await;
    assert!(gate(&scene).log().contains(EXPIRED_TOLD));
    restart_days_ahead(&mut scene, 19).await;
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, UNAVAILABLE, "error contacting trust server: ", "CS-SERVER-UNREACHABLE");
    only_stand_on(&scene.world, &[&scene.image], 3).await;
}

#[tokio::test]
async fn expired_evidence_is_taken_in_only_where_expired_data_is_allowed_and_serves_while_the_server_is_away() {
    let mut scene = Scene::new("expired_evidence").await;
    let exported = export(&scene).await;
    let mut node = scene.world.another_node("expired_evidence_b").await;
    let cri = node.start_gate(binary(), &scene.config).await.cri().clone();
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    node.containerd.ctr().import(&scene.image, &scene.name).await;
    let (id, gate) = (scene.image.id().to_string(), node.gate.as_mut().unwrap());
    gate.server.set_env(CLOCK, (15 * DAY).to_string());
    gate.restart().await;
    scene.front.stop();
    let (exit, told) = import(&exported, gate.configuration()).await;
    assert_eq!((exit, told.contains("  code    CS-EXPIRED\n")), (Some(1), true), "{told}");
    let refused = cri.create(&pod, container(&id, &scene.name)).await.unwrap_err();
    assert_refused(&refused, UNAVAILABLE, "error contacting trust server: ", "CS-SERVER-UNREACHABLE");

    gate.configure(&allowing_expired(&scene.config, 20));
    gate.restart().await;
    let (exit, told) = import(&exported, gate.configuration()).await;
    assert_eq!((exit, told.contains("it has EXPIRED, and serves while the trust server is away")), (Some(0), true), "{told}");
    assert_eq!(cri.run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n");
    // Its age counts from the import on.
    gate.server.set_env(CLOCK, (34 * DAY).to_string());
    gate.restart().await;
    let verified = gate.verify(&scene.name).await;
    assert_eq!((verified.exit_code, verified.output["expired"].as_bool()), (Some(0), Some(true)), "{}", verified.text);
    gate.server.set_env(CLOCK, (36 * DAY).to_string());
    gate.restart().await;
    let verified = gate.verify(&scene.name).await;
    assert_eq!((verified.exit_code, verified.output["code"].as_str()), (Some(3), Some("CS-SERVER-UNREACHABLE")), "{}", verified.text);
    let expired = format!("remote repository {} out-of-date: timestamp expired at ", gun(&scene));
    let refused = cri.create(&pod, container(&id, &scene.name)).await.unwrap_err();
    assert_refused(&refused, DENIED, &expired, "CS-EXPIRED");
    assert_eq!(cri.list_containers().await.unwrap().len(), 1);
}
