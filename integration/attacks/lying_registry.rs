//! Registries that serve what no honest one does: Docker's schema 1, and other bytes than they were asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_trust::name::ManifestDigest;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::gate::RegisteredRegistry;
use super::super::harness::image::{Blob, Image, Recipe};
use super::{REPOSITORY, Scene, assert_denied, binary};

on_every_containerd! {
    a_signed_image_of_schema_1_is_refused_though_containerd_may_take_it,
    other_bytes_under_a_signed_digest_are_not_pulled,
}

const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What is served under the last part of a path: a tag or a digest.
type Served = Arc<Mutex<HashMap<String, Blob>>>;

/// A registry on plain http that serves what it is given, unchecked.
struct LyingRegistry {
    host: String,
    served: Served,
}

impl LyingRegistry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let served = Served::default();
        let answers = Arc::clone(&served);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&answers)));
            }
        });
        Self { host, served }
    }

    fn serve(&self, name: &str, blob: Blob) {
        self.served.lock().unwrap().insert(name.to_owned(), blob);
    }

    fn serve_parts_of(&self, image: &Image) {
        for blob in image.blobs().chain(image.manifests()) {
            self.serve(&blob.digest().to_string(), blob.clone());
        }
    }

    fn gun(&self) -> String {
        format!("{}/{REPOSITORY}", self.host)
    }
}

/// One request for each connection.
async fn answer(stream: TcpStream, served: Served) {
    let mut stream = BufReader::new(stream);
    let (mut request, mut line) = (String::new(), String::new());
    while stream.read_line(&mut line).await.is_ok_and(|length| length > 2) {
        if request.is_empty() {
            request.clone_from(&line);
        }
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = served.lock().unwrap().get(path.rsplit('/').next().unwrap_or_default()).cloned();
    let (status, blob) =
        found.map_or_else(|| ("404 Not Found", Blob { media_type: "text/plain".to_owned(), bytes: Vec::new() }), |blob| ("200 OK", blob));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        blob.media_type,
        blob.bytes.len()
    );
    let body = if request.starts_with("HEAD") { &[][..] } else { &blob.bytes };
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}

/// The gate trusts the lying registry's repository too, and `digest` is signed there as tag `1`.
async fn signed_in(scene: &mut Scene, registry: &LyingRegistry, digest: &ManifestDigest, size: usize) -> String {
    let (admin, gun) = (scene.world.notary.signer("admin"), registry.gun());
    let root = admin.init(&gun).await;
    admin.add_hash(&gun, "1", size, digest.hash(), &[]).await;
    admin.publish(&gun).await;
    let mut configuration = scene.configuration().root_key(gun.clone(), root.canonical);
    configuration.registries.push(RegisteredRegistry {
        host_address: registry.host.clone(),
        notary_server: scene.world.notary.url(),
        ca_bundle_file: scene.world.ca.file(),
    });
    scene.world.start_gate(binary(), &configuration).await;
    format!("{gun}:1")
}

/// An image of schema 1 as containerd takes it: with a signature whose header says where the signed text ends. Returns
/// the text that the digest is taken of, and the whole.
fn schema_1(image: &Image) -> (Vec<u8>, Blob) {
    // The first blob is the config.
    let layers: Vec<_> = image.blobs().skip(1).map(|blob| blob.digest().to_string()).collect();
    let config = json!({"id": "ab".repeat(32), "created": "2024-01-01T00:00:00Z", "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh", "/script"], "Env": ["PATH=/bin"]}});
    let parent = json!({"id": "cd".repeat(32), "created": "2024-01-01T00:00:00Z"});
    let history: Vec<_> = [config, parent].iter().map(|entry| json!({"v1Compatibility": entry.to_string()})).collect();
    let fs_layers: Vec<_> = layers.iter().rev().map(|digest| json!({"blobSum": digest})).collect();
    let payload = json!({"schemaVersion": 1, "name": REPOSITORY, "tag": "1", "architecture": "amd64",
        "fsLayers": fs_layers, "history": &history[..layers.len()]})
    .to_string();
    let end = payload.len() - 1;
    let protected = json!({"formatLength": end, "formatTail": URL_SAFE_NO_PAD.encode("}")}).to_string();
    let signatures = json!([{"header": {"alg": "ES256"}, "signature": "AA", "protected": URL_SAFE_NO_PAD.encode(protected)}]);
    let whole = format!("{},\"signatures\":{signatures}}}", &payload[..end]);
    (payload.into_bytes(), Blob { media_type: SCHEMA_1.to_owned(), bytes: whole.into_bytes() })
}

async fn a_signed_image_of_schema_1_is_refused_though_containerd_may_take_it(containerd: Version) {
    let mut scene = Scene::on(containerd, "schema_1").await;
    let registry = LyingRegistry::start().await;
    let image = Recipe::prints("schema 1").docker().build();
    let (payload, whole) = schema_1(&image);
    let digest = ManifestDigest::of(&payload);
    registry.serve_parts_of(&image);
    registry.serve("1", whole.clone());
    registry.serve(&digest.to_string(), whole);
    let name = signed_in(&mut scene, &registry, &digest, payload.len()).await;

    let refused = scene.cri().pull(&name).await.unwrap_err();
    if containerd == Version::V2_1 {
        assert!(refused.message().contains("schema 1 image manifests are no longer supported"), "{refused:?}");
        return scene.runs_the_signed_image().await;
    }
    assert_denied(&refused, "CS-CONTAINERD-ANSWER");
    assert!(refused.message().contains("which is not part of it"), "{}", refused.message());

    let id = scene.behind().pull(&format!("{}@{digest}", registry.gun())).await.expect("containerd converts it by itself");
    let created = scene.cri().create(&scene.pod().await, container(&id, &name)).await.unwrap_err();
    assert_denied(&created, "CS-OTHER-IMAGE");
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

async fn other_bytes_under_a_signed_digest_are_not_pulled(containerd: Version) {
    let mut scene = Scene::on(containerd, "other_bytes_under_a_signed_digest").await;
    let evil = Recipe::prints("evil").build();
    let config = |image: &Image| image.blobs().next().unwrap().clone();
    for part in ["manifest", "config"] {
        let registry = LyingRegistry::start().await;
        let signed = Recipe::prints("signed there").env("PART", part).build();
        registry.serve_parts_of(&signed);
        registry.serve_parts_of(&evil);
        match part {
            "manifest" => registry.serve(&signed.digest().to_string(), evil.top().clone()),
            _ => registry.serve(&signed.id().to_string(), config(&evil)),
        }
        registry.serve("1", evil.top().clone());
        let name = signed_in(&mut scene, &registry, &signed.digest(), signed.top().bytes.len()).await;

        let refused = scene.cri().pull(&name).await.unwrap_err();

        // Other bytes of the same length are told by their digest, and others by their length.
        let said = ["unexpected commit", "unexpected EOF"].iter().any(|said| refused.message().contains(said));
        assert!(refused.message().starts_with("failed to pull and unpack image") && said, "{part}: {refused:?}");
        for name in [name.clone(), format!("{}@{}", registry.gun(), signed.digest()), evil.id().to_string()] {
            assert!(scene.behind().image_status(&name).await.unwrap().is_none(), "{name}");
        }
        let created = scene.cri().create(&scene.pod().await, container(&name, &name)).await.unwrap_err();
        assert_denied(&created, "CS-NOT-PRESENT");
        scene.runs_nothing().await;
    }
    scene.runs_the_signed_image().await;
}
