//! Reads the fixture archives into memory.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::path::Path;

/// Every file of a `.tar.xz` below `tests/fixtures/`, by its path in the archive.
pub(crate) fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    unpack(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Every file of a `.tar.xz`, by its path in it.
pub(crate) fn unpack(packed: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut Cursor::new(packed), &mut unpacked).unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(Cursor::new(unpacked)).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
    }
    files
}
