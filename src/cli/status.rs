//! `countersign status`: asks the running daemon, which alone can tell.

use std::path::Path;

use super::daemon::{self, Answerer, AskError};
use super::show::{is_well, status_json, status_text};
use super::{Exit, Output, print};
use crate::admin::v1;

pub(super) fn run(path: &Path, output: Output) -> Exit {
    let answer = daemon::run_in_force(path, async |config, _| {
        let (mut daemon, socket) = Answerer::daemon(config).await?;
        let answer = daemon.status(v1::StatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|source| AskError::Daemon { socket, source })
    });
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
