//! Who may open containerd's socket, and who has.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use countersign_trust::name::shown;

use super::process::Process;
use super::unix::Sockets;
use super::{Finding, Node, path_text};

const CHECK: &str = "containerd's socket";
const SPEAKERS: &str = "who uses containerd";
const GROUPS: &str = "/etc/group";
/// `/etc/group` of a large site.
const MAX_GROUPS_BYTES: u64 = 16 * 1024 * 1024;
/// Those whose work it is: the gate, containerd itself with its shims, and kubelet, of which another finding speaks.
const EXPECTED: [&str; 4] = ["countersign", "containerd", "kubelet", "containerd-shim"];

pub(super) fn examine(node: &Node<'_>, processes: &[Process], sockets: Result<&Sockets, &io::Error>) -> Vec<Finding> {
    let socket = &node.config.containerd.address;
    let mut findings = vec![permissions(socket)];
    if let Ok(sockets) = sockets {
        findings.push(speakers((socket, &path_text(&node.config.listen.cri)), processes, sockets));
    }
    findings
}

fn permissions(socket: &Path) -> Finding {
    let text = path_text(socket);
    let found = match fs::metadata(socket) {
        Ok(found) => found,
        Err(error) => return Finding::warn(CHECK, format!("{text} cannot be looked at: {error}"), "systemctl status containerd"),
    };
    let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
    let mut groups = String::new();
    let _ = fs::File::open(GROUPS).and_then(|file| file.take(MAX_GROUPS_BYTES).read_to_string(&mut groups));
    who_may_open(&text, mode, (uid, gid), &groups)
}

fn who_may_open(socket: &str, mode: u32, (uid, gid): (u32, u32), groups: &str) -> Finding {
    let mend = format!("chmod 0600 {socket}; and in containerd's configuration [grpc] uid = 0, gid = 0");
    if mode & 0o002 != 0 {
        return Finding::open(
            CHECK,
            format!("{socket} has mode {mode:04o}: everybody on the node may start containers past the gate"),
            mend,
        );
    }
    if uid != 0 {
        return Finding::open(CHECK, format!("{socket} belongs to user {uid}, who may start containers past the gate"), mend);
    }
    let (group, members) = members(groups, gid);
    if mode & 0o020 != 0 && (gid != 0 || !members.is_empty()) {
        let members =
            if members.is_empty() { "has no members listed".to_owned() } else { format!("has the members {}", members.join(", ")) };
        return Finding::open(
            CHECK,
            format!("{socket} has mode {mode:04o}, and its group {} {members}: they may start containers past the gate", shown(&group)),
            mend,
        );
    }
    Finding::ok(CHECK, format!("only root may open {socket} (mode {mode:04o})"))
}

/// The name of a group and who is in it. That it is somebody's first group stands elsewhere.
fn members(groups: &str, gid: u32) -> (String, Vec<String>) {
    let line = groups.lines().find(|line| line.split(':').nth(2) == Some(gid.to_string().as_str()));
    let Some(line) = line else { return (gid.to_string(), Vec::new()) };
    let name = line.split(':').next().unwrap_or_default().to_owned();
    let members = line.split(':').nth(3).unwrap_or_default().split(',').filter(|name| !name.is_empty() && *name != "root");
    (name, members.map(shown).collect())
}

fn speakers((socket, gate): (&Path, &str), processes: &[Process], sockets: &Sockets) -> Finding {
    let callers = sockets.callers_of(socket);
    let speaks = |process: &&Process| {
        let own = process.sockets();
        callers.iter().any(|inode| own.contains(inode))
    };
    let is_expected = |process: &Process| EXPECTED.contains(&process.name.as_str());
    let others = processes.iter().filter(|process| !is_expected(process) && process.pid != std::process::id()).filter(speaks);
    let others: Vec<String> = others.map(|process| format!("{} (pid {})", shown(&process.name), process.pid)).collect();
    if others.is_empty() {
        return Finding::ok(SPEAKERS, "nobody but the gate, kubelet and containerd itself is connected to containerd");
    }
    let says = format!(
        "connected to containerd past the gate: {}; whatever they start is not judged, and the watcher reports it",
        others.join(", ")
    );
    Finding::warn(SPEAKERS, says, format!("let CRI clients use unix://{gate} instead, and take the socket from others"))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    const GROUP_FILE: &str = "root:x:0:\ndaemon:x:1:\ndocker:x:998:alice,bob\nwheel:x:0:\n";

    #[test]
    fn a_socket_that_others_than_root_may_open_is_an_open_door() {
        let state = |mode, owner| who_may_open("/s", mode, owner, GROUP_FILE).state;
        assert_eq!(state(0o660, (0, 0)), State::Ok);
        assert_eq!(state(0o600, (0, 998)), State::Ok);
        assert_eq!(state(0o660, (0, 998)), State::Open);
        assert_eq!(state(0o660, (0, 4711)), State::Open, "a group that nobody knows");
        assert_eq!(state(0o666, (0, 0)), State::Open);
        assert_eq!(state(0o600, (1000, 0)), State::Open);
        let says = who_may_open("/s", 0o660, (0, 998), GROUP_FILE).says;
        assert!(says.contains("docker") && says.contains("alice, bob"), "{says}");
    }

    #[test]
    fn members_of_roots_group_may_open_it_too() {
        let finding = who_may_open("/s", 0o660, (0, 0), "root:x:0:root,mallory\n");
        assert_eq!(finding.state, State::Open);
        assert!(finding.says.contains("mallory") && !finding.says.contains("root,"), "{}", finding.says);
    }
}
