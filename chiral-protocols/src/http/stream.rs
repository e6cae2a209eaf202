//! One request for a range, from its permit to its last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{ByteRange, Delivery, DeliveryStream, TransferError};
use futures_util::StreamExt;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::answer::{self, Fault};
use super::client::{Inbound, Link, collect};
use super::connect::{protocol, refused, timed_out};
use super::headers::credential_value;
use super::pool::{Ask, Pool};
use super::range;
use crate::payer::Payer;

/// Most bytes of one request under a payment gate.
const MAX_PAID_REQUEST: u64 = 8 << 20;

/// What a range is asked of.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) pool: Arc<Pool>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) path: PathAndQuery,
    pub(super) size: u64,
    pub(super) payer: Option<Arc<Payer>>,
}

impl Place {
    /// Asks for a range until it is admitted, as often as payment has to be agreed on first.
    async fn admission(&self, range: ByteRange) -> Result<(Link, Inbound), TransferError> {
        let Some(payer) = &self.payer else {
            return self.ask(range, None).await;
        };
        let begun = Instant::now();
        let (mut broken, mut refusals) = (false, 0);
        while begun.elapsed() <= self.pool.config.payment_timeout {
            let (agreements, credential) = payer.credential(range).await?;
            let credential = credential.map(|bytes| self.shown(&bytes)).transpose()?;
            match self.ask(range, credential).await {
                // A kept connection was gone, most likely: once more, with a new credential.
                Err(TransferError::Connection { .. }) if !broken => broken = true,
                Err(TransferError::PaymentRequired { offer, .. }) => {
                    let _waiting = payer.wait();
                    let sought = payer.agree(agreements, offer).await?;
                    // Others were served since: there is not enough for all at once.
                    if !sought && refusals > 0 {
                        payer.pause(refusals).await;
                    }
                    refusals += 1;
                }
                Ok(admitted) => {
                    payer.admitted();
                    return Ok(admitted);
                }
                Err(error) => return Err(error),
            }
        }
        let reason = "asks for payment again and again";
        Err(refused(&self.pool.name, reason, true))
    }

    /// A credential as a header.
    fn shown(&self, credential: &[u8]) -> Result<HeaderValue, TransferError> {
        let reason = "what our agent shows is over the limit";
        credential_value(credential).ok_or_else(|| refused(&self.pool.name, reason, false))
    }

    async fn ask(
        &self,
        range: ByteRange,
        credential: Option<HeaderValue>,
    ) -> Result<(Link, Inbound), TransferError> {
        let ask = Ask {
            range: Some(range::request(range)),
            credential,
            ..Ask::get(self.path.clone())
        };
        let (link, answer) = self.pool.ask(&ask).await?;
        let (head, body) = answer.into_parts();
        match answer::part(head.status, &head.headers, range, Some(self.size)) {
            Ok(_) => Ok((link, body)),
            Err(fault) => Err(refusal(fault, &self.pool, link, body).await),
        }
    }
}

/// Asks for a range, in several requests if it is long and has to be paid for: a gate lends
/// only so much at once. How much is asked of the agent anew before each of them.
pub(super) fn fetch(place: Place, range: ByteRange) -> DeliveryStream {
    let Some(payer) = place.payer.clone() else {
        return fetch_part(place, range);
    };
    let parts = futures_util::stream::unfold(range.start, move |start| {
        let most = payer.most_at_once().clamp(1, MAX_PAID_REQUEST);
        let end = range.end.min(start.saturating_add(most));
        std::future::ready((start < end).then(|| (ByteRange::new(start, end), end)))
    });
    let deliveries = parts.flat_map(move |part| fetch_part(place.clone(), part));
    // Nothing comes behind an error.
    Box::pin(deliveries.scan(false, |failed, item| {
        let before = std::mem::replace(failed, item.is_err());
        std::future::ready((!before).then_some(item))
    }))
}

fn fetch_part(place: Place, range: ByteRange) -> DeliveryStream {
    let state = if range.is_empty() {
        State::Ended
    } else {
        State::Asking(Box::new(place), range)
    };
    Box::pin(futures_util::stream::unfold(state, |state| async move {
        let (item, next) = match state {
            State::Ended => return None,
            State::Failing(error) => (Err(error), State::Ended),
            State::Asking(place, range) => match Reading::begin(*place, range).await {
                Ok(reading) => Box::new(reading).next().await?,
                Err(error) => (Err(error), State::Ended),
            },
            State::Reading(reading) => reading.next().await?,
        };
        Some((item, next))
    }))
}

enum State {
    Asking(Box<Place>, ByteRange),
    Reading(Box<Reading>),
    /// All bytes have come, and then something else.
    Failing(TransferError),
    Ended,
}

type Item = Result<Delivery, TransferError>;

/// A body on its way in.
struct Reading {
    pool: Arc<Pool>,
    /// `None` once the answer was read to its end.
    link: Option<Link>,
    body: Inbound,
    /// What has not come yet.
    left: ByteRange,
    idle: Pin<Box<Sleep>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

enum Event {
    Data(Bytes),
    End,
    Failed(TransferError),
}

impl Reading {
    async fn begin(place: Place, range: ByteRange) -> Result<Self, TransferError> {
        let permits = place.permits.clone();
        let permit = permits
            .acquire_owned()
            .await
            .map_err(|_| TransferError::Closed)?;
        let (link, body) = place.admission(range).await?;
        let pool = place.pool;
        let idle = Box::pin(sleep(pool.config.idle_timeout));
        let closed = Box::pin(pool.closed.clone().cancelled_owned());
        let link = Some(link);
        Ok(Self {
            pool,
            link,
            body,
            left: range,
            idle,
            closed,
            _permit: permit,
        })
    }

    async fn next(mut self: Box<Self>) -> Option<(Item, State)> {
        let this = &mut *self;
        let link = this.link.as_mut()?;
        this.idle
            .as_mut()
            .reset(Instant::now() + this.pool.config.idle_timeout);
        let event = std::future::poll_fn(|cx| match link.poll_body(&mut this.body, cx) {
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Event::Data(data)),
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Event::Failed(error.into_transfer(&this.pool.name)))
            }
            Poll::Ready(None) => Poll::Ready(Event::End),
            Poll::Pending if this.closed.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Event::Failed(TransferError::Closed))
            }
            Poll::Pending if this.idle.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Event::Failed(timed_out(&this.pool.name)))
            }
            Poll::Pending => Poll::Pending,
        })
        .await;
        match event {
            Event::Failed(error) => Some((Err(error), State::Ended)),
            Event::End if self.left.is_empty() => {
                self.link = None;
                None
            }
            Event::End => {
                let error = protocol(&self.pool.name, "a body shorter than its range");
                Some((Err(error), State::Ended))
            }
            Event::Data(_) if self.left.is_empty() => {
                let error = protocol(&self.pool.name, "a body longer than its range");
                Some((Err(error), State::Ended))
            }
            Event::Data(data) => Some(self.deliver(data).await),
        }
    }

    async fn deliver(mut self: Box<Self>, mut bytes: Bytes) -> (Item, State) {
        let offset = self.left.start;
        let room = usize::try_from(self.left.len()).unwrap_or(usize::MAX);
        let overlong = bytes.len() > room;
        bytes.truncate(room);
        self.left.start += bytes.len() as u64;
        let delivery = Ok(Delivery::new(offset, bytes));
        if !self.left.is_empty() {
            return (delivery, State::Reading(self));
        }
        // A reader that has all its bytes will not ask for more only to hear that there are
        // none: if the body has visibly ended, the connection goes back now.
        let end = match &mut self.link {
            Some(link) if !overlong => {
                std::future::poll_fn(|cx| Poll::Ready(link.poll_body(&mut self.body, cx))).await
            }
            _ => Poll::Ready(Some(Ok(Bytes::new()))),
        };
        let next = match end {
            Poll::Ready(None) => {
                self.link = None;
                State::Ended
            }
            Poll::Ready(Some(Ok(_))) => {
                State::Failing(protocol(&self.pool.name, "a body longer than its range"))
            }
            Poll::Ready(Some(Err(error))) => State::Failing(error.into_transfer(&self.pool.name)),
            Poll::Pending => State::Reading(self),
        };
        (delivery, next)
    }
}

/// The error for an answer that is not what was asked for.
pub(super) async fn refusal(
    fault: Fault,
    pool: &Pool,
    mut link: Link,
    body: Inbound,
) -> TransferError {
    if fault != Fault::Status(StatusCode::PAYMENT_REQUIRED) {
        return fault.into_transfer(&pool.name);
    }
    let wait = pool.config.answer_timeout;
    match collect(&mut link, body, MAX_PAYMENT_MESSAGE, wait, &pool.name).await {
        Ok(offer) => TransferError::PaymentRequired {
            source_name: pool.name.to_string(),
            offer,
        },
        Err(error) => error,
    }
}
