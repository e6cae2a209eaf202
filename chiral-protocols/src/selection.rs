//! Which protocols to use: pure functions of what is known.
//!
//! The architecture gives two orders of precedence, one for seeding and one for downloading.
//! Both are intersected with what is there first: only a protocol that is registered, and for
//! a download one that somebody serves over, is ever chosen. What comes out is a list in order
//! of preference, since several can be used at once.

use std::collections::BTreeMap;

use chiral_core::{PeerOffer, Protocol};

/// How others can reach this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// At a public IP address.
    Public,
    /// Not without help: it is behind a NAT.
    BehindNat,
    /// It runs in a browser, which only speaks WebRTC.
    Browser,
}

/// What the choice of protocols to seed over depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedingContext {
    /// How others can reach this node.
    pub reachability: Reachability,
    /// What to seed over behind a NAT: [`Protocol::WebTorrent`], unless configured otherwise.
    pub behind_nat: Protocol,
    /// What the user wants, if anything is said.
    pub preference: Option<Protocol>,
}

impl SeedingContext {
    /// Of a node reached like this, with nothing said.
    pub const fn new(reachability: Reachability) -> Self {
        Self {
            reachability,
            behind_nat: Protocol::WebTorrent,
            preference: None,
        }
    }
}

/// The protocols to seed over, of those that are registered and can seed, the default one
/// first:
///
/// - in a browser WebTorrent, and nothing else;
/// - what the user prefers;
/// - at a public address HTTP;
/// - behind a NAT WebTorrent, or what is configured instead; HTTP last, as it is reached from
///   the node's own network only;
/// - then the others, in the order of [`Protocol`].
pub fn seeding(context: &SeedingContext, registered: &[Protocol]) -> Vec<Protocol> {
    let mut all: Vec<Protocol> = registered.to_vec();
    all.sort();
    all.dedup();
    if context.reachability == Reachability::Browser {
        all.retain(|protocol| *protocol == Protocol::WebTorrent);
        return all;
    }
    let rank = |protocol: &Protocol| {
        if context.preference.as_ref() == Some(protocol) {
            return 0;
        }
        match context.reachability {
            Reachability::BehindNat if *protocol == context.behind_nat => 1,
            Reachability::BehindNat if *protocol == Protocol::Http => 3,
            Reachability::BehindNat => 2,
            _ if *protocol == Protocol::Http => 1,
            _ => 2,
        }
    };
    all.sort_by_key(rank);
    all
}

/// A file of more bytes than this is better swarmed for, if enough do: 100 MB.
pub const LARGE_FILE: u64 = 100_000_000;

/// More BitTorrent seeders than this are enough.
pub const MANY_SEEDERS: usize = 5;

/// What the choice of protocols to download over depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadContext {
    /// It runs in a browser, which only speaks WebRTC.
    pub browser: bool,
    /// What the user wants, if anything is said.
    pub preference: Option<Protocol>,
    /// Size of the file in bytes, if known.
    pub size: Option<u64>,
    /// Only what looks like the web gets through, as behind a proxy.
    pub restricted: bool,
    /// How many seeders serve over each protocol.
    pub seeders: BTreeMap<Protocol, usize>,
    /// Bytes per second that a seeder has over each protocol, as far as it was measured.
    pub rates: BTreeMap<Protocol, u64>,
}

impl DownloadContext {
    /// What these offers make of it.
    pub fn of(offers: &[PeerOffer]) -> Self {
        let mut context = Self::default();
        for offer in offers {
            *context.seeders.entry(offer.protocol.clone()).or_default() += 1;
            let size = offer.header.as_ref().map(|header| header.size);
            context.size = context.size.max(size);
        }
        context
    }

    fn count(&self, protocol: &Protocol) -> usize {
        self.seeders.get(protocol).copied().unwrap_or(0)
    }

    /// Bytes per second that all seeders over a protocol may have together. One that was not
    /// measured yet is taken for as fast as those that were are on average.
    fn together(&self, protocol: &Protocol) -> u128 {
        let known = self.rates.values().map(|rate| u128::from(*rate));
        let usual = known.sum::<u128>() / (self.rates.len().max(1) as u128);
        let rate = self
            .rates
            .get(protocol)
            .map_or(usual, |rate| u128::from(*rate));
        // Without any measurement the number of seeders alone decides.
        rate.max(1) * self.count(protocol) as u128
    }
}

/// The protocols to download over, of those that are registered and that somebody serves over,
/// the one to begin with first:
///
/// - in a browser WebTorrent, and nothing else;
/// - what the user prefers;
/// - BitTorrent, if the file has more than [`LARGE_FILE`] bytes and more than
///   [`MANY_SEEDERS`] seed it so;
/// - HTTP: in an open network because it is direct, in a restricted one because it gets through;
/// - then, unless the network is restricted and HTTP is there, the others by availability: how
///   much their seeders may deliver together, by what was measured.
pub fn downloading(context: &DownloadContext, registered: &[Protocol]) -> Vec<Protocol> {
    let mut all: Vec<Protocol> = registered
        .iter()
        .filter(|protocol| context.count(protocol) > 0)
        .cloned()
        .collect();
    all.sort();
    all.dedup();
    if context.browser {
        all.retain(|protocol| *protocol == Protocol::WebTorrent);
        return all;
    }
    let swarm = context.size.is_some_and(|size| size > LARGE_FILE)
        && context.count(&Protocol::BitTorrent) > MANY_SEEDERS;
    let rank = |protocol: &Protocol| match protocol {
        wanted if context.preference.as_ref() == Some(wanted) => 0,
        Protocol::BitTorrent if swarm => 1,
        Protocol::Http => 2,
        _ => 3,
    };
    // What does not get through is not waited for, while something does.
    if context.restricted && all.contains(&Protocol::Http) {
        all.retain(|protocol| rank(protocol) < 3);
    }
    all.sort_by_key(|protocol| {
        (
            rank(protocol),
            std::cmp::Reverse(context.together(protocol)),
        )
    });
    all
}

#[cfg(test)]
mod tests;
