//! The configuration: a TOML file, read in two steps before any socket opens.
//!
//! First its shape, strictly: a key that is unknown, of the wrong type, or whose effect this version does not have is an
//! error and never ignored. Then its values, into types that cannot hold a configuration that is wrong. All problems of a
//! file are told at once, each with its line and column.

mod credentials;
mod duration;
mod fault;
mod file;
mod hosts;
mod observe;
mod people;
mod place;
mod registry;
mod rules;
mod sandbox;
mod shape;
mod socket;
mod store;
mod text_file;
mod trust;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_trust::Policy;
use countersign_trust::name::{ImageReference, ManifestDigest, RegistryHost, Sha256, shown};
use duration::Allowed;
use toml::de::DeTable;
use trust::Beside;

pub(crate) use duration::read as read_length;
pub use fault::{ConfigErrors, Fault, Located, MAX_TOLD, Problem, Remark, Warning};
pub(crate) use fault::{did_you_mean, locate, tell};
use file::ConfigFile;
pub use hosts::HostsFault;
use hosts::HostsFolders;
pub use observe::{Audit, MetricsListen};
pub use people::SignerCertificate;
use place::Place;
pub use place::Position;
pub(crate) use place::{Source, name_of};
pub use registry::read_ca_bundle;
pub(crate) use registry::read_host;
use shape::Notes;
pub(crate) use shape::{At, nearest, with_article};
pub use store::{Etcd, Store, StoreBackend, WhenUnreachable};
pub use text_file::TextFileError;
pub(crate) use text_file::read as read_text_file;

/// No configuration is longer. Ten thousand pins take less than this, and what was meant to be another file is noticed.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// A timestamp lives for 14 days by default, so that several tries fit into the last quarter of its life.
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(3600);
/// Every node asks: less would be a load on the server, more would let a revocation wait for too long.
const REFRESH_INTERVAL: Allowed =
    Allowed { key: "refresh.interval", least: Duration::from_secs(10), most: Duration::from_secs(86_400), example: "1h" };

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The socket for kubelet.
    pub cri: PathBuf,
    /// The socket for the operator.
    pub admin: PathBuf,
}

/// The containerd that stands behind the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its socket.
    pub address: PathBuf,
    /// What its sandboxes may run.
    pub sandbox: SandboxImage,
}

/// The image of every pod's sandbox ("pause"), which containerd chooses and no pod names. It has a rule of its own, which
/// is about nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxImage {
    /// Its name in containerd's own configuration; none: containerd is asked, which tells it up to 1.7.
    pub name: Option<ImageReference>,
    /// The digests that it may have, of an index or a manifest, the preferred first. Empty: its signatures decide.
    pub digests: Vec<ManifestDigest>,
}

/// What is done about what came past the gate (`watch.on-bypass`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBypass {
    /// It is reported.
    #[default]
    Report,
    /// It is reported, and its task is stopped if it has no valid evidence.
    Stop,
}

/// Whether trust data that has expired serves while its server cannot be reached (`allow-expired-cached-trust-data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiredTrustData {
    /// It never does.
    Refused,
    /// It does for so long after it was last found good.
    AllowedFor(Duration),
}

/// A registry that images may come from, and where the signatures of its images are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// The host as it stands in image names; `docker.io` for Docker Hub.
    pub host: RegistryHost,
    /// The base URL of its notary server: `https`, without user name, query and fragment, and without a slash at the end of
    /// a path. (A URL without any path ends in `/` when it is printed.)
    pub notary_server: url::Url,
    /// PEM text with at least one certificate, for this registry and its notary server only: what the file gives, else what
    /// containerd trusts for the registry, if its notary server is on the same host.
    pub ca_bundle: Option<String>,
}

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the daemon listens.
    pub listen: Listen,
    /// The containerd behind the gate.
    pub containerd: Containerd,
    /// Where the daemon keeps what it knows.
    pub state_directory: PathBuf,
    /// This node's own credentials, in the form of docker's `config.json`. It need not be there yet.
    pub credentials_file: Option<PathBuf>,
    /// How often held trust data is brought up to date.
    pub refresh_interval: Duration,
    /// What is done about what came past the gate.
    pub on_bypass: OnBypass,
    /// Where decisions are written down.
    pub audit: Audit,
    /// Where figures are asked for; none: nowhere.
    pub metrics: Option<MetricsListen>,
    /// Where nodes share what they have found.
    pub store: Store,
    /// What is demanded of images.
    pub policy: Policy,
    /// Whether expired trust data serves.
    pub expired_trust_data: ExpiredTrustData,
    /// For how long services that ran before their images were enforced go on by themselves. None: not at all.
    pub grandfather_for: Option<Duration>,
    /// For how long a service keeps a digest that its tag is not signed as any more, from when it was seen as current.
    pub superseded_max_age: Duration,
    /// The certificates of signers that were read from files.
    pub signer_certificates: Vec<SignerCertificate>,
    /// The registered registries, each host once, in the order of the file.
    pub registries: Vec<Registry>,
    /// The hash of the file's text and of every file that it names, for its policy: the name of the policy under which a
    /// decision was made.
    pub digest: Sha256,
    /// The same without the name of this node: nodes of a cluster that are configured alike have it in common.
    pub shared_digest: Sha256,
    path: PathBuf,
    text: String,
    policy_files: BTreeMap<PathBuf, String>,
    warnings: Vec<Warning>,
}

impl Config {
    /// Reads and checks the configuration file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&read(path)?, path)
    }

    /// Reads the configuration file at `path` for a command that shows what could be pinned: as [`Config::load`], but it is no
    /// fault that nothing is pinned yet. Such a configuration trusts nothing.
    ///
    /// # Errors
    /// As [`Config::load`], with every other fault.
    pub fn load_unpinned(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_with(&read(path)?, &Place::of(path), path, |fault| !matches!(fault, Fault::NothingPinned))
    }

    /// Checks the configuration `text`. `path` stands in messages, and files that are named with a relative path are
    /// looked for beside it.
    ///
    /// # Errors
    /// Everything that is wrong with the text or with the files that it names.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, &Place::of(path), path, |_| true)
    }

    /// Checks the configuration `text` of an earlier day, with the files that it named then ([`Config::policy_files`]). For its
    /// policy: authorities of servers are not kept.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_kept(text: &str, path: &Path, files: BTreeMap<PathBuf, String>) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, &Place::of_kept(path, files), path, |_| true)
    }

    /// Only what `counts` is a fault.
    fn parse_with(text: &str, place: &Place, path: &Path, counts: impl Fn(&Fault) -> bool) -> Result<Self, ConfigErrors> {
        let source = Source::new(path, text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(ConfigErrors::new(&source, faults_of_syntax(&source, &errors)));
        }
        let mut notes = Notes::default();
        let file = ConfigFile::read(document.get_ref(), &mut notes);
        let checked = check(&file, place, text, &mut notes);
        let (mut faults, remarks) = notes.finish();
        faults.retain(|fault| counts(&fault.value));
        match checked {
            Some(config) if faults.is_empty() => {
                Ok(Self { path: path.to_owned(), warnings: fault::locate(&source, remarks, MAX_TOLD), ..config })
            }
            Some(_) | None => Err(ConfigErrors::new(&source, faults)),
        }
    }

    /// Where the file at `path`, however bad it is, says that the state is; the default where it says nothing.
    #[must_use]
    pub fn state_directory_of(path: &Path) -> PathBuf {
        let text = read(path).unwrap_or_default();
        let (document, _) = DeTable::parse_recoverable(&text);
        let mut notes = Notes::default();
        let file = ConfigFile::read(document.get_ref(), &mut notes);
        let written = socket::state_directory(file.state_directory.as_ref(), &Place::of(path), &mut notes);
        written.unwrap_or_else(|| PathBuf::from(socket::STATE_DIRECTORY))
    }

    /// What the file says that is allowed and was probably not meant, at most [`MAX_TOLD`] of it. Whoever loads a
    /// configuration tells the operator.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The text that was read, for keeping the last good configuration.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that was read for the policy, by its path: what is needed beside the text to have the same policy again.
    #[must_use]
    pub const fn policy_files(&self) -> &BTreeMap<PathBuf, String> {
        &self.policy_files
    }

    /// The registration of `host`; none means that no image of this registry is trusted.
    #[must_use]
    pub fn registry(&self, host: &RegistryHost) -> Option<&Registry> {
        self.registries.iter().find(|registry| registry.host == *host)
    }
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    text_file::read(path, MAX_CONFIG_BYTES).map_err(|why| ConfigErrors::unreadable(path, why))
}

fn faults_of_syntax(source: &Source<'_>, errors: &[toml::de::Error]) -> Vec<At<Fault>> {
    if source.text().trim_start().starts_with('{') {
        return vec![At { value: Fault::Json, at: source.text().find('{').unwrap_or_default() }];
    }
    syntax_errors(source, errors).map(|error| At { value: Fault::Syntax(error.value), at: error.at }).collect()
}

/// Syntax errors, one for each line: what follows the first on a line is mostly its consequence.
pub(crate) fn syntax_errors(source: &Source<'_>, errors: &[toml::de::Error]) -> impl Iterator<Item = At<String>> {
    let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let mut told = BTreeSet::new();
    let first_of_line = errors.iter().filter(move |error| told.insert(source.line(at(error))));
    first_of_line.map(move |error| At { value: shown(error.message()), at: at(error) })
}

/// The second step: values. None if something essential is missing, which was noted then.
fn check(file: &ConfigFile, place: &Place, text: &str, notes: &mut Notes) -> Option<Config> {
    let sockets = socket::check(&file.sockets, place, notes);
    let sandbox = sandbox::check(&file.sandbox, notes);
    let state_directory = socket::state_directory(file.state_directory.as_ref(), place, notes);
    let credentials_file = credentials::check(file.credentials_file.as_ref(), place, notes);
    let hosts = HostsFolders::check(file.registry_config.as_ref(), place, notes);
    let registries = registry::check(&file.registries, &hosts, place, notes);
    let refresh_interval = duration::check(file.refresh_interval.as_ref(), REFRESH_INTERVAL, DEFAULT_REFRESH_INTERVAL, notes);
    let on_bypass = watch::check(file.on_bypass.as_ref(), notes);
    let audit = observe::audit(&file.audit, state_directory.as_deref(), place, notes);
    let taken = sockets.as_ref().map(|(listen, containerd)| [&*listen.cri, &*listen.admin, &**containerd]);
    let metrics = observe::metrics(file.metrics_listen.as_ref(), taken.as_ref().map_or(&[], |taken| taken), place, notes);
    let store = store::check(&file.store, place, notes);
    let people::Checked { people, certificates, contents } = people::check(&file.signers, &file.teams, place, notes);
    let beside = Beside { people, rules: &file.rules, registries: &registries, place };
    let trust = trust::check(&file.content_trust, beside, notes);
    let grandfather_for = trust::grandfather_for(&file.content_trust, notes);
    let superseded_max_age = trust::superseded_max_age(&file.content_trust, notes);
    let (listen, address) = sockets?;
    let containerd = Containerd { address, sandbox: sandbox? };
    let (policy, expired_trust_data, official_keys) = trust?;
    Some(Config {
        listen,
        containerd,
        state_directory: state_directory?,
        credentials_file,
        refresh_interval: refresh_interval?,
        on_bypass,
        audit: audit?,
        metrics,
        store: store?,
        policy,
        expired_trust_data,
        grandfather_for: grandfather_for?,
        superseded_max_age: superseded_max_age?,
        signer_certificates: certificates,
        registries,
        digest: digest(text, contents.iter().chain(&official_keys)),
        shared_digest: digest(&without(text, file.store.node_at.clone()), contents.iter().chain(&official_keys)),
        path: PathBuf::new(),
        text: text.to_owned(),
        policy_files: place.policy_files(),
        warnings: Vec::new(),
    })
}

/// A text without a part of it.
fn without(text: &str, part: Option<Range<usize>>) -> String {
    let Some(Range { start, end }) = part else { return text.to_owned() };
    [text.get(..start), text.get(end..)].into_iter().flatten().collect()
}

/// The hash of the text alone where it names no other files.
fn digest<'a>(text: &str, files: impl Iterator<Item = &'a String>) -> Sha256 {
    files.fold(Sha256::of(text.as_bytes()), |digest, file| {
        Sha256::of(&[*digest.as_bytes(), *Sha256::of(file.as_bytes()).as_bytes()].concat())
    })
}

#[cfg(test)]
mod tests;
