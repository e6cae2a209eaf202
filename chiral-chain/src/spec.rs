//! [`ChainSpec`]: what all nodes of a chain must agree on beforehand, as data.

mod genesis;
mod genesis_json;
mod predeploys;

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256};
use bytes::Bytes;
use chiral_core::money::WEI_PER_CHI;

use crate::dev_accounts::DEV_ACCOUNTS;

/// Chain id and network id of the Chiral network: 98765.
pub const CHIRAL_CHAIN_ID: u64 = 0x181cd;

/// What each development account owns on [`ChainSpec::devnet`], in CHI.
pub const DEV_ACCOUNT_CHI: u64 = 10_000;

/// Which upgrades of Ethereum hold; each includes all before it, from block 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rules {
    /// Up to Istanbul: no access lists, no base fee.
    Istanbul,
    /// Up to London: Berlin's gas costs, and a base fee that is burnt (EIP-1559).
    London,
}

/// What an account has in block 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenesisAccount {
    /// Wei.
    pub balance: U256,
    /// Nonce.
    pub nonce: u64,
    /// Code, if it is a contract.
    pub code: Bytes,
    /// Storage; zero is the same as absent.
    pub storage: BTreeMap<B256, B256>,
}

impl GenesisAccount {
    /// An account that owns so many wei.
    pub fn with_balance(balance: U256) -> Self {
        Self {
            balance,
            ..Self::default()
        }
    }
}

/// A chain: its id, its rules, its first block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainSpec {
    /// What people call it.
    pub name: String,
    /// Id under signatures (EIP-155).
    pub chain_id: u64,
    /// Id that nodes tell each other.
    pub network_id: u64,
    /// Rules from block 0 on.
    pub rules: Rules,
    /// Difficulty of block 0.
    pub difficulty: U256,
    /// Gas limit of block 0.
    pub gas_limit: u64,
    /// Extra data of block 0, at most 32 bytes.
    pub extra_data: Bytes,
    /// Nonce of block 0.
    pub nonce: u64,
    /// Time of block 0, in seconds since 1970 (UTC).
    pub timestamp: u64,
    /// Wei that a block's miner gets for it.
    pub block_reward: U256,
    /// Addresses of nodes to begin with (`enode://…`).
    pub bootstrap: Vec<String>,
    /// Accounts of block 0.
    pub alloc: BTreeMap<Address, GenesisAccount>,
}

impl ChainSpec {
    /// The Chiral network (architecture, "Network Parameters"), with nothing allocated.
    pub fn chiral() -> Self {
        Self {
            name: "chiral".to_owned(),
            chain_id: CHIRAL_CHAIN_ID,
            network_id: CHIRAL_CHAIN_ID,
            rules: Rules::London,
            difficulty: U256::from(0x40_0000),
            gas_limit: 0x47_b760,
            extra_data: Bytes::from_static(b"Keep on keeping on!"),
            nonce: 0x42,
            timestamp: 0x68b3_b2ca,
            block_reward: U256::from(2 * WEI_PER_CHI),
            bootstrap: Vec::new(),
            alloc: BTreeMap::new(),
        }
    }

    /// A chain for development: the id and the rules of [`chiral`](Self::chiral), from another
    /// first block. [`DEV_ACCOUNTS`] own 10,000 CHI each, and the contracts of
    /// [`predeployed`](Self::predeployed) are there from the start.
    ///
    /// The keys of its money are public, so it must not be reachable by strangers.
    pub fn devnet() -> Self {
        let balance = U256::from(DEV_ACCOUNT_CHI) * U256::from(WEI_PER_CHI);
        let accounts = DEV_ACCOUNTS
            .iter()
            .map(|account| (account.address, GenesisAccount::with_balance(balance)));
        let contracts = predeploys::of_devnet().into_iter().map(|predeploy| {
            let account = GenesisAccount {
                // As if it had been deployed (EIP-161).
                nonce: 1,
                code: predeploy.code.into(),
                ..GenesisAccount::default()
            };
            (predeploy.address, account)
        });
        let mut spec = Self::chiral().with_alloc(accounts.chain(contracts));
        spec.name = "chiral-devnet".to_owned();
        spec.difficulty = U256::from(0x2_0000);
        spec
    }

    /// Address of a contract that [`devnet`](Self::devnet) has from block 0 on, by its name,
    /// such as `BatchPay`.
    pub fn predeployed(name: &str) -> Option<Address> {
        predeploys::of_devnet()
            .into_iter()
            .find(|predeploy| predeploy.name == name)
            .map(|predeploy| predeploy.address)
    }

    /// The same chain with these accounts in block 0 besides those it has; a later one
    /// replaces an earlier one of the same address.
    #[must_use]
    pub fn with_alloc(
        mut self,
        accounts: impl IntoIterator<Item = (Address, GenesisAccount)>,
    ) -> Self {
        self.alloc.extend(accounts);
        self
    }

    /// The same chain under other rules.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }
}
