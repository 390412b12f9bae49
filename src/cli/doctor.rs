//! `countersign doctor`: looks at the node, and changes nothing.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::daemon::{self, Answerer};
use super::show::findings_text;
use super::{Exit, Output, print};
use crate::admin::v1;
use crate::doctor::{Finding, Node, examine, is_open};

/// Where Linux shows processes.
const PROCESSES: &str = "/proc";

pub(super) fn run(path: &Path, output: Output) -> Exit {
    let examined = daemon::run(path, async |config, _| {
        // A daemon that does not answer is a finding.
        let status = match Answerer::daemon(config).await {
            Ok((mut daemon, _)) => daemon.status(v1::StatusRequest {}).await.ok().map(tonic::Response::into_inner),
            Err(_) => None,
        };
        Ok(examine(&Node { config, daemon: status.as_ref(), processes: PathBuf::from(PROCESSES) }).await)
    });
    let findings = match examined {
        Ok(findings) => findings,
        Err(exit) => return exit,
    };
    print(&match output {
        Output::Text => findings_text(&findings),
        Output::Json => {
            let finding = |finding: &Finding| {
                let mend = (!finding.mend.is_empty()).then_some(&finding.mend);
                json!({"check": finding.check, "state": finding.state.as_str(), "says": finding.says, "mend": mend})
            };
            json!({"open": is_open(&findings), "findings": findings.iter().map(finding).collect::<Vec<_>>()}).to_string()
        }
    });
    if is_open(&findings) { Exit::Denied } else { Exit::Ok }
}
