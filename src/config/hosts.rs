//! containerd's own configuration of registries (`certs.d`), as far as it says which authorities vouch for a registry.
//!
//! Only what containerd trusts for the very host counts, never what it trusts for a mirror of it or for all hosts. What
//! else stands there is containerd's affair: it pulls, and a digest that was verified is the same wherever it comes from.

use std::io;
use std::path::{Path, PathBuf};

use countersign_trust::name::{RegistryHost, shown};
use toml::de::{DeTable, DeValue};
use url::Url;

use super::fault::{Fault, Located, Remark};
use super::place::{Place, Source, name_of};
use super::registry::{MAX_CA_BUNDLE_BYTES, refuse_bad_pem};
use super::shape::{At, Notes};
use super::socket::is_path;
use super::text_file::{self, TextFileError};

/// Where containerd's packages and most installers put it (`config_path`).
const REGISTRY_CONFIG: &str = "/etc/containerd/certs.d";
/// The folder that containerd takes where a host has none. What is trusted for every host is trusted for none here.
const FOLDER_OF_ALL: &str = "_default";
/// Dozens of mirrors take a few KiB.
const MAX_HOSTS_BYTES: u64 = 256 * 1024;
/// Files of authorities for one host, each read at every start.
const MAX_AUTHORITY_FILES: usize = 64;
/// Entries of a host's folder that are looked at: a folder of certificates, and no other that was meant.
const MAX_ENTRIES: usize = 1024;

/// What is wrong with containerd's configuration of one registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message beside each variant says what it is")]
pub enum HostsFault {
    #[error(transparent)]
    File(TextFileError),
    #[error("{0}")]
    Syntax(String),
    #[error("`{key}` must be {expected}")]
    WrongType { key: String, expected: &'static str },
    #[error("the authority `{path}`")]
    Authority { path: String, source: TextFileError },
    #[error("the authority `{path}` is not PEM text with at least one certificate")]
    AuthorityNotPem { path: String },
    #[error("more than {limit} files of authorities for one host")]
    TooManyAuthorities { limit: usize },
    #[error("more than {limit} bytes of authorities for one host")]
    AuthoritiesTooLong { limit: u64 },
    #[error("more than {limit} files in the folder of one host")]
    TooManyEntries { limit: usize },
}

type Result<T> = std::result::Result<T, Located<HostsFault>>;

/// The folders that containerd's `config_path` names.
#[derive(Debug)]
pub(super) struct HostsFolders(Vec<PathBuf>);

impl HostsFolders {
    /// Folders with `:` between them, as containerd has them.
    pub(super) fn check(written: Option<&At<String>>, place: &Place, notes: &mut Notes) -> Self {
        if place.is_of_earlier() {
            return Self(Vec::new());
        }
        let Some(written) = written else { return Self(vec![PathBuf::from(REGISTRY_CONFIG)]) };
        if !is_path(&written.value) {
            let (key, value) = ("containerd.registry-config", shown(&written.value));
            notes.fault(written.at, Fault::NotAPath { key, value, example: REGISTRY_CONFIG });
            return Self(Vec::new());
        }
        Self(written.value.split(':').filter(|folder| !folder.is_empty()).map(|folder| place.resolve(folder)).collect())
    }

    /// The PEM text of the authorities that containerd trusts for `host` itself, if there are any. `at` is the place where
    /// the registry is registered, for what there is to tell.
    pub(super) fn authorities(&self, host: &RegistryHost, at: usize, notes: &mut Notes) -> Option<String> {
        let mut told = Vec::new();
        let found = self.folder_of(host).and_then(|folder| folder.map(|folder| Folder(folder).authorities(host, &mut told)).transpose());
        told.into_iter().for_each(|place| notes.remark(at, Remark::SkipVerify { place }));
        match found {
            Ok(pem) => pem.filter(|pem| !pem.is_empty()),
            Err(fault) => {
                notes.fault(at, Fault::Hosts(Box::new(fault)));
                None
            }
        }
    }

    /// The folder in which containerd looks for `host`: the first that is there.
    fn folder_of(&self, host: &RegistryHost) -> Result<Option<PathBuf>> {
        for root in &self.0 {
            for name in [folder_name(host.as_str()).as_str(), host.as_str()] {
                let folder = root.join(name);
                if is_there(&folder)? {
                    return Ok(Some(folder));
                }
            }
            if is_there(&root.join(FOLDER_OF_ALL))? {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

/// `registry.test:5000` as containerd also spells it in a file name: `registry.test_5000_`.
fn folder_name(host: &str) -> String {
    host.rsplit_once(':').map_or_else(|| host.to_owned(), |(name, port)| format!("{name}_{port}_"))
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| fault_of(path, HostsFault::File(TextFileError::Io(error))))
}

fn fault_of(path: &Path, what: HostsFault) -> Located<HostsFault> {
    Located { file: name_of(path), position: None, what }
}

/// One host's folder.
struct Folder(PathBuf);

impl Folder {
    /// What `hosts.toml` names or, without one, every `.crt`: as containerd reads it. Places that switch verification off are
    /// added to `told`.
    fn authorities(&self, host: &RegistryHost, told: &mut Vec<String>) -> Result<String> {
        let file = self.0.join("hosts.toml");
        let text = match text_file::read(&file, MAX_HOSTS_BYTES) {
            Err(TextFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| fault_of(&file, HostsFault::File(error)))?,
        };
        let files = if text.is_empty() { self.certificate_files()? } else { HostsFile::new(&file, &text).authorities(host, told)? };
        self.read_all(&files)
    }

    /// The files that end in `.crt`, in the order of their names.
    fn certificate_files(&self) -> Result<Vec<PathBuf>> {
        let unreadable = |error| fault_of(&self.0, HostsFault::File(TextFileError::Io(error)));
        let mut files = Vec::new();
        for (number, entry) in self.0.read_dir().map_err(unreadable)?.enumerate() {
            if number == MAX_ENTRIES {
                return Err(fault_of(&self.0, HostsFault::TooManyEntries { limit: MAX_ENTRIES }));
            }
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "crt") && !path.is_dir() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn read_all(&self, files: &[PathBuf]) -> Result<String> {
        if files.len() > MAX_AUTHORITY_FILES {
            return Err(fault_of(&self.0, HostsFault::TooManyAuthorities { limit: MAX_AUTHORITY_FILES }));
        }
        let mut all = String::new();
        for file in files {
            let path = self.0.join(file);
            let pem = text_file::read(&path, MAX_CA_BUNDLE_BYTES);
            let pem = pem.map_err(|source| fault_of(&self.0, HostsFault::Authority { path: name_of(&path), source }))?;
            refuse_bad_pem("ca", &pem).map_err(|_| fault_of(&self.0, HostsFault::AuthorityNotPem { path: name_of(&path) }))?;
            all.push_str(&pem);
            // The file may end within its last line.
            all.push('\n');
            if all.len() as u64 > MAX_CA_BUNDLE_BYTES {
                return Err(fault_of(&self.0, HostsFault::AuthoritiesTooLong { limit: MAX_CA_BUNDLE_BYTES }));
            }
        }
        Ok(all)
    }
}

/// A `hosts.toml` and its text.
struct HostsFile<'t> {
    path: &'t Path,
    source: Source<'t>,
}

impl<'t> HostsFile<'t> {
    fn new(path: &'t Path, text: &'t str) -> Self {
        Self { path, source: Source::new(path, text) }
    }

    fn fault(&self, at: usize, what: HostsFault) -> Located<HostsFault> {
        Located { file: name_of(self.path), position: Some(self.source.position(at)), what }
    }

    /// The files named by `ca` for the registry's own host: beside `server`, unless that is another, and below `[host]`.
    fn authorities(&self, host: &RegistryHost, told: &mut Vec<String>) -> Result<Vec<PathBuf>> {
        let (document, errors) = DeTable::parse_recoverable(self.source.text());
        if let Some(error) = errors.first() {
            let at = error.span().map_or(0, |span| span.start);
            return Err(self.fault(at, HostsFault::Syntax(shown(error.message()))));
        }
        let top = document.get_ref();
        let server = self.typed(top, "server", "a string", DeValue::as_str)?.filter(|server| !server.is_empty());
        let hosts = self.typed(top, "host", "a table", DeValue::as_table)?;
        let mut files = Vec::new();
        if server.is_none_or(|server| is_server_of(server, host)) {
            self.add(top, &mut files, told)?;
        }
        for (name, section) in hosts.into_iter().flatten().filter(|(name, _)| is_server_of(name.get_ref(), host)) {
            let wrong = || self.wrong_type(&format!("host.\"{}\"", shown(name.get_ref())), section, "a table");
            self.add(section.get_ref().as_table().ok_or_else(wrong)?, &mut files, told)?;
        }
        Ok(files)
    }

    /// Adds what one section says of the registry's own host.
    fn add(&self, section: &DeTable<'_>, files: &mut Vec<PathBuf>, told: &mut Vec<String>) -> Result<()> {
        if let Some(key) = section.iter().find(|(key, value)| key.get_ref() == "skip_verify" && value.get_ref().as_bool() == Some(true)) {
            told.push(format!("{}:{}", name_of(self.path), self.source.position(key.0.span().start)));
        }
        let Some(ca) = section.get("ca") else { return Ok(()) };
        let wrong = || self.wrong_type("ca", ca, "a string or a list of strings");
        match ca.get_ref() {
            DeValue::String(file) => files.push(PathBuf::from(file.as_ref())),
            DeValue::Array(list) => {
                for file in list {
                    files.push(PathBuf::from(file.get_ref().as_str().ok_or_else(wrong)?));
                }
            }
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => return Err(wrong()),
        }
        Ok(())
    }

    fn typed<'d, T>(
        &self,
        table: &'d DeTable<'d>,
        key: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'d DeValue<'d>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = table.get(key) else { return Ok(None) };
        read(value.get_ref()).map(Some).ok_or_else(|| self.wrong_type(key, value, expected))
    }

    fn wrong_type(&self, key: &str, value: &toml::Spanned<DeValue<'_>>, expected: &'static str) -> Located<HostsFault> {
        self.fault(value.span().start, HostsFault::WrongType { key: key.to_owned(), expected })
    }
}

/// Whether a server of `hosts.toml` is the registry itself, asked with TLS; containerd adds a missing scheme.
fn is_server_of(written: &str, host: &RegistryHost) -> bool {
    let written = if written.starts_with("http") { written.to_owned() } else { format!("https://{written}") };
    let (Ok(written), Ok(own)) = (Url::parse(&written), Url::parse(&format!("https://{host}"))) else { return false };
    written.scheme() == own.scheme() && written.host() == own.host() && written.port_or_known_default() == own.port_or_known_default()
}

#[cfg(test)]
mod tests;
