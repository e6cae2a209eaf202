//! [`KnownKeys`]: public keys of those whose signatures come again and again. To find a key in
//! a signature takes twice as long as to check it against one that is known.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloy_primitives::Address;
use chiral_core::WalletKey;

use crate::messages::{ChainFacts, Signed, Statement};

/// Keys kept, at most. Which one makes room does not matter: it is learnt again.
const MAX_KNOWN: usize = 1024;

/// Keys learnt from signatures that were checked.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys(Mutex<HashMap<Address, WalletKey>>);

impl KnownKeys {
    fn keys(&self) -> MutexGuard<'_, HashMap<Address, WalletKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `signer` said this on that chain: exactly what [`Signed::is_by`] says.
    pub(crate) fn said<T: Statement>(
        &self,
        signer: Address,
        word: &Signed<T>,
        chain: &ChainFacts,
    ) -> bool {
        let digest = word.digest(chain);
        let known = self.keys().get(&signer).copied();
        if let Some(key) = known {
            return key.verify(digest, &word.signature);
        }
        let learnt = WalletKey::recover(digest, &word.signature);
        let learnt = learnt.filter(|key| !signer.is_zero() && key.address() == signer);
        let Some(key) = learnt else {
            return false;
        };
        let mut keys = self.keys();
        if keys.len() >= MAX_KNOWN
            && let Some(one) = keys.keys().next().copied()
        {
            keys.remove(&one);
        }
        keys.insert(signer, key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;
    use chiral_core::WalletSigner;
    use chiral_core::conformance::wallet::FixedKeySigner;

    use crate::channel::messages::Reopen;

    #[tokio::test]
    async fn a_key_that_is_known_says_what_one_that_is_not_says() {
        let chain = ChainFacts {
            chain_id: 98_765,
            genesis: B256::repeat_byte(1),
            batch_pay: Address::repeat_byte(2),
        };
        let (ours, other) = (FixedKeySigner::numbered(1), FixedKeySigner::numbered(2));
        let known = KnownKeys::default();
        for counter in 0..3 {
            let reopen = Reopen {
                agreement: B256::repeat_byte(3),
                counter,
            };
            let word = Signed::sign(reopen, &chain, &ours).await.unwrap();
            let forged = Signed::sign(reopen, &chain, &other).await.unwrap();
            let mut altered = word.clone();
            altered.body.counter += 1;
            for (word, expected) in [(&word, true), (&forged, false), (&altered, false)] {
                assert_eq!(known.said(ours.address(), word, &chain), expected);
                assert_eq!(word.is_by(ours.address(), &chain), expected);
            }
            assert!(!known.said(Address::ZERO, &word, &chain));
        }
        assert_eq!(known.keys().len(), 1, "nothing is learnt from forgers");
    }

    #[tokio::test]
    async fn no_more_are_kept_than_the_limit() {
        let known = KnownKeys::default();
        let key = {
            let (signer, digest) = (FixedKeySigner::numbered(1), B256::repeat_byte(7));
            WalletKey::recover(digest, &signer.sign(digest).await.unwrap()).unwrap()
        };
        for number in 0..MAX_KNOWN as u64 {
            let address = Address::from_word(alloy_primitives::U256::from(number + 1).into());
            known.keys().insert(address, key);
        }
        let chain = ChainFacts {
            chain_id: 1,
            genesis: B256::ZERO,
            batch_pay: Address::ZERO,
        };
        let signer = FixedKeySigner::numbered(2);
        let reopen = Reopen {
            agreement: B256::ZERO,
            counter: 1,
        };
        let word = Signed::sign(reopen, &chain, &signer).await.unwrap();
        assert!(known.said(signer.address(), &word, &chain));
        assert_eq!(known.keys().len(), MAX_KNOWN);
    }
}
