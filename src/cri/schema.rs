//! The CRI messages on the way to an image, and the answers that are read.
//!
//! Field numbers and which fields repeat are those of cri-api v0.36 (`api.proto`). Every singular field of a request's
//! message is listed, also where its content is not read: a field that stands twice could be read in two ways.

use super::wire::{Kind, Known, Schema};

const fn one(number: u32, name: &'static str) -> Known {
    Known { number, name, kind: Kind::Bytes, repeated: false }
}

const fn many(number: u32, name: &'static str) -> Known {
    Known { number, name, kind: Kind::Bytes, repeated: true }
}

const fn number(number: u32, name: &'static str) -> Known {
    Known { number, name, kind: Kind::Varint, repeated: false }
}

pub(super) const PULL_IMAGE_REQUEST: Schema =
    Schema { name: "PullImageRequest", fields: &[one(1, "image"), one(2, "auth"), one(3, "sandbox_config")] };

pub(super) const IMAGE_SPEC: Schema = Schema {
    name: "ImageSpec",
    fields: &[one(1, "image"), many(2, "annotations"), one(18, "user_specified_image"), one(19, "runtime_handler"), one(20, "image_ref")],
};

pub(super) const AUTH_CONFIG: Schema = Schema {
    name: "AuthConfig",
    fields: &[
        one(1, "username"),
        one(2, "password"),
        one(3, "auth"),
        one(4, "server_address"),
        one(5, "identity_token"),
        one(6, "registry_token"),
    ],
};

pub(super) const POD_SANDBOX_CONFIG: Schema = Schema {
    name: "PodSandboxConfig",
    fields: &[
        one(1, "metadata"),
        one(2, "hostname"),
        one(3, "log_directory"),
        one(4, "dns_config"),
        many(5, "port_mappings"),
        many(6, "labels"),
        many(7, "annotations"),
        one(8, "linux"),
        one(9, "windows"),
    ],
};

pub(super) const POD_SANDBOX_METADATA: Schema =
    Schema { name: "PodSandboxMetadata", fields: &[one(1, "name"), one(2, "uid"), one(3, "namespace"), number(4, "attempt")] };

pub(super) const CREATE_CONTAINER_REQUEST: Schema =
    Schema { name: "CreateContainerRequest", fields: &[one(1, "pod_sandbox_id"), one(2, "config"), one(3, "sandbox_config")] };

pub(super) const CONTAINER_CONFIG: Schema = Schema {
    name: "ContainerConfig",
    fields: &[
        one(1, "metadata"),
        one(2, "image"),
        many(3, "command"),
        many(4, "args"),
        one(5, "working_dir"),
        many(6, "envs"),
        many(7, "mounts"),
        many(8, "devices"),
        many(9, "labels"),
        many(10, "annotations"),
        one(11, "log_path"),
        number(12, "stdin"),
        number(13, "stdin_once"),
        number(14, "tty"),
        one(15, "linux"),
        one(16, "windows"),
        many(17, "CDI_devices"),
        number(18, "stop_signal"),
    ],
};

pub(super) const CONTAINER_METADATA: Schema = Schema { name: "ContainerMetadata", fields: &[one(1, "name"), number(2, "attempt")] };

pub(super) const MOUNT: Schema = Schema {
    name: "Mount",
    fields: &[
        one(1, "container_path"),
        one(2, "host_path"),
        number(3, "readonly"),
        number(4, "selinux_relabel"),
        number(5, "propagation"),
        many(6, "uidMappings"),
        many(7, "gidMappings"),
        number(8, "recursive_read_only"),
        one(9, "image"),
        one(10, "image_sub_path"),
    ],
};

pub(super) const START_CONTAINER_REQUEST: Schema = Schema { name: "StartContainerRequest", fields: &[one(1, "container_id")] };
pub(super) const RUN_POD_SANDBOX_REQUEST: Schema =
    Schema { name: "RunPodSandboxRequest", fields: &[one(1, "config"), one(2, "runtime_handler")] };

pub(super) const PULL_IMAGE_RESPONSE: Schema = Schema { name: "PullImageResponse", fields: &[one(1, "image_ref")] };
pub(super) const CREATE_CONTAINER_RESPONSE: Schema = Schema { name: "CreateContainerResponse", fields: &[one(1, "container_id")] };
pub(super) const CONTAINER_STATUS_RESPONSE: Schema =
    Schema { name: "ContainerStatusResponse", fields: &[one(1, "status"), many(2, "info")] };
pub(super) const CONTAINER_STATUS: Schema = Schema { name: "ContainerStatus", fields: &[one(1, "id")] };
pub(super) const RUN_POD_SANDBOX_RESPONSE: Schema = Schema { name: "RunPodSandboxResponse", fields: &[one(1, "pod_sandbox_id")] };
pub(super) const POD_SANDBOX_STATUS_RESPONSE: Schema = Schema {
    name: "PodSandboxStatusResponse",
    fields: &[one(1, "status"), many(2, "info"), many(3, "containers_statuses"), number(4, "timestamp")],
};
pub(super) const POD_SANDBOX_STATUS: Schema =
    Schema { name: "PodSandboxStatus", fields: &[one(1, "id"), one(2, "metadata"), many(7, "labels"), many(8, "annotations")] };
pub(super) const STRING_ENTRY: Schema = Schema { name: "StringEntry", fields: &[one(1, "key"), one(2, "value")] };
pub(super) const STATUS_RESPONSE: Schema =
    Schema { name: "StatusResponse", fields: &[one(1, "status"), many(2, "info"), many(3, "runtime_handlers"), one(4, "features")] };
pub(super) const INFO_ENTRY: Schema = Schema { name: "InfoEntry", fields: &[one(1, "key"), one(2, "value")] };
pub(super) const IMAGE_STATUS_RESPONSE: Schema = Schema { name: "ImageStatusResponse", fields: &[one(1, "image"), many(2, "info")] };
pub(super) const IMAGE: Schema = Schema { name: "Image", fields: &[one(1, "id"), many(2, "repo_tags"), many(3, "repo_digests")] };
