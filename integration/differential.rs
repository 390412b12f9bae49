//! The same repositories before the real `notary` and before countersign: each does what the hostile matrix says, and where
//! the two differ the matrix says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use countersign_trust::time::UnixTime;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::process::Command;

use super::forge::GUN;
use super::gate::binary;
use super::harness::folder::Folder;
use super::harness::gate::{GateConfig, RegisteredRegistry, verify};
use super::harness::process::{lossy, run, text};
use super::harness::tls::{Ca, acceptor};
use super::scenes::{Pinning, Scene, TAGS, scene};
use super::static_server::StaticServer;
use super::table::{self, Row};

/// Rows that are tried at once.
const PARALLEL: usize = 4;
/// With this variable set, every row that is made is tried, and not only those that the table marks.
const WHOLE_MATRIX: &str = "COUNTERSIGN_WHOLE_MATRIX";

/// The servers and folders of one row.
struct Trial<'a> {
    row: Row,
    scene: Scene,
    server: StaticServer,
    ca: &'a Ca,
    folder: PathBuf,
}

impl Trial<'_> {
    async fn begin<'a>(row: Row, place: usize, ca: &'a Ca, folder: &Folder) -> Trial<'a> {
        let now = UnixTime::from_seconds(i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap());
        let scene = scene(row.name, now).unwrap_or_else(|| panic!("{} is not made", row.name));
        let files = ca.server(&format!("static-{place}"));
        let folder = folder.sub(&format!("row-{place}"));
        Trial { row, scene, server: StaticServer::start(acceptor(&files)).await, ca, folder }
    }

    /// Shows each phase to both, and gives back what differs from the table.
    async fn differences(&self) -> Vec<String> {
        let last = self.scene.phases.len() - 1;
        let mut wrong = Vec::new();
        if self.scene.phases.iter().any(|phase| phase.seconds_later > 0) {
            // The client's clock is the machine's.
            return wrong;
        }
        for (place, phase) in self.scene.phases.iter().enumerate() {
            self.server.show(&phase.sealed);
            let (reference, ours) = (self.reference(place == last).await, self.ours(place == last).await);
            let (of_reference, of_ours) = if place == last { (self.row.reference, self.row.countersign) } else { ("accept", "accept") };
            if reference != of_reference {
                wrong.push(format!("{}\tphase {}\tnotary\t{of_reference}\t{reference}", self.row.name, place + 1));
            }
            if ours != of_ours {
                wrong.push(format!("{}\tphase {}\tcountersign\t{of_ours}\t{ours}", self.row.name, place + 1));
            }
        }
        wrong
    }

    async fn reference(&self, is_last: bool) -> String {
        let pinning = self.scene.pinning.as_ref().filter(|_| is_last);
        let configuration = self.folder.join("notary.json");
        let content = json!({
            "trust_dir": text(&self.folder.join("trust")),
            "remote_server": {"url": self.server.url(), "root_ca": text(&self.ca.file())},
            "trust_pinning": pinning.map_or_else(|| json!({}), |pinning| trust_pinning(pinning, &self.folder)),
        });
        fs::write(&configuration, content.to_string()).unwrap();
        let mut command = Command::new("notary");
        command.arg("-c").arg(&configuration).args(["list", GUN]).env("HOME", &self.folder);
        let output = run(command).await;
        let printed = lossy(&output.stdout);
        if !output.status.success() {
            return format!("refuse: {}", told(&printed, &self.server.url()));
        }
        let listed = printed.lines().skip_while(|line| !line.starts_with("---")).skip(1).filter_map(|line| line.split_whitespace().next());
        table::verdict(Ok(listed), &TAGS)
    }

    /// What `countersign verify` says of every tag, in the words of the table.
    async fn ours(&self, is_last: bool) -> String {
        let mut pinned = self.scene.pinned(is_last);
        if pinned.root_keys.is_empty() && pinned.certificate_ids.is_empty() {
            // No pin at all is refused before anything is asked.
            pinned.root_keys.push(("elsewhere.test/app".into(), vec!["0".repeat(64)]));
        }
        let registry = RegisteredRegistry {
            host_address: GUN.split('/').next().unwrap().to_owned(),
            notary_server: self.server.url(),
            ca_bundle_file: self.ca.file(),
        };
        let configured = GateConfig {
            root_keys: pinned.root_keys,
            cert_ids: pinned.certificate_ids,
            registries: vec![registry],
            ..GateConfig::enforced()
        };
        let configuration = self.folder.join("countersign.toml");
        fs::write(&configuration, configured.text(&self.folder.join("gate"), Path::new("/nowhere"))).unwrap();
        // Whoever trusts the repository says so of one of the tags that pull can take.
        let mut said = String::new();
        for tag in ["t0", "rel"] {
            let verified = verify(binary(), &configuration, &format!("{GUN}:{tag}")).await;
            said = match verified.exit_code {
                Some(0) if is_last && self.row.countersign.starts_with("accept") => return self.row.countersign.to_owned(),
                Some(0) => return "accept".into(),
                Some(2) => return "config-error".into(),
                _ => verified.output["code"].as_str().unwrap_or(&verified.text).to_owned(),
            };
        }
        said
    }
}

/// The pinning in the words of the reference.
fn trust_pinning(pinning: &Pinning, folder: &Path) -> Value {
    let certificates: serde_json::Map<_, _> = pinning.certificates.iter().map(|(name, ids)| (name.clone(), json!(ids))).collect();
    let authorities = pinning.authorities.iter().enumerate().map(|(place, (name, pem))| {
        let file = folder.join(format!("authority-{place}.pem"));
        fs::write(&file, pem).unwrap();
        (name.clone(), json!(text(&file)))
    });
    let mut configured = json!({"disable_tofu": pinning.disable_tofu});
    if !certificates.is_empty() {
        configured["certs"] = certificates.into();
    }
    let authorities: serde_json::Map<_, _> = authorities.collect();
    if !authorities.is_empty() {
        configured["ca"] = authorities.into();
    }
    configured
}

/// The last words of the client.
fn told(printed: &str, server: &str) -> String {
    let message = printed.lines().rev().find_map(|line| line.strip_prefix("* fatal: ")).unwrap_or(printed);
    table::without_what_differs(&message.replace(server.trim_start_matches("https://"), "SERVER").replace(GUN, "GUN"))
}

#[tokio::test(flavor = "multi_thread")]
async fn notary_and_countersign_differ_only_where_the_table_says_why() {
    let mut folder = Folder::new("differential");
    let ca = Ca::new(folder.sub("tls"), "countersign tests CA");
    let whole = std::env::var_os(WHOLE_MATRIX).is_some();
    let rows: Vec<Row> = table::rows().into_iter().filter(|row| row.is_shown(if whole { "forged" } else { "live" })).collect();
    let trials = rows.iter().enumerate().map(|(place, row)| {
        let (ca, folder) = (&ca, &folder);
        async move { Trial::begin(*row, place, ca, folder).await.differences().await }
    });
    let wrong: Vec<String> = stream::iter(trials).buffer_unordered(PARALLEL).collect::<Vec<_>>().await.concat();
    if !wrong.is_empty() {
        folder.failed();
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
