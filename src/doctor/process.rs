//! The processes of this node, as `/proc` shows them.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Bytes of a process's arguments that are read: Linux's own limit is higher, kubelet's are some KiB.
const MAX_ARGUMENTS_BYTES: u64 = 256 * 1024;

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The name of its program, cut by Linux to 15 bytes.
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    directory: PathBuf,
}

/// Every process that can be seen.
pub(super) fn all(processes: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir(processes) else { return Vec::new() };
    entries.flatten().filter_map(|entry| read(entry.path())).collect()
}

fn read(directory: PathBuf) -> Option<Process> {
    let pid = directory.file_name()?.to_str()?.parse().ok()?;
    let name = fs::read_to_string(directory.join("comm")).ok()?.trim_end().to_owned();
    let mut arguments = Vec::new();
    fs::File::open(directory.join("cmdline")).ok()?.take(MAX_ARGUMENTS_BYTES).read_to_end(&mut arguments).ok()?;
    let arguments = arguments.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned());
    Some(Process { pid, name, arguments: arguments.filter(|argument| !argument.is_empty()).collect(), directory })
}

impl Process {
    /// The value of a flag, as `--flag=value` or `--flag value`. The last one counts, as in Go.
    pub(super) fn flag(&self, name: &str) -> Option<String> {
        let mut found = None;
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
            match flag.split_once('=') {
                Some((flag, value)) if flag == name => found = Some(value.to_owned()),
                None if flag == name => found = arguments.next().cloned(),
                Some(_) | None => {}
            }
        }
        found
    }

    /// The inodes of its sockets. Empty if they cannot be seen.
    pub(super) fn sockets(&self) -> HashSet<u64> {
        let Ok(entries) = fs::read_dir(self.directory.join("fd")) else { return HashSet::new() };
        let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
    }

    /// A file as the process sees it, which may have another root.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        let base = if path.starts_with('/') { "root" } else { "cwd" };
        self.directory.join(base).join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A process of a made-up node.
    pub(in crate::doctor) fn made_up(processes: &Path, pid: u32, name: &str, arguments: &[&str]) -> Process {
        let directory = processes.join(pid.to_string());
        fs::create_dir_all(directory.join("fd")).unwrap();
        fs::write(directory.join("comm"), format!("{name}\n")).unwrap();
        fs::write(directory.join("cmdline"), arguments.join("\0")).unwrap();
        read(directory).unwrap()
    }

    #[test]
    fn flags_are_read_in_both_forms_and_the_last_counts() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["/usr/bin/kubelet", "--config=/a.yaml", "--v", "2", "-config", "/b.yaml", "--other"];
        let process = made_up(folder.path(), 7, "kubelet", &arguments);
        assert_eq!(process.flag("config").as_deref(), Some("/b.yaml"));
        assert_eq!(process.flag("v").as_deref(), Some("2"));
        assert_eq!(process.flag("other"), None);
        assert_eq!(process.flag("absent"), None);
        assert_eq!((process.pid, process.name.as_str()), (7, "kubelet"));
    }

    #[test]
    fn what_is_no_process_is_passed_over_and_sockets_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let process = made_up(folder.path(), 7, "kubelet", &["kubelet"]);
        fs::write(folder.path().join("uptime"), "1").unwrap();
        std::os::unix::fs::symlink("socket:[123]", folder.path().join("7/fd/3")).unwrap();
        std::os::unix::fs::symlink("/dev/null", folder.path().join("7/fd/0")).unwrap();
        assert_eq!(all(folder.path()).len(), 1);
        assert_eq!(process.sockets(), HashSet::from([123]));
    }
}
