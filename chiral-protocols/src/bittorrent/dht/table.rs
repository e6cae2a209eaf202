//! [`Table`]: the nodes that we know, more of them the closer they are (BEP 5).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::krpc::{Contact, K};
use super::node_id::NodeId;
use crate::bittorrent::compact::is_local;
use crate::bittorrent::random::Random;

/// A node that nothing was heard of for so long is questionable; a bucket in which nothing
/// changed for so long is refreshed.
pub(super) const QUIET: Duration = Duration::from_secs(15 * 60);

/// Questions in a row without an answer after which a node is bad.
const MAX_FAILURES: u8 = 2;

#[derive(Clone, Debug)]
struct Entry {
    contact: Contact,
    /// When it last answered, or asked after it had answered once.
    heard: Instant,
    failures: u8,
    /// Whether its id belongs to its address (BEP 42).
    fits: bool,
}

impl Entry {
    fn is_good(&self, now: Instant) -> bool {
        self.failures == 0 && now.saturating_duration_since(self.heard) < QUIET
    }
}

#[derive(Clone, Debug)]
struct Bucket {
    live: Vec<Entry>,
    /// Who has answered and takes a place that becomes free.
    spare: Vec<Entry>,
    changed: Instant,
}

/// What became of a node that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    /// It has a place.
    Kept,
    /// It waits for a place. The node named is questionable and should be asked.
    Spare(Option<Contact>),
    /// Not wanted.
    Refused,
}

#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    /// By the number of bits that ids share with ours.
    buckets: Vec<Bucket>,
    /// Whether ids that do not belong to their address are refused.
    strict: bool,
}

impl Table {
    pub(super) fn new(own: NodeId, strict: bool, now: Instant) -> Self {
        let bucket = Bucket {
            live: Vec::new(),
            spare: Vec::new(),
            changed: now,
        };
        Self {
            own,
            buckets: vec![bucket; 160],
            strict,
        }
    }

    pub(super) fn own(&self) -> NodeId {
        self.own
    }

    /// Takes another id of our own: everybody's place changes.
    pub(super) fn set_own(&mut self, own: NodeId, now: Instant) {
        let old = std::mem::replace(self, Self::new(own, self.strict, now));
        for bucket in old.buckets {
            for entry in bucket.live.into_iter().chain(bucket.spare) {
                if entry.failures == 0 {
                    let heard = entry.heard;
                    self.answered(entry.contact, heard, now);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.live.len()).sum()
    }

    /// A node has answered, so that it is there.
    pub(super) fn insert(&mut self, contact: Contact, now: Instant) -> Insert {
        self.answered(contact, now, now)
    }

    fn answered(&mut self, contact: Contact, heard: Instant, now: Instant) -> Insert {
        let fits = contact.id.fits(contact.address.ip());
        let shared = contact.id.shared_bits(&self.own);
        if (self.strict && !fits) || shared >= self.buckets.len() {
            return Insert::Refused;
        }
        if let Some(other) = self.conflict(&contact) {
            // Whoever was there first stays, unless it does not answer, or has itself taken
            // another id.
            let moved = other.address == contact.address;
            if !moved && !self.is_bad(&other) {
                return Insert::Refused;
            }
            self.remove(&other);
        }
        let bucket = &mut self.buckets[shared];
        let entry = Entry {
            contact,
            heard,
            failures: 0,
            fits,
        };
        if let Some(known) = bucket.live.iter_mut().find(|e| e.contact == contact) {
            *known = entry;
            bucket.changed = now;
            return Insert::Kept;
        }
        bucket.spare.retain(|e| e.contact != contact);
        let free = match bucket.live.len() < K {
            true => Some(bucket.live.len()),
            false => {
                let bad = bucket.live.iter().position(|e| e.failures >= MAX_FAILURES);
                // One whose id belongs to its address goes before one whose does not.
                bad.or_else(|| bucket.live.iter().position(|e| fits && !e.fits))
            }
        };
        if let Some(at) = free {
            bucket.live.truncate(K);
            if at < bucket.live.len() {
                bucket.live[at] = entry;
            } else {
                bucket.live.push(entry);
            }
            bucket.changed = now;
            return Insert::Kept;
        }
        if bucket.spare.len() >= K {
            bucket.spare.remove(0);
        }
        bucket.spare.push(entry);
        let quiet = bucket.live.iter().filter(|e| !e.is_good(now));
        Insert::Spare(quiet.min_by_key(|e| e.heard).map(|e| e.contact))
    }

    /// Whether a node that is not in the table would have a place there, or among the spare.
    pub(super) fn wants(&self, contact: &Contact, now: Instant) -> bool {
        let shared = contact.id.shared_bits(&self.own);
        let Some(bucket) = self.buckets.get(shared) else {
            return false;
        };
        let room = bucket.live.len() < K || bucket.live.iter().any(|e| !e.is_good(now));
        let other = self.conflict(contact);
        let clear = other.is_none_or(|o| o.address == contact.address || self.is_bad(&o));
        clear && (room || bucket.spare.len() < K)
    }

    /// A node has asked something. Whether it is one of the table.
    pub(super) fn asked(&mut self, contact: Contact, now: Instant) -> bool {
        let shared = contact.id.shared_bits(&self.own);
        let bucket = self.buckets.get_mut(shared);
        let entries = bucket.into_iter().flat_map(|b| &mut b.live);
        let mut known = entries.filter(|e| e.contact == contact && e.failures == 0);
        known.next().map(|entry| entry.heard = now).is_some()
    }

    /// A node has not answered.
    pub(super) fn failed(&mut self, contact: &Contact, now: Instant) {
        let shared = contact.id.shared_bits(&self.own);
        let Some(bucket) = self.buckets.get_mut(shared) else {
            return;
        };
        let Some(at) = bucket.live.iter().position(|e| e.contact == *contact) else {
            return;
        };
        let entry = &mut bucket.live[at];
        entry.failures = entry.failures.saturating_add(1);
        if entry.failures >= MAX_FAILURES {
            if let Some(spare) = bucket.spare.pop() {
                bucket.live[at] = spare;
                bucket.changed = now;
            } else if entry.failures > 4 * MAX_FAILURES {
                bucket.live.swap_remove(at);
            }
        }
    }

    /// The nodes closest to an id, bad ones left out.
    pub(super) fn closest(&self, target: &NodeId, most: usize) -> Vec<Contact> {
        let live = self.buckets.iter().flat_map(|bucket| &bucket.live);
        let mut found: Vec<_> = live
            .filter(|entry| entry.failures < MAX_FAILURES)
            .map(|entry| entry.contact)
            .collect();
        found.sort_by_cached_key(|contact| contact.id.distance(target));
        found.truncate(most);
        found
    }

    /// Every node with a place that is not bad, for keeping.
    pub(super) fn all(&self) -> Vec<Contact> {
        self.closest(&self.own, usize::MAX)
    }

    /// An id in a bucket in which nothing has changed for long, if there is one: to be looked
    /// for. Buckets closer than all that we know need no refreshing.
    pub(super) fn stale(&mut self, now: Instant, random: &mut Random) -> Option<NodeId> {
        let deepest = self.buckets.iter().rposition(|b| !b.live.is_empty())?;
        let stale = |bucket: &Bucket| now.saturating_duration_since(bucket.changed) >= QUIET;
        let at = self.buckets[..=deepest].iter().position(stale)?;
        self.buckets[at].changed = now;
        Some(self.own.at_bits(at, random))
    }

    /// Who stands in the way of this node: another of the same id, or of the same address.
    fn conflict(&self, contact: &Contact) -> Option<Contact> {
        let all = self
            .buckets
            .iter()
            .flat_map(|b| b.live.iter().chain(&b.spare));
        let mut all = all.map(|entry| entry.contact);
        all.find(|other| {
            let same_place = same_host(other.address, contact.address);
            (other.id == contact.id || same_place) && other != contact
        })
    }

    fn is_bad(&self, contact: &Contact) -> bool {
        let all = self
            .buckets
            .iter()
            .flat_map(|b| b.live.iter().chain(&b.spare));
        let mut same = all.filter(|entry| entry.contact == *contact);
        same.any(|entry| entry.failures >= MAX_FAILURES)
    }

    fn remove(&mut self, contact: &Contact) {
        for bucket in &mut self.buckets {
            bucket.live.retain(|entry| entry.contact != *contact);
            bucket.spare.retain(|entry| entry.contact != *contact);
        }
    }
}

/// Whether two nodes are taken for one that has many ids: on the same IPv4 address or in the
/// same IPv6 /64; in a network of one's own, on the same port too.
pub(super) fn same_host(a: SocketAddr, b: SocketAddr) -> bool {
    match (a.ip(), b.ip()) {
        (ip, _) if is_local(ip) => a == b,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn local(id: NodeId, port: u16) -> Contact {
        let address = ([127, 0, 0, 1], port).into();
        Contact { id, address }
    }

    struct Fixture {
        table: Table,
        random: Random,
        now: Instant,
        port: u16,
    }

    impl Fixture {
        fn new() -> Self {
            let (now, mut random) = (Instant::now(), Random::from_seed([5; 32]));
            let table = Table::new(NodeId::random(&mut random), false, now);
            Self {
                table,
                random,
                now,
                port: 0,
            }
        }

        fn make(&mut self, bits: usize) -> Contact {
            self.port += 1;
            let id = self.table.own().at_bits(bits, &mut self.random);
            local(id, self.port)
        }
    }

    #[test]
    fn a_full_bucket_keeps_who_is_good_and_replaces_who_is_bad() {
        let mut f = Fixture::new();
        let first: Vec<_> = (0..K).map(|_| f.make(0)).collect();
        for contact in &first {
            assert_eq!(f.table.insert(*contact, f.now), Insert::Kept);
        }
        let late = f.make(0);
        assert_eq!(f.table.insert(late, f.now), Insert::Spare(None));
        // After a quarter of an hour of silence somebody should be asked.
        let later = f.now + 16 * MINUTE;
        let other = f.make(0);
        let asked = f.table.insert(other, later);
        assert!(matches!(asked, Insert::Spare(Some(quiet)) if first.contains(&quiet)));
        f.table.failed(&first[3], later);
        f.table.failed(&first[3], later);
        let all = f.table.all();
        assert!(all.contains(&other) && !all.contains(&first[3]));
        assert_eq!(f.table.len(), K);
    }

    #[test]
    fn the_closest_are_found() {
        let mut f = Fixture::new();
        for bits in 0..40 {
            for _ in 0..10 {
                let contact = f.make(bits);
                f.table.insert(contact, f.now);
            }
        }
        assert_eq!(f.table.len(), 40 * K);
        let target = NodeId::random(&mut f.random);
        let found = f.table.closest(&target, K);
        let mut all = f.table.all();
        all.sort_by_key(|contact| contact.id.distance(&target));
        assert_eq!(found, all[..K]);
    }

    #[test]
    fn nobody_has_two_places() {
        let mut f = Fixture::new();
        let id = |f: &mut Fixture| NodeId::random(&mut f.random);
        let global = |id, text: &str| Contact {
            id,
            address: text.parse().unwrap(),
        };
        let one = global(id(&mut f), "8.8.8.8:1");
        assert_eq!(f.table.insert(one, f.now), Insert::Kept);
        // The same address under another port and id; the same id elsewhere.
        let sybil = global(id(&mut f), "8.8.8.8:2");
        assert_eq!(f.table.insert(sybil, f.now), Insert::Refused);
        let thief = global(one.id, "9.9.9.9:1");
        assert_eq!(f.table.insert(thief, f.now), Insert::Refused);
        assert_eq!(f.table.all(), [one]);
        // Another id at the very same place is a node that was started anew.
        let anew = global(id(&mut f), "8.8.8.8:1");
        assert_eq!(f.table.insert(anew, f.now), Insert::Kept);
        assert_eq!(f.table.all(), [anew]);
        // On one machine there may be many.
        let near: Vec<_> = (0..5).map(|_| f.make(1)).collect();
        for contact in near {
            assert_eq!(f.table.insert(contact, f.now), Insert::Kept);
        }
        let own = local(f.table.own(), 999);
        assert_eq!(f.table.insert(own, f.now), Insert::Refused);
    }

    #[test]
    fn ids_that_fit_go_first_and_strictly_only_they_are_taken() {
        let mut f = Fixture::new();
        let mut contact = |n: u8, fits: bool| {
            let address: SocketAddr = ([8, 8, n, 1], 1).into();
            loop {
                let id = match fits {
                    true => NodeId::for_address(address.ip(), &mut f.random),
                    false => NodeId::random(&mut f.random),
                };
                if id.shared_bits(&f.table.own()) == 0 {
                    return Contact { id, address };
                }
            }
        };
        let misfits: Vec<_> = (0..8).map(|n| contact(n, false)).collect();
        // Some addresses have no id in this bucket: several are tried.
        let fitting = contact(100, true);
        for misfit in &misfits {
            assert_eq!(f.table.insert(*misfit, f.now), Insert::Kept);
        }
        assert_eq!(f.table.insert(fitting, f.now), Insert::Kept);
        assert!(f.table.all().contains(&fitting));
        let mut strict = Table::new(f.table.own(), true, f.now);
        assert_eq!(strict.insert(misfits[0], f.now), Insert::Refused);
        assert_eq!(strict.insert(fitting, f.now), Insert::Kept);
    }

    #[test]
    fn quiet_buckets_are_refreshed_once() {
        let mut f = Fixture::new();
        let contact = f.make(2);
        f.table.insert(contact, f.now);
        assert_eq!(f.table.stale(f.now, &mut f.random), None);
        let later = f.now + 16 * MINUTE;
        for bits in 0..3 {
            let target = f.table.stale(later, &mut f.random).unwrap();
            assert_eq!(target.shared_bits(&f.table.own()), bits);
        }
        assert_eq!(f.table.stale(later, &mut f.random), None);
    }

    #[test]
    fn another_own_id_moves_all() {
        let mut f = Fixture::new();
        for bits in 0..5 {
            let contact = f.make(bits);
            f.table.insert(contact, f.now);
        }
        let own = NodeId::random(&mut f.random);
        f.table.set_own(own, f.now);
        assert_eq!((f.table.own(), f.table.len()), (own, 5));
    }
}
