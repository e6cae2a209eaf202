//! What both options have in common: the channel's two ends, the contract, the clock, and the
//! search.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;
use std::sync::{LazyLock, Mutex};

use alloy_primitives::{Address, B256};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{WalletKey, WalletSigner};
use chiral_payment::channel::payee::{Claim, ClaimRules};
use chiral_payment::channel::payer::Expiry;
use chiral_payment::channel::voucher::{Proven, Share, Word};
use chiral_payment::channel::{ChannelDomain, PayeeChannel, PayerChannel};
use chiral_payment::contracts::ChannelState;
use futures_util::FutureExt;

/// What a chunk costs, in wei.
pub(crate) const PRICE: u128 = 1000;
pub(crate) const DEPOSIT: u128 = 10 * PRICE;
pub(crate) const CHALLENGE: u32 = 3600;
/// How long a lock holds, and how long before its end it is claimed.
pub(crate) const LOCK: u64 = 600;
const MARGIN: u64 = 120;

static DOMAIN: LazyLock<ChannelDomain> =
    LazyLock::new(|| ChannelDomain::new(98_765, Address::repeat_byte(0xc4)));
static PAYER: LazyLock<FixedKeySigner> = LazyLock::new(|| FixedKeySigner::numbered(1));

type Signed<T> = LazyLock<Mutex<HashMap<B256, Proven<T>>>>;

/// A word as the payer signs it and the payee has checked it. Signed once: there are few.
pub(crate) trait Sign: Word + 'static {
    fn known() -> &'static Mutex<HashMap<B256, Proven<Self>>>;

    fn signed(self) -> Proven<Self> {
        let digest = self.digest_in(&DOMAIN);
        let mut known = Self::known().lock().unwrap();
        *known.entry(digest).or_insert_with(|| {
            let signature = PAYER.sign(digest).now_or_never().unwrap().unwrap();
            let key = WalletKey::recover(digest, &signature).unwrap();
            assert_eq!(key.address(), PAYER.address());
            Proven::check(self, signature, &key, &DOMAIN).unwrap()
        })
    }
}

macro_rules! sign {
    ($word:ty, $known:ident) => {
        static $known: Signed<$word> = LazyLock::new(Mutex::default);

        impl Sign for $word {
            fn known() -> &'static Mutex<HashMap<B256, Proven<Self>>> {
                &$known
            }
        }
    };
}

sign!(chiral_payment::channel::Voucher, VOUCHERS);
sign!(chiral_payment::channel::LockedVoucher, LOCKS);

/// The two ends of a channel, and the chain between them. All of it survives a kill.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) payer: PayerChannel,
    pub(crate) payee: PayeeChannel,
    pub(crate) chain: ChannelState,
    pub(crate) time: u64,
    /// Keys that claims have made public.
    pub(crate) public: Vec<B256>,
    pub(crate) buyer_gone: bool,
    pub(crate) seller_gone: bool,
}

pub(crate) fn agreement() -> B256 {
    B256::repeat_byte(0xa9)
}

/// What so many chunks cost; a chunk counts as one byte here.
pub(crate) fn share(chunks: u64) -> Share {
    Share {
        agreement: agreement(),
        bytes: chunks,
        amount: u128::from(chunks) * PRICE,
    }
}

impl Ends {
    pub(crate) fn new() -> Self {
        let (id, payee) = (B256::repeat_byte(0x1d), Address::repeat_byte(0x5e));
        let chain = ChannelState {
            payer: PAYER.address(),
            payee,
            challenge: CHALLENGE,
            closes_at: 0,
            deposit: DEPOSIT,
            claimed: 0,
        };
        let mut payer = PayerChannel::new(id, payee, CHALLENGE, B256::ZERO, DEPOSIT);
        payer.opened(DEPOSIT);
        payer.adopt(agreement()).unwrap();
        Self {
            payer,
            payee: PayeeChannel::new(id, &chain),
            chain,
            time: 1_000_000,
            public: Vec::new(),
            buyer_gone: false,
            seller_gone: false,
        }
    }

    /// The seller looks at the chain, as its watcher does all the time.
    pub(crate) fn seller_looks(&mut self, rules: &ClaimRules) {
        if self.seller_gone {
            return;
        }
        self.payee.seen(&self.chain);
        let claim = self.payee.due(&self.chain, self.time, rules);
        let (cumulative, close) = match claim {
            None => {
                self.payee.expire(self.time);
                return;
            }
            Some(Claim::Voucher(voucher, close)) => (voucher.body().cumulative, close),
            Some(Claim::Lock(lock)) => {
                assert!(self.time < lock.voucher.body().expiry, "it claims too late");
                self.public.push(lock.key);
                (lock.voucher.body().cumulative, false)
            }
        };
        assert!(!self.chain.is_over(), "it claims from what is over");
        assert!(
            cumulative <= self.chain.deposit,
            "it claims what is not there"
        );
        self.chain.claimed = self.chain.claimed.max(cumulative);
        if close {
            self.chain.closes_at = u64::MAX;
        }
        self.payee.seen(&self.chain);
    }

    /// The buyer does.
    pub(crate) fn buyer_looks(&mut self) {
        if self.buyer_gone {
            return;
        }
        if self.chain.is_closing() && self.time >= self.chain.closes_at {
            self.chain.closes_at = u64::MAX;
        }
        let before = self.payer.promised();
        match self.payer.expire(self.time, self.chain.claimed) {
            Expiry::Taken => assert!(self.payer.promised() > before),
            Expiry::Waiting | Expiry::Released => {}
        }
        if self.chain.is_over() {
            self.payer.closed();
        }
    }

    /// Time passes, and both look at the chain meanwhile.
    pub(crate) fn pass(&mut self, seconds: u64) {
        let rules = ClaimRules {
            at_least: u128::MAX,
            lock_margin: MARGIN,
        };
        for _ in 0..seconds.div_ceil(60) {
            self.time += 60;
            self.seller_looks(&rules);
            self.buyer_looks();
        }
    }

    pub(crate) fn start_close(&mut self) {
        self.payer.close();
        if self.chain.closes_at == 0 {
            self.chain.closes_at = self.time + u64::from(CHALLENGE);
        }
    }

    /// Nothing more is said: the seller takes what it can, the buyer what is left. Answers wei
    /// that the seller got.
    pub(crate) fn settle(&mut self) -> u128 {
        let now = ClaimRules {
            at_least: 1,
            lock_margin: u64::MAX,
        };
        self.seller_looks(&now);
        self.seller_looks(&now);
        if !self.buyer_gone && !self.chain.is_over() {
            self.start_close();
            self.pass(u64::from(CHALLENGE) + 120);
            assert!(self.chain.is_over(), "the deposit does not come back");
            assert!(self.payer.lock().is_none(), "a lock outlives its channel");
        }
        self.chain.claimed
    }
}

/// Something that goes through states by actions, in whatever order.
pub(crate) trait Model: Clone + Debug {
    type Action: Copy + Debug;

    fn actions(&self) -> Vec<Self::Action>;
    fn act(&mut self, action: Self::Action);
    /// Counts what both have lost if this was all.
    fn judge(&self);
}

/// How a state was reached.
struct Way<A> {
    action: A,
    before: Last<A>,
}

/// The last step of a way, if there was one.
type Last<A> = Option<Rc<Way<A>>>;

/// Hashes what is written to it.
struct Hashing(DefaultHasher);

impl fmt::Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// All that a state says of itself, as a number.
fn number(state: &impl Debug) -> u64 {
    let mut hashing = Hashing(DefaultHasher::new());
    write!(hashing, "{state:?}").unwrap();
    hashing.0.finish()
}

/// Goes through all states that can be reached. Answers how many there are.
pub(crate) fn explore<M: Model>(start: M, mut each: impl FnMut(&M)) -> usize {
    let mut seen = HashSet::from([number(&start)]);
    let mut open: Vec<(M, Last<M::Action>)> = vec![(start, None)];
    while let Some((state, before)) = open.pop() {
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| state.judge()));
        if judged.is_err() {
            let mut way = Vec::new();
            let mut at = before.as_ref();
            while let Some(step) = at {
                way.push(step.action);
                at = step.before.as_ref();
            }
            way.reverse();
            panic!("after {way:?}: {state:#?}");
        }
        each(&state);
        for action in state.actions() {
            let mut next = state.clone();
            next.act(action);
            if seen.insert(number(&next)) {
                let before = before.clone();
                open.push((next, Some(Rc::new(Way { action, before }))));
            }
        }
    }
    seen.len()
}
