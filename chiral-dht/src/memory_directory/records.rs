//! The announcements that hold: by file and peer, by the file's other names, by expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chiral_core::peer_directory::MAX_OFFERS;
use chiral_core::{
    Alias, Announcement, Cid, DirectoryError, FileIdentification, ManifestHeader, MerkleRoot,
    PeerId, PeerOffer, ProviderQuery,
};

/// Limit on the offers in one announcement.
pub const MAX_OFFERS_PER_ANNOUNCEMENT: usize = 16;

/// Limit on the files that one node announces.
pub const MAX_ANNOUNCEMENTS_PER_PEER: usize = 65_536;

/// A name of a file that is not its cid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Root(MerkleRoot),
    Alias(Alias),
}

#[derive(Debug)]
struct Entry {
    header: ManifestHeader,
    offers: Vec<PeerOffer>,
    expires_at: Duration,
}

/// All tables change together: `insert` and `remove` are the only ways in and out.
#[derive(Debug, Default)]
pub(super) struct Records {
    files: BTreeMap<Cid, BTreeMap<PeerId, Entry>>,
    peers: BTreeMap<PeerId, BTreeSet<Cid>>,
    names: BTreeMap<Name, BTreeSet<(Cid, PeerId)>>,
    expiries: BTreeSet<(Duration, Cid, PeerId)>,
    /// Which peer is first in the next answer that is cut.
    turn: usize,
}

impl Records {
    /// Number of announcements.
    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Forgets what does not hold any more.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((expires_at, cid, peer)) = self.expiries.first().cloned() {
            if expires_at > now {
                return;
            }
            self.remove(cid, &peer);
        }
    }

    /// Replaces the peer's announcement of the file, if there is one.
    pub(super) fn announce(
        &mut self,
        peer: &PeerId,
        announcement: Announcement,
        now: Duration,
    ) -> Result<(), DirectoryError> {
        let Announcement {
            header,
            mut offers,
            lifetime,
            ..
        } = announcement;
        check(peer, &header, &offers).map_err(|reason| DirectoryError::Refused { reason })?;
        let known = self.peers.get(peer);
        let another = known.is_none_or(|cids| !cids.contains(&header.cid));
        if another && known.is_some_and(|cids| cids.len() >= MAX_ANNOUNCEMENTS_PER_PEER) {
            return Err(DirectoryError::Refused {
                reason: "too many files announced",
            });
        }
        for offer in &mut offers {
            if !offer.mirror {
                offer.peer = Some(peer.clone());
            }
            offer.header = Some(header.clone());
        }
        self.remove(header.cid, peer);
        let expires_at = now.saturating_add(lifetime);
        self.insert(
            peer,
            Entry {
                header,
                offers,
                expires_at,
            },
        );
        Ok(())
    }

    /// Removes the peer's announcements of the file; true if there was one.
    pub(super) fn withdraw(&mut self, peer: &PeerId, target: &FileIdentification) -> bool {
        let mut any = false;
        for (cid, announcer) in self.announced(target) {
            any |= announcer == *peer && self.remove(cid, peer);
        }
        any
    }

    /// Removes all announcements of the peer.
    pub(super) fn withdraw_all(&mut self, peer: &PeerId) {
        while let Some(cid) = self.peers.get(peer).and_then(BTreeSet::first).copied() {
            self.remove(cid, peer);
        }
    }

    /// The offers that answer a query, at most [`MAX_OFFERS`].
    pub(super) fn providers(&mut self, query: &ProviderQuery) -> Vec<PeerOffer> {
        let wanted = |offer: &&PeerOffer| {
            query.protocols.is_empty() || query.protocols.contains(&offer.protocol)
        };
        let announced = self.announced(&query.target);
        let entries = announced
            .iter()
            .filter_map(|(cid, peer)| self.files.get(cid)?.get(peer));
        let mut by_peer: Vec<Vec<&PeerOffer>> = entries
            .filter(|entry| !contradicts(&entry.header, &query.target))
            .map(|entry| entry.offers.iter().filter(wanted).collect())
            .collect();
        if by_peer.iter().map(Vec::len).sum::<usize>() <= MAX_OFFERS {
            return by_peer.into_iter().flatten().cloned().collect();
        }
        let first = self.turn % by_peer.len();
        by_peer.rotate_left(first);
        let longest = by_peer.iter().map(Vec::len).max().unwrap_or(0);
        let in_turns = (0..longest).flat_map(|i| by_peer.iter().filter_map(move |o| o.get(i)));
        let answer = in_turns.take(MAX_OFFERS).copied().cloned().collect();
        self.turn = self.turn.wrapping_add(1);
        answer
    }

    /// Who announced the file under this name.
    fn announced(&self, target: &FileIdentification) -> Vec<(Cid, PeerId)> {
        let under = |name| {
            self.names
                .get(&name)
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        };
        match target {
            FileIdentification::Content { cid, .. } => {
                let entries = self.files.get(cid).into_iter().flatten();
                entries.map(|(peer, _)| (*cid, peer.clone())).collect()
            }
            FileIdentification::Root(root) => under(Name::Root(*root)),
            FileIdentification::Alias(alias) => under(Name::Alias(*alias)),
            // A kind of name that no announcement can be made under yet.
            _ => Vec::new(),
        }
    }

    fn insert(&mut self, peer: &PeerId, entry: Entry) {
        let cid = entry.header.cid;
        for name in names(&entry.header) {
            self.names
                .entry(name)
                .or_default()
                .insert((cid, peer.clone()));
        }
        self.peers.entry(peer.clone()).or_default().insert(cid);
        self.expiries.insert((entry.expires_at, cid, peer.clone()));
        self.files
            .entry(cid)
            .or_default()
            .insert(peer.clone(), entry);
    }

    fn remove(&mut self, cid: Cid, peer: &PeerId) -> bool {
        let Some(set) = self.files.get_mut(&cid) else {
            return false;
        };
        let Some(entry) = set.remove(peer) else {
            return false;
        };
        if set.is_empty() {
            self.files.remove(&cid);
        }
        for name in names(&entry.header) {
            take(&mut self.names, &name, &(cid, peer.clone()));
        }
        take(&mut self.peers, peer, &cid);
        self.expiries.remove(&(entry.expires_at, cid, peer.clone()));
        true
    }
}

/// Removes a member of a set in a map, and the set with its last member.
fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

fn names(header: &ManifestHeader) -> impl Iterator<Item = Name> {
    let aliases = header.aliases.iter().copied().map(Name::Alias);
    std::iter::once(Name::Root(header.root)).chain(aliases)
}

fn check(peer: &PeerId, header: &ManifestHeader, offers: &[PeerOffer]) -> Result<(), &'static str> {
    if header.encode().is_err() {
        return Err("the header does not fit its format");
    }
    if offers.is_empty() {
        return Err("no offers");
    }
    if offers.len() > MAX_OFFERS_PER_ANNOUNCEMENT {
        return Err("too many offers");
    }
    if offers
        .iter()
        .any(|offer| offer.peer.as_ref().is_some_and(|named| named != peer))
    {
        return Err("an offer names another peer");
    }
    if offers
        .iter()
        .any(|offer| offer.header.as_ref().is_some_and(|other| other != header))
    {
        return Err("an offer has another header");
    }
    Ok(())
}

/// Whether the header is of another file than the link pins.
fn contradicts(header: &ManifestHeader, target: &FileIdentification) -> bool {
    target.root().is_some_and(|root| root != header.root)
        || target.size().is_some_and(|size| size != header.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::Protocol;
    use chiral_core::conformance::peer_directory::{header, offer};

    fn peer(number: usize) -> PeerId {
        PeerId::from_bytes(&number.to_be_bytes()).unwrap()
    }

    fn announce(records: &mut Records, by: usize, name: &str, offers: u16) {
        let offers = (0..offers)
            .map(|port| offer(Protocol::Http, port))
            .collect();
        let announcement = Announcement::new(header(name), offers);
        records
            .announce(&peer(by), announcement, Duration::ZERO)
            .unwrap();
    }

    fn is_empty(records: &Records) -> bool {
        records.files.is_empty()
            && records.peers.is_empty()
            && records.names.is_empty()
            && records.expiries.is_empty()
    }

    #[test]
    fn no_table_keeps_what_was_removed() {
        let mut records = Records::default();
        for by in 0..3 {
            announce(&mut records, by, "a", 1);
            announce(&mut records, by, "a", 2);
            announce(&mut records, by, "b", 1);
        }
        assert_eq!(records.len(), 6);
        records.withdraw_all(&peer(0));
        assert!(records.withdraw(&peer(1), &FileIdentification::Root(header("a").root)));
        assert_eq!(records.len(), 3);
        records.expire(Duration::from_secs(3599));
        assert_eq!(records.len(), 3);
        records.expire(Duration::from_secs(3600));
        assert!(is_empty(&records), "{records:?}");
    }

    #[test]
    fn every_peer_has_a_place_in_a_cut_answer_and_each_is_first_in_turn() {
        let mut records = Records::default();
        for by in 0..MAX_OFFERS + 2 {
            announce(&mut records, by, "a", if by == 0 { 16 } else { 1 });
        }
        let query = ProviderQuery::new(header("a").cid.into());
        let mut seen = BTreeSet::new();
        for turn in 0..MAX_OFFERS {
            let answer = records.providers(&query);
            assert_eq!(answer.len(), MAX_OFFERS);
            assert_eq!(answer[0].peer, Some(peer(turn)));
            let peers: BTreeSet<_> = answer.iter().map(|offer| offer.peer.clone()).collect();
            assert_eq!(
                peers.len(),
                MAX_OFFERS,
                "a place for each before a second for any"
            );
            seen.extend(peers);
        }
        assert_eq!(seen.len(), MAX_OFFERS + 2);
    }

    #[test]
    fn a_mirror_stays_nobodys_and_a_pinned_root_or_size_leaves_out_what_contradicts_it() {
        let mut records = Records::default();
        let mirror = offer(Protocol::Http, 1).as_mirror();
        let announcement = Announcement::new(header("a"), vec![mirror]);
        records
            .announce(&peer(1), announcement, Duration::ZERO)
            .unwrap();
        let mut liar = header("a");
        liar.root = header("b").root;
        liar.size += 1;
        let announcement = Announcement::new(liar.clone(), vec![offer(Protocol::Http, 2)]);
        records
            .announce(&peer(2), announcement, Duration::ZERO)
            .unwrap();

        let honest = header("a");
        let (cid, size) = (honest.cid, Some(honest.size));
        let all = records.providers(&ProviderQuery::new(cid.into()));
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].peer, None);
        for (root, size) in [
            (Some(honest.root), None),
            (None, size),
            (Some(honest.root), size),
        ] {
            let target = FileIdentification::Content { cid, root, size };
            assert_eq!(records.providers(&ProviderQuery::new(target)), all[..1]);
        }
    }

    #[test]
    fn one_peer_cannot_announce_without_limit() {
        let mut records = Records::default();
        let cids = (0..MAX_ANNOUNCEMENTS_PER_PEER as u64).map(|number| {
            let mut cid = [0; 32];
            cid[..8].copy_from_slice(&number.to_be_bytes());
            Cid::from_bytes(cid)
        });
        records.peers.insert(peer(1), cids.collect());
        let announcement = Announcement::new(header("a"), vec![offer(Protocol::Http, 1)]);
        let result = records.announce(&peer(1), announcement.clone(), Duration::ZERO);
        assert!(
            matches!(result, Err(DirectoryError::Refused { .. })),
            "{result:?}"
        );
        records
            .announce(&peer(2), announcement, Duration::ZERO)
            .unwrap();
        let offers = vec![offer(Protocol::Http, 1); MAX_OFFERS_PER_ANNOUNCEMENT + 1];
        let announcement = Announcement::new(header("b"), offers);
        let result = records.announce(&peer(2), announcement, Duration::ZERO);
        assert!(
            matches!(result, Err(DirectoryError::Refused { .. })),
            "{result:?}"
        );
    }
}
