//! Executing transactions into a block, by revm.

use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy_consensus::transaction::Recovered;
use alloy_consensus::{
    Header, Receipt, ReceiptEnvelope, Transaction, TxEnvelope, TxReceipt,
    constants::EMPTY_OMMER_ROOT_HASH,
};
use alloy_primitives::{Bloom, U256};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::context_interface::result::{EVMError, InvalidTransaction};
use revm::handler::{MainnetContext, MainnetEvm};
use revm::primitives::hardfork::SpecId;
use revm::{ExecuteCommitEvm, MainBuilder, MainContext};

use super::overlay::Overlay;
use super::state::{Changes, StateError, StateView};
use crate::spec::Rules;

/// The machine, above a state.
pub(super) type Evm = MainnetEvm<MainnetContext<Overlay>>;

/// Why execution did not begin.
pub(super) type ExecutionError = EVMError<StateError, InvalidTransaction>;

/// revm's name for the rules.
pub(super) fn spec_id(rules: Rules) -> SpecId {
    match rules {
        Rules::Istanbul => SpecId::ISTANBUL,
        Rules::London => SpecId::LONDON,
    }
}

/// Settings of a machine that executes transactions.
pub(super) fn config(rules: Rules, chain_id: u64) -> CfgEnv {
    let mut config = CfgEnv::new_with_spec(spec_id(rules));
    config.chain_id = chain_id;
    config
}

/// What the code of a block sees of the block.
pub(super) fn environment(header: &Header) -> BlockEnv {
    BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: header.difficulty,
        prevrandao: None,
        blob_excess_gas_and_price: None,
        slot_num: 0,
    }
}

/// A machine.
pub(super) fn machine(config: CfgEnv, block: BlockEnv, state: Overlay) -> Evm {
    Context::mainnet()
        .with_db(state)
        .with_cfg(config)
        .with_block(block)
        .build_mainnet()
}

/// revm's form of a transaction.
fn tx_env(transaction: &Recovered<TxEnvelope>) -> TxEnv {
    TxEnv {
        tx_type: transaction.tx_type().into(),
        caller: transaction.signer(),
        gas_limit: transaction.gas_limit(),
        gas_price: transaction.max_fee_per_gas(),
        kind: transaction.kind(),
        value: transaction.value(),
        data: transaction.input().clone(),
        nonce: transaction.nonce(),
        chain_id: transaction.chain_id(),
        access_list: transaction.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: transaction.max_priority_fee_per_gas(),
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: Vec::new(),
    }
}

/// A block in the making.
pub(super) struct BlockBuilder {
    /// Everything but what comes of the transactions.
    header: Header,
    evm: Evm,
    transactions: Vec<Recovered<TxEnvelope>>,
    receipts: Vec<ReceiptEnvelope>,
}

impl std::fmt::Debug for BlockBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockBuilder")
            .field("number", &self.header.number)
            .field("transactions", &self.transactions.len())
            .finish_non_exhaustive()
    }
}

/// A block that was executed; its state root is not known yet.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) header: Header,
    pub(super) transactions: Vec<Recovered<TxEnvelope>>,
    pub(super) receipts: Vec<ReceiptEnvelope>,
    pub(super) changes: Changes,
}

impl BlockBuilder {
    /// A block with this header above this state.
    pub(super) fn new(rules: Rules, chain_id: u64, header: Header, parent: StateView) -> Self {
        let evm = machine(
            config(rules, chain_id),
            environment(&header),
            Overlay::new(parent),
        );
        Self {
            header,
            evm,
            transactions: Vec::new(),
            receipts: Vec::new(),
        }
    }

    /// Gas that is left.
    pub(super) fn room(&self) -> u64 {
        self.header.gas_limit - self.header.gas_used
    }

    /// Executes a transaction and takes it in. The caller has seen that there is room for its
    /// gas limit.
    pub(super) fn push(
        &mut self,
        transaction: Recovered<TxEnvelope>,
    ) -> Result<(), ExecutionError> {
        let result = self.evm.transact_commit(tx_env(&transaction))?;
        self.header.gas_used += result.tx_gas_used();
        let receipt = Receipt {
            status: result.is_success().into(),
            cumulative_gas_used: self.header.gas_used,
            // Those of a transaction that failed are undone with it.
            logs: if result.is_success() {
                result.into_logs()
            } else {
                Vec::new()
            },
        };
        self.receipts
            .push(ReceiptEnvelope::from_typed(transaction.tx_type(), receipt));
        self.transactions.push(transaction);
        Ok(())
    }

    /// Pays the miner, and makes all of the header but the state root.
    pub(super) fn finish(self, reward: U256) -> Result<Executed, StateError> {
        let mut overlay = self.evm.ctx.journaled_state.database;
        if !reward.is_zero() {
            overlay.credit(self.header.beneficiary, reward)?;
        }
        let logs_bloom = self
            .receipts
            .iter()
            .fold(Bloom::ZERO, |all, receipt| all | receipt.bloom());
        let header = Header {
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            transactions_root: calculate_transaction_root(&self.transactions),
            receipts_root: calculate_receipt_root(&self.receipts),
            logs_bloom,
            ..self.header
        };
        Ok(Executed {
            header,
            transactions: self.transactions,
            receipts: self.receipts,
            changes: overlay.into_changes(),
        })
    }
}
