//! [`Sales`]: what one connection may be given of content that has a price.
//!
//! The peer's agent asks for leave first, for a range, and shows what the gate wants to see;
//! blocks are given as far as that leave goes. The gate is told what was given when the range
//! is through, when the peer says that it wants no more of it, and when the connection ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::{Admission, ByteRange, GateError, PaymentGate, ServeRequest};
use tokio_util::task::TaskTracker;

use crate::bittorrent::extension::Admitted;

/// Most ranges of one connection that stand at once.
const MAX_SALES: usize = 64;

/// A range that the peer has leave to ask for.
#[derive(Debug)]
struct Sale {
    gate: Arc<dyn PaymentGate>,
    tasks: TaskTracker,
    request: ServeRequest,
    /// Bytes that were given.
    sent: u64,
}

impl Sale {
    fn has_room(&self, block: ByteRange) -> bool {
        let range = self.request.range;
        range.covers(block) && self.sent + block.len() <= range.len()
    }
}

impl Drop for Sale {
    fn drop(&mut self) {
        let (gate, request) = (self.gate.clone(), self.request.clone());
        let start = request.range.start;
        let sent = ByteRange::new(start, start + self.sent);
        let told = async move { gate.served(&request, sent).await };
        self.tasks.spawn(told);
    }
}

#[derive(Debug, Default)]
struct Open {
    sales: Vec<Sale>,
    /// How many there have been.
    made: u64,
}

/// What a connection may be given of what has a price.
#[derive(Debug, Clone)]
pub(super) struct Sales {
    gate: Arc<dyn PaymentGate>,
    tasks: TaskTracker,
    open: Arc<Mutex<Open>>,
}

impl Sales {
    /// Of a new connection: nothing.
    pub(super) fn new(gate: Arc<dyn PaymentGate>, tasks: TaskTracker) -> Self {
        Self {
            gate,
            tasks,
            open: Arc::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the gate; what it grants may be asked for from then on.
    pub(super) async fn admit(&self, request: ServeRequest) -> Admitted {
        let busy = || Admitted::Refused {
            reason: "too many requests at once".to_owned(),
            retryable: true,
        };
        if self.open().sales.len() >= MAX_SALES {
            return busy();
        }
        match self.gate.admit(&request).await {
            Ok(Admission::Granted) => {
                let sale = Sale {
                    gate: self.gate.clone(),
                    tasks: self.tasks.clone(),
                    request,
                    sent: 0,
                };
                let mut open = self.open();
                if open.sales.len() >= MAX_SALES {
                    drop(open);
                    return busy();
                }
                open.sales.push(sale);
                open.made += 1;
                Admitted::Granted
            }
            Ok(admission) => Admitted::of(admission),
            Err(error) => {
                let inside = matches!(error, GateError::Journal(_) | GateError::Wallet(_));
                if inside {
                    // What failed inside is for the log, not for strangers.
                    tracing::error!(%error, "payment gate failed");
                }
                Admitted::Refused {
                    reason: match inside {
                        true => "payments are not taken now".to_owned(),
                        false => error.to_string(),
                    },
                    retryable: inside || error.is_retryable(),
                }
            }
        }
    }

    /// Whether a block may be given.
    pub(super) fn covers(&self, block: ByteRange) -> bool {
        self.open().sales.iter().any(|sale| sale.has_room(block))
    }

    /// A block was given.
    pub(super) fn sent(&self, block: ByteRange) {
        let mut open = self.open();
        let Some(at) = open.sales.iter().position(|sale| sale.has_room(block)) else {
            return;
        };
        let sale = &mut open.sales[at];
        sale.sent += block.len();
        let over = sale.sent == sale.request.range.len();
        let over = over.then(|| open.sales.remove(at));
        drop(open);
        drop(over);
    }

    /// The peer asks for no more of this range.
    pub(super) fn release(&self, range: ByteRange) {
        let mut open = self.open();
        let at = open.sales.iter().position(|it| it.request.range == range);
        let over = at.map(|at| open.sales.remove(at));
        drop(open);
        drop(over);
    }

    /// How many ranges the gate has granted on this connection.
    pub(super) fn made(&self) -> u64 {
        self.open().made
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use chiral_core::{Cid, Protocol};

    use super::*;

    #[derive(Debug, Default)]
    struct Books(Mutex<Vec<(ByteRange, ByteRange)>>);

    #[async_trait]
    impl PaymentGate for Books {
        async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
            Ok(match &request.credential {
                Some(_) => Admission::Granted,
                None => Admission::PaymentRequired(Bytes::from_static(b"terms")),
            })
        }

        async fn served(&self, request: &ServeRequest, sent: ByteRange) {
            self.0.lock().unwrap().push((request.range, sent));
        }

        async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
            Err(GateError::Closed)
        }
    }

    fn request(start: u64, end: u64) -> ServeRequest {
        let cid = Cid::from_bytes([1; 32]);
        let range = ByteRange::new(start, end);
        let mut request = ServeRequest::new(cid, range, Protocol::BitTorrent);
        request.credential = Some(Bytes::from_static(b"signed"));
        request
    }

    #[tokio::test]
    async fn no_more_is_given_than_was_granted_and_the_gate_hears_of_all_of_it() {
        let (gate, tasks) = (Arc::new(Books::default()), TaskTracker::new());
        let sales = Sales::new(gate.clone(), tasks.clone());
        let block = |start: u64, end: u64| ByteRange::new(start, end);
        let mut bare = request(0, 100);
        bare.credential = None;
        let terms = Admitted::PaymentRequired(Bytes::from_static(b"terms"));
        assert_eq!(sales.admit(bare).await, terms);
        assert!(!sales.covers(block(0, 10)));

        assert_eq!(sales.admit(request(0, 100)).await, Admitted::Granted);
        assert!(sales.covers(block(0, 60)) && !sales.covers(block(90, 101)));
        sales.sent(block(0, 60));
        // The same bytes again are given as far as the leave goes, and no further.
        assert!(sales.covers(block(0, 40)) && !sales.covers(block(0, 41)));
        sales.sent(block(60, 100));
        assert!(!sales.covers(block(0, 1)));

        assert_eq!(sales.admit(request(200, 300)).await, Admitted::Granted);
        sales.sent(block(200, 216));
        sales.release(block(200, 299));
        assert!(sales.covers(block(216, 232)));
        sales.release(block(200, 300));
        assert!(!sales.covers(block(216, 232)));

        assert_eq!(sales.admit(request(400, 500)).await, Admitted::Granted);
        assert_eq!(sales.made(), 3);
        drop(sales);
        tasks.close();
        tasks.wait().await;
        let mut told = gate.0.lock().unwrap().clone();
        told.sort_by_key(|(range, _)| range.start);
        let expected = [
            (block(0, 100), block(0, 100)),
            (block(200, 300), block(200, 216)),
            (block(400, 500), block(400, 400)),
        ];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn no_more_ranges_stand_at_once_than_may() {
        let tasks = TaskTracker::new();
        let sales = Sales::new(Arc::new(Books::default()), tasks);
        for at in 0..MAX_SALES as u64 {
            let granted = sales.admit(request(at, at + 1)).await;
            assert_eq!(granted, Admitted::Granted);
        }
        let refused = sales.admit(request(0, 1)).await;
        assert!(matches!(
            refused,
            Admitted::Refused {
                retryable: true,
                ..
            }
        ));
    }
}
