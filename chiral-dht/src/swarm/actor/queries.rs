//! [`Queries`]: look-ups under way, and who waits for them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::kad::{self, GetProvidersOk, GetRecordOk, QueryId, QueryResult, Quorum};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::records::ChiralStore;
use crate::swarm::handle::Stored;

type Kad = kad::Behaviour<ChiralStore>;

/// Look-ups at once; what comes beyond is answered with nothing.
const MAX_QUERIES: usize = 1024;

/// Once something is found, and nobody has found more for this long, the rest of the closest
/// nodes is not waited for: one that is dead would hold up the answer until its dial fails.
const SETTLE: Duration = Duration::from_secs(3);

/// Limit on the copies of one record that are taken, and on their bytes.
const MAX_COPIES: usize = 64;
const MAX_COPIES_BYTES: usize = 2 << 20;

/// Limit on the providers in an answer.
const MAX_PROVIDERS: usize = 128;

/// What is looked for, what was found so far, and who waits for it.
#[derive(Debug)]
enum Query {
    Get {
        values: Vec<Vec<u8>>,
        reply: oneshot::Sender<Vec<Vec<u8>>>,
        found: Option<Instant>,
    },
    Put(oneshot::Sender<Stored>),
    Provide(oneshot::Sender<bool>),
    Providers {
        peers: HashSet<PeerId>,
        reply: oneshot::Sender<Vec<PeerId>>,
        found: Option<Instant>,
    },
    Find {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Vec<Multiaddr>>,
    },
}

impl Query {
    /// When something was found last.
    fn found(&self) -> Option<Instant> {
        match self {
            Self::Get { found, .. } | Self::Providers { found, .. } => *found,
            _ => None,
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Self::Get { reply, .. } => reply.is_closed(),
            Self::Providers { reply, .. } => reply.is_closed(),
            Self::Find { reply, .. } => reply.is_closed(),
            // What is to be stored is stored, whoever waits for it.
            Self::Put(_) | Self::Provide(_) => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Queries {
    running: HashMap<QueryId, Query>,
}

impl Queries {
    fn is_full(&self) -> bool {
        self.running.len() >= MAX_QUERIES
    }

    pub(super) fn get(
        &mut self,
        kad: &mut Kad,
        key: kad::RecordKey,
        reply: oneshot::Sender<Vec<Vec<u8>>>,
    ) {
        if self.is_full() {
            let _ = reply.send(Vec::new());
            return;
        }
        let query = Query::Get {
            values: Vec::new(),
            reply,
            found: None,
        };
        self.running.insert(kad.get_record(key), query);
    }

    /// Stores here and at the closest nodes. All are asked: how many acknowledged is told.
    pub(super) fn put(
        &mut self,
        kad: &mut Kad,
        key: kad::RecordKey,
        value: Vec<u8>,
        reply: oneshot::Sender<Stored>,
    ) {
        if self.is_full() {
            let _ = reply.send(Stored::By(0));
            return;
        }
        match kad.put_record(kad::Record::new(key, value), Quorum::All) {
            Ok(id) => {
                self.running.insert(id, Query::Put(reply));
            }
            Err(error) => {
                tracing::warn!(%error, "our own store refuses a record");
                let _ = reply.send(Stored::Refused);
            }
        }
    }

    pub(super) fn provide(
        &mut self,
        kad: &mut Kad,
        key: kad::RecordKey,
        reply: oneshot::Sender<bool>,
    ) {
        match kad.start_providing(key) {
            Ok(id) if !self.is_full() => {
                self.running.insert(id, Query::Provide(reply));
            }
            result => {
                let _ = reply.send(result.is_ok());
            }
        }
    }

    pub(super) fn providers(
        &mut self,
        kad: &mut Kad,
        key: kad::RecordKey,
        reply: oneshot::Sender<Vec<PeerId>>,
    ) {
        if self.is_full() {
            let _ = reply.send(Vec::new());
            return;
        }
        let query = Query::Providers {
            peers: HashSet::new(),
            reply,
            found: None,
        };
        self.running.insert(kad.get_providers(key), query);
    }

    /// Looks for the addresses of a peer, besides those known.
    pub(super) fn find(
        &mut self,
        kad: &mut Kad,
        peer: PeerId,
        known: Vec<Multiaddr>,
        reply: oneshot::Sender<Vec<Multiaddr>>,
    ) {
        if self.is_full() {
            let _ = reply.send(known);
            return;
        }
        let query = Query::Find {
            peer,
            addresses: known,
            reply,
        };
        self.running.insert(kad.get_closest_peers(peer), query);
    }

    /// Ends look-ups that found enough, and those that nobody waits for.
    pub(super) fn tick(&mut self, kad: &mut Kad, now: Instant) {
        for (id, query) in &self.running {
            let settled = query
                .found()
                .is_some_and(|found| now.duration_since(found) >= SETTLE);
            if (settled || query.is_given_up())
                && let Some(mut query) = kad.query_mut(id)
            {
                query.finish();
            }
        }
    }

    /// A look-up went on, or ended. Those of the routing table itself are not ours.
    pub(super) fn progressed(&mut self, id: QueryId, result: QueryResult, last: bool) {
        let Some(query) = self.running.get_mut(&id) else {
            return;
        };
        query.take(&result);
        if last && let Some(query) = self.running.remove(&id) {
            query.end(result);
        }
    }
}

impl Query {
    fn take(&mut self, result: &QueryResult) {
        match (self, result) {
            (
                Self::Get { values, found, .. },
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(answer))),
            ) => {
                // Only what others answered says that the rest can be waited for briefly.
                if answer.peer.is_some() {
                    *found = Some(Instant::now());
                }
                let value = &answer.record.value;
                let bytes: usize = values.iter().map(Vec::len).sum();
                if values.len() < MAX_COPIES
                    && bytes + value.len() <= MAX_COPIES_BYTES
                    && !values.contains(value)
                {
                    values.push(value.clone());
                }
            }
            (
                Self::Providers { peers, found, .. },
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
            ) => {
                if !providers.is_empty() {
                    *found = Some(Instant::now());
                }
                let room = MAX_PROVIDERS.saturating_sub(peers.len());
                peers.extend(providers.iter().take(room));
            }
            (
                Self::Find {
                    peer, addresses, ..
                },
                QueryResult::GetClosestPeers(result),
            ) => {
                let closest = match result {
                    Ok(found) => &found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                for found in closest.iter().filter(|found| found.peer_id == *peer) {
                    addresses.extend(found.addrs.iter().cloned());
                }
            }
            _ => {}
        }
    }

    /// Answers whoever waits; nobody may.
    fn end(self, result: QueryResult) {
        match self {
            Self::Get { values, reply, .. } => {
                let _ = reply.send(values);
            }
            Self::Put(reply) => {
                let QueryResult::PutRecord(result) = result else {
                    return;
                };
                let acknowledged = match result {
                    Ok(_) => kad::K_VALUE.get(),
                    Err(
                        kad::PutRecordError::QuorumFailed { success, .. }
                        | kad::PutRecordError::Timeout { success, .. },
                    ) => success.len(),
                };
                let _ = reply.send(Stored::By(acknowledged));
            }
            Self::Provide(reply) => {
                let _ = reply.send(true);
            }
            Self::Providers { peers, reply, .. } => {
                let _ = reply.send(peers.into_iter().collect());
            }
            Self::Find {
                mut addresses,
                reply,
                ..
            } => {
                addresses.dedup();
                let _ = reply.send(addresses);
            }
        }
    }
}
