//! Where the body of an answer ends (RFC 9112 §6 and §7).

use bytes::{Buf, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header;
use hyper::http::response::Parts;

use super::{AnswerError, tokens};

/// Longest line before a chunk of a body, or behind all, in bytes.
const MAX_LINE: usize = 1024;

/// What may be said in extensions of chunks, in one body, in bytes.
const MAX_EXTENSIONS: usize = 16 << 10;

/// What is next of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes of it; at least one.
    Data(Bytes),
    /// It has ended.
    End,
    /// Nothing, before more has come.
    More,
}

/// How the end of a body is told.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// It comes in chunks of their own length.
    Chunked(Chunks),
    /// With the connection.
    Close,
}

/// The state of a body in chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    next: Next,
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Size,
    Data(u64),
    /// The line break behind a chunk.
    Break,
    Trailer,
    End,
}

/// How the body of an answer with this head ends (§6.3).
pub(super) fn framing(head: &Parts, minor: u8, to_head: bool) -> Result<Framing, AnswerError> {
    if to_head
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    {
        return Ok(Framing::Length(0));
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        // Both at once is how answers are smuggled, and other codings were not asked for.
        let codings = tokens(&head.headers, header::TRANSFER_ENCODING);
        let chunked = codings.is_some_and(|codings| codings == ["chunked"]);
        if !chunked || minor == 0 || lengths.next().is_some() {
            return Err(AnswerError::Malformed);
        }
        return Ok(Framing::Chunked(Chunks {
            next: Next::Size,
            extensions: 0,
            trailers: 0,
        }));
    }
    let Some(length) = lengths.next() else {
        return Ok(Framing::Close);
    };
    if lengths.any(|other| other != length) {
        return Err(AnswerError::Malformed);
    }
    number(length.as_bytes(), 10).map(Framing::Length)
}

/// Digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Result<u64, AnswerError> {
    let text = std::str::from_utf8(digits).map_err(|_| AnswerError::Malformed)?;
    if !text.chars().all(|digit| digit.is_digit(radix)) {
        return Err(AnswerError::Malformed);
    }
    u64::from_str_radix(text, radix).map_err(|_| AnswerError::Malformed)
}

/// Takes up to `left` bytes.
fn take(input: &mut BytesMut, left: u64) -> Bytes {
    let length = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    input.split_to(length).freeze()
}

impl Framing {
    pub(super) fn ends_by_itself(&self) -> bool {
        !matches!(self, Self::Close)
    }

    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        max_trailers: usize,
    ) -> Result<Body, AnswerError> {
        let left = match self {
            Self::Length(0) => return Ok(Body::End),
            Self::Chunked(chunks) => return chunks.next(input, max_trailers),
            Self::Length(_) | Self::Close if input.is_empty() => return Ok(Body::More),
            Self::Length(left) => left,
            Self::Close => return Ok(Body::Data(input.split().freeze())),
        };
        let data = take(input, *left);
        *left -= data.len() as u64;
        Ok(Body::Data(data))
    }
}

impl Chunks {
    fn next(&mut self, input: &mut BytesMut, max_trailers: usize) -> Result<Body, AnswerError> {
        loop {
            self.next = match self.next {
                Next::End => return Ok(Body::End),
                Next::Data(_) if input.is_empty() => return Ok(Body::More),
                Next::Data(left) => {
                    let data = take(input, left);
                    self.next = match left - data.len() as u64 {
                        0 => Next::Break,
                        left => Next::Data(left),
                    };
                    return Ok(Body::Data(data));
                }
                Next::Break => match line(input, 2) {
                    Ok(None) => return Ok(Body::More),
                    Ok(Some(line)) if line.is_empty() => Next::Size,
                    _ => return Err(AnswerError::Malformed),
                },
                Next::Size => {
                    let Some(line) = line(input, MAX_LINE)? else {
                        return Ok(Body::More);
                    };
                    let mut parts = line.as_ref().split(|byte| *byte == b';');
                    let digits = parts.next().unwrap_or_default();
                    self.extensions += line.len() - digits.len();
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(AnswerError::TooLong);
                    }
                    let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
                    let blanks = digits.iter().rev().take_while(blank).count();
                    let digits = digits.get(..digits.len() - blanks).unwrap_or_default();
                    if digits.is_empty() {
                        return Err(AnswerError::Malformed);
                    }
                    match number(digits, 16)? {
                        0 => Next::Trailer,
                        size => Next::Data(size),
                    }
                }
                // What it says was not asked for.
                Next::Trailer => match line(input, MAX_LINE)? {
                    None => return Ok(Body::More),
                    Some(line) if line.is_empty() => Next::End,
                    Some(line) => {
                        self.trailers += line.len();
                        if self.trailers > max_trailers {
                            return Err(AnswerError::TooLong);
                        }
                        Next::Trailer
                    }
                },
            };
        }
    }
}

/// Takes a line of at most so many bytes, with its end, and gives it without. `None`: it has
/// not come yet.
fn line(input: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, AnswerError> {
    let Some(end) = input.iter().take(most).position(|byte| *byte == b'\n') else {
        return if input.len() < most {
            Ok(None)
        } else {
            Err(AnswerError::TooLong)
        };
    };
    let mut line = input.split_to(end);
    input.advance(1);
    // A bare line feed is what smugglers use.
    match line.split_off(line.len().saturating_sub(1)).as_ref() {
        b"\r" => Ok(Some(line)),
        _ => Err(AnswerError::Malformed),
    }
}
