//! [`PrivateSource`]: a seeder of the private protocol as a [`ChunkSource`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use chiral_core::{
    Address, ByteRange, ChunkLayout, ChunkRuns, ChunkSource, Cid, Coverage, DeliveryStream,
    Endpoint, ManifestHeader, ManifestPage, MerkleRoot, NetworkError, PaymentAgent, PeerId,
    PeerNetwork, PeerOffer, Price, Purchase, RequestGrid, TransferError, U256,
};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::STREAM_NAME;
use super::checkout::Checkout;
use super::config::PrivateConfig;
use super::frame::Frame;
use super::messages::{
    Body, ChunkRequest, ChunkResponse, MAX_WANTS, OpenSession, PaymentBatch, RequestHave,
    RequestPage, SessionAccepted, VERSION,
};
use super::request::fetch;
use super::session::{Session, connection, failure, protocol, timed_out};
use crate::payer::{Carrier, Patience, Payer};

/// How long what is being bought may take when a source is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// What sources are made with.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) network: Arc<dyn PeerNetwork>,
    pub(super) agent: Option<Arc<dyn PaymentAgent>>,
    pub(super) config: PrivateConfig,
    pub(super) closed: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Sessions with one peer, for one file: one at a time, opened again if it broke.
#[derive(Debug)]
pub(super) struct Line {
    network: Arc<dyn PeerNetwork>,
    peer: PeerId,
    name: Endpoint,
    open: OpenSession,
    config: PrivateConfig,
    closed: CancellationToken,
    tasks: TaskTracker,
    session: Mutex<Option<Arc<Session>>>,
}

impl Line {
    pub(super) fn new(client: &Client, peer: PeerId, name: Endpoint, file_hash: Bytes) -> Self {
        Self {
            network: client.network.clone(),
            peer,
            name,
            open: OpenSession {
                file_hash,
                version: VERSION,
            },
            config: client.config.clone(),
            closed: client.closed.child_token(),
            tasks: client.tasks.clone(),
            session: Mutex::default(),
        }
    }

    /// The session, opened if there is none, and what the seeder said in the latter case.
    async fn session(&self) -> Result<(Arc<Session>, Option<SessionAccepted>), TransferError> {
        if self.closed.is_cancelled() {
            return Err(TransferError::Closed);
        }
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref().filter(|session| !session.is_over()) {
            return Ok((session.clone(), None));
        }
        let name = &self.name;
        let stream = self.network.open(&self.peer, STREAM_NAME).await;
        let stream = stream.map_err(|error| match error {
            NetworkError::Unsupported { .. } => TransferError::Refused {
                source_name: name.to_string(),
                reason: "it does not speak the private protocol".to_owned(),
                retryable: false,
            },
            NetworkError::Closed => TransferError::Closed,
            NetworkError::Relayed { .. } => TransferError::Refused {
                source_name: name.to_string(),
                reason: "only a relayed connection leads there, which carries no data".to_owned(),
                retryable: true,
            },
            error => connection(name, error),
        })?;
        let open = Body::OpenSession(self.open.clone());
        let wait = self.config.answer_timeout;
        let (closed, tasks) = (&self.closed, &self.tasks);
        let opened = Session::open(stream, name.clone(), open, wait, closed, tasks);
        let (session, answer) = match self.closed.run_until_cancelled(opened).await {
            Some(opened) => opened?,
            None => return Err(TransferError::Closed),
        };
        match answer.body {
            Body::SessionAccepted(accepted) if accepted.version > VERSION => {
                Err(protocol(name, "a version that was not offered"))
            }
            Body::SessionAccepted(accepted) => {
                let session = Arc::new(session);
                *held = Some(session.clone());
                Ok((session, Some(accepted)))
            }
            Body::Failed(failed) => Err(failure(name, &failed)),
            _ => Err(protocol(name, "an answer that opens no session")),
        }
    }

    pub(super) async fn question(&self, body: Body) -> Result<Frame, TransferError> {
        self.session().await?.0.question(body).await
    }

    /// Asks for single chunks; an answer for each want.
    pub(super) async fn chunks(
        &self,
        request: ChunkRequest,
    ) -> Result<Vec<Result<(ChunkResponse, Bytes), TransferError>>, TransferError> {
        let name = &self.name;
        let wants = request.wants.clone();
        if wants.is_empty() || wants.len() > MAX_WANTS {
            return Err(protocol(name, "a want-list of no possible length"));
        }
        let session = self.session().await?.0;
        let asked = session.ask_many(Body::ChunkRequest(request), wants.len());
        let mut answers = Vec::with_capacity(wants.len());
        for (want, mut asking) in wants.iter().zip(asked.await?) {
            let frame = timeout(self.config.idle_timeout, asking.next()).await;
            let Frame { body, data, .. } = frame.map_err(|_| timed_out(name))??;
            asking.answered();
            let its = data.len() as u64 == want.length;
            answers.push(match body {
                Body::ChunkResponse(response) if its && response.offset == want.offset => {
                    Ok((response, data))
                }
                Body::PaymentRequired(required) => Err(TransferError::PaymentRequired {
                    source_name: name.to_string(),
                    offer: required.terms,
                }),
                Body::Failed(failed) => Err(failure(name, &failed)),
                _ => return Err(protocol(name, "an answer that answers nothing")),
            });
        }
        Ok(answers)
    }

    /// Ends the session, and opens none any more.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        if let Some(session) = self.session.lock().await.take() {
            session.close();
        }
    }
}

#[async_trait]
impl Carrier for Line {
    fn name(&self) -> &Endpoint {
        &self.name
    }

    async fn carry(&self, message: Bytes) -> Result<Bytes, TransferError> {
        let batch = Body::PaymentBatch(PaymentBatch { message });
        match self.question(batch).await?.body {
            Body::PaymentAnswer(answer) => Ok(answer.message),
            _ => Err(protocol(&self.name, "an answer that answers nothing")),
        }
    }
}

/// A seeder, with what requests need.
#[derive(Debug)]
pub(super) struct Seeder {
    pub(super) name: Endpoint,
    pub(super) config: PrivateConfig,
    pub(super) payer: Option<Arc<Payer>>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) layout: ChunkLayout,
    line: Arc<Line>,
    /// There is one if there is somebody who pays.
    checkout: Option<Arc<Checkout>>,
    /// Nothing is bought any more.
    closing: CancellationToken,
}

impl Seeder {
    pub(super) async fn session(&self) -> Result<Arc<Session>, TransferError> {
        Ok(self.line.session().await?.0)
    }

    /// What sealed chunks need.
    pub(super) fn sealing(&self) -> Option<(Arc<Payer>, Arc<Checkout>)> {
        Some((self.payer.clone()?, self.checkout.clone()?))
    }
}

/// A session with a seeder of one file. See [`ChunkSource`] for what is promised.
#[derive(Debug)]
pub struct PrivateSource {
    offer: PeerOffer,
    header: ManifestHeader,
    layout: ChunkLayout,
    seeder: Arc<Seeder>,
}

impl PrivateSource {
    pub(super) async fn connect(
        client: &Client,
        offer: &PeerOffer,
        peer: PeerId,
        cid: Cid,
    ) -> Result<Self, TransferError> {
        let name = offer.endpoint.clone();
        let file_hash = Bytes::copy_from_slice(cid.as_bytes());
        let line = Arc::new(Line::new(client, peer.clone(), name.clone(), file_hash));
        let (_, accepted) = line.session().await?;
        let accepted = accepted.ok_or(TransferError::Closed)?;
        let header = ManifestHeader::decode(&accepted.manifest_header)
            .map_err(|_| protocol(&name, "a malformed manifest header"))?;
        if header.cid != cid {
            return Err(protocol(&name, "the manifest header of another file"));
        }
        let layout = header
            .layout()
            .map_err(|_| protocol(&name, "a size over the format's limit"))?;
        let mut offer = offer.clone().with_peer(peer);
        // Named by hand, and announced by nobody: what it asks it says itself. Whoever was
        // announced is held to that.
        if offer.valid_until.is_none() && offer.wallet.is_none() {
            (offer.price, offer.wallet) =
                tariff(&accepted).ok_or_else(|| protocol(&name, "a malformed price"))?;
        }
        offer.coverage = Some(have(&line, layout).await?);
        let config = client.config.clone();
        let payer = client.agent.as_ref().map(|agent| {
            let patience = Patience {
                timeout: config.payment_timeout,
                attempts: config.payment_attempts,
            };
            Arc::new(Payer::new(
                agent.clone(),
                Purchase::new(cid, offer.clone()),
                line.clone(),
                patience,
                line.closed.clone(),
                client.tasks.clone(),
            ))
        });
        let permits = Arc::new(Semaphore::new(config.max_requests));
        let closing = CancellationToken::new();
        let checkout = payer.as_ref().map(|payer| {
            let (checkout, parcels) = Checkout::new(config.sealed_ahead, layout);
            let run = checkout
                .clone()
                .run(parcels, payer.clone(), line.clone(), closing.clone());
            let closed = line.closed.clone();
            client.tasks.spawn(closed.run_until_cancelled_owned(run));
            checkout
        });
        let seeder = Seeder {
            name,
            config,
            payer,
            permits,
            layout,
            line,
            checkout,
            closing,
        };
        Ok(Self {
            offer,
            header,
            layout,
            seeder: Arc::new(seeder),
        })
    }
}

/// What it asks; free if it says nothing.
fn tariff(accepted: &SessionAccepted) -> Option<(Price, Option<Address>)> {
    let price = U256::try_from_be_slice(&accepted.price)?;
    let wallet = match accepted.wallet.len() {
        0 => None,
        20 => Some(Address::from_slice(&accepted.wallet)),
        _ => return None,
    };
    Some((Price::from_wei_per_mib(price), wallet))
}

async fn have(line: &Line, layout: ChunkLayout) -> Result<Coverage, TransferError> {
    let answer = line.question(Body::RequestHave(RequestHave {})).await?;
    match answer.body {
        Body::Have(_) => parse_have(answer.data, layout)
            .ok_or_else(|| protocol(&line.name, "a malformed coverage")),
        _ => Err(protocol(&line.name, "an answer that answers nothing")),
    }
}

/// Runs of chunks as they are sent.
pub(super) fn write_have(runs: &ChunkRuns) -> Bytes {
    let numbers = runs.iter().flat_map(|run| [run.start, run.end]);
    numbers.flat_map(u32::to_be_bytes).collect()
}

fn parse_have(mut data: Bytes, layout: ChunkLayout) -> Option<Coverage> {
    if !data.len().is_multiple_of(8) {
        return None;
    }
    let mut runs = Vec::with_capacity(data.len() / 8);
    while data.has_remaining() {
        runs.push((data.get_u32(), data.get_u32()));
    }
    let runs = ChunkRuns::new(runs, layout).ok()?;
    let complete = runs.count() == u64::from(layout.count());
    Some(if complete {
        Coverage::Complete
    } else {
        Coverage::Partial(runs)
    })
}

#[async_trait]
impl ChunkSource for PrivateSource {
    fn offer(&self) -> &PeerOffer {
        &self.offer
    }

    fn size(&self) -> Option<u64> {
        Some(self.layout.size())
    }

    fn grid(&self) -> RequestGrid {
        RequestGrid::ANY
    }

    fn max_requests(&self) -> usize {
        self.seeder.config.max_requests
    }

    async fn coverage(&self) -> Result<Coverage, TransferError> {
        have(&self.seeder.line, self.layout).await
    }

    async fn manifest_header(&self) -> Result<Option<ManifestHeader>, TransferError> {
        Ok(Some(self.header.clone()))
    }

    async fn manifest_page(&self, index: u32) -> Result<ManifestPage, TransferError> {
        let name = &self.seeder.name;
        let page = Body::RequestPage(RequestPage { index });
        let answer = self.seeder.line.question(page).await?;
        match answer.body {
            Body::Page(_) => ManifestPage::decode(&answer.data)
                .map_err(|_| protocol(name, "a malformed manifest page")),
            _ => Err(protocol(name, "an answer that answers nothing")),
        }
    }

    fn fetch(&self, range: ByteRange) -> DeliveryStream {
        if range.end > self.layout.size() {
            let error = TransferError::Missing {
                source_name: self.seeder.name.to_string(),
                what: "bytes past its end",
            };
            return Box::pin(futures_util::stream::iter([Err(error)]));
        }
        fetch(self.seeder.clone(), range)
    }

    async fn verified(&self, range: ByteRange) {
        let Some(payer) = &self.seeder.payer else {
            return;
        };
        match self.seeder.checkout.as_ref().filter(|it| it.has_sold()) {
            // What was bought sealed was verified, and paid for, when it was opened.
            Some(checkout) => {
                for range in checkout.not_sold(range) {
                    payer.verified(range).await;
                }
            }
            None => payer.verified(range).await,
        }
    }

    fn root_known(&self) {
        if let Some(payer) = &self.seeder.payer {
            payer.root_known();
        }
    }

    fn root_is(&self, root: MerkleRoot) {
        if let Some(checkout) = &self.seeder.checkout {
            checkout.root_is(root);
        }
        self.root_known();
    }

    fn lends(&self) -> u64 {
        let payer = self.seeder.payer.as_ref();
        payer.map_or(u64::MAX, |payer| payer.most_at_once())
    }

    fn proven_from(&self, offset: u64) {
        if let Some(payer) = &self.seeder.payer {
            payer.proven_from(offset);
        }
    }

    fn is_paying(&self) -> bool {
        let payer = self.seeder.payer.as_ref();
        payer.is_some_and(|payer| payer.is_paying())
    }

    async fn close(&self) {
        self.seeder.permits.close();
        self.seeder.closing.cancel();
        if let Some(checkout) = &self.seeder.checkout {
            checkout.close();
            if timeout(FAREWELL, checkout.ended()).await.is_err() {
                tracing::debug!(source = %self.seeder.name, "a purchase was cut short");
            }
        }
        if let Some(payer) = &self.seeder.payer {
            payer.finish().await;
        }
        self.seeder.line.close().await;
    }
}

impl Drop for PrivateSource {
    fn drop(&mut self) {
        self.seeder.permits.close();
        self.seeder.line.closed.cancel();
    }
}
