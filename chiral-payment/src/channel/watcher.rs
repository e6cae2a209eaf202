//! What a node does about its channels without being asked: it looks at the chain, claims
//! before it is too late, and takes back what is left.

use alloy_primitives::B256;
use futures_util::StreamExt;

use super::house::{Channels, ChannelsError, call_id};
use super::payee::{Claim, ClaimRules};
use super::payer::Phase;
use crate::contracts::channels;

/// Looks at every channel, now and with every block.
pub(super) async fn watch(house: Channels) {
    let poll = house.inner.config.poll;
    let mut heads = house.inner.contract.client.heads().await.ok();
    loop {
        look(&house).await;
        let next = async {
            match &mut heads {
                Some(heads) => heads.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = house.inner.changed.notified() => {}
            () = tokio::time::sleep(poll) => {
                if heads.is_none() {
                    heads = house.inner.contract.client.heads().await.ok();
                }
            }
            head = next => {
                if head.is_none() {
                    heads = None;
                    // A stream that ends at once must not make this spin.
                    tokio::time::sleep(poll).await;
                }
            }
        }
    }
}

async fn look(house: &Channels) {
    let (ours, theirs): (Vec<B256>, Vec<B256>) = {
        let book = house.book();
        let ours = book.payers.values();
        let ours = ours.filter(|channel| channel.phase() != Phase::Closed);
        let theirs = book.payees.values();
        let theirs = theirs.filter(|held| !held.channel.is_over());
        (
            ours.map(|channel| channel.id()).collect(),
            theirs.map(|held| held.channel.id()).collect(),
        )
    };
    for id in ours {
        if let Err(error) = tend_ours(house, id).await {
            tracing::debug!(channel = %id, %error, "a channel cannot be looked after");
        }
    }
    for id in theirs {
        if let Err(error) = tend_theirs(house, id, house.rules()).await {
            tracing::warn!(channel = %id, %error, "a channel cannot be looked after");
        }
    }
}

/// A channel that we pay out of: opened, ended, and what is left taken back.
async fn tend_ours(house: &Channels, id: B256) -> Result<(), ChannelsError> {
    house.refresh(id).await?;
    let Some(channel) = house.payer(id) else {
        return Ok(());
    };
    match channel.phase() {
        Phase::Open => return Ok(()),
        // Seen for the first time: what was to end it need not be tried any more.
        Phase::Closed => {
            let left = channel.left_with().map(|paid| ("leave", paid));
            let mut calls = vec![("close", 0), ("finalize", 0)];
            calls.extend(left);
            return withdraw(house, id, calls).await;
        }
        // Handed over again: it may have been written down and no more.
        Phase::Opening => return house.send_open(id).await,
        Phase::Closing => {}
    }
    let sight = house.inner.contract.look(id).await?;
    if sight.state.is_closing() {
        if sight.time >= sight.state.closes_at {
            house
                .call(id, "finalize", 0, channels::finalize(id))
                .await?;
        }
        return Ok(());
    }
    match &channel.leave {
        Some((paid, signature)) => {
            let input = channels::cooperative_close(id, *paid, signature);
            house.call(id, "leave", *paid, input).await
        }
        None => house.call(id, "close", 0, channels::start_close(id)).await,
    }
}

/// Calls that could only fail from now on are not tried again.
async fn withdraw(
    house: &Channels,
    id: B256,
    calls: Vec<(&'static str, u128)>,
) -> Result<(), ChannelsError> {
    for (what, number) in calls {
        let call = call_id(id, what, number);
        house.inner.sender.withdraw(call).await?;
    }
    Ok(())
}

/// A channel out of which we are paid: claimed before its challenge, or a lock, ends.
pub(super) async fn tend_theirs(
    house: &Channels,
    id: B256,
    rules: ClaimRules,
) -> Result<(), ChannelsError> {
    let sight = house.inner.contract.look(id).await?;
    let (claim, change) = {
        let mut book = house.book();
        let Some(held) = book.payees.get_mut(&id) else {
            return Ok(());
        };
        // A deposit counts when `bind` has seen it deep enough; the rest at once, since it can
        // only be worse than what is known.
        let known = crate::contracts::ChannelState {
            deposit: held.channel.deposit(),
            ..sight.state
        };
        let mut news = held.channel.seen(&known);
        let claim = held.channel.due(&sight.state, sight.time, &rules);
        news |= claim.is_none() && held.channel.expire(sight.time);
        (claim, news.then(|| book.touch_payee(id)))
    };
    if let Some(change) = change {
        house.durable(change, "channel-seen").await?;
    }
    match claim {
        None if sight.state.is_over() => {
            let channel = house.payee(id).ok_or(ChannelsError::Unknown)?;
            let best = channel.paid();
            withdraw(house, id, vec![("claim", best), ("claim and close", best)]).await
        }
        None => Ok(()),
        Some(Claim::Voucher(voucher, close)) => {
            let said = voucher.body();
            let (total, what) = match close {
                true => (said.cumulative, "claim and close"),
                false => (said.cumulative, "claim"),
            };
            let input = channels::claim(id, total, said.context, voucher.signature(), close);
            house.call(id, what, total, input).await
        }
        Some(Claim::Lock(lock)) => {
            let said = lock.voucher.body();
            let signature = lock.voucher.signature();
            let total = said.cumulative;
            let input =
                channels::claim_locked(id, total, said.context, said.expiry, lock.key, signature);
            house.call(id, "claim lock", total, input).await
        }
    }
}
