//! Option A on the seeder's side: single chunks, sealed if that is asked for.

use super::*;
use crate::private::messages::{ChunkRequest, ChunkResponse};

impl Serving {
    /// Puts the wants of a list into the line, each under its own number.
    pub(super) async fn wanted(
        &self,
        id: u32,
        list: ChunkRequest,
        ask: &mpsc::Sender<Asked>,
        out: &Out,
    ) -> Result<(), LinkError> {
        let count = list.wants.len();
        let fits = count > 0 && count <= MAX_WANTS && id.checked_add(count as u32).is_some();
        if !fits {
            return Err(FrameError::Header.into());
        }
        let mut proof = list.payment_proof;
        for (number, want) in (id..).zip(list.wants) {
            let want = Request::Want(want, proof.take());
            self.enqueue(number, want, ask, out).await?;
        }
        Ok(())
    }

    fn is_cancelled(&self, id: u32) -> bool {
        self.requests().cancelled.contains(&id)
    }

    /// One chunk, or a part of it, in one frame.
    pub(super) async fn chunk(
        &self,
        id: u32,
        want: Want,
        proof: Option<Bytes>,
        behind: u64,
    ) -> Frame {
        match self.chunk_bytes(id, want, proof, behind).await {
            Ok((response, data)) => Frame::new(id, Body::ChunkResponse(response)).with_data(data),
            Err(body) => Frame::new(id, body),
        }
    }

    async fn chunk_bytes(
        &self,
        id: u32,
        want: Want,
        proof: Option<Bytes>,
        behind: u64,
    ) -> Result<(ChunkResponse, Bytes), Body> {
        let Some(Opened { content, meter }) = &self.file else {
            return Err(self.have());
        };
        let payment_answer = match proof {
            Some(proof) => {
                let answer = self.host.gate.message(proof).await;
                answer.map_err(|error| refused(&error))?
            }
            None => Bytes::new(),
        };
        let header = content.header();
        let index = ChunkLayout::chunk_at(want.offset);
        let end = want.offset.checked_add(want.length);
        let layout = header.layout().ok();
        let whole = layout
            .filter(|layout| layout.contains(index))
            .map(|layout| layout.range(index));
        let range = match (end, whole) {
            (Some(end), Some(whole)) if want.length > 0 && end <= whole.end => {
                ByteRange::new(want.offset, end)
            }
            _ => return Err(failed(FailureKind::Missing, "not within a chunk")),
        };
        // Nothing is owed for what nobody waits for: it is not told that this was not done.
        let given_up = || failed(FailureKind::Busy, "given up");
        if self.is_cancelled(id) {
            return Err(given_up());
        }
        let mut serve = ServeRequest::new(header.cid, range, Protocol::Private);
        serve.credential = want.credential;
        serve.sealed = want.sealed;
        self.admitted(&serve, behind).await?;
        let mut sent = Sent::new(self.host.clone(), serve.clone());
        let data = content.read(range).await.map_err(|error| match error {
            StoreError::Range { .. } => failed(FailureKind::Missing, "not held"),
            error => {
                tracing::warn!(%error, "content cannot be read");
                failed(FailureKind::Internal, "it cannot be read")
            }
        })?;
        let flow = self.host.config.uploads.flow(header.cid);
        let mut left = range.len();
        while left > 0 {
            left -= flow.acquire(left).await;
        }
        // Sealed or not at all: whoever asked for a seal has not paid.
        let (seal, data) = match serve.sealed {
            true => {
                let sealed = self.host.gate.seal(&serve, data).await;
                let sealed = sealed.map_err(|error| refused(&error))?;
                (sealed.header, sealed.data)
            }
            false => (Bytes::new(), data),
        };
        let hash = self.host.hashes.of(&**content, index).await.unwrap_or(None);
        if self.is_cancelled(id) {
            return Err(given_up());
        }
        self.count(meter, range.len());
        sent.until(range.end);
        let response = ChunkResponse {
            offset: range.start,
            seal,
            verification_hash: hash
                .map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(hash.as_bytes())),
            payment_answer,
        };
        Ok((response, data))
    }
}
