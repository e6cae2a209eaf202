//! What a client begins with: TLS, HTTP/2 in clear (RFC 9113 §3.3), or HTTP/1.1. One port
//! takes all three, so that there is one to forward.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// First byte of a TLS record that holds a handshake. No method begins with it.
const HANDSHAKE: u8 = 0x16;

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Http1,
    Http2,
    Tls,
}

/// Reads until it is clear how a connection begins; `None` if it ends before. What was read
/// is read again from the answer.
pub(super) async fn sniff<T>(mut stream: T) -> io::Result<Option<(Beginning, Prefixed<T>)>>
where
    T: AsyncRead + Unpin,
{
    let mut prefix = Prefix::default();
    loop {
        let room = &mut prefix.bytes[prefix.end..];
        match stream.read(room).await? {
            0 => return Ok(None),
            more => prefix.end += more,
        }
        if let Some(beginning) = beginning(&prefix.bytes[..prefix.end]) {
            return Ok(Some((beginning, Prefixed { prefix, stream })));
        }
    }
}

/// What bytes begin, once they tell.
fn beginning(bytes: &[u8]) -> Option<Beginning> {
    match bytes {
        [] => None,
        [HANDSHAKE, ..] => Some(Beginning::Tls),
        bytes if bytes.starts_with(PREFACE) => Some(Beginning::Http2),
        bytes if PREFACE.starts_with(bytes) => None,
        _ => Some(Beginning::Http1),
    }
}

#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; PREFACE.len()],
    start: usize,
    end: usize,
}

/// A stream with bytes put back before it.
#[derive(Debug)]
pub(super) struct Prefixed<T> {
    prefix: Prefix,
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Prefix { bytes, start, end } = &mut self.prefix;
        if start < end {
            let count = buf.remaining().min(*end - *start);
            buf.put_slice(&bytes[*start..*start + count]);
            *start += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn beginnings_are_told_as_soon_as_they_can_be() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"G", Some(Beginning::Http1)),
            (b"P", None),
            (b"PO", Some(Beginning::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Beginning::Http2)),
            (b"PRI * HTTP/1.1\r\n", Some(Beginning::Http1)),
            (b"\x16\x03\x01", Some(Beginning::Tls)),
            (b"\0", Some(Beginning::Http1)),
        ] {
            assert_eq!(beginning(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(like in 0..=24usize, tail in proptest::collection::vec(any::<u8>(), 1..60)) {
            let sent = [&PREFACE[..like], &tail].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let told = runtime.block_on(sniff(&sent[..])).unwrap();
            if let Some((_, mut stream)) = told {
                let mut got = Vec::new();
                runtime.block_on(stream.read_to_end(&mut got)).unwrap();
                prop_assert_eq!(got, sent);
            } else {
                prop_assert!(PREFACE.starts_with(&sent) && sent.len() < PREFACE.len());
            }
        }
    }
}
