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
//! Two ways of being paid in the stream are more than messages that are carried. Under vouchers
//! that follow the chunks (option B) a buyer keeps to the window: it asks for no more than is
//! served ahead of payment, and pays ahead of asking. Where chunks are sold sealed (option A) it
//! has some of them sent ahead ([`PrivateConfig::sealed_ahead`]), asked for in want-lists, and
//! buys their keys one after the other; what a key opens is held against the file's own hashes
//! before the next is bought.
//!
//! | | buyer may lose | seeder may lose |
//! | --- | --- | --- |
//! | option B | nothing | what it serves ahead of payment: the window |
//! | option A | the price of one chunk, to garbage behind a right key | the upload of what it sealed ahead |
//!
//! What somebody else delivered first while it lay here sealed is bought all the same if there
//! is too much of it, at most what was sent ahead: it is in the way of what is wanted.
//!
//! With the cid alone a file is proven from its end. Option B pays for what is proven, so that
//! nothing changes but the order: of the window a buyer keeps room for what is proven next, or it
//! could never pay for what it has of the rest. Under option A
//! nothing is bought then: a chunk would be paid before it is looked at, and by a root that
//! nobody but the seller vouches for.
//!
//! A seeder that takes a lock and keeps its key can be paid on the chain only, where it has to
//! show it: the buyer reads it there.
//!
//! Data never runs over a relayed connection: the network opens no stream over one.

mod checkout;
mod config;
mod frame;
mod link;
mod messages;
mod protocol;
mod request;
mod serve;
mod session;
mod source;
mod wanted;

pub use config::{MAX_AHEAD, PrivateConfig};
pub use frame::{Frame, FrameError, MAX_DATA, MAX_HEADER};
pub use messages::{
    Body, Cancel, ChunkRequest, ChunkResponse, ChunksDone, CloseSession, Failed, FailureKind,
    FileRequest, FileResponse, Have, Header, MAX_WANTS, OpenSession, Page, PaymentAnswer,
    PaymentBatch, PaymentRequired, RequestChunks, RequestHave, RequestPage, SessionAccepted,
    StreamChunk, VERSION, Want,
};
pub use protocol::{PrivateError, PrivateProtocol};
pub use source::PrivateSource;

/// Name of the stream protocol.
pub const STREAM_NAME: &str = "/chiral/xfer/1.0.0";
