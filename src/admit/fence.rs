//! The second fence: what containerd is about to pull without having been asked by the gate. containerd 2.x asks a program
//! about everything that it pulls (its image verifier), and that program asks here.

use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, ManifestDigest, Selector};

use super::refusal::Refusal;
use super::{Admit, record_name};

/// Why containerd may pull.
#[derive(Debug, Clone)]
pub enum MayPull {
    /// The gate has asked for it, and knows why.
    AskedByTheGate,
    /// It is what the policy allows.
    Allowed,
    /// Nothing is asked of this image.
    NotVerified,
    /// It is refused, and the rule of its image lets that pass.
    LetPass(Box<Refusal>),
}

impl Admit {
    /// Whether containerd may pull `digest` for `name`. Nobody tells for which namespace, so no rule makes anything easier,
    /// unless the gate has asked for the pull itself.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit_fetch(self: &Arc<Self>, name: &str, digest: ManifestDigest) -> Result<MayPull, Refusal> {
        let image: ImageReference = name.parse().map_err(|error| Refusal::Name { error })?;
        self.refuse_denied(&image, [digest.hash()])?;
        if self.is_pulling(name) && !is_other(&image, digest) {
            return Ok(MayPull::AskedByTheGate);
        }
        let mode = self.mode_of(name, None);
        if !mode.verifies() {
            return Ok(MayPull::NotVerified);
        }
        match self.judge_fetch(&image, digest).await {
            Ok(()) => Ok(MayPull::Allowed),
            Err(refusal) => match self.mode_after(mode, &refusal) {
                Mode::Enforced => Err(refusal),
                Mode::Permissive | Mode::Disabled => Ok(MayPull::LetPass(Box::new(refusal))),
            },
        }
    }

    async fn judge_fetch(self: &Arc<Self>, image: &ImageReference, digest: ManifestDigest) -> Result<(), Refusal> {
        if is_other(image, digest) {
            return Err(Refusal::Answer { what: format!("for {image} with {digest}") });
        }
        let sandbox = self.sandbox_name().filter(|sandbox| record_name(sandbox) == record_name(image));
        if sandbox.is_some() && self.policy().sandbox.digests.contains(&digest) {
            return Ok(());
        }
        let with_digest = match image.selector() {
            Selector::Tag(_) => format!("{image}@{digest}").parse().map_err(|error| Refusal::Name { error })?,
            Selector::Digest(_) | Selector::TagAndDigest(..) => image.clone(),
        };
        self.pull(Question::without_namespace(&with_digest).into(), None).await.map(drop)
    }
}

/// Whether the name itself says that another digest is meant.
fn is_other(image: &ImageReference, digest: ManifestDigest) -> bool {
    match image.selector() {
        Selector::Tag(_) => false,
        Selector::Digest(named) | Selector::TagAndDigest(_, named) => *named != digest,
    }
}
