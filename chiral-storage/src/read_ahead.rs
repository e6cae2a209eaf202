//! Reading on one thread and hashing on another, so that each waits for the other only.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes read at once.
pub(crate) const BUFFER_LEN: usize = 1 << 20;

/// Buffers on their way between the threads.
const BUFFERS: usize = 3;

/// Hands everything that `fill` reads to `take`, in order. `fill` is given the offset and a
/// buffer to fill; it leaves it empty at the end. A buffer that `take` keeps is not used again.
///
/// # Errors
/// The first of either; the other side has stopped by then.
pub(crate) fn read_ahead<E: Send>(
    fill: impl FnMut(u64, &mut Vec<u8>) -> Result<(), E> + Send,
    mut take: impl FnMut(&Arc<Vec<u8>>) -> Result<(), E>,
) -> Result<(), E> {
    let (to_hash, filled) = sync_channel(BUFFERS);
    let (to_fill, empty) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        // There is room for all of them.
        let _ = to_fill.send(Arc::new(Vec::with_capacity(BUFFER_LEN)));
    }
    // Both ends of this thread's go with the closure, so that the other never waits in vain.
    std::thread::scope(move |scope| {
        scope.spawn(move || fill_buffers(fill, &empty, &to_hash));
        for buffer in filled {
            let buffer: Arc<Vec<u8>> = buffer?;
            take(&buffer)?;
            // At the end nobody waits for it.
            let _ = to_fill.send(buffer);
        }
        Ok(())
    })
}

/// Fills buffers until the end, an error, or until nobody wants them.
fn fill_buffers<E>(
    mut fill: impl FnMut(u64, &mut Vec<u8>) -> Result<(), E>,
    empty: &Receiver<Arc<Vec<u8>>>,
    to_hash: &SyncSender<Result<Arc<Vec<u8>>, E>>,
) {
    let mut offset = 0;
    for buffer in empty {
        let free = Arc::try_unwrap(buffer);
        let mut buffer = free.unwrap_or_else(|_| Vec::with_capacity(BUFFER_LEN));
        buffer.clear();
        let filled = fill(offset, &mut buffer);
        offset += buffer.len() as u64;
        let last = filled.is_err() || buffer.is_empty();
        let sent = to_hash.send(filled.map(|()| Arc::new(buffer)));
        if last || sent.is_err() {
            return;
        }
    }
}
