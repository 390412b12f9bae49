//! `countersign service`: which digests the tags of services mean.

use clap::Subcommand;

use super::daemon::ask;
use super::reset::who;
use super::show::{changes_json, changes_text, pins_of_services_json, service_text, services_of_pins_text};
use super::{ConfigFile, Exit, Output, print, unanswered, wrong};
use crate::admin::v1::{self, PinAct, PinOutcome};

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Show the services, their revisions and what their tags mean
    ///
    /// Exit status: 0 shown, 2 wrong usage or configuration, 3 the daemon does not answer or cannot use its store.
    Ls(ListArguments),
    /// Show what the tags of a service mean, by whose word, and what they meant before
    ///
    /// Exit status: 0 shown, 2 wrong usage or configuration, or no such service, 3 the daemon does not answer or cannot use its store.
    Inspect(OfServiceArguments),
    /// Look up anew what the tags of a service mean, for pods that are made from now on; what runs, runs on
    ///
    /// Exit status: 0 done, 1 something was refused, 2 wrong usage or configuration, or no such service, 3 the daemon, its store or a
    /// server does not answer.
    Update(ChangeArguments),
    /// Go back to what the tags of a service meant before, where that can still be proven; what runs, runs on
    ///
    /// Exit status: 0 done, 1 something was refused or there is nothing to go back to, 2 wrong usage or configuration, or no such
    /// service, 3 the daemon or its store does not answer.
    Rollback(ChangeArguments),
}

// A doc comment would be the help of the commands that it is a part of.
#[derive(Debug, clap::Args)]
pub(super) struct AskArguments {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// Only of this namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "", hide_default_value = true)]
    namespace: String,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

impl ListArguments {
    pub(super) fn request(&self) -> v1::ListPinsRequest {
        v1::ListPinsRequest { namespace: self.namespace.clone(), service: String::new() }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct OfServiceArguments {
    /// NAMESPACE/KIND/NAME, as `countersign service ls` shows it
    service: String,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

impl OfServiceArguments {
    pub(super) fn request(&self) -> v1::ListPinsRequest {
        v1::ListPinsRequest { namespace: String::new(), service: self.service.clone() }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct ChangeArguments {
    /// NAMESPACE/KIND/NAME, as `countersign service ls` shows it
    service: String,
    /// Only of this revision
    #[arg(long, value_name = "REVISION", default_value = "", hide_default_value = true)]
    revision: String,
    /// Only of this image, with its tag
    #[arg(long, value_name = "IMAGE", default_value = "", hide_default_value = true)]
    image: String,
    #[command(flatten)]
    ask: AskArguments,
}

pub(super) fn run(command: &ServiceCommand) -> Exit {
    match command {
        ServiceCommand::Ls(arguments) => list(arguments.request(), &arguments.ask, services_of_pins_text),
        ServiceCommand::Inspect(arguments) => list(arguments.request(), &arguments.ask, |pins| service_text(&arguments.service, pins)),
        ServiceCommand::Update(arguments) => change(PinAct::Update, "", arguments),
        ServiceCommand::Rollback(arguments) => change(PinAct::Rollback, "", arguments),
    }
}

/// Asks the daemon for pins, and prints them; for people with `text`.
pub(super) fn list(request: v1::ListPinsRequest, arguments: &AskArguments, text: impl FnOnce(&[v1::ServicePin]) -> String) -> Exit {
    let wants_one = !request.service.is_empty();
    match ask(&arguments.file.path, async |mut daemon| daemon.list_pins(request).await) {
        Err(exit) => exit,
        Ok(v1::ListPinsResponse { fault, .. }) if !fault.is_empty() => unanswered(&fault),
        Ok(v1::ListPinsResponse { pins, .. }) if wants_one && pins.is_empty() => {
            wrong("no such service is here: see `countersign service ls`")
        }
        Ok(v1::ListPinsResponse { pins, .. }) => {
            print(&match arguments.output {
                Output::Text => text(&pins),
                Output::Json => pins_of_services_json(&pins).to_string(),
            });
            Exit::Ok
        }
    }
}

/// Asks the daemon for it. `digest` is empty unless it is to be set.
pub(super) fn change(act: PinAct, digest: &str, arguments: &ChangeArguments) -> Exit {
    let ChangeArguments { service, revision, image, ask: AskArguments { file, output } } = arguments;
    let (service, revision, image) = (service.clone(), revision.clone(), image.clone());
    let digest = digest.to_owned();
    let request = v1::ChangePinsRequest { act: act.into(), service, revision, image, by: who(), digest };
    let changes = match ask(&file.path, async |mut daemon| daemon.change_pins(request).await) {
        Err(exit) => return exit,
        Ok(v1::ChangePinsResponse { fault, cannot_tell_now: true, .. }) => return unanswered(&fault),
        Ok(v1::ChangePinsResponse { fault, .. }) if !fault.is_empty() => return wrong(&fault),
        Ok(v1::ChangePinsResponse { changes, .. }) => changes,
    };
    print(&match output {
        Output::Text => changes_text(act, &changes),
        Output::Json => changes_json(&changes).to_string(),
    });
    exit_of(&changes)
}

fn exit_of(changes: &[v1::PinChange]) -> Exit {
    let is_outage = |change: &v1::PinChange| {
        matches!(change.outcome(), PinOutcome::Unconfirmed | PinOutcome::Raced | PinOutcome::Failed)
            || change.refusal.as_ref().is_some_and(|refusal| refusal.cannot_tell_now)
    };
    let is_done = |change: &v1::PinChange| matches!(change.outcome(), PinOutcome::Changed | PinOutcome::Unchanged);
    if changes.iter().all(is_done) {
        return Exit::Ok;
    }
    if changes.iter().filter(|change| !is_done(change)).all(is_outage) { Exit::CannotTellNow } else { Exit::Denied }
}
