//! The image of sandboxes.

use countersign_trust::name::{ImageReference, ManifestDigest};

use super::SandboxImage;
use super::fault::Fault;
use super::file::SandboxFile;
use super::rules::digest_of;
use super::shape::Notes;

/// The image of sandboxes, and what it may be. None if what is written is none; that was noted.
pub(super) fn check(file: &SandboxFile, notes: &mut Notes) -> Option<SandboxImage> {
    let name = file.image.as_ref().map(|written| {
        let name = written.value.parse::<ImageReference>();
        name.map_err(|error| notes.fault(written.at, Fault::SandboxImage { error })).ok()
    });
    let listed: Vec<_> = file.digests.iter().map(|digest| digest_of(digest, "containerd.sandbox-image-digests", notes)).collect();
    let name = match name {
        Some(name) => Some(name?),
        None => None,
    };
    let listed: Vec<ManifestDigest> = listed.into_iter().collect::<Option<_>>()?;
    let Some(own) = name.as_ref().and_then(|name| name.digest()).copied() else { return Some(SandboxImage { name, digests: listed }) };
    if !listed.is_empty() && !listed.contains(&own) {
        notes.fault(file.digests.first().map_or(0, |first| first.at), Fault::SandboxDigestNotListed);
        return None;
    }
    // Who writes a digest into this file has said which image is meant.
    Some(SandboxImage { name, digests: vec![own] })
}
