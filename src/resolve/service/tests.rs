use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Default)]
struct TestPod {
    name: String,
    uid: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl PodFacts for TestPod {
    fn name(&self) -> &str {
        &self.name
    }
    fn uid(&self) -> &str {
        &self.uid
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

fn pod(name: &str) -> TestPod {
    TestPod { name: name.into(), uid: "u-1".into(), namespace: "shop".into(), ..TestPod::default() }
}

impl TestPod {
    fn labelled(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    fn revision(&self) -> String {
        Revision::of(self).map_or_else(|| "none".into(), |revision| revision.to_string())
    }
}

#[test]
fn a_deployments_pods_are_one_revision_for_each_template() {
    let web = |name: &str, hash: &str| pod(name).labelled(TEMPLATE_HASH, hash).revision();
    assert_eq!(web("web-5d4f8c7b9-x2x7q", "5d4f8c7b9"), "shop/deployment/web 5d4f8c7b9");
    assert_eq!(web("web-5d4f8c7b9-abcde", "5d4f8c7b9"), "shop/deployment/web 5d4f8c7b9");
    assert_eq!(web("web-7c9f-abcde", "7c9f"), "shop/deployment/web 7c9f");
    assert_eq!(web("web-frontend-7c9f-abcde", "7c9f"), "shop/deployment/web-frontend 7c9f");
}

#[test]
fn a_deployments_name_is_found_in_a_pods_name_that_was_cut() {
    let hash = "5d4f8c7b9";
    for length in 40..70 {
        let name = "n".repeat(length);
        let whole = format!("{name}-{hash}-");
        let cut = &whole[..whole.len().min(LONGEST_GENERATED_BASE)];
        let expected = format!("shop/deployment/{} {hash}", &name[..length.min(LONGEST_GENERATED_BASE)]);
        assert_eq!(pod(&format!("{cut}x2x7q")).labelled(TEMPLATE_HASH, hash).revision(), expected, "{length}");
    }
}

#[test]
fn a_statefulsets_and_a_daemonsets_pods_are_one_revision_for_each_controller_revision() {
    let stateful = |name: &str| pod(name).labelled(CONTROLLER_REVISION, "db-6f7").labelled(STATEFUL_POD, name).revision();
    assert_eq!(stateful("db-0"), "shop/statefulset/db db-6f7");
    assert_eq!(stateful("db-11"), "shop/statefulset/db db-6f7");
    let daemon = pod("agent-x2x7q").labelled(CONTROLLER_REVISION, "6f7").labelled("pod-template-generation", "3");
    assert_eq!(daemon.revision(), "shop/daemonset/agent 6f7");
}

#[test]
fn each_job_of_a_cronjob_is_a_revision_of_it() {
    let job = |name: &str, job: &str| pod(name).labelled("job-name", job).labelled("batch.kubernetes.io/controller-uid", "j-1").revision();
    assert_eq!(job("backup-28371920-x2x7q", "backup-28371920"), "shop/cronjob/backup j-1");
    assert_eq!(job("migrate-x2x7q", "migrate"), "shop/job/migrate j-1");
    assert_eq!(job("migrate-3-x2x7q", "migrate"), "shop/job/migrate j-1", "an indexed one");
    assert_eq!(job("part-42-x2x7q", "part-42"), "shop/job/part-42 j-1", "a number that is no minute");
    let old = pod("migrate-x2x7q").labelled("job-name", "migrate");
    assert_eq!(old.revision(), "shop/job/migrate migrate", "without a UID");
}

#[test]
fn static_pods_and_pods_by_themselves_are_services_of_their_own() {
    let static_pod = pod("etcd-node-1").annotated(CONFIG_SOURCE, "file").annotated(CONFIG_HASH, "c0ffee");
    assert_eq!(static_pod.revision(), "shop/static/etcd-node-1 c0ffee");
    let with_labels = static_pod.labelled(TEMPLATE_HASH, "5d4f");
    assert_eq!(with_labels.revision(), "shop/static/etcd-node-1 c0ffee", "kubelet's word comes before a label's");
    assert_eq!(pod("debug").annotated(CONFIG_SOURCE, "api").revision(), "shop/pod/debug u-1");
    assert_eq!(pod("debug").revision(), "shop/pod/debug u-1");
}

#[test]
fn an_annotation_names_the_service_and_the_revision() {
    let named = pod("web-5d4f-x2x7q").labelled(TEMPLATE_HASH, "5d4f").annotated(SERVICE_ANNOTATION, "front");
    assert_eq!(named.revision(), "shop/service/front 5d4f");
    assert_eq!(named.clone().annotated(REVISION_ANNOTATION, "release 7").revision(), "shop/service/front release 7");
    assert_eq!(pod("debug").annotated(SERVICE_ANNOTATION, "front").revision(), "shop/service/front u-1");
    assert_eq!(pod("debug").annotated(SERVICE_ANNOTATION, "").revision(), "shop/pod/debug u-1");
    assert_eq!(pod("debug").annotated(REVISION_ANNOTATION, "7").revision(), "shop/pod/debug u-1", "of no service");
}

#[test]
fn labels_that_the_pods_own_name_belies_choose_no_service() {
    for imitating in [
        pod("mine").labelled(TEMPLATE_HASH, "5d4f"),
        pod("web-5d4f-x2x7").labelled(TEMPLATE_HASH, "5d4f"),
        pod("web-5d4f-X2X7Q").labelled(TEMPLATE_HASH, "5d4f"),
        pod("web-aaaa-x2x7q").labelled(TEMPLATE_HASH, "5d4f"),
        pod("5d4f-x2x7q").labelled(TEMPLATE_HASH, "5d4f"),
        pod("mine").labelled(CONTROLLER_REVISION, "6f7").labelled(STATEFUL_POD, "db-0"),
        pod("mine").labelled(CONTROLLER_REVISION, "6f7").labelled(STATEFUL_POD, "mine"),
        pod("mine").labelled("job-name", "backup-28371920"),
        pod("mine-x2x7q").labelled("job-name", "backup-28371920"),
        pod("mine").annotated(CONFIG_HASH, "c0ffee"),
    ] {
        assert_eq!(imitating.revision(), format!("shop/pod/{} u-1", imitating.name), "{imitating:?}");
    }
}

#[test]
fn a_pod_without_namespace_or_uid_and_names_of_any_length_are_no_service() {
    assert_eq!(TestPod { namespace: String::new(), ..pod("web") }.revision(), "none");
    assert_eq!(TestPod { uid: String::new(), ..pod("web") }.revision(), "none");
    assert_eq!(pod("").revision(), "none");
    assert_eq!(pod(&"x".repeat(MAX_PART_BYTES + 1)).revision(), "none");
    assert_eq!(pod("web").annotated(SERVICE_ANNOTATION, &"x".repeat(1 << 20)).revision(), "none");
    assert_eq!(pod("web").annotated(SERVICE_ANNOTATION, "front").annotated(REVISION_ANNOTATION, &"x".repeat(254)).revision(), "none");
    let escaped = pod("web").annotated(SERVICE_ANNOTATION, "a\u{1b}[2J/b\n");
    assert!(!escaped.revision().contains(['\u{1b}', '\n']), "{}", escaped.revision());
}

proptest! {
    #[test]
    fn no_two_revisions_have_one_digest(a in parts(), b in parts()) {
        prop_assert_eq!(a == b, a.digest() == b.digest());
    }

    #[test]
    fn whatever_the_labels_say_the_namespace_is_the_pods(
        namespace in "[a-z]{1,3}",
        name in "[a-z0-9-]{0,70}",
        labels in prop::collection::btree_map(label_key(), ".{0,80}", 0..6),
        annotations in prop::collection::btree_map(label_key(), ".{0,80}", 0..6),
    ) {
        let pod = TestPod { name, uid: "u".into(), namespace: namespace.clone(), labels, annotations };
        if let Some(revision) = Revision::of(&pod) {
            prop_assert_eq!(revision.service.namespace, namespace);
        }
    }
}

fn label_key() -> impl Strategy<Value = String> {
    let keys = [
        TEMPLATE_HASH,
        CONTROLLER_REVISION,
        STATEFUL_POD,
        "job-name",
        "controller-uid",
        CONFIG_SOURCE,
        CONFIG_HASH,
        SERVICE_ANNOTATION,
        REVISION_ANNOTATION,
    ];
    prop::sample::select(keys.to_vec()).prop_map(str::to_owned)
}

/// Parts of which some end where others begin.
fn parts() -> impl Strategy<Value = Revision> {
    let kind = prop::sample::select(vec![Kind::Named, Kind::Deployment, Kind::Pod]);
    ("[ab/]{1,2}", kind, "[ab/]{1,2}", "[ab/]{1,2}")
        .prop_map(|(namespace, kind, name, id)| Revision { service: Service { namespace, kind, name }, id })
}
