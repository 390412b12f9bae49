//! Services that go on: what ran before its image was enforced is taken down, once, when a configuration enforces it first, or
//! when an operator says so.

use countersign_trust::name::shown;

use super::Watch;
use super::consider::{Known, asked_of};
use super::follow::Round;
use crate::admit::{Asked, Grandfathered, Ran, Refusal, Standing, chain};
use crate::containerd::{Listed, NAMESPACE};

/// What an operator wants taken down.
#[derive(Debug, Clone)]
pub struct TakeOrder {
    /// Only pods of this namespace.
    pub namespace: Option<String>,
    /// From when on they are like any other, in seconds since the Unix epoch.
    pub until: i64,
    /// Who, as the caller said.
    pub by: String,
    /// Why.
    pub reason: String,
    /// It is only to be told what would be taken down.
    pub is_trial: bool,
}

/// What was taken down, and what was not.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Services that go on.
    pub services: Vec<Grandfathered>,
    /// Containers that run without valid evidence and were left out: namespace, pod and container, and why.
    pub left_out: Vec<(String, String)>,
}

/// What stands on record as the author of what is taken down by itself.
const BY_ITSELF: &str = "countersign: it was let pass before its image was enforced";

impl Watch {
    /// When the configuration says of modes what none before it said: takes down what was let pass through the gate, still
    /// exists, is enforced from now on and has no valid evidence.
    pub(super) async fn note_modes(&self, round: &Round, listed: &[Listed], known: &Known) {
        if !self.admit.modes_are_new() {
            return;
        }
        let recorded = match self.let_pass_before(round, listed, known).await {
            Ok(services) => self.admit.record_modes(services).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = recorded {
            tracing::error!(
                code = refusal.code(),
                reason = %refusal,
                "it could not be taken down which services go on under the new configuration; that is tried again"
            );
        }
    }

    async fn let_pass_before(&self, round: &Round, listed: &[Listed], known: &Known) -> Result<Vec<Grandfathered>, Refusal> {
        let (Some(length), Some(now)) = (self.admit.grandfather_for(), self.now()) else { return Ok(Vec::new()) };
        let until = now.saturating_add_unsigned(length.as_secs());
        let mut services = Vec::new();
        for listed in listed {
            let Some(asked) = round.book.asked_for(&listed.id) else { continue };
            if !asked.was_let_pass
                || !self.admit.is_first_enforced(asked, self.knows_volumes(&listed.id, asked, listed.may_show_images).await)
            {
                continue;
            }
            let Some(ran) = ran(listed, known, asked) else { continue };
            if self.admit.judge_running(&listed.id, asked, Some(ran.image_id)).await.is_ok() {
                continue;
            }
            match self.admit.take_down(&ran, until, BY_ITSELF).await {
                Ok(service) => {
                    tracing::warn!(
                        namespace = shown(&ran.namespace),
                        pod = shown(&ran.pod),
                        container = shown(&ran.workload.container),
                        image = shown(&ran.image),
                        "this service goes on for a while: it was let pass before its image was enforced"
                    );
                    services.push(service);
                }
                // Asked again, with everything else.
                Err(refusal) if is_to_be_asked_again(&refusal) => return Err(refusal),
                Err(refusal) => tracing::warn!(container = shown(&listed.id), code = refusal.code(), reason = %refusal,
                    "a container that was let pass before its image was enforced cannot be made again"),
            }
        }
        Ok(services)
    }

    /// Takes down what runs without valid evidence, because an operator says so. What came past the gate is left out.
    pub(super) async fn take_for_operator(&self, round: &mut Round, order: &TakeOrder) -> Result<Taken, Refusal> {
        let asked = async { tokio::try_join!(self.known(), self.containerd.containers_of(NAMESPACE)) };
        let (known, listed) = asked.await.map_err(|error| Refusal::Containerd { error: error.into() })?;
        let by = format!("{}: {}", order.by, order.reason);
        let mut taken = Taken::default();
        for listed in &listed {
            let came_through = self.came_through(round, &listed.id);
            let (asked, _) = round.asked_of(listed, &known);
            let Some(ran) = ran(listed, &known, &asked).filter(|ran| order.namespace.as_ref().is_none_or(|only| *only == ran.namespace))
            else {
                continue;
            };
            if !known.containers.get(&listed.id).is_some_and(|container| container.is_running) {
                continue;
            }
            let came_past = listed.made_at.seconds > round.book.since() && !came_through;
            if self.admit.judge_running(&listed.id, &asked, Some(ran.image_id)).await.is_ok() {
                continue;
            }
            let service = if came_past { Err("it came past the gate".to_owned()) } else { self.take_one(&ran, order.until, &by).await };
            match service {
                Ok(service) => taken.services.push(service),
                Err(why) => taken.left_out.push((place(&ran), why)),
            }
        }
        if !order.is_trial && !taken.services.is_empty() {
            self.admit.grandfather(taken.services.clone(), order.by.clone(), order.reason.clone()).await?;
        }
        Ok(taken)
    }

    async fn take_one(&self, ran: &Ran, until: i64, by: &str) -> Result<Grandfathered, String> {
        self.admit.take_down(ran, until, by).await.map_err(|refusal| format!("{} ({})", chain(&refusal), refusal.code()))
    }
}

fn place(ran: &Ran) -> String {
    format!("{}/{}/{}", shown(&ran.namespace), shown(&ran.pod), shown(&ran.workload.container))
}

/// A container of a pod, as CRI knows it, and for what it was made. None: it is of no pod, or CRI
/// does not tell of which image.
fn ran(listed: &Listed, known: &Known, asked: &Asked) -> Option<Ran> {
    let pod = known.pod_of(&listed.id)?;
    let (said, image_id) = asked_of(listed, known);
    Some(Ran {
        container_id: listed.id.clone(),
        workload: said.workload?,
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        image: said.image,
        image_id: image_id?,
        asked: asked.clone(),
    })
}

/// Whether it could not be found out just now what a container runs.
fn is_to_be_asked_again(refusal: &Refusal) -> bool {
    let cannot_tell = match refusal.standing() {
        Standing::CannotTellNow | Standing::ContainerdAway => true,
        Standing::Denied | Standing::NotThere => false,
    };
    cannot_tell || matches!(refusal, Refusal::Containerd { .. } | Refusal::Clock(_))
}
