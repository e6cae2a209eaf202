//! `BatchPay`: one transaction that pays many bills, each of them once.

use alloy_primitives::{Address, B256, U256, b256, hex};
use alloy_sol_types::{SolCall, SolEvent};
use bytes::Bytes;
use chiral_chain::LogEntry;
use chiral_core::BillId;

use super::factory;

#[allow(missing_docs, reason = "generated; documented in BatchPay.sol")]
mod sol {
    alloy_sol_types::sol! {
        #[derive(Debug, PartialEq, Eq)]
        struct Leg {
            uint256 nonce;
            bytes32 bill;
            address to;
            uint128 amount;
            bytes meta;
        }

        function payBatch(Leg[] legs) external payable;
        function isUsed(address payer, uint256 nonce) external view returns (bool);
        function credits(address payee) external view returns (uint256);
        function withdraw(address to) external;

        event Payment(
            address indexed payer, address indexed payee, bytes32 indexed bill, uint128 amount, bool credited
        );
        event Skipped(address indexed payer, bytes32 indexed bill, uint256 nonce);
        event Withdrawal(address indexed payee, address to, uint256 amount);
    }
}

pub use sol::Leg;

/// Most legs of one transaction that is made here: even if every payee is new, its code fails
/// at its limit and it is credited, the transaction fits a block of 4.7 million gas.
pub const MAX_LEGS: usize = 24;

/// Gas that a payee's own code may use (the contract's `LEG_GAS`).
pub const LEG_GAS: u64 = 30_000;

/// With which salt the factory makes the contract at [`deployed_at`]: "chiral batchpay 1".
pub const DEPLOYMENT_SALT: B256 =
    b256!("63686972616c2062617463687061792031000000000000000000000000000000");

const CREATION: &str = include_str!("../../contracts/BatchPay.bin");
const RUNTIME: &str = include_str!("../../contracts/BatchPay.bin-runtime");

/// Code of a transaction that makes the contract on a chain that does not have it.
pub fn creation_code() -> Bytes {
    code(CREATION)
}

/// The contract's code as a chain has it; at any other code no money must be sent.
pub fn runtime_code() -> Bytes {
    code(RUNTIME)
}

fn code(text: &str) -> Bytes {
    let code = hex::decode(text.trim_end());
    code.expect("scripts/contracts writes hex digits").into()
}

/// Where the contract is on every chain on which [`FACTORY`](super::factory::FACTORY) was told to make it.
pub fn deployed_at() -> Address {
    factory::address_of(DEPLOYMENT_SALT, &creation_code())
}

/// What to send to [`FACTORY`](super::factory::FACTORY) to have it made; whoever does it.
pub fn deployment() -> Bytes {
    factory::words(DEPLOYMENT_SALT, &creation_code())
}

/// Calldata that pays these legs. The sum of their amounts is sent with it.
pub fn pay(legs: Vec<Leg>) -> Bytes {
    sol::payBatchCall { legs }.abi_encode().into()
}

/// The legs in calldata of a payment; `None` for any other calldata.
pub fn legs(calldata: &[u8]) -> Option<Vec<Leg>> {
    let call = sol::payBatchCall::abi_decode_validate(calldata).ok()?;
    (call.abi_encode() == calldata).then_some(call.legs)
}

/// Calldata that sends the caller's credit to `to`.
pub fn withdraw(to: Address) -> Bytes {
    sol::withdrawCall { to }.abi_encode().into()
}

/// Calldata that asks for a payee's credit; the answer is 32 bytes.
pub fn credits(payee: Address) -> Bytes {
    sol::creditsCall { payee }.abi_encode().into()
}

/// Calldata that asks whether a payer's nonce was used; the answer is 32 bytes, 0 or 1.
pub fn is_used(payer: Address, nonce: U256) -> Bytes {
    sol::isUsedCall { payer, nonce }.abi_encode().into()
}

/// A bill that the contract has paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchPayment {
    /// Who paid.
    pub payer: Address,
    /// Who was paid.
    pub payee: Address,
    /// Which bill, as the payer says.
    pub bill: BillId,
    /// Wei.
    pub amount: u128,
    /// Whether the payee did not take it, and has to withdraw it.
    pub credited: bool,
}

impl BatchPayment {
    /// Reads a log; `None` if it is no payment of the contract at `contract`.
    pub fn from_log(log: &LogEntry, contract: Address) -> Option<Self> {
        if log.address != contract {
            return None;
        }
        let event = sol::Payment::decode_raw_log_validate(log.topics.iter(), &log.data).ok()?;
        Some(Self {
            payer: event.payer,
            payee: event.payee,
            bill: BillId(event.bill),
            amount: event.amount,
            credited: event.credited,
        })
    }
}

/// The bill of a log that says that its leg was skipped, because the payer's nonce was used
/// before; `None` for any other log.
pub fn skipped(log: &LogEntry, contract: Address, payer: Address) -> Option<BillId> {
    if log.address != contract {
        return None;
    }
    let event = sol::Skipped::decode_raw_log_validate(log.topics.iter(), &log.data).ok()?;
    (event.payer == payer).then_some(BillId(event.bill))
}

/// First topic of the logs of payments, to filter by; the payer, the payee and the bill are
/// the next three.
pub const PAYMENT_TOPIC: B256 = sol::Payment::SIGNATURE_HASH;

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::keccak256;
    use chiral_chain::BlockRef;

    #[test]
    fn calldata_comes_back_and_has_one_encoding() {
        let leg = |n: u8| Leg {
            nonce: U256::from(n),
            bill: B256::repeat_byte(n),
            to: Address::repeat_byte(n),
            amount: u128::from(n),
            meta: vec![n; 33].into(),
        };
        let calldata = pay(vec![leg(1), leg(2)]);
        let signature = "payBatch((uint256,bytes32,address,uint128,bytes)[])";
        assert_eq!(calldata[..4], keccak256(signature)[..4]);
        assert_eq!(legs(&calldata), Some(vec![leg(1), leg(2)]));
        assert_eq!(legs(&[&calldata[..], &[0]].concat()), None);
        assert_eq!(legs(&calldata[..calldata.len() - 1]), None);
        assert_eq!(legs(&[]), None);
    }

    #[test]
    fn only_the_contracts_own_logs_are_payments() {
        let contract = Address::repeat_byte(9);
        let payer = Address::repeat_byte(1);
        let block = BlockRef {
            number: 1,
            hash: B256::ZERO,
        };
        let data: Vec<u8> = [U256::from(5), U256::from(1)]
            .iter()
            .flat_map(|word| word.to_be_bytes::<32>())
            .collect();
        let mut log = LogEntry {
            address: contract,
            topics: vec![
                PAYMENT_TOPIC,
                payer.into_word(),
                Address::repeat_byte(2).into_word(),
                B256::repeat_byte(3),
            ],
            data: data.into(),
            transaction: B256::ZERO,
            block,
            index: 0,
        };
        let payment = BatchPayment::from_log(&log, contract).unwrap();
        assert_eq!(
            (payment.payer, payment.amount, payment.credited),
            (payer, 5, true)
        );
        assert_eq!(payment.bill, BillId(B256::repeat_byte(3)));
        assert_eq!(skipped(&log, contract, payer), None);
        assert_eq!(
            BatchPayment::from_log(&log, payer),
            None,
            "another contract's"
        );
        log.topics.pop();
        assert_eq!(
            BatchPayment::from_log(&log, contract),
            None,
            "a topic short"
        );
    }

    #[test]
    fn the_code_is_what_the_compiler_made() {
        assert!(creation_code().ends_with(&runtime_code()));
        assert!(deployment().starts_with(b"chiral batchpay 1\0"));
    }
}
