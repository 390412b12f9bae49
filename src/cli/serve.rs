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
        Err(exit) => return exit,
    };
    telemetry::init();
    match app::serve(&config, inherited) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(&format_args!("countersign: {}", chain(&error)));
            Exit::Denied
        }
    }
}
