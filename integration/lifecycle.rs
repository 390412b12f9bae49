//! Start and stop: sockets, readiness, the drain, and a containerd that comes and goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tonic::Code;

use super::faults::Scene;
use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::container;
use super::harness::faulty::Answer;

/// How long anything may take that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(5);

on_every_containerd! {
    without_containerd_calls_are_answered_clearly_and_go_on_when_it_is_back,
    a_pull_that_runs_when_the_daemon_is_told_to_stop_is_finished,
}

async fn without_containerd_calls_are_answered_clearly_and_go_on_when_it_is_back(containerd: Version) {
    let mut scene = Scene::on(containerd, "without_containerd").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    scene.world.containerd.server.kill();

    let gone = format!("containerd does not answer at {}: ", scene.world.containerd.socket().display());
    let for_record = format!("containerd at {} could not be reached for Containers.Get: ", scene.world.containerd.socket().display());
    let transparent = scene.cri().version().await.unwrap_err();
    let pull = scene.cri().pull(&scene.name).await.unwrap_err();
    let create = scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap_err();
    let start = scene.cri().start(&ran.container).await.unwrap_err();
    for (refused, sentence, end) in [
        (transparent, &gone, "; see `systemctl status containerd`"),
        (pull, &gone, "; see `systemctl status containerd`"),
        (create, &gone, "; see `systemctl status containerd` (CS-CONTAINERD)"),
        (start, &for_record, "; see `systemctl status containerd` (CS-CONTAINERD)"),
    ] {
        // Nothing is wrong with the image or a registry, so neither of the words that say so.
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().starts_with(sentence.as_str()) && refused.message().ends_with(end), "{refused:?}");
        assert!(!refused.message().contains("transport"), "no inner workings: {refused:?}");
    }

    scene.world.containerd.server.start().await;
    scene.world.cri().ready().await;
    scene.serves().await;
    assert_eq!(scene.cri().run(&scene.name, "default").await.unwrap().output, "signed\n");
    let created = scene.cri().create(&ran.pod, container(&ran.image, &scene.name)).await.unwrap();
    scene.cri().start(&created).await.unwrap();
}

async fn a_pull_that_runs_when_the_daemon_is_told_to_stop_is_finished(containerd: Version) {
    let mut scene = Scene::on(containerd, "a_pull_that_runs_when_told_to_stop").await;
    let notified = Notified::at(&scene.world.folder.sub("notify").join("socket"));
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.set_env("NOTIFY_SOCKET", notified.path.clone());
    gate.restart().await;
    assert_eq!(notified.next().await.as_deref(), Some("READY=1"));
    scene.front.answer("timestamp.json", Answer::Later(Duration::from_millis(1500)));
    let (cri, name) = (scene.cri().clone(), scene.name.clone());
    let pull = tokio::spawn(async move { cri.pull(&name).await });
    while scene.front.count("timestamp.json") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.begin_stop();
    assert_eq!(notified.next().await.as_deref(), Some("STOPPING=1"));
    assert!(!pull.is_finished(), "systemd is told at the beginning of the drain");

    assert_eq!(pull.await.unwrap().unwrap(), scene.image.id().to_string());
    let status = gate.server.ended(SOON).await.expect("the daemon ends after its last call");
    assert_eq!(status.code(), Some(0));
    assert!(!gate.log().contains("drain limit reached"));
    let records = scene.world.containerd.ctr().records().await.unwrap();
    assert!(records.iter().any(|(record, _)| *record == scene.name), "the tag record was written: {records:?}");
}

#[tokio::test]
async fn a_daemon_with_idle_callers_stops_at_once() {
    let mut scene = Scene::new("a_daemon_with_idle_callers").await;
    scene.serves().await;
    let began = Instant::now();
    // The test's only thread waits here, so its own connection answers nothing, as a caller that hangs.
    scene.world.gate.as_mut().unwrap().server.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(scene.world.gate.as_ref().unwrap().log().contains("stopped"), "it was not killed");
}

#[tokio::test]
async fn systemd_is_told_ready_only_after_containerd_has_answered() {
    let mut scene = Scene::new("systemd_is_told_ready").await;
    let notified = Notified::at(&scene.world.folder.sub("notify").join("socket"));
    scene.world.containerd.server.kill();
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    gate.server.set_env("NOTIFY_SOCKET", notified.path.clone());
    gate.server.start().await;
    assert_eq!(scene.cri().version().await.unwrap_err().code(), Code::Unavailable, "the daemon is up");
    assert!(tokio::time::timeout(Duration::from_millis(700), notified.receive()).await.is_err(), "and not ready");

    scene.world.containerd.server.start().await;
    assert_eq!(notified.next().await.as_deref(), Some("READY=1"));
    scene.serves().await;
}

#[tokio::test]
async fn systemds_watchdog_is_fed_for_as_long_as_enforcement_is_proven() {
    let mut scene = Scene::new("systemds_watchdog").await;
    let notified = Notified::at(&scene.world.folder.sub("notify").join("socket"));
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    gate.server.set_env("NOTIFY_SOCKET", notified.path.clone());
    gate.server.set_env("WATCHDOG_USEC", "1000000");
    gate.server.start().await;
    // systemd would end it after a second without a word: it must come in time again and again.
    let mut fed = 0;
    while fed < 5 {
        let message = notified.next().await.expect("no word within the time");
        assert_ne!(message, "WATCHDOG=trigger");
        fed += usize::from(message == "WATCHDOG=1");
    }
}

/// The socket on which systemd would listen.
struct Notified {
    path: String,
    socket: UnixDatagram,
}

impl Notified {
    fn at(path: &Path) -> Self {
        Self { path: path.to_str().unwrap().to_owned(), socket: UnixDatagram::bind(path).unwrap() }
    }

    async fn receive(&self) -> String {
        let mut message = [0; 1024];
        let length = self.socket.recv(&mut message).await.unwrap();
        String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
    }

    async fn next(&self) -> Option<String> {
        tokio::time::timeout(SOON, self.receive()).await.ok()
    }
}

/// Starts the daemon as systemd does, with its two sockets as file descriptors 3 and 4. The shell moves them there.
fn activated(cri: UnixListener, admin: UnixListener, configuration: &Path) -> Child {
    let script = r#"exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec "$0" serve --config "$1""#;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", script]).arg(binary()).arg(configuration);
    command.stdin(Stdio::from(OwnedFd::from(cri))).stdout(Stdio::from(OwnedFd::from(admin))).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

fn listener(path: &Path, mode: u32) -> UnixListener {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    listener
}

#[tokio::test]
async fn sockets_of_systemd_are_served_and_calls_that_came_before_the_daemon_are_answered() {
    let mut scene = Scene::new("sockets_of_systemd").await;
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    let sockets = (listener(&gate.socket(), 0o600), listener(&gate.admin_socket(), 0o600));
    let cri = scene.world.containerd.cri_through(&scene.world.gate.as_ref().unwrap().socket());
    let early = tokio::spawn(async move { cri.version().await });
    tokio::time::sleep(Duration::from_millis(100)).await;

    let _daemon = activated(sockets.0, sockets.1, scene.world.gate.as_ref().unwrap().configuration());
    assert_eq!(early.await.unwrap().unwrap().runtime_name, "containerd");
    assert_eq!(scene.cri().pull(&scene.name).await.unwrap(), scene.image.id().to_string());
    let answer = scene.world.gate.as_ref().unwrap().verify(&scene.name).await;
    assert_eq!(answer.exit_code, Some(0), "the operator's socket is served, too: {}", answer.text);
}

#[tokio::test]
async fn a_socket_of_systemd_that_others_can_reach_is_refused() {
    let mut scene = Scene::new("a_socket_that_others_can_reach").await;
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    for (cri_mode, admin_mode, wide) in [(0o666, 0o600, gate.socket()), (0o600, 0o660, gate.admin_socket())] {
        let sockets = (listener(&gate.socket(), cri_mode), listener(&gate.admin_socket(), admin_mode));
        let daemon = activated(sockets.0, sockets.1, gate.configuration());
        let ended = tokio::time::timeout(SOON, daemon.wait_with_output()).await.expect("it refuses to start").unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let mode = cri_mode.max(admin_mode);
        let sentence = format!(
            "the socket {} has mode {mode:04o}; others must not connect: set `SocketMode=0600` in the systemd socket unit, or remove the file",
            wide.display()
        );
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(&sentence), "{said}");
    }
}
