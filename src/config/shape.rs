//! The first step: a walk through the TOML document that asks for each key by name and type.
//!
//! Whatever was not asked for is unknown. So the questions are the schema, and it cannot differ from what is read.

use std::collections::BTreeSet;
use std::ops::Range;

use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Remark};

/// A longer key is no misspelling of one of ours, and comparing it would take long.
const MAX_KEY_TO_COMPARE: usize = 64;

/// A value with the byte at which it stands in the text.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: usize,
}

impl<T> At<T> {
    pub(crate) fn new(value: T, at: usize) -> Self {
        Self { value, at }
    }
}

/// Everything that is to be told about a file.
#[derive(Debug, Default)]
pub(super) struct Notes {
    faults: Vec<At<Fault>>,
    remarks: Vec<At<Remark>>,
    unknown: Vec<At<Key>>,
    known: BTreeSet<Key>,
}

/// A key with the path of its section.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    section: String,
    name: String,
}

impl Key {
    fn path(&self) -> String {
        join(&self.section, &self.name)
    }
}

fn join(section: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let key = if is_bare { shown(key) } else { format!("\"{}\"", shown(key)) };
    if section.is_empty() { key } else { format!("{section}.{key}") }
}

impl Notes {
    pub(super) fn fault(&mut self, at: usize, fault: Fault) {
        self.faults.push(At::new(fault, at));
    }

    pub(super) fn remark(&mut self, at: usize, remark: Remark) {
        self.remarks.push(At::new(remark, at));
    }

    fn wrong_type(&mut self, key: String, at: usize, expected: impl Into<String>, found: &DeValue<'_>) {
        self.fault(at, Fault::WrongType { key, expected: expected.into(), found: with_article(found) });
    }

    /// All faults and remarks. Unknown keys are judged only now, when all known ones have been asked for.
    pub(super) fn finish(mut self) -> (Vec<At<Fault>>, Vec<At<Remark>>) {
        for At { value: key, at } in std::mem::take(&mut self.unknown) {
            let near = self.nearest(&key);
            self.fault(at, Fault::UnknownKey { key: key.path(), near });
        }
        (self.faults, self.remarks)
    }

    /// The key that was probably meant: one of the same section that is spelled nearly so, or the same in another section.
    fn nearest(&self, unknown: &Key) -> Option<String> {
        let beside = self.known.iter().filter(|known| known.section == unknown.section).map(|known| known.name.as_str());
        let elsewhere = || self.known.iter().find(|known| known.name == unknown.name).map(Key::path);
        nearest(&unknown.name, beside).map(str::to_owned).or_else(elsewhere)
    }
}

/// The word that `written` is probably a misspelling of: at most a third of its characters differ.
pub(crate) fn nearest<'w>(written: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if written.len() > MAX_KEY_TO_COMPARE {
        return None;
    }
    let written = written.to_lowercase().replace('_', "-");
    let with_distance = words.map(|word| (strsim::damerau_levenshtein(&written, word), word));
    let near = with_distance.filter(|(distance, word)| *distance <= word.len().div_ceil(3));
    near.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

fn end_of(written: &toml::value::Datetime) -> Option<UnixTime> {
    const SECONDS_PER_DAY: i64 = 86_400;
    match (written.date, written.time, written.offset) {
        (Some(date), None, None) => Some(UnixTime::parse_rfc3339(&format!("{date}T00:00:00Z"))?.plus_seconds(SECONDS_PER_DAY)),
        (Some(_), Some(_), Some(_)) => UnixTime::parse_rfc3339(&written.to_string()),
        _ => None,
    }
}

pub(crate) fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A list of strings that the file itself gives a name.
#[derive(Debug)]
pub(super) struct NamedList {
    pub(super) name: At<String>,
    pub(super) items: Vec<At<String>>,
}

/// A table from names of the file's own to lists of strings.
#[derive(Debug)]
pub(super) struct NamedLists {
    /// The lists without a fault in their shape.
    pub(super) lists: Vec<NamedList>,
    /// Whether anything was written at all, were it wrong.
    pub(super) is_written: bool,
}

/// A table of the file while it is being asked for its keys. An absent one has none of them.
pub(super) struct Section<'n, 'd> {
    notes: &'n mut Notes,
    entries: Option<&'d DeTable<'d>>,
    path: String,
    at: usize,
    asked: BTreeSet<&'static str>,
    /// The section is there and is no table, which was told; what it lacks need not be told too.
    is_broken: bool,
}

impl<'d> Section<'_, 'd> {
    /// Asks the whole document with `read`.
    pub(super) fn of_document<T>(document: &'d DeTable<'d>, notes: &mut Notes, read: impl FnOnce(&mut Section<'_, 'd>) -> T) -> T {
        let section = Section { notes, entries: Some(document), path: String::new(), at: 0, asked: BTreeSet::new(), is_broken: false };
        section.asked_by(read)
    }

    /// Where the section begins, or where the one around it does if it is absent.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The only way to read a section, so that no unknown key is forgotten.
    fn asked_by<T>(mut self, read: impl FnOnce(&mut Section<'_, 'd>) -> T) -> T {
        let result = read(&mut self);
        for (name, _) in self.entries.into_iter().flatten() {
            if !self.asked.contains(name.get_ref().as_ref()) {
                let key = Key { section: self.path.clone(), name: name.get_ref().to_string() };
                self.notes.unknown.push(At::new(key, name.span().start));
            }
        }
        result
    }

    /// The value of `key` with the places of the key and of the value.
    fn entry(&mut self, key: &'static str) -> Option<(usize, At<&'d DeValue<'d>>)> {
        self.asked.insert(key);
        self.notes.known.insert(Key { section: self.path.clone(), name: key.to_owned() });
        let (name, value) = self.entries?.get_key_value(key)?;
        Some((name.span().start, At::new(value.get_ref(), value.span().start)))
    }

    /// Where the value of `key` stands in the text, whatever it is.
    pub(super) fn place_of(&self, key: &str) -> Option<Range<usize>> {
        Some(self.entries?.get(key)?.span())
    }

    fn typed<T>(&mut self, key: &'static str, expected: &str, read: impl FnOnce(&'d DeValue<'d>) -> Option<T>) -> Option<At<T>> {
        let (_, value) = self.entry(key)?;
        let typed = read(value.value).map(|typed| At::new(typed, value.at));
        if typed.is_none() {
            self.notes.wrong_type(join(&self.path, key), value.at, expected, value.value);
        }
        typed
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<At<String>> {
        self.typed(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A string that must be there; `wanted` says what to write.
    pub(super) fn required_text(&mut self, key: &'static str, wanted: &'static str) -> Option<At<String>> {
        let is_absent = self.entry(key).is_none();
        if is_absent && !self.is_broken {
            self.notes.fault(self.at, Fault::Missing { key: join(&self.path, key), wanted });
        }
        self.text(key)
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str) -> Option<At<u64>> {
        let read = |value: &DeValue<'_>| {
            let written = value.as_integer()?;
            u64::from_str_radix(written.as_str(), written.radix()).ok()
        };
        self.typed(key, "a positive whole number", read)
    }

    /// A switch.
    pub(super) fn switch(&mut self, key: &'static str) -> Option<At<bool>> {
        self.typed(key, "`true` or `false`", DeValue::as_bool)
    }

    /// A list of strings. None if it is absent, or wrong, which was noted.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<At<String>>> {
        self.entry(key)?;
        let path = join(&self.path, key);
        let value = self.entries?.get(key)?;
        self.strings(&path, value)
    }

    /// A day, which ends with it, or a moment. Moments without an offset mean different ones on different nodes.
    pub(super) fn moment(&mut self, key: &'static str) -> Option<At<UnixTime>> {
        const EXPECTED: &str = "a day such as `2026-12-31` (its end, in UTC) or a moment such as `2026-12-31T18:00:00Z`";
        self.typed(key, EXPECTED, |value| end_of(value.as_datetime()?))
    }

    /// A table with keys of ours. `read` asks an absent one too, so that there is one place for what is then meant.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 'd>) -> T) -> T {
        let at = self.entry(key).map_or(self.at, |(at, _)| at);
        let is_given = self.entry(key).is_some();
        let table = self.typed(key, "a table", DeValue::as_table).map(|table| table.value);
        let path = join(&self.path, key);
        let is_broken = is_given && table.is_none();
        Section { notes: self.notes, entries: table, path, at, asked: BTreeSet::new(), is_broken }.asked_by(read)
    }

    /// A list of tables with keys of ours.
    pub(super) fn sections<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'_, 'd>) -> T) -> Vec<T> {
        let expected = format!("a list of tables, each below `[[{key}]]`");
        let Some(list) = self.typed(key, &expected, DeValue::as_array) else { return Vec::new() };
        let path = join(&self.path, key);
        let mut read_item = |item: &'d toml::Spanned<DeValue<'d>>| {
            let at = item.span().start;
            let Some(table) = item.get_ref().as_table() else {
                self.notes.wrong_type(path.clone(), at, &expected, item.get_ref());
                return None;
            };
            let asked = BTreeSet::new();
            let section = Section { notes: self.notes, entries: Some(table), path: path.clone(), at, asked, is_broken: false };
            Some(section.asked_by(&mut read))
        };
        list.value.iter().filter_map(&mut read_item).collect()
    }

    pub(super) fn named_lists(&mut self, key: &'static str) -> NamedLists {
        let is_given = self.entry(key).is_some();
        let table = self.typed(key, "a table of lists: `{ \"name\" = [\"ID\"] }`", DeValue::as_table);
        let is_written = is_given && table.as_ref().is_none_or(|table| !table.value.is_empty());
        let path = join(&self.path, key);
        let mut lists = Vec::new();
        for (name, value) in table.into_iter().flat_map(|table| table.value) {
            let items = self.strings(&join(&path, name.get_ref()), value);
            let name = At::new(name.get_ref().to_string(), name.span().start);
            lists.extend(items.map(|items| NamedList { name, items }));
        }
        NamedLists { lists, is_written }
    }

    fn strings(&mut self, path: &str, list: &'d toml::Spanned<DeValue<'d>>) -> Option<Vec<At<String>>> {
        const EXPECTED: &str = "a list of strings";
        let Some(items) = list.get_ref().as_array() else {
            self.notes.wrong_type(path.to_owned(), list.span().start, EXPECTED, list.get_ref());
            return None;
        };
        let mut strings = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(text) => strings.push(At::new(text.to_owned(), item.span().start)),
                None => self.notes.wrong_type(path.to_owned(), item.span().start, EXPECTED, item.get_ref()),
            }
        }
        if strings.len() == items.len() { Some(strings) } else { None }
    }
}
