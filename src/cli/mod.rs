//! The command line: a file for each command.

mod advice;
mod cluster;
mod cluster_status;
mod config;
mod daemon;
mod decisions;
mod doctor;
mod evidence;
mod explain;
mod grandfather;
mod image_verifier;
mod import;
mod inspect;
mod pin;
mod reload;
mod reset;
mod serve;
mod service;
pub mod show;
mod status;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::admin::v1::{ResetRequest, VerifyRequest};
use crate::config::Config;

/// Where the configuration is when nobody says so.
const DEFAULT_CONFIG: &str = "/etc/countersign/config.toml";

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Done, or allowed.
    Ok = 0,
    /// Denied, or failed.
    Denied = 1,
    /// Wrong usage or configuration. clap ends with the same code.
    Usage = 2,
    /// A server could not be reached: it cannot be told now.
    CannotTellNow = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs only the images you trust, between kubelet and containerd.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve kubelet's calls until SIGTERM
    Serve {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Put the configuration file in force as it is now, without a restart; what is bad changes nothing
    ///
    /// The daemon reads the file that it was started with: --config serves only to find the daemon.
    Reload {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Judge an image as a pull of it would be judged now; pulls nothing
    ///
    /// The pull is that of a pod whose service has no pin yet. What the tag means for a service is shown by `service ls` and
    /// `pin ls`.
    ///
    /// Exit status: 0 allowed, 1 denied, 2 wrong usage or configuration, 3 cannot tell now (a server could not be reached).
    Verify {
        /// The image, as a pod would name it
        image: String,
        /// The pod's namespace; without it no rule makes anything easier
        #[arg(long, value_name = "NAMESPACE", default_value = "", hide_default_value = true)]
        namespace: String,
        /// Say what the verdict rests on: rule, pin, roles, signatures, teams, and what to do
        #[arg(long)]
        explain: bool,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what was decided on this node, newest last, from the audit log
    ///
    /// Of the newest hundred, unless --since says from when on.
    Decisions(decisions::DecisionsArguments),
    /// Come to a recorded decision again, from the evidence and the configuration of then, and show what today's would be
    ///
    /// Exit status: 0 it comes out the same, 1 it does not, 2 wrong usage or no such decision, 3 cannot tell (what it rested on
    /// is not kept any more, or was said by a server or by containerd).
    Explain {
        /// The decision's ID, as `countersign decisions` and the log show it
        id: String,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Trust data as a file: for nodes without a network, and to archive a repository before its server is switched off
    Evidence {
        #[command(subcommand)]
        command: EvidenceCommand,
    },
    /// Make this node forget what it has seen; who, when and why stay on record
    ///
    /// For a repository that was created anew, a version that was pushed absurdly high, or a clock that once ran ahead. What
    /// the policy demands stays as it is.
    Reset {
        /// The repository, without tag and digest
        #[arg(required_unless_present_any = ["clock", "list"])]
        repository: Option<String>,
        /// Only the version floor of this role, such as targets/releases; without it everything about the repository
        #[arg(long, requires = "repository", conflicts_with_all = ["clock", "list"])]
        role: Option<String>,
        /// The latest moment at which trust data was found good
        #[arg(long, conflicts_with = "repository")]
        clock: bool,
        /// Why
        #[arg(long, value_name = "TEXT", required_unless_present = "list")]
        reason: Option<String>,
        /// Show what was reset, by whom, when and why; resets nothing
        #[arg(long, conflicts_with_all = ["repository", "clock", "reason"])]
        list: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Let services go on that ran before their images were enforced, until a date
    ///
    /// A pod whose container is taken down may make that container again, of the same content; nothing else passes by it. What a
    /// configuration enforces first is taken down by itself (`grandfather-for`). Denied digests and rules that deny come first.
    Grandfather {
        #[command(subcommand)]
        command: GrandfatherCommand,
    },
    /// Answer containerd, which asks before it pulls anything by itself (image verifier, 2.0 and later)
    ///
    /// Exit status: 0 it may pull, another it may not; the reason stands on standard output.
    ImageVerifier {
        #[command(flatten)]
        file: ConfigFile,
        /// What containerd gives: -name, -digest and -stdin-media-type
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// Show what is known of a repository: root, signers, roles, tags, and when each ends
    ///
    /// A repository that is not pinned is shown as its server gives it; nothing of it is trusted or stored.
    ///
    /// Exit status: 0 shown, 1 not pinned or refused, 2 wrong usage or configuration, 3 cannot tell now (a server could not be
    /// reached).
    Inspect {
        /// The repository, without tag and digest
        repository: String,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Look at this node: who goes round the gate, or could, and what mends it; changes nothing
    ///
    /// Looks at live connections, processes, sockets and containers, so run it on the node itself, as root.
    ///
    /// Exit status: 0 no door is open, 1 one is, 2 wrong usage or configuration.
    Doctor {
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show how this node is: mode, policy, what runs without valid evidence, and what came past the gate
    ///
    /// Exit status: 0 all is well, 1 something runs without valid evidence, came past the gate or cannot be seen, 2 wrong usage
    /// or configuration, 3 the daemon does not answer.
    Status {
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show the present roots of repositories, and what to paste to pin them; trusts nothing, writes nothing
    ///
    /// The roots are the words of the trust server, which a pin protects from: compare them with whoever signs, by another way.
    ///
    /// Exit status: 0 shown, 1 a repository has no trust data, its root is unusable or not the pinned one, 2 wrong usage or
    /// configuration, 3 a server could not be reached.
    Pin(pin::PinArguments),
    /// Services, and which digests their tags mean: each revision of a service keeps the one that was signed when it began
    Service {
        #[command(subcommand)]
        command: service::ServiceCommand,
    },
    /// The nodes that share pins: who belongs to them
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Work with the configuration file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the configuration that another program's files come to; writes nothing
    ///
    /// The configuration goes to standard output. What could not be carried over, and what means something else here, goes to
    /// standard error and stands in the configuration as comments.
    ///
    /// Exit status: 0 printed, 2 the file cannot be read or carried over, 3 cannot tell now (the clock is wrong).
    Import {
        #[command(subcommand)]
        from: import::ImportCommand,
    },
}

#[derive(Debug, Subcommand)]
enum EvidenceCommand {
    /// Write the newest trust data of a repository, with every root on the way to it, to a new file
    Export {
        /// The repository, without tag and digest
        repository: String,
        /// The file, which must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Take trust data in from a file, if it is good here and now
    Import {
        /// The file
        evidence: PathBuf,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what a file holds; verifies nothing
    Show {
        /// The file
        evidence: PathBuf,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum GrandfatherCommand {
    /// Take down what runs now without valid evidence
    ///
    /// Exit status: 0 done, 1 something was left out or refused, 2 wrong usage or configuration, 3 the daemon does not answer.
    Take {
        /// Only pods of this namespace
        #[arg(long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// From when on they are like any other: a day such as 2027-01-31, or a moment; at most a year from now. Without it as
        /// long as `grandfather-for` says
        #[arg(long, value_name = "DAY")]
        until: Option<String>,
        /// Why; it stays on record
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Only show what would be taken down
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what was taken down
    List {
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// End it: what runs, runs on, and is not made again
    End {
        /// namespace/pod or namespace/pod/container
        #[arg(required_unless_present = "all")]
        services: Vec<String>,
        /// Everything that was taken down
        #[arg(long, conflicts_with = "services")]
        all: bool,
        /// Why; it stays on record
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration file; prints every problem with line and column
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long = "config", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Reads the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match Arguments::parse().command {
        Command::Serve { file } => serve::run(&file.path),
        Command::Reload { file } => reload::run(&file.path),
        Command::Verify { image, namespace, explain, file, output } => {
            verify::run(&VerifyRequest { image, namespace, explain }, &file.path, output)
        }
        Command::Decisions(arguments) => decisions::run(&arguments),
        Command::Explain { id, file, output } => explain::run(&id, &file.path, output),
        Command::Evidence { command } => evidence(command),
        Command::Reset { list: true, file, .. } => reset::list(&file.path),
        Command::Reset { repository, role, clock: _, reason, list: false, file } => {
            let (repository, role, reason) = (repository.unwrap_or_default(), role.unwrap_or_default(), reason.unwrap_or_default());
            reset::run(ResetRequest { repository, role, reason, by: String::new() }, &file.path)
        }
        Command::Grandfather { command } => grandfather::run(command),
        Command::ImageVerifier { file, words } => image_verifier::run(&words, &file.path),
        Command::Inspect { repository, file, output } => inspect::run(&repository, &file.path, output),
        Command::Doctor { file, output } => doctor::run(&file.path, output),
        Command::Status { file, output } => status::run(&file.path, output),
        Command::Pin(arguments) => pin::run(&arguments),
        Command::Service { command } => service::run(&command),
        Command::Cluster { command } => cluster::run(command),
        Command::Config { command: ConfigCommand::Check { file } } => config::check(&file),
        Command::Import { from } => import::run(&from),
    };
    exit.into()
}

fn evidence(command: EvidenceCommand) -> Exit {
    match command {
        EvidenceCommand::Export { repository, out, file, output } => evidence::export(&repository, &out, &file.path, output),
        EvidenceCommand::Import { evidence, file, output } => evidence::import(&evidence, &file.path, output),
        EvidenceCommand::Show { evidence, output } => evidence::show(&evidence, output),
    }
}

/// Reads the configuration; what is wrong with it goes to standard error.
fn load(path: &std::path::Path) -> Result<Config, Exit> {
    Config::load(path).map_err(|errors| {
        complain(&errors);
        Exit::Usage
    })
}

/// Tells a person what went wrong.
#[allow(clippy::print_stderr, reason = "the command line speaks to people")]
fn complain(message: &dyn std::fmt::Display) {
    eprintln!("{message}");
}

/// Tells a person that the command was used wrongly.
fn wrong(fault: &str) -> Exit {
    complain(&format_args!("countersign: {fault}"));
    Exit::Usage
}

/// Tells a person that what was asked for rightly was refused.
fn refused(why: &str) -> Exit {
    complain(&format_args!("countersign: {why}"));
    Exit::Denied
}

/// Tells a person that there is no answer now.
fn unanswered(why: &str) -> Exit {
    complain(&format_args!("countersign: {why}"));
    Exit::CannotTellNow
}

/// Prints a result. Whoever reads it may have gone away (`| head`), which changes no verdict.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}
