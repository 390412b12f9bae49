//! The changes to a caller's message: what it names, in the form that was checked.

use std::ops::Range;

use bytes::Bytes;

use super::schema::{CONTAINER_CONFIG, CREATE_CONTAINER_REQUEST, IMAGE_SPEC, PULL_IMAGE_REQUEST, START_CONTAINER_REQUEST};
use super::wire::{Message, Value, WireError};

/// Replaces `PullImageRequest.image.image` by `name`. Every other byte stays as it was, but for the two lengths that
/// count the name. With the name that stands there already, the result is the same bytes.
///
/// # Errors
/// When the message is refused on reading, or names no image.
pub fn pull_image_name(message: &[u8], name: &str) -> Result<Bytes, WireError> {
    let request = Message::parse(&PULL_IMAGE_REQUEST, message)?;
    let (spec_at, spec) = content(&request, 1, "image")?;
    let (name_at, _) = content(&Message::parse(&IMAGE_SPEC, spec)?, 1, "image")?;
    let spec = replaced(spec, &name_at, name.as_bytes());
    Ok(replaced(message, &spec_at, &spec).into())
}

/// Replaces `CreateContainerRequest.config.image.image` by `image`, as [`pull_image_name`] replaces a name.
///
/// # Errors
/// When the message is refused on reading, or names no image.
pub fn create_container_image(message: &[u8], image: &str) -> Result<Bytes, WireError> {
    let request = Message::parse(&CREATE_CONTAINER_REQUEST, message)?;
    let (config_at, config) = content(&request, 2, "config")?;
    let (spec_at, spec) = content(&Message::parse(&CONTAINER_CONFIG, config)?, 2, "image")?;
    let (image_at, _) = content(&Message::parse(&IMAGE_SPEC, spec)?, 1, "image")?;
    let spec = replaced(spec, &image_at, image.as_bytes());
    let config = replaced(config, &spec_at, &spec);
    Ok(replaced(message, &config_at, &config).into())
}

/// Replaces `CreateContainerRequest.pod_sandbox_id` by `id`, as [`pull_image_name`] replaces a name.
///
/// # Errors
/// When the message is refused on reading, or names no sandbox.
pub fn create_container_sandbox(message: &[u8], id: &str) -> Result<Bytes, WireError> {
    let request = Message::parse(&CREATE_CONTAINER_REQUEST, message)?;
    let (id_at, _) = content(&request, 1, "pod_sandbox_id")?;
    Ok(replaced(message, &id_at, id.as_bytes()).into())
}

/// Replaces `StartContainerRequest.container_id` by `id`, as [`pull_image_name`] replaces a name.
///
/// # Errors
/// When the message is refused on reading, or names no container.
pub fn start_container_id(message: &[u8], id: &str) -> Result<Bytes, WireError> {
    let request = Message::parse(&START_CONTAINER_REQUEST, message)?;
    let (id_at, _) = content(&request, 1, "container_id")?;
    Ok(replaced(message, &id_at, id.as_bytes()).into())
}

/// Where a field stands after its tag (its length and its content), and the content.
fn content<'a>(message: &Message<'a>, number: u32, field: &'static str) -> Result<(Range<usize>, &'a [u8]), WireError> {
    match message.singular(number)? {
        Some(found) => match found.value {
            Value::Bytes(bytes) => Ok((found.after_tag.clone(), bytes)),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => Err(WireError::WrongType { message: message.name(), field }),
        },
        None => Err(WireError::Missing { message: message.name(), field }),
    }
}

fn replaced(bytes: &[u8], at: &Range<usize>, content: &[u8]) -> Vec<u8> {
    let before = bytes.get(..at.start).unwrap_or_default();
    let after = bytes.get(at.end..).unwrap_or_default();
    let mut whole = Vec::with_capacity(before.len() + prost::length_delimiter_len(content.len()) + content.len() + after.len());
    whole.extend_from_slice(before);
    prost::encoding::encode_varint(content.len() as u64, &mut whole);
    whole.extend_from_slice(content);
    whole.extend_from_slice(after);
    whole
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::messages::PullImageRequest;
    use super::*;

    /// Fields that no version knows yet, before and after those of a message.
    fn with_unknown_fields(encoded: Vec<u8>, before: &[u8], after: &[u8]) -> Vec<u8> {
        let field = |content: &[u8]| [&[0xa2, 0x06, u8::try_from(content.len()).unwrap()], content].concat();
        [field(before), encoded, field(after)].concat()
    }

    fn request(image: &str, annotation: &str, password: &str, unknown: (&[u8], &[u8])) -> Vec<u8> {
        let image = v1::ImageSpec {
            image: image.into(),
            annotations: [("key".to_owned(), annotation.to_owned())].into(),
            user_specified_image: "as/in:pod".into(),
            ..v1::ImageSpec::default()
        };
        let image = with_unknown_fields(image.encode_to_vec(), unknown.0, unknown.1);
        let auth = v1::AuthConfig { password: password.into(), ..v1::AuthConfig::default() };
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(image.len() as u64, &mut message);
        message.extend(image);
        message.extend(v1::PullImageRequest { auth: Some(auth), ..v1::PullImageRequest::default() }.encode_to_vec());
        with_unknown_fields(message, unknown.1, unknown.0)
    }

    proptest! {
        #[test]
        fn the_patched_message_is_the_one_that_the_caller_would_have_written(
            old in ".{1,200}",
            new in "([a-z]{1,20}/){0,20}[a-z]{1,40}@sha256:[0-9a-f]{64}",
            annotation in ".{0,300}",
            password in ".{0,40}",
            before in prop::collection::vec(any::<u8>(), 0..100),
            after in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let sent = request(&old, &annotation, &password, (&before, &after));
            let patched = pull_image_name(&sent, &new).unwrap();
            prop_assert_eq!(&patched[..], &request(&new, &annotation, &password, (&before, &after))[..]);
            let read = PullImageRequest::read(&patched).unwrap();
            prop_assert_eq!(read.image.image, new);
            prop_assert_eq!(&pull_image_name(&patched, &old).unwrap()[..], &sent[..]);
        }

        #[test]
        fn the_same_name_changes_nothing(name in ".{1,200}", before in prop::collection::vec(any::<u8>(), 0..100)) {
            let sent = request(&name, "", "", (&before, &[]));
            prop_assert_eq!(&pull_image_name(&sent, &name).unwrap()[..], &sent[..]);
        }

        #[test]
        fn a_damaged_message_is_refused_or_patched_so_that_it_reads_back(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut sent = request("reg/app:1", "annotation", "password", (b"before", b"after"));
            let at = at.index(sent.len());
            sent[at] = byte;
            if let Ok(mut read) = PullImageRequest::read(&sent) {
                match pull_image_name(&sent, "new") {
                    Ok(patched) => {
                        read.image.image = "new".into();
                        prop_assert_eq!(PullImageRequest::read(&patched), Ok(read));
                    }
                    Err(error) => prop_assert!(matches!(error, WireError::Missing { .. }), "{}", error),
                }
            }
        }
    }

    #[test]
    fn the_image_of_a_container_is_replaced_and_unknown_fields_stay() {
        let create = |image: &str| {
            let spec = v1::ImageSpec { image: image.into(), user_specified_image: "as/in:pod".into(), ..v1::ImageSpec::default() };
            let config = v1::ContainerConfig { log_path: "1.log".into(), ..v1::ContainerConfig::default() };
            let spec = with_unknown_fields(spec.encode_to_vec(), b"in", b"spec");
            let mut config = with_unknown_fields(config.encode_to_vec(), b"in", b"config");
            config.push(0x12);
            prost::encoding::encode_varint(spec.len() as u64, &mut config);
            config.extend(&spec);
            let mut request = v1::CreateContainerRequest { pod_sandbox_id: "pod".into(), ..Default::default() }.encode_to_vec();
            request.push(0x12);
            prost::encoding::encode_varint(config.len() as u64, &mut request);
            with_unknown_fields([request, config].concat(), b"before", b"after")
        };
        let id = format!("sha256:{}", "ab".repeat(32));
        let long = "a-name-that-is-longer-than-the-id/".repeat(3);
        for name in ["reg/app:1", &long] {
            assert_eq!(&create_container_image(&create(name), &id).unwrap()[..], &create(&id)[..]);
        }
        assert_eq!(&create_container_image(&create(&id), &id).unwrap()[..], &create(&id)[..]);
        let of = |message: &[u8]| v1::CreateContainerRequest::decode(message).unwrap().pod_sandbox_id;
        let moved = create_container_sandbox(&create(&id), "pod-in-full").unwrap();
        assert_eq!(of(&moved), "pod-in-full");
        assert_eq!(&create_container_sandbox(&moved, "pod").unwrap()[..], &create(&id)[..]);
        let missing = WireError::Missing { message: "CreateContainerRequest", field: "config" };
        assert_eq!(create_container_image(&[], &id), Err(missing));
    }

    #[test]
    fn a_containers_id_is_replaced_and_unknown_fields_stay() {
        let start = |id: &str| {
            let request = v1::StartContainerRequest { container_id: id.into() };
            with_unknown_fields(request.encode_to_vec(), b"before", b"after")
        };
        assert_eq!(&start_container_id(&start("12ab"), "12abcd").unwrap()[..], &start("12abcd")[..]);
        assert_eq!(&start_container_id(&start("12ab"), "12ab").unwrap()[..], &start("12ab")[..]);
        let missing = WireError::Missing { message: "StartContainerRequest", field: "container_id" };
        assert_eq!(start_container_id(&[], "12ab"), Err(missing));
    }

    #[test]
    fn a_request_without_a_name_is_not_given_one() {
        let missing = |message| Err(WireError::Missing { message, field: "image" });
        assert_eq!(pull_image_name(&[], "new"), missing("PullImageRequest"));
        assert_eq!(pull_image_name(&[0x0a, 0], "new"), missing("ImageSpec"));
    }
}
