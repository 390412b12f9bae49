//! The composition root: the only place that knows which room is joined to which.

mod figures;
mod node_figures;
mod node_report;
mod observe;
mod offer;
mod reload;
mod store;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_trust::name::RegistryHost;
pub use node_report::node_report;
pub use observe::{log_settings, replayer};
pub use offer::{Elsewhere, Offer, offers};
pub use reload::{ReloadError, Reloading, last_good};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin;
use crate::admit::{Admit, Policy, SandboxImage, chain};
use crate::audit::Recorder;
use crate::clock::{ClockError, SystemClock};
use crate::config::{self, Config, ExpiredTrustData, OnBypass, Registry};
use crate::containerd::Containerd;
use crate::cri::{Gate, Guard, Upstream, methods};
use crate::fetch::{CaBundle, CaBundleError, NodeCredentials, TrustServer, TrustServerError};
use crate::ledger::{Ledger, LedgerError};
use crate::listen::{Inherited, ListenError, Listener};
use crate::metrics::Metrics;
use crate::nodes::{Nodes, Pace, Reporter};
use crate::proof;
use crate::watch::{self, Watch};

/// Running calls may finish for this long after a stop was asked for; systemd kills after 30 s.
const DRAIN: Duration = Duration::from_secs(10);
/// Threads for trust servers, cryptography and the operator's API: a node has few cores to spare for its gate.
const WORK_THREADS: usize = 2;
/// How often containerd is asked whether it is there, before readiness is reported.
const CONTAINERD_POLL: Duration = Duration::from_millis(200);
/// How often a ledger that could not be opened is tried again: `countersign verify` holds it for as long as it takes.
const LEDGER_POLL: Duration = Duration::from_secs(1);
/// How often a configuration in force that could not be kept is tried again: until it is kept, a restart needs a good file.
const KEPT_POLL: Duration = Duration::from_secs(5);

/// Why the daemon, or a command that works without it, does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A registry cannot be used as configured.
    #[error("the notary server of registry {host} cannot be used")]
    Server {
        /// The registry.
        host: String,
        /// Why.
        source: TrustServerError,
    },
    /// A CA bundle cannot be used.
    #[error("the CA bundle of registry {host}, or what containerd trusts for it, cannot be used")]
    CaBundle {
        /// The registry.
        host: String,
        /// Why.
        source: CaBundleError,
    },
    /// The clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// A socket cannot be listened on.
    #[error("cannot listen")]
    Listen(#[from] ListenError),
    /// The state directory cannot be made.
    #[error("the state directory {} cannot be made: make it, owned by root and with mode 0700", directory.display())]
    State {
        /// Which.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Figures cannot be offered where the configuration says.
    #[error("cannot listen for metrics on {address}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The process cannot get what it needs of the system.
    #[error("{what} failed")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// The policy that a configuration describes.
///
/// # Errors
/// [`StartError::Server`] and [`StartError::CaBundle`].
pub fn policy(config: &Config) -> Result<Policy, StartError> {
    let mut servers = HashMap::new();
    for registry in &config.registries {
        servers.insert(registry.host.clone(), trust_server(registry)?);
    }
    let expired_serves_for = match config.expired_trust_data {
        ExpiredTrustData::Refused => None,
        ExpiredTrustData::AllowedFor(length) => Some(length),
    };
    let node_credentials = node_credentials(config);
    let config::SandboxImage { name, digests } = config.containerd.sandbox.clone();
    let sandbox = SandboxImage { name, digests };
    let refresh_interval = config.refresh_interval;
    Ok(Policy {
        trust: config.policy.clone(),
        servers,
        expired_serves_for,
        node_credentials,
        grandfather_for: config.grandfather_for,
        superseded_max_age: config.superseded_max_age,
        sandbox,
        refresh_interval,
        digest: config.digest,
        shared_digest: config.shared_digest,
    })
}

fn node_credentials(config: &Config) -> Option<Arc<NodeCredentials>> {
    config.credentials_file.clone().map(|file| Arc::new(NodeCredentials::new(file)))
}

fn trust_server(registry: &Registry) -> Result<TrustServer, StartError> {
    let bundle = ca_bundle(&registry.host, registry.ca_bundle.as_deref())?;
    let server = TrustServer::new(registry.host.clone(), registry.notary_server.as_str(), bundle);
    server.map_err(|source| StartError::Server { host: registry.host.to_string(), source })
}

fn ca_bundle(host: &RegistryHost, pem: Option<&str>) -> Result<Option<CaBundle>, StartError> {
    pem.map(CaBundle::parse).transpose().map_err(|source| StartError::CaBundle { host: host.to_string(), source })
}

/// Opens the ledger below the configured state directory, which is made if it is absent.
///
/// # Errors
/// [`StartError::State`]; a ledger that cannot be used is the inner error.
pub fn open_ledger(config: &Config) -> Result<Result<Ledger, LedgerError>, StartError> {
    Ok(Ledger::open(&ledger_directory(config)?))
}

/// As [`open_ledger`], for a command that works while no daemon runs.
///
/// # Errors
/// As [`open_ledger`].
pub fn open_ledger_to_look(config: &Config) -> Result<Result<Ledger, LedgerError>, StartError> {
    Ok(Ledger::open_to_look(&ledger_directory(config)?))
}

fn ledger_directory(config: &Config) -> Result<PathBuf, StartError> {
    let directory = config.state_directory.join("ledger");
    let made = make_private(&config.state_directory).and_then(|()| make_private(&directory));
    made.map_err(|source| StartError::State { directory: directory.clone(), source })?;
    Ok(directory)
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Everything that judges, for the daemon and for a command that works without it. Call it within a runtime.
///
/// # Errors
/// As [`policy`].
pub fn admit(config: &Config, ledger: Result<Ledger, LedgerError>, work: Handle) -> Result<Arc<Admit>, StartError> {
    let containerd = Containerd::new(&config.containerd.address);
    Ok(Arc::new(Admit::new(policy(config)?, Arc::new(SystemClock), containerd, ledger, work)))
}

/// The runtime of everything that is not the gate itself.
///
/// # Errors
/// [`StartError::System`].
pub fn work_runtime() -> Result<Runtime, StartError> {
    let built = Builder::new_multi_thread().worker_threads(WORK_THREADS).thread_name("countersign-work").enable_all().build();
    built.map_err(|source| StartError::System { what: "starting threads", source })
}

/// The runtime of a command that works without the daemon: one thread, which is faster than two for work that mostly waits
/// and ends within milliseconds.
///
/// # Errors
/// [`StartError::System`].
pub fn command_runtime() -> Result<Runtime, StartError> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|source| StartError::System { what: "starting the command's runtime", source })
}

/// Runs the daemon until it is told to stop. The calls that are only passed on have a thread for themselves: every hop
/// between threads costs them more than all the work they need.
///
/// # Errors
/// [`StartError`], before anything is served.
pub fn serve(config: &Config, path: &Path, inherited: Inherited) -> Result<(), StartError> {
    let work = work_runtime()?;
    let gate = Builder::new_current_thread().enable_all().build();
    let gate = gate.map_err(|source| StartError::System { what: "starting the gate's runtime", source })?;
    let served = gate.block_on(run(config, path, inherited, work.handle()));
    work.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn run(config: &Config, path: &Path, mut inherited: Inherited, work: &Handle) -> Result<(), StartError> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let admit = admit(config, open_ledger(config)?, work.clone())?;
    if let Some(error) = admit.ledger_fault() {
        tracing::error!(error = chain(&*error), "the ledger cannot be used: every pull and container is denied until it can");
        work.spawn(await_ledger(ledger_directory(config)?, Arc::clone(&admit)));
    }
    let cri = Listener::open(&config.listen.cri, &mut inherited).await?;
    let admin = Listener::open(&config.listen.admin, &mut inherited).await?;
    let figures = observe::listen(config, &mut inherited).await?;
    for path in inherited.left() {
        tracing::warn!(socket = %path.display(), "systemd passed a socket that the configuration does not name");
    }
    let joined = store::take(config, &admit, work).await;
    let mut stop = Stop::new()?;
    let hangup = signal(SignalKind::hangup()).map_err(|source| StartError::System { what: "catching signals", source })?;
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let metrics = Arc::new(Metrics::new());
    let archive = observe::archive(config);
    let recorder = observe::recorder(config, &admit, archive.clone(), &metrics, work);
    let reloading = Arc::new(Reloading::new(path.to_owned(), config.clone(), Arc::clone(&admit), archive.clone()));
    work.spawn(reload_on_hangup(Arc::clone(&reloading), hangup));
    work.spawn(keep_configuration(Arc::clone(&reloading)));
    let reload: admin::Reload = Arc::new(move || reloading.reload().map(|digest| digest.to_string()).map_err(|error| chain(&error)));
    let replayer = Arc::new(observe::replayer_of(config, Arc::clone(&admit), archive));
    let (watch, looks) = watch(config, &admit, &recorder);
    node_figures::register(Arc::clone(&watch), Arc::clone(&admit), &metrics);
    let served = admin::Served {
        admit: Arc::clone(&admit),
        reload,
        watch: Arc::clone(&watch),
        recorder: Arc::clone(&recorder),
        replayer,
        membership: joined.as_ref().map(|joined| Arc::clone(&joined.membership)),
        nodes: joined.as_ref().map(|joined| Arc::new(Nodes::new(Arc::clone(&joined.store), joined.membership.node().to_owned()))),
    };
    if let Some(listener) = figures {
        work.spawn(observe::serve(listener, metrics, stopped.clone()));
    }
    work.spawn(serve_admin(admin, served, stopped));
    if let Some(store::Joined { membership, store }) = joined {
        let told = node_report(Arc::clone(&admit), Arc::clone(&watch), membership.node().to_owned());
        work.spawn(Reporter::new(store, told, Pace::default()).run());
    }
    work.spawn(warm(Arc::clone(&admit)));
    work.spawn(Arc::clone(&admit).refresh_in_background());
    work.spawn(proof::prove_for_ever(Arc::clone(&admit), config.listen.cri.as_path().into()));
    work.spawn(proof::feed_watchdog(Arc::clone(&admit)));
    let containerd: Arc<Path> = config.containerd.address.as_path().into();
    tokio::spawn(report_readiness(Arc::clone(&containerd)));
    tokio::spawn(watch.follow(looks));
    tracing::info!(socket = %config.listen.cri.display(), mode = %admit.mode(), policy = %config.digest, "serving");
    let gate = Gate::new(Arc::new(Guard::new(admit, Arc::clone(&recorder))), containerd);
    let asked = async {
        stop.asked().await;
        tracing::info!("stopping: running calls may finish");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    };
    gate.serve(cri, asked, DRAIN).await;
    recorder.finish();
    stopping.send_replace(true);
    tracing::info!("stopped");
    Ok(())
}

/// Reloads the configuration whenever SIGHUP asks for it, and tells systemd when it is done (`sd_notify(3)`, `RELOADING=1`).
async fn reload_on_hangup(reloading: Arc<Reloading>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        let mut state = vec![sd_notify::NotifyState::Reloading];
        state.extend(sd_notify::NotifyState::monotonic_usec_now().ok());
        let _ = sd_notify::notify(&state);
        let reloading = Arc::clone(&reloading);
        // What is wrong is in the log; one that panics keeps the old configuration.
        drop(tokio::task::spawn_blocking(move || reloading.reload()).await);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}

fn watch(config: &Config, admit: &Arc<Admit>, recorder: &Arc<Recorder>) -> (Arc<Watch>, watch::Looks) {
    let on_bypass = match config.on_bypass {
        OnBypass::Report => watch::OnBypass::Report,
        OnBypass::Stop => watch::OnBypass::Stop,
    };
    let (admit, recorder) = (Arc::clone(admit), Arc::clone(recorder));
    Watch::new(admit, recorder, Arc::new(SystemClock), &config.containerd.address, &config.state_directory, on_bypass)
}

async fn serve_admin(listener: Listener, served: admin::Served, mut stopped: tokio::sync::watch::Receiver<bool>) {
    let shutdown = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    if let Err(error) = admin::serve(listener, served, shutdown).await {
        tracing::error!(error = chain(&error), "the operator's API ended");
    }
}

/// Reads what is held once, so that the first container does not wait for signatures to be verified.
async fn warm(admit: Arc<Admit>) {
    let repositories = admit.warm();
    tracing::info!(repositories, "held trust data was read");
    admit.end_all_unsigned_pins().await;
}

/// Opens the ledger as soon as it can be. One that is damaged is left to the operator, who may be mending it just now.
async fn await_ledger(directory: PathBuf, admit: Arc<Admit>) {
    while let Some(error) = admit.ledger_fault() {
        if !error.may_pass() {
            tracing::error!(error = chain(&*error), "restart countersign when the ledger can be used");
            return;
        }
        tokio::time::sleep(LEDGER_POLL).await;
        let (directory, admit) = (directory.clone(), Arc::clone(&admit));
        // One that panics is tried again.
        let _ = tokio::task::spawn_blocking(move || admit.take_ledger(Ledger::open(&directory))).await;
    }
    tracing::info!("the ledger can be used now");
    warm(admit).await;
}

/// Keeps what is in force as soon as there is room for it.
async fn keep_configuration(reloading: Arc<Reloading>) {
    loop {
        tokio::time::sleep(KEPT_POLL).await;
        let reloading = Arc::clone(&reloading);
        // One that panics is tried again.
        let _ = tokio::task::spawn_blocking(move || reloading.keep_again()).await;
    }
}

/// Tells systemd that the daemon is ready, once containerd has answered.
async fn report_readiness(containerd: Arc<Path>) {
    let upstream = Upstream::new(containerd);
    let mut told = false;
    while let Err(status) = upstream.unary(methods::VERSION, bytes::Bytes::new(), &http::HeaderMap::new()).await {
        if !told {
            tracing::warn!(error = status.message(), "waiting for containerd");
            told = true;
        }
        tokio::time::sleep(CONTAINERD_POLL).await;
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told that the daemon is ready");
    }
    tracing::info!("ready: containerd has answered");
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, StartError> {
        let catch = |kind| signal(kind).map_err(|source| StartError::System { what: "catching signals", source });
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
