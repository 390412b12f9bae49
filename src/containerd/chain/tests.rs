use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::Standing;
use super::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A content store in memory that counts what is asked of it.
#[derive(Default)]
struct Store {
    content: HashMap<Sha256, Vec<u8>>,
    asked: AtomicUsize,
    is_down: bool,
}

impl Blobs for Store {
    async fn blob(&self, digest: &Sha256, limit: u64) -> Result<Option<Vec<u8>>, ContainerdError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_down {
            return Err(ContainerdError::Malformed { call: "Content.Read", what: "life" });
        }
        match self.content.get(digest) {
            Some(bytes) if bytes.len() as u64 > limit => Err(ContainerdError::TooLarge { digest: *digest, limit }),
            found => Ok(found.cloned()),
        }
    }
}

impl Store {
    fn put(&mut self, text: &str) -> Sha256 {
        let digest = Sha256::of(text.as_bytes());
        self.content.insert(digest, text.into());
        digest
    }

    fn size(&self, digest: &Sha256) -> usize {
        self.content.get(digest).map_or(2, Vec::len)
    }

    fn descriptor(&self, media_type: &str, digest: &Sha256) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":{}}}"#, self.size(digest))
    }

    fn config(&mut self, layers: &[&str]) -> Sha256 {
        let ids: Vec<String> = layers.iter().map(|layer| format!("\"sha256:{}\"", Sha256::of(layer.as_bytes()))).collect();
        self.put(&format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, ids.join(",")))
    }

    fn manifest_of(&mut self, config: &Sha256, layers: usize) -> Sha256 {
        let layer = self.descriptor(LAYER, &Sha256::of(b"layer"));
        let layers = vec![layer; layers].join(",");
        let config = self.descriptor(CONFIG, config);
        self.put(&format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]}}"#))
    }

    fn image(&mut self, layers: &[&str]) -> Sha256 {
        let config = self.config(layers);
        self.manifest_of(&config, layers.len())
    }

    fn index(&mut self, children: &[(&str, Sha256)]) -> Sha256 {
        let children: Vec<String> = children.iter().map(|(media_type, digest)| self.descriptor(media_type, digest)).collect();
        self.put(&format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children.join(",")))
    }

    fn images(&self, digest: Sha256) -> Result<Vec<ImageContent>, ContentError> {
        run(images_of(self, &Remembered::default(), ManifestDigest::new(digest)))
    }

    fn refusal(&self, digest: Sha256) -> &'static str {
        let error = self.images(digest).expect_err("it was accepted");
        assert_eq!(error.standing(), Standing::Bad, "{error}");
        error.code()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The chain ID by the words of the specification.
fn chain_of(layers: &[&str]) -> String {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", Sha256::of(layer.as_bytes()))).collect();
    let mut chain = ids[0].clone();
    for id in &ids[1..] {
        chain = format!("sha256:{}", Sha256::of(format!("{chain} {id}").as_bytes()));
    }
    chain
}

#[test]
fn the_chain_id_is_that_of_the_specification() {
    // Worked out with another program for the layers sha256(""), sha256("a"), sha256("b").
    let ids = ["", "a", "b"].map(|layer| Sha256::of(layer.as_bytes()));
    assert_eq!(chain_id(&ids[0], &[]).to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(chain_id(&ids[0], &ids[1..2]).to_string(), "sha256:54310b28337ccdbb5477f2808753d5b0e7c87d84187cee28a330a3e71f6c16fc");
    assert_eq!(chain_id(&ids[0], &ids[1..]).to_string(), "sha256:6e249d38c8038b0aefaa44893301e44ac47d767db1cb1a6cf4f2993a680add77");
}

#[test]
fn a_manifest_means_its_config_and_the_chain_of_its_layers() {
    let mut store = Store::default();
    let manifest = store.image(&["base", "app", "conf"]);
    let config = store.config(&["base", "app", "conf"]);
    let images = store.images(manifest).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((images[0].manifest, images[0].image_id), (ManifestDigest::new(manifest), ImageId::new(config)));
    assert_eq!(images[0].chain_id.to_string(), chain_of(&["base", "app", "conf"]));
}

#[test]
fn dockers_media_types_are_images_too() {
    let mut store = Store::default();
    let config = store.config(&["a"]);
    let config = store.descriptor(DOCKER_CONFIG, &config);
    let layer = store.descriptor(LAYER, &Sha256::of(b"layer"));
    let manifest = store.put(&format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{config},"layers":[{layer}]}}"#));
    let child = store.descriptor(DOCKER_MANIFEST, &manifest);
    let index = store.put(&format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_INDEX}","manifests":[{child}]}}"#));
    assert_eq!(store.images(index).unwrap(), store.images(manifest).unwrap());
}

#[test]
fn an_index_means_its_children_that_are_here() {
    let mut store = Store::default();
    let (amd64, arm64) = (store.image(&["amd64"]), store.image(&["arm64"]));
    let s390x = store.image(&["s390x"]);
    let nested = store.index(&[(MANIFEST, s390x)]);
    let index = store.index(&[(MANIFEST, amd64), (MANIFEST, arm64), (MANIFEST, amd64), (INDEX, nested)]);
    let chains = |images: Vec<ImageContent>| -> Vec<String> { images.iter().map(|image| image.chain_id.to_string()).collect() };
    assert_eq!(chains(store.images(index).unwrap()), [chain_of(&["amd64"]), chain_of(&["arm64"]), chain_of(&["s390x"])]);

    store.content.remove(&arm64);
    let config = store.config(&["s390x"]);
    store.content.remove(&config);
    assert_eq!(chains(store.images(index).unwrap()), [chain_of(&["amd64"])]);
}

#[test]
fn the_digest_that_is_asked_for_must_be_here_whole() {
    let mut store = Store::default();
    let manifest = store.image(&["a"]);
    let absent = store.images(Sha256::of(b"absent")).unwrap_err();
    assert_eq!((absent.code(), absent.standing()), ("CS-CONTENT-ABSENT", Standing::Absent));
    let config = store.config(&["a"]);
    store.content.remove(&config);
    assert_eq!(store.images(manifest).unwrap_err().standing(), Standing::Absent);
}

#[test]
fn a_containerd_that_gives_no_answer_is_neither_absent_nor_bad() {
    let mut store = Store { is_down: true, ..Store::default() };
    let manifest = store.image(&["a"]);
    let error = store.images(manifest).unwrap_err();
    assert_eq!((error.code(), error.standing()), ("CS-CONTENT-UNREACHABLE", Standing::CannotTell));
}

#[test]
fn artifacts_beside_images_are_left_out_and_refused_alone() {
    let mut store = Store::default();
    let image = store.image(&["a"]);
    let empty = store.put("{}");
    let empty = store.descriptor("application/vnd.oci.empty.v1+json", &empty);
    let artifact = store.put(&format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{empty},"layers":[]}}"#));
    let other = store.put("anything");
    let index = store.index(&[(MANIFEST, image), (MANIFEST, artifact), ("text/plain", other)]);
    assert_eq!(store.images(index).unwrap(), store.images(image).unwrap());
    assert_eq!(store.refusal(artifact), "CS-CONTENT-NOT-AN-IMAGE");
}

#[test]
fn documents_that_two_readers_may_read_differently_are_refused() {
    let mut store = Store::default();
    let config = store.config(&["a"]);
    let (config, layer) = (store.descriptor(CONFIG, &config), store.descriptor(LAYER, &Sha256::of(b"l")));
    let parts = format!(r#""config":{config},"layers":[{layer}]"#);
    let cases = [
        (format!(r#"{{"schemaVersion":2,{parts},"manifests":[]}}"#), "CS-CONTENT-AMBIGUOUS"),
        (format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config}}}"#), "CS-CONTENT-AMBIGUOUS"),
        (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.into(), "CS-CONTENT-AMBIGUOUS"),
        (format!(r#"{{"schemaVersion":2,{parts},"Manifests":[]}}"#), "CS-CONTENT-SPELLING"),
        (format!(r#"{{"schemaVersion":2,{parts},"manifeſts":[]}}"#), "CS-CONTENT-SPELLING"),
        (format!(r#"{{"schemaVersion":2,{parts},"Config":{config}}}"#), "CS-CONTENT-SPELLING"),
        (format!(r#"{{"schemaVersion":2,{parts},"config":{config}}}"#), "CS-CONTENT-DUPLICATE"),
        (format!(r#"{{"schemaVersion":2,{parts},"annotations":{{"a":"1","a":"2"}}}}"#), "CS-CONTENT-DUPLICATE"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}",{parts}}}"#), "CS-CONTENT-MEDIA-TYPE"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[]}}"#), "CS-CONTENT-MEDIA-TYPE"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"text/plain",{parts}}}"#), "CS-CONTENT-MEDIA-TYPE"),
        (format!(r#"{{"schemaVersion":2,{parts}}} "#), "accepted"),
        (format!(r#"{{"schemaVersion":2,{parts}}} {{}}"#), "CS-CONTENT-JSON"),
        (format!(r#"{{"schemaVersion":1,{parts}}}"#), "CS-CONTENT-SCHEMA-1"),
        (format!(r#"{{"schemaVersion":2,"fsLayers":[],{parts}}}"#), "CS-CONTENT-SCHEMA-1"),
        (r#"{"schemaVersion":1,"fsLayers":[],"history":[],"signatures":[]}"#.into(), "CS-CONTENT-SCHEMA-1"),
        (format!(r#"{{{parts}}}"#), "CS-CONTENT-SHAPE"),
        (format!(r#"{{"schemaVersion":"2",{parts}}}"#), "CS-CONTENT-SHAPE"),
        (format!(r#"{{"schemaVersion":2,"config":{config}}}"#), "CS-CONTENT-SHAPE"),
        (r#"{"schemaVersion":2}"#.into(), "CS-CONTENT-SHAPE"),
        (format!(r#"{{"schemaVersion":2,"config":{config},"layers":null}}"#), "CS-CONTENT-SHAPE"),
        ("[]".into(), "CS-CONTENT-SHAPE"),
        ("not JSON".into(), "CS-CONTENT-JSON"),
        (format!("[{}]", vec!["0"; 200_000].join(",")), "CS-CONTENT-VALUES"),
    ];
    for (text, code) in cases {
        let digest = store.put(&text);
        let found = store.images(digest).map_or_else(|error| error.code(), |_| "accepted");
        assert_eq!(found, code, "{}", &text[..text.len().min(300)]);
    }
}

#[test]
fn descriptors_bind_what_they_name() {
    let mut store = Store::default();
    let image = store.image(&["a"]);
    let descriptor = store.descriptor(MANIFEST, &image);
    let size = store.size(&image);
    let of = |from: &str, to: &str| {
        let changed = descriptor.replace(from, to);
        assert_ne!(changed, descriptor, "{from}");
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{changed}]}}"#)
    };
    let cases = [
        (of(&format!(":{size}}}"), &format!(":{}}}", size + 1)), "CS-CONTENT-SIZE"),
        (of(&format!(":{size}}}"), ":-1}"), "CS-CONTENT-SHAPE"),
        (of(&format!(":{size}}}"), ":1e2}"), "CS-CONTENT-SHAPE"),
        (of(MANIFEST, DOCKER_MANIFEST), "CS-CONTENT-MEDIA-TYPE"),
        (of(MANIFEST, INDEX), "CS-CONTENT-MEDIA-TYPE"),
        (of("sha256:", "sha512:"), "CS-CONTENT-DIGEST"),
        (of("sha256:", "sha256:A"), "CS-CONTENT-DIGEST"),
        (of("\"digest\"", "\"Digest\""), "CS-CONTENT-SPELLING"),
        (of("\"digest\"", "\"other\""), "CS-CONTENT-SHAPE"),
        (of("\"size\"", "\"mediaType\":\"text/plain\",\"size\""), "CS-CONTENT-DUPLICATE"),
    ];
    for (text, code) in cases {
        let digest = store.put(&text);
        assert_eq!(store.refusal(digest), code, "{text}");
    }
}

#[test]
fn a_checkpoint_is_refused_wherever_it_says_so() {
    let mut store = Store::default();
    let mark = r#""annotations":{"org.criu.checkpoint.container.name":""}"#;
    let config = store.config(&["a"]);
    let (config, layer) = (store.descriptor(CONFIG, &config), store.descriptor(LAYER, &Sha256::of(b"l")));
    let manifest = store.put(&format!(r#"{{"schemaVersion":2,{mark},"config":{config},"layers":[{layer}]}}"#));
    let below = store.index(&[(MANIFEST, manifest)]);
    let index = store.put(&format!(r#"{{"schemaVersion":2,{mark},"manifests":[]}}"#));
    let marked = store.descriptor("text/plain", &Sha256::of(b"absent")).replace('}', &format!(",{mark}}}"));
    let descriptor = store.put(&format!(r#"{{"schemaVersion":2,"manifests":[{marked}]}}"#));
    for digest in [manifest, below, index, descriptor] {
        assert_eq!(store.refusal(digest), "CS-CONTENT-CHECKPOINT");
    }
    let other = mark.replace("container.name", "container.names");
    let harmless = store.put(&format!(r#"{{"schemaVersion":2,{other},"manifests":[]}}"#));
    assert_eq!(store.images(harmless).unwrap(), []);
    let null = store.put(r#"{"schemaVersion":2,"annotations":null,"manifests":[]}"#);
    assert_eq!(store.images(null).unwrap(), []);
}

#[test]
fn a_config_that_is_no_root_file_system_is_refused() {
    let mut store = Store::default();
    let id = format!("\"sha256:{}\"", Sha256::of(b"a"));
    let cases = [
        ("{}".to_owned(), "CS-CONTENT-SHAPE"),
        (r#"{"rootfs":{"type":"layers"}}"#.into(), "CS-CONTENT-SHAPE"),
        (r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#.into(), "CS-CONTENT-NO-LAYERS"),
        (r#"{"rootfs":{"type":"layers","diff_ids":[7]}}"#.into(), "CS-CONTENT-SHAPE"),
        (format!(r#"{{"rootfs":{{"type":"layers+base","diff_ids":[{id}]}}}}"#), "CS-CONTENT-ROOTFS"),
        (format!(r#"{{"rootfs":{{"diff_ids":[{id}]}}}}"#), "CS-CONTENT-SHAPE"),
        (format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{id},{id}]}}}}"#), "CS-CONTENT-LAYER-COUNT"),
        (r#"{"rootfs":{"type":"layers","diff_ids":["sha512:00"]}}"#.into(), "CS-CONTENT-DIGEST"),
        (format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{id}],"Diff_IDs":[]}}}}"#), "CS-CONTENT-SPELLING"),
        (format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{id}]}},"ROOTFS":{{}}}}"#), "CS-CONTENT-SPELLING"),
        (format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{id}],"diff_ids":[{id}]}}}}"#), "CS-CONTENT-DUPLICATE"),
    ];
    for (text, code) in cases {
        let config = store.put(&text);
        let manifest = store.manifest_of(&config, 1);
        assert_eq!(store.refusal(manifest), code, "{text}");
    }
}

#[test]
fn depth_and_number_are_limited() {
    let mut store = Store::default();
    let image = store.image(&["a"]);
    let second = store.index(&[(MANIFEST, image)]);
    let first = store.index(&[(INDEX, second)]);
    assert_eq!(store.images(first).unwrap().len(), 1);
    let too_deep = store.index(&[(INDEX, first)]);
    assert_eq!(store.refusal(too_deep), "CS-CONTENT-TOO-DEEP");

    let children = |from: usize, to: usize| -> Vec<(&str, Sha256)> {
        (from..to).map(|number| (MANIFEST, Sha256::of(&number.to_be_bytes()))).collect()
    };
    let most = store.index(&children(0, MAX_CHILDREN));
    assert_eq!(store.images(most).unwrap(), []);
    let wide = store.index(&children(0, MAX_CHILDREN + 1));
    assert_eq!(store.refusal(wide), "CS-CONTENT-TOO-MANY");
    let other = store.index(&children(1000, 1000 + MAX_CHILDREN));
    let spread = store.index(&[(INDEX, most), (INDEX, other)]);
    assert_eq!(store.refusal(spread), "CS-CONTENT-TOO-MANY");

    let layers: Vec<String> = (0..=document::MAX_LAYERS).map(|number| number.to_string()).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let tall = store.image(&layers[1..]);
    assert_eq!(store.images(tall).unwrap().len(), 1);
    let too_tall = store.image(&layers);
    assert_eq!(store.refusal(too_tall), "CS-CONTENT-TOO-MANY");
    let config = store.config(&layers);
    let manifest = store.manifest_of(&config, 1);
    assert_eq!(store.refusal(manifest), "CS-CONTENT-TOO-MANY");
}

#[test]
fn a_document_that_is_too_long_is_refused() {
    let mut store = Store::default();
    let long = store.put(&" ".repeat(MANIFEST_LIMIT as usize + 1));
    assert_eq!(store.refusal(long), "CS-CONTENT-TOO-LARGE");
    let config = store.put(&" ".repeat(CONFIG_LIMIT as usize + 1));
    let manifest = store.manifest_of(&config, 1);
    assert_eq!(store.refusal(manifest), "CS-CONTENT-TOO-LARGE");
}

#[test]
fn a_whole_answer_is_remembered_and_one_with_absences_is_asked_again() {
    let mut store = Store::default();
    let remembered = Remembered::default();
    let (here, elsewhere) = (store.image(&["here"]), store.image(&["elsewhere"]));
    let index = ManifestDigest::new(store.index(&[(MANIFEST, here), (MANIFEST, elsewhere)]));
    let image_id = |store: &mut Store, layer: &str| ImageId::new(store.config(&[layer]));
    let (here_id, elsewhere_id) = (image_id(&mut store, "here"), image_id(&mut store, "elsewhere"));
    let gone = store.content.remove(&elsewhere).unwrap();
    assert_eq!(run(images_of(&store, &remembered, index)).unwrap().len(), 1);

    let asked = store.asked.load(Ordering::Relaxed);
    let found = run(image_of(&store, &remembered, index, &here_id)).unwrap().unwrap();
    assert_eq!(found.chain_id.to_string(), chain_of(&["here"]));
    assert_eq!(store.asked.load(Ordering::Relaxed), asked, "containerd was asked for what is known");

    assert_eq!(run(image_of(&store, &remembered, index, &elsewhere_id)).unwrap(), None);
    store.content.insert(elsewhere, gone);
    assert!(run(image_of(&store, &remembered, index, &elsewhere_id)).unwrap().is_some());

    let asked = store.asked.load(Ordering::Relaxed);
    assert_eq!(run(images_of(&store, &remembered, index)).unwrap().len(), 2);
    let unknown = ImageId::new(Sha256::of(b"unknown"));
    assert_eq!(run(image_of(&store, &remembered, index, &unknown)).unwrap(), None);
    assert_eq!(store.asked.load(Ordering::Relaxed), asked, "a whole answer was asked for again");
}

#[test]
fn errors_are_not_remembered_and_what_is_remembered_is_bounded() {
    let mut store = Store::default();
    let remembered = Remembered::default();
    let manifest = store.image(&["a"]);
    let bytes = store.content.remove(&manifest).unwrap();
    let digest = ManifestDigest::new(manifest);
    assert!(run(images_of(&store, &remembered, digest)).is_err());
    store.content.insert(manifest, bytes);
    assert_eq!(run(images_of(&store, &remembered, digest)).unwrap().len(), 1);
    for number in 0..=MAX_REMEMBERED {
        remembered
            .keep(ManifestDigest::of(&number.to_be_bytes()), Meaning { images: Vec::new(), artifacts: Vec::new(), is_complete: true });
    }
    assert_eq!(remembered.0.lock().unwrap().0.len(), MAX_REMEMBERED);
    assert_eq!(remembered.meaning(&digest), None);
}
