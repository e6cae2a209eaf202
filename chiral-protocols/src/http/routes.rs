//! From a request to its answer.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chiral_core::coverage::MAX_RUNS;
use chiral_core::{Cid, Coverage, Endpoint, PaymentGate, StoreError, StoredContent, Tariff};
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::json;
use tokio::sync::Semaphore;

use super::body::{AnswerBody, Sending};
use super::counter::{Counter, hang_up};
use super::elsewhere::Elsewhere;
use super::page::{self, List, Row};
use super::path::{self, PAYMENT, Part, Resource, Target};
use super::refusal::{self, advise};
use super::representation::Representation;
use super::{accept, media, metalink};
use crate::chunk_hashes::ChunkHashes;
use crate::seeds::{Opened, Seeds, Served};

pub(super) type Answer = Response<AnswerBody>;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What a page in a browser may read of an answer (CORS).
const EXPOSED: &str = "accept-ranges, content-disposition, content-encoding, content-length, \
    content-range, etag, link, repr-digest, retry-after, unencoded-digest";

/// Answers that are encoded as they are sent, all connections together: each takes some MiB
/// and, while its client reads fast, most of a processor.
pub(super) const MAX_ENCODERS: usize = 16;

/// What answers need.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) seeds: Arc<Seeds>,
    pub(super) hashes: ChunkHashes,
    pub(super) gate: Arc<dyn PaymentGate>,
    pub(super) sending: Arc<Sending>,
    pub(super) counter: Counter,
    pub(super) encoders: Arc<Semaphore>,
    /// Who else seeds, if somebody knows.
    pub(super) elsewhere: OnceLock<Elsewhere>,
    pub(super) public_url: Option<Endpoint>,
    /// Whether the list of what is served is for everybody.
    pub(super) page: bool,
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
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            (
                header::HeaderName::from_static("cross-origin-resource-policy"),
                "cross-origin",
            ),
        ] {
            // What is listed is for those who open it, not for every page that they open.
            if !is_list(head.uri.path()) {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if head.method == Method::HEAD {
            *answer.body_mut() = AnswerBody::empty();
        }
        answer
    }

    async fn dispatch(&self, head: &Parts) -> Answer {
        if let Some(refusal) = has_body(head) {
            return refusal;
        }
        match head.method {
            Method::GET | Method::HEAD => {}
            // A browser that may not ask never learns that there is nothing.
            Method::OPTIONS => return options(METHODS),
            _ => {
                let what = "GET, HEAD or OPTIONS only";
                let next = "messages about payments go to /payment by POST";
                let mut answer = advise(StatusCode::METHOD_NOT_ALLOWED, what, next);
                answer.headers_mut().insert(header::ALLOW, METHODS);
                return answer;
            }
        }
        let path = head.uri.path();
        let (cid, answer) = match Target::parse(path) {
            Some(Target::Resource(resource)) => (resource.cid, self.resource(resource, head).await),
            Some(Target::Named(cid, name)) => (cid, self.named(cid, name, head).await),
            Some(Target::Metalink(cid)) => (cid, self.metalink(cid, head).await),
            Some(Target::Page) if self.page => return self.list(head, false),
            Some(Target::Index) if self.page => return self.list(head, true),
            Some(Target::Page | Target::Index) => return refusal::no_list(),
            None => return refusal::no_resource(path),
        };
        match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => refusal::not_served(cid),
            Err(error @ StoreError::Changed { .. }) => {
                tracing::error!(content = %cid, %error, "no longer served");
                let what = "the file changed and is not served any more";
                advise(StatusCode::GONE, what, refusal::OTHERS)
            }
            Err(error) => {
                tracing::error!(content = %cid, %error, "store failed");
                refusal::later("the store does not answer")
            }
        }
    }

    async fn resource(
        &self,
        Resource { cid, part }: Resource,
        request: &Parts,
    ) -> Result<Option<Answer>, StoreError> {
        let Some(opened) = self.seeds.open(cid).await? else {
            return Ok(None);
        };
        let content = &opened.content;
        let layout = match content.header().layout() {
            Ok(layout) => layout,
            Err(_) => return Ok(None),
        };
        Ok(match part {
            Part::File => Some(Representation::file(opened).answer(self, request).await),
            Part::Chunk(index) if !layout.contains(index) => {
                let last = layout.count().saturating_sub(1);
                let next = format!("its chunks are 0 to {last}");
                let what = "the file has no such chunk";
                Some(advise(StatusCode::NOT_FOUND, what, &next))
            }
            Part::Chunk(index) => {
                let hash = self.hashes.of(&**content, index).await?;
                let chunk = Representation::chunk(opened, layout.range(index), hash);
                Some(chunk.answer(self, request).await)
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
                Some(coverage(&**content, layout, tariff))
            }
        })
    }

    /// The file by its name.
    async fn named(
        &self,
        cid: Cid,
        name: &str,
        request: &Parts,
    ) -> Result<Option<Answer>, StoreError> {
        let Some(opened) = self.seeds.open(cid).await? else {
            return Ok(None);
        };
        if !path::is_name(name, opened.content.header()) {
            return Ok(Some(refusal::misnamed(cid)));
        }
        let file = Representation::file(opened);
        Ok(Some(file.answer(self, request).await))
    }

    async fn metalink(&self, cid: Cid, request: &Parts) -> Result<Option<Answer>, StoreError> {
        let Some(Opened { content, .. }) = self.seeds.open(cid).await? else {
            return Ok(None);
        };
        let mut urls = Vec::new();
        let part = Part::File;
        if content.coverage() == Coverage::Complete {
            let Some(base) = self.base(request) else {
                let next = "send the name and port of this server as Host";
                let what = "what Host says is no address";
                return Ok(Some(advise(StatusCode::BAD_REQUEST, what, next)));
            };
            urls.push(format!("{base}{}", Resource { cid, part }.to_path()));
        }
        if let Some(elsewhere) = self.elsewhere.get() {
            for url in elsewhere.urls(cid).await {
                if !urls.contains(&url) {
                    urls.push(url);
                }
            }
        }
        if urls.is_empty() {
            return Ok(Some(refusal::not_held(cid)));
        }
        let header = content.header();
        let document = metalink::document(header, &urls);
        let mut answer = with_body(StatusCode::OK, metalink::MEDIA, document.into());
        let out = answer.headers_mut();
        // Who else seeds changes by the minute.
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let name = format!("{}.meta4", metalink::name(header));
        if let Some(value) = media::named("attachment", &name) {
            out.insert(header::CONTENT_DISPOSITION, value);
        }
        Ok(Some(answer))
    }

    /// What is served.
    fn list(&self, request: &Parts, json: bool) -> Answer {
        let second = self.sending.second();
        let mut served = self.seeds.list(after(request), page::MAX_ROWS + 1);
        let more = served.len() > page::MAX_ROWS;
        served.truncate(page::MAX_ROWS);
        let next = served.last().map(|served| served.header.cid);
        let row = |Served { header, meter }: Served| Row {
            price: self.gate.tariff(header.cid).price,
            sent: meter.read(second),
            header,
        };
        let list = List {
            next: next.filter(|_| more),
            rows: served.into_iter().map(row).collect(),
            sent: self.sending.meter.read(second),
        };
        let weight = |media| accept::media_weight(&request.headers, media);
        let json = json || weight("application/json") > weight("text/html");
        let mut answer = if json {
            let text = list.json().to_string();
            with_body(StatusCode::OK, "application/json", text.into())
        } else {
            let text = list.html();
            with_body(StatusCode::OK, "text/html; charset=utf-8", text.into())
        };
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::VARY, "accept"),
            (header::CONTENT_SECURITY_POLICY, page::POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                header::HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
        ] {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    /// The URL before the paths of this server, without a slash at its end: what is
    /// announced, else what the client calls it.
    pub(super) fn base(&self, request: &Parts) -> Option<String> {
        if let Some(url) = &self.public_url {
            return Some(url.as_str().trim_end_matches('/').to_owned());
        }
        let host = request.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let authority = request.uri.authority().cloned().or(host)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        let encrypted = request.uri.scheme_str() == Some("https");
        let scheme = if encrypted { "https" } else { "http" };
        let authority = authority.as_str();
        authority
            .bytes()
            .all(plain)
            .then(|| format!("{scheme}://{authority}"))
    }
}

fn is_list(path: &str) -> bool {
    matches!(Target::parse(path), Some(Target::Page | Target::Index))
}

/// Behind which file a list begins.
fn after(request: &Parts) -> Option<Cid> {
    let mut pairs = request.uri.query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix("after=")?.parse().ok())
}

/// What is refused whatever it asks for.
fn misaddressed(head: &Parts) -> Option<Answer> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let message = "exactly one Host is needed";
    (head.version == Version::HTTP_11 && hosts != 1)
        .then(|| hang_up(text(StatusCode::BAD_REQUEST, message)))
}

/// Bodies are taken with messages to the payment gate only, and refused rather than skipped
/// elsewhere: what one server skips, another may read as a request.
fn has_body(head: &Parts) -> Option<Answer> {
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
    let asked = "cache-control, chiral-payment, content-type, if-match, if-none-match, \
                 if-range, range, want-repr-digest";
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
