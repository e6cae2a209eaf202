#![doc = include_str!("../README.md")]

#[cfg(feature = "chain")]
pub mod agent;
#[cfg(feature = "chain")]
pub mod calldata;
#[cfg(feature = "chain")]
pub mod channel;
#[cfg(feature = "chain")]
pub mod clock;
#[cfg(feature = "chain")]
pub mod contracts;
#[cfg(feature = "chain")]
pub mod delivery;
pub mod free_agent;
pub mod free_gate;
pub mod free_settler;
#[cfg(feature = "chain")]
pub mod gate;
#[cfg(feature = "chain")]
pub mod journal;
#[cfg(feature = "chain")]
mod known_keys;
#[cfg(feature = "chain")]
pub mod messages;
#[cfg(feature = "chain")]
pub mod payments;
#[cfg(feature = "chain")]
pub mod receipt;
#[cfg(feature = "chain")]
mod records;
#[cfg(feature = "chain")]
pub mod settler;
#[cfg(feature = "chain")]
pub mod statement;
#[cfg(feature = "chain")]
pub mod stream;
#[cfg(feature = "chain")]
pub mod witness;
#[cfg(feature = "chain")]
mod writing;

#[cfg(feature = "chain")]
pub use agent::{AgentConfig, ChainAgent};
#[cfg(feature = "chain")]
pub use channel::{Channels, ChannelsConfig};
pub use free_agent::FreeAgent;
pub use free_gate::FreeGate;
pub use free_settler::FreeSettler;
#[cfg(feature = "chain")]
pub use gate::{ChainGate, CreditRules, FileTerms, FreeAllowance, FreeShare, GateConfig};
#[cfg(feature = "chain")]
pub use journal::{Journal, JournalError};
#[cfg(feature = "chain")]
pub use payments::{BATCH_PAY, Contracts, Payments, PaymentsConfig, PaymentsError};
#[cfg(feature = "chain")]
pub use settler::{ChainSettler, SettlerConfig};
#[cfg(feature = "chain")]
pub use statement::Statement;
