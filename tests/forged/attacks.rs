//! Attacks of our own: what those can do who hold the server's keys, one signer's key or an old root key, or who can replay
//! any file that was ever published.

mod below_releases;
mod old_root;
mod replay;
mod server;
mod signer;

use std::collections::BTreeMap;

use crate::forge::{Forge, GUN, hex, sha256};
use crate::node::Outcome;

/// The digest that a tag is released as, by the words it was made from; or the code.
fn released(outcome: &Outcome, tag: &str) -> String {
    let judged = outcome
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|trusted| trusted.judge(&format!("{GUN}:{tag}").parse().unwrap()).map_err(|refusal| refusal.code().to_owned()));
    match judged {
        Err(code) => code,
        Ok(approval) => {
            let words = ["old", "new", "evil", "t0", "rel", "ta", "1", "2", "3", "4"];
            let is_meant = |word: &&&str| hex(&sha256(word.as_bytes())) == approval.digest.hash().to_hex();
            (*words.iter().find(is_meant).unwrap()).to_owned()
        }
    }
}

/// The bytes of every list.
fn lists(forge: &Forge) -> BTreeMap<String, Vec<u8>> {
    forge.lists.iter().map(|(role, document)| (role.clone(), document.bytes())).collect()
}
