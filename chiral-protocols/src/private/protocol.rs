//! [`PrivateProtocol`]: the private protocol as a [`ContentProtocol`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::peer_network::{BoxedPeerStream, IncomingStreams};
use chiral_core::{
    Capabilities, ChunkSource, ChunkStore, Cid, ContentProtocol, Endpoint, FileIdentification,
    FileMetadata, NetworkError, PaymentAgent, PaymentGate, PeerId, PeerNetwork, PeerOffer,
    Protocol, SeedRequest, StoreError, TransferError, TransferRegistry,
};
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::STREAM_NAME;
use super::config::PrivateConfig;
use super::frame::Frame;
use super::messages::{Body, ChunkRequest, ChunkResponse, FileRequest, FileResponse};
use super::serve::Host;
use super::session::protocol;
use super::source::{Client, Line, PrivateSource};
use crate::chunk_hashes::ChunkHashes;
use crate::payer::Carrier;
use crate::seeds::{Seeds, cid_of};

/// Name under which content is pinned that was imported to be seeded here.
const PIN: &str = "private";

/// What stands before a peer id in an endpoint.
const PREFIX: &str = "/p2p/";

/// Why the protocol could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// The network does not accept sessions for us.
    #[error("sessions of the private protocol cannot be accepted")]
    Network(#[from] NetworkError),
}

/// Fetches and serves over streams between peers.
///
/// Must be [shut down](ContentProtocol::shutdown): dropping it cuts everything off.
#[derive(Debug)]
pub struct PrivateProtocol {
    client: Client,
    registry: TransferRegistry,
    host: Arc<Host>,
}

impl PrivateProtocol {
    /// Begins to accept sessions, if the configuration says so. Needs a tokio runtime with
    /// time.
    ///
    /// # Errors
    /// [`PrivateError`]: somebody accepts them already, or the network is shut down.
    pub async fn start(
        config: PrivateConfig,
        network: Arc<dyn PeerNetwork>,
        store: Arc<dyn ChunkStore>,
        registry: TransferRegistry,
        gate: Arc<dyn PaymentGate>,
    ) -> Result<Self, PrivateError> {
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let host = Arc::new(Host {
            seeds: Arc::new(Seeds::new(store)),
            hashes: ChunkHashes::default(),
            gate,
            config: config.clone(),
            tasks: tasks.clone(),
            begun: Instant::now(),
        });
        if config.serve {
            let incoming = network.accept(STREAM_NAME).await?;
            let accepting = accept(incoming, host.clone(), tasks.clone(), closed.clone());
            tasks.spawn(closed.clone().run_until_cancelled_owned(accepting));
        }
        let client = Client {
            network,
            agent: None,
            config,
            closed,
            tasks,
        };
        Ok(Self {
            client,
            registry,
            host,
        })
    }

    /// Pays through this agent; without one, seeders that ask for payment answer
    /// [`TransferError::PaymentRequired`].
    #[must_use]
    pub fn with_agent(mut self, agent: Arc<dyn PaymentAgent>) -> Self {
        self.client.agent = Some(agent);
        self
    }

    /// The endpoint by which a peer is found.
    pub fn endpoint_of(peer: &PeerId) -> Option<Endpoint> {
        Endpoint::new(format!("{PREFIX}{peer}")).ok()
    }

    /// Some bytes of a file, without a session for it: at most to the end of the chunk that
    /// they begin in, unverified. A chunk that follows one whose hash is known is checked
    /// against the answer's `next_chunk_hash` of the one before.
    ///
    /// # Errors
    /// [`TransferError`]; [`TransferError::PaymentRequired`] if it is not free.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request.
    pub async fn request_file(
        &self,
        offer: &PeerOffer,
        request: FileRequest,
    ) -> Result<(FileResponse, Bytes), TransferError> {
        self.open()?;
        let name = offer.endpoint.clone();
        let most = request.length;
        let line = Line::new(&self.client, peer_of(offer)?, name.clone(), Bytes::new());
        let question = line.question(Body::FileRequest(request));
        let answer = self.client.closed.run_until_cancelled(question).await;
        line.close().await;
        let Frame { body, data, .. } = answer.unwrap_or(Err(TransferError::Closed))?;
        match body {
            Body::FileResponse(response) if !data.is_empty() && data.len() as u64 <= most => {
                Ok((response, data))
            }
            Body::PaymentRequired(required) => Err(TransferError::PaymentRequired {
                source_name: name.to_string(),
                offer: required.terms,
            }),
            _ => Err(protocol(&name, "an answer that answers nothing")),
        }
    }

    /// Chunks of a file, each on its own and unverified, with a payment that the seeder's gate
    /// looks at first: say, the notice of a transaction. There is an answer for each want, in
    /// their order, sealed where that was asked for.
    ///
    /// # Errors
    /// [`TransferError`], if there is no session or it breaks. What is wrong with one want is
    /// the answer to that one: [`TransferError::PaymentRequired`] with the seeder's terms, if it
    /// is not free.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request; the payment may have been seen.
    pub async fn request_chunks(
        &self,
        offer: &PeerOffer,
        cid: Cid,
        request: ChunkRequest,
    ) -> Result<Vec<Result<(ChunkResponse, Bytes), TransferError>>, TransferError> {
        self.open()?;
        let (peer, name) = (peer_of(offer)?, offer.endpoint.clone());
        let line = Line::new(
            &self.client,
            peer,
            name.clone(),
            Bytes::copy_from_slice(cid.as_bytes()),
        );
        let work = line.chunks(request);
        let answers = self.client.closed.run_until_cancelled(work).await;
        line.close().await;
        answers.unwrap_or(Err(TransferError::Closed))
    }

    fn open(&self) -> Result<(), TransferError> {
        match self.client.closed.is_cancelled() {
            true => Err(TransferError::Closed),
            false => Ok(()),
        }
    }
}

/// Whom an offer names: a peer that is announced is the one that is meant, wherever its
/// endpoint points.
fn peer_of(offer: &PeerOffer) -> Result<PeerId, TransferError> {
    let name = &offer.endpoint;
    let named = name.as_str().rsplit_once(PREFIX);
    let named: Option<PeerId> = named.and_then(|(_, peer)| peer.parse().ok());
    match (&offer.peer, named) {
        (Some(peer), Some(named)) if *peer != named => {
            Err(protocol(name, "an endpoint of another peer"))
        }
        (Some(peer), _) => Ok(peer.clone()),
        (None, Some(named)) => Ok(named),
        (None, None) => Err(protocol(name, "an endpoint without a peer")),
    }
}

/// Sessions that are held, by peer.
type Sessions = Arc<Mutex<BTreeMap<PeerId, usize>>>;

/// A place among the sessions.
struct Place {
    sessions: Sessions,
    peer: PeerId,
}

impl Place {
    /// A place, if there is one.
    fn take(sessions: &Sessions, peer: &PeerId, config: &PrivateConfig) -> Option<Self> {
        let mut held = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = held.get(peer).copied().unwrap_or(0);
        let all: usize = held.values().sum();
        if of_peer >= config.max_sessions_per_peer || all >= config.max_sessions {
            return None;
        }
        held.insert(peer.clone(), of_peer + 1);
        Some(Self {
            sessions: sessions.clone(),
            peer: peer.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

async fn accept(
    mut incoming: IncomingStreams,
    host: Arc<Host>,
    tasks: TaskTracker,
    closed: CancellationToken,
) {
    let sessions = Sessions::default();
    while let Some((peer, stream)) = incoming.next().await {
        let stream: BoxedPeerStream = stream;
        // Over the limit it is dropped, which resets it: the other side may try again.
        if let Some(place) = Place::take(&sessions, &peer, &host.config) {
            let session = host.clone().serve(stream);
            let closed = closed.clone();
            tasks.spawn(async move {
                closed.run_until_cancelled(session).await;
                drop(place);
            });
        }
    }
}

#[async_trait]
impl ContentProtocol for PrivateProtocol {
    fn name(&self) -> Protocol {
        Protocol::Private
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::fetch_and_seed();
        capabilities.seed = self.client.config.serve;
        capabilities
    }

    fn registry(&self) -> &TransferRegistry {
        &self.registry
    }

    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        self.open()?;
        let cid = cid_of(offer, target)?;
        let connect = PrivateSource::connect(&self.client, offer, peer_of(offer)?, cid);
        let source = self.client.closed.run_until_cancelled(connect).await;
        Ok(Arc::new(source.unwrap_or(Err(TransferError::Closed))?))
    }

    async fn start_seeding(&self, request: SeedRequest) -> Result<FileMetadata, TransferError> {
        self.open()?;
        if !self.client.config.serve {
            return Err(TransferError::Unsupported {
                protocol: Protocol::Private,
                operation: "seeding by a node that only fetches",
            });
        }
        let cid = self
            .host
            .seeds
            .import(&request, PIN, Protocol::Private)
            .await?;
        let content = self.host.seeds.store().open(cid).await?;
        let content = content.ok_or(StoreError::NotFound { cid })?;
        let header = content.header().clone();
        self.host.seeds.insert(header.clone());
        let tariff = self.host.gate.tariff(cid);
        let offer = |endpoint| {
            let mut offer = PeerOffer::new(Protocol::Private, endpoint);
            offer.peer = Some(self.client.network.local_peer());
            offer.header = Some(header.clone());
            offer.coverage = Some(content.coverage());
            (offer.price, offer.wallet) = (tariff.price, tariff.wallet);
            offer
        };
        let offers = self.endpoints().into_iter().map(offer).collect();
        Ok(FileMetadata::new(header, offers))
    }

    /// Sessions that are held go on to their end.
    async fn stop_seeding(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let Some(cid) = self.host.seeds.find(target) else {
            return Ok(false);
        };
        let was_served = self.host.seeds.remove(cid);
        self.host.seeds.unpin(cid, PIN).await?;
        Ok(was_served)
    }

    async fn payment_message(
        &self,
        offer: &PeerOffer,
        message: Bytes,
    ) -> Result<Bytes, TransferError> {
        self.open()?;
        let (peer, name) = (peer_of(offer)?, offer.endpoint.clone());
        let line = Line::new(&self.client, peer, name, Bytes::new());
        let answer = self
            .client
            .closed
            .run_until_cancelled(line.carry(message))
            .await;
        line.close().await;
        answer.unwrap_or(Err(TransferError::Closed))
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let peer = self.client.network.local_peer();
        let served = self.client.config.serve.then(|| Self::endpoint_of(&peer));
        served.flatten().into_iter().collect()
    }

    async fn shutdown(&self) -> Result<(), TransferError> {
        self.client.closed.cancel();
        self.client.tasks.close();
        self.client.tasks.wait().await;
        Ok(())
    }
}
