//! Servers that fail, and what the real daemon makes of it: a clear error, a denial unless evidence is held, and it serves on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::{Code, Status};

use super::gate::binary;
use super::harness::cri::{Cri, container};
use super::harness::faulty::{Answer, FaultyServer};
use super::harness::gate::GateConfig;
use super::harness::image::{Image, Recipe};
use super::harness::signer::RootIds;
use super::harness::tls::Ca;
use super::harness::world::World;

/// A request to a trust server may take 15 s and a whole update 30 s; a busy machine gets this much more.
const MARGIN: Duration = Duration::from_secs(8);
const DENIED: &str = "SignatureValidationFailed";
const UNAVAILABLE: &str = "RegistryUnavailable";

/// A world whose gate asks its notary server through a server that can fail, with `team/app:1` signed.
pub(crate) struct Scene {
    pub(crate) front: FaultyServer,
    pub(crate) world: World,
    pub(crate) image: Image,
    pub(crate) name: String,
    pub(crate) root: RootIds,
    pub(crate) config: GateConfig,
}

impl Scene {
    pub(crate) async fn new(test: &str) -> Self {
        let mut world = World::new(test).await;
        let front = FaultyServer::before(&world.notary.url(), &world.ca).await;
        let image = Recipe::prints("signed").build();
        let (name, root) = world.push_signed(&image, "team/app", "1").await;
        let mut config = world.gate_config().root_key(world.gun("team/app"), root.canonical.clone());
        config.registries[0].notary_server = front.url();
        world.start_gate(binary(), &config).await;
        Self { front, world, image, name, root, config }
    }

    pub(crate) fn cri(&self) -> &Cri {
        self.world.gate.as_ref().unwrap().cri()
    }

    /// The gate still passes calls on.
    pub(crate) async fn serves(&self) {
        assert_eq!(self.cri().version().await.unwrap().runtime_name, "containerd");
    }

    fn log(&self) -> String {
        self.world.gate.as_ref().unwrap().log()
    }

    /// A word of the newest line of the log that says `admitted` for this call.
    fn admitted(&self, call: &str, key: &str) -> String {
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("admitted") && line.contains(&format!("call={call}"))).expect("an admission");
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{key}=")));
        word.unwrap_or_else(|| panic!("no {key} in {line}")).to_owned()
    }

    fn trust_sentence(&self, detail: &str) -> String {
        let gun = self.world.gun("team/app");
        format!("potential malicious behavior - trust data mismatch for repository {gun}: {detail}")
    }

    fn server_sentence(&self, detail: &str) -> String {
        format!("error contacting trust server: {} {detail}", self.front.url())
    }
}

/// The whole of a refusal: gRPC code, first word, sentence from its beginning, and reason code at its end.
#[track_caller]
pub(crate) fn assert_refused(status: &Status, word: &str, sentence: &str, code: &str) {
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    let start = format!("{word}: {sentence}");
    assert!(status.message().starts_with(&start), "expected `{start}`\n   found `{}`", status.message());
    assert!(status.message().ends_with(&format!(" ({code})")), "expected {code}: {}", status.message());
}

/// What a trust server can do wrong, with what it must be refused for.
struct Fault {
    name: &'static str,
    answer: Answer,
    word: &'static str,
    sentence: String,
    code: &'static str,
}

/// The faults that are answers or lost connections; those of the connection itself have tests of their own.
fn faults(scene: &Scene, elsewhere: &str) -> Vec<Fault> {
    let outage =
        |name, answer, detail: &str, code| Fault { name, answer, word: UNAVAILABLE, sentence: scene.server_sentence(detail), code };
    let refused = |name, answer, detail: &str, code| Fault { name, answer, word: DENIED, sentence: scene.server_sentence(detail), code };
    let busy = |name, status: u16| outage(name, Answer::status(status), &format!("cannot answer now (HTTP {status})"), "CS-SERVER-BUSY");
    let host = elsewhere.strip_prefix("https://").and_then(|rest| rest.split(':').next()).unwrap();
    let bad = |name, answer, detail: &str| Fault { name, answer, word: DENIED, sentence: scene.trust_sentence(detail), code: "CS-JSON" };
    let garbage: Vec<u8> = (0..1000_u32).map(|number| (number * 7 % 251) as u8).collect();
    vec![
        busy("500", 500),
        busy("503", 503),
        busy("429", 429),
        outage("cut", Answer::Cut, "could not be reached: the connection broke before the answer was complete", "CS-SERVER-INTERRUPTED"),
        bad("garbage", Answer::ok(garbage), ""),
        bad("html", Answer::html(), ""),
        bad("empty", Answer::ok(""), ""),
        refused("endless", Answer::Endless, "sent more than the ", "CS-BODY-TOO-LARGE"),
        refused(
            "redirect",
            Answer::redirect(&format!("{elsewhere}/v2/")),
            &format!("redirects to {host} (HTTP 307), which is never followed"),
            "CS-SERVER-REDIRECT",
        ),
        refused("401", Answer::status(401), "does not give access (HTTP 401)", "CS-SERVER-UNAUTHORIZED"),
        refused("403", Answer::status(403), "forbids access (HTTP 403)", "CS-SERVER-FORBIDDEN"),
        refused("400", Answer::status(400), "answered HTTP 400 for ", "CS-SERVER-STATUS"),
        refused("not-http", Answer::NotHttp, "does not speak HTTP as it should", "CS-SERVER-PROTOCOL"),
    ]
}

#[tokio::test]
async fn without_held_evidence_every_fault_of_the_trust_server_refuses_for_its_own_reason() {
    let mut scene = Scene::new("without_held_evidence_every_fault_refuses").await;
    let elsewhere = FaultyServer::before(&scene.world.notary.url(), &scene.world.ca).await;
    for fault in faults(&scene, &elsewhere.url()) {
        eprintln!("{}", fault.name);
        // No connection of the fault before is left.
        scene.front.stop();
        scene.front.answer("", fault.answer);
        scene.front.start().await;
        let refused = scene.cri().pull(&scene.name).await.unwrap_err();
        assert_refused(&refused, fault.word, &fault.sentence, fault.code);
        let no_evidence = format!("this node holds no trust data for {} to go on with", scene.world.gun("team/app"));
        assert_eq!(refused.message().contains(&no_evidence), fault.word == UNAVAILABLE, "{}", refused.message());
        assert_eq!(scene.cri().pull(&scene.name).await.unwrap_err().message(), refused.message(), "the same cause, the same text");
        scene.serves().await;
    }
    assert_eq!(elsewhere.connections(), 0, "a redirect is not followed: not even a connection");

    scene.front.answer("", Answer::status(404));
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, DENIED, &format!("image or trust data does not exist for {}", scene.name), "CS-NO-TRUST-DATA");

    scene.front.mend();
    scene.front.stop();
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    let sentence = scene.server_sentence("could not be reached: no connection could be made");
    assert_refused(&refused, UNAVAILABLE, &sentence, "CS-SERVER-UNREACHABLE");

    scene.front.start().await;
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), scene.image.id().to_string(), "after all faults it is pulled");
}

#[tokio::test]
async fn held_evidence_bridges_an_outage_and_nothing_else() {
    let mut scene = Scene::new("held_evidence_bridges_an_outage").await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    assert_eq!(scene.admitted("PullImage", "origin"), "Server");
    let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();
    scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
    let evidence = scene.admitted("CreateContainer", "evidence");

    let elsewhere = FaultyServer::before(&scene.world.notary.url(), &scene.world.ca).await;
    let mut faults = faults(&scene, &elsewhere.url());
    let missing = format!("image or trust data does not exist for {}", scene.name);
    faults.push(Fault { name: "404", answer: Answer::status(404), word: DENIED, sentence: missing, code: "CS-NO-TRUST-DATA" });
    for fault in faults {
        eprintln!("{}", fault.name);
        // No connection of the fault before is left.
        scene.front.stop();
        scene.front.answer("", fault.answer);
        scene.front.start().await;
        let pulled = scene.cri().pull(&scene.name).await;
        if fault.word == UNAVAILABLE {
            assert_eq!(pulled.unwrap(), id);
            assert_eq!(scene.admitted("PullImage", "origin"), "Held");
            let log = scene.log();
            let told = log.lines().rfind(|line| line.contains("WARN")).unwrap_or_default();
            let why = fault.sentence.strip_prefix("error contacting trust server: ").unwrap();
            assert!(told.contains(why) && told.contains(fault.code), "the log says why: {told}");
        } else {
            assert_refused(&pulled.unwrap_err(), fault.word, &fault.sentence, fault.code);
        }
        scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
        assert_eq!(scene.admitted("CreateContainer", "evidence"), evidence, "held evidence is as it was");
    }
    assert_eq!(elsewhere.connections(), 0);
    scene.front.stop();
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), id, "connections are refused");
    scene.front.start().await;
    scene.front.mend();
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), id);
    assert_eq!(scene.admitted("PullImage", "origin"), "Server");
}

#[tokio::test]
async fn an_outage_of_the_real_notary_server_is_bridged_and_named() {
    let mut world = World::new("an_outage_of_the_real_notary_server").await;
    let (held, root) = world.push_signed(&Recipe::prints("held").build(), "team/app", "1").await;
    let (other, _) = world.push_signed(&Recipe::prints("other").build(), "team/other", "1").await;
    let config = world.gate_config().root_key(world.gun("*"), root.canonical);
    let cri = world.start_gate(binary(), &config).await.cri().clone();
    let id = cri.pull(&held).await.unwrap();

    for (outage, code) in [("paused", "CS-SERVER-TIMEOUT"), ("killed", "CS-SERVER-UNREACHABLE")] {
        if outage == "paused" {
            world.notary.server.pause()
        } else {
            world.notary.server.kill()
        }
        let began = Instant::now();
        let (refused, pulled) = tokio::join!(cri.pull(&other), cri.pull(&held));
        let sentence = format!("error contacting trust server: {} could not be reached: ", world.notary.url());
        assert_refused(&refused.unwrap_err(), UNAVAILABLE, &sentence, code);
        assert_eq!(pulled.unwrap(), id, "{outage}");
        assert!(began.elapsed() < Duration::from_secs(15) + MARGIN, "{outage}: two pulls took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_of_another_authority_is_refused_before_anything_is_sent() {
    let mut scene = Scene::new("a_certificate_of_another_authority").await;
    let other = Ca::new(scene.world.folder.sub("other-tls"), "somebody else's CA");
    let impostor = FaultyServer::with_certificate(&scene.world.notary.url(), &scene.world.ca, &other.server("impostor")).await;
    let mut config = scene.config.clone();
    config.registries[0].notary_server = impostor.url();
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.restart().await;

    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    let sentence = format!(
        "error contacting trust server: {} cannot be trusted: its certificate is from an authority that is not known here; register",
        impostor.url()
    );
    assert_refused(&refused, DENIED, &sentence, "CS-SERVER-TLS");
    assert_eq!((impostor.seen(), impostor.connections() > 0), (Vec::new(), true), "the handshake was tried, and nothing was sent");
    scene.serves().await;
}

#[tokio::test]
async fn a_silent_or_slow_trust_server_ends_the_pull_in_time_and_holds_up_no_other_repository() {
    let mut scene = Scene::new("a_silent_trust_server").await;
    let (slow, _) = scene.world.push_signed(&Recipe::prints("slow").build(), "team/slow", "1").await;
    let config = scene.config.clone().root_key(scene.world.gun("*"), scene.root.canonical.clone());
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.restart().await;
    let silent = format!("{}/team/silent:1", scene.world.registry.host());
    let trickling = format!("{}/team/trickling:1", scene.world.registry.host());
    scene.front.answer("/team/silent/", Answer::Silence);
    scene.front.answer("/team/trickling/", Answer::Trickle);
    scene.front.answer("/team/slow/", Answer::Later(Duration::from_secs(11)));

    let timed = |name: String| {
        let cri = scene.cri().clone();
        async move {
            let began = Instant::now();
            (cri.pull(&name).await.unwrap_err(), began.elapsed())
        }
    };
    let other = async {
        while scene.front.count("/team/silent/") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let began = Instant::now();
        scene.cri().pull(&scene.name).await.unwrap();
        began.elapsed()
    };
    let (silent, trickling, slow, other) = tokio::join!(timed(silent), timed(trickling), timed(slow), other);

    assert!(other < Duration::from_secs(5), "another repository waited: {other:?}");
    let in_time = scene.server_sentence("could not be reached: it did not answer in time");
    for (refused, took) in [silent, trickling] {
        assert_refused(&refused, UNAVAILABLE, &in_time, "CS-SERVER-TIMEOUT");
        assert!(took < Duration::from_secs(15) + MARGIN, "{took:?}");
    }
    let sentence = scene.server_sentence("did not deliver the trust data for ");
    assert_refused(&slow.0, UNAVAILABLE, &sentence, "CS-SERVER-TIMEOUT");
    assert!(slow.1 < Duration::from_secs(30) + MARGIN, "{:?}", slow.1);
    scene.serves().await;
}

#[tokio::test]
async fn many_pulls_at_once_share_one_refresh_and_one_that_goes_away_changes_nothing() {
    let scene = Scene::new("many_pulls_share_one_refresh").await;
    scene.front.answer("", Answer::Later(Duration::from_millis(400)));
    let goes_away = tokio::time::timeout(Duration::from_millis(200), scene.cri().pull(&scene.name));
    let stay = join_all((0..8).map(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        scene.cri().pull(&scene.name).await
    }));
    let (gone, pulled) = tokio::join!(goes_away, stay);

    assert!(gone.is_err(), "the first caller was still waiting when it went away");
    for id in pulled {
        assert_eq!(id.unwrap(), scene.image.id().to_string());
    }
    assert_eq!(scene.front.count("timestamp.json"), 1, "{:?}", scene.front.seen());
    scene.serves().await;
}

#[tokio::test]
async fn a_refresh_whose_only_caller_went_away_is_finished_and_recorded_and_nothing_is_pulled() {
    let mut scene = Scene::new("a_refresh_whose_only_caller_went_away").await;
    scene.front.answer("", Answer::Later(Duration::from_millis(300)));
    let gone = tokio::time::timeout(Duration::from_millis(150), scene.cri().pull(&scene.name)).await;
    assert!(gone.is_err(), "{gone:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    // The reference client signs in `targets`, which is the last file.
    while scene.front.count("/targets.") == 0 {
        assert!(Instant::now() < deadline, "the refresh did not go on: {:?}", scene.front.seen());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let records = scene.world.containerd.ctr().records().await.unwrap();
    assert!(!records.iter().any(|(name, _)| name.contains("team/app")), "{records:?}");

    scene.front.answer("", Answer::status(503));
    scene.world.gate.as_mut().unwrap().restart().await;
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), scene.image.id().to_string(), "what it fetched is held, on disk");
    assert_eq!(scene.admitted("PullImage", "origin"), "Held");
}

#[tokio::test]
async fn a_pull_that_goes_away_while_containerd_pulls_leaves_no_record_and_the_next_one_works() {
    let scene = Scene::new("a_pull_that_goes_away_while_containerd_pulls").await;
    scene.world.registry.server.pause();
    let gone = tokio::time::timeout(Duration::from_secs(2), scene.cri().pull(&scene.name)).await;
    assert!(gone.is_err(), "{gone:?}");
    assert_eq!(scene.admitted("PullImage", "origin"), "Server");
    let records = scene.world.containerd.ctr().records().await.unwrap();
    assert!(!records.iter().any(|(name, _)| name.contains("team/app")), "{records:?}");
    scene.world.registry.server.resume();
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), scene.image.id().to_string());
}

#[tokio::test]
async fn a_tag_that_is_signed_again_runs_the_new_image_and_one_that_is_unsigned_runs_no_more() {
    let mut scene = Scene::new("a_tag_that_is_signed_again").await;
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n");
    let (admin, gun) = (scene.world.notary.signer("admin"), scene.world.gun("team/app"));
    let next = Recipe::prints("signed again").build();
    scene.world.push(&next, "team/app", "1").await;
    admin.sign(&gun, "1", &next).await;

    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("signed again\n", next.id().to_string()));

    admin.remove_tag(&gun, "1").await;
    let sentence = format!("image or trust data does not exist for {}: the tag `1` is not signed", scene.name);
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-TAG-NOT-SIGNED");

    scene.front.stop();
    scene.world.registry.server.stop();
    let refused = scene.cri().create(&ran.pod, container(&next.id().to_string(), &scene.name)).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-TAG-NOT-SIGNED");
    let id = next.id().to_string();
    let by_digest = format!("{gun}@{}", next.digest());
    let refused = scene.cri().create(&ran.pod, container(&id, &by_digest)).await.unwrap_err();
    assert_refused(&refused, DENIED, &format!("no trust signature found for {by_digest}"), "CS-DIGEST-NOT-SIGNED");
}

#[tokio::test]
async fn a_root_that_is_rotated_away_from_its_pin_is_refused_with_the_ids_to_pin() {
    let mut scene = Scene::new("a_root_that_is_rotated_away").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    let (admin, gun) = (scene.world.notary.signer("admin"), scene.world.gun("team/app"));
    admin.rotate(&gun, super::harness::signer::Rotation::Root).await;
    let root = admin.root_ids(&gun).await;
    assert_ne!(root, scene.root);

    let sentence = format!(
        "could not validate the path to a trusted root: unable to match any certificates to trust-pinning: the root of {gun} carries \
         certificate ID {} (root key ID {}); if the root was changed on purpose, pin one of these",
        root.certificate, root.canonical
    );
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-ROOT-NOT-PINNED");
    let refused = scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence, "CS-ROOT-NOT-PINNED");

    let config = GateConfig { root_keys: vec![(gun, vec![root.canonical])], ..scene.config.clone() };
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.restart().await;
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n", "the new root is pinned");
}

#[tokio::test]
async fn what_local_data_can_deny_is_denied_without_a_packet() {
    let scene = Scene::new("denied_without_a_packet").await;
    let unpinned = scene.world.push(&Recipe::prints("unpinned").build(), "other/app", "1").await;
    let pushed = scene.world.registry.requests().len();

    let refused = scene.cri().pull("localhost:1/team/app:1").await.unwrap_err();
    let sentence = "localhost:1 must be a registered trusted registry. Register it in the configuration";
    assert_refused(&refused, DENIED, sentence, "CS-NOT-REGISTERED");
    let refused = scene.cri().pull("app:1").await.unwrap_err();
    assert_refused(&refused, DENIED, "docker.io must be a registered trusted registry. ", "CS-NOT-REGISTERED");
    let refused = scene.cri().pull(&unpinned).await.unwrap_err();
    let sentence = format!("no pin covers {}: add its root to trust-pinning", scene.world.gun("other/app"));
    assert_refused(&refused, DENIED, &sentence, "CS-NOT-PINNED");

    assert_eq!((scene.front.connections(), scene.front.seen()), (0, Vec::new()));
    assert_eq!(scene.world.registry.requests()[pushed..], [] as [String; 0], "the registry was asked for nothing");
    scene.serves().await;
}

#[tokio::test]
async fn a_registry_that_answers_differently_each_time_gets_only_the_signed_digest_run() {
    let mut world = World::new("a_registry_that_answers_differently").await;
    let fickle = FaultyServer::plain_before(&format!("http://{}", world.registry.host()), &world.ca).await;
    let (good, evil) = (Recipe::prints("good").build(), Recipe::prints("evil").build());
    world.push(&good, "team/app", "1").await;
    world.push(&evil, "team/app", "evil").await;
    let (name, gun) = (format!("{}/team/app:1", fickle.host()), format!("{}/team/app", fickle.host()));
    let admin = world.notary.signer("admin");
    let root = admin.init(&gun).await;
    admin.sign(&gun, "1", &good).await;
    let mut config = world.gate_config().root_key(&gun, root.canonical);
    config.registries[0].host_address = fickle.host();
    let cri = world.start_gate(binary(), &config).await.cri().clone();
    let in_turn = || Answer::InTurn(vec![Answer::Instead("/v2/team/app/manifests/evil".to_owned()), Answer::Relay]);

    fickle.answer("/manifests/1", in_turn());
    for _ in 0..3 {
        assert_eq!(cri.run(&name, "default").await.unwrap().output, "good\n");
    }
    // What was asked for by its digest is something else each time, too: containerd refuses or pulls the right one.
    fickle.answer(&format!("/manifests/{}", good.digest()), in_turn());
    let mut ran = 0;
    for _ in 0..4 {
        cri.remove_image(&good.id().to_string()).await.unwrap();
        match cri.run(&name, "default").await {
            Ok(container) => {
                assert_eq!(container.output, "good\n");
                ran += 1;
            }
            Err(status) => eprintln!("{}", status.message()),
        }
    }
    assert!(ran > 0, "containerd asks twice for a manifest, and gets the right one at the second time");
    let asked = fickle.count(&format!("/manifests/{}", good.digest()));
    assert!(asked >= 4, "the signed digest was asked for {asked} times");
    fickle.answer(&format!("/manifests/{}", good.digest()), Answer::Instead("/v2/team/app/manifests/evil".to_owned()));
    cri.remove_image(&good.id().to_string()).await.unwrap();
    let refused = cri.pull(&name).await.unwrap_err();
    let sentence = format!("unexpected commit digest {}, expected {}", evil.digest(), good.digest());
    assert!(refused.message().contains(&sentence), "{refused:?}");
    let digests: Vec<String> = world.containerd.ctr().records().await.unwrap().into_iter().map(|(_, digest)| digest).collect();
    assert!(!digests.contains(&evil.digest().to_string()), "{digests:?}");
}

#[tokio::test]
async fn a_malformed_reference_is_refused_with_what_is_wrong_with_it() {
    let scene = Scene::new("a_malformed_reference").await;
    let host = scene.world.registry.host();
    let upper = "AB".repeat(32);
    let long = format!("{host}/{}:1", "a/".repeat(3000));
    let cases: Vec<(String, String)> = vec![
        (String::new(), "the image name is empty".into()),
        (long, "the image name is longer than ".into()),
        (format!("{host}/{}:1", "a".repeat(300)), "the repository name is longer than 255 bytes".into()),
        (format!("{host}/Team/App:1"), "`Team/App` is not a repository path: lower-case letters, digits".into()),
        (format!("{host}/team//app:1"), "`team//app` is not a repository path".into()),
        (format!("{host}/../app:1"), "`../app` is not a repository path".into()),
        (format!("{host}/team/app:"), "`` is not a tag".into()),
        (format!("{host}/team/app:-x"), "`-x` is not a tag".into()),
        (format!("{host}/team/app:{}", "x".repeat(129)), format!("`{}` is not a tag", "x".repeat(129))),
        (format!("{host}/team/app@sha256:abc"), "`abc` is not a sha256 digest of 64 lower-case hexadecimal digits".into()),
        (format!("{host}/team/app@sha256:{upper}"), format!("`{upper}` is not a sha256 digest of 64")),
        (format!("{host}/team/app@sha512:{}", "a".repeat(128)), format!("`sha512:{}` is not a sha256 digest", "a".repeat(128))),
        ("a".repeat(64), format!("`{}` is an image ID, not an image name", "a".repeat(64))),
        (format!("https://{host}/team/app:1"), String::new()),
        (format!("{host}/team/app:1\n"), "`1\\n` is not a tag".into()),
        (format!("{host}/team/\u{1b}[31mapp:1"), String::new()),
        (format!("{host}/team/app:1 "), "`1 ` is not a tag".into()),
    ];
    for (reference, sentence) in cases {
        let refused = scene.cri().pull(&reference).await.unwrap_err();
        eprintln!("{}", refused.message());
        assert_refused(&refused, DENIED, &sentence, "CS-NAME");
        assert!(refused.message().contains("; a pod's image must be a name such as registry.example/team/app:1"), "{refused:?}");
        assert!(!refused.message().contains(char::is_control), "{refused:?}");
    }
    assert_eq!(scene.front.connections(), 0, "a name that is none is nobody's to answer");
    scene.serves().await;
}
