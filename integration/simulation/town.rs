//! What the nodes stand before: a real etcd, a real notary server, and a registry that counts who connects.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign::clock::{Clock as _, SystemClock};
use countersign::cluster::{Members, PrivateKey};
use countersign_trust::name::{ImageReference, ManifestDigest};
use futures_util::StreamExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::harness::Must as _;
use crate::harness::etcd::{Etcd, EtcdOptions};
use crate::harness::folder::Folder;
use crate::harness::gate::{GateConfig, RegisteredRegistry};
use crate::harness::image::{Image, Recipe};
use crate::harness::notary::{Notary, NotaryOptions};
use crate::harness::tls::Ca;
use crate::node::{Node, Seat};

/// The repository, and the tag of it that all pods name.
const REPOSITORY: &str = "team/app";
/// Where the files of nodes and of etcd lie: in memory. In life each has a disk to itself; here a thousand would have one together,
/// and with whatever else the machine does: an etcd whose disk is busy for long is away.
const MEMORY: &str = "/dev/shm";
/// For how many days the members are listed.
const DAYS: u32 = 30;
/// Nodes that start at once.
const STARTING: usize = 32;

/// The servers, and the tag.
#[derive(Debug)]
pub(crate) struct Town {
    pub(crate) etcd: Etcd,
    notary: Notary,
    pub(crate) image: ImageReference,
    configuration: GateConfig,
    authority: PrivateKey,
    registry: Registry,
    signed: Image,
    own_files: tempfile::TempDir,
    _folder: Folder,
}

/// A registry that says nothing, and counts who connects to it.
#[derive(Debug)]
struct Registry {
    asked: Arc<AtomicUsize>,
    host: String,
    accepting: AbortHandle,
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.must("listening as a registry");
        let host = listener.local_addr().must("asking for an address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { asked, host, accepting: accepting.abort_handle() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Town {
    /// The tag is signed.
    pub(crate) async fn new(test: &str) -> Self {
        take_all_descriptors();
        let folder = Folder::new(test);
        let own_files = own_files(&folder);
        lie_in(own_files.path(), &folder);
        let ca = Ca::new(folder.sub("tls"), "countersign tests CA");
        let registry = Registry::start().await;
        let (etcd, notary) =
            tokio::join!(Etcd::start(&folder, EtcdOptions::OPEN), Notary::start(&folder, &ca, NotaryOptions::default(), None));
        let gun = format!("{}/{REPOSITORY}", registry.host);
        let (signer, signed) = (notary.signer("admin"), Recipe::prints_and_stays("old").build());
        let root = signer.init(&gun).await;
        signer.sign(&gun, "1", &signed).await;
        let registered = RegisteredRegistry { host_address: registry.host.clone(), notary_server: notary.url(), ca_bundle_file: ca.file() };
        let configuration = GateConfig { registries: vec![registered], ..GateConfig::enforced() }.root_key(&gun, root.canonical);
        Self {
            etcd,
            notary,
            image: format!("{gun}:1").parse().must("naming an image"),
            configuration,
            authority: PrivateKey::generate().must("making an authority's key"),
            registry,
            signed,
            own_files,
            _folder: folder,
        }
    }

    /// What the tag is signed as.
    pub(crate) fn signed(&self) -> ManifestDigest {
        self.signed.digest()
    }

    /// The tag is signed as another image.
    pub(crate) async fn signs_anew(&mut self) {
        self.signed = Recipe::prints_and_stays("new").build();
        let gun = self.image.repository().to_string();
        self.notary.signer("admin").sign(&gun, "1", &self.signed).await;
    }

    /// How many requests the notary server has answered.
    pub(crate) fn requests(&self) -> usize {
        self.notary.requests().len()
    }

    /// The configuration of a node whose files lie in `home`.
    fn configuration(&self, home: &Path) -> String {
        self.configuration.text(home, &home.join("no containerd"))
    }

    /// Nodes of a cluster, and their names, that are not started.
    pub(crate) fn seats(&self, cluster: &str, count: usize) -> Vec<Seat> {
        let seat = |number: usize| {
            let (name, home) = (format!("node-{number:04}"), self.own_files.path().join(cluster).join(number.to_string()));
            let directory = home.join("state");
            std::fs::create_dir_all(&directory).must("making a node's folder");
            Seat {
                name,
                cluster: cluster.to_owned(),
                authority: self.authority.public(),
                etcd: self.etcd.settings(cluster),
                configuration: self.configuration(&home),
                directory,
            }
        };
        (1..=count).map(seat).collect()
    }

    /// Lists the nodes as the members of their cluster, and starts the first ones.
    pub(crate) async fn start(&self, seats: &[Seat], count: usize) -> Vec<Node> {
        let mut members = Members::of(seats[0].cluster.clone());
        let first = Node::start(seats[0].clone()).await;
        for seat in seats {
            let key = PrivateKey::read_or_make(&seat.directory.join("node-key.pem")).must("making a node's key");
            members.set(&seat.name, Some(vec![key.public()])).must("listing a node");
        }
        let document = members.sign(&self.authority, SystemClock.now().must("asking for the time"), DAYS).must("signing the members");
        first.membership.publish(document.into()).await.must("publishing the members");
        let others = futures_util::stream::iter(seats[1..count].iter().cloned().map(|seat| tokio::spawn(Node::start(seat))));
        let others: Vec<_> = others.buffered(STARTING).collect().await;
        let mut nodes = vec![first];
        nodes.extend(others.into_iter().map(|node| node.must("starting a node")));
        for node in &nodes {
            node.is_ready().await;
        }
        nodes
    }

    /// Which is not asked to find out what a tag means.
    pub(crate) fn registry_was_not_asked(&self) {
        assert_eq!(self.registry.asked.load(Ordering::Relaxed), 0, "connections to the registry");
    }
}

/// In memory if there is room, else in the test's folder. It goes when the test ends.
fn own_files(folder: &Folder) -> tempfile::TempDir {
    let make = |parent: &Path| tempfile::Builder::new().prefix("csn-nodes-").tempdir_in(parent);
    let has_room = rustix::fs::statvfs(MEMORY).is_ok_and(|found| found.f_bavail * found.f_frsize >= 8 << 30);
    if has_room && let Ok(made) = make(MEMORY.as_ref()) { made } else { make(folder.path()).must("making a folder") }
}

/// The harness keeps etcd's files in the test's folder.
fn lie_in(own_files: &Path, folder: &Folder) {
    let files = own_files.join("etcd");
    std::fs::create_dir(&files).must("making a folder");
    std::os::unix::fs::symlink(files, folder.path().join("etcd-0")).must("linking a folder");
}

/// A thousand nodes have a few files each.
fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
