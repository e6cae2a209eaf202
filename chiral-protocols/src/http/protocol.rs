//! [`HttpProtocol`]: HTTP as a [`ContentProtocol`].

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    Capabilities, ChunkSource, ChunkStore, ContentProtocol, Coverage, Endpoint, FileIdentification,
    FileMetadata, ManifestHeader, PaymentAgent, PaymentGate, PeerOffer, Protocol, SeedRequest,
    StoreError, TransferError, TransferRegistry,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Reach;
use super::body::Sending;
use super::config::{HttpConfig, HttpError};
use super::connect::{Origin, Transport, bad_url};
use super::counter::Counter;
use super::elsewhere::{Elsewhere, OtherSeeders};
use super::pool::Pool;
use super::proxy::Proxies;
use super::routes::{MAX_ENCODERS, Routes};
use super::server::Server;
use super::source::{HttpSource, payments};
use super::till::post;
use super::tls::{Connector, ServerTls};
use super::url::Url;
use crate::chunk_hashes::ChunkHashes;
use crate::seeds::Seeds;

/// Name under which content is pinned that was imported to be seeded over HTTP.
pub const PIN: &str = "http";

/// A client, and a server if it was given an address to listen on.
///
/// Must be [shut down](ContentProtocol::shutdown): dropping it cuts everything off.
#[derive(Debug)]
pub struct HttpProtocol {
    client: Client,
    registry: TransferRegistry,
    seeds: Arc<Seeds>,
    server: Option<Server>,
    routes: Option<Arc<Routes>>,
    gate: Arc<dyn PaymentGate>,
}

/// What sources are made with.
#[derive(Debug)]
pub(super) struct Client {
    /// Its tasks are what goes on behind the sources, conversations with payment gates too.
    pub(super) transport: Arc<Transport>,
    pub(super) agent: Option<Arc<dyn PaymentAgent>>,
    pub(super) closed: CancellationToken,
}

impl Client {
    /// The server that an offer names, and where it may send us.
    pub(super) async fn origin(&self, offer: &PeerOffer) -> Result<(Origin, Reach), TransferError> {
        let name = &offer.endpoint;
        let url = Url::parse(name.as_str()).map_err(|error| bad_url(name, error))?;
        let reach = self.transport.config.reach(offer);
        let peer = offer.peer.as_ref();
        let origin = Origin::resolve(url, peer, name, reach, &self.transport).await?;
        Ok((origin, reach))
    }
}

impl HttpProtocol {
    /// Starts to listen, if the configuration has an address. Needs a tokio runtime with
    /// time and network.
    ///
    /// # Errors
    /// [`HttpError`], by case.
    pub async fn bind(
        config: HttpConfig,
        store: Arc<dyn ChunkStore>,
        registry: TransferRegistry,
        gate: Arc<dyn PaymentGate>,
    ) -> Result<Self, HttpError> {
        if let Some(url) = config.public_url.as_ref().filter(|url| !is_base(url)) {
            return Err(HttpError::PublicUrl { url: url.clone() });
        }
        let transport = Transport {
            proxies: Proxies::new(&config.proxies)?,
            tls: Connector::new(&config.trust)?,
            tasks: TaskTracker::new(),
            config: Arc::new(config),
        };
        let config = &transport.config;
        let seeds = Arc::new(Seeds::new(store));
        let (server, routes) = match config.listen {
            None => (None, None),
            Some(address) => {
                let tracker = TaskTracker::new();
                let sending = Arc::new(Sending::new(tracker.clone(), config.uploads.clone()));
                let routes = Arc::new(Routes {
                    seeds: seeds.clone(),
                    hashes: ChunkHashes::default(),
                    gate: gate.clone(),
                    sending,
                    counter: Counter::new(config.header_timeout),
                    encoders: Arc::new(Semaphore::new(MAX_ENCODERS)),
                    elsewhere: OnceLock::new(),
                    public_url: config.public_url.clone(),
                    page: config.page,
                });
                let server = Server::bind(address, config, tracker, routes.clone()).await?;
                (Some(server), Some(routes))
            }
        };
        let client = Client {
            transport: Arc::new(transport),
            agent: None,
            closed: CancellationToken::new(),
        };
        Ok(Self {
            client,
            registry,
            seeds,
            server,
            routes,
            gate,
        })
    }

    /// Pays through this agent: it agrees with seeders that ask for payment, gives what is
    /// shown with each request for bytes, and hears what was verified. Without an agent,
    /// seeders that ask for payment answer [`TransferError::PaymentRequired`].
    #[must_use]
    pub fn with_agent(mut self, agent: Arc<dyn PaymentAgent>) -> Self {
        self.client.agent = Some(agent);
        self
    }

    /// Tells clients that ask for a Metalink where else they find the file: as far as these
    /// others are free, have all of it, and are at addresses that strangers may announce
    /// ([`HttpConfig::announced`]).
    #[must_use]
    pub fn with_other_seeders(self, seeders: Arc<dyn OtherSeeders>) -> Self {
        if let Some(routes) = &self.routes {
            let elsewhere = Elsewhere::new(seeders, self.client.transport.config.announced);
            // Only the first counts; there is no way here to have given one before.
            let _ = routes.elsewhere.set(elsewhere);
        }
        self
    }

    /// The address listened on.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    fn open(&self) -> Result<(), TransferError> {
        if self.client.closed.is_cancelled() {
            Err(TransferError::Closed)
        } else {
            Ok(())
        }
    }

    fn metadata(&self, header: ManifestHeader, coverage: Coverage) -> FileMetadata {
        let tariff = self.gate.tariff(header.cid);
        let offer = |endpoint| {
            let mut offer = PeerOffer::new(Protocol::Http, endpoint);
            offer.header = Some(header.clone());
            offer.coverage = Some(coverage.clone());
            (offer.price, offer.wallet) = (tariff.price, tariff.wallet);
            offer
        };
        let offers = self.endpoints().into_iter().map(offer).collect();
        FileMetadata::new(header, offers)
    }
}

/// Whether a URL can stand before the paths of the server. `https` is fine: somebody else's
/// proxy may speak it.
fn is_base(url: &Endpoint) -> bool {
    let parsed = Url::parse(url.as_str());
    parsed.is_ok_and(|url| url.path.query().is_none()) && !url.as_str().contains('#')
}

#[async_trait]
impl ContentProtocol for HttpProtocol {
    fn name(&self) -> Protocol {
        Protocol::Http
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::fetch_and_seed();
        capabilities.seed = self.server.is_some();
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
        let connect = HttpSource::connect(&self.client, offer, target);
        let source = self.client.closed.run_until_cancelled(connect).await;
        Ok(Arc::new(source.unwrap_or(Err(TransferError::Closed))?))
    }

    async fn start_seeding(&self, request: SeedRequest) -> Result<FileMetadata, TransferError> {
        self.open()?;
        if self.server.is_none() {
            let operation = "seeding without an address to listen on";
            return Err(TransferError::Unsupported {
                protocol: Protocol::Http,
                operation,
            });
        }
        let cid = self.seeds.import(&request, PIN, Protocol::Http).await?;
        let content = self.seeds.store().open(cid).await?;
        let content = content.ok_or(StoreError::NotFound { cid })?;
        let header = content.header().clone();
        self.seeds.insert(header.clone());
        tracing::debug!(content = %cid, "seeding over http");
        Ok(self.metadata(header, content.coverage()))
    }

    /// Requests under way go on to their end.
    async fn stop_seeding(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let Some(cid) = self.seeds.find(target) else {
            return Ok(false);
        };
        let was_served = self.seeds.remove(cid);
        self.seeds.unpin(cid, PIN).await?;
        Ok(was_served)
    }

    async fn payment_message(
        &self,
        offer: &PeerOffer,
        message: Bytes,
    ) -> Result<Bytes, TransferError> {
        self.open()?;
        if offer.mirror {
            let operation = "payment messages to a mirror";
            return Err(TransferError::Unsupported {
                protocol: Protocol::Http,
                operation,
            });
        }
        let deliver = async {
            let name = offer.endpoint.clone();
            let (origin, _) = self.client.origin(offer).await?;
            let path = payments(&origin.url, &name)?;
            let closed = self.client.closed.child_token();
            let pool = Pool::new(name, self.client.transport.clone(), origin, closed);
            let answer = post(&pool, path, message).await;
            pool.close();
            answer
        };
        let answer = self.client.closed.run_until_cancelled(deliver).await;
        answer.unwrap_or(Err(TransferError::Closed))
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let Some(address) = self.local_addr() else {
            return Vec::new();
        };
        let acceptor = self.server.as_ref().and_then(Server::acceptor);
        let config = &self.client.transport.config;
        let url = match (&config.public_url, acceptor) {
            // What is shown for a name is for its owner to know, unless it is of our making.
            (Some(url), Some(acceptor))
                if config.tls == Some(ServerTls::SelfSigned)
                    && url.as_str().starts_with("https://") =>
            {
                format!("{url}{}", acceptor.mark())
            }
            (Some(url), _) => url.to_string(),
            (None, _) if address.ip().is_unspecified() => return Vec::new(),
            (None, Some(acceptor)) => format!("https://{address}/{}", acceptor.mark()),
            (None, None) => format!("http://{address}/"),
        };
        Endpoint::new(url).into_iter().collect()
    }

    async fn shutdown(&self) -> Result<(), TransferError> {
        self.client.closed.cancel();
        self.client.transport.tasks.close();
        self.client.transport.tasks.wait().await;
        if let Some(server) = &self.server {
            server.shutdown().await;
        }
        Ok(())
    }
}
