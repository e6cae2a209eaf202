#![doc = include_str!("../README.md")]

pub mod client;
pub mod dev_accounts;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "keystore")]
pub mod keystore;
pub mod private_key;
#[cfg(feature = "rpc")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;
pub mod spec;
pub mod transaction;
pub mod typed_data;

pub use client::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, RefusalKind, TransactionInfo, TransactionReceipt,
};
pub use dev_accounts::{DEV_ACCOUNTS, DevAccount};
#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedChain, EmbeddedConfig, PoolLimits, Sealing, StoreError};
#[cfg(feature = "keystore")]
pub use keystore::{KdfCost, KeystoreError};
pub use private_key::{PrivateKey, PrivateKeyError};
#[cfg(feature = "rpc")]
pub use rpc::{ConnectError, RpcChain, RpcConfig, RpcUrlError};
#[cfg(feature = "server")]
pub use server::{JsonRpcServer, ServerConfig, ServerError};
pub use spec::{CHIRAL_CHAIN_ID, ChainSpec, DEV_ACCOUNT_CHI, GenesisAccount, Rules};
pub use transaction::{
    Fees, MAX_TRANSACTION_BYTES, SignedTransaction, Transaction, TransactionError, intrinsic_gas,
};
