use proptest::prelude::*;

use super::*;

const SCHEMA: Schema = Schema {
    name: "Sample",
    fields: &[
        Known { number: 1, name: "text", kind: Kind::Bytes, repeated: false },
        Known { number: 2, name: "list", kind: Kind::Bytes, repeated: true },
        Known { number: 3, name: "number", kind: Kind::Varint, repeated: false },
    ],
};

fn refusal(bytes: &[u8]) -> WireError {
    Message::parse(&SCHEMA, bytes).expect_err("refused")
}

#[test]
fn known_fields_are_read_and_unknown_ones_passed_over() {
    let bytes =
        [&b"\x0a\x02hi"[..], b"\x12\x01a\x12\x01b", b"\x18\x96\x01", b"\x21abcdefgh", b"\x2dabcd", b"\x32\x01z", b"\x38\x01"].concat();
    let message = Message::parse(&SCHEMA, &bytes).unwrap();
    assert_eq!(message.string(1), Ok("hi"));
    assert_eq!(message.strings(2, 2), Ok(vec!["a", "b"]));
    assert_eq!(message.strings(2, 1), Err(WireError::TooMany { message: "Sample", field: "list", limit: 1 }));
    assert_eq!(message.varint(3), Ok(150));
    assert_eq!(message.singular(1).unwrap().unwrap().after_tag, 1..4);
}

#[test]
fn absent_fields_are_empty() {
    let message = Message::parse(&SCHEMA, &[]).unwrap();
    assert_eq!((message.string(1), message.varint(3), message.bytes(1)), (Ok(""), Ok(0), Ok(None)));
    assert_eq!(message.required(1, &SCHEMA).unwrap_err(), WireError::Missing { message: "Sample", field: "text" });
}

/// gogo/protobuf computes `int32(wire >> 3)`: it would read this as field 1.
#[test]
fn a_field_number_that_containerd_would_cut_to_field_1_is_refused() {
    let mut tag = Vec::new();
    prost::encoding::encode_varint((((1_u64 << 32) + 1) << 3) | 2, &mut tag);
    assert_eq!(tag.len(), 6);
    assert_eq!(refusal(&[&tag[..], b"\x04evil"].concat()), WireError::Varint { message: "Sample", offset: 0 });
}

#[test]
fn field_numbers_outside_of_29_bits_are_refused() {
    assert_eq!(refusal(b"\x02\x00"), WireError::FieldNumber { message: "Sample", number: 0 });
    let mut tag = Vec::new();
    prost::encoding::encode_varint((1 << 32) | 2, &mut tag);
    tag.push(0);
    assert_eq!(refusal(&tag), WireError::FieldNumber { message: "Sample", number: 1 << 29 });
    let mut highest = Vec::new();
    prost::encoding::encode_varint((((1 << 29) - 1) << 3) | 2, &mut highest);
    highest.push(0);
    assert!(Message::parse(&SCHEMA, &highest).is_ok());
}

#[test]
fn groups_and_wire_types_that_do_not_exist_are_refused() {
    for wire_type in [3, 4, 6, 7] {
        assert_eq!(refusal(&[8 | wire_type]), WireError::WireTypeNotUsed { message: "Sample", number: 1, wire_type });
    }
}

#[test]
fn overlong_varints_are_refused_wherever_they_stand() {
    let varint = |offset| WireError::Varint { message: "Sample", offset };
    assert_eq!(refusal(b"\x8a\x00\x02hi"), varint(0), "tag");
    assert_eq!(refusal(b"\x0a\x82\x00hi"), varint(1), "length");
    assert_eq!(refusal(b"\x18\x81\x00"), varint(1), "value");
    assert_eq!(refusal(b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), varint(1), "more than 64 bits");
    assert_eq!(refusal(b"\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), varint(1), "eleven bytes");
    let greatest = Message::parse(&SCHEMA, b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap();
    assert_eq!(greatest.varint(3), Ok(u64::MAX));
}

#[test]
fn a_field_that_ends_outside_of_its_message_is_refused() {
    let messages: [&[u8]; 6] = [b"\x0a", b"\x0a\x05hell", b"\x0a\x80", b"\x21abc", b"\x2dabc", b"\x0a\xff\xff\xff\xff\x0f"];
    for bytes in messages {
        assert!(matches!(refusal(bytes), WireError::Truncated { .. }), "{bytes:x?}: {}", refusal(bytes));
    }
}

#[test]
fn a_singular_field_that_stands_twice_is_refused_even_with_the_same_content() {
    let repeated = |field| WireError::Repeated { message: "Sample", field };
    assert_eq!(refusal(b"\x0a\x02hi\x0a\x02hi"), repeated("text"));
    assert_eq!(refusal(b"\x0a\x00\x12\x00\x0a\x00"), repeated("text"));
    assert_eq!(refusal(b"\x18\x00\x18\x00"), repeated("number"));
}

#[test]
fn a_known_field_of_another_wire_type_is_refused() {
    let wrong = |field| WireError::WrongType { message: "Sample", field };
    assert_eq!(refusal(b"\x08\x01"), wrong("text"));
    assert_eq!(refusal(b"\x10\x01"), wrong("list"));
    assert_eq!(refusal(b"\x1a\x00"), wrong("number"));
    assert_eq!(refusal(b"\x0dabcd"), wrong("text"));
}

#[test]
fn a_string_that_is_not_utf8_is_refused_when_it_is_read() {
    let message = Message::parse(&SCHEMA, b"\x0a\x01\xff\x12\x01\xff").unwrap();
    assert_eq!(message.string(1), Err(WireError::NotUtf8 { message: "Sample", field: "text" }));
    assert_eq!(message.strings(2, 9), Err(WireError::NotUtf8 { message: "Sample", field: "list" }));
}

#[test]
fn asking_for_what_the_schema_does_not_have_is_an_error_and_not_an_absence() {
    let message = Message::parse(&SCHEMA, b"\x0a\x01a\x12\x01b\x18\x01").unwrap();
    let not = |number| WireError::NotInSchema { message: "Sample", number };
    assert_eq!(message.string(9), Err(not(9)));
    assert_eq!(message.string(2), Err(not(2)));
    assert_eq!(message.string(3), Err(not(3)));
    assert_eq!(message.varint(1), Err(not(1)));
    assert_eq!(message.repeated(1).err(), Some(not(1)));
}

/// What a lenient reader finds, so that both can be compared.
#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(string, repeated, tag = "2")]
    list: Vec<String>,
    #[prost(uint64, tag = "3")]
    number: u64,
}

proptest! {
    #[test]
    fn no_bytes_make_the_walker_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut steps = 0;
        for _ in Fields::new("Sample", &bytes) {
            steps += 1;
        }
        prop_assert!(steps <= bytes.len());
    }

    #[test]
    fn whatever_is_accepted_is_read_as_prost_reads_it(
        pieces in prop::collection::vec(prop_oneof![
            Just(&b"\x0a\x02hi"[..]), Just(&b"\x12\x01a"[..]), Just(&b"\x18\x96\x01"[..]), Just(&b"\x0a"[..]),
            Just(&b"\x80"[..]), Just(&b"\x00"[..]), Just(&b"\x01"[..]), Just(&b"\x12\x00"[..]), Just(&b"\x7a\x03xyz"[..]),
        ], 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let bytes = [pieces.concat(), noise].concat();
        if let Ok(message) = Message::parse(&SCHEMA, &bytes)
            && let (Ok(text), Ok(list), Ok(number)) = (message.string(1), message.strings(2, 99), message.varint(3))
        {
            let lenient = <Sample as prost::Message>::decode(&bytes[..]).expect("the strict reader accepted it");
            prop_assert_eq!((text, number), (lenient.text.as_str(), lenient.number));
            prop_assert_eq!(list, lenient.list);
        }
    }

    #[test]
    fn whatever_prost_writes_is_accepted(text in ".*", list in prop::collection::vec(".*", 0..9), number in any::<u64>()) {
        let bytes = prost::Message::encode_to_vec(&Sample { text: text.clone(), list: list.clone(), number });
        let message = Message::parse(&SCHEMA, &bytes).unwrap();
        prop_assert_eq!((message.string(1), message.varint(3)), (Ok(text.as_str()), Ok(number)));
        prop_assert_eq!(message.strings(2, 9).unwrap(), list);
    }
}
