//! Where this node's own credentials are.

use std::fs;
use std::path::PathBuf;

use super::fault::Remark;
use super::place::{Place, name_of};
use super::shape::{At, Notes};
use super::socket;

/// Where kubelet looks for the credentials of its node.
const EXAMPLE: &str = "/var/lib/kubelet/config.json";

/// The credentials file, if one is named. It is read when it is needed, since whoever owns it renews it.
pub(super) fn check(written: Option<&At<String>>, place: &Place, notes: &mut Notes) -> Option<PathBuf> {
    let file = socket::path("credentials.file", Some(written?), EXAMPLE, place, notes)?;
    if let Err(error) = fs::metadata(&file.value) {
        notes.remark(file.at, Remark::NoCredentialsFile { path: name_of(&file.value), why: error.to_string() });
    }
    Some(file.value)
}
