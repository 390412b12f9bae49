//! Credentials: the right ones work, wrong ones are refused, and none is shown to anybody but the servers that it is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::faults::assert_refused;
use super::gate::binary;
use super::harness::cri::{Cri, container};
use super::harness::faulty::{Answer, FaultyServer};
use super::harness::gate::Gate;
use super::harness::image::Recipe;
use super::harness::notary::NotaryOptions;
use super::harness::registry::{Registry, RegistryAuth, RegistryOptions};
use super::harness::token::Login;
use super::harness::world::{World, WorldOptions};

mod node;

const DENIED: &str = "SignatureValidationFailed";
/// Everything that the daemon and its libraries can say.
const LOG_ALL: (&str, &str) = ("COUNTERSIGN_LOG", "trace");
const WRONG: [Login; 2] = [Login { user: "puller", password: "wrong-secret-1" }, Login { user: "nobody", password: "wrong-secret-2" }];

fn options(auth: RegistryAuth, token_auth: bool) -> WorldOptions {
    let registry = RegistryOptions { tls: auth != RegistryAuth::Open, auth };
    WorldOptions { registry, notary: NotaryOptions { token_auth, ..Default::default() }, ..Default::default() }
}

/// No secret stands in the log: no password, plain or as Basic has it, and no token (a JWT begins with `eyJ`).
fn assert_no_secret_in(log: &str, logins: &[Login]) {
    assert!(log.contains("TRACE"), "the log has everything");
    for login in logins {
        let basic = STANDARD.encode(format!("{}:{}", login.user, login.password));
        for secret in [login.password, &basic] {
            let told = log.lines().find(|line| line.contains(secret));
            assert!(told.is_none(), "a secret of {} in the log: {told:?}", login.user);
        }
    }
    let token = log.lines().find(|line| line.contains("eyJ"));
    assert!(token.is_none(), "a token in the log: {token:?}");
}

/// The pulls of one repository that needs a login everywhere: with the right login, without one, and with two wrong ones.
async fn pull_with_all_logins(test: &str, auth: RegistryAuth) {
    let world = World::with(test, &options(auth, true)).await;
    let image = Recipe::prints("private").build();
    let (name, root) = world.push_signed(&image, "team/private", "1").await;
    let config = world.gate_config().root_key(world.gun("team/private"), root.canonical);
    let gate = Gate::start_with(&world.folder, binary(), &config, &world.containerd, &[LOG_ALL]).await;
    let cri = gate.cri().clone();
    let [puller, other] = Registry::logins();

    let sentence = format!("error contacting trust server: {} does not give access (HTTP 401): ", world.notary.url());
    let nobody = cri.pull(&name).await.unwrap_err();
    assert_refused(&nobody, DENIED, &sentence, "CS-SERVER-UNAUTHORIZED");
    for login in WRONG {
        let refused = cri.pull_with(&name, Some(login), None).await.unwrap_err();
        assert_refused(&refused, DENIED, &sentence, "CS-SERVER-UNAUTHORIZED");
        assert_eq!(refused.message(), nobody.message(), "kubelet shows the reason only when the texts for all credentials agree");
    }
    for login in [puller, other] {
        assert_eq!(cri.pull_with(&name, Some(login), None).await.unwrap(), image.id().to_string());
    }
    // All is cached now, and a wrong login is no better for it; nor does its 401 harm what is held.
    let refused = cri.pull_with(&name, Some(WRONG[0]), None).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-SERVER-UNAUTHORIZED");
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    assert_eq!(cri.run_image(&pod, &image.id().to_string(), &name).await.unwrap().output, "private\n");
    assert_no_secret_in(&gate.log(), &[puller, other, WRONG[0], WRONG[1]]);
}

#[tokio::test]
async fn with_tokens_everywhere_the_login_of_the_pull_counts_and_appears_in_no_log() {
    pull_with_all_logins("tokens_everywhere", RegistryAuth::Token).await;
}

#[tokio::test]
async fn with_a_registry_that_wants_passwords_the_login_of_the_pull_counts_and_appears_in_no_log() {
    pull_with_all_logins("registry_wants_passwords", RegistryAuth::Basic).await;
}

#[tokio::test]
async fn a_repeated_pull_with_a_wrong_login_is_refused_by_the_registry_although_everything_is_cached() {
    let mut world = World::with("a_repeated_pull_with_a_wrong_login", &options(RegistryAuth::Basic, false)).await;
    let image = Recipe::prints("private").build();
    let (name, root) = world.push_signed(&image, "team/private", "1").await;
    let config = world.gate_config().root_key(world.gun("team/private"), root.canonical);
    let cri = world.start_gate(binary(), &config).await.cri().clone();
    let [puller, other] = Registry::logins();
    assert_eq!(cri.pull_with(&name, Some(puller), None).await.unwrap(), image.id().to_string());

    for login in [None, Some(WRONG[0]), Some(WRONG[1])] {
        let refused = cri.pull_with(&name, login, None).await.unwrap_err();
        assert!(refused.message().contains("401 Unauthorized"), "containerd says what the registry said: {refused:?}");
        assert!(!refused.message().contains("SignatureValidationFailed"), "the signature is good: {refused:?}");
    }
    assert_eq!(cri.pull_with(&name, Some(other), None).await.unwrap(), image.id().to_string());
}

#[tokio::test]
async fn a_login_reaches_no_server_but_the_registry_and_its_trust_server() {
    let world = World::new("a_login_reaches_no_other_server").await;
    let (name, root) = world.push_signed(&Recipe::prints("signed").build(), "team/app", "1").await;
    let front = FaultyServer::before(&world.notary.url(), &world.ca).await;
    let elsewhere = FaultyServer::before(&world.notary.url(), &world.ca).await;
    let mut config = world.gate_config().root_key(world.gun("team/app"), root.canonical);
    config.registries[0].notary_server = front.url();
    let gate = Gate::start_with(&world.folder, binary(), &config, &world.containerd, &[LOG_ALL]).await;
    let (cri, [puller, _]) = (gate.cri().clone(), Registry::logins());
    let pull = async || cri.pull_with(&name, Some(puller), None).await.unwrap_err();

    // The same machine under a name that is neither the registry's nor the trust server's.
    let realm = elsewhere.url().replace("127.0.0.1", "localhost");
    front.answer("", Answer::challenge(&format!(r#"Bearer realm="{realm}/token",service="notary""#)));
    let sentence = format!("error contacting trust server: {} asks for a token from `{realm}/token`: only an https address", front.url());
    assert_refused(&pull().await, DENIED, &sentence, "CS-TOKEN-REALM");

    let plain = elsewhere.url().replace("https", "http");
    front.answer("", Answer::challenge(&format!(r#"Bearer realm="{plain}/token",service="notary""#)));
    let sentence = format!("error contacting trust server: {} asks for a token from `{plain}/token`: only an https address", front.url());
    assert_refused(&pull().await, DENIED, &sentence, "CS-TOKEN-REALM");

    front.answer("", Answer::redirect(&format!("{}/v2/", elsewhere.url())));
    let sentence = format!("error contacting trust server: {} redirects to 127.0.0.1 (HTTP 307)", front.url());
    assert_refused(&pull().await, DENIED, &sentence, "CS-SERVER-REDIRECT");
    assert_eq!((elsewhere.connections(), elsewhere.seen()), (0, Vec::new()), "nothing was sent there");
    assert!(front.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", front.seen());

    // Asked for a password by the trust server itself, it is given to it, and to it alone.
    front.answer("", Answer::challenge(r#"Basic realm="trust""#));
    let sentence = format!("error contacting trust server: {} does not give access (HTTP 401)", front.url());
    assert_refused(&pull().await, DENIED, &sentence, "CS-SERVER-UNAUTHORIZED");
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", puller.user, puller.password)));
    assert!(front.seen().iter().any(|seen| seen.authorization.as_deref() == Some(&basic)), "{:?}", front.seen());
    assert_eq!(elsewhere.connections(), 0);

    front.mend();
    let id = cri.pull_with(&name, Some(puller), None).await.unwrap();
    let pod = cri.run_pod(cri.pod("default")).await.unwrap();
    cri.create(&pod, container(&id, &name)).await.unwrap();
    assert_no_secret_in(&gate.log(), &[puller]);
}

#[tokio::test]
async fn pulls_with_different_logins_share_no_refresh() {
    let mut world = World::with("different_logins_share_no_refresh", &options(RegistryAuth::Open, true)).await;
    let (name, root) = world.push_signed(&Recipe::prints("private").build(), "team/private", "1").await;
    let front = FaultyServer::before(&world.notary.url(), &world.ca).await;
    front.answer("", Answer::Later(std::time::Duration::from_millis(200)));
    let mut config = world.gate_config().root_key(world.gun("team/private"), root.canonical);
    config.registries[0].notary_server = front.url();
    let cri: Cri = world.start_gate(binary(), &config).await.cri().clone();
    let [puller, _] = Registry::logins();

    let (good, wrong, nobody) =
        tokio::join!(cri.pull_with(&name, Some(puller), None), cri.pull_with(&name, Some(WRONG[0]), None), cri.pull(&name));

    good.unwrap();
    let sentence = format!("error contacting trust server: {} does not give access (HTTP 401)", front.url());
    assert_refused(&wrong.unwrap_err(), DENIED, &sentence, "CS-SERVER-UNAUTHORIZED");
    assert_refused(&nobody.unwrap_err(), DENIED, &sentence, "CS-SERVER-UNAUTHORIZED");
}
