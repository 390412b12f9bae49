//! Group L: what a client is told to trust.

use super::{Cases, Pinning, Scene};
use crate::forge::{Forge, GUN, Key, authority, certificate, issued, leaf, root_key, set_role};

const EVERYTHING_OF_THE_TEAM: &str = "r.test/team/*";

pub(super) const SCENES: Cases = &[
    ("certs-exact-wrong-id", |_| told(&[(GUN, &[zeros()])])),
    ("certs-uppercase-id", |_| told(&[(GUN, &[root_key().id().to_uppercase()])])),
    ("certs-canonical-key-id", |_| told(&[(GUN, &[root_key().canonical_id()])])),
    ("certs-exact-wins-over-wildcard-bad-exact", |_| told(&[(GUN, &[zeros()]), (EVERYTHING_OF_THE_TEAM, &[root_key().id()])])),
    ("certs-wildcard-empty-list-falls-through-to-tofu", |_| told(&[(EVERYTHING_OF_THE_TEAM, &[])])),
    ("fresh-client-pin-is-new-root-cert", |_| {
        let new = Key::certified("second root", GUN);
        let mut forge = Forge::new();
        set_role(&mut forge.rotate(&[&root_key(), &new]).signed, "root", &[&new], 1);
        Scene::of(forge).told(Pinning { disable_tofu: true, ..certificates(&[(GUN, &[new.id()])]) })
    }),
    ("ca-ok-leaf-int", |_| issued_with(&[CODE_SIGNING], Bundle::Intermediate, Told::Top)),
    ("ca-direct-issued", |_| issued_with(&[CODE_SIGNING], Bundle::Direct, Told::Top)),
    ("ca-wrong", |_| issued_with(&[CODE_SIGNING], Bundle::Intermediate, Told::Other)),
    ("ca-self-signed-leaf", |_| Scene::of(Forge::new()).told(authorities(&[(GUN, &top())]))),
    ("certs-beats-ca", |_| certificates_beat_authorities(CODE_SIGNING)),
    ("ca-ok-eku-any", |_| issued_with(&[rcgen::ExtendedKeyUsagePurpose::Any], Bundle::Intermediate, Told::Top)),
    ("ca-longest-prefix-wins-eku-server", |_| issued_with(&[SERVER], Bundle::Intermediate, Told::TopForLongest)),
    ("certs-beats-ca-eku-server", |_| certificates_beat_authorities(SERVER)),
    ("ca-no-match-falls-to-tofu", |_| Scene::of(Forge::new()).told(authorities(&[("other", &top())]))),
    ("ca-root-included-in-bundle-eku-server", |_| issued_with(&[SERVER], Bundle::Whole, Told::Top)),
    ("ca-expired-leaf-eku-server", |_| issued_with(&[SERVER], Bundle::EndedLeaf, Told::Top)),
];

const SERVER: rcgen::ExtendedKeyUsagePurpose = rcgen::ExtendedKeyUsagePurpose::ServerAuth;
const CODE_SIGNING: rcgen::ExtendedKeyUsagePurpose = rcgen::ExtendedKeyUsagePurpose::CodeSigning;

/// What the root key's bundle holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bundle {
    /// A leaf that the authority itself has issued.
    Direct,
    /// A leaf and the intermediate that has issued it.
    Intermediate,
    /// The same, with a leaf that has ended.
    EndedLeaf,
    /// The same with the authority.
    Whole,
}

/// Which authorities the client is told of.
#[derive(Clone, Copy)]
enum Told {
    Top,
    Other,
    /// The right one for the whole name, another for its host.
    TopForLongest,
}

fn zeros() -> String {
    "0".repeat(64)
}

fn certificates(pins: &[(&str, &[String])]) -> Pinning {
    Pinning { certificates: pins.iter().map(|(name, ids)| ((*name).to_owned(), ids.to_vec())).collect(), ..Pinning::default() }
}

fn authorities(pins: &[(&str, &str)]) -> Pinning {
    Pinning { authorities: pins.iter().map(|(name, pem)| ((*name).to_owned(), (*pem).to_owned())).collect(), ..Pinning::default() }
}

/// The usual repository for a client with these certificate pins.
fn told(pins: &[(&str, &[String])]) -> Scene {
    Scene::of(Forge::new()).told(certificates(pins))
}

fn top() -> String {
    certificate("top", &authority("top"))
}

fn root_in(usages: &[rcgen::ExtendedKeyUsagePurpose], bundle: Bundle) -> Key {
    let mut params = leaf(GUN);
    params.extended_key_usages = usages.to_vec();
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    if bundle == Bundle::EndedLeaf {
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let (above, intermediate) = (authority("top"), authority("intermediate"));
    let indirect =
        [issued("root", &params, ("intermediate", &intermediate)), issued("intermediate", &intermediate, ("top", &above))].concat();
    let pem = match bundle {
        Bundle::Direct => issued("root", &params, ("top", &above)),
        Bundle::Intermediate | Bundle::EndedLeaf => indirect,
        Bundle::Whole => indirect + &top(),
    };
    Key::in_certificate("root", &pem)
}

fn issued_with(usages: &[rcgen::ExtendedKeyUsagePurpose], bundle: Bundle, told: Told) -> Scene {
    let other = certificate("other", &authority("other"));
    let pinning = match told {
        Told::Top => authorities(&[(GUN, &top())]),
        Told::Other => authorities(&[(GUN, &other)]),
        Told::TopForLongest => authorities(&[("r.test/", &other), (GUN, &top())]),
    };
    super::certificates::with_root_key(&root_in(usages, bundle)).told(pinning)
}

/// The authority would do, but the certificate's own pin is another.
fn certificates_beat_authorities(usage: rcgen::ExtendedKeyUsagePurpose) -> Scene {
    let pinning = Pinning { certificates: vec![(GUN.into(), vec![zeros()])], ..authorities(&[(GUN, &top())]) };
    super::certificates::with_root_key(&root_in(&[usage], Bundle::Intermediate)).told(pinning)
}
