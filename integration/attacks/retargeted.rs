//! Records that were pointed elsewhere behind the gate's back: CRI has followed them, or still holds its old view while
//! containerd makes containers from what the record means now.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};

use super::super::harness::containerd::Version;
use super::super::harness::cri::{Cri, Pod, container};
use super::super::harness::image::{Image, Recipe};
use super::super::harness::relay::Relay;
use super::{Scene, assert_denied, binary, code_of};

on_every_containerd! {
    a_tag_record_that_was_retargeted_never_runs_the_other_image,
    a_tag_record_that_was_retargeted_unseen_by_cri_is_refused,
    a_tag_record_that_leads_nowhere_is_refused,
    a_digest_record_that_was_retargeted_never_runs_the_other_image,
    a_digest_record_that_was_retargeted_unseen_by_cri_is_refused,
    an_id_record_that_was_retargeted_is_refused,
    an_id_record_that_was_retargeted_unseen_by_cri_is_refused,
    a_container_made_from_a_record_that_cri_does_not_list_is_removed,
}

/// The beginning of a request that has an ID of 64 digits and nothing else: what the gate asks about a container when it was
/// made, or that it be removed.
const WHOLE_ID: &str = "\0\0\0\0B\n@";
/// Longer than the gate waits for the answers to two of its questions, one after the other.
const SILENCE: Duration = Duration::from_secs(25);

/// Which of the three records that a pull leaves.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Tag,
    Digest,
    Id,
}

/// The signed image was pulled; an evil one is on the node under a name of its own.
struct Prepared {
    scene: Scene,
    evil: Image,
    record: String,
    pod: Pod,
}

async fn prepared(containerd: Version, test: &str, kind: Kind) -> Prepared {
    let scene = Scene::on(containerd, test).await;
    scene.pull().await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    let record = match kind {
        Kind::Tag => scene.name.clone(),
        Kind::Digest => scene.by_digest(),
        Kind::Id => scene.image.id().to_string(),
    };
    let pod = scene.pod().await;
    Prepared { scene, evil, record, pod }
}

impl Prepared {
    /// CRI keeps its view, and the record moves on.
    async fn retarget_unseen(&self) {
        self.scene.world.containerd.blind_cri(&self.record).await.unwrap();
        self.scene.ctr().retarget(&self.record, self.evil.top()).await.unwrap();
    }

    async fn retarget_visibly(&self) {
        self.scene.ctr().retarget(&self.record, self.evil.top()).await.unwrap();
        self.scene.wait_until_shown("example.com/evil:1", &self.evil).await;
    }

    /// However the pod names the image.
    async fn every_create_is_refused_for_its_record(&self) {
        let (id, name, by_digest) = (self.scene.image.id().to_string(), self.scene.name.as_str(), self.scene.by_digest());
        let named = [(id.as_str(), name), (name, name), (&by_digest, &by_digest), (&id, &id)];
        self.creates_end_as(&named.map(|(image, name)| (image, name, Some("CS-OTHER-RECORD")))).await;
    }

    /// Creates by ID, tag and name@digest, for the names that a pod can give; each has one permitted outcome: its code, or
    /// a container on the signed root file system.
    async fn creates_end_as(&self, expected: &[(&str, &str, Option<&str>)]) {
        for (image, name, code) in expected {
            let created = self.scene.cri().create(&self.pod, container(image, name)).await;
            match (created, code) {
                (Ok(made), None) => assert_eq!(self.scene.root_of(&made).await, self.scene.image.chain_id().to_string()),
                (Err(status), Some(code)) => assert_eq!(code_of(&status), *code, "{image} for {name}"),
                (outcome, expected) => panic!("{image} for {name}: {outcome:?}, expected {expected:?}"),
            }
        }
        self.scene.only_runs(&[self.scene.image.chain_id()]).await;
        self.is_good_after_a_pull().await;
    }

    /// kubelet's next pull repairs what was retargeted.
    async fn is_good_after_a_pull(&self) {
        self.scene.runs_the_signed_image().await;
        self.scene.only_runs(&[self.scene.image.chain_id()]).await;
    }
}

async fn a_tag_record_that_was_retargeted_never_runs_the_other_image(containerd: Version) {
    let prepared = prepared(containerd, "a_tag_record_retargeted", Kind::Tag).await;
    let scene = &prepared.scene;
    let (id, name, by_digest) = (scene.image.id().to_string(), scene.name.clone(), scene.by_digest());
    prepared.retarget_visibly().await;
    scene.wait_until_shown(&name, &prepared.evil).await;
    let expected = [
        (id.as_str(), name.as_str(), None),
        (&name, &name, Some("CS-RECORD-DROPPED")),
        (&by_digest, &by_digest, None),
        (&prepared.evil.id().to_string(), &name, Some("CS-OTHER-IMAGE")),
    ];
    prepared.creates_end_as(&expected).await;
}

async fn a_tag_record_that_was_retargeted_unseen_by_cri_is_refused(containerd: Version) {
    let prepared = prepared(containerd, "a_tag_record_retargeted_unseen", Kind::Tag).await;
    let scene = &prepared.scene;
    let (id, name, by_digest) = (scene.image.id().to_string(), scene.name.clone(), scene.by_digest());
    prepared.retarget_unseen().await;
    let expected = [(id.as_str(), name.as_str()), (&name, &name), (&by_digest, &by_digest), (&id, &id), (&id, "")];
    let expected = expected.map(|(image, name)| (image, name, Some("CS-OTHER-RECORD")));
    prepared.creates_end_as(&expected).await;
}

async fn a_tag_record_that_leads_nowhere_is_refused(containerd: Version) {
    let prepared = prepared(containerd, "a_tag_record_that_leads_nowhere", Kind::Tag).await;
    let scene = &prepared.scene;
    let (id, name) = (scene.image.id().to_string(), scene.name.clone());
    scene.ctr().retarget(&name, Recipe::prints("absent").build().top()).await.unwrap();
    prepared.creates_end_as(&[(id.as_str(), name.as_str(), Some("CS-OTHER-RECORD")), (&name, &name, Some("CS-OTHER-RECORD"))]).await;
}

async fn a_digest_record_that_was_retargeted_never_runs_the_other_image(containerd: Version) {
    let prepared = prepared(containerd, "a_digest_record_retargeted", Kind::Digest).await;
    let scene = &prepared.scene;
    let (id, name, by_digest) = (scene.image.id().to_string(), scene.name.clone(), scene.by_digest());
    prepared.retarget_visibly().await;
    scene.wait_until_shown(&by_digest, &prepared.evil).await;
    let expected = [
        (id.as_str(), name.as_str(), None),
        (&by_digest, &name, Some("CS-OTHER-IMAGE")),
        (&by_digest, &by_digest, Some("CS-RECORD-DROPPED")),
        (&name, &name, None),
        (&id, &by_digest, None),
    ];
    prepared.creates_end_as(&expected).await;
}

async fn a_digest_record_that_was_retargeted_unseen_by_cri_is_refused(containerd: Version) {
    let prepared = prepared(containerd, "a_digest_record_retargeted_unseen", Kind::Digest).await;
    prepared.retarget_unseen().await;
    prepared.every_create_is_refused_for_its_record().await;
}

async fn an_id_record_that_was_retargeted_is_refused(containerd: Version) {
    let prepared = prepared(containerd, "an_id_record_retargeted", Kind::Id).await;
    prepared.retarget_visibly().await;
    prepared.every_create_is_refused_for_its_record().await;
}

async fn an_id_record_that_was_retargeted_unseen_by_cri_is_refused(containerd: Version) {
    let prepared = prepared(containerd, "an_id_record_retargeted_unseen", Kind::Id).await;
    prepared.retarget_unseen().await;
    prepared.every_create_is_refused_for_its_record().await;
}

/// CRI lists no name that is none, but makes containers from its record when no better name is left.
async fn a_container_made_from_a_record_that_cri_does_not_list_is_removed(containerd: Version) {
    let scene = Scene::on(containerd, "a_record_that_cri_does_not_list").await;
    let id = scene.pull().await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    let (ctr, hidden) = (scene.ctr(), "NO NAME at all");
    ctr.create_record(hidden, scene.image.top()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for record in [scene.name.clone(), scene.by_digest(), id.clone()] {
        ctr.delete_record(&record).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let shown = scene.behind().image_status(&id).await.unwrap().expect("CRI still knows the image by the hidden record");
    assert_eq!((shown.repo_tags.len(), shown.repo_digests.len()), (0, 0));
    let pod = scene.pod().await;
    let good = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
    assert_eq!(scene.root_of(&good).await, scene.image.chain_id().to_string());

    scene.world.containerd.blind_cri(hidden).await.unwrap();
    ctr.retarget(hidden, evil.top()).await.unwrap();
    let refused = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap_err();

    assert_denied(&refused, "CS-OTHER-ROOTFS");
    assert!(refused.message().contains(&evil.chain_id().to_string()), "{}", refused.message());
    assert_eq!(scene.only_runs(&[scene.image.chain_id()]).await, 1, "the evil container was removed");
    scene.logged(&["denied; the container is removed", "CS-OTHER-ROOTFS"]).await;
    scene.runs_the_signed_image().await;
}

/// A busy node takes longer over a removal than over any answer, and one that was broken off may be left half done.
#[tokio::test]
async fn what_containerd_does_not_remove_at_once_is_removed_when_it_answers_again() {
    let mut scene = Scene::new("removed_when_it_answers_again").await;
    let id = scene.pull().await;
    let relay = Arc::new(Relay::start(&scene.world.folder, &scene.world.containerd.socket()));
    let mut configuration = scene.configuration();
    configuration.containerd = Some(relay.socket().to_owned());
    scene.world.start_gate(binary(), &configuration).await;
    let pod = scene.pod().await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    scene.world.containerd.blind_cri(&scene.name).await.unwrap();
    scene.ctr().retarget(&scene.name, scene.image.top()).await.unwrap();

    let config = container(&id, &scene.name);
    let name = config.metadata.as_ref().unwrap().name.clone();
    let (ctr, record) = (scene.ctr(), scene.name.clone());
    let silence = silence_once_made(Arc::clone(&relay), scene.behind(), scene.world.containerd.server.pid().unwrap());
    let laid = Arc::clone(&relay);
    relay.before(&name, async move {
        ctr.retarget(&record, evil.top()).await.unwrap();
        laid.before(WHOLE_ID, silence);
    });
    let refused = scene.cri().create(&pod, config).await.unwrap_err();

    assert!(!relay.is_waiting(), "containerd fell silent after the create: {refused:?}");
    scene.logged(&["denied; the container is removed"]).await;
    scene.runs_nothing().await;
}

/// containerd falls silent when it is asked about a container that it has made: others ask while it is made.
fn silence_once_made(relay: Arc<Relay>, behind: Cri, containerd: u32) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if behind.list_containers().await.unwrap().is_empty() {
            relay.clone().before(WHOLE_ID, silence_once_made(relay, behind, containerd));
        } else {
            silent_for(containerd, SILENCE).await;
        }
    })
}

/// A process answers nobody for a while.
async fn silent_for(process: u32, silence: Duration) {
    let process = Pid::from_raw(process.try_into().unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(silence).await;
        kill_process(process, Signal::CONT).unwrap();
    });
}
