//! `kill -9` at every named step, and then a restart: nothing unverified runs, and nothing signed is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

mod load;
mod sandbox;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use countersign::crash::{STEPS, Step};
use k8s_cri::v1::{Container, ContainerState, PodSandboxConfig};
use tonic::Status;

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::{Cri, Pod, Ran, container};
use super::harness::gate::Gate;
use super::harness::image::{Image, Recipe};
use super::harness::relay::Relay;
use super::harness::world::World;

/// Where the daemon is to die.
const VARIABLE: &str = "COUNTERSIGN_CRASH_AT";
/// How long it may take until it is dead after the call that it died in has failed.
const DIES_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at the containers that are left.
const LOOKS_EACH: Duration = Duration::from_millis(100);
/// How long containers may take to start and to end, on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const REPOSITORY: &str = "team/app";

/// What happens on the node until the daemon comes to the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journey {
    /// It is started for the first time.
    FirstStart,
    /// It runs a pod by tag, on a node that has seen nothing yet.
    ByTag,
    /// It runs a pod by digest, on a node that has seen nothing yet.
    ByDigest,
    /// It pulls a tag whose record leads to an unsigned image, which somebody put there.
    TakenTag,
    /// It pulls a signed image that it has to refuse for its content, and that has the config of a good one that is here.
    RefusedTwin,
    /// It creates a container, and somebody switches the image's record to an unsigned image between the look at the
    /// record and the create, while CRI does not see it.
    Switched,
    /// It runs a sandbox, whose image's record leads to an unsigned image, which somebody put there.
    TakenSandbox,
    /// It runs a sandbox, and somebody switches the record of its image to an unsigned one when everything was looked at.
    SwitchedSandbox,
}

use Journey::{ByDigest, ByTag, FirstStart, RefusedTwin, Switched, SwitchedSandbox, TakenSandbox, TakenTag};

const WALK: &[(Step, Journey)] = &[
    (Step::LedgerBegun, FirstStart),
    (Step::LedgerWritten, FirstStart),
    (Step::LedgerRenamed, FirstStart),
    (Step::SandboxAsked, TakenSandbox),
    (Step::SandboxPullDue, TakenSandbox),
    (Step::SandboxPulled, TakenSandbox),
    (Step::PullTagTaken, TakenSandbox),
    (Step::PullTagWritten, TakenSandbox),
    (Step::SandboxReady, TakenSandbox),
    (Step::SandboxMade, TakenSandbox),
    (Step::SandboxMade, SwitchedSandbox),
    (Step::SandboxChecked, TakenSandbox),
    (Step::SandboxRefused, SwitchedSandbox),
    (Step::SandboxStopped, SwitchedSandbox),
    (Step::SandboxRemoved, SwitchedSandbox),
    (Step::RefreshFetched, ByTag),
    (Step::RefreshCommitted, ByTag),
    (Step::RefreshRecorded, ByTag),
    (Step::PullVerified, ByTag),
    (Step::PullVerified, ByDigest),
    (Step::PullPulled, ByTag),
    (Step::PullPulled, ByDigest),
    (Step::PullPulled, RefusedTwin),
    (Step::PullContentRefused, RefusedTwin),
    (Step::PullTakenBack, RefusedTwin),
    (Step::PullFollowed, ByTag),
    (Step::PullFollowed, ByDigest),
    (Step::PullImageCommitted, ByTag),
    (Step::PullImageCommitted, ByDigest),
    (Step::PullImageRecorded, ByTag),
    (Step::PullImageRecorded, ByDigest),
    (Step::PullTagDue, ByTag),
    (Step::PullTagDue, TakenTag),
    (Step::PullTagTaken, TakenTag),
    (Step::PullTagWritten, ByTag),
    (Step::PullTagWritten, TakenTag),
    (Step::PullTagShown, ByTag),
    (Step::CreateAsked, ByTag),
    (Step::CreateResolved, ByTag),
    (Step::CreateAdmitted, ByTag),
    (Step::CreateRecordsChecked, ByTag),
    (Step::CreateCreated, ByTag),
    (Step::CreateCreated, Switched),
    (Step::CreateRootFsChecked, ByTag),
    (Step::CreateRootFsRefused, Switched),
    (Step::CreateRemoved, Switched),
    (Step::StartAsked, ByTag),
    (Step::StartResolved, ByTag),
    (Step::StartAdmitted, ByTag),
    (Step::StartStarted, ByTag),
];

on_every_containerd! {
    a_crash_at_any_step_lets_nothing_unverified_run_and_loses_nothing_signed,
}

async fn a_crash_at_any_step_lets_nothing_unverified_run_and_loses_nothing_signed(containerd: Version) {
    let walked: BTreeSet<Step> = WALK.iter().map(|(step, _)| *step).collect();
    assert_eq!(walked, STEPS.iter().copied().collect(), "every step is walked");
    let mut node = Node::new(containerd, "a_crash_at_any_step", WALK.len()).await;
    for (number, (step, journey)) in WALK.iter().enumerate() {
        eprintln!("{} {journey:?}", step.name());
        node.crash_at(*step, *journey, number).await;
        node.start_again().await;
        node.check_leftovers(*step, *journey).await;
        node.check_sandboxes(*step, *journey).await;
        node.check_refusals(*step).await;
        node.recover(*step, *journey, number).await;
        assert_eq!(node.check_what_ran(ENDS_WITHIN).await, []);
    }
}

/// A node with signed images, each with a tag of its own, and one that nobody signed.
struct Node {
    world: World,
    relay: Relay,
    pod: Pod,
    /// The pod whose sandbox is asked for last.
    asked: Option<PodSandboxConfig>,
    images: Vec<Image>,
    evil: Image,
    unsigned: String,
}

impl Node {
    async fn new(containerd: Version, test: &str, signed: usize) -> Self {
        let mut world = World::on(containerd, test).await;
        let gun = world.gun(REPOSITORY);
        let admin = world.notary.signer("admin");
        let root = admin.init(&gun).await;
        let mut images = Vec::new();
        for number in 0..signed {
            let image = Recipe::prints(&line(number)).build();
            world.push(&image, REPOSITORY, &number.to_string()).await;
            admin.add_hash(&gun, &number.to_string(), image.top().bytes.len(), image.digest().hash(), &[]).await;
            images.push(image);
        }
        admin.publish(&gun).await;
        let evil = Recipe::prints("evil").build();
        let unsigned = world.push(&evil, REPOSITORY, "unsigned").await;
        world.containerd.ctr().import(&evil, "example.com/evil:1").await;
        let relay = Relay::start(&world.folder, &world.containerd.socket());
        let mut configuration = world.gate_config().root_key(gun, root.canonical);
        configuration.containerd = Some(relay.socket().to_owned());
        world.start_gate(binary(), &configuration).await;
        let cri = world.cri();
        let pod = cri.run_pod(cri.pod("default")).await.unwrap();
        Self { world, relay, pod, asked: None, images, evil, unsigned }
    }

    fn gate(&mut self) -> &mut Gate {
        self.world.gate.as_mut().unwrap()
    }

    /// The client that kubelet would be.
    fn cri(&self) -> &Cri {
        self.world.gate.as_ref().unwrap().cri()
    }

    fn tag(&self, number: usize) -> String {
        format!("{}:{number}", self.world.gun(REPOSITORY))
    }

    /// The name of an image with the same config, that is signed, and refused for an annotation that makes containerd restore
    /// a checkpoint.
    fn twin(&self, number: usize) -> String {
        self.tag(number) + "-refused"
    }

    async fn sign_twin(&self, number: usize) {
        let (gun, tag) = (self.world.gun(REPOSITORY), format!("{number}-refused"));
        let image = Recipe::prints(&line(number)).annotation("org.criu.checkpoint.container.name", "evil").build();
        assert_eq!(image.id(), self.images[number].id());
        self.world.push(&image, REPOSITORY, &tag).await;
        self.world.notary.signer("admin").sign(&gun, &tag, &image).await;
    }

    fn name(&self, number: usize, journey: Journey) -> String {
        if journey == ByDigest { format!("{}@{}", self.world.gun(REPOSITORY), self.images[number].digest()) } else { self.tag(number) }
    }

    /// Brings a node that has seen nothing to the step, where the daemon dies.
    async fn crash_at(&mut self, step: Step, journey: Journey, number: usize) {
        self.gate().kill();
        fs::remove_dir_all(self.gate().state()).unwrap();
        if matches!(journey, Switched | RefusedTwin) {
            self.sign_twin(number).await;
            self.gate().start_again().await;
            self.cri().pull(&self.tag(number)).await.unwrap();
            self.gate().kill();
        }
        self.gate().server.set_env(VARIABLE, step.name());
        self.gate().server.spawn();
        let pid = self.gate().server.pid().unwrap();
        if journey != FirstStart {
            self.gate().start_again().await;
            self.asked = Some(self.cri().pod("default"));
            let died = self.drive(journey, number).await.unwrap_err();
            assert!(!died.message().contains("(CS-"), "{step:?}: it refused, and did not die: {died:?}");
        }
        let pid = self.gate().server.pid().unwrap_or(pid);
        let ended = self.gate().server.ended(DIES_WITHIN).await;
        let ended = ended.unwrap_or_else(|| panic!("{step:?}: the daemon did not come to this step"));
        assert_eq!(ended.signal(), Some(9), "{step:?}: {ended}");
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "{step:?}: no zombie is left");
        self.gate().server.unset_env(VARIABLE);
    }

    async fn drive(&self, journey: Journey, number: usize) -> Result<(), Status> {
        let (name, image) = (self.name(number, journey), &self.images[number]);
        match journey {
            FirstStart => Ok(()),
            ByTag | ByDigest => if_not_present(self.cri(), &self.pod, &name).await.map(drop),
            TakenTag => {
                self.world.containerd.ctr().create_record(&name, self.evil.top()).await.unwrap();
                let id = self.cri().pull(&name).await?;
                self.cri().run_image(&self.pod, &id, &name).await.map(drop)
            }
            RefusedTwin => self.cri().pull(&self.twin(number)).await.map(drop),
            TakenSandbox | SwitchedSandbox => self.drive_sandbox(journey).await,
            Switched => {
                self.blind_cri(&name, image).await;
                let container = container(&image.id().to_string(), &name);
                self.switch_before(&container.metadata.as_ref().unwrap().name, &name);
                self.cri().create(&self.pod, container).await.map(drop)
            }
        }
    }

    /// CRI keeps its view of the name, whose record is good again when this returns.
    async fn blind_cri(&self, name: &str, image: &Image) {
        self.world.containerd.blind_cri(name).await.unwrap();
        self.world.containerd.ctr().retarget(name, image.top()).await.unwrap();
    }

    /// Switches the record to the unsigned image when everything was looked at and the create is on its way.
    fn switch_before(&self, container: &str, name: &str) {
        let (ctr, name, evil) = (self.world.containerd.ctr(), name.to_owned(), self.evil.top().clone());
        self.relay.before(container, async move { ctr.retarget(&name, &evil).await.unwrap() });
    }

    async fn start_again(&mut self) {
        self.gate().start_again().await;
        let log = self.gate().log();
        assert!(!log.contains("the ledger cannot be used"), "{log}");
        let files = fs::read_dir(self.gate().state().join("ledger")).unwrap();
        let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(files, ["ledger.lock", "ledger.redb"].map(str::to_owned).into(), "nothing half made is left");
    }

    /// A container that the crash left behind can be started if, and only if, it stands on a verified image.
    async fn check_leftovers(&self, step: Step, journey: Journey) {
        let containers = self.world.cri().list_containers().await.unwrap();
        let expected = match journey {
            FirstStart | ByDigest | TakenTag | RefusedTwin | TakenSandbox | SwitchedSandbox => 0,
            ByTag => usize::from(step >= Step::CreateCreated),
            Switched => usize::from(step < Step::CreateRemoved),
        };
        assert_eq!(containers.len(), expected, "{step:?}: {containers:?}");
        for left in containers.iter().filter(|container| container.state() == ContainerState::ContainerCreated) {
            let signed = self.stands_on_signed(&left.id).await;
            assert_eq!(signed, journey != Switched, "{step:?}: the situation is what it is meant to be");
            let started = self.cri().start(&left.id).await;
            if signed {
                started.unwrap_or_else(|status| panic!("{step:?}: a signed container is lost: {status:?}"));
            } else {
                refused_with(started, "CS-UNKNOWN-ROOTFS", step);
                assert_eq!(self.world.cri().container_status(&left.id).await.unwrap().state(), ContainerState::ContainerCreated);
            }
        }
    }

    async fn check_refusals(&self, step: Step) {
        refused_with(self.cri().pull(&self.unsigned).await, "CS-TAG-NOT-SIGNED", step);
        // The pull has brought the trust data, so a container under a signed name is compared with what is signed.
        let forged = container(&self.evil.id().to_string(), &self.tag(0));
        refused_with(self.cri().create(&self.pod, forged).await, "CS-OTHER-IMAGE", step);
    }

    /// kubelet goes on: what is signed runs.
    async fn recover(&self, step: Step, journey: Journey, number: usize) {
        let name = self.name(number, journey);
        self.recover_sandbox(step, journey, number).await;
        let present = self.cri().image_status(&name).await.unwrap().is_some();
        match journey {
            FirstStart => assert!(!present),
            TakenSandbox | SwitchedSandbox => assert!(present, "it was pulled for the sandbox"),
            ByTag => assert_eq!(present, step >= Step::PullTagWritten, "{step:?}: without the tag kubelet pulls again"),
            ByDigest => assert_eq!(present, step >= Step::PullPulled, "{step:?}: containerd's own record of the digest"),
            RefusedTwin => assert!(present),
            TakenTag | Switched => {
                assert!(present);
                let still_evil = self.target_of(&name).await == self.evil.digest().to_string();
                assert_eq!(still_evil, step != Step::PullTagWritten, "{step:?}");
                if still_evil {
                    // While CRI does not see the switch it names the signed image, whose record is found wrong; once it does, as
                    // with a taken tag, it names the other image, and the record is dropped. It may begin to see in between.
                    let shown = self.world.cri().image_status(&name).await.unwrap().map(|image| image.id);
                    let sees = journey == TakenTag || shown == Some(self.evil.id().to_string());
                    let refused = if_not_present(self.cri(), &self.pod, &name).await;
                    let begins = !sees && refused.as_ref().is_err_and(|status| status.message().contains("CS-RECORD-DROPPED"));
                    refused_with(refused, if sees || begins { "CS-RECORD-DROPPED" } else { "CS-OTHER-RECORD" }, step);
                    self.cri().pull(&name).await.unwrap();
                }
            }
        }
        let ran = if_not_present(self.cri(), &self.pod, &name).await;
        let ran = ran.unwrap_or_else(|status| panic!("{step:?} {journey:?}: a signed image is lost: {status:?}"));
        assert_eq!(ran.output, line(number) + "\n", "{step:?}");
    }

    async fn target_of(&self, name: &str) -> String {
        let records = self.world.containerd.ctr().records().await.unwrap();
        records.into_iter().find(|(record, _)| record == name).unwrap().1
    }

    async fn stands_on_signed(&self, container: &str) -> bool {
        let chain = self.world.containerd.ctr().root_file_system(container).await.unwrap();
        self.images.iter().any(|image| image.chain_id().to_string() == chain)
    }

    /// Whatever was started stands on the files of a signed image. It is removed; gives back what cannot be.
    async fn check_what_ran(&self, patience: Duration) -> Vec<Container> {
        let cri = self.world.cri();
        let deadline = Instant::now() + patience;
        loop {
            let containers = cri.list_containers().await.unwrap();
            for container in &containers {
                let ran = container.state() != ContainerState::ContainerCreated;
                assert!(!ran || self.stands_on_signed(&container.id).await, "unverified files ran: {container:?}");
                // One that is just starting or ending cannot be removed yet.
                let _ = cri.remove(&container.id).await;
            }
            if containers.is_empty() || Instant::now() > deadline {
                return containers;
            }
            tokio::time::sleep(LOOKS_EACH).await;
        }
    }
}

fn line(number: usize) -> String {
    format!("signed {number}")
}

/// What kubelet does for a container with `imagePullPolicy: IfNotPresent`.
async fn if_not_present(cri: &Cri, pod: &Pod, name: &str) -> Result<Ran, Status> {
    let id = match cri.image_status(name).await? {
        Some(image) => image.id,
        None => cri.pull_with(name, None, Some(&pod.config)).await?,
    };
    cri.run_image(pod, &id, name).await
}

#[track_caller]
fn refused_with<T: std::fmt::Debug>(answer: Result<T, Status>, code: &str, step: Step) {
    let status = answer.expect_err("unverified, and let through");
    assert!(status.message().ends_with(&format!("({code})")), "{step:?}: {status:?}");
}
