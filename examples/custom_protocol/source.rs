//! [`ExampleSource`]: one seeder, delivering the byte ranges that it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chiral::core::payment_gate::{AgreeError, agree};
use chiral::core::{
    ChunkSource, Coverage, Delivery, DeliveryStream, ManifestPage, PaymentAgent, Purchase,
    RequestGrid,
};
use chiral::{ByteRange, Endpoint, ManifestHeader, PeerOffer, TransferError};
use futures_util::stream;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::wire::{Answer, Request};

/// Bytes handed on at a time.
const PART: usize = 64 << 10;

/// Times that one request agrees on payment before it gives up.
const MAX_AGREEMENTS: usize = 8;

/// A seeder, as a client sees it. Each request has a connection of its own.
#[derive(Debug)]
pub(crate) struct ExampleSource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    purchase: Purchase,
    agent: Arc<dyn PaymentAgent>,
    root_known: AtomicBool,
    /// Requests that wait for an agreement.
    paying: AtomicUsize,
    /// Held by the one that seeks it.
    talk: tokio::sync::Mutex<()>,
}

impl ExampleSource {
    pub(crate) fn new(purchase: Purchase, agent: Arc<dyn PaymentAgent>) -> Self {
        Self(Arc::new(Inner {
            purchase,
            agent,
            root_known: AtomicBool::new(false),
            paying: AtomicUsize::new(0),
            talk: tokio::sync::Mutex::default(),
        }))
    }
}

impl Inner {
    fn place(&self) -> &Endpoint {
        &self.purchase.offer.endpoint
    }

    fn purchase(&self) -> Purchase {
        let known = self.root_known.load(Ordering::Relaxed);
        self.purchase.clone().with_root_known(known)
    }

    fn refused(&self, reason: impl ToString, retryable: bool) -> TransferError {
        TransferError::Refused {
            source_name: self.place().to_string(),
            reason: reason.to_string(),
            retryable,
        }
    }

    /// Asks for bytes, and agrees on payment as often as that is asked for.
    async fn ask(&self, range: ByteRange) -> Result<TcpStream, TransferError> {
        let mut paying = None;
        for _ in 0..MAX_AGREEMENTS {
            let purchase = self.purchase();
            let credential = self.agent.credential(&purchase, range).await;
            let credential = credential.map_err(|e| self.refused(&e, e.is_retryable()))?;
            let cid = purchase.cid;
            let request = Request::Bytes {
                cid,
                range,
                credential,
            };
            match exchange(self.place(), request).await? {
                (connection, Answer::Granted) => return Ok(connection),
                (_, Answer::Payment(terms)) => {
                    paying.get_or_insert_with(|| Paying::new(&self.paying));
                    let _talk = self.talk.lock().await;
                    let carry = |message| carry(self.place(), message);
                    let agreed = agree(&*self.agent, &purchase, terms, carry).await;
                    agreed.map_err(|error| {
                        let again = matches!(&error, AgreeError::Agent(e) if e.is_retryable())
                            || matches!(&error, AgreeError::Carrier(e) if e.is_retryable());
                        self.refused(error, again)
                    })?;
                }
                (_, Answer::Refused) => return Err(self.refused("not served", false)),
            }
        }
        Err(self.refused("asks for payment again and again", true))
    }

    /// Acknowledges what was verified, if the agent thinks that it is time.
    async fn acknowledge(&self) {
        let _talk = self.talk.lock().await;
        let purchase = self.purchase();
        let Ok(Some(due)) = self.agent.due(&purchase).await else {
            return;
        };
        let carry = |message| carry(self.place(), message);
        // One that is lost is made up for by the next.
        if let Ok(answer) = carry(due).await {
            agree(&*self.agent, &purchase, answer, carry)
                .await
                .unwrap_or_default();
        }
    }
}

/// Counts a request that waits for an agreement, for as long as it does.
struct Paying<'a>(&'a AtomicUsize);

impl<'a> Paying<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Paying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl ChunkSource for ExampleSource {
    fn offer(&self) -> &PeerOffer {
        &self.0.purchase.offer
    }

    fn size(&self) -> Option<u64> {
        self.offer().header.as_ref().map(|header| header.size)
    }

    fn grid(&self) -> RequestGrid {
        RequestGrid::ANY
    }

    fn max_requests(&self) -> usize {
        4
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        Ok(self.offer().coverage.clone().unwrap_or(Coverage::Complete))
    }

    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok(None)
    }

    async fn manifest_page(&self, _index: u32) -> Result<ManifestPage, TransferError> {
        let source_name = self.offer().endpoint.to_string();
        Err(TransferError::Missing {
            source_name,
            what: "a manifest",
        })
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        let inner = self.0.clone();
        let first: (Option<TcpStream>, _) = (None, range);
        // Asks when it is first read, and reads no faster than it is read: what nobody takes
        // stays in the socket, and that is the back-pressure. Dropping it hangs up.
        Box::pin(stream::try_unfold(first, move |(connection, left)| {
            let inner = inner.clone();
            async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let mut connection = match connection {
                    Some(connection) => connection,
                    None => inner.ask(left).await?,
                };
                let mut bytes = BytesMut::zeroed(PART.min(left.len() as usize));
                let read = connection.read_exact(&mut bytes).await;
                read.map_err(|error| broken(inner.place(), error))?;
                let rest = ByteRange::new(left.start + bytes.len() as u64, left.end);
                let delivery = Delivery::new(left.start, bytes.freeze());
                Ok(Some((delivery, (Some(connection), rest))))
            }
        }))
    }

    async fn verified(&self, range: ByteRange) {
        self.0.agent.verified(&self.0.purchase(), range).await;
        self.0.acknowledge().await;
    }

    fn root_known(&self) {
        self.0.root_known.store(true, Ordering::Relaxed);
    }

    fn is_paying(&self) -> bool {
        self.0.paying.load(Ordering::Relaxed) > 0
    }

    async fn close(&self) {
        self.0.acknowledge().await;
    }
}

/// Takes a message to a seeder's payment gate, and brings its answer.
pub(crate) async fn carry(place: &Endpoint, message: Bytes) -> Result<Bytes, TransferError> {
    match exchange(place, Request::Payment(message)).await? {
        (_, Answer::Payment(answer)) => Ok(answer),
        _ => Err(TransferError::Refused {
            source_name: place.to_string(),
            reason: "the message was not taken".to_owned(),
            retryable: true,
        }),
    }
}

async fn exchange(
    place: &Endpoint,
    request: Request,
) -> Result<(TcpStream, Answer), TransferError> {
    let exchange = async {
        let mut connection = TcpStream::connect(place.as_str()).await?;
        request.send(&mut connection).await?;
        let answer = Answer::receive(&mut connection).await?;
        Ok((connection, answer))
    };
    exchange.await.map_err(|error| broken(place, error))
}

fn broken(place: &Endpoint, error: std::io::Error) -> TransferError {
    TransferError::Connection {
        source_name: place.to_string(),
        source: error.into(),
    }
}
