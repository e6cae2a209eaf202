#![doc = include_str!("../README.md")]

pub mod client;
pub mod dev_accounts;
pub mod private_key;
pub mod spec;
pub mod transaction;
pub mod typed_data;

pub use client::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, RefusalKind, TransactionInfo, TransactionReceipt,
};
pub use dev_accounts::{DEV_ACCOUNTS, DevAccount};
pub use private_key::{PrivateKey, PrivateKeyError};
pub use spec::{CHIRAL_CHAIN_ID, ChainSpec, DEV_ACCOUNT_CHI, GenesisAccount, Rules};
pub use transaction::{
    Fees, MAX_TRANSACTION_BYTES, SignedTransaction, Transaction, TransactionError, intrinsic_gas,
};
