//! The private protocol: data and payment in one stream between two peers.
//!
//! A session is one long-lived stream of [`STREAM_NAME`] over a
//! [`PeerNetwork`](chiral_core::PeerNetwork), for one file. Both directions are frames: a
//! length, a small header, and raw bytes where there are any. Chunks come one way; requests,
//! and what the payment sides say to each other, go the other way in between, so that paying
//! does not make the chunks wait. What is paid, and when, is the business of
//! [`PaymentGate`](chiral_core::PaymentGate) and [`PaymentAgent`](chiral_core::PaymentAgent)
//! alone: their words are carried unread.
//!
//! Data never runs over a relayed connection: the network opens no stream over one.

mod config;
mod frame;
mod link;
mod messages;
mod protocol;
mod request;
mod serve;
mod session;
mod source;

pub use config::PrivateConfig;
pub use frame::{Frame, FrameError, MAX_DATA, MAX_HEADER};
pub use messages::{
    Body, Cancel, ChunksDone, CloseSession, Failed, FailureKind, FileRequest, FileResponse, Have,
    Header, OpenSession, Page, PaymentAnswer, PaymentBatch, PaymentRequired, RequestChunks,
    RequestHave, RequestPage, SessionAccepted, StreamChunk,
};
pub use protocol::{PrivateError, PrivateProtocol};
pub use source::PrivateSource;

/// Name of the stream protocol.
pub const STREAM_NAME: &str = "/chiral/xfer/1.0.0";
