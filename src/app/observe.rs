//! What is told of the daemon: the audit log with its archive, and figures.

use std::sync::Arc;

use countersign_trust::name::Sha256;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::figures::TrustFigures;
use super::{StartError, policy};
use crate::admit::{Admit, Policy, chain};
use crate::audit::{Archive, KeptPolicy, LogSettings, Recorder, Replayer};
use crate::config::{Config, MetricsListen};
use crate::listen::Inherited;
use crate::metrics::{self, Metrics, MetricsListener};

/// Below the state directory: what decisions rest on.
const ARCHIVE: &str = "audit";

/// Where the configuration wants decisions to be written.
#[must_use]
pub fn log_settings(config: &Config) -> LogSettings {
    let audit = &config.audit;
    LogSettings { path: audit.file.clone(), max_bytes: audit.max_bytes, makes_directory: !audit.is_named }
}

/// The archive, with the configuration in it that is in force from now on. Without one decisions are made all the same.
pub(super) fn archive(config: &Config) -> Option<Arc<Archive>> {
    let archive = open_archive(config)?;
    keep_policy(&archive, config);
    Some(archive)
}

/// Keeps a configuration that is in force from now on.
pub(super) fn keep_policy(archive: &Archive, config: &Config) {
    let kept = KeptPolicy { path: config.path().to_owned(), text: config.text().to_owned(), files: config.policy_files().clone() };
    if let Err(error) = archive.keep_policy(config.digest, &kept) {
        tracing::warn!(%error, "the configuration could not be kept: `countersign explain` will not have it");
    }
}

fn open_archive(config: &Config) -> Option<Arc<Archive>> {
    let directory = config.state_directory.join(ARCHIVE);
    match Archive::open(&directory) {
        Ok(archive) => Some(Arc::new(archive)),
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "what decisions rest on cannot be kept: `countersign explain` will not have it");
            None
        }
    }
}

pub(super) fn recorder(
    config: &Config,
    admit: &Arc<Admit>,
    archive: Option<Arc<Archive>>,
    metrics: &Metrics,
    work: &Handle,
) -> Arc<Recorder> {
    TrustFigures::register(Arc::clone(admit), metrics);
    Arc::new(Recorder::new(Arc::clone(admit), log_settings(config), archive, metrics, work.clone()))
}

/// Replays decisions, for a command that works without the daemon.
#[must_use]
pub fn replayer(config: &Config, admit: Arc<Admit>) -> Replayer {
    replayer_of(config, admit, open_archive(config))
}

pub(super) fn replayer_of(config: &Config, admit: Arc<Admit>, archive: Option<Arc<Archive>>) -> Replayer {
    Replayer::new(admit, log_settings(config), archive, policy_of_kept)
}

/// The policy of a configuration that was in force once.
fn policy_of_kept(kept: &KeptPolicy, digest: &Sha256) -> Result<Policy, String> {
    let KeptPolicy { path, text, files } = kept;
    let config = Config::parse_kept(text, path, files.clone()).map_err(|errors| errors.to_string())?;
    if config.digest != *digest {
        return Err("what was kept of it is damaged".to_owned());
    }
    policy(&config).map_err(|error| chain(&error))
}

/// Listens where the configuration wants figures to be asked for, if it does.
pub(super) async fn listen(config: &Config, inherited: &mut Inherited) -> Result<Option<MetricsListener>, StartError> {
    match &config.metrics {
        None => Ok(None),
        Some(MetricsListen::Unix(path)) => Ok(Some(MetricsListener::unix(path, inherited).await?)),
        Some(MetricsListen::Loopback(address)) => {
            let listener = MetricsListener::loopback(*address).await;
            listener.map(Some).map_err(|source| StartError::Metrics { address: *address, source })
        }
    }
}

pub(super) async fn serve(listener: MetricsListener, metrics: Arc<Metrics>, mut stopped: watch::Receiver<bool>) {
    let shutdown = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    metrics::serve(listener, metrics, shutdown).await;
}
