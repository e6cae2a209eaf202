//! Signatures over typed data (EIP-712): what a wallet states to a contract or to a peer.
//!
//! A struct is declared with `alloy_sol_types::sol!`. Its digest covers a [`domain`], so that a
//! statement holds for one program, one version of it, one chain and one contract only.

use std::borrow::Cow;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{Eip712Domain, SolStruct};
use chiral_core::wallet::{self, SignerError};
use chiral_core::{WalletSignature, WalletSigner};

/// The domain of statements that the program `name` in `version` takes, on one chain, about
/// one contract.
pub fn domain(
    name: impl Into<Cow<'static, str>>,
    version: impl Into<Cow<'static, str>>,
    chain_id: u64,
    contract: Address,
) -> Eip712Domain {
    Eip712Domain::new(
        Some(name.into()),
        Some(version.into()),
        Some(U256::from(chain_id)),
        Some(contract),
        None,
    )
}

/// What a wallet signs: keccak256 of `0x19 0x01 ‖ domain separator ‖ hash of the struct`.
pub fn digest<T: SolStruct>(domain: &Eip712Domain, data: &T) -> B256 {
    data.eip712_signing_hash(domain)
}

/// Has `data` signed.
///
/// # Errors
/// Those of [`WalletSigner::sign`].
///
/// # Cancel safety
/// May be dropped.
pub async fn sign<T: SolStruct>(
    signer: &dyn WalletSigner,
    domain: &Eip712Domain,
    data: &T,
) -> Result<WalletSignature, SignerError> {
    signer.sign(digest(domain, data)).await
}

/// The wallet that signed `data` for `domain`. Any signature leads to some wallet: compare it
/// with the one that was expected, or use [`verify`].
pub fn recover<T: SolStruct>(
    domain: &Eip712Domain,
    data: &T,
    signature: &WalletSignature,
) -> Option<Address> {
    signature.signer(digest(domain, data))
}

/// Whether `wallet` signed `data` for `domain`.
pub fn verify<T: SolStruct>(
    wallet: Address,
    domain: &Eip712Domain,
    data: &T,
    signature: &WalletSignature,
) -> bool {
    wallet::verify(wallet, digest(domain, data), signature)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, b256, hex};
    use alloy_sol_types::sol;

    use super::*;
    use crate::PrivateKey;

    sol! {
        struct Person {
            string name;
            address wallet;
        }

        struct Mail {
            Person from;
            Person to;
            string contents;
        }
    }

    fn mail() -> Mail {
        Mail {
            from: Person {
                name: "Cow".to_owned(),
                wallet: address!("CD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"),
            },
            to: Person {
                name: "Bob".to_owned(),
                wallet: address!("bBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"),
            },
            contents: "Hello, Bob!".to_owned(),
        }
    }

    fn ether_mail() -> Eip712Domain {
        let contract = address!("CcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC");
        domain("Ether Mail", "1", 1, contract)
    }

    /// The example of EIP-712 itself; its key is keccak256 of "cow".
    #[tokio::test]
    async fn the_example_of_eip_712_has_its_digest_and_signature() {
        let (domain, mail) = (ether_mail(), mail());
        assert_eq!(
            digest(&domain, &mail),
            b256!("be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2")
        );
        let cow = PrivateKey::from_bytes(&alloy_primitives::keccak256("cow").0).unwrap();
        let signature = sign(&cow, &domain, &mail).await.unwrap();
        assert_eq!(
            hex::encode(signature.as_bytes()),
            "4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d\
             07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b91562\
             01"
        );
        assert_eq!(recover(&domain, &mail, &signature), Some(mail.from.wallet));
    }

    #[tokio::test]
    async fn a_signature_holds_for_one_statement_in_one_domain() {
        let key = PrivateKey::random().unwrap();
        let (contract, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let here = domain("Chiral", "1", 98_765, contract);
        let signature = sign(&key, &here, &mail()).await.unwrap();
        assert!(verify(key.address(), &here, &mail(), &signature));
        for elsewhere in [
            domain("chiral", "1", 98_765, contract),
            domain("Chiral", "2", 98_765, contract),
            domain("Chiral", "1", 1, contract),
            domain("Chiral", "1", 98_765, other),
        ] {
            assert!(!verify(key.address(), &elsewhere, &mail(), &signature));
        }
        let mut changed = mail();
        changed.contents.push(' ');
        assert!(!verify(key.address(), &here, &changed, &signature));
        assert!(!verify(other, &here, &mail(), &signature));
    }
}
