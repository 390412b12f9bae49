use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::ImageReference;

use super::super::report::Other;
use super::super::report::tests::{digest, image, in_use, report, revision};
use super::*;
use crate::resolve::{Cause, Meaning, Revision};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_100);

fn pin(name: &str, text: &str) -> PinSeen {
    pin_of(revision(name), image(), text)
}

fn pin_of(revision: Revision, image: ImageReference, text: &str) -> PinSeen {
    let evidence = Evidence::new(Gun::for_repository(image.repository()), "https://r.test".into()).digest();
    let at = UnixTime::from_seconds(1_800_000_000);
    let meaning =
        Meaning { digest: digest(text), evidence, evidence_bytes: 0, at, by: "node-1".into(), cause: Cause::FirstUse, voucher: None };
    let today = Today::Signed { digest: digest(text), ends: UnixTime::NEVER };
    let pin = Pin { generation: 1, ..Pin::first(revision, image, meaning, at).unwrap() };
    PinSeen { pin: Arc::new(pin), today }
}

fn pins() -> Vec<PinSeen> {
    vec![pin("api", "api"), pin("web", "web")]
}

fn seen(reports: Vec<Report>, pins: &[PinSeen]) -> Overview {
    let given = Given { own: "node-1", config: Sha256::of(b"config"), version: "0.1.0", pins, void: &[], now: NOW };
    overview(reports.into_iter().map(Ok), given)
}

fn three() -> Vec<Report> {
    vec![report("node-3"), report("node-1"), report("node-2")]
}

/// The findings of a cluster in which `change` is all that is wrong.
fn findings(change: impl FnOnce(&mut Vec<Report>, &mut Vec<PinSeen>)) -> Vec<Finding> {
    let (mut reports, mut pins) = (three(), pins());
    change(&mut reports, &mut pins);
    let seen = seen(reports, &pins);
    assert_eq!(seen.findings.len() as u64, seen.counts.values().sum::<u64>());
    let disagree = seen.findings.iter().any(|finding| finding.kind().is_disagreement());
    assert_eq!(seen.all_agree(), !disagree);
    seen.findings
}

fn subject(name: &str) -> Subject {
    Subject { revision: revision(name), image: image() }
}

#[test]
fn nodes_that_agree_are_listed_by_name_and_nothing_is_found() {
    let seen = seen(three(), &pins());
    assert_eq!(seen.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["node-1", "node-2", "node-3"]);
    assert_eq!((seen.nodes[0].age, seen.nodes[0].pins, seen.nodes[0].containers), (100, 2, 4));
    assert_eq!((seen.findings.as_slice(), seen.all_agree()), ([].as_slice(), true));
}

#[test]
fn a_node_with_another_configuration_or_version_than_most_is_named() {
    let other = Sha256::of(b"other");
    let found = findings(|reports, _| reports[0].config = other);
    assert_eq!(found, [Finding::Config { node: "node-3".into(), config: other, majority: Sha256::of(b"config") }]);
    let found = findings(|reports, _| reports[2].version = "0.2.0".into());
    assert_eq!(found, [Finding::Version { node: "node-2".into(), version: "0.2.0".into(), majority: "0.1.0".into() }]);
}

#[test]
fn the_majority_counts_even_where_this_node_is_the_odd_one_out_and_else_its_own() {
    let other = Sha256::of(b"other");
    let found = findings(|reports, _| [0, 2].into_iter().for_each(|at| reports[at].config = other));
    assert_eq!(found, [Finding::Config { node: "node-1".into(), config: Sha256::of(b"config"), majority: other }]);
    for config in [Sha256::of(b"a"), Sha256::of(b"b"), Sha256::of(b"c")] {
        let reports = vec![report("node-1"), Report { config, ..report("node-2") }];
        let found = seen(reports, &pins()).findings;
        assert_eq!(found, [Finding::Config { node: "node-2".into(), config, majority: Sha256::of(b"config") }], "one each");
    }
}

#[test]
fn containers_that_run_something_else_than_their_pin_says_are_told_of() {
    let old = Other { digest: digest("old"), containers: 3 };
    let found = findings(|reports, _| reports[0].in_use[1].others.push(old));
    let runs =
        Finding::RunsOther { node: "node-3".into(), subject: subject("web"), digest: digest("old"), containers: 3, pinned: digest("web") };
    let (three, one) = ((digest("web"), "node-3".to_owned(), 3), (digest("old"), "node-3".to_owned(), 1));
    assert_eq!(found, [Finding::Apart { subject: subject("web"), digests: vec![three, one] }, runs]);
    // What nobody runs is no container.
    assert_eq!(findings(|reports, _| reports[0].in_use[1].others.push(Other { containers: 0, ..old })), []);
}

#[test]
fn a_revision_that_runs_as_different_digests_on_different_nodes_is_told_of_with_the_nodes() {
    let found = findings(|reports, _| {
        reports[2].in_use[0].containers = 0;
        reports[2].in_use[0].others.push(Other { digest: digest("old"), containers: 1 });
    });
    let digests = vec![(digest("api"), "node-3".to_owned(), 2), (digest("old"), "node-2".to_owned(), 1)];
    assert_eq!(found[0], Finding::Apart { subject: subject("api"), digests });
    // Another revision, or another image, may run another digest.
    assert_eq!(
        findings(|reports, pins| {
            reports[0].in_use.push(in_use("db", "db"));
            pins.push(pin("db", "db"));
        }),
        []
    );
}

#[test]
fn a_node_that_goes_by_another_pin_is_told_of() {
    let found = findings(|reports, _| reports[0].in_use[0].generation = 2);
    let (there, here) = (Pinned { digest: digest("api"), generation: 2 }, Pinned { digest: digest("api"), generation: 1 });
    assert_eq!(found, [Finding::OtherPin { node: "node-3".into(), subject: subject("api"), there, here: Some(here) }]);
    let found = findings(|reports, _| reports[0].in_use.push(in_use("db", "db")));
    let there = Pinned { digest: digest("db"), generation: 1 };
    assert_eq!(found, [Finding::OtherPin { node: "node-3".into(), subject: subject("db"), there, here: None }]);
    let kinds: Vec<_> = findings(|reports, _| reports[0].in_use[0].digest = digest("new")).iter().map(Finding::kind).collect();
    assert_eq!(kinds, [FindingKind::Apart, FindingKind::RunsOther, FindingKind::OtherPin]);
}

#[test]
fn what_a_pin_rests_on_is_told_of_when_it_ends_soon_or_has_ended() {
    let at = |ends| findings(|_, pins| pins[0].today = Today::Signed { digest: digest("api"), ends });
    assert_eq!(at(NOW.plus_seconds(EVIDENCE_SOON_SECONDS)), []);
    for (seconds, has_ended) in [(EVIDENCE_SOON_SECONDS - 1, false), (1, false), (0, true), (-1, true)] {
        let ends = NOW.plus_seconds(seconds);
        assert_eq!(at(ends), [Finding::EvidenceEnds { subject: subject("api"), ends, has_ended }]);
    }
}

#[test]
fn a_tag_that_is_signed_as_something_else_by_now_is_an_update_and_no_disagreement() {
    let found = findings(|_, pins| pins[1].today = Today::Signed { digest: digest("new"), ends: UnixTime::NEVER });
    assert_eq!(found, [Finding::Update { subject: subject("web"), pinned: digest("web"), signed: digest("new") }]);
    assert_eq!(findings(|_, pins| pins[1].today = Today::Unknown), []);
}

#[test]
fn a_pin_that_would_be_refused_today_is_told_of() {
    let (code, reason) = ("CS-PIN-REVOKED".to_owned(), "it is not signed".to_owned());
    let found = findings(|_, pins| pins[1].today = Today::Refused { code: code.clone(), reason: reason.clone() });
    assert_eq!(found, [Finding::Refused { subject: subject("web"), code, reason }]);
}

#[test]
fn a_node_that_is_not_among_them_or_has_another_time_or_leaves_something_out_is_told_of() {
    assert_eq!(findings(|reports, _| drop(reports.remove(1))), [Finding::Untold { node: "node-1".into() }]);
    let ahead = |seconds| findings(|reports, _| reports[0].since = NOW.plus_seconds(seconds));
    assert_eq!(ahead(300), []);
    assert_eq!(ahead(301), [Finding::Clock { node: "node-3".into(), ahead: 301 }]);
    assert_eq!(findings(|reports, _| reports[0].left_out = 2), [Finding::LeftOut { node: "node-3".into(), pins: 2 }]);
}

#[test]
fn what_could_not_be_read_is_told_of_beside_the_rest() {
    let unreadable = Unreadable { key: "nodes/x".into(), why: "foreign".into() };
    let pins = pins();
    let given = Given { own: "node-1", config: Sha256::of(b"config"), version: "0.1.0", pins: &pins, void: &[], now: NOW };
    let seen = overview(three().into_iter().map(Ok).chain([Err(unreadable.clone())]), given);
    assert_eq!((seen.nodes.len(), seen.findings), (3, vec![Finding::Unreadable(unreadable)]));
}

#[test]
fn sentences_hold_no_control_characters() {
    let evil = "\u{1b}[2J\nnode".to_owned();
    let mut pin = in_use("web", "other");
    pin.revision.service.name.clone_from(&evil);
    pin.revision.id.clone_from(&evil);
    pin.others.push(Other { digest: digest("old"), containers: 1 });
    let bad = Report { node: evil.clone(), version: evil, config: Sha256::of(b"other"), in_use: vec![pin], left_out: 1, ..report("x") };
    let found = findings(|reports, _| reports.push(bad));
    assert!(found.len() >= 6, "{found:?}");
    for finding in found {
        let sentence = finding.to_string();
        assert!(sentence.chars().all(|c| !c.is_control()), "{sentence:?}");
    }
}

#[test]
fn ten_thousand_nodes_that_lie_of_everything_leave_room_for_the_findings_about_others() {
    let lies = (0..10_000).map(|number| {
        let mut report = report(&format!("liar-{number}"));
        report.config = Sha256::of(format!("{}", number % 7).as_bytes());
        report.in_use = (0..if number == 0 { 64 } else { 8 }).map(|pin| in_use(&format!("{number}-{pin}"), "lie")).collect();
        report
    });
    let pins = pins();
    let given = Given { own: "node-1", config: Sha256::of(b"config"), version: "0.1.0", pins: &pins, void: &[], now: NOW };
    let mut honest = report("node-2");
    honest.in_use[0].others.push(Other { digest: digest("old"), containers: 1 });
    let seen = overview(lies.chain([report("node-1"), honest]).map(Ok), given);
    assert_eq!(seen.nodes.len(), 10_002);
    assert_eq!(seen.counts[&FindingKind::OtherPin], 9_999 * 8 + 64);
    assert!(seen.findings.len() <= 13 * MAX_FINDINGS_OF_A_KIND);
    assert!(seen.findings.iter().any(|finding| finding.kind() == FindingKind::RunsOther && finding.node() == Some("node-2")));
    let of_one =
        |name| seen.findings.iter().filter(|finding| finding.node() == Some(name) && finding.kind() == FindingKind::OtherPin).count();
    assert_eq!((of_one("liar-0"), of_one("liar-1")), (MAX_FINDINGS_OF_A_NODE, 8));
    assert!(seen.findings.iter().any(|finding| matches!(finding, Finding::Unreadable(unreadable) if unreadable.why.contains("compared"))));
}

#[test]
fn what_stands_in_the_store_and_counts_for_nothing_is_told_of() {
    let (pins, void) = (pins(), [(subject("web"), "no node has signed it".to_owned())]);
    let given = Given { own: "node-1", config: Sha256::of(b"config"), version: "0.1.0", pins: &pins, void: &void, now: NOW };
    let seen = overview(three().into_iter().map(Ok), given);
    assert_eq!((seen.findings[0].kind(), seen.all_agree()), (FindingKind::Void, false));
    let sentence = seen.findings[0].to_string();
    assert!(sentence.contains("counts for nothing: no node has signed it"), "{sentence}");
}
