//! `countersign grandfather`: services that ran before their images were enforced, and go on until a date.

use std::path::Path;

use super::daemon::ask;
use super::reset::who;
use super::show::{ended_json, services_json, services_text, taken_json, taken_text};
use super::verify::report_refusal;
use super::{Exit, GrandfatherCommand, Output, print, wrong};
use crate::admin::v1;

pub(super) fn run(command: GrandfatherCommand) -> Exit {
    match command {
        GrandfatherCommand::Take { namespace, until, reason, dry_run, file, output } => {
            let until = until.map(whole_moment).unwrap_or_default();
            let request = v1::TakeServicesRequest { namespace: namespace.unwrap_or_default(), until, by: who(), reason, trial: dry_run };
            take(&request, &file.path, output)
        }
        GrandfatherCommand::List { file, output } => list(&file.path, output),
        GrandfatherCommand::End { services, all: _, reason, file, output } => {
            end(&v1::EndServicesRequest { services, by: who(), reason }, &file.path, output)
        }
    }
}

fn take(request: &v1::TakeServicesRequest, config: &Path, output: Output) -> Exit {
    if request.reason.trim().is_empty() {
        return reason_missing();
    }
    let answer = ask(config, async |mut daemon| daemon.take_services(request.clone()).await);
    let answer = match answer {
        Err(exit) => return exit,
        Ok(v1::TakeServicesResponse { refusal: Some(refusal), .. }) => return report_refusal(&refusal, output),
        Ok(v1::TakeServicesResponse { fault, .. }) if !fault.is_empty() => return wrong(&fault),
        Ok(answer) => answer,
    };
    print(&match output {
        Output::Text => taken_text(&answer, request.trial),
        Output::Json => taken_json(&answer, request.trial).to_string(),
    });
    if answer.left_out.is_empty() { Exit::Ok } else { Exit::Denied }
}

fn list(config: &Path, output: Output) -> Exit {
    let answer = ask(config, async |mut daemon| daemon.list_services(v1::ListServicesRequest {}).await);
    let services = match answer {
        Err(exit) => return exit,
        Ok(v1::ListServicesResponse { services }) => services,
    };
    print(&match output {
        Output::Text => services_text(&services),
        Output::Json => services_json(&services).to_string(),
    });
    Exit::Ok
}

fn end(request: &v1::EndServicesRequest, config: &Path, output: Output) -> Exit {
    if request.reason.trim().is_empty() {
        return reason_missing();
    }
    let answer = ask(config, async |mut daemon| daemon.end_services(request.clone()).await);
    let services = match answer {
        Err(exit) => return exit,
        Ok(v1::EndServicesResponse { refusal: Some(refusal), .. }) => return report_refusal(&refusal, output),
        Ok(v1::EndServicesResponse { fault, .. }) if !fault.is_empty() => return wrong(&fault),
        Ok(v1::EndServicesResponse { services, .. }) => services,
    };
    print(&match output {
        Output::Text => format!("{} services are like any other now; what runs, runs on", services.len()),
        Output::Json => ended_json(&services).to_string(),
    });
    Exit::Ok
}

fn reason_missing() -> Exit {
    wrong("--reason must say why: it stays on record")
}

/// A day is its first moment.
fn whole_moment(written: String) -> String {
    if written.len() == "2027-01-31".len() { format!("{written}T00:00:00Z") } else { written }
}
