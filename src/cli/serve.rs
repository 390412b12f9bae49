//! `countersign serve`.

use std::path::Path;

use super::{Exit, complain, load};
use crate::admit::chain;
use crate::listen::Inherited;
use crate::{app, telemetry};

pub(super) fn run(path: &Path) -> Exit {
    // Before any thread: it changes the environment.
    let inherited = Inherited::from_env();
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => match app::last_good(path) {
            Some(config) => {
                telemetry::init();
                tracing::error!(policy = %config.digest, "{} is bad: going on with the configuration that was in force last", path.display());
                return served(app::serve(&config, path, inherited));
            }
            None => return exit,
        },
    };
    telemetry::init();
    served(app::serve(&config, path, inherited))
}

fn served(outcome: Result<(), app::StartError>) -> Exit {
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(&format_args!("countersign: {}", chain(&error)));
            Exit::Denied
        }
    }
}
