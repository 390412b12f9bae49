//! The configuration is exchanged while calls are served, all of it or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::faults::{Scene, assert_refused};
use super::harness::gate::GateConfig;
use super::harness::image::Recipe;
use super::harness::world::World;
use super::verify::countersign;

const DENIED: &str = "SignatureValidationFailed";

fn configuration(world: &World) -> String {
    world.gate.as_ref().unwrap().configuration().to_str().unwrap().to_owned()
}

async fn reload(world: &World) -> (Option<i32>, String, String) {
    countersign(&["reload", "--config", &configuration(world)]).await
}

fn configure(world: &mut World, config: &GateConfig) {
    world.gate.as_mut().unwrap().configure(config);
}

#[tokio::test]
async fn what_is_reloaded_counts_for_the_next_call_and_no_call_is_lost() {
    let mut scene = Scene::new("what_is_reloaded_counts").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let cri = scene.cri().clone();
    assert_refused(&cri.pull(&unsigned).await.unwrap_err(), DENIED, "image or trust data does not exist for ", "CS-TAG-NOT-SIGNED");

    // Somebody asks all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let caller = {
        let (cri, name, stop) = (cri.clone(), scene.name.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut calls = 0;
            while !stop.load(Ordering::Relaxed) {
                cri.version().await.unwrap();
                cri.pull(&name).await.unwrap();
                calls += 1;
            }
            calls
        })
    };
    for mode in ["permissive", "enforced", "permissive"] {
        let config = scene.config.clone().mode(mode);
        configure(&mut scene.world, &config);
        let (exit, out, err) = reload(&scene.world).await;
        assert_eq!(exit, Some(0), "{out}{err}");
        assert!(out.starts_with("reloaded: policy "), "{out}");
        let pulled = cri.pull(&unsigned).await;
        assert_eq!(pulled.is_ok(), mode == "permissive", "{pulled:?}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(caller.await.unwrap() > 0, "no call was made meanwhile");
}

#[tokio::test]
async fn what_is_bad_changes_nothing_and_a_restart_goes_on_with_what_was_in_force() {
    let mut scene = Scene::new("what_is_bad_changes_nothing").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let file = configuration(&scene.world);
    let good = fs::read_to_string(&file).unwrap();

    // The daemon reads the file by itself on SIGHUP.
    fs::write(&file, format!("{good}\n[nonsense]\nkey = 1\n")).unwrap();
    let (exit, _, err) = reload(&scene.world).await;
    assert_eq!(exit, Some(2), "{err}");
    assert!(err.contains("unknown key `nonsense`"), "{err}");
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.hang_up();
    assert!(gate.logged("the configuration was not reloaded", Duration::from_secs(10)).await.is_some());
    let refused = scene.cri().pull(&unsigned).await.unwrap_err();
    assert_refused(&refused, DENIED, "image or trust data does not exist for ", "CS-TAG-NOT-SIGNED");
    scene.cri().pull(&scene.name).await.unwrap();

    let gate = scene.world.gate.as_mut().unwrap();
    gate.restart().await;
    assert!(gate.log().contains("going on with the configuration that was in force last"), "{}", gate.log());
    let refused = scene.cri().pull(&unsigned).await.unwrap_err();
    assert_refused(&refused, DENIED, "image or trust data does not exist for ", "CS-TAG-NOT-SIGNED");
    scene.cri().pull(&scene.name).await.unwrap();
}

/// What is read at the start alone is not said to be in force after a reload, nor is the rest of such a file.
#[tokio::test]
async fn what_a_running_daemon_cannot_change_is_named_and_nothing_is_changed() {
    let scene = Scene::new("what_a_running_daemon_cannot_change").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let file = configuration(&scene.world);
    let good = fs::read_to_string(&file).unwrap();
    let with = |table: &str| format!("{good}\n{table}\n");
    for (key, text) in [
        ("listen", good.replace("cri.sock", "other.sock")),
        ("containerd.address", good.replace("containerd.sock", "other.sock")),
        ("state.directory", good.replace("/state\"", "/other\"")),
        ("watch.on-bypass", with("[watch]\non-bypass = \"stop\"")),
        ("audit", with("[audit]\nmax-bytes = 16777216")),
        ("metrics.listen", with("[metrics]\nlisten = \"127.0.0.1:1\"")),
        (
            "store",
            with(
                "[store]\nbackend = \"etcd\"\ncluster = \"prod\"\nendpoints = [\"http://127.0.0.1:1\"]\n\
                 authority-keys = [\"ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=\"]",
            ),
        ),
    ] {
        assert_ne!(text, good, "{key}");
        fs::write(&file, text.replace("mode = \"enforced\"", "mode = \"permissive\"")).unwrap();
        let (exit, out, err) = reload(&scene.world).await;
        assert!(err.contains(&format!("`{key}` cannot change while countersign runs: restart it")), "{key}: {exit:?} {out}{err}");
        assert_eq!(exit, Some(2), "{key}: {err}");
        let refused = scene.cri().pull(&unsigned).await.unwrap_err();
        assert_refused(&refused, DENIED, "image or trust data does not exist for ", "CS-TAG-NOT-SIGNED");
    }

    // The same by SIGHUP.
    let gate = scene.world.gate.as_ref().unwrap();
    gate.server.hang_up();
    let told = gate.logged("`store` cannot change while countersign runs: restart it", Duration::from_secs(10)).await;
    assert!(told.is_some(), "{}", gate.log());
}
