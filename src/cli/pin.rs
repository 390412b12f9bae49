//! `countersign pin`: shows the present roots of repositories, to be compared. It trusts nothing and writes nothing. Its subcommands
//! are about what tags are pinned as for services.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use countersign_trust::name::Repository;

use super::service::{self, ChangeArguments, ListArguments, OfServiceArguments};
use super::show::{PinShown, pins_json, pins_of_services_text, pins_text, service_text};
use super::{DEFAULT_CONFIG, Exit, Output, complain, print};
use crate::admin::inspect::{pin_message, root_message};
use crate::admin::v1::{self, PinAct};
use crate::admit::{OfferFault, Standing, chain};
use crate::app::{self, Elsewhere, Offer};
use crate::config::{Config, read_ca_bundle};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, subcommand_value_name = "PINS OF SERVICES")]
pub(super) struct PinArguments {
    #[command(subcommand)]
    of_services: Option<PinCommand>,
    #[command(flatten)]
    roots: RootArguments,
}

#[derive(Debug, Subcommand)]
enum PinCommand {
    /// Show what tags are pinned as for services, since when, until when, and what is frozen
    ///
    /// Exit status: as of `service ls`.
    Ls(ListArguments),
    /// Show what the tags of a service meant, newest first, by whose word and why
    ///
    /// Exit status: as of `service inspect`.
    History(OfServiceArguments),
    /// Let a tag mean a digest for a service: one that it is signed as now, or that it meant before and that can still be proven
    ///
    /// Exit status: 0 done, 1 something was refused, 2 wrong usage or configuration, or no such service, 3 the daemon, its store or a
    /// server does not answer.
    Set {
        #[command(flatten)]
        pins: ChangeArguments,
        /// What it shall mean
        #[arg(long, value_name = "DIGEST")]
        digest: String,
    },
    /// Let the tags of a service mean what they mean or nothing: no update, no rollback, and nothing instead if it is not allowed
    /// any more
    ///
    /// Exit status: as of `set`.
    Freeze(ChangeArguments),
    /// Take back a freeze
    ///
    /// Exit status: as of `set`.
    Release(ChangeArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct RootArguments {
    /// The repositories, without tag and digest
    #[arg(required = true, value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// The configuration file, in which nothing need be pinned yet [default: /etc/countersign/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask this trust server instead of the configured one
    #[arg(long, value_name = "URL")]
    notary_server: Option<String>,
    /// PEM file with the authority that vouches for the trust server, instead of the configured one
    #[arg(long, value_name = "FILE")]
    ca_bundle_file: Option<PathBuf>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(arguments: &PinArguments) -> Exit {
    match &arguments.of_services {
        Some(command) => of_services(command),
        None => roots(&arguments.roots),
    }
}

fn of_services(command: &PinCommand) -> Exit {
    match command {
        PinCommand::Ls(arguments) => service::list(arguments.request(), &arguments.ask, pins_of_services_text),
        PinCommand::History(arguments) => {
            let text = |pins: &[v1::ServicePin]| service_text(pins.first().map_or("", |pin| &pin.service), pins);
            service::list(arguments.request(), &arguments.ask, text)
        }
        PinCommand::Set { pins, digest } => service::change(PinAct::Set, digest, pins),
        PinCommand::Freeze(pins) => service::change(PinAct::Freeze, "", pins),
        PinCommand::Release(pins) => service::change(PinAct::Release, "", pins),
    }
}

fn roots(arguments: &RootArguments) -> Exit {
    let prepared = repositories(&arguments.repositories).and_then(|repositories| {
        let config = configuration(arguments.config.as_deref())?;
        Ok((repositories, config, elsewhere(arguments)?))
    });
    let (repositories, config, elsewhere) = match prepared {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    match offers(config.as_ref(), &elsewhere, repositories) {
        Ok(offers) => report(&offers, arguments),
        Err(error) => {
            complain(&format_args!("countersign: {}", chain(&error)));
            Exit::Usage
        }
    }
}

fn repositories(names: &[String]) -> Result<Vec<Repository>, Exit> {
    let read = |name: &String| {
        name.parse().map_err(|error| {
            complain(&format_args!("countersign: {error}; give a repository, without tag and digest"));
            Exit::Usage
        })
    };
    names.iter().map(read).collect()
}

/// The configuration, if there is one: without any, the servers are those that the reference client asks.
fn configuration(named: Option<&Path>) -> Result<Option<Config>, Exit> {
    let path = named.unwrap_or_else(|| Path::new(DEFAULT_CONFIG));
    if named.is_none() && matches!(path.try_exists(), Ok(false)) {
        return Ok(None);
    }
    Config::load_unpinned(path).map(Some).map_err(|errors| {
        complain(&errors);
        Exit::Usage
    })
}

fn elsewhere(arguments: &RootArguments) -> Result<Elsewhere, Exit> {
    let bundle = arguments.ca_bundle_file.as_deref().map(read_ca_bundle).transpose();
    let ca_bundle = bundle.map_err(|error| {
        complain(&format_args!("countersign: --ca-bundle-file: {}", chain(&error)));
        Exit::Usage
    })?;
    Ok(Elsewhere { notary_server: arguments.notary_server.clone(), ca_bundle })
}

fn offers(config: Option<&Config>, elsewhere: &Elsewhere, repositories: Vec<Repository>) -> Result<Vec<Offer>, app::StartError> {
    app::command_runtime()?.block_on(app::offers(config, elsewhere, repositories))
}

fn report(offers: &[Offer], arguments: &RootArguments) -> Exit {
    let shown: Vec<PinShown> = offers.iter().map(|offer| shown(offer, arguments.ca_bundle_file.as_deref())).collect();
    match arguments.output {
        Output::Text => print(&pins_text(&shown)),
        Output::Json => print(&pins_json(&shown).to_string()),
    }
    let exits: Vec<Exit> = offers.iter().map(exit_of).collect();
    [Exit::Denied, Exit::CannotTellNow].into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Ok)
}

fn exit_of(offer: &Offer) -> Exit {
    match &offer.root {
        Err(fault) if fault.standing() == Standing::CannotTellNow => Exit::CannotTellNow,
        Err(_) => Exit::Denied,
        Ok(_) if offer.unusable.is_some() => Exit::Denied,
        Ok(_) if offer.pinned.as_ref().is_some_and(|(_, mismatch)| mismatch.is_some()) => Exit::Denied,
        Ok(_) => Exit::Ok,
    }
}

fn shown(offer: &Offer, ca_bundle_file: Option<&Path>) -> PinShown {
    let host = offer.repository.host();
    let ca_bundle_file = ca_bundle_file.map(|file| file.display().to_string());
    let told = |refusal: &countersign_trust::Refusal| (refusal.code().to_owned(), refusal.to_string());
    let fault = |fault: &OfferFault| (fault.code().to_owned(), fault.to_string());
    let anchor = offer.pinned.as_ref().map(|(pin, _)| &pin.anchor);
    PinShown {
        repository: offer.repository.to_string(),
        server: offer.server.clone(),
        unregistered: (!offer.is_registered).then(|| (host.to_string(), ca_bundle_file)),
        now: offer.now.to_string(),
        root: offer.root.as_ref().ok().map(|root| root_message(root, anchor)),
        refusal: offer.root.as_ref().err().map(fault).or_else(|| offer.unusable.as_ref().map(told)),
        pinned: offer.pinned.as_ref().map(|(pin, mismatch)| (pin_message(pin), mismatch.as_ref().map(told))),
    }
}
