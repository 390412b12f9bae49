//! Which pins are in use on this node, from what runs and what is pinned.

use std::collections::BTreeMap;

use countersign_trust::name::{ImageReference, ManifestDigest};

use super::report::{MAX_OTHERS, Other, PinInUse};
use crate::resolve::{Pins, Revision};

/// Containers of one revision that run the same digest, for an image that their pods name in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Of which revision.
    pub revision: Revision,
    /// The image, as the pods name it.
    pub image: ImageReference,
    /// What they run.
    pub digest: ManifestDigest,
    /// How many.
    pub containers: u32,
}

/// The pins that what runs is of, with how many containers run what they say and what others run. What has no pin is left out.
#[must_use]
pub fn pins_in_use(ran: impl IntoIterator<Item = Ran>, pins: &Pins) -> Vec<PinInUse> {
    let mut digests: BTreeMap<(Revision, ImageReference), BTreeMap<ManifestDigest, u32>> = BTreeMap::new();
    for Ran { revision, image, digest, containers } in ran {
        let count = digests.entry((revision, image)).or_default().entry(digest).or_default();
        *count = count.saturating_add(containers);
    }
    let pinned = digests.into_iter().filter_map(|((revision, image), mut digests)| {
        let pin = pins.of(&revision, &image)?;
        let (generation, digest) = (pin.generation, pin.meaning.digest);
        let containers = digests.remove(&digest).unwrap_or_default();
        Some(PinInUse { revision, image, generation, digest, containers, others: most(digests) })
    });
    pinned.collect()
}

fn most(digests: BTreeMap<ManifestDigest, u32>) -> Vec<Other> {
    let mut others: Vec<Other> = digests.into_iter().map(|(digest, containers)| Other { digest, containers }).collect();
    others.sort_by_key(|other| (std::cmp::Reverse(other.containers), other.digest));
    others.truncate(MAX_OTHERS);
    others
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_trust::evidence::{Evidence, Gun};
    use countersign_trust::name::Sha256;
    use countersign_trust::time::UnixTime;

    use super::*;
    use crate::nodes::report::tests::{digest, image, revision};
    use crate::resolve::{Cause, Meaning, Pin};
    use crate::store::EmbeddedStore;

    async fn pins(digest: ManifestDigest) -> (tempfile::TempDir, Pins) {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::own(Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap()));
        let evidence = Evidence::new(Gun::for_repository(image().repository()), "https://r.test".into());
        let (evidence_name, at) = (evidence.digest(), UnixTime::from_seconds(1_800_000_000));
        let meaning =
            Meaning { digest, evidence: evidence_name, evidence_bytes: 0, at, by: "node-1".into(), cause: Cause::FirstUse, voucher: None };
        pins.begin(Pin::first(revision("web"), image(), meaning, at).unwrap(), &evidence).await.unwrap();
        (folder, pins)
    }

    #[tokio::test]
    async fn what_runs_is_counted_by_pin_and_what_runs_in_its_place_is_told() {
        let (_folder, pins) = pins(digest("pinned")).await;
        let ran = |name: &str, digest: ManifestDigest, containers| Ran { revision: revision(name), image: image(), digest, containers };
        let other = |number: u32| ManifestDigest::new(Sha256::of(&number.to_be_bytes()));
        let mut all = vec![ran("web", digest("pinned"), 2), ran("api", digest("pinned"), 9), ran("web", digest("pinned"), 1)];
        all.extend((1..=6).map(|number| ran("web", other(number), number)));
        let generation = pins.of(&revision("web"), &image()).unwrap().generation;
        let told = pins_in_use(all, &pins);
        assert_eq!(told.len(), 1, "api has no pin: {told:?}");
        assert_eq!(
            (told[0].revision.clone(), told[0].generation, told[0].digest, told[0].containers),
            (revision("web"), generation, digest("pinned"), 3)
        );
        let others: Vec<_> = told[0].others.iter().map(|other| other.containers).collect();
        assert_eq!(others, [6, 5, 4, 3], "those of the most containers");
        let told = pins_in_use([ran("web", other(1), 1)], &pins);
        assert_eq!((told[0].containers, told[0].others.as_slice()), (0, [Other { digest: other(1), containers: 1 }].as_slice()));
    }
}
