//! One request for a range, from its first frame to its last byte.

use std::sync::Arc;

use chiral_core::{ByteRange, Delivery, DeliveryStream, TransferError};
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::frame::Frame;
use super::messages::{Body, RequestChunks};
use super::session::{Asking, failure, protocol, timed_out};
use super::source::Seeder;

/// Most bytes of one request: a gate lends only so much at once.
const MAX_REQUEST: u64 = 8 << 20;

/// Asks for a range, in several requests if it is long.
pub(super) fn fetch(seeder: Arc<Seeder>, range: ByteRange) -> DeliveryStream {
    let parts = (range.start..range.end)
        .step_by(MAX_REQUEST as usize)
        .map(move |start| ByteRange::new(start, range.end.min(start + MAX_REQUEST)));
    let deliveries =
        futures_util::stream::iter(parts).flat_map(move |part| fetch_part(seeder.clone(), part));
    // Nothing comes behind an error.
    Box::pin(deliveries.scan(false, |failed, item| {
        let before = std::mem::replace(failed, item.is_err());
        std::future::ready((!before).then_some(item))
    }))
}

enum State {
    Asking(Arc<Seeder>, ByteRange),
    Reading(Box<Reading>),
    Ended,
}

/// Bytes on their way in.
struct Reading {
    seeder: Arc<Seeder>,
    asking: Asking,
    /// A frame that came with the admission.
    first: Option<Frame>,
    /// What has not come yet.
    left: ByteRange,
    _permit: OwnedSemaphorePermit,
}

fn fetch_part(seeder: Arc<Seeder>, range: ByteRange) -> DeliveryStream {
    let state = State::Asking(seeder, range);
    Box::pin(futures_util::stream::unfold(state, |state| async move {
        let mut reading = match state {
            State::Ended => return None,
            State::Asking(seeder, range) => match begin(seeder, range).await {
                Ok(reading) => Box::new(reading),
                Err(error) => return Some((Err(error), State::Ended)),
            },
            State::Reading(reading) => reading,
        };
        match reading.next().await {
            Ok(Some(delivery)) => Some((Ok(delivery), State::Reading(reading))),
            Ok(None) => None,
            Err(error) => Some((Err(error), State::Ended)),
        }
    }))
}

async fn begin(seeder: Arc<Seeder>, range: ByteRange) -> Result<Reading, TransferError> {
    let permits = seeder.permits.clone();
    let permit = permits
        .acquire_owned()
        .await
        .map_err(|_| TransferError::Closed)?;
    let (asking, first) = admission(&seeder, range).await?;
    Ok(Reading {
        seeder,
        asking,
        first: Some(first),
        left: range,
        _permit: permit,
    })
}

/// Asks until the range is admitted, as often as payment has to be agreed on first. Answers
/// the first frame of the delivery too.
async fn admission(seeder: &Seeder, range: ByteRange) -> Result<(Asking, Frame), TransferError> {
    let begun = Instant::now();
    let (mut broken, mut refusals, mut waiting) = (false, 0, None);
    while begun.elapsed() <= seeder.config.payment_timeout {
        let (agreements, credential) = match &seeder.payer {
            Some(payer) => payer.credential(range).await?,
            None => (0, None),
        };
        let body = Body::RequestChunks(RequestChunks {
            offset: range.start,
            length: range.len(),
            credential,
        });
        let session = seeder.session().await?;
        let answer = async {
            let mut asking = session.ask(body).await?;
            let first = timeout(seeder.config.idle_timeout, asking.next()).await;
            let first = first.map_err(|_| timed_out(&seeder.name))??;
            Ok((asking, first))
        };
        let (mut asking, first) = match answer.await {
            // The session was gone, most likely: once more, with a new credential.
            Err(TransferError::Connection { .. }) if !broken => {
                broken = true;
                continue;
            }
            answer => answer?,
        };
        match (first.body, &seeder.payer) {
            (Body::PaymentRequired(required), None) => {
                asking.answered();
                return Err(TransferError::PaymentRequired {
                    source_name: seeder.name.to_string(),
                    offer: required.terms,
                });
            }
            (Body::PaymentRequired(required), Some(payer)) => {
                asking.answered();
                drop(asking);
                waiting.get_or_insert_with(|| payer.wait());
                let sought = payer.agree(agreements, required.terms).await?;
                // Others were served since: there is not enough for all at once.
                if !sought && refusals > 0 {
                    payer.pause(refusals).await;
                }
                refusals += 1;
            }
            (Body::Failed(failed), _) => {
                asking.answered();
                return Err(failure(&seeder.name, &failed));
            }
            (body, payer) => {
                if let Some(payer) = payer {
                    payer.admitted();
                }
                let first = Frame::new(first.id, body).with_data(first.data);
                return Ok((asking, first));
            }
        }
    }
    Err(TransferError::Refused {
        source_name: seeder.name.to_string(),
        reason: "asks for payment again and again".to_owned(),
        retryable: true,
    })
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Delivery>, TransferError> {
        let name = &self.seeder.name;
        let frame = match self.first.take() {
            Some(frame) => frame,
            None => {
                let next = timeout(self.seeder.config.idle_timeout, self.asking.next()).await;
                next.map_err(|_| timed_out(name))??
            }
        };
        match frame.body {
            Body::StreamChunk(chunk) => {
                let end = chunk.offset.saturating_add(frame.data.len() as u64);
                if chunk.offset != self.left.start || frame.data.is_empty() || end > self.left.end {
                    return Err(protocol(name, "bytes that were not asked for"));
                }
                self.left.start = end;
                Ok(Some(Delivery {
                    offset: chunk.offset,
                    bytes: frame.data,
                }))
            }
            Body::ChunksDone(_) if self.left.is_empty() => {
                self.asking.answered();
                Ok(None)
            }
            Body::ChunksDone(_) => {
                self.asking.answered();
                Err(protocol(name, "fewer bytes than were asked for"))
            }
            Body::Failed(failed) => {
                self.asking.answered();
                Err(failure(name, &failed))
            }
            _ => Err(protocol(name, "an answer that answers nothing")),
        }
    }
}
