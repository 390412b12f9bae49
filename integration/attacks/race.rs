//! Races: a record is retargeted again and again while containers are created.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_cri::v1::CreateContainerRequest;

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::ctr::Ctr;
use super::super::harness::image::{Image, Recipe};
use super::{Scene, assert_denied, code_of};

on_every_containerd! {
    no_create_by_id_wins_a_race_with_a_moving_tag,
    no_create_by_name_wins_a_race_with_a_moving_tag,
    no_create_by_digest_wins_a_race_with_all_records,
    no_create_by_name_gets_the_config_of_another_image_with_the_same_files,
    no_create_wins_the_race_by_going_away,
    a_container_that_is_given_another_root_file_system_while_its_create_is_unanswered_never_starts,
}

const CREATES: usize = 200;
/// After so many creates the race must have been met; on a busy machine it is met less often.
const CREATES_AT_MOST: usize = 2000;
/// Creates that are under way at the same time.
const AT_ONCE: usize = 4;
/// How long creates that nobody waits for may take until they have ended; no more come when none came for so long.
const ENDS_WITHIN: Duration = Duration::from_secs(90);
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Containers whose records are changed, and how long containerd may take to take a subscription.
const SWAPS: usize = 12;
const SUBSCRIBED_AFTER: Duration = Duration::from_millis(300);

/// Points the record to one image and the other in turn until it is stopped; returns how often.
async fn retarget_until(stop: Arc<AtomicBool>, ctr: Ctr, record: String, images: [Image; 2]) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        // The gate removes it when it finds it wrong.
        if ctr.retarget(&record, images[count % 2].top()).await.is_err() {
            let _ = ctr.create_record(&record, images[count % 2].top()).await;
        }
        count += 1;
    }
    // The good one last, so that the test can end with a container that runs.
    if ctr.retarget(&record, images[1].top()).await.is_err() {
        let _ = ctr.create_record(&record, images[1].top()).await;
    }
    count
}

/// Creates containers while all records of the image are retargeted in loops. Returns how the creates ended.
async fn race(scene: &Scene, evil: &Image, records: &[String], image: &str, name: &str) -> BTreeMap<String, usize> {
    let pod = scene.pod().await;
    let stop = Arc::new(AtomicBool::new(false));
    let images = || [evil.clone(), scene.image.clone()];
    let movers: Vec<_> =
        records.iter().map(|record| tokio::spawn(retarget_until(Arc::clone(&stop), scene.ctr(), record.clone(), images()))).collect();
    let mut ends = BTreeMap::new();
    for _ in 0..CREATES / AT_ONCE {
        let creates: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (cri, pod, container) = (scene.cri().clone(), pod.clone(), container(image, name));
                tokio::spawn(async move { cri.create(&pod, container).await })
            })
            .collect();
        for create in creates {
            let end = match create.await.unwrap() {
                Ok(_) => "created".to_owned(),
                Err(status) if status.message().ends_with(')') => code_of(&status),
                // The name is gone for a moment, or what it means is being read: containerd's own answer.
                Err(status) => format!("containerd: {:?} {}", status.code(), status.message().get(..60).unwrap_or_default()),
            };
            *ends.entry(end).or_default() += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for mover in movers {
        assert!(mover.await.unwrap() > 10, "the record was moved all the time");
    }
    ends
}

async fn evil_beside(containerd: Version, test: &str) -> (Scene, Image) {
    let scene = Scene::on(containerd, test).await;
    scene.pull().await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    (scene, evil)
}

async fn only_verified_containers_remain(scene: &Scene, ends: &BTreeMap<String, usize>) {
    eprintln!("{ends:?}");
    let remain = scene.only_runs(&[scene.image.chain_id()]).await;
    assert_eq!(remain, ends.get("created").copied().unwrap_or_default(), "a container for each answer, and none besides: {ends:?}");
    let was_met = |end: &String| end.starts_with("CS-OTHER-") || end == "CS-RECORD-DROPPED";
    assert!(ends.keys().any(was_met), "the race was not run: {ends:?}");
    scene.runs_the_signed_image().await;
}

async fn no_create_by_id_wins_a_race_with_a_moving_tag(containerd: Version) {
    let (scene, evil) = evil_beside(containerd, "race_by_id_tag").await;
    let (id, name) = (scene.image.id().to_string(), scene.name.clone());
    let ends = race(&scene, &evil, std::slice::from_ref(&name), &id, &name).await;
    only_verified_containers_remain(&scene, &ends).await;
}

async fn no_create_by_name_wins_a_race_with_a_moving_tag(containerd: Version) {
    let (scene, evil) = evil_beside(containerd, "race_by_name_tag").await;
    let name = scene.name.clone();
    let ends = race(&scene, &evil, std::slice::from_ref(&name), &name, &name).await;
    only_verified_containers_remain(&scene, &ends).await;
}

async fn no_create_by_digest_wins_a_race_with_all_records(containerd: Version) {
    let (scene, evil) = evil_beside(containerd, "race_by_digest_all").await;
    let (name, by_digest) = (scene.name.clone(), scene.by_digest());
    let ends = race(&scene, &evil, &[name.clone(), by_digest.clone()], &by_digest, &name).await;
    only_verified_containers_remain(&scene, &ends).await;
}

/// The other image has the same files and another config: its environment, user and command would be the container's.
async fn no_create_by_name_gets_the_config_of_another_image_with_the_same_files(containerd: Version) {
    let scene = Scene::on(containerd, "race_for_the_config").await;
    let id = scene.pull().await;
    let other = Recipe::prints("signed").env("LD_PRELOAD", "/evil").build();
    assert_eq!((other.chain_id(), other.id() == scene.image.id()), (scene.image.chain_id(), false));
    scene.ctr().import(&other, "example.com/other:1").await;
    let name = scene.name.clone();

    let ends = race(&scene, &other, std::slice::from_ref(&name), &name, &name).await;

    eprintln!("{ends:?}");
    let made = scene.behind().list_containers().await.unwrap();
    for container in made {
        assert_eq!(container.image_ref, id, "each container has the config of the signed image");
    }
}

/// The caller goes away, or its deadline passes, while its container is made: what containerd made is looked at all the same.
async fn no_create_wins_the_race_by_going_away(containerd: Version) {
    let (scene, evil) = evil_beside(containerd, "race_going_away").await;
    let (id, name, pod) = (scene.image.id().to_string(), scene.name.clone(), scene.pod().await);
    let stop = Arc::new(AtomicBool::new(false));
    let mover = tokio::spawn(retarget_until(Arc::clone(&stop), scene.ctr(), name.clone(), [evil.clone(), scene.image.clone()]));
    for round in 0..CREATES_AT_MOST {
        if round >= CREATES && scene.gate().log().contains("CS-OTHER-ROOTFS") {
            break;
        }
        let create = scene.cri().create(&pod, container(&id, &name));
        let patience = Duration::from_millis(u64::try_from(round % 40).unwrap());
        if round % 2 == 0 {
            let _ = tokio::time::timeout(patience, create).await;
            continue;
        }
        let config = Some(container(&id, &name));
        let message = CreateContainerRequest { pod_sandbox_id: pod.id.clone(), config, sandbox_config: Some(pod.config.clone()) };
        let mut request = tonic::Request::new(message);
        request.set_timeout(patience + Duration::from_millis(1));
        let _ = scene.cri().runtime().create_container(request).await;
    }
    stop.store(true, Ordering::Relaxed);
    mover.await.unwrap();
    let remain = only_verified_containers_stay(&scene).await;
    eprintln!("{remain} containers remain");
    assert!(scene.gate().log().contains("CS-OTHER-ROOTFS"), "the race was not run");
    scene.runs_the_signed_image().await;
}

/// containerd tells of a container before it answers its create, and the gate looks at it then. Whoever has containerd's socket
/// hears of it, too, and changes it after that look.
async fn a_container_that_is_given_another_root_file_system_while_its_create_is_unanswered_never_starts(containerd: Version) {
    let (scene, evil) = evil_beside(containerd, "race_for_the_root_fs").await;
    let (id, pod) = (scene.image.id().to_string(), scene.pod().await);
    let (mut refused, mut caught_at_the_start) = (0, 0);
    for _ in 0..SWAPS {
        // Of its own: a container that is refused is removed with the root file system that it was given.
        let unsigned = scene.behind().create(&pod, container(&evil.id().to_string(), "example.com/evil:1")).await.unwrap();
        let ctr = scene.ctr();
        let attacker = tokio::spawn(async move { ctr.swap_root_file_systems(&unsigned).await });
        tokio::time::sleep(SUBSCRIBED_AFTER).await;
        let made = match scene.cri().create(&pod, container(&id, &scene.name)).await {
            Ok(made) => made,
            Err(denial) => {
                attacker.abort();
                assert_denied(&denial, "CS-OTHER-ROOTFS");
                refused += 1;
                continue;
            }
        };
        // The attacker may have been later than the answer.
        let is_swapped = async {
            while scene.ctr().root_file_system(&made).await.unwrap() != evil.chain_id().to_string() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(ENDS_WITHIN, is_swapped).await.expect("the attacker changes every container");
        attacker.abort();
        assert_denied(&scene.cri().start(&made).await.unwrap_err(), "CS-UNKNOWN-ROOTFS");
        assert_eq!(scene.cri().output(&made).await.unwrap(), "", "it never ran");
        caught_at_the_start += 1;
    }
    eprintln!("{refused} refused when they were made, {caught_at_the_start} at their start");
    scene.runs_the_signed_image().await;
}

/// Creates that nobody waits for any more end by themselves, one after the other on a busy machine. Returns how many containers
/// stay when no more come.
async fn only_verified_containers_stay(scene: &Scene) -> usize {
    let (deadline, mut seen, mut since) = (Instant::now() + ENDS_WITHIN, usize::MAX, Instant::now());
    loop {
        let containers = scene.behind().list_containers().await.unwrap();
        let mut wrong = 0;
        for container in &containers {
            // One that is being removed has no root file system any more.
            let root = scene.ctr().root_file_system(&container.id).await;
            wrong += usize::from(root.is_ok_and(|root| root != scene.image.chain_id().to_string()));
        }
        if containers.len() != seen {
            (seen, since) = (containers.len(), Instant::now());
        }
        if wrong == 0 && since.elapsed() > SETTLED_AFTER {
            return seen;
        }
        assert!(Instant::now() < deadline, "{wrong} of {seen} containers stand on the other image");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
