//! `countersign cluster`: who belongs to the cluster. The authority's private key is used here and goes nowhere.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use countersign_trust::time::UnixTime;

use super::daemon::ask;
use super::reset::who;
use super::show::{members_json, members_text};
use super::{ConfigFile, Exit, Output, cluster_status, print, refused, wrong};
use crate::admin::v1;
use crate::admit::chain;
use crate::clock::{Clock as _, SystemClock};
use crate::cluster::{DEFAULT_DAYS, Members, PrivateKey, PublicKey};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make the key of a cluster's authority, in a file that belongs on no node
    ///
    /// Exit status: 0 done, 1 the file cannot be made, 2 wrong usage.
    Init {
        /// The file, which must not exist
        #[arg(long, value_name = "FILE", default_value = "cluster-authority.pem")]
        authority_key: PathBuf,
    },
    /// Show this node's name and public key, for `countersign cluster enroll`
    Key {
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show who is a member of the cluster
    ///
    /// Exit status: 0 this node is one, 1 it is not, or the list does not count, 2 wrong usage or configuration, 3 the daemon does
    /// not answer.
    Members {
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show the nodes of the cluster, and where they do not agree: configuration, version, pins, and what really runs
    ///
    /// What other nodes tell of themselves is shown as they tell it; nothing is decided by it.
    ///
    /// Exit status: 0 all agree, 1 something disagrees or cannot be seen, 2 wrong usage or configuration, or this node shares with
    /// nobody, 3 the daemon or the store cannot be asked.
    Status {
        #[command(flatten)]
        file: ConfigFile,
        /// For people or for programs
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Make a node a member, so that its word counts for the others
    ///
    /// Exit status (of enroll, rotate, remove and renew): 0 done, 1 refused, 2 wrong usage or configuration (also a key that is no
    /// authority's here), 3 the daemon or the store does not answer, or somebody else was faster.
    Enroll {
        /// The node's name, as `countersign cluster key` shows it there
        node: String,
        /// Its public key, as `countersign cluster key` shows it there
        key: PublicKey,
        #[command(flatten)]
        change: Change,
    },
    /// Give a node another key; the old one counts beside it until it is retired
    Rotate {
        /// The node's name
        node: String,
        /// Its new public key
        key: PublicKey,
        /// Let the old key count no more: what was signed with it is void
        #[arg(long)]
        retire: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Remove a node: its word counts for nobody any more, and every pin that rests on it is void
    Remove {
        /// The node's name
        node: String,
        #[command(flatten)]
        change: Change,
    },
    /// Sign the list of members again, so that it does not end
    Renew {
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// The authority's private key, as `countersign cluster init` made it
    #[arg(long, value_name = "FILE", default_value = "cluster-authority.pem")]
    authority_key: PathBuf,
    /// For how many days the list of members lives from now on
    #[arg(long, value_name = "DAYS", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(command: ClusterCommand) -> Exit {
    match command {
        ClusterCommand::Init { authority_key } => init(&authority_key),
        ClusterCommand::Key { file, output } => key(&file.path, output),
        ClusterCommand::Members { file, output } => members(&file.path, output),
        ClusterCommand::Status { file, output } => cluster_status::run(&file.path, output),
        ClusterCommand::Enroll { node, key, change } => alter(&change, |members| enroll(members, &node, key)),
        ClusterCommand::Rotate { node, key, retire, change } => alter(&change, |members| rotate(members, &node, key, retire)),
        ClusterCommand::Remove { node, change } => alter(&change, |members| remove(members, &node)),
        ClusterCommand::Renew { change } => alter(&change, |_| Ok(())),
    }
}

fn init(path: &Path) -> Exit {
    let made = PrivateKey::generate().map_err(|error| error.to_string());
    let written = made.and_then(|key| key.write_new(path).map(|()| key.public()).map_err(|error| error.to_string()));
    match written {
        Err(why) => refused(&why),
        Ok(public) => {
            print(&format!(
                "{} holds the key of the cluster's authority: keep it off the nodes, and safe. On each node:\n\n  [store]\n  authority-keys = [\"{public}\"]",
                path.display()
            ));
            Exit::Ok
        }
    }
}

fn show(config: &Path) -> Result<v1::ShowMembersResponse, Exit> {
    let shown = ask(config, async |mut daemon| daemon.show_members(v1::ShowMembersRequest {}).await)?;
    if shown.fault.is_empty() { Ok(shown) } else { Err(wrong(&shown.fault)) }
}

fn key(config: &Path, output: Output) -> Exit {
    let shown = match show(config) {
        Ok(shown) => shown,
        Err(exit) => return exit,
    };
    print(&match output {
        Output::Text => format!("countersign cluster enroll {} {}", shown.node, shown.public_key),
        Output::Json => serde_json::json!({"cluster": shown.cluster, "node": shown.node, "publicKey": shown.public_key}).to_string(),
    });
    Exit::Ok
}

fn members(config: &Path, output: Output) -> Exit {
    let shown = match show(config) {
        Ok(shown) => shown,
        Err(exit) => return exit,
    };
    let listed = match document(&shown) {
        Ok(listed) => listed,
        Err(exit) => return exit,
    };
    print(&match output {
        Output::Text => members_text(&shown, listed.as_ref()),
        Output::Json => members_json(&shown, listed.as_ref()).to_string(),
    });
    if shown.is_member { Exit::Ok } else { Exit::Denied }
}

/// The document that the daemon knows, if it knows one. The daemon is believed no more than the store.
fn document(shown: &v1::ShowMembersResponse) -> Result<Option<Members>, Exit> {
    if shown.document.is_empty() {
        return Ok(None);
    }
    let authorities: Result<Vec<PublicKey>, _> = shown.authorities.iter().map(|key| key.parse()).collect();
    let authorities = authorities.map_err(|fault| refused(&format!("the daemon knows authorities that are none: {fault}")))?;
    let read = Members::decode_whenever(&shown.document, &shown.cluster, &authorities);
    read.map(Some).map_err(|fault| refused(&format!("the document of the members does not count: {fault}")))
}

/// Changes the document, signs it and has the daemon publish it.
fn alter(change: &Change, alter: impl FnOnce(&mut Members) -> Result<(), String>) -> Exit {
    altered(change, alter).err().unwrap_or(Exit::Ok)
}

fn altered(change: &Change, alter: impl FnOnce(&mut Members) -> Result<(), String>) -> Result<(), Exit> {
    let authority = PrivateKey::read(&change.authority_key).map_err(|error| wrong(&error.to_string()))?;
    let shown = show(&change.file.path)?;
    if !shown.authorities.contains(&authority.public().to_string()) {
        let path = change.authority_key.display();
        return Err(wrong(&format!("{path} is the key of no authority that this node knows (store.authority-keys)")));
    }
    let mut members = document(&shown)?.unwrap_or_else(|| Members::of(shown.cluster.clone()));
    alter(&mut members).map_err(|why| refused(&why))?;
    let now: UnixTime = SystemClock.now().map_err(|error| refused(&chain(&error)))?;
    let (count, cluster) = (members.members().len(), members.cluster.clone());
    let document = members.sign(&authority, now, change.days).map_err(|fault| refused(&fault.to_string()))?;
    let request = v1::PublishMembersRequest { document, by: who() };
    let published = ask(&change.file.path, async |mut daemon| daemon.publish_members(request).await)?;
    if published.fault.is_empty() {
        print(&format!("cluster {cluster} has {count} members (version {} of the list, for {} days)", published.version, change.days));
        return Ok(());
    }
    let exit = refused(&published.fault);
    Err(if published.cannot_tell_now { Exit::CannotTellNow } else { exit })
}

fn enroll(members: &mut Members, node: &str, key: PublicKey) -> Result<(), String> {
    match members.keys_of(node) {
        [] => members.set(node, Some(vec![key])),
        keys if keys == [key] => Ok(()),
        _ => Err(format!("{node} is a member already, with another key: `countersign cluster rotate` gives it a new one")),
    }
}

fn rotate(members: &mut Members, node: &str, key: PublicKey, retire: bool) -> Result<(), String> {
    let old: Vec<PublicKey> = members.keys_of(node).iter().copied().filter(|old| *old != key).collect();
    let is_member = !members.keys_of(node).is_empty();
    let keys = match old.as_slice() {
        _ if !is_member => return Err(format!("{node} is no member: `countersign cluster enroll` makes it one")),
        _ if retire => vec![key],
        [] => return Err(format!("{node} has this key already")),
        // The newest of the old ones: no more than two count.
        [newest, ..] => vec![key, *newest],
    };
    members.set(node, Some(keys))
}

fn remove(members: &mut Members, node: &str) -> Result<(), String> {
    if members.keys_of(node).is_empty() {
        return Err(format!("{node} is no member: see `countersign cluster members`"));
    }
    members.set(node, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PublicKey {
        PrivateKey::generate().unwrap().public()
    }

    #[test]
    fn a_node_is_enrolled_once_and_gets_another_key_by_rotation_only() {
        let (mut members, one, other, third) = (Members::of("prod".into()), key(), key(), key());
        assert!(rotate(&mut members, "node-1", one, false).unwrap_err().contains("is no member"));
        enroll(&mut members, "node-1", one).unwrap();
        enroll(&mut members, "node-1", one).unwrap();
        assert!(enroll(&mut members, "node-1", other).unwrap_err().contains("rotate"));
        rotate(&mut members, "node-1", other, false).unwrap();
        assert_eq!(members.keys_of("node-1"), [other, one]);
        rotate(&mut members, "node-1", third, false).unwrap();
        assert_eq!(members.keys_of("node-1"), [third, other], "no more than two");
        rotate(&mut members, "node-1", third, true).unwrap();
        assert_eq!(members.keys_of("node-1"), [third]);
        assert!(rotate(&mut members, "node-1", third, false).unwrap_err().contains("already"));
        remove(&mut members, "node-1").unwrap();
        assert!(remove(&mut members, "node-1").unwrap_err().contains("is no member"));
    }
}
