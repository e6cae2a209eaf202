//! A file or a chunk as HTTP sees it: conditions, ranges, admission, body (RFC 9110 §13-§15).

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::{Admission, ByteRange, ChunkHash, Protocol, ServeRequest, StoredContent};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use super::body::{AnswerBody, ContentBody};
use super::range::{self, Selected};
use super::routes::{Answer, Routes, text, with_body};
use super::{counter, etag, headers};

/// A run of the file's bytes with an address of its own.
pub(super) struct Representation {
    content: Arc<dyn StoredContent>,
    /// Its bytes in the file.
    span: ByteRange,
    etag: Option<String>,
    whole_file: bool,
}

impl Representation {
    pub(super) fn file(content: Arc<dyn StoredContent>) -> Self {
        let header = content.header();
        let (span, etag) = (
            ByteRange::new(0, header.size),
            Some(etag::strong(header.cid)),
        );
        Self {
            content,
            span,
            etag,
            whole_file: true,
        }
    }

    pub(super) fn chunk(
        content: Arc<dyn StoredContent>,
        span: ByteRange,
        hash: Option<ChunkHash>,
    ) -> Self {
        Self {
            content,
            span,
            etag: hash.map(etag::strong),
            whole_file: false,
        }
    }

    /// Answers a `GET` or `HEAD`.
    pub(super) async fn answer(
        self,
        routes: &Routes,
        method: &Method,
        request: &HeaderMap,
    ) -> Answer {
        if let Some(answer) = self.precondition(request) {
            return answer;
        }
        let selected = match method {
            // Ranges are defined for GET alone (RFC 9110 §14.2).
            &Method::GET => self.select(request),
            _ => Selected::Whole,
        };
        let part = match selected {
            Selected::Whole => ByteRange::new(0, self.span.len()),
            Selected::Part(part) => part,
            Selected::Nothing => return self.unsatisfiable(),
        };
        let range = ByteRange::new(self.span.start + part.start, self.span.start + part.end);
        if !self.is_held(range) {
            let message = "these bytes are not held here: see coverage";
            return text(StatusCode::NOT_FOUND, message);
        }
        let body = if method == Method::GET {
            match self.admit(routes, range, request).await {
                Ok(body) => body,
                Err(refusal) => return *refusal,
            }
        } else {
            AnswerBody::empty()
        };
        let mut answer = Answer::new(body);
        let out = answer.headers_mut();
        self.describe(out);
        if request.contains_key(headers::PAYMENT) {
            // What one client paid for is not for a shared cache to give to others.
            out.insert(
                header::CACHE_CONTROL,
                HeaderValue::from_static("private, immutable"),
            );
        }
        out.insert(header::CONTENT_LENGTH, HeaderValue::from(part.len()));
        if let Selected::Part(part) = selected {
            put(
                out,
                header::CONTENT_RANGE,
                range::content_range(part, self.span.len()),
            );
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        answer
    }

    /// 304 or 412, if the request's conditions say so.
    fn precondition(&self, request: &HeaderMap) -> Option<Answer> {
        let etag = self.etag.as_deref().unwrap_or("");
        let listed = |name: header::HeaderName, weak: bool| {
            let mut values = request.get_all(name).iter().peekable();
            values.peek()?;
            Some(values.any(|value| etag::names(value.as_bytes(), etag, weak)))
        };
        if listed(header::IF_MATCH, false) == Some(false) {
            return Some(text(
                StatusCode::PRECONDITION_FAILED,
                "another file is served here",
            ));
        }
        if listed(header::IF_NONE_MATCH, true) == Some(true) {
            let mut answer = Answer::new(AnswerBody::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            self.describe(answer.headers_mut());
            answer.headers_mut().remove(header::CONTENT_TYPE);
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
        let mut answer = text(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "the range lies past the end",
        );
        let whole = format!("bytes */{}", self.span.len());
        put(answer.headers_mut(), header::CONTENT_RANGE, whole);
        answer
    }

    fn is_held(&self, range: ByteRange) -> bool {
        let Ok(layout) = self.content.header().layout() else {
            return false;
        };
        let coverage = self.content.coverage();
        match &coverage {
            chiral_core::Coverage::Complete => true,
            // One run must hold it all, as runs do not touch each other.
            _ => coverage
                .runs(layout)
                .iter()
                .any(|run| layout.span(run.start, run.end).covers(range)),
        }
    }

    /// The body, if the payment gate lets it through.
    async fn admit(
        &self,
        routes: &Routes,
        range: ByteRange,
        headers: &HeaderMap,
    ) -> Result<AnswerBody, Box<Answer>> {
        if range.is_empty() {
            return Ok(AnswerBody::empty());
        }
        let refuse = |status, message: &str| Err(Box::new(text(status, message)));
        let mut request = ServeRequest::new(self.content.header().cid, range, Protocol::Http);
        match headers::credential(headers) {
            Ok(credential) => request.credential = credential,
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "Chiral-Payment is malformed"),
        }
        match routes.gate.admit(&request).await {
            Ok(Admission::Granted) => {
                let (content, gate) = (self.content.clone(), routes.gate.clone());
                let body = ContentBody::new(content, gate, request, routes.sending.clone());
                Ok(AnswerBody::Content(Box::new(body)))
            }
            Ok(Admission::PaymentRequired(offer)) => Err(Box::new(payment_required(offer))),
            Ok(Admission::Refused { reason }) => refuse(StatusCode::FORBIDDEN, &reason),
            Ok(_) => refuse(StatusCode::FORBIDDEN, "not served"),
            Err(error) => Err(Box::new(counter::refusal(&error))),
        }
    }

    /// Headers that say what this is. What a name stands for never changes.
    fn describe(&self, out: &mut HeaderMap) {
        out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let cache = HeaderValue::from_static("public, max-age=31536000, immutable");
        out.insert(header::CACHE_CONTROL, cache);
        let exposed =
            HeaderValue::from_static("accept-ranges, content-length, content-range, etag");
        out.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        if let Some(etag) = &self.etag {
            put(out, header::ETAG, etag.clone());
        }
        let file = self.content.header();
        if self.whole_file {
            out.insert(header::CONTENT_TYPE, headers::content_type(file));
            out.insert(header::CONTENT_DISPOSITION, headers::disposition(file));
            put(out, headers::REPR_DIGEST, headers::repr_digest(file.cid));
        } else {
            let octets = HeaderValue::from_static("application/octet-stream");
            out.insert(header::CONTENT_TYPE, octets);
        }
    }
}

fn payment_required(offer: Bytes) -> Answer {
    with_body(
        StatusCode::PAYMENT_REQUIRED,
        "application/octet-stream",
        offer,
    )
}

fn put(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    // The values are made of digits, hashes and fixed words.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
