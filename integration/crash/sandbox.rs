//! `kill -9` within RunPodSandbox.

use k8s_cri::v1::{ListPodSandboxRequest, PodSandbox, PodSandboxState};

use super::*;
use crate::harness::world::sandbox;

impl Node {
    /// Under which name containerd has the image of sandboxes.
    fn sandbox_record(&self) -> String {
        format!("{}:3.10", self.world.gun("pause"))
    }

    /// Asks for a sandbox whose image's record leads to the unsigned image, at once or when everything was looked at.
    pub(super) async fn drive_sandbox(&self, journey: Journey) -> Result<(), Status> {
        let (config, ctr) = (self.asked.clone().unwrap(), self.world.containerd.ctr());
        let (record, evil) = (self.sandbox_record(), self.evil.top().clone());
        if journey == SwitchedSandbox {
            let strike = async move { ctr.retarget(&record, &evil).await.unwrap() };
            self.relay.before(&config.metadata.as_ref().unwrap().uid, strike);
        } else {
            ctr.retarget(&record, &evil).await.unwrap();
        }
        self.cri().run_pod(config).await.map(drop)
    }

    /// All but the one that was made first.
    async fn sandboxes(&self) -> Vec<PodSandbox> {
        let list = self.world.cri().runtime().list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
        list.items.into_iter().filter(|sandbox| sandbox.id != self.pod.id).collect()
    }

    async fn is_verified(&self, sandbox_id: &str) -> bool {
        self.world.containerd.ctr().root_file_system(sandbox_id).await.unwrap() == sandbox().chain_id().to_string()
    }

    pub(super) async fn check_sandboxes(&self, step: Step, journey: Journey) {
        let left = self.sandboxes().await;
        let expected = match journey {
            FirstStart | ByTag | ByDigest | TakenTag | RefusedTwin | Switched => 0,
            // Between them are the steps of the pull that moves the tag.
            TakenSandbox => usize::from(matches!(step, Step::SandboxMade | Step::SandboxChecked)),
            SwitchedSandbox => usize::from(step < Step::SandboxRemoved),
        };
        assert_eq!(left.len(), expected, "{step:?}: {left:?}");
        for left in left {
            assert_eq!(self.is_verified(&left.id).await, journey == TakenSandbox, "{step:?}: the situation is what it is meant to be");
        }
    }

    /// As kubelet, which goes on with a sandbox of the pod that is ready, whoever answered for it, and else makes another.
    async fn pod_as_kubelet(&self, config: &PodSandboxConfig) -> Pod {
        let left = self.sandboxes().await;
        if let Some(ready) = left.iter().find(|sandbox| sandbox.state() == PodSandboxState::SandboxReady) {
            return Pod { id: ready.id.clone(), config: config.clone() };
        }
        let mut config = config.clone();
        config.metadata.as_mut().unwrap().attempt += u32::try_from(left.len()).unwrap();
        self.cri().run_pod(config).await.unwrap_or_else(|status| panic!("the retry is refused: {status:?}"))
    }

    /// kubelet tries the pod again: it runs, on a verified sandbox.
    pub(super) async fn recover_sandbox(&self, step: Step, journey: Journey, number: usize) {
        if !matches!(journey, TakenSandbox | SwitchedSandbox) {
            return;
        }
        let (config, name) = (self.asked.clone().unwrap(), self.tag(number));
        let id = self.cri().pull(&name).await.unwrap();
        let mut pod = self.pod_as_kubelet(&config).await;
        if !self.is_verified(&pod.id).await {
            assert!(matches!(step, Step::SandboxMade | Step::SandboxRefused), "{step:?}: a sandbox runs on an unverified image");
            refused_with(self.cri().create(&pod, container(&id, &name)).await, "CS-OTHER-ROOTFS", step);
            // Else kubelet would go on with it for ever.
            assert!(self.sandboxes().await.iter().all(|left| left.id != pod.id), "{step:?}: it is removed");
            pod = self.pod_as_kubelet(&config).await;
        }
        assert!(self.is_verified(&pod.id).await, "{step:?}");
        let ran = self.cri().run_image(&pod, &id, &name).await;
        let ran = ran.unwrap_or_else(|status| panic!("{step:?} {journey:?}: a pod is lost: {status:?}"));
        assert_eq!(ran.output, line(number) + "\n", "{step:?}");
        assert!(self.stands_on_signed(&ran.container).await, "{step:?}");
        // containerd refuses to stop what is just ending; kubelet asks again.
        let deadline = Instant::now() + ENDS_WITHIN;
        for left in self.sandboxes().await {
            let left = Pod { id: left.id, config: config.clone() };
            while let Err(status) = self.cri().remove_pod(&left).await {
                assert!(Instant::now() < deadline, "{step:?}: {status:?}");
                tokio::time::sleep(LOOKS_EACH).await;
            }
        }
    }
}
