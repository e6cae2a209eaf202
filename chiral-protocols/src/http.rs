//! HTTP in both roles: a server that any browser, `curl` or download manager understands,
//! and a client for Chiral seeders and plain web mirrors.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET`, `HEAD` `/file/{cid}` | the bytes; ranges, conditions (RFC 9110), file name |
//! | `GET`, `HEAD` `/file/{cid}/chunk/{index}` | one chunk; its ETag is its chunk hash |
//! | `GET`, `HEAD` `/file/{cid}/manifest` | the manifest header, encoded |
//! | `GET`, `HEAD` `/file/{cid}/manifest/{page}` | a page of the manifest, encoded |
//! | `GET`, `HEAD` `/file/{cid}/coverage` | `{"chunks":n,"runs":[[first,end],…]}` |
//! | `POST` `/payment` | the payment gate's answer to a message, at most 16 KiB |
//!
//! Everything else is 404, or 405 with `Allow`. Bytes are sent under the rule of a
//! [`PaymentGate`](chiral_core::PaymentGate), with the client's word to it in the header
//! `Chiral-Payment` (base64); an unpaid request is answered 402 with the gate's offer. The
//! client's [`PaymentAgent`](chiral_core::PaymentAgent) answers it at `/payment`; both are
//! opaque bytes (`application/octet-stream`), which HTTP carries unread.

mod address;
mod answer;
mod body;
mod client;
mod config;
mod connect;
mod counter;
mod etag;
mod headers;
mod leave;
mod mirror;
mod pace;
mod path;
mod payer;
mod pool;
mod protocol;
mod range;
mod representation;
mod routes;
mod seeds;
mod server;
mod source;
mod stream;
mod url;

pub use address::AddressPolicy;
pub use config::{HttpConfig, HttpError};
pub use protocol::{HttpProtocol, PIN};
pub use source::HttpSource;
