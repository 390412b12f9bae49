//! `countersign status`: asks the running daemon, which alone can tell.

use std::path::Path;

use super::daemon::ask;
use super::show::{is_well, status_json, status_text};
use super::{Exit, Output, print};
use crate::admin::v1;

pub(super) fn run(path: &Path, output: Output) -> Exit {
    let answer = ask(path, async |mut daemon| daemon.status(v1::StatusRequest {}).await);
    let status = match answer {
        Ok(status) => status,
        Err(exit) => return exit,
    };
    print(&match output {
        Output::Text => status_text(&status),
        Output::Json => status_json(&status).to_string(),
    });
    if is_well(&status) { Exit::Ok } else { Exit::Denied }
}
