//! Seeing: `countersign pin`, `countersign inspect` and `countersign verify --explain` on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::faults::Scene;
use super::gate::binary;
use super::harness::faulty::Answer;
use super::harness::image::Recipe;
use super::harness::notary::NotaryOptions;
use super::harness::registry::Registry;
use super::harness::signer::{Rotation, Signer};
use super::harness::world::{World, WorldOptions};
use super::verify::countersign;

/// A configuration in which nothing is pinned.
fn unpinned(world: &World, name: &str) -> PathBuf {
    let path = |name: &str| Value::from(world.folder.path().join(name).to_str().unwrap()).to_string();
    let text = format!(
        "[listen]\ncri = {}\nadmin = {}\n\n[state]\ndirectory = {}\n\n[content-trust]\nmode = \"enforced\"\n\n\
         [[registries]]\nhost-address = \"{}\"\nnotary-server = \"{}\"\nca-bundle-file = {}\n",
        path("alone/cri.sock"),
        path("alone/admin.sock"),
        path("alone/state"),
        world.registry.host(),
        world.notary.url(),
        Value::from(world.ca.file().to_str().unwrap()),
    );
    world.folder.configuration(name, &text)
}

/// What is to be pasted of what was printed.
fn stanza(printed: &str) -> &str {
    let at = printed.find("[content-trust.trust-pinning.root-keys]").unwrap_or_else(|| panic!("no stanza: {printed}"));
    &printed[at..]
}

#[tokio::test]
async fn a_stanza_that_was_shown_before_any_pin_lets_the_image_verify_once_it_is_pasted() {
    let world = World::new("a_stanza_that_was_shown").await;
    let image = Recipe::prints("signed").build();
    let (name, root) = world.push_signed(&image, "team/app", "1").await;
    let (gun, second) = (world.gun("team/app"), world.gun("team/tools"));
    world.notary.signer("admin").init(&second).await;
    let file = unpinned(&world, "unpinned.toml");
    let config = file.to_str().unwrap();
    let before = fs::read_to_string(&file).unwrap();
    let (code, _, _) = countersign(&["verify", &name, "--config", config]).await;
    assert_eq!(code, Some(2), "it is no configuration for anything else");

    let (code, out, err) = countersign(&["pin", &gun, &second, "--config", config]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains(&format!("  root key ID     {}\n  certificate ID  {}\n", root.canonical, root.certificate)), "{out}");
    assert!(out.contains("COMPARE BEFORE YOU PIN") && out.contains("  pinned        no\n"), "{out}");
    let wildcard = format!("# \"{}/team/*\" = [\"{}\"]", world.registry.host(), root.canonical);
    assert!(out.contains(&wildcard), "one person's root key signs both: {out}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "nothing is written");
    assert!(!world.folder.path().join("alone").exists(), "no ledger is made");

    let pasted = world.folder.configuration("pasted.toml", &format!("{before}\n{}", stanza(&out)));
    let pasted = pasted.to_str().unwrap();
    let (code, out, err) = countersign(&["verify", &name, "--config", pasted]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with(&format!("allow  {name}\n  digest       {}\n", image.digest())), "{out}");

    // What is pinned is compared with what is offered.
    let (code, out, _) = countersign(&["pin", &gun, "--config", pasted, "--output", "json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["repositories"][0]["pin-matches"]), (Some(0), &Value::from(true)), "{out}");
    world.notary.signer("admin").rotate(&gun, Rotation::Root).await;
    let (code, out, _) = countersign(&["pin", &gun, "--config", pasted]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("THIS ROOT DOES NOT MATCH: ") && !out.contains("root-keys]"), "{out}");
}

#[tokio::test]
async fn without_a_configuration_roots_are_asked_of_the_server_that_is_named() {
    let world = World::new("without_a_configuration_roots").await;
    let (_, root) = world.push_signed(&Recipe::prints("signed").build(), "team/app", "1").await;
    let (gun, absent) = (world.gun("team/app"), world.gun("team/absent"));
    let (url, ca) = (world.notary.url(), world.ca.file());
    let ca = ca.to_str().unwrap();
    let server = ["--notary-server", &url, "--ca-bundle-file", ca];

    let (code, out, err) = countersign(&[&["pin", &gun][..], &server].concat()).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let registration =
        format!("[[registries]]\nhost-address = \"{}\"\nnotary-server = \"{url}\"\nca-bundle-file = \"{ca}\"\n", world.registry.host());
    assert!(out.contains(&root.canonical) && format!("{out}\n").contains(&registration), "{out}");

    let (code, out, _) = countersign(&[&["pin", &absent, &gun][..], &server].concat()).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(&format!("  NO ROOT       image or trust data does not exist for {absent}: ")), "{out}");
    assert!(out.contains("(CS-NO-TRUST-DATA)") && stanza(&out).contains(&format!("\"{gun}\" = ")), "{out}");

    let (code, out, _) = countersign(&["pin", &gun, "--notary-server", &url]).await;
    assert_eq!(code, Some(1), "its authority is none of the system's: {out}");
    assert!(out.contains("(CS-SERVER-TLS)"), "{out}");
    let (code, out, _) = countersign(&["pin", &gun, "--notary-server", "https://127.0.0.1:9", "--output", "json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["repositories"][0]["refusal"]["code"]), (Some(3), &Value::from("CS-SERVER-UNREACHABLE")), "{out}");
}

#[tokio::test]
async fn a_server_that_wants_a_token_is_asked_with_this_nodes_own_credential() {
    let options = WorldOptions { notary: NotaryOptions { token_auth: true, ..Default::default() }, ..Default::default() };
    let world = World::with("a_server_that_wants_a_token_is_asked", &options).await;
    let (_, root) = world.push_signed(&Recipe::prints("private").build(), "team/private", "1").await;
    let gun = world.gun("team/private");
    let login = Registry::logins()[0];
    let file = unpinned(&world, "unpinned.toml");
    let (code, out, _) = countersign(&["pin", &gun, "--config", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("(CS-SERVER-UNAUTHORIZED)") && !out.contains(&root.canonical), "{out}");

    let credentials = world.folder.path().join("config.json");
    let lent = format!("{}\n[credentials]\nfile = \"{}\"\n", fs::read_to_string(&file).unwrap(), credentials.display());
    let lent_file = world.folder.configuration("lent.toml", &lent);
    let (code, out, _) = countersign(&["pin", &gun, "--config", lent_file.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "there is no such file yet: {out}");
    assert!(out.contains("(CS-CREDENTIALS)"), "{out}");

    let auth = STANDARD.encode(format!("{}:{}", login.user, login.password));
    fs::write(&credentials, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, world.registry.host())).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, out, _) = countersign(&["pin", &gun, "--config", lent_file.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(&root.canonical), "{out}");

    // Under somebody else's pin it is seen as the server gives it.
    let elsewhere = format!("[content-trust.trust-pinning.root-keys]\n\"elsewhere.test/a/b\" = [\"{}\"]\n", root.canonical);
    let other = world.folder.configuration("other.toml", &format!("{lent}\n{elsewhere}"));
    let (code, out, _) = countersign(&["inspect", &gun, "--config", other.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("NOT PINNED") && line(&out, &["1"])[2] == "targets", "{out}");
}

#[tokio::test]
async fn wrong_usage_of_pin_and_inspect_ends_with_2_and_says_what_is_wanted() {
    let world = World::new("wrong_usage_of_pin_and_inspect").await;
    let gun = world.gun("team/app");
    let (file, tagged, url) = (unpinned(&world, "unpinned.toml"), format!("{gun}:1"), world.notary.url());
    let broken = fs::read_to_string(&file).unwrap().replace("mode = ", "moed = ");
    let broken = world.folder.configuration("broken.toml", &broken);
    let (file, broken) = (file.to_str().unwrap(), broken.to_str().unwrap());
    let absent = world.folder.path().join("absent.toml");
    let absent = absent.to_str().unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["pin"], "required arguments were not provided"),
        (&["pin", &tagged, "--config", file], "give a repository, without tag and digest"),
        (&["pin", &gun, "--config", absent], "absent.toml: "),
        (&["pin", &gun, "--config", broken], "unknown key `content-trust.moed`; did you mean `mode`?"),
        (&["pin", &gun, "--config", file, "--notary-server", "http://n.test"], "valid https URL required for trust server"),
        (&["pin", &gun, "--notary-server", &url, "--ca-bundle-file", absent], "countersign: --ca-bundle-file: the file cannot be read"),
        (&["inspect", &tagged, "--config", file], "give a repository, without tag and digest"),
        (&["inspect", &gun, "--config", file], "trust pinning cannot be empty"),
        (&["inspect", &gun, "--config", broken], "unknown key `content-trust.moed`"),
    ];
    for (args, sentence) in cases {
        let (code, out, err) = countersign(args).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
        assert!(err.contains(sentence), "{args:?}: expected `{sentence}` in {err}");
    }
}

/// `team/app`: `1` is signed by alice and bob, `2` by alice, each with a list of their own, and released as docker does.
/// Quality assurance is alice's, security bob's and carol's.
async fn signed_by_alice_and_bob(test: &str) -> Scene {
    let mut scene = Scene::new(test).await;
    let (notary, gun) = (&scene.world.notary, scene.world.gun("team/app"));
    let [admin, alice, bob, carol] = ["admin", "alice", "bob", "carol"].map(|name| notary.signer(name));
    admin.delegate(&gun, "targets/releases", &[&alice, &bob]).await;
    admin.delegate(&gun, "targets/alice", &[&alice]).await;
    admin.delegate(&gun, "targets/bob", &[&bob]).await;
    admin.rotate(&gun, Rotation::SnapshotToServer).await;
    for person in [&alice, &bob] {
        person.import_own_key().await;
    }
    let second = Recipe::prints("second").build();
    alice.sign_as(&gun, "1", scene.image.top(), &["targets/releases", "targets/alice"]).await;
    alice.sign_as(&gun, "2", second.top(), &["targets/releases", "targets/alice"]).await;
    bob.sign_as(&gun, "1", scene.image.top(), &["targets/bob"]).await;
    scene.config.tables = people(&[("alice", &alice), ("bob", &bob), ("carol", &carol)]);
    scene.config.signed_by = vec!["acme/qa".into(), "acme/security".into()];
    scene.world.start_gate(binary(), &scene.config).await;
    scene
}

fn people(signers: &[(&str, &Signer)]) -> String {
    let signers = signers.iter().map(|(name, signer)| {
        let certificate = Value::from(signer.certificate().certificate.to_str().unwrap());
        format!("\n[[signers]]\nname = \"{name}\"\ncertificates = [{certificate}]\n")
    });
    let teams =
        "\n[[teams]]\nname = \"acme/qa\"\nmembers = [\"alice\"]\n\n[[teams]]\nname = \"acme/security\"\nmembers = [\"bob\", \"carol\"]\n";
    signers.chain([teams.to_owned()]).collect()
}

fn configuration(scene: &Scene) -> String {
    scene.world.gate.as_ref().unwrap().configuration().to_str().unwrap().to_owned()
}

/// The words of the line that begins with these words.
#[track_caller]
fn line<'p>(printed: &'p str, begin: &[&str]) -> Vec<&'p str> {
    let words = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.into_iter().find(|words| words.starts_with(begin)).unwrap_or_else(|| panic!("no line {begin:?} in\n{printed}"))
}

/// What is seen of the repository, whoever is asked.
async fn look(scene: &Scene) {
    let (gun, file) = (scene.world.gun("team/app"), configuration(scene));
    let (code, out, err) = countersign(&["inspect", &gun, "--config", &file]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with(&format!("{gun}\n  trust server  {}\n  pinned by     root-keys \"{gun}\"\n", scene.front.url())), "{out}");
    assert!(out.contains("  trust data    up to date with the trust server\n"), "{out}");
    assert!(out.contains(&format!("  root key ID     {}\n  certificate ID  {}\n", scene.root.canonical, scene.root.certificate)), "{out}");
    assert_eq!(line(&out, &["targets/bob", "1"])[4..8], ["days)", "1,", "needs", "1"], "{out}");
    assert_eq!(line(&out, &["targets/bob", "bob"])[2], "acme/security");
    assert_eq!(line(&out, &["targets/alice", "alice"])[2], "acme/qa");
    let digest = scene.image.digest().to_string();
    assert_eq!(line(&out, &["1", &digest])[2..], ["targets/releases", "alice", "(acme/qa),", "bob", "(acme/security)"], "{out}");
    assert_eq!(line(&out, &["2"])[2..], ["targets/releases", "alice", "(acme/qa)"], "{out}");

    let (code, out, _) = countersign(&["inspect", &gun, "--config", &file, "--output", "json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["pin"]["name"], &shown["number-of-tags"]), (Some(0), &Value::from(gun.as_str()), &Value::from(2)));
    let role = shown["roles"].as_array().unwrap().iter().find(|role| role["role"] == "targets/bob").unwrap();
    let key = &role["keys"][0];
    assert_eq!((&key["signer"], &key["signature"], &key["teams"][0]), (&"bob".into(), &"counts".into(), &"acme/security".into()), "{out}");
    assert_eq!(shown["tags"][0]["digest"], digest);
}

/// What is said of a policy's denial, whoever is asked.
async fn ask_why(scene: &Scene) {
    let (gun, file) = (scene.world.gun("team/app"), configuration(scene));
    let second = format!("{gun}:2");
    let (code, out, err) = countersign(&["verify", &second, "--explain", "--config", &file]).await;
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.starts_with(&format!("deny  {second}\n  reason  {second}: image did not meet required signing policy: ")), "{out}");
    let nobody = line(&out, &["acme/security", "NOBODY"]).join(" ");
    assert_eq!(
        nobody,
        "acme/security NOBODY bob: may sign in this repository; carol: must be added to this repository first (docker trust signer add)"
    );
    assert_eq!(line(&out, &["acme/qa"]).join(" "), "acme/qa alice in targets/alice");
    assert!(out.contains(&format!("  pin         root-keys \"{gun}\": {}\n", scene.root.canonical)), "{out}");
    assert!(out.contains("\nWHAT TO DO\n  Have a member of each missing team sign this tag with `docker trust sign`"), "{out}");

    let (code, out, _) = countersign(&["verify", &second, "--explain", "--config", &file, "--output", "json"]).await;
    let denied: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &denied["code"]), (Some(1), &"CS-SIGNING-POLICY".into()), "{out}");
    let teams = denied["explanation"]["teams"].as_array().unwrap();
    assert_eq!((&teams[0]["signer"], &teams[1]["signer"]), (&"alice".into(), &Value::Null), "{out}");

    let (code, out, _) = countersign(&["verify", &scene.name, "--explain", "--config", &file]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with(&format!("allow  {}\n", scene.name)) && !out.contains("WHAT TO DO"), "{out}");
    assert_eq!(line(&out, &["acme/security"]).join(" "), "acme/security bob in targets/bob");
    let (_, plain, _) = countersign(&["verify", &second, "--config", &file, "--output", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap()["code"], denied["code"], "the verdict is the same without");
}

#[tokio::test]
async fn a_repository_is_seen_and_a_denial_explained_with_a_daemon_and_without() {
    let mut scene = signed_by_alice_and_bob("a_repository_is_seen").await;
    look(&scene).await;
    ask_why(&scene).await;
    scene.world.gate.as_mut().unwrap().server.stop();
    look(&scene).await;
    ask_why(&scene).await;
}

#[tokio::test]
async fn while_its_server_is_away_a_repository_is_seen_as_it_is_held() {
    let scene = signed_by_alice_and_bob("while_its_server_is_away").await;
    let (gun, file) = (scene.world.gun("team/app"), configuration(&scene));
    scene.front.answer("", Answer::status(503));
    let (code, out, _) = countersign(&["inspect", &gun, "--config", &file]).await;
    assert_eq!(code, Some(3), "nothing is held yet: {out}");
    assert!(out.contains("  CANNOT TELL NOW  error contacting trust server: ") && out.contains("(CS-SERVER-BUSY)"), "{out}");

    scene.front.mend();
    look(&scene).await;
    scene.front.answer("", Answer::status(503));
    let (code, out, _) = countersign(&["inspect", &gun, "--config", &file]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("  trust data    held by this node, last found good at ") && out.contains("; not confirmed by the trust server\n"),
        "{out}"
    );
    assert_eq!(line(&out, &["targets/bob", "bob"])[2], "acme/security");
    let (code, out, _) = countersign(&["verify", &scene.name, "--explain", "--config", &file]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(&format!("  trust data  held by this node, from {}; last found good at ", scene.front.url())), "{out}");
}

#[tokio::test]
async fn a_repository_that_is_not_pinned_is_seen_and_nothing_of_it_is_kept() {
    let scene = Scene::new("a_repository_that_is_not_pinned").await;
    let other = scene.world.push_signed(&Recipe::prints("other").build(), "team/other", "1").await;
    let (gun, file) = (scene.world.gun("team/other"), configuration(&scene));
    let (code, out, err) = countersign(&["inspect", &gun, "--config", &file]).await;
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    assert!(
        out.starts_with(&format!("{gun}\n  NOT PINNED: shown as the server gives it. Nothing of it is trusted, and nothing was stored.\n")),
        "{out}"
    );
    assert!(out.contains(&other.1.canonical), "{out}");
    assert_eq!(line(&out, &["1"])[2..], ["targets", "-"], "{out}");

    let (code, out, _) = countersign(&["verify", &other.0, "--explain", "--config", &file]).await;
    assert_eq!(code, Some(1));
    assert!(
        out.contains("CS-NOT-PINNED") && out.contains("  pin         none covers the repository\n  trust data  none was looked at\n"),
        "{out}"
    );
    let ledger = fs::read(scene.world.gate.as_ref().unwrap().state().join("ledger/ledger.redb")).unwrap();
    assert!(!ledger.windows(gun.len()).any(|bytes| bytes == gun.as_bytes()), "the ledger knows nothing of it");

    let unregistered = "elsewhere.test/team/app";
    let (code, out, _) = countersign(&["inspect", unregistered, "--config", &file]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("elsewhere.test must be a registered trusted registry"), "{out}");
}
