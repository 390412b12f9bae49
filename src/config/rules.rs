//! Rules: what holds for some images instead of what holds for all.

use std::collections::BTreeSet;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ManifestDigest, shown};
use countersign_trust::pattern::RepositoryPattern;
use countersign_trust::policy::people::People;
use countersign_trust::policy::rule::{Conflict, Exception, Rule, Rules, RulesError};
use countersign_trust::time::UnixTime;

use super::fault::{Fault, Remark};
use super::people::required_teams;
use super::shape::{At, Notes};

/// Longest name of a namespace (RFC 1123 label, as Kubernetes has it).
const MAX_NAMESPACE_BYTES: usize = 63;

/// An entry of `[[rules]]`.
#[derive(Debug)]
pub(super) struct RuleFile {
    pub(super) at: usize,
    pub(super) name: Option<At<String>>,
    pub(super) images: Vec<At<String>>,
    pub(super) namespaces: Option<Vec<At<String>>>,
    pub(super) mode: Option<At<String>>,
    pub(super) deny: Option<At<bool>>,
    pub(super) signed_by: Option<Vec<At<String>>>,
    pub(super) allow_digests: Vec<At<String>>,
    pub(super) owner: Option<At<String>>,
    pub(super) reason: Option<At<String>>,
    pub(super) until: Option<At<UnixTime>>,
}

/// All rules, if none has a fault; else their faults are noted.
pub(super) fn check(file: &[RuleFile], people: &People, mode: Option<Mode>, notes: &mut Notes) -> Option<Rules> {
    let rules: Vec<_> = (1..).zip(file).map(|(number, entry)| rule(number, entry, people, notes)).collect();
    let rules = rules.into_iter().collect::<Option<Vec<_>>>()?;
    for (entry, rule) in file.iter().zip(&rules) {
        if mode == Some(Mode::Disabled) && rule.mode.is_none() {
            notes.remark(entry.at, Remark::RuleWithoutEffect { rule: rule.name.clone() });
        }
    }
    let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
    match Rules::new(rules) {
        Ok(rules) => Some(rules),
        Err(RulesError::TooMany { found }) => {
            notes.fault(file.first().map_or(0, |first| first.at), Fault::TooManyScopes { found });
            None
        }
        Err(RulesError::Conflicts(conflicts)) => {
            conflicts.into_iter().for_each(|conflict| note_conflict(conflict, file, &names, notes));
            None
        }
    }
}

fn note_conflict(conflict: Conflict, file: &[RuleFile], names: &[String], notes: &mut Notes) {
    let name = |at: usize| names.get(at).cloned().unwrap_or_default();
    let (first, second) = (name(conflict.first), name(conflict.second));
    let at = file.get(conflict.second).map_or(0, |rule| rule.at);
    notes.fault(at, Fault::RulesConflict { first, second, images: conflict.images.to_string(), namespace: conflict.namespace });
}

fn rule(number: usize, entry: &RuleFile, people: &People, notes: &mut Notes) -> Option<Rule> {
    let name = entry.name.as_ref().map_or_else(|| format!("rule {number}"), |name| shown(&name.value));
    let images = images(entry, notes);
    let namespaces = match &entry.namespaces {
        None => Some(None),
        Some(written) => namespaces(written, entry.at, notes).map(Some),
    };
    let mode = match &entry.mode {
        None => Some(None),
        Some(written) => super::trust::mode(written, notes).map(Some),
    };
    let signed_by = match &entry.signed_by {
        None => Some(None),
        Some(written) => required_teams(written, "rules.signed-by", people, notes).map(Some),
    };
    let allow_digests = digests(&entry.allow_digests, notes);
    let exception = exception(entry, notes);
    let deny = entry.deny.as_ref().is_some_and(|deny| deny.value);
    let is_clear = refuse_senseless(entry, deny, notes);
    let rule = Rule {
        name,
        images: images?,
        namespaces: namespaces?,
        mode: mode?,
        deny,
        signed_by: signed_by?,
        allow_digests: allow_digests?,
        exception: exception?,
    };
    is_clear.then_some(rule)
}

/// A rule that denies and allows at once, or says nothing, is a mistake.
fn refuse_senseless(entry: &RuleFile, deny: bool, notes: &mut Notes) -> bool {
    let demands = entry.signed_by.is_some() || !entry.allow_digests.is_empty();
    if deny && demands {
        notes.fault(entry.at, Fault::RuleDeniesAndAllows);
        return false;
    }
    if !deny && !demands && entry.mode.is_none() {
        notes.fault(entry.at, Fault::RuleSaysNothing);
        return false;
    }
    true
}

fn images(entry: &RuleFile, notes: &mut Notes) -> Option<Vec<RepositoryPattern>> {
    if entry.images.is_empty() {
        notes.fault(entry.at, Fault::RuleWithoutImages);
        return None;
    }
    entry.images.iter().map(|written| pattern(written, "rules.images", notes)).collect::<Vec<_>>().into_iter().collect()
}

/// Reads a name that stands for repositories, and remarks on one that was read as docker.io's.
pub(super) fn pattern(written: &At<String>, key: &'static str, notes: &mut Notes) -> Option<RepositoryPattern> {
    let pattern: RepositoryPattern = match written.value.parse() {
        Ok(pattern) => pattern,
        Err(source) => {
            notes.fault(written.at, Fault::Pattern { key, value: shown(&written.value), source });
            return None;
        }
    };
    if pattern.host_is_assumed() {
        notes.remark(written.at, Remark::HostAssumed { written: shown(&written.value), read_as: pattern.to_string() });
    }
    Some(pattern)
}

fn namespaces(written: &[At<String>], at: usize, notes: &mut Notes) -> Option<BTreeSet<String>> {
    if written.is_empty() {
        notes.fault(at, Fault::NoNamespaces);
        return None;
    }
    let mut all = Some(BTreeSet::new());
    for namespace in written {
        if !is_namespace(&namespace.value) {
            notes.fault(namespace.at, Fault::Namespace { value: shown(&namespace.value) });
            all = None;
        }
        if let Some(all) = &mut all {
            all.insert(namespace.value.clone());
        }
    }
    all
}

fn is_namespace(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAMESPACE_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn digests(written: &[At<String>], notes: &mut Notes) -> Option<BTreeSet<ManifestDigest>> {
    let digests: Vec<_> = written.iter().map(|digest| digest_of(digest, "rules.allow-digests", notes)).collect();
    digests.into_iter().collect()
}

/// Reads `sha256:` and 64 digits.
pub(super) fn digest_of(written: &At<String>, key: &'static str, notes: &mut Notes) -> Option<ManifestDigest> {
    written.value.parse().map_err(|source| notes.fault(written.at, Fault::Digest { key, source })).ok()
}

/// An exception has an owner, a reason and an end, or it is none.
fn exception(entry: &RuleFile, notes: &mut Notes) -> Option<Option<Exception>> {
    let text = |written: &Option<At<String>>| written.as_ref().map(|text| text.value.trim().to_owned()).filter(|text| !text.is_empty());
    match (text(&entry.owner), text(&entry.reason), &entry.until) {
        (None, None, None) if entry.owner.is_none() && entry.reason.is_none() => Some(None),
        (Some(owner), Some(reason), Some(until)) => Some(Some(Exception { owner, reason, until: until.value })),
        (owner, reason, until) => {
            let missing = [("owner", owner.is_none()), ("reason", reason.is_none()), ("until", until.is_none())];
            let missing = missing.into_iter().filter(|(_, is_missing)| *is_missing).map(|(key, _)| key).collect::<Vec<_>>().join("`, `");
            notes.fault(entry.at, Fault::ExceptionIncomplete { missing });
            None
        }
    }
}
