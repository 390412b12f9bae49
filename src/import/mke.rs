//! MKE's (before: UCP's) `ucp-config.toml`: `[trust_configuration]` and `[[registries]]`.

use std::collections::BTreeSet;
use std::path::Path;

use countersign_trust::mode::Mode;
use countersign_trust::time::UnixTime;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::{self, Authority, CA_KEYS, HOST_KEYS, Registry};
use super::fault::{Fault, ImportErrors};
use super::told::Told;
use super::written::{Written, quoted, quoted_list};
use super::{Import, Imported, Notes, PEM_MARK, named, named_all, object, pins};
use crate::config::{At, Source, syntax_errors, with_article};

/// Users are asked for as teams of one; no organisation of theirs is likely to have this name.
const USERS: &str = "users";
/// What belongs to a registration and has nothing to do with trust: the registry's client ID for single sign-on.
const SERVICE_ID: [&str; 2] = ["service_id", "serviceID"];
const TRUST: &str = "trust_configuration";
const REGISTRIES: &str = "registries";
const STRINGS: &str = "a list of strings";

#[derive(Debug)]
struct Mke {
    mode: Mode,
    signed_by: Vec<String>,
    registries: Vec<Registry>,
}

/// Makes a configuration of MKE's `ucp-config.toml`. `file` stands in messages; certificates are judged at `now`.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn mke(text: &str, file: &Path, now: UnixTime) -> Result<Imported, ImportErrors> {
    let import = Import {
        file,
        text,
        command: "mke",
        what_to_do: "Fill in what it asks for, write it to /etc/countersign/config.toml, and check it",
    };
    import.run(|notes| read(text, file, now, notes), Mke::write)
}

fn read(text: &str, file: &Path, now: UnixTime, notes: &mut Notes) -> Option<Mke> {
    if text.trim().is_empty() {
        notes.fault(0, Fault::Empty);
        return None;
    }
    if text.trim_start().starts_with('{') {
        let what = "JSON: a registry's bundle, or the configuration of the Docker Engine";
        let instead = "`countersign import registry` or `countersign import docker`";
        notes.fault(text.find('{').unwrap_or_default(), Fault::OfAnotherKind { what, instead });
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    note_syntax_errors(&Source::new(file, text), &errors, notes);
    if !notes.faults.is_empty() {
        return None;
    }
    let document = document.get_ref();
    let names: Vec<_> = document.keys().map(|name| At::new(name.get_ref().to_string(), name.span().start)).collect();
    [TRUST, REGISTRIES].iter().for_each(|name| object::refuse_misspelling(name, names.iter(), notes));
    let (mode, signed_by) = read_trust(&Table { path: String::new(), entries: document }, notes);
    let registries = read_registries(document, now, notes);
    Some(Mke { mode, signed_by, registries })
}

/// After a text with a line break in it, everything that follows is its consequence.
fn note_syntax_errors(source: &Source<'_>, errors: &[toml::de::Error], notes: &mut Notes) {
    let is_break = |at: usize| source.text().get(at..).is_some_and(|rest| rest.starts_with(['\n', '\r']));
    let errors: Vec<At<String>> = syntax_errors(source, errors).collect();
    let broken = errors.iter().filter(|error| error.value.contains("string") && is_break(error.at)).map(|error| error.at).min();
    for error in errors.into_iter().filter(|error| broken.is_none_or(|broken| error.at < broken)) {
        notes.fault(error.at, Fault::Syntax(error.value));
    }
    if let Some(at) = broken {
        notes.fault(at, Fault::LineBreakInTomlText);
    }
}

/// A table, with the path of its keys in messages.
struct Table<'d> {
    path: String,
    entries: &'d DeTable<'d>,
}

impl<'d> Table<'d> {
    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key` with its place, read by `read`.
    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        notes: &mut Notes,
        read: impl FnOnce(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<At<T>> {
        let (_, value) = self.entries.get_key_value(key)?;
        let typed = read(value.get_ref());
        if typed.is_none() {
            let fault = Fault::WrongType { key: self.path_of(key), expected, found: with_article(value.get_ref()) };
            notes.fault(value.span().start, fault);
        }
        typed.map(|typed| At::new(typed, value.span().start))
    }

    fn boolean(&self, key: &str, notes: &mut Notes) -> Option<At<bool>> {
        self.typed(key, "`true` or `false`", notes, DeValue::as_bool)
    }

    fn table(&self, key: &str, notes: &mut Notes) -> Option<Table<'d>> {
        let entries = self.typed(key, "a table", notes, DeValue::as_table)?.value;
        Some(Table { path: self.path_of(key), entries })
    }

    fn strings(&self, key: &str, notes: &mut Notes) -> Option<At<Vec<At<String>>>> {
        let list = self.typed(key, STRINGS, notes, DeValue::as_array)?;
        let mut strings = Vec::new();
        for item in list.value {
            match item.get_ref().as_str() {
                Some(text) => strings.push(At::new(text.to_owned(), item.span().start)),
                None => {
                    let found = with_article(item.get_ref());
                    notes.fault(item.span().start, Fault::WrongType { key: self.path_of(key), expected: STRINGS, found });
                }
            }
        }
        Some(At::new(strings, list.at))
    }

    /// A string whose key has two spellings.
    fn string_of_two(&self, names: [&'static str; 2], notes: &mut Notes) -> Option<At<String>> {
        let [name, other] = names;
        let given = names.iter().filter_map(|name| self.entries.get_key_value(*name));
        if let Some((second, _)) = given.clone().nth(1) {
            notes.fault(second.span().start, Fault::BothSpellings { name, other });
        }
        let name = if self.entries.contains_key(name) { name } else { other };
        self.typed(name, "a string", notes, |value| value.as_str().map(str::to_owned))
    }

    /// Tells of the keys that are none of `known`.
    fn finish(&self, known: &[&'static str], notes: &mut Notes) {
        for (name, _) in self.entries {
            let name = At::new(name.get_ref().to_string(), name.span().start);
            if !known.contains(&name.value.as_str()) {
                let path = self.path_of(&named(&name.value));
                object::unknown(&name, path, known, notes);
            }
        }
    }
}

fn read_trust(document: &Table<'_>, notes: &mut Notes) -> (Mode, Vec<String>) {
    let Some(trust) = document.table(TRUST, notes) else {
        notes.tell(0, Told::NotRequired);
        return (Mode::Disabled, Vec::new());
    };
    let at = document.entries.get_key_value(TRUST).map_or(0, |(name, _)| name.span().start);
    let is_required = trust.boolean("require_content_trust", notes).is_some_and(|required| required.value);
    let teams = trust.strings("require_signature_from", notes);
    if let Some(repositories) = trust.strings("allow_repos", notes).filter(|list| !list.value.is_empty()) {
        let which = named_all(repositories.value.iter().map(|name| name.value.as_str()));
        notes.tell(repositories.at, Told::AllowRepos { which });
    }
    trust.finish(&["require_content_trust", "require_signature_from", "allow_repos"], notes);
    if is_required {
        notes.tell(at, Told::PinsAreNew);
    } else {
        notes.tell(at, Told::NotRequired);
    }
    let signed_by = teams.map(|teams| read_teams(&teams.value, notes)).unwrap_or_default();
    (if is_required { Mode::Enforced } else { Mode::Disabled }, signed_by)
}

/// Every team stays required, also one that has to be filled in: one requirement less would trust more.
fn read_teams(written: &[At<String>], notes: &mut Notes) -> Vec<String> {
    let (mut teams, mut users, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    for entry in written.iter().filter(|entry| known.insert(entry.value.clone())) {
        let Some(team) = team(entry, notes) else { continue };
        if team == entry.value {
            notes.tell(entry.at, Told::TeamToFillIn { team: named(&team) });
        } else {
            notes.tell(entry.at, Told::UserAsTeam { written: named(&entry.value), team: named(&team) });
            users.push((entry, team.clone()));
        }
        teams.push(team);
    }
    for (user, team) in users.into_iter().filter(|(_, team)| known.contains(team)) {
        notes.fault(user.at, Fault::UserIsTeam { user: named(&user.value), team: named(&team) });
    }
    teams
}

fn team(written: &At<String>, notes: &mut Notes) -> Option<String> {
    let name = &written.value;
    let is_name = |part: &str| !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if name.contains(PEM_MARK) || !name.split('/').all(is_name) || name.split('/').count() > 2 {
        notes.fault(written.at, Fault::NoTeam { written: named(name) });
        return None;
    }
    Some(if name.contains('/') { name.clone() } else { format!("{USERS}/{name}") })
}

/// The registries: a list of tables, or one table as MKE's manual shows it.
fn read_registries(document: &DeTable<'_>, now: UnixTime, notes: &mut Notes) -> Vec<Registry> {
    let (mut registries, mut known) = (Vec::new(), BTreeSet::new());
    for (at, entries) in tables_of_registries(document, notes) {
        let table = Table { path: REGISTRIES.to_owned(), entries };
        let Some((at, registry)) = read_registry(&table, at, now, notes) else { continue };
        if known.insert(registry.host.clone()) {
            registries.push(registry);
        } else {
            notes.fault(at, Fault::RegisteredTwice { host: registry.host.to_string() });
        }
    }
    if registries.is_empty() {
        notes.tell(0, Told::NoRegistries);
    }
    registries
}

fn tables_of_registries<'d>(document: &'d DeTable<'d>, notes: &mut Notes) -> Vec<(usize, &'d DeTable<'d>)> {
    let Some((_, value)) = document.get_key_value(REGISTRIES) else { return Vec::new() };
    let items: &[Spanned<DeValue<'d>>] = match value.get_ref().as_array() {
        Some(list) => list.as_ref(),
        None => std::slice::from_ref(value),
    };
    let mut tables = Vec::new();
    for item in items {
        match item.get_ref().as_table() {
            Some(table) => tables.push((item.span().start, table)),
            None => {
                let (key, found) = (REGISTRIES.to_owned(), with_article(item.get_ref()));
                notes.fault(item.span().start, Fault::WrongType { key, expected: "a list of tables, or one table", found });
            }
        }
    }
    tables
}

fn read_registry(table: &Table<'_>, at: usize, now: UnixTime, notes: &mut Notes) -> Option<(usize, Registry)> {
    let [_, host_key] = HOST_KEYS;
    let [_, ca_key] = CA_KEYS;
    let written = table.string_of_two(HOST_KEYS, notes);
    if written.is_none() && !HOST_KEYS.iter().any(|key| table.entries.contains_key(*key)) {
        notes.fault(at, Fault::Missing { key: host_key, wanted: "the registry's host as it stands in image names" });
    }
    let ca = table.string_of_two(CA_KEYS, notes);
    let authority = address::authority(ca_key, ca.as_ref(), now, notes);
    table.finish(&[HOST_KEYS[0], host_key, CA_KEYS[0], ca_key, SERVICE_ID[0], SERVICE_ID[1]], notes);
    let (written, authority) = (written?, authority?);
    let host = address::host(host_key, &written, notes)?;
    if authority == Authority::System {
        notes.tell(written.at, Told::NoCa);
    }
    Some((written.at, Registry { host, authority }))
}

impl Mke {
    fn write(&self, written: &mut Written) {
        written.blank();
        written.line("[content-trust]");
        written.line(format_args!("mode = \"{}\"", self.mode));
        if !self.signed_by.is_empty() {
            written.comment("Each of these teams must have signed.");
            written.line(format_args!("signed-by = {}", quoted_list(self.signed_by.iter().map(String::as_str))));
        }
        let host = self.registries.first().map_or("registry.example.com", |registry| registry.host.as_str());
        pins::write_to_fill_in(&format!("{host}/*"), written);
        self.write_teams(written);
        self.registries.iter().for_each(|registry| registry.write(written));
        let has_hub = self.registries.iter().any(|registry| registry.host.as_str() == "docker.io");
        if !has_hub {
            written.blank();
            written.comment("Docker Hub needs no registration in MKE. Here it does, if images may come from there:");
            written.form("[[registries]]");
            written.form("host-address = \"docker.io\"");
        }
    }

    fn write_teams(&self, written: &mut Written) {
        if self.signed_by.is_empty() {
            return;
        }
        written.blank();
        written.comment(
            "To fill in: the members of each team (in MKE: Access Control, Orgs & Teams), and for each of them the certificate that \
             belongs to the key that signs. That is the `cert.pem` of a client bundle which was given to `docker trust signer add --key \
             cert.pem`; a client bundle that is downloaded today has another key. A user with several keys has several files.",
        );
        for team in &self.signed_by {
            let user = team.strip_prefix(USERS).and_then(|rest| rest.strip_prefix('/')).unwrap_or("NAME");
            written.form("[[teams]]");
            written.form(format_args!("name = {}", quoted(team)));
            written.form(format_args!("members = {}", quoted_list([user])));
            written.form("");
        }
        written.form("[[signers]]");
        written.form("name = \"NAME\"");
        written.form("certificates = [\"signers/NAME.pem\"]");
    }
}
