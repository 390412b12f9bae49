//! Is this node closed? Live facts of the processes, sockets and containers that there are: what a configuration file says was
//! perhaps never read.

mod fit;
mod kubelet;
mod mounts;
mod process;
mod runtime;
mod socket;
mod unix;

use std::path::{Path, PathBuf};

use crate::admin::v1;
use crate::config::Config;
use crate::containerd::Containerd;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// It should be looked at, or could not be.
    Warn,
    /// A door is open: an image can run that nobody has judged.
    Open,
}

impl State {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Open => "OPEN",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in one or two words.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// In one sentence. Text of others is escaped.
    pub says: String,
    /// What mends it: a command, or what to change. Empty: nothing is to be mended.
    pub mend: String,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, state: State::Ok, says: says.into(), mend: String::new() }
    }

    fn warn(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, state: State::Warn, says: says.into(), mend: mend.into() }
    }

    fn open(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, state: State::Open, says: says.into(), mend: mend.into() }
    }
}

/// Whether a door is open.
#[must_use]
pub fn is_open(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Open)
}

/// What is looked at, and where.
#[derive(Debug)]
pub struct Node<'a> {
    /// The configuration of countersign.
    pub config: &'a Config,
    /// What the running daemon says of itself. None: it does not answer.
    pub daemon: Option<&'a v1::StatusResponse>,
    /// Where processes are listed: `/proc`.
    pub processes: PathBuf,
}

/// Looks at everything. Nothing is changed.
pub async fn examine(node: &Node<'_>) -> Vec<Finding> {
    let containerd = Containerd::new(&node.config.containerd.address);
    let processes = process::all(&node.processes);
    let sockets = unix::look();
    let mut findings = fit::of_daemon(node);
    findings.extend(kubelet::examine(node, &processes, sockets.as_ref()));
    findings.extend(socket::examine(node, &processes, sockets.as_ref()));
    findings.extend(mounts::examine(&node.config.containerd.address, &containerd).await);
    findings.extend(runtime::examine(node, &containerd, &processes).await);
    findings.extend(fit::of_node(node, &processes));
    findings
}

/// A path as it stands in a sentence.
fn path_text(path: &Path) -> String {
    countersign_trust::name::shown(&path.to_string_lossy())
}

/// Whether two paths lead to one file, also on different ways (`/var/run` and `/run`).
fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || canonical(one) == canonical(other)
}
