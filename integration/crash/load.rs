//! `kill -9` at random moments, while pods come and go and somebody attacks.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};

use countersign_trust::name::ImageId;
use tokio::task::JoinSet;

use super::*;

const ROUNDS: usize = 20;
/// Every so many rounds the node begins anew, so that some kills meet the ledger while it is made.
const FRESH_EVERY: usize = 4;
/// A start takes some 50 ms, ...
const FIRST_START: Duration = Duration::from_millis(100);
/// ... and a pod from pull to print some 500 ms on a busy machine.
const SOME_PODS: Duration = Duration::from_millis(1500);
/// How long is waited for containers to be removed.
const CONTAINERS_GO_WITHIN: Duration = Duration::from_secs(2);
/// CRI has heard by then what a record leads to. Of one that leads nowhere it keeps the view that it had, and asks again after a second.
const CRI_LOOKS_WITHIN: Duration = Duration::from_millis(50);
/// How often the record is switched while CRI does not see it, which takes less than a second where a disk is not very slow.
const SWITCHES: usize = 40;
/// The image whose record is attacked; the others before it are not.
const ATTACKED: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_under_load_lets_nothing_unverified_run_and_loses_nothing_signed() {
    let mut node = Node::new(Version::default(), "a_kill_at_any_moment", ATTACKED + 1).await;
    for round in 0..ROUNDS {
        let fresh = round % FRESH_EVERY == 0;
        node.gate().kill();
        if fresh {
            fs::remove_dir_all(node.gate().state()).unwrap();
        }
        let moment = random_below(if fresh { FIRST_START } else { SOME_PODS });
        eprintln!("round {round}: killed after {moment:?}{}", if fresh { " of the first start" } else { "" });
        let faults = node.killed_under_load(moment).await;
        assert!(faults.is_empty(), "round {round}: {faults:#?}");
        node.start_again().await;
        node.check_after(round).await;
    }
    let started = node.logged("admitted call=StartContainer");
    let [before, after] = node.creates_refused();
    eprintln!("{started} starts were admitted, {before} creates refused before and {after} after the fact");
    assert!(started > ROUNDS, "the load is a load");
    // Whether the record is switched at a moment that counts, while others create, is chance.
    node.meet_the_attack().await;
}

fn random_below(limit: Duration) -> Duration {
    let random = RandomState::new().hash_one(0);
    Duration::from_micros(random % u64::try_from(limit.as_micros()).unwrap())
}

impl Node {
    /// How many lines of the daemon's log have this text.
    fn logged(&mut self, text: &str) -> usize {
        self.gate().log().lines().filter(|line| line.contains(text)).count()
    }

    /// How often the attack was met before a container was made, and after.
    fn creates_refused(&mut self) -> [usize; 2] {
        ["CS-OTHER-RECORD", "denied; the container is removed"].map(|text| self.logged(text))
    }

    /// The attack of the load at the moment that counts: after all the kills it is refused as on the first day.
    async fn meet_the_attack(&mut self) {
        let name = self.tag(ATTACKED);
        self.cri().pull(&name).await.unwrap();
        let before = self.creates_refused();
        self.blind_cri(&name, &self.images[ATTACKED]).await;
        self.world.containerd.ctr().retarget(&name, self.evil.top()).await.unwrap();
        let container = container(&self.images[ATTACKED].id().to_string(), &name);
        let refused = self.cri().create(&self.pod, container).await;
        refused_with(refused, "CS-OTHER-RECORD", Step::CreateAsked);
        assert_eq!(self.creates_refused(), [before[0] + 1, before[1]]);
    }

    /// Starts the daemon and the load at the same time, and kills the daemon. Gives back what must not have happened.
    async fn killed_under_load(&mut self, moment: Duration) -> Vec<String> {
        self.gate().server.spawn();
        let pid = self.gate().server.pid().unwrap();
        let faults = Arc::default();
        let mut load = self.load(&faults);
        tokio::time::sleep(moment).await;
        self.gate().kill();
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "no zombie is left");
        load.abort_all();
        while let Some(ended) = load.join_next().await {
            assert!(!ended.is_err_and(|error| error.is_panic()), "a part of the load panicked");
        }
        std::mem::take(&mut *faults.lock().unwrap())
    }

    fn load(&self, faults: &Arc<Mutex<Vec<String>>>) -> JoinSet<()> {
        let mut load = JoinSet::new();
        let worker = |number| Worker {
            cri: self.cri().clone(),
            direct: self.world.cri(),
            pod: self.pod.clone(),
            faults: Arc::clone(faults),
            tag: self.tag(number),
            printed: line(number) + "\n",
        };
        for number in 0..ATTACKED {
            load.spawn(worker(number).run_signed(self.tag(number)));
            load.spawn(worker(number).run_signed(self.name(number, ByDigest)));
        }
        load.spawn(worker(0).run_unsigned(self.unsigned.clone(), self.evil.id()));
        load.spawn(worker(ATTACKED).run_attacked(self.images[ATTACKED].id()));
        let (ctr, tag, evil) = (self.world.containerd.ctr(), self.tag(ATTACKED), self.evil.top().clone());
        let (good, absent) = (self.images[ATTACKED].top().clone(), Recipe::prints("absent").build().top().clone());
        load.spawn(async move {
            // Not before the first pull has made the record, so that it may fail.
            loop {
                for target in [&absent, &good, &evil, &good, &evil] {
                    let _ = ctr.retarget(&tag, target).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                for target in [&good, &absent] {
                    let _ = ctr.retarget(&tag, target).await;
                    tokio::time::sleep(CRI_LOOKS_WITHIN).await;
                }
                for target in [&evil, &good].into_iter().cycle().take(SWITCHES) {
                    let _ = ctr.retarget(&tag, target).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        load
    }

    async fn check_after(&self, round: usize) {
        let step = Step::StartStarted;
        for left in self.world.cri().list_containers().await.unwrap() {
            if left.state() != ContainerState::ContainerCreated {
                continue;
            }
            let started = self.cri().start(&left.id).await;
            let chain = self.world.containerd.ctr().root_file_system(&left.id).await.unwrap();
            match self.images.iter().position(|image| image.chain_id().to_string() == chain) {
                None => refused_with(started, "CS-UNKNOWN-ROOTFS", step),
                // It may be admitted by what is held without a pull, and is then on no record: kubelet creates it again.
                Some(ATTACKED) => {}
                // containerd may be starting it already: the call reached it before the kill.
                Some(_) => assert!(!started.is_err_and(|status| status.message().contains("(CS-")), "round {round}: lost: {left:?}"),
            }
        }
        self.check_refusals(step).await;
        for number in 0..ATTACKED {
            for journey in [ByTag, ByDigest] {
                let ran = if_not_present(self.cri(), &self.pod, &self.name(number, journey)).await;
                let ran = ran.unwrap_or_else(|status| panic!("round {round} {journey:?}: a signed image is lost: {status:?}"));
                assert_eq!(ran.output, line(number) + "\n", "round {round}");
            }
        }
        // containerd 1.6 cannot remove a container whose start was cancelled in its midst, which the kill does.
        self.check_what_ran(CONTAINERS_GO_WITHIN).await;
    }
}

/// One of those who use the node at the same time.
struct Worker {
    cri: Cri,
    direct: Cri,
    pod: Pod,
    faults: Arc<Mutex<Vec<String>>>,
    tag: String,
    printed: String,
}

impl Worker {
    /// Whatever happens to a signed image, it is not refused, unless the daemon or containerd is gone.
    async fn run_signed(self, name: String) {
        loop {
            match self.pull_and_run(&name).await {
                Err(status) if status.message().contains("(CS-") => self.fault(format!("{name} was refused: {status:?}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(()) => {}
            }
        }
    }

    /// The record of this one changes all the time, so that it may be refused; if it runs, it runs the signed files.
    async fn run_attacked(self, id: ImageId) {
        loop {
            let Err(status) = self.run_image(&id.to_string(), &self.tag).await else { continue };
            if ["(CS-NOT-HELD)", "(CS-NOT-PRESENT)"].iter().any(|code| status.message().ends_with(code)) {
                let _ = self.cri.pull(&self.tag).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn run_unsigned(self, name: String, id: ImageId) {
        loop {
            if self.cri.pull(&name).await.is_ok() {
                self.fault(format!("{name} was pulled"));
            }
            if let Ok(created) = self.cri.create(&self.pod, container(&id.to_string(), &self.tag)).await {
                self.fault(format!("{created} was created from an unsigned image"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn pull_and_run(&self, name: &str) -> Result<(), Status> {
        let id = self.cri.pull(name).await?;
        self.run_image(&id, name).await
    }

    async fn run_image(&self, id: &str, name: &str) -> Result<(), Status> {
        let created = self.cri.create(&self.pod, container(id, name)).await?;
        self.cri.start(&created).await?;
        let output = self.cri.first_output(&created).await?;
        if output != self.printed {
            self.fault(format!("{name} printed {output:?}"));
        }
        // One that has not quite ended stays for the end of the round.
        let _ = self.direct.remove(&created).await;
        Ok(())
    }

    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }
}
