//! Group H: delegations.

use serde_json::json;

use super::{Cases, Scene};
use crate::forge::{Forge, Key, alice, authority, bob, certificate, certificate_der, leaf, pem, said_to_be_signed_with_sha1};

pub(super) const SCENES: Cases = &[
    ("threshold-0", |_| Scene::changed(|forge| forge.delegation("targets", "targets/a")["threshold"] = json!(0))),
    ("paths-prefix-not-segment", |_| with_paths("ta", "")),
    ("nested-paths-within-parent", |_| with_paths("t", "ta")),
    ("cert-is-ca", |_| signed_by(&Key::in_certificate("carol", &certificate("carol", &authority("carol"))))),
    ("cert-sha1-signed", |_| {
        let der = said_to_be_signed_with_sha1(&certificate_der("carol", &leaf("carol")));
        signed_by(&Key::in_certificate("carol", &pem(&der)))
    }),
    ("cert-rsa3072", |_| signed_by(&Key::certified_rsa(3072, "carol"))),
    ("key-plain-rsa2048", |_| signed_by(&Key::rsa(2048))),
    ("key-p224", |_| {
        let mut key = Key::new("carol");
        key.public = P224_KEY.into();
        let mut forge = of(&key);
        forge.list("targets/a").envelope(|envelope| envelope["signatures"][0]["sig"] = json!(P224_SIGNATURE));
        Scene::of(forge)
    }),
    ("key-type-unknown", |_| signed_by(&Key::new("carol").of_type("sphincs"))),
    ("threshold-2-two-signers-ok", |_| {
        Scene::changed(|forge| {
            forge.delegate("targets", "targets/a", &[&alice(), &bob()], 2);
            forge.list("targets/a").signed_by(&[&alice(), &bob()]);
        })
    }),
];

/// The usual repository with `key` as the only one of `targets/a`.
fn of(key: &Key) -> Forge {
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/a", &[key], 1);
    forge.list("targets/a").signed_by(&[key]);
    forge
}

pub(super) fn signed_by(key: &Key) -> Scene {
    Scene::of(of(key))
}

fn with_paths(outer: &str, inner: &str) -> Scene {
    Scene::changed(|forge| {
        forge.delegation("targets", "targets/a")["paths"] = json!([outer]);
        forge.delegation("targets/a", "targets/a/b")["paths"] = json!([inner]);
    })
}

/// A P-224 key and its signature over the list of `targets/a`, by another tool: nothing here signs on that curve. Whoever
/// changes what that list says must sign it anew; the real client, which takes such signatures, tells.
const P224_KEY: &str = "ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEvQj6oN7gyp4JycwjfB8Bb0upFOGXg7ZJ3fQCCMgCurrE3WEpcNqE4RgMLa5Z9nrCq+1yK/wvlfA=";
const P224_SIGNATURE: &str = "2hk/QGH3W6yWM+m5tj4IITeuAExwFAXwAgYrbPyHiVeiJntEtM04IlUB8PIyDp856c9IGV0l+5Q=";
