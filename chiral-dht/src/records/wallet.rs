//! The wallet's statement that it is paid for what a peer delivers.
//!
//! EIP-712 typed data under a domain without chain and contract, since it holds on every
//! chain:
//!
//! ```text
//! domain = keccak256(keccak256("EIP712Domain(string name,string version)")
//!                    ‖ keccak256("Chiral seeder") ‖ keccak256("1"))
//! struct = keccak256(keccak256("SeederWallet(bytes peerId,address wallet)")
//!                    ‖ keccak256(PeerId's bytes) ‖ wallet left-padded to 32 bytes)
//! digest = keccak256(0x19 ‖ 0x01 ‖ domain ‖ struct)
//! ```
//!
//! So nobody announces under another's wallet, and a wallet's owner can show which peers are
//! its own. The statement has no end; what is payable is what a quote says, and quotes end.

use alloy_primitives::{Address, B256, keccak256};
use chiral_core::wallet::{self, SignerError};
use chiral_core::{WalletSignature, WalletSigner};
use libp2p::PeerId;

/// A wallet with its signature for one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalletBinding {
    wallet: Address,
    signature: WalletSignature,
}

impl WalletBinding {
    /// Has the wallet sign for a peer. Once is enough for all announcements of that peer.
    ///
    /// # Errors
    /// What the signer says.
    pub async fn sign(signer: &dyn WalletSigner, peer: &PeerId) -> Result<Self, SignerError> {
        let wallet = signer.address();
        let signature = signer.sign(binding_digest(peer, wallet)).await?;
        Ok(Self { wallet, signature })
    }

    /// From parts that are not checked; [`WalletBinding::verify`] does.
    pub const fn from_parts(wallet: Address, signature: WalletSignature) -> Self {
        Self { wallet, signature }
    }

    /// The wallet.
    pub const fn wallet(&self) -> Address {
        self.wallet
    }

    /// Its signature.
    pub const fn signature(&self) -> &WalletSignature {
        &self.signature
    }

    /// Whether the wallet signed for this peer.
    pub fn verify(&self, peer: &PeerId) -> bool {
        let digest = binding_digest(peer, self.wallet);
        wallet::verify(self.wallet, digest, &self.signature)
    }
}

/// What a wallet signs to be paid for a peer's deliveries.
pub fn binding_digest(peer: &PeerId, wallet: Address) -> B256 {
    let domain = [
        keccak256("EIP712Domain(string name,string version)"),
        keccak256("Chiral seeder"),
        keccak256("1"),
    ]
    .concat();
    let statement = [
        keccak256("SeederWallet(bytes peerId,address wallet)"),
        keccak256(peer.to_bytes()),
        wallet.into_word(),
    ]
    .concat();
    let domain = keccak256(domain);
    let statement = keccak256(statement);
    keccak256([&[0x19, 0x01], domain.as_slice(), statement.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::b256;
    use chiral_core::conformance::wallet::FixedKeySigner;

    /// Digest and signature are what eth-account 0.14 makes of the same typed data with the
    /// first key of the usual development mnemonic.
    #[tokio::test]
    async fn the_digest_and_signature_are_those_of_a_foreign_implementation() {
        let peer = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
        let peer: PeerId = peer.parse().unwrap();
        let key = b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        let signer = FixedKeySigner::new(key.0);
        assert_eq!(
            binding_digest(&peer, signer.address()),
            b256!("9d69d165100ee55d8936b8551557576615c028a55ddbdc3b767ead6ef50913c9")
        );
        let binding = WalletBinding::sign(&signer, &peer).await.unwrap();
        let (r, s) = (
            b256!("9b1e1536bf00f72b9d2c61a3492f45e99f434cc999511ab6f030e9b718d07b03"),
            b256!("26896d8994437bf5c3efee342fae4c0bfb5aa58b1ecb32c43e760ece8f1fe087"),
        );
        let expected = [&r[..], &s[..], &[1]].concat();
        assert_eq!(binding.signature().as_bytes()[..], expected);
        assert!(binding.verify(&peer));
    }

    #[tokio::test]
    async fn it_holds_for_no_other_peer_or_wallet() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let binding = WalletBinding::sign(&FixedKeySigner::numbered(1), &peer).await;
        let binding = binding.unwrap();
        assert!(binding.verify(&peer) && !binding.verify(&other));
        for wallet in [FixedKeySigner::numbered(2).address(), Address::ZERO] {
            assert!(!WalletBinding::from_parts(wallet, *binding.signature()).verify(&peer));
        }
    }
}
