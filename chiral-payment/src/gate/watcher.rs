//! What a gate does without being asked: it writes down what was served, and looks for
//! payments of which nobody gave notice.

use std::time::Duration;

use chiral_chain::ChainError;
use futures_util::StreamExt;

use super::{ChainGate, store};

/// Blocks that are looked at in one go.
const STRIDE: u64 = 64;

/// Blocks before the newest that are looked at after a long absence.
const MOST_BEHIND: u64 = 20_000;

/// Pause between looks while the chain says nothing, or cannot be asked.
const PAUSE: Duration = Duration::from_secs(10);

/// Makes what was served durable, in groups.
pub(super) async fn flush(gate: ChainGate) {
    let mut turn = tokio::time::interval(gate.inner.config.flush_interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let now = gate.now();
        gate.books().sweep(now);
        gate.fold_ended().await;
        if let Err(error) = gate.flush("gate-flush").await {
            tracing::warn!(%error, "what was served is not on disk");
        }
    }
}

/// Looks through each block that is deep enough, once.
pub(super) async fn watch(gate: ChainGate, scanned: Option<u64>) {
    let mut scanned = Scanned {
        at: scanned,
        saved: scanned,
    };
    loop {
        // A stream that ends is begun anew; between two of them nothing is missed.
        let mut heads = gate.inner.witness.client().heads().await.ok();
        loop {
            if let Err(error) = catch_up(&gate, &mut scanned).await {
                tracing::debug!(%error, "payments cannot be looked for");
            }
            let next = async {
                match &mut heads {
                    Some(heads) => heads.next().await,
                    None => std::future::pending().await,
                }
            };
            match tokio::time::timeout(PAUSE, next).await {
                Ok(Some(_)) => {}
                // Asked again without a head: the stream may be dead and not know it.
                Err(_) if heads.is_some() => {}
                Ok(None) | Err(_) => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Up to which block payments were looked for: so far, and as the journal has it.
#[derive(Debug)]
struct Scanned {
    at: Option<u64>,
    saved: Option<u64>,
}

async fn catch_up(gate: &ChainGate, scanned: &mut Scanned) -> Result<(), ChainError> {
    let firm = gate.inner.witness.firm_head().await?;
    // No agreement is older than the first look.
    let mut at = scanned.at.unwrap_or(firm);
    if at > firm {
        // The chain was reorganised, and is shorter now.
        at = firm.saturating_sub(1);
    }
    at = at.max(firm.saturating_sub(MOST_BEHIND));
    if gate.books().accounts.is_empty() {
        at = firm;
    }
    while at < firm {
        let stop = firm.min(at + STRIDE);
        for number in at + 1..=stop {
            look(gate, number).await?;
        }
        at = stop;
        scanned.at = Some(at);
        save(gate, scanned, at).await;
    }
    scanned.at = Some(at);
    // A restart begins there, whatever was agreed on since.
    if scanned
        .saved
        .is_none_or(|saved| saved > at || at - saved >= STRIDE)
    {
        save(gate, scanned, at).await;
    }
    Ok(())
}

async fn save(gate: &ChainGate, scanned: &mut Scanned, at: u64) {
    let saved = gate.step("gate-scanned", move |step| store::save_scanned(step, at));
    match saved.await {
        Ok(()) => scanned.saved = Some(at),
        Err(error) => tracing::warn!(%error, "blocks will be looked at again"),
    }
}

async fn look(gate: &ChainGate, number: u64) -> Result<(), ChainError> {
    let payee = gate.wallet();
    for payment in gate.inner.witness.in_block(number, payee).await? {
        // What the payer says it is for counts only if it pays for it.
        let bytes = payment.bytes.unwrap_or_default();
        let found = {
            let books = gate.books();
            books
                .find(payment.payer, payment.bill)
                .and_then(|(agreement, sequence)| {
                    let least = books.accounts.get(&agreement)?.terms.pricing.least(bytes);
                    Some((agreement, sequence, least))
                })
        };
        let Some((agreement, sequence, least)) = found else {
            continue;
        };
        if bytes == 0 || least.is_none_or(|cost| cost > payment.amount) {
            tracing::debug!(bill = %payment.bill, "a payment that does not cover what it says");
            continue;
        }
        if let Err(error) = gate.earn(agreement, sequence, bytes, payment).await {
            tracing::warn!(%error, "a payment is not on the books");
        }
    }
    Ok(())
}
