//! A registry's bundle: `{"hostAddress": "…", "caBundle": "…"}`, with which MKE is told of a remote registry.

use std::path::Path;

use countersign_trust::time::UnixTime;

use super::address::{self, Authority, CA_KEYS, HOST_KEYS, Registry};
use super::fault::{Fault, ImportErrors};
use super::object::Object;
use super::told::Told;
use super::{Import, Imported, Notes, json};

/// Makes a `[[registries]]` of the registry bundle `text`. `file` stands in messages; certificates are judged at `now`.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn registry(text: &str, file: &Path, now: UnixTime) -> Result<Imported, ImportErrors> {
    let import = Import {
        file,
        text,
        command: "registry",
        what_to_do: "Append it to /etc/countersign/config.toml, pin the registry's repositories there (`countersign pin REPOSITORY` \
                     shows what to pin), and check the whole",
    };
    import.run(|notes| read(text, now, notes), |registry: &Registry, written| registry.write(written))
}

fn read(text: &str, now: UnixTime, notes: &mut Notes) -> Option<Registry> {
    let mut bundle = json::file(text, notes)?;
    if bundle.has("content-trust") {
        notes.fault(
            bundle.at,
            Fault::OfAnotherKind { what: "the configuration of the Docker Engine", instead: "`countersign import docker`" },
        );
        return None;
    }
    let (at, registry) = (bundle.at, read_bundle(&mut bundle, now, notes));
    bundle.finish(notes);
    let registry = registry?;
    if registry.authority == Authority::System {
        notes.tell(at, Told::NoCa);
    }
    Some(registry)
}

fn read_bundle(bundle: &mut Object<'_>, now: UnixTime, notes: &mut Notes) -> Option<Registry> {
    let is_given = HOST_KEYS.iter().any(|key| bundle.has(key));
    if !is_given {
        notes.fault(bundle.at, Fault::Missing { key: HOST_KEYS[0], wanted: "the registry's host as it stands in image names" });
    }
    let host = bundle.string_of_two(HOST_KEYS, notes).and_then(|written| address::host(HOST_KEYS[0], &written, notes));
    let authority = bundle.string_of_two(CA_KEYS, notes);
    let authority = address::authority(CA_KEYS[0], authority.as_ref(), now, notes)?;
    Some(Registry { host: host?, authority })
}
