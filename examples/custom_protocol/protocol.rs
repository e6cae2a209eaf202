//! The protocol itself: [`ExampleTcp`], client and server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chiral::core::chunk_store::MAX_READ;
use chiral::core::content_protocol::SeedContent;
use chiral::core::{
    Capabilities, ChunkSource, ChunkStore, Coverage, SeedRequest, TransferRegistry,
};
use chiral::{
    ByteRange, Cid, ContentProtocol, Endpoint, FileIdentification, FileMetadata, ManifestHeader,
    PeerOffer, Protocol, TransferError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Failure;
use super::source::ExampleSource;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;

pub(crate) fn name() -> Protocol {
    "example-tcp".parse().expect("the name is a valid one")
}

/// Client, and server if it has a store to serve from.
#[derive(Debug)]
pub(crate) struct ExampleTcp {
    registry: TransferRegistry,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    store: Arc<dyn ChunkStore>,
    /// What is seeded; nothing else of the store is served.
    seeded: Seeded,
    /// The task that accepts.
    task: Mutex<JoinSet<()>>,
}

impl ExampleTcp {
    pub(crate) fn client(registry: TransferRegistry) -> Self {
        Self {
            registry,
            server: None,
        }
    }

    pub(crate) async fn server(
        registry: TransferRegistry,
        store: Arc<dyn ChunkStore>,
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let seeded = Arc::new(Mutex::new(BTreeSet::new()));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, store.clone(), seeded.clone()));
        let task = Mutex::new(task);
        Ok(Self {
            registry,
            server: Some(Server {
                address,
                store,
                seeded,
                task,
            }),
        })
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
        Ok(Arc::new(ExampleSource {
            offer: offer.clone(),
            cid,
        }))
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
        let content = server.store.open(cid).await?.ok_or(TransferError::Closed)?;
        lock(&server.seeded).insert(cid);
        let header = content.header().clone();
        let offer = server.offer(header.clone(), content.coverage())?;
        Ok(FileMetadata::new(header, vec![offer]))
    }

    async fn stop_seeding(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let (Some(server), Some(cid)) = (&self.server, target.cid()) else {
            return Ok(false);
        };
        Ok(lock(&server.seeded).remove(&cid))
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

type Seeded = Arc<Mutex<BTreeSet<Cid>>>;

/// Serves all who connect; ends, with all connections, when it is dropped.
async fn accept(listener: TcpListener, store: Arc<dyn ChunkStore>, seeded: Seeded) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        // A client that asks for nonsense, or goes, costs its connection and no more.
        connections.spawn(answer(connection, store.clone(), seeded.clone()));
    }
}

async fn answer(
    mut connection: TcpStream,
    store: Arc<dyn ChunkStore>,
    seeded: Seeded,
) -> Result<(), Failure> {
    let mut cid = [0; 32];
    connection.read_exact(&mut cid).await?;
    let start = connection.read_u64().await?;
    let length = connection.read_u64().await?;
    let cid = Cid::from_bytes(cid);
    if !lock(&seeded).contains(&cid) {
        return Ok(());
    }
    let content = store.open(cid).await?.ok_or("it is gone")?;
    let end = start.checked_add(length).ok_or("a range past all files")?;
    let mut left = ByteRange::new(start, end);
    while !left.is_empty() {
        let part = ByteRange::new(left.start, left.end.min(left.start + MAX_READ));
        // The store refuses ranges past the end of the file.
        connection.write_all(&content.read(part).await?).await?;
        left = ByteRange::new(part.end, left.end);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
