//! What the gate tries itself with: judged as every image is, and nobody else's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "notary/policy.rs"]
mod policy_of;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::admit::{Admit, Policy, RESERVED_HOST, Refusal, Shown};
use countersign::clock::SystemClock;
use countersign::containerd::Containerd;
use countersign::ledger::Ledger;
use countersign::proof::{Must, PROVE_EVERY, prepare, prove_for_ever};
use countersign_trust::Question;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, ManifestDigest, Sha256};
use countersign_trust::pin::Pins;

/// An [`Admit`] that trusts nothing, in a folder of its own.
fn admit(folder: &tempfile::TempDir) -> Arc<Admit> {
    let containerd = Containerd::new(Path::new("/nonexistent/containerd.sock"));
    let ledger = Ledger::open(folder.path());
    Arc::new(Admit::new(policy(Mode::Enforced), Arc::new(SystemClock), containerd, ledger, tokio::runtime::Handle::current()))
}

fn policy(mode: Mode) -> Policy {
    let trust = countersign_trust::Policy::new(mode, Pins::default());
    Policy { refresh_interval: PROVE_EVERY, ..policy_of::with(trust, HashMap::new(), Sha256::of(b"policy")) }
}

async fn pulled(admit: &Arc<Admit>, image: &str) -> Result<ManifestDigest, Refusal> {
    let image: ImageReference = image.parse().unwrap();
    admit.pull(Question::without_namespace(&image).into(), None).await.map(|admission| admission.digest)
}

#[tokio::test]
async fn what_is_made_for_the_trial_is_judged_as_every_image_is() {
    let folder = tempfile::tempdir().unwrap();
    let admit = admit(&folder);
    let (repositories, trials) = prepare(&admit).unwrap();
    let on_stage = admit.rehearse(repositories).unwrap();
    for trial in &trials {
        match (trial.must, pulled(&admit, &trial.image).await) {
            (Must::Allow(expected), found) => assert_eq!(found.unwrap(), expected),
            (Must::Refuse(code), found) => assert_eq!(found.unwrap_err().code(), code, "{}", trial.image),
        }
        assert!(admit.is_on_stage(&trial.image));
    }
    drop(on_stage);
    for trial in &trials {
        assert_eq!(pulled(&admit, &trial.image).await.unwrap_err().code(), "CS-SELF-PROOF", "it exists only while it is tried");
        assert!(!admit.is_on_stage(&trial.image));
    }
}

#[tokio::test]
async fn the_reserved_name_is_nobody_elses_while_it_is_tried_either() {
    let folder = tempfile::tempdir().unwrap();
    let admit = admit(&folder);
    let (repositories, _) = prepare(&admit).unwrap();
    let _on_stage = admit.rehearse(repositories).unwrap();
    for other in ["good:signed", "00ff/good:signed", "x/y/z@sha256:0000000000000000000000000000000000000000000000000000000000000000"] {
        let image = format!("{RESERVED_HOST}/{other}");
        assert_eq!(pulled(&admit, &image).await.unwrap_err().code(), "CS-SELF-PROOF", "{image}");
        assert_eq!(admit.mode_of(&image, Some("kube-system")), Mode::Enforced);
    }
}

#[tokio::test]
async fn no_two_trials_have_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let admit = admit(&folder);
    let names: BTreeSet<String> = (0..8).map(|_| prepare(&admit).unwrap().1[0].image.clone()).collect();
    assert_eq!(names.len(), 8);
}

#[tokio::test]
async fn another_policy_is_proven_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let admit = admit(&folder);
    admit.adopt(policy(Mode::Disabled));
    // Nobody serves it: what is tried cannot be proven, but that it was tried shows.
    let proving = tokio::spawn(prove_for_ever(Arc::clone(&admit), folder.path().join("cri.sock").into()));
    let shown = async |fits: fn(&Shown) -> bool| {
        while !admit.proofs().newest.is_some_and(|(_, shown)| fits(&shown)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let within = |shown| tokio::time::timeout(PROVE_EVERY / 10, shown);
    within(shown(|shown| *shown == Shown::NothingToEnforce)).await.expect("nothing is verified");
    admit.adopt(policy(Mode::Enforced));
    within(shown(|shown| matches!(shown, Shown::NotMade(_)))).await.expect("it is tried under the new policy");
    proving.abort();
}
