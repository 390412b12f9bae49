//! The tour that the demo gives: the main job, step by step, in words for somebody who sees the project for the first time.
#![allow(unreachable_pub, reason = "the demo and the integration tests include it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: set-up that fails ends it"
)]

pub mod nodes;
pub mod show;
mod steps;

use std::path::Path;

use super::harness::cri::Pod;
use super::harness::gate::GateConfig;
use super::harness::image::{Image, Recipe};
use super::harness::relay::Relay;
use super::harness::world::World;
use show::Show;

/// What the unsigned image prints, wherever it gets in.
const EVIL: &str = "nobody signed me";
const APP: &str = "team/app";
const LATER: &str = "team/later";
/// The tags that get signed: those of the steps that use them.
const SIGNED: [&str; 5] = ["1.0", "3.0", "5.0", "6.0", "7.0"];

/// Everything that the steps play with.
struct Stage {
    world: World,
    relay: Relay,
    configuration: GateConfig,
    pod: Pod,
    evil: Image,
}

/// Sets up all it needs, shows every step, and takes everything down. Gives back for each step whether it did what it must.
pub async fn run(binary: &Path, show: &mut Show) -> Vec<bool> {
    show.beginning(binary);
    let mut stage = Stage::new(binary).await;
    show.set_up(&stage.servers().await);
    let mut good = Vec::new();
    for (number, step) in steps::all(&stage).iter().enumerate() {
        show.step(number + 1, step);
        let outcome = stage.play(number + 1).await;
        show.outcome(&outcome);
        good.push(outcome.is_ok());
    }
    if good.contains(&false) {
        stage.world.folder.failed();
    }
    good
}

impl Stage {
    async fn new(binary: &Path) -> Self {
        let mut world = World::new("demo").await;
        let (app, later) = (world.gun(APP), world.gun(LATER));
        let admin = world.notary.signer("admin");
        let app_root = admin.init(&app).await;
        for tag in SIGNED {
            let image = signed_image(tag);
            world.push(&image, APP, tag).await;
            admin.add_hash(&app, tag, image.top().bytes.len(), image.digest().hash(), &[]).await;
        }
        admin.publish(&app).await;
        let (_, later_root) = world.push_signed(&Recipe::prints("hello from later").build(), LATER, "1.0").await;
        let evil = Recipe::prints(EVIL).build();
        world.push(&evil, APP, "2.0").await;
        let relay = Relay::start(&world.folder, &world.containerd.socket());
        let mut configuration = world.gate_config().root_key(app, app_root.canonical).root_key(later, later_root.canonical);
        configuration.containerd = Some(relay.socket().to_owned());
        world.start_gate(binary, &configuration).await;
        let cri = world.cri();
        let pod = cri.run_pod(cri.pod("default")).await.expect("a pod runs");
        Self { world, relay, configuration, pod, evil }
    }

    /// The servers, each with what it is there for.
    async fn servers(&self) -> Vec<[String; 2]> {
        let containerd = self.world.cri().version().await.map(|version| version.runtime_version).unwrap_or_default();
        [
            ("containerd", format!("{containerd}, with runc: pulls images and runs containers")),
            ("docker-registry", format!("holds the images, at {}", self.world.registry.host())),
            ("notary-server", format!("holds the signatures, at {}; so does notary-signer, which keeps its keys", self.world.notary.url())),
            ("notary", format!("has signed {} of {APP} and 1.0 of {LATER}; nobody has signed 2.0 of {APP}", SIGNED.join(", "))),
            ("countersign", "stands between kubelet and containerd; this demo asks it as kubelet does".to_owned()),
        ]
        .map(|(name, what)| [name.to_owned(), what])
        .to_vec()
    }

    fn app(&self, tag: &str) -> String {
        format!("{}:{tag}", self.world.gun(APP))
    }
}

/// The image that is signed for a tag. Each prints its own line, so that the output tells which files ran.
fn signed_image(tag: &str) -> Image {
    Recipe::prints(&signed_line(tag)).build()
}

fn signed_line(tag: &str) -> String {
    format!("hello from the signed {tag}")
}
