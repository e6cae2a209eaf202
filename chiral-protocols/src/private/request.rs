//! One request for a range, from its first frame to its last byte.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use chiral_core::{ByteRange, CHUNK_SIZE, Delivery, DeliveryStream, TransferError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::frame::Frame;
use super::messages::{Body, ChunkRequest, RequestChunks, Want};
use super::session::{Asking, failure, protocol, timed_out};
use super::source::Seeder;
use super::wanted::Wanted;
use crate::payer::{Room, at_once};

/// What is asked for in one request: little enough that what is on its way, as many of them as
/// may be under way at once, takes little memory on either side, and that what is paid of one
/// soon makes room for the next.
const PART: u64 = 1 << 20;

/// Parts of one range that are asked for ahead of the one that is being read, so that the seeder
/// has always something to send.
const PARTS_AHEAD: usize = 3;

/// Asks for a range, in several requests if it is long; sealed, if that is how it is sold.
pub(super) fn fetch(seeder: Arc<Seeder>, range: ByteRange) -> DeliveryStream {
    let state = (seeder, State::Next(range));
    Box::pin(futures_util::stream::unfold(
        state,
        |(seeder, state)| async move {
            let (item, state) = step(&seeder, state).await?;
            Some((item, (seeder, state)))
        },
    ))
}

enum State {
    /// What is not asked for yet.
    Next(ByteRange),
    /// Behind what is being read what is asked for, in order, and then what is not.
    Reading(Box<Reading>, VecDeque<Ahead>, ByteRange),
    /// The same, between two parts.
    Begun(VecDeque<Ahead>, ByteRange),
    Sealed(Box<Wanted>),
    Ended,
}

type Item = Result<Delivery, TransferError>;

/// The next delivery. Nothing comes behind an error.
async fn step(seeder: &Arc<Seeder>, mut state: State) -> Option<(Item, State)> {
    loop {
        state = match state {
            State::Ended => return None,
            State::Next(left) if left.is_empty() => return None,
            State::Next(left) if seeder.is_sealed() => {
                State::Sealed(Box::new(Wanted::new(seeder.clone(), left)))
            }
            State::Next(left) => {
                let (part, rest) = seeder.part(left);
                match begin(seeder.clone(), part).await {
                    Ok(Some(reading)) => State::Reading(Box::new(reading), VecDeque::new(), rest),
                    // As it turned out it is sold sealed.
                    Ok(None) => State::Next(left),
                    Err(error) => return Some((Err(error), State::Ended)),
                }
            }
            State::Begun(mut ahead, left) => match ahead.pop_front() {
                None => State::Next(left),
                Some(next) => {
                    let part = next.range;
                    match next.admitted(seeder.clone()).await {
                        Some(reading) => State::Reading(Box::new(reading), ahead, left),
                        // It is asked for once more, and whatever is in the way is seen to then.
                        // Those behind it are given up: nobody would take what comes of them
                        // meanwhile, and the answers behind that could not be read.
                        None => State::Next(ByteRange::new(part.start, left.end)),
                    }
                }
            },
            State::Reading(mut reading, mut ahead, mut left) => {
                ask_ahead(seeder, &mut ahead, &mut left).await;
                match reading.next().await {
                    Ok(Some(delivery)) => {
                        return Some((Ok(delivery), State::Reading(reading, ahead, left)));
                    }
                    Ok(None) => State::Begun(ahead, left),
                    Err(error) => return Some((Err(error), State::Ended)),
                }
            }
            State::Sealed(mut wanted) => match wanted.next().await? {
                Ok(delivery) => return Some((Ok(delivery), State::Sealed(wanted))),
                Err(error) => return Some((Err(error), State::Ended)),
            },
        };
    }
}

impl Seeder {
    /// Whether what is bought here comes sealed.
    fn is_sealed(&self) -> bool {
        self.payer.as_ref().is_some_and(|payer| payer.is_sealed())
    }

    /// What to ask for at once: a part of what is served ahead of payment, cut where a chunk
    /// ends, for what is not whole cannot be paid for. And what is left then. Where the end of
    /// the file is proven first, it is the last part.
    fn part(&self, left: ByteRange) -> (ByteRange, ByteRange) {
        let most = self.payer.as_ref().map_or(u64::MAX, |p| p.most_at_once());
        let most = at_once(most);
        if self.payer.as_ref().is_some_and(|payer| payer.is_backward()) {
            let cut = left.end.saturating_sub(most).div_ceil(CHUNK_SIZE) * CHUNK_SIZE;
            let cut = cut.max(left.start);
            return (
                ByteRange::new(cut, left.end),
                ByteRange::new(left.start, cut),
            );
        }
        let most = most.min(PART);
        let end = (left.start.saturating_add(most) / CHUNK_SIZE).saturating_mul(CHUNK_SIZE);
        let end = end.min(left.end);
        (
            ByteRange::new(left.start, end),
            ByteRange::new(end, left.end),
        )
    }
}

/// A part that is asked for while those before it are still being read.
struct Ahead {
    range: ByteRange,
    asking: Asking,
    room: Option<Room>,
    permit: OwnedSemaphorePermit,
}

/// Asks for as many parts as may be asked for ahead, and as there is room for at once. What
/// cannot be asked for now is asked for when its turn has come, and then it is said why.
async fn ask_ahead(seeder: &Arc<Seeder>, ahead: &mut VecDeque<Ahead>, left: &mut ByteRange) {
    while ahead.len() < PARTS_AHEAD && !left.is_empty() {
        let (range, rest) = seeder.part(*left);
        match Ahead::ask(seeder, range).await {
            Some(asked) => ahead.push_back(asked),
            None => return,
        }
        *left = rest;
    }
}

impl Ahead {
    async fn ask(seeder: &Seeder, range: ByteRange) -> Option<Self> {
        let payer = seeder.payer.as_ref();
        // From the end of a file each part waits for the one behind it to be proven.
        if payer.is_some_and(|payer| payer.is_backward() || payer.is_sealed()) {
            return None;
        }
        let permit = seeder.permits.clone().try_acquire_owned().ok()?;
        let (room, credential) = match payer {
            Some(payer) => {
                let room = payer.try_room(range)?;
                (Some(room), payer.credential(range).await.ok()?.1)
            }
            None => (None, None),
        };
        let Ask { body, .. } = Ask::plain(range, credential);
        let asking = seeder.session().await.ok()?.ask(body).await.ok()?;
        Some(Self {
            range,
            asking,
            room,
            permit,
        })
    }

    /// Waits until it is being sent; `None` if it is not.
    async fn admitted(mut self, seeder: Arc<Seeder>) -> Option<Reading> {
        let limit = seeder.config.idle_timeout;
        let first = timeout(limit, self.asking.next()).await.ok()?.ok()?;
        if !matches!(first.body, Body::StreamChunk(_)) {
            self.asking.answered();
            return None;
        }
        if let Some(payer) = &seeder.payer {
            payer.admitted();
        }
        Some(Reading {
            seeder,
            asking: self.asking,
            first: Some(first),
            left: self.range,
            room: self.room,
            _permit: self.permit,
        })
    }
}

/// Bytes on their way in.
struct Reading {
    seeder: Arc<Seeder>,
    asking: Asking,
    /// A frame that came with the admission.
    first: Option<Frame>,
    /// What has not come yet.
    left: ByteRange,
    /// Its part of what is served ahead of payment.
    room: Option<Room>,
    _permit: OwnedSemaphorePermit,
}

/// `None` if it is sold sealed.
async fn begin(seeder: Arc<Seeder>, range: ByteRange) -> Result<Option<Reading>, TransferError> {
    let room = match &seeder.payer {
        Some(payer) => Some(payer.room(range).await),
        None => None,
    };
    let permits = seeder.permits.clone();
    let permit = permits
        .acquire_owned()
        .await
        .map_err(|_| TransferError::Closed)?;
    let ask = |credential| Ask::plain(range, credential);
    let Some((asking, first)) = admission(&seeder, range, ask, None).await? else {
        return Ok(None);
    };
    Ok(Some(Reading {
        seeder,
        asking,
        first: Some(first),
        left: range,
        room,
        _permit: permit,
    }))
}

/// One request as it is made.
pub(super) struct Ask {
    body: Body,
    sealed: bool,
}

impl Ask {
    fn plain(range: ByteRange, credential: Option<Bytes>) -> Self {
        let body = Body::RequestChunks(RequestChunks {
            offset: range.start,
            length: range.len(),
            credential,
        });
        Self {
            body,
            sealed: false,
        }
    }

    /// For one chunk, sealed.
    pub(super) fn sealed(range: ByteRange, credential: Option<Bytes>) -> Self {
        let wants = vec![want(range, credential)];
        let payment_proof = None;
        let body = Body::ChunkRequest(ChunkRequest {
            wants,
            payment_proof,
        });
        Self { body, sealed: true }
    }
}

/// A sealed chunk that is wanted.
pub(super) fn want(range: ByteRange, credential: Option<Bytes>) -> Want {
    Want {
        offset: range.start,
        length: range.len(),
        credential,
        sealed: true,
    }
}

/// Asks until the range is admitted, as often as payment has to be agreed on first. Answers
/// the first frame of the delivery too; `None` if what was agreed on is sold in the other way.
/// `asked` is a request that was made already, and how many agreements there were then.
pub(super) async fn admission(
    seeder: &Seeder,
    range: ByteRange,
    ask: impl Fn(Option<Bytes>) -> Ask,
    mut asked: Option<(u64, Asking)>,
) -> Result<Option<(Asking, Frame)>, TransferError> {
    let begun = Instant::now();
    let (mut broken, mut refusals, mut waiting) = (false, 0, None);
    while begun.elapsed() <= seeder.config.payment_timeout {
        let (agreements, asking) = match asked.take() {
            Some(asked) => asked,
            None => {
                let (agreements, credential) = match &seeder.payer {
                    Some(payer) => payer.credential(range).await?,
                    None => (0, None),
                };
                let Ask { body, sealed } = ask(credential);
                if seeder.is_sealed() != sealed {
                    return Ok(None);
                }
                let session = seeder.session().await?;
                match session.ask(body).await {
                    Err(TransferError::Connection { .. }) if !broken => {
                        broken = true;
                        continue;
                    }
                    asking => (agreements, asking?),
                }
            }
        };
        let answer = async {
            let mut asking = asking;
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
                return Ok(Some((asking, first)));
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
                if let Some(room) = &mut self.room {
                    room.delivered(frame.data.len() as u64);
                }
                Ok(Some(Delivery::new(chunk.offset, frame.data)))
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
