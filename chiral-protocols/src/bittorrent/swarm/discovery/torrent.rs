//! Finding the peers of one torrent, and being found: for as long as there is a use for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Discovery;
use super::local::Command;
use crate::bittorrent::compact::dialable;
use crate::bittorrent::dht::{Announcement, MainlineDht, Peers};
use crate::bittorrent::swarm::known::Origin;
use crate::bittorrent::swarm::node::Node;
use crate::bittorrent::swarm::torrent::Torrent;
use crate::bittorrent::tracker::{Announcer, AnnouncerConfig, Tiers, Update};

/// How often it is looked whether there is a use for a torrent, if nobody says so.
const REST: Duration = Duration::from_secs(5);

/// How often it is looked how things are.
const TICK: Duration = Duration::from_secs(1);

/// A torrent without a use is not given up at once: who downloads may be about to come again.
const LINGER: Duration = Duration::from_secs(5);

/// Time in which content that is seeded is looked at, so that trackers are told right at once.
const LOOK: Duration = Duration::from_secs(3);

/// How often the DHT is searched, and announced to: while few peers are known and more are
/// wanted; otherwise (an announcement holds for half an hour); and before it knows anybody.
const DHT_SOON: Duration = Duration::from_secs(60);
const DHT_EVERY: Duration = Duration::from_secs(15 * 60);
const DHT_EMPTY: Duration = Duration::from_secs(2);

/// Peers with which no more are looked for soon.
const MANY_PEERS: usize = 20;

/// Time in which trackers are to hear that a download is complete when it ends with that.
const COMPLETED: Duration = Duration::from_secs(3);

/// Port that trackers are told of a node that does not listen: nobody is there.
const NO_PORT: u16 = 1;

/// Finds peers of a torrent in the swarm of one of its info-hashes, until the node is shut down.
pub(in crate::bittorrent::swarm) async fn discover(
    node: Arc<Node>,
    torrent: Arc<Torrent>,
    info_hash: [u8; 20],
) {
    let closed = node.closed().clone();
    let mut news = torrent.discovery.subscribe();
    while !closed.is_cancelled() {
        if torrent.is_used() {
            let mut round = Round::begin(&node, &torrent, info_hash).await;
            round.go_on(&mut news).await;
            round.end().await;
        }
        tokio::select! {
            _ = news.changed() => {}
            () = sleep(REST) => {}
            () = closed.cancelled() => {}
        }
    }
}

/// From the first use of a torrent to the last.
struct Round<'a> {
    node: &'a Arc<Node>,
    torrent: &'a Arc<Torrent>,
    /// Whose swarm it is.
    info_hash: [u8; 20],
    /// The torrent's own trackers, and the node's.
    own: Option<Announcer>,
    common: Option<Announcer>,
    /// Which change of the torrent's own trackers is announced to.
    version: usize,
    dht: Option<Peers>,
    dht_next: Instant,
    dht_found: usize,
    local: bool,
    was_complete: bool,
    said_complete: bool,
    used_at: Instant,
}

/// The next that an announcer says; never, if there is none.
async fn next(announcer: &mut Option<Announcer>) -> Option<Update> {
    match announcer {
        Some(announcer) => announcer.next().await,
        None => std::future::pending().await,
    }
}

async fn next_found(peers: &mut Option<Peers>) -> Option<std::net::SocketAddr> {
    match peers {
        Some(peers) => peers.next().await,
        None => std::future::pending().await,
    }
}

impl<'a> Round<'a> {
    async fn begin(node: &'a Arc<Node>, torrent: &'a Arc<Torrent>, info_hash: [u8; 20]) -> Self {
        let looked_at = async {
            while torrent.is_seeding() && !torrent.has_all() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let closed = node.closed();
        // If it is not, trackers hear of it later.
        let _ = closed.run_until_cancelled(timeout(LOOK, looked_at)).await;
        let now = Instant::now();
        let was_complete = torrent.has_all();
        Self {
            node,
            torrent,
            info_hash,
            own: None,
            common: None,
            version: 0,
            dht: None,
            dht_next: now,
            dht_found: 0,
            local: false,
            was_complete,
            said_complete: was_complete,
            used_at: now,
        }
    }

    fn discovery(&self) -> &'a Discovery {
        &self.node.discovery
    }

    async fn go_on(&mut self, news: &mut watch::Receiver<()>) {
        let closed = self.node.closed();
        loop {
            let now = Instant::now();
            if self.torrent.is_used() {
                self.used_at = now;
            } else if now >= self.used_at + LINGER {
                return;
            }
            if let Some(info) = self.torrent.info() {
                self.node.in_all_swarms(self.torrent, info);
            }
            self.announce().await;
            self.search(now);
            self.be_found_nearby();
            tokio::select! {
                update = next(&mut self.own) => self.told(update),
                update = next(&mut self.common) => self.told(update),
                found = next_found(&mut self.dht) => self.found(found),
                _ = news.changed() => {}
                () = sleep(TICK) => {}
                () = closed.cancelled() => return,
            }
        }
    }

    fn is_private(&self) -> bool {
        self.torrent.is_private()
    }

    fn start(&self, tiers: Tiers) -> Option<Announcer> {
        if tiers.is_empty() {
            return None;
        }
        let discovery = self.discovery();
        let port = discovery.announced.unwrap_or(NO_PORT);
        let peer_id = self.node.shared.peer_id.0;
        let config = AnnouncerConfig::new(self.info_hash, peer_id, port, tiers);
        let progress = self.torrent.progress();
        Some(Announcer::start(&discovery.trackers, config, progress))
    }

    /// Keeps the trackers told.
    async fn announce(&mut self) {
        let (tiers, version) = self.torrent.trackers();
        if version != self.version {
            self.version = version;
            if let Some(before) = self.own.take() {
                before.stop().await;
            }
            self.own = self.start(Tiers::new(&tiers));
        }
        match (self.is_private(), self.common.is_some()) {
            (false, false) => self.common = self.start(Tiers::each(&self.discovery().common)),
            (true, true) => {
                if let Some(common) = self.common.take() {
                    common.stop().await;
                }
            }
            _ => {}
        }
        let progress = self.torrent.progress();
        let completed = !self.said_complete && self.torrent.has_all();
        self.said_complete |= completed;
        for announcer in [&self.own, &self.common].into_iter().flatten() {
            announcer.progress(progress);
            if completed {
                announcer.completed();
            }
        }
    }

    fn told(&self, update: Option<Update>) {
        match update {
            Some(Update::Answered { tracker, answer }) => {
                tracing::debug!(tracker, peers = answer.peers.len(), "announced");
                // Which may be dialled the client has seen to.
                self.torrent
                    .suggest(Origin::Tracker, answer.peers.into_iter());
            }
            Some(Update::Failed { tracker, error }) => {
                tracing::debug!(tracker, %error, "not announced");
            }
            None => {}
        }
    }

    /// Searches the DHT, if it is time to.
    fn search(&mut self, now: Instant) {
        let Some(dht) = &self.discovery().dht else {
            return;
        };
        if self.is_private() {
            self.dht = None;
            return;
        }
        if self.dht.is_none() && now >= self.dht_next {
            self.dht = Some(self.ask(dht));
            self.dht_found = 0;
        }
    }

    fn ask(&self, dht: &MainlineDht) -> Peers {
        let hash = self.info_hash;
        match self.discovery().announced {
            Some(port) => {
                let implied_port = false;
                dht.get_peers_and_announce(hash, Announcement { port, implied_port })
            }
            None => dht.get_peers(hash),
        }
    }

    fn found(&mut self, peer: Option<std::net::SocketAddr>) {
        match peer {
            Some(peer) => {
                self.dht_found += 1;
                if dialable(peer, self.discovery().addresses) {
                    self.torrent.suggest(Origin::Dht, std::iter::once(peer));
                }
            }
            None => {
                self.dht = None;
                let dht = self.discovery().dht.as_ref();
                let alone = dht.is_none_or(|dht| dht.status().borrow().nodes == 0);
                let few = self.torrent.peers().len() < MANY_PEERS && !self.torrent.has_all();
                let pause = match (alone, few) {
                    (true, _) => DHT_EMPTY,
                    (false, true) => DHT_SOON,
                    (false, false) => DHT_EVERY,
                };
                tracing::debug!(found = self.dht_found, ?pause, "searched the DHT");
                self.dht_next = Instant::now() + pause;
            }
        }
    }

    /// Has the torrent announced in the local network, unless it is private.
    fn be_found_nearby(&mut self) {
        let wanted = !self.is_private();
        if let Some(local) = &self.discovery().local
            && wanted != self.local
        {
            let hash = self.info_hash;
            let command = if wanted {
                Command::Add(hash)
            } else {
                Command::Remove(hash)
            };
            // If there is no room now there will be at the next tick.
            if local.try_send(command).is_ok() {
                self.local = wanted;
            }
        }
    }

    /// Tells everybody that we go.
    async fn end(mut self) {
        if self.torrent.has_all() && !self.was_complete && !self.said_complete {
            self.announce().await;
            let heard = async {
                if self.own.is_some() {
                    next(&mut self.own).await;
                }
                if self.common.is_some() {
                    next(&mut self.common).await;
                }
            };
            let _ = timeout(COMPLETED, heard).await;
        }
        let stop = |announcer: Option<Announcer>| async {
            if let Some(announcer) = announcer {
                announcer.stop().await;
            }
        };
        tokio::join!(stop(self.own.take()), stop(self.common.take()));
        if let Some(local) = self.discovery().local.as_ref().filter(|_| self.local) {
            // Whoever has shut down announces nothing.
            let _ = local.try_send(Command::Remove(self.info_hash));
        }
    }
}
