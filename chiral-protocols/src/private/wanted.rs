//! Sealed chunks of one range: asked for in want-lists, as many ahead as there is room for,
//! and opened one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use chiral_core::{ByteRange, ChunkLayout, Delivery, Sealed, TransferError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;

use super::checkout::{Checkout, Parcel, Place};
use super::messages::{Body, ChunkRequest, MAX_WANTS};
use super::request::{Ask, admission, want};
use super::session::{Asking, protocol};
use super::source::Seeder;
use crate::payer::{Payer, Room};

type Item = Result<Delivery, TransferError>;

/// A range on its way.
pub(super) struct Wanted {
    seeder: Arc<Seeder>,
    /// What is not asked for yet, cut where chunks end.
    left: VecDeque<ByteRange>,
    flying: FuturesOrdered<BoxFuture<'static, Item>>,
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
        Self {
            left: parts.collect(),
            seeder,
            flying: FuturesOrdered::new(),
        }
    }

    /// The next delivery, in order.
    pub(super) async fn next(&mut self) -> Option<Item> {
        if let Err(error) = self.ask().await {
            return Some(Err(error));
        }
        self.flying.next().await
    }

    /// Asks for as much as there is room for; waits for room only if nothing is on its way.
    async fn ask(&mut self) -> Result<(), TransferError> {
        let Some((payer, checkout)) = self.seeder.sealing() else {
            return Err(TransferError::Closed);
        };
        let mut batch = Vec::new();
        while let Some(&part) = self.left.front()
            && batch.len() < MAX_WANTS
        {
            let chunk = self.seeder.layout.range(ChunkLayout::chunk_at(part.start));
            if let Some(bytes) = checkout.bought(part) {
                let offset = part.start;
                let have = async move { Ok(Delivery { offset, bytes }) };
                self.flying.push_back(Box::pin(have));
            } else if let Some(parcel) = checkout.given_up(chunk) {
                let checkout = checkout.clone();
                let open = async move { open(&checkout, parcel, part).await };
                self.flying.push_back(Box::pin(open));
            } else {
                match ticket(&payer, &checkout, chunk, part) {
                    Some(ticket) => batch.push((part, ticket)),
                    None if batch.is_empty() && self.flying.is_empty() => {
                        wait(&payer, &checkout).await?;
                        continue;
                    }
                    None => break,
                }
            }
            self.left.pop_front();
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut wants = Vec::with_capacity(batch.len());
        let mut agreements = 0;
        for (_, ticket) in &batch {
            let credential;
            (agreements, credential) = payer.credential(ticket.chunk).await?;
            wants.push(want(ticket.chunk, credential));
        }
        let request = Body::ChunkRequest(ChunkRequest {
            wants,
            payment_proof: None,
        });
        let session = self.seeder.session().await?;
        let asked = session.ask_many(request, batch.len()).await?;
        for ((part, ticket), asking) in batch.into_iter().zip(asked) {
            let (seeder, checkout) = (self.seeder.clone(), checkout.clone());
            let asking = (agreements, asking);
            self.flying.push_back(Box::pin(async move {
                let parcel = arrive(&seeder, ticket, asking).await?;
                open(&checkout, parcel, part).await
            }));
        }
        Ok(())
    }
}

/// A place among those that are fetched ahead, and room in what is served ahead of payment.
fn ticket(
    payer: &Arc<Payer>,
    checkout: &Arc<Checkout>,
    chunk: ByteRange,
    part: ByteRange,
) -> Option<Ticket> {
    let place = checkout.place(chunk, chunk != part)?;
    let room = payer.try_room(chunk.len())?;
    Some(Ticket { chunk, place, room })
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
    Ok(Parcel {
        range: chunk,
        sealed: Sealed::new(response.seal, first.data),
        place,
    })
}

/// Has a chunk opened, and takes the part of it that was asked for.
async fn open(checkout: &Checkout, parcel: Parcel, part: ByteRange) -> Item {
    let chunk = parcel.range;
    let bytes = checkout.open(parcel).await?;
    let from = (part.start - chunk.start) as usize;
    Ok(Delivery {
        offset: part.start,
        bytes: bytes.slice(from..from + part.len() as usize),
    })
}
