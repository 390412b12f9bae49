//! `countersign verify` and `countersign config check`: what scripts and people get, with the daemon and without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::faults::Scene;
use super::gate::binary;
use super::harness::faulty::Answer;
use super::harness::gate::verify;
use super::harness::process::{lossy, run};

/// Exit code, standard output and standard error.
pub(crate) async fn countersign(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(args);
    let output = run(command).await;
    (output.status.code(), lossy(&output.stdout), lossy(&output.stderr))
}

pub(crate) fn configuration(scene: &Scene) -> String {
    scene.world.gate.as_ref().unwrap().configuration().to_str().unwrap().to_owned()
}

/// The same answers, whoever judges. Nothing is held yet when it begins.
async fn ask_everything(scene: &Scene) {
    let file = configuration(scene);
    let asked_of_registry = scene.world.registry.requests().len();

    scene.front.answer("", Answer::status(503));
    let (code, out, err) = countersign(&["verify", &scene.name, "--config", &file]).await;
    let reason = format!("error contacting trust server: {} cannot answer now (HTTP 503) (for {})", scene.front.url(), scene.name);
    assert_eq!((code, err.as_str()), (Some(3), ""), "{out}");
    assert!(out.starts_with(&format!("cannot-tell-now  {}\n  reason  {reason}", scene.name)), "{out}");
    assert!(out.ends_with("\n  code    CS-SERVER-BUSY\n"), "{out}");
    let answer = verify(binary(), Path::new(&file), &scene.name).await;
    assert_eq!((answer.exit_code, answer.output["verdict"].as_str()), (Some(3), Some("cannot-tell-now")), "{}", answer.text);
    assert_eq!((answer.output["code"].as_str(), answer.output["image"].as_str()), (Some("CS-SERVER-BUSY"), Some(scene.name.as_str())));

    scene.front.mend();
    let unsigned = format!("{}2", scene.name);
    let (code, out, err) = countersign(&["verify", &unsigned, "--config", &file]).await;
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.starts_with(&format!("deny  {unsigned}\n  reason  image or trust data does not exist for {unsigned}: ")), "{out}");
    assert!(out.ends_with("\n  code    CS-TAG-NOT-SIGNED\n"), "{out}");
    let answer = verify(binary(), Path::new(&file), &unsigned).await;
    assert_eq!((answer.exit_code, answer.output["verdict"].as_str()), (Some(1), Some("deny")), "{}", answer.text);
    assert_eq!(answer.output["code"].as_str(), Some("CS-TAG-NOT-SIGNED"));

    let (code, out, err) = countersign(&["verify", &scene.name, "--config", &file]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let digest = scene.image.digest().to_string();
    assert!(out.starts_with(&format!("allow  {}\n  digest       {digest}\n  signed as    1 in targets\n", scene.name)), "{out}");
    assert!(out.contains("\n  trust data   up to date with the trust server\n"), "{out}");
    let answer = verify(binary(), Path::new(&file), &scene.name).await;
    assert_eq!((answer.exit_code, answer.output["verdict"].as_str()), (Some(0), Some("allow")), "{}", answer.text);
    assert_eq!((answer.output["digest"].as_str(), answer.output["from-held-evidence"].as_bool()), (Some(digest.as_str()), Some(false)));

    scene.front.answer("", Answer::status(503));
    let answer = verify(binary(), Path::new(&file), &scene.name).await;
    assert_eq!((answer.exit_code, answer.output["from-held-evidence"].as_bool()), (Some(0), Some(true)), "{}", answer.text);
    let (code, out, _) = countersign(&["verify", &scene.name, "--config", &file]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("\n  trust data   held by this node; the trust server could not be reached\n"), "{out}");
    scene.front.mend();

    assert_eq!(scene.world.registry.requests().len(), asked_of_registry, "no registry is asked: {:?}", scene.world.registry.requests());
}

#[tokio::test]
async fn the_daemon_answers_verify_and_no_registry_is_asked() {
    let scene = Scene::new("the_daemon_answers_verify").await;
    ask_everything(&scene).await;
    assert!(!scene.world.containerd.ctr().records().await.unwrap().iter().any(|(name, _)| name.contains("team/app")), "nothing is pulled");
}

#[tokio::test]
async fn without_a_daemon_verify_opens_the_ledger_itself_and_leaves_it_good() {
    for crash in [false, true] {
        let mut scene = Scene::new(&format!("without_a_daemon_verify_{crash}")).await;
        let gate = scene.world.gate.as_mut().unwrap();
        if crash {
            gate.kill()
        } else {
            gate.server.stop()
        }
        assert!(gate.admin_socket().exists(), "the socket's file is left behind, and nobody answers there");
        ask_everything(&scene).await;

        let gate = scene.world.gate.as_mut().unwrap();
        gate.start_again().await;
        scene.front.answer("", Answer::status(503));
        let id = scene.cri().pull(&scene.name).await.unwrap();
        assert_eq!(id, scene.image.id().to_string(), "what verify had fetched is held");
    }
}

#[tokio::test]
async fn a_ledger_that_a_daemon_has_open_is_not_touched() {
    let scene = Scene::new("a_ledger_that_a_daemon_has_open").await;
    scene.cri().pull(&scene.name).await.unwrap();
    let gate = scene.world.gate.as_ref().unwrap();
    let ledger = gate.state().join("ledger/ledger.redb");
    // It may have something of its own to write.
    gate.server.pause();
    let before = fs::read(&ledger).unwrap();
    // The same ledger with another socket: as if the daemon were running under another configuration.
    let text = fs::read_to_string(gate.configuration()).unwrap().replace("admin.sock", "elsewhere.sock");
    let file = scene.world.folder.configuration("elsewhere.toml", &text);
    let asked = scene.front.seen().len();

    let (code, out, err) = countersign(&["verify", &scene.name, "--config", file.to_str().unwrap()]).await;

    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    let socket = gate.admin_socket().with_file_name("elsewhere.sock");
    let sentence =
        format!("countersign: no daemon answers at {}, and its ledger is in use: another process has the ledger", socket.display());
    assert!(err.starts_with(&sentence), "{err}");
    assert_eq!((fs::read(&ledger).unwrap() == before, scene.front.seen().len()), (true, asked));
    gate.server.resume();
    assert_eq!(gate.verify(&scene.name).await.exit_code, Some(0), "the daemon answers as before");
}

#[tokio::test]
async fn wrong_usage_and_a_wrong_configuration_end_with_2_and_say_where() {
    let scene = Scene::new("wrong_usage").await;
    let file = configuration(&scene);
    let missing = scene.world.folder.path().join("missing.toml");
    let missing = missing.to_str().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let unknown_key = write(&scene, "unknown-key.toml", &good.replace("mode = ", "moed = "));
    let broken = write(&scene, "broken.toml", &format!("{good}\n[[registries]\n"));
    let line = |text: &str, part: &str| 1 + text.lines().position(|line| line.contains(part)).unwrap();
    let unknown_at = format!("unknown-key.toml:{}:1: unknown key `content-trust.moed`; did you mean `mode`?", line(&good, "mode = "));
    let broken_at = format!("broken.toml:{}:", good.lines().count() + 2);
    let (unknown_key, broken) = (unknown_key.to_str().unwrap(), broken.to_str().unwrap());

    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (vec!["verfy", "x"], "a similar subcommand exists: 'verify'"),
        (vec!["verify"], "required arguments were not provided"),
        (vec!["verify", "x:1", "--output", "yaml", "--config", &file], "invalid value 'yaml'"),
        (vec!["verify", "registry.example/UPPER:1", "--config", &file], "countersign: `UPPER` is not a repository path"),
        (vec!["verify", "", "--config", &file], "countersign: the image name is empty"),
        (vec!["verify", &scene.name, "--config", missing], "missing.toml: "),
        (vec!["verify", &scene.name, "--config", unknown_key], &unknown_at),
        (vec!["verify", &scene.name, "--config", broken], &broken_at),
        (vec!["serve", "--config", missing], "missing.toml: "),
        (vec!["config", "check", unknown_key], &unknown_at),
        (vec!["config", "check", broken], &broken_at),
        (vec!["config", "check", missing], "missing.toml: "),
    ];
    for (args, sentence) in cases {
        let (code, out, err) = countersign(&args).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
        assert!(err.contains(sentence), "{args:?}: expected `{sentence}` in {err}");
    }
    let (code, out, err) = countersign(&["config", "check", &file]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("{file}: good (mode enforced, 1 registries)\n"));
    assert_eq!(scene.front.connections(), 0);
}

fn write(scene: &Scene, name: &str, text: &str) -> PathBuf {
    scene.world.folder.configuration(name, text)
}
