//! The messages of the extension protocol (BEP 10) as bytes: the extended handshake, metadata
//! (BEP 9), peer exchange (BEP 11), `lt_donthave` (BEP 54), holepunch (BEP 55), and Chiral's
//! own, with which two Chiral nodes recognise each other in a public swarm.

mod chiral;
mod handshake;
mod holepunch;
mod metadata;
mod pex;

use super::bencode::{Decoded, Limits, Value};

/// What is too much in a message: deepest nesting, and all else as for others.
const LIMITS: Limits = Limits {
    max_depth: 6,
    ..Limits::MESSAGE.unsorted()
};

/// Reads a dictionary at the start of `bytes`; hands it on together with what follows it.
fn read<T>(bytes: &[u8], take: impl FnOnce(Value<'_, '_>, &[u8]) -> Option<T>) -> Option<T> {
    let (decoded, rest) = Decoded::parse_prefix(bytes, LIMITS).ok()?;
    let root = decoded.root();
    root.is_dict().then(|| take(root, rest)).flatten()
}

pub use chiral::{
    Admitted, ChiralMessage, Greeting, HelloError, MAX_CHIRAL_ANSWER, MAX_CHIRAL_BODY,
    PROTOCOL_VERSION, Proof, Statement, read_tariff, write_tariff,
};
pub use handshake::{ExtendedHandshake, ExtensionError, Extensions, MAX_REQQ, Names};
pub use holepunch::{Holepunch, HolepunchError, PunchError};
pub use metadata::{MAX_METADATA, METADATA_PIECE, MetadataMessage};
pub use pex::{MAX_PEX_PEERS, Pex, PexPeer, PexSender};
