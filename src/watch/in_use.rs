//! What containers of services run, by revision and image: for those who compare it with what is pinned.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_trust::name::{ImageReference, ManifestDigest, Selector};

use super::Watch;
use crate::admit::Asked;
use crate::resolve::Revision;

/// Containers of one revision that run the same digest, for an image that their pods name by the same tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// Of which revision.
    pub revision: Revision,
    /// The image, as the pods name it.
    pub image: ImageReference,
    /// What they run: a digest that was verified on this node once, whatever is said of it today.
    pub digest: ManifestDigest,
    /// How many.
    pub containers: u32,
}

/// What is counted while everything that runs is looked at. There are no more entries than containers.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Revision, ImageReference, ManifestDigest), u32>);

impl Tally {
    pub(super) fn add(&mut self, revision: Revision, image: ImageReference, digest: ManifestDigest) {
        let containers = self.0.entry((revision, image, digest)).or_default();
        *containers = containers.saturating_add(1);
    }

    pub(super) fn finish(self) -> Vec<InUse> {
        let all = self.0.into_iter();
        all.map(|((revision, image, digest), containers)| InUse { revision, image, digest, containers }).collect()
    }
}

impl Watch {
    /// What containers of services ran when everything was looked at last, in the order of their revisions. None before that. It
    /// looks at nothing anew.
    #[must_use]
    pub fn in_use(&self) -> Option<Arc<Vec<InUse>>> {
        self.with_board(|board| board.in_use.clone())
    }

    /// containerd's name and version, escaped; empty as long as it has not told.
    #[must_use]
    pub fn containerd(&self) -> String {
        self.with_board(|board| board.containerd.clone())
    }

    /// Counts a container of a service by what it runs: what it was `judged` as, or, if it is refused today since its tag means
    /// something else by now, what was verified here once.
    pub(super) async fn tally(&self, tally: &mut Tally, id: &str, asked: &Asked, judged: Option<ManifestDigest>) {
        let (Some(revision), Some(image)) = (&asked.revision, &asked.name) else { return };
        if !matches!(image.selector(), Selector::Tag(_)) {
            return;
        }
        let digest = match judged {
            Some(digest) => Some(digest),
            None => match self.admit.pins().and_then(|pins| pins.of(revision, image)) {
                Some(pin) => self.admit.digest_on_record(id, image, pin.meaning.digest).await,
                None => None,
            },
        };
        if let Some(digest) = digest {
            tally.add(revision.clone(), image.clone(), digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_trust::name::Sha256;

    use super::*;
    use crate::resolve::{Kind, Service};

    #[test]
    fn containers_are_counted_by_revision_image_and_digest() {
        let revision = |id: &str| Revision {
            service: Service { namespace: "shop".into(), kind: Kind::Deployment, name: "web".into() },
            id: id.into(),
        };
        let (image, digest) =
            (|tag: &str| format!("r.test/app:{tag}").parse().unwrap(), |text: &[u8]| ManifestDigest::new(Sha256::of(text)));
        let mut tally = Tally::default();
        for (id, tag, text) in [("2", "1", b"a"), ("1", "1", b"a"), ("1", "1", b"a"), ("1", "2", b"a"), ("1", "1", b"b")] {
            tally.add(revision(id), image(tag), digest(text));
        }
        let counted = tally.finish();
        assert_eq!(counted.iter().map(|one| one.containers).sum::<u32>(), 5);
        let of = |id: &str, tag: &str, text: &[u8]| {
            let wanted = (revision(id), image(tag), digest(text));
            counted.iter().find(|one| (one.revision.clone(), one.image.clone(), one.digest) == wanted).map(|one| one.containers)
        };
        assert_eq!((of("1", "1", b"a"), of("1", "1", b"b"), of("1", "2", b"a"), of("2", "1", b"a")), (Some(2), Some(1), Some(1), Some(1)));
    }
}
