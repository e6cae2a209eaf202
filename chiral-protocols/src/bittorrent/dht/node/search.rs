//! The node's own searches: for its neighbours, for what keeps its table fresh, for peers.

use std::time::Instant;

use super::{Announcement, Event, JOIN_AGAIN, Node, Open, Purpose, REJOIN, SearchId};
use crate::bittorrent::compact::dialable;
use crate::bittorrent::dht::krpc::{Answer, Contact, K, Method};
use crate::bittorrent::dht::lookup::{Asked, Lookup};
use crate::bittorrent::dht::node_id::NodeId;
use crate::bittorrent::dht::{MAX_FOUND, MAX_SEARCHES};

/// What a search is for.
#[derive(Clone, Copy, Debug)]
enum Goal {
    Join,
    Refresh,
    Peers {
        search: SearchId,
        info_hash: [u8; 20],
        announcement: Option<Announcement>,
    },
}

#[derive(Debug)]
pub(super) struct Search {
    v4: bool,
    goal: Goal,
    pub(super) lookup: Lookup,
    /// It waits for the node to have joined.
    waits: bool,
    /// Nodes that are being announced to; `None` before that.
    announcing: Option<usize>,
}

impl Node {
    /// Looks for the peers of a torrent, and announces one in the end if told so. `None` if
    /// [`MAX_SEARCHES`] are under way.
    pub fn search(
        &mut self,
        info_hash: [u8; 20],
        announcement: Option<Announcement>,
        now: Instant,
    ) -> Option<SearchId> {
        if self.open.len() >= MAX_SEARCHES {
            return None;
        }
        let search = SearchId(self.next_id);
        let mut open = Open::default();
        let mut keys = Vec::new();
        for v4 in [true, false] {
            let Some(family) = self.family(v4) else {
                continue;
            };
            let waits = family.joining || now >= family.next_join;
            let goal = Goal::Peers {
                search,
                info_hash,
                announcement,
            };
            open.left += 1;
            keys.push(self.start(v4, goal, NodeId(info_hash), waits));
        }
        // Also without any family, the id is used up.
        self.next_id += 1;
        if open.left == 0 {
            self.events.push_back(Event::Finished {
                search,
                announced: 0,
            });
            return Some(search);
        }
        // We may be the one that others announced to.
        let own = [true, false].map(|v4| {
            self.store
                .some(&info_hash, v4, MAX_FOUND, now, &mut self.random)
        });
        self.open.insert(search, open);
        self.found(search, own.concat());
        for key in keys {
            self.advance(key, now);
        }
        Some(search)
    }

    /// Ends a search; nothing more is heard of it.
    pub fn cancel(&mut self, search: SearchId) {
        self.open.remove(&search);
        self.searches
            .retain(|_, s| !matches!(s.goal, Goal::Peers { search: of, .. } if of == search));
    }

    pub(super) fn join(&mut self, v4: bool, now: Instant) {
        let Some(own) = self.id(v4) else {
            return;
        };
        let key = self.start(v4, Goal::Join, own, false);
        let Some(family) = self.families[usize::from(!v4)].as_mut() else {
            return;
        };
        family.joining = true;
        let known = std::mem::take(&mut family.known);
        let needy = family.table.len() < K;
        if let Some(search) = self.searches.get_mut(&key) {
            let policy = self.config.addresses;
            for contact in known {
                if dialable(contact.address, policy) && contact.address.is_ipv4() == v4 {
                    search.lookup.add(contact);
                }
            }
            // Where to begin is not asked again by those who know their way.
            for address in &self.config.bootstrap {
                if needy && address.is_ipv4() == v4 && dialable(*address, policy) {
                    search.lookup.add_unnamed(*address);
                }
            }
        }
        self.advance(key, now);
    }

    pub(super) fn refresh(&mut self, v4: bool, target: NodeId, now: Instant) {
        let key = self.start(v4, Goal::Refresh, target, false);
        self.advance(key, now);
    }

    fn start(&mut self, v4: bool, goal: Goal, target: NodeId, waits: bool) -> u64 {
        self.next_id += 1;
        let key = self.next_id;
        let mut search = Search {
            v4,
            goal,
            lookup: Lookup::new(target, self.config.strict_ids),
            waits,
            announcing: None,
        };
        if !waits {
            self.seed(&mut search);
        }
        self.searches.insert(key, search);
        key
    }

    fn seed(&self, search: &mut Search) {
        if let Some(family) = self.family(search.v4) {
            for contact in family.table.closest(&search.lookup.target(), 2 * K) {
                search.lookup.add(contact);
            }
        }
    }

    /// Asks whom there is to ask, and ends what has come to its end.
    pub(super) fn advance(&mut self, key: u64, now: Instant) {
        while let Some(search) = self.searches.get_mut(&key) {
            if search.waits || search.announcing.is_some() {
                return;
            }
            let Some((address, id)) = search.lookup.next() else {
                if search.lookup.is_done() {
                    self.conclude(key, now);
                }
                return;
            };
            let target = search.lookup.target();
            let method = match search.goal {
                Goal::Join | Goal::Refresh => Method::FindNode { target },
                Goal::Peers { info_hash, .. } => Method::GetPeers { info_hash },
            };
            if !self.ask(address, id, method, Purpose::Search(key), now)
                && let Some(search) = self.searches.get_mut(&key)
            {
                search.lookup.failed(Asked { id, slow: false });
            }
        }
    }

    pub(super) fn search_answered(
        &mut self,
        key: u64,
        contact: Contact,
        asked: Asked,
        answer: Answer,
        now: Instant,
    ) {
        let Some(search) = self.searches.get_mut(&key) else {
            return;
        };
        let policy = self.config.addresses;
        search.lookup.answered(contact, answer.token, asked);
        let own = self.families[usize::from(!search.v4)].as_ref();
        let own = own.map(|family| family.table.own());
        for node in answer.nodes {
            let of_family = node.address.is_ipv4() == search.v4;
            if of_family && Some(node.id) != own && dialable(node.address, policy) {
                search.lookup.add(node);
            }
        }
        if let Goal::Peers { search, .. } = search.goal {
            self.found(search, answer.values);
        }
        self.advance(key, now);
    }

    fn found(&mut self, search: SearchId, mut peers: Vec<std::net::SocketAddr>) {
        let policy = self.config.addresses;
        let Some(open) = self.open.get_mut(&search) else {
            return;
        };
        peers.retain(|peer| {
            dialable(*peer, policy) && open.seen.len() < MAX_FOUND && open.seen.insert(*peer)
        });
        if !peers.is_empty() {
            self.events.push_back(Event::Peers { search, peers });
        }
    }

    fn conclude(&mut self, key: u64, now: Instant) {
        let Some(search) = self.searches.get_mut(&key) else {
            return;
        };
        let (v4, goal) = (search.v4, search.goal);
        match goal {
            Goal::Refresh => {
                self.searches.remove(&key);
            }
            Goal::Join => {
                self.searches.remove(&key);
                self.joined(v4, now);
            }
            Goal::Peers {
                info_hash,
                announcement: Some(announcement),
                ..
            } => {
                let closest = search.lookup.tokens();
                search.announcing = Some(closest.len());
                for (contact, token) in &closest {
                    let method = Method::AnnouncePeer {
                        info_hash,
                        port: announcement.port,
                        implied_port: announcement.implied_port,
                        token: token.clone(),
                    };
                    let (to, id) = (contact.address, Some(contact.id));
                    if !self.ask(to, id, method, Purpose::Announce(key), now) {
                        self.announced(key, false, now);
                    }
                }
                if closest.is_empty() {
                    self.end(key);
                }
            }
            Goal::Peers { .. } => self.end(key),
        }
    }

    pub(super) fn announced(&mut self, key: u64, taken: bool, _: Instant) {
        let Some(search) = self.searches.get_mut(&key) else {
            return;
        };
        let left = search.announcing.unwrap_or(0).saturating_sub(1);
        search.announcing = Some(left);
        if let Goal::Peers { search, .. } = search.goal
            && let Some(open) = self.open.get_mut(&search)
        {
            open.announced += usize::from(taken);
        }
        if left == 0 {
            self.end(key);
        }
    }

    /// A search for peers has ended in one family.
    fn end(&mut self, key: u64) {
        let Some(search) = self.searches.remove(&key) else {
            return;
        };
        let Goal::Peers { search, .. } = search.goal else {
            return;
        };
        let Some(open) = self.open.get_mut(&search) else {
            return;
        };
        open.left -= 1;
        if open.left == 0 {
            let announced = open.announced;
            self.open.remove(&search);
            self.events.push_back(Event::Finished { search, announced });
        }
    }

    fn joined(&mut self, v4: bool, now: Instant) {
        let Some(family) = self.family_mut(v4) else {
            return;
        };
        family.joining = false;
        let nodes = family.table.len();
        // Others may only just have come, as we have.
        let wait = if nodes < K {
            let wait = REJOIN.0 * 2_u32.saturating_pow(family.lonely.min(6));
            family.lonely = family.lonely.saturating_add(1);
            wait.min(REJOIN.1)
        } else {
            family.lonely = 0;
            JOIN_AGAIN
        };
        family.next_join = now + wait;
        self.next_care = self.next_care.min(now + wait);
        self.events.push_back(Event::Joined { v4, nodes });
        let waiting = self.searches.iter().filter(|(_, s)| s.waits && s.v4 == v4);
        let waiting: Vec<u64> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            if let Some(mut search) = self.searches.remove(&key) {
                search.waits = false;
                self.seed(&mut search);
                self.searches.insert(key, search);
            }
            self.advance(key, now);
        }
    }
}
