//! A file or a chunk as HTTP sees it: conditions, ranges, codings, admission, body
//! (RFC 9110 §8, §13-§15).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use chiral_core::{
    Admission, ByteRange, ChunkHash, Coverage, ManifestHeader, Protocol, ServeRequest,
    StoredContent,
};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{AnswerBody, ContentBody};
use super::coding::{self, Coding};
use super::encoded::EncodedBody;
use super::multipart::{Boundary, PartsBody};
use super::range::{self, Selected};
use super::refusal::{self, advise};
use super::routes::{Answer, Routes, text};
use super::{counter, etag, headers, media, path};
use crate::meter::Meter;
use crate::seeds::Opened;

/// A run of the file's bytes with an address of its own.
pub(super) struct Representation {
    content: Arc<dyn StoredContent>,
    meter: Arc<Meter>,
    /// Its bytes in the file.
    span: ByteRange,
    etag: Option<String>,
    whole_file: bool,
}

/// How an answer is encoded, with a place among those that are.
type Encoding = Option<(Coding, Option<OwnedSemaphorePermit>)>;

impl Representation {
    pub(super) fn file(opened: Opened) -> Self {
        let header = opened.content.header();
        let (span, etag) = (
            ByteRange::new(0, header.size),
            Some(etag::strong(header.cid)),
        );
        Self {
            content: opened.content,
            meter: opened.meter,
            span,
            etag,
            whole_file: true,
        }
    }

    pub(super) fn chunk(opened: Opened, span: ByteRange, hash: Option<ChunkHash>) -> Self {
        Self {
            content: opened.content,
            meter: opened.meter,
            span,
            etag: hash.map(etag::strong),
            whole_file: false,
        }
    }

    fn header(&self) -> &ManifestHeader {
        self.content.header()
    }

    /// Answers a `GET` or `HEAD`.
    pub(super) async fn answer(self, routes: &Routes, request: &Parts) -> Answer {
        let encoding = self.encoding(routes, request);
        let coding = encoding.as_ref().map(|(coding, _)| *coding);
        if let Some(answer) = self.precondition(&request.headers, coding) {
            return answer;
        }
        let selected = match request.method {
            // Ranges are defined for GET alone (RFC 9110 §14.2).
            Method::GET => self.select(&request.headers),
            _ => Selected::Whole,
        };
        let parts = match &selected {
            Selected::Whole => vec![ByteRange::new(0, self.span.len())],
            Selected::Part(part) => vec![*part],
            Selected::Parts(parts) => parts.clone(),
            Selected::Nothing => return self.unsatisfiable(),
        };
        let place = |part: &ByteRange| {
            ByteRange::new(self.span.start + part.start, self.span.start + part.end)
        };
        let ranges: Vec<_> = parts.iter().map(place).collect();
        if !self.holds(&ranges) {
            return refusal::not_held(self.header().cid);
        }
        let mut contents = VecDeque::new();
        if request.method == Method::GET {
            match self.admit(routes, &ranges, request).await {
                Ok(admitted) => contents = admitted,
                Err(refusal) => return *refusal,
            }
        }
        let mut answer = Answer::new(AnswerBody::empty());
        self.describe(answer.headers_mut(), coding, &request.headers);
        if request.headers.contains_key(headers::PAYMENT) {
            // What one client paid for is not for a shared cache to give to others.
            let cache = HeaderValue::from_static("private, immutable");
            answer.headers_mut().insert(header::CACHE_CONTROL, cache);
        }
        match selected {
            Selected::Parts(parts) => self.in_parts(&mut answer, &parts, contents),
            Selected::Part(part) => {
                let content_range = range::content_range(part, self.span.len());
                put(answer.headers_mut(), header::CONTENT_RANGE, content_range);
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                whole(&mut answer, part.len(), contents);
            }
            _ => match encoding {
                Some((coding, place)) => {
                    return self.encoded(routes, answer, contents, coding, place);
                }
                None => whole(&mut answer, self.span.len(), contents),
            },
        }
        answer
    }

    /// Whether, and how, the whole is sent encoded: free text to somebody who wants it so
    /// and relies on nothing that counts in the file's own bytes.
    fn encoding(&self, routes: &Routes, request: &Parts) -> Encoding {
        let asked = &request.headers;
        let exact = [
            header::RANGE,
            header::IF_RANGE,
            header::IF_MATCH,
            headers::PAYMENT,
        ];
        let identity = !self.may_encode()
            // There the end of an answer of unknown length cannot be told from a break.
            || request.version <= Version::HTTP_10
            || exact.iter().any(|name| asked.contains_key(name))
            || headers::wants_digest(asked).is_some_and(|weight| weight > 0)
            || !routes.gate.tariff(self.header().cid).price.is_free();
        if identity {
            return None;
        }
        let coding = Coding::negotiate(asked)?;
        if request.method == Method::HEAD {
            return Some((coding, None));
        }
        // With as many encoders at work as there may be, others get the file as it is.
        let place = routes.encoders.clone().try_acquire_owned().ok()?;
        Some((coding, Some(place)))
    }

    fn may_encode(&self) -> bool {
        let header = self.header();
        self.whole_file
            && (coding::MIN_SIZE..=coding::MAX_SIZE).contains(&header.size)
            && media::is_compressible(header)
    }

    fn encoded(
        &self,
        routes: &Routes,
        mut answer: Answer,
        mut contents: VecDeque<ContentBody>,
        coding: Coding,
        place: Option<OwnedSemaphorePermit>,
    ) -> Answer {
        if let (Some(content), Some(place)) = (contents.pop_front(), place) {
            match EncodedBody::new(content, coding, routes.sending.clone(), place) {
                Ok(body) => *answer.body_mut() = AnswerBody::Encoded(Box::new(body)),
                Err(error) => {
                    tracing::error!(%error, "no encoder");
                    return refusal::later("the server is not able to encode it now");
                }
            }
        }
        answer
    }

    fn in_parts(&self, answer: &mut Answer, parts: &[ByteRange], contents: VecDeque<ContentBody>) {
        let boundary = Boundary::random();
        let own = HeaderValue::from_static("application/octet-stream");
        let out = answer.headers_mut();
        let media = out.remove(header::CONTENT_TYPE).unwrap_or(own);
        let head = |part: &ByteRange| boundary.head(&media, *part, self.span.len());
        let heads = parts.iter().map(head);
        let parts = heads.zip(contents.into_iter().map(Box::new)).collect();
        let body = PartsBody::new(parts, boundary.tail());
        out.insert(header::CONTENT_LENGTH, HeaderValue::from(body.left()));
        if let Some(value) = boundary.content_type() {
            out.insert(header::CONTENT_TYPE, value);
        }
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        *answer.body_mut() = AnswerBody::Parts(Box::new(body));
    }

    /// 304 or 412, if the request's conditions say so.
    fn precondition(&self, request: &HeaderMap, coding: Option<Coding>) -> Option<Answer> {
        let etag = self.etag.as_deref().unwrap_or("");
        let listed = |name: header::HeaderName, weak: bool| {
            let mut values = request.get_all(name).iter().peekable();
            values.peek()?;
            Some(values.any(|value| etag::names(value.as_bytes(), etag, weak)))
        };
        if listed(header::IF_MATCH, false) == Some(false) {
            return Some(advise(
                StatusCode::PRECONDITION_FAILED,
                "another file is served here",
                "ask again without If-Match, or for the file that it names",
            ));
        }
        if listed(header::IF_NONE_MATCH, true) == Some(true) {
            let mut answer = Answer::new(AnswerBody::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            self.describe(answer.headers_mut(), coding, request);
            let out = answer.headers_mut();
            out.remove(header::CONTENT_TYPE);
            out.remove(header::CONTENT_ENCODING);
            return Some(answer);
        }
        None
    }

    fn select(&self, request: &HeaderMap) -> Selected {
        let mut ranges = request.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else {
            return Selected::Whole;
        };
        let etag = self.etag.as_deref().unwrap_or("");
        let holds = |value: &HeaderValue| etag::if_range_holds(value.as_bytes(), etag);
        if !request.get_all(header::IF_RANGE).iter().all(holds) {
            return Selected::Whole;
        }
        Selected::parse(range.as_bytes(), self.span.len())
    }

    fn unsatisfiable(&self) -> Answer {
        let len = self.span.len();
        let next = match len.checked_sub(1) {
            Some(last) => format!("it has {len} bytes: ask for some of bytes=0-{last}"),
            None => "it is empty: ask without Range".to_owned(),
        };
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        let mut answer = advise(status, "the range lies past the end", &next);
        let whole = format!("bytes */{len}");
        put(answer.headers_mut(), header::CONTENT_RANGE, whole);
        answer
    }

    fn holds(&self, ranges: &[ByteRange]) -> bool {
        let Ok(layout) = self.header().layout() else {
            return false;
        };
        match self.content.coverage() {
            Coverage::Complete => true,
            // One run must hold all of a range, as runs do not touch each other.
            coverage => {
                let runs = coverage.runs(layout);
                let held = |range: &ByteRange| {
                    runs.iter()
                        .any(|run| layout.span(run.start, run.end).covers(*range))
                };
                ranges.iter().all(held)
            }
        }
    }

    /// A body for each range, if the payment gate lets all of them through; else those that
    /// it let through tell it that nothing was sent.
    async fn admit(
        &self,
        routes: &Routes,
        ranges: &[ByteRange],
        request: &Parts,
    ) -> Result<VecDeque<ContentBody>, Box<Answer>> {
        let refuse = |status, what: &str, next: &str| Err(Box::new(advise(status, what, next)));
        let credential = match headers::credential(&request.headers) {
            Ok(credential) => credential,
            Err(_) => {
                let next = "send one value in base64, or none";
                return refuse(StatusCode::BAD_REQUEST, "Chiral-Payment is malformed", next);
            }
        };
        if credential.is_some() && ranges.len() > 1 {
            let next = "ask for each range in a request of its own";
            let what = "one Chiral-Payment is for one range";
            return refuse(StatusCode::BAD_REQUEST, what, next);
        }
        let mut bodies = VecDeque::new();
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let mut asked = ServeRequest::new(self.header().cid, *range, Protocol::Http);
            asked.credential.clone_from(&credential);
            match routes.gate.admit(&asked).await {
                Ok(Admission::Granted) => bodies.push_back(ContentBody::new(
                    self.content.clone(),
                    routes.gate.clone(),
                    asked,
                    routes.sending.clone(),
                    self.meter.clone(),
                )),
                Ok(Admission::PaymentRequired(offer)) => {
                    let answer = self.payment_required(routes, request, offer);
                    return Err(Box::new(answer));
                }
                // In the gate's own words.
                Ok(Admission::Refused { reason }) => {
                    return Err(Box::new(text(StatusCode::FORBIDDEN, &reason)));
                }
                Ok(_) => return refuse(StatusCode::FORBIDDEN, "not served", refusal::OTHERS),
                Err(error) => return Err(Box::new(counter::refusal(&error))),
            }
        }
        Ok(bodies)
    }

    fn payment_required(&self, routes: &Routes, request: &Parts, offer: Bytes) -> Answer {
        let base = routes.base(request);
        let price = routes.gate.tariff(self.header().cid).price;
        refusal::payment_required(&request.headers, offer, self.header(), price, base)
    }

    /// Headers that say what this is. What a name stands for never changes.
    fn describe(&self, out: &mut HeaderMap, coding: Option<Coding>, request: &HeaderMap) {
        out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let cache = HeaderValue::from_static("public, max-age=31536000, immutable");
        out.insert(header::CACHE_CONTROL, cache);
        if let Some(etag) = &self.etag {
            // Other bytes must not have the same strong tag (RFC 9110 §8.8.3); a weak one
            // still says that it is the same file.
            let weak = if coding.is_some() { "W/" } else { "" };
            put(out, header::ETAG, format!("{weak}{etag}"));
        }
        if self.may_encode() {
            let vary = HeaderValue::from_static("accept-encoding");
            out.insert(header::VARY, vary);
        }
        let file = self.header();
        if !self.whole_file {
            let octets = HeaderValue::from_static("application/octet-stream");
            out.insert(header::CONTENT_TYPE, octets);
            return;
        }
        out.insert(header::CONTENT_TYPE, media::content_type(file));
        out.insert(header::CONTENT_DISPOSITION, media::disposition(file));
        let policy = HeaderValue::from_static(POLICY);
        out.insert(header::CONTENT_SECURITY_POLICY, policy);
        let digest = headers::repr_digest(file.cid);
        match coding {
            Some(coding) => {
                out.insert(header::CONTENT_ENCODING, coding.value());
                put(out, headers::UNENCODED_DIGEST, digest);
            }
            None if headers::wants_digest(request) == Some(0) => {}
            None => put(out, headers::REPR_DIGEST, digest),
        }
        let link = path::metalink(file.cid);
        let link = format!("<{link}>; rel=\"describedby\"; type=\"application/metalink4+xml\"");
        put(out, header::LINK, link);
    }
}

/// A stranger's file runs nothing and loads nothing, even if a browser shows it by itself;
/// its own players may have their own looks.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; \
    media-src 'self'; sandbox";

/// Puts a body of one piece into an answer.
fn whole(answer: &mut Answer, len: u64, mut contents: VecDeque<ContentBody>) {
    let out = answer.headers_mut();
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    if let Some(content) = contents.pop_front() {
        *answer.body_mut() = AnswerBody::Content(Box::new(content));
    }
}

fn put(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    // The values are made of digits, hashes and fixed words.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
