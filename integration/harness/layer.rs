//! Layers of images: tar archives and their compressed form.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::OnceLock;

use countersign_trust::name::Sha256;
use flate2::{Compression, GzBuilder};

use super::Must;
use super::image::{Blob, Format};

/// Where Debian's `busybox-static` has its program.
const BUSYBOX: &str = "/usr/bin/busybox";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnobody:x:65534:\n";

/// A layer: compressed as it is stored, and the hash of its uncompressed tar.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The compressed tar.
    pub blob: Blob,
    /// The hash of the tar.
    pub diff_id: Sha256,
}

/// The layer that most images share: compressed once for each process, since that takes longest.
pub fn busybox_layer(format: Format) -> Layer {
    static LAYER: OnceLock<Layer> = OnceLock::new();
    let mut shared = LAYER.get_or_init(|| layer(Format::Oci, &busybox_tar())).clone();
    format.layer().clone_into(&mut shared.blob.media_type);
    shared
}

/// Compresses a tar. The same tar gives the same digest.
pub fn layer(format: Format, tar: &[u8]) -> Layer {
    // The fixed time of modification keeps the digest the same in every run.
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    gzip.write_all(tar).must("compressing a layer");
    let bytes = gzip.finish().must("compressing a layer");
    Layer { blob: Blob { media_type: format.layer().to_owned(), bytes }, diff_id: Sha256::of(tar) }
}

fn busybox_tar() -> Vec<u8> {
    let program = fs::read(BUSYBOX).must(format_args!("reading {BUSYBOX} (integration/install-parts.sh installs it)"));
    let applets = Command::new(BUSYBOX).arg("--list").output().must("listing the applets of busybox").stdout;
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "run", "var"] {
        append(&mut tar, folder, tar::EntryType::Directory, 0o755, &[]);
    }
    append(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, &program);
    append(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, PASSWD.as_bytes());
    append(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, GROUP.as_bytes());
    for applet in String::from_utf8_lossy(&applets).lines().filter(|&applet| applet != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").must("adding a link to a tar");
    }
    tar.into_inner().must("ending a tar")
}

/// A tar of regular files, without times and owners.
pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut tar, path, tar::EntryType::Regular, 0o644, content);
    }
    tar.into_inner().must("ending a tar")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
    let mut header = header(kind, mode, content.len());
    tar.append_data(&mut header, path, content).must(format_args!("adding {path} to a tar"));
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(u64::try_from(size).must("counting the bytes of a file"));
    header.set_mtime(0);
    header
}
