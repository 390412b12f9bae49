//! The shape of the configuration file: its keys and their types, and nothing about what they mean.

use toml::de::DeTable;

use super::shape::{At, NamedLists, Notes, Section};

/// What the file says, before it is known whether that makes sense.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) sockets: SocketsFile,
    pub(super) registry_config: Option<At<String>>,
    pub(super) state_directory: Option<At<String>>,
    pub(super) credentials_file: Option<At<String>>,
    pub(super) content_trust: ContentTrustFile,
    pub(super) registries: Vec<RegistryFile>,
}

#[derive(Debug, Default)]
pub(super) struct SocketsFile {
    pub(super) cri: Option<At<String>>,
    pub(super) admin: Option<At<String>>,
    pub(super) containerd: Option<At<String>>,
}

#[derive(Debug)]
pub(super) struct ContentTrustFile {
    pub(super) mode: Option<At<String>>,
    pub(super) pinning: PinningFile,
}

#[derive(Debug)]
pub(super) struct PinningFile {
    pub(super) at: usize,
    /// Official images were asked for, which is refused for now; so "nothing is pinned" would be no news.
    pub(super) has_official_images: bool,
    pub(super) root_keys: NamedLists,
    pub(super) cert_ids: NamedLists,
}

#[derive(Debug)]
pub(super) struct RegistryFile {
    pub(super) host_address: Option<At<String>>,
    pub(super) notary_server: Option<At<String>>,
    pub(super) ca_bundle_file: Option<At<String>>,
    pub(super) ca_bundle: Option<At<String>>,
}

impl ConfigFile {
    pub(super) fn read(document: &DeTable<'_>, notes: &mut Notes) -> Self {
        Section::of_document(document, notes, |file| {
            for later in ["signers", "teams", "rules", "revoked-keys", "deny-digests"] {
                file.not_supported_yet(later);
            }
            let (cri, admin) = file.section("listen", |listen| (listen.text("cri"), listen.text("admin")));
            let (containerd, registry_config) = file.section("containerd", |containerd| {
                containerd.not_supported_yet("sandbox-image");
                (containerd.text("address"), containerd.text("registry-config"))
            });
            Self {
                sockets: SocketsFile { cri, admin, containerd },
                registry_config,
                state_directory: file.section("state", |state| state.text("directory")),
                credentials_file: file.section("credentials", |credentials| credentials.text("file")),
                content_trust: file.section("content-trust", ContentTrustFile::read),
                registries: file.sections("registries", RegistryFile::read),
            }
        })
    }
}

impl ContentTrustFile {
    fn read(section: &mut Section<'_, '_>) -> Self {
        section.not_supported_yet_when_on("allow-expired-cached-trust-data");
        section.not_supported_yet("signed-by");
        Self {
            mode: section.required_text("mode", "`disabled`, `permissive` or `enforced`"),
            pinning: section.section("trust-pinning", PinningFile::read),
        }
    }
}

impl PinningFile {
    fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            at: section.at(),
            has_official_images: section.not_supported_yet_when_on("official-library-images"),
            root_keys: section.named_lists("root-keys"),
            cert_ids: section.named_lists("cert-ids"),
        }
    }
}

impl RegistryFile {
    fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            host_address: section.required_text("host-address", "the host as it stands in image names"),
            notary_server: section.text("notary-server"),
            ca_bundle_file: section.text("ca-bundle-file"),
            ca_bundle: section.text("ca-bundle"),
        }
    }
}
