//! `countersign verify` against the reference client's `notary lookup`: whole processes, taking turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::Must as _;
use crate::harness::process::text;
use crate::harness::world::World;
use crate::report::{Goal, Report};
use crate::samples::{P50, Samples};
use crate::{MILLISECONDS, Scale, far};

/// The part of `notary lookup`'s time that `countersign verify` may take: with nothing held, the same with a server that is
/// far away, where round trips are what counts, and with held evidence, where only freshness is asked for.
const COLD_PART: f64 = 0.35;
const FAR_PART: f64 = 0.6;
const WARM_PART: f64 = 0.3;

/// Measures both, with what they remember and without.
pub(crate) fn measure(report: &mut Report, scale: &Scale, world: &World, binary: &Path, repository: &str, tag: &str) {
    crate::say("countersign verify against notary lookup: cold, warm, and with the daemon");
    let gate = world.gate.as_ref().must("finding the gate");
    let image = format!("{}:{tag}", world.gun(repository));
    let alone = Alone::new(world);
    let warm_alone = alone.configuration("warm");
    let verify = |configuration: &Path| {
        let mut command = Command::new(binary);
        command.args(["verify", &image, "--config"]).arg(configuration);
        command
    };
    let lookup = |person: &str| {
        let words = world.notary.signer(person).lookup_command(&world.gun(repository), tag);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("HOME", world.folder.path());
        command
    };

    let cold = in_turns(scale.commands, |turn| {
        let name = format!("cold-{turn}");
        [lookup(&name), verify(&alone.configuration(&name))]
    });
    report_both(report, "cold", &cold, COLD_PART);
    let far = alone.far_away();
    let far_turns = (scale.commands / 3).max(3);
    let far_cold = in_turns(far_turns, |turn| {
        let name = format!("far-cold-{turn}");
        [far_lookup(&lookup(&name), &far), verify(&far.configuration(&name))]
    });
    report_both(report, "cold, server 20 ms away each way", &far_cold, FAR_PART);
    let warm = in_turns(scale.commands, |_| [lookup("warm"), verify(&warm_alone)]);
    report_both(report, "warm", &warm, WARM_PART);
    let asking = in_turns(scale.commands, |_| [lookup("warm"), verify(gate.configuration())]);
    report.value("verify by the daemon, p50", asking[1].at(P50) * 1e3, MILLISECONDS);
}

/// Configurations like the gate's own, but for their sockets and their state: no daemon runs with them.
struct Alone<'a> {
    world: &'a World,
    content: String,
    gates_home: String,
    /// The URL of the trust server in `content`.
    server: String,
}

impl<'a> Alone<'a> {
    fn new(world: &'a World) -> Self {
        let gate = world.gate.as_ref().must("finding the gate");
        let content = fs::read_to_string(gate.configuration()).must("reading the gate's configuration");
        let server = world.notary.url();
        Self { world, content, server, gates_home: text(gate.state().parent().must("finding the gate's folder")) }
    }

    /// The same with a trust server that is far away.
    fn far_away(&self) -> Self {
        let near = self.server.trim_start_matches("https://").parse().must("reading the trust server's address");
        let server = format!("https://{}", far::start(near));
        let content = self.content.replace(&self.server, &server);
        Self { world: self.world, content, gates_home: self.gates_home.clone(), server }
    }

    /// The one with a state of its own under this name.
    fn configuration(&self, name: &str) -> PathBuf {
        let home = text(&self.world.folder.path().join("alone").join(name));
        self.world.folder.configuration(&format!("alone-{name}.toml"), &self.content.replace(&self.gates_home, &home))
    }
}

fn in_turns(turns: usize, commands: impl Fn(usize) -> [Command; 2]) -> [Samples; 2] {
    let mut samples = [Vec::new(), Vec::new()];
    for turn in 0..=turns {
        let mut commands = commands(turn);
        for side in [turn % 2, (turn + 1) % 2] {
            let took = run(&mut commands[side]);
            // The first turn reads the programs from disk.
            if turn > 0 {
                samples[side].push(took);
            }
        }
    }
    samples.map(|samples| {
        let mut side = Samples::default();
        side.add(samples, None);
        side
    })
}

fn run(command: &mut Command) -> Duration {
    command.stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output().must("running a command");
    let took = began.elapsed();
    assert!(output.status.success(), "{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    took
}

/// The same command for the server that is far away.
fn far_lookup(command: &Command, far: &Alone<'_>) -> Command {
    let mut distant = Command::new(command.get_program());
    distant.args(command.get_args().map(|word| word.to_string_lossy().replace(&far.world.notary.url(), &far.server)));
    for (name, value) in command.get_envs() {
        distant.env(name, value.unwrap_or_default());
    }
    distant
}

fn report_both(report: &mut Report, state: &str, [lookup, verify]: &[Samples; 2], part: f64) {
    report.value(format!("notary lookup, {state}, p50"), lookup.at(P50) * 1e3, MILLISECONDS);
    report.value(format!("countersign verify, {state}, p50"), verify.at(P50) * 1e3, MILLISECONDS);
    report.goal(format!("verify against lookup, {state}"), verify.at(P50) / lookup.at(P50), "of lookup", Goal::AtMost(part));
}
