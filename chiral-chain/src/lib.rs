#![doc = include_str!("../README.md")]

pub mod client;

pub use client::{
    BlockId, BlockInfo, BlockRef, CallRequest, ChainClient, ChainError, FeeQuote, HeadStream,
    LogEntry, LogFilter, RefusalKind, TransactionInfo, TransactionReceipt,
};
