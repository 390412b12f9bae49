//! `countersign cluster status`: asks the running daemon, which asks the store.

use std::path::Path;

use super::daemon::ask;
use super::show::{cluster_json, cluster_text};
use super::{Exit, Output, complain, print, wrong};
use crate::admin::v1;

pub(super) fn run(path: &Path, output: Output) -> Exit {
    let status = match ask(path, async |mut daemon| daemon.cluster_status(v1::ClusterStatusRequest {}).await) {
        Ok(status) => status,
        Err(exit) => return exit,
    };
    if status.is_alone {
        return wrong("this node shares with nobody: [store] backend = \"embedded\"; see docs/services.md");
    }
    if !status.fault.is_empty() {
        complain(&format_args!("countersign: {} ({})", status.fault, status.fault_code));
        return Exit::CannotTellNow;
    }
    print(&match output {
        Output::Text => cluster_text(&status),
        Output::Json => cluster_json(&status).to_string(),
    });
    if status.all_agree { Exit::Ok } else { Exit::Denied }
}
