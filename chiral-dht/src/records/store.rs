//! [`ChiralStore`]: what this node keeps of the DHT, for Kademlia to put to and get from.
//!
//! Kademlia must be told `StoreInserts::Unfiltered`: then a refusal here resets the
//! publisher's stream, who counts it as the failure that it is. Under `FilterBoth` the
//! publisher is thanked before anybody has looked.
//!
//! The errors of [`RecordStore`] have no word for what is invalid, and none of them goes
//! over the wire; `ValueTooLarge` stands for all. [`ChiralStore::put_record`] says more.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{KBucketDistance, KBucketKey, ProviderRecord, Record, RecordKey as KadKey};

use super::choice::Chooser;
use super::set::MAX_VALUE_LEN;
use super::{RecordError, RecordKey, SeederSet, wire};
use providers::Providers;

mod providers;

/// The time since 1970 (UTC), as this node sees it.
pub type UnixClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How much a node keeps for others. What it publishes itself is limited apart from that. When
/// it is full, keys that are far from the node's own id give way to nearer ones, as Kademlia
/// looks for a key near it: so nobody fills a store with keys that belong elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLimits {
    /// Keys with announcements.
    pub keys: usize,
    /// Bytes of announcements and headers.
    pub bytes: usize,
    /// Keys under which one peer has an announcement.
    pub keys_per_peer: usize,
    /// Keys that this node publishes under.
    pub own_keys: usize,
    /// Keys with provider records of others.
    pub provider_keys: usize,
    /// Provider records for each key.
    pub providers_per_key: usize,
    /// Keys that one peer provides.
    pub provider_keys_per_peer: usize,
    /// How long a provider record is kept.
    pub provider_lifetime: Duration,
}

impl Default for StoreLimits {
    /// 64 MiB for 65,536 keys, a quarter of them for one peer.
    fn default() -> Self {
        Self {
            keys: 65_536,
            bytes: 64 << 20,
            keys_per_peer: 16_384,
            own_keys: 262_144,
            provider_keys: 65_536,
            providers_per_key: 20,
            provider_keys_per_peer: 16_384,
            provider_lifetime: Duration::from_secs(3600),
        }
    }
}

/// The records that this node holds. A put merges, a get composes.
pub struct ChiralStore {
    own: PeerId,
    secret: [u8; 32],
    limits: StoreLimits,
    clock: UnixClock,
    sets: HashMap<RecordKey, SeederSet>,
    /// The sets in which this node has no part, by how far they are from it.
    far: BTreeSet<(KBucketDistance, RecordKey)>,
    /// Of each set when its first entry can be forgotten.
    ends: BTreeSet<(u64, RecordKey)>,
    /// Number of keys with an entry of each peer.
    peers: HashMap<PeerId, usize>,
    /// Bytes of all sets.
    bytes: usize,
    providers: Providers,
}

impl ChiralStore {
    /// An empty store of the node `own`. The secret is for choosing which announcements stay
    /// under a full key: random, and told to nobody.
    pub fn new(own: PeerId, secret: [u8; 32], limits: StoreLimits, clock: UnixClock) -> Self {
        Self {
            providers: Providers::new(own, secret),
            own,
            secret,
            limits,
            clock,
            sets: HashMap::new(),
            far: BTreeSet::new(),
            ends: BTreeSet::new(),
            peers: HashMap::new(),
            bytes: 0,
        }
    }

    /// Keys with announcements.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is no announcement.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Bytes of announcements and headers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets what has expired. Every put does so too; what has expired is never answered.
    pub fn expire(&mut self) {
        let now = (self.clock)();
        while let Some(&(end, key)) = self.ends.first() {
            if end > now.as_secs() {
                break;
            }
            let set = self.take(&key);
            if let Some(mut set) = set {
                set.expire(now);
                self.replace(set);
            }
        }
        self.providers.expire(now);
    }

    /// Merges a record, and says why if it does not. `local` is whether this node publishes
    /// it: then it holds this node's announcement and no other.
    ///
    /// # Errors
    /// [`RecordError`], by case; nothing is changed then. A record is refused as a whole if
    /// any of it is invalid, and as [`RecordError::Stale`] if all of it is older than what
    /// is held.
    pub fn put_record(&mut self, key: &[u8], value: &[u8], local: bool) -> Result<(), RecordError> {
        wire::check_len(value.len(), "record", MAX_VALUE_LEN)?;
        let key = RecordKey::parse(key)?;
        self.expire();
        let now = (self.clock)();
        let held = self.sets.get(&key);
        let incoming = SeederSet::decode_beside(value, &key, now, held)?;
        let own_alone = incoming.peers().all(|peer| *peer == self.own);
        if local && !own_alone {
            return Err(RecordError::Foreign);
        }
        if held.is_some_and(|held| held.makes_stale(&incoming)) {
            return Err(RecordError::Stale);
        }
        self.check_peers(&incoming, own_alone)?;
        let before = held.map_or(0, SeederSet::size);
        let chooser = Chooser {
            secret: &self.secret,
            own: self.own,
            key: &key,
        };
        let mut merged = held.cloned().unwrap_or_else(|| SeederSet::new(key));
        merged.merge(incoming.clone(), &chooser, now);
        if !merged.has_any_of(&incoming) {
            return Err(RecordError::Full {
                what: "announcements under this key",
            });
        }
        if !own_alone {
            let another = usize::from(held.is_none());
            let bytes = self.bytes - before + merged.size();
            for farther in self.giving_way(&key, another, bytes)? {
                self.take(&farther);
            }
        }
        self.take(&key);
        self.replace(merged);
        Ok(())
    }

    /// The record of a key with all that holds now, if anything does.
    pub fn record(&self, key: &RecordKey) -> Option<Record> {
        let now = (self.clock)();
        let set = self.sets.get(key).filter(|set| set.holds(now))?;
        Some(Record::new(key.to_kad(), set.encode(now)))
    }

    /// How far a key is from this node.
    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        KBucketKey::from(self.own).distance(&KBucketKey::new(key.to_bytes()))
    }

    /// The keys that go, so that there is room for so many keys more and so many bytes in all:
    /// all of them are farther away than the key that wants it.
    fn giving_way(
        &self,
        key: &RecordKey,
        another: usize,
        bytes: usize,
    ) -> Result<Vec<RecordKey>, RecordError> {
        let mut keys = (self.far.len() + another).saturating_sub(self.limits.keys);
        let mut bytes = bytes.saturating_sub(self.limits.bytes);
        let mut going = Vec::new();
        if keys == 0 && bytes == 0 {
            return Ok(going);
        }
        let distance = self.distance(key);
        for (_, farther) in self.far.iter().rev().take_while(|(d, _)| *d > distance) {
            going.push(*farther);
            keys = keys.saturating_sub(1);
            bytes = bytes.saturating_sub(self.sets.get(farther).map_or(0, SeederSet::size));
            if keys == 0 && bytes == 0 {
                return Ok(going);
            }
        }
        let what = if keys > 0 { "keys" } else { "bytes" };
        Err(RecordError::Full { what })
    }

    fn check_peers(&self, incoming: &SeederSet, own_alone: bool) -> Result<(), RecordError> {
        let held = self.sets.get(incoming.key());
        let limit = if own_alone {
            self.limits.own_keys
        } else {
            self.limits.keys_per_peer
        };
        let full = |peer: &PeerId| {
            let another = held.is_none_or(|held| !held.has(peer));
            let keys = self.peers.get(peer).copied().unwrap_or(0);
            another && keys >= limit && (own_alone || *peer != self.own)
        };
        if incoming.peers().any(full) {
            Err(RecordError::Full {
                what: "keys of one peer",
            })
        } else {
            Ok(())
        }
    }

    /// Takes a set out, and it out of all counts.
    fn take(&mut self, key: &RecordKey) -> Option<SeederSet> {
        let set = self.sets.remove(key)?;
        self.bytes -= set.size();
        self.far.remove(&(self.distance(key), *key));
        if let Some(end) = set.first_end() {
            self.ends.remove(&(end, *key));
        }
        for peer in set.peers() {
            if let Some(keys) = self.peers.get_mut(peer) {
                *keys -= 1;
                if *keys == 0 {
                    self.peers.remove(peer);
                }
            }
        }
        Some(set)
    }

    /// Puts a set in whose key has none; an empty one not at all.
    fn replace(&mut self, set: SeederSet) {
        let key = *set.key();
        let Some(end) = set.first_end() else {
            return;
        };
        self.bytes += set.size();
        if !set.has(&self.own) {
            self.far.insert((self.distance(&key), key));
        }
        self.ends.insert((end, key));
        for peer in set.peers() {
            *self.peers.entry(*peer).or_default() += 1;
        }
        self.sets.insert(key, set);
    }
}

impl fmt::Debug for ChiralStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChiralStore")
            .field("keys", &self.sets.len())
            .field("bytes", &self.bytes)
            .field("peers", &self.peers.len())
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

impl RecordStore for ChiralStore {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = Box<dyn Iterator<Item = Cow<'a, ProviderRecord>> + 'a>;

    fn get(&self, key: &KadKey) -> Option<Cow<'_, Record>> {
        let key = RecordKey::parse(key.as_ref()).ok()?;
        self.record(&key).map(Cow::Owned)
    }

    fn put(&mut self, record: Record) -> StoreResult<()> {
        // Kademlia never passes on a stranger's record that claims to be this node's.
        let local = record.publisher == Some(self.own);
        let result = self.put_record(record.key.as_ref(), &record.value, local);
        result.map_err(|error| {
            tracing::debug!(key = ?record.key, %error, "record refused");
            match error {
                RecordError::Full { .. } => Error::MaxRecords,
                _ => Error::ValueTooLarge,
            }
        })
    }

    /// Announcements end by withdrawal or expiry, never by being removed.
    fn remove(&mut self, _key: &KadKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        let records = self.sets.keys().filter_map(|key| self.record(key));
        Box::new(records.map(Cow::Owned))
    }

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        let now = (self.clock)();
        self.providers.add(record, &self.limits, now)
    }

    fn providers(&self, key: &KadKey) -> Vec<ProviderRecord> {
        self.providers.of(key, (self.clock)())
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        Box::new(self.providers.own().map(Cow::Borrowed))
    }

    fn remove_provider(&mut self, key: &KadKey, peer: &PeerId) {
        self.providers.remove(key, peer);
    }
}
