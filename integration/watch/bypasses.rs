//! Containers, tasks and image records that the gate has nothing to do with.

use std::time::Duration;

use k8s_cri::v1::ContainerConfig;

use super::super::audit::asked;
use super::super::harness::containerd::Version;
use super::super::harness::cri::{container, image_volume};
use super::super::harness::image::Recipe;
use super::super::harness::process::Port;
use super::{REPOSITORY, STOP, Scene, with_code};

on_every_containerd! {
    a_container_that_ctr_made_is_reported_and_runs_on,
    with_on_bypass_stop_a_task_without_evidence_is_stopped_and_one_with_evidence_is_not,
    what_comes_through_the_gate_is_nothing_to_wonder_about_after_a_restart_either,
    a_stream_of_events_that_was_lost_is_followed_again_and_what_was_missed_is_found,
    a_task_that_was_started_past_the_gate_is_reported,
    what_comes_past_the_gate_is_counted_and_its_start_through_the_gate_is_on_record_as_denied,
    a_container_that_takes_the_id_of_one_that_came_through_is_stopped,
    a_container_that_takes_the_id_of_one_that_was_told_of_is_told_of,
    a_container_without_a_task_that_takes_the_id_of_one_that_came_through_is_told_of,
    a_second_task_of_a_container_that_came_through_is_stopped_if_it_runs_other_files,
}

/// Kills a container's task past the gate.
async fn kill_with_ctr(scene: &Scene, id: &str) {
    scene.world.containerd.ctr().run(&["tasks", "kill", "--signal", "SIGKILL", id]).await;
    scene.stops(id).await;
}

async fn a_container_without_a_task_that_takes_the_id_of_one_that_came_through_is_told_of(containerd: Version) {
    let scene = Scene::on(containerd, "id_without_a_task", |configuration| configuration).await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
    let made = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
    let (name, _) = scene.unsigned().await;
    assert_eq!(scene.status().await.1["bypasses-seen"], 0);
    let ctr = scene.world.containerd.ctr();
    ctr.run(&["containers", "delete", &made]).await;

    ctr.run(&["containers", "create", "--snapshotter", scene.snapshotter(), &name, &made]).await;

    let status = scene.status_until(|status| status["bypasses-seen"] == 1).await;
    let found = with_code(&status, "CS-BYPASS-CONTAINER");
    assert_eq!((found.len(), &found[0]["id"]), (1, &made.as_str().into()), "{status:#}");
    assert!(!found[0]["refusal-code"].is_null(), "{status:#}");
}

/// CRI deletes the task of a container that has ended, and then the folder of its shim.
async fn without_task(scene: &Scene, id: &str) {
    let folder = scene.world.folder.path().join("containerd/state/io.containerd.runtime.v2.task/k8s.io").join(id);
    while scene.world.containerd.ctr().run(&["tasks", "list"]).await.contains(id) || folder.exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_second_task_of_a_container_that_came_through_is_stopped_if_it_runs_other_files(containerd: Version) {
    let scene = Scene::on(containerd, "second_task", |configuration| configuration.table(STOP)).await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let (_, id) = scene.unsigned().await;
    assert_eq!(scene.status().await.1["bypasses-seen"], 0);
    let ctr = scene.world.containerd.ctr();
    let evil = Recipe::prints_and_stays("unsigned").build();
    assert_eq!(evil.id().to_string(), id);
    let chain = evil.chain_id().to_string();
    ctr.run(&["snapshots", "--snapshotter", scene.snapshotter(), "prepare", "evil", &chain]).await;
    kill_with_ctr(&scene, &ran.container).await;
    without_task(&scene, &ran.container).await;

    ctr.swap_root_file_system(&ran.container, "evil").await.unwrap();
    ctr.run(&["tasks", "start", "--detach", "--null-io", &ran.container]).await;

    let status = scene.status_until(|status| status["stopped"] == 1).await;
    scene.stops(&ran.container).await;
    let found = with_code(&status, "CS-BYPASS-TASK");
    assert_eq!((found.len(), &found[0]["id"], &found[0]["action"]), (1, &ran.container.as_str().into(), &"stopped".into()), "{status:#}");
    assert_eq!(found[0]["refusal-code"], "CS-OTHER-ROOTFS", "{status:#}");
}

async fn a_container_that_takes_the_id_of_one_that_came_through_is_stopped(containerd: Version) {
    let scene = Scene::on(containerd, "id_used_again", |configuration| configuration.table(STOP)).await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let (name, _) = scene.unsigned().await;
    assert_eq!(scene.status().await.1["bypasses-seen"], 0);
    kill_with_ctr(&scene, &ran.container).await;
    without_task(&scene, &ran.container).await;
    scene.world.containerd.ctr().run(&["containers", "delete", &ran.container]).await;

    scene.ctr_run(&name, &ran.container).await;

    let status = scene.status_until(|status| status["stopped"] == 1).await;
    scene.stops(&ran.container).await;
    // By its start, which is the second of this ID, or by a look at everything, which may come first.
    let found: Vec<_> = status["bypasses"].as_array().unwrap().iter().collect();
    assert_eq!((found.len(), &found[0]["id"]), (1, &ran.container.as_str().into()), "{status:#}");
    assert!(["CS-BYPASS-TASK", "CS-BYPASS-CONTAINER"].contains(&found[0]["code"].as_str().unwrap()), "{status:#}");
    assert_eq!(found[0]["action"], "stopped", "{status:#}");
    // It is judged for the name that CRI remembers of the ID, or else for the one in its record, as the release has it.
    let code = found[0]["refusal-code"].as_str().unwrap();
    assert!(["CS-OTHER-ROOTFS", "CS-NOT-PINNED"].contains(&code), "{status:#}");
    let on_record = ["past-the-gate", "stopped"].map(|verdict| (verdict.to_owned(), ran.container.clone()));
    assert_eq!(scene.on_record().await, on_record);
}

async fn a_container_that_takes_the_id_of_one_that_was_told_of_is_told_of(containerd: Version) {
    let scene = Scene::on(containerd, "told_of_again", |configuration| configuration).await;
    let (name, _) = scene.unsigned().await;
    scene.cri().pull(&scene.name).await.unwrap();
    scene.ctr_run(&scene.name, "same").await;
    scene.status_until(|status| status["bypasses-seen"] == 1).await;
    kill_with_ctr(&scene, "same").await;
    for arguments in [["tasks", "delete", "same"], ["containers", "delete", "same"]] {
        scene.world.containerd.ctr().run(&arguments).await;
    }

    scene.ctr_run(&name, "same").await;

    let status = scene.status_until(|status| status["bypasses-seen"] == 2).await;
    let codes: Vec<_> = with_code(&status, "CS-BYPASS-CONTAINER").iter().map(|bypass| bypass["refusal-code"].clone()).collect();
    assert_eq!(codes, [serde_json::Value::Null, "CS-UNKNOWN-ROOTFS".into()], "{status:#}");
    assert_eq!(scene.on_record().await, [(); 2].map(|()| ("past-the-gate".to_owned(), "same".to_owned())));
}

async fn a_container_that_ctr_made_is_reported_and_runs_on(containerd: Version) {
    let scene = Scene::on(containerd, "made_with_ctr", |configuration| configuration).await;
    let (name, _) = scene.unsigned().await;
    scene.ctr_run(&name, "by-ctr").await;

    let status = scene.status_until(|status| status["bypasses"].as_array().unwrap().iter().any(|bypass| bypass["id"] == "by-ctr")).await;

    let found = with_code(&status, "CS-BYPASS-CONTAINER");
    assert_eq!(found.len(), 1, "{status:#}");
    assert_eq!((&found[0]["image"], &found[0]["action"]), (&name.as_str().into(), &"reported".into()));
    assert_eq!(found[0]["refusal-code"], "CS-UNKNOWN-ROOTFS");
    assert!(scene.runs("by-ctr").await);
    assert!(scene.gate().log().contains("CS-BYPASS-CONTAINER"));
    assert_eq!(scene.on_record().await, [("past-the-gate".to_owned(), "by-ctr".to_owned())]);
    let (exit, status) = scene.status().await;
    assert_eq!(exit, Some(1), "something came past the gate");
    assert_eq!(status["inventory"]["unverified"], 1);
    assert_eq!(status["inventory"]["containers"][0]["id"], "by-ctr");
}

async fn with_on_bypass_stop_a_task_without_evidence_is_stopped_and_one_with_evidence_is_not(containerd: Version) {
    let scene = Scene::on(containerd, "on_bypass_stop", |configuration| configuration.table(STOP)).await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let (name, id) = scene.unsigned().await;
    scene.ctr_run(&scene.name, "signed-by-ctr").await;
    scene.ctr_run(&name, "unsigned-by-ctr").await;
    let pod = scene.behind().run_pod(scene.behind().pod("default")).await.unwrap();
    let made = scene.behind().create(&pod, container(&id, &name)).await.unwrap();
    scene.behind().start(&made).await.unwrap();

    scene.stops("unsigned-by-ctr").await;
    scene.stops(&made).await;

    let status = scene.status_until(|status| status["stopped"] == 2).await;
    let action = |id: &str| {
        let found = with_code(&status, "CS-BYPASS-CONTAINER").into_iter().find(|bypass| bypass["id"] == id);
        found.unwrap_or_else(|| panic!("{id} in {status:#}"))["action"].clone()
    };
    assert_eq!(action("unsigned-by-ctr"), "stopped");
    assert_eq!(action(&made), "stopped");
    assert_eq!(action("signed-by-ctr"), "reported", "what it runs is signed");
    let on_record = |verdict: &str, id: &str| (verdict.to_owned(), id.to_owned());
    let mut expected = vec![on_record("stopped", "unsigned-by-ctr"), on_record("stopped", &made)];
    expected.extend(["signed-by-ctr", "unsigned-by-ctr", &made].map(|id| on_record("past-the-gate", id)));
    expected.sort_unstable();
    assert_eq!(scene.on_record().await, expected);
    assert!(scene.runs("signed-by-ctr").await);
    assert!(scene.runs(&ran.container).await, "it came through the gate");
    assert!(scene.runs(&ran.pod.id).await && scene.runs(&pod.id).await, "sandboxes are never stopped");
}

/// A container of `image` with the image `volume` in a volume, made and started past the gate.
async fn past_with_volume(scene: &Scene, (id, name): (&str, &str), volume: &str) -> String {
    let pod = scene.behind().run_pod(scene.behind().pod("default")).await.unwrap();
    let config = ContainerConfig { mounts: vec![image_volume("/volume", volume, volume)], ..container(id, name) };
    let made = scene.behind().create(&pod, config).await.unwrap();
    scene.behind().start(&made).await.unwrap();
    made
}

#[tokio::test]
async fn with_on_bypass_stop_a_signed_image_with_an_unsigned_one_in_a_volume_is_stopped() {
    let scene = Scene::on(Version::V2_1, "unsigned_volume", |configuration| configuration.table(STOP)).await;
    // Signed, and never pulled through the gate.
    let (gun, second) = (scene.world.gun(REPOSITORY), Recipe::sleeps().file("/which", "second").build());
    scene.world.notary.signer("admin").sign(&gun, "2", &second).await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let second_name = scene.world.push(&second, REPOSITORY, "2").await;
    let (unsigned, _) = scene.unsigned().await;
    scene.behind().pull(&second_name).await.unwrap();

    let with_signed = past_with_volume(&scene, (&ran.image, &scene.name), &second_name).await;
    let with_unsigned = past_with_volume(&scene, (&ran.image, &scene.name), &unsigned).await;
    scene.stops(&with_unsigned).await;

    let status = scene.status_until(|status| status["stopped"] == 1 && with_code(status, "CS-BYPASS-CONTAINER").len() == 2).await;
    for bypass in with_code(&status, "CS-BYPASS-CONTAINER") {
        let (action, code) = if bypass["id"] == with_signed.as_str() { ("reported", "") } else { ("stopped", "CS-UNKNOWN-ROOTFS") };
        assert_eq!((&bypass["action"], bypass["refusal-code"].as_str().unwrap_or_default()), (&action.into(), code), "{status:#}");
    }
    assert!(scene.runs(&with_signed).await, "all that it has is signed");
    assert!(scene.runs(&ran.container).await);
}

#[tokio::test]
async fn of_a_volume_past_the_gate_any_rule_may_be_meant_so_that_the_strictest_counts() {
    let gun = |scene: &Scene| scene.world.gun("other/app");
    let mut scene = Scene::on(Version::V2_1, "strictest_of_a_volume", |configuration| configuration.table(STOP)).await;
    let (name, id) = scene.unsigned().await;
    let data = scene.world.push(&Recipe::sleeps().file("/which", "data").build(), "other/data", "1").await;
    scene.behind().pull(&data).await.unwrap();
    scene.restart_with(&scene.configuration().table(STOP).rule(&gun(&scene), "mode = \"permissive\"")).await;

    let with_volume = past_with_volume(&scene, (&id, &name), &data).await;
    scene.stops(&with_volume).await;
    scene.status_until(|status| status["stopped"] == 1).await;

    scene.restart_with(&scene.configuration().mode("permissive").table(STOP)).await;
    let runs = past_with_volume(&scene, (&id, &name), &data).await;
    let is_told = |status: &serde_json::Value| with_code(status, "CS-BYPASS-CONTAINER").iter().any(|bypass| bypass["id"] == runs.as_str());
    scene.status_until(is_told).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.runs(&runs).await, "no rule enforces anything");
}

async fn what_comes_through_the_gate_is_nothing_to_wonder_about_after_a_restart_either(containerd: Version) {
    let mut scene = Scene::on(containerd, "came_through", |configuration| configuration.table(STOP)).await;
    let first = scene.cri().run(&scene.name, "default").await.unwrap();
    scene.status_until(|status| status["inventory"]["verified"] == 1).await;
    let gate = scene.world.gate.as_mut().unwrap();
    gate.kill();
    gate.start_again().await;
    let second = scene.cri().run(&scene.name, "shop").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;

    let status = scene.status_until(|status| status["self-proof"]["shown"] == "enforced").await;
    assert_eq!(status["bypasses-seen"], 0, "{status:#}");
    assert_eq!((&status["inventory"]["running"], &status["inventory"]["verified"]), (&2.into(), &2.into()));
    assert_eq!(scene.status().await.0, Some(0), "{status:#}");
    for ran in [first, second] {
        assert!(scene.runs(&ran.container).await);
    }
}

#[tokio::test]
async fn what_was_made_while_the_gate_was_down_is_found_when_it_is_back() {
    let mut scene = Scene::with("made_while_down", |configuration| configuration.table(STOP)).await;
    let (name, _) = scene.unsigned().await;
    scene.ctr_run(&name, "older").await;
    scene.status_until(|status| with_code(status, "CS-BYPASS-CONTAINER").iter().any(|bypass| bypass["id"] == "older")).await;
    scene.world.gate.as_mut().unwrap().kill();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    scene.ctr_run(&name, "while-down").await;

    scene.world.gate.as_mut().unwrap().start_again().await;

    scene.stops("while-down").await;
    let status = scene.status_until(|status| status["stopped"] == 1).await;
    assert!(with_code(&status, "CS-BYPASS-CONTAINER").iter().any(|bypass| bypass["id"] == "while-down"), "{status:#}");
}

#[tokio::test]
async fn what_is_older_than_the_record_is_neither_reported_nor_stopped() {
    let mut scene = Scene::new("older_than_the_record").await;
    scene.world.gate.as_mut().unwrap().server.stop();
    std::fs::remove_dir_all(scene.gate().state().join("watch")).unwrap();
    let (name, _) = scene.unsigned().await;
    scene.ctr_run(&name, "before").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let configuration = scene.configuration().table(STOP);
    scene.restart_with(&configuration).await;

    let status = scene.status_until(|status| status["inventory"]["unverified"] == 1).await;
    assert_eq!(status["bypasses-seen"], 0, "{status:#}");
    assert!(scene.runs("before").await);
}

async fn a_stream_of_events_that_was_lost_is_followed_again_and_what_was_missed_is_found(containerd: Version) {
    let mut scene = Scene::on(containerd, "lost_events", |configuration| configuration.table(STOP)).await;
    let (name, _) = scene.unsigned().await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    scene.status_until(|status| status["events"]["heard"] == true && status["inventory"]["verified"] == 1).await;

    scene.world.containerd.server.kill();
    let status = scene.status_until(|status| status["events"]["heard"] == false).await;
    assert!(status["inventory"]["failure"].is_string(), "{status:#}");
    assert_eq!(scene.status().await.0, Some(1), "what runs cannot be seen");
    scene.world.containerd.server.start().await;
    scene.world.cri().ready().await;
    scene.ctr_run(&name, "after-restart").await;

    scene.stops("after-restart").await;
    let status = scene.status_until(|status| status["events"]["heard"] == true && status["stopped"] == 1).await;
    let found = with_code(&status, "CS-BYPASS-CONTAINER");
    assert_eq!((found.len(), &found[0]["id"]), (1, &"after-restart".into()), "{status:#}");
    assert!(scene.runs(&ran.container).await && scene.runs(&ran.pod.id).await);
}

async fn a_task_that_was_started_past_the_gate_is_reported(containerd: Version) {
    let scene = Scene::on(containerd, "task_past_the_gate", |configuration| configuration.table(STOP)).await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
    let made = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
    scene.behind().start(&made).await.unwrap();

    let status = scene.status_until(|status| status["bypasses-seen"] == 1).await;

    let found = with_code(&status, "CS-BYPASS-TASK");
    assert_eq!((found.len(), &found[0]["id"]), (1, &made.as_str().into()), "{status:#}");
    assert!(scene.runs(&made).await, "what it runs is signed");
}

#[tokio::test]
async fn an_image_record_is_reported_only_if_it_does_not_lead_to_what_is_signed() {
    let scene = Scene::new("records_past_the_gate").await;
    scene.cri().pull(&scene.name).await.unwrap();
    let ctr = scene.world.containerd.ctr();
    let other = Recipe::prints("other").build();
    ctr.import(&other, &format!("{}:2", scene.world.gun(REPOSITORY))).await;
    ctr.tag(&scene.name, &format!("{}:3", scene.world.gun(REPOSITORY))).await;

    let status = scene.status_until(|status| status["bypasses-seen"].as_u64().unwrap() > 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let found = with_code(&status, "CS-BYPASS-IMAGE");
    assert_eq!(found.len(), 1, "{status:#}");
    assert_eq!(found[0]["id"], format!("{}:2", scene.world.gun(REPOSITORY)));
    assert_eq!(found[0]["image"], other.digest().to_string());
}

#[tokio::test]
async fn a_container_in_another_namespace_of_containerd_is_reported() {
    let scene = Scene::with("other_namespace", |configuration| configuration.table(STOP)).await;
    let ctr = scene.world.containerd.ctr();
    let archive = tempfile::NamedTempFile::new().unwrap();
    Recipe::sleeps().build().write_archive(archive.path(), &[("io.containerd.image.name", "other.test/app:1")]);
    ctr.run(&["--namespace", "other", "images", "import", archive.path().to_str().unwrap()]).await;
    let runc = scene.world.folder.path().join("containerd/runc");
    let options = ["--detach", "--null-io", "--snapshotter", scene.snapshotter(), "--runc-root", runc.to_str().unwrap()];
    ctr.run(&[&["--namespace", "other", "run"], options.as_slice(), &["other.test/app:1", "elsewhere"]].concat()).await;

    let status = scene.status_until(|status| !with_code(status, "CS-BYPASS-NAMESPACE").is_empty()).await;

    let found = with_code(&status, "CS-BYPASS-NAMESPACE");
    assert_eq!((&found[0]["id"], &found[0]["containerd-namespace"]), (&"elsewhere".into(), &"other".into()));
    assert_eq!(found[0]["action"], "reported", "only containers of Kubernetes are stopped");
    assert_eq!(status["inventory"]["elsewhere"][0]["containers"], 1);
}

#[tokio::test]
async fn in_permissive_mode_nothing_is_stopped_and_what_was_let_pass_is_no_bypass() {
    let scene = Scene::with("permissive_watch", |configuration| configuration.mode("permissive").table(STOP)).await;
    let unsigned = scene.world.push(&Recipe::prints_and_stays("unsigned").build(), "other/app", "1").await;
    let ran = scene.cri().run(&unsigned, "default").await.unwrap();
    scene.ctr_run(&unsigned, "by-ctr").await;

    let status = scene.status_until(|status| status["bypasses-seen"].as_u64().unwrap() > 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    assert_eq!(status["bypasses"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!(status["bypasses"][0]["id"], "by-ctr");
    assert!(scene.runs("by-ctr").await && scene.runs(&ran.container).await);
    let (exit, status) = scene.status().await;
    assert_eq!((exit, &status["inventory"]["unverified"]), (Some(1), &2.into()), "{status:#}");
}

async fn what_comes_past_the_gate_is_counted_and_its_start_through_the_gate_is_on_record_as_denied(containerd: Version) {
    let port = Port::free();
    let metrics = format!("[metrics]\nlisten = \"127.0.0.1:{}\"", port.number());
    let scene = Scene::on(containerd, "counted", |configuration| configuration.table(&metrics)).await;
    let (name, id) = scene.unsigned().await;
    scene.ctr_run(&name, "by-ctr").await;
    let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
    let made = scene.behind().create(&pod, container(&id, &name)).await.unwrap();
    scene.cri().start(&made).await.unwrap_err();
    scene.status_until(|status| status["bypasses-seen"] == 2).await;

    let figures = asked(tokio::net::TcpStream::connect(("127.0.0.1", port.number())).await.unwrap()).await;
    assert_eq!(figures["countersign_bypasses_total{kind=\"CS-BYPASS-CONTAINER\"}"], 2.0, "{figures:#?}");
    assert_eq!(figures["countersign_bypass_stopped_total{kind=\"CS-BYPASS-CONTAINER\"}"], 0.0);
    let log = std::fs::read_to_string(scene.gate().state().join("audit/decisions.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let start = lines.filter(|line| line["method"] == "StartContainer").collect::<Vec<_>>();
    assert_eq!(start.len(), 1, "{start:#?}");
    assert_eq!((&start[0]["container"], &start[0]["verdict"]), (&made.as_str().into(), &"deny".into()));
    assert_eq!(start[0]["code"], "CS-UNKNOWN-ROOTFS", "{start:#?}");
    let journal = scene.gate().log();
    let denied = journal.lines().find(|line| line.contains("denied") && line.contains("StartContainer")).unwrap();
    assert!(denied.contains(&format!("container=\"{made}\"")) && !denied.contains("image="), "{denied}");
}
