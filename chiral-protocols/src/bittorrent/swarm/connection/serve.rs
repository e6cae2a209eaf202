//! What the peer asked for is read and put in the outbox.

use bytes::Bytes;
use chiral_core::{ByteRange, CHUNK_SIZE, Protocol, ServeRequest, StoreError};

use super::{Connection, Reading};
use crate::bittorrent::extension::Admitted;
use crate::bittorrent::session::Now;
use crate::bittorrent::swarm::greet::Wire;
use crate::limits::Flow;

impl<S: Wire> Connection<S> {
    /// Puts blocks that the peer asked for in the outbox, out of what was read last, or has
    /// more read.
    pub(super) fn serve(&mut self, now: Now) {
        if self.session.next_upload().is_some() && self.torrent.content().is_none() {
            // Not served any more: nor what was read before.
            self.held = None;
        }
        while self.session.outbox().has_room() && self.reading.is_none() {
            let (Some(block), Some(geometry)) =
                (self.session.next_upload(), self.session.geometry())
            else {
                return;
            };
            let range = geometry.range(block);
            let range = ByteRange::new(range.start, range.end.min(geometry.length()));
            if !self.may_have(range) {
                self.session.refuse_upload();
                continue;
            }
            match &self.held {
                Some((held, bytes)) if held.covers(range) => {
                    let from = (range.start - held.start) as usize;
                    let data = bytes.slice(from..from + range.len() as usize);
                    self.session.upload(now, padded(data, block.len));
                    self.sales.sent(range);
                    if self.flow.as_ref().is_some_and(Flow::is_limited) {
                        // What follows needs a leave of its own.
                        self.held = None;
                    }
                }
                _ => self.start_reading(range, geometry.length()),
            }
        }
    }

    /// Whether a block may be given: what has a price, perhaps since a moment ago, only to whom
    /// the gate has given leave.
    fn may_have(&self, block: ByteRange) -> bool {
        let Some(content) = self.torrent.content() else {
            return true;
        };
        let tariff = self.node.gate.tariff(content.header().cid);
        tariff.price.is_free() || self.sales.covers(block)
    }

    /// The peer's agent asks for leave to ask for bytes.
    pub(super) fn admit(&mut self, question: u32, range: ByteRange, credential: Option<Bytes>) {
        let length = self.session.geometry().map(|geometry| geometry.length());
        let content = self.torrent.content();
        let content = content.filter(|_| length.is_some_and(|length| range.end <= length));
        let Some(content) = content else {
            let refused = Admitted::Refused {
                reason: "there is no such thing to be had".to_owned(),
                retryable: false,
            };
            return self.conversation.say(question, Some(refused.encode()));
        };
        let mut request = ServeRequest::new(content.header().cid, range, Protocol::BitTorrent);
        request.credential = credential;
        self.conversation
            .admit(question, request, self.sales.clone());
    }

    /// Reads the chunks that a block lies in, so that those after it are there too.
    pub(super) fn start_reading(&mut self, range: ByteRange, length: u64) {
        let Some(content) = self.torrent.content() else {
            self.session.refuse_upload();
            return;
        };
        let cid = content.header().cid;
        let flow = self
            .flow
            .get_or_insert_with(|| self.node.config.uploads.flow(cid))
            .clone();
        let wide = ByteRange::new(
            range.start / CHUNK_SIZE * CHUNK_SIZE,
            (range.end.div_ceil(CHUNK_SIZE) * CHUNK_SIZE).min(length),
        );
        let asked = if flow.is_limited() { range } else { wide };
        self.reading = Some(Box::pin(async move {
            let mut left = if flow.is_limited() { asked.len() } else { 0 };
            while left > 0 {
                left -= flow.acquire(left).await;
            }
            (asked, content.read(asked).await)
        }));
    }

    pub(super) fn read(&mut self, range: ByteRange, bytes: Result<Bytes, StoreError>) {
        match bytes {
            Ok(bytes) if bytes.len() as u64 == range.len() => self.held = Some((range, bytes)),
            Ok(_) => self.session.refuse_upload(),
            Err(error) => {
                tracing::debug!(%error, "cannot be served");
                self.session.refuse_upload();
            }
        }
    }
}

/// The next thing that was read.
pub(super) async fn next(reading: &mut Option<Reading>) -> (ByteRange, Result<Bytes, StoreError>) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// As much as was asked for, with zeros past the end of the file (version 2).
fn padded(data: Bytes, len: u32) -> Bytes {
    if data.len() >= len as usize {
        return data;
    }
    let mut padded = data.to_vec();
    padded.resize(len as usize, 0);
    padded.into()
}
