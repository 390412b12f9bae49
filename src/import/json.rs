//! JSON with the place of every value, for telling people what to change and where.
//!
//! serde_json checks the syntax of the whole text and keeps what is inside of a value as text (`RawValue`). Only what is
//! asked for is then read further, so that the place of a value is the place of its text, and foreign members cost nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::Fault;
use super::object::Object;
use super::pem::private_key;
use super::{Notes, diagnosis, named};
use crate::config::At;

/// A value and where it stands in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'t> {
    text: &'t str,
    pub(super) at: usize,
}

/// A member of an object.
#[derive(Debug)]
pub(super) struct Member<'t> {
    pub(super) name: At<String>,
    pub(super) value: Node<'t>,
}

/// The object that a whole file is, unless there is a fault, which is noted then. No file that is read here has a use for a
/// private key; from one that has some, nothing is repeated.
pub(super) fn file<'t>(text: &'t str, notes: &mut Notes) -> Option<Object<'t>> {
    if let Some(at) = private_key(text) {
        notes.fault(at, Fault::PrivateKey);
        return None;
    }
    if text.contains("[trust_configuration]") && !text.trim_start().starts_with('{') {
        notes.fault(0, Fault::OfAnotherKind { what: "the configuration of MKE", instead: "`countersign import mke`" });
        return None;
    }
    let root = notes.good(document(text))?;
    Object::of(root, "", notes)
}

/// Checks that all of `text` is one JSON value.
///
/// # Errors
/// What is wrong with the syntax, where, and what to do about it.
pub(super) fn document(text: &str) -> Result<Node<'_>, At<Fault>> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(Node::within(text, value)),
        Err(error) => Err(diagnosis::of(text, &error)),
    }
}

impl<'t> Node<'t> {
    /// `value` is a part of `whole`, so that the distance of the two is its place.
    fn within(whole: &str, value: &'t RawValue) -> Self {
        let text = value.get();
        Self { text, at: text.as_ptr().addr().saturating_sub(whole.as_ptr().addr()) }
    }

    fn child(&self, value: &'t RawValue) -> Self {
        let inner = Self::within(self.text, value);
        Self { at: self.at + inner.at, ..inner }
    }

    /// What kind of value this is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.text.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// The text of a string; none if this is something else.
    ///
    /// # Errors
    /// The string stands for no text, as half a surrogate pair does.
    pub(super) fn string(&self) -> Result<Option<String>, At<Fault>> {
        if !self.text.starts_with('"') {
            return Ok(None);
        }
        serde_json::from_str(self.text).map(Some).map_err(|_| At::new(Fault::NoText, self.at))
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.text.parse().ok()
    }

    /// The values of a list; none if this is something else.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let items: Vec<&'t RawValue> = serde_json::from_str(self.text).ok()?;
        Some(items.into_iter().map(|item| self.child(item)).collect())
    }

    /// The members of an object; none if this is something else.
    ///
    /// # Errors
    /// A name stands twice: which of the two is meant is anybody's guess, and programs guess differently.
    pub(super) fn members(&self) -> Result<Option<Vec<Member<'t>>>, At<Fault>> {
        if !self.text.starts_with('{') {
            return Ok(None);
        }
        // The syntax is known to be good.
        let Ok(Pairs(pairs)) = serde_json::from_str::<Pairs<'t>>(self.text) else { return Ok(Some(Vec::new())) };
        let mut names = BTreeSet::new();
        let mut members = Vec::new();
        for (name, value) in pairs {
            let written = self.child(name);
            let name = written.string()?.unwrap_or_default();
            if !names.insert(name.clone()) {
                return Err(At::new(Fault::Duplicate { name: named(&name) }, written.at));
            }
            members.push(Member { name: At::new(name, written.at), value: self.child(value) });
        }
        Ok(Some(members))
    }
}

/// Names and values of an object, unread.
struct Pairs<'t>(Vec<(&'t RawValue, &'t RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = input.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        input.deserialize_map(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place() {
        let text = " {\n \"a\" : [1, \"ä\\n\"],\t\"\\u0062\":{\"c\":true}}\n";
        let root = document(text).unwrap();
        let members = root.members().unwrap().unwrap();
        let names: Vec<_> = members.iter().map(|member| (member.name.value.as_str(), &text[member.name.at..][..3])).collect();
        assert_eq!(names, [("a", "\"a\""), ("b", "\"\\u")]);
        let items = members[0].value.items().unwrap();
        assert_eq!(items.iter().map(|item| text[item.at..].chars().next().unwrap()).collect::<String>(), "1\"");
        assert_eq!(items[1].string().unwrap().as_deref(), Some("ä\n"));
        let inner = members[1].value.members().unwrap().unwrap();
        assert_eq!((text[inner[0].value.at..].split('}').next(), inner[0].value.boolean()), (Some("true"), Some(true)));
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_the_second() {
        let text = "{\"a\":1,\n\"\\u0061\":2}";
        let refused = document(text).unwrap().members().unwrap_err();
        assert!(matches!(&refused.value, Fault::Duplicate { name } if name == "a"));
        assert_eq!(refused.at, text.find("\"\\u").unwrap());
    }

    #[test]
    fn a_value_is_read_as_what_it_is_and_as_nothing_else() {
        for (text, kind) in
            [("{}", "an object"), ("[]", "a list"), ("\"\"", "a string"), ("true", "a boolean"), ("null", "null"), ("-1", "a number")]
        {
            let node = document(text).unwrap();
            assert_eq!(node.kind(), kind);
            assert_eq!(node.members().unwrap().is_some(), text == "{}", "{text}");
            assert_eq!(node.items().is_some(), text == "[]", "{text}");
            assert_eq!(node.string().unwrap().is_some(), text == "\"\"", "{text}");
            assert_eq!(node.boolean().is_some(), text == "true", "{text}");
        }
        assert!(matches!(document(r#""\ud800""#).unwrap().string().unwrap_err().value, Fault::NoText));
    }

    #[test]
    fn what_is_not_asked_for_may_be_deep_and_costs_no_stack() {
        let text = format!("{{\"x\":{}{},\"a\":1}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(document(&text).unwrap().members().unwrap().unwrap().len(), 2);
    }
}
