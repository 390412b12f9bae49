//! What containerd is made of.

use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use http::Uri;

use super::{Containerd, ContainerdError, MESSAGE_LIMIT, ORIGIN, UNPACKING_SNAPSHOTTERS, request};

/// A plugin of containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its kind, such as `io.containerd.snapshotter.v1`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// It runs. One that failed to, or was told not to, does not.
    pub is_ready: bool,
}

/// Whether a snapshotter unpacks layers and compares them, so that what stands on a chain ID is what its name says.
#[must_use]
pub fn unpacks(snapshotter: &str) -> bool {
    UNPACKING_SNAPSHOTTERS.contains(&snapshotter)
}

impl Containerd {
    /// Every plugin that it knows.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn plugins(&self) -> Result<Vec<Plugin>, ContainerdError> {
        let client = IntrospectionClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN));
        let mut client = client.max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.within("Introspection.Plugins", client.plugins(request(PluginsRequest::default()))).await?;
        let plugins = answer.into_inner().plugins.into_iter();
        Ok(plugins.map(|plugin| Plugin { is_ready: plugin.init_err.is_none(), kind: plugin.r#type, name: plugin.id }).collect())
    }
}
