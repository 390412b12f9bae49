//! Attacks on the forged repository, in the bytes that `fuzz/src/verify/attack.rs` and `workbench.rs` read, with each
//! power; and every repository as it is, at each of its states.

/// Steps of `workbench.rs`, with a place in the drafts where they take one.
const ANY: u8 = 0;
const VERSION: u8 = 2;
const TARGET: u8 = 3;
const AUTHORITY: u8 = 4;
const SIGN: u8 = 5;
const SEAL: u8 = 7;
const ADD_LIST: u8 = 9;
const ADD_ROOT: u8 = 10;
const DROP: u8 = 11;
const REPLACE: u8 = 12;
const DAMAGE: u8 = 13;
const LAST_WORD: u8 = 14;
/// Instead of what is there, with the first of the keys at hand, the third (the first of the server's), or all of them.
const WITH_OWN_KEY: [u8; 3] = [0, 1, 0];
const WITH_ALL_KEYS: [u8; 3] = [255, 255, 0];
/// New versions of both, signed with the server's second pair of keys where it is at hand.
const SEALED: [u8; 4] = [SEAL, 5, 4, 5];

pub(crate) fn all() -> impl Iterator<Item = Vec<u8>> {
    let worlds = [0, 1, 3];
    let states = worlds.into_iter().flat_map(|world| (0..8).map(move |base| (world, base)));
    let honest = states.flat_map(|(world, base)| (0..7).map(move |history| circumstances(world, base, 0, history)));
    let drafts = (0..4).flat_map(|power| (0..12).map(move |draft| (power, draft)));
    let attacks = drafts.flat_map(|(power, draft)| {
        // Each power against one node that is new, one that has seen little, and so on.
        let history = (power + draft) % 6;
        scripts(draft).into_iter().map(move |script| [circumstances(0, 0, power, history), script].concat())
    });
    honest.chain(attacks)
}

/// World, base, power, history, pins, moment, flags, form of the image and its tag.
fn circumstances(world: u8, base: u8, power: u8, history: u8) -> Vec<u8> {
    vec![world, base, power, history, 0, 7, 0, 0, 1]
}

/// Attacks that begin at the draft with this place.
fn scripts(draft: u8) -> Vec<Vec<u8>> {
    let sign = |keys: [u8; 3]| [vec![SIGN, draft], keys.to_vec()].concat();
    let target = vec![TARGET, draft, 0, 0, 1, 2];
    let sealed = SEALED.to_vec();
    vec![
        [target.clone(), vec![VERSION, draft, 0, 0, 0], sign(WITH_OWN_KEY), sealed.clone()].concat(),
        [target, vec![VERSION, draft, 0, 0, 0], sign(WITH_ALL_KEYS), sealed.clone()].concat(),
        [vec![AUTHORITY, draft, 0, 2, 0], sign(WITH_ALL_KEYS), sealed.clone()].concat(),
        [vec![ANY, draft, 0, draft, 0, 0, 9, 0], sealed.clone()].concat(),
        [vec![REPLACE, 0, 3 * draft, draft], sealed.clone()].concat(),
        [vec![DROP, draft], sealed.clone()].concat(),
        // What is gone is not listed any more.
        [vec![DROP, draft], vec![SEAL, 7, 4, 5]].concat(),
        [vec![ADD_LIST, draft, SIGN, 3], WITH_ALL_KEYS.to_vec(), sealed.clone()].concat(),
        [vec![ADD_ROOT], sign(WITH_ALL_KEYS), sealed.clone()].concat(),
        // The attacker's key in a certificate is the second.
        [vec![ADD_ROOT, AUTHORITY, draft, 1, 2, 0], sign([0, 2, 0]), sealed.clone()].concat(),
        [vec![DAMAGE, 0, draft, 0, 0, 99, 1, draft], sealed].concat(),
        vec![LAST_WORD, 1, draft, draft + 1],
        vec![LAST_WORD, 3, draft, 0, 3 * draft],
        vec![LAST_WORD, 4, draft, 0, draft, 0, 0, 50, 4],
    ]
}
