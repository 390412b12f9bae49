//! The whole verification, on hostile evidence.
//!
//! An attacker takes what honest repositories have, changes it in any way that the fuzzer thinks of, signs it with the
//! keys at hand, and serves it to a node with or without a history. Whatever comes of it:
//!
//! - What is allowed was signed as that by somebody who may release: with no keys but the attacker's own, what the node
//!   sees is one state of the honest repository, none older than what it has seen; with those of the server, or of signers
//!   of other delegations, every digest is one that an honest list of `targets` or `targets/releases` has for the tag.
//! - Floors do not go down, and nothing that was known is forgotten.
//! - What is remembered of earlier evaluations changes nothing. What is kept can be written, read and judged again.
//! - Without keys, the honest files are good afterwards.

mod attack;
mod edit;
mod honest;
mod node;
mod oracle;
mod timeline;
mod wire;
mod workbench;

use countersign_trust::Facts;

use crate::choices::Choices;
use attack::Attack;
use honest::World;
use node::Node;
use oracle::Allowed;

/// Makes the honest repositories, which takes longer than any attack.
pub fn prepare() {
    World::prepare();
}

/// The first bytes choose whom the attack is against; `attack` says what the rest does.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let world = World::chosen(choices.byte());
    let attack = Attack::read(world, &mut choices);
    let node = Node { policy: &attack.case.policy, now: attack.now, known: world.known_after(attack.history) };
    let facts = world.facts_for(attack.base, attack.history);
    let allowed = Allowed::new(world, &attack);
    fetched(&node, &attack, &allowed, &facts);
    judged(&node, &attack, &allowed, facts);
}

/// The node fetches from the attacker.
fn fetched(node: &Node<'_>, attack: &Attack<'_>, allowed: &Allowed<'_>, facts: &Facts) {
    let world = attack.world;
    let mut facts = facts.clone();
    let (outcome, evidence) = node.fetch(world, &attack.files, &mut facts);
    allowed.check_root_steps(node.proven_root_steps(world, &evidence, &mut facts.clone()));
    if attack.with_fresh_facts {
        allowed.check_offered(node.accepted_root(world, &attack.files).as_ref());
        let (fresh, _) = node.fetch(world, &attack.files, &mut Facts::default());
        assert_eq!(node::told(&fresh), node::told(&outcome), "what is remembered changes the verdict");
    }
    if let Ok(trusted) = &outcome {
        allowed.check(node, trusted);
        node.check_kept(world, trusted, &mut facts);
    }
    if attack.is_without_keys() && attack.is_at_usual_time() {
        let known = outcome.map_or_else(|_| node.known.clone(), |trusted| trusted.into_known());
        allowed.check_recovery(&Node { known, ..node.clone() });
    }
}

/// The attacker hands everything over at once.
fn judged(node: &Node<'_>, attack: &Attack<'_>, allowed: &Allowed<'_>, mut facts: Facts) {
    let evidence = node::evidence_of(attack.world, &attack.files);
    let (verdict, known) = node.verify(&attack.image, &evidence, attack.allow_expired, &mut facts);
    allowed.check_verdict(&attack.image, &verdict);
    allowed.check_known(node, &known);
    if attack.with_fresh_facts {
        let fresh = node.verify(&attack.image, &evidence, attack.allow_expired, &mut Facts::default());
        assert_eq!(fresh, (verdict, known), "what is remembered changes the verdict");
    }
}
