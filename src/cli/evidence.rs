//! `countersign evidence`: everything that is needed to judge a repository's images without its server, as a file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use countersign_trust::evidence::{Answer, Evidence};
use countersign_trust::name::{Repository, shown};
use serde_json::json;

use super::daemon::{self, Answerer};
use super::verify::report_refusal;
use super::{Exit, Output, complain, print};
use crate::admin;
use crate::admin::v1::{self, export_evidence_response, import_evidence_response};
use crate::admit::MAX_EVIDENCE_FILE_BYTES;

/// `evidence export REPOSITORY --out FILE`.
pub(super) fn export(repository: &str, out: &Path, config: &Path, output: Output) -> Exit {
    if let Err(error) = repository.parse::<Repository>() {
        complain(&format_args!("countersign: {error}: name a repository, without tag and digest"));
        return Exit::Usage;
    }
    let request = v1::ExportEvidenceRequest { repository: repository.to_owned() };
    let answer = daemon::run(config, async |config, work| {
        let answerer = Answerer::find(config, work).await?;
        let alone = async |admit| admin::export(&admit, &request).await;
        answerer.ask(async |mut daemon| daemon.export_evidence(request.clone()).await, alone).await
    });
    match answer.map(|answer| answer.outcome) {
        Err(exit) => exit,
        Ok(Some(export_evidence_response::Outcome::Evidence(bytes))) => write(&bytes, out, output),
        Ok(Some(export_evidence_response::Outcome::Refusal(refusal))) => report_refusal(&refusal, output),
        Ok(None) => empty_answer(),
    }
}

/// Never over another file: an archive is not to be lost by a slip.
fn write(bytes: &[u8], out: &Path, output: Output) -> Exit {
    let file = File::options().write(true).create_new(true).mode(0o644).open(out);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(error) = written {
        complain(&format_args!("countersign: {} cannot be written: {error}", out.display()));
        return Exit::Usage;
    }
    let Ok(evidence) = Evidence::decode(bytes) else { return empty_answer() };
    match output {
        Output::Text => print(&format!("{}\n{}", out.display(), text(&evidence))),
        Output::Json => print(&as_json(&evidence)),
    }
    Exit::Ok
}

/// `evidence import FILE`.
pub(super) fn import(file: &Path, config: &Path, output: Output) -> Exit {
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(exit) => return exit,
    };
    let request = v1::ImportEvidenceRequest { evidence: bytes };
    let answer = daemon::run(config, async |config, work| {
        let answerer = Answerer::find(config, work).await?;
        let alone = async |admit| admin::import(&admit, &request).await;
        answerer.ask(async |mut daemon| daemon.import_evidence(request.clone()).await, alone).await
    });
    match answer.map(|answer| answer.outcome) {
        Err(exit) => exit,
        Ok(Some(import_evidence_response::Outcome::Imported(imported))) => {
            print(&imported_text(&imported, output));
            Exit::Ok
        }
        Ok(Some(import_evidence_response::Outcome::Refusal(refusal))) => report_refusal(&refusal, output),
        Ok(None) => empty_answer(),
    }
}

fn imported_text(imported: &v1::Imported, output: Output) -> String {
    let v1::Imported { repository, evidence, tags, valid_until, expired } = imported;
    match output {
        Output::Text => {
            let end = if *expired { "it has EXPIRED, and serves while the trust server is away" } else { "it is good here and now" };
            format!(
                "imported  {repository}\n  evidence     {evidence}\n  tags         {tags}\n  valid until  {valid_until}\n  verdict      {end}"
            )
        }
        Output::Json => {
            json!({ "repository": repository, "evidence": evidence, "tags": tags, "valid-until": valid_until, "expired": expired })
                .to_string()
        }
    }
}

/// `evidence show FILE`: what the file holds, as it says; nothing of it is verified.
pub(super) fn show(file: &Path, output: Output) -> Exit {
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(exit) => return exit,
    };
    match (Evidence::decode(&bytes), output) {
        (Ok(evidence), Output::Text) => print(&format!("{}\nNothing of this is verified before it is imported.", text(&evidence))),
        (Ok(evidence), Output::Json) => print(&as_json(&evidence)),
        (Err(error), _) => {
            complain(&format_args!(
                "countersign: {}: {error}: this is no evidence that `countersign evidence export` wrote",
                file.display()
            ));
            return Exit::Denied;
        }
    }
    Exit::Ok
}

fn text(evidence: &Evidence) -> String {
    let mut text =
        format!("  repository  {}\n  server      {}\n  evidence    {}", evidence.gun(), shown(evidence.server()), evidence.digest());
    for (file, answer) in evidence.answers() {
        match answer {
            Answer::Found(body) => text.push_str(&format!("\n  file        {file}  {} bytes", body.bytes().len())),
            Answer::NotFound => text.push_str(&format!("\n  file        {file}  the server has none")),
        }
    }
    text
}

fn as_json(evidence: &Evidence) -> String {
    let files = evidence.answers().map(|(file, answer)| match answer {
        Answer::Found(body) => json!({ "file": file.to_string(), "bytes": body.bytes().len(), "sha256": body.hash().to_hex() }),
        Answer::NotFound => json!({ "file": file.to_string(), "bytes": null, "sha256": null }),
    });
    json!({
        "repository": evidence.gun().as_str(),
        "server": evidence.server(),
        "evidence": evidence.digest().to_string(),
        "files": files.collect::<Vec<_>>(),
    })
    .to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_EVIDENCE_FILE_BYTES + 1).read_to_end(&mut bytes));
    let why = match read {
        Ok(_) if bytes.len() as u64 <= MAX_EVIDENCE_FILE_BYTES => return Ok(bytes),
        Ok(_) => format!("it is longer than {MAX_EVIDENCE_FILE_BYTES} bytes"),
        Err(error) => error.to_string(),
    };
    complain(&format_args!("countersign: {} cannot be read: {why}", path.display()));
    Err(Exit::Usage)
}

fn empty_answer() -> Exit {
    complain(&"countersign: the daemon gave an empty answer: is it of another version?");
    Exit::Denied
}
