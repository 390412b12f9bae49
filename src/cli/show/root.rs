//! Roots and pins, as several commands show them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Table, and_more, end, or_dash, or_null};
use crate::admin::v1;

/// Where a pin stands and for what.
pub(super) fn named(pin: &v1::Pin) -> String {
    format!("{} \"{}\"", pin.list, pin.name)
}

/// The version of a root, its end, and how many must have signed it.
pub(super) fn root_text(root: &v1::Root, now: &str) -> String {
    let keys = root.keys.len() as u64 + root.more_keys;
    format!("version {}, expires {}; {} of {keys} root keys must have signed", root.version, end(&root.expires, now), root.threshold)
}

/// The keys of a root, a paragraph for each.
pub(super) fn root_keys_text(root: &v1::Root, now: &str) -> String {
    let mut text = String::new();
    for key in &root.keys {
        let mut lines = Table::of_labels();
        lines.label("root key ID", or_dash(&key.root_key_id));
        lines.label("certificate ID", &key.certificate_id);
        lines.label("common name", &key.common_name);
        if !key.not_after.is_empty() {
            lines.label("valid", format!("{} to {}", key.not_before, end(&key.not_after, now)));
        }
        lines.label("has signed", if key.has_signed { "yes" } else { "NO" });
        lines.label("fault", &key.fault);
        let _ = write!(text, "\n{lines}");
    }
    if let Some(more) = and_more(root.more_keys) {
        let _ = writeln!(text, "\n  {more}");
    }
    text
}

pub(super) fn pin_json(pin: &v1::Pin) -> Value {
    json!({ "list": pin.list, "name": pin.name, "ids": pin.ids })
}

pub(super) fn root_json(root: &v1::Root) -> Value {
    let key = |key: &v1::RootKey| {
        json!({
            "root-key-id": or_null(&key.root_key_id),
            "certificate-id": key.certificate_id,
            "common-name": or_null(&key.common_name),
            "not-before": or_null(&key.not_before),
            "not-after": or_null(&key.not_after),
            "fault": or_null(&key.fault),
            "has-signed": key.has_signed,
            "pinned": key.is_pinned,
        })
    };
    json!({
        "version": root.version,
        "expires": root.expires,
        "threshold": root.threshold,
        "keys": root.keys.iter().map(key).collect::<Vec<_>>(),
        "more-keys": root.more_keys,
    })
}
