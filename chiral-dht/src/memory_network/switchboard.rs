//! Who has joined, what each accepts and listens to, and the links between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chiral_core::peer_network::BoxedPeerStream;
use chiral_core::{NetworkError, PeerId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pipe::pipe;
use super::{MAX_WAITING_MESSAGES, MAX_WAITING_STREAMS, STREAM_BUFFER};

type Accepted = (PeerId, BoxedPeerStream);
type Heard = (PeerId, Bytes);

/// A node as long as it has not left. A later one with the same peer id is another.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) peer: PeerId,
    number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Switchboard {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<PeerId, Node>,
    /// Of pairs that had a stream; cancelled to reset all of them.
    links: BTreeMap<Pair, CancellationToken>,
    cut: BTreeSet<Pair>,
    /// Of which the two hear each other, through a relay.
    relayed: BTreeSet<Pair>,
    joined: u64,
}

#[derive(Debug)]
struct Node {
    number: u64,
    acceptors: BTreeMap<String, mpsc::Sender<Accepted>>,
    topics: BTreeMap<String, Vec<mpsc::Sender<Heard>>>,
}

/// Two peers, the lesser first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair(PeerId, PeerId);

impl Pair {
    fn new(a: &PeerId, b: &PeerId) -> Self {
        Self(a.min(b).clone(), a.max(b).clone())
    }
}

impl State {
    fn node(&mut self, membership: &Membership) -> Result<&mut Node, NetworkError> {
        let node = self.nodes.get_mut(&membership.peer);
        node.filter(|node| node.number == membership.number)
            .ok_or(NetworkError::Closed)
    }

    fn connected(&self, a: &PeerId, b: &PeerId) -> bool {
        let pair = Pair::new(a, b);
        let heard = !self.cut.contains(&pair) || self.relayed.contains(&pair);
        a != b && self.nodes.contains_key(b) && heard
    }

    fn is_relayed(&self, a: &PeerId, b: &PeerId) -> bool {
        self.relayed.contains(&Pair::new(a, b))
    }

    fn remove(&mut self, peer: &PeerId) {
        self.nodes.remove(peer);
        self.links.retain(|pair, link| {
            let touched = pair.0 == *peer || pair.1 == *peer;
            if touched {
                link.cancel();
            }
            !touched
        });
    }
}

impl Switchboard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, peer: PeerId) -> Membership {
        let mut state = self.state();
        state.remove(&peer);
        state.joined += 1;
        let number = state.joined;
        let node = Node {
            number,
            acceptors: BTreeMap::new(),
            topics: BTreeMap::new(),
        };
        state.nodes.insert(peer.clone(), node);
        Membership { peer, number }
    }

    pub(super) fn leave(&self, membership: &Membership) {
        let mut state = self.state();
        if state.node(membership).is_ok() {
            state.remove(&membership.peer);
        }
    }

    pub(super) fn cut(&self, a: &PeerId, b: &PeerId) {
        let mut state = self.state();
        let pair = Pair::new(a, b);
        if let Some(link) = state.links.remove(&pair) {
            link.cancel();
        }
        state.relayed.remove(&pair);
        state.cut.insert(pair);
    }

    pub(super) fn mend(&self, a: &PeerId, b: &PeerId) {
        let mut state = self.state();
        state.cut.remove(&Pair::new(a, b));
        state.relayed.remove(&Pair::new(a, b));
    }

    pub(super) fn relay(&self, a: &PeerId, b: &PeerId) {
        self.cut(a, b);
        self.state().relayed.insert(Pair::new(a, b));
    }

    pub(super) fn connected(&self, membership: &Membership) -> Result<Vec<PeerId>, NetworkError> {
        let mut state = self.state();
        state.node(membership)?;
        let connected = |peer: &&PeerId| state.connected(&membership.peer, peer);
        Ok(state.nodes.keys().filter(connected).cloned().collect())
    }

    pub(super) fn open(
        &self,
        membership: &Membership,
        peer: &PeerId,
        name: &str,
    ) -> Result<BoxedPeerStream, NetworkError> {
        let mut state = self.state();
        state.node(membership)?;
        if !state.connected(&membership.peer, peer) {
            return Err(NetworkError::Unreachable { peer: peer.clone() });
        }
        if state.is_relayed(&membership.peer, peer) {
            return Err(NetworkError::Relayed { peer: peer.clone() });
        }
        let acceptors = state.nodes.get(peer).map(|node| &node.acceptors);
        let acceptor = acceptors.and_then(|acceptors| acceptors.get(name));
        let Some(acceptor) = acceptor.filter(|acceptor| !acceptor.is_closed()).cloned() else {
            return Err(NetworkError::Unsupported {
                peer: peer.clone(),
                name: name.to_owned(),
            });
        };
        let link = state
            .links
            .entry(Pair::new(&membership.peer, peer))
            .or_default();
        let (ours, theirs) = pipe(STREAM_BUFFER, &link.child_token());
        drop(state);
        // If there is no place in the queue, the acceptor's end is dropped, and so reset.
        let _ = acceptor.try_send((membership.peer.clone(), Box::new(theirs)));
        Ok(Box::new(ours))
    }

    pub(super) fn accept(
        &self,
        membership: &Membership,
        name: &str,
    ) -> Result<mpsc::Receiver<Accepted>, NetworkError> {
        let mut state = self.state();
        let acceptors = &mut state.node(membership)?.acceptors;
        acceptors.retain(|_, acceptor| !acceptor.is_closed());
        if acceptors.contains_key(name) {
            return Err(NetworkError::Taken {
                name: name.to_owned(),
            });
        }
        let (sender, receiver) = mpsc::channel(MAX_WAITING_STREAMS);
        acceptors.insert(name.to_owned(), sender);
        Ok(receiver)
    }

    pub(super) fn subscribe(
        &self,
        membership: &Membership,
        topic: &str,
    ) -> Result<mpsc::Receiver<Heard>, NetworkError> {
        let mut state = self.state();
        let topics = &mut state.node(membership)?.topics;
        topics.retain(|_, subscribers| {
            subscribers.retain(|subscriber| !subscriber.is_closed());
            !subscribers.is_empty()
        });
        let (sender, receiver) = mpsc::channel(MAX_WAITING_MESSAGES);
        topics.entry(topic.to_owned()).or_default().push(sender);
        Ok(receiver)
    }

    pub(super) fn publish(
        &self,
        membership: &Membership,
        topic: &str,
        message: &Bytes,
    ) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.node(membership)?;
        let connected = |(peer, _): &(&PeerId, &Node)| state.connected(&membership.peer, peer);
        let listening = state.nodes.iter().filter(connected);
        for subscriber in listening
            .filter_map(|(_, node)| node.topics.get(topic))
            .flatten()
        {
            // Full or gone: this message is lost to this subscriber.
            let _ = subscriber.try_send((membership.peer.clone(), message.clone()));
        }
        Ok(())
    }
}
