//! JSON read so strictly that another parser cannot read something else from the same bytes.
//!
//! containerd parses with Go's `encoding/json`, which takes the last of duplicate members and matches member names
//! without regard to case (also `ſ` for `s` and the Kelvin sign for `k`). So a duplicate member anywhere is
//! refused, and so is, beside or instead of a member that is asked for, another spelling of its name. What only
//! one of the two parsers accepts (lone surrogates, invalid UTF-8, deep nesting) is refused by serde_json.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Values of one document, so that a few megabytes of text cannot become hundreds in memory. A manifest of 512
/// layers with annotations has a few thousand.
const MAX_VALUES: usize = 100_000;

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonError {
    /// It is not JSON.
    Syntax(String),
    /// An object has this member twice.
    Duplicate(String),
    /// An object has this member, which another parser takes for one that is asked for.
    OtherSpelling(String),
    /// It has more values than any image's document.
    TooManyValues,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool,
    /// None if it is not a non-negative whole number.
    Number(Option<u64>),
    Text(String),
    List(Vec<Json>),
    Object(Members),
}

/// The members of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members(BTreeMap<String, Json>);

impl Members {
    /// The member that Go reads into a field of this name.
    pub(super) fn field(&self, name: &str) -> Result<Option<&Json>, JsonError> {
        match self.0.keys().find(|key| *key != name && folds_to(key, name)) {
            Some(other) => Err(JsonError::OtherSpelling(other.clone())),
            None => Ok(self.0.get(name)),
        }
    }

    /// Whether a map of strings, whose keys every parser compares exactly, has this key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Every value.
    pub(super) fn values(&self) -> impl Iterator<Item = &Json> {
        self.0.values()
    }
}

/// Whether Go takes the member name `key` for `name`, which is ASCII.
fn folds_to(key: &str, name: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// Reads a whole text.
pub(super) fn parse(text: &[u8]) -> Result<Json, JsonError> {
    let reading = Reading { left: Cell::new(MAX_VALUES), refusal: RefCell::new(None) };
    let mut input = serde_json::Deserializer::from_slice(text);
    let parsed = (&reading).deserialize(&mut input).and_then(|json| input.end().map(|()| json));
    parsed.map_err(|error| reading.refusal.take().unwrap_or_else(|| JsonError::Syntax(error.to_string())))
}

struct Reading {
    left: Cell<usize>,
    /// Why we refused, since serde carries only a text.
    refusal: RefCell<Option<JsonError>>,
}

impl Reading {
    fn refuse<E: serde::de::Error>(&self, refusal: JsonError) -> E {
        self.refusal.replace(Some(refusal));
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Json, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else { return Err(self.refuse(JsonError::TooManyValues)) };
        self.left.set(left);
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(Some(number)))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number(None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = input.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Json, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = input.next_key::<String>()? {
            match members.entry(name) {
                Entry::Occupied(taken) => return Err(self.refuse(JsonError::Duplicate(taken.key().clone()))),
                Entry::Vacant(free) => free.insert(input.next_value_seed(self)?),
            };
        }
        Ok(Json::Object(Members(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        let twice = Err(JsonError::Duplicate("a".into()));
        assert_eq!(parse(br#"{"a":1,"a":1}"#), twice);
        assert_eq!(parse(br#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#), twice);
        assert_eq!(parse(br#"{"x":1,"a":1,"\u0061":1}"#), twice);
        assert!(parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn a_member_that_go_would_take_for_a_field_is_refused() {
        for other in ["Manifests", "MANIFESTS", "manifeſts", "manifestS"] {
            let Ok(Json::Object(members)) = parse(format!(r#"{{"{other}":[]}}"#).as_bytes()) else { panic!("{other}") };
            assert_eq!(members.field("manifests"), Err(JsonError::OtherSpelling(other.into())));
        }
        let Ok(Json::Object(members)) = parse(r#"{"K":1,"digeſt":1,"digest":2}"#.as_bytes()) else { panic!() };
        assert!(members.field("k").is_err());
        assert!(members.field("digest").is_err());
        assert_eq!(members.field("size"), Ok(None));
    }

    #[test]
    fn what_another_parser_might_mend_is_refused() {
        for text in [r#"{"a":"\ud800"}"#, "{} {}", "{'a':1}", "{\"a\":1,}", "\u{feff}{}", "nul", "", "[1 2]", "{\"a\":01}"] {
            assert!(matches!(parse(text.as_bytes()), Err(JsonError::Syntax(_))), "{text}");
        }
        assert!(matches!(parse(b"{\"a\":\"\xff\"}"), Err(JsonError::Syntax(_))));
        assert!(matches!(parse("[".repeat(1000).as_bytes()), Err(JsonError::Syntax(_))));
    }

    #[test]
    fn the_number_of_values_is_limited() {
        let of = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(parse(of(MAX_VALUES - 1).as_bytes()).is_ok());
        assert_eq!(parse(of(MAX_VALUES).as_bytes()), Err(JsonError::TooManyValues));
    }
}
