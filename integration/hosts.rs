//! What containerd is told about registries in `certs.d`: its authorities are trusted for a trust server on the same host,
//! and its mirrors are its own affair.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;

use super::faults::assert_refused;
use super::gate::binary;
use super::harness::gate::{GateConfig, RegisteredRegistry};
use super::harness::image::Recipe;
use super::harness::registry::{RegistryAuth, RegistryOptions};
use super::harness::world::{World, WorldOptions};

/// A gate that has no CA bundle, and looks for containerd's in a folder below the test's own.
fn without_bundle(world: &World, root_key: &str, registry_config: &str) -> GateConfig {
    let (host, notary) = (world.registry.host(), world.notary.url());
    GateConfig {
        registry_config: Some(world.folder.sub(registry_config)),
        tables: format!("\n[[registries]]\nhost-address = \"{host}\"\nnotary-server = \"{notary}\"\n"),
        ..GateConfig::enforced()
    }
    .root_key(world.gun("team/app"), root_key)
}

#[tokio::test]
async fn the_authority_that_containerd_trusts_for_a_registry_vouches_for_a_trust_server_on_its_host() {
    let registry = RegistryOptions { tls: true, auth: RegistryAuth::Open };
    let mut world = World::with("containerds_authority_vouches", &WorldOptions { registry, ..Default::default() }).await;
    let image = Recipe::prints("signed").build();
    let (name, root) = world.push_signed(&image, "team/app", "1").await;

    let nothing = without_bundle(&world, &root.canonical, "nothing.d");
    let refused = world.start_gate(binary(), &nothing).await.cri().pull(&name).await.unwrap_err();
    let sentence = format!("error contacting trust server: {} cannot be trusted: its certificate is from an authority", world.notary.url());
    assert_refused(&refused, "SignatureValidationFailed", &sentence, "CS-SERVER-TLS");

    let containerds = without_bundle(&world, &root.canonical, "containerd/certs.d");
    let gate = world.start_gate(binary(), &containerds).await;
    assert_eq!(gate.cri().pull(&name).await.unwrap(), image.id().to_string());
    let asked = gate.verify(&name).await;
    assert_eq!(asked.exit_code, Some(0), "{asked:?}");
}

#[tokio::test]
async fn a_signed_image_comes_from_containerds_mirror_by_its_verified_digest_and_no_verdict_asks_the_mirror() {
    let mut world = World::new("from_containerds_mirror").await;
    let image = Recipe::prints("from the mirror").build();
    let mirror = world.push(&image, "team/app", "1").await;
    world.push(&Recipe::prints("moved").build(), "team/app", "2").await;
    let (host, gun) = ("registry.example", "registry.example/team/app");
    let admin = world.notary.signer("admin");
    let root = admin.init(gun).await;
    admin.sign(gun, "1", &image).await;
    let hosts =
        format!("server = \"https://{host}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", world.registry.host());
    fs::write(world.folder.sub(&format!("containerd/certs.d/{host}")).join("hosts.toml"), hosts).unwrap();
    let registered =
        RegisteredRegistry { host_address: host.to_owned(), notary_server: world.notary.url(), ca_bundle_file: world.ca.file() };
    let config = GateConfig {
        registry_config: Some(world.folder.sub("containerd/certs.d")),
        registries: vec![registered],
        sandbox_digests: world.gate_config().sandbox_digests,
        ..GateConfig::enforced()
    };
    world.start_gate(binary(), &config.root_key(gun, root.canonical)).await;
    let gate = world.gate.as_ref().unwrap();
    let asked_so_far = world.registry.requests();

    let [name, other] = ["1", "2"].map(|tag| format!("{gun}:{tag}"));
    let verdict = gate.verify(&name).await;
    assert_eq!((verdict.exit_code, verdict.output["digest"].as_str()), (Some(0), Some(image.digest().to_string().as_str())), "{verdict:?}");
    assert_eq!(gate.verify(&other).await.output["code"].as_str(), Some("CS-TAG-NOT-SIGNED"));
    let refused = gate.cri().pull(&other).await.unwrap_err();
    assert!(refused.message().ends_with("(CS-TAG-NOT-SIGNED)"), "{refused:?}");
    assert_eq!(world.registry.requests(), asked_so_far, "no verdict asked the mirror");

    // The mirror has something else under the tag now; what is pulled is what was signed.
    let moved = Recipe::prints("moved").build();
    assert_eq!(world.push(&moved, "team/app", "1").await, mirror);
    let ran = gate.cri().run(&name, "default").await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("from the mirror\n", image.id().to_string()));
    let by_digest = format!("GET /v2/team/app/manifests/{}", image.digest());
    let asked = world.registry.requests();
    assert!(asked.iter().any(|request| request.starts_with(&by_digest)), "{asked:?}");
    let by_tag = asked.iter().skip(asked_so_far.len()).filter(|request| !request.starts_with("PUT") && request.contains("/manifests/1"));
    assert_eq!(by_tag.count(), 0, "{asked:?}");
}
