//! The rows of the matrix, one sentence each.

/// Which image is asked for. All three are in one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Signed by alice, who is in `acme/dev`.
    Signed,
    /// Signed by alice, and by bob, who is in `acme/qa`.
    Approved,
    Unsigned,
}

/// What the gate is configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Nothing is verified.
    Nothing,
    /// Whatever is signed below the pinned root may run.
    Signed,
    /// A member of `acme/qa` must have signed.
    Qa,
    /// Another root is pinned.
    OtherRoot,
    /// As [`Self::Signed`], and in the namespace `loose` nothing is verified.
    Looser,
    /// As [`Self::Signed`], and in the namespace `strict` a member of `acme/qa` must have signed.
    Stricter,
    /// Nothing is verified but in the namespace `strict`, which is as [`Self::Signed`].
    OnlyStrict,
}

/// How the image came to the node, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Absent,
    /// Pulled through the gate by a pod of this namespace, while the gate was configured so.
    Pulled(Policy, &'static str),
}

/// What kubelet asks, and how it names the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Pull(By),
    /// CreateContainer, and the start and the look at what was printed, where it passes.
    Create(By),
    /// CreateContainer of the approved image, with this one as an image volume.
    Mount(By),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Tag,
    Digest,
    TagAndDigest,
    /// The image ID, for the name that the pod gave: its tag.
    Id,
}

/// How it has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Passes,
    /// Kubelet shows `SignatureValidationFailed`; the reason has this code.
    Refused(&'static str),
}

use By::{Digest, Id, Tag, TagAndDigest};
use Call::{Create, Mount, Pull};
use End::{Passes, Refused};
use Policy::{Looser, Nothing, OnlyStrict, OtherRoot, Qa, Stricter};
use Which::{Approved, Unsigned};

pub(super) type Row = (&'static str, Which, Before, Policy, &'static str, Call, End);

const SIGNED: Which = Which::Signed;
const ENFORCED: Policy = Policy::Signed;
const ABSENT: Before = Before::Absent;
/// What most rows begin with: the image is on the node because nothing was verified when it was pulled.
const UNVERIFIED: Before = Before::Pulled(Nothing, "default");
const VERIFIED: Before = Before::Pulled(ENFORCED, "default");

pub(super) const ROWS: &[Row] = &[
    // Pulls.
    ("where nothing is verified a signed image is pulled", SIGNED, ABSENT, Nothing, "default", Pull(Tag), Passes),
    ("where nothing is verified an unsigned image is pulled", Unsigned, ABSENT, Nothing, "default", Pull(Tag), Passes),
    ("a signed image is pulled by tag", SIGNED, ABSENT, ENFORCED, "default", Pull(Tag), Passes),
    ("a signed image is pulled by digest", SIGNED, ABSENT, ENFORCED, "default", Pull(Digest), Passes),
    ("a signed image is pulled by tag and digest", SIGNED, ABSENT, ENFORCED, "default", Pull(TagAndDigest), Passes),
    ("no unsigned image is pulled by tag", Unsigned, ABSENT, ENFORCED, "default", Pull(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("nor by digest", Unsigned, ABSENT, ENFORCED, "default", Pull(Digest), Refused("CS-DIGEST-NOT-SIGNED")),
    ("nor by tag and digest", Unsigned, ABSENT, ENFORCED, "default", Pull(TagAndDigest), Refused("CS-TAG-NOT-SIGNED")),
    ("nor when it is on the node", Unsigned, UNVERIFIED, ENFORCED, "default", Pull(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("nor by digest when it is there", Unsigned, UNVERIFIED, ENFORCED, "default", Pull(Digest), Refused("CS-DIGEST-NOT-SIGNED")),
    ("a signed image that came unverified is pulled again", SIGNED, UNVERIFIED, ENFORCED, "default", Pull(Tag), Passes),
    ("nobody of the team has signed", SIGNED, ABSENT, Qa, "default", Pull(Tag), Refused("CS-SIGNING-POLICY")),
    ("nor for its digest", SIGNED, ABSENT, Qa, "default", Pull(Digest), Refused("CS-SIGNING-POLICY")),
    ("nor when it may have been pulled before", SIGNED, VERIFIED, Qa, "default", Pull(Tag), Refused("CS-SIGNING-POLICY")),
    ("somebody of the team has signed", Approved, ABSENT, Qa, "default", Pull(Tag), Passes),
    ("it is signed below another root", SIGNED, ABSENT, OtherRoot, "default", Pull(Tag), Refused("CS-ROOT-NOT-PINNED")),
    ("another root was pinned afterwards", SIGNED, VERIFIED, OtherRoot, "default", Pull(Tag), Refused("CS-ROOT-NOT-PINNED")),
    // Creates.
    ("where nothing is verified an unsigned image runs by ID", Unsigned, UNVERIFIED, Nothing, "default", Create(Id), Passes),
    ("and by tag", Unsigned, UNVERIFIED, Nothing, "default", Create(Tag), Passes),
    ("and by digest", Unsigned, UNVERIFIED, Nothing, "default", Create(Digest), Passes),
    ("and by tag and digest", Unsigned, UNVERIFIED, Nothing, "default", Create(TagAndDigest), Passes),
    ("a verified image runs by ID", SIGNED, VERIFIED, ENFORCED, "default", Create(Id), Passes),
    ("and by tag", SIGNED, VERIFIED, ENFORCED, "default", Create(Tag), Passes),
    ("and by digest", SIGNED, VERIFIED, ENFORCED, "default", Create(Digest), Passes),
    ("and by tag and digest", SIGNED, VERIFIED, ENFORCED, "default", Create(TagAndDigest), Passes),
    (
        "tightened: an unsigned image does not run by ID",
        Unsigned,
        UNVERIFIED,
        ENFORCED,
        "default",
        Create(Id),
        Refused("CS-TAG-NOT-SIGNED"),
    ),
    ("nor by tag", Unsigned, UNVERIFIED, ENFORCED, "default", Create(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("nor by digest", Unsigned, UNVERIFIED, ENFORCED, "default", Create(Digest), Refused("CS-DIGEST-NOT-SIGNED")),
    ("nor by tag and digest", Unsigned, UNVERIFIED, ENFORCED, "default", Create(TagAndDigest), Refused("CS-TAG-NOT-SIGNED")),
    ("tightened: what is signed runs, since its trust data is fetched", SIGNED, UNVERIFIED, ENFORCED, "default", Create(Id), Passes),
    ("tightened to a team: it does not run by ID", SIGNED, VERIFIED, Qa, "default", Create(Id), Refused("CS-SIGNING-POLICY")),
    ("nor by tag", SIGNED, VERIFIED, Qa, "default", Create(Tag), Refused("CS-SIGNING-POLICY")),
    ("nor by digest", SIGNED, VERIFIED, Qa, "default", Create(Digest), Refused("CS-SIGNING-POLICY")),
    ("nor by tag and digest", SIGNED, VERIFIED, Qa, "default", Create(TagAndDigest), Refused("CS-SIGNING-POLICY")),
    ("tightened to a team that has signed", Approved, VERIFIED, Qa, "default", Create(Id), Passes),
    ("tightened to another root", SIGNED, VERIFIED, OtherRoot, "default", Create(Id), Refused("CS-ROOT-NOT-PINNED")),
    // Namespaces.
    ("a looser namespace pulls an unsigned image", Unsigned, ABSENT, Looser, "loose", Pull(Tag), Passes),
    ("the others do not", Unsigned, ABSENT, Looser, "default", Pull(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("a looser namespace runs it", Unsigned, Before::Pulled(Looser, "loose"), Looser, "loose", Create(Id), Passes),
    ("the others do not", Unsigned, Before::Pulled(Looser, "loose"), Looser, "default", Create(Id), Refused("CS-TAG-NOT-SIGNED")),
    ("nor by tag", Unsigned, Before::Pulled(Looser, "loose"), Looser, "default", Create(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("a stricter namespace does not pull", SIGNED, ABSENT, Stricter, "strict", Pull(Tag), Refused("CS-SIGNING-POLICY")),
    ("the others do", SIGNED, ABSENT, Stricter, "default", Pull(Tag), Passes),
    (
        "nor does it run what another pulled",
        SIGNED,
        Before::Pulled(Stricter, "default"),
        Stricter,
        "strict",
        Create(Id),
        Refused("CS-SIGNING-POLICY"),
    ),
    ("nor by digest", SIGNED, Before::Pulled(Stricter, "default"), Stricter, "strict", Create(Digest), Refused("CS-SIGNING-POLICY")),
    ("the other runs it", SIGNED, Before::Pulled(Stricter, "default"), Stricter, "default", Create(Id), Passes),
    (
        "a stricter namespace runs what its team has signed",
        Approved,
        Before::Pulled(Stricter, "default"),
        Stricter,
        "strict",
        Create(Id),
        Passes,
    ),
    ("one namespace alone is strict: it does not pull", Unsigned, ABSENT, OnlyStrict, "strict", Pull(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("the others do", Unsigned, ABSENT, OnlyStrict, "default", Pull(Tag), Passes),
    (
        "nor does it run what another pulled",
        Unsigned,
        Before::Pulled(OnlyStrict, "default"),
        OnlyStrict,
        "strict",
        Create(Id),
        Refused("CS-TAG-NOT-SIGNED"),
    ),
    ("the other runs it", Unsigned, Before::Pulled(OnlyStrict, "default"), OnlyStrict, "default", Create(Id), Passes),
    ("it runs what is signed", SIGNED, Before::Pulled(OnlyStrict, "strict"), OnlyStrict, "strict", Create(Id), Passes),
    // Image volumes.
    ("where nothing is verified an unsigned image is mounted", Unsigned, UNVERIFIED, Nothing, "default", Mount(Tag), Passes),
    ("no unsigned image is mounted", Unsigned, UNVERIFIED, ENFORCED, "default", Mount(Tag), Refused("CS-TAG-NOT-SIGNED")),
    ("nor by ID", Unsigned, UNVERIFIED, ENFORCED, "default", Mount(Id), Refused("CS-TAG-NOT-SIGNED")),
    ("a signed one is", SIGNED, VERIFIED, ENFORCED, "default", Mount(Tag), Passes),
    ("and by ID", SIGNED, VERIFIED, ENFORCED, "default", Mount(Id), Passes),
    ("and by digest", SIGNED, VERIFIED, ENFORCED, "default", Mount(Digest), Passes),
    ("one that the team has not signed is not", SIGNED, VERIFIED, Qa, "default", Mount(Tag), Refused("CS-SIGNING-POLICY")),
    ("one that it has signed is", Approved, VERIFIED, Qa, "default", Mount(Tag), Passes),
];
