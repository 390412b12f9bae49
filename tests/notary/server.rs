//! A Notary server made of a prepared tree: what a dishonest one would answer, without its network.

use std::collections::BTreeMap;

use countersign_trust::evidence::{Answer, FileName};
use serde_json::Value;

/// What came of asking for a file.
pub(crate) enum Reply {
    Answer(Answer),
    /// A status that counts as an outage (`docs/notary-v1.md`, 2.1).
    Outage,
    /// Any other status: refused, with the status.
    Refused(u64),
    /// A body that is longer than allowed.
    TooLong,
}

pub(crate) struct Tree<'a> {
    files: &'a BTreeMap<String, Vec<u8>>,
    prefix: String,
    overrides: Value,
    /// Where in the tree the file of a URL lies.
    place: fn(&FileName) -> String,
}

impl<'a> Tree<'a> {
    /// A served tree, with the status codes and paddings of its `.overrides.json`.
    #[allow(dead_code, reason = "each test program uses its part of this module")]
    pub(crate) fn new(files: &'a BTreeMap<String, Vec<u8>>, prefix: &str) -> Self {
        let overrides = files.get(&format!("{prefix}/.overrides.json")).map_or(Value::Null, |text| serde_json::from_slice(text).unwrap());
        Self { files, prefix: prefix.to_owned(), overrides, place: FileName::to_string }
    }

    /// A captured repository: newest files below `current/`, files by hash below `by-hash/`.
    #[allow(dead_code, reason = "each test program uses its part of this module")]
    pub(crate) fn captured(files: &'a BTreeMap<String, Vec<u8>>, prefix: &str) -> Self {
        let place = |file: &FileName| match file {
            FileName::NewestRoot | FileName::Timestamp => format!("current/{file}"),
            FileName::Root(_) => file.to_string(),
            FileName::ByHash(..) => format!("by-hash/{file}"),
        };
        Self { files, prefix: prefix.to_owned(), overrides: Value::Null, place }
    }

    fn rule(&self, name: &str) -> Option<&Value> {
        let rules = self.overrides.as_object()?;
        rules.get(name).or_else(|| rules.iter().find(|(pattern, _)| matches(pattern, name)).map(|(_, rule)| rule))
    }

    pub(crate) fn reply(&self, file: &FileName, limit: u64) -> Reply {
        let name = file.to_string();
        let rule = self.rule(&name);
        let number = |key: &str| rule.and_then(|rule| rule.get(key)).and_then(Value::as_u64);
        match number("status").unwrap_or(200) {
            200 => {}
            404 => return Reply::Answer(Answer::NotFound),
            429 | 500..=599 => return Reply::Outage,
            other => return Reply::Refused(other),
        }
        let Some(body) = self.files.get(&format!("{}/{}", self.prefix, (self.place)(file))) else { return Reply::Answer(Answer::NotFound) };
        let mut body = body.clone();
        body.extend(std::iter::repeat_n(b' ', usize::try_from(number("pad").unwrap_or(0)).unwrap()));
        body.truncate(body.len() - usize::try_from(number("truncate").unwrap_or(0)).unwrap());
        if body.len() as u64 > limit { Reply::TooLong } else { Reply::Answer(Answer::Found(body.into())) }
    }
}

/// Shell patterns with `*` and `[...]`, as far as the fixtures use them.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(&pattern[1..], &name[at..])),
        Some('[') => {
            let end = pattern.find(']').unwrap();
            let (Some(first), set) = (name.chars().next(), &pattern[1..end]) else { return false };
            let in_set = match set.as_bytes() {
                [a, b'-', b, rest @ ..] => {
                    (char::from(*a)..=char::from(*b)).contains(&first)
                        || rest.chunks(3).any(|r| matches!(r, [c, b'-', d] if (char::from(*c)..=char::from(*d)).contains(&first)))
                }
                _ => set.contains(first),
            };
            in_set && matches(&pattern[end + 1..], &name[first.len_utf8()..])
        }
        Some(literal) => name.starts_with(literal) && matches(&pattern[literal.len_utf8()..], &name[literal.len_utf8()..]),
    }
}
