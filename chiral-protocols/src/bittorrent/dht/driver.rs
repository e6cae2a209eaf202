//! [`MainlineDht`]: a [`Node`] on a port, in a task of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::node::{Announcement, Event, Node, NodeConfig, SearchId};
use crate::bittorrent::udp::{Datagram, UdpPort, Use};

/// Commands that wait for the node.
const MAILBOX: usize = 64;
/// Peers that wait for whoever searches. What is beyond is lost.
const PEERS: usize = 256;
/// Datagrams that are handled before the node does something else.
const BATCH: usize = 64;

/// Why the DHT did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhtError {
    /// It has been shut down.
    #[error("the dht has been shut down")]
    Closed,
    /// There are [`MAX_SEARCHES`](super::MAX_SEARCHES) searches already.
    #[error("too many searches at a time")]
    Busy,
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random(#[source] std::io::Error),
}

impl DhtError {
    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// How the node is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DhtStatus {
    /// Nodes that it knows, over IPv4 and IPv6.
    pub nodes: usize,
    /// Torrents of which others have announced peers to it.
    pub torrents: usize,
    /// How often it has looked for its neighbours.
    pub joins: u64,
}

enum Command {
    Search {
        info_hash: [u8; 20],
        announcement: Option<Announcement>,
        peers: Option<mpsc::Sender<SocketAddr>>,
        done: oneshot::Sender<Result<usize, DhtError>>,
    },
    Meet(SocketAddr),
    Save(oneshot::Sender<Vec<u8>>),
}

/// A node of the mainline DHT. Clones are the same node. To be ended by
/// [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct MainlineDht {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<DhtStatus>,
    closed: CancellationToken,
    tasks: TaskTracker,
    _last: Arc<tokio_util::sync::DropGuard>,
}

impl MainlineDht {
    /// Starts a node on a port. Which families it speaks follows from the port.
    ///
    /// # Errors
    ///
    /// [`DhtError::Random`].
    pub fn start(mut config: NodeConfig, port: &UdpPort) -> Result<Self, DhtError> {
        config.v4 = port.local_addr(true).is_some();
        config.v6 = port.local_addr(false).is_some();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| DhtError::Random(std::io::Error::other(error)))?;
        let node = Node::new(config, seed, Instant::now().into_std());
        let (commands, mailbox) = mpsc::channel(MAILBOX);
        let (told, status) = watch::channel(DhtStatus::default());
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let runner = Runner {
            node,
            port: port.clone(),
            arrived: port.subscribe(Use::Dht),
            mailbox,
            searches: HashMap::new(),
            told,
        };
        tasks.spawn(closed.clone().run_until_cancelled_owned(runner.run()));
        tasks.close();
        Ok(Self {
            commands,
            status,
            _last: Arc::new(closed.clone().drop_guard()),
            closed,
            tasks,
        })
    }

    /// Looks for the peers of a torrent, in both families. To drop the stream ends the search.
    #[must_use]
    pub fn get_peers(&self, info_hash: [u8; 20]) -> Peers {
        self.find(info_hash, None)
    }

    /// Looks for the peers of a torrent and announces at the end that we are one; the stream
    /// has the peers.
    #[must_use]
    pub fn get_peers_and_announce(&self, info_hash: [u8; 20], announcement: Announcement) -> Peers {
        self.find(info_hash, Some(announcement))
    }

    /// Announces that we are a peer of a torrent. Holds for half an hour at most: announce
    /// again every 15 to 25 minutes. Returns how many nodes have taken it.
    ///
    /// # Errors
    ///
    /// [`DhtError::Busy`], [`DhtError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If dropped, the announcement is made nevertheless.
    pub async fn announce(
        &self,
        info_hash: [u8; 20],
        announcement: Announcement,
    ) -> Result<usize, DhtError> {
        let (done, result) = oneshot::channel();
        let command = Command::Search {
            info_hash,
            announcement: Some(announcement),
            peers: None,
            done,
        };
        let sent = self.commands.send(command).await;
        sent.map_err(|_| DhtError::Closed)?;
        result.await.map_err(|_| DhtError::Closed)?
    }

    /// Tells the node of another one, which a peer named for itself. If the node is busy it is
    /// not told.
    pub fn meet(&self, node: SocketAddr) {
        let _ = self.commands.try_send(Command::Meet(node));
    }

    /// What the node knows, for [`NodeConfig::saved`] of its next run.
    ///
    /// # Errors
    ///
    /// [`DhtError::Closed`].
    pub async fn save(&self) -> Result<Vec<u8>, DhtError> {
        let (done, result) = oneshot::channel();
        let sent = self.commands.send(Command::Save(done)).await;
        sent.map_err(|_| DhtError::Closed)?;
        result.await.map_err(|_| DhtError::Closed)
    }

    /// How the node is doing, always the latest.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<DhtStatus> {
        self.status.clone()
    }

    /// Ends the node. The port stays open.
    pub async fn shutdown(&self) {
        self.closed.cancel();
        self.tasks.wait().await;
    }

    fn find(&self, info_hash: [u8; 20], announcement: Option<Announcement>) -> Peers {
        let (peers, found) = mpsc::channel(PEERS);
        let (done, result) = oneshot::channel();
        let command = Command::Search {
            info_hash,
            announcement,
            peers: Some(peers),
            done,
        };
        // A full mailbox or a closed node is told at the end of the stream.
        let refused = match self.commands.try_send(command) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(_)) => Some(DhtError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Some(DhtError::Closed),
        };
        Peers {
            found,
            result,
            refused,
        }
    }
}

/// The peers that a search finds, each once.
#[derive(Debug)]
pub struct Peers {
    found: mpsc::Receiver<SocketAddr>,
    result: oneshot::Receiver<Result<usize, DhtError>>,
    refused: Option<DhtError>,
}

impl Peers {
    /// The next peer; `None` at the end of the search.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if dropped.
    pub async fn next(&mut self) -> Option<SocketAddr> {
        self.found.recv().await
    }

    /// Waits for the end of the search; peers not yet taken are lost. Returns how many nodes
    /// have taken the announcement.
    ///
    /// # Errors
    ///
    /// [`DhtError::Busy`], [`DhtError::Closed`].
    pub async fn finish(mut self) -> Result<usize, DhtError> {
        while self.found.recv().await.is_some() {}
        match self.refused {
            Some(refused) => Err(refused),
            None => self.result.await.map_err(|_| DhtError::Closed)?,
        }
    }
}

impl Stream for Peers {
    type Item = SocketAddr;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SocketAddr>> {
        self.found.poll_recv(cx)
    }
}

struct Asker {
    peers: Option<mpsc::Sender<SocketAddr>>,
    done: oneshot::Sender<Result<usize, DhtError>>,
}

struct Runner {
    node: Node,
    port: UdpPort,
    arrived: mpsc::Receiver<Datagram>,
    mailbox: mpsc::Receiver<Command>,
    searches: HashMap<SearchId, Asker>,
    told: watch::Sender<DhtStatus>,
}

impl Runner {
    async fn run(mut self) {
        self.node.handle_timeout(now());
        loop {
            self.flush();
            let due = Instant::from_std(self.node.poll_timeout());
            tokio::select! {
                datagram = self.arrived.recv() => {
                    let Some(datagram) = datagram else { return };
                    self.handle(datagram);
                }
                command = self.mailbox.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command);
                }
                () = sleep_until(due) => {
                    self.forget();
                    self.node.handle_timeout(now());
                }
            }
        }
    }

    fn handle(&mut self, (from, bytes): Datagram) {
        self.node.handle_datagram(from, &bytes, now());
        for _ in 1..BATCH {
            let Ok((from, bytes)) = self.arrived.try_recv() else {
                return;
            };
            self.node.handle_datagram(from, &bytes, now());
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Search {
                info_hash,
                announcement,
                peers,
                done,
            } => match self.node.search(info_hash, announcement, now()) {
                Some(search) => {
                    self.searches.insert(search, Asker { peers, done });
                }
                // Who does not wait for it any more does not mind.
                None => drop(done.send(Err(DhtError::Busy))),
            },
            Command::Meet(node) => self.node.try_node(node, now()),
            Command::Save(done) => drop(done.send(self.node.save())),
        }
    }

    /// Searches whose askers have gone are ended, unless there is something to announce.
    fn forget(&mut self) {
        let node = &mut self.node;
        self.searches.retain(|search, asker| {
            let gone = asker.peers.as_ref().is_some_and(mpsc::Sender::is_closed);
            if gone {
                node.cancel(*search);
            }
            !gone
        });
    }

    fn flush(&mut self) {
        while let Some((to, bytes)) = self.node.poll_transmit() {
            self.port.send(to, &bytes);
        }
        let mut joined = 0;
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Peers { search, peers } => {
                    let asker = self.searches.get(&search);
                    if let Some(sender) = asker.and_then(|asker| asker.peers.as_ref()) {
                        for peer in peers {
                            // Whoever does not keep up has enough.
                            let _ = sender.try_send(peer);
                        }
                    }
                }
                Event::Finished { search, announced } => {
                    if let Some(asker) = self.searches.remove(&search) {
                        drop(asker.done.send(Ok(announced)));
                    }
                }
                Event::Joined { .. } => joined += 1,
                Event::Address(ip) => tracing::debug!(%ip, "others see us there"),
            }
        }
        let (nodes, torrents) = (
            self.node.nodes(true) + self.node.nodes(false),
            self.node.torrents(),
        );
        self.told.send_if_modified(|status| {
            let before = *status;
            status.nodes = nodes;
            status.torrents = torrents;
            status.joins += joined;
            *status != before
        });
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
