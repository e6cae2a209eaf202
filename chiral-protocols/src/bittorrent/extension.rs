//! The messages of the extension protocol (BEP 10) as bytes: the extended handshake, metadata
//! (BEP 9), peer exchange (BEP 11), `lt_donthave` (BEP 54), holepunch (BEP 55), and Chiral's
//! own, with which two Chiral nodes recognise each other in a public swarm.

mod bencode;
mod chiral;
mod handshake;
mod holepunch;
mod metadata;
mod pex;

pub use chiral::{
    ChiralMessage, Greeting, HelloError, MAX_CHIRAL_ANSWER, MAX_CHIRAL_BODY, PROTOCOL_VERSION,
    Proof, Statement,
};
pub use handshake::{ExtendedHandshake, ExtensionError, Extensions, MAX_REQQ, Names};
pub use holepunch::{Holepunch, HolepunchError, PunchError};
pub use metadata::{MAX_METADATA, METADATA_PIECE, MetadataMessage};
pub use pex::{MAX_PEX_PEERS, Pex, PexPeer, PexSender};
