//! Only one side is gone, after each of a session's messages: the other ends the channel alone,
//! and has lost no more than the table says.

use chiral_payment::Journal;
use chiral_payment::messages::Policy;

use super::bounds::*;

/// Who is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Buyer,
    Seeder,
}

/// The worst loss of whoever is left, in wei, over all messages.
async fn worst(policy: Policy, left: Left) -> u128 {
    let mut worst = 0;
    for messages in 0..400 {
        let mut terms = terms();
        if policy == Policy::Incremental {
            terms.batch = 3;
        }
        let world = World::new(policy, terms);
        let (ours, theirs) = (Journal::in_memory().unwrap(), Journal::in_memory().unwrap());
        let sides = world.sides(&ours, &theirs).await;
        let (line, purchase) = (Line::cut_after(messages), world.purchase());
        let (mut count, mut last) = (Count::default(), None);
        let end = match policy {
            Policy::LockedVoucher => {
                let sealed = sides.sealed(&line, &purchase, &mut count, false, &mut last, 0);
                sealed.await
            }
            _ => sides.plain(&line, &purchase, &mut count, 0).await,
        };
        let deposited: u128 = sides.buyers.views().iter().map(|view| view.deposit).sum();
        let opened = !sides.buyers.views().is_empty();
        let lost = match left {
            Left::Seeder => {
                let _ = (sides.agent.shutdown().await, sides.buyers.shutdown().await);
                world.claim(&sides).await;
                let given = match policy {
                    // Of sealed bytes nothing but the upload is lost.
                    Policy::LockedVoucher => count.had,
                    _ => count.sent,
                };
                (given * CHUNK_PRICE).saturating_sub(world.earned())
            }
            Left::Buyer => {
                let _ = (sides.gate.shutdown().await, sides.seeders.shutdown().await);
                world.take_back(&sides).await;
                // Nobody has claimed: all of it is back, and what it got was for nothing.
                if opened {
                    assert_eq!(world.returned(), deposited, "after {messages} messages");
                }
                world.earned().saturating_sub(count.had * CHUNK_PRICE)
            }
        };
        worst = worst.max(lost);
        sides.end().await;
        if end.is_ok() {
            return worst;
        }
    }
    panic!("the session never comes to its end");
}

#[tokio::test]
async fn a_seeder_whose_buyer_is_gone_has_lost_a_window_at_the_worst_message() {
    for (policy, chunks) in [
        (Policy::Channel, 4),
        (Policy::Incremental, 3),
        (Policy::LockedVoucher, 0),
    ] {
        let worst = worst(policy, Left::Seeder).await;
        assert_eq!(worst, chunks * CHUNK_PRICE, "{policy:?}");
    }
}

#[tokio::test]
async fn a_buyer_whose_seeder_is_gone_has_its_deposit_back_whatever_came_last() {
    for policy in [Policy::Channel, Policy::Incremental, Policy::LockedVoucher] {
        assert_eq!(worst(policy, Left::Buyer).await, 0, "{policy:?}");
    }
}
