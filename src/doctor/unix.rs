//! Which unix sockets are connected to which, as the kernel says (`sock_diag(7)`): `/proc/net/unix` does not show the other end.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// Bytes that one answer of the kernel has at most: it fills what it is given, up to 32 KiB.
const ANSWER_BYTES: usize = 64 * 1024;
/// Answers that are read: some hundred thousand sockets.
const MAX_ANSWERS: usize = 4096;
/// `nlmsghdr` and `unix_diag_req`, `unix_diag_msg`, `nlattr` (linux/netlink.h, linux/unix_diag.h).
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 16;
const ATTRIBUTE_BYTES: usize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const AF_UNIX: u8 = 1;
/// `UDIAG_SHOW_NAME | UDIAG_SHOW_PEER`.
const SHOW: u32 = 1 | 4;
const NAME: u16 = 0;
const PEER: u16 = 2;

/// A unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Socket {
    /// The path that it is bound to, or was accepted at.
    path: Option<PathBuf>,
    /// The inode of the other end.
    peer: Option<u64>,
}

/// Every unix socket of this network namespace, by inode.
#[derive(Debug, Default)]
pub(super) struct Sockets(HashMap<u64, Socket>);

/// Asks the kernel.
///
/// # Errors
/// What it says; a kernel without `unix_diag` says that there is no such file.
pub(super) fn look() -> io::Result<Sockets> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut sockets = Sockets::default();
    let mut buffer = vec![0; ANSWER_BYTES];
    for _ in 0..MAX_ANSWERS {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if sockets.take(buffer.get(..length).unwrap_or_default())? {
            return Ok(sockets);
        }
    }
    Err(io::Error::other("the kernel lists more sockets than are read"))
}

fn request() -> Vec<u8> {
    let mut body = vec![AF_UNIX, 0, 0, 0];
    // Every state; any inode; what is shown; any cookie.
    for field in [u32::MAX, 0, SHOW, u32::MAX, u32::MAX] {
        body.extend(field.to_ne_bytes());
    }
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or_default();
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Sockets {
    /// Takes the messages of one answer; true when that was the last.
    fn take(&mut self, mut answer: &[u8]) -> io::Result<bool> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer cannot be read");
        while !answer.is_empty() {
            let length = u32_at(answer, 0).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?;
            let message = answer.get(HEADER_BYTES..length).ok_or_else(malformed)?;
            match u16_at(answer, 4).ok_or_else(malformed)? {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    return Err(io::Error::from_raw_os_error(u32_at(message, 0).unwrap_or_default().cast_signed().saturating_neg()));
                }
                SOCK_DIAG_BY_FAMILY => self.add(message).ok_or_else(malformed)?,
                _ => {}
            }
            answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }

    fn add(&mut self, message: &[u8]) -> Option<()> {
        let inode = u64::from(u32_at(message, 4)?);
        let mut socket = Socket::default();
        let mut attributes = message.get(MESSAGE_BYTES..)?;
        while attributes.len() >= ATTRIBUTE_BYTES {
            let length = usize::from(u16_at(attributes, 0)?);
            let value = attributes.get(ATTRIBUTE_BYTES..length)?;
            match u16_at(attributes, 2)? {
                NAME => socket.path = path_of(value),
                PEER => socket.peer = u32_at(value, 0).map(u64::from),
                _ => {}
            }
            attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        self.0.insert(inode, socket);
        Some(())
    }

    /// The path of the socket that the other end of this one was accepted at.
    pub(super) fn leads_to(&self, inode: u64) -> Option<&Path> {
        let peer = self.0.get(&inode)?.peer?;
        self.0.get(&peer)?.path.as_deref()
    }

    /// The inodes of those who are connected to the socket at `path`.
    pub(super) fn callers_of(&self, path: &Path) -> Vec<u64> {
        self.0.keys().copied().filter(|inode| self.leads_to(*inode).is_some_and(|found| super::is_same(found, path))).collect()
    }
}

/// A name that begins with a zero byte is no path.
fn path_of(name: &[u8]) -> Option<PathBuf> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.get(..end).filter(|name| !name.is_empty()).map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a socket of the test's own")]
    fn a_connection_leads_to_the_path_where_it_was_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let _accepted = listener.accept().unwrap();
        let inode = rustix::fs::fstat(&stream).unwrap().st_ino;
        let sockets = match look() {
            Ok(sockets) => sockets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(sockets.leads_to(inode), Some(path.as_path()));
        assert_eq!(sockets.callers_of(&path), [inode]);
        assert!(sockets.callers_of(&folder.path().join("b.sock")).is_empty());
    }

    #[test]
    fn an_answer_that_is_cut_is_an_error_and_never_a_panic() {
        let mut sockets = Sockets::default();
        let mut whole = 48_u32.to_ne_bytes().to_vec();
        whole.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        whole.extend([0; 10]);
        whole.extend([AF_UNIX, 1, 1, 0]);
        whole.extend(77_u32.to_ne_bytes());
        whole.extend([0; 8]);
        whole.extend([8_u16.to_ne_bytes(), PEER.to_ne_bytes()].concat());
        whole.extend(78_u32.to_ne_bytes());
        whole.extend([6_u16.to_ne_bytes(), NAME.to_ne_bytes()].concat());
        whole.extend(*b"/a\0\0");
        assert!(!sockets.take(&whole).unwrap());
        assert_eq!(sockets.0[&77], Socket { path: Some(PathBuf::from("/a")), peer: Some(78) });
        for length in 1..whole.len() {
            assert!(Sockets::default().take(&whole[..length]).is_err(), "{length}");
        }
        let mut error = 20_u32.to_ne_bytes().to_vec();
        error.extend(NLMSG_ERROR.to_ne_bytes());
        error.extend([0; 10]);
        error.extend((-2_i32).to_ne_bytes());
        assert_eq!(sockets.take(&error).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
