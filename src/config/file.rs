//! The shape of the configuration file: its keys and their types, and nothing about what they mean.

use std::ops::Range;

use toml::de::DeTable;

use super::people::{SignerFile, TeamFile};
use super::rules::RuleFile;
use super::shape::{At, NamedLists, Notes, Section};

/// What the file says, before it is known whether that makes sense.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) sockets: SocketsFile,
    pub(super) registry_config: Option<At<String>>,
    pub(super) sandbox: SandboxFile,
    pub(super) state_directory: Option<At<String>>,
    pub(super) refresh_interval: Option<At<String>>,
    pub(super) on_bypass: Option<At<String>>,
    pub(super) audit: AuditFile,
    pub(super) metrics_listen: Option<At<String>>,
    pub(super) credentials_file: Option<At<String>>,
    pub(super) store: StoreFile,
    pub(super) content_trust: ContentTrustFile,
    pub(super) registries: Vec<RegistryFile>,
    pub(super) signers: Vec<SignerFile>,
    pub(super) teams: Vec<TeamFile>,
    pub(super) rules: Vec<RuleFile>,
}

#[derive(Debug, Default)]
pub(super) struct SocketsFile {
    pub(super) cri: Option<At<String>>,
    pub(super) admin: Option<At<String>>,
    pub(super) containerd: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(super) struct SandboxFile {
    pub(super) image: Option<At<String>>,
    pub(super) digests: Vec<At<String>>,
}

#[derive(Debug, Default)]
pub(super) struct AuditFile {
    pub(super) file: Option<At<String>>,
    pub(super) max_bytes: Option<At<u64>>,
}

#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) at: usize,
    pub(super) backend: Option<At<String>>,
    pub(super) cluster: Option<At<String>>,
    pub(super) node: Option<At<String>>,
    /// Where it stands in the text.
    pub(super) node_at: Option<Range<usize>>,
    pub(super) authority_keys: Option<Vec<At<String>>>,
    pub(super) when_unreachable: Option<At<String>>,
    pub(super) endpoints: Option<Vec<At<String>>>,
    pub(super) ca_file: Option<At<String>>,
    pub(super) certificate_file: Option<At<String>>,
    pub(super) key_file: Option<At<String>>,
    pub(super) username: Option<At<String>>,
    pub(super) password_file: Option<At<String>>,
}

#[derive(Debug)]
pub(super) struct ContentTrustFile {
    pub(super) mode: Option<At<String>>,
    pub(super) signed_by: Option<Vec<At<String>>>,
    pub(super) allow_expired: Option<At<bool>>,
    pub(super) expired_max_age: Option<At<String>>,
    pub(super) grandfather_for: Option<At<String>>,
    pub(super) superseded_max_age: Option<At<String>>,
    pub(super) signer_cert_expiry: Option<At<String>>,
    pub(super) strict_json: Option<At<bool>>,
    pub(super) revoked_keys: Vec<At<String>>,
    pub(super) deny_digests: Vec<At<String>>,
    pub(super) pinning: PinningFile,
}

#[derive(Debug)]
pub(super) struct PinningFile {
    pub(super) at: usize,
    pub(super) official_images: Option<At<bool>>,
    pub(super) official_keys_file: Option<At<String>>,
    pub(super) require_releases: Vec<At<String>>,
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
            let (cri, admin) = file.section("listen", |listen| (listen.text("cri"), listen.text("admin")));
            let (containerd, registry_config, sandbox) = file.section("containerd", |containerd| {
                let image = containerd.text("sandbox-image");
                let digests = containerd.texts("sandbox-image-digests").unwrap_or_default();
                (containerd.text("address"), containerd.text("registry-config"), SandboxFile { image, digests })
            });
            Self {
                sockets: SocketsFile { cri, admin, containerd },
                registry_config,
                sandbox,
                state_directory: file.section("state", |state| state.text("directory")),
                refresh_interval: file.section("refresh", |refresh| refresh.text("interval")),
                on_bypass: file.section("watch", |watch| watch.text("on-bypass")),
                audit: file.section("audit", |audit| AuditFile { file: audit.text("file"), max_bytes: audit.number("max-bytes") }),
                metrics_listen: file.section("metrics", |metrics| metrics.text("listen")),
                credentials_file: file.section("credentials", |credentials| credentials.text("file")),
                store: file.section("store", StoreFile::read),
                content_trust: file.section("content-trust", ContentTrustFile::read),
                registries: file.sections("registries", RegistryFile::read),
                signers: file.sections("signers", read_signer),
                teams: file.sections("teams", read_team),
                rules: file.sections("rules", read_rule),
            }
        })
    }
}

impl StoreFile {
    fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            at: section.at(),
            backend: section.text("backend"),
            cluster: section.text("cluster"),
            node: section.text("node"),
            node_at: section.place_of("node"),
            authority_keys: section.texts("authority-keys"),
            when_unreachable: section.text("when-unreachable"),
            endpoints: section.texts("endpoints"),
            ca_file: section.text("ca-file"),
            certificate_file: section.text("certificate-file"),
            key_file: section.text("key-file"),
            username: section.text("username"),
            password_file: section.text("password-file"),
        }
    }
}

impl ContentTrustFile {
    fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            mode: section.required_text("mode", "`disabled`, `permissive` or `enforced`"),
            signed_by: section.texts("signed-by"),
            allow_expired: section.switch("allow-expired-cached-trust-data"),
            expired_max_age: section.text("expired-trust-data-max-age"),
            grandfather_for: section.text("grandfather-for"),
            superseded_max_age: section.text("superseded-max-age"),
            signer_cert_expiry: section.text("signer-cert-expiry"),
            strict_json: section.switch("strict-json"),
            revoked_keys: section.texts("revoked-keys").unwrap_or_default(),
            deny_digests: section.texts("deny-digests").unwrap_or_default(),
            pinning: section.section("trust-pinning", PinningFile::read),
        }
    }
}

impl PinningFile {
    fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            at: section.at(),
            official_images: section.switch("official-library-images"),
            official_keys_file: section.text("official-library-keys-file"),
            require_releases: section.texts("require-releases-role").unwrap_or_default(),
            root_keys: section.named_lists("root-keys"),
            cert_ids: section.named_lists("cert-ids"),
        }
    }
}

fn read_signer(section: &mut Section<'_, '_>) -> SignerFile {
    SignerFile {
        name: section.required_text("name", "the user's name"),
        certificates: section.texts("certificates").unwrap_or_default(),
        keys: section.texts("keys").unwrap_or_default(),
    }
}

fn read_team(section: &mut Section<'_, '_>) -> TeamFile {
    TeamFile { name: section.required_text("name", "`organisation/team`"), members: section.texts("members").unwrap_or_default() }
}

fn read_rule(section: &mut Section<'_, '_>) -> RuleFile {
    RuleFile {
        at: section.at(),
        name: section.text("name"),
        images: section.texts("images").unwrap_or_default(),
        namespaces: section.texts("namespaces"),
        mode: section.text("mode"),
        deny: section.switch("deny"),
        signed_by: section.texts("signed-by"),
        allow_digests: section.texts("allow-digests").unwrap_or_default(),
        owner: section.text("owner"),
        reason: section.text("reason"),
        until: section.moment("until"),
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
