//! A Notary server made of a prepared tree: what a dishonest one would answer, without its network.

use std::collections::BTreeMap;

use countersign_trust::evidence::{Answer, FileName};
use serde_json::Value;

/// What came of asking for a file.
pub(crate) enum Reply {
    Answer(Answer),
    /// No answer that counts as evidence: the code that the client gives it.
    Fault(&'static str),
}

/// The code of a status that is an outage (`docs/notary-v1.md`, 2.1).
pub(crate) const OUTAGE: &str = "CS-SERVER-BUSY";

/// What the client makes of a status that is neither 200 nor 404. `tests/transport.rs` holds it against the client itself.
const fn fault(status: u16) -> &'static str {
    match status {
        300..=399 => "CS-SERVER-REDIRECT",
        401 => "CS-SERVER-UNAUTHORIZED",
        403 => "CS-SERVER-FORBIDDEN",
        429 | 500..=599 => OUTAGE,
        _ => "CS-SERVER-STATUS",
    }
}

/// What a real server says of a file that it does not have.
const NOT_FOUND: &[u8] = br#"{"errors":[{"code":"METADATA_NOT_FOUND","message":"none","detail":{}}]}"#;

/// An answer as it is sent.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) struct Served {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Spaces after the body.
    pub(crate) padding: u64,
    /// Without a length.
    pub(crate) is_chunked: bool,
    /// Compressed for those who accept that.
    pub(crate) may_be_gzip: bool,
}

impl Served {
    /// A status without a body.
    #[allow(dead_code, reason = "each test program uses its part of this module")]
    pub(crate) const fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), padding: 0, is_chunked: false, may_be_gzip: false }
    }
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

    /// What is sent for a name.
    pub(crate) fn served(&self, name: &str, place: &str) -> Served {
        let rule = self.rule(name);
        let member = |key: &str| rule.and_then(|rule| rule.get(key));
        let number = |key: &str| member(key).and_then(Value::as_u64);
        let is_set = |key: &str| member(key).and_then(Value::as_bool).unwrap_or(false);
        let headers = member("headers").and_then(Value::as_object).into_iter().flatten();
        let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let instead = member("body").and_then(Value::as_str).map(|body| body.as_bytes().to_vec());
        let status = number("status").map(|status| u16::try_from(status).unwrap());
        let (status, mut body) = match (status, self.files.get(&format!("{}/{place}", self.prefix))) {
            (Some(status), _) => (status, instead.unwrap_or_else(|| b"{}".to_vec())),
            (None, None) => (404, NOT_FOUND.to_vec()),
            (None, Some(file)) => (200, file.clone()),
        };
        body.truncate(body.len() - usize::try_from(number("truncate").unwrap_or(0)).unwrap());
        Served { status, headers, body, padding: number("pad").unwrap_or(0), is_chunked: is_set("chunked"), may_be_gzip: is_set("gzip") }
    }

    pub(crate) fn reply(&self, file: &FileName, limit: u64) -> Reply {
        let mut served = self.served(&file.to_string(), &(self.place)(file));
        match served.status {
            200 => {}
            404 => return Reply::Answer(Answer::NotFound),
            other => return Reply::Fault(fault(other)),
        }
        let length = served.body.len() as u64 + served.padding;
        if length > limit {
            return Reply::Fault("CS-BODY-TOO-LARGE");
        }
        served.body.resize(usize::try_from(length).unwrap(), b' ');
        Reply::Answer(Answer::Found(served.body.into()))
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
