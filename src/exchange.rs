//! What nodes say to each other about money over the network's own streams: the words of gate
//! and agent, and which block each takes for firm.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chiral_core::{NetworkError, PaymentGate, PeerNetwork};
use chiral_payment::Payments;
use chiral_payment::settler::{decode_head, encode_head, firm_block};
use chiral_payment::stream::PaymentStreams;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a node tells which block it takes for firm; at first sooner, as peers come.
const TELL: Duration = Duration::from_secs(30);
const TELL_FIRST: Duration = Duration::from_secs(1);

/// Runs with the network, and ends before it.
pub(crate) struct Exchange {
    streams: PaymentStreams,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Exchange {
    /// Answers payment conversations, and tells and hears of the chain.
    pub(crate) async fn start(
        network: Arc<dyn PeerNetwork>,
        gate: Arc<dyn PaymentGate>,
        payments: &Payments,
    ) -> Result<Self, NetworkError> {
        let streams = PaymentStreams::serve(&*network, gate).await?;
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let exchange = Self {
            streams,
            closed,
            tasks,
        };
        // Chains that share an id differ in their first block.
        let topic = format!("/chiral/head/1/{:x}", payments.facts().genesis);
        exchange.spawn(tell(network.clone(), payments.clone(), topic.clone()));
        exchange.spawn(hear(network, payments.clone(), topic));
        Ok(exchange)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            closed.run_until_cancelled(work).await;
        });
    }

    /// Ends all of it; idempotent.
    pub(crate) async fn shutdown(&self) {
        self.streams.shutdown().await;
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn tell(network: Arc<dyn PeerNetwork>, payments: Payments, topic: String) {
    let mut pause = TELL_FIRST;
    loop {
        match firm_block(&**payments.chain(), payments.firm_depth()).await {
            Ok(Some(block)) => {
                let message = encode_head(block).into();
                if let Err(error) = network.publish(&topic, message).await {
                    tracing::debug!(%error, "the firm block is not told");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the chain does not say what is firm"),
        }
        tokio::time::sleep(pause).await;
        pause = TELL.min(pause * 2);
    }
}

async fn hear(network: Arc<dyn PeerNetwork>, payments: Payments, topic: String) {
    let mut words = match network.subscribe(&topic).await {
        Ok(words) => words,
        Err(error) => return tracing::debug!(%error, "the others' blocks are not heard"),
    };
    while let Some((peer, message)) = words.next().await {
        if let Some(block) = decode_head(&message) {
            let since = SystemTime::UNIX_EPOCH.elapsed();
            let now = since.map_or(0, |since| since.as_secs());
            payments.peer_heads().note(peer, block, now);
        }
    }
}
