//! Provider records: of others within limits, of this node apart from them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::store::{Error, Result as StoreResult};
use libp2p::kad::{KBucketDistance, KBucketKey, ProviderRecord, RecordKey as KadKey};

use super::StoreLimits;
use crate::records::announcement::sha256;
use crate::records::key::parse_provider_key;

/// Limit on the addresses kept with a provider.
const MAX_ADDRESSES: usize = 8;

/// Limit on each of them, in bytes.
const MAX_ADDRESS_LEN: usize = 256;

pub(super) struct Providers {
    own: PeerId,
    secret: [u8; 32],
    /// Keys that this node provides.
    provided: HashMap<KadKey, ProviderRecord>,
    others: HashMap<KadKey, Vec<Held>>,
    /// Their keys, by how far they are from this node.
    far: BTreeSet<(KBucketDistance, Vec<u8>)>,
    /// When each of the others' ends, with its key and peer.
    ends: BTreeSet<(Duration, Vec<u8>, PeerId)>,
    /// Number of keys that each of the others provides.
    peers: HashMap<PeerId, usize>,
}

struct Held {
    record: ProviderRecord,
    end: Duration,
}

impl Providers {
    pub(super) fn new(own: PeerId, secret: [u8; 32]) -> Self {
        Self {
            own,
            secret,
            provided: HashMap::new(),
            others: HashMap::new(),
            far: BTreeSet::new(),
            ends: BTreeSet::new(),
            peers: HashMap::new(),
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((end, key, peer)) = self.ends.first().cloned() {
            if end > now {
                return;
            }
            self.remove(&KadKey::from(key), &peer);
        }
    }

    pub(super) fn add(
        &mut self,
        mut record: ProviderRecord,
        limits: &StoreLimits,
        now: Duration,
    ) -> StoreResult<()> {
        if parse_provider_key(record.key.as_ref()).is_err() {
            return Err(Error::ValueTooLarge);
        }
        if record.provider == self.own {
            let another = !self.provided.contains_key(&record.key);
            if another && self.provided.len() >= limits.own_keys {
                return Err(Error::MaxProvidedKeys);
            }
            self.provided.insert(record.key.clone(), record);
            return Ok(());
        }
        self.expire(now);
        record
            .addresses
            .retain(|address| address.len() <= MAX_ADDRESS_LEN);
        record.addresses.truncate(MAX_ADDRESSES);
        let held = self.others.get(&record.key);
        let list = held.map_or(&[][..], Vec::as_slice);
        let known = list
            .iter()
            .any(|held| held.record.provider == record.provider);
        if !known {
            let keys = self.peers.get(&record.provider).copied().unwrap_or(0);
            if keys >= limits.provider_keys_per_peer {
                return Err(Error::MaxProvidedKeys);
            }
            if held.is_none() && self.others.len() >= limits.provider_keys {
                self.give_way(&record.key)?;
                return self.add(record, limits, now);
            }
            if list.len() >= limits.providers_per_key {
                // Not who came first: who came first may have come in a crowd.
                let lot = |peer: &PeerId| self.lot(&record.key, peer);
                let last = list.iter().map(|held| held.record.provider).max_by_key(lot);
                match last {
                    Some(last) if lot(&record.provider) < lot(&last) => {
                        self.remove(&record.key, &last);
                    }
                    _ => return Err(Error::MaxProvidedKeys),
                }
            }
        }
        self.remove(&record.key, &record.provider.clone());
        let end = now + limits.provider_lifetime;
        self.ends
            .insert((end, record.key.to_vec(), record.provider));
        *self.peers.entry(record.provider).or_default() += 1;
        self.far
            .insert((self.distance(&record.key), record.key.to_vec()));
        let list = self.others.entry(record.key.clone()).or_default();
        list.push(Held { record, end });
        Ok(())
    }

    pub(super) fn of(&self, key: &KadKey, now: Duration) -> Vec<ProviderRecord> {
        let others = self.others.get(key).into_iter().flatten();
        let others = others.filter(|held| held.end > now).map(|h| &h.record);
        self.provided
            .get(key)
            .into_iter()
            .chain(others)
            .cloned()
            .collect()
    }

    pub(super) fn own(&self) -> impl Iterator<Item = &ProviderRecord> {
        self.provided.values()
    }

    pub(super) fn remove(&mut self, key: &KadKey, peer: &PeerId) {
        if *peer == self.own {
            self.provided.remove(key);
            return;
        }
        let Some(list) = self.others.get_mut(key) else {
            return;
        };
        let Some(at) = list.iter().position(|held| held.record.provider == *peer) else {
            return;
        };
        let held = list.remove(at);
        if list.is_empty() {
            self.others.remove(key);
            self.far.remove(&(self.distance(key), key.to_vec()));
        }
        self.ends.remove(&(held.end, key.to_vec(), *peer));
        if let Some(keys) = self.peers.get_mut(peer) {
            *keys -= 1;
            if *keys == 0 {
                self.peers.remove(peer);
            }
        }
    }

    /// How far a key is from this node.
    fn distance(&self, key: &KadKey) -> KBucketDistance {
        KBucketKey::from(self.own).distance(&KBucketKey::new(key.to_vec()))
    }

    /// The farthest key goes, if it is farther than this one.
    fn give_way(&mut self, key: &KadKey) -> StoreResult<()> {
        match self.far.last() {
            Some((distance, farthest)) if *distance > self.distance(key) => {
                let farthest = KadKey::from(farthest.clone());
                let held = self.others.get(&farthest).into_iter().flatten();
                let peers: Vec<PeerId> = held.map(|held| held.record.provider).collect();
                for peer in peers {
                    self.remove(&farthest, &peer);
                }
                Ok(())
            }
            _ => Err(Error::MaxProvidedKeys),
        }
    }

    fn lot(&self, key: &KadKey, peer: &PeerId) -> [u8; 32] {
        sha256(&[&self.secret[..], &peer.to_bytes(), key.as_ref()].concat())
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers")
            .field("provided", &self.provided.len())
            .field("keys", &self.others.len())
            .field("records", &self.ends.len())
            .finish_non_exhaustive()
    }
}
