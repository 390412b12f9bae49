//! Who may pull, run and mount what: signed or not, on the node or not, under a policy that was tightened afterwards, named
//! in every way, from namespaces that are looser and stricter. Each row begins with a gate that has seen nothing.

mod rows;

use std::fs;

use k8s_cri::v1::{ContainerConfig, ImageSpec, Mount};
use tonic::{Code, Status};

use self::rows::{Before, By, Call, End, Policy, ROWS, Row, Which};
use super::super::gate::binary;
use super::super::harness::containerd::Version;
use super::super::harness::cri::{Cri, Pod, container};
use super::super::harness::gate::GateConfig;
use super::super::harness::image::{Image, Recipe};
use super::super::harness::signer::Rotation;
use super::super::harness::world::World;

on_every_containerd! {
    every_row_of_the_matrix_ends_as_its_sentence_says,
}

const REPOSITORY: &str = "team/app";
const NAMESPACES: [&str; 3] = ["default", "loose", "strict"];

async fn every_row_of_the_matrix_ends_as_its_sentence_says(containerd: Version) {
    let mut node = Node::new(containerd).await;
    let mut wrong = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        let (sentence, which, before, policy, namespace, call, end) = row;
        let found = node.ends(row).await;
        if found != expected(containerd, *call, *end) {
            wrong.push(format!("{number} `{sentence}`: {which:?} {before:?} {policy:?} in {namespace}, {call:?}: {found}, not {end:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// containerd before 2.1 has no image volumes: what passes the gate is its own refusal.
fn expected(containerd: Version, call: Call, end: End) -> String {
    match (call, end) {
        (Call::Mount(_), End::Passes) if containerd != Version::V2_1 => "containerd knows no image volumes".to_owned(),
        (_, End::Passes) => "passes".to_owned(),
        (_, End::Refused(code)) => code.to_owned(),
    }
}

/// A node with three images in its registry, and a pod in each namespace.
struct Node {
    world: World,
    images: [Image; 3],
    /// What can be relied on in every configuration.
    people: GateConfig,
    root: String,
    pods: Vec<Pod>,
}

impl Node {
    async fn new(containerd: Version) -> Self {
        let world = World::on(containerd, "matrix").await;
        let images = [Which::Signed, Which::Approved, Which::Unsigned].map(image);
        let [signed, approved, unsigned] = &images;
        let (_, root) = world.push_signed(signed, REPOSITORY, tag(Which::Signed)).await;
        world.push(approved, REPOSITORY, tag(Which::Approved)).await;
        world.push(unsigned, REPOSITORY, tag(Which::Unsigned)).await;
        let people = sign(&world, signed, approved).await;
        let cri = world.cri();
        let mut pods = Vec::new();
        for namespace in NAMESPACES {
            pods.push(cri.run_pod(cri.pod(namespace)).await.unwrap());
        }
        let mut node = Self { people, images, root: root.canonical, pods, world };
        let configuration = node.configuration(Policy::Signed);
        node.world.start_gate(binary(), &configuration).await;
        node
    }

    fn configuration(&self, policy: Policy) -> GateConfig {
        let (gun, enforced) = (self.world.gun(REPOSITORY), self.people.clone());
        let pinned = enforced.clone().root_key(gun.clone(), self.root.clone());
        match policy {
            Policy::Nothing => pinned.mode("disabled"),
            Policy::Signed => pinned,
            Policy::Qa => pinned.signed_by(&["acme/qa"]),
            Policy::OtherRoot => enforced.root_key(gun, "ab".repeat(32)),
            Policy::Looser => pinned.rule(&gun, "namespaces = [\"loose\"]\nmode = \"disabled\""),
            Policy::Stricter => pinned.rule(&gun, "namespaces = [\"strict\"]\nsigned-by = [\"acme/qa\"]"),
            Policy::OnlyStrict => pinned.mode("disabled").rule(&gun, "namespaces = [\"strict\"]\nmode = \"enforced\""),
        }
    }

    /// Another configuration, as an operator brings it: with a restart.
    async fn configure(&mut self, policy: Policy) {
        let configuration = self.configuration(policy);
        let gate = self.world.gate.as_mut().unwrap();
        gate.configure(&configuration);
        gate.restart().await;
    }

    /// Nothing is left of the row before.
    async fn forget(&mut self) {
        let cri = self.world.cri();
        for container in cri.list_containers().await.unwrap() {
            cri.stop(&container.id).await.unwrap();
            cri.remove(&container.id).await.unwrap();
        }
        for image in &self.images {
            cri.remove_image(&image.id().to_string()).await.unwrap();
        }
        let gate = self.world.gate.as_mut().unwrap();
        gate.kill();
        fs::remove_dir_all(gate.state()).unwrap();
    }

    fn cri(&self) -> &Cri {
        self.world.gate.as_ref().unwrap().cri()
    }

    fn image(&self, which: Which) -> &Image {
        match which {
            Which::Signed => &self.images[0],
            Which::Approved => &self.images[1],
            Which::Unsigned => &self.images[2],
        }
    }

    fn pod(&self, namespace: &str) -> &Pod {
        let number = NAMESPACES.iter().position(|known| *known == namespace).expect("a namespace of this test");
        &self.pods[number]
    }

    fn name(&self, which: Which, by: By) -> String {
        let (gun, image) = (self.world.gun(REPOSITORY), self.image(which));
        match by {
            By::Tag => format!("{gun}:{}", tag(which)),
            By::Digest => format!("{gun}@{}", image.digest()),
            By::TagAndDigest => format!("{gun}:{}@{}", tag(which), image.digest()),
            By::Id => image.id().to_string(),
        }
    }

    /// As kubelet makes it. A pod gives a name; the ID is kubelet's own.
    fn container(&self, which: Which, by: By) -> ContainerConfig {
        let specified = if by == By::Id { By::Tag } else { by };
        container(&self.name(which, by), &self.name(which, specified))
    }

    async fn pull(&self, which: Which, by: By, namespace: &str) -> Result<String, Status> {
        self.cri().pull_with(&self.name(which, by), None, Some(&self.pod(namespace).config)).await
    }

    /// How the call of a row ends, in a word: `passes`, the code of the refusal, or something that no row expects.
    async fn ends(&mut self, (_, which, before, policy, namespace, call, _): &Row) -> String {
        self.forget().await;
        if let Before::Pulled(earlier, puller) = before {
            self.configure(*earlier).await;
            self.pull(*which, By::Tag, puller).await.unwrap_or_else(|status| panic!("preparing {which:?} {before:?}: {status:?}"));
        }
        if let Call::Mount(_) = call {
            self.pull(Which::Approved, By::Tag, "default").await.unwrap();
        }
        self.configure(*policy).await;
        let end = match call {
            Call::Pull(by) => self.pull(*which, *by, namespace).await.map(|id| self.is_image(*which, &id)),
            Call::Create(by) => self.creates(*which, self.container(*which, *by), namespace, "").await,
            Call::Mount(by) => self.creates(Which::Approved, self.with_volume(*which, *by), namespace, tag(*which)).await,
        };
        match end {
            Ok(end) => end,
            Err(status) => self.refusal(&status, *which, *before).await,
        }
    }

    fn is_image(&self, which: Which, id: &str) -> String {
        if *id == self.image(which).id().to_string() { "passes".to_owned() } else { format!("another image: {id}") }
    }

    /// Creates and starts the container, and looks at what it stands on and at what it printed: its own name, and that of
    /// its volume.
    async fn creates(&self, which: Which, config: ContainerConfig, namespace: &str, volume: &str) -> Result<String, Status> {
        let made = self.cri().create(self.pod(namespace), config).await?;
        self.cri().start(&made).await?;
        self.cri().exit_code(&made).await?;
        let printed = self.cri().output(&made).await?;
        let stands_on = self.world.containerd.ctr().root_file_system(&made).await?;
        let right = printed == format!("{}:{volume}\n", tag(which)) && stands_on == self.image(which).chain_id().to_string();
        Ok(if right { "passes".to_owned() } else { format!("another image: {printed}") })
    }

    fn with_volume(&self, which: Which, by: By) -> ContainerConfig {
        let user_specified_image = self.name(which, By::Tag);
        let volume = ImageSpec { image: self.name(which, by), user_specified_image, ..Default::default() };
        let mount = Mount { container_path: "/volume".to_owned(), readonly: true, image: Some(volume), ..Default::default() };
        ContainerConfig { mounts: vec![mount], ..self.container(Which::Approved, By::Id) }
    }

    /// The code of a refusal as kubelet understands it, after which nothing of it is on the node.
    async fn refusal(&self, status: &Status, which: Which, before: Before) -> String {
        let code = status.message().rsplit_once(" (").and_then(|(_, code)| code.strip_suffix(')'));
        let understood = status.code() == Code::Unknown && status.message().starts_with("SignatureValidationFailed: ");
        let Some(code) = code.filter(|code| understood && code.starts_with("CS-")) else {
            let volumes = status.message().contains("mkdir") && !status.message().contains("CS-");
            return if volumes { "containerd knows no image volumes".to_owned() } else { format!("{status:?}") };
        };
        let containers = self.world.cri().list_containers().await.unwrap();
        let shown = self.world.cri().image_status(&self.name(which, By::Id)).await.unwrap();
        if !containers.is_empty() || (before == Before::Absent && shown.is_some()) {
            return format!("{code}, and something is left: {containers:?} {shown:?}");
        }
        code.to_owned()
    }
}

/// Prints its own name, and that of an image that is mounted.
fn image(which: Which) -> Image {
    Recipe::shell(&format!("echo {}:$(cat /volume/name 2>/dev/null)", tag(which))).file("/name", tag(which)).build()
}

const fn tag(which: Which) -> &'static str {
    match which {
        Which::Signed => "signed",
        Which::Approved => "approved",
        Which::Unsigned => "unsigned",
    }
}

/// Alice releases both images and signs them in her role, and bob signs one of them in his. Returns a configuration that
/// knows them.
async fn sign(world: &World, signed: &Image, approved: &Image) -> GateConfig {
    let (gun, [admin, alice, bob]) = (world.gun(REPOSITORY), ["admin", "alice", "bob"].map(|name| world.notary.signer(name)));
    // Whoever signs in a delegation makes a new snapshot, too, or the server does.
    admin.rotate(&gun, Rotation::SnapshotToServer).await;
    admin.delegate(&gun, "targets/releases", &[&alice, &bob]).await;
    for (role, person) in [("targets/alice", &alice), ("targets/bob", &bob)] {
        admin.delegate(&gun, role, &[person]).await;
        person.import_own_key().await;
    }
    for (which, image) in [(Which::Signed, signed), (Which::Approved, approved)] {
        alice.sign_as(&gun, tag(which), image.top(), &["targets/alice", "targets/releases"]).await;
    }
    bob.sign_as(&gun, tag(Which::Approved), approved.top(), &["targets/bob"]).await;
    let known = world.gate_config().signer("alice", &alice.certificate().certificate).signer("bob", &bob.certificate().certificate);
    known.team("acme/dev", &["alice"]).team("acme/qa", &["bob"])
}
