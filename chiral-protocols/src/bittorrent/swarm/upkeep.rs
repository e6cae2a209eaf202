//! What is done for a torrent from time to time: its pieces counted, its peers choked and
//! unchoked and told of each other, new ones dialled, and handed to whoever downloads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chiral_core::{Endpoint, PeerOffer, Protocol};
use tokio::time::Instant;

use super::choker::{Candidate, Choker};
use super::handle::{PeerHandle, Published};
use super::node::Node;
use super::source::PeerSource;
use super::torrent::Torrent;
use crate::lane;

/// How often the pieces are counted while a download adds to them.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// How often it is looked whether there is something to be done at all.
const REST: Duration = Duration::from_secs(5);

/// How often peers are told of each other; each is told more seldom.
const EXCHANGE_EVERY: Duration = Duration::from_secs(15);

/// Peers, those being dialled included, beyond which no more are dialled that others told of.
const ENOUGH_PEERS: usize = 50;

/// Looks after a torrent until the node is shut down.
pub(super) async fn look_after(node: Arc<Node>, torrent: Arc<Torrent>) {
    let started = Instant::now();
    let mut choker = Choker::new(node.shared.config.choker, Duration::ZERO);
    let mut unchoked: BTreeSet<u64> = BTreeSet::new();
    let mut exchange_at = Duration::ZERO;
    loop {
        let now = started.elapsed();
        refresh_content(&node, &torrent).await;
        let peers = torrent.peers();
        let sold = has_a_price(&node, &torrent);
        rechoke(&mut choker, &mut unchoked, now, &torrent, &peers, sold);
        hand_over(&node, &torrent, &peers);
        if now >= exchange_at && !torrent.is_private() {
            exchange_at = now + EXCHANGE_EVERY;
            peers.iter().for_each(|peer| peer.exchange_peers());
        }
        dial_known(&node, &torrent, peers.len());
        let is_known = torrent.cid().is_some() && !torrent.is_withheld();
        let served = is_known || torrent.is_apart();
        let growing = served && !torrent.has_all();
        let pause = if growing { COUNT_EVERY } else { REST };
        let pause = pause.min(
            choker
                .next()
                .saturating_sub(now)
                .max(Duration::from_millis(100)),
        );
        tokio::select! {
            () = torrent.upkeep.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = node.shared.closed.cancelled() => return,
        }
    }
}

/// Opens what is served, and counts its pieces.
async fn refresh_content(node: &Arc<Node>, torrent: &Arc<Torrent>) {
    let is_uncounted = torrent.take_uncounted();
    if !torrent.has_all() {
        count(node, torrent).await;
    }
    if is_uncounted {
        torrent.look_for_gone();
    }
}

async fn count(node: &Arc<Node>, torrent: &Arc<Torrent>) {
    match torrent.cid() {
        _ if torrent.is_apart() => {}
        _ if torrent.is_withheld() => return,
        None => return,
        // A download that has ended leaves its partial file: what can be served is opened anew.
        Some(cid) => match node.store.open(cid).await {
            Ok(content) => torrent.set_content(content),
            Err(error) => tracing::debug!(content = %cid, %error, "cannot be served"),
        },
    }
    let more = torrent.count_pieces();
    let known = torrent.have().is_some();
    // What could not be checked may be checked now: hashes came.
    if (more || !known) && torrent.is_what_it_says().await {
        torrent.look();
    }
}

/// Whether what is served of a torrent has a price.
pub(super) fn has_a_price(node: &Node, torrent: &Torrent) -> bool {
    let content = torrent.content();
    content.is_some_and(|content| {
        let tariff = node.shared.gate.tariff(content.header().cid);
        !tariff.price.is_free()
    })
}

/// Whether a peer is in the fast lane: it proved to be a Chiral node, and of what is sold the gate
/// has let it have something, which where one pays first is when the payment is recorded. Before
/// that it takes its turn with the others.
pub(super) fn has_lane(peer: &Published, sold: bool) -> bool {
    peer.chiral.is_some() && (!sold || peer.admitted)
}

fn candidate(key: u64, peer: &Published, sold: bool) -> Candidate {
    Candidate {
        key,
        // Whoever cannot pay gets nothing of what is sold: no slot is spent on him.
        interested: peer.interested && (!sold || peer.chiral.is_some()),
        fast_lane: has_lane(peer, sold),
        gives: peer.gives,
        gave: peer.gave,
        got: peer.got,
        snubs: peer.snubs,
    }
}

fn rechoke(
    choker: &mut Choker,
    unchoked: &mut BTreeSet<u64>,
    now: Duration,
    torrent: &Torrent,
    peers: &[Arc<PeerHandle>],
    sold: bool,
) {
    let candidates: Vec<_> = peers
        .iter()
        .map(|peer| candidate(peer.key, &peer.published(), sold))
        .collect();
    let random = |most: usize| {
        // Whom it hits is not worth an error.
        let number = super::node::random::<8>().map_or(0, u64::from_le_bytes);
        (number % most.max(1) as u64) as usize
    };
    let chosen: BTreeSet<u64> = choker
        .decide(now, torrent.has_all(), &candidates, random)
        .into_iter()
        .collect();
    for peer in peers {
        let choking = !chosen.contains(&peer.key);
        if choking == unchoked.contains(&peer.key) {
            peer.set_choking(choking);
        }
    }
    *unchoked = chosen;
}

/// Peers that came, or were found, go to those who download: Chiral nodes that proved who they
/// are first, but for every fourth, so that the public swarm is never left out.
fn hand_over(node: &Node, torrent: &Arc<Torrent>, peers: &[Arc<PeerHandle>]) {
    let Some(info) = torrent.info() else {
        return;
    };
    if !torrent.is_waited_for() {
        return;
    }
    let open: Vec<_> = peers.iter().filter(|peer| !peer.is_closed()).collect();
    for peer in lane::order(open, |peer| peer.published().chiral.is_some()) {
        torrent.hand(peer.key, || {
            let offer = offer_of(torrent, peer)?;
            let (peer, torrent, shared) = (peer.clone(), torrent.clone(), node.shared.clone());
            peer.claim().then(|| {
                Arc::new(PeerSource::new(peer, torrent, info.geometry, offer, shared)) as _
            })
        });
    }
}

fn offer_of(torrent: &Torrent, peer: &PeerHandle) -> Option<PeerOffer> {
    let published = peer.published();
    let address = published.listens_at.unwrap_or(peer.address);
    let hash = chiral_core::Alias::InfoHashV1(torrent.info_hash);
    let endpoint = Endpoint::new(format!("{hash}@{address}")).ok()?;
    let mut offer = PeerOffer::new(Protocol::BitTorrent, endpoint);
    offer.peer = published.chiral;
    Some(offer)
}

/// Dials those that others told of, while there are few.
fn dial_known(node: &Arc<Node>, torrent: &Arc<Torrent>, connected: usize) {
    if !torrent.is_used() {
        return;
    }
    for address in torrent.take_met() {
        if node.shared.listens_at(address) || torrent.is_connected(address) {
            continue;
        }
        let (dialling, to) = (node.clone(), torrent.clone());
        node.tasks.spawn(async move {
            let closed = dialling.shared.closed.clone();
            let met = dialling.meet(&to, address);
            if let Some(Err(error)) = closed.run_until_cancelled(met).await {
                tracing::debug!(peer = %address, %error, "not met");
            }
        });
    }
    let now = || Instant::now().into_std();
    let under_way = torrent.known().under_way();
    for _ in connected + under_way..ENOUGH_PEERS {
        let Some(address) = torrent.known().next(now()) else {
            return;
        };
        // By its address alone: which peer is there is not known before it was called.
        let banned = torrent.is_banned(address.ip(), [0; 20]);
        if banned || node.shared.listens_at(address) || torrent.is_connected(address) {
            torrent.known().reached(address);
            continue;
        }
        let (dialling, to) = (node.clone(), torrent.clone());
        node.tasks.spawn(async move {
            let closed = dialling.shared.closed.clone();
            let dialled = closed
                .run_until_cancelled(dialling.dial(&to, address, false))
                .await;
            match dialled {
                Some(Ok(_)) => to.known().reached(address),
                Some(Err(error)) => {
                    tracing::debug!(peer = %address, %error, "not dialled");
                    match error.is_useless() {
                        true => to.known().reached(address),
                        false => to.known().failed(address, now()),
                    }
                    if dialling.discovery.utp.is_some() {
                        to.ask_rendezvous(address);
                    }
                }
                None => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use chiral_core::PeerId;

    use super::*;

    #[test]
    fn of_what_is_sold_the_lane_is_for_those_whom_the_gate_let_in() {
        let mut peer = Published {
            interested: true,
            ..Published::default()
        };
        let lane = |peer: &Published, sold| {
            let seen = candidate(1, peer, sold);
            (seen.interested, seen.fast_lane)
        };
        // A stranger gets what is free, and nothing of what is not.
        assert_eq!(
            (lane(&peer, false), lane(&peer, true)),
            ((true, false), (false, false))
        );
        // Who proved an id and paid nothing waits as the others do.
        peer.chiral = Some(PeerId::from_bytes(&[1]).unwrap());
        assert_eq!(
            (lane(&peer, false), lane(&peer, true)),
            ((true, true), (true, false))
        );
        peer.admitted = true;
        assert_eq!(lane(&peer, true), (true, true));
    }
}
