//! What `countersign pin` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Table;
use super::root::{named, pin_json, root_json, root_keys_text, root_text};
use crate::admin::v1;

/// Said with every root: what is shown proves nothing.
const WARNING: &str = "these are the words of the trust server, and a pin is what protects from that server: compare the IDs with whoever signs, by another way";

const COMPARE: &str = "\
COMPARE BEFORE YOU PIN
  These are the words of the trust server, and a pin is what protects you from that server. Nothing was trusted and
  nothing was written. Ask whoever signs for the IDs by another way, and pin only what they confirm:
    on the machine that signs            grep -r root ~/.docker/trust/private   the file's name is the root key ID
    on one that has long pulled from it  docker trust inspect REPOSITORY        `Root` has the certificate ID
";

/// A repository whose root was asked for.
#[derive(Debug, Clone)]
pub struct PinShown {
    /// The repository.
    pub repository: String,
    /// The trust server that was asked.
    pub server: String,
    /// The host of its registry, if that is not registered, with the file of the authority that the command line names for it.
    pub unregistered: Option<(String, Option<String>)>,
    /// The moment of asking, RFC 3339.
    pub now: String,
    /// The root; none if there is none to be shown.
    pub root: Option<v1::Root>,
    /// Why there is none, or why no pin could make it trusted: code and sentence.
    pub refusal: Option<(String, String)>,
    /// The pin that answers today, and why it does not accept the root, if so: code and sentence.
    pub pinned: Option<(v1::Pin, Option<(String, String)>)>,
}

impl PinShown {
    /// The keys to pin: those that vouch for the root, if it can be trusted at all and is not pinned already.
    fn to_pin(&self) -> Vec<&v1::RootKey> {
        let is_open = self.pinned.is_none() && self.refusal.is_none();
        let keys = self.root.iter().flat_map(|root| &root.keys);
        keys.filter(|key| is_open && key.fault.is_empty() && key.has_signed).collect()
    }

    fn ids(&self, id: impl Fn(&v1::RootKey) -> &str) -> Vec<&str> {
        let keys = self.root.iter().flat_map(|root| &root.keys).filter(|key| key.fault.is_empty() && key.has_signed);
        let mut ids: Vec<&str> = keys.map(id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn root_key_ids(&self) -> Vec<&str> {
        self.ids(|key| &key.root_key_id)
    }
}

/// For people: every root, how to compare it, and what to paste.
#[must_use]
pub fn pins_text(shown: &[PinShown]) -> String {
    let mut text = String::new();
    for one in shown {
        text.push_str(&repository_text(one));
        text.push('\n');
    }
    let open: Vec<&PinShown> = shown.iter().filter(|one| !one.to_pin().is_empty()).collect();
    if shown.iter().any(|one| one.root.is_some()) {
        text.push_str(COMPARE);
    }
    if !open.is_empty() {
        text.push('\n');
        text.push_str(&stanza(&open));
    }
    text.trim_end().to_owned()
}

fn repository_text(one: &PinShown) -> String {
    let mut lines = Table::of_labels();
    lines.label("trust server", &one.server);
    lines.label("pinned", pinned_text(one));
    if let Some(root) = &one.root {
        lines.label("root", root_text(root, &one.now));
    }
    if let Some((code, sentence)) = &one.refusal {
        lines.label(if one.root.is_some() { "UNUSABLE" } else { "NO ROOT" }, format!("{sentence} ({code})"));
    }
    let mut text = format!("{}\n{lines}", one.repository);
    if let Some(root) = &one.root {
        text.push_str(&root_keys_text(root, &one.now));
    }
    text
}

fn pinned_text(one: &PinShown) -> String {
    match &one.pinned {
        None => "no".to_owned(),
        Some((pin, _)) if one.root.is_none() => format!("by {}", named(pin)),
        Some((pin, None)) => format!("by {}; this root matches", named(pin)),
        Some((pin, Some((code, sentence)))) => {
            format!("by {}; THIS ROOT DOES NOT MATCH: {sentence} ({code})", named(pin))
        }
    }
}

/// What to paste into the configuration. The comments are part of it.
fn stanza(open: &[&PinShown]) -> String {
    let mut text = String::from("# Only lines whose IDs were confirmed. Where a table is in the file already, add its lines to that.\n");
    text.push_str("[content-trust.trust-pinning.root-keys]\n");
    for one in open {
        let _ = writeln!(text, "\"{}\" = {}", one.repository, list(&one.root_key_ids()));
    }
    for (prefix, ids, count) in wildcards(open) {
        let _ = writeln!(text, "# In place of these {count}, and for everything else below the name, now and later:");
        let _ = writeln!(text, "# \"{prefix}\" = {}", list(&ids));
    }
    text.push_str("\n# Or by certificate, which must be changed whenever the certificate is renewed:\n");
    text.push_str("# [content-trust.trust-pinning.cert-ids]\n");
    for one in open {
        let _ = writeln!(text, "# \"{}\" = {}", one.repository, list(&one.ids(|key| &key.certificate_id)));
    }
    let mut unregistered = BTreeMap::new();
    unregistered.extend(open.iter().filter_map(|one| one.unregistered.as_ref().map(|(host, ca)| (host, (&one.server, ca)))));
    for (host, (server, ca_bundle_file)) in unregistered {
        let _ = write!(text, "\n# Its images are refused until the registry is registered, too:\n[[registries]]\n");
        let _ = writeln!(text, "host-address = \"{host}\"\nnotary-server = \"{server}\"");
        if let Some(file) = ca_bundle_file {
            // JSON's escapes are a subset of TOML's.
            let _ = writeln!(text, "ca-bundle-file = {}", Value::from(file.as_str()));
        }
    }
    text
}

fn list(ids: &[&str]) -> String {
    format!("[{}]", ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(", "))
}

/// For several repositories with the same root keys below one name: that name, the IDs, and how many repositories there are.
fn wildcards<'a>(open: &[&'a PinShown]) -> Vec<(String, Vec<&'a str>, usize)> {
    let mut groups: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for one in open {
        groups.entry(one.root_key_ids()).or_default().push(&one.repository);
    }
    let several = groups.into_iter().filter(|(_, repositories)| repositories.len() > 1);
    several.filter_map(|(ids, repositories)| Some((common_prefix(&repositories)?, ids, repositories.len()))).collect()
}

/// The longest name below which all lie, with its wildcard; none if they share not even the host.
fn common_prefix(repositories: &[&str]) -> Option<String> {
    let (first, rest) = repositories.split_first()?;
    let mut above: Vec<&str> = first.match_indices('/').filter_map(|(at, _)| first.get(..=at)).collect();
    above.retain(|prefix| rest.iter().all(|other| other.starts_with(prefix)));
    above.last().map(|prefix| format!("{prefix}*"))
}

/// For programs.
#[must_use]
pub fn pins_json(shown: &[PinShown]) -> Value {
    let open = || shown.iter().filter(|one| !one.to_pin().is_empty());
    let root_keys: BTreeMap<&str, Vec<&str>> = open().map(|one| (one.repository.as_str(), one.root_key_ids())).collect();
    let cert_ids: BTreeMap<&str, Vec<&str>> = open().map(|one| (one.repository.as_str(), one.ids(|key| &key.certificate_id))).collect();
    json!({
        "warning": WARNING,
        "repositories": shown.iter().map(repository_json).collect::<Vec<_>>(),
        "root-keys": root_keys,
        "cert-ids": cert_ids,
    })
}

fn repository_json(one: &PinShown) -> Value {
    let refused = |(code, sentence): &(String, String)| json!({ "code": code, "reason": sentence });
    json!({
        "repository": one.repository,
        "trust-server": one.server,
        "registered": one.unregistered.is_none(),
        "now": one.now,
        "root": one.root.as_ref().map(root_json),
        "refusal": one.refusal.as_ref().map(refused),
        "pin": one.pinned.as_ref().map(|(pin, _)| pin_json(pin)),
        "pin-matches": one.pinned.as_ref().filter(|_| one.root.is_some()).map(|(_, mismatch)| mismatch.is_none()),
        "pin-mismatch": one.pinned.as_ref().and_then(|(_, mismatch)| mismatch.as_ref()).map(refused),
    })
}
