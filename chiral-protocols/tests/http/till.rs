//! A payment side as a script: what it says is text, what it owes are bytes.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    Admission, Bill, BillId, ByteRange, Cid, GateError, PaymentAgent, PaymentGate, Purchase,
    RangeSet, ServeRequest, SettlementStatus, Tariff,
};

/// What the gate of these tests asks for a MiB.
pub(crate) fn tariff() -> Tariff {
    Tariff {
        price: "0.001".parse().unwrap(),
        wallet: Some(
            "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
                .parse()
                .unwrap(),
        ),
    }
}

/// Serves whoever agreed, up to a credit over what was acknowledged.
#[derive(Debug)]
pub(crate) struct Till {
    /// Messages before it says that it is agreed.
    pub(crate) rounds: u64,
    /// It agrees and then asks again.
    pub(crate) insatiable: bool,
    /// Bytes that it serves ahead of acknowledgements.
    pub(crate) credit: u64,
    pub(crate) hellos: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    /// Bytes sent, or to be sent.
    pub(crate) admitted: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Admitted, and not told of as served.
    pub(crate) open: AtomicU64,
    /// Credentials that something was served for.
    pub(crate) shown: Mutex<BTreeSet<Bytes>>,
}

impl Default for Till {
    fn default() -> Self {
        Self {
            rounds: 1,
            insatiable: false,
            credit: u64::MAX,
            hellos: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            admitted: AtomicU64::default(),
            refused: AtomicU64::default(),
            open: AtomicU64::default(),
            shown: Mutex::default(),
        }
    }
}

impl Till {
    pub(crate) fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl PaymentGate for Till {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        assert!(
            request.range.len() <= 8 << 20,
            "{:?} at once",
            request.range
        );
        let shown = request.credential.clone();
        if let Some(shown) = &shown
            && self.shown.lock().unwrap().contains(shown)
        {
            return Ok(Admission::Refused {
                reason: "served before".to_owned(),
            });
        }
        let known = shown
            .as_ref()
            .is_some_and(|shown| shown.starts_with(b"agreed"));
        let owed = Self::count(&self.admitted).saturating_sub(Self::count(&self.acknowledged));
        if known && !self.insatiable && owed < self.credit {
            self.admitted
                .fetch_add(request.range.len(), Ordering::SeqCst);
            self.open.fetch_add(1, Ordering::SeqCst);
            // What was not served for it can be shown again, as at the gate that is not a script.
            self.shown.lock().unwrap().extend(shown);
            return Ok(Admission::Granted);
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        Ok(Admission::PaymentRequired(Bytes::from_static(b"terms")))
    }

    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        let kept = request.range.len() - sent.len();
        self.admitted.fetch_sub(kept, Ordering::SeqCst);
    }

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        let text = std::str::from_utf8(&message).unwrap_or("");
        if let Some(sum) = text.strip_prefix("ack ").and_then(|sum| sum.parse().ok()) {
            self.acknowledged.fetch_max(sum, Ordering::SeqCst);
            return Ok(Bytes::from_static(b"noted"));
        }
        match text {
            "hello" => {
                let hellos = self.hellos.fetch_add(1, Ordering::SeqCst) + 1;
                let enough = hellos.is_multiple_of(self.rounds);
                Ok(Bytes::from_static(if enough { b"yes" } else { b"well" }))
            }
            "not yet" => Err(GateError::Ledger),
            "broken" => Err(GateError::Journal(std::sync::Arc::new(
                std::io::Error::other("secret path"),
            ))),
            "bye" => Err(GateError::Closed),
            "cheap" => Err(GateError::Terms { reason: "price" }),
            _ => Err(GateError::Message { reason: "unknown" }),
        }
    }

    fn tariff(&self, _: Cid) -> Tariff {
        tariff()
    }
}

/// Says hello, takes its time, and keeps count.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    /// Time that each answer takes.
    pub(crate) pause: Duration,
    /// It walks away.
    pub(crate) refuses: Option<GateError>,
    /// It buys only what can be checked as it comes.
    pub(crate) needs_root: bool,
    /// It keeps no count of what was verified.
    pub(crate) forgetful: bool,
    pub(crate) agreed: AtomicBool,
    pub(crate) conversations: AtomicU64,
    pub(crate) verified: Mutex<RangeSet>,
    pub(crate) said: AtomicU64,
}

impl Purse {
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.verified.lock().unwrap().len()
    }
}

#[async_trait]
impl PaymentAgent for Purse {
    async fn credential(&self, _: &Purchase, _: ByteRange) -> Result<Option<Bytes>, GateError> {
        let agreed = self.agreed.load(Ordering::SeqCst);
        static SHOWN: AtomicU64 = AtomicU64::new(0);
        let number = SHOWN.fetch_add(1, Ordering::SeqCst);
        Ok(agreed.then(|| format!("agreed {number}").into()))
    }

    async fn respond(&self, purchase: &Purchase, told: Bytes) -> Result<Option<Bytes>, GateError> {
        assert_eq!(purchase.offer.price, tariff().price, "as it was offered");
        if &told[..] == b"noted" {
            return Ok(None);
        }
        if &told[..] == b"terms" {
            self.conversations.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(self.pause).await;
        if let Some(error) = &self.refuses {
            return Err(error.clone());
        }
        if self.needs_root && !purchase.root_known {
            return Err(GateError::RootUnknown);
        }
        match &told[..] {
            b"terms" | b"well" => Ok(Some(Bytes::from_static(b"hello"))),
            b"yes" => {
                self.agreed.store(true, Ordering::SeqCst);
                Ok(None)
            }
            _ => Err(GateError::Message { reason: "unknown" }),
        }
    }

    async fn verified(&self, _: &Purchase, range: ByteRange) {
        let new = self.verified.lock().unwrap().insert(range);
        assert!(self.forgetful || new == range.len(), "{range:?} twice");
    }

    async fn due(&self, _: &Purchase) -> Result<Option<Bytes>, GateError> {
        let sum = self.verified_bytes();
        let before = self.said.swap(sum, Ordering::SeqCst);
        Ok((sum > before).then(|| format!("ack {sum}").into()))
    }

    async fn bills(&self, _: Option<Cid>) -> Result<Vec<Bill>, GateError> {
        Ok(Vec::new())
    }

    async fn settled(&self, _: BillId, _: &SettlementStatus) -> Result<Option<Bytes>, GateError> {
        Ok(None)
    }

    async fn receipt(&self, _: BillId, _: Bytes) -> Result<bool, GateError> {
        Ok(true)
    }
}
