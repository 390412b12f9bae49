//! A strict walk over protobuf bytes.
//!
//! containerd's CRI code (gogo/protobuf in 1.6 to 2.1) is lenient where leniency lets two readers disagree: it cuts
//! field numbers to 32 bits, so that 2^32 + 1 is read as field 1; it takes overlong varints; it merges or replaces a
//! singular field that stands twice. Whatever passes here has one reading only, and it is the one that containerd
//! takes. Protocol Buffers "Encoding" is the format; no sender in use writes anything that is refused here.

use std::ops::Range;

/// Bytes of a tag: a field number of 29 bits and a wire type of 3 are at most five times seven bits.
const LONGEST_TAG: usize = 5;
/// Bytes of a varint of 64 bits.
const LONGEST_VARINT: usize = 10;
/// Bytes of a length: what is longer than 2^35 cannot stand in a message of 16 MiB anyhow.
const LONGEST_LENGTH: usize = 5;
/// The highest field number that protobuf allows.
const HIGHEST_NUMBER: u64 = (1 << 29) - 1;
/// Singular fields are kept by number: the messages that we read have none above 20.
const SLOTS: usize = 24;

/// Why a message was refused. Each is a sentence about the message, for kubelet's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("{message} ends inside a field that begins at byte {offset}")]
    Truncated {
        /// The message's name.
        message: &'static str,
        /// Where the field begins.
        offset: usize,
    },
    /// A varint is longer than its kind may be or than its value needs.
    #[error("{message} has a varint at byte {offset} that is longer than protobuf writes it")]
    Varint {
        /// The message's name.
        message: &'static str,
        /// Where the varint begins.
        offset: usize,
    },
    /// A field number is 0 or does not fit in 29 bits.
    #[error("{message} has the field number {number}, which protobuf does not allow")]
    FieldNumber {
        /// The message's name.
        message: &'static str,
        /// The number.
        number: u64,
    },
    /// A group, or one of the two wire types that do not exist.
    #[error("{message} has a field {number} of wire type {wire_type}, which CRI does not use")]
    WireTypeNotUsed {
        /// The message's name.
        message: &'static str,
        /// The field.
        number: u32,
        /// The wire type.
        wire_type: u8,
    },
    /// A field of the schema has another wire type.
    #[error("{message}.{field} has the wrong wire type")]
    WrongType {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A singular field stands twice.
    #[error("{message}.{field} stands more than once; which one would be used is not certain")]
    Repeated {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A string is not UTF-8.
    #[error("{message}.{field} is not UTF-8")]
    NotUtf8 {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A field that the call makes no sense without is absent.
    #[error("{message}.{field} is missing")]
    Missing {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A repeated field stands more often than we look at.
    #[error("{message}.{field} stands more than {limit} times")]
    TooMany {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// How often it may.
        limit: usize,
    },
    /// Our own code asked a message for a field that its schema does not have in that shape.
    #[error("countersign asked {message} for field {number}, which its schema does not have (this is a bug in countersign)")]
    NotInSchema {
        /// The message's name.
        message: &'static str,
        /// The number.
        number: u32,
    },
}

/// What a field of a schema holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// int32, uint64, bool, enum, …
    Varint,
    /// string, bytes, a message, an entry of a map.
    Bytes,
}

/// A field of a schema.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its number.
    pub number: u32,
    /// Its name in the .proto file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may stand more than once (`repeated`, `map`).
    pub repeated: bool,
}

/// What we know of a message. Fields that are not in it are passed over, whatever they hold.
#[derive(Debug)]
pub struct Schema {
    /// The message's name.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Known],
}

impl Schema {
    fn find(&self, number: u32) -> Option<&'static Known> {
        self.fields.iter().find(|known| known.number == number)
    }
}

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1, as it stands.
    Fixed64(&'a [u8]),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5, as it stands.
    Fixed32(&'a [u8]),
}

/// A field as it stands in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field number, 1 to 2^29 - 1.
    pub number: u32,
    /// The content.
    pub value: Value<'a>,
    /// Where the content stands in the message, with the length of a `Bytes` value before it.
    pub after_tag: Range<usize>,
}

/// Walks over the fields of a message; ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Begins a walk over `bytes`; errors call it `message`.
    #[must_use]
    pub const fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, bytes, at: 0 }
    }

    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let start = self.at;
        let tag = self.varint(LONGEST_TAG)?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number) if (1..=HIGHEST_NUMBER).contains(&u64::from(number)) => number,
            Ok(_) | Err(_) => return Err(WireError::FieldNumber { message: self.message, number: tag >> 3 }),
        };
        let begin = self.at;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(LONGEST_VARINT)?),
            1 => Value::Fixed64(self.take(8, start)?),
            2 => {
                let length = self.varint(LONGEST_LENGTH)?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX), start)?)
            }
            5 => Value::Fixed32(self.take(4, start)?),
            other => {
                let wire_type = u8::try_from(other).unwrap_or(u8::MAX);
                return Err(WireError::WireTypeNotUsed { message: self.message, number, wire_type });
            }
        };
        Ok(Field { number, value, after_tag: begin..self.at })
    }

    fn take(&mut self, length: usize, start: usize) -> Result<&'a [u8], WireError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(WireError::Truncated { message: self.message, offset: start })?;
        self.at += length;
        Ok(taken)
    }

    /// Reads a varint of at most `longest` bytes that is as short as its value allows.
    fn varint(&mut self, longest: usize) -> Result<u64, WireError> {
        let start = self.at;
        let refused = WireError::Varint { message: self.message, offset: start };
        let rest = self.bytes.get(start..).unwrap_or_default();
        let mut value = 0_u64;
        for (index, &byte) in rest.iter().take(longest).enumerate() {
            // The tenth byte holds bit 63 alone.
            if index + 1 == LONGEST_VARINT && byte > 1 {
                return Err(refused);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.at = start + index + 1;
                return if byte == 0 && index > 0 { Err(refused) } else { Ok(value) };
            }
        }
        if rest.len() < longest {
            return Err(WireError::Truncated { message: self.message, offset: start });
        }
        Err(refused)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// A message whose fields were all walked over, and whose known singular fields stand at most once.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    schema: &'static Schema,
    bytes: &'a [u8],
    singular: [Option<Field<'a>>; SLOTS],
}

impl<'a> Message<'a> {
    /// The name of the message.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.schema.name
    }

    /// Walks over the whole message once. Nested messages are bytes here; each is parsed with its own schema.
    ///
    /// # Errors
    /// When the bytes are no strict protobuf, a known field has the wrong wire type, or a singular one is repeated.
    pub fn parse(schema: &'static Schema, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut message = Self { schema, bytes, singular: [const { None }; SLOTS] };
        for field in Fields::new(schema.name, bytes) {
            message.keep(field?)?;
        }
        Ok(message)
    }

    fn keep(&mut self, field: Field<'a>) -> Result<(), WireError> {
        let message = self.schema.name;
        let Some(known) = self.schema.find(field.number) else { return Ok(()) };
        let kind = match field.value {
            Value::Varint(_) => Some(Kind::Varint),
            Value::Bytes(_) => Some(Kind::Bytes),
            Value::Fixed64(_) | Value::Fixed32(_) => None,
        };
        if kind != Some(known.kind) {
            return Err(WireError::WrongType { message, field: known.name });
        }
        if known.repeated {
            return Ok(());
        }
        let slot = usize::try_from(field.number).ok().and_then(|number| self.singular.get_mut(number));
        let slot = slot.ok_or(WireError::NotInSchema { message, number: field.number })?;
        if slot.is_some() {
            return Err(WireError::Repeated { message, field: known.name });
        }
        *slot = Some(field);
        Ok(())
    }

    /// A singular field, `None` when it is absent.
    ///
    /// # Errors
    /// When the schema has no such singular field.
    pub fn singular(&self, number: u32) -> Result<Option<&Field<'a>>, WireError> {
        self.known(number, false)?;
        let slot = usize::try_from(number).ok().and_then(|number| self.singular.get(number));
        Ok(slot.and_then(Option::as_ref))
    }

    /// The contents of a repeated field, in their order.
    ///
    /// # Errors
    /// When the schema has no such repeated field of bytes.
    pub fn repeated(&self, number: u32) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, WireError> {
        self.known(number, true)?;
        let fields = Fields::new(self.schema.name, self.bytes).filter_map(Result::ok);
        Ok(fields.filter(move |field| field.number == number).filter_map(|field| match field.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => None,
        }))
    }

    /// A singular field of bytes, `None` when it is absent.
    ///
    /// # Errors
    /// When the schema has no such field.
    pub fn bytes(&self, number: u32) -> Result<Option<&'a [u8]>, WireError> {
        match self.singular(number)?.map(|field| field.value) {
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            None => Ok(None),
            Some(Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_)) => Err(self.not_in_schema(number)),
        }
    }

    /// A singular string, empty when it is absent (proto3 does not tell the two apart).
    ///
    /// # Errors
    /// When it is not UTF-8, or the schema has no such field.
    pub fn string(&self, number: u32) -> Result<&'a str, WireError> {
        self.utf8(number, self.bytes(number)?.unwrap_or_default())
    }

    /// A repeated string.
    ///
    /// # Errors
    /// When one is not UTF-8, there are more than `limit`, or the schema has no such field.
    pub fn strings(&self, number: u32, limit: usize) -> Result<Vec<&'a str>, WireError> {
        let found = self.repeated(number)?.take(limit.saturating_add(1)).map(|bytes| self.utf8(number, bytes));
        let found = found.collect::<Result<Vec<_>, _>>()?;
        if found.len() > limit {
            return Err(WireError::TooMany { message: self.schema.name, field: self.known(number, true)?.name, limit });
        }
        Ok(found)
    }

    /// A singular nested message, `None` when it is absent.
    ///
    /// # Errors
    /// When it is refused itself, or the schema has no such field.
    pub fn child(&self, number: u32, schema: &'static Schema) -> Result<Option<Message<'a>>, WireError> {
        self.bytes(number)?.map(|bytes| Message::parse(schema, bytes)).transpose()
    }

    /// As [`Message::child`], when the call makes no sense without it.
    ///
    /// # Errors
    /// As [`Message::child`], and when it is absent.
    pub fn required(&self, number: u32, schema: &'static Schema) -> Result<Message<'a>, WireError> {
        let absent = WireError::Missing { message: self.schema.name, field: self.known(number, false)?.name };
        self.child(number, schema)?.ok_or(absent)
    }

    /// A singular number, 0 when it is absent.
    ///
    /// # Errors
    /// When the schema has no such field.
    pub fn varint(&self, number: u32) -> Result<u64, WireError> {
        match self.singular(number)?.map(|field| field.value) {
            Some(Value::Varint(value)) => Ok(value),
            None => Ok(0),
            Some(Value::Bytes(_) | Value::Fixed64(_) | Value::Fixed32(_)) => Err(self.not_in_schema(number)),
        }
    }

    fn utf8(&self, number: u32, bytes: &'a [u8]) -> Result<&'a str, WireError> {
        let message = self.schema.name;
        let field = self.schema.find(number).map_or("", |known| known.name);
        std::str::from_utf8(bytes).map_err(|_| WireError::NotUtf8 { message, field })
    }

    fn known(&self, number: u32, repeated: bool) -> Result<&'static Known, WireError> {
        let known = self.schema.find(number).filter(|known| known.repeated == repeated);
        known.ok_or_else(|| self.not_in_schema(number))
    }

    const fn not_in_schema(&self, number: u32) -> WireError {
        WireError::NotInSchema { message: self.schema.name, number }
    }
}

#[cfg(test)]
mod tests;
