//! What each seeder was paid: by the bills, by the balances, and by what the chain's JSON-RPC
//! says of the transaction. All three have to agree, to the wei.

use std::fmt;

use chiral::chain::{ChainClient, RpcChain, RpcConfig};
use chiral::core::money::format_chi;
use chiral::core::{Address, B256, SettlementStatus, U256};
use chiral::payment::contracts::batch_pay;
use chiral::{Got, Price};
use serde_json::{Value, json};

use super::Failure;
use super::network::Network;

struct Payment {
    seeder: &'static str,
    price: Price,
    wallet: Address,
    /// What the bills say.
    billed: U256,
    before: U256,
    after: U256,
    transaction: Option<B256>,
}

pub(crate) struct Ledger {
    payments: Vec<Payment>,
    /// Each transaction, and the wei that it moved, as JSON-RPC has it.
    transactions: Vec<(B256, U256)>,
    rpc: String,
}

impl Ledger {
    /// Looks at bills and balances, and reads the transactions back over JSON-RPC.
    pub(crate) async fn read(
        network: &Network,
        got: &Got,
        states: &[SettlementStatus],
        before: &[U256],
    ) -> Result<Self, Failure> {
        let after = network.balances().await?;
        let mut payments = Vec::new();
        for ((seeder, before), after) in network.seeders.iter().zip(before).zip(after) {
            let wallet = seeder.wallet()?;
            let bills = got.settled.iter().zip(states);
            let own: Vec<_> = bills
                .filter(|((bill, _), _)| bill.payee == Some(wallet))
                .collect();
            let billed = own.iter().map(|((bill, _), _)| bill.amount).sum();
            let transaction = own.iter().find_map(|(_, status)| match status {
                SettlementStatus::Settled { transaction } => Some(*transaction),
                _ => None,
            });
            payments.push(Payment {
                seeder: seeder.name,
                price: seeder.price,
                wallet,
                billed,
                before: *before,
                after,
                transaction,
            });
        }
        let rpc = network.loopback.rpc_url();
        let mut hashes: Vec<B256> = payments.iter().filter_map(|p| p.transaction).collect();
        hashes.sort();
        hashes.dedup();
        let chain = RpcChain::connect(&rpc, RpcConfig::default()).await?;
        let mut transactions = Vec::new();
        for hash in hashes {
            let found = chain.transaction(hash).await?;
            let found = found.ok_or_else(|| format!("{hash} is not on the chain"))?;
            let receipt = chain.receipt(hash).await?;
            if !receipt.is_some_and(|receipt| receipt.succeeded) {
                return Err(format!("{hash} failed").into());
            }
            let legs = batch_pay::legs(&found.input).unwrap_or_default();
            for leg in &legs {
                let known = payments.iter().find(|payment| payment.wallet == leg.to);
                if known.is_none_or(|payment| payment.billed != U256::from(leg.amount)) {
                    return Err(format!("{hash} pays {} to {}", leg.amount, leg.to).into());
                }
            }
            transactions.push((hash, found.value));
        }
        chain.shutdown().await?;
        Ok(Self {
            payments,
            transactions,
            rpc,
        })
    }

    /// Whether bills, balances and the chain agree.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for payment in &self.payments {
            let grown = payment.after - payment.before;
            if grown != payment.billed {
                let (name, billed) = (payment.seeder, payment.billed);
                return Err(format!("{name} has {grown} wei more, its bill is {billed}").into());
            }
        }
        let billed: U256 = self.payments.iter().map(|payment| payment.billed).sum();
        let moved: U256 = self.transactions.iter().map(|(_, value)| *value).sum();
        if billed != moved {
            return Err(format!("bills of {billed} wei, transactions of {moved}").into());
        }
        if self.transactions.len() > 1 {
            return Err(format!("{} settlements, not one", self.transactions.len()).into());
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> Value {
        let payment = |payment: &Payment| {
            json!({
                "seeder": payment.seeder,
                "price_wei_per_mib": payment.price.wei_per_mib().to_string(),
                "wallet": payment.wallet.to_string(),
                "billed_wei": payment.billed.to_string(),
                "before_wei": payment.before.to_string(),
                "after_wei": payment.after.to_string(),
                "transaction": payment.transaction,
            })
        };
        json!(self.payments.iter().map(payment).collect::<Vec<_>>())
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>7} {:>22} {:>26} {:>26}",
            "CHI", "per MiB", "paid", "balance before", "and after"
        )?;
        for payment in &self.payments {
            writeln!(
                f,
                "{:<12} {:>7} {:>22} {:>26} {:>26}",
                payment.seeder,
                payment.price.to_string(),
                format_chi(payment.billed),
                format_chi(payment.before),
                format_chi(payment.after),
            )?;
        }
        for (hash, value) in &self.transactions {
            writeln!(f, "\ntransaction {hash}")?;
            writeln!(f, "moved {} CHI, says {}", format_chi(*value), self.rpc)?;
        }
        Ok(())
    }
}
