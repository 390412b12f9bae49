//! The gate tries itself, and nobody else goes by the name that it uses.

use std::time::Duration;

use super::super::attacks::assert_denied;
use super::super::harness::cri::container;
use super::super::harness::image::Recipe;
use super::Scene;

const RESERVED: &str = "self-proof.countersign.invalid";

#[tokio::test]
async fn enforcement_is_proven_through_the_real_socket_and_nothing_of_it_reaches_containerd() {
    let scene = Scene::new("self_proof").await;
    let status = scene.status_until(|status| status["self-proof"]["shown"] == "enforced").await;
    assert!(status["self-proof"]["proven-at"].is_string(), "{status:#}");
    assert!(scene.gate().logged("the gate has tried itself", Duration::from_secs(5)).await.is_some());
    assert!(!scene.gate().log().contains("denied "), "a trial is no denial that anybody should read");
    let records = scene.world.containerd.ctr().records().await.unwrap();
    assert!(records.iter().all(|(name, _)| !name.contains(RESERVED)), "{records:?}");
    assert!(!scene.world.containerd.server.log().contains(RESERVED));
}

#[tokio::test]
async fn the_reserved_name_is_nobodys_whatever_the_configuration_says() {
    let image = Recipe::prints("unsigned").build();
    let digest = image.digest();
    let scene = Scene::with("reserved_name", |configuration| {
        let key = configuration.root_keys[0].1[0].clone();
        let listed = format!("namespaces = [\"default\"]\nallow-digests = [\"{digest}\"]");
        configuration
            .root_key(format!("{RESERVED}/*"), key)
            .table(&format!("[[registries]]\nhost-address = \"{RESERVED}\""))
            .rule(&format!("{RESERVED}/*"), "mode = \"disabled\"\nnamespaces = [\"kube-system\"]")
            .rule(&format!("{RESERVED}/*"), &listed)
    })
    .await;
    let name = format!("{RESERVED}/team/app:1");
    scene.world.containerd.ctr().import(&image, &name).await;
    for namespace in ["default", "kube-system"] {
        let pod = scene.cri().run_pod(scene.cri().pod(namespace)).await.unwrap();
        for asked in [name.clone(), format!("{RESERVED}/team/app@{digest}"), format!("{RESERVED}/good:signed")] {
            let pulled = scene.cri().pull_with(&asked, None, Some(&pod.config)).await;
            assert_denied(&pulled.unwrap_err(), "CS-SELF-PROOF");
        }
        let created = scene.cri().create(&pod, container(&image.id().to_string(), &name)).await;
        assert_denied(&created.unwrap_err(), "CS-SELF-PROOF");
    }
}

#[tokio::test]
async fn in_permissive_mode_the_gate_still_shows_that_it_would_refuse_and_in_disabled_mode_it_says_that_it_does_not() {
    let mut scene = Scene::with("self_proof_modes", |configuration| configuration.mode("permissive")).await;
    scene.status_until(|status| status["self-proof"]["shown"] == "enforced").await;
    assert_denied(&scene.cri().pull(&format!("{RESERVED}/x:1")).await.unwrap_err(), "CS-SELF-PROOF");
    let disabled = scene.configuration().mode("disabled");
    scene.restart_with(&disabled).await;
    scene.status_until(|status| status["self-proof"]["shown"] == "nothing-to-enforce").await;
}
