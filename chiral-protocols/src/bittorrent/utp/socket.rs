//! [`UtpSocket`]: makes and takes connections on a port.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::packet::{Kind, Packet};
use super::stream::{Cell, Held, UtpStream};
use crate::bittorrent::compact::dialable;
use crate::bittorrent::random::Random;
use crate::bittorrent::udp::{Datagram, UdpPort, Use};
use crate::http::AddressPolicy;

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// Packets that are taken before anything is sent: they are acknowledged together.
const BATCH: usize = 128;
/// How exactly waits are kept.
const TICK: Duration = Duration::from_millis(20);
/// Packets without a connection that are answered with a reset in a tick.
const RESETS: u32 = 4;
/// How long a shutdown waits for what was written.
const DRAIN: Duration = Duration::from_secs(3);

/// Where packets come from, and what they are marked with.
pub(super) type Key = (SocketAddr, u16);

/// Settings of a [`UtpSocket`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UtpConfig {
    /// Whom connections are made with and taken from. Default: addresses of the public
    /// internet.
    pub addresses: AddressPolicy,
    /// Most connections, both ways together.
    pub max_connections: usize,
    /// Most connections taken from one address.
    pub max_per_ip: usize,
}

impl Default for UtpConfig {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::GlobalOnly,
            max_connections: 500,
            max_per_ip: 16,
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    port: UdpPort,
    config: UtpConfig,
    epoch: std::time::Instant,
    table: Mutex<Table>,
    /// Connections that have something to send, each once.
    dirty: Mutex<Vec<Arc<Cell>>>,
    notify: Notify,
    closed: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Table {
    cells: HashMap<Key, Arc<Cell>>,
    random: Random,
}

/// Makes and takes connections. Clones are the same socket. To be ended by
/// [`shutdown`](Self::shutdown); the connections end with it.
#[derive(Clone, Debug)]
pub struct UtpSocket {
    shared: Arc<Shared>,
    /// Ends with the last clone.
    _last: Arc<DropGuard>,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<UtpStream>>>,
}

impl UtpSocket {
    /// Starts on a port.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn start(config: UtpConfig, port: &UdpPort) -> io::Result<Self> {
        let mut random = Random::from_system()?;
        // The clock of timestamps is nobody's business.
        let before = Duration::from_micros(random.u32().into());
        let now = Instant::now().into_std();
        let shared = Arc::new(Shared {
            port: port.clone(),
            config,
            epoch: now.checked_sub(before).unwrap_or(now),
            table: Mutex::new(Table {
                cells: HashMap::new(),
                random,
            }),
            dirty: Mutex::default(),
            notify: Notify::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (accepted, incoming) = mpsc::channel(BACKLOG);
        let runner = Runner {
            shared: shared.clone(),
            arrived: port.subscribe(Use::Utp),
            accepted,
            resets: 0,
        };
        shared.tasks.spawn(runner.run());
        shared.tasks.close();
        Ok(Self {
            _last: Arc::new(shared.closed.clone().drop_guard()),
            shared,
            incoming: Arc::new(tokio::sync::Mutex::new(incoming)),
        })
    }

    /// Connects. The peer has 15 seconds to answer.
    ///
    /// # Errors
    ///
    /// The address may not be dialled, there are too many connections, or the peer does not
    /// answer.
    ///
    /// # Cancel safety
    ///
    /// If dropped there is no connection.
    pub async fn connect(&self, peer: SocketAddr) -> io::Result<UtpStream> {
        let shared = &self.shared;
        if !dialable(peer, shared.config.addresses) {
            let what = "its address may not be dialled";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let now = Instant::now().into_std();
        let cell = {
            let mut table = shared.table();
            if shared.closed.is_cancelled() || table.cells.len() >= shared.config.max_connections {
                return Err(io::Error::other("too many connections, or none any more"));
            }
            let mut id = table.random.u16();
            while table.cells.contains_key(&(peer, id)) {
                id = table.random.u16();
            }
            let connection = Connection::connect(id, shared.epoch, now);
            let cell = Arc::new(Cell::new((peer, id), connection));
            table.cells.insert(cell.key, cell.clone());
            cell
        };
        let stream = UtpStream::new(cell.clone(), shared.clone());
        shared.mark(&cell, cell.lock());
        stream.connected().await?;
        Ok(stream)
    }

    /// The next connection that somebody made to us; `None` once shut down.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if dropped.
    pub async fn accept(&self) -> Option<UtpStream> {
        self.incoming.lock().await.recv().await
    }

    /// How many connections there are, those included that are still being ended.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.table().cells.len()
    }

    /// Ends all connections; what was written is delivered if it can be within three seconds.
    /// The port stays open.
    pub async fn shutdown(&self) {
        self.shared.closed.cancel();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection looked after soon.
    pub(super) fn mark(&self, cell: &Arc<Cell>, mut held: MutexGuard<'_, Held>) {
        if !std::mem::replace(&mut held.is_dirty, true) {
            drop(held);
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            dirty.push(cell.clone());
            drop(dirty);
            self.notify.notify_one();
        }
    }

    /// Sends what a connection has to send, wakes who waits for it, and forgets it at its
    /// end.
    fn look_after(&self, cell: &Cell, now: std::time::Instant) {
        let mut held = cell.lock();
        held.is_dirty = false;
        while let Some(datagram) = held.connection.poll_transmit(now) {
            // What the system does not take now is lost, and sent again.
            self.port.send(cell.key.0, &datagram);
        }
        held.wake();
        if held.connection.ended().is_some() {
            drop(held);
            self.table().cells.remove(&cell.key);
        }
    }
}

struct Runner {
    shared: Arc<Shared>,
    arrived: mpsc::Receiver<Datagram>,
    accepted: mpsc::Sender<UtpStream>,
    resets: u32,
}

impl Runner {
    async fn run(mut self) {
        let closed = self.shared.closed.clone();
        closed.run_until_cancelled(self.work()).await;
        // Connections in the backlog go with their queue.
        let (none, _) = mpsc::channel(1);
        self.accepted = none;
        let now = Instant::now().into_std();
        let cells: Vec<_> = self.shared.table().cells.values().cloned().collect();
        for cell in cells {
            cell.lock().connection.let_go(now);
            self.shared.look_after(&cell, now);
        }
        let shared = self.shared.clone();
        let drain = async {
            tokio::select! {
                () = self.work() => {}
                () = async {
                    while !shared.table().cells.is_empty() {
                        tokio::time::sleep(TICK).await;
                    }
                } => {}
            }
        };
        let _ = tokio::time::timeout(DRAIN, drain).await;
        self.shared.table().cells.clear();
    }

    async fn work(&mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                datagram = self.arrived.recv() => {
                    let Some(datagram) = datagram else { return };
                    self.take(datagram);
                }
                () = self.shared.notify.notified() => self.flush(),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn take(&mut self, first: Datagram) {
        let now = Instant::now().into_std();
        self.handle(first, now);
        for _ in 1..BATCH {
            let Ok(datagram) = self.arrived.try_recv() else {
                break;
            };
            self.handle(datagram, now);
        }
        self.flush();
    }

    fn flush(&mut self) {
        let dirty = {
            let mut dirty = self
                .shared
                .dirty
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *dirty)
        };
        let now = Instant::now().into_std();
        for cell in dirty {
            self.shared.look_after(&cell, now);
        }
    }

    fn tick(&mut self) {
        self.resets = 0;
        let now = Instant::now().into_std();
        let cells: Vec<_> = self.shared.table().cells.values().cloned().collect();
        for cell in cells {
            let due = {
                let mut held = cell.lock();
                let due = held.connection.poll_timeout().is_none_or(|due| now >= due);
                if due {
                    held.connection.handle_timeout(now);
                }
                due
            };
            if due {
                self.shared.look_after(&cell, now);
            }
        }
    }

    fn handle(&mut self, (from, datagram): Datagram, now: std::time::Instant) {
        let packet = match Packet::decode(&datagram) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::debug!(%from, %error, "not a packet");
                return;
            }
        };
        // Of the first packet, the other side's mark is ours minus one.
        let id = match packet.kind {
            Kind::Syn => packet.connection.wrapping_add(1),
            _ => packet.connection,
        };
        let cell = self.shared.table().cells.get(&(from, id)).cloned();
        match cell {
            Some(cell) => {
                let mut held = cell.lock();
                held.connection.handle(packet, now);
                held.wake();
                self.shared.mark(&cell, held);
            }
            None if packet.kind == Kind::Syn => self.accept(from, &packet, now),
            None if packet.kind == Kind::Reset => self.find_reset(from, packet, now),
            None => self.reset(from, &packet),
        }
    }

    /// A reset may carry our own mark, as it answers what we sent.
    fn find_reset(&self, from: SocketAddr, packet: Packet, now: std::time::Instant) {
        let ids = [
            packet.connection.wrapping_add(1),
            packet.connection.wrapping_sub(1),
        ];
        let cell = {
            let table = self.shared.table();
            ids.iter()
                .find_map(|id| table.cells.get(&(from, *id)).cloned())
        };
        if let Some(cell) = cell {
            let mut held = cell.lock();
            held.connection.handle(packet, now);
            self.shared.mark(&cell, held);
        }
    }

    fn accept(&mut self, from: SocketAddr, syn: &Packet, now: std::time::Instant) {
        let shared = &self.shared;
        let limits = &shared.config;
        if shared.closed.is_cancelled() || !dialable(from, limits.addresses) {
            return;
        }
        let Ok(place) = self.accepted.try_reserve() else {
            return;
        };
        let cell = {
            let mut table = shared.table();
            let same = table
                .cells
                .keys()
                .filter(|(other, _)| other.ip() == from.ip());
            if same.count() >= limits.max_per_ip || table.cells.len() >= limits.max_connections {
                return;
            }
            let first = table.random.u16();
            let connection = Connection::accept(syn, first, shared.epoch, now);
            let key = (from, syn.connection.wrapping_add(1));
            let cell = Arc::new(Cell::new(key, connection));
            table.cells.insert(key, cell.clone());
            cell
        };
        shared.mark(&cell, cell.lock());
        place.send(UtpStream::new(cell, shared.clone()));
    }

    /// Tells somebody that there is no such connection, if not too many were told just now.
    fn reset(&mut self, to: SocketAddr, packet: &Packet) {
        if self.resets >= RESETS || !dialable(to, self.shared.config.addresses) {
            return;
        }
        self.resets += 1;
        let reset = Packet {
            kind: Kind::Reset,
            sequence: 0,
            acknowledged: packet.sequence,
            delay: 0,
            window: 0,
            selective: Vec::new(),
            payload: Bytes::new(),
            ..*packet
        };
        self.shared.port.send(to, &reset.encode());
    }
}
