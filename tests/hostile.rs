//! Every hostile repository of the fixtures is refused for its own reason.
//!
//! Each was served to the real `notary` 0.7.0; its `verdict.json` says what that did and what countersign must do.
//! `tests/hostile/matrix.tsv` gives each case the code it must be refused with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "notary/archive.rs"]
mod archive;
#[path = "notary/node.rs"]
mod node;
#[path = "notary/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "notary/table.rs"]
mod table;

use std::collections::BTreeMap;

use countersign_trust::evidence::Gun;
use countersign_trust::name::Repository;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use node::{Node, Outcome};
use serde_json::Value;
use server::Tree;

struct Case<'a> {
    name: String,
    files: &'a BTreeMap<String, Vec<u8>>,
    verdict: Value,
}

impl Case<'_> {
    fn texts(&self, member: &str) -> Vec<&str> {
        self.verdict[member].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    }

    fn pins(&self, is_last_phase: bool) -> Result<Pins, String> {
        let gun = self.verdict["gun"].as_str().unwrap();
        let mut pins = Pins::default();
        let configured = &self.verdict["notary_trust_pinning"];
        if self.name.starts_with("L-") && is_last_phase {
            for (name, ids) in configured["certs"].as_object().into_iter().flatten() {
                let ids = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap());
                // Wildcards belong to root-keys here; the case then asks for the same of those.
                if name.ends_with("/*") && self.verdict["countersign"]["verdict"] != "config-error" {
                    pins.add_root_keys(name, ids).map_err(|errors| format!("config-error: {errors:?}"))?;
                } else {
                    pins.add_certificate_ids(name, ids).map_err(|errors| format!("config-error: {errors:?}"))?;
                }
            }
        } else {
            let never = "0".repeat(64);
            let ids = self.texts("root_cert_ids_all_phases");
            pins.add_certificate_ids(gun, ids.into_iter().chain([never.as_str()])).unwrap();
        }
        Ok(pins)
    }

    fn run(&self) -> Outcome {
        let repository: Repository = self.verdict["gun"].as_str().unwrap().parse().unwrap();
        let gun = Gun::for_repository(&repository);
        let moments = self.texts("now_per_phase");
        let mut node = Node::default();
        let mut outcome = Err("no phase".into());
        for (place, moment) in moments.iter().enumerate() {
            let is_last = place + 1 == moments.len();
            let Ok(pins) = self.pins(is_last) else { return Err("config-error".into()) };
            let tree = Tree::new(self.files, &format!("{}/phase{}", self.name, place + 1));
            outcome = node.refresh(&gun, &pins, UnixTime::parse_rfc3339(moment).unwrap(), &tree);
            if !is_last {
                assert!(outcome.is_ok(), "{}: phase {} must be accepted: {:?}", self.name, place + 1, outcome.err());
            }
        }
        outcome
    }
}

fn cases(files: &BTreeMap<String, Vec<u8>>) -> Vec<Case<'_>> {
    let verdicts = files.iter().filter_map(|(path, text)| Some((path.strip_suffix("/verdict.json")?, text)));
    verdicts.map(|(name, text)| Case { name: name.to_owned(), files, verdict: serde_json::from_slice(text).unwrap() }).collect()
}

/// What countersign must do, from the verdict or, where that leaves it open, from what this version offers.
fn demanded(case: &Case<'_>) -> &'static str {
    match case.verdict["countersign"]["verdict"].as_str().unwrap() {
        // CA pinning is not offered: these have no pin here.
        _ if case.name.starts_with("L-trust-pinning/ca-") => "reject",
        // A wildcard inside a component is refused here before it could win.
        "accept" if case.name.ends_with("/certs-longest-wildcard-wins-good-longest") => "config-error",
        "accept" => "accept",
        "reject" => "reject",
        "config-error" => "config-error",
        "either" => "either",
        other => panic!("{}: unknown verdict {other}", case.name),
    }
}

/// The tags that must not be usable, as the captured verdict has them.
fn hidden(verdict: &Value) -> Vec<&str> {
    verdict["countersign"]["hidden_targets"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect()
}

/// What the captured verdict leaves to be wrong about an outcome.
fn contradiction(case: &Case<'_>, outcome: &Outcome, verdict: &str) -> Option<String> {
    let fits = match demanded(case) {
        "accept" => outcome.is_ok(),
        "config-error" => verdict == "config-error",
        "reject" => outcome.is_err(),
        _ => true,
    };
    let hidden = hidden(&case.verdict);
    let fits_tags = outcome.is_err() || hidden.iter().all(|tag| verdict.split([' ', ':', ';']).any(|word| word == *tag));
    (!fits || !fits_tags).then(|| format!("{}: must {} without {hidden:?}, got {verdict}", case.name, demanded(case)))
}

#[test]
fn every_hostile_case_is_refused_for_its_own_reason() {
    let files: BTreeMap<_, _> =
        archive::files("hostile.tar.xz").into_iter().map(|(path, text)| (path.trim_start_matches("hostile/").to_owned(), text)).collect();
    let expected: BTreeMap<&str, table::Row> =
        table::rows().into_iter().filter(|row| row.is_shown("archive")).map(|row| (row.name, row)).collect();
    let mut wrong = Vec::new();
    let mut met = 0;
    // Of a few cases the archive has the verdict alone: their bytes are megabytes of padding.
    for case in cases(&files).into_iter().filter(|case| case.verdict["bytes_kept"] == true) {
        let outcome = case.run();
        let all: Vec<&str> = case.verdict["all_targets"].as_object().into_iter().flatten().map(|(tag, _)| tag.as_str()).collect();
        let usable = outcome.as_ref().map(|trusted| trusted.listed().map(|(_, tag, _)| tag)).map_err(String::as_str);
        let verdict = table::verdict(usable, &all);
        let row = expected.get(case.name.as_str());
        if row.is_none_or(|row| row.countersign != verdict) {
            let reference = &case.verdict["reference"]["message"];
            wrong.push(format!("{}: must be {row:?}, got {verdict} (the reference: {reference})", case.name));
        }
        wrong.extend(contradiction(&case, &outcome, &verdict));
        met += 1;
    }
    assert_eq!(met, expected.len(), "cases of the archive");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
