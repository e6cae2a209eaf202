//! A payment and the lock behind it: promised in one step, said in one message, taken in one
//! step.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::{CHUNK_SIZE, Cid, PaymentAgent, PaymentGate, Purchase, Sealed, WalletSigner};
use chiral_payment::Journal;
use chiral_payment::channel::{ChannelMessage, Channels};
use chiral_payment::journal::{Crash, CrashSide, CrashStep};
use chiral_payment::messages::{Message, Policy};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::bounds::{CHUNK_PRICE, CHUNKS, Count, Line, Sides, World, chunk, terms};
use super::channels::{both, every_step_in};

fn line() -> Line {
    Line::cut_after(10_000)
}

/// A chunk, sealed.
async fn sealed(sides: &Sides, purchase: &Purchase, index: u64) -> Sealed {
    let asked = sides
        .ask(&line(), purchase, chunk(index), true, false)
        .await;
    let request = asked.unwrap().unwrap();
    let plain = Bytes::from(vec![index as u8; CHUNK_SIZE as usize]);
    let sealed = sides.gate.seal(&request, plain).await.unwrap();
    sides.gate.served(&request, chunk(index)).await;
    sealed
}

/// Has its key bought by a lock alone, and finds it right.
async fn open(sides: &Sides, purchase: &Purchase, index: u64, sealed: &Sealed) {
    let (agent, range) = (&sides.agent, chunk(index));
    let lock = agent.lock(purchase, range, sealed).await.unwrap();
    let key = sides.gate.message(lock).await.unwrap();
    let plain = agent.unseal(purchase, range, sealed, key).await;
    assert!(plain.unwrap().iter().all(|byte| u64::from(*byte) == index));
    agent.verified(purchase, range).await;
}

/// Wei that the seeder has vouchers for.
fn paid(sides: &Sides) -> u128 {
    let views = sides.seeders.views();
    views.iter().map(|view| view.paid).sum()
}

#[tokio::test]
async fn no_key_is_bought_twice_whichever_step_of_the_buyer_is_the_last() {
    every_step_in(
        || World::new(Policy::LockedVoucher, terms()).at_once(),
        true,
    )
    .await;
}

#[tokio::test]
async fn no_lock_is_lost_whichever_step_of_the_seeder_is_the_last() {
    every_step_in(
        || World::new(Policy::LockedVoucher, terms()).at_once(),
        false,
    )
    .await;
}

/// A lock that is refused takes nothing away from the payment in front of it; and both can be
/// said again.
#[tokio::test]
async fn the_payment_is_taken_whatever_becomes_of_the_lock() {
    let world = World::new(Policy::LockedVoucher, terms());
    let (sides, ..) = both(&world).await;
    let purchase = world.purchase();
    let mut both = Vec::new();
    for index in 0..2 {
        both.push(sealed(&sides, &purchase, index).await);
    }
    let sealed = both;
    let (agent, gate) = (&sides.agent, &sides.gate);
    // Nothing is opened yet, so that there is nothing to pay for.
    let early = agent.pay_and_lock(&purchase, chunk(1), &sealed[1]).await;
    assert_eq!(early.unwrap(), None);
    let lock = agent.lock(&purchase, chunk(0), &sealed[0]).await.unwrap();
    let key = gate.message(lock).await.unwrap();
    agent
        .unseal(&purchase, chunk(0), &sealed[0], key)
        .await
        .unwrap();
    // Opened, and not found right yet.
    let early = agent.pay_and_lock(&purchase, chunk(1), &sealed[1]).await;
    assert_eq!(early.unwrap(), None);
    agent.verified(&purchase, chunk(0)).await;
    let promised = agent.pay_and_lock(&purchase, chunk(1), &sealed[1]).await;
    let promised = promised.unwrap().unwrap();

    let Ok(Message::Channel(ChannelMessage::PayAndLock(pay, lock))) =
        Message::decode(&promised.both)
    else {
        panic!("not both");
    };
    let alone = Message::Channel(ChannelMessage::Pay(pay)).encode();
    assert_eq!(promised.pay, alone);
    let mut elsewhere = lock;
    elsewhere.counter += 100;
    let mut of_another = lock;
    of_another.agreement.0[0] ^= 1;
    let paid = || sides.seeders.payee(pay.channel).unwrap().paid();
    for (lock, expected) in [(of_another, 0), (elsewhere, CHUNK_PRICE)] {
        let both = Message::Channel(ChannelMessage::PayAndLock(pay, lock)).encode();
        let answer = Message::decode(&gate.message(both).await.unwrap()).unwrap();
        assert!(matches!(answer, Message::Refused { .. }), "{answer:?}");
        assert_eq!(paid(), expected);
    }
    let key = gate.message(promised.both).await.unwrap();
    let plain = agent.unseal(&purchase, chunk(1), &sealed[1], key).await;
    assert_eq!(plain.unwrap()[0], 1);
    assert_eq!(paid(), CHUNK_PRICE);
    sides.end().await;
}

/// The message is lost each time, and what was promised is said again, one by one.
#[tokio::test]
async fn what_was_lost_is_said_again_however_often() {
    let world = World::new(Policy::LockedVoucher, terms());
    let (sides, ..) = both(&world).await;
    let purchase = world.purchase();
    for index in 0..CHUNKS {
        let sealed = sealed(&sides, &purchase, index).await;
        let lost = sides.agent.pay_and_lock(&purchase, chunk(index), &sealed);
        assert_eq!(lost.await.unwrap().is_some(), index > 0);
        sides.pay(&line(), &purchase).await.unwrap();
        assert_eq!(paid(&sides), u128::from(index) * CHUNK_PRICE);
        open(&sides, &purchase, index, &sealed).await;
    }
    sides.pay(&line(), &purchase).await.unwrap();
    world.aftermath(&sides).await;
    assert_eq!(world.earned(), u128::from(CHUNKS) * CHUNK_PRICE);
    sides.end().await;
}

/// What is in the channel is not enough for the lock: the payment does not wait for that.
#[tokio::test]
async fn a_deposit_that_runs_out_between_the_two_is_topped_up() {
    let world = World::new(Policy::LockedVoucher, terms()).at_once();
    let (sides, ..) = both(&world).await;
    let opened = sides
        .buyers
        .open(world.seeder.address(), 3600, 3 * CHUNK_PRICE);
    sides.buyers.ready(opened.await.unwrap()).await.unwrap();
    let (purchase, mut count) = (world.purchase(), Count::default());
    let (line, mut last) = (line(), None);
    let bought = sides.sealed(&line, &purchase, &mut count, false, &mut last, 0);
    bought.await.unwrap();
    assert_eq!(count.had, u128::from(CHUNKS));
    world.aftermath(&sides).await;
    assert_eq!(world.earned(), u128::from(CHUNKS) * CHUNK_PRICE);
    sides.end().await;
}

/// A lock whose key came right before the terms were over is paid under them, though others
/// were agreed on: nothing else can be locked before.
#[tokio::test]
async fn a_lock_under_terms_that_are_over_is_paid_before_the_next() {
    let world = World::new(Policy::LockedVoucher, terms());
    let (sides, ..) = both(&world).await;
    let first = sealed(&sides, &world.purchase(), 0).await;
    world.pass_time(2 * 3600 - 60);
    let purchase = world.purchase();
    open(&sides, &purchase, 0, &first).await;
    world.pass_time(120);
    let second = sealed(&sides, &purchase, 1).await;
    let account = sides.gate.account(world.buyer.address());
    assert_eq!(account.agreements.len(), 2, "the terms were over");
    let (agent, range) = (&sides.agent, chunk(1));
    let promised = agent.pay_and_lock(&purchase, range, &second).await;
    assert_eq!(promised.unwrap(), None);
    sides.pay(&line(), &purchase).await.unwrap();
    assert_eq!(paid(&sides), CHUNK_PRICE);
    open(&sides, &purchase, 1, &second).await;
    sides.pay(&line(), &purchase).await.unwrap();
    world.aftermath(&sides).await;
    assert_eq!(world.earned(), 2 * CHUNK_PRICE);
    sides.end().await;
}

/// Whoever heard a voucher and was stopped before it was on disk does not say that it has it
/// before that is so.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_on_disk_though_it_was_heard_before() {
    for with_lock in [false, true] {
        let world = World::new(Policy::LockedVoucher, terms());
        let (sides, _ours, theirs) = both(&world).await;
        let purchase = world.purchase();
        let first = sealed(&sides, &purchase, 0).await;
        let second = sealed(&sides, &purchase, 1).await;
        open(&sides, &purchase, 0, &first).await;
        let promised = sides.agent.pay_and_lock(&purchase, chunk(1), &second);
        let promised = promised.await.unwrap().unwrap();
        let message = match with_lock {
            true => promised.both,
            false => promised.pay.clone(),
        };
        // Somebody else writes just now.
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (go, waits) = std::sync::mpsc::sync_channel::<()>(1);
        let journal = theirs.clone();
        let busy = tokio::spawn(async move {
            let work = move |_: &_| {
                begun.send(()).unwrap();
                waits.recv().unwrap();
                Ok(())
            };
            journal.write("busy", work).await
        });
        begins.await.unwrap();
        assert!(sides.gate.message(message).now_or_never().is_none());
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        let on_disk = || async {
            let views = Channels::views_in(&theirs).await.unwrap();
            views.iter().map(|view| view.paid).sum::<u128>()
        };
        assert_eq!((paid(&sides), on_disk().await), (CHUNK_PRICE, 0));
        let answer = sides.gate.message(promised.pay).await.unwrap();
        let answer = Message::decode(&answer).unwrap();
        let said = matches!(
            answer,
            Message::Channel(ChannelMessage::Paid {
                bytes: CHUNK_SIZE,
                ..
            })
        );
        assert!(said, "{answer:?}");
        assert_eq!(on_disk().await, CHUNK_PRICE);
        sides.end().await;
    }
}

/// Two files from one seeder are paid out of one channel, in which one lock is open at a time:
/// whoever has the next chunk always at hand does not keep the other out. And no lock is sent
/// before the payment for the one before has arrived, whichever connection it takes.
#[tokio::test]
async fn two_files_of_one_seeder_take_turns() {
    for heard in [true, false] {
        let world = World::new(Policy::LockedVoucher, terms()).at_once();
        let (sides, ..) = both(&world).await;
        let (agent, gate) = (&sides.agent, &sides.gate);
        let (ours, mut theirs) = (world.purchase(), world.purchase());
        theirs.cid = Cid::from_bytes([8; 32]);
        let first = sealed(&sides, &ours, 0).await;
        open(&sides, &ours, 0, &first).await;
        let of_other = sealed(&sides, &theirs, 0).await;
        let mut waiting = pin!(agent.lock(&theirs, chunk(0), &of_other));
        let (soon, late) = (Duration::from_millis(100), Duration::from_secs(3));
        let early = timeout(soon, &mut waiting).await;
        assert!(early.is_err(), "{early:?}, {:?}", sides.buyers.views());
        let second = sealed(&sides, &ours, 1).await;
        let promised = agent.pay_and_lock(&ours, chunk(1), &second).await;
        assert_eq!(promised.unwrap(), None, "the other's turn has come");
        let due = agent.due(&ours).await.unwrap().unwrap();
        assert!(timeout(soon, &mut waiting).await.is_err(), "too early");
        let hear = async {
            let answer = gate.message(due).await.unwrap();
            assert_eq!(agent.respond(&ours, answer).await.unwrap(), None);
        };
        let lock = match heard {
            true => {
                hear.await;
                timeout(soon, waiting).await.unwrap().unwrap()
            }
            false => {
                let lock = timeout(late, waiting).await.unwrap().unwrap();
                let early = Message::decode(&gate.message(lock.clone()).await.unwrap());
                let early = early.unwrap();
                assert!(matches!(early, Message::NotYet { .. }), "{early:?}");
                hear.await;
                lock
            }
        };
        let key = gate.message(lock).await.unwrap();
        let plain = agent.unseal(&theirs, chunk(0), &of_other, key).await;
        assert_eq!(plain.unwrap()[0], 0);
        let mut waiting = pin!(agent.lock(&ours, chunk(1), &second));
        assert!(timeout(soon, &mut waiting).await.is_err());
        agent.verified(&theirs, chunk(0)).await;
        sides.pay(&line(), &theirs).await.unwrap();
        let lock = timeout(soon, waiting).await.unwrap().unwrap();
        let key = gate.message(lock).await.unwrap();
        let plain = agent.unseal(&ours, chunk(1), &second, key).await;
        assert_eq!(plain.unwrap()[0], 1);
        agent.verified(&ours, chunk(1)).await;
        sides.pay(&line(), &ours).await.unwrap();
        assert_eq!(sides.buyers.views().len(), 1);
        world.aftermath(&sides).await;
        assert_eq!(world.earned(), 3 * CHUNK_PRICE);
        sides.end().await;
    }
}

/// What a key opened is on disk as verified with the key: a buyer that is killed then pays for
/// it as soon as it is back, and nothing is sent once more.
#[tokio::test]
async fn what_was_opened_before_a_kill_is_paid_without_another_upload() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(Policy::LockedVoucher, terms());
    let path = folder.path().join("buyer");
    let (ours, theirs) = (Journal::open(&path).unwrap(), Journal::in_memory().unwrap());
    let sides = world.sides(&ours, &theirs).await;
    let purchase = world.purchase();
    let first = sealed(&sides, &purchase, 0).await;
    open(&sides, &purchase, 0, &first).await;
    assert!(sides.agent.verified_of(purchase.cid).covers(chunk(0)));
    let step = CrashStep::Number(ours.steps() + 1);
    let side = CrashSide::Before;
    ours.crash(Crash { side, step });
    sides.end().await;
    ours.close().await;

    let ours = Journal::open(&path).unwrap();
    let sides = world.sides(&ours, &theirs).await;
    assert!(sides.agent.verified_of(purchase.cid).covers(chunk(0)));
    sides.pay(&line(), &purchase).await.unwrap();
    assert_eq!(paid(&sides), CHUNK_PRICE);
    assert_eq!(sides.agent.pending(&purchase), None);
    sides.end().await;
}
