//! Docker's credential helpers: programs that keep logins, asked one question each.
//!
//! `docker-credential-NAME get` reads a server address from its standard input and answers with JSON on its standard
//! output. It is one of the node's own programs and runs as we do; what it does wrong must still not hold up, fill or
//! talk through the daemon. So it gets no shell, no environment but PATH and HOME, and a deadline; what it writes is
//! counted, its standard error is thrown away, and nothing that it says is shown or logged.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use countersign_trust::name::RegistryHost;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::credential::Credential;
use super::docker_config::{HelperName, is_address_of, server_address};
use super::limits::{HELPER_ANSWER_BYTES, HELPER_DEADLINE, HELPERS_AT_ONCE};
use super::node_credentials::HelperFault;

/// What a helper says, and ends with a failure, when it keeps nothing for a server.
const NOT_FOUND: &[u8] = b"credentials not found in native keychain";
/// The user name with which a helper says that its secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// The variables that a helper is given, where this process has them.
const KEPT_VARIABLES: [&str; 2] = ["PATH", "HOME"];

/// Where helpers are found and how they are run.
pub(super) struct Helpers {
    environment: Vec<(&'static str, OsString)>,
    deadline: Duration,
    turns: Semaphore,
}

impl Helpers {
    /// With this process's own PATH and HOME.
    pub(super) fn of_this_process() -> Self {
        let environment = KEPT_VARIABLES.into_iter().filter_map(|name| Some((name, env::var_os(name)?))).collect();
        Self::with(environment, HELPER_DEADLINE)
    }

    pub(super) fn with(environment: Vec<(&'static str, OsString)>, deadline: Duration) -> Self {
        Self { environment, deadline, turns: Semaphore::new(HELPERS_AT_ONCE) }
    }

    /// Asks a helper for the credential of a registry. `None` if it keeps none.
    ///
    /// The deadline holds for waiting for a turn, too: what many helpers that hang cost a caller is one deadline.
    pub(super) async fn ask(&self, name: &HelperName, host: &RegistryHost) -> Result<Option<Credential>, HelperFault> {
        let answer = tokio::time::timeout(self.deadline, self.answer(name, host)).await;
        answer.unwrap_or(Err(HelperFault::TimedOut { seconds: self.deadline.as_secs() }))
    }

    async fn answer(&self, name: &HelperName, host: &RegistryHost) -> Result<Option<Credential>, HelperFault> {
        let _turn = self.turns.acquire().await.map_err(broken)?;
        let program = self.find(&name.program()).ok_or(HelperFault::Absent)?;
        let (status, said) = Running::start(&program, &self.environment)?.said(server_address(host)).await?;
        read_answer(status, &said, host)
    }

    /// The program, looked for as a shell would; relative folders of PATH are passed over.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.environment.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path)?;
        let candidates = env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(program));
        candidates.into_iter().find(|candidate| is_program(candidate))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A helper that runs, at the head of a process group of its own. Dropped before it has ended, it is killed with all that
/// it has started.
struct Running(Child);

impl Running {
    fn start(program: &Path, environment: &[(&'static str, OsString)]) -> Result<Self, HelperFault> {
        let mut command = Command::new(program);
        command.arg("get").current_dir("/").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
        command.spawn().map(Self).map_err(|error| HelperFault::NotStarted { why: error.to_string() })
    }

    /// How it ended and what it wrote.
    async fn said(mut self, question: &str) -> Result<(ExitStatus, Vec<u8>), HelperFault> {
        if let Some(mut stdin) = self.0.stdin.take() {
            // It need not read the question to answer it.
            let _ = stdin.write_all(question.as_bytes()).await;
        }
        let mut said = Vec::new();
        let stdout = self.0.stdout.take().ok_or_else(|| broken("it has no standard output"))?;
        stdout.take(HELPER_ANSWER_BYTES + 1).read_to_end(&mut said).await.map_err(broken)?;
        if said.len() as u64 > HELPER_ANSWER_BYTES {
            return Err(HelperFault::TooLong { limit: HELPER_ANSWER_BYTES });
        }
        let status = self.0.wait().await.map_err(broken)?;
        Ok((status, said))
    }
}

fn broken(error: impl Display) -> HelperFault {
    tracing::warn!(%error, "a credential helper could not be heard to its end");
    HelperFault::Broken
}

impl Drop for Running {
    fn drop(&mut self) {
        // None once it has been waited for: the number may be another's by then, and what it left running is meant to run.
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended by itself just now.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// A helper's answer. The fields are named as docker's helpers name them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

fn read_answer(status: ExitStatus, said: &[u8], host: &RegistryHost) -> Result<Option<Credential>, HelperFault> {
    if !status.success() {
        let is_not_found = said.trim_ascii() == NOT_FOUND;
        return if is_not_found { Ok(None) } else { Err(HelperFault::Failed { status: status.to_string() }) };
    }
    let refused = |why| HelperFault::Answer { why };
    let answer: Answer = serde_json::from_slice(said).map_err(|_| refused("is not the JSON of a credential"))?;
    if !answer.server.is_empty() && !is_address_of(&answer.server, host) {
        return Err(refused("is for another server"));
    }
    match (answer.username.as_str(), answer.secret.as_str()) {
        ("", "") => Ok(None),
        ("", _) => Err(refused("has no user")),
        (_, "") => Err(refused("has no secret")),
        (TOKEN_USER, _) => Ok(Some(Credential::identity_token(answer.secret))),
        (_, _) => Ok(Some(Credential::password(answer.username, answer.secret))),
    }
}
