//! `countersign import`: prints the configuration that another program's files come to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use countersign_trust::name::RegistryHost;
use countersign_trust::time::UnixTime;

use super::{Exit, complain, print};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{name_of, read_text_file};
use crate::import::{self, CertsFolder, ImportErrors, Imported, MAX_IMPORT_BYTES};

/// A registry has a handful of certificate files.
const MAX_CERTS_FILES: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// From the Docker Engine (MCR): `content-trust` of its daemon.json
    Docker {
        /// The Engine's configuration file
        #[arg(default_value = "/etc/docker/daemon.json")]
        file: PathBuf,
        /// Where the Engine looks for the CAs of registries
        #[arg(long, value_name = "DIRECTORY", default_value = "/etc/docker/certs.d")]
        certs_d: PathBuf,
    },
    /// From MKE or UCP: content trust and registries of its ucp-config.toml
    Mke {
        /// The configuration file, as /api/ucp/config-toml gives it
        file: PathBuf,
    },
    /// From a registry's bundle for MKE: {"hostAddress": …, "caBundle": …}
    Registry {
        /// The bundle, dtr-bundle.json
        file: PathBuf,
    },
}

pub(super) fn run(command: &ImportCommand) -> Exit {
    match command {
        ImportCommand::Docker { file, certs_d } => import(file, |text| import::docker(text, file, &|host| certs_folder(certs_d, host))),
        ImportCommand::Mke { file } => at_present(|now| import(file, |text| import::mke(text, file, now))),
        ImportCommand::Registry { file } => at_present(|now| import(file, |text| import::registry(text, file, now))),
    }
}

fn import(file: &Path, read: impl FnOnce(&str) -> Result<Imported, ImportErrors>) -> Exit {
    let text = match read_text_file(file, MAX_IMPORT_BYTES) {
        Ok(text) => text,
        Err(error) => {
            complain(&format_args!("{}: {}", name_of(file), crate::admit::chain(&error)));
            return Exit::Usage;
        }
    };
    match read(&text) {
        Ok(imported) => {
            imported.notes.iter().for_each(|note| complain(note));
            print(imported.toml.trim_end());
            Exit::Ok
        }
        Err(errors) => {
            complain(&errors);
            Exit::Usage
        }
    }
}

/// Whether a certificate has ended cannot be told by a clock that is wrong.
fn at_present(run: impl FnOnce(UnixTime) -> Exit) -> Exit {
    match SystemClock.now() {
        Ok(now) => run(now),
        Err(error) => {
            complain(&error);
            Exit::CannotTellNow
        }
    }
}

/// What lies in the Engine's folder for `host`. The name of a host has no `/`, so that no other folder is meant.
fn certs_folder(root: &Path, host: &RegistryHost) -> CertsFolder {
    let folder = std::path::absolute(root).unwrap_or_else(|_| root.to_owned()).join(host.as_str());
    let files = match fs::read_dir(&folder) {
        Ok(entries) => {
            let names = entries.take(MAX_CERTS_FILES).map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
            names.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    };
    CertsFolder { path: folder.to_string_lossy().into_owned(), files }
}
