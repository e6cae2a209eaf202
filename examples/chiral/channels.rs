//! `chiral channels`: what is in channels, opened, claimed and ended.

use std::time::Duration;

use chiral::core::money::format_chi;
use chiral::core::{Address, B256, U256};
use chiral::payment::channel::payer::Phase;
use chiral::payment::channel::{ChannelView, Channels, ChannelsError, Side};
use chiral::payment::{Journal, JournalError, Payments};
use serde_json::json;

use super::arguments::{self, ChannelsCommand, ChannelsPlace};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::payments::journals_of;
use super::signals::Signals;

/// How long to wait for the chain.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) async fn run(command: arguments::Channels, output: &Output) -> Result<(), Failure> {
    use ChannelsCommand::{Claim, Close, List, Open, Watch};
    match command.command {
        None => list(&command.place, output).await,
        Some(List(place)) => list(&place, output).await,
        Some(Open {
            to,
            deposit,
            challenge,
            place,
        }) => {
            let payments = start(&place).await?;
            let done = open(&payments, output, to, deposit, challenge).await;
            end(payments, done).await
        }
        Some(Close { channel, place }) => {
            let payments = start(&place).await?;
            let done = close(&payments, output, channel).await;
            end(payments, done).await
        }
        Some(Claim { channel, place }) => {
            let payments = start(&place).await?;
            let done = claim(&payments, output, channel).await;
            end(payments, done).await
        }
        Some(Watch(place)) => {
            let mut signals = Signals::new()?;
            let payments = start(&place).await?;
            let done = tokio::select! {
                failed = watch(&payments, output) => failed,
                _ = signals.next() => Ok(()),
            };
            end(payments, done).await
        }
    }
}

/// Wallet, chain and journal of those that were named.
async fn start(place: &ChannelsPlace) -> Result<Payments, Failure> {
    place.account.needed_wallet()?;
    place.account.needed_client()?;
    let settings = place.account.payments(place.data_dir.as_deref())?;
    let settings = settings.ok_or_else(|| Failure::new(Exit::Usage, "no wallet was named"))?;
    Ok(Payments::start(place.contracts.apply(settings)).await?)
}

async fn end(payments: Payments, done: Result<(), Failure>) -> Result<(), Failure> {
    let ended = payments.shutdown().await;
    done?;
    Ok(ended?)
}

async fn list(place: &ChannelsPlace, output: &Output) -> Result<(), Failure> {
    let named = place.data_dir.is_some() || place.account.named_wallet()?.is_some();
    let mut any = false;
    for path in journals_of(&place.account, place.data_dir.as_deref())? {
        let journal = match Journal::open(&path) {
            Err(JournalError::Locked) if !named => {
                let wallet = path.file_stem().unwrap_or_default().display();
                output.note(format!(
                    "{wallet} is in use, and left out: end its program first"
                ));
                continue;
            }
            journal => journal?,
        };
        let views = Channels::views_in(&journal).await;
        journal.close().await;
        for view in views? {
            any = true;
            tell(output, &view)?;
        }
    }
    if !any {
        output.text("there are no channels")?;
    }
    Ok(())
}

fn tell(output: &Output, view: &ChannelView) -> Result<(), Failure> {
    let (side, way) = match view.side {
        Side::Payer => ("payer", "to"),
        Side::Payee => ("payee", "from"),
    };
    let phase = match view.phase {
        Phase::Opening => "opening",
        Phase::Open => "open",
        Phase::Closing => "closing",
        Phase::Closed => "closed",
    };
    let chi = |wei: u128| format_chi(U256::from(wei));
    output.text(format!(
        "{phase:<8} {way:<4} {}  {}\n         paid {} of {} CHI, {} to claim{}",
        view.partner,
        view.id,
        chi(view.paid),
        chi(view.deposit),
        chi(view.claimable),
        if view.locked { ", a lock is open" } else { "" },
    ))?;
    output.event(&json!({
        "event": "channel",
        "channel": view.id,
        "side": side,
        "partner": view.partner.to_string(),
        "phase": phase,
        "deposit_wei": view.deposit.to_string(),
        "paid_wei": view.paid.to_string(),
        "claimable_wei": view.claimable.to_string(),
        "locked": view.locked,
    }))?;
    Ok(())
}

fn tell_one(payments: &Payments, output: &Output, channel: B256) -> Result<(), Failure> {
    let views = payments.channels().views();
    match views.iter().find(|view| view.id == channel) {
        Some(view) => tell(output, view),
        None => Err(ChannelsError::Unknown.into()),
    }
}

async fn open(
    payments: &Payments,
    output: &Output,
    to: Address,
    deposit: U256,
    challenge: u32,
) -> Result<(), Failure> {
    let deposit = u128::try_from(deposit).unwrap_or_default();
    if deposit == 0 {
        return Err(Failure::new(Exit::Usage, "not a deposit"));
    }
    let channels = payments.channels();
    let id = channels.open(to, challenge, deposit).await?;
    channels.ready(id).await?;
    tell_one(payments, output, id)
}

async fn close(payments: &Payments, output: &Output, channel: B256) -> Result<(), Failure> {
    let channels = payments.channels();
    if channels.payer(channel).is_none() && channels.payee(channel).is_some() {
        return Err(Failure::new(Exit::Usage, "only who pays ends a channel")
            .next("claim what is yours with `chiral channels claim`"));
    }
    channels.close(channel).await?;
    within(async || {
        let state = channels.on_chain(channel).await?;
        Ok(state.is_closing() || state.is_over())
    })
    .await?;
    tell_one(payments, output, channel)?;
    output.note("what is not claimed comes back after the challenge: `chiral channels watch`");
    Ok(())
}

async fn claim(payments: &Payments, output: &Output, channel: Option<B256>) -> Result<(), Failure> {
    let channels = payments.channels();
    let views = channels.views().into_iter();
    let mine = views.filter(|view| view.side == Side::Payee);
    let wanted: Vec<B256> = match channel {
        Some(channel) => vec![channel],
        None => mine
            .filter(|view| view.claimable > 0)
            .map(|view| view.id)
            .collect(),
    };
    if wanted.is_empty() {
        output.text("there is nothing to claim")?;
    }
    for id in wanted {
        if channels.payee(id).is_none() {
            return Err(ChannelsError::Unknown.into());
        }
        channels.claim(id).await?;
        within(async || {
            let held = channels.payee(id);
            Ok(held.is_none_or(|held| held.is_over() || held.claimable() == 0))
        })
        .await?;
        tell_one(payments, output, id)?;
    }
    Ok(())
}

/// Tells what changes; the rest happens by itself.
async fn watch(payments: &Payments, output: &Output) -> Result<(), Failure> {
    let mut known: Vec<ChannelView> = Vec::new();
    output.text("looking after channels until Ctrl-C")?;
    output.event(&json!({ "event": "watching" }))?;
    loop {
        let mut now = payments.channels().views();
        now.sort_by_key(|view| view.id);
        for view in now.iter().filter(|view| !known.contains(view)) {
            tell(output, view)?;
        }
        known = now;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the chain shows it.
async fn within(is_so: impl AsyncFn() -> Result<bool, ChannelsError>) -> Result<(), Failure> {
    let looking = async {
        while !is_so().await? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(done) => done.map_err(|error: ChannelsError| error.into()),
        Err(_) => Err(ChannelsError::NotYet.into()),
    }
}
