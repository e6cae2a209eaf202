//! [`PeerBook`]: what a node remembers of peers, over all its downloads.
//!
//! Who contradicted what is proven is banned for a day; who stalled or failed is demoted for
//! as long as the download that saw it says. And how fast each was, which decides who is
//! connected first and what is asked of whom until there are new measurements.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chiral_core::{FileIdentification, PeerOffer, Protocol, TransferError};
use tokio::sync::{Notify, watch};

mod history;
mod penalties;
mod records;

pub use history::{HALF_LIFE, History, MAX_PEERS, Measured, Who};
pub use penalties::{BAN_TIME, MAX_PENALTIES, MAX_REASON_LEN, Penalties, Penalty, PenaltyKind};
pub use records::PeerRecords;

/// What a node remembers of peers. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct PeerBook {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// How often penalties were taken back.
    cleared: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    penalties: Penalties,
    history: History,
}

/// Time since 1970; a clock before that gives 1970.
fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

impl PeerBook {
    /// Remembers nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Bans whoever made an offer of this content, for [`BAN_TIME`].
    pub fn ban(&self, offer: &PeerOffer, target: &FileIdentification, reason: &str) {
        let now = now();
        let times = (now, now.saturating_add(BAN_TIME));
        let ban = Penalty::new(PenaltyKind::Banned, offer, target.cid(), reason, times);
        self.state().penalties.add(now, ban);
        self.shared.changed.notify_one();
    }

    /// Demotes whoever made an offer of this content for so long: it stalled or failed.
    pub fn demote(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
        reason: &str,
        lasts: Duration,
    ) {
        let now = now();
        let times = (now, now.saturating_add(lasts.min(BAN_TIME)));
        let demotion = Penalty::new(PenaltyKind::Demoted, offer, target.cid(), reason, times);
        let mut state = self.state();
        state.penalties.add(now, demotion);
        state.history.failed(now, offer);
    }

    /// The heaviest penalty on whoever made an offer of this content.
    pub fn penalty(&self, offer: &PeerOffer, target: &FileIdentification) -> Option<Penalty> {
        let state = self.state();
        state.penalties.on(now(), offer, target.cid()).cloned()
    }

    /// Whether an offer may be connected.
    ///
    /// # Errors
    /// [`TransferError::Banned`].
    pub fn check(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<(), TransferError> {
        match self.penalty(offer, target) {
            Some(penalty) if penalty.kind == PenaltyKind::Banned => Err(TransferError::Banned {
                source_name: offer.endpoint.as_str().to_owned(),
                reason: penalty.reason,
                for_seconds: penalty.until.saturating_sub(now()).as_secs(),
            }),
            _ => Ok(()),
        }
    }

    /// All penalties, bans first, those that end last first.
    pub fn penalties(&self) -> Vec<Penalty> {
        let state = self.state();
        state.penalties.list(now()).into_iter().cloned().collect()
    }

    /// Takes back the penalties on a peer, by its id, or on a place, by its endpoint; answers
    /// how many. Downloads under way use them again.
    pub fn clear(&self, who: &str) -> usize {
        let cleared = self.state().penalties.clear(who);
        self.tell(cleared);
        cleared
    }

    /// Takes all penalties back, as [`PeerBook::clear`]; answers how many.
    pub fn clear_all(&self) -> usize {
        let cleared = self.state().penalties.clear_all();
        self.tell(cleared);
        cleared
    }

    fn tell(&self, cleared: usize) {
        if cleared > 0 {
            self.shared.changed.notify_one();
            self.shared.cleared.send_modify(|times| *times += 1);
        }
    }

    /// Changes whenever penalties are taken back from now on.
    pub(crate) fn cleared(&self) -> watch::Receiver<u64> {
        self.shared.cleared.subscribe()
    }

    /// A peer delivered `bytes` at `rate` bytes per second while it served; `held_up` if it
    /// was we who did not take more.
    pub fn record(&self, offer: &PeerOffer, bytes: u64, rate: f64, held_up: bool) {
        self.state()
            .history
            .record(now(), offer, bytes, rate, held_up);
        self.shared.changed.notify_one();
    }

    /// Bytes per second to expect of whoever made an offer, if it was met lately.
    pub fn expected(&self, offer: &PeerOffer) -> Option<u64> {
        self.state().history.expected(now(), offer)
    }

    /// Bytes per second that a peer has over this protocol on average, if any were met lately.
    pub fn of_protocol(&self, protocol: &Protocol) -> Option<u64> {
        self.state().history.of_protocol(now(), protocol)
    }

    /// Waits until something is to be kept that may not have been before.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// What is to be kept over a restart: bans and rates.
    pub fn records(&self) -> PeerRecords {
        let state = self.state();
        PeerRecords::of(&state.penalties, &state.history, now())
    }

    /// Takes up what was kept. What makes no sense any more is left out.
    pub fn restore(&self, records: &PeerRecords) {
        let mut state = self.state();
        let State { penalties, history } = &mut *state;
        records.restore(penalties, history, now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::{Cid, Endpoint, PeerId};

    #[test]
    fn bans_and_rates_outlast_a_restart_and_demotions_do_not() {
        let book = PeerBook::new();
        let target = Cid::from_bytes([1; 32]).into();
        let offer = |name: &str| PeerOffer::new(Protocol::Http, Endpoint::new(name).unwrap());
        let peer = PeerId::from_bytes(&[3, 4]).unwrap();
        let (liar, mirror, slow) = (
            offer("liar").with_peer(peer.clone()),
            offer("mirror").as_mirror(),
            offer("slow"),
        );
        book.ban(&liar, &target, "it lied");
        book.ban(&mirror, &target, "a bad copy");
        book.demote(&slow, &target, "stalled", Duration::from_secs(100));
        book.record(&slow, 1_000_000, 1e5, false);
        assert_eq!(book.penalties().len(), 3);
        assert!(book.check(&slow, &target).is_ok());

        let text = serde_json::to_string(&book.records()).unwrap();
        let again = PeerBook::new();
        again.restore(&serde_json::from_str(&text).unwrap());
        assert_eq!(again.penalties().len(), 2);
        let elsewhere = offer("elsewhere").with_peer(peer.clone());
        let refusal = again.check(&elsewhere, &target).unwrap_err();
        assert!(refusal.to_string().contains("it lied"), "{refusal}");
        assert!(!refusal.is_retryable());
        assert!(again.check(&mirror, &target).is_err());
        assert!(
            again
                .check(&mirror, &Cid::from_bytes([2; 32]).into())
                .is_ok()
        );
        let expected = again.expected(&slow).unwrap();
        assert!((90_000..=100_000).contains(&expected), "{expected}");
        assert!(again.of_protocol(&Protocol::Http).is_some());

        assert_eq!(again.clear(&peer.to_string()), 1);
        assert!(again.check(&liar, &target).is_ok());
        assert_eq!(again.clear_all(), 1);
    }
}
