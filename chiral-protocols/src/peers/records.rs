//! [`PeerRecords`]: what is kept of peers over a restart, in words that any version reads.

use std::time::Duration;

use chiral_core::{Cid, Endpoint, PeerId, PeerOffer, Protocol};
use serde::{Deserialize, Serialize};

use super::history::{History, Measured, Who};
use super::penalties::{Penalties, Penalty, PenaltyKind};

/// Bans and rates as they are kept. Times are seconds since 1970 (UTC).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerRecords {
    #[serde(default)]
    bans: Vec<Ban>,
    #[serde(default)]
    rates: Vec<Rated>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ban {
    peer: Option<String>,
    protocol: String,
    endpoint: String,
    content: Option<String>,
    reason: String,
    since: u64,
    until: u64,
}

/// Of a peer, of a place, or, with neither, of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rated {
    peer: Option<String>,
    endpoint: Option<String>,
    protocol: String,
    bytes_per_second: u64,
    milliseconds: u64,
    at: u64,
}

impl PeerRecords {
    pub(super) fn of(penalties: &Penalties, history: &History, now: Duration) -> Self {
        let bans = penalties.list(now).into_iter();
        let bans = bans.filter(|penalty| penalty.kind == PenaltyKind::Banned);
        let peers = history
            .peers()
            .map(|(protocol, who, measured)| rated(protocol, Some(who), measured));
        let protocols = history
            .protocols()
            .map(|(protocol, measured)| rated(protocol, None, measured));
        Self {
            bans: bans.map(ban).collect(),
            rates: peers.chain(protocols).collect(),
        }
    }

    pub(super) fn restore(&self, penalties: &mut Penalties, history: &mut History, now: Duration) {
        for penalty in self.bans.iter().filter_map(Ban::read) {
            penalties.add(now, penalty);
        }
        for record in &self.rates {
            record.restore(history, now);
        }
    }
}

fn ban(penalty: &Penalty) -> Ban {
    Ban {
        peer: penalty.peer.as_ref().map(PeerId::to_string),
        protocol: penalty.protocol.to_string(),
        endpoint: penalty.endpoint.to_string(),
        content: penalty.content.map(|cid| cid.to_string()),
        reason: penalty.reason.clone(),
        since: penalty.since.as_secs(),
        until: penalty.until.as_secs(),
    }
}

/// What is optional and there, but not understood, spoils the whole.
fn optional<T: std::str::FromStr>(text: Option<&String>) -> Option<Option<T>> {
    match text {
        Some(text) => text.parse().ok().map(Some),
        None => Some(None),
    }
}

impl Ban {
    fn read(&self) -> Option<Penalty> {
        let mut offer = PeerOffer::new(
            self.protocol.parse().ok()?,
            Endpoint::new(&self.endpoint).ok()?,
        );
        offer.peer = optional(self.peer.as_ref())?;
        let content: Option<Cid> = optional(self.content.as_ref())?;
        offer.mirror = content.is_some();
        let times = (
            Duration::from_secs(self.since),
            Duration::from_secs(self.until),
        );
        let kind = PenaltyKind::Banned;
        Some(Penalty::new(kind, &offer, content, &self.reason, times))
    }
}

fn rated(protocol: &Protocol, who: Option<&Who>, measured: &Measured) -> Rated {
    let (peer, endpoint) = match who {
        Some(Who::Peer(peer)) => (Some(peer.to_string()), None),
        Some(Who::Place(endpoint)) => (None, Some(endpoint.to_string())),
        None => (None, None),
    };
    Rated {
        peer,
        endpoint,
        protocol: protocol.to_string(),
        bytes_per_second: measured.rate as u64,
        milliseconds: (measured.seconds * 1e3) as u64,
        at: measured.at.as_secs(),
    }
}

impl Rated {
    /// What is not understood is left out.
    fn restore(&self, history: &mut History, now: Duration) {
        let Ok(protocol) = self.protocol.parse::<Protocol>() else {
            return;
        };
        let kept = Measured {
            rate: self.bytes_per_second as f64,
            seconds: self.milliseconds as f64 / 1e3,
            at: Duration::from_secs(self.at),
        };
        let who = match (&self.peer, &self.endpoint) {
            (Some(peer), _) => peer.parse().ok().map(Who::Peer),
            (None, Some(endpoint)) => Endpoint::new(endpoint).ok().map(Who::Place),
            (None, None) => {
                history.restore_protocol(now, protocol, kept);
                return;
            }
        };
        if let Some(who) = who {
            history.restore_peer(now, protocol, who, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("http".to_owned()),
            Just("http://a/".to_owned()),
            Just("12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".to_owned()),
            Just("07".repeat(32)),
            ".{0,80}",
        ]
    }

    proptest! {
        /// A file that anybody may have written is restored without a panic, within limits, and
        /// what comes of it comes back.
        #[test]
        fn any_records_are_restored_as_far_as_they_make_sense(
            bans in proptest::collection::vec(
                (proptest::option::of(text()), text(), text(), proptest::option::of(text()),
                 any::<u64>(), 0..200_000u64), 0..20),
            rates in proptest::collection::vec(
                (proptest::option::of(text()), proptest::option::of(text()), text(),
                 any::<u64>(), any::<u64>(), any::<u64>()), 0..20),
        ) {
            let now = Duration::from_secs(100_000);
            let bans = bans.into_iter().map(|(peer, protocol, endpoint, content, since, until)| {
                let reason = endpoint.repeat(9);
                Ban { peer, protocol, endpoint, content, reason, since, until }
            });
            let rates = rates.into_iter().map(|(peer, endpoint, protocol, rate, ms, at)| Rated {
                peer, endpoint, protocol, bytes_per_second: rate, milliseconds: ms, at,
            });
            let records = PeerRecords { bans: bans.collect(), rates: rates.collect() };
            let (mut penalties, mut history) = (Penalties::new(), History::new());
            records.restore(&mut penalties, &mut history, now);
            let kept = PeerRecords::of(&penalties, &history, now);
            let (mut penalties, mut history) = (Penalties::new(), History::new());
            kept.restore(&mut penalties, &mut history, now);
            let again = PeerRecords::of(&penalties, &history, now);
            prop_assert_eq!(again.bans, kept.bans);
            prop_assert_eq!(again.rates.len(), kept.rates.len());
        }
    }
}
