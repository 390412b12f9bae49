//! A ledger that cannot be used denies, and the daemon serves on; one that can be used keeps what was verified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::faults::{Scene, assert_refused};
use super::gate::binary;
use super::harness::cri::container;
use super::harness::gate::Gate;
use super::harness::image::Recipe;
use super::harness::world::World;

const DENIED: &str = "SignatureValidationFailed";

fn ledger_file(gate: &Gate) -> PathBuf {
    gate.state().join("ledger/ledger.redb")
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_denies_every_checked_call_until_it_is_moved_away() {
    let mut scene = Scene::new("a_ledger_that_cannot_be_read").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let gate = scene.world.gate.as_mut().unwrap();
    let file = ledger_file(gate);
    gate.server.stop();
    let good = fs::read(&file).unwrap();
    let noise: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let damaged_inside = good.iter().enumerate().map(|(at, byte)| if at > 4096 && at % 512 == 0 { !byte } else { *byte }).collect();
    let cases = [
        ("random bytes", noise, "it is a file of another kind"),
        ("empty", Vec::new(), "the file is empty"),
        ("three bytes", good[..3].to_vec(), "it is cut short"),
        ("half", good[..good.len() / 2].to_vec(), ""),
        ("damaged inside", damaged_inside, ""),
    ];
    for (case, content, what) in cases {
        eprintln!("{case}");
        fs::write(&file, &content).unwrap();
        let gate = scene.world.gate.as_mut().unwrap();
        gate.start_again().await;
        let advice = "restore it from a backup, or move it away to begin anew";
        let sentence = format!("the ledger {} is unreadable ({what}", file.display());
        let calls = [
            scene.cri().pull(&scene.name).await.map(drop),
            scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.map(drop),
            scene.cri().start(&ran.container).await,
        ];
        for refused in calls {
            let refused = refused.unwrap_err();
            assert_refused(&refused, DENIED, &sentence, "CS-LEDGER");
            assert!(refused.message().contains(advice), "{refused:?}");
        }
        assert!(scene.front.count("timestamp.json") == 1, "no server was asked: {:?}", scene.front.seen());
        scene.serves().await;
        assert!(scene.cri().image_status(&scene.name).await.unwrap().is_some(), "{case}: what is not checked is passed on");
        let gate = scene.world.gate.as_mut().unwrap();
        assert!(gate.log().contains("the ledger cannot be used: every pull and container is denied until it can"));
        gate.server.stop();
        assert_eq!(fs::read(&file).unwrap(), content, "{case}: the file is left as it is, for whoever wants to look at it");
    }

    fs::rename(&file, file.with_extension("moved-away")).unwrap();
    scene.world.gate.as_mut().unwrap().start_again().await;
    let unnamed = scene.cri().create(&ran.pod, container(&ran.image, "")).await.unwrap_err();
    let sentence = format!("could not find trust signature for local image {}: this node holds no trust data for it", ran.image);
    assert_refused(&unnamed, DENIED, &sentence, "CS-NOT-HELD");
    scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap();
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n");
}

/// A file system of its own; it is unmounted with the test's folder.
pub(crate) fn mount_small(at: &Path) {
    fs::create_dir_all(at).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs"]).arg(at).status().unwrap();
    assert!(mounted.success());
}

/// Writes until nothing more goes in.
pub(crate) fn fill(file: &Path) {
    let mut filler = File::create(file).unwrap();
    for block in [64 * 1024, 4096, 1] {
        while filler.write_all(&vec![1; block]).is_ok() {}
    }
}

#[tokio::test]
async fn a_full_disk_denies_and_the_next_pull_works_when_there_is_room() {
    let mut world = World::new("a_full_disk_denies").await;
    let (first, root) = world.push_signed(&Recipe::prints("first").build(), "team/app", "1").await;
    let (second, _) = world.push_signed(&Recipe::prints("second").build(), "team/other", "1").await;
    let config = world.gate_config().root_key(world.gun("*"), root.canonical);
    let home = world.folder.sub("gate");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    mount_small(&home.join("state"));
    let gate = world.start_gate(binary(), &config).await;
    let (cri, state) = (gate.cri().clone(), gate.state());
    let ran = cri.run(&first, "default").await.unwrap();
    let ledger = ledger_file(gate);
    eprintln!("the ledger has {} bytes", fs::metadata(&ledger).unwrap().len());

    fill(&state.join("filler"));
    let mut refusal = None;
    // What the ledger's file has room for inside still goes in.
    for number in 0..200 {
        let name = format!("{second}-{number}");
        let image = Recipe::prints("more").file("/number", number.to_string()).build();
        world.push(&image, "team/other", &format!("1-{number}")).await;
        world.notary.signer("admin").sign(&world.gun("team/other"), &format!("1-{number}"), &image).await;
        if let Err(status) = cri.pull(&name).await {
            refusal = Some((name, status));
            break;
        }
    }
    let (name, refused) = refusal.expect("the disk is full");
    eprintln!("{name}: {}", refused.message());
    assert!(refused.message().contains("make room on its disk; the next call tries again"), "{refused:?}");
    assert_refused(&refused, DENIED, "the ledger ", "CS-LEDGER");
    assert_refused(&cri.pull(&name).await.unwrap_err(), DENIED, "the ledger ", "CS-LEDGER");
    assert_eq!(cri.version().await.unwrap().runtime_name, "containerd");
    // What is on record runs on without a write.
    cri.create(&ran.pod, container(&ran.image, &first)).await.unwrap();
    assert_eq!(cri.pull(&first).await.unwrap(), ran.image);

    fs::remove_file(state.join("filler")).unwrap();
    assert_eq!(cri.run(&name, "default").await.unwrap().output, "more\n");
    world.gate.as_mut().unwrap().restart().await;
    world.notary.server.stop();
    assert_eq!(cri.run(&name, "default").await.unwrap().output, "more\n", "and it is on the disk");
}

#[tokio::test]
async fn a_restarted_daemon_creates_containers_of_what_it_verified_without_any_server() {
    for crash in [false, true] {
        let mut scene = Scene::new(&format!("a_restarted_daemon_{crash}")).await;
        let id = scene.cri().pull(&scene.name).await.unwrap();
        let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
        scene.front.stop();
        scene.world.registry.server.stop();
        let gate = scene.world.gate.as_mut().unwrap();
        if crash {
            gate.kill();
            gate.start_again().await;
        } else {
            gate.restart().await;
        }
        let ran = scene.cri().run_image(&pod, &id, &scene.name).await.unwrap();
        assert_eq!(ran.output, "signed\n", "crash: {crash}");
    }
}

#[tokio::test]
async fn a_daemon_that_finds_its_ledger_in_use_takes_it_as_soon_as_it_is_free() {
    let mut scene = Scene::new("a_daemon_that_finds_its_ledger_in_use").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    // As `countersign verify` does while no daemon runs, for as long as its trust server takes to answer.
    let verifying = File::open(gate.state().join("ledger/ledger.lock")).unwrap();
    verifying.lock().unwrap();
    gate.start_again().await;
    let refused = scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap_err();
    assert_refused(&refused, DENIED, "another process has the ledger ", "CS-LEDGER");

    drop(verifying);
    let gate = scene.world.gate.as_ref().unwrap();
    assert!(gate.logged("the ledger can be used now", Duration::from_secs(10)).await.is_some());
    scene.front.stop();
    scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap();
}
