//! Group K: what is sent instead of a file.

use serde_json::{Value, json};

use super::hashes::served;
use super::{Cases, Scene};
use crate::forge::Forge;

pub(super) const SCENES: Cases = &[
    ("root-status-301", |_| root_redirected(301)),
    ("root-status-302", |_| root_redirected(302)),
    ("root-status-307", |_| root_redirected(307)),
    ("root-status-400", |_| root_status(400)),
    ("root-status-401", |_| root_status(401)),
    ("root-status-403", |_| root_status(403)),
    ("root-status-404", |_| root_status(404)),
    ("root-status-429", |_| root_status(429)),
    ("root-status-500", |_| root_status(500)),
    ("root-status-503", |_| root_status(503)),
    ("root-204-empty", |_| served("root.json", json!({"status": 204, "body": ""}))),
    ("root-200-html", |_| served("root.json", json!({"status": 200, "body": "<!doctype html><title>Login</title>"}))),
    ("timestamp-status-302-with-cache", |_| timestamp_after_good(json!({"status": 302, "headers": {"Location": "/x"}}))),
    ("timestamp-status-401-with-cache", |_| timestamp_after_good(json!({"status": 401}))),
    ("timestamp-status-404-with-cache", |_| timestamp_after_good(json!({"status": 404}))),
    ("timestamp-status-503-with-cache", |_| timestamp_after_good(json!({"status": 503}))),
    ("all-gzip", |_| served("*.json", json!({"gzip": true}))),
    ("all-chunked", |_| served("*.json", json!({"chunked": true}))),
    ("no-checksum-urls", |_| served("*.[0-9a-f][0-9a-f]*[0-9a-f][0-9a-f].json", json!({"status": 404}))),
];

fn root_status(status: u16) -> Scene {
    served("root.json", json!({"status": status}))
}

/// The root is said to be where it is too, below another name.
fn root_redirected(status: u16) -> Scene {
    served("root.json", json!({"status": status, "headers": {"Location": "1.root.json"}}))
}

fn timestamp_after_good(otherwise: Value) -> Scene {
    let good = Forge::new().seal();
    Scene::sealed([good.clone(), good.answering("timestamp.json", otherwise)])
}
