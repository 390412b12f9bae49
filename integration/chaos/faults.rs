//! Faults, one after the other and within each other: processes that are killed, servers that fail, a full disk, clocks,
//! configurations.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::account::{Account, Invariant};
use super::after::not_met;
use super::dice::Dice;
use super::town::Town;
use super::{Plan, TAGS, VERSIONS};
use crate::harness::containerd::Containerd;
use crate::harness::faulty::{Answer, FaultyServer};
use crate::harness::gate::{Gate, GateConfig};
use crate::harness::signer::Signer;
use crate::ledger::fill;
use crate::verify::countersign;

const CLOCK: &str = "COUNTERSIGN_CLOCK_OFFSET";
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Beyond the end of every root, which the client makes for ten years.
const FAR_AHEAD_DAYS: i64 = 20 * 365;
/// Before this binary was built.
const BEHIND_DAYS: i64 = -20 * 365;
/// Until a gate that starts is killed: some are killed before it listens, some after.
const STARTING: Duration = Duration::from_millis(80);
/// How many times as long a run may take that has met too little.
const MOST_TIMES: u32 = 10;
/// How long a gate may take to end that finds no configuration to go on with.
const REFUSES_WITHIN: Duration = Duration::from_secs(3);
/// How long the gate may need to keep the configuration when there is room again: it tries every 5 s.
const KEEPS_WITHIN: Duration = Duration::from_secs(15);
/// The file that takes all the room on the disk.
const FILLER: &str = "filler";

/// What can be done to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillGate,
    KillStartingGate,
    KillContainerd,
    FullDisk,
    FullDiskFromTheStart,
    NotarySilent,
    NotaryRefuses,
    NotarySlow,
    NotaryBusy,
    NotaryGarbage,
    ClockFarAhead,
    ClockDayAhead,
    ClockBehind,
    ReloadGood,
    ReloadBad,
    SignerRemoved,
}

pub(super) const FAULTS: [Fault; 16] = [
    Fault::KillGate,
    Fault::KillStartingGate,
    Fault::KillContainerd,
    Fault::FullDisk,
    Fault::FullDiskFromTheStart,
    Fault::NotarySilent,
    Fault::NotaryRefuses,
    Fault::NotarySlow,
    Fault::NotaryBusy,
    Fault::NotaryGarbage,
    Fault::ClockFarAhead,
    Fault::ClockDayAhead,
    Fault::ClockBehind,
    Fault::ReloadGood,
    Fault::ReloadBad,
    Fault::SignerRemoved,
];

impl Fault {
    const fn moves_the_clock(self) -> bool {
        matches!(self, Self::ClockFarAhead | Self::ClockDayAhead | Self::ClockBehind)
    }

    const fn fills_the_disk(self) -> bool {
        matches!(self, Self::FullDisk | Self::FullDiskFromTheStart)
    }

    /// Whether the two cannot be at the same time: one clock, one file that fills the disk, and where it is full, a clock that
    /// was wrong cannot be taken back.
    const fn excludes(self, other: Self) -> bool {
        let (clock, disk) = (self.moves_the_clock(), self.fills_the_disk());
        (clock && (other.moves_the_clock() || other.fills_the_disk())) || (disk && (other.moves_the_clock() || other.fills_the_disk()))
    }

    /// Whether the gate ends for it.
    const fn ends_the_gate(self) -> bool {
        self.moves_the_clock() || matches!(self, Self::KillGate | Self::KillStartingGate | Self::FullDiskFromTheStart)
    }
}

/// Who makes the faults, and mends them.
pub(super) struct Trouble<'a> {
    pub(super) town: &'a Town,
    pub(super) dice: Dice,
    pub(super) plan: &'a Plan,
    pub(super) gate: &'a mut Gate,
    pub(super) containerd: &'a mut Containerd,
    pub(super) front: &'a mut FaultyServer,
    pub(super) good: &'a GateConfig,
    pub(super) without_signer: &'a GateConfig,
    /// What the configuration file should say now.
    pub(super) current: GateConfig,
    /// Faults that last, and have begun.
    pub(super) open: Vec<Fault>,
    /// When the disk had room again.
    pub(super) room_since: Option<Instant>,
}

impl Trouble<'_> {
    const fn account(&self) -> &Account {
        &self.town.account
    }

    /// Every fault once, and then by chance. The gate is let live at the end, so that what it loses adds up.
    pub(super) async fn make(&mut self) {
        let began = Instant::now();
        let mut first = self.dice.shuffled(&FAULTS);
        // On a busy machine less happens in the same time.
        let (town, plan) = (self.town, self.plan);
        let too_little = || began.elapsed() < MOST_TIMES * plan.run && !not_met(&town.account, plan).is_empty();
        while began.elapsed() < self.plan.run || !first.is_empty() || too_little() {
            let [least, most] = self.plan.between_faults;
            tokio::time::sleep(self.dice.between(least, most)).await;
            if let Some(fault) = first.pop() {
                self.happens(fault).await;
                continue;
            }
            let fault = *self.dice.pick(&FAULTS);
            if fault.ends_the_gate() && began.elapsed() > self.plan.run * 4 / 5 {
                continue;
            }
            self.happens(fault).await;
        }
    }

    fn happens(&mut self, fault: Fault) -> BoxFuture<'_, ()> {
        async move {
            if self.open.iter().any(|open| *open == fault || open.excludes(fault)) {
                return;
            }
            self.account().fault(format!("{fault:?}"));
            match fault {
                Fault::KillGate => self.kill_gate(Duration::ZERO).await,
                Fault::KillStartingGate => self.kill_gate(STARTING).await,
                Fault::KillContainerd => self.kill_containerd().await,
                Fault::ReloadGood => self.reload(0, &[]).await,
                Fault::ReloadBad => self.reload_bad().await,
                Fault::FullDisk | Fault::FullDiskFromTheStart | Fault::SignerRemoved => self.lasts(fault).await,
                Fault::NotarySilent | Fault::NotaryRefuses | Fault::NotarySlow | Fault::NotaryBusy | Fault::NotaryGarbage => {
                    self.lasts(fault).await
                }
                Fault::ClockFarAhead | Fault::ClockDayAhead | Fault::ClockBehind => self.lasts(fault).await,
            }
        }
        .boxed()
    }

    /// Begins, lasts a while in which another fault may happen, and ends.
    async fn lasts(&mut self, fault: Fault) {
        self.open.push(fault);
        self.begin(fault).await;
        let [least, most] = self.plan.faults_last;
        tokio::time::sleep(self.dice.between(least, most)).await;
        if fault == Fault::NotarySilent {
            tokio::time::sleep(self.plan.silence).await;
        }
        if self.open.len() < 3 && self.dice.once_in(2) {
            let within = *self.dice.pick(&FAULTS);
            self.happens(within).await;
            tokio::time::sleep(self.dice.between(least, most) / 2).await;
        }
        self.end(fault).await;
        self.open.retain(|open| *open != fault);
    }

    async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::FullDisk => self.fill_disk().await,
            Fault::FullDiskFromTheStart => self.begin_on_full_disk().await,
            Fault::NotarySilent => self.front.answer("", Answer::Silence),
            Fault::NotaryRefuses => self.front.stop(),
            Fault::NotarySlow => self.front.answer("", Answer::Later(Duration::from_millis(700))),
            Fault::NotaryBusy => self.front.answer("", Answer::status(503)),
            Fault::NotaryGarbage => self.front.answer("", Answer::html()),
            Fault::ClockFarAhead => self.move_clock(Some(FAR_AHEAD_DAYS)).await,
            Fault::ClockDayAhead => self.move_clock(Some(1)).await,
            Fault::ClockBehind => self.move_clock(Some(BEHIND_DAYS)).await,
            Fault::SignerRemoved => self.change_signer(true).await,
            Fault::KillGate | Fault::KillStartingGate | Fault::KillContainerd | Fault::ReloadGood | Fault::ReloadBad => {}
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::FullDisk | Fault::FullDiskFromTheStart => {
                fs::remove_file(self.gate.state().join(FILLER)).unwrap();
                self.room_since = Some(Instant::now());
            }
            Fault::NotarySilent | Fault::NotarySlow | Fault::NotaryBusy | Fault::NotaryGarbage => self.front.mend(),
            Fault::NotaryRefuses => self.front.start().await,
            Fault::ClockFarAhead | Fault::ClockDayAhead | Fault::ClockBehind => {
                self.move_clock(None).await;
                self.reset_clock().await;
            }
            Fault::SignerRemoved => self.change_signer(false).await,
            Fault::KillGate | Fault::KillStartingGate | Fault::KillContainerd | Fault::ReloadGood | Fault::ReloadBad => {}
        }
    }

    async fn fill_disk(&self) {
        let filler = self.gate.state().join(FILLER);
        tokio::task::spawn_blocking(move || fill(&filler)).await.unwrap();
    }

    /// A new node, whose disk is full: there is no ledger, and none can be made. What a ledger has can still hold more.
    async fn begin_on_full_disk(&mut self) {
        self.account().unsettled();
        self.gate.kill();
        for entry in fs::read_dir(self.gate.state()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        self.fill_disk().await;
        self.gate.start_again().await;
        self.account().settled(|_| {});
    }

    /// `kill -9`, and once more while it starts.
    async fn kill_gate(&mut self, starting: Duration) {
        self.account().unsettled();
        self.gate.kill();
        if !starting.is_zero() {
            self.gate.server.spawn();
            let moment = self.dice.between(Duration::ZERO, starting);
            tokio::time::sleep(moment).await;
            self.gate.kill();
        }
        self.gate.start_again().await;
        self.account().settled(|_| {});
    }

    async fn kill_containerd(&mut self) {
        self.account().unsettled();
        self.account().containerd_goes();
        self.containerd.crash_and_restart().await;
        self.gate.cri().ready().await;
        self.account().containerd_is_back();
        self.account().settled(|_| {});
    }

    async fn move_clock(&mut self, days: Option<i64>) {
        self.account().unsettled();
        self.gate.kill();
        match days {
            Some(days) => self.gate.server.set_env(CLOCK, (days * DAY_SECONDS).to_string()),
            None => self.gate.server.unset_env(CLOCK),
        }
        self.gate.start_again().await;
        self.account().settled(|weather| weather.clock_ahead = days == Some(FAR_AHEAD_DAYS));
    }

    /// What an operator does when a clock was wrong.
    pub(super) async fn reset_clock(&self) {
        let config = self.gate.configuration().to_str().unwrap();
        let (exit, out, err) = countersign(&["reset", "--clock", "--reason", "the clock was wrong", "--config", config]).await;
        if exit != Some(0) {
            self.account().breach(Invariant::NothingSignedIsLost, format!("the clock could not be reset: {exit:?} {out}{err}"));
        }
    }

    /// Puts the file in force, and sees that it ends as it must. Where the disk is full it may fail, too, and changes nothing.
    async fn reload(&mut self, expected: i32, also: &[i32]) {
        let _ = self.reloads(expected, also).await;
    }

    async fn reloads(&mut self, expected: i32, also: &[i32]) -> bool {
        let config = self.gate.configuration().to_str().unwrap().to_owned();
        let (exit, out, err) = countersign(&["reload", "--config", &config]).await;
        let ended = exit.is_some_and(|exit| exit == expected || also.contains(&exit));
        if !ended {
            let open = &self.open;
            self.account().breach(Invariant::TheGateAnswers, format!("reload ended with {exit:?}, not {expected} ({open:?}): {out}{err}"));
        }
        exit == Some(0)
    }

    async fn change_signer(&mut self, gone: bool) {
        self.account().unsettled();
        let before = self.current.clone();
        self.current = if gone { self.without_signer.clone() } else { self.good.clone() };
        self.gate.configure(&self.current);
        let in_force = self.reloads(0, &[]).await;
        if !in_force {
            self.current = before;
            self.gate.configure(&self.current);
        }
        self.account().settled(|weather| weather.signer_gone = if in_force { gone } else { weather.signer_gone });
    }

    /// A bad file changes nothing, not even when the gate is killed while it is there.
    async fn reload_bad(&mut self) {
        let file = self.gate.configuration().to_owned();
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{good}\n[nonsense]\nkey = 1\n")).unwrap();
        self.reload(2, &[]).await;
        if self.dice.once_in(2) {
            self.account().fault("KillGate with a bad configuration");
            self.account().unsettled();
            self.gate.kill();
            self.gate.server.spawn();
            let may_lack =
                self.open.iter().any(|open| open.fills_the_disk()) || self.room_since.is_some_and(|since| since.elapsed() < KEEPS_WITHIN);
            if may_lack && self.gate.server.ended(REFUSES_WITHIN).await.is_some() {
                // What was in force could not be kept, so that there is nothing to go on with.
                self.account().fault("no start with a bad configuration");
                fs::write(&file, &good).unwrap();
            }
            self.gate.start_again().await;
            self.account().settled(|_| {});
        }
        fs::write(&file, good).unwrap();
        self.reload(0, &[]).await;
    }

    /// Everything is well again.
    pub(super) async fn heal(&mut self) {
        self.front.mend();
        // Requests that are never answered end with their connections.
        self.front.start().await;
    }
}

/// Signs other content for tags, all the time, with the real client and past the faults.
pub(super) async fn sign_anew(town: &Town, admin: &Signer, mut dice: Dice, stop: &std::sync::atomic::AtomicBool) -> Vec<usize> {
    let mut versions = vec![0; TAGS];
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        tokio::time::sleep(dice.between(Duration::from_millis(200), Duration::from_secs(2))).await;
        let (tag, version) = (dice.below(TAGS), dice.below(VERSIONS));
        let image = &town.images[tag][version];
        town.account.signed(image.chain_id().to_string());
        admin.sign(&town.moving, &tag.to_string(), image).await;
        versions[tag] = version;
        town.account.fault("tag signed for other content");
    }
    versions
}
