//! The key space of one cluster in etcd: `/countersign/CLUSTER/`, with a mark of its format, and everything else below `k/`.

use bytes::Bytes;
use countersign_trust::name::shown;

use super::envelope;
use super::rpc::compare::TargetUnion;
use super::rpc::{Compare, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use crate::store::entry::{After, Entry, Revision, Unusable, UnusableValue};
use crate::store::error::StoreError;
use crate::store::key::{Key, Prefix};

/// What the mark says: the format, by which an older program knows that it must leave the keys alone.
const FORMAT: &str = "countersign store 1";
/// The byte after the last of a range's keys that begin with what ends in `/`.
const AFTER_SLASH: u8 = b'/' + 1;

/// Where the keys of a cluster are.
#[derive(Debug, Clone)]
pub(super) struct KeySpace {
    /// Ends in `/`.
    pub(super) prefix: String,
    mark: String,
    keys: String,
    says: String,
}

/// A range of etcd's keys: from the first to before the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) begin: Bytes,
    pub(super) end: Bytes,
}

impl KeySpace {
    pub(super) fn of(cluster: &str) -> Self {
        let prefix = format!("/countersign/{cluster}/");
        Self { mark: format!("{prefix}format"), keys: format!("{prefix}k/"), says: format!("{FORMAT} {cluster}"), prefix }
    }

    /// `key` as etcd has it.
    pub(super) fn key(&self, key: &Key) -> Bytes {
        [self.keys.as_bytes(), key.as_str().as_bytes()].concat().into()
    }

    /// All keys below `prefix`, or those after a page.
    pub(super) fn range(&self, prefix: &Prefix, after: Option<&After>) -> Range {
        let whole = below(&[self.keys.as_bytes(), prefix.as_str().as_bytes()].concat());
        // The next key after one is the same with a zero byte.
        let begin = after.map(|After(last)| [self.keys.as_bytes(), last, b"\0"].concat().into());
        Range { begin: begin.unwrap_or(whole.begin), end: whole.end }
    }

    /// What an etcd key is without the key space; None for one that is not in it.
    pub(super) fn own<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(self.keys.as_bytes())
    }

    /// What etcd holds, as an entry. None for what is not in the key space.
    pub(super) fn entry(&self, found: &KeyValue) -> Option<Result<(Key, Entry), Unusable>> {
        let opened = |(key, entry): (Key, Entry)| match envelope::open(&found.value) {
            Ok(opened) => Ok((key, Entry { value: opened.payload, ..entry })),
            Err(why) => Err(Unusable { key: key.to_string(), revision: entry.revision, why }),
        };
        Some(self.key_of(found)?.and_then(opened))
    }

    /// The same of what was asked for without its value.
    pub(super) fn key_of(&self, found: &KeyValue) -> Option<Result<(Key, Entry), Unusable>> {
        let own = self.own(&found.key)?;
        let revision = revision(found.mod_revision);
        let unusable = || Unusable { key: readable(own), revision, why: UnusableValue::Key };
        Some(Key::from_written(own).map(|key| (key, Entry { value: Bytes::new(), revision })).ok_or_else(unusable))
    }

    /// Asks for the mark.
    pub(super) fn mark_request(&self) -> RangeRequest {
        RangeRequest { key: self.mark.clone().into(), range_end: Bytes::new(), limit: 1, keys_only: false }
    }

    /// Asks for nothing but the answer's header, with the rights that a node has.
    pub(super) fn where_request(&self) -> RangeRequest {
        RangeRequest { keys_only: true, ..self.mark_request() }
    }

    /// Asks whether there is anything else.
    pub(super) fn any_request(&self) -> RangeRequest {
        let Range { begin, end } = below(self.prefix.as_bytes());
        RangeRequest { key: begin, range_end: end, limit: 1, keys_only: true }
    }

    /// Sets the mark, if there is none.
    pub(super) fn mark_transaction(&self) -> TxnRequest {
        let put = PutRequest { key: self.mark.clone().into(), value: self.says.clone().into(), lease: 0 };
        TxnRequest {
            compare: vec![is_of(self.mark.clone().into(), 0)],
            success: vec![operation(request_op::Request::RequestPut(put))],
            failure: vec![operation(request_op::Request::RequestRange(self.mark_request()))],
        }
    }

    /// Refuses a mark that says something else.
    pub(super) fn refuse_other_mark(&self, found: &KeyValue) -> Result<(), StoreError> {
        if found.value == self.says.as_bytes() {
            return Ok(());
        }
        Err(self.foreign(format!("`{}` says `{}`", self.mark, readable(&found.value))))
    }

    /// Refuses a key space without a mark that is not empty.
    pub(super) fn refuse_others_keys(&self, found: &KeyValue) -> StoreError {
        self.foreign(format!("the key `{}`, and no mark of this program", readable(&found.key)))
    }

    fn foreign(&self, found: String) -> StoreError {
        StoreError::KeySpace { prefix: self.prefix.clone(), found }
    }
}

/// All keys that begin with `prefix`, which ends in `/`.
fn below(prefix: &[u8]) -> Range {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = AFTER_SLASH;
    }
    Range { begin: Bytes::copy_from_slice(prefix), end: end.into() }
}

/// Bytes for an operator: escaped, and cut.
fn readable(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes))
}

/// etcd's revisions are never negative.
pub(super) fn revision(number: i64) -> Revision {
    Revision::new(u64::try_from(number).unwrap_or(0))
}

/// That a key's last write was at this revision; 0: that it is not there.
pub(super) fn is_of(key: Bytes, revision: i64) -> Compare {
    use super::rpc::compare::{CompareResult, CompareTarget};
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
    }
}

pub(super) const fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_clusters_lie_apart_and_ranges_end_where_their_prefix_does() {
        let space = KeySpace::of("prod");
        let key = Key::new(["pins", "a"]).unwrap();
        assert_eq!(space.key(&key), "/countersign/prod/k/pins/a");
        let range = space.range(&Prefix::new(["pins"]).unwrap(), None);
        assert_eq!((range.begin.as_ref(), range.end.as_ref()), (&b"/countersign/prod/k/pins/"[..], &b"/countersign/prod/k/pins0"[..]));
        let all = space.range(&Prefix::all(), None);
        assert_eq!((all.begin.as_ref(), all.end.as_ref()), (&b"/countersign/prod/k/"[..], &b"/countersign/prod/k0"[..]));
        let rest = space.range(&Prefix::new(["pins"]).unwrap(), Some(&After("pins/a".into())));
        assert_eq!((rest.begin.as_ref(), rest.end), (&b"/countersign/prod/k/pins/a\0"[..], range.end));
        assert_eq!(space.own(b"/countersign/prod/k/pins/a"), Some(&b"pins/a"[..]));
        assert_eq!(space.own(b"/countersign/prod2/k/pins/a"), None);
    }

    #[test]
    fn what_somebody_else_wrote_is_shown_and_not_used() {
        let space = KeySpace::of("prod");
        let found = |key: &str, value: &'static [u8]| KeyValue { key: key.to_owned().into(), mod_revision: 7, value: value.into() };
        let unusable = |key: &str, value| space.entry(&found(key, value)).unwrap().unwrap_err();
        assert_eq!(unusable("/countersign/prod/k/a b", b"x").why, UnusableValue::Key);
        let foreign = unusable("/countersign/prod/k/a", b"x");
        assert_eq!((foreign.key.as_str(), foreign.revision, foreign.why), ("a", Revision::new(7), UnusableValue::Foreign));
        assert_eq!(space.entry(&found("/other", b"x")), None);
        let error = space.refuse_other_mark(&found("/countersign/prod/format", b"countersign store 2 prod")).unwrap_err();
        assert!(error.to_string().contains("`/countersign/prod/format` says `countersign store 2 prod`"), "{error}");
    }
}
