//! Local discovery, for all torrents of a node.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::bittorrent::lsd::LocalDiscovery;
use crate::bittorrent::swarm::known::Origin;
use crate::bittorrent::swarm::node::Node;

/// What local discovery is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bittorrent::swarm) enum Command {
    /// Announce a torrent.
    Add([u8; 20]),
    /// Announce it no more.
    Remove([u8; 20]),
}

/// Announces torrents, and tells them of peers, until the node is shut down.
pub(super) async fn run(
    mut discovery: LocalDiscovery,
    mut mailbox: mpsc::Receiver<Command>,
    node: Arc<Node>,
) {
    loop {
        tokio::select! {
            found = discovery.next() => {
                let Some(found) = found else { return };
                let torrent = node.torrent(&found.info_hash);
                // A private torrent has no peers but its tracker's (BEP 27).
                if let Some(torrent) = torrent.filter(|torrent| !torrent.is_private()) {
                    torrent.suggest(Origin::Local, std::iter::once(found.peer));
                }
            }
            command = mailbox.recv() => match command {
                Some(Command::Add(torrent)) => discovery.add(torrent).await,
                Some(Command::Remove(torrent)) => discovery.remove(torrent).await,
                None => return,
            },
            () = node.closed().cancelled() => break,
        }
    }
    discovery.shutdown().await;
}
