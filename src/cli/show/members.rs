//! What `countersign cluster members` prints.

use serde_json::{Value, json};

use super::Table;
use crate::admin::v1::ShowMembersResponse;
use crate::cluster::{Member, Members};

/// For people.
#[must_use]
pub fn members_text(shown: &ShowMembersResponse, members: Option<&Members>) -> String {
    let head = format!("cluster {}, seen by {}: {}", shown.cluster, shown.node, shown.standing);
    let Some(members) = members else { return head };
    let mut table = Table::new(["NODE", "KEYS"]);
    for Member { name, keys } in members.members() {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        table.row([name.clone(), keys.join(" ")]);
    }
    let (version, made_at, ends_at) = (members.version, members.made_at.to_string(), members.ends_at.to_string());
    format!("{head}\nversion {version}, signed {made_at}, ends {ends_at}\n\n{}", table.to_string().trim_end())
}

/// For programs.
#[must_use]
pub fn members_json(shown: &ShowMembersResponse, members: Option<&Members>) -> Value {
    let member = |Member { name, keys }: &Member| json!({"name": name, "keys": keys.iter().map(ToString::to_string).collect::<Vec<_>>()});
    json!({
        "cluster": shown.cluster,
        "node": shown.node,
        "publicKey": shown.public_key,
        "isMember": shown.is_member,
        "standing": shown.standing,
        "version": members.map(|members| members.version),
        "madeAt": members.map(|members| members.made_at.to_string()),
        "endsAt": members.map(|members| members.ends_at.to_string()),
        "members": members.map(|members| members.members().iter().map(member).collect::<Vec<_>>()).unwrap_or_default(),
    })
}
