//! Writes what the fuzzers begin with into `fuzz/corpus/`: real and hostile files of the tests' archives, the
//! configurations of `tests/golden`, and a few inputs made here. `make fuzz-seeds` runs it; running it again changes
//! nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/notary/archive.rs"]
mod archive;
mod attacks;
mod calls;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::known::{Floor, Known};
use countersign_trust::name::Sha256;
use serde_json::Value;

/// Longer files only make a fuzzer slow.
const LONGEST: usize = 16 * 1024;
/// Groups of hostile repositories whose files are odd in themselves; those of the others are odd in their place.
const ODD: [&str; 5] = ["D-root-structure", "E-root-certificate", "H-delegations", "I-encoding", "J-hash-size"];
/// As `fuzz/src/role_file.rs` chooses.
const KINDS: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];
/// As `fuzz/src/certificate.rs` chooses.
const KEY_TYPES: [&str; 5] = ["ecdsa", "rsa", "ecdsa-x509", "rsa-x509", "ed25519"];

fn main() {
    let role_files = role_files();
    let files = || role_files.iter().map(|(_, bytes)| bytes.clone());
    let of_kind = role_files.iter().map(|(kind, bytes)| [&[*kind], bytes.as_slice()].concat());
    // Four stands for text in any order.
    let in_any_order = role_files.iter().step_by(7).map(|(kind, bytes)| [&[*kind | 4], bytes.as_slice()].concat());
    write("role_file", of_kind.chain(in_any_order));
    write("canonical_json", files().chain(small_json()));
    write("certificate", files().flat_map(|bytes| keys_in(&bytes)));
    write("codec", encodings());
    write("verify", attacks::all());
    write("reference", names());
    write("config", configurations());
    write("import", imports());
    write("cri_messages", calls::all());
}

/// A seed is named by its content, so that the same one is written once.
fn write(target: &str, seeds: impl Iterator<Item = Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    let seeds: BTreeSet<Vec<u8>> = seeds.filter(|seed| seed.len() <= LONGEST).collect();
    for seed in &seeds {
        fs::write(folder.join(format!("seed-{}", &Sha256::of(seed).to_hex()[..16])), seed).unwrap();
    }
    println!("{target}: {} seeds, {} bytes", seeds.len(), seeds.iter().map(Vec::len).sum::<usize>());
}

/// Every role file of the archives, with the kind that its name says.
fn role_files() -> BTreeSet<(u8, Vec<u8>)> {
    let hostile = archive::files("hostile.tar.xz");
    let odd = hostile.into_iter().filter(|(path, _)| ODD.iter().any(|group| path.contains(group)));
    let all = odd.chain(archive::files("live.tar.xz"));
    all.filter_map(|(path, bytes)| Some((kind_of(&path)?, bytes))).collect()
}

fn kind_of(path: &str) -> Option<u8> {
    let name = path.strip_suffix(".json")?;
    let last = name.rsplit('/').next()?;
    let kind = match last.split('.').find(|part| KINDS.contains(part)) {
        Some(kind) => kind,
        None if name.contains("/targets/") => "targets",
        None => return None,
    };
    KINDS.iter().position(|known| *known == kind)?.try_into().ok()
}

fn small_json() -> impl Iterator<Item = Vec<u8>> {
    let texts = [
        r#"{"b":[1,-2,null,true,false,{}],"a":"<\u003c&\u2028"}"#,
        r#"{"x":"\ud83d\ude00\u0000\u001f\"\\\/\b\f\n\r\t"}"#,
        r#"{"n":9007199254740991,"m":-9007199254740991}"#,
        "{\"a\":{\"a\":{\"a\":[[[[]]]]}},\"\u{ffff}\":1,\"\u{10000}\":2}",
    ];
    texts.into_iter().map(|text| text.as_bytes().to_vec())
}

// === keys ===

/// Every key that a role file lists, as it is listed; one in a certificate also as DER.
fn keys_in(file: &[u8]) -> Vec<Vec<u8>> {
    let Ok(document) = serde_json::from_slice::<Value>(file) else { return Vec::new() };
    let places = ["/signed/keys", "/signed/delegations/keys"];
    let listed = places.into_iter().filter_map(|place| document.pointer(place)?.as_object());
    listed.flat_map(|keys| keys.values()).filter_map(key_seeds).flatten().collect()
}

fn key_seeds(key: &Value) -> Option<Vec<Vec<u8>>> {
    let key_type = key["keytype"].as_str()?;
    let choice = u8::try_from(KEY_TYPES.iter().position(|known| *known == key_type)?).ok()?;
    let public = STANDARD.decode(key["keyval"]["public"].as_str()?).ok()?;
    let der = std::str::from_utf8(&public).ok().and_then(first_certificate);
    let listed = [&[choice, 0], public.as_slice()].concat();
    let with_signatures = [&[choice | 0x80, 0], public.as_slice()].concat();
    Some([listed, with_signatures].into_iter().chain(der.map(|der| [&[choice, 1], der.as_slice()].concat())).collect())
}

fn first_certificate(pem: &str) -> Option<Vec<u8>> {
    let (_, begun) = pem.split_once("-----BEGIN CERTIFICATE-----\n")?;
    let (lines, _) = begun.split_once("\n-----END CERTIFICATE-----")?;
    STANDARD.decode(lines.replace('\n', "")).ok()
}

// === encodings ===

/// Captured repositories as evidence, and what a node might know of one. Two is the choice of whole encodings.
fn encodings() -> impl Iterator<Item = Vec<u8>> {
    let live = archive::files("live.tar.xz");
    let gun = Gun::for_repository(&"r.test/team/app".parse().unwrap());
    let mut evidence: BTreeMap<String, Evidence> = BTreeMap::new();
    for (path, bytes) in live {
        let Some((directory, name)) = path.strip_prefix("live/").and_then(|path| path.split_once('/')) else { continue };
        let Some(file) = file_name(name) else { continue };
        let collected = evidence.entry(directory.to_owned()).or_insert_with(|| Evidence::new(gun.clone(), "https://n.test".into()));
        collected.add(file, Answer::Found(bytes.into()));
    }
    let mut small = Evidence::new(gun, String::new());
    small.add(FileName::Root(2), Answer::NotFound);
    small.add(FileName::Timestamp, Answer::Found(b"{}".as_slice().into()));
    let mut known = Known { root: Some(b"{}".as_slice().into()), ..Known::default() };
    known.floors.insert("targets/releases".into(), Floor { version: 7, signed: Sha256::of(b"") });
    known.published.insert("targets/releases".into());
    let evidence = evidence.into_values().chain([small]).map(|evidence| [vec![2], evidence.encode()].concat());
    evidence.chain([Known::default(), known].map(|known| [vec![3], known.encode()].concat()))
}

fn file_name(name: &str) -> Option<FileName> {
    match name {
        "current/root.json" => Some(FileName::NewestRoot),
        "current/timestamp.json" => Some(FileName::Timestamp),
        _ => {
            let (role, hash) = name.strip_prefix("by-hash/")?.strip_suffix(".json")?.split_once('.')?;
            Some(FileName::ByHash(role.parse().ok()?, Sha256::from_hex(hash).ok()?))
        }
    }
}

// === texts ===

fn names() -> impl Iterator<Item = Vec<u8>> {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let texts = [
        "*\nalpine".to_owned(),
        "alpine\nlibrary/alpine:3".to_owned(),
        "r.test:5000/team/*\nr.test:5000/team/app".to_owned(),
        "index.docker.io/acme/*\nacme/web".to_owned(),
        format!("localhost/a_b__c-d--e.f\nlocalhost/a_b__c-d--e.f:Tag_1.-@{digest}"),
        format!("[::1]:5000/a/*\n[::1]:5000/a/b@{digest}"),
        format!("targets/releases\ntargets/a/b_c-d\nroot\n{digest}"),
        "UPPER/x\nUPPER.example:1/x:latest".to_owned(),
    ];
    texts.into_iter().map(String::into_bytes)
}

/// As `fuzz/src/import.rs` chooses.
fn imports() -> impl Iterator<Item = Vec<u8>> {
    let programs = [(0, "docker"), (1, "mke"), (2, "registry")];
    programs.into_iter().flat_map(|(choice, program)| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import").join(program);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "expected"));
        files.map(move |path| [vec![choice], fs::read(path).unwrap()].concat())
    })
}

fn configurations() -> impl Iterator<Item = Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let golden = fs::read_dir(root.join("tests/golden/config")).unwrap().map(|entry| entry.unwrap().path());
    let golden = golden.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    golden.chain([root.join("systemd/config.toml.example")]).map(|path| fs::read(path).unwrap())
}
