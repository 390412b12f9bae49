//! A database file that is looked at: what is written to it stays in memory, and is gone with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// A file with what was written over it. redb opens one by a dozen small writes, so that a list of them is enough.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// How many bytes of the file still count: it may have been cut, and grown again.
    file_len: u64,
    /// In the order in which they were written.
    writes: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    bytes: Vec<u8>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, state: Mutex::new(State { len, file_len: len, writes: Vec::new() }) })
    }

    /// No call leaves the state half changed, so that one that panicked does not matter.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from_file = usize::try_from(state.file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (on_disk, beyond) = out.split_at_mut(from_file);
        self.file.read_exact_at(on_disk, offset)?;
        beyond.fill(0);
        for write in &state.writes {
            write.copy_to(offset, out);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.file_len = state.file_len.min(len);
        state.len = len;
        for write in &mut state.writes {
            let left = len.saturating_sub(write.offset);
            write.bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        state.len = state.len.max(end);
        state.writes.retain(|write| write.offset != offset || write.bytes.len() > data.len());
        state.writes.push(Write { offset, bytes: data.to_owned() });
        Ok(())
    }
}

impl Write {
    /// Copies what this write has of `out`, which stands at `offset`.
    fn copy_to(&self, offset: u64, out: &mut [u8]) {
        let skipped = usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let begin = usize::try_from(self.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (Some(source), Some(target)) = (self.bytes.get(skipped..), out.get_mut(begin..)) else { return };
        let len = source.len().min(target.len());
        if let (Some(source), Some(target)) = (source.get(..len), target.get_mut(..len)) {
            target.copy_from_slice(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Change {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..48_u64, prop::collection::vec(any::<u8>(), 0..16)).prop_map(|(offset, bytes)| Change::Write(offset, bytes)),
            (0..64_u64).prop_map(Change::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn reads_like_a_file_that_was_written_and_leaves_its_own_as_it_is(
            content in prop::collection::vec(any::<u8>(), 0..64),
            changes in prop::collection::vec(change(), 0..12),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let written = tempfile::tempfile().unwrap();
            written.write_all_at(&content, 0).unwrap();
            for change in changes {
                match change {
                    // An empty write past the end lengthens no file.
                    Change::Write(_, bytes) if bytes.is_empty() => {}
                    Change::Write(offset, bytes) => {
                        overlay.write(offset, &bytes).unwrap();
                        written.write_all_at(&bytes, offset).unwrap();
                    }
                    Change::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        written.set_len(len).unwrap();
                    }
                }
                let len = written.metadata().unwrap().len();
                prop_assert_eq!(overlay.len().unwrap(), len);
                for begin in 0..len {
                    let mut expected = vec![0; usize::try_from(len - begin).unwrap()];
                    written.read_exact_at(&mut expected, begin).unwrap();
                    let mut read = vec![0; expected.len()];
                    overlay.read(begin, &mut read).unwrap();
                    prop_assert_eq!(read, expected);
                }
                prop_assert!(overlay.read(len, &mut [0]).is_err());
            }
            let mut untouched = vec![0; content.len()];
            file.read_exact_at(&mut untouched, 0).unwrap();
            prop_assert_eq!(untouched, content);
        }
    }
}
