//! The Engine's trust pinning, entry by entry: what means the same here, what matches nothing there, and what cannot be said.

use std::collections::{BTreeMap, BTreeSet};

use countersign_trust::pattern::{PatternError, RepositoryPattern};
use countersign_trust::pin::{PinError, PinList, Pins};

use super::fault::Fault;
use super::object::NamedList;
use super::told::Told;
use super::written::{Written, quoted, quoted_list};
use super::{Notes, PEM_MARK, named};

/// What `official-library-images` pins.
const OFFICIAL_IMAGES: &str = "docker.io/library/*";

/// An entry that is carried over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    list: PinList,
    pub(super) name: RepositoryPattern,
    ids: Vec<String>,
    pub(super) at: usize,
}

/// An entry whose `*` may cut a name, so that it cannot be carried over.
struct Cut {
    name: String,
    start: String,
    instead: String,
    ids: BTreeSet<String>,
    at: usize,
}

/// Reads the entries of both lists.
pub(super) fn read(root_keys: Vec<NamedList>, cert_ids: Vec<NamedList>, is_official: bool, notes: &mut Notes) -> Vec<Pin> {
    let mut reading = Reading::default();
    let (mut whole, mut others) = (Vec::new(), Vec::new());
    for (list, entries) in [(PinList::RootKeys, root_keys), (PinList::CertificateIds, cert_ids)] {
        for entry in entries {
            let Some(name) = reading.name(list, &entry, notes) else { continue };
            let is_whole = name.to_string() == entry.name.value;
            if is_whole { &mut whole } else { &mut others }.push((list, name, entry));
        }
    }
    // Those that match something in the Engine come first: they keep their meaning.
    for (list, name, entry) in whole {
        reading.carry(list, name, &entry, notes);
    }
    let prefixes = reading.prefixes(is_official);
    for (list, name, entry) in others {
        reading.carry_other(list, name, &entry, &prefixes, notes);
    }
    reading.cuts(is_official, notes);
    reading.carried.sort_by_key(|pin| pin.at);
    reading.carried
}

#[derive(Default)]
struct Reading {
    /// The rules of the configuration, so that what is written is accepted there.
    pins: Pins,
    carried: Vec<Pin>,
    /// The names that are carried over in each list.
    root_keys: BTreeSet<String>,
    certificate_ids: BTreeSet<String>,
    cuts: Vec<Cut>,
}

impl Reading {
    /// How the name of an entry is read here; none if it is not carried over, which is told.
    fn name(&mut self, list: PinList, entry: &NamedList, notes: &mut Notes) -> Option<RepositoryPattern> {
        let (written, at) = (&entry.name.value, entry.name.at);
        if let Some(pem) = std::iter::once(&entry.name).chain(&entry.items).find(|text| text.value.contains(PEM_MARK)) {
            notes.fault(pem.at, Fault::PemForId);
            return None;
        }
        let start = written.trim_end_matches('*');
        if list == PinList::CertificateIds && written.contains('*') {
            notes.tell(at, Told::WildcardInCertIds { name: named(written) });
            return None;
        }
        if start.contains('*') {
            notes.tell(at, Told::WildcardInside { name: named(written) });
            return None;
        }
        match written.parse::<RepositoryPattern>() {
            Ok(name) => return Some(name),
            Err(PatternError::Wildcard) => self.cut(entry, start, notes),
            Err(PatternError::Name(source)) => notes.tell(at, Told::NoRepository { name: named(written), why: source }),
        }
        None
    }

    /// A `*` after something else than a `/`.
    fn cut(&mut self, entry: &NamedList, start: &str, notes: &mut Notes) {
        let (name, at) = (named(&entry.name.value), entry.name.at);
        let is_without_host = start.split_once('/').is_some_and(|(first, _)| reads_as(&format!("{first}/*")).is_none());
        if is_without_host {
            notes.tell(at, Told::WildcardWithoutHost { name });
            return;
        }
        let ids = entry.items.iter().map(|id| id.value.to_ascii_lowercase()).collect();
        self.cuts.push(Cut { name, start: start.to_owned(), instead: instead_of(start), ids, at });
    }

    /// Carries an entry over, and tells whether it has no fault.
    fn carry(&mut self, list: PinList, name: RepositoryPattern, entry: &NamedList, notes: &mut Notes) -> bool {
        let ids = || entry.items.iter().map(|id| id.value.as_str());
        let added = match list {
            PinList::RootKeys => self.pins.add_root_keys(&entry.name.value, ids()),
            PinList::CertificateIds => self.pins.add_certificate_ids(&entry.name.value, ids()),
        };
        let is_added = added.is_ok();
        for error in added.err().into_iter().flatten() {
            let id = if let PinError::Id { position, .. } = error { entry.items.get(position) } else { None };
            notes.fault(id.map_or(entry.name.at, |id| id.at), Fault::Pin(error));
        }
        let ids = ids().map(str::to_ascii_lowercase).collect();
        match list {
            PinList::RootKeys => &mut self.root_keys,
            PinList::CertificateIds => &mut self.certificate_ids,
        }
        .insert(name.to_string());
        self.carried.push(Pin { list, name, ids, at: entry.name.at });
        is_added
    }

    /// Carries over an entry that matches nothing in the Engine as it is written, unless something answers already for what
    /// it would match here, among the wildcards `prefixes`: then its IDs would take the place of others.
    fn carry_other(&mut self, list: PinList, name: RepositoryPattern, entry: &NamedList, prefixes: &Prefixes, notes: &mut Notes) {
        let (written, canonical) = (named(&entry.name.value), name.to_string());
        if let Some(by) = self.answers_for(&canonical, prefixes) {
            notes.tell(entry.name.at, Told::NotWholeNameAndPinned { written, read_as: name, by });
        } else if self.carry(list, name.clone(), entry, notes) {
            notes.tell(entry.name.at, Told::NotWholeName { written, read_as: name });
        }
    }

    /// The entry that answers for a name or a wildcard, be it one that is not carried over.
    fn answers_for(&self, canonical: &str, prefixes: &Prefixes) -> Option<String> {
        if self.root_keys.contains(canonical) || self.certificate_ids.contains(canonical) {
            return Some(canonical.to_owned());
        }
        let start = canonical.trim_end_matches('*');
        let cut = self.cuts.iter().find(|cut| start.starts_with(&cut.start)).map(|cut| cut.name.clone());
        cut.or_else(|| longest_around(start, prefixes).map(|(by, _)| by.to_string()))
    }

    /// Tells of the entries that cannot be carried over, and refuses those whose repositories would then be answered for by
    /// a shorter prefix with other keys: that would be trust which nobody has given.
    fn cuts(&self, is_official: bool, notes: &mut Notes) {
        let prefixes = self.prefixes(is_official);
        for Cut { name, start, instead, ids, at } in &self.cuts {
            let (name, instead) = (name.clone(), instead.clone());
            match longest_around(start, &prefixes) {
                Some((by, others)) if others != ids => notes.fault(*at, Fault::WouldWiden { name, by: Box::new(by.clone()), instead }),
                Some(_) | None => notes.tell(*at, Told::WildcardCutsName { name, start: named(start), instead }),
            }
        }
    }

    /// The wildcards that are carried over, by what they stand for, with the IDs that they pin.
    fn prefixes(&self, is_official: bool) -> Prefixes {
        let official = if is_official { OFFICIAL_IMAGES.parse().ok() } else { None };
        // The IDs of official images are none that anybody wrote.
        let official = official.map(|name: RepositoryPattern| (name, BTreeSet::new()));
        let root_keys = self.carried.iter().filter(|pin| pin.list == PinList::RootKeys);
        let with_ids = root_keys.map(|pin| (pin.name.clone(), pin.ids.iter().cloned().collect()));
        let by_prefix =
            |(name, ids): (RepositoryPattern, BTreeSet<String>)| Some((name.to_string().strip_suffix('*')?.to_owned(), (name, ids)));
        // A pin of one's own for the official images replaces theirs.
        official.into_iter().chain(with_ids).filter_map(by_prefix).collect()
    }
}

/// Wildcards by the text before their `*`.
type Prefixes = BTreeMap<String, (RepositoryPattern, BTreeSet<String>)>;

/// The longest of `prefixes` that names which begin with `start` lie below. Each ends with a `/`, or is empty.
fn longest_around<'p>(start: &str, prefixes: &'p Prefixes) -> Option<&'p (RepositoryPattern, BTreeSet<String>)> {
    let around = start.rmatch_indices('/').filter_map(|(slash, _)| start.get(..=slash));
    around.chain(std::iter::once("")).find_map(|prefix| prefixes.get(prefix))
}

/// How a pin of this name is read; none if it has no registry host.
fn reads_as(name: &str) -> Option<RepositoryPattern> {
    name.parse().ok().filter(|name: &RepositoryPattern| !name.host_is_assumed())
}

/// What may be written instead of a wildcard that cuts a name after `start`.
fn instead_of(start: &str) -> String {
    let below = format!("{start}/*");
    let around = start.rfind('/').map(|slash| format!("{}/*", start.get(..slash).unwrap_or_default()));
    let whole = if start.is_empty() || start.ends_with('/') { Some(format!("{start}*")) } else { None };
    let candidates = whole.into_iter().chain([below]).chain(around);
    candidates.into_iter().find(|name| reads_as(name).is_some()).unwrap_or_else(|| "HOST/*".to_owned())
}

/// Writes the pins, or what to fill in if there are none.
pub(super) fn write(pins: &[Pin], is_official: bool, written: &mut Written) {
    if is_official {
        written.blank();
        written.line("[content-trust.trust-pinning]");
        written.line("official-library-images = true");
    }
    for list in [PinList::RootKeys, PinList::CertificateIds] {
        let mut pins = pins.iter().filter(|pin| pin.list == list).peekable();
        if pins.peek().is_some() {
            written.blank();
            written.line(format_args!("[content-trust.trust-pinning.{list}]"));
        }
        for pin in pins {
            written.line(format_args!("{} = {}", quoted(&pin.name.to_string()), quoted_list(pin.ids.iter().map(String::as_str))));
        }
    }
}

/// Writes what is to be filled in where nothing is pinned; `example` is a name that could be.
pub(super) fn write_to_fill_in(example: &str, written: &mut Written) {
    written.blank();
    written.comment(
        "To fill in: whose signatures count. `countersign pin REPOSITORY...` shows the present IDs of repositories as they are \
         written here. Compare them with those of whoever signs, then pin the ID of the root key, which mostly serves many repositories:",
    );
    written.form("[content-trust.trust-pinning.root-keys]");
    written.form(format_args!("{} = [\"64 HEXADECIMAL DIGITS\"]", quoted(example)));
}
