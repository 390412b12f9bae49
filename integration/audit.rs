//! What is told of decisions on real servers: the audit log, its replay, and figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::faults::Scene;
use super::gate::binary;
use super::harness::cri::container;
use super::harness::faulty::Answer;
use super::harness::image::Recipe;
use super::harness::process::{Launch, Port, Ready};
use super::harness::token::Login;
use super::ledger::{fill, mount_small};
use super::verify::{configuration, countersign};

/// The gate tries itself when it begins, and ten seconds after a trial that could not be made.
const PROVEN_WITHIN: Duration = Duration::from_secs(40);
/// How long a line may take to show up where it is followed.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

fn log_file(scene: &Scene) -> PathBuf {
    scene.world.gate.as_ref().unwrap().state().join("audit/decisions.jsonl")
}

/// Every whole line of the log.
fn all_lines(scene: &Scene) -> Vec<Value> {
    let text = fs::read_to_string(log_file(scene)).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The same without those of sandboxes, which every pod has.
fn lines(scene: &Scene) -> Vec<Value> {
    all_lines(scene).into_iter().filter(|line| line["method"] != "RunPodSandbox").collect()
}

/// Method, verdict and code of a line.
fn told(line: &Value) -> (&str, &str, &str) {
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    (text("method"), text("verdict"), text("code"))
}

fn id(line: &Value) -> String {
    line["id"].as_str().unwrap().to_owned()
}

/// `countersign explain ID --output json`: exit status and answer.
async fn explained(scene: &Scene, id: &str) -> (Option<i32>, Value) {
    let (code, out, err) = countersign(&["explain", id, "--output", "json", "--config", &configuration(scene)]).await;
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")))
}

async fn reconfigured(scene: &mut Scene, config: &super::harness::gate::GateConfig) {
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(config);
    gate.restart().await;
}

#[tokio::test]
async fn every_decision_has_its_line_also_when_the_daemon_is_killed_right_after_it() {
    let mut scene = Scene::new("every_decision_has_its_line").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let elsewhere = scene.world.push(&Recipe::prints("elsewhere").build(), "other/app", "1").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    scene.cri().pull(&unsigned).await.unwrap_err();
    scene.world.gate.as_mut().unwrap().kill();
    let journal = scene.world.gate.as_ref().unwrap().log();
    let sandbox = journal.lines().find(|line| line.contains("admitted") && line.contains("RunPodSandbox")).unwrap();
    assert!(!sandbox.contains("valid_until"), "a digest that a rule lists has no end: {sandbox}");
    let file = log_file(&scene);
    let torn = r#"{"v":1,"id":"0000"#;
    File::options().append(true).open(&file).unwrap().write_all(torn.as_bytes()).unwrap();
    let config = scene.config.clone().rule(&scene.world.gun("other/*"), "name = \"trial\"\nmode = \"permissive\"");
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&config);
    gate.start_again().await;
    assert_eq!(scene.cri().run(&elsewhere, "dev").await.unwrap().output, "elsewhere\n");
    scene.cri().pull(&elsewhere).await.unwrap_err();

    let found = lines(&scene);
    let expected = [
        ("PullImage", "allow", ""),
        ("CreateContainer", "allow", ""),
        ("StartContainer", "allow", ""),
        ("PullImage", "deny", "CS-TAG-NOT-SIGNED"),
        ("PullImage", "let-pass", "CS-NOT-PINNED"),
        ("CreateContainer", "let-pass", "CS-NOT-PINNED"),
        ("StartContainer", "let-pass", "CS-UNKNOWN-ROOTFS"),
        ("PullImage", "deny", "CS-NOT-PINNED"),
    ];
    assert_eq!(found.iter().map(told).collect::<Vec<_>>(), expected, "{found:#?}");
    assert!(fs::read_to_string(&file).unwrap().contains(&format!("{torn}\n{{")), "the torn line stands alone");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let pull = &found[0];
    let digest = scene.image.digest().to_string();
    for (key, value) in [("image", scene.name.as_str()), ("namespace", "default"), ("rule", "content-trust"), ("digest", &digest)] {
        assert_eq!(pull[key], value, "{pull:#}");
    }
    assert_eq!((&pull["origin"], &pull["looked-at-as"]), (&"server".into(), &"held".into()));
    assert_eq!(pull["signers"][0]["role"], "targets", "{pull:#}");
    assert!(pull["took-us"].as_u64().is_some_and(|took| took > 0) && pull["valid-until"].is_string());
    let create = &found[1];
    assert_eq!((&create["image-id"], &create["evidence"]), (&scene.image.id().to_string().into(), &pull["evidence"]));
    assert_eq!(found[2]["container"], ran.container.as_str());
    assert_eq!(found[3]["evidence"], pull["evidence"], "denied by the same trust data");
    assert_ne!(found[4]["policy"], pull["policy"]);
    assert_eq!(found[5]["rule"], "trial");
    let sandbox = all_lines(&scene).into_iter().find(|line| line["method"] == "RunPodSandbox").expect("a sandbox");
    assert_eq!((sandbox["verdict"].as_str(), sandbox["origin"].as_str()), (Some("allow"), Some("rule")), "{sandbox:#}");
    let (code, answer) = explained(&scene, &id(&sandbox)).await;
    assert_eq!((code, &answer["then"]["same"]), (Some(0), &true.into()), "{answer:#}");
    let log = scene.world.gate.as_ref().unwrap().log();
    assert!(found.iter().all(|line| log.contains(&format!("id={}", id(line)))), "the journal names each, too");
}

#[tokio::test]
async fn decisions_are_listed_by_the_daemon_and_without_it() {
    let mut scene = Scene::new("decisions_are_listed").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    scene.cri().run(&scene.name, "default").await.unwrap();
    scene.cri().pull(&unsigned).await.unwrap_err();
    let file = configuration(&scene);
    let list = async |arguments: &[&str]| {
        let (code, out, err) = countersign(&[&["decisions", "--config", &file], arguments].concat()).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        out
    };
    let raw = fs::read_to_string(log_file(&scene)).unwrap();
    let last = raw.lines().last().unwrap().to_owned();
    for with_daemon in [true, false] {
        if !with_daemon {
            scene.world.gate.as_mut().unwrap().server.stop();
        }
        assert_eq!(list(&["--output", "json"]).await, raw);
        assert_eq!(list(&["--output", "json", "--denied"]).await, format!("{last}\n"));
        assert_eq!(list(&["--output", "json", "--since", "1h"]).await, raw);
        assert_eq!(list(&["--output", "json", "--since", "2999-01-01T00:00:00Z"]).await, "");
        let table = list(&["--denied"]).await;
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows.len() == 2 && rows[0].contains("VERDICT") && rows[1].contains(&unsigned), "{table}");
        assert!(rows[1].contains("CS-TAG-NOT-SIGNED"), "{table}");
    }
    let (code, _, err) = countersign(&["decisions", "--since", "yesterday", "--config", &file]).await;
    assert!(code == Some(2) && err.contains("--since must be a length of time"), "{err}");
}

#[tokio::test]
async fn whoever_follows_sees_a_decision_when_it_is_made() {
    let scene = Scene::new("whoever_follows").await;
    let launch = Launch::new("follower", binary()).arg("decisions").arg("--follow").arg("--output").arg("json");
    let launch = launch.arg("--config").path(scene.world.gate.as_ref().unwrap().configuration());
    let gate = scene.world.gate.as_ref().unwrap();
    let follower = launch.start(&scene.world.folder.logs(), Ready::Socket(gate.admin_socket())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    scene.cri().pull(&scene.name).await.unwrap();
    let deadline = tokio::time::Instant::now() + FOLLOWED_WITHIN;
    while !follower.log().contains("\"method\":\"PullImage\"") {
        assert!(tokio::time::Instant::now() < deadline, "{}", follower.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_decision_comes_out_the_same_from_its_evidence_and_today_shows_what_has_changed() {
    let mut scene = Scene::new("a_decision_comes_out_the_same").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    scene.cri().pull(&unsigned).await.unwrap_err();
    let found = lines(&scene);
    let [pull, create, start, denial] = &found[..] else { panic!("{found:#?}") };
    for line in [pull, create, start, denial] {
        let (code, answer) = explained(&scene, &id(line)).await;
        assert_eq!((code, &answer["then"]["same"], &answer["missing"]), (Some(0), &true.into(), &Value::Array(Vec::new())), "{answer:#}");
        assert_eq!(answer["then"]["verdict"]["verdict"], line["verdict"], "{answer:#}");
        assert_eq!((&answer["decision"], &answer["today"]["policy"]), (line, &line["policy"]));
    }

    // The trust data moves on, and the policy does, too.
    let admin = scene.world.notary.signer("admin");
    let second = Recipe::prints("second").build();
    scene.world.push(&second, "team/app", "3").await;
    admin.sign(&scene.world.gun("team/app"), "3", &second).await;
    let config = scene.config.clone().rule(&scene.world.gun("team/*"), "name = \"retired\"\ndeny = true");
    scene.cri().pull(&format!("{}:3", scene.world.gun("team/app"))).await.unwrap();
    reconfigured(&mut scene, &config).await;
    let (code, answer) = explained(&scene, &id(pull)).await;
    assert_eq!((code, &answer["then"]["same"], &answer["today"]["same"]), (Some(0), &true.into(), &false.into()), "{answer:#}");
    assert_eq!(answer["then"]["verdict"]["digest"], pull["digest"]);
    assert_eq!(answer["today"]["verdict"]["code"], "CS-DENIED-BY-RULE", "{answer:#}");
    let (code, out, _) = countersign(&["explain", &id(pull), "--config", &configuration(&scene)]).await;
    assert_eq!(code, Some(0), "{out}");
    for text in ["AGAIN: THE SAME", "it would be ANOTHER", "is denied by rule `retired`", "ROLES THAT LIST THE TAG"] {
        assert!(out.contains(text), "{text}: {out}");
    }

    // Without the daemon it is the same. Without what was kept, it is said what is missing.
    let state = scene.world.gate.as_ref().unwrap().state();
    scene.world.gate.as_mut().unwrap().server.stop();
    let (code, answer) = explained(&scene, &id(denial)).await;
    assert_eq!((code, &answer["then"]["same"]), (Some(0), &true.into()), "{answer:#}");
    fs::remove_dir_all(state.join("audit/policies")).unwrap();
    fs::remove_dir_all(state.join("audit/evidence")).unwrap();
    let (code, answer) = explained(&scene, &id(create)).await;
    let evidence = create["evidence"].as_str().unwrap();
    assert_eq!((code, &answer["then"]), (Some(3), &Value::Null));
    assert_eq!(answer["missing"][0], format!("the evidence {evidence} is not kept any more"), "{answer:#}");
    let (code, _, err) = countersign(&["explain", &"0".repeat(24), "--config", &configuration(&scene)]).await;
    assert!(code == Some(2) && err.contains("has no decision"), "{err}");
    let (code, _, err) = countersign(&["explain", &ran.container, "--config", &configuration(&scene)]).await;
    assert!(code == Some(2) && err.contains("this is no decision's ID"), "{err}");
}

#[tokio::test]
async fn a_fetch_that_was_refused_is_kept_and_refused_again_for_the_same_reason() {
    let scene = Scene::new("a_fetch_that_was_refused").await;
    scene.front.answer("timestamp.json", Answer::ok("{\"signed\":{},\"signatures\":[]}"));
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    scene.front.mend();
    let found = lines(&scene);
    let line = found.last().unwrap();
    assert_eq!((line["verdict"].as_str(), line["looked-at-as"].as_str()), (Some("deny"), Some("fetched")), "{refused:?} {line:#}");
    // What is fetched from now on is another.
    scene.cri().pull(&scene.name).await.unwrap();
    let (code, answer) = explained(&scene, &id(line)).await;
    assert_eq!((code, &answer["then"]["same"]), (Some(0), &true.into()), "{answer:#}");
    assert_eq!(answer["then"]["verdict"]["code"], line["code"]);
}

/// Name with labels, and value.
pub(crate) type Figures = HashMap<String, f64>;

fn parsed(answer: &str) -> Figures {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

pub(crate) async fn asked<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S) -> Figures {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    parsed(&answer)
}

#[tokio::test]
async fn figures_say_what_was_decided_and_when_trust_data_ends() {
    let mut scene = Scene::new("figures").await;
    let port = Port::free();
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let config = scene.config.clone().table(&format!("[metrics]\nlisten = \"127.0.0.1:{}\"", port.number()));
    reconfigured(&mut scene, &config).await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap();
    scene.cri().pull(&unsigned).await.unwrap_err();

    let figures = asked(TcpStream::connect(("127.0.0.1", port.number())).await.unwrap()).await;
    let decisions = |method: &str, verdict: &str, code: &str| {
        let labels = format!("{{method=\"{method}\",verdict=\"{verdict}\",rule=\"content-trust\",code=\"{code}\"}}");
        figures.get(&format!("countersign_decisions_total{labels}")).copied()
    };
    assert_eq!(decisions("PullImage", "allow", ""), Some(1.0), "{figures:#?}");
    assert_eq!(decisions("CreateContainer", "allow", ""), Some(2.0));
    assert_eq!(decisions("PullImage", "deny", "CS-TAG-NOT-SIGNED"), Some(1.0));
    let repository = format!("{{repository=\"{}\"}}", scene.world.gun("team/app"));
    let days = figures[&format!("countersign_trust_data_ends_in_days{repository}")];
    assert!((12.0..=14.0).contains(&days), "{days}");
    let age = figures[&format!("countersign_trust_data_age_seconds{repository}")];
    assert!((0.0..600.0).contains(&age), "{age}");
    assert_eq!((figures["countersign_trust_repositories"], figures["countersign_audit_write_failures_total"]), (1.0, 0.0));
    assert!(figures["countersign_decision_seconds_sum{method=\"CreateContainer\",verdict=\"allow\"}"] < 5.0);
    assert!(figures.keys().all(|name| !name.contains(&unsigned)), "no image is a label");
    for name in ["events_heard", "self_proof_enforced", "self_proof_timestamp_seconds", "inventory_timestamp_seconds", "let_pass_total"] {
        assert!(figures.contains_key(&format!("countersign_{name}")), "{name}: {figures:#?}");
    }
    for kind in ["CONTAINER", "TASK", "NAMESPACE", "IMAGE"] {
        for name in ["bypasses_total", "bypass_stopped_total"] {
            assert_eq!(figures.get(&format!("countersign_{name}{{kind=\"CS-BYPASS-{kind}\"}}")), Some(&0.0), "{figures:#?}");
        }
    }
    for evidence in ["valid", "missing", "grandfathered", "not-needed", "unknown"] {
        assert!(figures.contains_key(&format!("countersign_containers_running{{evidence=\"{evidence}\"}}")), "{figures:#?}");
    }

    // The same on a socket of root's own.
    let socket = scene.world.folder.sub("gate").join("metrics.sock");
    let config = scene.config.clone().table(&format!("[metrics]\nlisten = \"{}\"", socket.display()));
    reconfigured(&mut scene, &config).await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let figures = asked(UnixStream::connect(&socket).await.unwrap()).await;
    assert_eq!(figures["countersign_trust_repositories"], 1.0, "what is held is known before anybody asks for an image");
    TcpStream::connect(("127.0.0.1", port.number())).await.unwrap_err();
}

#[tokio::test]
async fn the_trial_of_the_gate_is_no_decision_and_its_name_hides_nobody_elses() {
    let mut scene = Scene::new("the_trial_is_no_decision").await;
    let port = Port::free();
    let config = scene.config.clone().mode("permissive").table(&format!("[metrics]\nlisten = \"127.0.0.1:{}\"", port.number()));
    reconfigured(&mut scene, &config).await;
    let scrape = async || asked(TcpStream::connect(("127.0.0.1", port.number())).await.unwrap()).await;
    let deadline = tokio::time::Instant::now() + PROVEN_WITHIN;
    let figures = loop {
        let figures = scrape().await;
        if figures["countersign_self_proof_enforced"] > 0.0 {
            break figures;
        }
        assert!(tokio::time::Instant::now() < deadline, "{figures:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(figures["countersign_self_proof_timestamp_seconds"] > 1_700_000_000.0, "{figures:#?}");
    assert_eq!(figures["countersign_self_proofs_total{outcome=\"enforced\"}"], 1.0, "{figures:#?}");
    assert_eq!(figures["countersign_self_proofs_total{outcome=\"wrongly-allowed\"}"], 0.0, "{figures:#?}");
    assert!(figures.keys().all(|name| !name.starts_with("countersign_decisions_total")), "{figures:#?}");
    assert!(fs::read_to_string(log_file(&scene)).unwrap_or_default().is_empty());

    // A tenant says its name: denied, whatever the mode is, and on record.
    let reserved = "self-proof.countersign.invalid/00ff/good:signed";
    scene.cri().pull(reserved).await.unwrap_err();
    let found = lines(&scene);
    assert_eq!(found.iter().map(told).collect::<Vec<_>>(), [("PullImage", "deny", "CS-SELF-PROOF")], "{found:#?}");
    assert_eq!(found[0]["image"], reserved);
    let denied = scrape().await.into_iter().find(|(name, _)| name.contains("code=\"CS-SELF-PROOF\""));
    assert!(denied.is_some_and(|(_, count)| count == 1.0));
}

#[tokio::test]
async fn what_a_rule_does_not_judge_is_on_record_and_no_credential_is() {
    let mut scene = Scene::new("what_a_rule_does_not_judge").await;
    let free = scene.world.push(&Recipe::prints("free").build(), "free/app", "1").await;
    let config = scene.config.clone().rule(&scene.world.gun("free/*"), "name = \"free\"\nmode = \"disabled\"");
    reconfigured(&mut scene, &config).await;
    assert_eq!(scene.cri().run(&free, "lenient").await.unwrap().output, "free\n");
    let login = Login { user: "somebody", password: "a-secret-of-this-test" };
    drop(scene.cri().pull_with(&scene.name, Some(login), None).await);
    let found = lines(&scene);
    let expected = [("PullImage", "not-judged", ""), ("CreateContainer", "not-judged", ""), ("StartContainer", "not-judged", "")];
    assert_eq!(found.iter().map(told).take(3).collect::<Vec<_>>(), expected, "{found:#?}");
    assert!(found.iter().take(3).all(|line| line["namespace"] == "lenient" && line["rule"] == "free"), "{found:#?}");
    let (code, answer) = explained(&scene, &id(&found[0])).await;
    assert_eq!(code, Some(3), "{answer:#}");
    assert!(answer["missing"][0].as_str().unwrap().contains("nothing was judged"), "{answer:#}");
    assert!(found.len() > 3, "the pull with a credential has a line: {found:#?}");
    let text = format!("{}{}", fs::read_to_string(log_file(&scene)).unwrap(), scene.world.gate.as_ref().unwrap().log());
    assert!(!text.contains("a-secret-of-this-test"), "a credential is written down");
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_told_and_calls_go_on_until_it_takes_lines_again() {
    let mut scene = Scene::new("a_log_that_takes_nothing").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let port = Port::free();
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    let audit = gate.state().join("audit");
    mount_small(&audit);
    fill(&audit.join("filler"));
    gate.configure(&scene.config.clone().table(&format!("[metrics]\nlisten = \"127.0.0.1:{}\"", port.number())));
    gate.start_again().await;
    let file = configuration(&scene);
    let status = async || {
        let (exit, out, err) = countersign(&["status", "--output", "json", "--config", &file]).await;
        (exit, serde_json::from_str::<Value>(&out).unwrap_or_else(|_| panic!("{out}{err}")))
    };

    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n", "a signed image runs");
    let refused = scene.cri().pull(&unsigned).await.unwrap_err();
    assert!(refused.message().ends_with("(CS-TAG-NOT-SIGNED)"), "{refused:?}");

    let figures = asked(TcpStream::connect(("127.0.0.1", port.number())).await.unwrap()).await;
    let failures = figures["countersign_audit_write_failures_total"];
    assert!(failures >= 4.0, "{figures:#?}");
    let (exit, told) = status().await;
    assert!(exit == Some(1) && told["audit-fault"].as_str().is_some_and(|fault| fault.contains("could not be written")), "{told:#}");
    let (_, findings, _) = countersign(&["doctor", "--output", "json", "--config", &file]).await;
    let findings: Value = serde_json::from_str(&findings).unwrap();
    let finding = findings["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "audit log");
    assert!(finding.is_some_and(|finding| finding["state"] == "WARN" && finding["says"] == told["audit-fault"]), "{findings:#}");
    assert!(scene.world.gate.as_ref().unwrap().log().contains("decisions could not be written to the audit log"));

    fs::remove_file(audit.join("filler")).unwrap();
    scene.cri().pull(&unsigned).await.unwrap_err();
    let found = all_lines(&scene);
    assert_eq!(found[0]["lost-decisions"].as_f64(), Some(failures), "the log says itself what it lacks: {found:#?}");
    assert_eq!(told_last(&found), ("PullImage", "deny", "CS-TAG-NOT-SIGNED"));
    assert_eq!(status().await.1["audit-fault"], Value::Null);
}

fn told_last(lines: &[Value]) -> (&str, &str, &str) {
    told(lines.last().unwrap())
}
