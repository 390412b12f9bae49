//! The harness itself, without countersign: what the other tests stand on does what they take for granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::harness::containerd::Version;
use super::harness::image::Recipe;
use super::harness::notary::NotaryOptions;
use super::harness::registry::{Registry, RegistryAuth, RegistryOptions};
use super::harness::signer::Rotation;
use super::harness::world::{World, WorldOptions};

on_every_containerd! {
    parts_a_pushed_image_pulls_runs_and_prints,
    parts_every_form_of_image_pulls_with_the_digests_that_were_computed,
    parts_a_manifest_with_the_layers_of_another_image_is_pushed_and_containerd_refuses_it,
    parts_a_container_can_be_entered_stopped_and_removed,
    parts_a_forged_record_makes_containerd_run_other_files_under_a_good_name,
    parts_an_archive_is_imported_under_any_name,
}

/// The goal for a world is 2 s on an idle machine; a busy one gets five times as long.
const WORLD_WITHIN: Duration = Duration::from_secs(10);

async fn parts_a_pushed_image_pulls_runs_and_prints(containerd: Version) {
    let began = Instant::now();
    let world = World::on(containerd, "parts_a_pushed_image_pulls_runs_and_prints").await;
    let up = began.elapsed();
    eprintln!("a world is up in {up:?}");
    assert!(up < WORLD_WITHIN, "a world took {up:?}");
    let image = Recipe::prints("hello from the container").build();
    let name = world.push(&image, "team/app", "1").await;

    let cri = world.cri();
    let ran = cri.run(&name, "default").await.unwrap();

    assert_eq!(ran.output, "hello from the container\n");
    assert_eq!(ran.image, image.id().to_string());
    assert_eq!(cri.exit_code(&ran.container).await.unwrap(), 0);
    assert_eq!(world.containerd.ctr().root_file_system(&ran.container).await.unwrap(), image.chain_id().to_string());
    let status = cri.image_status(&name).await.unwrap().expect("the pulled image has a status");
    assert_eq!(status.repo_digests, [format!("{}/team/app@{}", world.registry.host(), image.digest())]);
    let manifest = "GET /v2/team/app/manifests/".to_owned() + &image.digest().to_string();
    assert!(world.registry.requests().contains(&manifest), "{:?}", world.registry.requests());
}

async fn parts_every_form_of_image_pulls_with_the_digests_that_were_computed(containerd: Version) {
    let world = World::on(containerd, "parts_every_form_of_image").await;
    let cri = world.cri();
    let forms = [
        ("oci", Recipe::prints("oci")),
        ("oci-index", Recipe::prints("oci-index").index()),
        ("docker", Recipe::prints("docker").docker()),
        ("docker-list", Recipe::prints("docker-list").docker().index()),
    ];
    for (form, recipe) in forms {
        let image = recipe.user("65534").env("FORM", form).annotation("org.example.form", form).build();
        let name = world.push(&image, "team/forms", form).await;
        assert_eq!(cri.pull(&name).await.unwrap(), image.id().to_string(), "{form}");
        let records = world.containerd.ctr().records().await.unwrap();
        assert!(records.contains(&(name.clone(), image.digest().to_string())), "{form}: {records:?}");
        assert_eq!(cri.image_status(&name).await.unwrap().unwrap().uid.unwrap().value, 65534, "{form}");
    }
}

async fn parts_a_manifest_with_the_layers_of_another_image_is_pushed_and_containerd_refuses_it(containerd: Version) {
    let world = World::on(containerd, "parts_mixed_image").await;
    let (good, bad) = (Recipe::prints("good").build(), Recipe::prints("bad").build());
    let mixed = good.over_layers_of(&bad);
    assert_eq!((mixed.id(), mixed.chain_id()), (good.id(), bad.chain_id()));
    let name = world.push(&mixed, "team/mixed", "1").await;

    let status = world.cri().pull(&name).await.unwrap_err();

    assert!(status.message().contains("wrong diff id calculated on extraction"), "{status:?}");
}

async fn parts_a_container_can_be_entered_stopped_and_removed(containerd: Version) {
    let world = World::on(containerd, "parts_a_container_can_be_entered").await;
    let image = Recipe::prints_and_stays("up").file("/note", "from the image").build();
    let name = world.push(&image, "team/stays", "1").await;
    let cri = world.cri();
    let ran = cri.run(&name, "default").await.unwrap();

    let entered = cri.exec(&ran.container, &["cat", "/note"]).await.unwrap();
    assert_eq!((entered.exit_code, entered.stdout.as_slice()), (0, "from the image".as_bytes()));
    cri.stop(&ran.container).await.unwrap();
    assert_eq!(cri.exit_code(&ran.container).await.unwrap(), 137);
    cri.remove(&ran.container).await.unwrap();
    cri.remove_pod(&ran.pod).await.unwrap();
    assert_eq!(cri.list_containers().await.unwrap(), []);
}

async fn parts_a_forged_record_makes_containerd_run_other_files_under_a_good_name(containerd: Version) {
    let world = World::on(containerd, "parts_a_forged_record").await;
    let (cri, ctr) = (world.cri(), world.containerd.ctr());
    let (good, evil) = (Recipe::prints("good").build(), Recipe::prints("evil").build());
    let name = world.push(&good, "team/app", "1").await;
    let id = cri.pull(&name).await.unwrap();
    ctr.import(&evil, "example.com/evil:1").await;
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();

    world.containerd.blind_cri(&name).await.unwrap();
    ctr.retarget(&name, evil.top()).await.unwrap();
    let ran = cri.run_image(&pod, &id, &name).await.unwrap();

    assert_eq!(ran.output, "evil\n", "the attack that the gate has to catch works on this containerd");
    assert_eq!(ctr.root_file_system(&ran.container).await.unwrap(), evil.chain_id().to_string());
}

async fn parts_an_archive_is_imported_under_any_name(containerd: Version) {
    let world = World::on(containerd, "parts_an_archive_is_imported").await;
    let image = Recipe::prints("imported").build();
    let forged = format!("{}@sha256:{}", world.gun("team/app"), "ab".repeat(32));

    world.containerd.ctr().import(&image, &forged).await;

    let records = world.containerd.ctr().records().await.unwrap();
    assert!(records.contains(&(forged.clone(), image.digest().to_string())), "{records:?}");
}

#[tokio::test]
async fn parts_a_signed_tag_is_found_by_the_reference_client() {
    let world = World::new("parts_a_signed_tag_is_found").await;
    let image = Recipe::prints("signed").build();
    let (_, ids) = world.push_signed(&image, "team/app", "1").await;
    let gun = world.gun("team/app");
    let reader = world.notary.signer("reader");

    assert_eq!(reader.lookup(&gun, "1").await.unwrap(), image.digest().to_string());
    let missing = reader.lookup(&gun, "2").await.unwrap_err();
    assert!(missing.contains("No valid trust data for 2"), "{missing}");
    assert_eq!((ids.certificate.len(), ids.canonical.len()), (64, 64));
    assert_ne!(ids.certificate, ids.canonical);
    assert!(key_files(world.folder.path()).contains(&ids.canonical), "the canonical ID names the root key's file");
    let timestamp = format!("GET /v2/{gun}/_trust/tuf/timestamp.json");
    assert!(world.notary.requests().contains(&timestamp), "{:?}", world.notary.requests());
}

#[tokio::test]
async fn parts_people_sign_in_delegations_rotate_keys_and_take_signatures_back() {
    let world = World::new("parts_people_sign_in_delegations").await;
    let (one, two) = (Recipe::prints("one").build(), Recipe::prints("two").build());
    let (_, before) = world.push_signed(&one, "team/app", "1").await;
    let gun = world.gun("team/app");
    let (admin, alice, reader) = (world.notary.signer("admin"), world.notary.signer("alice"), world.notary.signer("reader"));

    admin.delegate(&gun, "targets/releases", &[&alice]).await;
    admin.delegate(&gun, "targets/alice", &[&alice]).await;
    admin.rotate(&gun, Rotation::SnapshotToServer).await;
    alice.import_own_key().await;
    alice.sign_as(&gun, "2", two.top(), &["targets/releases", "targets/alice"]).await;
    assert_eq!(reader.lookup(&gun, "2").await.unwrap(), two.digest().to_string());

    for key in [Rotation::Timestamp, Rotation::Targets, Rotation::Root] {
        admin.rotate(&gun, key).await;
    }
    let after = admin.root_ids(&gun).await;
    assert_ne!(before, after, "the root key was replaced");
    assert!(key_files(world.folder.path()).contains(&after.canonical));
    assert_eq!(reader.lookup(&gun, "1").await.unwrap(), one.digest().to_string());

    admin.remove_tag(&gun, "1").await;
    assert!(reader.lookup(&gun, "1").await.is_err());
    admin.undelegate(&gun, "targets/releases").await;
    admin.delete(&gun).await;
    let gone = world.notary.signer("newcomer").lookup(&gun, "1").await.unwrap_err();
    assert!(gone.contains("does not have trust data for"), "{gone}");
}

#[tokio::test]
async fn parts_a_notary_server_with_its_own_ed25519_keys_signs_too() {
    let options = WorldOptions { notary: NotaryOptions { local_keys: true, ..Default::default() }, ..Default::default() };
    let world = World::with("parts_ed25519_keys", &options).await;
    let image = Recipe::prints("signed").build();
    world.push_signed(&image, "team/app", "1").await;
    let gun = world.gun("team/app");
    assert_eq!(world.notary.signer("reader").lookup(&gun, "1").await.unwrap(), image.digest().to_string());
}

#[tokio::test]
async fn parts_a_registry_with_tls_and_passwords_lets_only_its_users_pull() {
    let registry = RegistryOptions { tls: true, auth: RegistryAuth::Basic };
    let world = World::with("parts_tls_and_passwords", &WorldOptions { registry, ..Default::default() }).await;
    let image = Recipe::prints("private").build();
    let name = world.push(&image, "team/private", "1").await;
    let [puller, _] = Registry::logins();

    let refused = world.cri().pull(&name).await.unwrap_err();
    assert!(refused.message().contains("401 Unauthorized"), "{refused:?}");
    assert_eq!(world.cri().pull_with(&name, Some(puller), None).await.unwrap(), image.id().to_string());
    let pod = world.cri().run_pod(world.cri().pod("default")).await.unwrap();
    let ran = world.cri().run_image(&pod, &image.id().to_string(), &name).await.unwrap();
    assert_eq!(ran.output, "private\n");
}

#[tokio::test]
async fn parts_tokens_open_the_registry_and_the_notary_server() {
    let options = WorldOptions {
        registry: RegistryOptions { tls: false, auth: RegistryAuth::Token },
        notary: NotaryOptions { token_auth: true, ..Default::default() },
        ..Default::default()
    };
    let world = World::with("parts_tokens", &options).await;
    let image = Recipe::prints("for token holders").build();
    let (_, _) = world.push_signed(&image, "team/private", "1").await;
    let gun = world.gun("team/private");

    assert_eq!(world.notary.signer("reader").lookup(&gun, "1").await.unwrap(), image.digest().to_string());
    let stranger = world.notary.signer_with("stranger", None).lookup(&gun, "1").await.unwrap_err();
    assert!(stranger.contains("you are not authorized to perform this operation"), "{stranger}");
    let requests = world.tokens.as_ref().unwrap().requests();
    assert!(requests.iter().any(|request| request.starts_with("puller /token?") && request.contains("team%2Fprivate")), "{requests:?}");
    assert!(requests.iter().any(|request| request.starts_with("- /token?")), "{requests:?}");
}

#[tokio::test]
async fn parts_a_stopped_or_silent_server_can_be_had() {
    let mut world = World::new("parts_a_stopped_server").await;
    let name = world.push(&Recipe::prints("here").build(), "team/app", "1").await;

    world.registry.server.stop();
    let unreachable = world.cri().pull(&name).await.unwrap_err();
    assert!(unreachable.message().contains("connection refused"), "{unreachable:?}");
    world.registry.server.start().await;
    world.cri().pull(&name).await.unwrap();
    world.registry.server.pause();
    let silent = tokio::time::timeout(Duration::from_millis(300), world.cri().pull(&name)).await;
    assert!(silent.is_err(), "a paused registry answers nothing: {silent:?}");
    world.registry.server.resume();
    world.cri().pull(&name).await.unwrap();
}

/// What stands for countersign here: CRI is containerd's own, and every image is denied.
const STAND_IN: &str = r#"#!/bin/sh
value() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" "$2"; }
case $1 in
serve) ln -sf "$(value address "$3")" "$(value cri "$3")"; echo "serving ${EXTRA:-}" >&2; exec sleep 1000 ;;
verify) echo "{\"image\": \"$2\"}"; exit 1 ;;
esac
"#;

#[tokio::test]
async fn parts_a_gate_is_configured_started_killed_and_asked() {
    let mut world = World::new("parts_a_gate").await;
    let binary = world.folder.path().join("stand-in");
    fs::write(&binary, STAND_IN).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let config = world.gate_config().root_key(world.gun("*"), "ab".repeat(32)).mode("permissive");

    let gate = world.start_gate(&binary, &config).await;
    let written: toml::Table = toml::from_str(&fs::read_to_string(gate.configuration()).unwrap()).unwrap();
    assert_eq!(written["content-trust"]["mode"].as_str(), Some("permissive"));
    assert_eq!(written["content-trust"]["trust-pinning"]["root-keys"].as_table().unwrap().len(), 1);
    assert_eq!(written["registries"][0]["notary-server"].as_str().unwrap().get(..18), Some("https://127.0.0.1:"));
    assert_eq!(gate.cri().version().await.unwrap().runtime_name, "containerd");
    let answer = gate.verify("127.0.0.1:1/team/app:1").await;
    assert_eq!((answer.exit_code, answer.output["image"].as_str()), (Some(1), Some("127.0.0.1:1/team/app:1")), "{answer:?}");

    gate.server.set_env("EXTRA", "again");
    gate.kill();
    gate.start_again().await;
    assert_eq!(gate.logged("again", Duration::from_secs(5)).await.as_deref(), Some("serving again"));
    gate.restart().await;
    assert_eq!(gate.cri().version().await.unwrap().runtime_name, "containerd");
}

/// The names of all key files of the people who sign.
fn key_files(folder: &Path) -> Vec<String> {
    let people = fs::read_dir(folder.join("signers")).unwrap().flatten();
    let keys = people.flat_map(|person| fs::read_dir(person.path().join("private")).into_iter().flatten().flatten());
    keys.filter_map(|key| Some(key.path().file_stem()?.to_str()?.to_owned())).collect()
}
