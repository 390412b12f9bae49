//! The operator's tool: what `crictl` does and shows through the gate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gate::binary;
use super::harness::cri::Cri;
use super::harness::crictl::Crictl;
use super::harness::image::{Image, Recipe};
use super::harness::process::text;
use super::harness::world::World;

/// How long a container may take until its first line is in its log.
const PRINTS_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn crictl_runs_what_is_signed_shows_its_tag_removes_it_and_says_why_it_runs_nothing_else() {
    let Some(program) = Crictl::find() else {
        eprintln!("crictl is not on PATH: its scenario was not run");
        return;
    };
    let mut world = World::new("crictl_runs_what_is_signed").await;
    let image = Recipe::prints_and_stays("signed").build();
    let (signed, root) = world.push_signed(&image, "team/app", "1").await;
    let unsigned = world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let configuration = world.gate_config().root_key(world.gun("team/app"), root.canonical.to_string());
    let gate = world.start_gate(binary(), &configuration).await;
    let desk = Desk { crictl: Crictl::new(program, &gate.socket()), cri: gate.cri().clone(), files: world.folder.sub("crictl") };

    desk.pulls(&signed, &image).await;
    let container = desk.runs(&signed, "signed\n").await;
    let refused = desk.crictl.badly(&["pull", &unsigned]).await;
    assert_not_signed(&refused, &unsigned);
    // Somebody pulls it past the gate, so that only the gate keeps it from running.
    world.cri().pull(&unsigned).await.unwrap();
    desk.does_not_run(&unsigned).await;
    assert_eq!(desk.crictl.well(&["ps", "--all", "--quiet"]).await.trim_end(), container, "nothing unsigned was created");

    desk.crictl.well(&["rmp", "--force", "--all"]).await;
    assert_eq!(desk.crictl.well(&["ps", "--all", "--quiet"]).await, "");
    desk.crictl.well(&["rmi", &signed]).await;
    let gone = desk.crictl.badly(&["inspecti", &signed]).await;
    assert!(gone.contains("no such image"), "{gone}");
    let left = world.containerd.ctr().records().await.unwrap();
    assert!(left.iter().all(|(_, digest)| *digest != image.digest().to_string()), "no record of the image is left: {left:?}");
    desk.pulls(&signed, &image).await;
}

/// Where somebody sits with crictl.
struct Desk {
    crictl: Crictl,
    cri: Cri,
    files: PathBuf,
}

impl Desk {
    /// `crictl pull`; then `crictl images` and `crictl inspecti` show the tag and what was signed.
    async fn pulls(&self, name: &str, image: &Image) {
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let id = image.id().to_string();
        let pulled = self.crictl.well(&["pull", name]).await;
        assert_eq!(pulled.trim_end(), format!("Image is up to date for {id}"));
        let table = self.crictl.well(&["images", "--no-trunc"]).await;
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
        assert!(rows.iter().any(|row| row.get(..3) == Some(&[repository, tag, id.as_str()])), "{table}");
        let shown: Value = serde_json::from_str(&self.crictl.well(&["inspecti", name]).await).unwrap();
        assert_eq!(shown["status"]["id"], id);
        assert_eq!(shown["status"]["repoTags"], json!([name]));
        assert_eq!(shown["status"]["repoDigests"], json!([format!("{repository}@{}", image.digest())]));
    }

    /// `crictl run` of a pod; then `crictl logs` shows what it printed, and `crictl exec` enters it. Returns the container's ID.
    async fn runs(&self, name: &str, line: &str) -> String {
        let ran = self.crictl.well(&["run", "--no-pull", &self.container(name), &self.pod()]).await;
        let container = ran.trim_end();
        let deadline = Instant::now() + PRINTS_WITHIN;
        let mut logged = String::new();
        while logged.is_empty() && Instant::now() < deadline {
            logged = self.crictl.well(&["logs", container]).await;
        }
        assert_eq!(logged, line);
        assert_eq!(self.crictl.well(&["exec", "--sync", container, "echo", "entered"]).await.trim_end(), "entered");
        container.to_owned()
    }

    /// Neither `crictl run` that pulls nor one that takes what is there runs an unsigned image.
    async fn does_not_run(&self, name: &str) {
        for pull in ["--with-pull", "--no-pull"] {
            let refused = self.crictl.badly(&["run", pull, &self.container(name), &self.pod()]).await;
            assert_not_signed(&refused, name);
        }
    }

    /// A pod with the folders and the control group of the harness.
    fn pod(&self) -> String {
        let pod = self.cri.pod("default");
        let (metadata, linux) = (pod.metadata.unwrap(), pod.linux.unwrap());
        fs::create_dir_all(&pod.log_directory).unwrap();
        let config = json!({
            "metadata": {"name": metadata.name, "uid": metadata.uid, "namespace": metadata.namespace},
            "log_directory": pod.log_directory,
            "labels": pod.labels,
            "linux": {"cgroup_parent": linux.cgroup_parent, "security_context": {"namespace_options": {"network": 2}}},
        });
        written(&self.files.join("pod.json"), &config)
    }

    /// A container as people write it for crictl: the image is named, once.
    fn container(&self, image: &str) -> String {
        let config = json!({"metadata": {"name": "app"}, "image": {"image": image}, "log_path": "app.log"});
        written(&self.files.join("container.json"), &config)
    }
}

fn written(file: &Path, config: &Value) -> String {
    fs::write(file, config.to_string()).unwrap();
    text(file)
}

#[track_caller]
fn assert_not_signed(complaint: &str, name: &str) {
    let (_, tag) = name.rsplit_once(':').unwrap();
    let sentence = format!("SignatureValidationFailed: image or trust data does not exist for {name}: the tag `{tag}` is not signed");
    assert!(complaint.contains(&sentence) && complaint.contains("(CS-TAG-NOT-SIGNED)"), "expected `{sentence}`\n   found `{complaint}`");
}
