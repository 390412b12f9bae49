//! Container images built in the test: small, from busybox, in every form that a registry can hold.

use std::path::Path;
use std::{fs, iter};

use countersign_trust::name::{ChainId, ImageId, ManifestDigest, Sha256};
use serde_json::{Value, json};

use super::Must;
use super::layer::{Layer, busybox_layer, layer, tar_of};

/// A moment in the past, so that the same recipe gives the same digests.
const CREATED: &str = "2024-01-01T00:00:00Z";

/// The script that the container runs lies in the image's files, so that two images with different scripts have
/// different root file systems, and what a container prints tells which files it runs on.
const SCRIPT: &str = "script";

/// Which family of media types an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI image specification.
    Oci,
    /// Docker image manifest, version 2, schema 2.
    Docker,
}

impl Format {
    const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// The media type of its layers.
    pub const fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// Bytes with their media type.
#[derive(Clone)]
pub struct Blob {
    /// What it says it is.
    pub media_type: String,
    /// The content.
    pub bytes: Vec<u8>,
}

impl Blob {
    fn json(media_type: &str, value: &Value) -> Self {
        Self { media_type: media_type.to_owned(), bytes: serde_json::to_vec(value).must("encoding JSON") }
    }

    /// `sha256:<hex>` of the content.
    pub fn digest(&self) -> ManifestDigest {
        ManifestDigest::of(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest().to_string(), "size": self.bytes.len()})
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({} bytes)", self.media_type, self.digest(), self.bytes.len())
    }
}

/// How an image is to be built.
#[derive(Debug, Clone)]
pub struct Recipe {
    format: Format,
    index: bool,
    busybox: bool,
    files: Vec<(String, Vec<u8>)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    env: Vec<String>,
    user: String,
    annotations: Vec<(String, String)>,
    config_media_type: Option<String>,
    config: Option<Vec<u8>>,
}

impl Recipe {
    /// An image that runs `script` with busybox's shell.
    pub fn shell(script: &str) -> Self {
        Self::empty().with_busybox().file(SCRIPT, script).command(&["sh", "/script"])
    }

    /// An image that prints `line` and ends.
    pub fn prints(line: &str) -> Self {
        Self::shell(&format!("echo '{line}'"))
    }

    /// An image whose container prints `line` and stays, until it is stopped.
    pub fn prints_and_stays(line: &str) -> Self {
        Self::shell(&format!("echo '{line}'; exec sleep 2147483647"))
    }

    /// An image that sleeps for ever: good as a sandbox image.
    pub fn sleeps() -> Self {
        Self::empty().with_busybox().entrypoint(&["/bin/sleep", "2147483647"])
    }

    /// An image without files: add some.
    pub const fn empty() -> Self {
        Self {
            format: Format::Oci,
            index: false,
            busybox: false,
            files: Vec::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            env: Vec::new(),
            user: String::new(),
            annotations: Vec::new(),
            config_media_type: None,
            config: None,
        }
    }

    /// Adds a layer with busybox, `/etc/passwd` and the usual folders.
    #[must_use]
    pub const fn with_busybox(mut self) -> Self {
        self.busybox = true;
        self
    }

    /// Docker's media types in place of OCI's.
    #[must_use]
    pub const fn docker(mut self) -> Self {
        self.format = Format::Docker;
        self
    }

    /// An index (manifest list) over this machine's platform and another one.
    #[must_use]
    pub const fn index(mut self) -> Self {
        self.index = true;
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.trim_start_matches('/').to_owned(), content.into()));
        self
    }

    /// Sets the config's `Entrypoint`.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = owned(words);
        self
    }

    /// Sets the config's `Cmd`.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = owned(words);
        self
    }

    /// Adds a variable to the config's `Env`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Sets the config's `User`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes an artifact of it: another media type for the config.
    #[must_use]
    pub fn config_media_type(mut self, media_type: &str) -> Self {
        self.config_media_type = Some(media_type.to_owned());
        self
    }

    /// Puts these bytes in place of the config, for instance `{}`.
    #[must_use]
    pub fn config(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.config = Some(bytes.into());
        self
    }

    /// Builds it. The same recipe gives the same digests.
    pub fn build(&self) -> Image {
        let base = self.busybox.then(|| busybox_layer(self.format));
        let files = (!self.files.is_empty()).then(|| layer(self.format, &tar_of(&self.files)));
        let layers: Vec<Layer> = base.into_iter().chain(files).collect();
        let config = self.config_for(architecture(), &layers);
        Image::assemble(self.clone(), config, layers)
    }

    fn config_for(&self, architecture: &str, layers: &[Layer]) -> Blob {
        let media_type = self.config_media_type.as_deref().unwrap_or_else(|| self.format.config());
        if let Some(bytes) = &self.config {
            return Blob { media_type: media_type.to_owned(), bytes: bytes.clone() };
        }
        let env: Vec<String> = iter::once("PATH=/bin".to_owned()).chain(self.env.iter().cloned()).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
        let history: Vec<Value> = layers.iter().map(|_| json!({"created": CREATED, "created_by": "countersign tests"})).collect();
        let config = json!({
            "created": CREATED, "architecture": architecture, "os": "linux",
            "config": {"Env": env, "Entrypoint": self.entrypoint, "Cmd": self.command, "User": self.user},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        Blob::json(media_type, &config)
    }

    fn manifest_of(&self, config: &Blob, layers: &[Layer]) -> Blob {
        let layers: Vec<Value> = layers.iter().map(|layer| layer.blob.descriptor()).collect();
        let media_type = self.format.manifest();
        let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config.descriptor(), "layers": layers});
        if !self.annotations.is_empty() {
            manifest["annotations"] = self.annotations.iter().cloned().collect();
        }
        Blob::json(media_type, &manifest)
    }
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Image {
    recipe: Recipe,
    index: Option<Blob>,
    /// This machine's platform first.
    manifests: Vec<Blob>,
    configs: Vec<Blob>,
    layers: Vec<Layer>,
}

impl Image {
    fn assemble(recipe: Recipe, config: Blob, layers: Vec<Layer>) -> Self {
        let mut configs = vec![config];
        if recipe.index {
            configs.push(recipe.config_for(other_architecture(), &layers));
        }
        let manifests: Vec<Blob> = configs.iter().map(|config| recipe.manifest_of(config, &layers)).collect();
        let index = recipe.index.then(|| index_of(recipe.format, &manifests));
        Self { recipe, index, manifests, configs, layers }
    }

    /// The same config over the layers of another image: the manifest lies about its content.
    #[must_use]
    pub fn over_layers_of(&self, other: &Self) -> Self {
        Self::assemble(self.recipe.clone(), self.configs[0].clone(), other.layers.clone())
    }

    /// What a tag points to and a signature names: the index, or the only manifest.
    pub fn top(&self) -> &Blob {
        self.index.as_ref().unwrap_or(&self.manifests[0])
    }

    /// The digest of [`Image::top`].
    pub fn digest(&self) -> ManifestDigest {
        self.top().digest()
    }

    /// The digest of this machine's manifest.
    pub fn manifest_digest(&self) -> ManifestDigest {
        self.manifests[0].digest()
    }

    /// The image ID: the digest of this machine's config.
    pub fn id(&self) -> ImageId {
        ImageId::of(&self.configs[0].bytes)
    }

    /// The hashes of the uncompressed layers, base first.
    pub fn diff_ids(&self) -> Vec<Sha256> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// The name of the extracted layers (OCI image specification, "Layer ChainID").
    pub fn chain_id(&self) -> ChainId {
        let chain = self
            .layers
            .iter()
            .map(|layer| layer.diff_id)
            .reduce(|below, diff| Sha256::of(format!("sha256:{below} sha256:{diff}").as_bytes()));
        ChainId::new(chain.must("reading the chain ID of an image without layers"))
    }

    /// Configs and layers: what has to be in a registry before the manifests.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.configs.iter().chain(self.layers.iter().map(|layer| &layer.blob))
    }

    /// The manifests, this machine's first; without the index.
    pub fn manifests(&self) -> &[Blob] {
        &self.manifests
    }

    /// Writes an OCI archive for `ctr images import`. `annotations` stand at the image's entry in `index.json`:
    /// `io.containerd.image.name` is the name that containerd gives the record, whatever it says.
    pub fn write_archive(&self, file: &Path, annotations: &[(&str, &str)]) {
        let mut top = self.top().descriptor();
        if !annotations.is_empty() {
            top["annotations"] = annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        }
        let index = json!({"schemaVersion": 2, "manifests": [top]});
        let mut entries = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&index).must("encoding JSON")),
        ];
        let blobs = self.blobs().chain(&self.manifests).chain(&self.index);
        entries.extend(blobs.map(|blob| (format!("blobs/sha256/{}", blob.digest().hash()), blob.bytes.clone())));
        fs::write(file, tar_of(&entries)).must(format_args!("writing {}", file.display()));
    }
}

fn index_of(format: Format, manifests: &[Blob]) -> Blob {
    let platforms = [architecture(), other_architecture()];
    let entries: Vec<Value> = manifests.iter().zip(platforms).map(|(manifest, architecture)| entry_of(manifest, architecture)).collect();
    Blob::json(format.index(), &json!({"schemaVersion": 2, "mediaType": format.index(), "manifests": entries}))
}

fn entry_of(manifest: &Blob, architecture: &str) -> Value {
    let mut entry = manifest.descriptor();
    entry["platform"] = json!({"architecture": architecture, "os": "linux"});
    entry
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn other_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
