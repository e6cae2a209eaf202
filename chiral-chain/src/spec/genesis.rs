//! Block 0 of a chain.

use alloy_consensus::constants::KECCAK_EMPTY;
use alloy_consensus::proofs::{state_root_unhashed, storage_root_unhashed};
use alloy_consensus::{Header, TrieAccount};
use alloy_primitives::{B64, B256, U256, keccak256};

use super::{ChainSpec, GenesisAccount, Rules};

/// Wei per gas that block 0 burns under London (EIP-1559 `INITIAL_BASE_FEE`).
pub(super) const INITIAL_BASE_FEE: u64 = 1_000_000_000;

impl ChainSpec {
    /// Root of the state that block 0 leaves behind.
    pub fn genesis_state_root(&self) -> B256 {
        state_root_unhashed(
            self.alloc
                .iter()
                .map(|(address, account)| (*address, account.in_trie())),
        )
    }

    /// The header of block 0. Whatever the spec does not name is zero or empty.
    pub fn genesis_header(&self) -> Header {
        Header {
            state_root: self.genesis_state_root(),
            difficulty: self.difficulty,
            gas_limit: self.gas_limit,
            timestamp: self.timestamp,
            extra_data: self.extra_data.clone().into(),
            nonce: B64::from(self.nonce),
            base_fee_per_gas: (self.rules >= Rules::London).then_some(INITIAL_BASE_FEE),
            ..Header::default()
        }
    }

    /// Hash of block 0: two nodes are of one chain if this and the chain id are the same.
    pub fn genesis_hash(&self) -> B256 {
        self.genesis_header().hash_slow()
    }
}

impl GenesisAccount {
    fn in_trie(&self) -> TrieAccount {
        let storage = self
            .storage
            .iter()
            .filter(|(_, value)| !value.is_zero())
            .map(|(slot, value)| (*slot, U256::from_be_bytes(value.0)));
        TrieAccount {
            nonce: self.nonce,
            balance: self.balance,
            storage_root: storage_root_unhashed(storage),
            code_hash: if self.code.is_empty() {
                KECCAK_EMPTY
            } else {
                keccak256(&self.code)
            },
        }
    }
}
