//! A cluster of two nodes on one etcd, and a repository whose tag moves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_cri::v1::PodSandboxConfig;
use serde_json::Value;
use tokio::process::Command;
use tonic::Status;

use super::Must as _;
use super::containerd::Version;
use super::cri::{Cri, Ran};
use super::etcd::{Etcd, EtcdOptions};
use super::gate::{Gate, GateConfig};
use super::image::{Image, Recipe};
use super::process::lossy;
use super::wire::{Carries, Wire};
use super::world::{Node, World};

/// The repository.
pub const REPOSITORY: &str = "team/app";
/// The name of the cluster.
pub const CLUSTER: &str = "prod";
/// By when one node has heard of another.
pub const SOON: Duration = Duration::from_secs(20);

/// Two nodes on one etcd, and a repository with a signed tag.
#[derive(Debug)]
pub struct Town {
    other: Node,
    /// The first node, and the servers of both.
    pub world: World,
    /// What they share.
    pub etcd: Etcd,
    /// The image whose tag moves.
    pub name: String,
    /// What it moves to.
    pub new: Image,
    /// Between each node and etcd, if there is one.
    wires: Option<[Wire; 2]>,
    binary: PathBuf,
    authority: PathBuf,
    authority_key: String,
    root: String,
}

/// One of the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The one that the world has.
    One,
    /// The other.
    Two,
}

pub use At::{One, Two};

impl At {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            One => "node-1",
            Two => "node-2",
        }
    }
}

impl Town {
    /// Tag 1 is signed as `old`; both nodes are members.
    pub async fn new(binary: &Path, containerd: Version, test: &str, etcd: EtcdOptions, when_unreachable: [&str; 2]) -> Self {
        Self::begin(binary, containerd, test, etcd, when_unreachable, false).await
    }

    /// The same, with a wire between each node and an etcd of one member.
    pub async fn on_wires(binary: &Path, test: &str) -> Self {
        Self::begin(binary, Version::default(), test, EtcdOptions::OPEN, ["deny", "deny"], true).await
    }

    async fn begin(
        binary: &Path,
        containerd: Version,
        test: &str,
        etcd: EtcdOptions,
        when_unreachable: [&str; 2],
        is_on_wires: bool,
    ) -> Self {
        let world = World::on(containerd, test).await;
        let other = world.another_node(&format!("{test}-2-{}", containerd.name())).await;
        let etcd = Etcd::start(&world.folder, etcd).await;
        let wires = if is_on_wires { Some([Wire::to(&etcd).await, Wire::to(&etcd).await]) } else { None };
        let [old, new] = ["old", "new"].map(|text| Recipe::prints_and_stays(text).build());
        let (name, root) = world.push_signed(&old, REPOSITORY, "1").await;
        let authority = world.folder.path().join("authority.pem");
        let made = countersign(binary, &["cluster", "init", "--authority-key", &authority.to_string_lossy()], None).await;
        let authority_key = made.1.split('"').nth(1).must("making the authority's key").to_owned();
        let root = root.canonical.to_string();
        let binary = binary.to_owned();
        let mut town = Self { other, world, etcd, name, new, wires, binary, authority, authority_key, root };
        for (at, when_unreachable) in [One, Two].into_iter().zip(when_unreachable) {
            town.starts(at, when_unreachable).await;
        }
        for at in [One, Two] {
            town.enrolls(at).await;
        }
        for at in [One, Two] {
            town.until(at, async || town.at(at, &["cluster", "members"]).await.0 == Some(0)).await;
        }
        town
    }

    fn configuration(&self, at: At, when_unreachable: &str) -> GateConfig {
        let settings = self.etcd.settings(CLUSTER);
        let endpoints: Vec<String> = match &self.wires {
            Some(wires) => vec![format!("{:?}", wires[at as usize].endpoint)],
            None => settings.endpoints.iter().map(|url| format!("{:?}", url.as_str().trim_end_matches('/'))).collect(),
        };
        let tls = settings.tls.map_or_else(String::new, |tls| {
            let client = tls.client.map(|(certificate, key)| format!("certificate-file = {certificate:?}\nkey-file = {key:?}\n"));
            format!("ca-file = {:?}\n{}", tls.ca_file, client.unwrap_or_default())
        });
        self.world.gate_config().root_key(self.world.gun(REPOSITORY), self.root.clone()).table(&format!(
            "[store]\nbackend = \"etcd\"\ncluster = \"{CLUSTER}\"\nnode = \"{}\"\nauthority-keys = [\"{}\"]\nendpoints = [{}]\n{tls}\
             when-unreachable = \"{when_unreachable}\"\n",
            at.name(),
            self.authority_key,
            endpoints.join(", ")
        ))
    }

    async fn starts(&mut self, at: At, when_unreachable: &str) {
        let configuration = self.configuration(at, when_unreachable);
        match at {
            One => drop(self.world.start_gate(&self.binary, &configuration).await.socket()),
            Two => drop(self.other.start_gate(&self.binary, &configuration).await.socket()),
        }
    }

    /// The gate of a node.
    pub fn gate(&self, at: At) -> &Gate {
        match at {
            One => self.world.gate.as_ref().must("starting the gate"),
            Two => self.other.gate.as_ref().must("starting the gate"),
        }
    }

    /// The gate of a node, to be restarted.
    pub fn gate_mut(&mut self, at: At) -> &mut Gate {
        match at {
            One => self.world.gate.as_mut().must("starting the gate"),
            Two => self.other.gate.as_mut().must("starting the gate"),
        }
    }

    /// CRI as kubelet sees it on a node.
    pub fn cri(&self, at: At) -> &Cri {
        self.gate(at).cri()
    }

    /// A command of countersign on a node.
    pub async fn at(&self, at: At, words: &[&str]) -> (Option<i32>, String, String) {
        countersign(&self.binary, words, Some(self.gate(at))).await
    }

    /// As an operator does: what the node shows is what is typed where the authority's key is.
    pub async fn enrolls(&self, at: At) {
        let (_, shown, complaint) = self.at(at, &["cluster", "key"]).await;
        let mut words: Vec<&str> = shown.split_whitespace().skip(1).collect();
        assert_eq!(words.get(..2), Some(&["cluster", "enroll"][..]), "{shown}{complaint}");
        let authority = self.authority.to_string_lossy().into_owned();
        words.extend(["--authority-key", &authority]);
        let (code, said, complaint) = self.at(One, &words).await;
        assert_eq!(code, Some(0), "{said}{complaint}");
    }

    /// Takes a node out of the cluster.
    pub async fn removes(&self, at: At) {
        let authority = self.authority.to_string_lossy();
        let (code, said, complaint) = self.at(One, &["cluster", "remove", at.name(), "--authority-key", &authority]).await;
        assert_eq!(code, Some(0), "{said}{complaint}");
    }

    /// What the wire of a node carries from now on.
    pub fn wire_carries(&self, at: At, what: Carries) {
        self.wires.as_ref().must("finding the wires")[at as usize].carries(what);
    }

    /// What `countersign cluster status` says on a node: how it ended, and what for programs.
    pub async fn status_at(&self, at: At) -> (Option<i32>, Value) {
        let (code, status, _) = self.at(at, &["cluster", "status", "--output", "json"]).await;
        (code, serde_json::from_str(&status).unwrap_or_default())
    }

    /// Waits until something holds.
    pub async fn until(&self, at: At, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds().await {
            assert!(Instant::now() < deadline, "it never came to that on {}:\n{}", at.name(), self.gate(at).log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Tag 1 is pushed and signed as another image from now on.
    pub async fn tag_moves_to(&self, image: &Image) {
        self.world.push(image, REPOSITORY, "1").await;
        self.world.notary.signer("admin").sign(&self.world.gun(REPOSITORY), "1", image).await;
    }

    /// A pod of a Deployment, as Kubernetes names and labels it.
    pub fn pod(&self, at: At, deployment: &str, hash: &str) -> PodSandboxConfig {
        let mut config = self.cri(at).pod("shop");
        let metadata = config.metadata.as_mut().must("starting the gate");
        let number: u32 = metadata.name.rsplit('-').next().unwrap().parse().unwrap();
        metadata.name = format!("{deployment}-{hash}-{number:05}");
        config.labels.insert("pod-template-hash".into(), hash.into());
        config
    }

    /// What kubelet does for a pod with `imagePullPolicy: Always`.
    pub async fn runs(&self, at: At, config: PodSandboxConfig) -> Result<Ran, Status> {
        self.runs_of(at, config, &self.name).await
    }

    /// The same, of another image.
    pub async fn runs_of(&self, at: At, config: PodSandboxConfig, name: &str) -> Result<Ran, Status> {
        let pod = self.cri(at).run_pod(config).await?;
        let image = self.cri(at).pull_with(name, None, Some(&pod.config)).await?;
        self.cri(at).run_image(&pod, &image, name).await
    }

    /// What a pod of a revision prints.
    pub async fn prints(&self, at: At, hash: &str) -> String {
        let ran = self.runs(at, self.pod(at, "web", hash)).await;
        ran.unwrap_or_else(|status| panic!("on {}: {status:?}\n{}", at.name(), self.gate(at).log())).output
    }

    /// The reason for which a pod is refused, which has to be of this code.
    pub async fn is_refused(&self, at: At, config: PodSandboxConfig, code: &str) -> String {
        match self.runs(at, config).await {
            Ok(ran) => panic!("on {} it printed {:?}", at.name(), ran.output),
            Err(status) => {
                assert!(status.message().contains(code), "{status:?}");
                status.message().to_owned()
            }
        }
    }

    /// etcd is killed.
    pub fn stops_etcd(&mut self) {
        self.etcd.members.iter_mut().for_each(|member| member.server.kill());
    }

    /// etcd is there again.
    pub async fn starts_etcd(&mut self) {
        for member in &mut self.etcd.members {
            member.server.start().await;
        }
        self.etcd.has_leader().await;
    }
}

async fn countersign(binary: &Path, words: &[&str], gate: Option<&Gate>) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary);
    command.args(words);
    if let Some(gate) = gate {
        command.arg("--config").arg(gate.configuration());
    }
    let output = command.output().await.must("running countersign");
    (output.status.code(), lossy(&output.stdout), lossy(&output.stderr))
}
