//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::coverage::MAX_RUNS;
use chiral_core::{PaymentGate, StoreError, StoredContent, Tariff};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::json;

use super::body::{AnswerBody, Sending};
use super::counter::{Counter, hang_up};
use super::path::{PAYMENT, Part, Resource};
use super::representation::Representation;
use super::seeds::Seeds;

pub(super) type Answer = Response<AnswerBody>;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What answers need.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) seeds: Arc<Seeds>,
    pub(super) gate: Arc<dyn PaymentGate>,
    pub(super) sending: Arc<Sending>,
    pub(super) counter: Counter,
}

impl Routes {
    /// Answers a request; its body is read if it is a message to the payment gate, else not.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let mut answer = match misaddressed(&head) {
            Some(refusal) => refusal,
            None if head.uri.path() == PAYMENT => {
                self.counter
                    .answer(&*self.gate, &head.method, &head.headers, body)
                    .await
            }
            None => self.dispatch(&head).await,
        };
        let headers = answer.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if head.method == Method::HEAD {
            *answer.body_mut() = AnswerBody::empty();
        }
        answer
    }

    async fn dispatch(&self, head: &hyper::http::request::Parts) -> Answer {
        if let Some(refusal) = has_body(head) {
            return refusal;
        }
        let Some(resource) = Resource::parse(head.uri.path()) else {
            return text(StatusCode::NOT_FOUND, "no such resource");
        };
        match head.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return options(METHODS),
            _ => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD or OPTIONS only");
                answer.headers_mut().insert(header::ALLOW, METHODS);
                return answer;
            }
        }
        match self.resource(resource, &head.method, &head.headers).await {
            Ok(Some(answer)) => answer,
            Ok(None) => text(StatusCode::NOT_FOUND, "not served here"),
            Err(error @ StoreError::Changed { .. }) => {
                tracing::error!(content = %resource.cid, %error, "no longer served");
                text(
                    StatusCode::GONE,
                    "the file changed and is not served any more",
                )
            }
            Err(error) => {
                tracing::error!(content = %resource.cid, %error, "store failed");
                text(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer")
            }
        }
    }

    async fn resource(
        &self,
        Resource { cid, part }: Resource,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Answer>, StoreError> {
        let Some(content) = self.seeds.open(cid).await? else {
            return Ok(None);
        };
        let layout = match content.header().layout() {
            Ok(layout) => layout,
            Err(_) => return Ok(None),
        };
        Ok(match part {
            Part::File => Some(
                Representation::file(content)
                    .answer(self, method, headers)
                    .await,
            ),
            Part::Chunk(index) if !layout.contains(index) => None,
            Part::Chunk(index) => {
                let hash = self.seeds.chunk_hash(&*content, index).await?;
                let chunk = Representation::chunk(content, layout.range(index), hash);
                Some(chunk.answer(self, method, headers).await)
            }
            // An encoding that fails would mean a header that the store should not have.
            Part::Manifest => content
                .header()
                .encode()
                .ok()
                .map(|bytes| octets(bytes.into())),
            Part::Page(index) => content
                .page(index)
                .await?
                .map(|page| octets(page.encode().into())),
            Part::Coverage => {
                let tariff = self.gate.tariff(content.header().cid);
                Some(coverage(&*content, layout, tariff))
            }
        })
    }
}

/// What is refused whatever it asks for.
fn misaddressed(head: &hyper::http::request::Parts) -> Option<Answer> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let message = "exactly one Host is needed";
    (head.version == Version::HTTP_11 && hosts != 1)
        .then(|| hang_up(text(StatusCode::BAD_REQUEST, message)))
}

/// Bodies are taken with messages to the payment gate only, and refused rather than skipped
/// elsewhere: what one server skips, another may read as a request.
fn has_body(head: &hyper::http::request::Parts) -> Option<Answer> {
    let headers = &head.headers;
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let body =
        headers.contains_key(header::TRANSFER_ENCODING) || lengths.any(|length| length != "0");
    let message = "requests with a body are not taken";
    body.then(|| hang_up(text(StatusCode::BAD_REQUEST, message)))
}

pub(super) fn options(methods: HeaderValue) -> Answer {
    let mut answer = Answer::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ALLOW, methods.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let asked = "content-type, range, if-range, if-match, if-none-match, chiral-payment";
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(asked),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("86400"),
    );
    answer
}

/// What is held, and what is asked for it: of somebody whom no directory has announced, a
/// client learns it here.
fn coverage(
    content: &dyn StoredContent,
    layout: chiral_core::ChunkLayout,
    tariff: Tariff,
) -> Answer {
    let runs = content.coverage().runs(layout);
    // Nobody takes more runs from a stranger; to hold back some is no lie.
    let runs: Vec<_> = runs
        .iter()
        .take(MAX_RUNS)
        .map(|run| [run.start, run.end])
        .collect();
    let mut body = json!({ "chunks": layout.count(), "runs": runs });
    if !tariff.price.is_free() {
        body["price_wei_per_mib"] = json!(tariff.price.wei_per_mib().to_string());
        body["wallet"] = json!(tariff.wallet.map(|wallet| wallet.to_string()));
    }
    let mut answer = with_body(StatusCode::OK, "application/json", body.to_string().into());
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Bytes that go with the payment gate's or the manifest's own format.
pub(super) fn octets(bytes: Bytes) -> Answer {
    with_body(StatusCode::OK, "application/octet-stream", bytes)
}

/// A message for people.
pub(super) fn text(status: StatusCode, message: &str) -> Answer {
    with_body(
        status,
        "text/plain; charset=utf-8",
        Bytes::from(format!("{message}\n")),
    )
}

pub(super) fn with_body(status: StatusCode, mime: &'static str, bytes: Bytes) -> Answer {
    let length = bytes.len();
    let mut answer = Answer::new(AnswerBody::of(bytes));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    answer
}
