//! Indexes, manifests and configs: what of them decides which root file system an image has.
//!
//! OCI image specification, "Image Index", "Image Manifest" and "Image Configuration"; Docker's image manifest
//! version 2, schema 2, has the same members.

use countersign_trust::name::{ImageId, ManifestDigest, Sha256, shown};

use super::error::ContentError;
use super::json::{self, Json, JsonError, Members};

/// Children of one index. The widest multi-platform images have a few dozen.
pub(super) const MAX_CHILDREN: usize = 256;
/// Layers of one image, and so `diff_ids` of a config. The kernel mounts no more than about 500 as one overlay.
pub(super) const MAX_LAYERS: usize = 512;
/// With this annotation containerd 2.1 takes an image for a checkpoint and pulls the image that it names.
const CHECKPOINT: &str = "org.criu.checkpoint.container.name";

const INDEX_TYPES: [&str; 2] = ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST_TYPES: [&str; 2] = ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG_TYPES: [&str; 2] = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What a descriptor in an index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) digest: ManifestDigest,
    pub(super) media_type: String,
    pub(super) size: u64,
}

impl Child {
    /// Whether containerd could make a container of it. Anything else in an index is an artifact, not an image.
    pub(super) fn is_image(&self) -> bool {
        INDEX_TYPES.contains(&self.media_type.as_str()) || MANIFEST_TYPES.contains(&self.media_type.as_str())
    }
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: ImageId,
    pub(super) config_size: u64,
    pub(super) layers: usize,
}

/// What a signature can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Index(Vec<Child>),
    Manifest(Manifest),
}

/// Reads an index or a manifest, named `digest`, which its descriptor says to be `said`.
pub(super) fn read(digest: Sha256, bytes: &[u8], said: Option<&str>) -> Result<Document, ContentError> {
    let reader = Reader { digest };
    let top = reader.document(bytes)?;
    reader.refuse_schema_1(&top)?;
    reader.refuse_checkpoint(&top)?;
    let manifests = reader.field(&top, "manifests")?;
    let parts = (reader.field(&top, "config")?, reader.field(&top, "layers")?);
    let (types, document) = match (manifests, parts) {
        (Some(manifests), (None, None)) => (INDEX_TYPES, Document::Index(reader.children(manifests)?)),
        (None, (Some(config), Some(layers))) => (MANIFEST_TYPES, Document::Manifest(reader.manifest(config, layers)?)),
        (Some(_), _) => return Err(ContentError::Ambiguous { digest }),
        (None, (None, None)) => return Err(reader.shape("manifests")),
        (None, (None, Some(_))) => return Err(reader.shape("config")),
        (None, (Some(_), None)) => return Err(reader.shape("layers")),
    };
    let own = reader.field(&top, "mediaType")?.map(|own| reader.text(own, "mediaType")).transpose()?;
    reader.refuse_other_type(own, &types)?;
    match own {
        Some(own) => reader.refuse_other_type(said, &[own])?,
        None => reader.refuse_other_type(said, &types)?,
    }
    Ok(document)
}

/// Reads the `diff_ids` of a config named `digest`: the hashes of its layers, lowest first.
pub(super) fn diff_ids(digest: Sha256, bytes: &[u8]) -> Result<Vec<Sha256>, ContentError> {
    let reader = Reader { digest };
    let top = reader.document(bytes)?;
    let rootfs = reader.object(reader.required(&top, "rootfs")?, "rootfs")?;
    let kind = reader.text(reader.required(rootfs, "type")?, "rootfs.type")?;
    if kind != "layers" {
        return Err(ContentError::RootFs { digest, found: shown(kind) });
    }
    let ids = reader.list(reader.required(rootfs, "diff_ids")?, "rootfs.diff_ids", "diff_ids", MAX_LAYERS)?;
    ids.iter().map(|id| reader.sha256(reader.text(id, "rootfs.diff_ids")?)).collect()
}

/// Reads members of the document named `digest`.
#[derive(Clone, Copy)]
struct Reader {
    digest: Sha256,
}

impl Reader {
    fn document(self, bytes: &[u8]) -> Result<Members, ContentError> {
        match json::parse(bytes).map_err(|error| self.refused(error))? {
            Json::Object(members) => Ok(members),
            Json::Null | Json::Bool | Json::Number(_) | Json::Text(_) | Json::List(_) => Err(self.shape("{…}")),
        }
    }

    fn refused(self, error: JsonError) -> ContentError {
        let digest = self.digest;
        match error {
            JsonError::Syntax(why) => ContentError::Json { digest, why: shown(&why) },
            JsonError::Duplicate(member) => ContentError::Duplicate { digest, member: shown(&member) },
            JsonError::OtherSpelling(member) => ContentError::Spelling { digest, member: shown(&member) },
            JsonError::TooManyValues => ContentError::TooManyValues { digest },
        }
    }

    const fn shape(self, member: &'static str) -> ContentError {
        ContentError::Shape { digest: self.digest, member }
    }

    fn field<'a>(self, members: &'a Members, name: &str) -> Result<Option<&'a Json>, ContentError> {
        members.field(name).map_err(|error| self.refused(error))
    }

    fn required<'a>(self, members: &'a Members, name: &'static str) -> Result<&'a Json, ContentError> {
        self.field(members, name)?.ok_or_else(|| self.shape(name))
    }

    fn object<'a>(self, json: &'a Json, member: &'static str) -> Result<&'a Members, ContentError> {
        if let Json::Object(members) = json { Ok(members) } else { Err(self.shape(member)) }
    }

    fn text<'a>(self, json: &'a Json, member: &'static str) -> Result<&'a str, ContentError> {
        if let Json::Text(text) = json { Ok(text) } else { Err(self.shape(member)) }
    }

    fn number(self, json: &Json, member: &'static str) -> Result<u64, ContentError> {
        if let Json::Number(Some(number)) = json { Ok(*number) } else { Err(self.shape(member)) }
    }

    fn list<'a>(self, json: &'a Json, member: &'static str, what: &'static str, limit: usize) -> Result<&'a [Json], ContentError> {
        let Json::List(list) = json else { return Err(self.shape(member)) };
        let count = list.len();
        if count > limit { Err(ContentError::TooMany { digest: self.digest, what, count, limit }) } else { Ok(list) }
    }

    fn sha256(self, named: &str) -> Result<Sha256, ContentError> {
        let digest: Result<ManifestDigest, _> = named.parse();
        digest.map(|digest| *digest.hash()).map_err(|_| ContentError::DigestAlgorithm { digest: self.digest, named: shown(named) })
    }

    /// Schema 1 has the number 1 or `fsLayers`; containerd looks for either (its `images/image.go`).
    fn refuse_schema_1(self, top: &Members) -> Result<(), ContentError> {
        let version = self.required(top, "schemaVersion")?;
        if self.field(top, "fsLayers")?.is_some() || *version == Json::Number(Some(1)) {
            return Err(ContentError::Schema1 { digest: self.digest });
        }
        if *version == Json::Number(Some(2)) { Ok(()) } else { Err(self.shape("schemaVersion")) }
    }

    /// Refuses the annotation on a document or a descriptor, whatever its value.
    fn refuse_checkpoint(self, annotated: &Members) -> Result<(), ContentError> {
        let Some(annotations) = self.field(annotated, "annotations")?.filter(|found| **found != Json::Null) else { return Ok(()) };
        let annotations = self.object(annotations, "annotations")?;
        if annotations.has_key(CHECKPOINT) {
            return Err(ContentError::Checkpoint { digest: self.digest });
        }
        annotations.values().try_for_each(|value| self.text(value, "annotations").map(drop))
    }

    fn refuse_other_type(self, said: Option<&str>, types: &[&str]) -> Result<(), ContentError> {
        let Some(said) = said else { return Ok(()) };
        if types.contains(&said) {
            return Ok(());
        }
        let found = types.iter().map(|name| format!("`{}`", shown(name))).collect::<Vec<_>>().join(" or ");
        Err(ContentError::MediaType { digest: self.digest, said: shown(said), found })
    }

    fn children(self, manifests: &Json) -> Result<Vec<Child>, ContentError> {
        self.list(manifests, "manifests", "children", MAX_CHILDREN)?.iter().map(|child| self.child(child)).collect()
    }

    fn child(self, descriptor: &Json) -> Result<Child, ContentError> {
        let descriptor = self.object(descriptor, "manifests")?;
        self.refuse_checkpoint(descriptor)?;
        let (digest, media_type, size) = self.descriptor(descriptor)?;
        Ok(Child { digest: ManifestDigest::new(digest), media_type: media_type.to_owned(), size })
    }

    fn descriptor(self, descriptor: &Members) -> Result<(Sha256, &str, u64), ContentError> {
        let digest = self.sha256(self.text(self.required(descriptor, "digest")?, "digest")?)?;
        let media_type = self.text(self.required(descriptor, "mediaType")?, "mediaType")?;
        Ok((digest, media_type, self.number(self.required(descriptor, "size")?, "size")?))
    }

    fn manifest(self, config: &Json, layers: &Json) -> Result<Manifest, ContentError> {
        let (config, media_type, config_size) = self.descriptor(self.object(config, "config")?)?;
        if !CONFIG_TYPES.contains(&media_type) {
            let config = ImageId::new(config);
            return Err(ContentError::NotAnImage { digest: self.digest, media_type: shown(media_type), config });
        }
        let layers = self.list(layers, "layers", "layers", MAX_LAYERS)?;
        for layer in layers {
            self.descriptor(self.object(layer, "layers")?)?;
        }
        Ok(Manifest { config: ImageId::new(config), config_size, layers: layers.len() })
    }
}
