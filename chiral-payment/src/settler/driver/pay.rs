//! Transactions for waiting bills.

use alloy_primitives::U256;
use chiral_chain::{BlockRef, Fees, Transaction};

use super::{Driver, Stop, is_over, signer_problem, unix_now};
use crate::settler::ledger::Obstacle;
use crate::settler::plan::{Group, Waiting, plan};
use crate::settler::problem::Problem;
use crate::settler::record::Flight;

/// Transactions of which no block has any yet, at most: nodes keep few for one wallet.
const MAX_UNMINED: usize = 16;

impl Driver {
    /// Signs transactions for waiting bills, and sends them.
    pub(super) async fn pay(
        &mut self,
        waiting: Vec<Waiting>,
        flights: Vec<Flight>,
        head: BlockRef,
    ) -> Result<(), Stop> {
        let unmined: Vec<_> = flights.iter().filter(|f| f.is_unmined()).collect();
        let mut room = MAX_UNMINED.saturating_sub(unmined.len());
        if room == 0 {
            return Ok(());
        }
        self.ledger.check_identity().await?;
        self.ledger.check_whole(head, unix_now()).await?;
        let fees = self.ledger.fees().await?;
        let has_contract = self.ledger.has_batch_contract().await?;
        let (next, balance) = self.ledger.account().await?;
        let open = flights.iter().filter(|f| !is_over(f));
        let mut nonce = open.fold(next, |next, flight| next.max(flight.nonce + 1));
        let reserved = unmined
            .iter()
            .filter_map(|f| f.newest().transaction.max_cost());
        let mut available = reserved.fold(balance, |left, cost| left.saturating_sub(cost));
        let plan = plan(waiting, has_contract, available, fees.max_per_gas());
        for bill in plan.short {
            self.problems.bills.insert(bill, Problem::Funds);
        }
        for group in plan.groups {
            if room == 0 {
                break;
            }
            let Some((group, transaction)) = self
                .build(group, nonce, fees, available, has_contract)
                .await?
            else {
                continue;
            };
            let cost = transaction.max_cost().unwrap_or(U256::MAX);
            let signed = transaction.sign(&*self.signer).await;
            let signed = signed.map_err(signer_problem)?;
            let bills = group.bills.iter().map(|(bill, _)| *bill).collect();
            let flight = Flight::new(signed, group.batch, bills, head.number, unix_now());
            let number = self.book.signed(flight.clone()).await?;
            self.board.changed();
            self.send(number, flight, head).await?;
            (nonce, room) = (nonce + 1, room - 1);
            available = available.saturating_sub(cost);
        }
        Ok(())
    }

    /// The transaction for a group of bills, or for as many of them as there is money for.
    async fn build(
        &mut self,
        mut group: Group,
        nonce: u64,
        fees: Fees,
        available: U256,
        has_contract: bool,
    ) -> Result<Option<(Group, Transaction)>, Stop> {
        loop {
            let first = group.bills[0].1.payee;
            let is_call = group.bills[0].1.is_call();
            let contract = self.ledger.config.batch_contract;
            let mut transaction = Transaction {
                chain_id: self.ledger.config.chain_id,
                nonce,
                gas_limit: 0,
                fees,
                to: Some(contract.filter(|_| group.batch).unwrap_or(first)),
                value: group.value(),
                input: group.input(),
            };
            let gas = match group.batch {
                // Nodes refuse to execute what the balance does not cover.
                _ if transaction.value > available => None,
                true => Some(
                    self.ledger
                        .batch_gas(&transaction, group.bills.len())
                        .await?,
                ),
                false => match self.ledger.transfer_gas(&transaction, is_call).await {
                    Ok(gas) => Some(gas),
                    Err(Obstacle::Problem(Problem::PayeeRefuses)) if has_contract && !is_call => {
                        group.batch = true;
                        continue;
                    }
                    Err(Obstacle::Problem(problem)) => {
                        let bill = group.bills[0].0;
                        self.problems.bills.insert(bill, problem);
                        let rest = self.ledger.config.retry_after.as_secs();
                        self.book.deferred(bill, unix_now(), rest).await?;
                        return Ok(None);
                    }
                    Err(other) => return Err(other.into()),
                },
            };
            transaction.gas_limit = gas.unwrap_or(u64::MAX);
            if transaction.max_cost().is_some_and(|cost| cost <= available) {
                return Ok(Some((group, transaction)));
            }
            for (bill, _) in &group.bills[group.bills.len() / 2..] {
                self.problems.bills.insert(*bill, Problem::Funds);
            }
            match group.halved() {
                Some(half) => group = half,
                None => return Ok(None),
            }
        }
    }
}
