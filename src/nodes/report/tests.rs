use super::*;
use crate::nodes::packed::{MAX_PACKED_BYTES, MAX_REPORT_BYTES};
use crate::resolve::{Kind, MAX_PART_BYTES};

pub(crate) fn digest(text: &str) -> ManifestDigest {
    ManifestDigest::new(Sha256::of(text.as_bytes()))
}

pub(crate) fn revision(name: &str) -> Revision {
    Revision { service: Service { namespace: "shop".into(), kind: Kind::Deployment, name: name.into() }, id: "5d4f".into() }
}

pub(crate) fn image() -> ImageReference {
    "r.test/team/app:1".parse().unwrap()
}

pub(crate) fn in_use(name: &str, text: &str) -> PinInUse {
    PinInUse { revision: revision(name), image: image(), generation: 1, digest: digest(text), containers: 2, others: Vec::new() }
}

pub(crate) fn report(node: &str) -> Report {
    Report {
        node: node.into(),
        version: "0.1.0".into(),
        config: Sha256::of(b"config"),
        mode: Mode::Enforced,
        since: UnixTime::from_seconds(1_800_000_000),
        containerd: "containerd 2.1.4".into(),
        in_use: vec![in_use("api", "api"), in_use("web", "web")],
        left_out: 0,
    }
}

fn key() -> Key {
    Report::key("node-1").unwrap()
}

fn decoded(bytes: &[u8]) -> Result<Report, ReportFault> {
    Report::decode(&key(), bytes).map(|(report, _)| report)
}

fn value() -> serde_json::Value {
    serde_json::from_slice(&unpack(&report("node-1").encode().unwrap()).unwrap()).unwrap()
}

fn changed(change: impl Fn(&mut serde_json::Value)) -> Result<Report, ReportFault> {
    let mut value = value();
    change(&mut value);
    decoded(&pack(&serde_json::to_vec(&value).unwrap()).unwrap())
}

/// Names of Kubernetes' greatest lengths that do not get shorter.
fn long(number: usize) -> PinInUse {
    let noise = |salt: &str| (0..4).map(|part| Sha256::of(format!("{salt} {number} {part}").as_bytes()).to_hex()).collect::<String>();
    let mut pin = in_use(noise("name").get(..MAX_PART_BYTES).unwrap(), "web");
    pin.revision.id = noise("id").get(..MAX_PART_BYTES).unwrap().into();
    pin.revision.service.namespace = noise("namespace").get(..MAX_PART_BYTES).unwrap().into();
    pin.others = (0..MAX_OTHERS).map(|other| Other { digest: digest(&format!("{number} {other}")), containers: 1 }).collect();
    pin
}

#[test]
fn a_report_survives_being_written_and_is_always_written_the_same() {
    let mut report = report("node-1");
    report.in_use[1].others.push(Other { digest: digest("old"), containers: 3 });
    let written = report.encode().unwrap();
    assert_eq!(decoded(&written), Ok(report.clone()));
    let turned = Report { in_use: report.in_use.iter().rev().cloned().collect(), ..report.clone() };
    assert_eq!(turned.encode().unwrap(), written);
    assert_eq!(key().as_str(), "nodes/node-1");
    let later = Report { since: UnixTime::from_seconds(1_900_000_000), ..report.clone() };
    assert!(later.says_the_same(&report));
    assert!(!Report { mode: Mode::Permissive, ..report.clone() }.says_the_same(&report));
}

#[test]
fn a_report_in_anothers_place_is_none() {
    let refused = decoded(&report("node-2").encode().unwrap());
    assert_eq!(refused, Err(ReportFault::Elsewhere { node: "node-2".into() }));
    let refused = changed(|value| value["node"] = "\u{1b}[2Jnode-1".into()).unwrap_err().to_string();
    assert!(refused.contains("another node") && !refused.contains('\u{1b}'), "{refused}");
}

#[test]
fn what_does_not_read_as_a_report_is_none_and_says_so_without_control_characters() {
    let is_malformed = |report: &Result<Report, ReportFault>| matches!(report, Err(ReportFault::Malformed { .. }));
    for bytes in [&b""[..], b"\xff\xff\xff", b"{}", b"countersign"] {
        assert!(decoded(bytes).is_err(), "{bytes:?}");
    }
    assert!(is_malformed(&decoded(&pack(b"\x1b[31m").unwrap())));
    for (field, bad) in [
        ("node", serde_json::json!("")),
        ("node", "n".repeat(300).into()),
        ("version", "1".repeat(200).into()),
        ("containerd", "1".repeat(200).into()),
        ("config", "sha256:1".into()),
        ("mode", "off".into()),
        ("since", (-1).into()),
        ("since", i64::MAX.into()),
        ("left-out", (-1).into()),
        ("\u{1b}[2Jmore", true.into()),
    ] {
        let refused = changed(|value| value[field] = bad.clone());
        assert!(is_malformed(&refused), "{field}: {refused:?}");
        assert!(!refused.unwrap_err().to_string().contains('\u{1b}'));
    }
    for (field, bad) in [
        ("namespace", serde_json::json!("")),
        ("kind", "ReplicaSet".into()),
        ("service", "x".repeat(300).into()),
        ("image", "r.test/app@sha256:1".into()),
        ("image", format!("r.test/app@sha256:{}", "0".repeat(64)).into()),
        ("generation", 0.into()),
        ("digest", "sha256:1".into()),
        ("containers", u64::MAX.into()),
        ("others", vec![serde_json::json!({"digest": digest("a").to_string(), "containers": 1}); MAX_OTHERS + 1].into()),
        ("more", true.into()),
    ] {
        assert!(is_malformed(&changed(|value| value["in-use"][0][field] = bad.clone())), "{field}");
    }
    let many = vec![value()["in-use"][0].clone(); MAX_IN_USE + 1];
    assert!(is_malformed(&changed(|value| value["in-use"] = many.clone().into())));
    assert_eq!(changed(|value| value["form"] = 2.into()), Err(ReportFault::Form { form: 2 }));
}

#[test]
fn a_report_that_unpacks_to_more_than_one_has_is_none() {
    let mut bomb = Vec::new();
    let zeros = vec![b' '; 64 << 20];
    std::io::Read::read_to_end(&mut flate2::read::DeflateEncoder::new(&zeros[..], flate2::Compression::best()), &mut bomb).unwrap();
    assert!(bomb.len() < MAX_PACKED_BYTES);
    assert_eq!(decoded(&bomb), Err(ReportFault::Packed));
    assert_eq!(decoded(&vec![0; MAX_PACKED_BYTES + 1]), Err(ReportFault::Packed));
}

#[test]
fn what_is_too_much_for_one_report_is_left_out_and_counted() {
    let many = Report { in_use: (0..MAX_IN_USE + 7).map(|number| in_use(&number.to_string(), "web")).collect(), ..report("node-1") };
    let read = decoded(&many.encode().unwrap()).unwrap();
    assert_eq!((read.in_use.len(), read.left_out), (MAX_IN_USE, 7));
    let long = Report { in_use: (0..MAX_IN_USE).map(long).collect(), ..report("node-1") };
    let written = long.encode().unwrap();
    assert!(written.len() <= MAX_PACKED_BYTES);
    let (read, length) = Report::decode(&key(), &written).unwrap();
    assert!(!read.in_use.is_empty() && length <= MAX_REPORT_BYTES, "{} pins in {length} bytes", read.in_use.len());
    assert_eq!(read.in_use.len() as u64 + read.left_out, MAX_IN_USE as u64);
}

#[test]
fn a_node_whose_name_nobody_would_read_writes_nothing() {
    for node in [String::new(), "n".repeat(254)] {
        assert!(matches!(report(&node).encode(), Err(ReportFault::Malformed { .. })));
    }
    let longest = report(&"n".repeat(253));
    let key = Report::key(&longest.node).unwrap();
    assert_eq!(Report::decode(&key, &longest.encode().unwrap()).unwrap().0, longest, "a name that is written as its hash");
}
