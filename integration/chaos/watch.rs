//! Looks on while everything happens: at what runs, whether the gate answers, and what it takes.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_cri::v1::ContainerState;

use super::account::Invariant;
use super::town::Town;
use super::{FDS_AT_MOST, RSS_AT_MOST_KIB};

/// Between two looks.
const LOOKS_EACH: Duration = Duration::from_millis(100);
/// How long the gate may take for a call that it only passes on, on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Looks at every container that runs, once each: its root file system cannot change.
pub(super) async fn what_runs(town: Arc<Town>, stop: Arc<AtomicBool>) {
    let mut seen = HashSet::new();
    while !stop.load(Ordering::Relaxed) {
        look_at_what_runs(&town, &mut seen).await;
        tokio::time::sleep(LOOKS_EACH).await;
    }
}

/// Every container that runs or has run stands on files that are or were signed.
pub(super) async fn look_at_what_runs(town: &Town, seen: &mut HashSet<String>) {
    let Ok(containers) = town.behind.list_containers().await else { return };
    for container in containers {
        if container.state() == ContainerState::ContainerCreated || seen.contains(&container.id) {
            continue;
        }
        let Ok(chain) = town.ctr.root_file_system(&container.id).await else { continue };
        // One that was only made and then stopped has not run.
        let Ok(status) = town.behind.container_status(&container.id).await else { continue };
        town.account.checked("containers that run");
        if status.started_at > 0 && !town.account.is_signed(&chain) {
            town.account.breach(Invariant::OnlySignedRuns, format!("{container:?} runs on {chain}"));
        }
        seen.insert(container.id);
    }
}

/// Calls that are only passed on are answered whenever gate and containerd are up.
pub(super) async fn whether_it_answers(town: Arc<Town>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let (weather, began) = (town.account.weather(), Instant::now());
        let answer = tokio::time::timeout(ANSWERS_WITHIN, town.cri.version()).await;
        if weather.lasted_until(town.account.weather()) {
            town.account.checked("answers in settled weather");
            if !matches!(answer, Ok(Ok(_))) {
                town.account.breach(Invariant::TheGateAnswers, format!("Version after {:?}: {answer:?}", began.elapsed()));
            }
        }
        tokio::time::sleep(LOOKS_EACH).await;
    }
}

/// What the process takes. `pid` is the file that the harness writes at each start.
pub(super) async fn what_it_takes(town: Arc<Town>, pid: PathBuf, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOKS_EACH).await;
        let Some((rss, fds)) = fs::read_to_string(&pid).ok().and_then(|pid| taken_by(&pid)) else { continue };
        town.account.highest("memory at most, KiB", rss);
        town.account.highest("descriptors at most", fds);
        if rss > RSS_AT_MOST_KIB {
            town.account.breach(Invariant::TheGateAnswers, format!("the gate takes {rss} KiB"));
        }
        if fds > FDS_AT_MOST {
            town.account.breach(Invariant::TheGateAnswers, format!("the gate has {fds} descriptors open"));
        }
    }
}

/// Resident memory in KiB and open descriptors of a process, while it is there.
pub(super) fn taken_by(pid: &str) -> Option<(usize, usize)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some((rss.trim().trim_end_matches(" kB").parse().ok()?, fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
}
