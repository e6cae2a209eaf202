//! [`Lookup`]: asks ever closer nodes, until the closest have answered. No clock, no socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::krpc::{Contact, K};
use super::node_id::NodeId;
use super::table::same_host;

/// Nodes asked at a time. One that is slow to answer does not count.
const ALPHA: usize = 4;
/// Most nodes that are remembered, the closest.
const MAX_CANDIDATES: usize = 100;
/// Most nodes that are asked.
const MAX_ASKED: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    /// Asked a while ago.
    Slow,
    Answered(Option<Vec<u8>>),
    Failed,
}

/// Whom a question went to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// `None` if it was known by its address only.
    pub(super) id: Option<NodeId>,
    /// Whether [`Lookup::slow`] was told of it.
    pub(super) slow: bool,
}

#[derive(Debug)]
pub(super) struct Lookup {
    target: NodeId,
    /// By distance.
    candidates: BTreeMap<[u8; 20], (Contact, State)>,
    /// Addresses whose ids are not known, to be asked first.
    unnamed: Vec<SocketAddr>,
    /// Those of them that were asked a moment ago, and all that have not answered.
    unnamed_asked: usize,
    unnamed_open: usize,
    asked: usize,
    /// Whether nodes are left alone whose ids do not belong to their addresses (BEP 42).
    strict: bool,
}

impl Lookup {
    pub(super) fn new(target: NodeId, strict: bool) -> Self {
        Self {
            target,
            candidates: BTreeMap::new(),
            unnamed: Vec::new(),
            unnamed_asked: 0,
            unnamed_open: 0,
            asked: 0,
            strict,
        }
    }

    pub(super) fn target(&self) -> NodeId {
        self.target
    }

    /// Nodes to ask, from a table or an answer.
    pub(super) fn add(&mut self, contact: Contact) {
        if self.strict && !contact.id.fits(contact.address.ip()) {
            return;
        }
        let distance = contact.id.distance(&self.target);
        let mut others = self.candidates.values();
        // One machine with many ids would surround the target.
        let taken = others.any(|(other, _)| same_host(other.address, contact.address));
        if taken || self.candidates.contains_key(&distance) {
            return;
        }
        self.candidates.insert(distance, (contact, State::New));
        if self.candidates.len() > MAX_CANDIDATES {
            self.candidates.pop_last();
        }
    }

    /// Addresses to ask that are known without their ids.
    pub(super) fn add_unnamed(&mut self, address: SocketAddr) {
        if self.unnamed.len() < MAX_CANDIDATES {
            self.unnamed.push(address);
        }
    }

    /// Whom to ask next, if anybody.
    pub(super) fn next(&mut self) -> Option<(SocketAddr, Option<NodeId>)> {
        let pending = self.candidates.values().filter(|(_, s)| *s == State::Asked);
        if pending.count() + self.unnamed_asked >= ALPHA || self.asked >= MAX_ASKED {
            return None;
        }
        if let Some(address) = self.unnamed.pop() {
            self.unnamed_asked += 1;
            self.unnamed_open += 1;
            self.asked += 1;
            return Some((address, None));
        }
        let able = |s: &State| *s != State::Failed;
        let closest = self
            .candidates
            .values_mut()
            .filter(|(_, s)| able(s))
            .take(K);
        let (contact, state) = closest.into_iter().find(|(_, s)| *s == State::New)?;
        *state = State::Asked;
        self.asked += 1;
        Some((contact.address, Some(contact.id)))
    }

    /// A node answered, perhaps with a token.
    pub(super) fn answered(&mut self, contact: Contact, token: Option<Vec<u8>>, asked: Asked) {
        if asked.id.is_none() {
            self.unnamed_open = self.unnamed_open.saturating_sub(1);
            if !asked.slow {
                self.unnamed_asked = self.unnamed_asked.saturating_sub(1);
            }
            self.add(contact);
        }
        let distance = contact.id.distance(&self.target);
        if let Some((known, state)) = self.candidates.get_mut(&distance)
            && known.address == contact.address
        {
            *state = State::Answered(token);
        }
    }

    /// A node has not answered for a while: somebody else is asked meanwhile.
    pub(super) fn slow(&mut self, id: Option<NodeId>) {
        self.change(id, State::Slow);
    }

    /// A node does not answer.
    pub(super) fn failed(&mut self, asked: Asked) {
        if asked.id.is_none() {
            self.unnamed_open = self.unnamed_open.saturating_sub(1);
        }
        match (asked.id, asked.slow) {
            // It does not count any more.
            (None, true) => {}
            (id, _) => self.change(id, State::Failed),
        }
    }

    fn change(&mut self, id: Option<NodeId>, to: State) {
        let Some(id) = id else {
            self.unnamed_asked = self.unnamed_asked.saturating_sub(1);
            return;
        };
        if let Some((_, state)) = self.candidates.get_mut(&id.distance(&self.target))
            && matches!(state, State::Asked | State::Slow)
        {
            *state = to;
        }
    }

    /// Whether the closest have all answered, or nobody is left to ask. Whoever is slow may
    /// be waited for by who has nothing better.
    pub(super) fn is_done(&self) -> bool {
        let spent = self.asked >= MAX_ASKED;
        if self.unnamed_asked > 0 || (!self.unnamed.is_empty() && !spent) {
            return false;
        }
        // Without them there may be nobody at all.
        let answered = |s: &State| matches!(s, State::Answered(_));
        let known = self.candidates.values().filter(|(_, s)| answered(s));
        if self.unnamed_open > 0 && known.count() < K {
            return false;
        }
        let able = self
            .candidates
            .values()
            .filter(|(_, s)| *s != State::Failed);
        let mut closest = able.take(K).map(|(_, state)| state);
        match spent {
            true => !closest.any(|s| *s == State::Asked),
            false => closest.all(|s| matches!(s, State::Answered(_))),
        }
    }

    /// The closest nodes that have answered with a token.
    pub(super) fn tokens(&self) -> Vec<(Contact, Vec<u8>)> {
        let answered = self
            .candidates
            .values()
            .filter_map(|(contact, state)| match state {
                State::Answered(Some(token)) => Some((*contact, token.clone())),
                _ => None,
            });
        answered.take(K).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::random::Random;

    fn asked_of(id: Option<NodeId>) -> Asked {
        Asked { id, slow: false }
    }

    fn contact(random: &mut Random, port: u16) -> Contact {
        Contact {
            id: NodeId::random(random),
            address: ([127, 0, 0, 1], port).into(),
        }
    }

    /// A network in which everybody knows the closest of some by chance: the lookup has to
    /// find the closest of all.
    #[test]
    fn the_closest_of_a_thousand_are_found() {
        let mut random = Random::from_seed([7; 32]);
        let nodes: Vec<_> = (1..1001).map(|port| contact(&mut random, port)).collect();
        let target = NodeId::random(&mut random);
        let mut lookup = Lookup::new(target, false);
        lookup.add_unnamed(nodes[0].address);
        let mut asked = 0;
        while let Some((address, id)) = lookup.next() {
            asked += 1;
            let node = nodes[usize::from(address.port()) - 1];
            if asked % 5 == 0 && id.is_some() {
                lookup.failed(asked_of(id));
                continue;
            }
            lookup.answered(node, Some(vec![1]), asked_of(id));
            // What this node knows: more of its own neighbourhood than of others.
            let known = nodes.iter().filter(|other| {
                let bits = other.id.shared_bits(&node.id);
                random.below(1000) < (16 << bits.min(10))
            });
            let mut known: Vec<_> = known.collect();
            known.sort_by_key(|other| other.id.distance(&target));
            for other in known.into_iter().take(K) {
                lookup.add(*other);
            }
        }
        assert!(lookup.is_done());
        assert!(asked < 60, "{asked}");
        let mut all = nodes;
        all.sort_by_key(|node| node.id.distance(&target));
        let found: Vec<_> = lookup.tokens().into_iter().map(|(node, _)| node).collect();
        // Those that did not answer are missing.
        let near = found
            .iter()
            .filter(|node| all[..2 * K].contains(node))
            .count();
        assert!(near >= K - 1, "{near}");
    }

    #[test]
    fn slow_nodes_are_not_waited_for_and_may_still_answer() {
        let mut random = Random::from_seed([8; 32]);
        let mut lookup = Lookup::new(NodeId::random(&mut random), false);
        let nodes: Vec<_> = (1..9).map(|port| contact(&mut random, port)).collect();
        for node in &nodes {
            lookup.add(*node);
        }
        let asked: Vec<_> = std::iter::from_fn(|| lookup.next()).collect();
        assert_eq!(asked.len(), ALPHA);
        lookup.slow(asked[0].1);
        let another = lookup.next();
        assert!(another.is_some() && lookup.next().is_none());
        for node in &nodes {
            assert!(!lookup.is_done());
            lookup.answered(*node, None, asked_of(Some(node.id)));
        }
        assert!(lookup.is_done() && lookup.tokens().is_empty());
    }

    #[test]
    fn who_is_known_by_address_only_is_waited_for_if_nobody_else_is_there() {
        let mut random = Random::from_seed([8; 32]);
        let mut lookup = Lookup::new(NodeId::random(&mut random), false);
        lookup.add_unnamed(([127, 0, 0, 1], 1).into());
        lookup.next().unwrap();
        lookup.slow(None);
        assert!(lookup.next().is_none() && !lookup.is_done());
        let slow = Asked {
            id: None,
            slow: true,
        };
        lookup.failed(slow);
        assert!(lookup.is_done());
    }

    #[test]
    fn a_lookup_has_an_end_whatever_it_is_told() {
        let mut random = Random::from_seed([9; 32]);
        let target = NodeId::random(&mut random);
        let mut lookup = Lookup::new(target, false);
        lookup.add_unnamed(([127, 0, 0, 1], 1).into());
        let mut asked = 0;
        let mut bits = 0;
        while let Some((address, id)) = lookup.next() {
            asked += 1;
            let under = asked_of(id);
            let id = id.unwrap_or_else(|| NodeId::random(&mut random));
            lookup.answered(Contact { id, address }, None, under);
            // Everybody always knows somebody who is closer yet.
            for _ in 0..20 {
                let mut closer = contact(&mut random, 0);
                closer.id = target.at_bits((bits / 2).min(150), &mut random);
                closer.address = ([127, random.bytes::<1>()[0], 0, 1], random.u16()).into();
                lookup.add(closer);
            }
            bits += 1;
        }
        assert_eq!(asked, MAX_ASKED);
        assert!(lookup.is_done());
        assert!(lookup.candidates.len() <= MAX_CANDIDATES);
    }

    #[test]
    fn one_machine_is_one_candidate() {
        let mut random = Random::from_seed([10; 32]);
        let mut lookup = Lookup::new(NodeId::random(&mut random), false);
        for port in 1..50 {
            let mut node = contact(&mut random, port);
            node.address = ([8, 8, 8, 8], port).into();
            lookup.add(node);
        }
        assert_eq!(lookup.candidates.len(), 1);
        let mut strict = Lookup::new(NodeId::random(&mut random), true);
        let mut node = contact(&mut random, 1);
        node.address = ([8, 8, 8, 8], 1).into();
        strict.add(node);
        assert!(strict.candidates.is_empty());
    }
}
