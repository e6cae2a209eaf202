//! Buffers that are used again. Memory fresh from the allocator costs a page fault for every
//! 4 KiB, which is more than reading into it; what was used a moment ago is still in the
//! processor's cache.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chiral_core::CHUNK_SIZE;

use crate::blocking::lock;

/// Bytes of each: a chunk.
pub(crate) const BUFFER_LEN: usize = CHUNK_SIZE as usize;

/// Most buffers kept while nobody uses them.
const MAX_FREE: usize = 32;

/// Buffers of [`BUFFER_LEN`] that nobody uses now.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer in use. It goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// How much of it counts.
    len: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer for `len` bytes, which hold anything; `None` if that is more than one has.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Buffer> {
        if len > BUFFER_LEN {
            return None;
        }
        // The last one that came back is the likeliest to be in the cache.
        let kept = lock(&self.free).pop();
        Some(Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; BUFFER_LEN]),
            len,
            home: Arc::clone(self),
        })
    }
}

impl Buffer {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    pub(crate) fn into_bytes(self) -> Bytes {
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
        let mut free = lock(&self.home.free);
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
        assert!(lock(&buffers.free).is_empty());
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
    fn no_more_are_kept_than_the_limit() {
        let buffers = Arc::new(Buffers::default());
        let held: Vec<_> = (0..2 * MAX_FREE).map(|_| buffers.take(1)).collect();
        drop(held);
        assert_eq!(lock(&buffers.free).len(), MAX_FREE);
    }
}
