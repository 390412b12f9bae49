//! Which containers came through the gate, on disk: a daemon that was restarted, or was down for a while, must not take what it
//! has let through for what came past it.
//!
//! It is written after the fact. Without it, nothing that is there already is stopped. What is taken down of services that were
//! let pass before their images were enforced rests on it too; without it, none goes on by itself.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::mem;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use countersign_trust::name::ImageReference;
use serde::{Deserialize, Serialize};

use crate::admit::{Asked, AskedVolume, Workload};
use crate::containerd::{MAX_CONTAINERS, MadeAt};
use crate::resolve::{Kind, Revision, Service};

/// The file, and its name while it is being written.
const FILE: &str = "came-through.jsonl";
const UNFINISHED: &str = "came-through.jsonl.new";
/// Only root reads or writes it.
const MODE: u32 = 0o600;
/// The form of the file.
const VERSION: u32 = 1;
/// Bytes of an image's or a namespace's name that are kept. No reference and no namespace is longer; the rest is no name.
const MAX_NAME_BYTES: usize = 512;
/// Names of a container's image volumes that are kept. Of one with more, none is: it counts as one of which they are not known.
const MAX_VOLUMES: usize = 16;
/// Bytes of these names, together.
const MAX_VOLUME_BYTES: usize = 1024;
/// Bytes of the file that are read: what [`MAX_CONTAINERS`] entries with the longest names take.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    since: i64,
    /// Whether the gate looked at what passed when this was written.
    verifies: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: String,
    image: String,
    /// The image's name, if it has one. An image ID can be read as a name too, and is none.
    name: Option<String>,
    namespace: Option<String>,
    /// Which container of which pod it is.
    #[serde(default)]
    pod_uid: Option<String>,
    #[serde(default)]
    container: Option<String>,
    /// Its image was not enforced.
    #[serde(default)]
    was_let_pass: bool,
    /// Which revision of which service of its namespace it is of.
    #[serde(default)]
    service: Option<EntryService>,
    /// The names of the images of its volumes, each once. One that has none is one that an ID was given for.
    #[serde(default)]
    volumes: Vec<Option<String>>,
    /// When it was made, if that is known.
    #[serde(default)]
    made_at: Option<MadeAt>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryService {
    kind: String,
    name: String,
    revision: String,
}

impl EntryService {
    fn of(Revision { service, id }: &Revision) -> Self {
        Self { kind: service.kind.as_str().to_owned(), name: service.name.clone(), revision: id.clone() }
    }

    fn read(self, namespace: Option<&str>) -> Option<Revision> {
        let service = Service { namespace: namespace?.to_owned(), kind: Kind::read(&self.kind)?, name: self.name };
        Some(Revision { service, id: self.revision })
    }
}

impl From<Entry> for Asked {
    fn from(Entry { id: _, image, name, namespace, pod_uid, container, was_let_pass, service, volumes, made_at }: Entry) -> Self {
        let workload = pod_uid.zip(container).map(|(pod_uid, container)| Workload { pod_uid, container });
        let revision = service.and_then(|service| service.read(namespace.as_deref()));
        let volumes = volumes.into_iter().map(|name| volume_of(name.and_then(|name| name.parse().ok()))).collect();
        let name = name.and_then(|name| name.parse().ok());
        Self { name, image, namespace, workload, was_let_pass, revision, volumes, made_at, ..Asked::default() }
    }
}

impl Entry {
    fn of(id: &str, Asked { image, name, namespace, workload, was_let_pass, revision, given: _, volumes, made_at }: &Asked) -> Self {
        let workload = workload.as_ref();
        Self {
            id: id.to_owned(),
            image: image.clone(),
            name: name.as_ref().map(ToString::to_string),
            namespace: namespace.clone(),
            pod_uid: workload.map(|workload| workload.pod_uid.clone()),
            container: workload.map(|workload| workload.container.clone()),
            was_let_pass: *was_let_pass,
            service: revision.as_ref().map(EntryService::of),
            volumes: volumes.iter().map(|volume| volume.name.as_ref().map(ToString::to_string)).collect(),
            made_at: *made_at,
        }
    }
}

/// An image volume of which only the name is kept.
fn volume_of(name: Option<ImageReference>) -> AskedVolume {
    AskedVolume { name, ..AskedVolume::default() }
}

/// The names of the images in the volumes, each once; none if there are too many, or they are too long.
fn volumes_of(asked: &Asked) -> Vec<AskedVolume> {
    let mut names: Vec<_> = asked.volumes.iter().map(|volume| volume.name.clone()).collect();
    names.sort();
    names.dedup();
    let bytes: usize = names.iter().flatten().map(|name| name.to_string().len()).sum();
    if names.len() > MAX_VOLUMES || bytes > MAX_VOLUME_BYTES {
        return Vec::new();
    }
    names.into_iter().map(volume_of).collect()
}

/// What came through.
#[derive(Debug)]
pub(super) struct Book {
    directory: PathBuf,
    /// Since when a record is kept, in seconds since the Unix epoch. What is older is left alone.
    since: i64,
    containers: HashMap<String, Asked>,
    verifies: bool,
    /// The file says all of it but what is to be added.
    is_whole: bool,
    /// The lines that are to be added to the file, each with its end.
    added: String,
}

impl Book {
    /// Reads the book in `directory`, which is made if it is absent; a new one begins at `now`. One that cannot be read begins
    /// anew, which is told.
    pub(super) fn open(directory: &Path, now: i64) -> Self {
        match read(directory) {
            Ok(Some((Head { since, verifies, .. }, containers))) => {
                Self { directory: directory.to_owned(), since, containers, verifies, is_whole: true, added: String::new() }
            }
            Ok(None) => Self::new(directory, now),
            Err(error) => {
                let file = directory.join(FILE);
                tracing::error!(file = %file.display(), %error, "the record of what came through the gate cannot be read and begins anew");
                Self::new(directory, now)
            }
        }
    }

    fn new(directory: &Path, since: i64) -> Self {
        let containers = HashMap::new();
        Self { directory: directory.to_owned(), since, containers, verifies: true, is_whole: false, added: String::new() }
    }

    /// Notes whether the gate looks at what passes. While it does not, everything passes unseen, so that from then on the record
    /// begins anew.
    pub(super) fn gate_verifies(&mut self, verifies: bool, now: i64) {
        if self.verifies != verifies {
            self.is_whole = false;
        }
        if verifies && !self.verifies {
            self.since = now;
        }
        self.verifies = verifies;
    }

    /// Since when a record is kept, in seconds since the Unix epoch.
    pub(super) const fn since(&self) -> i64 {
        self.since
    }

    /// For what a container was made that came through.
    pub(super) fn asked_for(&self, container_id: &str) -> Option<&Asked> {
        self.containers.get(container_id)
    }

    /// Notes a container that came through.
    pub(super) fn add(&mut self, container_id: &str, asked: &Asked) {
        if self.containers.len() >= MAX_CONTAINERS || self.containers.contains_key(container_id) {
            return;
        }
        let is_name = |text: &&str| text.len() <= MAX_NAME_BYTES;
        let image = Some(asked.image.as_str()).filter(is_name).unwrap_or_default().to_owned();
        let namespace = asked.namespace.as_deref().filter(is_name).map(str::to_owned);
        let name = asked.name.clone().filter(|_| !image.is_empty());
        let is_short = |workload: &Workload| workload.pod_uid.len() <= MAX_NAME_BYTES && workload.container.len() <= MAX_NAME_BYTES;
        let workload = asked.workload.clone().filter(is_short);
        // No part of a revision is longer than a name may be.
        let revision = asked.revision.clone();
        let (was_let_pass, volumes) = (asked.was_let_pass, volumes_of(asked));
        let made_at = asked.made_at;
        let kept = Asked { image, name, namespace, workload, was_let_pass, revision, volumes, made_at, ..Asked::default() };
        match line_of(container_id, &kept) {
            Ok(line) => self.added.push_str(&line),
            Err(_) => self.is_whole = false,
        }
        self.containers.insert(container_id.to_owned(), kept);
    }

    /// Forgets a container.
    pub(super) fn forget(&mut self, container_id: &str) {
        self.is_whole &= self.containers.remove(container_id).is_none();
    }

    /// Forgets those that exist no more.
    pub(super) fn keep_only(&mut self, exists: impl Fn(&str) -> bool) {
        let before = self.containers.len();
        self.containers.retain(|id, _| exists(id));
        self.is_whole &= before == self.containers.len();
    }

    /// What is to be written, if anything is.
    pub(super) fn unwritten(&mut self) -> Option<Unwritten> {
        let added = mem::take(&mut self.added);
        if self.is_whole {
            return (!added.is_empty()).then(|| Unwritten { directory: self.directory.clone(), lines: added, is_whole: false });
        }
        let lines = self.lines().ok()?;
        self.is_whole = true;
        Some(Unwritten { directory: self.directory.clone(), lines, is_whole: true })
    }

    fn lines(&self) -> serde_json::Result<String> {
        let mut lines = serde_json::to_string(&Head { version: VERSION, since: self.since, verifies: self.verifies })?;
        lines.push('\n');
        for (id, asked) in &self.containers {
            lines.push_str(&line_of(id, asked)?);
        }
        Ok(lines)
    }

    /// It was not written after all, or not all of it.
    pub(super) const fn not_written(&mut self) {
        self.is_whole = false;
    }
}

fn line_of(container_id: &str, asked: &Asked) -> serde_json::Result<String> {
    let mut line = serde_json::to_string(&Entry::of(container_id, asked))?;
    line.push('\n');
    Ok(line)
}

/// What is to be written where it holds up nobody.
#[derive(Debug)]
pub(super) struct Unwritten {
    directory: PathBuf,
    lines: String,
    /// The lines are all of the book, and not only what is to be added.
    is_whole: bool,
}

impl Unwritten {
    /// Writes it. A container that is made adds a line: to write the whole book each time would take longer the more containers
    /// there are, and cost containerd's disk a flush (ext4, `auto_da_alloc`).
    ///
    /// No `fsync`: containerd waits for the same disk at each create. After a power cut nothing runs that is in the book; one that is
    /// torn is noticed when it is read.
    pub(super) fn write(&self) -> io::Result<()> {
        if self.is_whole { self.replace() } else { self.append() }
    }

    /// To the file that is there: lines without the head before them are no book.
    fn append(&self) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.directory.join(FILE))?.write_all(self.lines.as_bytes())
    }

    /// Whole, or not at all, unless the power is cut.
    fn replace(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let unfinished = self.directory.join(UNFINISHED);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&unfinished)?;
        file.write_all(self.lines.as_bytes())?;
        fs::rename(&unfinished, self.directory.join(FILE))
    }
}

/// The head, and what came through. None if there is no book yet.
fn read(directory: &Path) -> io::Result<Option<(Head, HashMap<String, Asked>)>> {
    let file = match File::open(directory.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let malformed = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut lines = BufReader::new(file.take(MAX_FILE_BYTES)).lines();
    let head = lines.next().ok_or_else(|| malformed("it is empty"))??;
    let head: Head = serde_json::from_str(&head)?;
    if head.version != VERSION {
        return Err(malformed("it is of another version"));
    }
    let mut containers = HashMap::new();
    for line in lines.take(MAX_CONTAINERS) {
        let entry: Entry = serde_json::from_str(&line?)?;
        containers.insert(entry.id.clone(), Asked::from(entry));
    }
    Ok(Some((head, containers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(image: &str) -> Asked {
        let workload = Some(Workload { pod_uid: "u-1".to_owned(), container: "web".to_owned() });
        let (name, namespace) = (image.parse().ok(), Some("shop".to_owned()));
        let service = Service { namespace: "shop".to_owned(), kind: Kind::Deployment, name: "web".to_owned() };
        let revision = Some(Revision { service, id: "5d4f".to_owned() });
        let made_at = Some(MadeAt { seconds: 5, nanos: 6 });
        Asked { image: image.to_owned(), name, namespace, workload, was_let_pass: true, revision, made_at, ..Asked::default() }
    }

    #[test]
    fn what_came_through_is_known_after_a_restart_and_since_when() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("watch");
        let mut book = Book::open(&directory, 1000);
        book.add("a", &asked("r.test/a:1"));
        book.add("b", &asked(&"x".repeat(MAX_NAME_BYTES + 1)));
        book.add("gone", &asked("r.test/a:1"));
        book.keep_only(|id| id != "gone");
        book.unwritten().unwrap().write().unwrap();
        assert!(book.unwritten().is_none(), "nothing new");
        let again = Book::open(&directory, 2000);
        assert_eq!(again.since(), 1000);
        assert_eq!(again.asked_for("a"), Some(&asked("r.test/a:1")));
        assert_eq!(again.asked_for("b"), Some(&asked("")), "what is no name is not kept");
        assert_eq!(again.asked_for("gone"), None);
    }

    #[test]
    fn a_container_that_comes_through_adds_a_line_and_one_that_is_gone_has_all_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let mut book = Book::open(folder.path(), 1000);
        book.add("a", &asked("r.test/a:1"));
        book.unwritten().unwrap().write().unwrap();
        let one = fs::read_to_string(&file).unwrap();
        book.add("b", &asked("r.test/b:1"));
        book.add("b", &asked("r.test/b:1"));
        book.add("c", &asked("r.test/c:1"));
        book.unwritten().unwrap().write().unwrap();
        let three = fs::read_to_string(&file).unwrap();
        assert!(three.starts_with(&one), "{three}");
        assert_eq!(three.lines().count(), 4);
        assert!(book.unwritten().is_none());
        let again = Book::open(folder.path(), 2000);
        assert_eq!((again.since(), again.asked_for("b"), again.asked_for("c").is_some()), (1000, Some(&asked("r.test/b:1")), true));
        book.keep_only(|id| id == "c");
        book.unwritten().unwrap().write().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_could_not_be_added_is_written_with_all_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let mut book = Book::open(folder.path(), 1000);
        book.add("a", &asked("r.test/a:1"));
        book.unwritten().unwrap().write().unwrap();
        fs::remove_file(&file).unwrap();
        book.add("b", &asked("r.test/b:1"));
        let refused = book.unwritten().unwrap().write().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound, "lines without a head are no book");
        book.not_written();
        book.add("c", &asked("r.test/c:1"));
        book.unwritten().unwrap().write().unwrap();
        let again = Book::open(folder.path(), 2000);
        assert_eq!(again.since(), 1000);
        assert!(["a", "b", "c"].iter().all(|id| again.asked_for(id).is_some()));
    }

    #[test]
    fn the_names_of_volumes_are_known_after_a_restart_and_of_too_many_none_is() {
        let folder = tempfile::tempdir().unwrap();
        let with = |names: &[&str]| {
            let volume = |name: &&str| AskedVolume { path: "/v".to_owned(), given: (*name).to_owned(), name: name.parse().ok() };
            Asked { volumes: names.iter().map(volume).collect(), ..asked("r.test/a:1") }
        };
        let mut book = Book::open(folder.path(), 1000);
        book.add("two", &with(&["r.test/v:2", "r.test/v:1", "r.test/v:2", ""]));
        let many: Vec<String> = (0..=MAX_VOLUMES).map(|number| format!("r.test/v:{number}")).collect();
        book.add("many", &with(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        book.add(
            "long",
            &with(&["1", "2", "3", "4", "5"].map(|tag| format!("r.test/{}:{tag}", "v".repeat(220))).each_ref().map(|name| name.as_str())),
        );
        book.unwritten().unwrap().write().unwrap();
        let again = Book::open(folder.path(), 2000);
        let names = |id: &str| {
            let volumes = &again.asked_for(id).unwrap().volumes;
            volumes.iter().map(|volume| volume.name.as_ref().map(ToString::to_string)).collect::<Vec<_>>()
        };
        assert_eq!(names("two"), [None, Some("r.test/v:1".to_owned()), Some("r.test/v:2".to_owned())]);
        assert_eq!((names("many"), names("long")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_book_of_before_there_were_volumes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let head = r#"{"version":1,"since":1,"verifies":true}"#;
        let entry = r#"{"id":"a","image":"r.test/a:1","name":"r.test/a:1","namespace":"shop"}"#;
        fs::write(folder.path().join(FILE), format!("{head}\n{entry}\n")).unwrap();
        let book = Book::open(folder.path(), 5000);
        assert_eq!((book.since(), book.asked_for("a").unwrap().volumes.len()), (1, 0));
    }

    #[test]
    fn what_was_made_while_nothing_was_verified_is_older_than_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Book::open(folder.path(), 1000);
        book.gate_verifies(true, 1500);
        assert_eq!(book.since(), 1000);
        book.gate_verifies(false, 2000);
        book.unwritten().unwrap().write().unwrap();
        let mut again = Book::open(folder.path(), 3000);
        assert_eq!(again.since(), 1000);
        again.gate_verifies(true, 3000);
        assert_eq!(again.since(), 3000);
        assert!(again.unwritten().is_some());
    }

    #[test]
    fn a_book_that_cannot_be_read_begins_anew_so_that_nothing_that_is_there_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        for broken in [
            "",
            "{}\n",
            "{\"version\":1,\"since\":1,\"verifies\":true}\n{\"id\":\"torn",
            "{\"version\":2,\"since\":1,\"verifies\":true}\n",
            "{\"version\":1,\"since\":1,\"verifies\":true}\nnonsense\n",
        ] {
            fs::write(folder.path().join(FILE), broken).unwrap();
            let mut book = Book::open(folder.path(), 5000);
            assert_eq!(book.since(), 5000, "{broken:?}");
            assert!(book.unwritten().is_some());
        }
    }
}
