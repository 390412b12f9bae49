//! `countersign config check`.

use std::path::Path;

use super::{Exit, complain, load, print};
use crate::admit::chain;
use crate::app;

pub(super) fn check(path: &Path) -> Exit {
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if let Err(error) = app::policy(&config) {
        complain(&format_args!("{}: {}", path.display(), chain(&error)));
        return Exit::Usage;
    }
    for warning in config.warnings() {
        complain(&format_args!("{warning}"));
    }
    let registries = config.registries.len();
    print(&format!("{}: good (mode {}, {registries} registries)", path.display(), config.policy.mode));
    Exit::Ok
}
