//! The client's side of HTTP/1.1 without I/O (RFC 9112): requests become bytes, and bytes answers. It is our own
//! because requests are to be sent before the answers to earlier ones have come (§9.3.2), which
//! hyper's client does not do.

mod body;
#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Request, Response, StatusCode, Version};

pub use body::Body;
use body::{Framing, framing};

/// Heads that announce an answer without being one (1xx), before it.
const MAX_INTERIM: u8 = 8;

/// Fields of a head at most, whatever the limits say.
const MAX_FIELDS: usize = 4096;

/// What is wrong with the bytes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// They are no HTTP/1.
    #[error("a malformed answer")]
    Malformed,
    /// Headers, trailers or the lines between chunks are over their limits.
    #[error("an answer with too many headers")]
    TooLong,
}

/// Most that an answer's head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes; also of the trailers.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// One answer, from its first byte to its last. It takes from the front of a buffer what
/// belongs to it, and no byte more.
#[derive(Debug)]
pub struct Answer {
    limits: HeadLimits,
    /// Whether the request was `HEAD`, so that no body follows whatever the headers say.
    to_head: bool,
    /// Bytes of the buffer in which the head does not end.
    scanned: usize,
    interim: u8,
    /// `None` before the head.
    framing: Option<Framing>,
    keeps: bool,
}

impl Answer {
    /// The answer to a request, which was `HEAD` or was not.
    pub const fn new(limits: HeadLimits, to_head: bool) -> Self {
        Self {
            limits,
            to_head,
            scanned: 0,
            interim: 0,
            framing: None,
            keeps: false,
        }
    }

    /// Takes the head off the buffer. `None`: there is no whole one yet. To be called until
    /// there is, and not after that.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: nothing that follows can be understood.
    pub fn head(&mut self, input: &mut BytesMut) -> Result<Option<Parts>, AnswerError> {
        while let Some(length) = self.find_end(input)? {
            let bytes = input.split_to(length);
            self.scanned = 0;
            let (parts, minor) = parse(&bytes, self.limits.fields)?;
            if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(AnswerError::Malformed);
            }
            if parts.status.is_informational() {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(AnswerError::TooLong);
                }
                continue;
            }
            let framing = framing(&parts, minor, self.to_head)?;
            self.keeps = keeps(&parts.headers, minor) && framing.ends_by_itself();
            self.framing = Some(framing);
            return Ok(Some(parts));
        }
        Ok(None)
    }

    /// The length of the head, if all of it is there. Each byte is looked at once, however
    /// few come at a time.
    fn find_end(&mut self, input: &mut BytesMut) -> Result<Option<usize>, AnswerError> {
        // Some servers send an empty line behind a body that has none (§2.2).
        if self.scanned == 0 {
            let blank = input
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'));
            input.advance(blank.count());
        }
        // The end may have begun in the last bytes that were looked at.
        let from = self.scanned.saturating_sub(3);
        let lines = input.get(from..).unwrap_or_default();
        let end = lines.iter().enumerate().find_map(|(at, byte)| {
            let rest = lines.get(at + 1..)?;
            match byte {
                b'\n' if rest.starts_with(b"\r\n") => Some(from + at + 3),
                b'\n' if rest.starts_with(b"\n") => Some(from + at + 2),
                _ => None,
            }
        });
        self.scanned = input.len();
        if end.unwrap_or(input.len()) > self.limits.bytes {
            return Err(AnswerError::TooLong);
        }
        Ok(end)
    }

    /// Takes what is there of the body off the buffer. [`Body::More`] before the head.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: nothing that follows can be understood.
    pub fn body(&mut self, input: &mut BytesMut) -> Result<Body, AnswerError> {
        match &mut self.framing {
            None => Ok(Body::More),
            Some(framing) => framing.next(input, self.limits.bytes),
        }
    }

    /// Whether the answer is whole if the connection ends here.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.framing, Some(Framing::Close | Framing::Length(0)))
    }

    /// Whether the head is there.
    pub const fn has_begun(&self) -> bool {
        self.framing.is_some()
    }

    /// Whether the head says that the body comes in chunks of their own length.
    pub const fn is_chunked(&self) -> bool {
        matches!(self.framing, Some(Framing::Chunked(_)))
    }

    /// Whether the head is there, and was all.
    pub const fn has_no_body(&self) -> bool {
        matches!(self.framing, Some(Framing::Length(0)))
    }

    /// Whether another answer may follow on this connection; known once the head is.
    pub const fn keeps(&self) -> bool {
        self.keeps
    }
}

/// A request as it is sent; its target stands as it is in the URI, with the host if that has
/// one, and its length in a header of its own, if it has a body.
pub fn encode(request: &Request<Bytes>) -> Vec<u8> {
    let mut out = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(request.body());
    out
}

/// Reads a whole head. Answers the minor version too.
fn parse(bytes: &[u8], fields: usize) -> Result<(Parts, u8), AnswerError> {
    let mut room = vec![httparse::EMPTY_HEADER; fields.min(MAX_FIELDS)];
    let mut head = httparse::Response::new(&mut room);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooLong),
        Ok(httparse::Status::Partial) | Err(_) => return Err(AnswerError::Malformed),
    }
    let malformed = AnswerError::Malformed;
    let minor = head.version.ok_or(malformed)?;
    let code = head.code.ok_or(malformed)?;
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(code).map_err(|_| malformed)?;
    parts.version = if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    parts.headers.reserve(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed)?;
        parts.headers.append(name, value);
    }
    Ok((parts, minor))
}

/// Whether the connection stays open by the headers (§9.3). What cannot be read may say that it
/// does not.
fn keeps(headers: &HeaderMap, minor: u8) -> bool {
    let Some(said) = tokens(headers, header::CONNECTION) else {
        return false;
    };
    let says = |word: &str| said.iter().any(|token| token == word);
    !says("close") && (minor > 0 || says("keep-alive"))
}

/// The members of a list, in lower case; `None` if some of it is not text.
fn tokens(headers: &HeaderMap, name: HeaderName) -> Option<Vec<String>> {
    let values = headers.get_all(name).into_iter();
    let text: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    let tokens = text?.into_iter().flat_map(|text| text.split(','));
    let tokens = tokens.map(|token| token.trim().to_ascii_lowercase());
    Some(tokens.filter(|token| !token.is_empty()).collect())
}
