//! This node's own credentials, for whoever asks without one: a file in the form of docker's `config.json`, and the
//! helpers that it names.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::name::{Repository, shown};

use super::credential::Credential;
use super::docker_config::DockerConfig;
use super::helper::Helpers;
use super::limits::CREDENTIALS_FILE_BYTES;

/// The bits of a file's mode with which others than its owner reach it.
const OTHERS: u32 = 0o077;

/// Why this node's credential could not be had. The text is the same for the same cause, says what to do, and has nothing
/// of what the file or a helper holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeCredentialError {
    /// The file does not serve.
    #[error("the credentials file {file} {fault}")]
    File {
        /// Its path, escaped.
        file: String,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A helper does not serve.
    #[error("the credential helper {program}, which {file} names, {fault}")]
    Helper {
        /// The program's file name.
        program: String,
        /// The path of the file that names it, escaped.
        file: String,
        /// What is wrong with it.
        fault: HelperFault,
    },
}

/// What is wrong with a credentials file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// The system refused.
    #[error("cannot be read ({why}): put it there, or correct `credentials.file`")]
    Unreadable {
        /// What the system said.
        why: String,
    },
    /// A directory, a device or a pipe.
    #[error("is not a regular file: correct `credentials.file`")]
    NotAFile,
    /// Longer than such a file ever is.
    #[error("is longer than {limit} bytes: is it the file that was meant?")]
    TooLong {
        /// The most bytes that are read.
        limit: u64,
    },
    /// Not JSON, or cut.
    #[error("is not JSON, as line {line}, column {column} shows: write it anew")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
    /// JSON of another form.
    #[error("has at line {line}, column {column} what docker's config.json does not have there: correct it")]
    NotDocker {
        /// The line, from 1.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
    /// An entry without a user.
    #[error("has no user and password for `{key}` that can be read (`auth` is the base64 of user:password): log in there again")]
    Entry {
        /// The entry's key, escaped.
        key: String,
    },
    /// A helper that is no file name.
    #[error("names a credential helper `{name}`: a name has letters, digits, `.`, `_` and `-` only")]
    HelperName {
        /// The name, escaped.
        name: String,
    },
}

/// What is wrong with a credential helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperFault {
    /// No such program.
    #[error("is in no folder of countersign's PATH: install it there")]
    Absent,
    /// The system refused to run it.
    #[error("could not be started ({why}): name it, and what it runs, in ExecPaths= of countersign's unit")]
    NotStarted {
        /// What the system said.
        why: String,
    },
    /// The deadline passed. It was killed.
    #[error("did not answer within {seconds} s: see what it waits for")]
    TimedOut {
        /// The deadline.
        seconds: u64,
    },
    /// It wrote without an end. It was killed.
    #[error("answered more than {limit} bytes: see what it writes")]
    TooLong {
        /// The most bytes that are read.
        limit: u64,
    },
    /// It ended with a failure.
    #[error("failed ({status}): run it by hand, with `get` and the registry's host on its standard input, to see why")]
    Failed {
        /// How it ended.
        status: String,
    },
    /// Its answer cannot be used.
    #[error("gave an answer that {why}: run it by hand, with `get` and the registry's host on its standard input, to see it")]
    Answer {
        /// What is wrong with the answer.
        why: &'static str,
    },
    /// Its end was not seen.
    #[error("could not be heard to its end: see countersign's log")]
    Broken,
}

/// The credentials of this node. Shows nothing of them.
///
/// The file is looked at for each question, so that a new one counts at once, and read only when it has changed.
pub struct NodeCredentials {
    file: PathBuf,
    helpers: Helpers,
    last: Mutex<Option<(Stamp, Arc<DockerConfig>)>>,
}

/// What tells whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl NodeCredentials {
    /// Those of the file at `file`, which need not be there yet. Helpers are found with this process's PATH.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self::with_helpers(file, Helpers::of_this_process())
    }

    pub(super) fn with_helpers(file: PathBuf, helpers: Helpers) -> Self {
        Self { file, helpers, last: Mutex::default() }
    }

    /// The credential for pulls from a repository, and so for its trust server. `None` if this node has none.
    ///
    /// It reads a file and may run a helper: call it where that holds up nobody, within a tokio runtime.
    ///
    /// # Errors
    /// [`NodeCredentialError`]: the file or the helper that it names does not serve. Asking without a credential instead
    /// would end in a refusal that names the wrong cause.
    pub async fn of(self: &Arc<Self>, repository: &Repository) -> Result<Option<Credential>, NodeCredentialError> {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.read()).await;
        let read = read.unwrap_or_else(|_| Err(FileFault::Unreadable { why: "the reader panicked".to_owned() }));
        let config = read.map_err(|fault| self.file_error(fault))?;
        if let Some(helper) = config.helper(repository).map_err(|fault| self.file_error(fault))? {
            let answer = self.helpers.ask(&helper, repository.host()).await;
            let error = |fault| NodeCredentialError::Helper { program: helper.program(), file: self.shown_file(), fault };
            if let Some(credential) = answer.map_err(error)? {
                return Ok(Some(credential));
            }
        }
        config.credential(repository).map_err(|fault| self.file_error(fault))
    }

    fn file_error(&self, fault: FileFault) -> NodeCredentialError {
        NodeCredentialError::File { file: self.shown_file(), fault }
    }

    fn shown_file(&self) -> String {
        shown(&self.file.to_string_lossy())
    }

    fn read(&self) -> Result<Arc<DockerConfig>, FileFault> {
        let unreadable = |error: io::Error| FileFault::Unreadable { why: error.to_string() };
        // Asked before it is opened: opening a pipe waits for a writer.
        if !fs::metadata(&self.file).map_err(unreadable)?.is_file() {
            return Err(FileFault::NotAFile);
        }
        let file = File::open(&self.file).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let stamp = Stamp::of(&metadata);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = last.as_ref().filter(|(read, _)| *read == stamp) {
            return Ok(Arc::clone(config));
        }
        self.warn_of_others(&metadata);
        let mut content = Vec::new();
        file.take(CREDENTIALS_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
        if content.len() as u64 > CREDENTIALS_FILE_BYTES {
            return Err(FileFault::TooLong { limit: CREDENTIALS_FILE_BYTES });
        }
        let config = Arc::new(DockerConfig::parse(&content)?);
        *last = Some((stamp, Arc::clone(&config)));
        Ok(config)
    }

    fn warn_of_others(&self, metadata: &Metadata) {
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            let mode = format!("{mode:04o}");
            tracing::warn!(file = self.shown_file(), mode, "others than its owner can reach this node's credentials: chmod 0600");
        }
    }
}

impl fmt::Debug for NodeCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCredentials").field("file", &self.file).finish_non_exhaustive()
    }
}
