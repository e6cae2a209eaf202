//! The rules of the `Channels` contract, in memory and under a test's own clock. The contract
//! itself is tested by forge and in `tests/channels.rs`; here it is only the judge.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolCall;
use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::wallet::verify;
use chiral_core::{SettleError, SettlementStatus, WalletSignature};
use chiral_payment::channel::on_chain::CallSender;
use chiral_payment::channel::{ChannelDomain, Close, LockedVoucher, Voucher};
use chiral_payment::contracts::{ChannelState, channels};

use super::ledger::Ledger;
use super::support::CHAIN;

mod sol {
    alloy_sol_types::sol! {
        function open(address payee, uint32 challenge, bytes32 salt);
        function topUp(bytes32 id);
        function startClose(bytes32 id);
        function finalize(bytes32 id);
        function cooperativeClose(bytes32 id, uint128 paid, bytes32 r, bytes32 vs);
        function claim(bytes32 id, uint128 cumulative, bytes32 context, bytes32 r, bytes32 vs);
        function claimLocked(
            bytes32 id,
            uint128 cumulative,
            bytes32 context,
            uint64 expiry,
            bytes32 key,
            bytes32 r,
            bytes32 vs
        );
        function claimAndClose(bytes32 id, uint128 cumulative, bytes32 context, bytes32 r, bytes32 vs);
    }
}

pub(crate) fn domain() -> ChannelDomain {
    ChannelDomain::new(CHAIN.chain_id, channels::CHANNELS)
}

/// All channels, and what came out of them.
#[derive(Debug, Default)]
pub(crate) struct Contract {
    pub(crate) channels: HashMap<B256, ChannelState>,
    /// Wei that somebody got out of channels, as payee.
    pub(crate) earned: HashMap<Address, u128>,
    /// Wei that came back to their payer.
    pub(crate) returned: HashMap<Address, u128>,
    /// Keys that claims made public.
    pub(crate) keys: Vec<B256>,
}

type Outcome = Result<(), &'static str>;

impl Contract {
    pub(crate) fn state(&self, id: B256) -> ChannelState {
        self.channels.get(&id).copied().unwrap_or_default()
    }

    fn alive(&mut self, id: B256) -> Result<&mut ChannelState, &'static str> {
        let channel = self.channels.get_mut(&id).ok_or("not open")?;
        (!channel.is_over()).then_some(channel).ok_or("not open")
    }

    pub(crate) fn execute(
        &mut self,
        from: Address,
        value: u128,
        input: &[u8],
        time: u64,
    ) -> Outcome {
        let selector: [u8; 4] = input[..4].try_into().unwrap();
        match selector {
            sol::openCall::SELECTOR => {
                let call = sol::openCall::abi_decode(input).unwrap();
                let (payee, challenge, salt) = (call.payee, call.challenge, call.salt);
                let id = channels::id_of(
                    CHAIN.chain_id,
                    channels::CHANNELS,
                    from,
                    payee,
                    challenge,
                    salt,
                );
                let state = ChannelState {
                    payer: from,
                    payee,
                    challenge,
                    closes_at: 0,
                    deposit: value,
                    claimed: 0,
                };
                assert!(self.channels.insert(id, state).is_none());
                Ok(())
            }
            sol::topUpCall::SELECTOR => {
                let call = sol::topUpCall::abi_decode(input).unwrap();
                let channel = self.alive(call.id)?;
                (channel.payer == from && channel.closes_at == 0)
                    .then(|| channel.deposit += value)
                    .ok_or("not yours")
            }
            sol::startCloseCall::SELECTOR => {
                let call = sol::startCloseCall::abi_decode(input).unwrap();
                let channel = self.alive(call.id)?;
                let ends = time + u64::from(channel.challenge);
                (channel.payer == from && channel.closes_at == 0)
                    .then(|| channel.closes_at = ends)
                    .ok_or("not yours, or closing")
            }
            sol::finalizeCall::SELECTOR => {
                let call = sol::finalizeCall::abi_decode(input).unwrap();
                let channel = *self.alive(call.id)?;
                if channel.closes_at == 0 || time < channel.closes_at {
                    return Err("too early");
                }
                self.end(call.id, channel.claimed)
            }
            sol::cooperativeCloseCall::SELECTOR => {
                let call = sol::cooperativeCloseCall::abi_decode(input).unwrap();
                let channel = *self.alive(call.id)?;
                let close = Close {
                    channel: call.id,
                    paid: call.paid,
                };
                let signature = signature(call.r, call.vs);
                if channel.payer != from
                    || !verify(channel.payee, close.digest(&domain()), &signature)
                {
                    return Err("signature");
                }
                self.end(call.id, call.paid)
            }
            sol::claimCall::SELECTOR => {
                let call = sol::claimCall::abi_decode(input).unwrap();
                self.voucher(
                    from,
                    call.id,
                    call.cumulative,
                    call.context,
                    (call.r, call.vs),
                )?;
                self.claim(call.id, call.cumulative)
            }
            sol::claimAndCloseCall::SELECTOR => {
                let call = sol::claimAndCloseCall::abi_decode(input).unwrap();
                self.voucher(
                    from,
                    call.id,
                    call.cumulative,
                    call.context,
                    (call.r, call.vs),
                )?;
                self.end(call.id, call.cumulative)
            }
            sol::claimLockedCall::SELECTOR => {
                let call = sol::claimLockedCall::abi_decode(input).unwrap();
                let channel = *self.alive(call.id)?;
                let locked = LockedVoucher {
                    channel: call.id,
                    cumulative: call.cumulative,
                    context: call.context,
                    key_hash: keccak256(call.key),
                    expiry: call.expiry,
                };
                let signature = signature(call.r, call.vs);
                if channel.payee != from
                    || time >= call.expiry
                    || !verify(channel.payer, locked.digest(&domain()), &signature)
                {
                    return Err("lock");
                }
                self.claim(call.id, call.cumulative)?;
                self.keys.push(call.key);
                Ok(())
            }
            _ => panic!("not a call of the contract"),
        }
    }

    fn voucher(
        &mut self,
        from: Address,
        id: B256,
        cumulative: u128,
        context: B256,
        (r, vs): (B256, B256),
    ) -> Outcome {
        let channel = *self.alive(id)?;
        let voucher = Voucher {
            channel: id,
            cumulative,
            context,
        };
        let signed = verify(channel.payer, voucher.digest(&domain()), &signature(r, vs));
        (channel.payee == from && signed)
            .then_some(())
            .ok_or("signature")
    }

    fn claim(&mut self, id: B256, cumulative: u128) -> Outcome {
        let channel = self.alive(id)?;
        let total = cumulative.min(channel.deposit);
        if total <= channel.claimed {
            return Err("nothing new");
        }
        let (payee, more) = (channel.payee, total - channel.claimed);
        channel.claimed = total;
        *self.earned.entry(payee).or_default() += more;
        Ok(())
    }

    fn end(&mut self, id: B256, paid: u128) -> Outcome {
        let channel = self.alive(id)?;
        let total = paid.min(channel.deposit).max(channel.claimed);
        let before = std::mem::take(channel);
        channel.payer = before.payer;
        channel.closes_at = u64::MAX;
        *self.earned.entry(before.payee).or_default() += total - before.claimed;
        *self.returned.entry(before.payer).or_default() += before.deposit - total;
        Ok(())
    }
}

fn signature(r: B256, vs: B256) -> WalletSignature {
    let mut bytes = [0; 65];
    bytes[..32].copy_from_slice(&r.0);
    bytes[32..64].copy_from_slice(&vs.0);
    bytes[64] = bytes[32] >> 7;
    bytes[32] &= 0x7f;
    WalletSignature::from_bytes(bytes).expect("the lower s")
}

/// Has one wallet's calls executed, at once and each once.
#[derive(Debug)]
pub(crate) struct Desk {
    ledger: Arc<Ledger>,
    from: Address,
    done: std::sync::Mutex<HashSet<B256>>,
    /// Whoever has vanished sends nothing.
    pub(crate) gone: std::sync::atomic::AtomicBool,
}

impl Desk {
    pub(crate) fn new(ledger: Arc<Ledger>, from: Address) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            from,
            done: Default::default(),
            gone: Default::default(),
        })
    }
}

#[async_trait]
impl CallSender for Desk {
    async fn send(
        &self,
        id: B256,
        to: Address,
        value: U256,
        input: Bytes,
    ) -> Result<SettlementStatus, SettleError> {
        assert_eq!(to, channels::CHANNELS);
        let gone = self.gone.load(std::sync::atomic::Ordering::Relaxed);
        let mut done = self.done.lock().unwrap();
        if !gone && !done.contains(&id) {
            let outcome = self.ledger.execute(self.from, value.to(), &input);
            if outcome.is_ok() {
                done.insert(id);
            }
        }
        Ok(match done.contains(&id) {
            true => SettlementStatus::Settled { transaction: id },
            false => SettlementStatus::Pending { transaction: None },
        })
    }

    async fn status(&self, id: B256) -> Result<Option<SettlementStatus>, SettleError> {
        let done = self.done.lock().unwrap().contains(&id);
        Ok(done.then_some(SettlementStatus::Settled { transaction: id }))
    }

    async fn withdraw(&self, _: B256) -> Result<(), SettleError> {
        Ok(())
    }
}
