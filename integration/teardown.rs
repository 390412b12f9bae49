//! What a test leaves behind: nothing, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::containerd::Version;
use super::harness::cri::container;
use super::harness::folder::{Folder, kept_logs_folder, sweep};
use super::harness::image::Recipe;
use super::harness::leftovers::{self, Leftovers};
use super::harness::world::World;

on_every_containerd! {
    parts_nothing_is_left_of_a_world_with_running_containers,
    parts_containers_outlive_a_crash_of_containerd_and_are_still_removed,
}

/// How long a process may take to begin or to end.
const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn parts_two_worlds_side_by_side_do_not_meet() {
    let (one, two) = tokio::join!(World::new("parts_two_worlds-one"), World::new("parts_two_worlds-two"));
    let (first, second) = (Recipe::prints("first").build(), Recipe::prints("second").build());
    let (first_name, second_name) = tokio::join!(one.push(&first, "team/app", "1"), two.push(&second, "team/app", "1"));
    assert_ne!(first_name, second_name);

    let (cri_one, cri_two) = (one.cri(), two.cri());
    let (ran_one, ran_two) = tokio::join!(cri_one.run(&first_name, "default"), cri_two.run(&second_name, "default"));

    assert_eq!(ran_one.unwrap().output, "first\n");
    assert_eq!(ran_two.unwrap().output, "second\n");
    assert_eq!(cri_one.list_containers().await.unwrap().len(), 1);
    drop(one);
    assert_eq!(cri_two.list_containers().await.unwrap().len(), 1, "the other world goes on");
}

async fn parts_nothing_is_left_of_a_world_with_running_containers(containerd: Version) {
    let world = World::on(containerd, "parts_nothing_is_left").await;
    let name = world.push(&Recipe::prints_and_stays("up").build(), "team/app", "1").await;
    let cri = world.cri();
    let ran = cri.run(&name, "default").await.unwrap();
    let created = cri.create(&ran.pod, container(&ran.image, &name)).await.unwrap();
    let folder = world.folder.path().to_owned();
    let before = leftovers::of(&folder);
    assert!(before.processes.len() > 5, "servers, shims and containers run: {before:?}");
    assert!(before.mounts.len() > 1 && !before.cgroups.is_empty(), "containers are mounted and grouped: {before:?}");
    let sockets = shim_sockets(&folder);
    assert_eq!(sockets.len(), 1, "one pod has one shim");
    assert!(!created.is_empty());

    let began = Instant::now();
    drop(world);
    eprintln!("a world with a running pod is down in {:?}", began.elapsed());

    assert_eq!(leftovers::of(&folder), Leftovers::default());
    assert!(sockets.iter().all(|socket| !socket.exists()), "the shims' sockets are removed");
    assert!(!Path::new("/run/containerd/runc/k8s.io").join(&ran.container).exists());
}

#[test]
fn parts_the_logs_of_a_failed_test_are_kept_and_removed_when_it_passes() {
    let kept = kept_logs_folder().join("parts_kept_logs");
    let write = || {
        let folder = Folder::new("parts_kept_logs");
        fs::write(folder.logs().join("server.log"), "the reason").unwrap();
        folder
    };

    let failed = std::panic::catch_unwind(|| {
        let _folder = write();
        panic!("this test fails on purpose");
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_to_string(kept.join("logs/server.log")).unwrap(), "the reason");
    drop(write());
    assert!(!kept.exists());
}

async fn parts_containers_outlive_a_crash_of_containerd_and_are_still_removed(containerd: Version) {
    let mut world = World::on(containerd, "parts_containers_outlive_containerd").await;
    let name = world.push(&Recipe::prints_and_stays("up").build(), "team/app", "1").await;
    let ran = world.cri().run(&name, "default").await.unwrap();
    let folder = world.folder.path().to_owned();

    world.containerd.crash_and_restart().await;

    assert_eq!(world.cri().exec(&ran.container, &["true"]).await.unwrap().exit_code, 0);
    drop(world);
    assert_eq!(leftovers::of(&folder), Leftovers::default());
}

/// Not a test: the next one starts it in a process of its own, and kills that.
#[tokio::test]
#[ignore = "never ends by itself"]
async fn parts_helper_that_is_killed() {
    let world = World::new("parts_helper_that_is_killed").await;
    let name = world.push(&Recipe::prints_and_stays("up").build(), "team/app", "1").await;
    world.cri().run(&name, "default").await.unwrap();
    fs::write(std::env::var("COUNTERSIGN_TEST_FOLDER").unwrap(), world.folder.path().to_str().unwrap()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn parts_servers_die_with_a_killed_test_and_the_next_one_removes_its_containers() {
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut helper = Command::new(std::env::current_exe().unwrap());
    helper.args(["--ignored", "--exact", "teardown::parts_helper_that_is_killed"]).env("COUNTERSIGN_TEST_FOLDER", told.path());
    let mut helper = helper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let folder = eventually("the helper is up", || fs::read_to_string(told.path()).ok().filter(|path| !path.is_empty())).await;
    let folder = PathBuf::from(folder);
    assert!(running(&folder, "docker-registry") && running(&folder, "containerd-shim"), "{:?}", leftovers::of(&folder));

    helper.kill().unwrap();
    helper.wait().unwrap();

    for server in ["docker-registry", "notary-server", "notary-signer", "containerd\", \"--config"] {
        eventually(server, || (!running(&folder, server)).then_some(())).await;
    }
    sweep();
    assert_eq!(leftovers::of(&folder), Leftovers::default());
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process runs that has the folder and this text in its command line.
fn running(folder: &Path, program: &str) -> bool {
    leftovers::of(folder).processes.iter().any(|process| process.contains(program))
}

fn shim_sockets(folder: &Path) -> Vec<PathBuf> {
    let mut sockets: Vec<PathBuf> = leftovers::bundles(folder).iter().filter_map(|bundle| leftovers::shim_socket(bundle)).collect();
    sockets.sort();
    sockets.dedup();
    sockets
}
