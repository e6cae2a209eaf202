//! The seeder's end of a session.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chiral_core::peer_network::BoxedPeerStream;
use chiral_core::{
    Admission, ByteRange, CHUNK_SIZE, ChunkLayout, Cid, Coverage, GateError, PaymentGate, Protocol,
    ServeRequest, StoreError, StoredContent,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::config::PrivateConfig;
use super::frame::{Frame, FrameError};
use super::link::{FrameReader, FrameWriter, LinkError, split};
use super::messages::{
    Body, ChunksDone, Failed, FailureKind, FileRequest, FileResponse, Have, MAX_WANTS, OpenSession,
    Page, PaymentAnswer, PaymentRequired, RequestChunks, SessionAccepted, StreamChunk, VERSION,
    Want,
};
use super::source::write_have;
use crate::chunk_hashes::ChunkHashes;
use crate::meter::Meter;
use crate::seeds::{Opened, Seeds};
use payments::Payments;

mod chunks;
mod payments;

/// Frames that wait to be sent: read ahead of the stream.
const SENDING: usize = 8;

/// Answers that wait to be sent. They go before what is read ahead: a buyer may wait for one,
/// and for the chunks it does not need one by one.
const SAYING: usize = 16;

/// Payment messages of one session that wait to be looked at.
const MAX_MESSAGES: usize = 16;

/// Bytes read from the store at once: what is in memory of a chunk the store copies at once,
/// into a buffer that was used before, and for more it asks another thread.
const READ: u64 = CHUNK_SIZE;

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) seeds: Arc<Seeds>,
    pub(super) hashes: ChunkHashes,
    pub(super) gate: Arc<dyn PaymentGate>,
    pub(super) config: PrivateConfig,
    /// Waited for when the protocol is shut down.
    pub(super) tasks: TaskTracker,
    pub(super) begun: Instant,
}

/// Requests of one session.
#[derive(Debug, Default)]
struct Requests {
    /// Numbers of those that wait or are served.
    open: BTreeSet<u32>,
    cancelled: BTreeSet<u32>,
}

/// One session.
struct Serving {
    host: Arc<Host>,
    file: Option<Opened>,
    requests: Mutex<Requests>,
    payments: Payments,
}

impl Host {
    /// Holds a session to its end.
    pub(super) async fn serve(self: Arc<Self>, stream: BoxedPeerStream) {
        let (mut reader, mut writer) = split(stream);
        let (limit, config) = (self.config.answer_timeout, self.config.clone());
        let opened = timeout(limit, self.open(&mut reader, &mut writer)).await;
        let serving = match opened {
            Ok(Ok(Some(serving))) => serving,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no session");
                return;
            }
        };
        let (out, queue) = mpsc::channel(SENDING);
        let (say, said) = mpsc::channel(SAYING);
        let (ask, asked) = mpsc::channel(config.max_requests.max(1) + MAX_WANTS);
        let (tell, told) = mpsc::channel(MAX_MESSAGES);
        let serving = Arc::new(serving);
        // In a task of its own: what is read and sealed keeps nothing else waiting, and least of
        // all payments and their answers, for which a buyer may wait with all else.
        let delivering = serving.clone().deliver(asked, out);
        let delivering = AbortOnDropHandle::new(self.tasks.spawn(delivering));
        let result = tokio::select! {
            result = serving.listen(&mut reader, &say, ask, tell) => result,
            result = delivering => result.unwrap_or_else(|error| Err(io::Error::other(error).into())),
            result = serving.answer(told, &say) => result,
            result = write(&mut writer, said, queue, &config) => result,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "session over");
        }
        // The other side may be gone already.
        let _ = timeout(limit, writer.close()).await;
    }

    /// The first frames of both. `None` if there is no session.
    async fn open(
        self: &Arc<Self>,
        reader: &mut FrameReader,
        writer: &mut FrameWriter,
    ) -> Result<Option<Serving>, LinkError> {
        let Some(frame) = reader.next().await? else {
            return Ok(None);
        };
        let Body::OpenSession(OpenSession { file_hash, version }) = frame.body else {
            return Err(FrameError::Header.into());
        };
        // Who says nothing speaks the first.
        let version = version.clamp(1, VERSION);
        let (answer, file) = match self.file(&file_hash).await {
            Ok(Some(opened)) => match self.accepted(&*opened.content, version) {
                Some(accepted) => (accepted, Some(opened)),
                None => (
                    failed(FailureKind::Internal, "it cannot be described"),
                    None,
                ),
            },
            Ok(None) if file_hash.is_empty() => {
                let accepted = SessionAccepted {
                    manifest_header: Bytes::new(),
                    price: Bytes::new(),
                    wallet: Bytes::new(),
                    version,
                };
                (Body::SessionAccepted(accepted), None)
            }
            Ok(None) => (failed(FailureKind::UnknownFile, "not served here"), None),
            Err(error) => {
                tracing::warn!(%error, "content cannot be opened");
                (failed(FailureKind::Internal, "it cannot be read"), None)
            }
        };
        let refused = matches!(answer, Body::Failed(_));
        writer.write(&Frame::new(0, answer)).await?;
        writer.flush().await?;
        if refused {
            writer.close().await?;
            return Ok(None);
        }
        Ok(Some(Serving {
            host: self.clone(),
            file,
            requests: Mutex::default(),
            payments: Payments::default(),
        }))
    }

    async fn file(&self, hash: &[u8]) -> Result<Option<Opened>, StoreError> {
        match <[u8; 32]>::try_from(hash) {
            Ok(bytes) => self.seeds.open(Cid::from_bytes(bytes)).await,
            Err(_) => Ok(None),
        }
    }

    fn accepted(&self, content: &dyn StoredContent, version: u32) -> Option<Body> {
        let header = content.header();
        let tariff = self.gate.tariff(header.cid);
        let price = tariff.price.wei_per_mib().to_be_bytes_trimmed_vec();
        let wallet = tariff.wallet.map(|wallet| wallet.to_vec());
        Some(Body::SessionAccepted(SessionAccepted {
            manifest_header: header.encode().ok()?.into(),
            price: price.into(),
            wallet: wallet.unwrap_or_default().into(),
            version,
        }))
    }
}

/// A request that waits for its turn.
struct Asked {
    id: u32,
    request: Request,
    /// Payment messages that came before it.
    behind: u64,
}

enum Request {
    Chunks(RequestChunks),
    File(FileRequest),
    /// One want of a list, and the payment that came with the list.
    Want(Want, Option<Bytes>),
}

/// What was sent of an admitted request. The gate is told once, at its end, however it ends.
struct Sent {
    host: Arc<Host>,
    request: ServeRequest,
    end: u64,
}

impl Sent {
    fn new(host: Arc<Host>, request: ServeRequest) -> Self {
        let end = request.range.start;
        Self { host, request, end }
    }

    fn until(&mut self, end: u64) {
        self.end = end;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let (host, request) = (self.host.clone(), self.request.clone());
        let sent = ByteRange::new(request.range.start, self.end);
        let told = async move { host.gate.served(&request, sent).await };
        self.host.tasks.spawn(told);
    }
}

fn failed(kind: FailureKind, reason: &str) -> Body {
    Body::Failed(Failed {
        kind: kind.into(),
        reason: reason.to_owned(),
    })
}

async fn write(
    writer: &mut FrameWriter,
    mut said: mpsc::Receiver<Frame>,
    mut queue: mpsc::Receiver<Frame>,
    config: &PrivateConfig,
) -> Result<(), LinkError> {
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = said.recv() => frame,
            Some(frame) = queue.recv() => frame,
            else => return Ok(()),
        };
        let work = async {
            writer.write(&frame).await?;
            match said.is_empty() && queue.is_empty() {
                true => writer.flush().await,
                false => Ok(()),
            }
        };
        // Who takes nothing for so long is not waited for.
        let slow = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        timeout(config.idle_timeout, work)
            .await
            .map_err(|_| slow())??;
    }
}

type Out = mpsc::Sender<Frame>;

/// Hands a frame to the writer, which is there as long as the session is.
async fn send(out: &Out, frame: Frame) -> Result<(), LinkError> {
    let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    out.send(frame).await.map_err(|_| gone().into())
}

impl Serving {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the buyer says.
    async fn listen(
        &self,
        reader: &mut FrameReader,
        out: &Out,
        ask: mpsc::Sender<Asked>,
        tell: mpsc::Sender<(u32, Bytes)>,
    ) -> Result<(), LinkError> {
        loop {
            let Some(Frame { id, body, .. }) = self.next(reader).await? else {
                return Ok(());
            };
            match body {
                Body::RequestHave(_) => {
                    send(out, Frame::new(id, self.have()).with_data(self.runs())).await?
                }
                Body::RequestPage(page) => {
                    let frame = self.page(id, page.index).await;
                    send(out, frame).await?;
                }
                Body::RequestChunks(request) => {
                    let request = Request::Chunks(request);
                    self.enqueue(id, request, &ask, out).await?;
                }
                Body::FileRequest(request) => {
                    let request = Request::File(request);
                    self.enqueue(id, request, &ask, out).await?;
                }
                Body::ChunkRequest(list) => self.wanted(id, list, &ask, out).await?,
                Body::PaymentBatch(batch) => {
                    self.payments.come();
                    if tell.try_send((id, batch.message)).is_err() {
                        self.payments.seen();
                        send(
                            out,
                            Frame::new(id, failed(FailureKind::Busy, "too many messages")),
                        )
                        .await?;
                    }
                }
                Body::Cancel(_) => {
                    let mut requests = self.requests();
                    if requests.open.contains(&id) {
                        requests.cancelled.insert(id);
                    }
                }
                Body::CloseSession(_) => return Ok(()),
                _ => return Err(FrameError::Header.into()),
            }
        }
    }

    /// Puts a request into the line.
    async fn enqueue(
        &self,
        id: u32,
        request: Request,
        ask: &mpsc::Sender<Asked>,
        out: &Out,
    ) -> Result<(), LinkError> {
        let new = self.requests().open.insert(id);
        let behind = self.payments.come_so_far();
        let asked = Asked {
            id,
            request,
            behind,
        };
        if new && ask.try_send(asked).is_ok() {
            return Ok(());
        }
        if new {
            self.requests().open.remove(&id);
        }
        let busy = failed(FailureKind::Busy, "too many requests");
        send(out, Frame::new(id, busy)).await
    }

    /// The next frame; `None` at the end, and if it does not come for too long while nothing
    /// is being sent.
    async fn next(&self, reader: &mut FrameReader) -> Result<Option<Frame>, LinkError> {
        let limit = self.host.config.session_timeout;
        let mut next = std::pin::pin!(reader.next());
        loop {
            match timeout(limit, &mut next).await {
                Ok(next) => return next,
                Err(_) if self.requests().open.is_empty() => return Ok(None),
                Err(_) => {}
            }
        }
    }

    fn have(&self) -> Body {
        match self.file {
            Some(_) => Body::Have(Have {}),
            None => failed(FailureKind::UnknownFile, "no file in this session"),
        }
    }

    fn runs(&self) -> Bytes {
        let held = self.file.as_ref().and_then(|file| {
            let layout = file.content.header().layout().ok()?;
            Some(match file.content.coverage() {
                Coverage::Complete => chiral_core::ChunkRuns::complete(layout),
                partial => partial.runs(layout),
            })
        });
        held.map_or_else(Bytes::new, |runs| write_have(&runs))
    }

    async fn page(&self, id: u32, index: u32) -> Frame {
        let Some(file) = &self.file else {
            return Frame::new(id, self.have());
        };
        match file.content.page(index).await {
            Ok(Some(page)) => Frame::new(id, Body::Page(Page {})).with_data(page.encode().into()),
            Ok(None) => Frame::new(id, failed(FailureKind::Missing, "no such page")),
            Err(error) => {
                tracing::warn!(%error, "a manifest page cannot be read");
                Frame::new(id, failed(FailureKind::Internal, "it cannot be read"))
            }
        }
    }

    /// Takes messages to the gate, one after the other.
    async fn answer(
        &self,
        mut told: mpsc::Receiver<(u32, Bytes)>,
        out: &Out,
    ) -> Result<(), LinkError> {
        while let Some((id, message)) = told.recv().await {
            let body = match self.host.gate.message(message).await {
                Ok(message) => Body::PaymentAnswer(PaymentAnswer { message }),
                Err(error) => refused(&error),
            };
            self.payments.seen();
            send(out, Frame::new(id, body)).await?;
        }
        std::future::pending().await
    }

    /// Works requests for bytes off, one after the other.
    async fn deliver(
        self: Arc<Self>,
        mut asked: mpsc::Receiver<Asked>,
        out: Out,
    ) -> Result<(), LinkError> {
        while let Some(Asked {
            id,
            request,
            behind,
        }) = asked.recv().await
        {
            let last = match request {
                Request::Chunks(request) => {
                    Frame::new(id, self.one(id, request, behind, &out).await?)
                }
                Request::File(request) => self.some(id, request, behind).await,
                Request::Want(want, proof) => self.chunk(id, want, proof, behind).await,
            };
            let cancelled = {
                let mut requests = self.requests();
                requests.open.remove(&id);
                requests.cancelled.remove(&id)
            };
            if !cancelled {
                send(&out, last).await?;
            }
        }
        std::future::pending().await
    }

    /// One request; answers its last frame.
    async fn one(
        &self,
        id: u32,
        request: RequestChunks,
        behind: u64,
        out: &Out,
    ) -> Result<Body, LinkError> {
        let Some(file) = &self.file else {
            return Ok(self.have());
        };
        let header = file.content.header();
        let end = request.offset.checked_add(request.length);
        let range = match end {
            Some(end) if request.length > 0 && end <= header.size => {
                ByteRange::new(request.offset, end)
            }
            _ => return Ok(failed(FailureKind::Missing, "not within the file")),
        };
        let mut serve = ServeRequest::new(header.cid, range, Protocol::Private);
        serve.credential = request.credential;
        if let Err(body) = self.admitted(&serve, behind).await {
            return Ok(body);
        }
        let flow = self.host.config.uploads.flow(header.cid);
        let mut sent = Sent::new(self.host.clone(), serve);
        let mut at = range.start;
        while at < range.end {
            let until = (at / READ + 1).saturating_mul(READ).min(range.end);
            let mut bytes = match file.content.read(ByteRange::new(at, until)).await {
                Ok(bytes) => bytes,
                Err(StoreError::Range { .. }) => {
                    return Ok(failed(FailureKind::Missing, "not held"));
                }
                Err(error) => {
                    tracing::warn!(%error, "content cannot be read");
                    return Ok(failed(FailureKind::Internal, "it cannot be read"));
                }
            };
            while !bytes.is_empty() {
                if self.requests().cancelled.contains(&id) {
                    return Ok(Body::ChunksDone(ChunksDone {}));
                }
                let in_chunk = (CHUNK_SIZE - at % CHUNK_SIZE).min(bytes.len() as u64);
                let part = flow.acquire(in_chunk).await;
                let chunk = Body::StreamChunk(StreamChunk { offset: at });
                let data = bytes.split_to(part as usize);
                send(out, Frame::new(id, chunk).with_data(data)).await?;
                self.count(&file.meter, part);
                at += part;
                sent.until(at);
            }
        }
        Ok(Body::ChunksDone(ChunksDone {}))
    }

    /// Some bytes of any file, in one frame.
    async fn some(&self, id: u32, request: FileRequest, behind: u64) -> Frame {
        match self.some_bytes(request, behind).await {
            Ok((response, data)) => Frame::new(id, Body::FileResponse(response)).with_data(data),
            Err(body) => Frame::new(id, body),
        }
    }

    async fn some_bytes(
        &self,
        request: FileRequest,
        behind: u64,
    ) -> Result<(FileResponse, Bytes), Body> {
        let unreadable = |error: StoreError| match error {
            StoreError::Range { .. } => failed(FailureKind::Missing, "not held"),
            error => {
                tracing::warn!(%error, "content cannot be read");
                failed(FailureKind::Internal, "it cannot be read")
            }
        };
        let file = self.host.file(&request.file_hash).await;
        let Some(Opened { content, meter }) = file.map_err(unreadable)? else {
            return Err(failed(FailureKind::UnknownFile, "not served here"));
        };
        let header = content.header();
        let within = request.length > 0 && request.offset < header.size;
        let Some(layout) = header.layout().ok().filter(|_| within) else {
            return Err(failed(FailureKind::Missing, "not within the file"));
        };
        let index = ChunkLayout::chunk_at(request.offset);
        let end = request.offset.saturating_add(request.length);
        let range = ByteRange::new(request.offset, end.min(layout.range(index).end));
        let mut serve = ServeRequest::new(header.cid, range, Protocol::Private);
        serve.credential = request.credential;
        self.admitted(&serve, behind).await?;
        let mut sent = Sent::new(self.host.clone(), serve);
        let data = content.read(range).await.map_err(unreadable)?;
        let next = match layout.is_last(index) {
            true => None,
            false => self
                .host
                .hashes
                .of(&*content, index + 1)
                .await
                .unwrap_or(None),
        };
        let response = FileResponse {
            is_last_chunk: layout.is_last(index),
            next_chunk_hash: next
                .map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(hash.as_bytes())),
        };
        self.count(&meter, range.len());
        sent.until(range.end);
        Ok((response, data))
    }

    /// Whether the gate lets a request through; if not, what is answered. If it does not while
    /// payments that came before are still looked at, it is asked once more behind them.
    async fn admitted(&self, serve: &ServeRequest, behind: u64) -> Result<(), Body> {
        let seen = self.payments.seen_so_far();
        match self.decided(serve).await {
            Err(Body::PaymentRequired(_)) if seen < behind && serve.credential.is_some() => {
                self.payments.wait_for(behind).await;
                self.decided(serve).await
            }
            decided => decided,
        }
    }

    async fn decided(&self, serve: &ServeRequest) -> Result<(), Body> {
        match self.host.gate.admit(serve).await {
            Ok(Admission::Granted) => Ok(()),
            Ok(Admission::PaymentRequired(terms)) => {
                Err(Body::PaymentRequired(PaymentRequired { terms }))
            }
            Ok(Admission::Refused { reason }) => Err(failed(FailureKind::Refused, &reason)),
            Err(error) => Err(refused(&error)),
            // What is no leave is none.
            Ok(_) => Err(failed(FailureKind::Refused, "not admitted")),
        }
    }

    fn count(&self, meter: &Meter, bytes: u64) {
        meter.add(self.host.begun.elapsed().as_secs(), bytes);
    }
}

fn refused(error: &GateError) -> Body {
    let kind = if error.is_retryable() {
        FailureKind::Internal
    } else {
        FailureKind::Refused
    };
    failed(kind, &error.to_string())
}
