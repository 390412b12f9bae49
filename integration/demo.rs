//! Shows the main job on a terminal, on real servers: `make demo`.
//!
//! Ends with 0 when every step did what it must, with 1 when one did not, with 2 for wrong usage, with 130 when stopped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a person")]

mod harness;
mod tour;

use std::any::Any;
use std::io::{IsTerminal as _, stdout};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};

use tour::show::Show;

/// A shell's exit code after Ctrl-C.
const STOPPED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let began = Instant::now();
    let binary = match binary() {
        Ok(binary) => binary,
        Err(wrong) => {
            eprintln!("demo: {wrong}");
            return ExitCode::from(2);
        }
    };
    panic::set_hook(Box::new(|_| {}));
    let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let mut show = Show::new(Box::new(stdout()), colour);
    // When the tour is dropped halfway, everything that it has started is taken down.
    let ended = tokio::select! {
        steps = AssertUnwindSafe(both_parts(&binary, &mut show)).catch_unwind() => Some(steps),
        () = stop_asked() => None,
    };
    match ended {
        Some(Ok(steps)) => {
            show.end(&steps, began.elapsed());
            if steps.iter().all(|good| *good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some(Err(panic)) => {
            eprintln!("demo: cannot go on: {}", text_of(&*panic));
            ExitCode::FAILURE
        }
        None => {
            eprintln!("\ndemo: stopped; everything that ran for it is taken down");
            ExitCode::from(STOPPED)
        }
    }
}

/// A cluster of gates that do not do their main job is not worth showing.
async fn both_parts(binary: &Path, show: &mut Show) -> Vec<bool> {
    let mut steps = tour::run(binary, show).await;
    if steps.iter().all(|good| *good) {
        steps.extend(tour::nodes::run(binary, show, steps.len() + 1).await);
    }
    steps
}

fn binary() -> Result<PathBuf, String> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(binary), None) = (arguments.next(), arguments.next()) else {
        return Err("it takes one argument, the path of the countersign binary; `make demo` builds it and gives it".to_owned());
    };
    if !rustix::process::geteuid().is_root() {
        return Err("it runs containers, so it has to run as root".to_owned());
    }
    std::fs::canonicalize(&binary).map_err(|error| format!("{}: {error}; `make demo` builds it", binary.display()))
}

async fn stop_asked() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)] = signals else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

/// The harness says in its panics what was being done and what to do.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}
