//! What CreateContainer may be given in place of an image ID and the pod's image name.

use k8s_cri::v1::{ContainerConfig, ImageSpec, Mount};
use tonic::Status;

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::image::Recipe;
use super::{Scene, assert_denied};

on_every_containerd! {
    a_verified_image_is_created_by_every_way_to_name_it,
    what_names_no_verified_image_is_refused,
    the_image_of_a_volume_is_judged_as_a_containers_is,
    records_with_hostile_names_break_nothing_and_are_escaped,
    the_record_that_leads_elsewhere_is_named,
}

async fn a_verified_image_is_created_by_every_way_to_name_it(containerd: Version) {
    let scene = Scene::on(containerd, "every_way_to_name_it").await;
    let id = scene.pull().await;
    let hex = id.strip_prefix("sha256:").unwrap();
    let (name, by_digest, pod) = (scene.name.as_str(), scene.by_digest(), scene.pod().await);
    let with_tag = format!("{name}@{}", scene.image.digest());
    let odd_tag = format!("{}@{}", scene.tag("anything"), scene.image.digest());
    let good = [
        (id.as_str(), name),
        (name, name),
        (name, ""),
        (&by_digest, ""),
        (&by_digest, name),
        (&id, &by_digest),
        (&with_tag, &with_tag),
        (&odd_tag, name),
        (hex, name),
        (&hex[..4], name),
        (&id[..11], name),
        // An image ID in place of a name: any image that was verified here and has this ID.
        (&id, &id),
        (&id, ""),
        (name, &id),
    ];
    for (image, specified) in good {
        let made = scene.cri().create(&pod, container(image, specified)).await;
        let made = made.unwrap_or_else(|status| panic!("{image} for `{specified}`: {status:?}"));
        assert_eq!(scene.root_of(&made).await, scene.image.chain_id().to_string());
        scene.cri().remove(&made).await.unwrap();
    }
}

async fn what_names_no_verified_image_is_refused(containerd: Version) {
    let scene = Scene::on(containerd, "what_names_no_verified_image").await;
    let id = scene.pull().await;
    let (hex, name, pod) = (id.strip_prefix("sha256:").unwrap(), scene.name.as_str(), scene.pod().await);
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "other/app", "1").await;
    let evil = scene.behind().pull(&unsigned).await.unwrap();
    let evil_hex = evil.strip_prefix("sha256:").unwrap();
    let (upper, spaced, manifest) = (id.to_uppercase(), format!("{name} "), scene.image.digest().to_string());
    let odd_digest = format!("{}@{id}", scene.world.gun(super::REPOSITORY));
    let before = scene.packets();
    let bad = [
        // The image is not there, whatever the pod says.
        ("", name, "CS-CONTAINERD-ANSWER"),
        ("", "", "CS-CONTAINERD-ANSWER"),
        ("/tmp/x.tar", name, "CS-NOT-PRESENT"),
        ("/tmp/x.tar", "", "CS-NOT-PRESENT"),
        (&spaced, name, "CS-NOT-PRESENT"),
        (&upper, name, "CS-NOT-PRESENT"),
        (&manifest, name, "CS-NOT-PRESENT"),
        (&odd_digest, name, "CS-NOT-PRESENT"),
        ("\u{1b}[2J\"", name, "CS-NOT-PRESENT"),
        // A prefix is no name that a rule could be found for.
        (&hex[..4], "", "CS-NOT-REGISTERED"),
        (&id[..11], "", "CS-NOT-REGISTERED"),
        (hex, "", "CS-NAME"),
        (&id, hex, "CS-NAME"),
        (&id, &spaced, "CS-NAME"),
        (&id, &upper, "CS-NAME"),
        (&id, &manifest, "CS-NOT-PRESENT"),
        (&id, &odd_digest, "CS-DIGEST-NOT-SIGNED"),
        (&id, &unsigned, "CS-NOT-PINNED"),
        (&id, &evil, "CS-NOT-PRESENT"),
        // The unsigned image, under the signed names.
        (&evil, name, "CS-OTHER-IMAGE"),
        (evil_hex, name, "CS-OTHER-IMAGE"),
        (&evil_hex[..6], name, "CS-OTHER-IMAGE"),
        (&evil, &id, "CS-NOT-PRESENT"),
        (&evil, &evil, "CS-NOT-HELD"),
        (&evil, "", "CS-NOT-HELD"),
        (&evil, &unsigned, "CS-NOT-PINNED"),
        (&unsigned, name, "CS-OTHER-IMAGE"),
        (&unsigned, &id, "CS-NOT-PRESENT"),
        (&unsigned, "", "CS-NOT-PINNED"),
    ];
    let mut wrong = Vec::new();
    for (image, specified, code) in bad {
        match scene.cri().create(&pod, container(image, specified)).await {
            Err(status) if status.message().ends_with(&format!("({code})")) => assert_denied(&status, code),
            outcome => wrong.push(format!("`{image}` for `{specified}`: expected {code}, got {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(scene.packets(), before, "no packet was sent");
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

fn with_image_volume(image: &str, name: &str, volume: &str) -> ContainerConfig {
    let volume = ImageSpec { image: volume.to_owned(), ..Default::default() };
    let mount = Mount { container_path: "/volume".to_owned(), readonly: true, image: Some(volume), ..Default::default() };
    ContainerConfig { mounts: vec![mount], ..container(image, name) }
}

/// containerd before 2.1 knows no image volumes: what passes the gate gets as far as its own refusal.
#[track_caller]
fn assert_passed(containerd: Version, created: Result<String, Status>) {
    match created {
        Ok(_) => assert_eq!(containerd, Version::V2_1),
        Err(status) => assert!(containerd != Version::V2_1 && status.message().contains("mkdir"), "{status:?}"),
    }
}

async fn the_image_of_a_volume_is_judged_as_a_containers_is(containerd: Version) {
    let mut scene = Scene::on(containerd, "the_image_of_a_volume").await;
    let id = scene.pull().await;
    let evil = Recipe::prints("evil").build();
    let unsigned = "example.com/evil:1";
    scene.ctr().import(&evil, unsigned).await;
    let pod = scene.pod().await;
    let cases = [
        (unsigned, "CS-NOT-REGISTERED"),
        (&evil.id().to_string(), "CS-NOT-HELD"),
        ("", "CS-CONTAINERD-ANSWER"),
        ("not here", "CS-NOT-PRESENT"),
    ];
    for (volume, code) in cases {
        let refused = scene.cri().create(&pod, with_image_volume(&id, &scene.name, volume)).await.unwrap_err();
        assert_denied(&refused, code);
    }
    scene.runs_nothing().await;
    for volume in [id.as_str(), &scene.name] {
        assert_passed(containerd, scene.cri().create(&pod, with_image_volume(&id, &scene.name, volume)).await);
    }
    scene.switch_to("permissive").await;
    assert_passed(containerd, scene.cri().create(&pod, with_image_volume(&id, &scene.name, unsigned)).await);
    scene.logged(&["let pass", "CreateContainer", "CS-NOT-REGISTERED"]).await;
}

async fn records_with_hostile_names_break_nothing_and_are_escaped(containerd: Version) {
    let scene = Scene::on(containerd, "records_with_hostile_names").await;
    let id = scene.pull().await;
    let evil = Recipe::prints("evil").build();
    let ctr = scene.ctr();
    ctr.import(&evil, "example.com/evil:1").await;
    let long = format!("{}:1", "x".repeat(30_000));
    let huge = "x".repeat(1_000_000);
    let hostile = ["\u{1b}[2J\u{7}", "a\"b,name~=\"c", "back\\slash", "new\nline", "reg/app:1 ", "ünï", "'; --", &long, "UPPER:1", &huge];
    for name in hostile {
        for target in [scene.image.top(), evil.top()] {
            // Each stands for the signed image first, and for the evil one then.
            if ctr.create_record(name, target).await.is_err() {
                ctr.retarget(name, target).await.unwrap();
            }
        }
    }
    let pod = scene.pod().await;

    scene.runs_the_signed_image().await;
    for name in hostile {
        let refused = scene.cri().create(&pod, container(&id, name)).await.unwrap_err();
        assert!(refused.message().starts_with("SignatureValidationFailed: "), "{refused:?}");
        let refused_too = scene.cri().create(&pod, container(name, "")).await.unwrap_err();
        for message in [refused.message(), refused_too.message()] {
            assert!(!message.contains(|letter: char| letter.is_control()) && message.len() < 2100, "{message:?}");
        }
    }
    let evil_id = evil.id().to_string();
    assert_denied(&scene.cri().create(&pod, container(&evil_id, &scene.name)).await.unwrap_err(), "CS-OTHER-IMAGE");
    scene.only_runs(&[scene.image.chain_id()]).await;
    let log = scene.gate().log();
    assert!(!log.contains(['\u{1b}', '\u{7}']), "control characters in the log");
    assert!(log.lines().all(|line| line.len() < 8_000), "a line of the log is cut");
}

/// A name of one image that CRI lists and that leads elsewhere must be named in the refusal, escaped.
async fn the_record_that_leads_elsewhere_is_named(containerd: Version) {
    let scene = Scene::on(containerd, "the_record_that_leads_elsewhere").await;
    let id = scene.pull().await;
    let (ctr, other) = (scene.ctr(), scene.tag("other"));
    ctr.create_record(&other, scene.image.top()).await.unwrap();
    scene.wait_until_shown(&other, &scene.image).await;
    ctr.retarget(&other, Recipe::prints("absent").build().top()).await.unwrap();
    let refused = scene.cri().create(&scene.pod().await, container(&id, &scene.name)).await.unwrap_err();
    assert_denied(&refused, "CS-OTHER-RECORD");
    assert!(refused.message().contains(&format!("`{other}`")) && refused.message().contains(&id), "{}", refused.message());
}
