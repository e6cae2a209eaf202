//! The words that move money: [`Voucher`], [`LockedVoucher`] of the payer, [`Close`] of the
//! payee. Typed data (EIP-712) in the domain of the `Channels` contract.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, keccak256};
use chiral_core::{WalletKey, WalletSignature};

static DOMAIN_TYPE: LazyLock<B256> = LazyLock::new(|| {
    keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
});
static VOUCHER_TYPE: LazyLock<B256> =
    LazyLock::new(|| keccak256("Voucher(bytes32 channelId,uint128 cumulative,bytes32 context)"));
static LOCKED_TYPE: LazyLock<B256> = LazyLock::new(|| {
    keccak256(
        "LockedVoucher(bytes32 channelId,uint128 cumulative,bytes32 context,bytes32 keyHash,\
         uint64 expiry)",
    )
});
static CLOSE_TYPE: LazyLock<B256> =
    LazyLock::new(|| keccak256("Close(bytes32 channelId,uint128 paid)"));

/// Where words about channels hold: name "Chiral Channels", version "1", one chain, one
/// contract. Words of one domain are worth nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDomain {
    chain_id: u64,
    contract: Address,
    separator: B256,
}

impl ChannelDomain {
    /// That of a contract on a chain.
    pub fn new(chain_id: u64, contract: Address) -> Self {
        let separator = hash_words([
            *DOMAIN_TYPE,
            keccak256("Chiral Channels"),
            keccak256("1"),
            number(chain_id),
            contract.into_word(),
        ]);
        Self {
            chain_id,
            contract,
            separator,
        }
    }

    /// The chain.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The contract.
    pub fn contract(&self) -> Address {
        self.contract
    }

    /// Its hash, as the contract computes it.
    pub fn separator(&self) -> B256 {
        self.separator
    }

    fn digest(&self, said: B256) -> B256 {
        let mut bytes = [0; 66];
        bytes[..2].copy_from_slice(&[0x19, 0x01]);
        bytes[2..34].copy_from_slice(&self.separator.0);
        bytes[34..].copy_from_slice(&said.0);
        keccak256(bytes)
    }
}

/// So much of the deposit is paid in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// Out of which channel.
    pub channel: B256,
    /// Wei since the channel was opened.
    pub cumulative: u128,
    /// What it is for: see [`context`].
    pub context: B256,
}

impl Voucher {
    /// What the payer signs.
    pub fn digest(&self, domain: &ChannelDomain) -> B256 {
        domain.digest(hash_words([
            *VOUCHER_TYPE,
            self.channel,
            number(self.cumulative),
            self.context,
        ]))
    }
}

/// The same, once the key with this hash is shown, until it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockedVoucher {
    /// Out of which channel.
    pub channel: B256,
    /// Wei since the channel was opened, the locked ones included.
    pub cumulative: u128,
    /// What it is for.
    pub context: B256,
    /// Keccak-256 of the key.
    pub key_hash: B256,
    /// Until when it can be claimed: seconds since 1970, of the chain's time.
    pub expiry: u64,
}

impl LockedVoucher {
    /// What the payer signs.
    pub fn digest(&self, domain: &ChannelDomain) -> B256 {
        domain.digest(hash_words([
            *LOCKED_TYPE,
            self.channel,
            number(self.cumulative),
            self.context,
            self.key_hash,
            number(self.expiry),
        ]))
    }
}

/// The payee agrees that a channel ends with so much paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which channel.
    pub channel: B256,
    /// Wei that the payee shall have had of it in all.
    pub paid: u128,
}

impl Close {
    /// What the payee signs.
    pub fn digest(&self, domain: &ChannelDomain) -> B256 {
        domain.digest(hash_words([*CLOSE_TYPE, self.channel, number(self.paid)]))
    }
}

/// A word that moves money.
pub trait Word: Copy {
    /// What is signed to say it in a domain.
    fn digest_in(&self, domain: &ChannelDomain) -> B256;
}

macro_rules! words {
    ($($word:ty),*) => {$(
        impl Word for $word {
            fn digest_in(&self, domain: &ChannelDomain) -> B256 {
                self.digest(domain)
            }
        }
    )*};
}

words!(Voucher, LockedVoucher, Close);

/// A word of which the signature was checked: there is no other way to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven<T> {
    body: T,
    signature: WalletSignature,
}

impl<T: Word> Proven<T> {
    /// Checks a signature against a key that is known.
    pub fn check(
        body: T,
        signature: WalletSignature,
        key: &WalletKey,
        domain: &ChannelDomain,
    ) -> Option<Self> {
        key.verify(body.digest_in(domain), &signature)
            .then_some(Self { body, signature })
    }

    /// Checks it against a wallet, and learns its key.
    pub fn learn(
        body: T,
        signature: WalletSignature,
        signer: Address,
        domain: &ChannelDomain,
    ) -> Option<(Self, WalletKey)> {
        let key = WalletKey::recover(body.digest_in(domain), &signature)?;
        (key.address() == signer).then_some((Self { body, signature }, key))
    }

    /// What is said.
    pub fn body(&self) -> &T {
        &self.body
    }

    /// The signature.
    pub fn signature(&self) -> &WalletSignature {
        &self.signature
    }
}

/// What is paid under one agreement, in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which.
    pub agreement: B256,
    /// Bytes that are paid for.
    pub bytes: u64,
    /// What they cost, in wei, rounded up once.
    pub amount: u128,
}

impl Share {
    /// The context of a voucher that brings it to this.
    pub fn context(&self) -> B256 {
        context(self.agreement, self.bytes)
    }
}

/// The context of a voucher that brings what is paid under an agreement to so many bytes.
pub fn context(agreement: B256, bytes: u64) -> B256 {
    hash_words([agreement, number(bytes)])
}

fn number(value: impl Into<u128>) -> B256 {
    U256::from(value.into()).into()
}

fn hash_words<const N: usize>(words: [B256; N]) -> B256 {
    // At most six words here: no allocation.
    let mut bytes = [0; 6 * 32];
    for (slot, word) in bytes.chunks_exact_mut(32).zip(&words) {
        slot.copy_from_slice(&word.0);
    }
    keccak256(&bytes[..N * 32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_sol_types::{Eip712Domain, SolStruct};

    mod sol {
        alloy_sol_types::sol! {
            struct Voucher {
                bytes32 channelId;
                uint128 cumulative;
                bytes32 context;
            }

            struct LockedVoucher {
                bytes32 channelId;
                uint128 cumulative;
                bytes32 context;
                bytes32 keyHash;
                uint64 expiry;
            }

            struct Close {
                bytes32 channelId;
                uint128 paid;
            }
        }
    }

    fn domains(chain_id: u64) -> (ChannelDomain, Eip712Domain) {
        let contract = Address::repeat_byte(0xc4);
        let theirs = Eip712Domain::new(
            Some("Chiral Channels".into()),
            Some("1".into()),
            Some(U256::from(chain_id)),
            Some(contract),
            None,
        );
        (ChannelDomain::new(chain_id, contract), theirs)
    }

    #[test]
    fn what_is_signed_is_typed_data_as_others_make_it() {
        let (domain, theirs) = domains(98_765);
        assert_eq!(domain.separator(), theirs.separator());
        let (channel, context) = (B256::repeat_byte(1), context(B256::repeat_byte(2), 3));
        let (cumulative, key_hash, expiry) = (u128::MAX - 5, B256::repeat_byte(4), u64::MAX - 6);
        let voucher = Voucher {
            channel,
            cumulative,
            context,
        };
        let locked = LockedVoucher {
            channel,
            cumulative,
            context,
            key_hash,
            expiry,
        };
        let close = Close {
            channel,
            paid: cumulative,
        };
        let expected = [
            sol::Voucher {
                channelId: channel,
                cumulative,
                context,
            }
            .eip712_signing_hash(&theirs),
            sol::LockedVoucher {
                channelId: channel,
                cumulative,
                context,
                keyHash: key_hash,
                expiry,
            }
            .eip712_signing_hash(&theirs),
            sol::Close {
                channelId: channel,
                paid: cumulative,
            }
            .eip712_signing_hash(&theirs),
        ];
        let digests = [
            voucher.digest(&domain),
            locked.digest(&domain),
            close.digest(&domain),
        ];
        assert_eq!(digests, expected);
        let (other, _) = domains(98_766);
        assert_ne!(voucher.digest(&other), expected[0], "another chain");
        let elsewhere = ChannelDomain::new(98_765, Address::repeat_byte(0xc5));
        assert_ne!(voucher.digest(&elsewhere), expected[0], "another contract");
    }
}
