//! Everything that one test needs, brought up together and taken down together.

use std::path::Path;

use super::Must as _;
use super::containerd::{Containerd, ContainerdOptions, Version};
use super::cri::Cri;
use super::folder::Folder;
use super::gate::{Gate, GateConfig, RegisteredRegistry};
use super::image::{Image, Recipe};
use super::notary::{Notary, NotaryOptions};
use super::registry::{Registry, RegistryAuth, RegistryOptions};
use super::signer::RootIds;
use super::tls::Ca;
use super::token::TokenServer;

/// Where the sandbox image is in the test's registry. It is open to everybody: containerd pulls it without credentials.
const SANDBOX_REPOSITORY: &str = "pause";
const SANDBOX_TAG: &str = "3.10";

/// How a world differs from the usual one: an open registry on plain http, a notary server that asks for no token.
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {
    /// The registry.
    pub registry: RegistryOptions,
    /// The notary server.
    pub notary: NotaryOptions,
    /// containerd.
    pub containerd: ContainerdOptions,
}

/// A registry, a notary server and a containerd of the test's own, and countersign between them once it is started.
///
/// Dropping it stops all and leaves nothing behind; the logs are kept when the test panics.
#[derive(Debug)]
pub struct World {
    /// countersign, after [`World::start_gate`]. The fields are dropped in this order: whoever asks first, then who answers.
    pub gate: Option<Gate>,
    /// containerd.
    pub containerd: Containerd,
    /// notary-server and notary-signer.
    pub notary: Notary,
    /// The registry.
    pub registry: Registry,
    /// The token server, when one of the others needs it.
    pub tokens: Option<TokenServer>,
    /// The certificate authority of all servers.
    pub ca: Ca,
    /// The test's folder; dropped last, since it removes what containerd leaves.
    pub folder: Folder,
}

impl World {
    /// Brings up the usual world for the test `test`; two worlds of one test need two names.
    pub async fn new(test: &str) -> Self {
        Self::with(test, &WorldOptions::default()).await
    }

    /// Brings up the usual world on another release of containerd.
    pub async fn on(containerd: Version, test: &str) -> Self {
        let containerd = ContainerdOptions { version: containerd, ..Default::default() };
        Self::with(test, &WorldOptions { containerd, ..Default::default() }).await
    }

    /// Brings up a world with other servers than the usual.
    pub async fn with(test: &str, options: &WorldOptions) -> Self {
        assert!(rustix::process::geteuid().is_root(), "the integration tests run containers, so they have to run as root");
        let folder = Folder::new(&format!("{test}-{}", options.containerd.version.name()));
        let ca = Ca::new(folder.sub("tls"), "countersign tests CA");
        let needs_tokens = options.notary.token_auth || options.registry.auth == RegistryAuth::Token;
        let tokens = needs_tokens.then(|| TokenServer::start(&ca));
        let (registry, notary) = tokio::join!(
            Registry::start(&folder, &ca, options.registry, tokens.as_ref()),
            Notary::start(&folder, &ca, options.notary, tokens.as_ref()),
        );
        let sandbox = sandbox();
        let sandbox_name = sandbox_in(&registry);
        let (_, containerd) = tokio::join!(
            registry.push(&sandbox, SANDBOX_REPOSITORY, SANDBOX_TAG),
            Containerd::start(&folder, &options.containerd, &registry, &ca, &sandbox_name),
        );
        if options.registry.auth != RegistryAuth::Open {
            // containerd asks for it without credentials, which this registry refuses.
            containerd.ctr().import(&sandbox, &sandbox_name).await;
        }
        Self { gate: None, containerd, notary, registry, tokens, ca, folder }
    }

    /// Another node of this world, with nothing on it. `test` names its folder.
    pub async fn another_node(&self, test: &str) -> Node {
        let folder = Folder::new(test);
        let options = ContainerdOptions { version: self.containerd.version(), ..Default::default() };
        let containerd = Containerd::start(&folder, &options, &self.registry, &self.ca, &sandbox_in(&self.registry)).await;
        Node { gate: None, containerd, folder }
    }

    /// What the containers on the node stand on, all that exist, in any state: chain IDs.
    pub async fn root_file_systems(&self) -> Vec<String> {
        let (containers, ctr) = (self.cri().list_containers().await.must("listing containers"), self.containerd.ctr());
        let mut found = Vec::new();
        for container in containers {
            found.push(ctr.root_file_system(&container.id).await.must("asking for a container's root file system"));
        }
        found
    }

    /// The name of trust data for a repository: what image names begin with.
    pub fn gun(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.host())
    }

    /// Pushes an image and returns its name with tag.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> String {
        self.registry.push(image, repository, tag).await
    }

    /// Pushes an image, and signs its tag as `admin` in a repository of trust data that is made now. Returns the image's
    /// name and what the root can be pinned by.
    pub async fn push_signed(&self, image: &Image, repository: &str, tag: &str) -> (String, RootIds) {
        let name = self.push(image, repository, tag).await;
        let (admin, gun) = (self.notary.signer("admin"), self.gun(repository));
        let ids = admin.init(&gun).await;
        admin.sign(&gun, tag, image).await;
        (name, ids)
    }

    /// A configuration of the gate that enforces and knows this world's registry and notary server; add pins.
    pub fn gate_config(&self) -> GateConfig {
        let registry =
            RegisteredRegistry { host_address: self.registry.host(), notary_server: self.notary.url(), ca_bundle_file: self.ca.file() };
        let sandbox_digests = vec![sandbox().digest().to_string()];
        // containerd 2.x does not say which image its sandboxes have.
        let sandbox_image = (self.containerd.version() == Version::V2_1).then(|| sandbox_in(&self.registry));
        GateConfig { registries: vec![registry], sandbox_image, sandbox_digests, ..GateConfig::enforced() }
    }

    /// Starts countersign in front of this world's containerd.
    pub async fn start_gate(&mut self, binary: &Path, configuration: &GateConfig) -> &mut Gate {
        self.gate = None;
        let gate = Gate::start(&self.folder, binary, configuration, &self.containerd).await;
        self.gate.insert(gate)
    }

    /// A CRI client straight to containerd, past the gate.
    pub fn cri(&self) -> Cri {
        self.containerd.cri()
    }
}

/// Another node: a containerd of its own, and countersign once it is started.
#[derive(Debug)]
pub struct Node {
    /// countersign, after [`Node::start_gate`].
    pub gate: Option<Gate>,
    /// containerd.
    pub containerd: Containerd,
    /// The node's folder; dropped last, since it removes what containerd leaves.
    pub folder: Folder,
}

impl Node {
    /// Starts countersign in front of this node's containerd.
    pub async fn start_gate(&mut self, binary: &Path, configuration: &GateConfig) -> &mut Gate {
        self.gate = None;
        let gate = Gate::start(&self.folder, binary, configuration, &self.containerd).await;
        self.gate.insert(gate)
    }
}

/// The image of sandboxes, the same in every world.
pub fn sandbox() -> Image {
    Recipe::sleeps().build()
}

fn sandbox_in(registry: &Registry) -> String {
    format!("{}/{SANDBOX_REPOSITORY}:{SANDBOX_TAG}", registry.host())
}
