//! The steps: what is done, what must happen, and what does.

use std::time::Duration;

use tonic::{Code, Status};

use super::super::harness::cri::{Cri, container};
use super::super::harness::gate::Gate;
use super::super::harness::image::Image;
use super::show::{Outcome, Step};
use super::{EVIL, LATER, SIGNED, Stage, signed_image, signed_line};

/// How long a line may take to come into the daemon's log.
const LOGGED_WITHIN: Duration = Duration::from_secs(2);

/// What the steps are about, in their order.
pub(super) fn all(stage: &Stage) -> Vec<Step> {
    let app = |tag: &str| stage.app(tag);
    let run = |tag: &str| format!("crictl run --with-pull container.json pod.json     # image: {}", app(tag));
    let create = |tag: &str| format!("crictl create POD container.json pod.json          # image: {}", app(tag));
    let prints = |tag: &str| format!("The image is pulled, and its container prints \"{}\".", signed_line(tag));
    vec![
        Step { title: "A signed image is pulled and runs", done: vec![run("1.0")], expected: prints("1.0") },
        Step {
            title: "An image that nobody signed is refused",
            done: vec![format!("crictl pull {}", app("2.0"))],
            expected: "The pull is refused before containerd is asked, and the pod's owner is told why.".to_owned(),
        },
        Step {
            title: "A tag that was moved after it was signed runs what was signed",
            done: vec![
                "Somebody who may push makes the tag 3.0 lead to what 2.0 is:".to_owned(),
                format!("skopeo copy docker://{} docker://{}", app("2.0"), app("3.0")),
                run("3.0"),
            ],
            expected: format!("{} The image that the tag leads to now would print \"{EVIL}\".", prints("3.0")),
        },
        Step {
            title: "An image that was slipped in under a trusted name is refused",
            done: vec![
                format!("An archive of the unsigned image calls itself {}:", app("1.0")),
                "ctr --namespace k8s.io images import evil.tar".to_owned(),
                create("1.0"),
            ],
            expected: "kubelet finds the image present and does not pull. The container is refused all the same, and the name is \
                       taken from the wrong image, so that kubelet's next try pulls the signed one and runs it."
                .to_owned(),
        },
        Step {
            title: "A name that leads to other files, behind the gate's back, is caught before a container is made",
            done: vec![
                format!("Whoever has containerd's socket makes {} lead to the unsigned image, and does it", app("5.0")),
                "so that the part of containerd that kubelet asks does not notice.".to_owned(),
                create("5.0"),
            ],
            expected: "The container is refused, and none is made. Without the gate it would run the other image's files.".to_owned(),
        },
        Step {
            title: "The same, done between the look and the create, is caught after the container is made",
            done: vec![
                create("6.0"),
                "The name is found good, the call is on its way to containerd, and only now the name is made to lead elsewhere.".to_owned(),
            ],
            expected: "containerd makes the container from the other files. It is compared, refused, and removed.".to_owned(),
        },
        Step {
            title: "In permissive mode the same attack is let pass, and written down",
            done: vec![
                "mode = \"permissive\" in config.toml, and systemctl restart countersign".to_owned(),
                format!("As in step 5, with {}.", app("7.0")),
            ],
            expected: format!("The container runs and prints \"{EVIL}\". The daemon's log says what enforced mode would have refused."),
        },
        Step {
            title: "Without the notary server, what the node holds goes on; of the rest nothing can be told now",
            done: vec![
                "mode = \"enforced\" again, and the notary server is stopped.".to_owned(),
                run("1.0"),
                format!("crictl pull {}:1.0     # signed, but new to this node", stage.world.gun(LATER)),
            ],
            expected: "1.0 runs. The other is not refused as bad: kubelet shows that a server is unavailable, and tries again.".to_owned(),
        },
    ]
}

impl Stage {
    /// Does what the step of this number is about.
    pub(super) async fn play(&mut self, number: usize) -> Outcome {
        match number {
            1 => self.runs_signed("1.0").await,
            2 => refused(self.cri().pull(&self.app("2.0")).await, "CS-TAG-NOT-SIGNED", |status| {
                as_kubelet_shows_pull(&self.app("2.0"), status)
            }),
            3 => self.moved_tag("3.0").await,
            4 => self.slipped_in("1.0").await,
            5 => self.retargeted_before("5.0").await,
            6 => self.retargeted_between("6.0").await,
            7 => self.permissive("7.0").await,
            8 => self.without_notary_server().await,
            _ => Err(vec!["there is no such step".to_owned()]),
        }
    }

    fn gate(&mut self) -> &mut Gate {
        self.world.gate.as_mut().expect("the gate was started")
    }

    fn cri(&self) -> &Cri {
        self.world.gate.as_ref().expect("the gate was started").cri()
    }

    /// Pulls a tag and runs it.
    async fn runs_signed(&self, tag: &str) -> Outcome {
        let id = self.cri().pull(&self.app(tag)).await.map_err(unexpected)?;
        let ran = self.cri().run_image(&self.pod, &id, &self.app(tag)).await.map_err(unexpected)?;
        printed(&ran.output, &signed_line(tag))
    }

    async fn moved_tag(&self, tag: &str) -> Outcome {
        let repository = super::APP;
        self.world.registry.push_manifest(self.evil.top(), repository, tag).await;
        self.runs_signed(tag).await
    }

    async fn slipped_in(&self, tag: &str) -> Outcome {
        let name = self.app(tag);
        self.world.containerd.ctr().import(&self.evil, &name).await;
        // kubelet: what does the name mean? It is there, so it is not pulled.
        let id = self.cri().image_status(&name).await.map_err(unexpected)?.map(|image| image.id).unwrap_or_default();
        if id != self.evil.id().to_string() {
            return Err(vec![format!("The image that {name} means on this node is {id}, and not the one that was slipped in.")]);
        }
        let mut happened = self.create_is_refused(tag, &id, "CS-RECORD-DROPPED").await?;
        happened.extend(self.runs_signed(tag).await?);
        Ok(happened)
    }

    async fn retargeted_before(&self, tag: &str) -> Outcome {
        let id = self.retarget_unseen(tag, &self.evil).await?;
        self.create_is_refused(tag, &id, "CS-OTHER-RECORD").await
    }

    async fn retargeted_between(&self, tag: &str) -> Outcome {
        let (ctr, name, evil) = (self.world.containerd.ctr(), self.app(tag), self.evil.top().clone());
        let id = self.retarget_unseen(tag, &signed_image(tag)).await?;
        let (config, record) = (container(&id, &name), name.clone());
        let marker = config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
        self.relay.before(&marker, async move {
            let _ = ctr.retarget(&record, &evil).await;
        });
        let created = self.cri().create(&self.pod, config).await;
        if self.relay.is_waiting() {
            return Err(vec!["The create was never sent to containerd, so nothing was made that could be caught.".to_owned()]);
        }
        let mut happened = refused(created, "CS-OTHER-ROOTFS", as_kubelet_shows_create)?;
        happened.push(self.no_container_of(&marker).await?);
        Ok(happened)
    }

    async fn permissive(&mut self, tag: &str) -> Outcome {
        let configuration = self.configuration.clone().mode("permissive");
        self.gate().configure(&configuration);
        self.gate().restart().await;
        let (id, name) = (self.retarget_unseen(tag, &self.evil).await?, self.app(tag));
        let ran = self.cri().run_image(&self.pod, &id, &name).await.map_err(unexpected)?;
        let mut happened = printed(&ran.output, EVIL)?;
        let refusal = format!("image=\"{name}\" code=\"CS-OTHER-RECORD\"");
        let Some(line) = self.gate().logged(&refusal, LOGGED_WITHIN).await else {
            happened.push("Nothing about it stands in the daemon's log.".to_owned());
            return Err(happened);
        };
        let was_let_pass = line.contains("let pass: mode is permissive");
        happened.push(format!("journalctl --unit countersign: {line}"));
        if was_let_pass { Ok(happened) } else { Err(happened) }
    }

    async fn without_notary_server(&mut self) -> Outcome {
        let configuration = self.configuration.clone();
        self.gate().configure(&configuration);
        self.gate().restart().await;
        self.world.notary.server.stop();
        let mut happened = self.runs_signed(SIGNED[0]).await?;
        let later = format!("{}:1.0", self.world.gun(LATER));
        let Err(status) = self.cri().pull(&later).await else {
            happened.push(format!("{later} was let through."));
            return Err(happened);
        };
        happened.extend(as_kubelet_shows_pull(&later, &status));
        if status.code() == Code::Unknown && status.message().starts_with("RegistryUnavailable: ") { Ok(happened) } else { Err(happened) }
    }

    /// Pulls a tag and makes its record lead to `target`, while CRI goes on to take the name for what it was for some
    /// seconds. Gives back the image ID that kubelet goes on with.
    async fn retarget_unseen(&self, tag: &str, target: &Image) -> Result<String, Vec<String>> {
        let (ctr, name) = (self.world.containerd.ctr(), self.app(tag));
        ctr.import(&self.evil, "example.com/evil:1").await;
        let id = self.cri().pull(&name).await.map_err(unexpected)?;
        self.world.containerd.blind_cri(&name).await.map_err(unexpected)?;
        ctr.retarget(&name, target.top()).await.map_err(unexpected)?;
        Ok(id)
    }

    async fn create_is_refused(&self, tag: &str, id: &str, code: &str) -> Outcome {
        let config = container(id, &self.app(tag));
        let name = config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
        let mut happened = refused(self.cri().create(&self.pod, config).await, code, as_kubelet_shows_create)?;
        happened.push(self.no_container_of(&name).await?);
        Ok(happened)
    }

    /// Asks containerd itself.
    async fn no_container_of(&self, name: &str) -> Result<String, Vec<String>> {
        let containers = self.world.cri().list_containers().await.map_err(unexpected)?;
        let left = containers.iter().find(|container| container.metadata.as_ref().is_some_and(|metadata| metadata.name == name));
        match left {
            None => Ok("crictl ps --all, asked of containerd itself: there is no such container.".to_owned()),
            Some(left) => Err(vec![format!("The container is still there: {}", left.id)]),
        }
    }
}

fn printed(output: &str, expected: &str) -> Outcome {
    let happened = vec![format!("The container ran and printed \"{}\".", output.trim_end())];
    if output.trim_end() == expected { Ok(happened) } else { Err(happened) }
}

fn unexpected(status: Status) -> Vec<String> {
    vec![format!("It failed ({:?}): {}", status.code(), status.message())]
}

/// A refusal counts only with the reason that is meant.
fn refused<T>(answer: Result<T, Status>, code: &str, shown: impl Fn(&Status) -> Vec<String>) -> Outcome {
    let Err(status) = answer else { return Err(vec!["It was let through.".to_owned()]) };
    let happened = shown(&status);
    let meant = status.code() == Code::Unknown && status.message().ends_with(&format!("({code})"));
    if meant { Ok(happened) } else { Err(happened) }
}

/// What a pod's owner sees of a failed pull. kubelet knows the two words only in an error of the code Unknown.
fn as_kubelet_shows_pull(image: &str, status: &Status) -> Vec<String> {
    let known = ["SignatureValidationFailed", "RegistryUnavailable"]
        .into_iter()
        .find(|word| status.code() == Code::Unknown && status.message().starts_with(&format!("{word}: ")));
    vec![
        format!("kubectl get pod:       STATUS {}", known.unwrap_or("ErrImagePull")),
        format!("kubectl describe pod:  Warning  Failed  Failed to pull image \"{image}\": {}", status.message()),
    ]
}

fn as_kubelet_shows_create(status: &Status) -> Vec<String> {
    vec![
        "kubectl get pod:       STATUS CreateContainerError".to_owned(),
        format!("kubectl describe pod:  Warning  Failed  Error: {}", status.message()),
    ]
}
