//! Services keep what their tags meant when their revisions began, and nothing that the signatures do not admit any more.

use std::time::{Duration, Instant};

use k8s_cri::v1::PodSandboxConfig;
use serde_json::Value;
use tokio::process::Command;
use tonic::{Code, Status};

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::cri::{Cri, Pod, Ran};
use super::harness::faulty::FaultyServer;
use super::harness::image::{Image, Recipe};
use super::harness::world::World;

on_every_containerd! {
    replicas_of_a_revision_keep_the_digest_while_the_tag_moves_on,
    a_revision_keeps_its_digest_after_a_restart_and_is_no_container_without_evidence,
    a_tag_that_was_unsigned_is_not_revived_by_a_pin,
    a_tag_that_was_unsigned_while_one_revision_asked_is_revived_by_no_other,
    what_is_pulled_while_the_trust_server_is_away_is_not_kept_when_it_is_back,
    a_replica_gets_what_is_signed_now_when_who_signed_for_it_then_may_not_sign_any_more,
    labels_of_another_namespace_reach_no_pin_of_a_service,
    an_operator_updates_a_service_and_rolls_it_back_and_admits_nothing_by_it,
    what_an_operator_sets_and_freezes_stays_or_nothing_runs,
}

const REPOSITORY: &str = "team/app";
/// By when the watcher has looked at everything.
const SOON: Duration = Duration::from_secs(60);

/// A repository with a signed tag, and a gate.
struct Scene {
    world: World,
    name: String,
    old: Image,
    new: Image,
}

impl Scene {
    /// Tag 1 is signed as `old`.
    async fn on(containerd: Version, test: &str) -> Self {
        let mut world = World::on(containerd, test).await;
        let [old, new] = ["old", "new"].map(|text| Recipe::prints_and_stays(text).build());
        let (name, root) = world.push_signed(&old, REPOSITORY, "1").await;
        let configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.to_string());
        world.start_gate(binary(), &configuration).await;
        Self { world, name, old, new }
    }

    fn cri(&self) -> &Cri {
        self.world.gate.as_ref().unwrap().cri()
    }

    /// Tag 1 is pushed and signed as another image from now on.
    async fn tag_moves_to(&self, image: &Image) {
        self.world.push(image, REPOSITORY, "1").await;
        self.world.notary.signer("admin").sign(&self.world.gun(REPOSITORY), "1", image).await;
    }

    /// A pod of a Deployment, as Kubernetes names and labels it.
    fn pod_of(&self, namespace: &str, deployment: &str, hash: &str) -> PodSandboxConfig {
        let mut config = self.cri().pod(namespace);
        let metadata = config.metadata.as_mut().unwrap();
        let number: u32 = metadata.name.rsplit('-').next().unwrap().parse().unwrap();
        metadata.name = format!("{deployment}-{hash}-{number:05}");
        config.labels.insert("pod-template-hash".into(), hash.into());
        config
    }

    /// What kubelet does for a pod with `imagePullPolicy: Always`.
    async fn runs(&self, config: PodSandboxConfig) -> Result<Ran, Status> {
        let pod = self.cri().run_pod(config).await?;
        self.pulls_and_runs_in(&pod).await
    }

    async fn pulls_and_runs_in(&self, pod: &Pod) -> Result<Ran, Status> {
        let image = self.cri().pull_with(&self.name, None, Some(&pod.config)).await?;
        self.cri().run_image(pod, &image, &self.name).await
    }

    /// What kubelet does for a pod with `imagePullPolicy: IfNotPresent`: it pulls what it does not find, and tries a create that
    /// was refused again.
    async fn runs_if_not_present(&self, config: PodSandboxConfig) -> Result<Ran, Status> {
        let pod = self.cri().run_pod(config).await?;
        for _ in 0..5 {
            let image = match self.cri().image_status(&self.name).await? {
                Some(image) => image.id,
                None => self.cri().pull_with(&self.name, None, Some(&pod.config)).await?,
            };
            match self.cri().run_image(&pod, &image, &self.name).await {
                Err(status) if status.message().starts_with("RegistryUnavailable: ") => {}
                // containerd's CRI shows for a moment what a record meant that is gone.
                Err(status) if status.message().contains("(CS-OTHER-IMAGE)") => tokio::time::sleep(Duration::from_millis(500)).await,
                ran => return ran,
            }
        }
        panic!("it was refused again and again")
    }

    /// A command of countersign: how it ended, what it printed and what it complained of.
    async fn countersign(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.args(words).arg("--config").arg(self.world.gate.as_ref().unwrap().configuration());
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    async fn status_until(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let (_, status, _) = self.countersign(&["status", "--output", "json"]).await;
            let status: Value = serde_json::from_str(&status).unwrap();
            if fits(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not so: {status:#}\n{}", self.world.gate.as_ref().unwrap().log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Each decision to use the old digest, since the tag means the new one, is come to again from the evidence of then.
    async fn what_was_kept_can_be_explained(&self) {
        let (_, lines, _) = self.countersign(&["decisions", "--output", "json"]).await;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kept: Vec<&Value> = lines.iter().filter(|line| line["pinned-at"].is_string()).collect();
        for method in ["PullImage", "CreateContainer", "StartContainer"] {
            let line = kept.iter().find(|line| line["method"] == method).unwrap_or_else(|| panic!("no {method} in {lines:#?}"));
            assert_eq!((&line["verdict"], &line["digest"]), (&"allow".into(), &self.old.digest().to_string().into()));
            let (code, said, complaint) = self.countersign(&["explain", line["id"].as_str().unwrap()]).await;
            assert_eq!(code, Some(0), "{said}{complaint}");
        }
    }

    async fn prints(&self, hash: &str) -> String {
        self.runs(self.pod_of("shop", "web", hash)).await.unwrap().output
    }
}

async fn replicas_of_a_revision_keep_the_digest_while_the_tag_moves_on(containerd: Version) {
    let scene = Scene::on(containerd, "replicas_of_a_revision").await;
    let first = scene.runs(scene.pod_of("shop", "web", "5d4f")).await.unwrap();
    assert_eq!(first.output, "old\n");
    scene.tag_moves_to(&scene.new).await;

    assert_eq!(scene.prints("5d4f").await, "old\n", "another replica of it");
    assert_eq!(scene.prints("7c9f").await, "new\n", "the next revision");
    assert_eq!(scene.prints("5d4f").await, "old\n", "though the tag's record means another image on the node by now");
    let if_not_present = |hash| scene.runs_if_not_present(scene.pod_of("shop", "web", hash));
    assert_eq!(if_not_present("7c9f").await.unwrap().output, "new\n");
    assert_eq!(if_not_present("5d4f").await.unwrap().output, "old\n");
    // A container of it that is made anew in its pod.
    scene.cri().stop(&first.container).await.unwrap();
    scene.cri().remove(&first.container).await.unwrap();
    assert_eq!(scene.pulls_and_runs_in(&first.pod).await.unwrap().output, "old\n");
    // Of no revision that has one: a pod by itself, and one that names the digest.
    assert_eq!(scene.runs(scene.cri().pod("shop")).await.unwrap().output, "new\n");
    let by_digest = format!("{}@{}", scene.world.gun(REPOSITORY), scene.old.digest());
    let pod = scene.cri().run_pod(scene.pod_of("shop", "web", "5d4f")).await.unwrap();
    let refused = scene.cri().pull_with(&by_digest, None, Some(&pod.config)).await.unwrap_err();
    assert!(refused.message().contains("(CS-DIGEST-NOT-SIGNED)"), "a pin is of a tag: {refused:?}");
    scene.what_was_kept_can_be_explained().await;
}

async fn a_revision_keeps_its_digest_after_a_restart_and_is_no_container_without_evidence(containerd: Version) {
    let mut scene = Scene::on(containerd, "a_revision_after_a_restart").await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    scene.tag_moves_to(&scene.new).await;
    assert_eq!(scene.prints("7c9f").await, "new\n");
    scene.world.gate.as_mut().unwrap().restart().await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    assert_eq!(scene.prints("7c9f").await, "new\n");
    let status = scene.status_until(|status| status["inventory"]["verified"] == 4).await;
    assert_eq!((&status["inventory"]["unverified"], &status["bypasses-seen"]), (&0.into(), &0.into()), "{status:#}");
}

async fn a_tag_that_was_unsigned_is_not_revived_by_a_pin(containerd: Version) {
    let scene = Scene::on(containerd, "a_tag_that_was_unsigned").await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    scene.world.notary.signer("admin").remove_tag(&scene.world.gun(REPOSITORY), "1").await;
    let refused = scene.runs(scene.pod_of("shop", "web", "5d4f")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown, "{refused:?}");
    assert!(refused.message().contains("(CS-TAG-NOT-SIGNED)"), "{refused:?}");
    scene.tag_moves_to(&scene.new).await;
    assert_eq!(scene.prints("5d4f").await, "new\n", "what was seen unsigned once does not come back");
}

/// Whoever holds a pin that nobody asked for while the tag was unsigned holds what was withdrawn.
async fn a_tag_that_was_unsigned_while_one_revision_asked_is_revived_by_no_other(containerd: Version) {
    let scene = Scene::on(containerd, "unsigned_while_one_asked").await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    assert_eq!(scene.prints("7c9f").await, "old\n");
    scene.world.notary.signer("admin").remove_tag(&scene.world.gun(REPOSITORY), "1").await;
    // A pod of no service: the node has seen it all the same.
    let refused = scene.cri().pull(&scene.name).await.unwrap_err();
    assert!(refused.message().contains("(CS-TAG-NOT-SIGNED)"), "{refused:?}");
    scene.tag_moves_to(&scene.new).await;
    assert_eq!(scene.prints("7c9f").await, "new\n");
    assert_eq!(scene.prints("5d4f").await, "new\n");
}

/// Whoever keeps a node from its trust server while a revision begins must not have it keep an old digest for as long as it lives.
async fn what_is_pulled_while_the_trust_server_is_away_is_not_kept_when_it_is_back(containerd: Version) {
    let mut scene = Scene::on(containerd, "pulled_while_the_server_is_away").await;
    let mut front = FaultyServer::before(&scene.world.notary.url(), &scene.world.ca).await;
    let root = scene.world.notary.signer("admin").root_ids(&scene.world.gun(REPOSITORY)).await;
    let mut configuration = scene.world.gate_config().root_key(scene.world.gun(REPOSITORY), root.canonical.to_string());
    configuration.registries[0].notary_server = front.url();
    scene.world.start_gate(binary(), &configuration).await;
    scene.runs(scene.pod_of("shop", "api", "1")).await.unwrap();

    front.stop();
    assert_eq!(scene.prints("5d4f").await, "old\n", "what is held serves");
    scene.tag_moves_to(&scene.new).await;
    assert_eq!(scene.prints("5d4f").await, "old\n", "and nothing else can be known");
    let (code, said, _) = scene.countersign(&["service", "update", "shop/deployment/api"]).await;
    assert_eq!((code, said.contains("its trust server could not be reached")), (Some(3), true), "{said}");
    front.start().await;
    assert_eq!(scene.prints("5d4f").await, "new\n");
    assert_eq!(scene.runs(scene.pod_of("shop", "api", "1")).await.unwrap().output, "old\n", "this one was pinned when it was current");
}

async fn a_replica_gets_what_is_signed_now_when_who_signed_for_it_then_may_not_sign_any_more(containerd: Version) {
    let scene = Scene::on(containerd, "who_signed_then").await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    let (admin, gun) = (scene.world.notary.signer("admin"), scene.world.gun(REPOSITORY));
    admin.rotate(&gun, super::harness::signer::Rotation::Targets).await;
    scene.tag_moves_to(&scene.new).await;
    assert_eq!(scene.prints("5d4f").await, "new\n");
    let log = scene.world.gate.as_ref().unwrap().log();
    assert!(log.contains("a pin does not count") && log.contains("CS-PIN-REVOKED"), "{log}");
    assert_eq!(scene.prints("5d4f").await, "new\n", "and it is pinned as that");
}

async fn labels_of_another_namespace_reach_no_pin_of_a_service(containerd: Version) {
    let scene = Scene::on(containerd, "labels_of_another_namespace").await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    scene.tag_moves_to(&scene.new).await;
    assert_eq!(scene.runs(scene.pod_of("bank", "web", "5d4f")).await.unwrap().output, "new\n", "the same names elsewhere");
    assert_eq!(scene.runs(scene.pod_of("shop", "api", "5d4f")).await.unwrap().output, "new\n", "another service");
    let mut imitating = scene.pod_of("bank", "web", "5d4f");
    imitating.annotations.insert("countersign/service".into(), "shop/deployment/web".into());
    imitating.annotations.insert("countersign/revision".into(), "5d4f".into());
    assert_eq!(scene.runs(imitating).await.unwrap().output, "new\n");
    assert_eq!(scene.prints("5d4f").await, "old\n");
}

async fn an_operator_updates_a_service_and_rolls_it_back_and_admits_nothing_by_it(containerd: Version) {
    let scene = Scene::on(containerd, "an_operator_updates").await;
    assert_eq!(scene.countersign(&["service", "ls"]).await.1, "no service has pinned an image yet\n");
    assert_eq!(scene.prints("5d4f").await, "old\n");
    let (old, new) = (scene.old.digest().to_string(), scene.new.digest().to_string());
    let (_, listed, _) = scene.countersign(&["service", "ls"]).await;
    assert!(listed.contains("shop/deployment/web") && listed.contains("5d4f") && listed.contains(&old[..19]), "{listed}");

    let update = ["service", "update", "shop/deployment/web"];
    let (code, said, _) = scene.countersign(&update).await;
    assert_eq!((code, said.contains(&format!("means {old}, as before"))), (Some(0), true), "{said}");
    let (code, said, _) = scene.countersign(&["service", "rollback", "shop/deployment/web"]).await;
    assert_eq!((code, said.contains("there is nothing to go back to")), (Some(1), true), "{said}");

    scene.tag_moves_to(&scene.new).await;
    let (code, said, _) = scene.countersign(&update).await;
    assert_eq!((code, said.contains(&format!("means {new} now, before {old}"))), (Some(0), true), "{said}");
    assert_eq!(scene.prints("5d4f").await, "new\n");
    // What ran before runs on, and is no alarm.
    let status = scene.status_until(|status| status["inventory"]["verified"] == 2).await;
    assert_eq!((&status["inventory"]["unverified"], &status["bypasses-seen"]), (&0.into(), &0.into()), "{status:#}");
    let (code, said, _) = scene.countersign(&["service", "rollback", "shop/deployment/web", "--revision", "5d4f"]).await;
    assert_eq!((code, said.contains(&format!("means {old} now, before {new}"))), (Some(0), true), "{said}");
    assert_eq!(scene.prints("5d4f").await, "old\n");
    let (_, shown, _) = scene.countersign(&["service", "inspect", "shop/deployment/web"]).await;
    let causes: Vec<usize> = ["rollback", "update", "first-use"].map(|cause| shown.find(cause).unwrap()).to_vec();
    assert!(causes.is_sorted() && shown.contains("generation") && shown.contains("uid 0"), "{shown}");

    // What was signed by a key that may sign no more is not gone back to.
    scene.countersign(&update).await;
    scene.world.notary.signer("admin").rotate(&scene.world.gun(REPOSITORY), super::harness::signer::Rotation::Targets).await;
    scene.tag_moves_to(&scene.new).await;
    scene.runs(scene.cri().pod("shop")).await.unwrap();
    let (code, said, _) = scene.countersign(&["service", "rollback", "shop/deployment/web"]).await;
    assert_eq!((code, said.contains("(CS-PIN-REVOKED)")), (Some(1), true), "{said}");

    for (words, complaint) in [
        (["service", "update", "shop/deployment/none"], "no pin of shop/deployment/none is here"),
        (["service", "update", "web"], "`web` is no service"),
        (["service", "inspect", "shop/deployment/none"], "no such service is here"),
    ] {
        let (code, _, said) = scene.countersign(&words).await;
        assert_eq!((code, said.contains(complaint)), (Some(2), true), "{said}");
    }
}

async fn what_an_operator_sets_and_freezes_stays_or_nothing_runs(containerd: Version) {
    let scene = Scene::on(containerd, "what_an_operator_sets").await;
    assert_eq!(scene.prints("5d4f").await, "old\n");
    let (old, new) = (scene.old.digest().to_string(), scene.new.digest().to_string());
    scene.tag_moves_to(&scene.new).await;
    let pin = async |act: &str, more: &[&str]| {
        let (code, said, complaint) = scene.countersign(&[&["pin", act, "shop/deployment/web"], more].concat()).await;
        (code, said + &complaint)
    };

    // What is signed under no such tag, and was not meant before, is not set.
    let unsigned = format!("sha256:{}", "0".repeat(64));
    let (code, said) = pin("set", &["--digest", &unsigned]).await;
    assert_eq!((code, said.contains("neither what the tag is signed as now nor what it meant before")), (Some(1), true), "{said}");
    let (code, said) = pin("set", &["--digest", "newest"]).await;
    assert_eq!((code, said.contains("`newest` is no digest")), (Some(2), true), "{said}");
    let (code, said) = pin("set", &["--digest", &new]).await;
    assert_eq!((code, said.contains(&format!("means {new} now, before {old}"))), (Some(0), true), "{said}");
    assert_eq!(scene.prints("5d4f").await, "new\n");
    let (code, said) = pin("set", &["--digest", &old]).await;
    assert_eq!((code, said.contains(&format!("means {old} now, before {new}"))), (Some(0), true), "{said}");

    let (code, said) = pin("freeze", &[]).await;
    assert_eq!((code, said.contains(&format!("is frozen as {old} from now on"))), (Some(0), true), "{said}");
    let (code, said, _) = scene.countersign(&["service", "update", "shop/deployment/web"]).await;
    assert_eq!((code, said.contains("`countersign pin release` comes first")), (Some(1), true), "{said}");
    assert_eq!(scene.prints("5d4f").await, "old\n");
    let (_, listed, _) = scene.countersign(&["pin", "ls", "--output", "json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed["pins"][0]["meaning"]["cause"], listed["pins"][0]["frozen"]["by"].is_string()), (&"set".into(), true));
    let (_, history) = pin("history", &[]).await;
    assert!(history.contains("frozen by") && history.contains(&new) && history.contains("first-use"), "{history}");

    // Its signer may sign no more: nothing runs instead of it, until it is released.
    scene.world.notary.signer("admin").rotate(&scene.world.gun(REPOSITORY), super::harness::signer::Rotation::Targets).await;
    scene.tag_moves_to(&scene.new).await;
    // Whoever else pulls brings the rotation to this node.
    assert_eq!(scene.prints("7c9f").await, "new\n", "another revision");
    let refused = scene.runs(scene.pod_of("shop", "web", "5d4f")).await.unwrap_err();
    assert!(refused.message().contains(&format!("is frozen for shop/deployment/web as {old}")), "{refused}");
    assert!(refused.message().contains("(CS-PIN-FROZEN)"), "{refused}");
    let (code, said) = pin("release", &["--revision", "5d4f"]).await;
    assert_eq!((code, said.contains(&format!("means {old} from now on"))), (Some(0), true), "{said}");
    assert_eq!(scene.prints("5d4f").await, "new\n");

    let (_, lines, _) = scene.countersign(&["decisions", "--output", "json"]).await;
    let acts: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["by"].is_string()).collect();
    let told: Vec<_> = acts.iter().map(|line| (line["method"].as_str().unwrap(), line["verdict"].as_str().unwrap())).collect();
    let repinned = |method| (method, "repinned");
    let denied = |method| (method, "deny");
    let expected =
        [denied("PinSet"), repinned("PinSet"), repinned("PinSet"), repinned("PinFreeze"), denied("ServiceUpdate"), repinned("PinRelease")];
    assert_eq!(told, expected, "{acts:#?}");
    assert_eq!((&acts[1]["digest"], &acts[1]["digest-before"]), (&new.as_str().into(), &old.as_str().into()));
    assert_eq!(acts[1]["service"], "shop/deployment/web 5d4f");
}

/// What pins there are cannot be told then, and none was changed: that is no answer, and no "there are none".
#[tokio::test(flavor = "multi_thread")]
async fn commands_on_pins_end_with_3_while_the_daemon_cannot_use_its_store() {
    let mut scene = Scene::on(Version::V1_6, "commands_on_pins").await;
    let gate = scene.world.gate.as_mut().unwrap();
    gate.kill();
    let store = gate.state().join("store");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::write(&store, "not a store").unwrap();
    gate.start_again().await;
    let service = "shop/deployment/web";
    for words in [
        &["service", "ls"][..],
        &["service", "inspect", service],
        &["service", "update", service],
        &["service", "rollback", service],
        &["pin", "ls"],
        &["pin", "history", service],
        &["pin", "freeze", service],
        &["pin", "release", service],
    ] {
        let (code, printed, complaint) = scene.countersign(words).await;
        assert_eq!((code, printed.as_str()), (Some(3), ""), "{words:?}: {complaint}");
        assert!(complaint.contains("the store of pins cannot be used: see the daemon's log"), "{words:?}: {complaint}");
    }
    assert_eq!(scene.prints("5d4f").await, "old\n", "a pin admits nothing, and its absence refuses nothing on a node of its own");
}
