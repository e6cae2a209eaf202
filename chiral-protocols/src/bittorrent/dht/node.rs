//! [`Node`]: a node of the mainline DHT without socket and clock.
//!
//! Whoever drives it hands it the datagrams that arrive and the time, and after each call
//! takes what is to be sent ([`Node::poll_transmit`]), what has happened
//! ([`Node::poll_event`]) and when to call [`Node::handle_timeout`]
//! ([`Node::poll_timeout`]).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::krpc::{Body, Contact, Message, Method, Query, Want};
use super::lookup::Asked;
use super::node_id::NodeId;
use super::saved::Saved;
use super::store::PeerStore;
use super::table::{Insert, Table};
use super::tokens::Tokens;
use super::votes::Votes;
use crate::bittorrent::compact::dialable;
use crate::bittorrent::random::Random;
use crate::http::AddressPolicy;

mod search;
mod serve;

use search::Search;

/// A node that has not answered for so long is slow: another is asked meanwhile.
const SLOW: Duration = Duration::from_secs(1);
/// A node that has not answered for so long will not.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most questions that wait for an answer.
const MAX_PENDING: usize = 512;
/// Most datagrams that wait to be sent. What is beyond is lost, as datagrams are.
const MAX_OUT: usize = 1024;
/// How often the node looks after itself.
const CARE: Duration = Duration::from_secs(10);
/// First and longest wait before a node with few neighbours looks for more.
const REJOIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How often a node looks for new neighbours.
const JOIN_AGAIN: Duration = Duration::from_secs(30 * 60);

/// How a [`Node`] behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Whether there is a socket for IPv4.
    pub v4: bool,
    /// Whether there is a socket for IPv6 (BEP 32).
    pub v6: bool,
    /// Where the first nodes are found. None are built in.
    pub bootstrap: Vec<SocketAddr>,
    /// What [`Node::save`] gave earlier.
    pub saved: Option<Vec<u8>>,
    /// Which addresses are dealt with at all. Default: those of the public internet.
    pub addresses: AddressPolicy,
    /// Answers no questions, and says so (BEP 43): for nodes that others cannot reach.
    pub read_only: bool,
    /// Deals with nobody whose id does not belong to its address (BEP 42). By default those
    /// whose id does only go first.
    pub strict_ids: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            v4: true,
            v6: false,
            bootstrap: Vec::new(),
            saved: None,
            addresses: AddressPolicy::GlobalOnly,
            read_only: false,
            strict_ids: false,
        }
    }
}

/// One search for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SearchId(u64);

/// What to announce at the end of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where the peer listens.
    pub port: u16,
    /// It is reached where our datagrams come from, whatever `port` says: the port that a
    /// router gave us, for uTP on the same socket.
    pub implied_port: bool,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Peers that were not named before in this search.
    Peers {
        /// The search.
        search: SearchId,
        /// At most [`MAX_FOUND`](super::MAX_FOUND) in the whole search.
        peers: Vec<SocketAddr>,
    },
    /// A search has ended.
    Finished {
        /// The search.
        search: SearchId,
        /// How many nodes have taken the announcement.
        announced: usize,
    },
    /// The node has looked for its neighbours.
    Joined {
        /// Whether over IPv4.
        v4: bool,
        /// How many nodes it knows now.
        nodes: usize,
    },
    /// Others agree on our address.
    Address(IpAddr),
}

/// What a question was for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Ping,
    Search(u64),
    Announce(u64),
}

#[derive(Debug)]
struct Pending {
    to: SocketAddr,
    asked: Asked,
    purpose: Purpose,
    sent: Instant,
}

/// What there is for each address family.
#[derive(Debug)]
struct Family {
    table: Table,
    votes: Votes,
    joining: bool,
    next_join: Instant,
    /// Joins in a row that found few.
    lonely: u32,
    /// Known from an earlier run.
    known: Vec<Contact>,
}

/// A search as its asker sees it.
#[derive(Debug, Default)]
struct Open {
    /// How many families are still searched.
    left: usize,
    announced: usize,
    seen: HashSet<SocketAddr>,
}

/// A node of the mainline DHT.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    random: Random,
    /// IPv4, IPv6.
    families: [Option<Family>; 2],
    pending: HashMap<u32, Pending>,
    searches: BTreeMap<u64, Search>,
    open: HashMap<SearchId, Open>,
    next_id: u64,
    tokens: Tokens,
    store: PeerStore,
    allowance: Allowance,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
    next_care: Instant,
}

impl Node {
    /// A node that knows nobody yet; `seed` must be as unpredictable as a key.
    #[must_use]
    pub fn new(config: NodeConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut random = Random::from_seed(seed);
        let saved = config.saved.as_deref().and_then(Saved::decode);
        let mut saved = saved.unwrap_or_default();
        let strict = config.strict_ids;
        let families = [(config.v4, 0), (config.v6, 1)].map(|(on, family)| {
            let (id, known) = std::mem::take(&mut saved.families[family]);
            let id = id.unwrap_or_else(|| NodeId::random(&mut random));
            on.then(|| Family {
                table: Table::new(id, strict, now),
                votes: Votes::default(),
                joining: false,
                next_join: now,
                lonely: 0,
                known,
            })
        });
        Self {
            tokens: Tokens::new(now, &mut random),
            config,
            random,
            families,
            pending: HashMap::new(),
            searches: BTreeMap::new(),
            open: HashMap::new(),
            next_id: 0,
            store: PeerStore::default(),
            allowance: Allowance::new(now),
            out: VecDeque::new(),
            events: VecDeque::new(),
            next_care: now,
        }
    }

    /// The node's id over IPv4 or IPv6.
    #[must_use]
    pub fn id(&self, v4: bool) -> Option<NodeId> {
        Some(self.family(v4)?.table.own())
    }

    /// How many nodes it knows over IPv4 or IPv6.
    #[must_use]
    pub fn nodes(&self, v4: bool) -> usize {
        self.family(v4).map_or(0, |family| family.table.len())
    }

    /// Of how many torrents it keeps peers that others have announced.
    #[must_use]
    pub fn torrents(&self) -> usize {
        self.store.torrents()
    }

    /// Its ids and the nodes that it knows, for [`NodeConfig::saved`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let families = self.families.each_ref().map(|family| match family {
            Some(family) => (Some(family.table.own()), family.table.all()),
            None => (None, Vec::new()),
        });
        Saved { families }.encode()
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        if self.family(from.is_ipv4()).is_none() || !dialable(from, self.config.addresses) {
            return;
        }
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%from, %error, "not a message");
                return;
            }
        };
        match message.body {
            Body::Query(query) => self.serve(from, message.transaction, query, now),
            Body::Answer(answer) => {
                if let Some(pending) = self.take_pending(&message.transaction, from) {
                    self.handle_answer(pending, answer, now);
                }
            }
            Body::Error(code) => {
                if let Some(pending) = self.take_pending(&message.transaction, from) {
                    tracing::debug!(%from, code, "refused");
                    self.unanswered(&pending, now);
                }
            }
        }
    }

    /// Asks a node of which only the address is known whether it is there: a peer said so, or a
    /// name has been looked up.
    pub fn try_node(&mut self, address: SocketAddr, now: Instant) {
        let asked = self.pending.values().any(|pending| pending.to == address);
        if !asked && dialable(address, self.config.addresses) {
            self.ask(address, None, Method::Ping, Purpose::Ping, now);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let age = |pending: &Pending| now.saturating_duration_since(pending.sent);
        let mut late = Vec::new();
        let mut slow = Vec::new();
        for (transaction, pending) in &mut self.pending {
            if age(pending) >= TIMEOUT {
                late.push(*transaction);
            } else if age(pending) >= SLOW && !pending.asked.slow {
                pending.asked.slow = true;
                if let Purpose::Search(search) = pending.purpose {
                    slow.push((search, pending.asked.id));
                }
            }
        }
        for (search_key, id) in slow {
            if let Some(search) = self.searches.get_mut(&search_key) {
                search.lookup.slow(id);
            }
            self.advance(search_key, now);
        }
        for transaction in late {
            if let Some(pending) = self.pending.remove(&transaction) {
                self.fail_contact(&pending, now);
                self.unanswered(&pending, now);
            }
        }
        if now >= self.next_care {
            self.next_care = now + CARE;
            self.care(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let due = self.pending.values().map(|pending| {
            let wait = if pending.asked.slow { TIMEOUT } else { SLOW };
            pending.sent + wait
        });
        due.min()
            .map_or(self.next_care, |due| due.min(self.next_care))
    }

    /// A datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    /// Something that has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn family(&self, v4: bool) -> Option<&Family> {
        self.families[usize::from(!v4)].as_ref()
    }

    fn family_mut(&mut self, v4: bool) -> Option<&mut Family> {
        self.families[usize::from(!v4)].as_mut()
    }

    /// What an answer from there is the answer to. A guess of the transaction alone is worth
    /// nothing.
    fn take_pending(&mut self, transaction: &[u8], from: SocketAddr) -> Option<Pending> {
        let transaction = u32::from_be_bytes(transaction.try_into().ok()?);
        let pending = self.pending.get(&transaction)?;
        if pending.to != from {
            return None;
        }
        self.pending.remove(&transaction)
    }

    /// Asks something. Whether it could be.
    fn ask(
        &mut self,
        to: SocketAddr,
        id: Option<NodeId>,
        method: Method,
        purpose: Purpose,
        now: Instant,
    ) -> bool {
        let Some(own) = self.id(to.is_ipv4()) else {
            return false;
        };
        let pings = matches!(purpose, Purpose::Ping);
        let room = if pings { MAX_PENDING / 2 } else { MAX_PENDING };
        if self.pending.len() >= room || self.out.len() >= MAX_OUT {
            return false;
        }
        let mut transaction = self.random.u32();
        while self.pending.contains_key(&transaction) {
            transaction = self.random.u32();
        }
        let both = self.families.iter().all(Option::is_some);
        let query = Query {
            id: own,
            method,
            want: Want { v4: both, v6: both },
            read_only: self.config.read_only,
        };
        let message = Message {
            transaction: transaction.to_be_bytes().to_vec(),
            body: Body::Query(query),
        };
        self.out.push_back((to, message.encode()));
        let asked = Asked { id, slow: false };
        let pending = Pending {
            to,
            asked,
            purpose,
            sent: now,
        };
        self.pending.insert(transaction, pending);
        true
    }

    /// Asks whether a node is there, unless it is being asked something anyway.
    fn ping(&mut self, contact: Contact, now: Instant) {
        if !self.pending.values().any(|p| p.to == contact.address) {
            let id = Some(contact.id);
            self.ask(contact.address, id, Method::Ping, Purpose::Ping, now);
        }
    }

    fn handle_answer(&mut self, pending: Pending, answer: super::krpc::Answer, now: Instant) {
        let v4 = pending.to.is_ipv4();
        if pending.asked.id.is_some_and(|id| id != answer.id) {
            // Another node lives there now.
            self.fail_contact(&pending, now);
            self.unanswered(&pending, now);
            return;
        }
        let contact = Contact {
            id: answer.id,
            address: pending.to,
        };
        let Some(family) = self.family_mut(v4) else {
            return;
        };
        if let Some(seen) = answer.seen {
            family.votes.count(contact.address, seen.ip());
        }
        if let Insert::Spare(Some(quiet)) = family.table.insert(contact, now) {
            self.ping(quiet, now);
        }
        if let Some(family) = self.family_mut(v4)
            && family.table.len() == 1
            && !family.joining
        {
            // It knows others.
            family.next_join = now;
            self.next_care = now;
        }
        self.heed_votes(v4, now);
        match pending.purpose {
            Purpose::Ping => {}
            Purpose::Search(key) => self.search_answered(key, contact, pending.asked, answer, now),
            Purpose::Announce(key) => self.announced(key, true, now),
        }
    }

    fn unanswered(&mut self, pending: &Pending, now: Instant) {
        match pending.purpose {
            Purpose::Ping => {}
            Purpose::Search(key) => {
                if let Some(search) = self.searches.get_mut(&key) {
                    search.lookup.failed(pending.asked);
                }
                self.advance(key, now);
            }
            Purpose::Announce(key) => self.announced(key, false, now),
        }
    }

    fn fail_contact(&mut self, pending: &Pending, now: Instant) {
        if let Some(id) = pending.asked.id
            && let Some(family) = self.family_mut(pending.to.is_ipv4())
        {
            let address = pending.to;
            family.table.failed(&Contact { id, address }, now);
        }
    }

    /// Takes an id that belongs to our address, once others agree on that.
    fn heed_votes(&mut self, v4: bool, now: Instant) {
        let Some(family) = self.families[usize::from(!v4)].as_mut() else {
            return;
        };
        let Some(ip) = family.votes.elected() else {
            return;
        };
        if !family.table.own().fits(ip) {
            let id = NodeId::for_address(ip, &mut self.random);
            family.table.set_own(id, now);
            family.next_join = now;
        }
        self.events.push_back(Event::Address(ip));
    }

    fn care(&mut self, now: Instant) {
        self.tokens.rotate(now, &mut self.random);
        self.store.expire(now);
        self.allowance.forget(now);
        for v4 in [true, false] {
            let Some(family) = self.families[usize::from(!v4)].as_mut() else {
                continue;
            };
            if now >= family.next_join && !family.joining {
                self.join(v4, now);
            } else if let Some(target) = family.table.stale(now, &mut self.random) {
                self.refresh(v4, target, now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
