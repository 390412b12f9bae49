//! Is the gate itself fit, with its clock, its disk and its certificates?

use countersign_trust::mode::Mode;
use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;
use x509_cert::Certificate;
use x509_cert::der::DecodePem as _;

use super::process::Process;
use super::{Finding, Node, path_text};
use crate::admin::v1::self_proof::Shown;
use crate::clock::{Clock as _, SystemClock};

const GATE: &str = "the gate";
const MODE: &str = "mode";
const PROOF: &str = "self-proof";
const BYPASSES: &str = "bypasses";
const LEDGER: &str = "ledger";
const AUDIT: &str = "audit log";
const CLOCK: &str = "clock";
const DISK: &str = "disk";
const TRUST_DATA: &str = "trust data";
const CERTIFICATES: &str = "certificates";

/// Programs that set clocks, as Linux cuts their names.
const TIME_SERVICES: [&str; 6] = ["chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys", "openntpd"];
/// Less free space than this is soon none: what is held of one repository takes up to 52 MiB, and the ledger is copied when it is
/// made smaller.
const LEAST_FREE_BYTES: u64 = 256 * 1024 * 1024;
const LEAST_FREE_FILES: u64 = 1024;
/// Notary's servers sign timestamps for 14 days, and sign them again by themselves in time.
const TRUST_DATA_SOON_DAYS: i64 = 3;
/// Long enough to renew a certificate through any office.
const CERTIFICATE_SOON_DAYS: i64 = 30;
const SECONDS_PER_DAY: i64 = 86_400;
/// Things that are named in one sentence.
const MOST_NAMED: usize = 8;

/// What the daemon says of itself.
pub(super) fn of_daemon(node: &Node<'_>) -> Vec<Finding> {
    let admin = path_text(&node.config.listen.admin);
    let Some(status) = node.daemon else {
        return vec![Finding::open(
            GATE,
            format!("the daemon does not answer at {admin}"),
            "systemctl status countersign; journalctl -u countersign",
        )];
    };
    let mut findings = vec![Finding::ok(GATE, format!("the daemon answers at {admin}")), mode(&status.mode)];
    let proof = status.self_proof.clone().unwrap_or_default();
    findings.push(self_proof(proof.shown(), &proof.proven_at, &proof.why));
    let wrong = status.inventory.as_ref().map_or(0, |inventory| inventory.unverified);
    findings.push(bypasses(status.bypasses_seen, wrong));
    if !status.ledger_fault.is_empty() {
        let says = format!("everything is denied, since the ledger cannot be used: {}", status.ledger_fault);
        findings.push(Finding::warn(LEDGER, says, "docs/operations.md, “The ledger”"));
    }
    if !status.ledger_full.is_empty() {
        findings.push(Finding::warn(LEDGER, status.ledger_full.clone(), "docs/operations.md, “The ledger”"));
    }
    if !status.audit_fault.is_empty() {
        findings.push(Finding::warn(AUDIT, status.audit_fault.clone(), "docs/observing.md, “The audit log”"));
    }
    if !status.clock_fault.is_empty() {
        findings.push(Finding::warn(
            CLOCK,
            status.clock_fault.clone(),
            "set the clock; if that one was wrong: countersign reset --clock --reason TEXT",
        ));
    }
    let ends = status.trust_data.iter().map(|held| (held.repository.as_str(), UnixTime::parse_rfc3339(&held.ends)));
    findings.extend(UnixTime::parse_rfc3339(&status.now).map(|now| trust_data(ends, now)));
    findings
}

fn mode(word: &str) -> Finding {
    match word.parse::<Mode>() {
        Ok(Mode::Enforced) => Finding::ok(MODE, "images that do not verify are neither pulled nor run (enforced)"),
        Ok(Mode::Permissive) => Finding::open(
            MODE,
            "images that do not verify run all the same (permissive)",
            "set mode = \"enforced\" in [content-trust], systemctl reload countersign",
        ),
        Ok(Mode::Disabled) => Finding::open(
            MODE,
            "nothing is verified (disabled)",
            "set mode = \"enforced\" in [content-trust], systemctl reload countersign",
        ),
        Err(_) => Finding::warn(MODE, "the daemon does not say in which mode it is", "update countersign and its daemon to one version"),
    }
}

fn self_proof(shown: Shown, proven_at: &str, why: &str) -> Finding {
    const MEND: &str = "journalctl -u countersign | grep 'tried itself'";
    match shown {
        Shown::Enforced => Finding::ok(PROOF, format!("what must be refused was refused, last at {proven_at}")),
        Shown::NothingToEnforce => Finding::ok(PROOF, "there is nothing to prove, since nothing is verified"),
        Shown::Unspecified => Finding::warn(PROOF, "the gate has not tried itself yet", "countersign status, in a minute"),
        Shown::NotMade => Finding::warn(PROOF, format!("the gate could not try itself: {why}"), MEND),
        Shown::WronglyRefused => Finding::warn(PROOF, format!("the gate refuses what it must allow: {why}"), MEND),
        Shown::WronglyAllowed => Finding::open(
            PROOF,
            format!("the gate lets through what it must refuse: {why}"),
            "systemctl restart countersign, and report this with its log",
        ),
    }
}

fn bypasses(seen: u64, unverified: u64) -> Finding {
    if seen == 0 && unverified == 0 {
        return Finding::ok(BYPASSES, "nothing was seen to come past the gate, and everything that runs has valid evidence");
    }
    Finding::warn(
        BYPASSES,
        format!("{seen} times something came past the gate, and {unverified} containers run without valid evidence"),
        "countersign status",
    )
}

fn days_between(now: UnixTime, end: UnixTime) -> i64 {
    end.seconds().saturating_sub(now.seconds()).div_euclid(SECONDS_PER_DAY)
}

fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let text = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn trust_data<'a>(ends: impl Iterator<Item = (&'a str, Option<UnixTime>)>, now: UnixTime) -> Finding {
    let mut soon = Vec::new();
    let mut count = 0_usize;
    for (repository, end) in ends {
        count = count.saturating_add(1);
        match end.map(|end| (end, days_between(now, end))) {
            None => soon.push(format!("{} (cannot be used)", shown(repository))),
            Some((end, days)) if days < 0 => soon.push(format!("{} (ended {end})", shown(repository))),
            Some((end, days)) if days < TRUST_DATA_SOON_DAYS => soon.push(format!("{} (ends {end})", shown(repository))),
            Some(_) => {}
        }
    }
    if soon.is_empty() {
        return Finding::ok(TRUST_DATA, format!("what is held of {count} repositories is valid for {TRUST_DATA_SOON_DAYS} days and more"));
    }
    Finding::warn(
        TRUST_DATA,
        format!("trust data has ended, or ends soon: {}", named(&soon)),
        "countersign inspect REPOSITORY; journalctl -u countersign | grep 'could not be refreshed'",
    )
}

/// What the node says.
pub(super) fn of_node(node: &Node<'_>, processes: &[Process]) -> Vec<Finding> {
    vec![time_service(processes), disk(node), certificates(node)]
}

fn time_service(processes: &[Process]) -> Finding {
    let service = processes.iter().find(|process| TIME_SERVICES.contains(&process.name.as_str()));
    match service {
        Some(service) => Finding::ok(CLOCK, format!("{} sets the clock", shown(&service.name))),
        None => Finding::warn(CLOCK, "no program that sets the clock was seen: trust data ends by it", "timedatectl set-ntp true"),
    }
}

fn disk(node: &Node<'_>) -> Finding {
    let directory = path_text(&node.config.state_directory);
    let found = match rustix::fs::statvfs(&node.config.state_directory) {
        Ok(found) => found,
        Err(error) => return Finding::warn(DISK, format!("{directory} cannot be looked at: {error}"), "systemctl restart countersign"),
    };
    space(&directory, found.f_bavail.saturating_mul(found.f_frsize), (found.f_files > 0).then_some(found.f_favail))
}

fn space(directory: &str, bytes: u64, files: Option<u64>) -> Finding {
    let mebibytes = bytes / (1024 * 1024);
    if bytes < LEAST_FREE_BYTES || files.is_some_and(|files| files < LEAST_FREE_FILES) {
        let says = format!("{directory} has {mebibytes} MiB left: what cannot be written down is denied");
        return Finding::warn(DISK, says, format!("df {directory}; crictl rmi --prune"));
    }
    Finding::ok(DISK, format!("{directory} has {mebibytes} MiB left"))
}

fn certificates(node: &Node<'_>) -> Finding {
    let Ok(now) = SystemClock.now() else {
        return Finding::warn(
            CERTIFICATES,
            "the clock cannot be right, so that it cannot be told which certificates have ended",
            "set the clock",
        );
    };
    let authorities = node.config.registries.iter().flat_map(|registry| {
        let ends = registry.ca_bundle.as_deref().map(ends_in).unwrap_or_default();
        ends.into_iter().map(move |end| (format!("an authority of {}", registry.host), end))
    });
    let signers =
        node.config.signer_certificates.iter().map(|signer| (format!("{} of {}", shown(&signer.file), signer.signer), signer.not_after));
    let soon = authorities.chain(signers).filter(|(_, end)| days_between(now, *end) < CERTIFICATE_SOON_DAYS);
    let soon: Vec<String> = soon.map(|(name, end)| format!("{name} ({end})")).collect();
    if soon.is_empty() {
        return Finding::ok(CERTIFICATES, format!("no certificate of the configuration ends within {CERTIFICATE_SOON_DAYS} days"));
    }
    Finding::warn(
        CERTIFICATES,
        format!("certificates have ended, or end soon: {}", named(&soon)),
        "renew them, and systemctl reload countersign",
    )
}

/// When the certificates of a bundle end. What is none was refused with the configuration.
fn ends_in(bundle: &str) -> Vec<UnixTime> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = bundle.split_inclusive(END).filter_map(|block| block.find("-----BEGIN CERTIFICATE-----").and_then(|at| block.get(at..)));
    let read = blocks.filter_map(|block| Certificate::from_pem(block).ok());
    let end = |certificate: Certificate| {
        let seconds = certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
        UnixTime::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
    };
    read.map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_mode_that_lets_images_run_unverified_is_an_open_door() {
        for (word, state) in [("enforced", State::Ok), ("permissive", State::Open), ("disabled", State::Open), ("", State::Warn)] {
            assert_eq!(mode(word).state, state, "{word}");
        }
    }

    #[test]
    fn only_a_wrongly_allowed_image_is_an_open_door() {
        let state = |shown| self_proof(shown, "2026-11-27T12:00:00Z", "why").state;
        assert_eq!(state(Shown::Enforced), State::Ok);
        assert_eq!(state(Shown::WronglyAllowed), State::Open);
        for shown in [Shown::Unspecified, Shown::NotMade, Shown::WronglyRefused] {
            assert_eq!(state(shown), State::Warn, "{shown:?}");
        }
    }

    #[test]
    fn trust_data_that_has_ended_or_soon_will_is_named() {
        let now = UnixTime::from_seconds(1_000_000_000);
        let day = |days: i64| Some(now.plus_seconds(days * SECONDS_PER_DAY + 1));
        assert_eq!(trust_data([("r.test/a", day(3))].into_iter(), now).state, State::Ok);
        for (end, word) in [(day(2), "ends "), (day(-2), "ended "), (None, "cannot be used")] {
            let finding = trust_data([("r.test/a", day(100)), ("r.test/b", end)].into_iter(), now);
            assert!(finding.state == State::Warn && finding.says.contains("r.test/b") && finding.says.contains(word), "{}", finding.says);
            assert!(!finding.says.contains("r.test/a"));
        }
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_to_be_looked_at() {
        assert_eq!(space("/s", LEAST_FREE_BYTES, Some(LEAST_FREE_FILES)).state, State::Ok);
        assert_eq!(space("/s", LEAST_FREE_BYTES - 1, Some(LEAST_FREE_FILES)).state, State::Warn);
        assert_eq!(space("/s", LEAST_FREE_BYTES, Some(LEAST_FREE_FILES - 1)).state, State::Warn);
        assert_eq!(space("/s", LEAST_FREE_BYTES, None).state, State::Ok, "a file system that counts no files");
    }

    #[test]
    fn every_certificate_of_a_bundle_is_looked_at() {
        let make = |year| {
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let bundle = format!("# a comment\n{}\nanother\n{}", make(2031), make(2032));
        let ends: Vec<String> = ends_in(&bundle).iter().map(ToString::to_string).collect();
        assert_eq!(ends, ["2031-01-01T00:00:00Z", "2032-01-01T00:00:00Z"]);
    }
}
