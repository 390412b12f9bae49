//! Strict JSON, and the canonical form that Notary signs.
//!
//! The usual parsers are no help here: they let duplicate members pass, and what is signed is neither the bytes
//! on the wire nor RFC 8785 but docker/go's dialect (`docs/notary-v1.md`, 3). One parse gives both the
//! values that decisions use and the canonical text that signatures cover, so that no two readings can differ.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// Deepest nesting that is read; real documents have 7.
const MAX_DEPTH: u32 = 32;
/// More values than any document: the reference's largest tests, 75,000 targets, have 400,000. Sixteen megabytes of `0,`
/// would take half a gigabyte of memory before a signature is looked at.
const MAX_VALUES: usize = 1 << 20;
/// Beyond this an IEEE double, which the reference decodes numbers to, cannot tell neighbours apart.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why a text is not JSON as trust data must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON at this byte.
    #[error("not JSON at byte {at}")]
    Syntax {
        /// Offset of the byte.
        at: usize,
    },
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// A `\u` escape of one half of a surrogate pair.
    #[error("half a surrogate pair at byte {at}")]
    LoneSurrogate {
        /// Offset of the byte.
        at: usize,
    },
    /// An object has two members of one name.
    #[error("the member `{name}` stands twice in one object")]
    Duplicate {
        /// The name, cut and escaped.
        name: String,
    },
    /// A number that is not a plain integer within ±(2^53 − 1).
    #[error("a number that is no integer within 53 bits, at byte {at}")]
    Number {
        /// Offset of the byte.
        at: usize,
    },
    /// More values than any trust data.
    #[error("more than {MAX_VALUES} values")]
    TooMany,
    /// Nested deeper than any trust data.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// A JSON value. Strings are decoded; numbers are integers within 53 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

/// An object's members, sorted by the bytes of their names, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Object(Vec<(String, Value)>);

impl Object {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|(member, _)| member.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }
}

/// A document whose outermost value is an object, with the place of each of its members' text.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    object: Object,
    places: Vec<(String, Range<usize>)>,
}

impl<'a> Document<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = core::str::from_utf8(bytes).map_err(|_| JsonError::Utf8)?;
        let mut parser = Parser { bytes, at: 0, values: 0 };
        parser.skip_space();
        let mut places = Vec::new();
        let object = parser.object(1, Some(&mut places))?;
        parser.skip_space();
        if parser.at != bytes.len() {
            return Err(parser.syntax());
        }
        Ok(Self { text, object, places })
    }

    pub(crate) const fn object(&self) -> &Object {
        &self.object
    }

    /// The text of an outermost member as it stands in the document.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a str> {
        let (_, place) = self.places.iter().find(|(member, _)| member == name)?;
        self.text.get(place.clone())
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl Parser<'_> {
    const fn syntax(&self) -> JsonError {
        JsonError::Syntax { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.syntax());
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &[u8], value: Value) -> Result<Value, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: u32) -> Result<Value, JsonError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(JsonError::TooMany);
        }
        match self.peek() {
            Some(b'{') => self.object(depth + 1, None).map(Value::Object),
            Some(b'[') => self.array(depth + 1).map(Value::Array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.integer().map(Value::Integer),
            Some(b't') => self.literal(b"true", Value::Bool(true)),
            Some(b'f') => self.literal(b"false", Value::Bool(false)),
            Some(b'n') => self.literal(b"null", Value::Null),
            _ => Err(self.syntax()),
        }
    }

    fn array(&mut self, depth: u32) -> Result<Vec<Value>, JsonError> {
        refuse_depth(depth)?;
        self.expect(b'[')?;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(items);
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            self.expect(b']')?;
            return Ok(items);
        }
    }

    fn object(&mut self, depth: u32, mut places: Option<&mut Vec<(String, Range<usize>)>>) -> Result<Object, JsonError> {
        refuse_depth(depth)?;
        self.expect(b'{')?;
        let mut members: Vec<(String, Value)> = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Object::default());
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let start = self.at;
            let value = self.value(depth)?;
            if let Some(places) = places.as_deref_mut() {
                places.push((name.clone(), start..self.at));
            }
            members.push((name, value));
            self.skip_space();
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            self.expect(b'}')?;
            return sorted(members);
        }
    }

    fn integer(&mut self) -> Result<i64, JsonError> {
        let start = self.at;
        let refused = JsonError::Number { at: start };
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.at;
        let mut magnitude: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            magnitude = magnitude.checked_mul(10).and_then(|m| m.checked_add(u64::from(digit & 0x0f))).ok_or_else(|| refused.clone())?;
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 {
            return Err(self.syntax());
        }
        let leading_zero = digits > 1 && self.bytes.get(first) == Some(&b'0');
        let negative_zero = negative && magnitude == 0;
        let goes_on = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        if leading_zero || negative_zero || goes_on || magnitude > MAX_INTEGER {
            return Err(refused);
        }
        let value = i64::try_from(magnitude).map_err(|_| refused)?;
        Ok(if negative { -value } else { value })
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"')?;
        let mut decoded = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            let plain = self.bytes.get(start..self.at).unwrap_or_default();
            decoded.push_str(core::str::from_utf8(plain).map_err(|_| JsonError::Utf8)?);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(decoded);
                }
                Some(b'\\') => decoded.push(self.escape()?),
                _ => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let escaped = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        Ok(escaped)
    }

    fn unicode_escape(&mut self, start: usize) -> Result<char, JsonError> {
        let first = self.code_unit()?;
        let lone = JsonError::LoneSurrogate { at: start };
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or(lone);
        }
        if first >= 0xdc00 || self.peek() != Some(b'\\') {
            return Err(lone);
        }
        self.at += 1;
        if self.peek() != Some(b'u') {
            return Err(lone);
        }
        let second = self.code_unit()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone);
        }
        char::from_u32(0x1_0000 + ((first & 0x3ff) << 10) + (second & 0x3ff)).ok_or(lone)
    }

    /// Reads `uXXXX`.
    fn code_unit(&mut self) -> Result<u32, JsonError> {
        self.expect(b'u')?;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(|| self.syntax())?;
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

const fn refuse_depth(depth: u32) -> Result<(), JsonError> {
    if depth > MAX_DEPTH { Err(JsonError::Depth) } else { Ok(()) }
}

fn sorted(mut members: Vec<(String, Value)>) -> Result<Object, JsonError> {
    if !members.is_sorted_by(|(a, _), (b, _)| a < b) {
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        let twice = members.windows(2).find_map(|pair| match pair {
            [(a, _), (b, _)] if a == b => Some(crate::name::shown(a)),
            _ => None,
        });
        if let Some(name) = twice {
            return Err(JsonError::Duplicate { name });
        }
    }
    Ok(Object(members))
}

/// The text that Notary signs for `value` (`docs/notary-v1.md`, 3.3).
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Integer(integer) => out.extend_from_slice(alloc::format!("{integer}").as_bytes()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_value(out, item);
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            for (place, (name, member)) in object.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write_value(out, member);
            }
            out.push(b'}');
        }
    }
}

/// Only quotes and backslashes are escaped; control characters stand raw.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Whether `raw` is its own canonical form, but for the escapes that Go's writer makes on the wire: `\u003c`,
/// `\u003e`, `\u0026`, `\u2028`, `\u2029`, and control characters.
///
/// Every Notary tool writes so. Accepting less than all JSON leaves no room for two readings of one text.
pub(crate) fn is_canonical(raw: &str, canonical: &[u8]) -> bool {
    let mut raw = raw.as_bytes();
    let mut rest = canonical;
    while let Some((&byte, after)) = raw.split_first() {
        if byte != b'\\' {
            match rest.split_first() {
                Some((&expected, after_expected)) if expected == byte && byte >= 0x20 => (raw, rest) = (after, after_expected),
                _ => return false,
            }
            continue;
        }
        let Some((escaped, after)) = wire_escape(after) else { return false };
        let Some(after_expected) = rest.strip_prefix(escaped) else { return false };
        (raw, rest) = (after, after_expected);
    }
    rest.is_empty()
}

/// What an escape that may stand on the wire reads in canonical form, and what follows it.
fn wire_escape(after: &[u8]) -> Option<(&'static [u8], &[u8])> {
    const ESCAPES: [(&[u8], &[u8]); 12] = [
        (b"\"", b"\\\""),
        (b"\\", b"\\\\"),
        (b"n", b"\n"),
        (b"r", b"\r"),
        (b"t", b"\t"),
        (b"b", b"\x08"),
        (b"f", b"\x0c"),
        (b"u003c", b"<"),
        (b"u003e", b">"),
        (b"u0026", b"&"),
        (b"u2028", "\u{2028}".as_bytes()),
        (b"u2029", "\u{2029}".as_bytes()),
    ];
    let known = ESCAPES.iter().find_map(|(wire, canonical)| Some((*canonical, after.strip_prefix(*wire)?)));
    known.or_else(|| control_escape(after))
}

/// `\u00XX` for a control character.
fn control_escape(after: &[u8]) -> Option<(&'static [u8], &[u8])> {
    const CONTROLS: [u8; 32] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];
    let [high @ (b'0' | b'1'), low, rest @ ..] = after.strip_prefix(b"u00")? else { return None };
    let low = char::from(*low).to_digit(16).filter(|_| !low.is_ascii_uppercase())?;
    let code = usize::from(high & 1) * 16 + usize::try_from(low).ok()?;
    Some((CONTROLS.get(code..=code)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString as _;

    fn read(text: &str) -> Result<Value, JsonError> {
        let wrapped = format!("{{\"x\":{text}}}");
        Document::read(wrapped.as_bytes()).map(|document| document.object().member("x").unwrap().clone())
    }

    fn is_canonical_text(text: &str) -> bool {
        is_canonical(text, &canonical(&read(text).unwrap()))
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":2}"#, r#"[{"b":{"a":1,"c":1,"a":1}}]"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(matches!(read(text), Err(JsonError::Duplicate { .. })), "{text}");
        }
    }

    #[test]
    fn only_integers_within_53_bits_are_numbers() {
        for text in ["1.0", "1e0", "1.5", "-0", "9007199254740992", "-9007199254740992", "99999999999999999999", "01"] {
            assert!(matches!(read(text), Err(JsonError::Number { .. })), "{text}: {:?}", read(text));
        }
        assert_eq!(read("9007199254740991"), Ok(Value::Integer(9_007_199_254_740_991)));
        assert_eq!(read("-3"), Ok(Value::Integer(-3)));
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        for text in [r#""\ud800x""#, r#""\udc00""#, r#""\ud800\n""#, r#""\ud800\ud800""#] {
            assert!(matches!(read(text), Err(JsonError::LoneSurrogate { .. })), "{text}");
        }
        assert_eq!(read(r#""\ud83d\ude00""#), Ok(Value::String("😀".to_string())));
    }

    #[test]
    fn text_that_is_no_json_is_refused() {
        for text in ["", "nul", "\"a", "[1,]", "{\"a\"}", "{\"a\":1,}", "\"\n\"", "\"\\x\"", "'a'", "1 2", "[1 2]", "+1", "\"\\u12\""] {
            assert!(matches!(read(text), Err(JsonError::Syntax { .. })), "{text}: {:?}", read(text));
        }
        for bytes in [b"".as_slice(), b"[]", b"\xef\xbb\xbf{}", b"{}x", b"{}{}"] {
            assert!(matches!(Document::read(bytes), Err(JsonError::Syntax { .. })));
        }
        assert_eq!(Document::read(b"{\"\xff\":1}").unwrap_err(), JsonError::Utf8);
    }

    #[test]
    fn nesting_has_a_bottom() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&deep(31)).is_ok());
        assert_eq!(read(&deep(32)), Err(JsonError::Depth));
        assert_eq!(read(&"[".repeat(100_000)), Err(JsonError::Depth));
    }

    #[test]
    fn values_are_counted() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(read(&list(MAX_VALUES - 1)).is_ok());
        assert_eq!(read(&list(MAX_VALUES)), Err(JsonError::TooMany));
    }

    #[test]
    fn only_the_writers_own_escapes_may_differ_from_the_canonical_text() {
        for text in [r#"{"a":1,"b":[true,null]}"#, r#""\u003c\u0026\u003e\u2028é\n\u0000\u001f\"\\""#, "\"\u{7f}/\"", "\"😀\""] {
            assert!(is_canonical_text(text), "{text}");
        }
        for text in
            [r#"{"b":1,"a":1}"#, r#"{"a": 1}"#, r#""\u0061""#, r#""\/""#, r#""\u003C""#, r#""\u001F""#, r#""\u00e9""#, r#""\ud83d\ude00""#]
        {
            assert!(!is_canonical_text(text), "{text}");
        }
    }

    #[test]
    fn members_are_sorted_by_bytes_and_not_by_utf16() {
        let value = read("{\"\\ud800\\udc00\":2,\"\\uffff\":1}").unwrap();
        assert_eq!(canonical(&value), "{\"\u{ffff}\":1,\"\u{10000}\":2}".as_bytes());
    }
}
