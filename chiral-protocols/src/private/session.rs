//! The buyer's end of a session: requests by number over one stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chiral_core::peer_network::BoxedPeerStream;
use chiral_core::{Endpoint, TransferError};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::frame::Frame;
use super::link::{FrameReader, FrameWriter, LinkError, split};
use super::messages::{Body, Cancel, CloseSession, Failed, FailureKind};

/// Frames of one request that wait to be taken; the stream is not read on while there are so
/// many.
const WAITING: usize = 2;

/// Frames that wait to be sent.
const SENDING: usize = 32;

/// Requests and questions that wait for answers.
const MAX_PENDING: usize = 256;

/// Longest words of a seeder that are kept, in bytes.
const MAX_WORDS: usize = 200;

/// A session that stands, or stood.
#[derive(Debug)]
pub(super) struct Session {
    name: Endpoint,
    out: mpsc::Sender<Frame>,
    pending: Arc<Mutex<Pending>>,
    over: CancellationToken,
    answer_timeout: Duration,
    _end: DropGuard,
}

#[derive(Debug, Default)]
struct Pending {
    last: u32,
    answers: HashMap<u32, mpsc::Sender<Frame>>,
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Opens a session: says what it is for, and waits for the answer.
    pub(super) async fn open(
        stream: BoxedPeerStream,
        name: Endpoint,
        open: Body,
        answer_timeout: Duration,
        closed: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(Self, Frame), TransferError> {
        let (mut reader, mut writer) = split(stream);
        let greeting = async {
            writer.write(&Frame::new(0, open)).await?;
            writer.flush().await?;
            reader.next().await
        };
        let answer = match timeout(answer_timeout, greeting).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Err(broken(&name, "ended the session as it began")),
            Ok(Err(error)) => return Err(connection(&name, error)),
            Err(_) => return Err(timed_out(&name)),
        };
        let (out, queue) = mpsc::channel(SENDING);
        let pending = Arc::<Mutex<Pending>>::default();
        let over = closed.child_token();
        let (ended, answers, log) = (over.clone(), pending.clone(), name.clone());
        tasks.spawn(async move {
            let _ended = ended.clone().drop_guard();
            let result = tokio::select! {
                result = read(reader, &answers) => result,
                result = write(&mut writer, queue) => result,
                () = ended.cancelled() => Ok(()),
            };
            if let Err(error) = result {
                tracing::debug!(source = %log, %error, "session over");
            }
            // Whoever waits hears that nothing will come.
            lock(&answers).answers.clear();
            let farewell = async {
                writer
                    .write(&Frame::new(0, Body::CloseSession(CloseSession {})))
                    .await?;
                writer.flush().await?;
                writer.close().await
            };
            // The other side may be gone already.
            let _ = timeout(Duration::from_secs(1), farewell).await;
        });
        let session = Self {
            name,
            out,
            pending,
            over: over.clone(),
            answer_timeout,
            _end: over.drop_guard(),
        };
        Ok((session, answer))
    }

    /// Whether it can be used no more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.over.cancel();
    }

    /// Asks for something that is answered by any number of frames.
    pub(super) async fn ask(self: &Arc<Self>, body: Body) -> Result<Asking, TransferError> {
        let mut asked = self.ask_many(body, 1).await?;
        let asking = asked.pop();
        asking.ok_or_else(|| broken(&self.name, "ended the session"))
    }

    /// Asks for so many things at once, each of which is answered under a number of its own.
    pub(super) async fn ask_many(
        self: &Arc<Self>,
        body: Body,
        count: usize,
    ) -> Result<Vec<Asking>, TransferError> {
        let mut asking = Vec::with_capacity(count);
        let first = {
            let mut pending = lock(&self.pending);
            if pending.answers.len() + count > MAX_PENDING {
                return Err(TransferError::Refused {
                    source_name: self.name.to_string(),
                    reason: "too many requests wait for an answer".to_owned(),
                    retryable: true,
                });
            }
            // Numbers that are used up are the end of a session.
            let used_up = pending.last.checked_add(count as u32).is_none();
            if used_up {
                self.over.cancel();
                return Err(broken(&self.name, "has answered too many requests"));
            }
            let first = pending.last + 1;
            for id in (first..).take(count) {
                let (answers, frames) = mpsc::channel(WAITING);
                pending.answers.insert(id, answers);
                pending.last = id;
                asking.push(Asking {
                    id,
                    frames,
                    session: self.clone(),
                    answered: false,
                });
            }
            first
        };
        let sent = self.out.send(Frame::new(first, body)).await;
        // A session that ended meanwhile has let go of those who wait: nobody tells this one.
        if sent.is_err() || self.is_over() {
            return Err(broken(&self.name, "ended the session"));
        }
        Ok(asking)
    }

    /// Asks a question that has one answer.
    pub(super) async fn question(self: &Arc<Self>, body: Body) -> Result<Frame, TransferError> {
        let mut asking = self.ask(body).await?;
        match timeout(self.answer_timeout, asking.next()).await {
            Ok(answer) => {
                asking.answered = true;
                let answer = answer?;
                match answer.body {
                    Body::Failed(failed) => Err(failure(&self.name, &failed)),
                    _ => Ok(answer),
                }
            }
            Err(_) => Err(timed_out(&self.name)),
        }
    }
}

/// A request that waits for its answers. Dropping it cancels the request.
#[derive(Debug)]
pub(super) struct Asking {
    id: u32,
    frames: mpsc::Receiver<Frame>,
    session: Arc<Session>,
    answered: bool,
}

impl Asking {
    /// The next frame.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Frame, TransferError> {
        let next = self.frames.recv().await;
        next.ok_or_else(|| broken(&self.session.name, "ended the session"))
    }

    /// The last frame has come: there is nothing to cancel.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.session.pending).answers.remove(&self.id);
        if !self.answered {
            let cancel = Frame::new(self.id, Body::Cancel(Cancel {}));
            // If the queue is full the rest comes and is thrown away.
            let _ = self.session.out.try_send(cancel);
        }
    }
}

async fn read(mut reader: FrameReader, pending: &Mutex<Pending>) -> Result<(), LinkError> {
    while let Some(frame) = reader.next().await? {
        if matches!(frame.body, Body::CloseSession(_)) {
            break;
        }
        let answers = {
            let pending = lock(pending);
            if frame.id > pending.last {
                return Err(super::frame::FrameError::Header.into());
            }
            pending.answers.get(&frame.id).cloned()
        };
        if let Some(answers) = answers {
            // Whoever gave up meanwhile does not want it.
            let _ = answers.send(frame).await;
        }
    }
    Ok(())
}

async fn write(
    writer: &mut FrameWriter,
    mut queue: mpsc::Receiver<Frame>,
) -> Result<(), LinkError> {
    while let Some(frame) = queue.recv().await {
        writer.write(&frame).await?;
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}

pub(super) fn connection(
    name: &Endpoint,
    error: impl std::error::Error + Send + Sync + 'static,
) -> TransferError {
    TransferError::Connection {
        source_name: name.to_string(),
        source: Box::new(error),
    }
}

fn broken(name: &Endpoint, what: &'static str) -> TransferError {
    connection(name, std::io::Error::other(what))
}

pub(super) fn timed_out(name: &Endpoint) -> TransferError {
    TransferError::Timeout {
        source_name: name.to_string(),
    }
}

pub(super) fn protocol(name: &Endpoint, reason: &'static str) -> TransferError {
    TransferError::Protocol {
        source_name: name.to_string(),
        reason,
    }
}

/// A seeder's refusal, its words made fit for a log.
pub(super) fn failure(name: &Endpoint, failed: &Failed) -> TransferError {
    let source_name = name.to_string();
    let what = match FailureKind::try_from(failed.kind) {
        Ok(FailureKind::UnknownFile) => "the file",
        Ok(FailureKind::Missing) => "these bytes",
        kind => {
            let clean = failed.reason.chars().filter(|c| !c.is_control());
            let reason: String = clean.take(MAX_WORDS).collect();
            return TransferError::Refused {
                source_name,
                reason,
                retryable: !matches!(kind, Ok(FailureKind::Refused)),
            };
        }
    };
    TransferError::Missing { source_name, what }
}
