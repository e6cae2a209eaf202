//! [`Penalties`]: who is demoted or banned, why, and until when. No clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chiral_core::{Cid, Endpoint, PeerId, PeerOffer, Protocol};

/// How long a ban lasts: a day.
pub const BAN_TIME: Duration = Duration::from_secs(24 * 3600);

/// Most penalties that are kept. Of more, those that would end first go, demotions before bans.
pub const MAX_PENALTIES: usize = 4096;

/// Most bytes of a reason.
pub const MAX_REASON_LEN: usize = 256;

/// What a penalty means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PenaltyKind {
    /// It stalled or failed: others are connected first.
    Demoted = 0,
    /// It contradicted what was proven: it is not connected.
    Banned = 1,
}

impl PenaltyKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Demoted => "demoted",
            Self::Banned => "banned",
        }
    }
}

/// A penalty on a peer, or on a place where somebody serves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Penalty {
    /// Who, if known: then it is on that peer wherever it serves over this protocol.
    pub peer: Option<PeerId>,
    /// Over what.
    pub protocol: Protocol,
    /// Where.
    pub endpoint: Endpoint,
    /// Of a mirror, the file that it has a bad copy of: its other files are not concerned.
    pub content: Option<Cid>,
    /// What it means.
    pub kind: PenaltyKind,
    /// What it did.
    pub reason: String,
    /// Since when, from 1970 (UTC).
    pub since: Duration,
    /// Until when, from 1970 (UTC).
    pub until: Duration,
}

impl Penalty {
    /// On whoever made an offer of this content.
    pub fn new(
        kind: PenaltyKind,
        offer: &PeerOffer,
        content: Option<Cid>,
        reason: &str,
        (since, until): (Duration, Duration),
    ) -> Self {
        let mut end = reason.len().min(MAX_REASON_LEN);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            peer: offer.peer.clone(),
            protocol: offer.protocol.clone(),
            endpoint: offer.endpoint.clone(),
            content: content.filter(|_| offer.mirror),
            kind,
            reason: reason[..end].to_owned(),
            since,
            until,
        }
    }

    fn key(&self) -> Key {
        (self.protocol.clone(), self.endpoint.clone(), self.content)
    }
}

type Key = (Protocol, Endpoint, Option<Cid>);

/// The penalties of a node. Every `now` is the time since 1970 (UTC).
#[derive(Debug, Default)]
pub struct Penalties {
    by_place: BTreeMap<Key, Penalty>,
    by_peer: BTreeMap<PeerId, BTreeSet<Key>>,
    /// By their ends: demotions, and bans.
    by_end: [BTreeSet<(Duration, Key)>; 2],
}

impl Penalties {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a penalty, or takes it instead of the one on the same place, unless that weighs
    /// more or lasts longer. One that is over, or would last unreasonably long, as after a
    /// jump of the clock, is no penalty. True if anything is different now.
    pub fn add(&mut self, now: Duration, penalty: Penalty) -> bool {
        self.expire(now);
        if penalty.until <= now || penalty.until > now.saturating_add(BAN_TIME) {
            return false;
        }
        let key = penalty.key();
        if let Some(old) = self.by_place.get(&key) {
            if (old.kind, old.until) > (penalty.kind, penalty.until) {
                return false;
            }
            self.remove(&key);
        }
        if self.by_place.len() >= MAX_PENALTIES {
            let mut ends = self.by_end.iter().filter_map(BTreeSet::first);
            if let Some((_, first)) = ends.next().cloned() {
                self.remove(&first);
            }
        }
        if let Some(peer) = &penalty.peer {
            let places = self.by_peer.entry(peer.clone()).or_default();
            places.insert(key.clone());
        }
        self.by_end[penalty.kind as usize].insert((penalty.until, key.clone()));
        self.by_place.insert(key, penalty);
        true
    }

    /// The heaviest penalty on whoever made an offer of this content.
    pub fn on(&self, now: Duration, offer: &PeerOffer, content: Option<Cid>) -> Option<&Penalty> {
        let place = |content| (offer.protocol.clone(), offer.endpoint.clone(), content);
        let mut places = vec![place(None)];
        places.extend(content.map(|cid| place(Some(cid))));
        let elsewhere = offer.peer.as_ref().and_then(|peer| self.by_peer.get(peer));
        let same = |(protocol, _, of): &&Key| {
            *protocol == offer.protocol && (of.is_none() || *of == content)
        };
        let elsewhere = elsewhere.into_iter().flatten().filter(same);
        let all = places.iter().chain(elsewhere);
        all.filter_map(|key| self.by_place.get(key))
            .filter(|penalty| penalty.until > now)
            .max_by_key(|penalty| (penalty.kind, penalty.until))
    }

    /// All penalties, bans first, those that end last first.
    pub fn list(&self, now: Duration) -> Vec<&Penalty> {
        let by_end = self.by_end.iter().flatten().rev();
        by_end
            .filter_map(|(_, key)| self.by_place.get(key))
            .filter(|penalty| penalty.until > now)
            .collect()
    }

    /// Takes back the penalties on a peer, by its id, or on a place, by its endpoint; answers
    /// how many.
    pub fn clear(&mut self, who: &str) -> usize {
        let named = |penalty: &Penalty| {
            let peer = penalty.peer.as_ref();
            penalty.endpoint.as_str() == who || peer.is_some_and(|peer| peer.to_string() == who)
        };
        let all = self.by_place.values();
        let keys: Vec<Key> = all.filter(|p| named(p)).map(Penalty::key).collect();
        keys.iter().for_each(|key| self.remove(key));
        keys.len()
    }

    /// Takes all penalties back; answers how many.
    pub fn clear_all(&mut self) -> usize {
        let count = self.by_place.len();
        *self = Self::default();
        count
    }

    fn expire(&mut self, now: Duration) {
        for kind in 0..self.by_end.len() {
            while let Some((until, key)) = self.by_end[kind].first()
                && *until <= now
            {
                let key = key.clone();
                self.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(penalty) = self.by_place.remove(key) else {
            return;
        };
        self.by_end[penalty.kind as usize].remove(&(penalty.until, key.clone()));
        if let Some(peer) = &penalty.peer
            && let Some(places) = self.by_peer.get_mut(peer)
        {
            places.remove(key);
            if places.is_empty() {
                self.by_peer.remove(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn offer(place: &str, peer: Option<u8>) -> PeerOffer {
        let offer = PeerOffer::new(Protocol::Http, Endpoint::new(place).unwrap());
        match peer {
            Some(n) => offer.with_peer(PeerId::from_bytes(&[n]).unwrap()),
            None => offer,
        }
    }

    fn cid(n: u8) -> Cid {
        Cid::from_bytes([n; 32])
    }

    fn ban(offer: &PeerOffer, content: Option<Cid>) -> Penalty {
        let kind = PenaltyKind::Banned;
        Penalty::new(kind, offer, content, "lied", (NOW, NOW + BAN_TIME))
    }

    fn demotion(offer: &PeerOffer, lasts: Duration) -> Penalty {
        Penalty::new(
            PenaltyKind::Demoted,
            offer,
            None,
            "stalled",
            (NOW, NOW + lasts),
        )
    }

    #[test]
    fn a_ban_is_on_the_place_and_on_the_peer_wherever_it_serves_and_ends() {
        let mut penalties = Penalties::new();
        assert!(penalties.add(NOW, ban(&offer("http://a/", Some(1)), Some(cid(1)))));
        let on = |penalties: &Penalties, offer: &PeerOffer, now| {
            penalties.on(now, offer, Some(cid(2))).map(|p| p.kind)
        };
        for (place, peer) in [
            ("http://a/", None),
            ("http://a/", Some(2)),
            ("http://b/", Some(1)),
        ] {
            let offer = offer(place, peer);
            assert_eq!(
                on(&penalties, &offer, NOW),
                Some(PenaltyKind::Banned),
                "{offer:?}"
            );
            assert_eq!(on(&penalties, &offer, NOW + BAN_TIME), None);
        }
        assert_eq!(on(&penalties, &offer("http://b/", Some(2)), NOW), None);
        let mut other = offer("http://a/", Some(1));
        other.protocol = Protocol::BitTorrent;
        assert_eq!(on(&penalties, &other, NOW), None);
    }

    #[test]
    fn of_a_mirror_only_the_bad_copy_is_banned() {
        let mut penalties = Penalties::new();
        let mirror = offer("http://a/x", None).as_mirror();
        penalties.add(NOW, ban(&mirror, Some(cid(1))));
        assert!(penalties.on(NOW, &mirror, Some(cid(1))).is_some());
        assert!(penalties.on(NOW, &mirror, Some(cid(2))).is_none());
        assert!(penalties.on(NOW, &mirror, None).is_none());
    }

    #[test]
    fn a_demotion_does_not_lift_a_ban_and_the_longer_one_holds() {
        let mut penalties = Penalties::new();
        let a = offer("http://a/", None);
        assert!(penalties.add(NOW, demotion(&a, SECOND * 60)));
        assert!(!penalties.add(NOW, demotion(&a, SECOND * 5)));
        assert!(penalties.add(NOW, ban(&a, None)));
        assert!(!penalties.add(NOW, demotion(&a, SECOND * 60)));
        assert_eq!(penalties.list(NOW).len(), 1);
        assert_eq!(penalties.list(NOW)[0].kind, PenaltyKind::Banned);
        assert_eq!(penalties.clear("http://a/"), 1);
        assert_eq!(penalties.clear("http://a/"), 0);
        assert!(penalties.on(NOW, &a, None).is_none());
    }

    #[test]
    fn times_out_of_reason_and_long_reasons_are_cut() {
        let mut penalties = Penalties::new();
        let a = offer("http://a/", None);
        assert!(!penalties.add(NOW + BAN_TIME, ban(&a, None)));
        assert!(!penalties.add(NOW - SECOND, ban(&a, None)));
        let long = "ä".repeat(MAX_REASON_LEN);
        let times = (NOW, NOW + SECOND);
        let penalty = Penalty::new(PenaltyKind::Banned, &a, None, &format!("x{long}"), times);
        assert_eq!(penalty.reason.len(), MAX_REASON_LEN - 1);
    }

    #[test]
    fn there_are_never_more_than_the_limit_and_demotions_go_before_bans() {
        let mut penalties = Penalties::new();
        let first = offer("http://first/", Some(1));
        penalties.add(NOW, ban(&first, None));
        for n in 0..MAX_PENALTIES as u64 + 100 {
            let place = offer(&format!("http://{n}/"), Some(2));
            penalties.add(
                NOW,
                demotion(&place, SECOND * 10 + Duration::from_millis(n)),
            );
        }
        assert_eq!(penalties.list(NOW).len(), MAX_PENALTIES);
        assert!(penalties.on(NOW, &first, None).is_some());
        assert!(penalties.on(NOW, &offer("http://0/", None), None).is_none());
        assert_eq!(
            penalties.clear(&PeerId::from_bytes(&[2]).unwrap().to_string()),
            MAX_PENALTIES - 1
        );
        assert_eq!(penalties.clear_all(), 1);
        assert!(penalties.by_end.iter().all(BTreeSet::is_empty) && penalties.by_peer.is_empty());
    }

    proptest! {
        #[test]
        fn its_indices_agree_whatever_happens(
            steps in proptest::collection::vec((0..4u8, 0..4u8, 0..3u8, 0..200u64), 0..100),
        ) {
            let mut penalties = Penalties::new();
            let mut now = NOW;
            for (step, place, peer, time) in steps {
                let offer = offer(&format!("http://{place}/"), (peer > 0).then_some(peer));
                let kind = [PenaltyKind::Demoted, PenaltyKind::Banned][usize::from(step % 2)];
                match step {
                    0 | 1 => {
                        let times = (now, now + SECOND * time as u32);
                        penalties.add(now, Penalty::new(kind, &offer, None, "", times));
                    }
                    2 => { penalties.clear(offer.endpoint.as_str()); }
                    _ => now += SECOND * time as u32,
                }
                penalties.expire(now);
                let ends: usize = penalties.by_end.iter().map(BTreeSet::len).sum();
                prop_assert_eq!(ends, penalties.by_place.len());
                prop_assert_eq!(penalties.list(now).len(), penalties.by_place.len());
                let named = penalties.by_place.values().filter(|p| p.peer.is_some()).count();
                prop_assert_eq!(named, penalties.by_peer.values().map(BTreeSet::len).sum::<usize>());
            }
        }
    }
}
