//! Pulls without a credential: this node's own opens the trust server for them, and nothing else.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::harness::gate::{GateConfig, verify};

/// A world whose trust server wants a token for `team/private`, which is signed; and a gate with a credentials file.
struct Scene {
    gate: Gate,
    config: GateConfig,
    world: World,
    image: String,
    name: String,
}

impl Scene {
    /// Starts the gate with `file` as its credentials. `{host}` in it stands for the registry.
    async fn new(test: &str, auth: RegistryAuth, file: &str) -> Self {
        let world = World::with(test, &options(auth, true)).await;
        let image = Recipe::prints("private").build();
        let (name, root) = world.push_signed(&image, "team/private", "1").await;
        let mut config = world.gate_config().root_key(world.gun("team/private"), root.canonical);
        config.tables = format!("\n[credentials]\nfile = \"{}\"\n", credentials_file(&world).display());
        write_credentials(&world, file);
        let gate = start_gate(&world, &config).await;
        Self { gate, config, world, image: image.id().to_string(), name }
    }

    async fn with_helper(test: &str, auth: RegistryAuth, script: &str) -> Self {
        let scene = Self::new(test, auth, r#"{"credHelpers":{"{host}":"of-this-test"}}"#).await;
        write_program(&programs(&scene.world).join("docker-credential-of-this-test"), script);
        scene
    }

    fn write(&self, file: &str) {
        write_credentials(&self.world, file);
    }

    async fn pull(&self) -> Result<String, tonic::Status> {
        self.gate.cri().pull(&self.name).await
    }

    /// What the gate says of a pull that its trust server does not let in.
    fn not_let_in(&self) -> String {
        format!("error contacting trust server: {} does not give access (HTTP 401): ", self.world.notary.url())
    }

    /// What the gate says when the credentials could not be had.
    fn not_had(&self) -> String {
        format!("this node's credential for {} could not be had: the credential", self.world.registry.host())
    }
}

fn credentials_file(world: &World) -> PathBuf {
    world.folder.path().join("config.json")
}

fn programs(world: &World) -> PathBuf {
    world.folder.sub("programs")
}

fn write_credentials(world: &World, file: &str) {
    let path = credentials_file(world);
    fs::write(&path, file.replace("{host}", &world.registry.host())).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

async fn start_gate(world: &World, config: &GateConfig) -> Gate {
    let path = format!("{}:/usr/bin:/bin", programs(world).display());
    Gate::start_with(&world.folder, binary(), config, &world.containerd, &[LOG_ALL, ("PATH", &path)]).await
}

/// Written by another process: what this one has open for writing may be handed to a server that starts meanwhile, and
/// cannot be run as long as that holds it.
fn write_program(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh");
    let mut writer = shell.args(["-c", "cat >\"$0\" && chmod 0755 \"$0\""]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// A login as docker writes it into its file.
fn auths(login: Login) -> String {
    format!(r#"{{"auths":{{"{{host}}":{{"auth":"{}"}}}}}}"#, STANDARD.encode(format!("{}:{}", login.user, login.password)))
}

/// A helper that answers with a login, and only when it is asked for the registry.
fn helper(login: Login, host: &str) -> String {
    let answer = format!(r#"{{"ServerURL":"{host}","Username":"{}","Secret":"{}"}}"#, login.user, login.password);
    format!("read -r server\n[ \"$server\" = {host} ] && echo '{answer}'")
}

#[tokio::test]
async fn a_pull_without_a_credential_is_verified_with_the_nodes_file() {
    let [puller, other] = Registry::logins();
    let mut scene = Scene::new("verified_with_the_nodes_file", RegistryAuth::Open, &auths(puller)).await;
    let cri = scene.gate.cri().clone();

    assert_eq!(scene.pull().await.unwrap(), scene.image);
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    assert_eq!(cri.run_image(&pod, &scene.image, &scene.name).await.unwrap().output, "private\n");
    let asked = scene.gate.verify(&scene.name).await;
    assert_eq!((asked.exit_code, asked.output["verdict"].as_str()), (Some(0), Some("allow")), "{asked:?}");

    // kubelet renews the file, and the next pull counts with what it says then.
    scene.write(&auths(WRONG[0]));
    assert_refused(&scene.pull().await.unwrap_err(), DENIED, &scene.not_let_in(), "CS-SERVER-UNAUTHORIZED");
    scene.write(r#"{"auths":{"evil.{host}":{"username":"puller","password":"pull-secret-1"}}}"#);
    assert_refused(&scene.pull().await.unwrap_err(), DENIED, &scene.not_let_in(), "CS-SERVER-UNAUTHORIZED");
    scene.write(&auths(other).replace("{host}", "https://{host}/v1/"));
    assert_eq!(scene.pull().await.unwrap(), scene.image);
    let log = scene.gate.log();
    assert!(!log.contains("can reach this node's credentials"), "the file is its owner's alone");
    assert_no_secret_in(&log, &[puller, other, WRONG[0]]);

    scene.gate.kill();
    let alone = verify(binary(), scene.gate.configuration(), &scene.name).await;
    assert_eq!(alone.exit_code, Some(0), "without a daemon, too: {alone:?}");
}

#[tokio::test]
async fn a_pull_without_a_credential_is_verified_with_what_a_helper_gives() {
    let [puller, _] = Registry::logins();
    let scene = Scene::with_helper("verified_with_a_helper", RegistryAuth::Open, "exit 1").await;
    let failed = format!("{} helper docker-credential-of-this-test, which {}", scene.not_had(), credentials_file(&scene.world).display());
    assert_refused(&scene.pull().await.unwrap_err(), DENIED, &failed, "CS-CREDENTIALS");

    let program = programs(&scene.world).join("docker-credential-of-this-test");
    write_program(&program, &helper(puller, &scene.world.registry.host()));
    assert_eq!(scene.pull().await.unwrap(), scene.image);
    // Without a helper's credential the file's own entry counts; here there is none.
    write_program(&program, "echo credentials not found in native keychain; exit 1");
    assert_refused(&scene.pull().await.unwrap_err(), DENIED, &scene.not_let_in(), "CS-SERVER-UNAUTHORIZED");
    assert_no_secret_in(&scene.gate.log(), &[puller]);
}

#[tokio::test]
async fn the_nodes_credential_is_never_part_of_the_forwarded_pull() {
    let [puller, other] = Registry::logins();
    for (test, auth) in [("never_forwarded_tokens", RegistryAuth::Token), ("never_forwarded_passwords", RegistryAuth::Basic)] {
        let scene = Scene::new(test, auth, &auths(puller)).await;

        let refused = scene.pull().await.unwrap_err();
        assert!(!refused.message().contains("SignatureValidationFailed"), "the signature was verified: {refused:?}");
        let words = ["401 Unauthorized", "authorization failed", "insufficient_scope"];
        assert!(words.iter().any(|word| refused.message().contains(word)), "containerd says what the registry said: {refused:?}");
        let admitted = scene.gate.logged("admitted", Duration::from_secs(5)).await.expect("the pull was admitted");
        assert!(admitted.contains("PullImage"), "{admitted}");
        assert_eq!(scene.gate.cri().pull_with(&scene.name, Some(other), None).await.unwrap(), scene.image);
        assert_no_secret_in(&scene.gate.log(), &[puller, other]);
    }
}

#[tokio::test]
async fn the_credential_of_a_pull_wins_whatever_it_is_good_for() {
    let [puller, other] = Registry::logins();
    let scene = Scene::new("the_pulls_own_wins", RegistryAuth::Open, &auths(puller)).await;
    let cri = scene.gate.cri().clone();
    let pull_with = async |login| cri.pull_with(&scene.name, Some(login), None).await;

    assert_refused(&pull_with(WRONG[0]).await.unwrap_err(), DENIED, &scene.not_let_in(), "CS-SERVER-UNAUTHORIZED");
    let (lent, wrong) = tokio::join!(scene.pull(), pull_with(WRONG[1]));
    assert_eq!(lent.unwrap(), scene.image);
    assert_refused(&wrong.unwrap_err(), DENIED, &scene.not_let_in(), "CS-SERVER-UNAUTHORIZED");

    // A broken file concerns only whoever needs it, and nothing of it is shown.
    scene.write(r#"{"auths":{"{host}":{"auth":"#);
    let broken = format!("{}s file {} is not JSON", scene.not_had(), credentials_file(&scene.world).display());
    assert_refused(&scene.pull().await.unwrap_err(), DENIED, &broken, "CS-CREDENTIALS");
    let asked = scene.gate.verify(&scene.name).await;
    assert_eq!((asked.exit_code, asked.output["code"].as_str()), (Some(1), Some("CS-CREDENTIALS")), "{asked:?}");
    assert_eq!(pull_with(other).await.unwrap(), scene.image);
    fs::remove_file(credentials_file(&scene.world)).unwrap();
    let absent = format!("{}s file {} cannot be read (No such file", scene.not_had(), credentials_file(&scene.world).display());
    assert_refused(&scene.pull().await.unwrap_err(), DENIED, &absent, "CS-CREDENTIALS");
    assert_no_secret_in(&scene.gate.log(), &[puller, other, WRONG[0], WRONG[1]]);
}

#[tokio::test]
async fn the_nodes_credential_reaches_no_server_but_the_trust_server() {
    let [puller, _] = Registry::logins();
    let scene = Scene::new("lent_to_no_other_server", RegistryAuth::Open, &auths(puller)).await;
    let Scene { gate, mut config, world, image, name } = scene;
    let front = FaultyServer::before(&world.notary.url(), &world.ca).await;
    let elsewhere = FaultyServer::before(&world.notary.url(), &world.ca).await;
    config.registries[0].notary_server = front.url();
    drop(gate);
    let gate = start_gate(&world, &config).await;
    let pull = async || gate.cri().pull(&name).await;

    let realm = elsewhere.url().replace("127.0.0.1", "localhost");
    front.answer("", Answer::challenge(&format!(r#"Bearer realm="{realm}/token",service="notary""#)));
    let sentence = format!("error contacting trust server: {} asks for a token from `{realm}/token`", front.url());
    assert_refused(&pull().await.unwrap_err(), DENIED, &sentence, "CS-TOKEN-REALM");
    front.answer("", Answer::redirect(&format!("{}/v2/", elsewhere.url())));
    let sentence = format!("error contacting trust server: {} redirects to 127.0.0.1 (HTTP 307)", front.url());
    assert_refused(&pull().await.unwrap_err(), DENIED, &sentence, "CS-SERVER-REDIRECT");
    assert_eq!((elsewhere.connections(), elsewhere.seen()), (0, Vec::new()), "nothing was sent there");
    assert!(front.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", front.seen());

    front.mend();
    assert_eq!(pull().await.unwrap(), image);
    assert_no_secret_in(&gate.log(), &[puller]);
}

#[tokio::test]
async fn a_file_that_others_can_read_is_told_and_used() {
    let [puller, _] = Registry::logins();
    let scene = Scene::new("a_file_that_others_can_read", RegistryAuth::Open, &auths(puller)).await;
    fs::set_permissions(credentials_file(&scene.world), Permissions::from_mode(0o644)).unwrap();
    for _ in 0..2 {
        assert_eq!(scene.pull().await.unwrap(), scene.image);
    }
    let log = scene.gate.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("others than its owner can reach this node's credentials")).collect();
    assert!(matches!(told[..], [line] if line.contains("0644")), "once for each time that it is read: {told:?}");
}
