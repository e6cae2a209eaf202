//! Sealed chunks of one range: asked for in want-lists, as many ahead as there is room for,
//! and opened one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use chiral_core::{ByteRange, ChunkLayout, Delivery, Sealed, TransferError};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesOrdered;

use super::checkout::{Broken, Checkout, Order, Parcel, Place};
use super::messages::{Body, ChunkRequest, MAX_WANTS};
use super::request::{Ask, admission, want};
use super::session::{Asking, protocol};
use super::source::Seeder;
use crate::payer::{Payer, Room};

type Item = Result<Delivery, TransferError>;
type Arriving = BoxFuture<'static, Result<Arrived, TransferError>>;

/// A range on its way.
pub(super) struct Wanted {
    seeder: Arc<Seeder>,
    /// What is not asked for yet, cut where chunks end.
    left: VecDeque<ByteRange>,
    /// What is asked for, in order.
    arriving: FuturesOrdered<Arriving>,
    /// What has come and waits for its key, in order.
    opening: VecDeque<(Order, ByteRange)>,
    /// What was wrong with the next one: nothing behind it is opened.
    failed: Option<TransferError>,
    broken: Broken,
}

enum Arrived {
    /// It was bought before.
    Open(Order, ByteRange),
    /// A part of it is wanted.
    Sealed(Parcel, ByteRange),
}

/// How to get a part, before anything is asked for.
enum Way {
    Bought(Order, ByteRange),
    GivenUp(Parcel, ByteRange),
    Ask(Ticket, ByteRange),
}

/// Ways that are being gone: if that fails, or nobody waits for it any more, what was given up
/// once goes back to where it was.
struct Ways {
    ways: Vec<Way>,
    checkout: Arc<Checkout>,
}

impl Drop for Ways {
    fn drop(&mut self) {
        for way in self.ways.drain(..) {
            if let Way::GivenUp(parcel, _) = way {
                self.checkout.put_back(parcel);
            }
        }
    }
}

/// What a chunk has to have before it is asked for.
struct Ticket {
    /// All of the chunk: nothing less can be checked.
    chunk: ByteRange,
    place: Place,
    room: Room,
}

impl Wanted {
    pub(super) fn new(seeder: Arc<Seeder>, range: ByteRange) -> Self {
        let layout = seeder.layout;
        let chunks = layout.touched(range);
        let parts = chunks.filter_map(|index| layout.range(index).intersection(range));
        // One lock is open at a time. What an earlier run, or a connection that broke, has left
        // locked is bought first, whatever is wanted: none of it, and all of it is kept.
        let pending = seeder.sealing().and_then(|(payer, checkout)| {
            let pending = payer.pending()?;
            let known = !layout.touched(pending).is_empty();
            (known && !checkout.is_flying(pending)).then_some(pending)
        });
        let errand = pending.map(|pending| ByteRange::new(pending.start, pending.start));
        Self {
            left: errand.into_iter().chain(parts).collect(),
            seeder,
            arriving: FuturesOrdered::new(),
            opening: VecDeque::new(),
            failed: None,
            broken: Broken::default(),
        }
    }

    /// The next delivery, in order. Keys are bought in the same order, and none behind what
    /// failed.
    pub(super) async fn next(&mut self) -> Option<Item> {
        loop {
            if self.failed.is_none()
                && let Err(error) = self.ask().await
            {
                self.failed = Some(error);
            }
            let waits = !self.arriving.is_empty() && self.failed.is_none();
            tokio::select! {
                biased;
                arrived = self.arriving.next(), if waits => match arrived {
                    Some(Ok(arrived)) => self.arrived(arrived),
                    Some(Err(error)) => self.failed = Some(error),
                    None => {}
                },
                opened = next_opened(&mut self.opening), if !self.opening.is_empty() => {
                    self.opening.pop_front();
                    match opened {
                        Ok(delivery) if delivery.bytes.is_empty() => {}
                        opened => return Some(opened),
                    }
                }
                else => return self.failed.take().map(Err),
            }
        }
    }

    /// Puts what came into the line.
    fn arrived(&mut self, arrived: Arrived) {
        let Some((_, checkout)) = self.seeder.sealing() else {
            self.failed = Some(TransferError::Closed);
            return;
        };
        let order = match arrived {
            Arrived::Open(order, part) => Ok((order, part)),
            Arrived::Sealed(parcel, part) => {
                let order = checkout.order(parcel, self.broken.clone());
                order.map(|order| (order, part))
            }
        };
        match order {
            Ok(order) => self.opening.push_back(order),
            Err(error) => self.failed = Some(error),
        }
    }

    /// Asks for as much as there is room for; waits for room only if nothing is on its way.
    async fn ask(&mut self) -> Result<(), TransferError> {
        let Some((payer, checkout)) = self.seeder.sealing() else {
            return Err(TransferError::Closed);
        };
        // One by one they would be asked for as each is opened, in a message each.
        let waiting = self.arriving.len() + self.opening.len();
        let (idle, mut room) = (waiting == 0, checkout.much_room(waiting));
        let mut going = Ways {
            ways: Vec::new(),
            checkout: checkout.clone(),
        };
        let ways = &mut going.ways;
        while let Some(&part) = self.left.front()
            && ways.len() < MAX_WANTS
        {
            let chunk = self.seeder.layout.range(ChunkLayout::chunk_at(part.start));
            let bought = match part.is_empty() {
                true => None,
                false => checkout.bought(part),
            };
            if let Some(bytes) = bought {
                ways.push(Way::Bought(checkout.order_bought(part, bytes), part));
            } else if let Some(parcel) = checkout.given_up(chunk) {
                ways.push(Way::GivenUp(parcel, part));
            } else if room == 0 {
                break;
            } else {
                match ticket(&payer, &checkout, chunk, part) {
                    Some(ticket) => {
                        room -= 1;
                        ways.push(Way::Ask(ticket, part));
                    }
                    // Somebody else has begun to.
                    None if part.is_empty() && checkout.is_flying(chunk) => {}
                    None if ways.is_empty() && idle => {
                        wait(&payer, &checkout).await?;
                        continue;
                    }
                    None => break,
                }
            }
            self.left.pop_front();
        }
        let asked = request(&self.seeder, &payer, ways).await?;
        let mut asked = asked.into_iter();
        for way in ways.drain(..) {
            let arriving: Arriving = match way {
                Way::Bought(order, part) => Box::pin(ready(Ok(Arrived::Open(order, part)))),
                Way::GivenUp(parcel, part) => Box::pin(ready(Ok(Arrived::Sealed(parcel, part)))),
                Way::Ask(ticket, part) => {
                    let (seeder, payer) = (self.seeder.clone(), payer.clone());
                    let asking = asked.next().ok_or(TransferError::Closed)?;
                    Box::pin(async move {
                        let parcel = arrive(&seeder, &payer, ticket, asking).await?;
                        Ok(Arrived::Sealed(parcel, part))
                    })
                }
            };
            self.arriving.push_back(arriving);
        }
        Ok(())
    }
}

/// One want-list for all that has to be asked for. Answers how many agreements there were
/// when each was asked for, too.
async fn request(
    seeder: &Seeder,
    payer: &Payer,
    ways: &[Way],
) -> Result<Vec<(u64, Asking)>, TransferError> {
    let (mut wants, mut agreements) = (Vec::new(), 0);
    for way in ways {
        if let Way::Ask(ticket, _) = way {
            let credential;
            (agreements, credential) = payer.credential(ticket.chunk).await?;
            wants.push(want(ticket.chunk, credential));
        }
    }
    if wants.is_empty() {
        return Ok(Vec::new());
    }
    let count = wants.len();
    let request = Body::ChunkRequest(ChunkRequest {
        wants,
        payment_proof: None,
    });
    let session = seeder.session().await?;
    let asked = session.ask_many(request, count).await?;
    Ok(asked
        .into_iter()
        .map(|asking| (agreements, asking))
        .collect())
}

/// The first of those that wait for their keys. Nothing is lost if it is not waited for.
async fn next_opened(opening: &mut VecDeque<(Order, ByteRange)>) -> Item {
    let (order, part) = opening.front_mut().ok_or(TransferError::Closed)?;
    let open = order.opened(*part).await?;
    let mut delivery = Delivery::new(part.start, open.bytes);
    delivery.checked = open.checked;
    Ok(delivery)
}

/// A place among those that are fetched ahead, and room in what is served ahead of payment.
fn ticket(
    payer: &Arc<Payer>,
    checkout: &Arc<Checkout>,
    chunk: ByteRange,
    part: ByteRange,
) -> Option<Ticket> {
    let place = checkout.place(chunk, chunk != part)?;
    match payer.try_room(chunk) {
        Some(room) => Some(Ticket { chunk, place, room }),
        // Who waits for a place waits for room as well.
        None => {
            place.undo();
            None
        }
    }
}

/// Waits until there may be room: for something that is fetched to be done with, or paid.
async fn wait(payer: &Arc<Payer>, checkout: &Checkout) -> Result<(), TransferError> {
    if checkout.is_closed() {
        return Err(TransferError::Closed);
    }
    tokio::select! {
        () = checkout.landing() => {}
        () = payer.more_room() => {}
    }
    Ok(())
}

/// Waits for a sealed chunk.
async fn arrive(
    seeder: &Seeder,
    payer: &Payer,
    ticket: Ticket,
    asked: (u64, Asking),
) -> Result<Parcel, TransferError> {
    let Ticket {
        chunk,
        place,
        mut room,
    } = ticket;
    let ask = |credential| Ask::sealed(chunk, credential);
    let admitted = admission(seeder, chunk, ask, Some(asked)).await?;
    let name = &seeder.name;
    let Some((mut asking, first)) = admitted else {
        return Err(TransferError::Refused {
            source_name: name.to_string(),
            reason: "it is not sold sealed any more".to_owned(),
            retryable: true,
        });
    };
    asking.answered();
    let Body::ChunkResponse(response) = first.body else {
        return Err(protocol(name, "an answer that answers nothing"));
    };
    if response.offset != chunk.start || first.data.len() as u64 != chunk.len() {
        return Err(protocol(name, "bytes that were not asked for"));
    }
    if response.seal.is_empty() {
        return Err(protocol(
            name,
            "plain bytes where sealed ones were asked for",
        ));
    }
    room.delivered(chunk.len());
    let sealed = Sealed::new(response.seal, first.data);
    Ok(Parcel {
        range: chunk,
        sealed: payer.inspected(chunk, sealed).await,
        place,
    })
}
