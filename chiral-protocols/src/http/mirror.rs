//! What a plain web server says of a file: its size, whether it serves ranges, and where
//! it really lies.

use std::sync::Arc;

use chiral_core::{ByteRange, Endpoint, TransferError};
use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::address::{Reach, Scope};
use super::answer::{self, content_length};
use super::client::collect;
use super::config::MAX_REDIRECTS;
use super::connect::{Origin, Transport, protocol, refused};
use super::pool::{Ask, Pool};
use super::range;
use super::stream::refusal;

/// A file on a web server.
pub(super) struct Mirror {
    /// Connections to the server that the redirects led to.
    pub(super) pool: Pool,
    pub(super) size: u64,
    /// Whether parts can be asked for.
    pub(super) ranges: bool,
}

/// Asks a mirror, and those that it sends us to.
pub(super) async fn find(
    transport: Arc<Transport>,
    mut origin: Origin,
    closed: CancellationToken,
    name: &Endpoint,
    reach: Reach,
) -> Result<Mirror, TransferError> {
    for _ in 0..=MAX_REDIRECTS {
        let pool = Pool::new(name.clone(), transport.clone(), origin, closed.clone());
        match probe(&pool).await? {
            Found::File { size, ranges } => return Ok(Mirror { pool, size, ranges }),
            Found::Redirect { location, peer } => {
                origin = pool
                    .origin
                    .redirect(&location, peer, name, reach, &transport)
                    .await?;
            }
        }
    }
    Err(refused(name, "too many redirects", false))
}

enum Found {
    File { size: u64, ranges: bool },
    Redirect { location: String, peer: Scope },
}

async fn probe(pool: &Pool) -> Result<Found, TransferError> {
    match by_head(pool).await? {
        Some(found) => Ok(found),
        None => by_first_byte(pool).await,
    }
}

/// Asks for the head alone. `None` if that does not tell enough: not every server takes it.
async fn by_head(pool: &Pool) -> Result<Option<Found>, TransferError> {
    let path = pool.origin.url.path.clone();
    let (link, answer) = pool
        .ask(&Ask {
            method: Method::HEAD,
            ..Ask::get(path)
        })
        .await?;
    let (status, headers) = (answer.status(), answer.headers());
    if let Some(location) = location(status, headers) {
        return Ok(Some(Found::Redirect {
            location,
            peer: link.peer(),
        }));
    }
    let Ok(Some(size)) = answer::whole(status, headers) else {
        return Ok(None);
    };
    let bytes = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"bytes");
    let ranges = headers.get(header::ACCEPT_RANGES).is_some_and(bytes);
    Ok((ranges || size == 0).then_some(Found::File { size, ranges: true }))
}

/// Asks for the first byte, to learn the size and whether ranges are served.
async fn by_first_byte(pool: &Pool) -> Result<Found, TransferError> {
    let first = ByteRange::new(0, 1);
    let range = Some(range::request(first));
    let ask = Ask {
        range,
        ..Ask::get(pool.origin.url.path.clone())
    };
    let (mut link, answer) = pool.ask(&ask).await?;
    let (head, body) = answer.into_parts();
    if let Some(location) = location(head.status, &head.headers) {
        return Ok(Found::Redirect {
            location,
            peer: link.peer(),
        });
    }
    let untold = || protocol(&pool.name, "the size of the file is not told");
    if head.status == StatusCode::OK {
        let length = match answer::whole(head.status, &head.headers) {
            Ok(_) => content_length(&head.headers).ok().flatten(),
            Err(fault) => return Err(fault.into_transfer(&pool.name)),
        };
        return length
            .map(|size| Found::File {
                size,
                ranges: false,
            })
            .ok_or_else(untold);
    }
    let size = match answer::part(head.status, &head.headers, first, None) {
        Ok(size) => size.ok_or_else(untold)?,
        Err(fault) => return Err(refusal(fault, pool, link, body).await),
    };
    collect(&mut link, body, 1, pool.config.answer_timeout, &pool.name).await?;
    Ok(Found::File { size, ranges: true })
}

pub(super) fn location(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    headers
        .get(header::LOCATION)?
        .to_str()
        .ok()
        .map(str::to_owned)
}
