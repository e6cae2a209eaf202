//! [`Registry`]: which names are accepted, and by whom.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream as FuturesStream;
use libp2p::swarm::StreamProtocol;
use libp2p::{PeerId, Stream};
use tokio::sync::mpsc;

use crate::swarm::MAX_WAITING_STREAMS;

/// A stream that came, and from whom.
type Arrival = (PeerId, Stream);

/// Names and their acceptors. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    acceptors: HashMap<StreamProtocol, Acceptor>,
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Acceptor {
    /// Tells it from a later acceptor of the same name.
    number: u64,
    streams: mpsc::Sender<Arrival>,
}

/// Why a name cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegisterError {
    Taken,
    Closed,
}

impl Registry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a name, until the answer is dropped.
    pub(crate) fn accept(&self, name: StreamProtocol) -> Result<Accepted, RegisterError> {
        let mut state = self.state();
        if state.closed {
            return Err(RegisterError::Closed);
        }
        if state.acceptors.contains_key(&name) {
            return Err(RegisterError::Taken);
        }
        let number = state.next;
        state.next += 1;
        let (streams, receiver) = mpsc::channel(MAX_WAITING_STREAMS);
        state
            .acceptors
            .insert(name.clone(), Acceptor { number, streams });
        Ok(Accepted {
            registry: self.clone(),
            name,
            number,
            receiver,
        })
    }

    /// The names that are accepted now.
    pub(super) fn names(&self) -> Vec<StreamProtocol> {
        self.state().acceptors.keys().cloned().collect()
    }

    /// Hands a stream to its acceptor. If there is none, or too many wait for it, the stream
    /// is dropped, which resets it.
    pub(super) fn arrived(&self, peer: PeerId, name: &StreamProtocol, stream: Stream) {
        let acceptor = self.state().acceptors.get(name).map(|a| a.streams.clone());
        let sent = acceptor.is_some_and(|acceptor| acceptor.try_send((peer, stream)).is_ok());
        if !sent {
            tracing::debug!(%peer, %name, "no place for a stream: it is reset");
        }
    }

    /// Ends all acceptors, for good.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.acceptors.clear();
    }
}

/// The streams of one name.
#[derive(Debug)]
pub(crate) struct Accepted {
    registry: Registry,
    name: StreamProtocol,
    number: u64,
    receiver: mpsc::Receiver<Arrival>,
}

impl FuturesStream for Accepted {
    type Item = Arrival;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        self.receiver.poll_recv(cx)
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        let own = state
            .acceptors
            .get(&self.name)
            .is_some_and(|acceptor| acceptor.number == self.number);
        if own {
            state.acceptors.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_acceptor_until_it_is_dropped() {
        const NAME: StreamProtocol = StreamProtocol::new("/name");
        let registry = Registry::default();
        let first = registry.accept(NAME).unwrap();
        assert_eq!(registry.accept(NAME).unwrap_err(), RegisterError::Taken);
        assert_eq!(registry.names(), [NAME]);
        drop(first);
        assert!(registry.names().is_empty());
        let _second = registry.accept(NAME).unwrap();
        registry.close();
        assert!(registry.names().is_empty());
        assert_eq!(registry.accept(NAME).unwrap_err(), RegisterError::Closed);
    }
}
