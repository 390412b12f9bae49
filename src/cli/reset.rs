//! `countersign reset`: makes the node forget what it has seen of a repository, or of its clock.

use std::path::Path;

use countersign_trust::name::shown;
use tonic::transport::Channel;

use super::daemon::{self, Answerer};
use super::verify::report_refusal;
use super::{Exit, Output, complain, print};
use crate::admin;
use crate::admin::v1;
use crate::admin::v1::admin_client::AdminClient;

pub(super) fn run(mut request: v1::ResetRequest, config: &Path) -> Exit {
    if request.reason.trim().is_empty() {
        complain(&"countersign: --reason must say why: it stays on record");
        return Exit::Usage;
    }
    if request.role == "root" {
        complain(
            &"countersign: the root has no version floor of its own: leave --role out, so that everything about the repository is forgotten",
        );
        return Exit::Usage;
    }
    request.by = who();
    let answer = daemon::run(config, async |config, work| {
        let answerer = Answerer::find(config, work).await?;
        let alone = async |admit| admin::reset(&admit, &request).await;
        answerer.ask(async |mut daemon| daemon.reset(request.clone()).await, alone).await
    });
    match answer.map(|answer| answer.refusal) {
        Err(exit) => exit,
        Ok(Some(refusal)) => report_refusal(&refusal, Output::Text),
        Ok(None) => {
            print(&done(&request));
            Exit::Ok
        }
    }
}

/// `reset --list`.
pub(super) fn list(config: &Path) -> Exit {
    let answer = daemon::run(config, async |config, work| {
        let answerer = Answerer::find(config, work).await?;
        let ask = async |mut daemon: AdminClient<Channel>| daemon.list_resets(v1::ListResetsRequest {}).await;
        answerer.ask(ask, async |admit| admin::list_resets(&admit).await).await
    });
    match answer {
        Err(exit) => exit,
        Ok(v1::ListResetsResponse { refusal: Some(refusal), .. }) => report_refusal(&refusal, Output::Text),
        Ok(v1::ListResetsResponse { resets, .. }) if resets.is_empty() => {
            print("nothing was reset on this node");
            Exit::Ok
        }
        Ok(v1::ListResetsResponse { resets, .. }) => {
            for v1::PastReset { at, by, what, reason } in resets {
                print(&format!("{at}  {}  {what}: {}", shown(&by), shown(&reason)));
            }
            Exit::Ok
        }
    }
}

fn done(request: &v1::ResetRequest) -> String {
    match (request.repository.as_str(), request.role.as_str()) {
        ("", _) => "The clock may be set back now. It binds again from the next trust data on that is found good.".to_owned(),
        (repository, "") => format!("Nothing is known of {repository} any more: the next pull is a first contact, and its pin decides."),
        (repository, role) => format!("Any version of {role} of {repository} is taken once more."),
    }
}

/// Who it is, as far as the environment tells: sudo names the person behind root.
pub(super) fn who() -> String {
    let person = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    let uid = rustix::process::getuid().as_raw();
    person.map_or_else(|| format!("uid {uid}"), |person| format!("{person} (uid {uid})"))
}
