//! Who is connected to, or was, and on whose word.

use std::collections::BTreeMap;

use chiral_core::{Endpoint, PeerId, PeerOffer, Protocol};

/// Limit on the peers that announce the same place and are all believed until shown wrong.
const MAX_CLAIMS: usize = 8;

/// The places of a download, each beside the peers that announced it.
///
/// Anybody can announce another's place beside terms of his own: so the terms of whoever
/// serves there count as well, and not those alone that came first. A place that the user
/// named, without a peer, is connected to on his word and nobody else's.
#[derive(Debug, Default)]
pub(super) struct Places {
    claims: BTreeMap<(Protocol, Endpoint), Vec<Option<PeerId>>>,
    count: usize,
}

fn place(offer: &PeerOffer) -> (Protocol, Endpoint) {
    (offer.protocol.clone(), offer.endpoint.clone())
}

impl Places {
    /// Offers that were claimed and not released.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether to connect to this one; then it is remembered.
    pub(super) fn claim(&mut self, offer: &PeerOffer) -> bool {
        let peers = self.claims.entry(place(offer)).or_default();
        let named = peers.contains(&None) || (offer.peer.is_none() && !peers.is_empty());
        if named || peers.len() >= MAX_CLAIMS || peers.contains(&offer.peer) {
            return false;
        }
        peers.push(offer.peer.clone());
        self.count += 1;
        true
    }

    /// Whether it was claimed and not released.
    pub(super) fn holds(&self, offer: &PeerOffer) -> bool {
        let peers = self.claims.get(&place(offer));
        peers.is_some_and(|peers| peers.contains(&offer.peer))
    }

    /// It may be connected to again.
    pub(super) fn release(&mut self, offer: &PeerOffer) {
        let place = place(offer);
        let Some(peers) = self.claims.get_mut(&place) else {
            return;
        };
        let before = peers.len();
        peers.retain(|peer| *peer != offer.peer);
        self.count -= before - peers.len();
        if peers.is_empty() {
            self.claims.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(url: &str, peer: Option<u8>) -> PeerOffer {
        let mut offer = PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap());
        offer.peer = peer.map(|peer| PeerId::from_bytes(&[peer]).unwrap());
        offer
    }

    #[test]
    fn whoever_announces_anothers_place_does_not_hide_it() {
        let (honest, hostile) = (offer("http://a/", Some(1)), offer("http://a/", Some(2)));
        let mut places = Places::default();
        assert!(places.claim(&hostile));
        assert!(places.claim(&honest));
        assert!(!places.claim(&hostile));
        places.release(&hostile);
        places.release(&hostile);
        assert_eq!(places.len(), 1);
        assert!(!places.claim(&honest));
        assert!(places.claim(&hostile));
    }

    #[test]
    fn few_claim_a_place_and_the_users_word_comes_first() {
        let crowd: Vec<_> = (0..100).map(|i| offer("http://a/", Some(i))).collect();
        let mut places = Places::default();
        assert_eq!(
            crowd.iter().filter(|it| places.claim(it)).count(),
            MAX_CLAIMS
        );
        let mut places = Places::default();
        let named = offer("http://a/", None);
        assert!(places.claim(&named));
        assert!(!places.claim(&named));
        assert!(!crowd.iter().any(|it| places.claim(it)));
        assert!(places.claim(&offer("http://b/", Some(1))));
        assert_eq!(places.len(), 2);
    }
}
