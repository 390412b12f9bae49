//! Servers that fail, and what the real daemon makes of it: a clear error, a denial unless evidence is held, and it serves on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::{Code, Status};

use super::gate::binary;
use super::harness::containerd::Version;
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
    /// For what does not depend on the release of containerd.
    pub(crate) async fn new(test: &str) -> Self {
        Self::on(Version::default(), test).await
    }

    pub(crate) async fn on(containerd: Version, test: &str) -> Self {
        let mut world = World::on(containerd, test).await;
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
        scene.front.answer("", fault.answer);
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
    let (name, gun) = (&scene.name, scene.world.gun("team/app"));
    let missing = format!("image or trust data does not exist for {name}: the trust server has no trust data for {gun}; it had some");
    faults.push(Fault { name: "404", answer: Answer::status(404), word: DENIED, sentence: missing, code: "CS-NO-TRUST-DATA" });
    for fault in faults {
        eprintln!("{}", fault.name);
        scene.front.answer("", fault.answer);
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

/// Whoever may push to one repository can give an image of another one's a name there, and let its trust server hang.
#[tokio::test]
async fn a_container_that_waits_for_a_silent_trust_server_holds_up_no_other_of_the_same_image() {
    let mut scene = Scene::new("waits_for_a_silent_server").await;
    let config = scene.config.clone().root_key(scene.world.gun("*"), scene.root.canonical.clone());
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.restart().await;
    let silent = scene.world.push(&scene.image, "team/silent", "1").await;
    scene.front.answer("/team/silent/", Answer::Silence);
    let id = scene.world.cri().pull(&silent).await.unwrap();
    let pod = scene.cri().run_pod(scene.cri().pod("default")).await.unwrap();

    let waiting = {
        let (cri, pod, id, silent) = (scene.cri().clone(), pod.clone(), id.clone(), silent.clone());
        tokio::spawn(async move { cri.create(&pod, container(&id, &silent)).await })
    };
    while scene.front.count("/team/silent/") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    // The pull writes a tag record, for which it has the image alone.
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), id, "the same image");
    scene.cri().run_image(&pod, &id, &scene.name).await.unwrap();
    let took = began.elapsed();

    assert!(!waiting.is_finished(), "nobody waited for the server");
    assert!(took < Duration::from_secs(8), "others waited with it: {took:?}");
    let refused = waiting.await.unwrap().unwrap_err();
    let in_time = scene.server_sentence("could not be reached: it did not answer in time");
    assert_refused(&refused, UNAVAILABLE, &in_time, "CS-SERVER-TIMEOUT");

    // What is remembered of it names the image that is asked about, and no other.
    let other = format!("{}:2", scene.world.gun("team/silent"));
    let refused = scene.cri().create(&pod, container(&id, &other)).await.unwrap_err();
    assert!(refused.message().contains(&other) && !refused.message().contains(&silent), "{refused:?}");
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
    // Each answer comes in time, and each file names the next: what was asked for on a guess would save the rounds.
    for guess in ["snapshot.json", "targets.json"] {
        scene.front.answer(&format!("/team/slow/_trust/tuf/{guess}"), Answer::status(404));
    }

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
