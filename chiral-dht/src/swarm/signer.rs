//! [`Signer`]: the node's identity key, for other layers.

use chiral_core::{PeerId, PeerSignError, PeerSigner};
use libp2p::identity::Keypair;

use super::to_core;

/// A libp2p key pair as a [`PeerSigner`].
#[derive(Clone)]
pub(super) struct Signer(pub(super) Keypair);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.peer_id()).finish()
    }
}

impl PeerSigner for Signer {
    fn peer_id(&self) -> PeerId {
        to_core(&self.0.public().to_peer_id())
    }

    fn public_key(&self) -> Vec<u8> {
        self.0.public().encode_protobuf()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PeerSignError> {
        let no = |error: libp2p::identity::SigningError| PeerSignError {
            reason: error.to_string(),
        };
        self.0.sign(message).map_err(no)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_signs_its_public_key_verifies() {
        let signer = Signer(Keypair::generate_ed25519());
        let public = libp2p::identity::PublicKey::try_decode_protobuf(&signer.public_key());
        let public = public.unwrap();
        assert_eq!(signer.peer_id(), to_core(&public.to_peer_id()));
        let signature = signer.sign(b"a message").unwrap();
        assert!(public.verify(b"a message", &signature));
        assert!(!public.verify(b"another", &signature));
        // The key stands in the id itself.
        let id = signer.peer_id();
        assert_eq!(id.as_bytes()[2..], signer.public_key());
    }
}
