//! Channels between real gates and agents: attacks, restarts, ends.

use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::B256;
use chiral_core::{ByteRange, CHUNK_SIZE, PaymentAgent, PaymentGate, Purchase, WalletSigner};
use chiral_payment::channel::messages::{Bind, Pay};
use chiral_payment::channel::payer::Phase;
use chiral_payment::channel::{ChannelMessage, Side};
use chiral_payment::journal::{Crash, CrashSide, CrashStep};
use chiral_payment::messages::{Message, Policy, Signed};
use chiral_payment::{ChainGate, Journal};
use futures_util::FutureExt;

use super::bounds::*;
use super::support::*;

async fn session(world: &World, sides: &Sides) -> Count {
    let mut count = Count::default();
    let line = Line::cut_after(10_000);
    let done = sides.plain(&line, &world.purchase(), &mut count, 0).await;
    done.unwrap();
    count
}

pub(crate) async fn both(world: &World) -> (Sides, Journal, Journal) {
    let (ours, theirs) = (Journal::in_memory().unwrap(), Journal::in_memory().unwrap());
    (world.sides(&ours, &theirs).await, ours, theirs)
}

fn channel_of(sides: &Sides) -> B256 {
    let views = sides.buyers.views();
    let ours: Vec<_> = views
        .iter()
        .filter(|view| view.side == Side::Payer)
        .collect();
    assert_eq!(ours.len(), 1);
    ours[0].id
}

async fn says(gate: &ChainGate, message: ChannelMessage) -> Message {
    tell(gate, Message::Channel(message)).await
}

#[tokio::test]
async fn nothing_paid_in_a_channel_is_on_a_bill() {
    let world = World::new(Policy::Channel, terms());
    let (sides, ..) = both(&world).await;
    session(&world, &sides).await;
    assert!(sides.agent.bills(None).await.unwrap().is_empty());
    assert_eq!(world.till.bills(), 0);
    let id = channel_of(&sides);
    let held = sides.seeders.payee(id).unwrap();
    assert_eq!(held.claimable(), u128::from(CHUNKS) * CHUNK_PRICE);
    sides.end().await;
}

#[tokio::test]
async fn both_end_a_channel_at_once_and_nothing_more_is_taken_from_it() {
    let world = World::new(Policy::Channel, terms());
    let (sides, ..) = both(&world).await;
    session(&world, &sides).await;
    let (id, purchase) = (channel_of(&sides), world.purchase());
    let leave = sides.agent.leave(&purchase).await.unwrap().unwrap();
    let answer = sides.gate.message(leave).await.unwrap();
    assert!(
        sides
            .agent
            .respond(&purchase, answer)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(world.earned(), u128::from(CHUNKS) * CHUNK_PRICE);
    assert!(
        world
            .ledger
            .contract(|contract| contract.state(id))
            .is_over()
    );
    // It is served no more under that channel, and a new one is opened.
    let gone = async {
        while sides.buyers.payer(id).unwrap().phase() != Phase::Closed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    sides.end().await;
}

#[tokio::test]
async fn vouchers_that_are_not_worth_what_they_say_are_refused() {
    let world = World::new(Policy::Channel, terms());
    let (sides, ..) = both(&world).await;
    session(&world, &sides).await;
    let id = channel_of(&sides);
    let share = sides.seeders.shares()[0];
    let agreement = share.agreement;
    let good = sides.buyers.pay(id, share).await.unwrap();
    // The same again, as often as it likes.
    for _ in 0..2 {
        let answer = says(&sides.gate, ChannelMessage::Pay(good)).await;
        let expected = ChannelMessage::Paid {
            agreement,
            bytes: share.bytes,
        };
        assert_eq!(answer, Message::Channel(expected));
    }
    let more_bytes = Pay {
        bytes: good.bytes + 1,
        ..good
    };
    let more_money = Pay {
        cumulative: good.cumulative + 1,
        ..good
    };
    let other_key = {
        let mut bytes = *good.signature.as_bytes();
        bytes[64] ^= 1;
        let signature = chiral_core::WalletSignature::from_bytes(bytes).unwrap();
        Pay { signature, ..good }
    };
    for bad in [more_bytes, more_money, other_key] {
        let why = refusal(says(&sides.gate, ChannelMessage::Pay(bad)).await);
        assert!(why.contains("signed"), "{why}");
    }
    let nowhere = Pay {
        channel: B256::repeat_byte(9),
        ..good
    };
    let answer = says(&sides.gate, ChannelMessage::Pay(nowhere)).await;
    assert_eq!(answer, Message::Ended { agreement });
    sides.end().await;
}

#[tokio::test]
async fn somebody_elses_channel_pays_for_nothing() {
    let world = World::new(Policy::Channel, terms());
    let (sides, ..) = both(&world).await;
    session(&world, &sides).await;
    let agreement = sides.seeders.shares()[0].agreement;
    let channel = B256::repeat_byte(7);
    // Not signed by the session's key.
    let bind = Signed::sign(Bind { agreement, channel }, &CHAIN, &*world.buyer).await;
    let bind = ChannelMessage::Bind(bind.unwrap());
    let why = refusal(says(&sides.gate, bind).await);
    assert!(why.contains("session"), "{why}");
    sides.end().await;
}

#[tokio::test]
async fn a_deposit_that_runs_out_is_topped_up() {
    let mut terms = terms();
    terms.window_cap = 2;
    let world = World::new(Policy::Channel, terms);
    let (ours, theirs) = (Journal::in_memory().unwrap(), Journal::in_memory().unwrap());
    let sides = world.sides(&ours, &theirs).await;
    let opened = sides
        .buyers
        .open(world.seeder.address(), 3600, 5 * CHUNK_PRICE);
    sides.buyers.ready(opened.await.unwrap()).await.unwrap();
    session(&world, &sides).await;
    let id = channel_of(&sides);
    let held = sides.seeders.payee(id).unwrap();
    assert_eq!(held.paid(), u128::from(CHUNKS) * CHUNK_PRICE);
    assert_eq!(held.deposit(), 105 * CHUNK_PRICE);
    sides.end().await;
}

/// Chunks of the file that the buyer's books have.
fn written_down(sides: &Sides, purchase: &Purchase) -> u64 {
    let verified = sides.agent.verified_of(purchase.cid);
    let chunks = verified.len() / CHUNK_SIZE;
    // It comes in order here.
    assert!(chunks == 0 || verified.covers(ByteRange::new(0, chunks * CHUNK_SIZE)));
    chunks
}

/// Agreements under which anything was served.
fn used(world: &World, sides: &Sides) -> usize {
    let account = sides.gate.account(world.buyer.address());
    let served = account.agreements.iter().filter(|one| one.served > 0);
    served.count()
}

/// What is locked is asked for before anything else.
fn locked_or(sides: &Sides, purchase: &Purchase, first: u64) -> u64 {
    let pending = sides.agent.pending(purchase);
    pending.map_or(first, |range| first.min(range.start / CHUNK_SIZE))
}

/// Buys what is left, from `first` on; what an earlier run left to say comes before.
async fn buy(world: &World, sides: &Sides, count: &mut Count, first: u64) -> Result<(), Cut> {
    let (line, purchase) = (Line::cut_after(10_000), world.purchase());
    match world.policy {
        Policy::LockedVoucher => {
            sides.pay(&line, &purchase).await?;
            let (first, mut last) = (locked_or(sides, &purchase, first), None);
            let sealed = sides.sealed(&line, &purchase, count, false, &mut last, first);
            sealed.await
        }
        _ => sides.plain(&line, &purchase, count, first).await,
    }
}

/// A buyer or a seeder that is killed at any of its durable steps goes on from there, in the
/// same channel and agreement: every chunk is paid once, and nothing is lost but what a seeder
/// that was killed itself had not written down.
async fn crash_at(
    world: World,
    buyer_side: bool,
    side: CrashSide,
    number: u64,
    folder: &std::path::Path,
) -> bool {
    let who = if buyer_side { "buyer" } else { "seeder" };
    let what = format!("{side:?} step {number} of the {who}");
    let sealed = world.policy == Policy::LockedVoucher;
    let paths = [folder.join("buyer"), folder.join("seeder")];
    let open = |n: usize| Journal::open(&paths[n]).unwrap();
    let (ours, theirs) = (open(0), open(1));
    let sides = world.sides(&ours, &theirs).await;
    let journal = if buyer_side { &ours } else { &theirs };
    // Of those that come: the start has some of its own.
    let step = CrashStep::Number(journal.steps() + number);
    journal.crash(Crash { side, step });
    let mut count = Count::default();
    let purchase = world.purchase();
    let ended = buy(&world, &sides, &mut count, 0).await;
    let dead = |journal: Journal| async move { journal.read(|_| Ok(())).await.is_err() };
    let crashed = ended.is_err() || dead(ours.clone()).await || dead(theirs.clone()).await;
    sides.end().await;
    ours.close().await;
    theirs.close().await;
    if !crashed {
        return false;
    }

    let (ours, theirs) = (open(0), open(1));
    let sides = world.sides(&ours, &theirs).await;
    // What is not on the books is fetched again, and one chunk more: the disk may be behind.
    let behind = u64::from(buyer_side || !sealed);
    let first = written_down(&sides, &purchase).saturating_sub(behind);
    let mut again = buy(&world, &sides, &mut count, first).await;
    if again.is_err() && !buyer_side {
        // What it had promised and not written down it has not promised.
        again = buy(&world, &sides, &mut count, first).await;
    }
    assert!(again.is_ok(), "{what}: it does not go on: {again:?}");
    assert_eq!(written_down(&sides, &purchase), CHUNKS, "{what}");
    let (channels, agreements) = (sides.buyers.views().len(), used(&world, &sides));
    if buyer_side {
        assert_eq!((channels, agreements), (1, 1), "{what}");
    }
    world.aftermath(&sides).await;
    let (earned, price) = (world.earned(), u128::from(CHUNKS) * CHUNK_PRICE);
    assert!(earned <= price, "{what}: {earned} for {price}");
    assert!(
        earned + 4 * CHUNK_PRICE >= price,
        "{what}: {earned} for {price}"
    );
    if buyer_side || sealed {
        assert_eq!(earned, price, "{what}");
    }
    sides.end().await;
    ours.close().await;
    theirs.close().await;
    true
}

/// However often a buyer is killed, the seeder loses a window in all its lives together, and
/// the buyer nothing; and as it pays it gets on.
async fn all_lives(policy: Policy, at_once: bool) {
    for every in [3, 5, 8] {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(policy, terms());
        world.at_once = at_once;
        let paths = ["buyer", "seeder"].map(|name| folder.path().join(name));
        let theirs = Journal::open(&paths[1]).unwrap();
        let purchase = world.purchase();
        let (mut reached, mut lives, mut done) = (0, 0, false);
        while !done && lives < 40 {
            lives += 1;
            let ours = Journal::open(&paths[0]).unwrap();
            let sides = world.sides(&ours, &theirs).await;
            let first = locked_or(&sides, &purchase, written_down(&sides, &purchase));
            let side = [CrashSide::Before, CrashSide::After][lives % 2];
            // More steps in each life: the first ones are those of a start.
            let step = CrashStep::Number(ours.steps() + every + lives as u64);
            ours.crash(Crash { side, step });
            let mut count = Count::default();
            done = buy(&world, &sides, &mut count, first).await.is_ok();
            reached = reached.max(first + u64::try_from(count.sent).unwrap());
            let paid: u64 = sides.seeders.shares().iter().map(|share| share.bytes).sum();
            let lost = (reached.min(CHUNKS) * CHUNK_SIZE).saturating_sub(paid) / CHUNK_SIZE;
            assert!(lost <= 4, "every {every}, life {lives}: {lost} chunks");
            sides.end().await;
            ours.close().await;
        }
        assert!(done && lives > 1, "every {every}: {lives} lives");
        let ours = Journal::open(&paths[0]).unwrap();
        let sides = world.sides(&ours, &theirs).await;
        if policy == Policy::LockedVoucher {
            let (channels, agreements) = (sides.buyers.views().len(), used(&world, &sides));
            assert_eq!((channels, agreements), (1, 1), "every {every}");
        }
        world.aftermath(&sides).await;
        let (earned, price) = (world.earned(), u128::from(CHUNKS) * CHUNK_PRICE);
        let lost = match policy {
            Policy::LockedVoucher => 0,
            _ => 4 * CHUNK_PRICE,
        };
        assert!(
            earned <= price && earned + lost >= price,
            "every {every}: {earned} for {price}"
        );
        sides.end().await;
        ours.close().await;
        theirs.close().await;
    }
}

#[tokio::test]
async fn over_all_lives_of_a_buyer_the_loss_is_one_window() {
    all_lives(Policy::Channel, false).await;
}

#[tokio::test]
async fn over_all_lives_of_a_buyer_each_key_is_bought_once() {
    all_lives(Policy::LockedVoucher, false).await;
    all_lives(Policy::LockedVoucher, true).await;
}

/// Who has everything sent again and again and pays nothing gets a window, twice; and who pays
/// gets no more of it than it paid.
#[tokio::test]
async fn what_is_sent_again_is_bounded_by_what_was_paid() {
    let world = World::new(Policy::Channel, terms());
    let (sides, ..) = both(&world).await;
    let purchase = world.purchase();
    let line = Line::cut_after(10_000);
    // Of the file's chunks so many are paid for.
    for (paid, expected) in [(0_u64, 2_u64), (3, 4 + 4 + 3 - 1)] {
        let mut sent = 0;
        for at in 0..100 {
            let range = chunk(paid + at % [1, 4][usize::from(paid > 0)]);
            let Ok(Some(request)) = sides.ask(&line, &purchase, range, false, true).await else {
                break;
            };
            sides.gate.served(&request, range).await;
            sent += 1;
        }
        assert_eq!(sent, expected, "{paid} chunks are paid for");
        let mut next = paid;
        while next < 3 {
            sides.agent.verified(&purchase, chunk(next)).await;
            sides.pay(&line, &purchase).await.unwrap();
            next += 1;
            if next < 3 {
                let asked = sides.ask(&line, &purchase, chunk(next), false, false).await;
                let request = asked.unwrap().unwrap();
                sides.gate.served(&request, chunk(next)).await;
            }
        }
    }
    sides.end().await;
}

async fn every_step(policy: Policy, buyer_side: bool) {
    every_step_in(|| World::new(policy, terms()), buyer_side).await;
}

pub(crate) async fn every_step_in(world: impl Fn() -> World, buyer_side: bool) {
    let mut crashes = 0;
    for number in 1..200 {
        let mut any = false;
        for side in [CrashSide::Before, CrashSide::After] {
            let folder = tempfile::tempdir().unwrap();
            any |= crash_at(world(), buyer_side, side, number, folder.path()).await;
        }
        if !any {
            break;
        }
        crashes += 1;
    }
    assert!((8..200).contains(&crashes), "{crashes} steps");
}

#[tokio::test]
async fn no_chunk_is_paid_twice_whichever_step_of_the_buyer_is_the_last() {
    every_step(Policy::Channel, true).await;
}

#[tokio::test]
async fn no_payment_is_lost_whichever_step_of_the_seeder_is_the_last() {
    every_step(Policy::Channel, false).await;
}

#[tokio::test]
async fn no_key_is_bought_twice_whichever_step_of_the_buyer_is_the_last() {
    every_step(Policy::LockedVoucher, true).await;
}

#[tokio::test]
async fn no_lock_is_lost_whichever_step_of_the_seeder_is_the_last() {
    every_step(Policy::LockedVoucher, false).await;
}

/// The worst that a kill can take: all that it served since it was started.
#[tokio::test]
async fn no_lock_is_lost_by_a_seeder_that_forgets_what_it_served() {
    let world = || {
        let mut world = World::new(Policy::LockedVoucher, terms());
        world.flush = Duration::from_secs(3600);
        world
    };
    every_step_in(world, false).await;
}

/// How a channel is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Together,
    Alone,
}

/// Buys the file out of a channel whose deposit has to be topped up on the way, and ends it.
async fn life(world: &World, sides: &Sides, end: End) -> Result<(), Cut> {
    let purchase = world.purchase();
    let first = written_down(sides, &purchase);
    buy(world, sides, &mut Count::default(), first).await?;
    let id = channel_of(sides);
    if sides.buyers.payer(id).unwrap().phase() != Phase::Open {
        return Ok(());
    }
    if end == End::Alone {
        return sides.buyers.close(id).await.map_err(cut);
    }
    let Some(leave) = sides.agent.leave(&purchase).await.map_err(cut)? else {
        return Ok(());
    };
    let answer = sides.gate.message(leave).await.map_err(cut)?;
    sides.agent.respond(&purchase, answer).await.map_err(cut)?;
    Ok(())
}

/// Killed before or after the step of that name; what each of them has in the end is exact, and
/// so is what came back. False if there was no such step: what it writes went with another.
async fn crash_named(name: &str, buyer_side: bool, end: End, side: CrashSide) -> bool {
    let what = format!("{side:?} {name}");
    let folder = tempfile::tempdir().unwrap();
    let paths = ["buyer", "seeder"].map(|name| folder.path().join(name));
    let open = |n: usize| Journal::open(&paths[n]).unwrap();
    let mut terms = terms();
    terms.window_cap = 2;
    let world = World::new(Policy::Channel, terms);
    let (ours, theirs) = (open(0), open(1));
    let sides = world.sides(&ours, &theirs).await;
    let first = 5 * CHUNK_PRICE;
    let opened = sides.buyers.open(world.seeder.address(), 3600, first);
    let id = opened.await.unwrap();
    sides.buyers.ready(id).await.unwrap();
    let step = CrashStep::Named(name.to_owned());
    let journal = if buyer_side { &ours } else { &theirs };
    journal.crash(Crash { side, step });
    let lived = life(&world, &sides, end).await;
    let is_dead = journal.read(|_| Ok(())).await.is_err();
    sides.end().await;
    ours.close().await;
    theirs.close().await;
    if !is_dead {
        assert!(lived.is_ok(), "{what}: {lived:?}");
        return false;
    }

    let (ours, theirs) = (open(0), open(1));
    let sides = world.sides(&ours, &theirs).await;
    let mut again = life(&world, &sides, end).await;
    if again.is_err() && !buyer_side {
        again = life(&world, &sides, end).await;
    }
    assert!(again.is_ok(), "{what}: it does not go on: {again:?}");
    assert_eq!(channel_of(&sides), id, "{what}");
    world.aftermath(&sides).await;
    let price = u128::from(CHUNKS) * CHUNK_PRICE;
    assert_eq!(world.earned(), price, "{what}");
    // Topped up once, and everything else is back.
    assert_eq!(world.returned() + price, 105 * CHUNK_PRICE, "{what}");
    sides.end().await;
    ours.close().await;
    theirs.close().await;
    true
}

#[tokio::test]
async fn topping_up_and_ending_a_channel_happen_once_whatever_is_killed() {
    for (name, buyer_side, end) in [
        ("channel-top-up", true, End::Together),
        ("channel-left", true, End::Together),
        ("channel-leave", false, End::Together),
        ("channel-close", true, End::Alone),
    ] {
        for side in [CrashSide::Before, CrashSide::After] {
            let mut crashed = false;
            for _ in 0..10 {
                crashed = crashed || crash_named(name, buyer_side, end, side).await;
            }
            assert!(crashed, "{name} is never written by itself");
        }
    }
}

/// Off while the buyer ends the channel, a seeder has until the end of the challenge period to
/// come back: then its watcher takes everything, unasked, and after that nothing.
#[tokio::test]
async fn a_seeder_that_was_off_claims_if_it_comes_back_in_time() {
    for (away, earns) in [(CHALLENGE - 60, true), (CHALLENGE, false)] {
        let world = World::new(Policy::Channel, terms());
        let (sides, ours, theirs) = both(&world).await;
        session(&world, &sides).await;
        let id = channel_of(&sides);
        let _ = (sides.gate.shutdown().await, sides.seeders.shutdown().await);
        sides.buyers.close(id).await.unwrap();
        let closing = async {
            while world
                .ledger
                .contract(|contract| contract.state(id))
                .closes_at
                == 0
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closing)
            .await
            .unwrap();
        sides.end().await;
        world.pass_time(away.into());

        let sides = world.sides(&ours, &theirs).await;
        let over = async {
            while world.earned() + world.returned() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), over)
            .await
            .unwrap();
        let price = u128::from(CHUNKS) * CHUNK_PRICE;
        assert_eq!(
            world.earned(),
            if earns { price } else { 0 },
            "after {away} s"
        );
        sides.end().await;
    }
}

/// The first two things that a journal has of channels: killed at either, it begins as if for
/// the first time, or goes on from there.
#[tokio::test]
async fn channels_begin_again_wherever_their_first_start_was_cut_off() {
    for name in ["channel-contract", "channel-secret"] {
        for side in [CrashSide::Before, CrashSide::After] {
            let folder = tempfile::tempdir().unwrap();
            let paths = ["buyer", "seeder"].map(|name| folder.path().join(name));
            let world = World::new(Policy::LockedVoucher, terms());
            for (n, path) in paths.iter().enumerate() {
                let journal = Journal::open(path).unwrap();
                let step = CrashStep::Named(name.to_owned());
                journal.crash(Crash { side, step });
                assert!(world.house(&journal, n).await.is_err(), "{side:?} {name}");
                journal.close().await;
            }
            let [ours, theirs] = paths.map(|path| Journal::open(path).unwrap());
            let sides = world.sides(&ours, &theirs).await;
            let mut count = Count::default();
            buy(&world, &sides, &mut count, 0).await.unwrap();
            assert_eq!(count.had, u128::from(CHUNKS), "{side:?} {name}");
            sides.end().await;
        }
    }
}

/// A buyer that has begun to end a channel without waiting for it, and was killed as it wrote
/// that down. `None` if it was written down before, by the disk's speed or by its watcher.
async fn killed_at_the_end(world: &World, side: CrashSide, paths: &[PathBuf; 2]) -> Option<B256> {
    let [ours, theirs] = paths.clone().map(|path| Journal::open(path).unwrap());
    let sides = world.sides(&ours, &theirs).await;
    session(world, &sides).await;
    let id = channel_of(&sides);
    let step = CrashStep::Named("channel-flush".to_owned());
    ours.crash(Crash { side, step });
    // Asked once, and not again.
    let _ = sides.buyers.close(id).now_or_never();
    let _ = sides.buyers.shutdown().await;
    let killed = ours.read(|_| Ok(())).await.is_err();
    sides.end().await;
    ours.close().await;
    theirs.close().await;
    killed.then_some(id)
}

/// Whoever begins to end a channel and does not wait for it has changed what is written at the
/// latest when the node ends. Killed there, it has begun to or it has not.
#[tokio::test]
async fn what_nobody_waited_for_is_written_at_the_end_or_never_was() {
    for side in [CrashSide::Before, CrashSide::After] {
        let mut killed = None;
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let paths = ["buyer", "seeder"].map(|name| folder.path().join(name));
            let world = World::new(Policy::Channel, terms());
            let id = killed_at_the_end(&world, side, &paths).await;
            killed = id.map(|id| (id, world, paths, folder));
            if killed.is_some() {
                break;
            }
        }
        let (id, world, paths, _folder) = killed.expect("it was always written down before");
        let [ours, theirs] = paths.map(|path| Journal::open(path).unwrap());
        let sides = world.sides(&ours, &theirs).await;
        assert_eq!(channel_of(&sides), id);
        world.aftermath(&sides).await;
        let price = u128::from(CHUNKS) * CHUNK_PRICE;
        assert_eq!(world.earned(), price, "{side:?}");
        assert_eq!(world.returned() + price, 100 * CHUNK_PRICE, "{side:?}");
        sides.end().await;
    }
}
