//! One port for all torrents: which one a connection is about, its handshake says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::dial::Arrival;
use super::greet::{self, Wire};
use super::limits::Place;
use super::node::Node;
use crate::bittorrent::utp::UtpSocket;
use crate::bittorrent::wire::Handshake;

/// Pause after a failed accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Node {
    /// Takes connections until the node is shut down.
    pub(in crate::bittorrent) fn listen(self: &Arc<Self>, listener: TcpListener) {
        let node = self.clone();
        self.tasks.spawn(async move {
            let closed = node.shared.closed.clone();
            loop {
                // Those whose handshake is not over are few; others wait to be accepted.
                let Ok(permit) = node.answering.clone().acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = closed.cancelled() => return,
                };
                let Ok((stream, address)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let Some(place) = node.limits.take(address.ip()) else {
                    continue;
                };
                let answering = node.clone();
                node.tasks.spawn(async move {
                    answering.answer_tcp(stream, address, place).await;
                    drop(permit);
                });
            }
        });
    }

    /// Takes connections over uTP until the node is shut down.
    pub(in crate::bittorrent) fn listen_utp(self: &Arc<Self>, utp: UtpSocket) {
        let node = self.clone();
        self.tasks.spawn(async move {
            let closed = node.shared.closed.clone();
            loop {
                let Ok(permit) = node.answering.clone().acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = utp.accept() => accepted,
                    () = closed.cancelled() => return,
                };
                let Some(stream) = accepted else { return };
                let address = stream.peer_addr();
                let Some(place) = node.limits.take(address.ip()) else {
                    continue;
                };
                let answering = node.clone();
                node.tasks.spawn(async move {
                    answering.answer(stream, address, true, place).await;
                    drop(permit);
                });
            }
        });
    }

    async fn answer_tcp(self: Arc<Self>, stream: TcpStream, address: SocketAddr, place: Place) {
        if stream.set_nodelay(true).is_ok() {
            self.answer(stream, address, false, place).await;
        }
    }

    /// Greets whoever came, over whatever.
    pub(super) async fn answer<S: Wire>(
        self: Arc<Self>,
        stream: S,
        address: SocketAddr,
        utp: bool,
        place: Place,
    ) {
        let ours = |theirs: &Handshake| {
            let torrent = self.torrent(&theirs.info_hash)?;
            torrent.is_used().then(|| self.handshake(theirs.info_hash))
        };
        let limit = self.shared.config.handshake_timeout;
        let encryption = self.shared.config.encryption;
        let answered = greet::answer(stream, encryption, || self.used(), ours);
        let greeted = tokio::select! {
            greeted = timeout(limit, answered) => greeted,
            () = self.shared.closed.cancelled() => return,
        };
        match greeted {
            Ok(Ok(greeted)) => {
                if let Some(torrent) = self.torrent(&greeted.theirs.info_hash) {
                    if torrent.is_banned(address.ip(), greeted.theirs.peer_id) {
                        tracing::debug!(peer = %address, "not met: what it gave was wrong");
                        return;
                    }
                    let new = Arrival {
                        address,
                        incoming: true,
                        utp,
                        claim: false,
                        place,
                    };
                    if self.adopt(&torrent, greeted, new).is_err() {
                        tracing::debug!(peer = %address, "connected already");
                    }
                }
            }
            Ok(Err(error)) => tracing::debug!(peer = %address, %error, "not greeted"),
            Err(_) => tracing::debug!(peer = %address, "not greeted in time"),
        }
    }
}
