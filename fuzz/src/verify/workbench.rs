//! Where an attack is made: drafts of the files, which are changed, signed, and sealed into a tree that hangs together;
//! and changes of what is served in the end.

use std::collections::BTreeMap;

use countersign_trust::evidence::{Body, FileName};
use countersign_trust::name::Sha256;
use countersign_trust::role::RoleName;
use serde_json::{Value, json};

use super::honest::{Files, World};
use super::{edit, wire};
use crate::choices::Choices;
use crate::forge::{self, Key};

/// More steps make no better attack, only a slower one.
const MOST_STEPS: usize = 24;
/// Names that an attacker gives to lists.
const ROLES: [&str; 8] =
    ["targets", "targets/releases", "targets/a", "targets/a/b", "targets/releases/sub", "targets/x", "targets/two", "targets/releases/x"];
const NEW_LIST: &str = r#"{"signed":{"_type":"Targets","delegations":{"keys":{},"roles":[]},"expires":"2030-12-31T00:00:00Z","targets":{},"version":1},"signatures":[]}"#;

pub(super) struct Workbench<'w> {
    world: &'w World,
    keys: &'static [Key],
    drafts: BTreeMap<FileName, Vec<u8>>,
    /// Whether names and hashes follow the content.
    is_sealed: bool,
    last_words: Vec<LastWord>,
}

/// What is done to the tree when it is served.
enum LastWord {
    Remove(usize),
    /// A file under the name of another.
    Exchange(usize, usize),
    /// A file under a name that it never had.
    Rename(usize, FileName),
    Replace(usize, Body),
    Damage(usize, wire::Damage),
}

impl<'w> Workbench<'w> {
    pub(super) fn new(world: &'w World, base: usize, keys: &'static [Key]) -> Self {
        let drafts = world.tree(base).iter();
        let drafts = drafts.map(|(name, body)| (name.clone(), body.bytes().to_vec())).collect();
        Self { world, keys, drafts, is_sealed: false, last_words: Vec::new() }
    }

    /// Does what the choices say, one step after the other.
    pub(super) fn work(&mut self, choices: &mut Choices<'_>) {
        for _ in 0..MOST_STEPS {
            if choices.is_empty() {
                return;
            }
            self.step(choices);
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 16 {
            0 | 1 => self.with_document(choices, |_, document, choices, other| edit::any(document, choices, other)),
            2 => self.with_document(choices, |_, document, choices, _| edit::version(document, choices)),
            3 => self.with_document(choices, |world, document, choices, _| edit::target(document, &world.tags, choices)),
            4 => self.with_keys(choices, |keys, document, choices| edit::authority(document, keys, choices)),
            5 | 6 => self.with_keys(choices, |keys, document, choices| edit::sign(document, keys, choices)),
            7 | 8 => self.seal(choices),
            9 => self.add_list(choices),
            10 => self.add_root(),
            11 => self.drop_draft(choices),
            12 => self.replace_draft(choices),
            13 => self.damage_draft(choices),
            _ => self.say_last_word(choices),
        }
    }

    fn chosen(&self, choices: &mut Choices<'_>) -> Option<FileName> {
        self.drafts.keys().nth(usize::from(choices.byte()).checked_rem(self.drafts.len())?).cloned()
    }

    fn from_pool(&self, choices: &mut Choices<'_>) -> &'w Body {
        &self.world.pool[choices.below(self.world.pool.len())]
    }

    // === drafts ===

    /// Edits a draft that is still JSON; a file of the pool is at hand.
    fn with_document(&mut self, choices: &mut Choices<'_>, edit: impl FnOnce(&World, &mut Value, &mut Choices<'_>, &Value)) {
        let Some(name) = self.chosen(choices) else { return };
        let other = serde_json::from_slice(self.from_pool(choices).bytes()).unwrap_or_default();
        let Some(draft) = self.drafts.get_mut(&name) else { return };
        let Ok(mut document) = serde_json::from_slice::<Value>(draft) else { return };
        edit(self.world, &mut document, choices, &other);
        *draft = forge::wire(&document);
    }

    fn with_keys(&mut self, choices: &mut Choices<'_>, edit: impl FnOnce(&[Key], &mut Value, &mut Choices<'_>)) {
        let Some(draft) = self.chosen(choices).and_then(|name| self.drafts.get_mut(&name)) else { return };
        let Ok(mut document) = serde_json::from_slice::<Value>(draft) else { return };
        edit(self.keys, &mut document, choices);
        *draft = forge::wire(&document);
    }

    fn add_list(&mut self, choices: &mut Choices<'_>) {
        let Some(role) = choices.one_of(&ROLES) else { return };
        self.drafts.retain(|name, _| !matches!(name, FileName::ByHash(of, _) if of.as_str() == *role));
        self.drafts.insert(by_hash(role, NEW_LIST.as_bytes()), NEW_LIST.into());
    }

    /// The newest root once more, as the next version.
    fn add_root(&mut self) {
        let Some((version, newest)) = self.newest_root() else { return };
        let Ok(mut document) = serde_json::from_slice::<Value>(newest) else { return };
        if let Some(number) = document.pointer_mut("/signed/version") {
            *number = json!(version + 1);
        }
        self.drafts.insert(FileName::Root(version + 1), forge::wire(&document));
    }

    fn newest_root(&self) -> Option<(u64, &Vec<u8>)> {
        self.drafts.iter().rev().find_map(|(name, draft)| match name {
            FileName::Root(version) => Some((*version, draft)),
            FileName::NewestRoot | FileName::Timestamp | FileName::ByHash(..) => None,
        })
    }

    fn drop_draft(&mut self, choices: &mut Choices<'_>) {
        if let Some(name) = self.chosen(choices) {
            self.drafts.remove(&name);
        }
    }

    fn replace_draft(&mut self, choices: &mut Choices<'_>) {
        let body = self.from_pool(choices).bytes().to_vec();
        if let Some(draft) = self.chosen(choices).and_then(|name| self.drafts.get_mut(&name)) {
            *draft = body;
        }
    }

    fn damage_draft(&mut self, choices: &mut Choices<'_>) {
        let other = self.from_pool(choices);
        let damage = wire::Damage::read(choices, other);
        if let Some(draft) = self.chosen(choices).and_then(|name| self.drafts.get_mut(&name)) {
            damage.apply(draft);
        }
    }

    // === sealing ===

    /// Makes snapshot and timestamp say what the drafts are, and signs them.
    fn seal(&mut self, choices: &mut Choices<'_>) {
        self.is_sealed = true;
        let flags = choices.byte();
        let mut meta = BTreeMap::new();
        if let Some((_, root)) = self.newest_root() {
            meta.insert("root".to_owned(), forge::entry(root));
        }
        let lists = self.drafts.iter().filter_map(|(name, draft)| Some((list_name(name)?, forge::entry(draft))));
        meta.extend(lists);
        let is_snapshot = |name: &FileName| matches!(name, FileName::ByHash(RoleName::Snapshot, _));
        let Some(name) = self.drafts.keys().find(|name| is_snapshot(name)).cloned() else { return };
        self.publish(&name, flags, choices.byte(), |signed| match signed.get_mut("meta").and_then(Value::as_object_mut) {
            Some(listed) => {
                // Without the flag, entries of lists that are gone stay.
                listed.retain(|role, _| flags & 2 == 0 || meta.contains_key(role));
                listed.extend(meta);
            }
            None => signed["meta"] = meta.into_iter().collect(),
        });
        let snapshot = self.drafts.get(&name).map(|snapshot| forge::entry(snapshot));
        self.publish(&FileName::Timestamp, flags >> 2, choices.byte(), |signed| signed["meta"] = json!({"snapshot": snapshot}));
    }

    /// Edits what is signed, perhaps as a new version, and signs it with one key.
    fn publish(&mut self, name: &FileName, flags: u8, key: u8, edit: impl FnOnce(&mut Value)) {
        let Some(draft) = self.drafts.get_mut(name) else { return };
        let Ok(mut document) = serde_json::from_slice::<Value>(draft) else { return };
        let Some(signed) = document.get_mut("signed").filter(|signed| signed.is_object()) else { return };
        edit(signed);
        if flags & 1 == 1 {
            signed["version"] = json!(signed["version"].as_u64().unwrap_or_default().saturating_add(1));
        }
        let key = &self.keys[usize::from(key) % self.keys.len()];
        document["signatures"] = json!([key.signature(&forge::canonical(&document["signed"]))]);
        *draft = forge::wire(&document);
    }

    // === serving ===

    fn say_last_word(&mut self, choices: &mut Choices<'_>) {
        let word = choices.byte();
        let at = choices.byte().into();
        let other = self.from_pool(choices);
        self.last_words.push(match word % 5 {
            0 => LastWord::Remove(at),
            1 => LastWord::Exchange(at, choices.byte().into()),
            2 => LastWord::Rename(at, new_name(choices, *other.hash())),
            3 => LastWord::Replace(at, other.clone()),
            _ => LastWord::Damage(at, wire::Damage::read(choices, other)),
        });
    }

    /// The tree as it is served.
    pub(super) fn served(self) -> Files {
        let mut served = Files::new();
        let newest_root = self.newest_root().map(|(_, root)| root.clone()).filter(|_| self.is_sealed);
        for (name, draft) in self.drafts {
            let name = if self.is_sealed { name_of(&name, &draft) } else { name };
            served.insert(name, draft.into());
        }
        if let Some(root) = newest_root {
            served.insert(by_hash("root", &root), root.as_slice().into());
            served.insert(FileName::NewestRoot, root.into());
        }
        self.last_words.into_iter().for_each(|word| word.apply(&mut served));
        served
    }
}

fn by_hash(role: &str, content: &[u8]) -> FileName {
    FileName::ByHash(role.parse().expect("a role"), Sha256::of(content))
}

/// The name that a file has by its content.
fn name_of(name: &FileName, content: &[u8]) -> FileName {
    match name {
        FileName::NewestRoot | FileName::Root(_) | FileName::Timestamp => name.clone(),
        FileName::ByHash(role, _) => FileName::ByHash(role.clone(), Sha256::of(content)),
    }
}

fn list_name(name: &FileName) -> Option<String> {
    match name {
        FileName::ByHash(role @ (RoleName::Targets | RoleName::Delegation(_)), _) => Some(role.to_string()),
        FileName::ByHash(RoleName::Root | RoleName::Timestamp | RoleName::Snapshot, _) => None,
        FileName::NewestRoot | FileName::Root(_) | FileName::Timestamp => None,
    }
}

fn new_name(choices: &mut Choices<'_>, hash: Sha256) -> FileName {
    match choices.byte() % 6 {
        0 => FileName::NewestRoot,
        1 | 2 => FileName::Root(u64::from(choices.byte() % 8)),
        3 => FileName::Timestamp,
        _ => FileName::ByHash(choices.one_of(&ROLES).and_then(|role| role.parse().ok()).unwrap_or(RoleName::Snapshot), hash),
    }
}

impl LastWord {
    fn apply(self, served: &mut Files) {
        let name = |served: &Files, at: usize| served.keys().nth(at.checked_rem(served.len()).unwrap_or(0)).cloned();
        let (Self::Remove(at) | Self::Exchange(at, _) | Self::Rename(at, _) | Self::Replace(at, _) | Self::Damage(at, _)) = &self;
        let Some(first) = name(served, *at) else { return };
        let Some(body) = served.get(&first).cloned() else { return };
        match self {
            Self::Remove(_) => drop(served.remove(&first)),
            Self::Exchange(_, other) => {
                if let Some(second) = name(served, other) {
                    let other = served.insert(second, body);
                    served.extend(other.map(|other| (first, other)));
                }
            }
            Self::Rename(_, new) => drop(served.insert(new, body)),
            Self::Replace(_, with) => drop(served.insert(first, with)),
            Self::Damage(_, damage) => {
                let mut bytes = body.bytes().to_vec();
                damage.apply(&mut bytes);
                served.insert(first, bytes.into());
            }
        }
    }
}
