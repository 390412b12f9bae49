//! Nodes on one etcd: each a gate with a containerd of its own. A tag means one digest for each revision on all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_cri::v1::PodSandboxConfig;
use tokio::process::Command;
use tonic::Status;

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::{Cri, Ran};
use super::harness::etcd::{Etcd, EtcdOptions};
use super::harness::gate::{Gate, GateConfig};
use super::harness::image::{Image, Recipe};
use super::harness::world::{Node, World};

on_every_containerd! {
    a_tag_that_moves_during_a_rollout_means_one_digest_for_each_revision_on_all_nodes,
}

const REPOSITORY: &str = "team/app";
const CLUSTER: &str = "prod";
/// By when one node has heard of another.
const SOON: Duration = Duration::from_secs(20);

/// Two nodes on one etcd, and a repository with a signed tag.
struct Town {
    other: Node,
    world: World,
    etcd: Etcd,
    authority: PathBuf,
    authority_key: String,
    root: String,
    name: String,
    new: Image,
}

/// One of the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    One,
    Two,
}

use At::{One, Two};

impl At {
    const fn name(self) -> &'static str {
        match self {
            One => "node-1",
            Two => "node-2",
        }
    }
}

impl Town {
    /// Tag 1 is signed as `old`; both nodes are members.
    async fn new(containerd: Version, test: &str, etcd: EtcdOptions, when_unreachable: [&str; 2]) -> Self {
        let world = World::on(containerd, test).await;
        let other = world.another_node(&format!("{test}-2-{}", containerd.name())).await;
        let etcd = Etcd::start(&world.folder, etcd).await;
        let [old, new] = ["old", "new"].map(|text| Recipe::prints_and_stays(text).build());
        let (name, root) = world.push_signed(&old, REPOSITORY, "1").await;
        let authority = world.folder.path().join("authority.pem");
        let made = countersign(&["cluster", "init", "--authority-key", authority.to_str().unwrap()], None).await;
        let authority_key = made.1.split('"').nth(1).unwrap().to_owned();
        let root = root.canonical.to_string();
        let mut town = Self { other, world, etcd, authority, authority_key, root, name, new };
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
        let endpoints: Vec<String> = settings.endpoints.iter().map(|url| format!("{:?}", url.as_str().trim_end_matches('/'))).collect();
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
            One => drop(self.world.start_gate(binary(), &configuration).await.socket()),
            Two => drop(self.other.start_gate(binary(), &configuration).await.socket()),
        }
    }

    fn gate(&self, at: At) -> &Gate {
        match at {
            One => self.world.gate.as_ref().unwrap(),
            Two => self.other.gate.as_ref().unwrap(),
        }
    }

    fn gate_mut(&mut self, at: At) -> &mut Gate {
        match at {
            One => self.world.gate.as_mut().unwrap(),
            Two => self.other.gate.as_mut().unwrap(),
        }
    }

    fn cri(&self, at: At) -> &Cri {
        self.gate(at).cri()
    }

    /// A command of countersign on a node.
    async fn at(&self, at: At, words: &[&str]) -> (Option<i32>, String, String) {
        countersign(words, Some(self.gate(at))).await
    }

    /// As an operator does: what the node shows is what is typed where the authority's key is.
    async fn enrolls(&self, at: At) {
        let (_, shown, complaint) = self.at(at, &["cluster", "key"]).await;
        let mut words: Vec<&str> = shown.split_whitespace().skip(1).collect();
        assert_eq!(words.get(..2), Some(&["cluster", "enroll"][..]), "{shown}{complaint}");
        words.extend(["--authority-key", self.authority.to_str().unwrap()]);
        let (code, said, complaint) = self.at(One, &words).await;
        assert_eq!(code, Some(0), "{said}{complaint}");
    }

    async fn removes(&self, at: At) {
        let authority = self.authority.to_str().unwrap();
        let (code, said, complaint) = self.at(One, &["cluster", "remove", at.name(), "--authority-key", authority]).await;
        assert_eq!(code, Some(0), "{said}{complaint}");
    }

    async fn until(&self, at: At, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds().await {
            assert!(Instant::now() < deadline, "it never came to that on {}:\n{}", at.name(), self.gate(at).log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Tag 1 is pushed and signed as another image from now on.
    async fn tag_moves_to(&self, image: &Image) {
        self.world.push(image, REPOSITORY, "1").await;
        self.world.notary.signer("admin").sign(&self.world.gun(REPOSITORY), "1", image).await;
    }

    /// A pod of a Deployment, as Kubernetes names and labels it.
    fn pod(&self, at: At, deployment: &str, hash: &str) -> PodSandboxConfig {
        let mut config = self.cri(at).pod("shop");
        let metadata = config.metadata.as_mut().unwrap();
        let number: u32 = metadata.name.rsplit('-').next().unwrap().parse().unwrap();
        metadata.name = format!("{deployment}-{hash}-{number:05}");
        config.labels.insert("pod-template-hash".into(), hash.into());
        config
    }

    /// What kubelet does for a pod with `imagePullPolicy: Always`.
    async fn runs(&self, at: At, config: PodSandboxConfig) -> Result<Ran, Status> {
        self.runs_of(at, config, &self.name).await
    }

    async fn runs_of(&self, at: At, config: PodSandboxConfig, name: &str) -> Result<Ran, Status> {
        let pod = self.cri(at).run_pod(config).await?;
        let image = self.cri(at).pull_with(name, None, Some(&pod.config)).await?;
        self.cri(at).run_image(&pod, &image, name).await
    }

    async fn prints(&self, at: At, hash: &str) -> String {
        let ran = self.runs(at, self.pod(at, "web", hash)).await;
        ran.unwrap_or_else(|status| panic!("on {}: {status:?}\n{}", at.name(), self.gate(at).log())).output
    }

    async fn is_refused(&self, at: At, config: PodSandboxConfig, code: &str) -> String {
        match self.runs(at, config).await {
            Ok(ran) => panic!("on {} it printed {:?}", at.name(), ran.output),
            Err(status) => {
                assert!(status.message().contains(code), "{status:?}");
                status.message().to_owned()
            }
        }
    }

    fn stops_etcd(&mut self) {
        self.etcd.members.iter_mut().for_each(|member| member.server.kill());
    }

    async fn starts_etcd(&mut self) {
        for member in &mut self.etcd.members {
            member.server.start().await;
        }
        self.etcd.has_leader().await;
    }
}

async fn countersign(words: &[&str], gate: Option<&Gate>) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(words);
    if let Some(gate) = gate {
        command.arg("--config").arg(gate.configuration());
    }
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn a_tag_that_moves_during_a_rollout_means_one_digest_for_each_revision_on_all_nodes(containerd: Version) {
    let mut town = Town::new(containerd, "a_tag_that_moves", EtcdOptions::OPEN, ["deny", "deny"]).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    town.tag_moves_to(&town.new).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n", "a replica on a node that has never seen the old one");
    assert_eq!(town.prints(Two, "7c9f").await, "new\n", "the next revision");
    assert_eq!(town.prints(One, "7c9f").await, "new\n");
    assert_eq!(town.prints(One, "5d4f").await, "old\n");

    // One operator, on any node, for all.
    let (code, said, complaint) = town.at(Two, &["service", "update", "shop/deployment/web", "--revision", "5d4f"]).await;
    assert_eq!(code, Some(0), "{said}{complaint}");
    for at in [One, Two] {
        town.until(at, async || town.prints(at, "5d4f").await == "new\n").await;
    }
    let (code, said, complaint) = town.at(One, &["service", "rollback", "shop/deployment/web", "--revision", "5d4f"]).await;
    assert_eq!(code, Some(0), "{said}{complaint}");
    for at in [One, Two] {
        town.until(at, async || town.prints(at, "5d4f").await == "old\n").await;
    }

    // A node that comes back knows what it used, also while etcd is away.
    town.stops_etcd();
    town.gate_mut(Two).restart().await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let said = town.is_refused(Two, town.pod(Two, "web", "9f9f"), "(CS-STORE)").await;
    assert!(said.starts_with("RegistryUnavailable: ") && said.contains(&town.etcd.endpoint(0)), "{said}");
    town.starts_etcd().await;
    town.until(Two, async || town.runs(Two, town.pod(Two, "web", "9f9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_first_pulls_on_two_nodes_one_says_what_the_tag_means() {
    let town = Town::new(Version::default(), "a_hundred_first_pulls", EtcdOptions::OPEN, ["deny", "deny"]).await;
    let (first, second) = (town.cri(One).clone(), town.cri(Two).clone());
    let mut pulls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (cri, at) = if number % 2 == 0 { (first.clone(), One) } else { (second.clone(), Two) };
        let (name, config) = (town.name.clone(), town.pod(at, "web", "5d4f"));
        pulls.spawn(async move { cri.pull_with(&name, None, Some(&config)).await });
        if number == 50 {
            town.tag_moves_to(&town.new).await;
        }
    }
    let found: Vec<String> = pulls.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(found.iter().all(|image| *image == found[0]), "{found:?}");
    let listed = town.etcd.ctl(&["get", "--prefix", "--keys-only", "/countersign/prod/k/pins/"]).await;
    assert_eq!(listed.lines().filter(|line| !line.is_empty()).count(), 1, "{listed}");
}

#[tokio::test]
async fn what_a_node_pinned_is_void_when_it_is_removed_and_it_pins_nothing_more() {
    let town = Town::new(Version::default(), "a_node_that_is_removed", EtcdOptions::OPEN, ["deny", "deny"]).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    town.tag_moves_to(&town.new).await;
    town.until(One, async || town.prints(One, "5d4f").await == "old\n").await;
    town.removes(Two).await;
    assert_eq!(town.prints(One, "5d4f").await, "new\n", "its word counts no more");
    town.until(Two, async || town.at(Two, &["cluster", "members"]).await.0 == Some(1)).await;
    let said = town.is_refused(Two, town.pod(Two, "api", "1"), "(CS-STORE)").await;
    assert!(said.contains("countersign cluster enroll"), "{said}");
    town.enrolls(Two).await;
    town.until(Two, async || town.runs(Two, town.pod(Two, "api", "1")).await.is_ok()).await;
}

#[tokio::test]
async fn a_node_that_answers_alone_while_etcd_is_away_gives_way_and_says_so() {
    let mut town = Town::new(Version::default(), "a_node_alone", EtcdOptions::OPEN, ["local", "deny"]).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    town.stops_etcd();
    assert_eq!(town.prints(One, "7c9f").await, "old\n", "it answers by itself");
    town.tag_moves_to(&town.new).await;
    assert_eq!(town.prints(One, "7c9f").await, "old\n", "and keeps to it");
    // Kept from hearing of it, the other node is the first in the store.
    town.gate_mut(One).kill();
    town.starts_etcd().await;
    town.until(Two, async || town.runs(Two, town.pod(Two, "web", "7c9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
    town.gate_mut(One).start_again().await;
    let told = town.gate(One).logged("this node pinned another digest than the cluster", SOON).await;
    assert!(told.is_some(), "{}", town.gate(One).log());
    town.until(One, async || town.prints(One, "7c9f").await == "new\n").await;
}

#[tokio::test]
async fn with_one_of_three_members_killed_all_goes_on_and_without_most_of_them_new_revisions_wait() {
    let mut town = Town::new(Version::default(), "three_members", EtcdOptions::THREE, ["deny", "deny"]).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    let leader = town.etcd.leader().await;
    town.etcd.members[leader].server.kill();
    town.tag_moves_to(&town.new).await;
    for (at, hash) in [(Two, "7c9f"), (One, "8a8a")] {
        town.until(at, async || town.runs(at, town.pod(at, "web", hash)).await.is_ok_and(|ran| ran.output == "new\n")).await;
    }
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let next = (leader + 1) % 3;
    town.etcd.members[next].server.kill();
    town.is_refused(One, town.pod(One, "web", "9f9f"), "(CS-STORE)").await;
    for at in [One, Two] {
        assert_eq!(town.prints(at, "5d4f").await, "old\n", "what is pinned goes on");
    }
    for member in [leader, next] {
        town.etcd.members[member].server.start().await;
    }
    town.etcd.has_leader().await;
    for at in [One, Two] {
        town.until(at, async || town.runs(at, town.pod(at, "web", "9f9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
    }
}

/// A tag that is unknown to what a node holds was not withdrawn: it may have been signed since.
#[tokio::test]
async fn a_node_that_has_heard_less_ends_no_pin_of_another() {
    let mut town = Town::new(Version::default(), "a_node_that_has_heard_less", EtcdOptions::OPEN, ["deny", "deny"]).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let name = town.world.push(&town.new, REPOSITORY, "2").await;
    town.world.notary.signer("admin").sign(&town.world.gun(REPOSITORY), "2", &town.new).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ran = town.runs_of(One, town.pod(One, "api", "1"), &name).await.unwrap();
    assert_eq!(ran.output, "new\n");
    town.gate_mut(Two).restart().await;
    town.gate(Two).logged("held trust data was read", SOON).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = town.gate(Two).log();
    assert!(!log.contains("a pin has ended"), "{log}");
    let (_, listed, _) = town.at(Two, &["service", "ls"]).await;
    assert!(listed.contains("shop/deployment/api"), "{listed}");
    assert_eq!(town.runs_of(Two, town.pod(Two, "api", "1"), &name).await.unwrap().output, "new\n");
    // And both are seen by either.
    for at in [One, Two] {
        town.until(at, async || {
            let (_, status, _) = town.at(at, &["cluster", "status", "--output", "json"]).await;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2)
        })
        .await;
    }
}

/// Whoever holds the store puts back what it has seen, and what it likes.
#[tokio::test]
async fn whoever_holds_the_store_brings_nothing_back() {
    let town = Town::new(Version::default(), "whoever_holds_the_store", EtcdOptions::OPEN, ["deny", "deny"]).await;
    let store = town.etcd.store(CLUSTER);
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    let (pins, evidence) = (kept_by(&store, "pins").await, kept_by(&store, "evidence").await);
    // Withdrawn, and seen so by one node only.
    town.world.notary.signer("admin").remove_tag(&town.world.gun(REPOSITORY), "1").await;
    // Of no revision, so that the server is asked.
    let refused = town.cri(One).pull(&town.name).await.unwrap_err();
    assert!(refused.message().contains("(CS-TAG-NOT-SIGNED)"), "{refused:?}");
    town.tag_moves_to(&town.new).await;
    put_back(&store, &evidence).await;
    put_back(&store, &pins).await;
    town.until(One, async || town.at(One, &["service", "ls"]).await.1.contains("no service")).await;
    assert_eq!(town.prints(One, "5d4f").await, "new\n", "the genuine pin of then, with its genuine evidence");

    // The pin of one revision in another's place, one of nobody, and nonsense.
    let (key, value) = &pins[0];
    let elsewhere = countersign::store::Key::from_written(key.as_str().replace("/5d4f/", "/7c9f/").as_bytes()).unwrap();
    let moved = String::from_utf8(value.to_vec()).unwrap().replace("\"5d4f\"", "\"7c9f\"");
    for forged in [value.clone(), moved.into_bytes().into(), b"nonsense".as_slice().into(), vec![b'x'; 500_000].into()] {
        put_back(&store, &[(elsewhere.clone(), forged)]).await;
        assert_eq!(town.prints(Two, "7c9f").await, "new\n");
    }
}

type Kept = Vec<(countersign::store::Key, bytes::Bytes)>;

async fn kept_by(store: &dyn countersign::store::Store, area: &str) -> Kept {
    let prefix = countersign::store::Prefix::new([area]).unwrap();
    let listing = countersign::store::list_all(store, &prefix).await.unwrap();
    listing.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect()
}

async fn put_back(store: &dyn countersign::store::Store, kept: &[(countersign::store::Key, bytes::Bytes)]) {
    use countersign::store::Expected;
    for (key, value) in kept {
        let there = store.read(key).await.unwrap();
        let expected = there.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
        store.put(key, value.clone(), expected, None).await.unwrap();
    }
}
