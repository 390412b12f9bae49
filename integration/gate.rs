//! The main job: a signed image runs, an unsigned one does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::path::Path;

use super::harness::containerd::{ContainerdOptions, Version};
use super::harness::image::Recipe;
use super::harness::world::{World, WorldOptions};

/// The daemon and command that are tested.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_countersign"))
}

on_every_containerd! {
    a_signed_image_runs_and_an_unsigned_one_is_refused,
    a_signed_image_runs_on_the_native_snapshotter_too,
}

async fn a_signed_image_runs_and_an_unsigned_one_is_refused(containerd: Version) {
    runs_what_is_signed(World::on(containerd, "a_signed_image_runs_and_an_unsigned_one_is_refused").await).await;
}

async fn a_signed_image_runs_on_the_native_snapshotter_too(containerd: Version) {
    let containerd = ContainerdOptions { version: containerd, snapshotter: Some("native") };
    runs_what_is_signed(World::with("native_snapshotter", &WorldOptions { containerd, ..Default::default() }).await).await;
}

async fn runs_what_is_signed(mut world: World) {
    let image = Recipe::prints("signed").build();
    let (signed, root) = world.push_signed(&image, "team/app", "1").await;
    let unsigned = world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let configuration = world.gate_config().root_key(world.gun("team/app"), root.canonical.to_string());
    let cri = world.start_gate(binary(), &configuration).await.cri();

    let ran = cri.run(&signed, "default").await.unwrap();
    assert_eq!(ran.output, "signed\n");
    assert_eq!(ran.image, image.id().to_string());

    let refused = cri.pull(&unsigned).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unknown);
    let start = format!("SignatureValidationFailed: image or trust data does not exist for {unsigned}");
    assert!(refused.message().starts_with(&start), "{}", refused.message());
    assert!(refused.message().ends_with("(CS-TAG-NOT-SIGNED)"), "{}", refused.message());
}
