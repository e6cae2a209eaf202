//! [`EncodedBody`]: stored content that is encoded as it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use chiral_core::StoreError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::body::{ContentBody, Sending};
use super::coding::{Coding, Encoder};

type Step = (Option<Box<Encoder>>, io::Result<Bytes>);

/// Content on its way through an encoder, which works beside the runtime: one piece is being
/// read, one encoded and one sent, whatever the size of the whole.
pub(super) struct EncodedBody {
    content: ContentBody,
    state: State,
    sending: Arc<Sending>,
    /// One of the encoders that a server has at once.
    _place: OwnedSemaphorePermit,
}

enum State {
    Reading(Box<Encoder>),
    Encoding(JoinHandle<Step>),
    Ended,
}

impl std::fmt::Debug for EncodedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedBody")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl EncodedBody {
    pub(super) fn new(
        content: ContentBody,
        coding: Coding,
        sending: Arc<Sending>,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        Ok(Self {
            content,
            state: State::Reading(Box::new(Encoder::new(coding)?)),
            sending,
            _place: place,
        })
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The next piece. On a failure the answer breaks off without the mark of its end, which
    /// every client sees.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StoreError>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Reading(encoder) => match self.content.poll_next(cx) {
                    Poll::Pending => {
                        self.state = State::Reading(encoder);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(Some(Ok(bytes))) => self.begin(encoder, Some(bytes)),
                    Poll::Ready(None) => self.begin(encoder, None),
                },
                State::Encoding(mut task) => match Pin::new(&mut task).poll(cx) {
                    Poll::Pending => {
                        self.state = State::Encoding(task);
                        return Poll::Pending;
                    }
                    Poll::Ready(step) => {
                        if let Some(item) = self.took(step.map_err(io::Error::other)) {
                            return Poll::Ready(Some(item));
                        }
                    }
                },
            }
        }
    }

    /// Hands the encoder its next bytes, or ends it.
    fn begin(&mut self, mut encoder: Box<Encoder>, bytes: Option<Bytes>) {
        let step = move || match bytes {
            Some(bytes) => {
                let out = encoder.push(&bytes);
                (Some(encoder), out)
            }
            None => (None, encoder.finish()),
        };
        self.state = State::Encoding(self.sending.beside(step));
    }

    fn took(&mut self, step: io::Result<Step>) -> Option<Result<Bytes, StoreError>> {
        match step {
            Ok((encoder, Ok(bytes))) => {
                if let Some(encoder) = encoder {
                    self.state = State::Reading(encoder);
                }
                (!bytes.is_empty()).then_some(Ok(bytes))
            }
            Ok((_, Err(source))) | Err(source) => Some(Err(StoreError::Io {
                operation: "encode",
                path: "an answer".into(),
                source,
            })),
        }
    }
}
