//! countersign itself: its configuration, the daemon, and its command line.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;

use super::Must;
use super::containerd::Containerd;
use super::cri::Cri;
use super::folder::Folder;
use super::process::{Launch, Ready, Server, lossy, run, text};

/// The gate's folder is root's alone, as its unit makes it: a gate may refuse sockets that others can reach.
const HOME_MODE: u32 = 0o700;

/// What the gate is to be configured with; the paths come from the test's folder.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// `disabled`, `permissive` or `enforced`.
    pub mode: &'static str,
    /// Pins by canonical root key ID: pattern of image names, IDs.
    pub root_keys: Vec<(String, Vec<String>)>,
    /// Pins by root certificate ID: image name, IDs.
    pub cert_ids: Vec<(String, Vec<String>)>,
    /// The teams of which each must have signed.
    pub signed_by: Vec<String>,
    /// The registries that images may come from.
    pub registries: Vec<RegisteredRegistry>,
    /// The socket where it reaches containerd; None: containerd's own.
    pub containerd: Option<PathBuf>,
    /// The folder with containerd's hosts.toml files; None: the usual one of the machine.
    pub registry_config: Option<PathBuf>,
    /// The name of the image of sandboxes; None: containerd is asked.
    pub sandbox_image: Option<String>,
    /// The digests that the image of sandboxes may have.
    pub sandbox_digests: Vec<String>,
    /// More lines of `[content-trust]`.
    pub content_trust: String,
    /// More lines of `[content-trust.trust-pinning]`.
    pub trust_pinning: String,
    /// More tables, at the end of the file: `[[signers]]`, `[[teams]]`, `[[rules]]`.
    pub tables: String,
}

/// A registry that images may come from.
#[derive(Debug, Clone)]
pub struct RegisteredRegistry {
    /// Host and port, as in image names.
    pub host_address: String,
    /// The notary server for its images.
    pub notary_server: String,
    /// The certificate authority of both.
    pub ca_bundle_file: PathBuf,
}

impl GateConfig {
    /// A configuration that enforces and trusts nothing yet.
    pub const fn enforced() -> Self {
        Self {
            mode: "enforced",
            root_keys: Vec::new(),
            cert_ids: Vec::new(),
            signed_by: Vec::new(),
            registries: Vec::new(),
            containerd: None,
            registry_config: None,
            sandbox_image: None,
            sandbox_digests: Vec::new(),
            content_trust: String::new(),
            trust_pinning: String::new(),
            tables: String::new(),
        }
    }

    /// Another mode.
    #[must_use]
    pub const fn mode(mut self, mode: &'static str) -> Self {
        self.mode = mode;
        self
    }

    /// Adds a pin by canonical root key ID.
    #[must_use]
    pub fn root_key(mut self, images: impl Into<String>, id: impl Into<String>) -> Self {
        self.root_keys.push((images.into(), vec![id.into()]));
        self
    }

    /// Adds a pin by root certificate ID.
    #[must_use]
    pub fn cert_id(mut self, image: impl Into<String>, id: impl Into<String>) -> Self {
        self.cert_ids.push((image.into(), vec![id.into()]));
        self
    }

    /// Demands a signature of a member of each of these teams.
    #[must_use]
    pub fn signed_by(mut self, teams: &[&str]) -> Self {
        self.signed_by = teams.iter().map(|&team| team.to_owned()).collect();
        self
    }

    /// Adds a line of `[content-trust]`.
    #[must_use]
    pub fn content_trust(mut self, line: &str) -> Self {
        self.content_trust += &format!("{line}\n");
        self
    }

    /// Adds a line of `[content-trust.trust-pinning]`.
    #[must_use]
    pub fn trust_pinning(mut self, line: &str) -> Self {
        self.trust_pinning += &format!("{line}\n");
        self
    }

    /// Adds a table with its header and lines.
    #[must_use]
    pub fn table(mut self, text: &str) -> Self {
        self.tables += &format!("\n{text}\n");
        self
    }

    /// Adds a user by a certificate.
    #[must_use]
    pub fn signer(self, name: &str, certificate: &Path) -> Self {
        let certificate = quoted(&text(certificate));
        self.table(&format!("[[signers]]\nname = {}\ncertificates = [{certificate}]", quoted(name)))
    }

    /// Adds a team of users.
    #[must_use]
    pub fn team(self, name: &str, members: &[&str]) -> Self {
        let members: Vec<String> = members.iter().map(|&member| member.to_owned()).collect();
        self.table(&format!("[[teams]]\nname = {}\nmembers = {}", quoted(name), list(&members)))
    }

    /// Adds a rule for these images, with more lines.
    #[must_use]
    pub fn rule(self, images: &str, lines: &str) -> Self {
        self.table(&format!("[[rules]]\nimages = [{}]\n{lines}", quoted(images)))
    }

    /// What the configuration says of sandboxes.
    fn sandbox(&self) -> String {
        let image = self.sandbox_image.iter().map(|image| format!("sandbox-image = {}\n", quoted(image)));
        let digests = Some(&self.sandbox_digests).filter(|digests| !digests.is_empty());
        image.chain(digests.map(|digests| format!("sandbox-image-digests = {}\n", list(digests)))).collect()
    }

    /// The configuration file of a gate in `home`.
    pub fn text(&self, home: &Path, containerd: &Path) -> String {
        let path = |name: &str| quoted(&text(&home.join(name)));
        let signed_by = if self.signed_by.is_empty() { String::new() } else { format!("signed-by = {}\n", list(&self.signed_by)) };
        format!(
            "[listen]\ncri = {}\nadmin = {}\n\n[containerd]\naddress = {}\n{}{}\n[state]\ndirectory = {}\n\n\
             [content-trust]\nmode = {}\n{signed_by}{}\n[content-trust.trust-pinning]\nroot-keys = {}\ncert-ids = {}\n{}{}\n{}",
            path("cri.sock"),
            path("admin.sock"),
            quoted(&text(self.containerd.as_deref().unwrap_or(containerd))),
            self.registry_config.as_ref().map_or_else(String::new, |folder| format!("registry-config = {}\n", quoted(&text(folder)))),
            self.sandbox(),
            path("state"),
            quoted(self.mode),
            self.content_trust,
            table(&self.root_keys),
            table(&self.cert_ids),
            self.trust_pinning,
            self.registries.iter().map(registry_table).collect::<String>(),
            self.tables,
        )
    }
}

fn registry_table(registry: &RegisteredRegistry) -> String {
    format!(
        "\n[[registries]]\nhost-address = {}\nnotary-server = {}\nca-bundle-file = {}\n",
        quoted(&registry.host_address),
        quoted(&registry.notary_server),
        quoted(&text(&registry.ca_bundle_file)),
    )
}

/// A basic string of TOML. JSON's escapes are a subset of TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

fn table(entries: &[(String, Vec<String>)]) -> String {
    let entries: Vec<String> = entries.iter().map(|(name, ids)| format!("{} = {}", quoted(name), list(ids))).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// What `countersign verify` answered.
#[derive(Debug, Clone)]
pub struct Verified {
    /// 0 allow, 1 deny, 2 wrong usage or configuration, 3 cannot tell now.
    pub exit_code: Option<i32>,
    /// Standard output, read as JSON where it is.
    pub output: Value,
    /// Standard output and standard error as they were.
    pub text: String,
}

/// A running countersign.
#[derive(Debug)]
pub struct Gate {
    /// The process; its log is on standard error.
    pub server: Server,
    binary: PathBuf,
    home: PathBuf,
    configuration: PathBuf,
    containerd: PathBuf,
    cri: Cri,
}

impl Gate {
    /// Starts `countersign serve` between the tests and containerd, and waits until it answers. Integration tests and
    /// benches have the binary's path in `env!("CARGO_BIN_EXE_countersign")`.
    pub async fn start(folder: &Folder, binary: &Path, configuration: &GateConfig, containerd: &Containerd) -> Self {
        Self::start_with(folder, binary, configuration, containerd, &[]).await
    }

    /// The same with variables of the environment, for instance to end it at a named step.
    pub async fn start_with(
        folder: &Folder,
        binary: &Path,
        configuration: &GateConfig,
        containerd: &Containerd,
        env: &[(&str, &str)],
    ) -> Self {
        let home = folder.sub("gate");
        fs::set_permissions(&home, Permissions::from_mode(HOME_MODE)).must("closing the gate's folder");
        let file = folder.configuration("countersign.toml", &configuration.text(&home, &containerd.socket()));
        let launch = Launch::new("countersign", binary).arg("serve").arg("--config").path(&file);
        let launch = env.iter().fold(launch, |launch, (name, value)| launch.env(name, *value));
        let server = launch.start(&folder.logs(), Ready::Socket(home.join("cri.sock"))).await;
        let cri = containerd.cri_through(&home.join("cri.sock"));
        cri.ready().await;
        Self { server, binary: binary.to_owned(), home, configuration: file, containerd: containerd.socket(), cri }
    }

    /// The CRI client of the tests, through the gate.
    pub const fn cri(&self) -> &Cri {
        &self.cri
    }

    /// Its CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("cri.sock")
    }

    /// Its admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.home.join("admin.sock")
    }

    /// Where it keeps its ledger.
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Its configuration file.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Everything it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Waits until its log has a line with this text, and returns the line.
    pub async fn logged(&self, text: &str, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return Some(line.to_owned());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Writes another configuration; it counts from the next start or reload on.
    pub fn configure(&self, configuration: &GateConfig) {
        let content = configuration.text(&self.home, &self.containerd);
        fs::write(&self.configuration, content).must("writing the gate's configuration");
    }

    /// Stops it with SIGTERM and starts it again.
    pub async fn restart(&mut self) {
        self.server.stop();
        self.start_again().await;
    }

    /// SIGKILL, as a crash would end it. [`Gate::start_again`] follows.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same state, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.server.start().await;
        self.cri.ready().await;
    }

    /// `countersign verify IMAGE --config F --output json`.
    pub async fn verify(&self, image: &str) -> Verified {
        verify(&self.binary, &self.configuration, image).await
    }
}

/// `countersign verify` with any configuration, whether a daemon runs or not.
pub async fn verify(binary: &Path, configuration: &Path, image: &str) -> Verified {
    let mut command = Command::new(binary);
    command.args(["verify", image, "--output", "json", "--config"]).arg(configuration);
    let output = run(command).await;
    let printed = lossy(&output.stdout);
    Verified {
        exit_code: output.status.code(),
        output: serde_json::from_str(&printed).unwrap_or_default(),
        text: format!("{printed}{}", lossy(&output.stderr)),
    }
}

/// `countersign serve` with a configuration that it has to refuse: returns when it has ended.
pub async fn serve_until_it_ends(binary: &Path, configuration: &Path) -> Output {
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(configuration);
    run(command).await
}
