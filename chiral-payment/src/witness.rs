//! [`Witness`]: the payee looks at the ledger for itself.
//!
//! A payment counts if its transaction succeeded, is buried deep enough, was made by the
//! wallet that agreed to pay, pays the seeder's wallet no wei less than the bill, and names
//! the bill: in the calldata of a plain transfer, or in the event of the BatchPay contract.
//! Since every payment names one bill and a bill is taken once, no payment counts twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloy_primitives::{Address, B256, U256};
use chiral_chain::{ChainClient, ChainError, TransactionInfo, TransactionReceipt};
use chiral_core::BillId;

use crate::calldata::PaymentMetadata;
use crate::contracts::{BatchPayment, batch_pay};
use crate::messages::ChainFacts;

/// What is said to have been paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The bill.
    pub bill: BillId,
    /// By this wallet.
    pub payer: Address,
    /// To this one.
    pub payee: Address,
    /// At least so many wei.
    pub amount: U256,
    /// In this transaction.
    pub transaction: B256,
}

/// What a look at the ledger showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The claim holds.
    Paid(Payment),
    /// Not there, or not deep enough; this may change.
    NotYet,
    /// The claim does not hold, and will not.
    Refused {
        /// Why.
        reason: &'static str,
    },
}

/// A payment of one bill on the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The bill that it names.
    pub bill: BillId,
    /// Who paid.
    pub payer: Address,
    /// Wei.
    pub amount: U256,
    /// Bytes paid for, as the payer says.
    pub bytes: Option<u64>,
    /// The transaction.
    pub transaction: B256,
}

/// Looks at one chain.
#[derive(Clone, Debug)]
pub struct Witness {
    client: Arc<dyn ChainClient>,
    facts: ChainFacts,
    confirmations: u32,
    /// Whether the client has been seen to be of the right chain.
    right: Arc<AtomicBool>,
}

impl Witness {
    /// One that takes payments for firm which are `confirmations` blocks deep, their own
    /// block included.
    pub fn new(client: Arc<dyn ChainClient>, facts: ChainFacts, confirmations: u32) -> Self {
        Self {
            client,
            facts,
            confirmations: confirmations.max(1),
            right: Arc::default(),
        }
    }

    /// Whether a claim holds.
    ///
    /// # Errors
    /// [`ChainError`] if the chain cannot be asked; [`ChainError::WrongChain`] and
    /// [`ChainError::Protocol`] if the node is not of the chain that was agreed on.
    ///
    /// # Cancel safety
    /// Nothing is changed by looking.
    pub async fn examine(&self, claim: &Claim) -> Result<Finding, ChainError> {
        self.check_chain().await?;
        let Some((transaction, receipt)) = self.look_up(claim.transaction).await? else {
            return Ok(Finding::NotYet);
        };
        if !receipt.succeeded {
            return Ok(refused("the transaction failed"));
        }
        if !self.is_bound(&transaction) {
            return Ok(refused("the transaction is not bound to this chain"));
        }
        let payments = self.payments(&transaction, &receipt, claim.payee);
        let mut fault = "the transaction pays another wallet";
        for payment in payments {
            let of_this_bill = payment.bill == claim.bill;
            fault = match () {
                () if !of_this_bill => "the transaction names another bill",
                () if payment.payer != claim.payer => "another wallet paid",
                () if payment.amount < claim.amount => "the amount is too small",
                () => return self.depth(&receipt, payment).await,
            };
            if of_this_bill {
                break;
            }
        }
        Ok(refused(fault))
    }

    /// Firm payments to a wallet in one block, of those that name a bill.
    pub(crate) async fn in_block(
        &self,
        number: u64,
        payee: Address,
    ) -> Result<Vec<Payment>, ChainError> {
        self.check_chain().await?;
        let block = self.client.block(chiral_chain::BlockId::Number(number));
        let Some(block) = block.await? else {
            return Ok(Vec::new());
        };
        let contract = self.facts.batch_pay;
        let mut found = Vec::new();
        for transaction in &block.transactions {
            if transaction.to != Some(payee) && transaction.to != Some(contract) {
                continue;
            }
            let Some(receipt) = self.client.receipt(transaction.hash).await? else {
                continue;
            };
            if receipt.succeeded && self.is_bound(transaction) {
                found.extend(self.payments(transaction, &receipt, payee));
            }
        }
        Ok(found)
    }

    /// The highest block that is deep enough.
    pub(crate) async fn firm_head(&self) -> Result<u64, ChainError> {
        let head = self.client.head().await?.number;
        Ok((head + 1).saturating_sub(u64::from(self.confirmations)))
    }

    pub(crate) fn client(&self) -> &Arc<dyn ChainClient> {
        &self.client
    }

    async fn check_chain(&self) -> Result<(), ChainError> {
        if self.right.load(Ordering::Relaxed) {
            return Ok(());
        }
        let found = self.client.chain_id().await?;
        if found != self.facts.chain_id {
            let expected = self.facts.chain_id;
            return Err(ChainError::WrongChain { expected, found });
        }
        if self.client.genesis_hash().await? != self.facts.genesis {
            return Err(ChainError::Protocol {
                reason: "the node's chain has another first block",
            });
        }
        self.right.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a transaction can be on this chain alone (EIP-155).
    fn is_bound(&self, transaction: &TransactionInfo) -> bool {
        transaction.chain_id == Some(self.facts.chain_id)
    }

    async fn look_up(
        &self,
        hash: B256,
    ) -> Result<Option<(TransactionInfo, TransactionReceipt)>, ChainError> {
        let Some(receipt) = self.client.receipt(hash).await? else {
            return Ok(None);
        };
        let transaction = self.client.transaction(hash).await?;
        Ok(transaction.map(|transaction| (transaction, receipt)))
    }

    /// Everything in a transaction that pays a bill to a wallet.
    fn payments(
        &self,
        transaction: &TransactionInfo,
        receipt: &TransactionReceipt,
        payee: Address,
    ) -> Vec<Payment> {
        if transaction.to == Some(payee) {
            let metadata = PaymentMetadata::decode(&transaction.input);
            let plain = metadata.map(|metadata| Payment {
                bill: metadata.bill,
                payer: transaction.from,
                amount: transaction.value,
                bytes: Some(metadata.bytes),
                transaction: transaction.hash,
            });
            return plain.into_iter().collect();
        }
        let legs = batch_pay::legs(&transaction.input).unwrap_or_default();
        let said = |bill: BillId| {
            let leg = legs.iter().find(|leg| leg.bill == bill.0)?;
            let metadata = PaymentMetadata::decode(&leg.meta).ok()?;
            Some(metadata.bytes)
        };
        let contract = self.facts.batch_pay;
        let logs = receipt.logs.iter();
        logs.filter_map(|log| BatchPayment::from_log(log, contract))
            .filter(|paid| paid.payee == payee)
            .map(|paid| Payment {
                bill: paid.bill,
                payer: paid.payer,
                amount: U256::from(paid.amount),
                bytes: said(paid.bill),
                transaction: transaction.hash,
            })
            .collect()
    }

    async fn depth(
        &self,
        receipt: &TransactionReceipt,
        payment: Payment,
    ) -> Result<Finding, ChainError> {
        let firm = self.firm_head().await?;
        Ok(match receipt.block.number <= firm {
            true => Finding::Paid(payment),
            false => Finding::NotYet,
        })
    }
}

fn refused(reason: &'static str) -> Finding {
    Finding::Refused { reason }
}
