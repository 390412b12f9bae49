//! What the configuration demands, on the real parts: who must have signed, rules, revocations, life without a network.
//!
//! Each test asserts the reason of every refusal, and what the containers that exist stand on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

mod denied;
#[cfg(feature = "crash-points")]
mod ends;
mod evidence;
mod official;
#[cfg(feature = "crash-points")]
mod offline;
mod refresh;
mod reset;
mod revoked;
mod rules;
mod teams;

use tonic::Status;

use super::faults::{Scene, assert_refused};
use super::gate::binary;
use super::harness::cri::{Pod, container};
use super::harness::gate::{Gate, GateConfig};
use super::harness::image::Image;
use super::harness::signer::{Rotation, Signer};
use super::harness::world::World;
use super::verify::{configuration, countersign};

const DENIED: &str = "SignatureValidationFailed";
const UNAVAILABLE: &str = "RegistryUnavailable";
/// The repository whose images are signed in a [`Scene`].
const REPOSITORY: &str = "team/app";

/// Starts the gate anew with another configuration.
async fn reconfigure(scene: &mut Scene, config: &GateConfig) {
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(config);
    gate.restart().await;
}

fn gate(scene: &Scene) -> &Gate {
    scene.world.gate.as_ref().unwrap()
}

fn gun(scene: &Scene) -> String {
    scene.world.gun(REPOSITORY)
}

async fn pod(scene: &Scene, namespace: &str) -> Pod {
    scene.cri().run_pod(scene.cri().pod(namespace)).await.unwrap()
}

/// Makes a container of the scene's image, as kubelet does: by its ID, for the name that the pod gave.
async fn create(scene: &Scene, pod: &Pod) -> Result<String, Status> {
    scene.cri().create(pod, container(&scene.image.id().to_string(), &scene.name)).await
}

/// A container of the scene's image runs for its name. Returns its ID.
async fn runs(scene: &Scene, namespace: &str) -> String {
    let ran = scene.cri().run(&scene.name, namespace).await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("signed\n", scene.image.id().to_string()));
    ran.container
}

/// Every container that exists stands on one of these images, and so many do.
async fn only_stand_on(world: &World, images: &[&Image], count: usize) {
    let found = world.root_file_systems().await;
    let allowed: Vec<String> = images.iter().map(|image| image.chain_id().to_string()).collect();
    assert!(found.iter().all(|root| allowed.contains(root)), "{found:?} and not only {allowed:?}");
    assert_eq!(found.len(), count);
}

/// Alice and bob, who may both sign in `targets/releases`, and each in a role of their own.
pub(crate) struct People {
    pub(crate) alice: Signer,
    pub(crate) bob: Signer,
}

impl People {
    /// People without any role.
    fn of(scene: &Scene) -> Self {
        Self { alice: scene.world.notary.signer("alice"), bob: scene.world.notary.signer("bob") }
    }

    /// People with their roles, and their keys at hand.
    async fn delegated(scene: &Scene) -> Self {
        let (people, gun, admin) = (Self::of(scene), gun(scene), scene.world.notary.signer("admin"));
        let Self { alice, bob } = &people;
        // Whoever signs in a delegation makes a new snapshot, too, or the server does.
        admin.rotate(&gun, Rotation::SnapshotToServer).await;
        admin.delegate(&gun, "targets/releases", &[alice, bob]).await;
        for (role, person) in [("targets/alice", alice), ("targets/bob", bob)] {
            admin.delegate(&gun, role, &[person]).await;
            person.import_own_key().await;
        }
        people
    }

    /// As [`Self::delegated`]; alice has released the scene's image and signed it in her role, as `docker trust sign` does.
    pub(crate) async fn signed_by_alice(scene: &Scene) -> Self {
        let people = Self::delegated(scene).await;
        people.alice.sign_as(&gun(scene), "1", scene.image.top(), &["targets/alice", "targets/releases"]).await;
        people
    }

    /// A configuration that knows them: alice is in `acme/dev` and bob in `acme/qa`.
    pub(crate) fn known_to(&self, config: &GateConfig) -> GateConfig {
        let (alice, bob) = (self.alice.certificate().certificate, self.bob.certificate().certificate);
        let config = config.clone().signer("alice", &alice).signer("bob", &bob);
        config.team("acme/dev", &["alice"]).team("acme/qa", &["bob"])
    }
}
