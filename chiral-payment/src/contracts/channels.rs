//! `Channels`: payment channels from one payer to one payee.

use alloy_primitives::{Address, B256, U256, address, b256, hex, keccak256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use bytes::Bytes;
use chiral_chain::LogEntry;
use chiral_core::WalletSignature;

use super::factory;

#[allow(missing_docs, reason = "generated; documented in Channels.sol")]
mod sol {
    alloy_sol_types::sol! {
        struct Channel {
            address payer;
            uint32 challenge;
            uint64 closesAt;
            address payee;
            uint128 deposit;
            uint128 claimed;
        }

        function open(address payee, uint32 challenge, bytes32 salt) external payable returns (bytes32 id);
        function topUp(bytes32 id) external payable;
        function startClose(bytes32 id) external;
        function finalize(bytes32 id) external;
        function cooperativeClose(bytes32 id, uint128 paid, bytes32 r, bytes32 vs) external;
        function claim(bytes32 id, uint128 cumulative, bytes32 context, bytes32 r, bytes32 vs) external;
        function claimLocked(
            bytes32 id,
            uint128 cumulative,
            bytes32 context,
            uint64 expiry,
            bytes32 key,
            bytes32 r,
            bytes32 vs
        ) external;
        function claimAndClose(bytes32 id, uint128 cumulative, bytes32 context, bytes32 r, bytes32 vs) external;
        function withdraw(address to) external;
        function channels(bytes32 id) external view returns (Channel);
        function credits(address receiver) external view returns (uint256);
        function domainSeparator() external view returns (bytes32);

        event Opened(
            bytes32 indexed id, address indexed payer, address indexed payee, uint128 deposit, uint32 challenge
        );
        event Unlocked(bytes32 indexed id, bytes32 indexed keyHash, bytes32 key);
        event Closed(bytes32 indexed id, uint128 claimed, uint128 refund);
    }
}

/// Where the development chain has it from its first block.
pub const CHANNELS: Address = address!("c4a2e100000000000000000000000000000c41a1");

/// Shortest and longest challenge period that the contract takes, in seconds.
pub const CHALLENGE_SECONDS: (u32, u32) = (60, 30 * 86_400);

/// With which salt the factory makes the contract at [`deployed_at`]: "chiral channels 1".
pub const DEPLOYMENT_SALT: B256 =
    b256!("63686972616c206368616e6e656c732031000000000000000000000000000000");

const CREATION: &str = include_str!("../../contracts/Channels.bin");
const RUNTIME: &str = include_str!("../../contracts/Channels.bin-runtime");

/// Code of a transaction that makes the contract on a chain that does not have it.
pub fn creation_code() -> Bytes {
    code(CREATION)
}

/// The contract's code as a chain has it; at any other code no money must be sent.
pub fn runtime_code() -> Bytes {
    code(RUNTIME)
}

fn code(text: &str) -> Bytes {
    let code = hex::decode(text.trim_end());
    code.expect("scripts/contracts writes hex digits").into()
}

/// Where the contract is on every chain on which [`FACTORY`](super::factory::FACTORY) was told to make it.
pub fn deployed_at() -> Address {
    factory::address_of(DEPLOYMENT_SALT, &creation_code())
}

/// What to send to [`FACTORY`](super::factory::FACTORY) to have it made; whoever does it.
pub fn deployment() -> Bytes {
    factory::words(DEPLOYMENT_SALT, &creation_code())
}

/// Id of the channel that [`open`] makes.
pub fn id_of(
    chain_id: u64,
    contract: Address,
    payer: Address,
    payee: Address,
    challenge: u32,
    salt: B256,
) -> B256 {
    let parts = (
        U256::from(chain_id),
        contract,
        payer,
        payee,
        challenge,
        salt,
    );
    keccak256(parts.abi_encode())
}

/// Calldata that opens a channel with the value that is sent along.
pub fn open(payee: Address, challenge: u32, salt: B256) -> Bytes {
    sol::openCall {
        payee,
        challenge,
        salt,
    }
    .abi_encode()
    .into()
}

/// Calldata that adds the value that is sent along.
pub fn top_up(id: B256) -> Bytes {
    sol::topUpCall { id }.abi_encode().into()
}

/// Calldata that begins the challenge period.
pub fn start_close(id: B256) -> Bytes {
    sol::startCloseCall { id }.abi_encode().into()
}

/// Calldata that ends a channel whose challenge period is over.
pub fn finalize(id: B256) -> Bytes {
    sol::finalizeCall { id }.abi_encode().into()
}

/// Calldata that ends a channel with the payee's signature.
pub fn cooperative_close(id: B256, paid: u128, signature: &WalletSignature) -> Bytes {
    let (r, vs) = compact(signature);
    sol::cooperativeCloseCall { id, paid, r, vs }
        .abi_encode()
        .into()
}

/// Calldata that claims a voucher, and ends the channel if `close`.
pub fn claim(
    id: B256,
    cumulative: u128,
    context: B256,
    signature: &WalletSignature,
    close: bool,
) -> Bytes {
    let (r, vs) = compact(signature);
    match close {
        true => sol::claimAndCloseCall {
            id,
            cumulative,
            context,
            r,
            vs,
        }
        .abi_encode(),
        false => sol::claimCall {
            id,
            cumulative,
            context,
            r,
            vs,
        }
        .abi_encode(),
    }
    .into()
}

/// Calldata that ends a channel under which nothing new was paid.
pub fn give_back(id: B256) -> Bytes {
    sol::claimAndCloseCall {
        id,
        cumulative: 0,
        context: B256::ZERO,
        r: B256::ZERO,
        vs: B256::ZERO,
    }
    .abi_encode()
    .into()
}

/// Calldata that claims a locked voucher with its key.
pub fn claim_locked(
    id: B256,
    cumulative: u128,
    context: B256,
    expiry: u64,
    key: B256,
    signature: &WalletSignature,
) -> Bytes {
    let (r, vs) = compact(signature);
    sol::claimLockedCall {
        id,
        cumulative,
        context,
        expiry,
        key,
        r,
        vs,
    }
    .abi_encode()
    .into()
}

/// Calldata that sends the caller's credit to `to`.
pub fn withdraw(to: Address) -> Bytes {
    sol::withdrawCall { to }.abi_encode().into()
}

/// Calldata that asks for a receiver's credit; the answer is 32 bytes.
pub fn credits(receiver: Address) -> Bytes {
    sol::creditsCall { receiver }.abi_encode().into()
}

/// Calldata that asks for the domain of what is signed; the answer is 32 bytes.
pub fn domain_separator() -> Bytes {
    sol::domainSeparatorCall {}.abi_encode().into()
}

/// Calldata that asks how a channel stands; the answer is for [`ChannelState::read`].
pub fn look(id: B256) -> Bytes {
    sol::channelsCall { id }.abi_encode().into()
}

/// How a channel stands on the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// Who pays; zero if there never was such a channel.
    pub payer: Address,
    /// Who is paid; zero once it is over.
    pub payee: Address,
    /// Seconds between the beginning of the end and the end.
    pub challenge: u32,
    /// When the payer may end it, in seconds since 1970; 0 if it has not begun to, `u64::MAX`
    /// once it is over.
    pub closes_at: u64,
    /// Wei paid in.
    pub deposit: u128,
    /// Wei that the payee has had of it.
    pub claimed: u128,
}

impl ChannelState {
    /// Reads what the contract answers to [`look`].
    pub fn read(answer: &[u8]) -> Option<Self> {
        let channel = sol::channelsCall::abi_decode_returns_validate(answer).ok()?;
        Some(Self {
            payer: channel.payer,
            payee: channel.payee,
            challenge: channel.challenge,
            closes_at: channel.closesAt,
            deposit: channel.deposit,
            claimed: channel.claimed,
        })
    }

    /// Whether it can be paid from.
    pub fn is_open(&self) -> bool {
        !self.payer.is_zero() && self.closes_at == 0
    }

    /// Whether its payer is about to end it.
    pub fn is_closing(&self) -> bool {
        self.closes_at != 0 && !self.is_over()
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.closes_at == u64::MAX
    }
}

/// The id in a log that says that a channel was opened by `payer`; `None` for any other log.
pub fn opened(log: &LogEntry, contract: Address, payer: Address) -> Option<B256> {
    if log.address != contract {
        return None;
    }
    let event = sol::Opened::decode_raw_log_validate(log.topics.iter(), &log.data).ok()?;
    (event.payer == payer).then_some(event.id)
}

/// Channel, hash and key in a log that says that a locked voucher was claimed.
pub fn unlocked(log: &LogEntry, contract: Address) -> Option<(B256, B256, B256)> {
    if log.address != contract {
        return None;
    }
    let event = sol::Unlocked::decode_raw_log_validate(log.topics.iter(), &log.data).ok()?;
    Some((event.id, event.keyHash, event.key))
}

/// Channel, what its payee had of it in all, and what came back, in a log that says that one is
/// over; wei.
pub fn closed(log: &LogEntry, contract: Address) -> Option<(B256, u128, u128)> {
    if log.address != contract {
        return None;
    }
    let event = sol::Closed::decode_raw_log_validate(log.topics.iter(), &log.data).ok()?;
    Some((event.id, event.claimed, event.refund))
}

/// First topic of the logs that say that a channel is over; the next one is the channel.
pub const CLOSED_TOPIC: B256 = sol::Closed::SIGNATURE_HASH;

/// First topic of the logs that say that a locked voucher was claimed; the next two are the
/// channel and the hash of the key.
pub const UNLOCKED_TOPIC: B256 = sol::Unlocked::SIGNATURE_HASH;

/// A signature in two words (EIP-2098).
fn compact(signature: &WalletSignature) -> (B256, B256) {
    let bytes = signature.as_bytes();
    let r = B256::from_slice(&bytes[..32]);
    let mut vs = B256::from_slice(&bytes[32..64]);
    // The lower s leaves the highest bit free.
    vs.0[0] |= bytes[64] << 7;
    (r, vs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_the_compiler_made() {
        assert!(creation_code().ends_with(&runtime_code()));
        assert!(deployment().starts_with(b"chiral channels 1\0"));
    }

    #[test]
    fn calls_have_the_selectors_of_their_signatures() {
        let signature = WalletSignature::from_bytes([1; 65]).unwrap();
        let (id, word) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let calls = [
            (
                open(Address::ZERO, 60, word),
                "open(address,uint32,bytes32)",
            ),
            (top_up(id), "topUp(bytes32)"),
            (start_close(id), "startClose(bytes32)"),
            (finalize(id), "finalize(bytes32)"),
            (
                cooperative_close(id, 1, &signature),
                "cooperativeClose(bytes32,uint128,bytes32,bytes32)",
            ),
            (
                claim(id, 1, word, &signature, false),
                "claim(bytes32,uint128,bytes32,bytes32,bytes32)",
            ),
            (
                claim(id, 1, word, &signature, true),
                "claimAndClose(bytes32,uint128,bytes32,bytes32,bytes32)",
            ),
            (
                claim_locked(id, 1, word, 9, word, &signature),
                "claimLocked(bytes32,uint128,bytes32,uint64,bytes32,bytes32,bytes32)",
            ),
            (withdraw(Address::ZERO), "withdraw(address)"),
            (look(id), "channels(bytes32)"),
        ];
        for (calldata, signature) in calls {
            assert_eq!(calldata[..4], keccak256(signature)[..4], "{signature}");
        }
        let (_, vs) = compact(&signature);
        assert_eq!(vs.0[0], 0x81, "the recovery bit is the highest of s");
    }

    #[test]
    fn states_are_read_and_nothing_else() {
        let mut answer = vec![0; 192];
        assert_eq!(ChannelState::read(&answer), Some(ChannelState::default()));
        answer[95] = 7;
        assert!(ChannelState::read(&answer).is_some_and(|state| state.is_closing()));
        assert_eq!(ChannelState::read(&answer[1..]), None);
        answer[64] = 1;
        assert_eq!(ChannelState::read(&answer), None, "more than 64 bits");
    }
}
