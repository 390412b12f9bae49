//! Keys: lists of segments, written so that no list of other segments is written the same.
//!
//! Segments come from tenants: names and label values of any bytes. A key is its segments with `/` between them. What is neither
//! a letter, a digit, `.`, `_` nor `-` is written as `%` with two digits, so that no segment holds a `/`; an empty one is `%-`. A
//! segment that would become longer than [`MAX_SEGMENT_BYTES`] is `%=` with its SHA-256: no shorter one has `%=`.
//! A prefix is its segments with a `/` after each, so that it is the beginning of the keys that have more segments and begin with
//! the same ones, and of no other.

use std::fmt;
use std::fmt::Write as _;

use countersign_trust::name::Sha256;

use super::limits::{MAX_KEY_BYTES, MAX_SEGMENT_BYTES, MAX_SEGMENTS};

/// Between segments.
const SEPARATOR: char = '/';
/// How an empty segment is written.
const EMPTY: &str = "%-";
/// Before the hash of a segment that is too long.
const HASHED: &str = "%=";
/// Digits of a hash.
const HASH_DIGITS: usize = 64;

/// Why segments are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key has at least one segment.
    #[error("a key has at least one segment")]
    Empty,
    /// More than [`MAX_SEGMENTS`].
    #[error("a key has at most {MAX_SEGMENTS} segments, not {count}")]
    TooManySegments {
        /// How many there are.
        count: usize,
    },
}

/// One segment of a key that was found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// The bytes that the key was made of.
    Plain(Vec<u8>),
    /// The SHA-256 of the bytes that the key was made of, which were too long to be written out.
    Hashed(String),
}

/// The name of one entry: at most [`MAX_SEGMENTS`] segments of any bytes. Two keys are equal if and only if their segments are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// The key of these segments.
    ///
    /// # Errors
    /// [`KeyError`] for none, or too many.
    pub fn new<S: AsRef<[u8]>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        let written: Vec<String> = segments.into_iter().take(MAX_SEGMENTS + 1).map(|segment| write_segment(segment.as_ref())).collect();
        match written.len() {
            0 => Err(KeyError::Empty),
            count if count > MAX_SEGMENTS => Err(KeyError::TooManySegments { count }),
            _ => Ok(Self(written.join("/").into())),
        }
    }

    /// Reads a key as it stands in a store. None for what no list of segments is written as.
    #[must_use]
    pub fn from_written(written: &[u8]) -> Option<Self> {
        let written = std::str::from_utf8(written).ok().filter(|written| written.len() <= MAX_KEY_BYTES)?;
        let key = Self(written.into());
        let count = written.split(SEPARATOR).count();
        let is_canonical = count <= MAX_SEGMENTS && written.split(SEPARATOR).all(|segment| read_segment(segment).is_some());
        is_canonical.then_some(key)
    }

    /// As it stands in a store: letters, digits and `/._-%=`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments that it was made of, as far as they can be had back.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.0.split(SEPARATOR).filter_map(read_segment)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

/// The beginning of keys: all that have more segments, and these first.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// The beginning of every key.
    #[must_use]
    pub fn all() -> Self {
        Self("".into())
    }

    /// The beginning of all keys with these segments and at least one more.
    ///
    /// # Errors
    /// [`KeyError::TooManySegments`] if no key has so many.
    pub fn new<S: AsRef<[u8]>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        let written: Vec<String> = segments.into_iter().take(MAX_SEGMENTS).map(|segment| write_segment(segment.as_ref())).collect();
        if written.len() >= MAX_SEGMENTS {
            return Err(KeyError::TooManySegments { count: written.len() + 1 });
        }
        Ok(Self(written.iter().flat_map(|segment| [segment.as_str(), "/"]).collect::<String>().into()))
    }

    /// Whether `key` begins with it.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.0)
    }

    /// As it stands in a store; empty for the beginning of every key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0)
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn write_segment(segment: &[u8]) -> String {
    if segment.is_empty() {
        return EMPTY.to_owned();
    }
    let length: usize = segment.iter().map(|byte| if is_plain(*byte) { 1 } else { 3 }).sum();
    if length > MAX_SEGMENT_BYTES {
        return format!("{HASHED}{}", Sha256::of(segment).to_hex());
    }
    let mut written = String::with_capacity(length);
    for byte in segment {
        if is_plain(*byte) {
            written.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(written, "%{byte:02X}");
        }
    }
    written
}

/// None for what [`write_segment`] never gives.
fn read_segment(written: &str) -> Option<Segment> {
    if let Some(hash) = written.strip_prefix(HASHED) {
        let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        return is_hash.then(|| Segment::Hashed(hash.to_owned()));
    }
    let segment = if written == EMPTY { Vec::new() } else { unescape(written.as_bytes())? };
    (write_segment(&segment) == written).then_some(Segment::Plain(segment))
}

fn unescape(mut written: &[u8]) -> Option<Vec<u8>> {
    let mut segment = Vec::with_capacity(written.len());
    while let Some((first, rest)) = written.split_first() {
        let (byte, rest) = match (first, rest) {
            (b'%', [high, low, rest @ ..]) => (digit(*high)? << 4 | digit(*low)?, rest),
            (b'%', _) => return None,
            (byte, rest) => (*byte, rest),
        };
        segment.push(byte);
        written = rest;
    }
    Some(segment)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(segments: &[&[u8]]) -> Key {
        Key::new(segments).unwrap()
    }

    #[test]
    fn keys_can_be_read_by_people_and_hold_no_byte_that_means_something() {
        assert_eq!(key(&[b"pins", b"shop", b"web-7f9c"]).as_str(), "pins/shop/web-7f9c");
        assert_eq!(key(&[b"a/b", b"", b"%", b"\0\xff", "ä".as_bytes()]).as_str(), "a%2Fb/%-/%25/%00%FF/%C3%A4");
        assert_eq!(Prefix::new(["pins", "shop"]).unwrap().as_str(), "pins/shop/");
        assert_eq!(Prefix::all().as_str(), "");
    }

    #[test]
    fn a_long_segment_is_its_hash_and_no_short_one_is_written_like_it() {
        let long = vec![b'a'; MAX_SEGMENT_BYTES + 1];
        let hash = Sha256::of(&long).to_hex();
        assert_eq!(key(&[&long]).as_str(), format!("%={hash}"));
        assert_eq!(key(&[&long]).segments().collect::<Vec<_>>(), [Segment::Hashed(hash.clone())]);
        assert_eq!(key(&[&long[1..]]).as_str(), "a".repeat(MAX_SEGMENT_BYTES));
        assert_eq!(key(&[format!("%={hash}").as_bytes()]).as_str(), format!("%25%3D{hash}"));
        assert_eq!(key(&[&[0xff; 64][..]]).as_str().len(), MAX_SEGMENT_BYTES);
        assert!(key(&[&[0xff; 65][..]]).as_str().starts_with("%="));
    }

    #[test]
    fn a_key_has_a_segment_and_not_too_many() {
        assert_eq!(Key::new([""; 0]), Err(KeyError::Empty));
        assert!(Key::new(["a"; MAX_SEGMENTS]).is_ok());
        assert_eq!(Key::new(["a"; MAX_SEGMENTS + 5]), Err(KeyError::TooManySegments { count: MAX_SEGMENTS + 1 }));
        assert!(Prefix::new(["a"; MAX_SEGMENTS - 1]).is_ok());
        assert_eq!(Prefix::new(["a"; MAX_SEGMENTS]), Err(KeyError::TooManySegments { count: MAX_SEGMENTS + 1 }));
        let longest = Key::new(vec![vec![b'a'; MAX_SEGMENT_BYTES]; MAX_SEGMENTS]).unwrap();
        assert!(longest.as_str().len() < MAX_KEY_BYTES);
    }

    #[test]
    fn what_no_segments_are_written_as_is_no_key() {
        let hash = "0".repeat(HASH_DIGITS);
        let bad = ["", "/", "a/", "/a", "a//b", "%", "%4", "%41", "%2f", "%2", "a b", "ä", "%=", "%=00", "%--", "a%-", "\0"];
        for bad in bad.map(str::to_owned).into_iter().chain([format!("%={hash}0"), format!("%={}", "A".repeat(64)), "a/".repeat(8) + "a"]) {
            assert_eq!(Key::from_written(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Key::from_written(b"\xff"), None);
        assert_eq!(Key::from_written("a".repeat(MAX_SEGMENT_BYTES + 1).as_bytes()), None, "it would be hashed");
        assert!(Key::from_written(format!("a/%={hash}").as_bytes()).is_some());
    }

    /// Segments that are likely to be mistaken for each other.
    fn segment() -> impl Strategy<Value = Vec<u8>> {
        let tricky = prop::sample::select(vec![&b""[..], b"/", b"%", b"%-", b"%=", b"a", b"a/", b"/a", b"%2F", b"..", b"\xff"]);
        let long = (0_u8..2, MAX_SEGMENT_BYTES - 1..MAX_SEGMENT_BYTES + 3).prop_map(|(letter, length)| vec![b'a' + letter; length]);
        prop_oneof![tricky.prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 0..6), long]
    }

    fn segments(most: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(segment(), 1..=most)
    }

    proptest! {
        #[test]
        fn different_segments_never_give_one_key(one in segments(4), other in segments(4)) {
            let (a, b) = (Key::new(&one).unwrap(), Key::new(&other).unwrap());
            prop_assert_eq!(one == other, a == b);
        }

        #[test]
        fn a_key_is_read_as_it_was_written_and_gives_its_short_segments_back(segments in segments(MAX_SEGMENTS)) {
            let key = Key::new(&segments).unwrap();
            prop_assert_eq!(Key::from_written(key.as_str().as_bytes()), Some(key.clone()));
            let read: Vec<Segment> = key.segments().collect();
            prop_assert_eq!(read.len(), segments.len());
            for (read, segment) in read.into_iter().zip(segments) {
                match read {
                    Segment::Plain(bytes) => prop_assert_eq!(bytes, segment),
                    Segment::Hashed(hash) => prop_assert_eq!(hash, Sha256::of(&segment).to_hex()),
                }
            }
        }

        #[test]
        fn no_segment_reaches_into_the_prefix_of_another(prefix in segments(3), key in segments(5)) {
            let begins = key.len() > prefix.len() && key[..prefix.len()] == prefix[..];
            prop_assert_eq!(Prefix::new(&prefix).unwrap().contains(&Key::new(&key).unwrap()), begins);
        }

        #[test]
        fn bytes_that_are_read_as_a_key_are_written_the_same(written in "[a%/=2Ff-]{0,12}") {
            if let Some(key) = Key::from_written(written.as_bytes()) {
                prop_assert_eq!(key.as_str(), written);
            }
        }
    }
}
