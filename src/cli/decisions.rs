//! `countersign decisions`: what was decided on this node.

use std::path::PathBuf;
use std::pin::pin;

use countersign_trust::time::UnixTime;
use futures_util::{Stream, StreamExt as _};

use super::daemon::{self, AskError};
use super::show::DecisionRows;
use super::{ConfigFile, Exit, Output, complain, print};
use crate::admin;
use crate::admin::v1::{self, list_decisions_response::Part};
use crate::app;
use crate::audit::{Entry, Reading};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, read_length};

/// What is shown when nobody says from when on: what fits into a window and a little scrolling.
const LAST_BY_DEFAULT: u32 = 100;

/// What `countersign decisions` is asked.
#[derive(Debug, clap::Args)]
pub(super) struct DecisionsArguments {
    /// Go on with what is decided from now on, until interrupted
    #[arg(long)]
    follow: bool,
    /// From when on: a length of time such as 30m, 6h or 2d, or a moment in RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Everything but what was allowed: denied, not to be told, let pass all the same, not judged, going on for a while, what came
    /// past the gate or was stopped, and what was done to pins
    #[arg(long)]
    denied: bool,
    #[command(flatten)]
    file: ConfigFile,
    /// For people or for programs: the lines of the audit log as they stand there
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(arguments: &DecisionsArguments) -> Exit {
    let since = match arguments.since.as_deref().map(moment).transpose() {
        Ok(since) => since,
        Err(message) => {
            complain(&format_args!("countersign: {message}"));
            return Exit::Usage;
        }
    };
    let last = if since.is_some() { 0 } else { LAST_BY_DEFAULT };
    let since = since.map_or(0, UnixTime::seconds);
    let request = v1::ListDecisionsRequest { since, denied: arguments.denied, last, follow: arguments.follow };
    let shown = daemon::run(&arguments.file.path, async |config, _| show(&request, config, arguments.output).await);
    shown.map_or_else(|exit| exit, |()| Exit::Ok)
}

fn moment(written: &str) -> Result<UnixTime, String> {
    if let Some(length) = read_length(written) {
        let now = SystemClock.now().unwrap_or_else(|error| error.says());
        return Ok(now.plus_seconds(i64::try_from(length.as_secs()).unwrap_or(i64::MAX).saturating_neg()));
    }
    UnixTime::parse_rfc3339(written).ok_or_else(|| {
        format!(
            "--since must be a length of time such as 6h or 2d, or a moment such as 2026-12-31T18:00:00Z, not `{}`",
            written.escape_debug()
        )
    })
}

async fn show(request: &v1::ListDecisionsRequest, config: &Config, output: Output) -> Result<(), AskError> {
    let settings = app::log_settings(config);
    let file = PathBuf::clone(&settings.path).display().to_string();
    if let Some((mut daemon, socket)) = daemon::running(config).await? {
        let failed = |source| AskError::Daemon { socket: socket.clone(), source };
        let parts = daemon.list_decisions(*request).await.map_err(failed)?.into_inner();
        return print_parts(parts.map(|part| part.map_err(failed)), &file, request.follow, output).await;
    }
    let reading = Reading::open(&settings).map_err(|error| AskError::Log { file: file.clone(), why: error.to_string() })?;
    let parts = admin::lines(reading, admin::asked_filter(request), None);
    print_parts(parts.map(Ok), &file, request.follow, output).await?;
    if request.follow {
        complain(&"countersign: no daemon runs, so nothing follows");
    }
    Ok(())
}

async fn print_parts(
    parts: impl Stream<Item = Result<v1::ListDecisionsResponse, AskError>>,
    file: &str,
    follows: bool,
    output: Output,
) -> Result<(), AskError> {
    let mut parts = pin!(parts);
    let mut rows = DecisionRows::new(follows);
    while let Some(part) = parts.next().await {
        match (part?.part, output) {
            (Some(Part::Line(line)), Output::Json) if Entry::read(line.as_bytes()) == Entry::Torn => {
                complain(&"countersign: a line cannot be read: a crash or a full disk cut it off");
            }
            (Some(Part::Line(line)), Output::Json) => print(&line),
            (Some(Part::Line(line)), Output::Text) => rows.add(&line).iter().for_each(|row| print(row)),
            (Some(Part::Missed(missed)), _) => complain(&format_args!("countersign: {missed} decisions came too fast and are not shown")),
            (Some(Part::Fault(why)), _) => return Err(AskError::Log { file: file.to_owned(), why }),
            (None, _) => {}
        }
    }
    if output == Output::Text && !follows {
        print(&rows.finish());
    }
    Ok(())
}
