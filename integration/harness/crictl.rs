//! `crictl`, where this machine has it: Debian has no package of it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::{env, fs};

use tokio::process::Command;

use super::process::{run, text};

/// The tool, for one CRI socket.
#[derive(Debug, Clone)]
pub struct Crictl {
    program: PathBuf,
    endpoint: String,
}

impl Crictl {
    /// The tool for the CRI server at `socket`; none when PATH has no `crictl`.
    pub fn find(socket: &Path) -> Option<Self> {
        let path = env::var_os("PATH")?;
        let program = env::split_paths(&path)
            .map(|folder| folder.join("crictl"))
            .find(|file| fs::metadata(file).is_ok_and(|found| found.is_file()))?;
        Some(Self { program, endpoint: format!("unix://{}", text(socket)) })
    }

    /// Runs it with these arguments, whatever comes of it.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(["--runtime-endpoint", &self.endpoint, "--image-endpoint", &self.endpoint]).args(args);
        run(command).await
    }
}
