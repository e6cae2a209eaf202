//! Answers that are not what was asked for, in words that say what to do next.

use bytes::Bytes;
use chiral_core::{Cid, ManifestHeader, Price};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::counter::RETRY_AFTER;
use super::routes::{Answer, octets, text};
use super::{accept, headers};

/// What there is to do about a node that does not serve.
pub(super) const OTHERS: &str = "ask other seeders";

/// Says what is wrong, and what to do next.
pub(super) fn advise(status: StatusCode, what: &str, next: &str) -> Answer {
    text(status, &format!("{what}\nnext: {next}"))
}

/// It may be served in a moment.
pub(super) fn later(what: &str) -> Answer {
    let next = "try again in a few seconds";
    let mut answer = advise(StatusCode::SERVICE_UNAVAILABLE, what, next);
    let headers = answer.headers_mut();
    headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    answer
}

/// Nothing is ever served under this path.
pub(super) fn no_resource(path: &str) -> Answer {
    let what = "no such resource";
    let hash = path.strip_prefix("/file/").unwrap_or("");
    let hash = hash.split('/').next().unwrap_or("");
    let lower = hash.to_ascii_lowercase();
    let lower = lower.strip_prefix("0x").unwrap_or(&lower);
    let next = match lower.parse::<Cid>() {
        Ok(cid) if lower == hash => format!("the file itself is at /file/{cid}"),
        Ok(cid) => format!("write the hash as 64 lower-case digits: /file/{cid}"),
        Err(_) => "files are at /file/ and their SHA-256 in 64 lower-case digits".to_owned(),
    };
    advise(StatusCode::NOT_FOUND, what, &next)
}

/// There is a list of what is served, but not for everybody.
pub(super) fn no_list() -> Answer {
    let next = "files are at /file/ and their SHA-256 in 64 lower-case digits";
    advise(
        StatusCode::NOT_FOUND,
        "what is shared is not listed here",
        next,
    )
}

/// Another node may serve this file.
pub(super) fn not_served(cid: Cid) -> Answer {
    let next = format!(
        "{OTHERS}, or have them found: chiral get {cid} --bootstrap MULTIADDR (or --peer URL)"
    );
    advise(StatusCode::NOT_FOUND, "not served here", &next)
}

/// The file is served under another name.
pub(super) fn misnamed(cid: Cid) -> Answer {
    let next = format!("it is at /file/{cid}");
    advise(
        StatusCode::NOT_FOUND,
        "the file has another name or none",
        &next,
    )
}

/// The file is served, but not these bytes of it.
pub(super) fn not_held(cid: Cid) -> Answer {
    let next = format!("see /file/{cid}/coverage for what is, and {OTHERS} for the rest");
    advise(
        StatusCode::NOT_FOUND,
        "these bytes are not held here: see coverage",
        &next,
    )
}

/// 402: with the gate's offer for a client that can answer it, with words for one that takes
/// anything but has never heard of it (a browser, curl).
pub(super) fn payment_required(
    request: &HeaderMap,
    offer: Bytes,
    file: &ManifestHeader,
    price: Price,
    base: Option<String>,
) -> Answer {
    let knows = request.contains_key(headers::PAYMENT)
        || !request.contains_key(header::ACCEPT)
        || accept::names_media(request, "application/octet-stream")
        || accept::media_weight(request, "text/plain") == 0;
    let mut answer = if knows {
        let mut answer = octets(offer);
        *answer.status_mut() = StatusCode::PAYMENT_REQUIRED;
        answer
    } else {
        let (what, limit) = if price.is_free() {
            ("no more is given away now".to_owned(), "CHI_PER_MIB".into())
        } else {
            (
                format!("this file costs {price} CHI per MiB"),
                price.to_string(),
            )
        };
        let base = base.unwrap_or_else(|| "URL".to_owned());
        let next = format!(
            "pay from a wallet: chiral get '{}' --peer {base}/ --max-price {limit} \
             --chain URL --keystore FILE",
            file.link()
        );
        advise(StatusCode::PAYMENT_REQUIRED, &what, &next)
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    answer
}
