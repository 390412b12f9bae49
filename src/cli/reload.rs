//! `countersign reload`: puts the configuration file in force as it is now.

use std::path::Path;

use super::daemon::{self, Answerer, AskError};
use super::{Exit, complain, print};
use crate::admin::v1::{self, reload_response::Outcome};

pub(super) fn run(path: &Path) -> Exit {
    let answer = daemon::run(path, async |config, work| match Answerer::find(config, work).await? {
        Answerer::Daemon { mut client, socket } => {
            let answer = client.reload(v1::ReloadRequest {}).await;
            answer.map(|answer| Some(answer.into_inner())).map_err(|source| AskError::Daemon { socket, source })
        }
        Answerer::Alone(_) => Ok(None),
    });
    match answer.map(|answer| answer.map(|answer| answer.outcome)) {
        Err(exit) => exit,
        Ok(None) => {
            complain(&"countersign: no daemon runs: it reads the configuration when it starts");
            Exit::CannotTellNow
        }
        Ok(Some(Some(Outcome::Policy(policy)))) => {
            print(&format!("reloaded: policy {policy} is in force"));
            Exit::Ok
        }
        Ok(Some(Some(Outcome::Error(error)))) => {
            complain(&format_args!("countersign: {error}"));
            Exit::Usage
        }
        Ok(Some(None)) => {
            complain(&"countersign: the daemon gave an empty answer: is it of another version?");
            Exit::CannotTellNow
        }
    }
}
