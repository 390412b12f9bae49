//! What a verdict costs: from five files signed with P-256, and from a collection of 50,000 tags.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::name::ImageReference;
use countersign_trust::pin::Pins;
use countersign_trust::policy::people::{SignerName, TeamName};
use countersign_trust::time::UnixTime;
use countersign_trust::{CanonicalKeyId, Facts, Freshness, Holding, Policy, Progress, Question, Terms, Verdict, evaluate, verify};

use crate::forge::{Forge, GUN, Key, NOW, alice, root_key, set_role};
use crate::harness::Must as _;
use crate::report::{Goal, Report};
use crate::samples::{P50, Samples};
use crate::server::{Reply, Tree};
use crate::{MICROSECONDS, MILLISECONDS};

/// A process of its own looks at the collection, so that its memory is that alone.
pub(crate) const SUBCOMMAND: &str = "judge-evidence";
const TAGS: usize = 50_000;
/// Verdicts of one kind.
const VERDICTS: usize = 400;
/// Looks at the collection.
const LOOKS: usize = 5;

/// Measures verdicts from held evidence, and a large collection.
pub(crate) fn measure(report: &mut Report, folder: &Path) {
    crate::say("verdicts: from held evidence, cold and warm; a collection of 50,000 tags");
    let policy = policy();
    let (evidence, known) = held(&mut repository(), &policy);
    let image: ImageReference = format!("{GUN}:1").parse().must("naming an image");
    let cold = timed(|| judge(&image, &evidence, &known, &policy, &mut Facts::default()));
    report.goal("verdict from held evidence, cold, p50", cold.at(P50) * 1e6, MICROSECONDS, Goal::AtMost(1000.0));
    let mut facts = Facts::default();
    judge(&image, &evidence, &known, &policy, &mut facts);
    let warm = timed(|| judge(&image, &evidence, &known, &policy, &mut facts));
    report.goal("verdict from held evidence, warm, p50", warm.at(P50) * 1e6, MICROSECONDS, Goal::AtMost(20.0));
    large_collection(report, folder);
}

fn timed(work: impl FnMut()) -> Samples {
    let mut work = work;
    let mut samples = Samples::default();
    let durations = (0..VERDICTS).map(|_| {
        let began = Instant::now();
        work();
        began.elapsed()
    });
    samples.add(durations.collect(), None);
    samples
}

fn judge(image: &ImageReference, evidence: &Evidence, known: &Known, policy: &Policy, facts: &mut Facts) {
    let held = Holding { evidence, known, allow_expired: false };
    match verify(Question::without_namespace(image), held, policy, now(), facts) {
        (Verdict::Allow(approval), _) => drop(black_box(approval)),
        (Verdict::Deny(refusal), _) => panic!("{refusal}"),
    }
}

fn now() -> UnixTime {
    UnixTime::parse_rfc3339(NOW).must("reading a time")
}

/// Root, timestamp, snapshot, targets and `targets/releases`, and a list of alice's own; every key is P-256.
fn repository() -> Forge {
    let mut forge = Forge::bare();
    let timestamp = Key::new("timestamp, P-256");
    set_role(&mut forge.root().signed, "timestamp", &[&timestamp], 1);
    forge.timestamp.signed_by(&[&timestamp]);
    for role in ["targets/releases", "targets/alice"] {
        forge.delegate("targets", role, &[&alice()], 1);
        forge.publish(role, &[&alice()]);
        forge.tag(role, "1", b"manifest");
    }
    forge
}

/// Pins the root, and demands a signature by alice's team.
fn policy() -> Policy {
    let mut pins = Pins::default();
    pins.add_root_keys(GUN, [root_key().canonical_id().as_str()]).must("pinning a root");
    let mut policy = Policy::new(Mode::Enforced, pins);
    let signer: SignerName = "alice".parse().must("naming a signer");
    let team: TeamName = "acme/dev".parse().must("naming a team");
    let key = countersign_trust::name::Sha256::from_hex(&alice().canonical_id()).must("reading a key ID");
    policy.people.add_signer(signer.clone(), [CanonicalKeyId::new(key)].into()).must("adding a signer");
    policy.people.add_team(team.clone(), [signer].into()).must("adding a team");
    policy.signed_by = [team].into();
    policy
}

/// What a node holds of the repository after it was fetched.
fn held(forge: &mut Forge, policy: &Policy) -> (Evidence, Known) {
    let sealed = forge.seal();
    let (tree, gun) = (Tree::new(&sealed.files, "repo"), Gun::for_repository(&GUN.parse().must("naming a repository")));
    let anchor = policy.pins.anchor_for(&gun).must("finding the pin");
    let mut evidence = Evidence::new(gun, "https://bench.test".into());
    let terms = Terms { anchor, policy, now: now(), freshness: Freshness::Fetching };
    loop {
        match evaluate(&evidence, &Known::default(), terms, &mut Facts::default()).must("evaluating the repository") {
            Progress::Trusted(trusted) => return (trusted.evidence().clone(), trusted.known().clone()),
            Progress::Wanting(wants) => {
                for want in wants {
                    let Reply::Answer(answer) = tree.reply(&want.file, want.limit) else { panic!("{} is not there", want.file) };
                    evidence.add(want.file, answer);
                }
            }
        }
    }
}

fn large_collection(report: &mut Report, folder: &Path) {
    let mut forge = repository();
    for tag in 0..TAGS {
        forge.tag("targets/releases", &format!("release-{tag:05}"), tag.to_string().as_bytes());
    }
    let (evidence, _) = held(&mut forge, &policy());
    let file = folder.join("large.evidence");
    fs::write(&file, evidence.encode()).must("writing evidence");
    let program = std::env::current_exe().must("finding this program");
    let (mut seconds, mut mebibytes) = (Vec::new(), 0_f64);
    for _ in 0..LOOKS {
        let output = Command::new(&program).arg(SUBCOMMAND).arg(&file).output().must("judging a large collection");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = said.split_whitespace().map(|word| word.parse::<f64>().must("reading what was measured"));
        seconds.push(std::time::Duration::from_secs_f64(words.next().must("reading a time")));
        mebibytes = mebibytes.max(words.next().must("reading a size"));
    }
    let mut samples = Samples::default();
    samples.add(seconds, None);
    report.goal(format!("{TAGS} tags, parsed and verified"), samples.at(P50) * 1e3, MILLISECONDS, Goal::AtMost(500.0));
    report.goal(format!("{TAGS} tags, most memory of the process"), mebibytes, "MiB", Goal::AtMost(64.0));
}

/// The process that looks: prints the seconds that it took and the most memory that it had, in MiB.
#[allow(clippy::print_stdout, reason = "its caller reads it")]
pub(crate) fn judge_file(file: &Path) {
    let bytes = fs::read(file).must("reading evidence");
    let policy = policy();
    let image: ImageReference = format!("{GUN}:1").parse().must("naming an image");
    let began = Instant::now();
    let evidence = Evidence::decode(&bytes).must("decoding evidence");
    // Nobody who judges keeps the file that evidence came in.
    drop(bytes);
    judge(&image, &evidence, &Known::default(), &policy, &mut Facts::default());
    let took = began.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").must("reading the process's memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).must("finding VmHWM");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().must("reading VmHWM");
    println!("{took} {}", kib / 1024.0);
}
