//! The messages of gate and agent over byte streams between peers: the same bytes that HTTP
//! carries, each behind its length.
//!
//! A stream of [`NAME`] is one conversation: the buyer sends a message, the seeder its answer,
//! and so on. A message is its length in four bytes, the highest first, and itself; an answer
//! of no bytes says that the message is refused, and ends the conversation.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::payment_gate::{MAX_PAYMENT_MESSAGE, MAX_ROUNDS};
use chiral_core::peer_network::{BoxedPeerStream, IncomingStreams};
use chiral_core::{NetworkError, PaymentGate, PeerId, PeerNetwork};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::StreamExt;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Name of the stream protocol.
pub const NAME: &str = "/chiral/payment/1";

/// Conversations at once; further streams are reset.
const MAX_CONVERSATIONS: usize = 64;

/// Messages in one conversation: those of an agreement, and some acknowledgements and notices.
const MAX_MESSAGES: usize = 4 * MAX_ROUNDS;

/// How long the other side may take to say something, or to take what is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a message was not carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream could not be opened.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The stream broke.
    #[error("the stream to the seeder broke")]
    Broken(#[from] io::Error),
    /// A message over [`MAX_PAYMENT_MESSAGE`].
    #[error("a message over the limit")]
    TooLarge,
    /// The seeder does not answer in time.
    #[error("the seeder does not answer in time")]
    Timeout,
    /// The seeder's gate does not take the message.
    #[error("the seeder does not take the message")]
    Refused,
}

impl StreamError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Network(error) => error.is_retryable(),
            Self::Broken(_) | Self::Timeout => true,
            Self::TooLarge | Self::Refused => false,
        }
    }
}

/// The seeder's end: hands what comes to the gate. Must be shut down.
pub struct PaymentStreams {
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for PaymentStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentStreams").finish_non_exhaustive()
    }
}

impl PaymentStreams {
    /// Answers conversations from now on.
    ///
    /// # Errors
    /// [`NetworkError::Taken`] if somebody does already; [`NetworkError::Closed`].
    pub async fn serve(
        network: &dyn PeerNetwork,
        gate: Arc<dyn PaymentGate>,
    ) -> Result<Self, NetworkError> {
        let incoming = network.accept(NAME).await?;
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let streams = Self {
            closed: closed.clone(),
            tasks: tasks.clone(),
        };
        tasks.clone().spawn(async move {
            let work = accept(incoming, gate, tasks, closed.clone());
            closed.run_until_cancelled(work).await;
        });
        Ok(streams)
    }

    /// Ends all conversations; idempotent.
    pub async fn shutdown(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(
    mut incoming: IncomingStreams,
    gate: Arc<dyn PaymentGate>,
    tasks: TaskTracker,
    closed: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONVERSATIONS));
    while let Some((peer, stream)) = incoming.next().await {
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            tracing::debug!(%peer, "too many payment conversations");
            continue;
        };
        let (gate, closed) = (gate.clone(), closed.clone());
        tasks.spawn(async move {
            let _place = place;
            let talk = converse(stream, &*gate);
            if let Some(Err(error)) = closed.run_until_cancelled(talk).await {
                tracing::debug!(%peer, %error, "a payment conversation broke");
            }
        });
    }
}

async fn converse(mut stream: BoxedPeerStream, gate: &dyn PaymentGate) -> Result<(), StreamError> {
    for _ in 0..MAX_MESSAGES {
        let Some(message) = read(&mut stream).await? else {
            break;
        };
        let answer = match gate.message(message).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "a payment message is refused");
                write(&mut stream, &[]).await?;
                break;
            }
        };
        write(&mut stream, &answer).await?;
    }
    timely(async { Ok(poll_fn(|cx| Pin::new(&mut stream).poll_close(cx)).await?) }).await
}

/// The buyer's end of one conversation; clones are of the same. The stream is opened with the
/// first message.
#[derive(Clone)]
pub struct PaymentCarrier {
    network: Arc<dyn PeerNetwork>,
    peer: PeerId,
    stream: Arc<Mutex<Option<BoxedPeerStream>>>,
}

impl fmt::Debug for PaymentCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentCarrier")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl PaymentCarrier {
    /// To the gate of this peer.
    pub fn new(network: Arc<dyn PeerNetwork>, peer: PeerId) -> Self {
        Self {
            network,
            peer,
            stream: Arc::default(),
        }
    }

    /// Takes a message to the gate and brings its answer, as
    /// [`agree`](chiral_core::payment_gate::agree) wants it.
    ///
    /// # Errors
    /// [`StreamError`]; the next message begins a new conversation then.
    ///
    /// # Cancel safety
    /// The gate may have the message when it is dropped; messages may be repeated.
    pub async fn carry(self, message: Bytes) -> Result<Bytes, StreamError> {
        if message.is_empty() || message.len() > MAX_PAYMENT_MESSAGE {
            return Err(StreamError::TooLarge);
        }
        let mut place = self.stream.lock().await;
        // Put back only once it has answered.
        let mut stream = match place.take() {
            Some(stream) => stream,
            None => self.network.open(&self.peer, NAME).await?,
        };
        write(&mut stream, &message).await?;
        let answer = read(&mut stream).await?;
        let answer =
            answer.ok_or_else(|| StreamError::Broken(io::ErrorKind::UnexpectedEof.into()))?;
        if answer.is_empty() {
            return Err(StreamError::Refused);
        }
        *place = Some(stream);
        Ok(answer)
    }
}

async fn write(stream: &mut BoxedPeerStream, message: &[u8]) -> Result<(), StreamError> {
    if message.len() > MAX_PAYMENT_MESSAGE {
        return Err(StreamError::TooLarge);
    }
    // Limited by the line above.
    let length = message.len() as u32;
    let framed = [&length.to_be_bytes(), message].concat();
    timely(async {
        let mut left = &framed[..];
        while !left.is_empty() {
            let wrote = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, left)).await?;
            left = match left.get(wrote..) {
                Some(rest) if wrote > 0 => rest,
                _ => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            };
        }
        Ok(poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await?)
    })
    .await
}

/// The next message; `None` at the end of the conversation.
async fn read(stream: &mut BoxedPeerStream) -> Result<Option<Bytes>, StreamError> {
    timely(async {
        let mut length = [0; 4];
        if !fill(stream, &mut length).await? {
            return Ok(None);
        }
        let length = u32::from_be_bytes(length) as usize;
        // Before anything is allocated.
        if length > MAX_PAYMENT_MESSAGE {
            return Err(StreamError::TooLarge);
        }
        let mut message = vec![0; length];
        match fill(stream, &mut message).await? || length == 0 {
            true => Ok(Some(message.into())),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    })
    .await
}

/// Fills all of a buffer; false if the stream ends before its first byte.
async fn fill(stream: &mut BoxedPeerStream, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        match poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, rest)).await? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(true)
}

async fn timely<T>(work: impl Future<Output = Result<T, StreamError>>) -> Result<T, StreamError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(StreamError::Timeout),
    }
}
