//! Calls that are executed without being sent, and how much gas they need.

use alloy_consensus::Header;
use alloy_primitives::TxKind;
use bytes::Bytes;
use revm::ExecuteEvm;
use revm::context::TxEnv;
use revm::context_interface::result::{
    EVMError, ExecutionResult, HaltReason, InvalidTransaction, OutOfGasError,
};

use super::engine::Engine;
use super::execute::{config, environment, machine};
use super::overlay::Overlay;
use super::state::StateView;
use crate::client::{CallRequest, ChainError};

/// JSON-RPC's code for what the node cannot answer.
const SERVER_ERROR: i64 = -32_000;

/// Gas of a transfer to an account without code.
const TRANSFER_GAS: u64 = 21_000;

fn server_error(message: impl Into<String>) -> ChainError {
    ChainError::Rpc {
        code: SERVER_ERROR,
        message: message.into(),
    }
}

impl Engine {
    /// Executes a call on the state that a block left, as if in that block. Nothing is paid
    /// for gas, and the base fee is zero.
    pub(crate) fn call(&self, call: &CallRequest, header: &Header) -> Result<Bytes, ChainError> {
        let gas = call.gas.unwrap_or(header.gas_limit);
        match self.execute(call, header, gas)? {
            ExecutionResult::Success { output, .. } => Ok(output.into_data().0),
            ExecutionResult::Revert { output, .. } => {
                Err(ChainError::Reverted { output: output.0 })
            }
            ExecutionResult::Halt { reason, .. } => Err(server_error(halted(&reason))),
        }
    }

    /// The least gas limit with which the call succeeds.
    pub(crate) fn estimate(&self, call: &CallRequest, header: &Header) -> Result<u64, ChainError> {
        let most = call.gas.unwrap_or(header.gas_limit).min(header.gas_limit);
        let used = match self.execute(call, header, most)? {
            ExecutionResult::Success { gas, .. } => gas.tx_gas_used(),
            ExecutionResult::Revert { output, .. } => {
                return Err(ChainError::Reverted { output: output.0 });
            }
            ExecutionResult::Halt {
                reason: HaltReason::OutOfGas(_),
                ..
            } => {
                return Err(server_error(format!(
                    "gas required exceeds allowance ({most})"
                )));
            }
            ExecutionResult::Halt { reason, .. } => return Err(server_error(halted(&reason))),
        };
        // What was used is mostly enough; where a refund or a call's 63/64 has it otherwise,
        // the least is looked for.
        let suffices = |gas| -> Result<bool, ChainError> {
            if gas < TRANSFER_GAS {
                return Ok(false);
            }
            match self.execute(call, header, gas) {
                Ok(result) => Ok(result.is_success()),
                Err(ChainError::Rpc {
                    code: SERVER_ERROR, ..
                }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        if suffices(used)? {
            return Ok(used);
        }
        let (mut too_little, mut enough) = (used, most);
        while too_little + 1 < enough {
            let middle = too_little + (enough - too_little) / 2;
            if suffices(middle)? {
                enough = middle;
            } else {
                too_little = middle;
            }
        }
        Ok(enough)
    }

    fn execute(
        &self,
        call: &CallRequest,
        header: &Header,
        gas: u64,
    ) -> Result<ExecutionResult, ChainError> {
        let view: StateView = self.view(header.number);
        let mut settings = config(self.spec.rules, self.spec.chain_id);
        settings.disable_nonce_check = true;
        settings.tx_chain_id_check = false;
        // A contract may be asked what it would answer a contract.
        settings.disable_eip3607 = true;
        let mut block = environment(header);
        block.basefee = 0;
        let call = TxEnv {
            tx_type: 0,
            caller: call.from,
            gas_limit: gas.min(header.gas_limit),
            gas_price: 0,
            kind: call.to.map_or(TxKind::Create, TxKind::Call),
            value: call.value,
            data: call.input.clone().into(),
            nonce: 0,
            chain_id: None,
            access_list: Default::default(),
            gas_priority_fee: None,
            blob_hashes: Vec::new(),
            max_fee_per_blob_gas: 0,
            authorization_list: Vec::new(),
        };
        let result = machine(settings, block, Overlay::new(view)).transact_one(call);
        result.map_err(|error| match error {
            EVMError::Transaction(InvalidTransaction::LackOfFundForMaxFee { .. }) => {
                server_error("insufficient funds for gas * price + value")
            }
            EVMError::Transaction(InvalidTransaction::CallGasCostMoreThanGasLimit {
                initial_gas,
                gas_limit,
            }) => server_error(format!(
                "intrinsic gas too low: gas {gas_limit}, minimum needed {initial_gas}"
            )),
            EVMError::Database(error) => super::engine::unavailable(error),
            error => server_error(error.to_string()),
        })
    }
}

/// geth's words, where there are some that tools look for.
fn halted(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(OutOfGasError::Basic) => "out of gas".to_owned(),
        HaltReason::OutOfGas(_) => "out of gas: memory, precompile or refund".to_owned(),
        HaltReason::OpcodeNotFound | HaltReason::InvalidFEOpcode => "invalid opcode".to_owned(),
        HaltReason::StackUnderflow => "stack underflow".to_owned(),
        HaltReason::StackOverflow => "stack limit reached 1024 (1023)".to_owned(),
        HaltReason::InvalidJump => "invalid jump destination".to_owned(),
        other => format!("{other:?}"),
    }
}
