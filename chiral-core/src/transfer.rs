//! Transfers: ids, state, progress, numbered events, and the [`TransferRegistry`] that the
//! engine and every protocol share.
//!
//! Pause, resume and cancel are one mechanism. Whoever works on a transfer holds its
//! [`TransferDriver`]; everybody else a [`Transfer`].

mod driver;
mod events;
mod id;
mod registry;

pub use driver::{Stopped, TransferDriver};
pub use events::{
    EventStream, MAX_QUEUED_EVENTS, SourceReport, TransferEvent, TransferEventKind, TransferOutcome,
};
pub use id::{ParseTransferIdError, TransferId};
pub use registry::{
    MAX_TRANSFERS, Progress, RegistryError, Transfer, TransferRegistry, TransferState,
};
