//! The protocol itself: [`ExampleTcp`], client and server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chiral::core::chunk_store::MAX_READ;
use chiral::core::content_protocol::SeedContent;
use chiral::core::{
    Admission, Capabilities, ChunkSource, ChunkStore, Coverage, PaymentAgent, PaymentGate,
    Purchase, SeedRequest, ServeRequest, TransferRegistry,
};
use chiral::{
    ByteRange, Cid, ContentProtocol, Endpoint, FileIdentification, FileMetadata, ManifestHeader,
    PeerOffer, Protocol, TransferError,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Failure;
use super::source::{ExampleSource, carry};
use super::wire::{Answer, Request};

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;

pub(crate) fn name() -> Protocol {
    "example-tcp".parse().expect("the name is a valid one")
}

/// Client, and server if it has a store to serve from.
#[derive(Debug)]
pub(crate) struct ExampleTcp {
    registry: TransferRegistry,
    agent: Arc<dyn PaymentAgent>,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    shop: Arc<Shop>,
    /// The task that accepts.
    task: Mutex<JoinSet<()>>,
}

/// What connections are served from.
#[derive(Debug)]
struct Shop {
    store: Arc<dyn ChunkStore>,
    gate: Arc<dyn PaymentGate>,
    /// What is seeded; nothing else of the store is served.
    seeded: Mutex<BTreeSet<Cid>>,
}

impl ExampleTcp {
    pub(crate) fn client(registry: TransferRegistry, agent: Arc<dyn PaymentAgent>) -> Self {
        Self {
            registry,
            agent,
            server: None,
        }
    }

    /// The same, serving what is in this store to whom this gate admits.
    pub(crate) async fn listening(
        mut self,
        store: Arc<dyn ChunkStore>,
        gate: Arc<dyn PaymentGate>,
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shop = Arc::new(Shop {
            store,
            gate,
            seeded: Mutex::default(),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, shop.clone()));
        let task = Mutex::new(task);
        self.server = Some(Server {
            address,
            shop,
            task,
        });
        Ok(self)
    }
}

impl Server {
    fn offer(
        &self,
        header: ManifestHeader,
        coverage: Coverage,
    ) -> Result<PeerOffer, TransferError> {
        let endpoint =
            Endpoint::new(self.address.to_string()).map_err(|_| TransferError::Closed)?;
        let mut offer = PeerOffer::new(name(), endpoint);
        let tariff = self.shop.gate.tariff(header.cid);
        (offer.price, offer.wallet) = (tariff.price, tariff.wallet);
        offer.header = Some(header);
        offer.coverage = Some(coverage);
        Ok(offer)
    }
}

#[async_trait]
impl ContentProtocol for ExampleTcp {
    fn name(&self) -> Protocol {
        name()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::fetch_only();
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
        let unknown = || TransferError::Unknown {
            target: target.to_string(),
        };
        let cid = target.cid().ok_or_else(unknown)?;
        let purchase = Purchase::new(cid, offer.clone());
        Ok(Arc::new(ExampleSource::new(purchase, self.agent.clone())))
    }

    async fn payment_message(
        &self,
        offer: &PeerOffer,
        message: Bytes,
    ) -> Result<Bytes, TransferError> {
        carry(&offer.endpoint, message).await
    }

    async fn start_seeding(&self, request: SeedRequest) -> Result<FileMetadata, TransferError> {
        let unsupported = TransferError::Unsupported {
            protocol: name(),
            operation: "this seeding",
        };
        // The facade has imported what it shares, and names it by its cid.
        let (Some(server), SeedContent::Stored(cid)) = (&self.server, request.content) else {
            return Err(unsupported);
        };
        let content = server.shop.store.open(cid).await?;
        let content = content.ok_or(TransferError::Closed)?;
        lock(&server.shop.seeded).insert(cid);
        let header = content.header().clone();
        let offer = server.offer(header.clone(), content.coverage())?;
        Ok(FileMetadata::new(header, vec![offer]))
    }

    async fn stop_seeding(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let (Some(server), Some(cid)) = (&self.server, target.cid()) else {
            return Ok(false);
        };
        Ok(lock(&server.shop.seeded).remove(&cid))
    }

    async fn shutdown(&self) -> Result<(), TransferError> {
        if let Some(server) = &self.server {
            // With the accepting task end all its connections, and the port is free.
            let mut task = std::mem::take(&mut *lock(&server.task));
            task.shutdown().await;
        }
        Ok(())
    }
}

/// Serves all who connect; ends, with all connections, when it is dropped.
async fn accept(listener: TcpListener, shop: Arc<Shop>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        // A client that asks for nonsense, or goes, costs its connection and no more.
        connections.spawn(answer(connection, shop.clone()));
    }
}

async fn answer(mut connection: TcpStream, shop: Arc<Shop>) -> Result<(), Failure> {
    match Request::receive(&mut connection).await? {
        Request::Payment(message) => {
            let answer = match shop.gate.message(message).await {
                Ok(answer) => Answer::Payment(answer),
                Err(_) => Answer::Refused,
            };
            answer.send(&mut connection).await?;
        }
        Request::Bytes {
            cid,
            range,
            credential,
        } => {
            if !lock(&shop.seeded).contains(&cid) {
                return Ok(Answer::Refused.send(&mut connection).await?);
            }
            let mut request = ServeRequest::new(cid, range, name());
            request.credential = credential;
            match shop.gate.admit(&request).await? {
                Admission::Granted => {
                    let mut sent = ByteRange::new(range.start, range.start);
                    let result = send(&mut connection, &shop, cid, range, &mut sent).await;
                    // However it went: the gate waits to hear of what it admitted.
                    shop.gate.served(&request, sent).await;
                    result?;
                }
                Admission::PaymentRequired(terms) => {
                    Answer::Payment(terms).send(&mut connection).await?;
                }
                _ => Answer::Refused.send(&mut connection).await?,
            }
        }
    }
    Ok(())
}

/// Sends bytes of a file, and says in `sent` how far it came.
async fn send(
    connection: &mut TcpStream,
    shop: &Shop,
    cid: Cid,
    range: ByteRange,
    sent: &mut ByteRange,
) -> Result<(), Failure> {
    let content = shop.store.open(cid).await?.ok_or("it is gone")?;
    Answer::Granted.send(connection).await?;
    while sent.end < range.end {
        let part = ByteRange::new(sent.end, range.end.min(sent.end + MAX_READ));
        // The store refuses ranges past the end of the file.
        connection.write_all(&content.read(part).await?).await?;
        sent.end = part.end;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
