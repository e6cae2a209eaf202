//! On what terms is sold and bought, from what was said on the command line.

use chiral::Price;
use chiral::core::money::MIB;
use chiral::payment::messages::{Concessions, Discount, Policy};
use chiral::payment::{Contracts, FreeShare, PaymentsConfig};

use super::arguments;
use super::failure::{Exit, Failure};

impl arguments::When {
    fn policy(self) -> Policy {
        match self {
            Self::PayAfter => Policy::PayAfter,
            Self::PayFirst => Policy::PayFirst,
            Self::Incremental => Policy::Incremental,
            Self::Channel => Policy::Channel,
            Self::LockedVoucher => Policy::LockedVoucher,
        }
    }
}

impl arguments::Contracts {
    pub(crate) fn apply(&self, payments: PaymentsConfig) -> PaymentsConfig {
        let usual = Contracts::default();
        payments.with_contracts(Contracts {
            batch_pay: self.batch_contract.unwrap_or(usual.batch_pay),
            channels: self.channels_contract.unwrap_or(usual.channels),
        })
    }
}

impl arguments::Terms {
    /// What is asked for.
    pub(crate) fn apply(
        &self,
        price: Price,
        payments: PaymentsConfig,
    ) -> Result<PaymentsConfig, Failure> {
        let mut payments = payments.with_price(price).with_policy(self.policy.policy());
        let gate = &mut payments.gate;
        gate.floor = self.floor;
        gate.discounts = Concessions::new(0, self.discounts.clone())
            .map_err(|error| Failure::new(Exit::Usage, format!("the discounts: {error}")))?;
        if self.discounts.first().is_some_and(|one| one.price >= price) {
            return Err(Failure::new(Exit::Usage, "a discount is no lower price"));
        }
        gate.allowance.share = match (self.free, self.free_per_file) {
            (Some(mib), _) => FreeShare::PerWallet(u64::from(mib) * MIB),
            (None, Some(mib)) => FreeShare::PerFile(u64::from(mib) * MIB),
            (None, None) => FreeShare::None,
        };
        gate.allowance.per_day = u64::from(self.free_per_day) * MIB;
        gate.channel.challenge = self.challenge;
        Ok(payments)
    }
}

/// What a buyer agrees to.
pub(crate) fn buy(
    command: &arguments::Get,
    payments: PaymentsConfig,
) -> Result<PaymentsConfig, Failure> {
    let most = command.max_price.unwrap_or(Price::FREE);
    let mut payments = payments.with_max_price(most);
    if !command.policies.is_empty() {
        payments = payments.with_policies(command.policies.iter().map(|when| when.policy()));
    }
    if let Some(deposit) = command.deposit {
        let deposit = u128::try_from(deposit)
            .map_err(|_| Failure::new(Exit::Usage, "nobody has such a deposit"))?;
        let agent = &mut payments.agent;
        agent.channel_deposit = deposit;
        agent.max_channel_deposit = agent.max_channel_deposit.max(deposit);
    }
    Ok(command.contracts.apply(payments))
}

/// `MIB:CHI_PER_MIB`.
pub(crate) fn discount(text: &str) -> Result<Discount, String> {
    let (from, price) = text.split_once(':').ok_or("not MIB:CHI_PER_MIB")?;
    let from: u32 = from.parse().map_err(|_| "not a number of MiB")?;
    let price: Price = price.parse().map_err(|_| "not a price in CHI per MiB")?;
    Ok(Discount {
        from_bytes: u64::from(from) * MIB,
        price,
    })
}
