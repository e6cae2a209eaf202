//! Signed words: EIP-712 typed data in a domain that names the chain and the contract.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{Eip712Domain, SolStruct, SolValue};
use chiral_core::wallet::SignerError;
use chiral_core::{WalletSignature, WalletSigner, wallet};

use super::Malformed;

/// What makes one chain another. Both sides of an agreement are of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainFacts {
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Hash of block 0: chains may share an id, as development networks do.
    pub genesis: B256,
    /// The BatchPay contract.
    pub batch_pay: Address,
}

impl ChainFacts {
    /// The domain of everything that is signed: name "Chiral", version "1", chain id, and
    /// the BatchPay contract.
    pub fn domain(&self) -> Eip712Domain {
        Eip712Domain::new(
            Some("Chiral".into()),
            Some("1".into()),
            Some(U256::from(self.chain_id)),
            Some(self.batch_pay),
            None,
        )
    }
}

/// A word that is signed.
pub(crate) trait Statement: Sized {
    /// Its form on the wire.
    type Sol: SolStruct + SolValue;

    /// To the wire.
    fn to_sol(&self) -> Self::Sol;

    /// From the wire.
    fn from_sol(sol: Self::Sol) -> Result<Self, Malformed>;
}

/// A word and a signature, of which only the form has been checked so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    /// What is said.
    pub body: T,
    /// By whom, if it verifies.
    pub signature: WalletSignature,
}

// `Statement` is sealed: the words are those of this crate.
#[allow(private_bounds)]
impl<T: Statement> Signed<T> {
    /// What a wallet signs to say this on a chain (EIP-712).
    pub fn digest_of(body: &T, chain: &ChainFacts) -> B256 {
        body.to_sol().eip712_signing_hash(&chain.domain())
    }

    /// What was signed, if it was said on that chain.
    pub fn digest(&self, chain: &ChainFacts) -> B256 {
        Self::digest_of(&self.body, chain)
    }

    /// Has it signed.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign(
        body: T,
        chain: &ChainFacts,
        signer: &dyn WalletSigner,
    ) -> Result<Self, SignerError> {
        let signature = signer.sign(Self::digest_of(&body, chain)).await?;
        Ok(Self { body, signature })
    }

    /// Whether `signer` said this on that chain.
    pub fn is_by(&self, signer: Address, chain: &ChainFacts) -> bool {
        wallet::verify(signer, self.digest(chain), &self.signature)
    }
}
