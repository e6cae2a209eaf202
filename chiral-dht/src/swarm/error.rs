//! [`Libp2pError`]: why a node did not start, or what it was asked for did not succeed.

use std::io;
use std::path::PathBuf;

use libp2p::Multiaddr;

/// Why a libp2p node could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Libp2pError {
    /// The transports could not be set up.
    #[error("transports could not be set up")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address to listen on cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection to an address came up.
    #[error("cannot connect to {address}: {reason}")]
    Dial {
        /// The address.
        address: Multiaddr,
        /// Why, for people.
        reason: String,
    },
    /// A file of the data directory cannot be read or written.
    #[error("{}: cannot be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of the identity key holds something else.
    #[error("{}: not an Ed25519 identity key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// A setting that cannot work.
    #[error("setting refused: {reason}")]
    Setting {
        /// What is wrong.
        reason: &'static str,
    },
    /// A peer cannot be reached, or does not answer what it was asked.
    #[error("peer {peer} did not answer: {reason}")]
    Peer {
        /// The peer.
        peer: chiral_core::PeerId,
        /// Why, for people.
        reason: String,
    },
    /// No node of the network was found in time.
    #[error("no node of the network was found")]
    NoNetwork,
    /// The operating system has no randomness.
    #[error("no randomness")]
    Randomness,
    /// The node has been shut down.
    #[error("node is shut down")]
    Closed,
}

impl Libp2pError {
    pub(super) fn transport(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Transport(Box::new(error))
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Dial { .. } | Self::Peer { .. } | Self::NoNetwork
        )
    }
}
