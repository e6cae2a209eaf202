#![doc = include_str!("../README.md")]

pub mod client;
pub mod private_key;
pub mod transaction;

pub use client::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, RefusalKind, TransactionInfo, TransactionReceipt,
};
pub use private_key::{PrivateKey, PrivateKeyError};
pub use transaction::{
    Fees, MAX_TRANSACTION_BYTES, SignedTransaction, Transaction, TransactionError, intrinsic_gas,
};
