//! What is told about a file that can be imported: what could not be carried over, and what means something else here.

use countersign_trust::name::NameError;
use countersign_trust::pin::PinName;

use super::pem::PemRemark;

/// Something that the operator must know before the printed configuration is used. What begins with “not carried over” has
/// no effect in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message beside each variant says what it is")]
pub enum Told {
    #[error(
        "without `content-trust` the Engine verifies nothing, and so does `mode = \"disabled\"`: pin, then set `permissive` or `enforced`"
    )]
    NoContentTrust,
    #[error("without `content-trust.mode` the Engine's mode is `disabled`, so it verifies nothing: written out as `mode = \"disabled\"`")]
    NoMode,
    #[error("not carried over: `{key}`, which countersign does not know")]
    UnknownKey { key: String },

    #[error(
        "`{written}` is not the whole name of what it pins. The Engine compares it as written, so that it matches no image there; \
         here it is `{read_as}`{}",
        host_name_instead(read_as)
    )]
    NotWholeName { written: String, read_as: PinName },
    #[error(
        "not carried over: `{written}` is not the whole name of what it pins, so that it matches no image in the Engine; \
         for `{read_as}`, which it would be here, the pin `{by}` answers already"
    )]
    NotWholeNameAndPinned { written: String, read_as: PinName, by: String },
    #[error(
        "not carried over: the `*` of `{name}` may cut a name, so that it also covers every name that only begins with `{start}`. \
         Here `*` stands after a `/`: put the names that are meant in its place, such as `{instead}`"
    )]
    WildcardCutsName { name: String, start: String, instead: String },
    #[error("not carried over: `{name}` matches no image in the Engine, where a `*` is a wildcard only at the end")]
    WildcardInside { name: String },
    #[error(
        "not carried over: `{name}` matches no image in the Engine, since `cert-ids` are exact: pin the ID of its root key in `root-keys`"
    )]
    WildcardInCertIds { name: String },
    #[error("not carried over: `{name}` matches no image in the Engine, since it is no repository ({why})")]
    NoRepository { name: String, why: NameError },
    #[error(
        "not carried over: `{name}` matches no image in the Engine, since it has no registry host: \
         write the registry's whole host name, and put `*` after a `/`"
    )]
    WildcardWithoutHost { name: String },
    #[error(
        "nothing is pinned, so that nothing would be trusted: the printed configuration is not accepted until you have pinned something"
    )]
    NothingPinned,
    #[error("the pin `*` names no registry: add a `[[registries]]` for each that images come from")]
    PinnedEverywhere,
    #[error(
        "`official-library-images`: Docker is ending the service that signs them (notary.docker.io; announced for 8 December 2026). \
         Copy the images that you need to a registry of your own, and sign them there"
    )]
    OfficialImages,

    #[error(
        "not carried over: `insecure-registries` ({which}): countersign speaks TLS only and always verifies it; give the registry a \
         certificate, and name its CA in `ca-bundle-file`"
    )]
    InsecureRegistries { which: String },
    #[error(
        "not carried over: `registry-mirrors` ({which}): containerd pulls by itself, and its mirrors stand in \
         /etc/containerd/certs.d/docker.io/hosts.toml; signatures are asked for at the notary server in any case"
    )]
    Mirrors { which: String },
    #[error("not carried over: `proxies`: countersign asks notary servers without a proxy, so let the nodes reach them directly")]
    Proxies,
    #[error(
        "not carried over: `authorization-plugins` ({which}): no such plug-in is asked any more, so what it forbade is allowed again \
         unless something else forbids it"
    )]
    AuthorizationPlugins { which: String },
    #[error("not carried over: the client certificate {folder}/{file}: countersign shows none to notary servers")]
    ClientCertificate { folder: String, file: String },
    #[error(
        "not carried over: the CAs in {folder}, since there are several files: put them into one, \
         `cat {folder}/*.crt > {one}`, and name that in `ca-bundle-file`"
    )]
    SeveralCaFiles { folder: String, one: String },
    #[error("not carried over: the CAs in {folder}, since it cannot be read ({why})")]
    CertsFolder { folder: String, why: String },

    #[error("MKE verifies nothing unless `trust_configuration.require_content_trust` is `true`: written out as `mode = \"disabled\"`")]
    NotRequired,
    #[error(
        "MKE pins nothing: it trusts whatever root it sees first. Here nothing is trusted until you have pinned something, and until \
         then the printed configuration is not accepted"
    )]
    PinsAreNew,
    #[error("who is in the team `{team}`, and with which keys they sign, is not in this file: fill in `[[teams]]` and `[[signers]]` below")]
    TeamToFillIn { team: String },
    #[error(
        "`{written}` is no team, `organisation/team`, and here only teams can be asked for: written as the team `{team}`, of which this \
         user is the only member: fill in the user's key below. If it is the ID of a team, put the team's name in its place"
    )]
    UserAsTeam { written: String, team: String },
    #[error(
        "not carried over: `trust_configuration.allow_repos` ({which}): an exception by name would run whatever bears the name, so \
         that these repositories are denied until they are signed and pinned"
    )]
    AllowRepos { which: String },
    #[error("no registry is registered in this file: images of unregistered registries are denied, also those of Docker Hub")]
    NoRegistries,

    #[error("`{key}` is a URL: read as the host `{host}`")]
    UrlForHost { key: &'static str, host: String },
    #[error("the registry has no CA of its own: its certificate must be signed by an authority that the node's system trusts")]
    NoCa,
    #[error("`{key}`: {remark}")]
    Pem { key: &'static str, remark: PemRemark },
}

/// Whoever writes the short name of a registry means that registry, and not a name on Docker Hub.
fn host_name_instead(read_as: &PinName) -> &'static str {
    if read_as.host_is_assumed() {
        ". If its first part is meant to be a registry, write the registry's whole host name, here and in `[[registries]]`"
    } else {
        ""
    }
}
