//! A JSON object while it is being asked for its members by name and type. Whatever was not asked for is unknown.

use super::fault::Fault;
use super::json::{Member, Node};
use super::told::Told;
use super::{Notes, named};
use crate::config::{At, nearest};

/// What a list of names and IDs must be.
const STRINGS: &str = "a list of strings";

/// A name with so many slips of the pen is still taken for the name that was meant, where many others may stand beside it.
const SLIPS: usize = 2;

/// An object, with the path of its keys in messages.
pub(super) struct Object<'t> {
    path: String,
    pub(super) at: usize,
    members: Vec<Member<'t>>,
    asked: Vec<&'static str>,
}

/// A list of strings that the file itself gives a name.
pub(super) struct NamedList {
    pub(super) name: At<String>,
    pub(super) items: Vec<At<String>>,
}

impl<'t> Object<'t> {
    /// `node` as an object. `path` is the path of its key, and empty for the file.
    pub(super) fn of(node: Node<'t>, path: &str, notes: &mut Notes) -> Option<Self> {
        let members = notes.good(node.members())?;
        if members.is_none() {
            let found = node.kind();
            let of_member = |key: &str| Fault::WrongType { key: key.to_owned(), expected: "an object, `{…}`", found };
            notes.fault(node.at, if path.is_empty() { Fault::NoObject { found } } else { of_member(path) });
        }
        Some(Self { path: path.to_owned(), at: node.at, members: members?, asked: Vec::new() })
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { named(name) } else { format!("{}.{}", self.path, named(name)) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name.value == name)
    }

    pub(super) fn member(&mut self, name: &'static str) -> Option<Node<'t>> {
        self.asked.push(name);
        self.members.iter().find(|member| member.name.value == name).map(|member| member.value)
    }

    fn wrong_type(&self, name: &str, expected: &'static str, found: Node<'_>, notes: &mut Notes) {
        notes.fault(found.at, Fault::WrongType { key: self.path_of(name), expected, found: found.kind() });
    }

    pub(super) fn string(&mut self, name: &'static str, notes: &mut Notes) -> Option<At<String>> {
        let node = self.member(name)?;
        let string = notes.good(node.string())?;
        if string.is_none() {
            self.wrong_type(name, "a string", node, notes);
        }
        string.map(|string| At::new(string, node.at))
    }

    /// A member that has two spellings.
    pub(super) fn string_of_two(&mut self, names: [&'static str; 2], notes: &mut Notes) -> Option<At<String>> {
        let [name, other] = names;
        if let (Some(_), Some(second)) = (self.member(name), self.member(other)) {
            notes.fault(second.at, Fault::BothSpellings { name, other });
        }
        self.string(if self.has(name) { name } else { other }, notes)
    }

    pub(super) fn boolean(&mut self, name: &'static str, notes: &mut Notes) -> Option<At<bool>> {
        let node = self.member(name)?;
        if node.boolean().is_none() {
            self.wrong_type(name, "`true` or `false`", node, notes);
        }
        node.boolean().map(|boolean| At::new(boolean, node.at))
    }

    pub(super) fn object(&mut self, name: &'static str, notes: &mut Notes) -> Option<Self> {
        let node = self.member(name)?;
        Self::of(node, &self.path_of(name), notes)
    }

    /// The strings of a list; none if there is no such member, or a fault in it was noted.
    pub(super) fn strings(&mut self, name: &'static str, notes: &mut Notes) -> Option<Vec<At<String>>> {
        let node = self.member(name)?;
        self.strings_in(name, node, notes)
    }

    fn strings_in(&self, name: &str, node: Node<'t>, notes: &mut Notes) -> Option<Vec<At<String>>> {
        let Some(items) = node.items() else {
            self.wrong_type(name, STRINGS, node, notes);
            return None;
        };
        let mut strings = Vec::new();
        for item in &items {
            match notes.good(item.string())? {
                Some(string) => strings.push(At::new(string, item.at)),
                None => self.wrong_type(name, STRINGS, *item, notes),
            }
        }
        if strings.len() == items.len() { Some(strings) } else { None }
    }

    /// All members, each a list of strings; those with a fault in them are left out, and it was noted.
    pub(super) fn named_lists(self, notes: &mut Notes) -> Vec<NamedList> {
        let read = |member: &Member<'t>| {
            let items = self.strings_in(&member.name.value, member.value, notes)?;
            Some(NamedList { name: At::new(member.name.value.clone(), member.name.at), items })
        };
        self.members.iter().filter_map(read).collect()
    }

    /// Tells of the members that nobody asked for.
    pub(super) fn finish(self, notes: &mut Notes) {
        for member in self.members.iter().filter(|member| !self.asked.iter().any(|asked| *asked == member.name.value)) {
            unknown(&member.name, self.path_of(&member.name.value), &self.asked, notes);
        }
    }

    /// The names of all members.
    pub(super) fn names(&self) -> impl Iterator<Item = &At<String>> {
        self.members.iter().map(|member| &member.name)
    }
}

/// Refuses a misspelling of `name` among names of which the others are of no concern.
pub(super) fn refuse_misspelling<'n>(name: &str, among: impl Iterator<Item = &'n At<String>>, notes: &mut Notes) {
    let fold = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    for written in among.filter(|written| written.value != name && written.value.len() <= 2 * name.len()) {
        if strsim::damerau_levenshtein(&fold(&written.value), &fold(name)) <= SLIPS {
            notes.fault(written.at, Fault::Misspelt { key: named(&written.value), near: name.to_owned() });
        }
    }
}

/// A key that is unknown. One that is nearly a known one was meant to be that, and to leave it out could trust more than
/// before: an error. Any other is told.
pub(super) fn unknown(name: &At<String>, path: String, known: &[&'static str], notes: &mut Notes) {
    match nearest(&name.value, known.iter().copied()) {
        Some(near) => notes.fault(name.at, Fault::Misspelt { key: path, near: near.to_owned() }),
        None => notes.tell(name.at, Told::UnknownKey { key: path }),
    }
}
