//! The unit that systemd runs, as systemd itself judges it.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

const UNIT: &str = "systemd/countersign.service";
/// The highest exposure that is accepted, in tenths: systemd calls everything up to 2.0 well protected.
const EXPOSURE: &str = "--threshold=20";

fn analyze(arguments: &[&str]) -> Output {
    // By its file, so that nothing that is installed on the machine counts.
    let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).args(arguments).arg(UNIT).output();
    output.unwrap()
}

#[test]
fn the_unit_is_as_closed_as_it_can_be_and_says_why_each_exposure_stays() {
    let judged = analyze(&[EXPOSURE]);
    assert!(judged.status.success(), "{}{}", String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));

    let listed = analyze(&["--json=short"]);
    let rows: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let open: BTreeSet<&str> = rows.iter().filter(|row| row["set"] == false).map(|row| row["name"].as_str().unwrap()).collect();
    assert!(open.contains("PrivateNetwork="), "it needs the network: {open:?}");
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let (_, why) = unit.split_once("still counts, and why it stays:").unwrap();
    for exposure in open {
        let name = exposure.trim_start_matches("RestrictAddressFamilies=~").split(['=', '(']).next().unwrap().trim_end_matches('_');
        assert!(why.contains(name), "the unit does not say why {exposure} stays");
    }
}
