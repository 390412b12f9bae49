//! What a run has to do with: images that are signed, images that nobody signed, and the servers in between.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Instant;

use k8s_cri::v1::ContainerConfig;
use tonic::Status;

use super::account::{Account, Fate, Invariant, Weather, code_in};
use super::{CALL_WITHIN, EVILS, Plan, TAGS, VERSIONS};
use crate::faults::Scene;
use crate::harness::cri::{Cri, Pod};
use crate::harness::ctr::Ctr;
use crate::harness::gate::GateConfig;
use crate::harness::image::{Image, Recipe};
use crate::harness::relay::Relay;
use crate::harness::signer::Signer;
use crate::ledger::mount_small;
use crate::policy::People;

/// The repository whose tags are signed anew all the time.
const MOVING: &str = "team/moving";

/// What workers and attackers share: names, images and clients.
#[derive(Debug)]
pub(super) struct Town {
    /// The account of the run.
    pub(super) account: Account,
    /// Through the gate, as kubelet.
    pub(super) cri: Cri,
    /// Past the gate, as somebody with containerd's socket.
    pub(super) behind: Cri,
    /// containerd's own API.
    pub(super) ctr: Ctr,
    /// Between the gate and containerd.
    pub(super) relay: Relay,
    /// `host/team/moving`.
    pub(super) moving: String,
    /// For each tag the images that it may mean in turn.
    pub(super) images: Vec<Vec<Image>>,
    /// The name that alice must have signed, and its image.
    pub(super) guarded: (String, Image),
    /// Images that nobody signed, and their names in the registry.
    pub(super) evil: Vec<(Image, String)>,
}

/// The town with the servers that faults are made in.
pub(super) struct Stage {
    pub(super) town: Arc<Town>,
    pub(super) scene: Scene,
    pub(super) admin: Signer,
    /// The configuration that is in force when all is well.
    pub(super) good: GateConfig,
    /// The same without alice.
    pub(super) without_signer: GateConfig,
}

impl Stage {
    pub(super) async fn new(plan: &Plan) -> Self {
        let mut scene = Scene::on(plan.containerd, &plan.test).await;
        let people = People::signed_by_alice(&scene).await;
        let relay = Relay::start(&scene.world.folder, &scene.world.containerd.socket());
        let app = scene.world.gun("team/app");
        let mut base = scene.config.clone().root_key(scene.world.gun("*"), scene.root.canonical.clone());
        base.containerd = Some(relay.socket().to_owned());
        let bob = people.bob.certificate().certificate;
        let good = people.known_to(&base).rule(&app, "signed-by = [\"acme/dev\"]");
        let without_signer = base.signer("bob", &bob).team("acme/dev", &["bob"]).rule(&app, "signed-by = [\"acme/dev\"]");
        let admin = scene.world.notary.signer("admin");
        let (images, evil) = (signed_images(&scene, &admin).await, evil_images(&scene).await);
        start_on_small_disk(&mut scene, &good).await;
        let account = Account::default();
        for image in images.iter().map(|versions| &versions[0]).chain([&scene.image]) {
            account.signed(image.chain_id().to_string());
        }
        let town = Town {
            account,
            cri: scene.cri().clone(),
            behind: scene.world.cri(),
            ctr: scene.world.containerd.ctr(),
            relay,
            moving: scene.world.gun(MOVING),
            images,
            guarded: (scene.name.clone(), scene.image.clone()),
            evil,
        };
        Self { town: Arc::new(town), scene, admin, good, without_signer }
    }
}

/// All are pushed, and the first of each tag is signed.
async fn signed_images(scene: &Scene, admin: &Signer) -> Vec<Vec<Image>> {
    let gun = scene.world.gun(MOVING);
    admin.init(&gun).await;
    let mut images = Vec::new();
    for tag in 0..TAGS {
        let versions: Vec<_> = (0..VERSIONS).map(|version| Recipe::prints_and_stays(&format!("signed {tag} {version}")).build()).collect();
        for image in versions.iter().rev() {
            scene.world.push(image, MOVING, &tag.to_string()).await;
        }
        let first = &versions[0];
        admin.add_hash(&gun, &tag.to_string(), first.top().bytes.len(), first.digest().hash(), &[]).await;
        images.push(versions);
    }
    admin.publish(&gun).await;
    images
}

/// They are in the registry beside the signed ones, and on the node under names of their own.
async fn evil_images(scene: &Scene) -> Vec<(Image, String)> {
    let mut evil = Vec::new();
    for number in 0..EVILS {
        let image = Recipe::prints_and_stays(&format!("evil {number}")).build();
        let name = scene.world.push(&image, MOVING, &format!("unsigned-{number}")).await;
        scene.world.containerd.ctr().import(&image, &format!("example.com/evil:{number}")).await;
        evil.push((image, name));
    }
    evil
}

/// The gate's state gets a file system of its own, which can be filled without harm to anybody else.
async fn start_on_small_disk(scene: &mut Scene, config: &GateConfig) {
    let gate = scene.world.gate.as_mut().unwrap();
    gate.server.stop();
    let state = gate.state();
    fs::remove_dir_all(&state).unwrap();
    mount_small(&state);
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    gate.configure(config);
    gate.start_again().await;
}

impl Town {
    pub(super) fn tag(&self, tag: usize) -> String {
        format!("{}:{tag}", self.moving)
    }

    pub(super) fn by_digest(&self, image: &Image) -> String {
        format!("{}@{}", self.moving, image.digest())
    }

    /// Makes a call, which has to end within its bound whatever happens, and writes down how it ended.
    pub(super) async fn call<T>(&self, action: &'static str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let began = Instant::now();
        let answer = tokio::time::timeout(CALL_WITHIN, call).await.unwrap_or_else(|_| {
            self.account.breach(Invariant::TheGateAnswers, format!("`{action}` has not ended in {CALL_WITHIN:?}"));
            Err(Status::deadline_exceeded("the run's own bound"))
        });
        self.account.ended(action, &answer, began.elapsed());
        answer
    }

    /// Runs a sandbox through the gate and keeps account of it.
    pub(super) async fn pod(&self) -> Option<Pod> {
        let config = self.cri.pod("default");
        let name = config.metadata.as_ref().unwrap().name.clone();
        self.account.fate(&name, Fate::Broken);
        let began = self.account.weather();
        let made = self.call("run a sandbox", self.cri.run_pod(config)).await;
        self.account.fate(&name, self.fate(&made, began));
        made.ok()
    }

    /// Makes a container through the gate and keeps account of it.
    pub(super) async fn create(&self, action: &'static str, pod: &Pod, config: ContainerConfig) -> Result<String, Status> {
        let name = config.metadata.as_ref().unwrap().name.clone();
        self.account.fate(&name, Fate::Broken);
        let began = self.account.weather();
        let made = self.call(action, self.cri.create(pod, config)).await;
        self.account.fate(&name, self.fate(&made, began));
        if let Ok(id) = &made {
            self.stands_on_signed(action, id).await;
        }
        made
    }

    /// Judged by content, and not by anything that the gate says.
    pub(super) async fn stands_on_signed(&self, action: &str, container: &str) {
        // containerd may have been killed meanwhile; what then still runs is looked at by the watch.
        let Ok(chain) = self.ctr.root_file_system(container).await else { return };
        self.account.checked("root file systems after a call");
        if !self.account.is_signed(&chain) {
            self.account.breach(Invariant::OnlySignedRuns, format!("`{action}` let {container} through, which stands on {chain}"));
        }
    }

    /// A call for a signed image has succeeded that began in this weather: was it allowed to?
    pub(super) fn was_allowed(&self, action: &str, name: &str, began: Weather) {
        if !began.lasted_until(self.account.weather()) {
            return;
        }
        self.account.checked("calls in settled weather");
        if began.clock_ahead {
            self.account.breach(Invariant::OnlySignedRuns, format!("`{action}` of {name} by trust data that has ended"));
        }
        if began.signer_gone && name == self.guarded.0 {
            self.account.breach(Invariant::OnlySignedRuns, format!("`{action}` of {name}, which nobody signed who counts"));
        }
    }

    pub(super) async fn remove(&self, name: &str, id: &str) {
        if self.call("remove a container", self.cri.remove(id)).await.is_ok() {
            self.account.fate(name, Fate::Removed);
        }
    }

    /// What became of what a call was to make that began in this weather.
    fn fate<T>(&self, made: &Result<T, Status>, began: Weather) -> Fate {
        match made {
            Ok(_) => Fate::Made,
            // If it went away when the gate was to look at what it had made, it could not be asked to remove that either. One
            // that was there all the time answers both.
            Err(status) if code_in(status.message()) == Some("CS-CONTAINERD") => {
                let away = began.containerd_was_away_until(self.account.weather());
                self.account.checked(if away { "answers that containerd is away" } else { "... when it was there" });
                if away { Fate::Broken } else { Fate::Denied }
            }
            Err(status) if code_in(status.message()).is_some() => Fate::Denied,
            Err(_) => Fate::Broken,
        }
    }
}
