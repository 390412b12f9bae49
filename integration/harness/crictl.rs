//! `crictl`, where this machine has it: Debian has no package of it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::{env, fs};

use tokio::process::Command;

use super::process::{lossy, run, text};

/// How long it may take to connect; its own 2 s are short for a busy machine.
const CONNECTS_WITHIN: &str = "20s";

/// The tool, for one CRI socket.
#[derive(Debug, Clone)]
pub struct Crictl {
    program: PathBuf,
    endpoint: String,
}

impl Crictl {
    /// Where it is; none when PATH has no `crictl`.
    pub fn find() -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        let program = |folder: PathBuf| folder.join("crictl");
        env::split_paths(&path).map(program).find(|file| fs::metadata(file).is_ok_and(|found| found.is_file()))
    }

    /// The tool for the CRI server at `socket`.
    pub fn new(program: PathBuf, socket: &Path) -> Self {
        Self { program, endpoint: format!("unix://{}", text(socket)) }
    }

    /// Runs it with these arguments, whatever comes of it. The machine's `/etc/crictl.yaml` does not count.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(["--config", "/dev/null", "--timeout", CONNECTS_WITHIN]);
        command.args(["--runtime-endpoint", &self.endpoint, "--image-endpoint", &self.endpoint]).args(args);
        run(command).await
    }

    /// Runs it with arguments that have to work. Returns what it printed.
    #[track_caller]
    pub fn well<'a>(&'a self, args: &'a [&'a str]) -> impl Future<Output = String> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let output = self.run(args).await;
            let complaint = lossy(&output.stderr);
            assert!(output.status.success(), "{at}: crictl {} failed ({}): {complaint}", args.join(" "), output.status);
            lossy(&output.stdout)
        }
    }

    /// Runs it with arguments that have to fail. Returns what it complained.
    #[track_caller]
    pub fn badly<'a>(&'a self, args: &'a [&'a str]) -> impl Future<Output = String> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let output = self.run(args).await;
            assert!(!output.status.success(), "{at}: crictl {} worked: {}", args.join(" "), lossy(&output.stdout));
            lossy(&output.stderr)
        }
    }
}
