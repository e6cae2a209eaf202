//! [`Buffers`]: memory for chunks that is used again. Memory fresh from the allocator costs a
//! page fault for every 4 KiB, which is more than reading into it; what was used a moment ago
//! is still in the processor's cache.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::CHUNK_SIZE;

/// Bytes of each buffer: a chunk.
pub const BUFFER_LEN: usize = CHUNK_SIZE as usize;

/// Most buffers kept while nobody uses them.
const MAX_FREE: usize = 32;

/// Buffers of [`BUFFER_LEN`] that nobody uses now; at most 32 are kept (8 MiB).
#[derive(Debug, Default)]
pub struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer in use. It goes back when it, or the last of its [`Bytes`], is dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// How much of it counts.
    len: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer for `len` bytes, which hold anything; `None` if that is more than one has.
    pub fn take(self: &Arc<Self>, len: usize) -> Option<Buffer> {
        (len <= BUFFER_LEN).then(|| self.buffer(len))
    }

    /// An empty buffer, to be filled from its start.
    pub fn empty(self: &Arc<Self>) -> Buffer {
        self.buffer(0)
    }

    fn buffer(self: &Arc<Self>, len: usize) -> Buffer {
        // The last one that came back is the likeliest to be in the cache.
        let kept = self.free().pop();
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; BUFFER_LEN]),
            len,
            home: Arc::clone(self),
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Whoever panicked with it left a list of buffers.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// What counts of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// How many bytes count.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none count.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts as much of `bytes` behind what counts as there is room for; answers how much.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(BUFFER_LEN - self.len);
        self.bytes[self.len..self.len + taken].copy_from_slice(&bytes[..taken]);
        self.len += taken;
        taken
    }

    /// What counts, as bytes that can be shared.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free();
        if free.len() < MAX_FREE {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_of_its_bytes_goes() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.take(10).unwrap();
        buffer.bytes_mut().copy_from_slice(b"0123456789");
        let place = buffer.bytes.as_ptr();
        let bytes = buffer.into_bytes();
        let part = bytes.slice(3..5);
        drop(bytes);
        assert!(buffers.free().is_empty());
        assert_eq!(part, b"34"[..]);
        drop(part);
        let again = buffers.take(BUFFER_LEN).unwrap();
        assert_eq!(
            (again.bytes.as_ptr(), again.as_ref().len()),
            (place, BUFFER_LEN)
        );
        assert!(buffers.take(BUFFER_LEN + 1).is_none());
    }

    #[test]
    fn a_buffer_is_filled_to_its_end_and_no_further() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.empty();
        assert!(buffer.is_empty());
        assert_eq!(buffer.push(b"abc"), 3);
        assert_eq!(buffer.push(&vec![7; BUFFER_LEN]), BUFFER_LEN - 3);
        assert_eq!(buffer.push(b"d"), 0);
        assert_eq!(
            (buffer.len(), &buffer.as_ref()[..4]),
            (BUFFER_LEN, &b"abc\x07"[..])
        );
        drop(buffer);
        let mut again = buffers.empty();
        assert_eq!(again.push(b"e"), 1);
        assert_eq!(again.into_bytes(), b"e"[..]);
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let buffers = Arc::new(Buffers::default());
        let held: Vec<_> = (0..2 * MAX_FREE).map(|_| buffers.take(1)).collect();
        drop(held);
        assert_eq!(buffers.free().len(), MAX_FREE);
    }
}
