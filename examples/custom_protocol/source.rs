//! [`ExampleSource`]: one seeder, delivering the byte ranges that it is asked for.

use async_trait::async_trait;
use bytes::BytesMut;
use chiral::core::{ChunkSource, Coverage, Delivery, DeliveryStream, ManifestPage, RequestGrid};
use chiral::{ByteRange, Cid, ManifestHeader, PeerOffer, TransferError};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes handed on at a time.
const PART: usize = 64 << 10;

/// A seeder, as a client sees it. Each request has a connection of its own.
#[derive(Debug)]
pub(crate) struct ExampleSource {
    pub(crate) offer: PeerOffer,
    pub(crate) cid: Cid,
}

#[async_trait]
impl ChunkSource for ExampleSource {
    fn offer(&self) -> &PeerOffer {
        &self.offer
    }

    fn size(&self) -> Option<u64> {
        self.offer.header.as_ref().map(|header| header.size)
    }

    fn grid(&self) -> RequestGrid {
        RequestGrid::ANY
    }

    fn max_requests(&self) -> usize {
        4
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        Ok(self.offer.coverage.clone().unwrap_or(Coverage::Complete))
    }

    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok(None)
    }

    async fn manifest_page(&self, _index: u32) -> Result<ManifestPage, TransferError> {
        let source_name = self.offer.endpoint.to_string();
        Err(TransferError::Missing {
            source_name,
            what: "a manifest",
        })
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        let (place, cid) = (self.offer.endpoint.to_string(), self.cid);
        let first: (Option<TcpStream>, _) = (None, range);
        // Asks when it is first read, and reads no faster than it is read: what nobody takes
        // stays in the socket, and that is the back-pressure. Dropping it hangs up.
        Box::pin(stream::try_unfold(first, move |(connection, left)| {
            let place = place.clone();
            async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let step = async {
                    let mut connection = match connection {
                        Some(connection) => connection,
                        None => ask(&place, cid, left).await?,
                    };
                    let mut bytes = BytesMut::zeroed(PART.min(left.len() as usize));
                    connection.read_exact(&mut bytes).await?;
                    Ok::<_, std::io::Error>((connection, bytes.freeze()))
                };
                let (connection, bytes) = step.await.map_err(|source| {
                    let source_name = place.clone();
                    TransferError::Connection {
                        source_name,
                        source: source.into(),
                    }
                })?;
                let rest = ByteRange::new(left.start + bytes.len() as u64, left.end);
                let delivery = Delivery {
                    offset: left.start,
                    bytes,
                };
                Ok(Some((delivery, (Some(connection), rest))))
            }
        }))
    }

    async fn close(&self) {}
}

/// Connects and sends a request: 32 bytes of cid, 8 of offset, 8 of length.
async fn ask(place: &str, cid: Cid, range: ByteRange) -> std::io::Result<TcpStream> {
    let mut connection = TcpStream::connect(place).await?;
    let mut request = cid.as_bytes().to_vec();
    request.extend(range.start.to_be_bytes());
    request.extend(range.len().to_be_bytes());
    connection.write_all(&request).await?;
    Ok(connection)
}
