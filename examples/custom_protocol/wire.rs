//! What goes over the wire: frames of a length (4 bytes) and as many bytes, and bytes as they
//! are behind an answer that admits them.

use bytes::Bytes;
use chiral::core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral::{ByteRange, Cid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame: a request with its credential.
const MAX_FRAME: usize = 64 + MAX_PAYMENT_MESSAGE;

/// First byte of a request: for bytes of a file, or a message to the payment gate.
const BYTES: u8 = b'B';
const PAYMENT: u8 = b'P';

/// What a client asks.
#[derive(Debug)]
pub(crate) enum Request {
    /// 32 bytes of cid, 8 of offset, 8 of length, and the rest is the credential.
    Bytes {
        cid: Cid,
        range: ByteRange,
        credential: Option<Bytes>,
    },
    Payment(Bytes),
}

/// What a server answers: one byte, and what it says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The bytes follow, as many as were asked for.
    Granted,
    /// The gate's terms, or its answer to a message.
    Payment(Bytes),
    Refused,
}

impl Request {
    pub(crate) async fn send(self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut frame = Vec::new();
        match self {
            Self::Bytes {
                cid,
                range,
                credential,
            } => {
                frame.push(BYTES);
                frame.extend(cid.as_bytes());
                frame.extend(range.start.to_be_bytes());
                frame.extend(range.len().to_be_bytes());
                frame.extend(credential.unwrap_or_default());
            }
            Self::Payment(message) => {
                frame.push(PAYMENT);
                frame.extend(message);
            }
        }
        send_frame(to, &frame).await
    }

    pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let frame = receive_frame(from).await?;
        match frame.first() {
            Some(&PAYMENT) => Ok(Self::Payment(frame.slice(1..))),
            Some(&BYTES) if frame.len() >= 49 => {
                let number = |at: usize| {
                    let bytes = frame[at..at + 8].try_into().expect("eight bytes");
                    u64::from_be_bytes(bytes)
                };
                let (start, length) = (number(33), number(41));
                let end = start.checked_add(length).ok_or_else(nonsense)?;
                let cid = frame[1..33].try_into().expect("32 bytes");
                Ok(Self::Bytes {
                    cid: Cid::from_bytes(cid),
                    range: ByteRange::new(start, end),
                    credential: (frame.len() > 49).then(|| frame.slice(49..)),
                })
            }
            _ => Err(nonsense()),
        }
    }
}

impl Answer {
    pub(crate) async fn send(self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        match self {
            Self::Granted => to.write_u8(0).await,
            Self::Payment(message) => {
                to.write_u8(1).await?;
                send_frame(to, &message).await
            }
            Self::Refused => to.write_u8(2).await,
        }
    }

    pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        match from.read_u8().await? {
            0 => Ok(Self::Granted),
            1 => receive_frame(from).await.map(Self::Payment),
            2 => Ok(Self::Refused),
            _ => Err(nonsense()),
        }
    }
}

async fn send_frame(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| nonsense())?;
    to.write_u32(length).await?;
    to.write_all(frame).await
}

async fn receive_frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let length = from.read_u32().await? as usize;
    if length > MAX_FRAME {
        return Err(nonsense());
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    Ok(frame.into())
}

fn nonsense() -> std::io::Error {
    std::io::ErrorKind::InvalidData.into()
}
