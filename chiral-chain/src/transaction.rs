//! Transactions: legacy with replay protection (EIP-155) and dynamic fees (EIP-1559), signed
//! here, or decoded strictly from what somebody else signed.

mod gas;
mod signed;

use alloy_consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy_primitives::{Address, B256, TxKind, U256};
use bytes::Bytes;
use chiral_core::WalletSigner;
use chiral_core::wallet::{self, SignerError};

pub use gas::intrinsic_gas;
pub use signed::SignedTransaction;

/// Longest encoded transaction, in bytes: what pools of nodes take (geth's `txMaxSize`).
pub const MAX_TRANSACTION_BYTES: usize = 128 * 1024;

/// What is paid per gas, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fees {
    /// One price (EIP-155 transaction).
    Legacy {
        /// Wei per gas.
        gas_price: u128,
    },
    /// Base fee and tip, under a maximum (EIP-1559 transaction).
    Dynamic {
        /// Wei per gas at most, all told.
        max_fee_per_gas: u128,
        /// Wei per gas at most for the miner.
        max_priority_fee_per_gas: u128,
    },
}

impl Fees {
    /// The most that can be paid per gas, in wei.
    pub const fn max_per_gas(&self) -> u128 {
        match *self {
            Self::Legacy { gas_price } => gas_price,
            Self::Dynamic {
                max_fee_per_gas, ..
            } => max_fee_per_gas,
        }
    }
}

/// A transaction before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// Chain that the signature holds on (EIP-155).
    pub chain_id: u64,
    /// How many transactions the wallet has sent before.
    pub nonce: u64,
    /// Gas that may be used; see [`intrinsic_gas`] for the least.
    pub gas_limit: u64,
    /// What is paid for it.
    pub fees: Fees,
    /// To whom; none for one that makes a contract.
    pub to: Option<Address>,
    /// Wei.
    pub value: U256,
    /// Calldata, or the code that makes a contract.
    pub input: Bytes,
}

/// Why a transaction was not signed, or bytes are not a transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Longer than [`MAX_TRANSACTION_BYTES`].
    #[error("a transaction of {found} bytes, {MAX_TRANSACTION_BYTES} are allowed")]
    TooLarge {
        /// Its length (of the calldata, if that alone is too long).
        found: usize,
    },
    /// The tip is above the maximum that it is part of.
    #[error("the priority fee is above the maximum fee")]
    PriorityFee,
    /// The wallet did not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// What the wallet answered is not its signature over this transaction.
    #[error("wallet {wallet} answered a signature that is not its own")]
    ForeignSignature {
        /// The wallet.
        wallet: Address,
    },
    /// The bytes are no transaction in its one canonical encoding.
    #[error("not an encoded transaction")]
    Encoding,
    /// A transaction of a type that is not spoken here.
    #[error("transactions of type {0} are not supported")]
    UnsupportedType(u8),
    /// It names storage in advance (EIP-2930), for which there is no field here.
    #[error("transactions with an access list are not supported")]
    AccessList,
    /// The signature covers no chain id, so that it would hold on every chain.
    #[error("the transaction has no replay protection (EIP-155)")]
    NoChainId,
    /// It is for another chain.
    #[error("the transaction is for chain {found}, not {expected}")]
    WrongChain {
        /// Chain id that was expected.
        expected: u64,
        /// Chain id that is signed.
        found: u64,
    },
    /// The signature is none, or has the higher `s` (EIP-2).
    #[error("the transaction's signature is not valid")]
    Signature,
}

impl TransactionError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Signer(error) if error.is_retryable())
    }
}

impl Transaction {
    /// The most wei that it can take from the wallet: value and all its gas; `None` if that
    /// exceeds 2^256 − 1.
    pub fn max_cost(&self) -> Option<U256> {
        let gas = U256::from(self.gas_limit) * U256::from(self.fees.max_per_gas());
        gas.checked_add(self.value)
    }

    /// The gas that it uses before any code runs; see [`intrinsic_gas`].
    pub fn intrinsic_gas(&self) -> u64 {
        intrinsic_gas(&self.input, self.to.is_none())
    }

    /// What the wallet signs (EIP-155 or EIP-1559).
    pub fn signing_digest(&self) -> B256 {
        match self.fees {
            Fees::Legacy { gas_price } => self.legacy(gas_price).signature_hash(),
            Fees::Dynamic {
                max_fee_per_gas: max,
                max_priority_fee_per_gas: tip,
            } => self.dynamic(max, tip).signature_hash(),
        }
    }

    /// Signs it. Gas limit, nonce and balance are not looked at: nodes do that.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`], [`TransactionError::PriorityFee`],
    /// [`TransactionError::Signer`], [`TransactionError::ForeignSignature`].
    ///
    /// # Cancel safety
    /// May be dropped: nothing is sent.
    pub async fn sign(
        &self,
        signer: &dyn WalletSigner,
    ) -> Result<SignedTransaction, TransactionError> {
        if self.input.len() > MAX_TRANSACTION_BYTES {
            let found = self.input.len();
            return Err(TransactionError::TooLarge { found });
        }
        if let Fees::Dynamic {
            max_fee_per_gas,
            max_priority_fee_per_gas,
        } = self.fees
            && max_priority_fee_per_gas > max_fee_per_gas
        {
            return Err(TransactionError::PriorityFee);
        }
        let digest = self.signing_digest();
        let signature = signer.sign(digest).await?;
        let wallet = signer.address();
        if !wallet::verify(wallet, digest, &signature) {
            return Err(TransactionError::ForeignSignature { wallet });
        }
        SignedTransaction::assemble(self.clone(), wallet, &signature)
    }

    fn kind(&self) -> TxKind {
        self.to.map_or(TxKind::Create, TxKind::Call)
    }

    fn legacy(&self, gas_price: u128) -> TxLegacy {
        TxLegacy {
            chain_id: Some(self.chain_id),
            nonce: self.nonce,
            gas_price,
            gas_limit: self.gas_limit,
            to: self.kind(),
            value: self.value,
            input: self.input.clone().into(),
        }
    }

    fn dynamic(&self, max_fee_per_gas: u128, max_priority_fee_per_gas: u128) -> TxEip1559 {
        TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: self.kind(),
            value: self.value,
            access_list: Default::default(),
            input: self.input.clone().into(),
        }
    }
}
