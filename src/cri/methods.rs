//! The CRI methods that this version knows.
//!
//! The list is cri-api v0.36 (Kubernetes 1.36). A method that is not in it is refused: v0.37 alone adds
//! `RestorePod`, which creates containers without CreateContainer.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Uri;

/// The image service's PullImage.
pub const PULL_IMAGE: &str = "/runtime.v1.ImageService/PullImage";
/// The image service's ImageStatus.
pub const IMAGE_STATUS: &str = "/runtime.v1.ImageService/ImageStatus";
/// The image service's ListImages.
pub const LIST_IMAGES: &str = "/runtime.v1.ImageService/ListImages";
/// The runtime service's CreateContainer.
pub const CREATE_CONTAINER: &str = "/runtime.v1.RuntimeService/CreateContainer";
/// The runtime service's StartContainer.
pub const START_CONTAINER: &str = "/runtime.v1.RuntimeService/StartContainer";
/// The runtime service's RemoveContainer.
pub const REMOVE_CONTAINER: &str = "/runtime.v1.RuntimeService/RemoveContainer";
/// The runtime service's ContainerStatus.
pub const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
/// The runtime service's ListContainers.
pub const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
/// The runtime service's PodSandboxStatus.
pub const POD_SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
/// The runtime service's RunPodSandbox.
pub const RUN_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
/// The runtime service's RemovePodSandbox.
pub const REMOVE_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RemovePodSandbox";
/// The runtime service's StopPodSandbox.
pub const STOP_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/StopPodSandbox";
/// The runtime service's Status.
pub const STATUS: &str = "/runtime.v1.RuntimeService/Status";
/// The runtime service's Version.
pub const VERSION: &str = "/runtime.v1.RuntimeService/Version";

const RUNTIME_SERVICE: [&str; 35] = [
    "Attach",
    "CheckpointContainer",
    "ContainerStats",
    "ContainerStatus",
    "CreateContainer",
    "Exec",
    "ExecSync",
    "GetContainerEvents",
    "ListContainerStats",
    "ListContainers",
    "ListMetricDescriptors",
    "ListPodSandbox",
    "ListPodSandboxMetrics",
    "ListPodSandboxStats",
    "PodSandboxStats",
    "PodSandboxStatus",
    "PortForward",
    "RemoveContainer",
    "RemovePodSandbox",
    "ReopenContainerLog",
    "RunPodSandbox",
    "RuntimeConfig",
    "StartContainer",
    "Status",
    "StopContainer",
    "StopPodSandbox",
    "StreamContainerStats",
    "StreamContainers",
    "StreamPodSandboxMetrics",
    "StreamPodSandboxStats",
    "StreamPodSandboxes",
    "UpdateContainerResources",
    "UpdatePodSandboxResources",
    "UpdateRuntimeConfig",
    "Version",
];

const IMAGE_SERVICE: [&str; 6] = ["ImageFsInfo", "ImageStatus", "ListImages", "PullImage", "RemoveImage", "StreamImages"];

/// A method whose calls can be given to [`Checks`](super::checks::Checks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckedMethod {
    /// `ImageService/PullImage`.
    PullImage,
    /// `RuntimeService/CreateContainer`.
    CreateContainer,
    /// `RuntimeService/StartContainer`.
    StartContainer,
    /// `RuntimeService/RunPodSandbox`.
    RunPodSandbox,
}

impl CheckedMethod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PullImage, Self::CreateContainer, Self::StartContainer, Self::RunPodSandbox];

    /// The method's own name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PullImage => "PullImage",
            Self::CreateContainer => "CreateContainer",
            Self::StartContainer => "StartContainer",
            Self::RunPodSandbox => "RunPodSandbox",
        }
    }

    /// The method's HTTP/2 path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::PullImage => PULL_IMAGE,
            Self::CreateContainer => CREATE_CONTAINER,
            Self::StartContainer => START_CONTAINER,
            Self::RunPodSandbox => RUN_POD_SANDBOX,
        }
    }
}

/// One known method.
#[derive(Debug)]
pub(super) struct Method {
    /// Whose calls can be checked.
    pub(super) checked: Option<CheckedMethod>,
    /// How it is asked of containerd: `:authority` is `localhost`, as kubelet's own client sends.
    pub(super) uri: Uri,
}

static KNOWN: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let runtime = RUNTIME_SERVICE.iter().map(|name| format!("/runtime.v1.RuntimeService/{name}"));
    let image = IMAGE_SERVICE.iter().map(|name| format!("/runtime.v1.ImageService/{name}"));
    runtime.chain(image).filter_map(entry).collect()
});

/// A path that made no URI would be left out and so refused; a test sees that none is.
fn entry(path: String) -> Option<(String, Method)> {
    let uri = Uri::try_from(format!("http://localhost{path}")).ok()?;
    let checked = CheckedMethod::ALL.into_iter().find(|method| method.path() == path);
    Some((path, Method { checked, uri }))
}

/// Finds a method by its whole path and query, byte for byte: containerd reads no more kindly.
pub(super) fn known(path_and_query: &str) -> Option<&'static Method> {
    KNOWN.get(path_and_query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_methods_of_the_list_are_known_under_their_path() {
        assert_eq!(KNOWN.len(), RUNTIME_SERVICE.len() + IMAGE_SERVICE.len());
        let method = known("/runtime.v1.RuntimeService/StreamPodSandboxes").unwrap();
        assert_eq!(method.uri, "http://localhost/runtime.v1.RuntimeService/StreamPodSandboxes");
        assert_eq!(method.checked, None);
    }

    #[test]
    fn every_method_that_we_call_ourselves_or_check_is_known() {
        let own = [
            IMAGE_STATUS,
            LIST_IMAGES,
            REMOVE_CONTAINER,
            CONTAINER_STATUS,
            POD_SANDBOX_STATUS,
            REMOVE_POD_SANDBOX,
            STATUS,
            VERSION,
            LIST_CONTAINERS,
        ];
        for path in own {
            assert!(known(path).is_some_and(|method| method.checked.is_none()), "{path}");
        }
        for checked in CheckedMethod::ALL {
            assert_eq!(known(checked.path()).unwrap().checked, Some(checked));
            assert!(checked.path().ends_with(&format!("/{}", checked.name())));
        }
    }

    #[test]
    fn near_misses_are_unknown() {
        let paths = [
            "/runtime.v1alpha2.ImageService/PullImage",
            "/runtime.v1.RuntimeService/RestorePod",
            "/runtime.v1.RuntimeService/PullImage",
            "/runtime.v1.ImageService/PullImage?",
            "/runtime.v1.ImageService/PullImage/",
            "//runtime.v1.ImageService/PullImage",
            "/runtime.v1.ImageService/pullimage",
            "/runtime.v1.ImageService/%50ullImage",
        ];
        for path in paths {
            assert!(known(path).is_none(), "{path}");
        }
    }
}
