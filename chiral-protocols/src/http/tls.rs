//! TLS: what a server shows, whom a client believes, and how a certificate is bound to a
//! peer id.
//!
//! | a URL | the server must show |
//! | --- | --- |
//! | of an offer with a peer | a certificate bound to that peer, or a valid one for the host |
//! | with `#peer=ID` | a certificate bound to that peer |
//! | with `#sha256=HEX` | the certificate with this SHA-256 |
//! | any other | a valid one for the host, by the system's roots or by given ones |
//!
//! Bound is a self-signed certificate with the extension of libp2p's TLS specification, in
//! which the identity key signs the certificate's. Towards the first three, TLS 1.3 is spoken
//! and nothing else. Content is verified by its hash in any case: TLS keeps from others what
//! is fetched, and payment messages.

use std::fmt;
use std::sync::Arc;

use chiral_core::{PeerId, PeerSigner};

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod acceptor;
#[cfg(feature = "tls")]
mod binding;
#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "tls")]
mod connector;
#[cfg(feature = "tls")]
mod verifier;

#[cfg(not(feature = "tls"))]
pub(super) use absent::{Acceptor, Connector, Session, Towards};
#[cfg(feature = "tls")]
pub(super) use acceptor::Acceptor;
#[cfg(feature = "tls")]
pub(super) use connector::{Connector, Session, Towards};

/// What a server shows to those who speak TLS to it. Needs the feature `tls`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerTls {
    /// A certificate of its own making, for an ECDSA key (P-256) that is new at each start;
    /// bound to the peer id if there is a [`Signer`].
    SelfSigned,
    /// A certificate of somebody else's making.
    Given {
        /// The certificates, the server's own first, in PEM.
        chain: Vec<u8>,
        /// The private key, in PEM.
        key: Vec<u8>,
    },
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        f.write_str(match self {
            Self::SelfSigned => "SelfSigned",
            Self::Given { .. } => "Given",
        })
    }
}

/// Whom a client believes that a host is who it says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTls {
    /// Whether the system's roots count.
    pub system_roots: bool,
    /// Further roots, or self-signed certificates, in PEM.
    pub roots: Vec<u8>,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            system_roots: true,
            roots: Vec::new(),
        }
    }
}

impl ClientTls {
    /// Adds roots, in PEM.
    #[must_use]
    pub fn with_roots(mut self, pem: &[u8]) -> Self {
        self.roots.extend_from_slice(pem);
        self.roots.push(b'\n');
        self
    }

    /// Sets whether the system's roots count.
    #[must_use]
    pub fn with_system_roots(mut self, count: bool) -> Self {
        self.system_roots = count;
        self
    }
}

/// The identity key to which a server's own certificate is bound; equal if the peer is.
#[derive(Clone, Debug)]
pub struct Signer(pub Arc<dyn PeerSigner>);

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.0.peer_id() == other.0.peer_id()
    }
}

impl Eq for Signer {}

/// Who has to be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Whoever has a valid certificate for the host.
    Host,
    /// This peer, or whoever has a valid certificate for the host.
    PeerOrHost(PeerId),
    /// This peer.
    Peer(PeerId),
    /// Whoever has the key of the certificate with this SHA-256.
    Fingerprint([u8; 32]),
}
