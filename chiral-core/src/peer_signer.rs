//! [`PeerSigner`]: a peer's identity key, as far as other layers need it.

use std::fmt::Debug;

use crate::PeerId;

/// Holds the key that a [`PeerId`] is made of, and signs with it. What is signed must begin
/// with words of its own purpose, so that no signature serves for another.
pub trait PeerSigner: Debug + Send + Sync + 'static {
    /// Whose key it is.
    fn peer_id(&self) -> PeerId;

    /// The public key, as libp2p encodes it (a protobuf of type and bytes).
    fn public_key(&self) -> Vec<u8>;

    /// A signature over these bytes, of the kind that goes with the key's type.
    ///
    /// # Errors
    /// [`PeerSignError`] if the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PeerSignError>;
}

/// The identity key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the identity key did not sign: {reason}")]
pub struct PeerSignError {
    /// Why.
    pub reason: String,
}

impl PeerSignError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
