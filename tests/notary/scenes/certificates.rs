//! Group E: the certificate of a root key.

use std::time::Duration;

use countersign_trust::time::UnixTime;

use super::{Cases, Scene};
use crate::forge::{Forge, GUN, Key, authority, certificate, certificate_der, issued, leaf, pem, said_to_be_signed_with_sha1, set_role};

const HOUR: i64 = 3600;

pub(super) const SCENES: Cases = &[
    ("cn-wildcard-mid-segment", |_| with_root_key(&Key::certified("root", "r.test/te*"))),
    ("cert-expired", |_| {
        let mut ended = leaf(GUN);
        ended.not_after = rcgen::date_time_ymd(2021, 1, 1);
        with_pem(&certificate("root", &ended))
    }),
    ("cert-starts-in-12h", |now| beginning(now, 12 * HOUR)),
    ("cert-starts-in-3d", |now| beginning(now, 72 * HOUR)),
    ("root-key-ed25519", |_| with_root_key(&Key::ed25519("root"))),
    ("rsa1024", |_| with_root_key(&Key::new("root").listed_as("rsa-x509", RSA_1024.as_bytes()))),
    ("chain-leaf-int-root", |_| with_pem(&chain().concat())),
    ("chain-int-before-leaf", |_| {
        let [leaf, intermediate, top] = chain();
        with_pem(&[intermediate, leaf, top].concat())
    }),
    ("pem-trailing-newline", |_| with_pem(&format!("{}\n", certificate("root", &leaf(GUN))))),
    ("cert-sha1-signed", |_| with_pem(&pem(&said_to_be_signed_with_sha1(&certificate_der("root", &leaf(GUN)))))),
];

/// For `r.test/team/app`, until 2040. Its private key was thrown away: who refuses it does so before looking at signatures.
const RSA_1024: &str = include_str!("rsa-1024.pem");

pub(super) fn with_root_key(root: &Key) -> Scene {
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[root], 1);
    forge.root().signed_by(&[root]);
    Scene::of(forge).also_pinning(&[root])
}

fn with_pem(pem: &str) -> Scene {
    with_root_key(&Key::in_certificate("root", pem))
}

fn beginning(now: UnixTime, later: i64) -> Scene {
    let begin = u64::try_from(now.plus_seconds(later).seconds()).unwrap();
    let mut params = leaf(GUN);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(begin);
    with_pem(&certificate("root", &params))
}

fn chain() -> [String; 3] {
    let (top, intermediate) = (authority("top"), authority("intermediate"));
    [
        issued("root", &leaf(GUN), ("intermediate", &intermediate)),
        issued("intermediate", &intermediate, ("top", &top)),
        certificate("top", &top),
    ]
}
