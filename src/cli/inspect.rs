//! `countersign inspect`: asks the running daemon, and looks by itself only when none runs.

use std::io::{self, BufWriter};
use std::path::Path;

use countersign_trust::name::Repository;
use tokio::runtime::Handle;
use tonic::transport::Channel;

use super::daemon::{self, ANSWER_MARGIN, Answerer, AskError, with_progress};
use super::show::{InspectJson, InspectText, Seen, Shower};
use super::{Exit, Output, complain};
use crate::admin::v1::admin_client::AdminClient;
use crate::admin::{inspect, v1};
use crate::config::Config;

pub(super) fn run(repository: &str, path: &Path, output: Output) -> Exit {
    let name = match repository.parse::<Repository>() {
        Ok(name) => name,
        Err(error) => {
            complain(&format_args!("countersign: {error}; give a repository, without tag and digest"));
            return Exit::Usage;
        }
    };
    let out = BufWriter::new(io::stdout().lock());
    match output {
        Output::Text => report(&name, path, InspectText::new(out)),
        Output::Json => report(&name, path, InspectJson::new(out)),
    }
}

fn report(repository: &Repository, path: &Path, mut shower: impl Shower) -> Exit {
    let written = match daemon::run(path, async |config, work| show(repository, config, work, &mut shower).await) {
        Ok(written) => written,
        Err(exit) => return exit,
    };
    match (written, shower.seen()) {
        (Ok(()), Some(seen)) => exit_of(seen),
        // Whoever reads has seen enough.
        (Err(error), Some(seen)) if error.kind() == io::ErrorKind::BrokenPipe => exit_of(seen),
        (Ok(()), None) => {
            complain(&"countersign: the daemon gave an empty answer: is it of another version?");
            Exit::Denied
        }
        (Err(error), _) => {
            complain(&format_args!("countersign: the output cannot be written: {error}"));
            Exit::Denied
        }
    }
}

const fn exit_of(seen: Seen) -> Exit {
    match seen {
        Seen { cannot_tell_now: true, .. } => Exit::CannotTellNow,
        Seen { is_refused: true, .. } | Seen { is_pinned: false, .. } => Exit::Denied,
        Seen { .. } => Exit::Ok,
    }
}

/// The inner result is the output's.
async fn show(repository: &Repository, config: &Config, work: &Handle, shower: &mut impl Shower) -> Result<io::Result<()>, AskError> {
    let asked = v1::InspectRequest { repository: repository.to_string() };
    let written = match Answerer::find(config, work).await? {
        Answerer::Daemon { client, socket } => ask(*client, socket, asked, shower).await?,
        Answerer::Alone(admit) => {
            let mut parts = with_progress(&doing(&asked), inspect::inspect(&admit, &asked)).await;
            parts.try_for_each(|part| take(part, shower))
        }
    };
    Ok(written.and_then(|()| shower.finish()))
}

fn doing(asked: &v1::InspectRequest) -> String {
    format!("looking at {}", asked.repository)
}

fn take(part: v1::InspectResponse, shower: &mut impl Shower) -> io::Result<()> {
    part.part.map_or(Ok(()), |part| shower.take(part))
}

async fn ask(
    mut client: AdminClient<Channel>,
    socket: String,
    asked: v1::InspectRequest,
    shower: &mut impl Shower,
) -> Result<io::Result<()>, AskError> {
    let failed = |source| AskError::Daemon { socket: socket.clone(), source };
    let doing = doing(&asked);
    let mut parts = with_progress(&doing, client.inspect(asked)).await.map_err(failed)?.into_inner();
    loop {
        let part = tokio::time::timeout(ANSWER_MARGIN, parts.message()).await;
        let part = part.map_err(|_| failed(tonic::Status::deadline_exceeded("the rest of the answer did not come")))?;
        let Some(part) = part.map_err(failed)? else { return Ok(Ok(())) };
        if let Err(error) = take(part, shower) {
            return Ok(Err(error));
        }
    }
}
