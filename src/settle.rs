//! From what was verified to bills, from bills to the settler, and the word that a bill is
//! paid to whom it was owed.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::keccak256;
use chiral_core::{
    Bill, BillId, Cid, GateError, PaymentAgent, PaymentSettler, PeerOffer, Price, SettlementStatus,
    TransferId,
};
use chiral_protocols::{Delivered, ProtocolManager};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Node, NodeError};

/// Pause between looks at whether a bill is settled: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Times that a notice is given to a gate which does not see the payment yet.
const NOTICES: u32 = 20;

/// How long a node that ends waits for receipts of what is settled.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bills at most in one call to the settler: what one batch may hold.
const MAX_BILLS: usize = 64;

/// A bill of nothing for each seeder that delivered without asking for anything: the account
/// of a download lists everybody.
pub(crate) fn free_bills(
    transfer: TransferId,
    cid: Cid,
    delivered: &[Delivered],
) -> Vec<(Bill, SettlementStatus)> {
    let agreement = keccak256(transfer.as_bytes());
    let free = delivered.iter().filter(|part| part.offer.price.is_free());
    (0..)
        .zip(free)
        .filter_map(|(position, part)| {
            let (id, offer) = (BillId::derive(agreement, position), &part.offer);
            let (ranges, protocol) = (part.ranges.clone(), offer.protocol.clone());
            // Nothing times anything does not overflow.
            let bill = Bill::new(id, cid, ranges, Price::FREE, protocol).ok()?;
            let bill = bill.owed_to(offer.peer.clone(), offer.wallet);
            Some((bill, SettlementStatus::Free))
        })
        .collect()
}

/// Hands bills over and follows them in the background.
#[derive(Clone, Debug)]
pub(crate) struct Cashier {
    pub(crate) agent: Arc<dyn PaymentAgent>,
    pub(crate) settler: Arc<dyn PaymentSettler>,
    manager: ProtocolManager,
    tasks: TaskTracker,
    /// Those of `tasks` that follow a bill.
    followers: TaskTracker,
    /// Who waits for a settlement looks once more, and waits no longer.
    ending: CancellationToken,
    closed: CancellationToken,
}

impl Cashier {
    pub(crate) fn new(
        agent: Arc<dyn PaymentAgent>,
        settler: Arc<dyn PaymentSettler>,
        manager: ProtocolManager,
    ) -> Self {
        Self {
            agent,
            settler,
            manager,
            tasks: TaskTracker::new(),
            followers: TaskTracker::new(),
            ending: CancellationToken::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Closes the books on a file, or on all of them, and hands over what is owed. Whoever
    /// delivered is told when its bill is paid, if one of the offers is its.
    pub(crate) async fn settle(
        &self,
        cid: Option<Cid>,
        offers: &[PeerOffer],
    ) -> Result<Vec<(Bill, SettlementStatus)>, NodeError> {
        let bills = self.agent.bills(cid).await?;
        let mut settled = Vec::with_capacity(bills.len());
        for bills in bills.chunks(MAX_BILLS) {
            let states = self.settler.settle(bills.to_vec()).await?;
            settled.extend(bills.iter().cloned().zip(states));
        }
        for (bill, status) in &settled {
            if !matches!(status, SettlementStatus::Free) {
                self.follow(bill, offers);
            }
        }
        Ok(settled)
    }

    /// Takes up what an earlier run left behind.
    pub(crate) fn recover(&self) {
        let cashier = self.clone();
        self.spawn(async move {
            match cashier.settle(None, &[]).await {
                Ok(bills) if bills.is_empty() => {}
                Ok(bills) => tracing::info!(bills = bills.len(), "settling bills of earlier runs"),
                Err(error) => tracing::warn!(%error, "bills of earlier runs are not settled"),
            }
        });
    }

    /// Works in the background, until the node is shut down.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            closed.run_until_cancelled(work).await;
        });
    }

    /// Waits for the settlement of a bill, tells the payee, and keeps its receipt.
    fn follow(&self, bill: &Bill, offers: &[PeerOffer]) {
        let is_payee = |offer: &&PeerOffer| {
            offer.wallet == bill.payee
                && offer.protocol == bill.protocol
                && (bill.payee_peer.is_none() || offer.peer == bill.payee_peer)
        };
        let offers: Vec<_> = offers.iter().filter(is_payee).cloned().collect();
        let (cashier, id) = (self.clone(), bill.id);
        let follow = async move {
            let status = match cashier.look(id, &cashier.ending).await {
                Ok(Some(status)) => status,
                Ok(None) => return,
                Err(error) => return tracing::debug!(bill = %id, %error, "cannot be followed"),
            };
            if let Err(error) = cashier.notify(id, &status, &offers).await {
                tracing::debug!(bill = %id, %error, "no receipt");
            }
        };
        self.spawn(self.followers.track_future(follow));
    }

    /// Waits until the ledger shows the payment.
    pub(crate) async fn wait(&self, bill: BillId) -> Result<SettlementStatus, NodeError> {
        let never = CancellationToken::new();
        // `None` is for an end only, which is never called for.
        let status = self.look(bill, &never).await?;
        status.ok_or(NodeError::UnknownBill { bill })
    }

    /// The same, if it does before an end is called for.
    async fn look(
        &self,
        bill: BillId,
        end: &CancellationToken,
    ) -> Result<Option<SettlementStatus>, NodeError> {
        let mut pause = LOOK_AGAIN.0;
        loop {
            let last = end.is_cancelled();
            match self.settler.status(bill).await {
                Ok(Some(SettlementStatus::Pending { .. })) => {}
                Ok(Some(status)) => return Ok(Some(status)),
                Ok(None) => return Err(NodeError::UnknownBill { bill }),
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error.into()),
            }
            if last {
                return Ok(None);
            }
            end.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    async fn notify(
        &self,
        bill: BillId,
        status: &SettlementStatus,
        offers: &[PeerOffer],
    ) -> Result<(), GateError> {
        let Some(notice) = self.agent.settled(bill, status).await? else {
            return Ok(());
        };
        let mut pause = LOOK_AGAIN.0;
        for _ in 0..NOTICES {
            for offer in offers {
                let Ok(protocol) = self.manager.implementation(&offer.protocol) else {
                    continue;
                };
                match protocol.payment_message(offer, notice.clone()).await {
                    Ok(answer) => match self.agent.receipt(bill, answer).await {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(error) => tracing::debug!(%bill, %error, "not a receipt"),
                    },
                    Err(error) => tracing::debug!(%bill, %error, "the payee cannot be told"),
                }
            }
            if offers.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
        Err(GateError::Ledger)
    }

    /// The node is about to end: whoever was paid is told so, and may give its receipt, which
    /// the buyer of something cannot prove its purchase without. Comes before the protocols
    /// that carry it are ended.
    pub(crate) async fn last_words(&self) {
        self.followers.close();
        self.ending.cancel();
        let _ = tokio::time::timeout(LAST_WORDS, self.followers.wait()).await;
    }

    /// Ends what is followed; bills that are not settled stay with the settler.
    pub(crate) async fn shutdown(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Node {
    /// Closes the books on everything that was verified and is on no bill yet, and hands over
    /// all bills that are not settled. They are paid in the background.
    ///
    /// # Errors
    /// The books or the settler fail.
    pub async fn settle(&self) -> Result<Vec<(Bill, SettlementStatus)>, NodeError> {
        self.check_open()?;
        self.inner().cashier.settle(None, &[]).await
    }

    /// Waits until the ledger shows the payment of each of these bills.
    ///
    /// # Errors
    /// A bill that was never handed over, or the settler fails for good.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: bills are settled in the background.
    pub async fn wait_settled(
        &self,
        bills: impl IntoIterator<Item = BillId>,
    ) -> Result<Vec<SettlementStatus>, NodeError> {
        self.check_open()?;
        let bills: Vec<BillId> = bills.into_iter().collect();
        // They do not wait for others any more.
        self.inner().cashier.settler.expedite(&bills).await?;
        let mut states = Vec::new();
        for bill in bills {
            states.push(self.inner().cashier.wait(bill).await?);
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::chain::EMPTY_CID;
    use chiral_core::{ByteRange, Endpoint, Protocol};

    #[test]
    fn each_free_seeder_is_on_the_account_and_no_other() {
        let part = |url: &str, price: Price, end: u64| {
            let mut offer = PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap());
            offer.price = price;
            Delivered::new(offer, ByteRange::new(0, end).into())
        };
        let id = TransferId::from_bytes([1; 16]);
        let parts = [
            part("http://a/", "0.001".parse().unwrap(), 1 << 20),
            part("http://b/", Price::FREE, 5),
            part("http://c/", Price::FREE, 6),
        ];
        let bills = free_bills(id, EMPTY_CID, &parts);
        assert_eq!(bills.len(), 2);
        assert!(bills.iter().all(|(bill, _)| bill.is_free()));
        assert_eq!((bills[0].0.bytes, bills[1].0.bytes), (5, 6));
        assert_ne!(bills[0].0.id, bills[1].0.id);
    }
}
