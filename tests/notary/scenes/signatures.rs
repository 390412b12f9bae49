//! Group I: signatures and their methods.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Value, json};

use super::delegations::signed_by;
use super::encoding::targets;
use super::{Cases, Scene};
use crate::forge::{Key, Padding, hex};

pub(super) const SCENES: Cases = &[
    ("method-mismatch-rsapss", |_| with_method("rsapss")),
    ("method-eddsa-on-ecdsa-key", |_| with_method("eddsa")),
    ("ecdsa-all-zero-signature", |_| respelled(|raw| json!(STANDARD.encode(vec![0; raw.len()])))),
    ("sig-hex-not-base64", |_| respelled(|raw| json!(hex(raw)))),
    ("sig-base64-unpadded", |_| respelled(|raw| json!(STANDARD_NO_PAD.encode(raw)))),
    ("sig-null", |_| respelled(|_| Value::Null)),
    ("rsapss-salt-32", |_| signed_by(&Key::rsa(2048))),
    ("rsapkcs1v15-as-rsapss", |_| signed_by(&Key::rsa(2048).signing_by(Padding::Pkcs1, "rsapss"))),
    ("pycrypto-pss-with-pem-key", |_| {
        let key = Key::rsa(2048).signing_by(Padding::Pss, "pycrypto-pkcs#1 pss");
        let lines: Vec<&str> = key.public.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        signed_by(&key.listed_as("rsa", pem.as_bytes()))
    }),
];

fn with_signature(change: impl Fn(&mut Value) + 'static) -> Scene {
    targets(|targets| targets.envelope(move |envelope| change(&mut envelope["signatures"][0])))
}

fn with_method(method: &'static str) -> Scene {
    with_signature(move |signature| signature["method"] = json!(method))
}

/// The good signature of `targets`, written otherwise.
fn respelled(spelling: fn(&[u8]) -> Value) -> Scene {
    with_signature(move |signature| {
        let raw = STANDARD.decode(signature["sig"].as_str().unwrap()).unwrap();
        signature["sig"] = spelling(&raw);
    })
}
