//! [`WalletAccount`]: how a wallet stands with a seeder, agreement by agreement.

use chiral_core::Protocol;

use super::*;

/// How a wallet stands with a seeder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalletAccount {
    /// The wallet.
    pub wallet: Address,
    /// Most that it may owe now, in wei; nothing while it is overdue.
    pub line: U256,
    /// What it was given and has not paid, requests in flight included, in wei.
    pub exposure: U256,
    /// What it has ever paid, in wei.
    pub paid: U256,
    /// Debts of it that were given up, in wei.
    pub defaulted: U256,
    /// Whether something that it acknowledged is unpaid for too long.
    pub overdue: bool,
    /// Its agreements that are not over.
    pub agreements: Vec<AgreementAccount>,
}

/// How one agreement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgreementAccount {
    /// Its hash; bills are derived from it.
    pub agreement: B256,
    /// The file.
    pub cid: Cid,
    /// Over what it was last asked for.
    pub protocol: Protocol,
    /// Bytes sent, repeats included.
    pub served: u64,
    /// Bytes that the buyer acknowledged.
    pub acknowledged: u64,
    /// Bytes that cost nothing or are paid.
    pub paid: u64,
    /// Bytes that were sent and never arrived, and are not asked for.
    pub written_off: u64,
    /// The bills that were paid.
    pub bills: Vec<BillId>,
}

impl ChainGate {
    /// How a wallet stands, as far as there is anything to say of it.
    pub fn account(&self, wallet: Address) -> WalletAccount {
        let (books, now) = (self.books(), self.now());
        let standing = books.credit.standing(wallet);
        let overdue = books.is_overdue(wallet, now);
        let mut least = U256::ZERO;
        let mut agreements = Vec::new();
        for (agreement, account) in books.accounts_of(wallet) {
            least = least.max(account.full_cost(self.inner.config.credit.least_bytes));
            let id = |sequence: &u32| BillId::derive(agreement, *sequence);
            agreements.push(AgreementAccount {
                agreement,
                cid: account.terms.cid,
                protocol: account.protocol.clone(),
                served: account.sent,
                acknowledged: account.acked.len(),
                paid: account.paid.min(account.sent.max(account.acked.len())),
                written_off: account.written_off,
                bills: account.bills.iter().map(id).collect(),
            });
        }
        agreements.sort_by_key(|account| account.agreement);
        WalletAccount {
            wallet,
            line: match overdue {
                true => U256::ZERO,
                false => books.line(wallet, least),
            },
            exposure: books.exposure(wallet),
            paid: standing.paid,
            defaulted: standing.defaulted,
            overdue,
            agreements,
        }
    }
}
