//! [`Handle`]: how the rest of a node speaks to the task that owns the swarm.

use bytes::Bytes;
use libp2p::swarm::StreamProtocol;
use libp2p::{Multiaddr, PeerId, Stream, kad};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::streams::{OpenError, OpenRequest, Registry};

/// Commands that wait for the task.
pub(super) const MAX_COMMANDS: usize = 256;

/// What others watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Peers in the routing table.
    pub(super) known: usize,
    /// Addresses that are listened on.
    pub(super) listen: Vec<Multiaddr>,
    /// Addresses that others are told.
    pub(super) announced: Vec<Multiaddr>,
}

/// The node has been shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// What came of storing a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// This many other nodes acknowledged it.
    By(usize),
    /// Our own store refused it.
    Refused,
}

/// A message of a topic, and who published it.
pub(super) type TopicMessage = (PeerId, Bytes);

#[derive(Debug)]
pub(super) enum Command {
    Connected(oneshot::Sender<Vec<PeerId>>),
    Dial(Multiaddr, oneshot::Sender<Result<PeerId, String>>),
    Open(PeerId, OpenRequest),
    /// The addresses at which the directory's nodes know a peer.
    Find(PeerId, oneshot::Sender<Vec<Multiaddr>>),
    Publish(String, Bytes, oneshot::Sender<()>),
    Subscribe(String, oneshot::Sender<mpsc::Receiver<TopicMessage>>),
    Get(kad::RecordKey, oneshot::Sender<Vec<Vec<u8>>>),
    Put(kad::RecordKey, Vec<u8>, oneshot::Sender<Stored>),
    Provide(kad::RecordKey, oneshot::Sender<bool>),
    StopProviding(kad::RecordKey),
    Providers(kad::RecordKey, oneshot::Sender<Vec<PeerId>>),
}

/// Cheap to clone. Every call fails with [`Closed`] once the task has ended.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) registry: Registry,
    /// Cancelled when everything is to end.
    pub(super) stop: CancellationToken,
    /// Cancelled when the task has ended.
    pub(super) ended: CancellationToken,
}

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        status: watch::Receiver<Status>,
        registry: Registry,
    ) -> Self {
        Self {
            commands,
            status,
            registry,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Closed> {
        if self.stop.is_cancelled() {
            return Err(Closed);
        }
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    pub(super) async fn connected(&self) -> Result<Vec<PeerId>, Closed> {
        self.ask(Command::Connected).await
    }

    pub(super) async fn dial(&self, address: Multiaddr) -> Result<Result<PeerId, String>, Closed> {
        self.ask(|reply| Command::Dial(address, reply)).await
    }

    pub(super) async fn open(
        &self,
        peer: PeerId,
        name: StreamProtocol,
    ) -> Result<Result<Stream, OpenError>, Closed> {
        let answer = self
            .ask(|reply| Command::Open(peer, OpenRequest { name, reply }))
            .await;
        match answer {
            // The connection went away before the stream was there.
            Err(Closed) if !self.stop.is_cancelled() && !self.ended.is_cancelled() => {
                Ok(Err(OpenError::Unreachable))
            }
            other => other,
        }
    }

    pub(super) async fn find(&self, peer: PeerId) -> Result<Vec<Multiaddr>, Closed> {
        self.ask(|reply| Command::Find(peer, reply)).await
    }

    pub(super) async fn publish(&self, topic: String, message: Bytes) -> Result<(), Closed> {
        self.ask(|reply| Command::Publish(topic, message, reply))
            .await
    }

    pub(super) async fn subscribe(
        &self,
        topic: String,
    ) -> Result<mpsc::Receiver<TopicMessage>, Closed> {
        self.ask(|reply| Command::Subscribe(topic, reply)).await
    }

    /// The values that the nodes closest to a key hold under it, and our own.
    pub(super) async fn get(&self, key: kad::RecordKey) -> Result<Vec<Vec<u8>>, Closed> {
        self.ask(|reply| Command::Get(key, reply)).await
    }

    /// Stores a record here and at the nodes closest to its key.
    pub(super) async fn put(&self, key: kad::RecordKey, value: Vec<u8>) -> Result<Stored, Closed> {
        self.ask(|reply| Command::Put(key, value, reply)).await
    }

    /// Becomes a provider; false if our own store has no place.
    pub(super) async fn provide(&self, key: kad::RecordKey) -> Result<bool, Closed> {
        self.ask(|reply| Command::Provide(key, reply)).await
    }

    pub(super) async fn stop_providing(&self, key: kad::RecordKey) {
        // A node that has ended provides nothing any more.
        let _ = self.commands.send(Command::StopProviding(key)).await;
    }

    pub(super) async fn providers(&self, key: kad::RecordKey) -> Result<Vec<PeerId>, Closed> {
        self.ask(|reply| Command::Providers(key, reply)).await
    }
}
