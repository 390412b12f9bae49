//! A real etcd: one member or three, on loopback, with or without TLS and users.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use countersign::store::{EtcdSettings, EtcdStore, Login, StoreTls};
use tokio::process::Command;

use super::Must;
use super::folder::Folder;
use super::process::{Launch, Port, Ready, Server, run, run_well, text};
use super::tls::{Ca, ServerCertificate};

/// How long a cluster may take until it has a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// Between two questions for it.
const POLL: Duration = Duration::from_millis(50);
/// The password of etcd's own administrator.
const ROOT: &str = "root:root-secret";

/// How etcd is to be started.
#[derive(Debug, Clone, Copy)]
pub struct EtcdOptions {
    /// One or three.
    pub members: usize,
    /// https, with certificates of the test's authority.
    pub tls: bool,
    /// Only whoever has a certificate of that authority gets in.
    pub client_certificates: bool,
}

impl EtcdOptions {
    /// One member that everybody may ask.
    pub const OPEN: Self = Self { members: 1, tls: false, client_certificates: false };
    /// Three members with TLS and client certificates.
    pub const THREE: Self = Self { members: 3, tls: true, client_certificates: true };
}

/// A running etcd.
#[derive(Debug)]
pub struct Etcd {
    /// Its members.
    pub members: Vec<Member>,
    /// The authority of its certificates.
    pub ca: Ca,
    options: EtcdOptions,
    client: ServerCertificate,
    folder: PathBuf,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    /// Its process.
    pub server: Server,
    client: Port,
    _peer: Port,
}

impl Etcd {
    /// Starts it, and waits until it has a leader.
    pub async fn start(folder: &Folder, options: EtcdOptions) -> Self {
        let ca = Ca::new(folder.sub("etcd-ca"), "etcd authority");
        let (server, client) = (ca.server("etcd"), ca.server("countersign"));
        let ports: Vec<(Port, Port)> = (0..options.members).map(|_| (Port::free(), Port::free())).collect();
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{}", peer.number())).collect();
        let mut members = Vec::new();
        for (at, (client, peer)) in ports.into_iter().enumerate() {
            let launch = launch(folder, options, at, [&client, &peer], &peers.join(","));
            let launch = if options.tls { with_tls(launch, options, &ca, &server) } else { launch };
            let server = launch.start(&folder.logs(), Ready::Port(client.number())).await;
            members.push(Member { server, client, _peer: peer });
        }
        let etcd = Self { members, ca, options, client, folder: folder.path().to_owned() };
        etcd.has_leader().await;
        etcd
    }

    /// Waits until every member that runs answers.
    pub async fn has_leader(&self) {
        let deadline = Instant::now() + LEADER_WITHIN;
        while !self.answers().await {
            assert!(Instant::now() < deadline, "etcd has no leader after {LEADER_WITHIN:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        for (at, _) in self.members.iter().enumerate().filter(|(_, member)| member.server.pid().is_some()) {
            let mut command = self.ctl_at(&[self.endpoint(at)]);
            command.args(["get", "any", "--command-timeout=1s"]);
            let output = run(command).await;
            let is_known = output.status.success() || String::from_utf8_lossy(&output.stderr).contains("user name is empty");
            if !is_known {
                return false;
            }
        }
        true
    }

    /// The client URL of a member.
    pub fn endpoint(&self, at: usize) -> String {
        let scheme = if self.options.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[at].client.number())
    }

    /// Settings for all members.
    pub fn settings(&self, cluster: &str) -> EtcdSettings {
        let client = self.options.client_certificates.then(|| (self.client.certificate.clone(), self.client.key.clone()));
        EtcdSettings {
            endpoints: (0..self.members.len()).map(|at| self.endpoint(at).parse().must("reading an endpoint")).collect(),
            tls: self.options.tls.then(|| StoreTls { ca_file: self.ca.file(), client }),
            login: None,
            cluster: cluster.to_owned(),
        }
    }

    /// A store in it.
    pub fn store(&self, cluster: &str) -> EtcdStore {
        EtcdStore::new(&self.settings(cluster))
    }

    /// Settings for a user.
    pub fn settings_of(&self, cluster: &str, user: &str, password: &str) -> EtcdSettings {
        let password_file = self.folder.join(format!("{user}.password"));
        std::fs::write(&password_file, format!("{password}\n")).must("writing a password");
        EtcdSettings { login: Some(Login { username: user.to_owned(), password_file }), ..self.settings(cluster) }
    }

    /// Switches authentication on, with a user `node` (password `node-secret`) who may use the key space of `cluster` alone.
    pub async fn demand_users(&self, cluster: &str) {
        let prefix = format!("/countersign/{cluster}/");
        for args in [
            &["user", "add", ROOT][..],
            &["user", "grant-role", "root", "root"],
            &["user", "add", "node:node-secret"],
            &["role", "add", "countersign"],
            &["role", "grant-permission", "--prefix=true", "countersign", "readwrite", &prefix],
            &["user", "grant-role", "node", "countersign"],
            &["auth", "enable"],
        ] {
            self.ctl(args).await;
        }
    }

    /// Runs `etcdctl`, which has to succeed.
    pub async fn ctl(&self, args: &[&str]) -> String {
        let running: Vec<String> =
            (0..self.members.len()).filter(|at| self.members[*at].server.pid().is_some()).map(|at| self.endpoint(at)).collect();
        let mut command = self.ctl_at(&running);
        command.args(args);
        run_well(command).await
    }

    /// The same as etcd's administrator, once users are demanded.
    pub async fn ctl_as_root(&self, args: &[&str]) -> String {
        self.ctl(&[&["--user", ROOT], args].concat()).await
    }

    /// Puts a value that no argument can carry.
    pub async fn put_file(&self, key: &str, value: &[u8]) {
        let file = self.folder.join("value");
        std::fs::write(&file, value).must("writing a value");
        let mut command = self.ctl_at(&[self.endpoint(0)]);
        command.args(["put", key]).stdin(std::process::Stdio::from(std::fs::File::open(&file).must("opening a value")));
        let output = command.output().await.must("running etcdctl put");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Its newest revision.
    pub async fn revision(&self) -> u64 {
        let status = self.ctl(&["endpoint", "status", "--write-out=json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).must("reading etcd's status");
        status[0]["Status"]["header"]["revision"].as_u64().must("reading etcd's revision")
    }

    /// Forgets all changes up to now.
    pub async fn compact(&self) -> u64 {
        let revision = self.revision().await;
        self.ctl(&["compact", &revision.to_string(), "--physical"]).await;
        revision
    }

    /// The place of the member that leads.
    pub async fn leader(&self) -> usize {
        let status = self.ctl(&["endpoint", "status", "--write-out=json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).must("reading etcd's status");
        let all = status.as_array().must("reading etcd's status");
        let leader = all.iter().position(|one| one["Status"]["leader"] == one["Status"]["header"]["member_id"]);
        leader.must("finding the leader")
    }

    fn ctl_at(&self, endpoints: &[String]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints.join(",")]);
        if self.options.tls {
            let (certificate, key) = (text(&self.client.certificate), text(&self.client.key));
            command.args(["--cacert", &text(&self.ca.file()), "--cert", &certificate, "--key", &key]);
        }
        command
    }
}

fn launch(folder: &Folder, options: EtcdOptions, at: usize, [client, peer]: [&Port; 2], peers: &str) -> Launch {
    let scheme = if options.tls { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{}", client.number());
    let peer = format!("http://127.0.0.1:{}", peer.number());
    let (name, data) = (format!("m{at}"), text(&folder.sub(&format!("etcd-{at}"))));
    let mut launch = Launch::new(&format!("etcd-{at}"), "etcd");
    for (flag, value) in [
        ("--name", name.as_str()),
        ("--data-dir", &data),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", peers),
        ("--initial-cluster-token", folder.path().to_str().must("naming a cluster")),
        ("--logger", "zap"),
    ] {
        launch = launch.arg(flag).arg(value);
    }
    launch
}

fn with_tls(launch: Launch, options: EtcdOptions, ca: &Ca, server: &ServerCertificate) -> Launch {
    let launch = launch.arg("--cert-file").path(&server.certificate).arg("--key-file").path(&server.key);
    let launch = launch.arg("--trusted-ca-file").path(&ca.file());
    if options.client_certificates { launch.arg("--client-cert-auth") } else { launch }
}
