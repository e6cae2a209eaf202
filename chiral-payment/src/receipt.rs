//! [`Receipt`]: the seeder's signed word that a bill was paid.

use alloy_primitives::{Address, B256, U256};
use chiral_core::{BillId, Cid};

use crate::messages::{Malformed, Statement, sol};

/// A seeder saw a payment, and says for what it took it. Signed by its wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The bill.
    pub bill: BillId,
    /// Who paid.
    pub payer: Address,
    /// Who was paid.
    pub payee: Address,
    /// The file.
    pub cid: Cid,
    /// Bytes paid for.
    pub bytes: u64,
    /// Wei.
    pub amount: U256,
    /// The transaction.
    pub transaction: B256,
    /// When it was seen: seconds since 1970 (UTC).
    pub time: u64,
}

impl Statement for Receipt {
    type Sol = sol::Receipt;

    fn to_sol(&self) -> sol::Receipt {
        sol::Receipt {
            bill: self.bill.0,
            payer: self.payer,
            payee: self.payee,
            cid: B256::from(*self.cid.as_bytes()),
            bytesPaid: self.bytes,
            amount: self.amount,
            payment: self.transaction,
            time: self.time,
        }
    }

    fn from_sol(receipt: sol::Receipt) -> Result<Self, Malformed> {
        Ok(Self {
            bill: BillId(receipt.bill),
            payer: receipt.payer,
            payee: receipt.payee,
            cid: Cid::from_bytes(receipt.cid.0),
            bytes: receipt.bytesPaid,
            amount: receipt.amount,
            transaction: receipt.payment,
            time: receipt.time,
        })
    }
}
