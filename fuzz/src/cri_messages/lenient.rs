//! Protobuf as the code that gogo generates reads it, and with it containerd: field numbers are cut to 32 bits, varints
//! may be longer than needed, of several strings the last counts, and several messages are merged.

/// The bytes are refused here, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// The string at the end of `path`, a field number for each level; empty if there is none.
pub(super) fn string(message: &[u8], path: &[u32]) -> Result<Vec<u8>, Refused> {
    Ok(all(message, path)?.last().map(|last| last.to_vec()).unwrap_or_default())
}

/// All contents at the end of `path`.
pub(super) fn all<'a>(message: &'a [u8], path: &[u32]) -> Result<Vec<&'a [u8]>, Refused> {
    let mut level = vec![message];
    for number in path {
        let mut found = Vec::new();
        for message in level {
            found.extend(contents(message, *number)?);
        }
        level = found;
    }
    Ok(level)
}

/// The contents of one field wherever it stands.
fn contents(message: &[u8], wanted: u32) -> Result<Vec<&[u8]>, Refused> {
    let mut reader = Reader(message);
    let mut found = Vec::new();
    while !reader.0.is_empty() {
        let tag = reader.varint()?;
        // As Go converts: the upper bits are lost.
        let number = i32::from_ne_bytes(((tag >> 3) as u32).to_ne_bytes());
        if number <= 0 {
            return Err(Refused);
        }
        let content = match tag & 7 {
            0 => reader.varint().map(|_| None)?,
            1 => reader.take(8).map(|_| None)?,
            2 => {
                let length = reader.varint()?;
                Some(reader.take(usize::try_from(length).map_err(|_| Refused)?)?)
            }
            5 => reader.take(4).map(|_| None)?,
            // Groups are skipped there. The strict reader refuses them, so that nothing is to be compared.
            _ => return Err(Refused),
        };
        if number.unsigned_abs() == wanted {
            found.push(content.ok_or(Refused)?);
        }
    }
    Ok(found)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refused)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Refused> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.take(1)?[0]);
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Refused)
    }
}
