//! [`Choker`]: who is unchoked. No clock, no socket, no randomness of its own.
//!
//! There are so many *slots*. Chiral nodes that proved who they are come first, but the public
//! always keeps its floor: a quarter of the slots and at least one, or half of them while the
//! public swarm has got less than [`ChokerConfig::share_floor`] of what it gave. A slot that
//! one side does not use is the other's. Among public peers, while we still download, the
//! slots go to those who give most, looked at every 10 seconds, and one of them, the optimistic
//! one, goes round every 30; when we have everything they go round among all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bittorrent::session::Now;

/// How many are unchoked, and how often that is thought over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChokerConfig {
    /// Peers unchoked at once, at least 1.
    pub slots: usize,
    /// Time between two looks at the rates.
    pub regular: Duration,
    /// Time between two moves of the optimistic slot; the least that an unchoked peer keeps
    /// its slot when we seed.
    pub optimistic: Duration,
    /// Percentage of what the public swarm gave that it is to have got before Chiral nodes may
    /// have more than half of the slots.
    pub share_floor: u32,
}

impl Default for ChokerConfig {
    fn default() -> Self {
        Self {
            slots: 16,
            regular: Duration::from_secs(10),
            optimistic: Duration::from_secs(30),
            share_floor: 100,
        }
    }
}

/// A peer as the choker sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Which.
    pub key: u64,
    /// Whether it wants something of us.
    pub interested: bool,
    /// Whether it is a Chiral node in the fast lane.
    pub fast_lane: bool,
    /// Bytes per second that it gives us.
    pub gives: f64,
    /// Bytes that it gave, and got, in all.
    pub gave: u64,
    /// Bytes that it got from us.
    pub got: u64,
    /// It was asked and did not give.
    pub snubs: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    since: Now,
}

/// Decides who is unchoked.
#[derive(Debug)]
pub struct Choker {
    config: ChokerConfig,
    unchoked: BTreeMap<u64, Slot>,
    /// When each was unchoked last; those never are first in turn.
    last: BTreeMap<u64, Now>,
    optimistic: Option<u64>,
    regular_at: Now,
    optimistic_at: Now,
}

impl Choker {
    /// With nobody unchoked.
    pub fn new(mut config: ChokerConfig, now: Now) -> Self {
        config.slots = config.slots.max(1);
        Self {
            config,
            unchoked: BTreeMap::new(),
            last: BTreeMap::new(),
            optimistic: None,
            regular_at: now,
            optimistic_at: now,
        }
    }

    /// When [`Self::decide`] is to be called at the latest.
    pub fn next(&self) -> Now {
        self.regular_at.min(self.optimistic_at)
    }

    /// Slots that are the public's if it wants them.
    pub fn floor(&self, peers: &[Candidate]) -> usize {
        let public = || peers.iter().filter(|peer| !peer.fast_lane);
        let gave: u64 = public().map(|peer| peer.gave).fold(0, u64::saturating_add);
        let got: u64 = public().map(|peer| peer.got).fold(0, u64::saturating_add);
        let due = u128::from(gave) * u128::from(self.config.share_floor) / 100;
        let part = if u128::from(got) < due { 2 } else { 4 };
        (self.config.slots / part).max(1)
    }

    /// Who is unchoked from now on. Free slots are given at once, whenever this is called; who
    /// has one keeps it until it is thought over. `random` gives a number below its argument.
    pub fn decide(
        &mut self,
        now: Now,
        seeding: bool,
        peers: &[Candidate],
        mut random: impl FnMut(usize) -> usize,
    ) -> Vec<u64> {
        let interested: Vec<&Candidate> = peers.iter().filter(|peer| peer.interested).collect();
        self.unchoked
            .retain(|key, _| interested.iter().any(|peer| peer.key == *key));
        self.last
            .retain(|key, _| peers.iter().any(|peer| peer.key == *key));
        let (fast, public): (Vec<&Candidate>, Vec<&Candidate>) =
            interested.into_iter().partition(|peer| peer.fast_lane);
        let regular = now >= self.regular_at;
        let turn = now >= self.optimistic_at;
        if regular {
            self.regular_at = now + self.config.regular;
        }
        if turn {
            self.optimistic_at = now + self.config.optimistic;
        }
        let slots = self.config.slots;
        let for_public = self.floor(peers).min(slots).min(public.len());
        let for_fast = fast.len().min(slots - for_public);
        let for_public = public.len().min(slots - for_fast);

        let mut chosen = self.take_turns(now, &fast, for_fast);
        if seeding {
            self.optimistic = None;
            chosen.extend(self.take_turns(now, &public, for_public));
        } else {
            chosen.extend(self.reciprocate(regular, turn, &public, for_public, &mut random));
        }
        self.unchoked.retain(|key, _| chosen.contains(key));
        for key in &chosen {
            self.unchoked.entry(*key).or_insert(Slot { since: now });
            self.last.insert(*key, now);
        }
        chosen
    }

    /// Whoever has a slot keeps it for a while; then it is the turn of who waited longest.
    fn take_turns(&self, now: Now, peers: &[&Candidate], slots: usize) -> Vec<u64> {
        let rank = |peer: &&&Candidate| {
            let slot = self.unchoked.get(&peer.key);
            let keeps = slot.is_some_and(|slot| now < slot.since + self.config.optimistic);
            let last = self.last.get(&peer.key).copied();
            (!keeps, last, peer.got, peer.key)
        };
        let mut ranked: Vec<&&Candidate> = peers.iter().collect();
        ranked.sort_by_key(rank);
        ranked
            .into_iter()
            .take(slots)
            .map(|peer| peer.key)
            .collect()
    }

    /// Most slots go to those who give most, one to somebody else.
    fn reciprocate(
        &mut self,
        regular: bool,
        turn: bool,
        peers: &[&Candidate],
        slots: usize,
        random: &mut impl FnMut(usize) -> usize,
    ) -> Vec<u64> {
        if peers.len() <= slots {
            return peers.iter().map(|peer| peer.key).collect();
        }
        let mut ranked: Vec<&&Candidate> = peers.iter().collect();
        ranked.sort_by(|a, b| {
            let order = |peer: &Candidate| {
                // Between two looks, who has a slot keeps it.
                let keeps = !regular && self.unchoked.contains_key(&peer.key);
                (!keeps, peer.snubs)
            };
            let by_rate = b.gives.total_cmp(&a.gives);
            order(a)
                .cmp(&order(b))
                .then(by_rate)
                .then(a.key.cmp(&b.key))
        });
        // With a single slot it is the optimistic one: or nobody new ever gets anything.
        let first: Vec<u64> = ranked.iter().take(slots - 1).map(|peer| peer.key).collect();
        let others: Vec<u64> = ranked.iter().skip(slots - 1).map(|peer| peer.key).collect();
        let stays = self.optimistic.filter(|key| !turn && others.contains(key));
        let optimistic = stays.or_else(|| {
            let new: Vec<u64> = others
                .iter()
                .copied()
                .filter(|key| self.optimistic != Some(*key))
                .collect();
            let pool = if new.is_empty() { &others } else { &new };
            pool.get(random(pool.len())).copied()
        });
        self.optimistic = optimistic;
        first.into_iter().chain(optimistic).collect()
    }
}

#[cfg(test)]
mod tests;
