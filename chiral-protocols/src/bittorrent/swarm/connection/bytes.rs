//! Bytes between the socket and the session, in the clear or enciphered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::bittorrent::mse::Cipher;
use crate::bittorrent::session::Session;
use crate::bittorrent::swarm::greet::Wire;

/// Bytes read at a time, at first and at most. A block that is not taken holds all of what it was
/// read with.
pub(super) const FIRST_READ: usize = 32 << 10;
const MAX_READ: usize = 64 << 10;

/// Space below which more is made before reading.
const MIN_SPACE: usize = 16 << 10;

/// What moved.
pub(super) enum Moved {
    Read,
    Wrote,
}

/// Writes what can be written; whether that was anything.
pub(super) fn poll_write<S: Wire>(
    stream: &mut S,
    session: &mut Session,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let outbox = session.outbox();
    outbox.seal();
    let mut wrote = false;
    while !outbox.is_empty() {
        match poll_write_buf(Pin::new(&mut *stream), cx, outbox) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(_)) => wrote = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(wrote)
}

/// The same, enciphered.
pub(super) fn poll_encipher<S: Wire>(
    stream: &mut S,
    session: &mut Session,
    cipher: &mut Cipher,
    enciphered: &mut BytesMut,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let mut wrote = false;
    loop {
        if enciphered.is_empty() {
            if session.outbox().is_empty() {
                return Ok(wrote);
            }
            *enciphered = session.outbox().take();
            cipher.apply(enciphered);
        }
        match poll_write_buf(Pin::new(&mut *stream), cx, enciphered) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(_)) => wrote = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(wrote),
        }
    }
}

/// Reads what is there. `None` at the end of what comes in.
pub(super) fn poll_read<S: Wire>(
    stream: &mut S,
    session: &mut Session,
    read_size: &mut usize,
    cipher: Option<&mut Cipher>,
    wrote: bool,
    waiting: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Moved>>> {
    if wrote && session.outbox().has_room() && !waiting {
        return Poll::Ready(Ok(Some(Moved::Wrote)));
    }
    // Whoever does not take what it asked for is not heard before it does.
    if session.outbox().is_full() {
        return Poll::Pending;
    }
    let input = session.input();
    if input.capacity() - input.len() < MIN_SPACE {
        input.reserve(*read_size);
    }
    let (before, space) = (input.len(), input.capacity() - input.len());
    match poll_read_buf(Pin::new(stream), cx, input) {
        Poll::Ready(Ok(0)) => Poll::Ready(Ok(None)),
        Poll::Ready(Ok(read)) => {
            if let Some(cipher) = cipher {
                cipher.apply(&mut input[before..]);
            }
            if read == space {
                *read_size = (*read_size * 2).min(MAX_READ);
            }
            Poll::Ready(Ok(Some(Moved::Read)))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if wrote => Poll::Ready(Ok(Some(Moved::Wrote))),
        Poll::Pending => Poll::Pending,
    }
}
