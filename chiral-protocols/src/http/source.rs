//! [`HttpSource`]: a Chiral seeder or a plain mirror as a [`ChunkSource`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk::MAX_FILE_SIZE;
use chiral_core::manifest::{MAX_HEADER_LEN, MAX_PAGE_LEN};
use chiral_core::{
    Address, ByteRange, ChunkLayout, ChunkRuns, ChunkSource, Cid, Coverage, DeliveryStream,
    Endpoint, FileIdentification, ManifestHeader, ManifestPage, PeerOffer, Price, Protocol,
    Purchase, RequestGrid, TransferError, U256,
};
use hyper::http::uri::PathAndQuery;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::answer;
use super::client::collect;
use super::connect::protocol;
use super::mirror;
use super::path::{PAYMENT, Part, Resource};
use super::pool::{Ask, Pool};
use super::protocol::Client;
use super::stream::{Place, fetch, refusal};
use super::till::Till;
use super::url::Url;
use crate::payer::{Patience, Payer};
use crate::seeds::cid_of;

/// Longest answer to a question for the coverage, in bytes.
const MAX_COVERAGE_LEN: usize = 512 << 10;

/// Connections to one server that has a file. See [`ChunkSource`] for what is promised.
///
/// It has no task behind it: a connection moves only while somebody reads from it. Over HTTP/1.1
/// an answer may have to wait for another on the same connection, so whoever asks for several
/// ranges at once has to read all of them at once.
#[derive(Debug)]
pub struct HttpSource {
    offer: PeerOffer,
    /// Where its bytes are, and over what.
    place: Place,
    grid: RequestGrid,
    /// `None` for a mirror.
    header: Option<ManifestHeader>,
    base: Url,
}

impl HttpSource {
    /// Connects to the seeder, or the mirror, that an offer names.
    pub(super) async fn connect(
        client: &Client,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Self, TransferError> {
        let name = &offer.endpoint;
        let (origin, reach) = client.origin(offer).await?;
        let (transport, closed) = (client.transport.clone(), client.closed.child_token());
        let url = origin.url.clone();
        let source = if offer.mirror {
            let found = mirror::find(transport, origin, closed, name, reach).await?;
            let (size, path) = (found.size, found.pool.origin.url.path.clone());
            let grid = if found.ranges {
                RequestGrid::ANY
            } else {
                RequestGrid::every(size)
            };
            let place = Place {
                permits: Arc::new(Semaphore::new(found.pool.max_ranges(false))),
                pool: Arc::new(found.pool),
                path,
                size,
                payer: None,
            };
            let mut offer = offer.clone();
            offer.coverage = Some(Coverage::Complete);
            Self {
                offer,
                place,
                grid,
                header: None,
                base: url,
            }
        } else {
            let cid = cid_of(offer, target)?;
            let pool = Arc::new(Pool::new(name.clone(), transport, origin, closed));
            let path = below(&url, name, cid, Part::Manifest)?;
            let bytes = small(&pool, path, MAX_HEADER_LEN).await?;
            let header = ManifestHeader::decode(&bytes)
                .map_err(|_| protocol(name, "a malformed manifest header"))?;
            if header.cid != cid {
                return Err(protocol(name, "the manifest header of another file"));
            }
            let path = below(&url, name, cid, Part::Coverage)?;
            let bytes = small(&pool, path, MAX_COVERAGE_LEN).await?;
            let said = serde_json::from_slice(&bytes)
                .ok()
                .ok_or_else(|| protocol(name, "a malformed coverage"))?;
            let mut offer = offer.clone();
            offer.coverage = Some(
                header
                    .layout()
                    .ok()
                    .and_then(|layout| parse_coverage(&said, layout))
                    .ok_or_else(|| protocol(name, "a malformed coverage"))?,
            );
            // Named by hand, and announced by nobody: what it asks it says itself. Whoever
            // was announced is held to that.
            if offer.valid_until.is_none() && offer.wallet.is_none() {
                (offer.price, offer.wallet) =
                    parse_tariff(&said).ok_or_else(|| protocol(name, "a malformed price"))?;
            }
            let path = below(&url, name, cid, Part::File)?;
            let payer = match &client.agent {
                None => None,
                Some(agent) => {
                    let purchase = Purchase::new(cid, offer.clone());
                    let config = &pool.config;
                    let patience = Patience {
                        timeout: config.payment_timeout,
                        attempts: config.payment_attempts,
                    };
                    let till = Till {
                        pool: pool.clone(),
                        path: payments(&url, name)?,
                    };
                    Some(Arc::new(Payer::new(
                        agent.clone(),
                        purchase,
                        Arc::new(till),
                        patience,
                        pool.closed.clone(),
                        client.transport.tasks.clone(),
                    )))
                }
            };
            let place = Place {
                permits: Arc::new(Semaphore::new(pool.max_ranges(payer.is_some()))),
                pool,
                path,
                size: header.size,
                payer,
            };
            Self {
                offer,
                place,
                grid: RequestGrid::ANY,
                header: Some(header),
                base: url,
            }
        };
        if source.place.size > MAX_FILE_SIZE {
            return Err(protocol(name, "a size over the format's limit"));
        }
        Ok(source)
    }

    fn name(&self) -> &Endpoint {
        &self.offer.endpoint
    }

    async fn ask(&self, part: Part, limit: usize) -> Result<Bytes, TransferError> {
        let Some(header) = &self.header else {
            let what = "a manifest";
            return Err(TransferError::Missing {
                source_name: self.name().to_string(),
                what,
            });
        };
        let path = below(&self.base, self.name(), header.cid, part)?;
        small(&self.place.pool, path, limit).await
    }
}

fn below(base: &Url, name: &Endpoint, cid: Cid, part: Part) -> Result<PathAndQuery, TransferError> {
    let path = Resource { cid, part }.to_path();
    base.below(&path)
        .ok_or_else(|| protocol(name, "a url that cannot be sent"))
}

/// Where messages go to the payment gate.
pub(super) fn payments(base: &Url, name: &Endpoint) -> Result<PathAndQuery, TransferError> {
    base.below(PAYMENT)
        .ok_or_else(|| protocol(name, "a url that cannot be sent"))
}

/// Asks for something small.
async fn small(pool: &Pool, path: PathAndQuery, limit: usize) -> Result<Bytes, TransferError> {
    let (mut link, answer) = pool.ask(&Ask::get(path)).await?;
    let (head, body) = answer.into_parts();
    let length = match answer::whole(head.status, &head.headers) {
        Ok(length) => length,
        Err(fault) => return Err(refusal(fault, pool, link, body).await),
    };
    if length.is_some_and(|length| length > limit as u64) {
        return Err(protocol(&pool.name, "an answer over its limit"));
    }
    let bytes = collect(
        &mut link,
        body,
        limit,
        pool.config.answer_timeout,
        &pool.name,
    )
    .await?;
    Ok(bytes)
}

/// Reads `{…,"price_wei_per_mib":"n","wallet":"0x…"}`; free if neither is there.
fn parse_tariff(value: &Value) -> Option<(Price, Option<Address>)> {
    let text = |name| match value.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => Some(Some(value.as_str()?)),
    };
    let price = match text("price_wei_per_mib")? {
        None => Price::FREE,
        Some(wei) => Price::from_wei_per_mib(U256::from_str_radix(wei, 10).ok()?),
    };
    let wallet = text("wallet")?.map(str::parse).transpose().ok()?;
    Some((price, wallet))
}

/// Reads `{"chunks":n,"runs":[[first,end],…],…}`.
fn parse_coverage(value: &Value, layout: ChunkLayout) -> Option<Coverage> {
    if value.get("chunks")?.as_u64()? != u64::from(layout.count()) {
        return None;
    }
    let index = |value: &Value| u32::try_from(value.as_u64()?).ok();
    let run = |value: &Value| match value.as_array()?.as_slice() {
        [first, end] => Some((index(first)?, index(end)?)),
        _ => None,
    };
    let runs: Option<Vec<_>> = value.get("runs")?.as_array()?.iter().map(run).collect();
    let runs = ChunkRuns::new(runs?, layout).ok()?;
    let complete = runs.count() == u64::from(layout.count());
    Some(if complete {
        Coverage::Complete
    } else {
        Coverage::Partial(runs)
    })
}

#[async_trait]
impl ChunkSource for HttpSource {
    fn offer(&self) -> &PeerOffer {
        &self.offer
    }

    fn size(&self) -> Option<u64> {
        Some(self.place.size)
    }

    fn grid(&self) -> RequestGrid {
        self.grid
    }

    fn max_requests(&self) -> usize {
        self.place.pool.max_ranges(self.place.payer.is_some())
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        let Some(header) = &self.header else {
            return Ok(Coverage::Complete);
        };
        let bytes = self.ask(Part::Coverage, MAX_COVERAGE_LEN).await?;
        header
            .layout()
            .ok()
            .and_then(|layout| parse_coverage(&serde_json::from_slice(&bytes).ok()?, layout))
            .ok_or_else(|| protocol(self.name(), "a malformed coverage"))
    }

    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok(self.header.clone())
    }

    async fn manifest_page(&self, index: u32) -> Result<ManifestPage, TransferError> {
        let bytes = self.ask(Part::Page(index), MAX_PAGE_LEN).await?;
        ManifestPage::decode(&bytes).map_err(|_| protocol(self.name(), "a malformed manifest page"))
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        let size = self.place.size;
        let error = if range.end > size {
            let what = "bytes past its end";
            TransferError::Missing {
                source_name: self.name().to_string(),
                what,
            }
        } else if self.grid.expand(range, size) != range {
            let operation = "parts of a file that its mirror serves whole only";
            TransferError::Unsupported {
                protocol: Protocol::Http,
                operation,
            }
        } else {
            return fetch(self.place.clone(), range);
        };
        Box::pin(futures_util::stream::iter([Err(error)]))
    }

    async fn verified(&self, range: ByteRange) {
        if let Some(payer) = &self.place.payer {
            payer.verified(range).await;
        }
    }

    fn root_known(&self) {
        if let Some(payer) = &self.place.payer {
            payer.root_known();
        }
    }

    fn is_paying(&self) -> bool {
        self.place
            .payer
            .as_ref()
            .is_some_and(|payer| payer.is_paying())
    }

    async fn close(&self) {
        self.place.permits.close();
        if let Some(payer) = &self.place.payer {
            payer.finish().await;
        }
        self.place.pool.close();
    }
}

impl Drop for HttpSource {
    fn drop(&mut self) {
        self.place.permits.close();
        self.place.pool.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strange_coverage_is_refused() {
        let layout = ChunkLayout::new(10 * 262_144).unwrap();
        let parse = |text: &str| parse_coverage(&serde_json::from_str(text).ok()?, layout);
        assert_eq!(
            parse(r#"{"chunks":10,"runs":[[0,10]]}"#),
            Some(Coverage::Complete)
        );
        let some = ChunkRuns::new(vec![(0, 1), (5, 9)], layout).unwrap();
        let expected = Some(Coverage::Partial(some));
        assert_eq!(
            parse(r#"{"chunks":10,"runs":[[0,1],[5,9]],"later":1}"#),
            expected
        );
        assert_eq!(
            parse(r#"{"chunks":10,"runs":[]}"#),
            Some(Coverage::Partial(ChunkRuns::default()))
        );
        for bad in [
            r#"{"chunks":9,"runs":[]}"#,
            r#"{"chunks":10}"#,
            r#"{"chunks":10,"runs":[[0,11]]}"#,
            r#"{"chunks":10,"runs":[[0,1],[1,2]]}"#,
            r#"{"chunks":10,"runs":[[1,0]]}"#,
            r#"{"chunks":10,"runs":[[0,1,2]]}"#,
            r#"{"chunks":10,"runs":[[-1,2]]}"#,
            r#"{"chunks":10,"runs":[[0,4294967297]]}"#,
            r#"{"chunks":10,"runs":{"0":1}}"#,
            r#"[]"#,
            "",
            "null",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }

    #[test]
    fn prices_are_exact_or_refused() {
        let parse = |text: &str| parse_tariff(&serde_json::from_str(text).unwrap());
        assert_eq!(parse("{}"), Some((Price::FREE, None)));
        let wallet = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let text = format!(r#"{{"price_wei_per_mib":"1000000000000000","wallet":"{wallet}"}}"#);
        let price = "0.001".parse().unwrap();
        assert_eq!(parse(&text), Some((price, wallet.parse().ok())));
        for bad in [
            r#"{"price_wei_per_mib":1}"#,
            r#"{"price_wei_per_mib":"-1"}"#,
            r#"{"price_wei_per_mib":"1.5"}"#,
            r#"{"wallet":"0x12"}"#,
            r#"{"wallet":[]}"#,
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_coverage_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(value) = serde_json::from_slice(&bytes) {
                let _ = parse_coverage(&value, ChunkLayout::new(1 << 40).unwrap());
                let _ = parse_tariff(&value);
            }
        }
    }
}
