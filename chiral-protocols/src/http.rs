//! HTTP in both roles: a server that any browser, `curl` or download manager understands,
//! and a client for Chiral seeders and plain web mirrors.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET`, `HEAD` `/file/{cid}` | the bytes; ranges, conditions (RFC 9110), file name |
//! | `GET`, `HEAD` `/file/{cid}/{name}` | the same, if that is its name: for web seeds (BEP 19) |
//! | `GET`, `HEAD` `/file/{cid}.meta4` | its Metalink (RFC 5854): this server and others that are free |
//! | `GET`, `HEAD` `/file/{cid}/chunk/{index}` | one chunk; its ETag is its chunk hash |
//! | `GET`, `HEAD` `/file/{cid}/manifest` | the manifest header, encoded |
//! | `GET`, `HEAD` `/file/{cid}/manifest/{page}` | a page of the manifest, encoded |
//! | `GET`, `HEAD` `/file/{cid}/coverage` | `{"chunks":n,"runs":[[first,end],…]}` |
//! | `GET`, `HEAD` `/`, `/index.json` | what is served, if [`HttpConfig::page`] says so |
//! | `POST` `/payment` | the payment gate's answer to a message, at most 16 KiB |
//!
//! Everything else is 404, or 405 with `Allow`. Bytes are sent under the rule of a
//! [`PaymentGate`](chiral_core::PaymentGate), with the client's word to it in the header
//! `Chiral-Payment` (base64); an unpaid request is answered 402 with the gate's offer, or
//! with words if it has `Accept` without `application/octet-stream`, as browsers and `curl`
//! have. The client's [`PaymentAgent`](chiral_core::PaymentAgent) answers the offer at
//! `/payment`; both are opaque bytes (`application/octet-stream`), which HTTP carries unread.
//!
//! The whole of a free text of 1 KiB to 64 MiB is sent with gzip, brotli or zstd to clients
//! that ask for it: under a weak ETag and without `Repr-Digest`, as neither is about those
//! bytes any more. Ranges, chunks, and whatever is paid for are never encoded.
//!
//! One port takes HTTP/1.1, HTTP/2 from clients that know it is there, and, if it is set up
//! ([`ServerTls`]), TLS 1.3 with either in it. The client speaks HTTP/2 where a server offers it
//! over TLS, with all requests of a source on one connection; else HTTP/1.1, on several, with
//! requests for ranges pipelined (RFC 9112 §9.3.2) once the server has shown that it keeps them
//! open. Whoever gives up an answer ends its connection, and what was asked behind it is asked
//! again. A server that loses a request in this way is asked for one thing at a time from then on;
//! so is whoever is paid, and a proxy that reads requests.
//!
//! An `https` URL may say whom to expect: behind `#peer=` stands a peer id, to which the
//! server's certificate must be bound as libp2p binds them, behind `#sha256=` the hash of the
//! certificate. An offer that a peer announced needs a certificate that is bound to that peer,
//! or one that is valid for the host; any other URL one that is valid for the host, by the
//! roots of the system or given ones ([`ClientTls`]).
//!
//! A mirror may redirect three times, but from `https` not to `http`, and never further into a
//! network than where it is. Proxies ([`ProxySettings`]) look names up themselves: of a name that
//! a stranger announced they are not asked, where an [`AddressPolicy`] says where such may lead.

mod accept;
mod address;
mod answer;
mod body;
mod client;
pub mod codec;
mod coding;
mod config;
mod connect;
mod counter;
mod elsewhere;
mod encoded;
mod escape;
mod etag;
mod executor;
#[cfg(feature = "bittorrent")]
pub(crate) mod fetch;
mod headers;
mod http2;
mod leave;
mod media;
mod metalink;
mod mirror;
mod multipart;
mod pace;
mod page;
mod path;
mod piped;
mod pool;
mod protocol;
mod proxy;
mod range;
mod refusal;
mod representation;
mod routes;
mod server;
mod sniff;
mod source;
mod stream;
mod till;
mod tls;
mod url;
mod wire;

pub use address::AddressPolicy;
pub use config::{HttpConfig, HttpError};
pub use elsewhere::OtherSeeders;
pub use protocol::{HttpProtocol, PIN};
pub use proxy::ProxySettings;
pub use source::HttpSource;
pub use tls::{ClientTls, ServerTls, Signer};
