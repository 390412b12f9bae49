//! The recorder with its log and its archive, on a node that holds nothing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use countersign::admit::{Admit, Policy, Refusal};
use countersign::audit::{
    Archive, Call, DecisionId, Entry, KeptPolicy, Line, LogSettings, Missing, NotReplayed, Recorder, Replayer, Verdict, WATCH,
};
use countersign::clock::SystemClock;
use countersign::containerd::Containerd;
use countersign::ledger::Ledger;
use countersign::metrics::Metrics;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, Sha256};
use countersign_trust::pin::Pins;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::policy_of;

const IMAGE: &str = "r.test/team/app:1";

/// Nothing is pinned, so that local data refuses everything.
fn unpinned() -> Policy {
    policy_of::with(countersign_trust::Policy::new(Mode::Enforced, Pins::default()), HashMap::new(), Sha256::of(b"unpinned"))
}

struct Node {
    admit: Arc<Admit>,
    recorder: Recorder,
    metrics: Metrics,
    settings: LogSettings,
    archive: Arc<Archive>,
    _ledger: TempDir,
}

impl Node {
    /// A node that writes its log below `directory`.
    fn on(directory: &Path) -> Self {
        let (ledger, metrics) = (TempDir::new().unwrap(), Metrics::new());
        let containerd = Containerd::new(Path::new("/nowhere"));
        let admit = Admit::new(unpinned(), Arc::new(SystemClock), containerd, Ledger::open(ledger.path()), Handle::current());
        let (admit, archive) = (Arc::new(admit), Arc::new(Archive::open(directory).unwrap()));
        let settings = LogSettings { path: directory.join("decisions.jsonl"), max_bytes: 1 << 20, makes_directory: false };
        let recorder = Recorder::new(Arc::clone(&admit), settings.clone(), Some(Arc::clone(&archive)), &metrics, Handle::current());
        Self { admit, recorder, metrics, settings, archive, _ledger: ledger }
    }

    fn refuse(&self, image: &str) -> DecisionId {
        let call = Call { method: "PullImage", image, namespace: Some("team-a"), container: None, began: Instant::now() };
        self.recorder.denied(call, &not_registered(image))
    }

    fn lines(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.settings.path).unwrap_or_default();
        text.lines().map(|line| Entry::read(line.as_bytes())).collect()
    }

    fn replayer(&self, policy_of: impl Fn(&KeptPolicy, &Sha256) -> Result<Policy, String> + Send + Sync + 'static) -> Replayer {
        Replayer::new(Arc::clone(&self.admit), self.settings.clone(), Some(Arc::clone(&self.archive)), policy_of)
    }
}

fn not_registered(image: &str) -> Refusal {
    let host = image.parse::<ImageReference>().map_or_else(|_| "r.test".parse().unwrap(), |image| image.repository().host().clone());
    Refusal::NotRegistered { host }
}

fn decision(entry: &Entry) -> &Line {
    let Entry::Decision(line) = entry else { panic!("{entry:?}") };
    line
}

#[tokio::test]
async fn a_refusal_by_local_data_has_its_line() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let id = node.refuse(IMAGE);
    let lines = node.lines();
    let line = decision(&lines[0]);
    assert_eq!((lines.len(), line.id, line.v), (1, id, 1));
    assert_eq!((line.method.as_str(), line.image.as_str(), line.namespace.as_deref()), ("PullImage", IMAGE, Some("team-a")));
    assert_eq!((line.verdict, line.code.as_deref(), line.replayable), (Verdict::Deny, Some("CS-NOT-REGISTERED"), true));
    assert_eq!((line.evidence.as_deref(), line.policy.as_str()), (None, Sha256::of(b"unpinned").to_string().as_str()));
    assert_eq!(line.rule.as_deref(), Some("content-trust"), "what answers where no rule does");
}

#[tokio::test]
async fn what_a_caller_writes_is_escaped_and_cut() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    node.refuse("evil\n{\"v\":1}\u{1b}[2J");
    node.refuse(&"x".repeat(100_000));
    let text = fs::read_to_string(&node.settings.path).unwrap();
    assert_eq!(text.lines().count(), 2, "a name is no line of its own");
    assert!(text.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()));
    assert!(text.len() < 4000, "{}", text.len());
    assert_eq!(decision(&node.lines()[0]).image, "evil\\n{\\\"v\\\":1}\\u{1b}[2J");
}

#[tokio::test]
async fn decisions_are_counted_by_what_they_are_and_never_by_image() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    for number in 0..50 {
        node.refuse(&format!("r.test/team/app-{number}:1"));
    }
    let call = Call { method: "StartContainer", image: IMAGE, namespace: None, container: Some("c"), began: Instant::now() };
    node.recorder.let_pass(call, &not_registered(IMAGE));
    let text = node.metrics.text();
    let decisions: Vec<&str> = text.lines().filter(|line| line.starts_with("countersign_decisions_total")).collect();
    assert_eq!(decisions.len(), 2, "{text}");
    for (method, verdict, count) in [("PullImage", "deny", 50), ("StartContainer", "let-pass", 1)] {
        let labels = format!("{{method=\"{method}\",verdict=\"{verdict}\",rule=\"content-trust\",code=\"CS-NOT-REGISTERED\"}} {count}");
        assert!(decisions.contains(&format!("countersign_decisions_total{labels}").as_str()), "{text}");
    }
    assert!(text.contains("\ncountersign_let_pass_total 1\n") && text.contains("\ncountersign_audit_write_failures_total 0\n"), "{text}");
    let seconds = "countersign_decision_seconds_count{method=\"PullImage\",verdict=\"deny\"} 50";
    assert!(text.lines().any(|line| line == seconds), "{text}");
}

#[tokio::test]
async fn what_came_past_the_gate_has_its_lines_is_not_counted_as_a_decision_and_cannot_be_come_to_again() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let seen = |container| Call { method: WATCH, image: IMAGE, namespace: None, container: Some(container), began: Instant::now() };
    let id = node.recorder.past_the_gate(seen("made"), "CS-BYPASS-CONTAINER", "a container was made past the gate\n");
    node.recorder.stopped(seen("made"), "CS-BYPASS-CONTAINER", "a container was made past the gate\n");

    let lines = node.lines();
    let [told, stopped] = [decision(&lines[0]), decision(&lines[1])];
    assert_eq!((told.verdict, stopped.verdict), (Verdict::PastTheGate, Verdict::Stopped));
    for line in [told, stopped] {
        assert_eq!((line.method.as_str(), line.container.as_deref(), line.image.as_str()), ("Watch", Some("made"), IMAGE));
        assert_eq!((line.code.as_deref(), line.replayable), (Some("CS-BYPASS-CONTAINER"), false));
        assert_eq!(line.reason.as_deref(), Some("a container was made past the gate\\n"), "one line");
    }
    assert!(!node.metrics.text().contains("CS-BYPASS-CONTAINER"), "the watcher has figures of its own");
    let replayed = node.replayer(|_, _| Ok(unpinned())).replay(id).unwrap();
    assert_eq!((replayed.missing, replayed.then.is_none(), replayed.today.is_none()), (vec![Missing::PastTheGate], true, true));
}

#[tokio::test]
async fn what_makes_containers_past_the_gate_all_day_does_not_push_everything_else_out_of_the_log() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    for number in 0..100 {
        let container = format!("made-{number}");
        let call = Call { method: WATCH, image: IMAGE, namespace: None, container: Some(&container), began: Instant::now() };
        node.recorder.past_the_gate(call, "CS-BYPASS-NAMESPACE", "a container was made in another namespace");
        node.recorder.stopped(call, "CS-BYPASS-CONTAINER", "a container was made past the gate");
    }
    let with = |verdict| node.lines().iter().filter(|entry| decision(entry).verdict == verdict).count();
    assert_eq!((with(Verdict::PastTheGate), with(Verdict::Stopped)), (8, 100), "what was done has its line each time");
}

#[tokio::test]
async fn what_came_past_the_gate_otherwise_than_eight_others_has_its_line() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let past = |image, container, reason| {
        let call = Call { method: WATCH, image, namespace: None, container: Some(container), began: Instant::now() };
        node.recorder.past_the_gate(call, "CS-BYPASS-CONTAINER", reason)
    };
    for _ in 0..20 {
        past(IMAGE, "signed", "a container was made past the gate; its image has valid evidence");
    }
    let id = past(IMAGE, "unsigned", "a container was made past the gate; nothing that was verified has these files");
    let lines = node.lines();
    assert_eq!(lines.len(), 9);
    assert_eq!((decision(&lines[8]).id, decision(&lines[8]).container.as_deref()), (id, Some("unsigned")));
}

#[tokio::test]
async fn containers_without_an_image_past_the_gate_leave_room_for_counting_refusals() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    for number in 0..2000 {
        let container = format!("made-{number}");
        let call = Call { method: WATCH, image: "", namespace: None, container: Some(&container), began: Instant::now() };
        node.recorder.past_the_gate(call, "CS-BYPASS-NAMESPACE", "a container was made in another namespace: moby");
        let call = Call { image: &container, ..call };
        node.recorder.past_the_gate(call, "CS-BYPASS-NAMESPACE", "a container was made in another namespace: moby");
    }
    let has_repeats = |count: u32| node.metrics.text().contains(&format!("\ncountersign_audit_repeated_decisions_total {count}\n"));
    assert!(has_repeats(2000 - 8), "those without an image are all alike");
    for _ in 0..20 {
        node.refuse(IMAGE);
    }
    assert!(has_repeats(2000 - 8 + 20 - 8), "{}", node.metrics.text());
}

#[tokio::test]
async fn whoever_follows_gets_what_is_there_and_what_comes_once_each() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let first = node.refuse(IMAGE);
    let (reading, mut followed) = node.recorder.follow().unwrap();
    let second = node.refuse(IMAGE);
    assert!(reading.find(second).unwrap().is_none(), "it came after");
    assert!(node.recorder.reading().unwrap().find(first).unwrap().is_some());
    let line = followed.recv().await.unwrap();
    assert_eq!(decision(&Entry::read(line.as_bytes())).id, second);
    assert!(followed.try_recv().is_err());
}

#[tokio::test]
async fn a_decision_by_local_data_comes_out_the_same_and_today_may_be_another() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let id = node.refuse(IMAGE);
    let kept = KeptPolicy { path: "c.toml".into(), text: "then".into(), files: std::collections::BTreeMap::new() };
    let of_then = |kept: &KeptPolicy, _: &Sha256| if kept.text == "then" { Ok(unpinned()) } else { Err("another".to_owned()) };

    let replayed = node.replayer(of_then).replay(id).unwrap();
    assert_eq!(replayed.missing, [Missing::Policy(Sha256::of(b"unpinned").to_string())], "nobody kept it");
    assert!(replayed.then.is_none() && replayed.today.is_some_and(|today| today.is_same));

    node.archive.keep_policy(Sha256::of(b"unpinned"), &kept).unwrap();
    let replayed = node.replayer(of_then).replay(id).unwrap();
    assert_eq!((replayed.missing.as_slice(), replayed.line.id), ([].as_slice(), id));
    assert!(replayed.then.is_some_and(|then| then.is_same));

    let replayed = node.replayer(|_, _| Err("it is of another version".into())).replay(id).unwrap();
    assert!(matches!(&replayed.missing[..], [Missing::PolicyUnusable { why, .. }] if why == "it is of another version"));
    let unknown = "00".repeat(12).parse().unwrap();
    assert!(matches!(node.replayer(of_then).replay(unknown), Err(NotReplayed::NoSuchDecision(id)) if id == unknown));
}

#[tokio::test]
async fn what_rested_on_containerd_is_not_said_to_be_replayed() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let call = Call { method: "CreateContainer", image: IMAGE, namespace: None, container: None, began: Instant::now() };
    let id = node.recorder.denied(call, &Refusal::ContainerdAway { said: "it is away".into() });
    let replayed = node.replayer(|_, _| Ok(unpinned())).replay(id).unwrap();
    assert_eq!((replayed.line.verdict, replayed.line.replayable), (Verdict::CannotTellNow, false));
    assert_eq!(replayed.missing[0], Missing::Circumstances("CS-CONTAINERD".into()));
}

/// A file system of its own.
struct Mount(TempDir);

impl Mount {
    fn small() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) { Some(Self(directory)) } else { None }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test must not pass in silence")]
async fn a_full_disk_stops_no_decision_and_the_log_says_what_it_lacks() {
    let Some(mount) = Mount::small() else {
        eprintln!("skipped: a tmpfs cannot be mounted here (not root?)");
        return;
    };
    let node = Node::on(mount.0.path());
    let before = node.refuse(IMAGE);
    let ballast = mount.0.path().join("ballast");
    drop(fs::write(&ballast, vec![1; 1 << 20]));
    // What the last page of the file still takes is taken.
    let refused: Vec<DecisionId> = (0..40).map(|number| node.refuse(&format!("r.test/team/app:{number}"))).collect();
    assert_eq!(refused.len(), 40);
    let whole = node.lines();
    assert!(whole.len() < 40 && whole.iter().all(|entry| matches!(entry, Entry::Decision(_))), "{}", whole.len());
    let text = node.metrics.text();
    let failures = format!("countersign_audit_write_failures_total {}", 41 - whole.len());
    assert!(text.lines().any(|line| line == failures), "{failures}\n{text}");

    fs::remove_file(&ballast).unwrap();
    let after = node.refuse(IMAGE);
    let lines = node.lines();
    assert_eq!(decision(&lines[0]).id, before);
    let [.., Entry::Lost(lost), Entry::Decision(last)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((lost.lost_decisions, last.id), (41 - whole.len() as u64, after));
}

#[tokio::test]
async fn a_directory_that_takes_nothing_stops_no_decision_and_raises_the_alarm() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    fs::create_dir(&node.settings.path).unwrap();
    let id = node.refuse(IMAGE);
    assert!(node.lines().is_empty());
    let text = node.metrics.text();
    assert!(text.contains("\ncountersign_audit_write_failures_total 1\n"), "{text}");
    assert!(text.contains("code=\"CS-NOT-REGISTERED\"} 1\n"), "it is counted all the same: {text}");
    fs::remove_dir(&node.settings.path).unwrap();
    let after = node.refuse(IMAGE);
    let lines = node.lines();
    let [Entry::Lost(lost), Entry::Decision(line)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((lost.lost_decisions, line.id), (1, after));
    assert!(id < after);
}

#[tokio::test]
async fn a_storm_of_the_same_refusal_leaves_what_others_have_in_the_log() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let quiet = node.refuse("r.test/quiet/app:1");
    let storm: Vec<DecisionId> = (0..20_000).map(|_| node.refuse(IMAGE)).collect();
    assert!(fs::metadata(&node.settings.path).unwrap().len() < 20_000, "nothing is rotated away");
    let found = node.recorder.reading().unwrap().find(quiet).unwrap();
    assert!(found.is_some());
    let last = *storm.last().unwrap();
    assert!(node.recorder.reading().unwrap().find(last).unwrap().is_some(), "the journal names a line that is there");
    node.recorder.finish();
    let lines = node.lines();
    let [Entry::Decision(_), .., Entry::Repeated(repeated)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((repeated.of, repeated.repeated_decisions as usize + lines.len() - 2), (last, 20_000));
    let text = node.metrics.text();
    assert!(text.contains("code=\"CS-NOT-REGISTERED\"} 20001\n"), "all are counted: {text}");
}

#[tokio::test]
async fn what_is_not_judged_is_said_to_be_so_and_cannot_be_replayed() {
    let directory = TempDir::new().unwrap();
    let node = Node::on(directory.path());
    let call = Call { method: "CreateContainer", image: IMAGE, namespace: Some("lenient"), container: None, began: Instant::now() };
    let id = node.recorder.not_judged(call);
    let replayed = node.replayer(|_, _| Ok(unpinned())).replay(id).unwrap();
    assert_eq!((replayed.line.verdict, replayed.line.code.as_deref(), replayed.line.replayable), (Verdict::NotJudged, None, false));
    assert_eq!(replayed.missing[0], Missing::NotJudged);
    assert!(replayed.today.is_some_and(|today| !today.is_same), "what would be said today is another thing");
}

#[test]
fn nothing_in_the_hot_path_waits_for_the_disk() {
    for name in ["file", "recorder", "repeats", "store", "archive"] {
        let source = fs::read_to_string(format!("{}/src/audit/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for call in [".sync_all(", ".sync_data(", "fsync(", "fdatasync(", "O_SYNC", "O_DSYNC", "OFlags::SYNC", "OFlags::DSYNC"] {
            assert!(!source.contains(call), "{name}: {call}");
        }
    }
}
