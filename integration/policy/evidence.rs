//! Trust data as a file: out of one node, into another that has no network.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::harness::image::Recipe;
use super::super::harness::process::text;
use super::super::harness::signer::Rotation;
use super::*;

/// A configuration of its own, with nothing known yet and no daemon: what the command line does alone.
struct Alone(PathBuf);

impl Alone {
    fn new(scene: &Scene, name: &str, change: impl Fn(&str) -> String) -> Self {
        let written = fs::read_to_string(gate(scene).configuration()).unwrap();
        let home = gate(scene).state().parent().unwrap().to_owned();
        let other = scene.world.folder.sub(name);
        let text = change(&written).replace(&text(&home), &text(&other));
        Self(scene.world.folder.configuration(&format!("{name}.toml"), &text))
    }

    async fn import(&self, file: &Path) -> (Option<i32>, String) {
        import(file, &text(&self.0)).await
    }
}

async fn import(file: &Path, config: &str) -> (Option<i32>, String) {
    let (exit, out, err) = countersign(&["evidence", "import", &text(file), "--config", config]).await;
    (exit, format!("{out}{err}"))
}

async fn export(repository: &str, file: &Path, config: &str) {
    let (exit, out, err) = countersign(&["evidence", "export", repository, "--out", &text(file), "--config", config]).await;
    assert_eq!(exit, Some(0), "{out}{err}");
}

fn file(scene: &Scene, name: &str) -> PathBuf {
    scene.world.folder.sub("evidence").join(name)
}

#[track_caller]
fn assert_import_refused(imported: &(Option<i32>, String), code: &str) {
    assert!(imported.0 == Some(1) && imported.1.contains(&format!("  code    {code}\n")), "not {code}: {imported:?}");
}

/// The file with the first `from` in it changed to `to`, of the same length.
fn changed(original: &Path, name: &str, from: &str, to: &str) -> PathBuf {
    let mut bytes = fs::read(original).unwrap();
    let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap_or_else(|| panic!("no {from}"));
    bytes.splice(at..at + from.len(), to.bytes());
    let file = original.with_file_name(name);
    fs::write(&file, bytes).unwrap();
    file
}

#[tokio::test]
async fn on_evidence_of_another_node_a_preloaded_image_runs_without_a_network() {
    let mut scene = Scene::new("on_evidence_of_another_node").await;
    runs(&scene, "default").await;
    let (exported, gun) = (file(&scene, "exported"), gun(&scene));
    export(&gun, &exported, &configuration(&scene)).await;
    let mut node = scene.world.another_node("on_evidence_of_another_node_b").await;
    let cri = node.start_gate(binary(), &scene.config).await.cri().clone();
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    scene.front.stop();
    scene.world.registry.server.stop();
    let (image, ctr) = (scene.image.clone(), node.containerd.ctr());
    let (evil, evil_name) = (Recipe::prints("evil").build(), format!("{gun}:2"));
    ctr.import(&image, &scene.name).await;
    ctr.import(&evil, &evil_name).await;
    let (id, evil_id) = (image.id().to_string(), evil.id().to_string());
    let refused = cri.create(&pod, container(&id, &scene.name)).await.unwrap_err();
    assert_refused(&refused, UNAVAILABLE, "error contacting trust server: ", "CS-SERVER-UNREACHABLE");

    let gate = node.gate.as_mut().unwrap();
    let imported = import(&exported, &text(gate.configuration())).await;
    assert_eq!((imported.0, imported.1.starts_with(&format!("imported  {gun}\n"))), (Some(0), true), "{imported:?}");
    for _ in 0..2 {
        assert_eq!(cri.run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n");
        for (name, code) in [(&evil_name, "CS-TAG-NOT-SIGNED"), (&scene.name, "CS-OTHER-IMAGE")] {
            assert_refused(&cri.create(&pod, container(&evil_id, name)).await.unwrap_err(), DENIED, "", code);
        }
        // It is on the disk.
        gate.restart().await;
    }
    for container in cri.list_containers().await.unwrap() {
        assert_eq!(ctr.root_file_system(&container.id).await.unwrap(), image.chain_id().to_string());
    }
}

#[tokio::test]
async fn evidence_is_exported_with_the_daemon_and_without_and_shown_for_what_it_says() {
    let mut scene = Scene::new("evidence_is_exported").await;
    let (gun, config) = (gun(&scene), configuration(&scene));
    let [with_daemon, alone, held] = ["with-daemon", "alone", "held"].map(|name| file(&scene, name));
    export(&gun, &with_daemon, &config).await;
    let (exit, _, err) = countersign(&["evidence", "export", &gun, "--out", &text(&with_daemon), "--config", &config]).await;
    assert_eq!((exit, err.contains("cannot be written")), (Some(2), true), "never over another file: {err}");

    scene.world.gate.as_mut().unwrap().server.stop();
    export(&gun, &alone, &config).await;
    assert_eq!(fs::read(&alone).unwrap(), fs::read(&with_daemon).unwrap());
    scene.front.stop();
    export(&gun, &held, &config).await;
    let fresh = Alone::new(&scene, "fresh", str::to_owned);
    assert_eq!(fresh.import(&held).await.0, Some(0), "what is held serves, too");

    let (exit, out, _) = countersign(&["evidence", "show", &text(&alone)]).await;
    assert_eq!(exit, Some(0));
    for part in
        [&format!("  repository  {gun}\n"), "  file        1.root.json  ", "  file        timestamp.json  ", "Nothing of this is verified"]
    {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (exit, out, _) = countersign(&["evidence", "show", &text(&alone), "--output", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, shown["repository"].as_str(), shown["server"].as_str()), (Some(0), Some(gun.as_str()), Some(&*scene.front.url())));
    assert!(shown["files"].as_array().unwrap().len() >= 5, "{out}");

    scene.front.start().await;
    let absent = file(&scene, "absent");
    let unsigned = scene.world.gun("team/unsigned");
    for (repository, exit, part) in [
        (&scene.name, 2, "name a repository, without tag and digest"),
        (&unsigned, 1, "CS-NOT-PINNED"),
        (&"x".into(), 1, "CS-NOT-REGISTERED"),
    ] {
        let (code, out, err) = countersign(&["evidence", "export", repository, "--out", &text(&absent), "--config", &config]).await;
        assert_eq!((code, format!("{out}{err}").contains(part)), (Some(exit), true), "{out}{err}");
    }
    assert!(!absent.exists(), "what is refused is not written");
}

#[tokio::test]
async fn evidence_is_judged_as_what_is_fetched() {
    let scene = Scene::new("evidence_is_judged").await;
    let (first, gun) = (file(&scene, "first"), gun(&scene));
    export(&gun, &first, &configuration(&scene)).await;
    let fresh = Alone::new(&scene, "fresh", str::to_owned);

    let bytes = fs::read(&first).unwrap();
    let [cut, longer, none] = ["cut", "longer", "none"].map(|name| file(&scene, name));
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    fs::write(&longer, [&bytes[..], b"\n"].concat()).unwrap();
    fs::write(&none, "{}").unwrap();
    let digest = scene.image.digest().hash().as_bytes().to_vec();
    let signed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
    let other = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]);
    let cases = [
        (cut, "CS-EVIDENCE-MALFORMED"),
        (longer, "CS-EVIDENCE-MALFORMED"),
        (none, "CS-EVIDENCE-MALFORMED"),
        (changed(&first, "another-digest", &signed, &other), "CS-CHECKSUM"),
        (
            changed(&first, "another-timestamp", "\"_type\":\"Timestamp\",\"expires\":\"2", "\"_type\":\"Timestamp\",\"expires\":\"3"),
            "CS-THRESHOLD",
        ),
        (changed(&first, "another-repository", REPOSITORY, "team/cpp"), "CS-NOT-PINNED"),
        (changed(&first, "another-registry", "127.0.0.1:", "127.0.0.2:"), "CS-NOT-REGISTERED"),
    ];
    for (tampered, code) in cases {
        assert_import_refused(&fresh.import(&tampered).await, code);
        let (exit, out, _) = countersign(&["evidence", "show", &text(&tampered)]).await;
        assert_eq!(exit, Some(if code == "CS-EVIDENCE-MALFORMED" { 1 } else { 0 }), "{out}");
    }
    let wrong_pin = Alone::new(&scene, "wrong-pin", |text| text.replace(&scene.root.canonical, &"ab".repeat(32)));
    assert_import_refused(&wrong_pin.import(&first).await, "CS-ROOT-NOT-PINNED");
    let revoking = Alone::new(&scene, "revoking", |text| {
        text.replace("mode = \"enforced\"", &format!("mode = \"enforced\"\nrevoked-keys = [\"{}\"]", scene.root.canonical))
    });
    assert_import_refused(&revoking.import(&first).await, "CS-KEY-REVOKED");
    assert_eq!(fresh.import(&first).await.0, Some(0), "nothing of all this was kept");

    // A daemon's answer is the same.
    let answer = import(&file(&scene, "cut"), &configuration(&scene)).await;
    assert_import_refused(&answer, "CS-EVIDENCE-MALFORMED");
}

#[tokio::test]
async fn older_evidence_is_refused_after_newer_and_every_root_on_the_way_comes_along() {
    let mut scene = Scene::new("older_evidence_after_newer").await;
    let (gun, admin) = (gun(&scene), scene.world.notary.signer("admin"));
    let [first, second] = ["first", "second"].map(|name| file(&scene, name));
    export(&gun, &first, &configuration(&scene)).await;
    let fresh = Alone::new(&scene, "fresh", str::to_owned);
    assert_eq!(fresh.import(&first).await.0, Some(0));

    for _ in 0..2 {
        admin.rotate(&gun, Rotation::Root).await;
    }
    let next = Recipe::prints("next").build();
    let tagged = scene.world.push(&next, REPOSITORY, "2").await;
    admin.sign(&gun, "2", &next).await;
    let root = admin.root_ids(&gun).await;
    let both = GateConfig { root_keys: vec![(gun.clone(), vec![scene.root.canonical.clone(), root.canonical])], ..scene.config.clone() };
    reconfigure(&mut scene, &both).await;
    export(&gun, &second, &configuration(&scene)).await;

    let fresh = Alone::new(&scene, "fresh", str::to_owned);
    let imported = fresh.import(&second).await;
    assert_eq!((imported.0, imported.1.contains("  tags         2\n")), (Some(0), true), "{imported:?}");
    assert_import_refused(&fresh.import(&first).await, "CS-ROLLBACK");
    assert_eq!(fresh.import(&second).await.0, Some(0), "the same again is no step back");
    scene.front.stop();
    let (exit, out, err) = countersign(&["verify", &tagged, "--config", &text(&fresh.0)]).await;
    assert_eq!((exit, out.contains("held by this node")), (Some(0), true), "{out}{err}");
}
