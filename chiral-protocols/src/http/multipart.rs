//! Several ranges in one answer: `multipart/byteranges` (RFC 9110 §14.6).

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use chiral_core::{ByteRange, StoreError};
use hyper::header::HeaderValue;

use super::body::ContentBody;
use super::range;

/// What stands between the parts of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boundary(String);

impl Boundary {
    /// A fresh one. It is not to be guessed by who wrote the file: else what is in the file
    /// could look like the end of a part.
    pub(super) fn random() -> Self {
        // Each state has keys of its own, drawn from the system's randomness.
        let [a, b] = [(); 2].map(|()| RandomState::new().build_hasher().finish());
        Self(format!("chiral-{a:016x}{b:016x}"))
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("multipart/byteranges; boundary={}", self.0)).ok()
    }

    /// What stands before a part.
    pub(super) fn head(&self, media: &HeaderValue, part: ByteRange, total: u64) -> Bytes {
        let media = media.to_str().unwrap_or("application/octet-stream");
        let content_range = range::content_range(part, total);
        Bytes::from(format!(
            "\r\n--{}\r\nContent-Type: {media}\r\nContent-Range: {content_range}\r\n\r\n",
            self.0
        ))
    }

    /// What stands behind the last part.
    pub(super) fn tail(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.0))
    }
}

/// Parts, each with its head, and the end.
#[derive(Debug)]
pub(super) struct PartsBody {
    parts: VecDeque<(Bytes, Box<ContentBody>)>,
    tail: Bytes,
    /// Bytes still to come.
    left: u64,
}

impl PartsBody {
    pub(super) fn new(parts: VecDeque<(Bytes, Box<ContentBody>)>, tail: Bytes) -> Self {
        let lengths = parts
            .iter()
            .map(|(head, content)| head.len() as u64 + content.left());
        let left = lengths.sum::<u64>() + tail.len() as u64;
        Self { parts, tail, left }
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StoreError>>> {
        while let Some((head, content)) = self.parts.front_mut() {
            if !head.is_empty() {
                let head = std::mem::take(head);
                return self.give(head);
            }
            match ready!(content.poll_next(cx)) {
                Some(Ok(bytes)) => return self.give(bytes),
                Some(Err(error)) => {
                    // Short of the length announced: nothing is ever padded.
                    self.parts.clear();
                    (self.tail, self.left) = (Bytes::new(), 0);
                    return Poll::Ready(Some(Err(error)));
                }
                None => drop(self.parts.pop_front()),
            }
        }
        if self.tail.is_empty() {
            return Poll::Ready(None);
        }
        let tail = std::mem::take(&mut self.tail);
        self.give(tail)
    }

    fn give(&mut self, bytes: Bytes) -> Poll<Option<Result<Bytes, StoreError>>> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_not_to_be_guessed() {
        let (one, other) = (Boundary::random(), Boundary::random());
        assert_ne!(one, other);
        // At most 70 characters, of those that need no quotes (RFC 2046 §5.1.1).
        assert!(one.0.len() <= 70);
        assert!(
            one.0
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        );
        assert!(one.content_type().is_some());
    }

    #[test]
    fn a_part_says_where_it_stands() {
        let boundary = Boundary("x".to_owned());
        let media = HeaderValue::from_static("text/plain");
        let head = boundary.head(&media, ByteRange::new(5, 10), 20);
        let expected = "\r\n--x\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-9/20\r\n\r\n";
        assert_eq!(head, expected);
        assert_eq!(boundary.tail(), "\r\n--x--\r\n");
    }
}
