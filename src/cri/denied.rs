//! Denied digests where a rule lets everything else pass: the images of a container are looked at before it is made, and what was
//! made, or is to be started, is compared with them by content.

use countersign_trust::mode::Mode;
use countersign_trust::name::{ChainId, ImageId, ImageReference, shown};

use super::checked::{Guard, Refused};
use super::checks::CheckedCall;
use super::create::{called, canonical, names_of, parsed_id};
use super::status::Status;
use super::upstream::{Reply, Upstream};
use crate::admit::{Asked, AskedVolume, Refusal, Volume};

/// The images of a container, of which no digest is denied.
pub(super) struct LookedAt {
    /// The image of its root file system.
    pub(super) image_id: ImageId,
    root: ChainId,
    volumes: Vec<Volume>,
}

impl Guard {
    /// Looks whether a digest of any image that was asked for is denied. None: no digest is.
    ///
    /// # Errors
    /// A denied digest, of whichever image; else why it cannot be told of one.
    pub(super) async fn look_for_denied(&self, asked: &Asked, upstream: &Upstream) -> Result<Option<LookedAt>, Refusal> {
        if !self.admit.has_denied_digests() {
            return Ok(None);
        }
        let (mut volumes, mut cannot_tell) = (Vec::new(), None);
        for AskedVolume { path, given, name } in &asked.volumes {
            match self.not_denied(given, name.clone(), upstream).await {
                Ok((_, chain_id)) => volumes.push(Volume { path: path.clone(), chain_id }),
                // Whoever cannot be asked about one image cannot be asked about the others: there may be a thousand.
                Err(refusal) if refusal.is_of_denied_digest() || !refusal.says_unverified() => return Err(refusal),
                Err(refusal) => cannot_tell = cannot_tell.or(Some(refusal)),
            }
        }
        let (image_id, root) = self.not_denied(&asked.given, asked.name.clone(), upstream).await?;
        cannot_tell.map_or(Ok(Some(LookedAt { image_id, root, volumes })), Err)
    }

    /// The image that is meant, and its root file system, if it is certain that none of its digests is denied.
    async fn not_denied(&self, given: &str, name: Option<ImageReference>, upstream: &Upstream) -> Result<(ImageId, ChainId), Refusal> {
        let image = canonical(upstream, given).await?;
        let image_id = parsed_id(&image)?;
        let led_elsewhere = || Refusal::OtherRecord { record: shown(given), expected: image_id };
        let called = called(&image, name).ok_or_else(led_elsewhere)?;
        let content = self.admit.refuse_denied_content(&called, &names_of(&image, given), image_id).await?;
        content.map(|content| (image_id, content.chain_id)).ok_or_else(led_elsewhere)
    }

    /// The container has the files of the images that were looked at: the name that an image goes by may have been given to another
    /// since.
    pub(super) async fn stands_on(&self, container_id: &str, looked_at: &LookedAt) -> Result<(), Refusal> {
        self.admit.check_root_fs(container_id, &looked_at.root).await?;
        self.admit.check_volumes(container_id, &looked_at.volumes).await
    }

    /// What becomes of a call that is refused, and that a rule lets pass, when this was found by looking for denied digests. One of
    /// these passes under no rule, and what cannot be told from one does not, either.
    pub(super) async fn refused_for(
        &self,
        call: &CheckedCall,
        refused: Refused<'_>,
        refusal: Refusal,
        found: Refusal,
    ) -> Result<Reply, Status> {
        if found.is_of_denied_digest() {
            return self.refused(call, refused, found).await;
        }
        match self.admit.mode() {
            Mode::Enforced => self.refused(call, Refused { mode: Mode::Enforced, ..refused }, found).await,
            Mode::Permissive | Mode::Disabled => self.refused(call, refused, refusal).await,
        }
    }
}
