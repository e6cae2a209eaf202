//! Both sides of a channel and the chain between them as one model: whatever is lost, comes
//! twice, overtakes another or is killed, nobody loses more than the table of losses says.

use alloy_primitives::{Address, B256};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{ByteRange, WalletKey, WalletSignature, WalletSigner};
use futures_util::FutureExt;
use proptest::prelude::*;

use super::payee::{Claim, ClaimRules, PayeeChannel, TakeFault};
use super::payer::{Expiry, PayFault, PayerChannel};
use super::voucher::{ChannelDomain, LockedVoucher, Proven, Share, Voucher, Word};
use super::{Window, cipher, store};
use crate::contracts::ChannelState;

/// Wei for a chunk; a chunk is one byte here.
const PRICE: u128 = 7;
const DEPOSIT: u128 = 40 * PRICE;
const CHALLENGE: u64 = 3600;
const LIFETIME: u64 = 600;
const LEAST_LOCK: u64 = 300;
const RULES: ClaimRules = ClaimRules {
    at_least: u128::MAX,
    lock_margin: 120,
};

fn domain() -> ChannelDomain {
    ChannelDomain::new(98_765, Address::repeat_byte(0xc4))
}

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Happens {
    /// A chunk is asked for, and arrives or not.
    Chunk {
        agreement: u8,
        arrives: bool,
    },
    /// The payer pays for what it has, and is killed before it is on disk, or not.
    Pay {
        agreement: u8,
        killed: bool,
    },
    /// A sealed chunk's key is to be paid for.
    Lock {
        agreement: u8,
        killed: bool,
    },
    /// Words that are under way arrive: out of turn, and again later or not.
    Arrive {
        which: u8,
        again: bool,
        killed: bool,
    },
    /// They are lost.
    Lost(u8),
    /// The payer shows that the bytes are right: the voucher that takes the lock's place.
    Redeem {
        killed: bool,
    },
    RestartPayer,
    RestartPayee,
    TopUp,
    /// The payee looks at the chain.
    Watch,
    /// The payee claims whatever it can.
    Claim,
    StartClose,
    Time(u16),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::{
        Arrive, Chunk, Claim, Lock, Lost, Pay, Redeem, RestartPayee, RestartPayer, StartClose,
        Time, TopUp, Watch,
    };
    let often = any::<u8>().prop_map(|n| n < 40);
    prop_oneof![
        8 => (0u8..3, any::<bool>()).prop_map(|(agreement, arrives)| Chunk { agreement, arrives }),
        6 => (0u8..3, often).prop_map(|(agreement, killed)| Pay { agreement, killed }),
        3 => (0u8..3, any::<bool>()).prop_map(|(agreement, killed)| Lock { agreement, killed }),
        9 => (any::<u8>(), any::<bool>(), any::<u8>()).prop_map(|(which, again, n)| Arrive {
            which,
            again,
            killed: n < 40,
        }),
        2 => any::<u8>().prop_map(Lost),
        3 => any::<bool>().prop_map(|killed| Redeem { killed }),
        1 => Just(RestartPayer),
        1 => Just(RestartPayee),
        1 => Just(TopUp),
        1 => Just(Watch),
        1 => Just(Claim),
        1 => any::<bool>().prop_map(|rarely| if rarely { StartClose } else { Watch }),
        1 => (0u16..400).prop_map(Time),
    ]
}

/// What is under way.
#[derive(Clone, Debug)]
enum Words {
    Voucher(Share, Voucher, WalletSignature),
    Locked(Share, LockedVoucher, WalletSignature),
    Key(B256),
}

/// What an agreement is about, as both sides know it for certain.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// Chunks that were given in plain, each once.
    given: u64,
    /// Chunks that the payer has, and has written down.
    had: u64,
}

struct World {
    wallet: FixedKeySigner,
    key: WalletKey,
    payer: PayerChannel,
    payer_disk: PayerChannel,
    payee: PayeeChannel,
    payee_disk: PayeeChannel,
    state: ChannelState,
    time: u64,
    wire: Vec<Words>,
    facts: [Facts; 3],
    windows: [Window; 3],
    locks: u64,
    /// Keys by their number.
    told: Vec<B256>,
    /// The most that was signed: in plain, and under a lock.
    signed: u128,
    signed_locked: u128,
    /// What the chain gave to each.
    earned: u128,
    returned: u128,
    deposited: u128,
}

fn agreement(of: u8) -> B256 {
    B256::repeat_byte(of + 1)
}

fn share(of: u8, chunks: u64) -> Share {
    Share {
        agreement: agreement(of),
        bytes: chunks,
        amount: u128::from(chunks) * PRICE,
    }
}

impl World {
    fn new() -> Self {
        let wallet = FixedKeySigner::numbered(3);
        let probe = Voucher {
            channel: B256::ZERO,
            cumulative: 0,
            context: B256::ZERO,
        };
        let signature = wallet.sign(probe.digest(&domain())).now_or_never();
        let signature = signature.unwrap().unwrap();
        let learnt = Proven::learn(probe, signature, wallet.address(), &domain());
        let id = B256::repeat_byte(9);
        let payee_wallet = Address::repeat_byte(8);
        let mut payer = PayerChannel::new(id, payee_wallet, CHALLENGE as u32, id, DEPOSIT);
        payer.opened(DEPOSIT);
        let state = ChannelState {
            payer: wallet.address(),
            payee: payee_wallet,
            challenge: CHALLENGE as u32,
            closes_at: 0,
            deposit: DEPOSIT,
            claimed: 0,
        };
        let payee = PayeeChannel::new(id, &state);
        Self {
            key: learnt.unwrap().1,
            wallet,
            payer_disk: payer.clone(),
            payer,
            payee_disk: payee.clone(),
            payee,
            state,
            time: 1_000_000,
            wire: Vec::new(),
            facts: [Facts::default(); 3],
            windows: [Window::new(1, 4), Window::fixed(3), Window::new(2, 8)],
            locks: 0,
            told: Vec::new(),
            signed: 0,
            signed_locked: 0,
            earned: 0,
            returned: 0,
            deposited: DEPOSIT,
        }
    }

    fn sign(&self, word: &impl Word) -> WalletSignature {
        let signed = self.wallet.sign(word.digest_in(&domain())).now_or_never();
        signed.unwrap().unwrap()
    }

    /// The payer's step to disk, and what it signs then; nothing if it is killed before.
    fn promised(&mut self, killed: bool, words: impl FnOnce(&mut Self) -> Words) {
        if killed {
            self.payer = self.payer_disk.clone();
            return;
        }
        self.payer_disk = store::restarted_payer(&self.payer);
        let words = words(self);
        self.wire.push(words);
    }

    fn happen(&mut self, what: Happens) -> Result<(), TestCaseError> {
        match what {
            Happens::Chunk {
                agreement: of,
                arrives,
            } => {
                let paid = self.payee.share(agreement(of)).bytes;
                let (facts, window) = (&mut self.facts[usize::from(of)], &mut self.windows);
                let window = &mut window[usize::from(of)];
                window.paid(paid * chiral_core::CHUNK_SIZE);
                let open = self.payee.is_open();
                // What did not arrive is asked for again, and is not another chunk.
                let next = facts.had + 1;
                let fresh = u64::from(next > facts.given);
                let unpaid = (facts.given + fresh).saturating_sub(paid);
                if open && unpaid <= u64::from(window.chunks()) {
                    facts.given += fresh;
                    facts.had += u64::from(arrives);
                }
            }
            Happens::Pay {
                agreement: of,
                killed,
            } => {
                let share = share(of, self.facts[usize::from(of)].had);
                let before = self.payer.clone();
                match self.payer.pay(share) {
                    Ok(voucher) => self.promised(killed, |world| {
                        let signature = world.sign(&voucher);
                        world.signed = world.signed.max(voucher.cumulative);
                        Words::Voucher(share, voucher, signature)
                    }),
                    Err(_) => prop_assert_eq!(&before, &self.payer, "refused, and changed"),
                }
            }
            Happens::Lock {
                agreement: of,
                killed,
            } => {
                let chunks = self.payer.share(agreement(of)).bytes + 1;
                let share = share(of, chunks);
                let key = cipher::key_of(
                    &B256::repeat_byte(4),
                    &agreement(of),
                    self.locks,
                    ByteRange::new(chunks - 1, chunks),
                );
                let (hash, expiry) = (cipher::key_hash(&key), self.time + LIFETIME);
                match self.payer.lock_up(share, hash, expiry) {
                    Ok(voucher) => {
                        self.locks += 1;
                        self.told.push(key);
                        self.promised(killed, |world| {
                            let signature = world.sign(&voucher);
                            world.signed_locked = world.signed_locked.max(voucher.cumulative);
                            Words::Locked(share, voucher, signature)
                        });
                    }
                    Err(fault) => prop_assert_ne!(fault, PayFault::Key),
                }
            }
            Happens::Redeem { killed } => {
                let Some(lock) = self.payer.lock().copied() else {
                    return Ok(());
                };
                if lock.key.is_none() {
                    prop_assert_eq!(self.payer.redeem(), Err(PayFault::NotUnlocked));
                    return Ok(());
                }
                let of = usize::from(lock.share.agreement.0[0] - 1);
                let voucher = self.payer.redeem().unwrap();
                // It has that chunk, and it is right.
                let facts = &mut self.facts[of];
                facts.had = facts.had.max(lock.share.bytes);
                facts.given = facts.given.max(facts.had);
                self.promised(killed, |world| {
                    let signature = world.sign(&voucher);
                    world.signed = world.signed.max(voucher.cumulative);
                    Words::Voucher(lock.share, voucher, signature)
                });
            }
            Happens::Arrive {
                which,
                again,
                killed,
            } => {
                if self.wire.is_empty() {
                    return Ok(());
                }
                let at = usize::from(which) % self.wire.len();
                let words = match again {
                    true => self.wire[at].clone(),
                    false => self.wire.swap_remove(at),
                };
                self.arrive(words, killed)?;
            }
            Happens::Lost(which) => {
                if !self.wire.is_empty() {
                    let at = usize::from(which) % self.wire.len();
                    self.wire.swap_remove(at);
                }
            }
            Happens::RestartPayer => self.payer = self.payer_disk.clone(),
            Happens::RestartPayee => self.payee = self.payee_disk.clone(),
            Happens::TopUp => {
                if !self.state.is_over() && !self.state.is_closing() {
                    self.state.deposit += 3 * PRICE;
                    self.deposited += 3 * PRICE;
                    self.payer.opened(self.state.deposit);
                    self.payer_disk = store::restarted_payer(&self.payer);
                }
            }
            Happens::Watch => self.watch(RULES),
            Happens::Claim => self.watch(ClaimRules {
                at_least: 1,
                lock_margin: u64::MAX,
            }),
            Happens::StartClose => {
                self.payer.close();
                self.payer_disk = store::restarted_payer(&self.payer);
                if !self.state.is_over() && !self.state.is_closing() {
                    self.state.closes_at = self.time + CHALLENGE;
                }
            }
            Happens::Time(seconds) => {
                self.time += u64::from(seconds);
                // A payee looks within each challenge: that is what it has to do.
                self.watch(RULES);
                self.end_if_over();
            }
        }
        self.look_at_the_chain();
        self.check()
    }

    fn arrive(&mut self, words: Words, killed: bool) -> Result<(), TestCaseError> {
        let before = self.payee.paid();
        match words {
            Words::Voucher(share, voucher, signature) => {
                let proven = Proven::check(voucher, signature, &self.key, &domain());
                let taken = self.payee.take(share, proven.unwrap());
                if let Err(fault) = taken {
                    prop_assert!(
                        matches!(
                            fault,
                            TakeFault::NotOpen | TakeFault::Uncovered | TakeFault::OverDeposit
                        ),
                        "{}",
                        fault
                    );
                }
            }
            Words::Locked(share, voucher, signature) => {
                let proven = Proven::check(voucher, signature, &self.key, &domain());
                let key = self.told.iter().copied();
                let key = key
                    .into_iter()
                    .find(|key| cipher::key_hash(key) == voucher.key_hash)
                    .unwrap();
                let earliest = self.time + LEAST_LOCK;
                let taken = self.payee.take_lock(share, proven.unwrap(), key, earliest);
                if taken.is_ok() && !killed {
                    self.payee_disk = store::restarted_payee(&self.payee, &domain());
                    self.wire.push(Words::Key(key));
                }
            }
            Words::Key(key) => {
                if self.payer.unlock(key).is_ok() {
                    self.payer_disk = store::restarted_payer(&self.payer);
                }
                return Ok(());
            }
        }
        match killed {
            true => self.payee = self.payee_disk.clone(),
            false => self.payee_disk = store::restarted_payee(&self.payee, &domain()),
        }
        prop_assert!(killed || self.payee.paid() >= before, "vouchers only rise");
        Ok(())
    }

    /// What a watcher does, with the contract's rules.
    fn watch(&mut self, rules: ClaimRules) {
        for _ in 0..3 {
            self.look_at_the_chain();
            let Some(claim) = self.payee.due(&self.state, self.time, &rules) else {
                self.payee.expire(self.time);
                return;
            };
            let (cumulative, close) = match claim {
                Claim::Voucher(voucher, close) => (voucher.body().cumulative, close),
                Claim::Lock(lock) => {
                    assert!(self.time < lock.voucher.body().expiry);
                    (lock.voucher.body().cumulative, false)
                }
            };
            let total = cumulative.min(self.state.deposit);
            assert!(total > self.state.claimed, "a claim of nothing");
            self.earned += total - self.state.claimed;
            self.state.claimed = total;
            if close {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.returned += self.state.deposit - self.state.claimed;
        self.state = ChannelState {
            payer: self.state.payer,
            closes_at: u64::MAX,
            ..Default::default()
        };
        self.look_at_the_chain();
    }

    fn end_if_over(&mut self) {
        let closes = self.state.closes_at;
        if !self.state.is_over() && self.state.is_closing() && self.time >= closes {
            self.end();
        }
    }

    fn look_at_the_chain(&mut self) {
        self.payee.seen(&self.state);
        if self.state.is_over() {
            self.payer.closed();
        } else {
            let lock = self.payer.lock().copied();
            let became = self.payer.expire(self.time, self.state.claimed);
            if let (Some(lock), Expiry::Taken) = (lock, became) {
                // The claim has told it the key: it has the chunk.
                let facts = &mut self.facts[usize::from(lock.share.agreement.0[0] - 1)];
                facts.had = facts.had.max(lock.share.bytes);
                facts.given = facts.given.max(facts.had);
            }
        }
        self.payer_disk = store::restarted_payer(&self.payer);
        self.payee_disk = store::restarted_payee(&self.payee, &domain());
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let had: u128 = self
            .facts
            .iter()
            .map(|facts| u128::from(facts.had) * PRICE)
            .sum();
        // The buyer: nothing is signed for what it does not have, but one lock for one chunk.
        prop_assert!(self.signed <= had, "{} signed for {}", self.signed, had);
        prop_assert!(self.earned <= had + PRICE, "{} for {}", self.earned, had);
        // Never more than there is.
        prop_assert!(self.signed.max(self.signed_locked) <= self.deposited);
        prop_assert!(self.earned + self.returned <= self.deposited);
        if self.state.is_over() {
            prop_assert_eq!(self.earned + self.returned, self.deposited);
        }
        prop_assert!(self.payee.paid() <= self.signed.max(self.signed_locked));
        prop_assert!(self.payer.promised() <= self.payer.deposit());
        // The seeder: of each agreement, a window.
        for (of, facts) in (0u8..).zip(&self.facts) {
            let mut window = self.windows[usize::from(of)];
            let paid = self.payee.share(agreement(of)).bytes;
            window.paid(paid * chiral_core::CHUNK_SIZE);
            let lost = facts.given.saturating_sub(paid);
            let most = u64::from(window.chunks());
            // One chunk more is on its own way: bought under a lock whose payment is not here.
            prop_assert!(lost <= most + 1, "agreement {}: {} of {}", of, lost, most);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nobody_loses_more_than_the_table_says_whatever_happens(
        steps in proptest::collection::vec(happens(), 1..160),
    ) {
        let mut world = World::new();
        for step in steps {
            world.happen(step)?;
        }
        // In the end the payer wants its money back, and the payee still looks.
        world.happen(Happens::StartClose)?;
        world.happen(Happens::Watch)?;
        let held = world.payee_disk.best.map_or(0, |best| best.body().cumulative);
        prop_assert!(
            world.earned >= held.min(world.deposited),
            "{} earned of {} held", world.earned, held
        );
        world.time += CHALLENGE;
        world.end_if_over();
        world.check()?;
        prop_assert_eq!(world.earned + world.returned, world.deposited);
    }
}

/// Only one of them is gone: the other has what it is owed, or gets its money back.
#[test]
fn with_one_side_gone_the_other_ends_alone() {
    for payer_gone in [true, false] {
        let mut world = World::new();
        let chunk = Happens::Chunk {
            agreement: 0,
            arrives: true,
        };
        let pay = Happens::Pay {
            agreement: 0,
            killed: false,
        };
        let arrive = Happens::Arrive {
            which: 0,
            again: false,
            killed: false,
        };
        for step in [chunk, pay, arrive] {
            world.happen(step).unwrap();
        }
        match payer_gone {
            // The payee claims when it likes; nothing is needed of the payer.
            true => world.happen(Happens::Claim).unwrap(),
            // The payer ends it, nobody claims, and after the challenge everything is back.
            false => {
                world.state.closes_at = world.time + CHALLENGE;
                world.payer.close();
                world.time += CHALLENGE;
                world.end_if_over();
            }
        }
        let expected = match payer_gone {
            true => (PRICE, 0),
            false => (0, DEPOSIT),
        };
        assert_eq!((world.earned, world.returned), expected);
    }
}
