//! Option B: chunks within a window, and vouchers behind them.

use std::collections::{BTreeSet, VecDeque};

use chiral_core::CHUNK_SIZE;
use chiral_payment::channel::payer::Phase;
use chiral_payment::channel::{Voucher, Window};

use crate::world::{Ends, Model, PRICE, Sign, agreement, explore, share};

/// Chunks of the file; the window's beginning and end.
const CHUNKS: u8 = 3;
const WINDOW: (u32, u32) = (1, 2);

#[derive(Clone, Copy, Debug)]
enum Ask {
    Request(u8),
    Pay(Voucher, u64),
}

#[derive(Clone, Copy, Debug)]
struct Troubles {
    kills_buyer: u8,
    kills_seller: u8,
    cuts: u8,
    repeats: u8,
    vanish: bool,
    close: bool,
}

#[derive(Clone, Debug)]
struct Session {
    ends: Ends,
    asks: VecDeque<Ask>,
    chunks: VecDeque<u8>,
    asked: BTreeSet<u8>,
    /// On the buyer's disk, proven.
    had: BTreeSet<u8>,
    /// What the seller has on its books as sent: forgotten in a kill.
    sent: u64,
    /// What it did send.
    ever: u64,
    left: Troubles,
    first: Troubles,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Request(u8),
    Pay,
    Repay,
    Hear,
    Arrive,
    Cut,
    KillBuyer,
    KillSeller,
    BuyerGone,
    SellerGone,
    Close,
}

impl Session {
    fn new(left: Troubles) -> Self {
        Self {
            ends: Ends::new(),
            asks: VecDeque::new(),
            chunks: VecDeque::new(),
            asked: BTreeSet::new(),
            had: BTreeSet::new(),
            sent: 0,
            ever: 0,
            left,
            first: left,
        }
    }

    fn paid(&self) -> u64 {
        self.ends.payee.share(agreement()).bytes
    }

    fn cut(&mut self) {
        self.asks.clear();
        self.chunks.clear();
        self.asked.clear();
    }

    fn hear(&mut self, ask: Ask) {
        match ask {
            Ask::Request(chunk) => {
                let mut window = Window::new(WINDOW.0, WINDOW.1);
                window.paid(self.paid() * CHUNK_SIZE);
                let unpaid = self.sent.saturating_sub(self.paid());
                if self.ends.payee.is_open() && unpaid < u64::from(window.chunks()) {
                    self.sent += 1;
                    self.ever += 1;
                    self.chunks.push_back(chunk);
                }
            }
            Ask::Pay(voucher, bytes) => {
                let _ = self.ends.payee.take(share(bytes), voucher.signed());
            }
        }
    }
}

impl Model for Session {
    type Action = Action;

    fn actions(&self) -> Vec<Action> {
        let mut all = Vec::new();
        let (buyer, seller) = (!self.ends.buyer_gone, !self.ends.seller_gone);
        let open = self.ends.payer.phase() == Phase::Open;
        let promised = self.ends.payer.share(agreement()).bytes;
        if buyer && open {
            let wanted = |chunk: &u8| !self.had.contains(chunk) && !self.asked.contains(chunk);
            all.extend((0..CHUNKS).filter(wanted).take(2).map(Action::Request));
            // Nothing is promised that is not proven.
            if self.had.len() as u64 > promised {
                all.push(Action::Pay);
            }
            if promised > 0 && self.left.repeats > 0 {
                all.push(Action::Repay);
            }
        }
        if seller && !self.asks.is_empty() {
            all.push(Action::Hear);
        }
        if buyer && !self.chunks.is_empty() {
            all.push(Action::Arrive);
        }
        let line = !self.asks.is_empty() || !self.chunks.is_empty();
        if line && self.left.cuts > 0 {
            all.push(Action::Cut);
        }
        if buyer && self.left.kills_buyer > 0 {
            all.push(Action::KillBuyer);
        }
        if seller && self.left.kills_seller > 0 {
            all.push(Action::KillSeller);
        }
        if self.left.vanish && buyer && seller {
            all.extend([Action::BuyerGone, Action::SellerGone]);
        }
        if self.left.close && buyer && open {
            all.push(Action::Close);
        }
        all
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Request(chunk) => {
                self.asked.insert(chunk);
                self.asks.push_back(Ask::Request(chunk));
            }
            Action::Pay => {
                let share = share(self.had.len() as u64);
                let voucher = self.ends.payer.pay(share).unwrap();
                self.asks.push_back(Ask::Pay(voucher, share.bytes));
            }
            Action::Repay => {
                self.left.repeats -= 1;
                let share = self.ends.payer.share(agreement());
                let voucher = self.ends.payer.pay(share).unwrap();
                self.asks.push_back(Ask::Pay(voucher, share.bytes));
            }
            Action::Hear => {
                let ask = self.asks.pop_front().unwrap();
                self.hear(ask);
            }
            Action::Arrive => {
                let chunk = self.chunks.pop_front().unwrap();
                self.asked.remove(&chunk);
                self.had.insert(chunk);
            }
            Action::Cut => {
                self.left.cuts -= 1;
                self.cut();
            }
            Action::KillBuyer => {
                self.left.kills_buyer -= 1;
                self.cut();
            }
            Action::KillSeller => {
                self.left.kills_seller -= 1;
                self.cut();
                // In the buyer's favour: counts of what was sent are written now and then.
                self.sent = self.paid();
            }
            Action::BuyerGone => {
                self.left.vanish = false;
                self.ends.buyer_gone = true;
            }
            Action::SellerGone => {
                self.left.vanish = false;
                self.ends.seller_gone = true;
            }
            Action::Close => {
                self.left.close = false;
                self.ends.start_close();
            }
        }
    }

    fn judge(&self) {
        let mut after = self.clone();
        let earned = after.ends.settle();
        let worth = self.had.len() as u128 * PRICE;
        assert!(earned <= worth, "the buyer pays {earned} for {worth}");
        let lives = 1 + u128::from(self.first.kills_seller - self.left.kills_seller);
        if !self.ends.seller_gone {
            let unpaid = u128::from(self.ever) - earned / PRICE;
            let most = lives * u128::from(WINDOW.1);
            assert!(unpaid <= most, "{unpaid} chunks for nothing");
            // Who has never paid has a smaller window.
            if earned == 0 && self.paid() == 0 {
                assert!(
                    unpaid <= lives * u128::from(WINDOW.0),
                    "{unpaid} chunks for nothing"
                );
            }
        }
    }
}

fn explored(troubles: Troubles) -> usize {
    let mut complete = false;
    let states = explore(Session::new(troubles), |session| {
        complete |= session.paid() == u64::from(CHUNKS);
    });
    assert!(complete, "it never comes to its end");
    states
}

const QUIET: Troubles = Troubles {
    kills_buyer: 0,
    kills_seller: 0,
    cuts: 0,
    repeats: 0,
    vanish: false,
    close: false,
};

#[test]
fn session_messages_lost_repeated_and_sides_that_vanish() {
    let states = explored(Troubles {
        cuts: 1,
        repeats: 2,
        vanish: true,
        ..QUIET
    });
    assert!(states > 1000, "{states}");
}

#[test]
fn session_either_side_killed_and_started_again() {
    let states = explored(Troubles {
        kills_buyer: 1,
        kills_seller: 1,
        repeats: 1,
        ..QUIET
    });
    assert!(states > 1000, "{states}");
}

#[test]
fn session_that_is_ended_while_vouchers_are_on_their_way() {
    let states = explored(Troubles {
        cuts: 1,
        repeats: 1,
        vanish: true,
        close: true,
        ..QUIET
    });
    assert!(states > 1000, "{states}");
}
