//! `countersign pin`: shows the present roots of repositories, to be compared. It trusts nothing and writes nothing.

use std::path::{Path, PathBuf};

use countersign_trust::name::Repository;

use super::show::{PinShown, pins_json, pins_text};
use super::{DEFAULT_CONFIG, Exit, Output, complain, print};
use crate::admin::inspect::{pin_message, root_message};
use crate::admit::{OfferFault, Standing, chain};
use crate::app::{self, Elsewhere, Offer};
use crate::config::{Config, read_ca_bundle};

#[derive(Debug, clap::Args)]
pub(super) struct PinArguments {
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

fn elsewhere(arguments: &PinArguments) -> Result<Elsewhere, Exit> {
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

fn report(offers: &[Offer], arguments: &PinArguments) -> Exit {
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
