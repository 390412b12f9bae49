//! An attack: against which node, with which keys, and what is served.
//!
//! Nine bytes choose the circumstances; each further step begins with a byte that chooses what is done (`workbench`).

use std::sync::LazyLock;

use countersign_trust::name::{ImageReference, ManifestDigest};
use countersign_trust::time::UnixTime;

use super::honest::{Case, Files, World};
use super::timeline;
use super::workbench::Workbench;
use crate::choices::Choices;
use crate::forge::Key;

/// What no honest list names.
pub(super) const EVIL: &[u8] = b"evil";
const DAY: i64 = 24 * 60 * 60;
/// Later and earlier than the usual moment: the timestamp has run out, everything has, certificates have not begun.
const OTHER_MOMENTS: [i64; 3] = [20 * DAY, 400 * DAY, -400 * DAY];

/// Whose keys the attacker has, each with those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Power {
    /// Nobody's but the attacker's own.
    Own,
    /// The server's: snapshot and timestamp.
    Server,
    /// Those of signers who may not release.
    Bystanders,
    /// Those that were rotated away, for nodes that know of it.
    Revoked,
}

pub(super) struct Attack<'w> {
    pub(super) world: &'w World,
    /// The tree that the attacker begins with: a state, the newest first, or another repository.
    pub(super) base: usize,
    /// The state up to which the node has followed the repository.
    pub(super) history: Option<usize>,
    pub(super) power: Power,
    pub(super) case: &'w Case,
    pub(super) now: UnixTime,
    pub(super) allow_expired: bool,
    /// Whether all is done again without what is remembered. It takes much longer.
    pub(super) with_fresh_facts: bool,
    /// What the node is asked for.
    pub(super) image: ImageReference,
    pub(super) files: Files,
}

impl<'w> Attack<'w> {
    pub(super) fn read(world: &'w World, choices: &mut Choices<'_>) -> Self {
        let newest = world.states.len() - 1;
        let base = usize::from(choices.byte()) % (world.states.len() + world.others.len());
        let base = newest.checked_sub(base).unwrap_or(base);
        let power = power(world, choices.byte());
        let history = match usize::from(choices.byte()) % (world.states.len() + 1) {
            _ if power == Power::Revoked => Some(newest),
            0 => None,
            followed => Some(followed - 1),
        };
        let case = choices.one_of(&world.cases).unwrap_or(&world.cases[0]);
        let moment = OTHER_MOMENTS.get(usize::from(choices.byte()) % 8).copied().unwrap_or_default();
        let flags = choices.byte();
        let image = image(world, choices);
        let mut workbench = Workbench::new(world, base, keys(power));
        workbench.work(choices);
        Self {
            world,
            base,
            history,
            power,
            case,
            now: world.now.plus_seconds(moment),
            allow_expired: flags & 1 == 1,
            with_fresh_facts: flags & 14 == 14,
            image,
            files: workbench.served(),
        }
    }

    pub(super) fn is_without_keys(&self) -> bool {
        self.power == Power::Own
    }

    pub(super) fn is_at_usual_time(&self) -> bool {
        self.now == self.world.now
    }
}

fn power(world: &World, choice: u8) -> Power {
    match choice % 4 {
        _ if !world.is_forged => Power::Own,
        0 => Power::Own,
        1 => Power::Server,
        2 => Power::Bystanders,
        _ => Power::Revoked,
    }
}

/// The keys of each power, made once: certificates take time.
static KEYS: LazyLock<[Vec<Key>; 4]> = LazyLock::new(|| {
    let own = timeline::own_keys();
    let server = [own.clone(), timeline::server_keys()].concat();
    let bystanders = [server.clone(), timeline::bystanders()].concat();
    let revoked = [bystanders.clone(), timeline::revoked_keys()].concat();
    [own, server, bystanders, revoked]
});

fn keys(power: Power) -> &'static [Key] {
    &KEYS[match power {
        Power::Own => 0,
        Power::Server => 1,
        Power::Bystanders => 2,
        Power::Revoked => 3,
    }]
}

/// By tag, by digest, or by both.
fn image(world: &World, choices: &mut Choices<'_>) -> ImageReference {
    let form = choices.byte();
    let tag = choices.one_of(&world.tags).copied().unwrap_or("latest");
    let newest = world.states.last().and_then(|state| state.listing.iter().find(|(_, listed, _)| listed == tag));
    let digest = match newest {
        Some((_, _, digest)) if form & 4 == 0 => *digest,
        Some(_) | None => ManifestDigest::of(EVIL),
    };
    world.image(&match form % 3 {
        0 => format!(":{tag}"),
        1 => format!("@{digest}"),
        _ => format!(":{tag}@{digest}"),
    })
}
