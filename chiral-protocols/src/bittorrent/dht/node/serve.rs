//! What the node answers to others.

use std::net::SocketAddr;
use std::time::Instant;

use super::{MAX_OUT, Node};
use crate::bittorrent::compact::is_local;
use crate::bittorrent::dht::krpc::{Answer, Body, Contact, K, Message, Method, Query, Want};
use crate::bittorrent::dht::node_id::NodeId;

/// Most peers in an answer: so that it fits into one datagram that no network cuts up.
const MAX_ANSWERED: (usize, usize) = (50, 30);

impl Node {
    /// Answers a question, if the asker has not had too much already: its address may be
    /// forged. Each question is worth one datagram at most.
    pub(super) fn serve(
        &mut self,
        from: SocketAddr,
        transaction: Vec<u8>,
        query: Query,
        now: Instant,
    ) {
        if self.config.read_only {
            return;
        }
        let asker = Contact {
            id: query.id,
            address: from,
        };
        let body = self.answer(from, &query, now);
        let bytes = Message { transaction, body }.encode();
        if self.out.len() >= MAX_OUT || !self.allowance.take(from.ip(), bytes.len(), now) {
            tracing::debug!(%from, "not answered: enough for now");
            return;
        }
        self.out.push_back((from, bytes));
        self.meet(asker, query.read_only, now);
    }

    /// A node that asks is there, and may have a place among those that we know once it has
    /// answered.
    fn meet(&mut self, asker: Contact, read_only: bool, now: Instant) {
        let strict = self.config.strict_ids && !asker.id.fits(asker.address.ip());
        let Some(family) = self.family_mut(asker.address.is_ipv4()) else {
            return;
        };
        if read_only || strict || family.table.asked(asker, now) {
            return;
        }
        if family.table.wants(&asker, now) {
            self.ping(asker, now);
        }
    }

    fn answer(&mut self, from: SocketAddr, query: &Query, now: Instant) -> Body {
        let v4 = from.is_ipv4();
        let Some(id) = self.id(v4) else {
            return Body::Error(202);
        };
        let mut answer = Answer {
            id,
            nodes: Vec::new(),
            values: Vec::new(),
            token: None,
            seen: Some(from),
        };
        match &query.method {
            Method::Ping => {}
            Method::FindNode { target } => answer.nodes = self.near(target, query.want, from),
            Method::GetPeers { info_hash } => {
                let target = NodeId(*info_hash);
                answer.nodes = self.near(&target, query.want, from);
                let most = if v4 { MAX_ANSWERED.0 } else { MAX_ANSWERED.1 };
                let some = &mut self.random;
                answer.values = self.store.some(info_hash, v4, most, now, some);
                answer.token = Some(self.tokens.give(from.ip(), info_hash));
            }
            Method::AnnouncePeer {
                info_hash,
                port,
                implied_port,
                token,
            } => {
                let port = if *implied_port { from.port() } else { *port };
                if port == 0 || !self.tokens.holds(token, from.ip(), info_hash) {
                    return Body::Error(203);
                }
                let peer = SocketAddr::new(from.ip(), port);
                if !self.store.insert(*info_hash, peer, now) {
                    return Body::Error(202);
                }
            }
            Method::Unknown => return Body::Error(204),
        }
        Body::Answer(answer)
    }

    /// The nodes closest to an id, of the families that the asker wants.
    fn near(&self, target: &NodeId, want: Want, from: SocketAddr) -> Vec<Contact> {
        let own_family = !want.v4 && !want.v6;
        let mut out = Vec::new();
        for (v4, wanted) in [(true, want.v4), (false, want.v6)] {
            let wanted = wanted || (own_family && from.is_ipv4() == v4);
            let Some(family) = self.family(v4).filter(|_| wanted) else {
                continue;
            };
            // The asker itself is not news, and what is near us is not near the public.
            let public = !is_local(from.ip());
            let closest = family.table.closest(target, 2 * K).into_iter();
            let told =
                closest.filter(|c| c.address != from && !(public && is_local(c.address.ip())));
            out.extend(told.take(K));
        }
        out
    }
}
