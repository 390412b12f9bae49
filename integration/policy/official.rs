//! Docker Official Images, from a mirror and with signatures of an operator's own: Docker's service for them ends.

use std::fs;

use super::super::harness::gate::RegisteredRegistry;
use super::super::harness::image::Recipe;
use super::super::harness::process::text;
use super::super::harness::signer::RootIds;
use super::super::harness::world::World;
use super::*;

const OFFICIAL: &str = "official-library-images = true";

/// `docker.io/library/app:1` is in the world's registry, which is docker.io's mirror, and signed by `admin`.
async fn mirrored(test: &str) -> (World, Image, RootIds, GateConfig) {
    let world = World::new(test).await;
    let image = Recipe::prints("official").build();
    world.push(&image, "library/app", "1").await;
    world.push(&image, "corp/app", "1").await;
    let admin = world.notary.signer("admin");
    let root = admin.init("docker.io/library/app").await;
    admin.sign("docker.io/library/app", "1", &image).await;
    let mirror = world.registry.host();
    let hosts = format!("server = \"http://{mirror}\"\n[host.\"http://{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    fs::write(world.folder.sub("containerd/certs.d/docker.io").join("hosts.toml"), hosts).unwrap();
    let docker =
        RegisteredRegistry { host_address: "docker.io".into(), notary_server: world.notary.url(), ca_bundle_file: world.ca.file() };
    let mut config = world.gate_config();
    config.registries.push(docker);
    (world, image, root, config)
}

#[tokio::test]
async fn official_images_run_by_the_keys_that_the_operator_lists_and_by_no_others() {
    let (mut world, image, root, config) = mirrored("official_images").await;
    let list = world.folder.configuration("official-keys", &format!("# ours\n{}\n", root.canonical));
    let listed = config.clone().trust_pinning(OFFICIAL).trust_pinning(&format!("official-library-keys-file = \"{}\"", text(&list)));
    let own = config.clone().trust_pinning(OFFICIAL).root_key("docker.io/library/*", root.canonical.clone());
    let (name, other) = ("docker.io/library/app:1", "docker.io/corp/app:1");

    // The keys that are built in are those of Docker.
    let cri = world.start_gate(binary(), &config.clone().trust_pinning(OFFICIAL)).await.cri().clone();
    let sentence = format!(
        "could not validate the path to a trusted root: unable to match any certificates to trust-pinning: the root of \
         docker.io/library/app carries certificate ID {} (root key ID {})",
        root.certificate, root.canonical
    );
    assert_refused(&cri.pull(name).await.unwrap_err(), DENIED, &sentence, "CS-ROOT-NOT-PINNED");
    assert_refused(&cri.pull(other).await.unwrap_err(), DENIED, "no pin covers docker.io/corp/app", "CS-NOT-PINNED");
    let log = world.gate.as_ref().unwrap().log();
    assert!(log.contains("Docker shuts notary.docker.io down"), "{log}");
    only_stand_on(&world, &[], 0).await;

    let mut count = 0;
    for config in [listed, own] {
        let cri = world.start_gate(binary(), &config).await.cri().clone();
        for name in ["app:1", name] {
            let ran = cri.run(name, "default").await.unwrap();
            assert_eq!((ran.output.as_str(), ran.image), ("official\n", image.id().to_string()));
            count += 1;
        }
        assert_refused(&cri.pull(other).await.unwrap_err(), DENIED, "no pin covers docker.io/corp/app", "CS-NOT-PINNED");
        only_stand_on(&world, &[&image], count).await;
    }
}
