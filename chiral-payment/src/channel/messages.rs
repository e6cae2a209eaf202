//! What gate and agent say to each other about channels. Part of
//! [`Message`](crate::messages::Message): a tag from 32 on, an ABI-encoded struct, signatures
//! of 65 bytes.

use alloy_primitives::{B256, U256};
use chiral_core::{ByteRange, WalletSignature};

use super::voucher::{Close, LockedVoucher, Share, Voucher};
use crate::messages::{Malformed, Signed, Statement, plain, read, read_signed, signed};

/// Kinds of messages about channels have these tags.
pub(crate) const TAGS: std::ops::RangeInclusive<u8> = 32..=47;

/// The words on the wire.
pub(crate) mod sol {
    #![allow(missing_docs, unreachable_pub)]
    alloy_sol_types::sol! {
        #[derive(Debug, PartialEq, Eq)]
        struct Bind {
            bytes32 agreement;
            bytes32 channel;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Bound {
            bytes32 agreement;
            bytes32 channel;
            uint128 deposit;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Pay {
            bytes32 agreement;
            uint64 bytesPaid;
            bytes32 channel;
            uint128 cumulative;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Paid {
            bytes32 agreement;
            uint64 bytesPaid;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Seal {
            bytes32 agreement;
            uint64 counter;
            uint64 start;
            uint64 end;
            bytes32 keyHash;
            bytes32 data;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Lock {
            bytes32 agreement;
            uint64 counter;
            uint64 bytesPaid;
            bytes32 channel;
            uint128 cumulative;
            bytes32 keyHash;
            uint64 expiry;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct PayAndLock {
            Pay pay;
            Lock lock;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Key {
            bytes32 agreement;
            bytes32 key;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Reopen {
            bytes32 agreement;
            uint64 counter;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Leave {
            bytes32 agreement;
            bytes32 channel;
        }

        #[derive(Debug, PartialEq, Eq)]
        struct Left {
            bytes32 channel;
            uint128 paid;
        }
    }
}

/// The buyer pays under an agreement out of this channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Under which agreement.
    pub agreement: B256,
    /// Out of which channel.
    pub channel: B256,
}

impl Statement for Bind {
    type Sol = sol::Bind;

    fn to_sol(&self) -> sol::Bind {
        sol::Bind {
            agreement: self.agreement,
            channel: self.channel,
        }
    }

    fn from_sol(bind: sol::Bind) -> Result<Self, Malformed> {
        Ok(Self {
            agreement: bind.agreement,
            channel: bind.channel,
        })
    }
}

/// The buyer has bought the key of these bytes before, and wants to be told it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reopen {
    /// Under which agreement.
    pub agreement: B256,
    /// The counter of the request whose answer is sealed.
    pub counter: u64,
}

impl Statement for Reopen {
    type Sol = sol::Reopen;

    fn to_sol(&self) -> sol::Reopen {
        sol::Reopen {
            agreement: self.agreement,
            counter: self.counter,
        }
    }

    fn from_sol(reopen: sol::Reopen) -> Result<Self, Malformed> {
        Ok(Self {
            agreement: reopen.agreement,
            counter: reopen.counter,
        })
    }
}

/// The buyer wants to end a channel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    /// An agreement whose session key says so.
    pub agreement: B256,
    /// Which channel.
    pub channel: B256,
}

impl Statement for Leave {
    type Sol = sol::Leave;

    fn to_sol(&self) -> sol::Leave {
        sol::Leave {
            agreement: self.agreement,
            channel: self.channel,
        }
    }

    fn from_sol(leave: sol::Leave) -> Result<Self, Malformed> {
        Ok(Self {
            agreement: leave.agreement,
            channel: leave.channel,
        })
    }
}

/// The seeder's word on sealed bytes, signed by its wallet: a buyer that finds something else
/// under the key has it to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Under which agreement.
    pub agreement: B256,
    /// The counter of the request that they answer.
    pub counter: u64,
    /// What they are.
    pub range: ByteRange,
    /// Keccak-256 of the key.
    pub key_hash: B256,
    /// BLAKE3 of the sealed bytes: as hard to find two of as SHA-256, and the hash takes half as
    /// long, of every byte on both sides.
    pub data: B256,
}

impl Statement for Seal {
    type Sol = sol::Seal;

    fn to_sol(&self) -> sol::Seal {
        sol::Seal {
            agreement: self.agreement,
            counter: self.counter,
            start: self.range.start,
            end: self.range.end,
            keyHash: self.key_hash,
            data: self.data,
        }
    }

    fn from_sol(seal: sol::Seal) -> Result<Self, Malformed> {
        if seal.start >= seal.end {
            return Err(Malformed {
                reason: "a seal on nothing",
            });
        }
        Ok(Self {
            agreement: seal.agreement,
            counter: seal.counter,
            range: ByteRange::new(seal.start, seal.end),
            key_hash: seal.keyHash,
            data: seal.data,
        })
    }
}

/// A voucher, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pay {
    /// Under which agreement.
    pub agreement: B256,
    /// Bytes that are paid for there, in all.
    pub bytes: u64,
    /// Out of which channel.
    pub channel: B256,
    /// Wei that the channel has paid, in all.
    pub cumulative: u128,
    /// Under the [`Voucher`], by the payer's wallet.
    pub signature: WalletSignature,
}

impl Pay {
    fn to_sol(self) -> sol::Pay {
        sol::Pay {
            agreement: self.agreement,
            bytesPaid: self.bytes,
            channel: self.channel,
            cumulative: self.cumulative,
        }
    }

    fn from_sol(pay: &sol::Pay, signature: WalletSignature) -> Self {
        Self {
            agreement: pay.agreement,
            bytes: pay.bytesPaid,
            channel: pay.channel,
            cumulative: pay.cumulative,
            signature,
        }
    }

    /// What is signed.
    pub fn voucher(&self) -> Voucher {
        Voucher {
            channel: self.channel,
            cumulative: self.cumulative,
            context: super::voucher::context(self.agreement, self.bytes),
        }
    }
}

/// A locked voucher, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayLocked {
    /// Under which agreement.
    pub agreement: B256,
    /// The counter of the request whose answer is sealed.
    pub counter: u64,
    /// Bytes that are paid for there with it, in all.
    pub bytes: u64,
    /// Out of which channel.
    pub channel: B256,
    /// Wei that the channel has paid with it, in all.
    pub cumulative: u128,
    /// Keccak-256 of the key that is wanted.
    pub key_hash: B256,
    /// Until when it holds: seconds since 1970.
    pub expiry: u64,
    /// Under the [`LockedVoucher`], by the payer's wallet.
    pub signature: WalletSignature,
}

impl PayLocked {
    fn to_sol(self) -> sol::Lock {
        sol::Lock {
            agreement: self.agreement,
            counter: self.counter,
            bytesPaid: self.bytes,
            channel: self.channel,
            cumulative: self.cumulative,
            keyHash: self.key_hash,
            expiry: self.expiry,
        }
    }

    fn from_sol(lock: &sol::Lock, signature: WalletSignature) -> Self {
        Self {
            agreement: lock.agreement,
            counter: lock.counter,
            bytes: lock.bytesPaid,
            channel: lock.channel,
            cumulative: lock.cumulative,
            key_hash: lock.keyHash,
            expiry: lock.expiry,
            signature,
        }
    }

    /// What is signed.
    pub fn voucher(&self) -> LockedVoucher {
        LockedVoucher {
            channel: self.channel,
            cumulative: self.cumulative,
            context: super::voucher::context(self.agreement, self.bytes),
            key_hash: self.key_hash,
            expiry: self.expiry,
        }
    }

    /// What it brings its agreement to, if that costs `amount` in all.
    pub fn share(&self, amount: u128) -> Share {
        Share {
            agreement: self.agreement,
            bytes: self.bytes,
            amount,
        }
    }
}

/// One message about channels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelMessage {
    /// Buyer: I pay out of this channel.
    Bind(Signed<Bind>),
    /// Seeder: I see it.
    Bound {
        /// The agreement.
        agreement: B256,
        /// The channel.
        channel: B256,
        /// Its deposit, in wei, as far as it is deep enough.
        deposit: u128,
    },
    /// Buyer: a voucher.
    Pay(Pay),
    /// Seeder: noted.
    Paid {
        /// The agreement.
        agreement: B256,
        /// Bytes that are paid for there, in all.
        bytes: u64,
    },
    /// Seeder, with sealed bytes.
    Seal(Signed<Seal>),
    /// Buyer: a locked voucher for the key.
    Lock(PayLocked),
    /// Seeder: the key.
    Key {
        /// The agreement.
        agreement: B256,
        /// The key.
        key: B256,
    },
    /// Buyer: a voucher, and a locked one behind it. Answered as a [`Self::Lock`] if both are
    /// taken.
    PayAndLock(Pay, PayLocked),
    /// Buyer: the key again, of what was bought before.
    Reopen(Signed<Reopen>),
    /// Buyer: let us end this channel.
    Leave(Signed<Leave>),
    /// Seeder: with so much paid; signed by its wallet, for the contract.
    Left(Close, WalletSignature),
}

impl ChannelMessage {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bind(bind) => signed(out, 32, bind),
            Self::Bound {
                agreement,
                channel,
                deposit,
            } => plain(
                out,
                33,
                &sol::Bound {
                    agreement: *agreement,
                    channel: *channel,
                    deposit: *deposit,
                },
            ),
            Self::Pay(pay) => {
                plain(out, 34, &pay.to_sol());
                out.extend_from_slice(pay.signature.as_bytes());
            }
            Self::Paid { agreement, bytes } => plain(
                out,
                35,
                &sol::Paid {
                    agreement: *agreement,
                    bytesPaid: *bytes,
                },
            ),
            Self::Seal(seal) => signed(out, 36, seal),
            Self::Lock(lock) => {
                plain(out, 37, &lock.to_sol());
                out.extend_from_slice(lock.signature.as_bytes());
            }
            Self::PayAndLock(pay, lock) => {
                let both = sol::PayAndLock {
                    pay: pay.to_sol(),
                    lock: lock.to_sol(),
                };
                plain(out, 42, &both);
                out.extend_from_slice(pay.signature.as_bytes());
                out.extend_from_slice(lock.signature.as_bytes());
            }
            Self::Key { agreement, key } => plain(
                out,
                38,
                &sol::Key {
                    agreement: *agreement,
                    key: *key,
                },
            ),
            Self::Reopen(reopen) => signed(out, 41, reopen),
            Self::Leave(leave) => signed(out, 39, leave),
            Self::Left(close, signature) => {
                plain(
                    out,
                    40,
                    &sol::Left {
                        channel: close.channel,
                        paid: close.paid,
                    },
                );
                out.extend_from_slice(signature.as_bytes());
            }
        }
    }

    pub(crate) fn decode(tag: u8, rest: &[u8]) -> Result<Self, Malformed> {
        Ok(match tag {
            32 => Self::Bind(read_signed(rest)?),
            33 => {
                let sol::Bound {
                    agreement,
                    channel,
                    deposit,
                } = read(rest)?;
                Self::Bound {
                    agreement,
                    channel,
                    deposit,
                }
            }
            34 => {
                let (body, signature) = split(rest)?;
                Self::Pay(Pay::from_sol(&read(body)?, signature))
            }
            35 => {
                let paid: sol::Paid = read(rest)?;
                Self::Paid {
                    agreement: paid.agreement,
                    bytes: paid.bytesPaid,
                }
            }
            36 => Self::Seal(read_signed(rest)?),
            37 => {
                let (body, signature) = split(rest)?;
                Self::Lock(PayLocked::from_sol(&read(body)?, signature))
            }
            38 => {
                let sol::Key { agreement, key } = read(rest)?;
                Self::Key { agreement, key }
            }
            39 => Self::Leave(read_signed(rest)?),
            40 => {
                let (body, signature) = split(rest)?;
                let sol::Left { channel, paid } = read(body)?;
                Self::Left(Close { channel, paid }, signature)
            }
            41 => Self::Reopen(read_signed(rest)?),
            42 => {
                let (rest, of_lock) = split(rest)?;
                let (body, of_pay) = split(rest)?;
                let sol::PayAndLock { pay, lock } = read(body)?;
                let (pay, lock) = (
                    Pay::from_sol(&pay, of_pay),
                    PayLocked::from_sol(&lock, of_lock),
                );
                Self::PayAndLock(pay, lock)
            }
            _ => {
                return Err(Malformed {
                    reason: "an unknown kind of message",
                });
            }
        })
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], WalletSignature), Malformed> {
    let bad = Malformed {
        reason: "no signature, or one with the higher s",
    };
    let length = bytes.len().checked_sub(65).ok_or(bad)?;
    let (body, signature) = bytes.split_at(length);
    let signature = signature.try_into().map_err(|_| bad)?;
    let signature = WalletSignature::from_bytes(signature).map_err(|_| bad)?;
    Ok((body, signature))
}

/// Wei as channels count them; `None` for more than there can be.
pub(crate) fn wei(amount: U256) -> Option<u128> {
    u128::try_from(amount).ok()
}
