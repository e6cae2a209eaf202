//! The handshakes of a new connection, in the clear or encrypted.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::BitTorrentError;
use super::node::random;
use crate::bittorrent::mse::{
    Ciphers, Encryption, Initiator, MAX_PAD, Methods, MseError, Randomness, Responder, Step,
};
use crate::bittorrent::wire::{HANDSHAKE_LEN, Handshake, HandshakeError, PROTOCOL};

/// Bytes read at a time.
const READ: usize = 2048;

/// A stream that a peer can be at the other end of.
pub(in crate::bittorrent) trait Wire:
    AsyncRead + AsyncWrite + Unpin + Send + 'static
{
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

/// Why no connection came of it.
#[derive(Debug, thiserror::Error)]
pub(in crate::bittorrent) enum GreetError {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Mse(#[from] MseError),
    #[error(transparent)]
    Random(#[from] BitTorrentError),
    #[error("an unknown torrent")]
    Torrent,
    #[error("this node itself")]
    Myself,
    #[error("not encrypted as this node wants it")]
    Encryption,
}

/// A connection after the handshakes.
#[derive(Debug)]
pub(in crate::bittorrent) struct Greeted<S> {
    pub(in crate::bittorrent) stream: S,
    pub(in crate::bittorrent) theirs: Handshake,
    /// What came after the handshake, deciphered.
    pub(in crate::bittorrent) rest: BytesMut,
    /// What it goes on under.
    pub(in crate::bittorrent) ciphers: Option<Ciphers>,
}

fn randomness() -> Result<Randomness, BitTorrentError> {
    Ok(Randomness {
        secret: random()?,
        pad_len: u16::from_be_bytes(random()?),
        pad: random::<MAX_PAD>()?,
    })
}

/// A stream on its way through the handshakes.
struct Greeting<S> {
    stream: S,
    buffer: BytesMut,
    ciphers: Option<Ciphers>,
}

impl<S: Wire> Greeting<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(READ),
            ciphers: None,
        }
    }

    /// Reads until so many bytes are there.
    async fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.buffer.len() < len {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        let before = self.buffer.len();
        self.buffer.reserve(READ);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.incoming.apply(&mut self.buffer[before..]);
        }
        Ok(())
    }

    async fn hear(&mut self) -> Result<Handshake, GreetError> {
        self.fill(HANDSHAKE_LEN).await?;
        let bytes = self.buffer.split_to(HANDSHAKE_LEN);
        let bytes = bytes.first_chunk().ok_or(HandshakeError)?;
        Ok(Handshake::decode(bytes)?)
    }

    async fn say(&mut self, ours: &Handshake) -> io::Result<()> {
        let mut bytes = ours.encode();
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.outgoing.apply(&mut bytes);
        }
        self.stream.write_all(&bytes).await
    }

    /// Goes through the encrypted handshake, which `step` takes what comes in to; the info-hash.
    async fn encrypt(
        &mut self,
        mut step: impl FnMut(&[u8]) -> Result<Step, MseError>,
    ) -> Result<[u8; 20], GreetError> {
        loop {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            match step(&self.buffer.split())? {
                Step::More(send) => self.stream.write_all(&send).await?,
                Step::Done(done) => {
                    let done = *done;
                    self.stream.write_all(&done.send).await?;
                    (self.buffer, self.ciphers) = (done.rest, done.ciphers);
                    return Ok(done.info_hash);
                }
            }
        }
    }

    fn end(self, theirs: Handshake, ours: &Handshake) -> Result<Greeted<S>, GreetError> {
        if theirs.info_hash != ours.info_hash {
            return Err(GreetError::Torrent);
        }
        if theirs.peer_id == ours.peer_id {
            return Err(GreetError::Myself);
        }
        Ok(Greeted {
            stream: self.stream,
            theirs,
            rest: self.buffer,
            ciphers: self.ciphers,
        })
    }
}

/// Says who we are, and hears who it is, for a connection that we made: encrypted by these
/// methods, or in the clear.
pub(in crate::bittorrent) async fn call<S: Wire>(
    stream: S,
    ours: Handshake,
    methods: Option<Methods>,
) -> Result<Greeted<S>, GreetError> {
    let mut greeting = Greeting::new(stream);
    match methods {
        Some(methods) => {
            let random = randomness()?;
            let payload = ours.encode();
            let (mut initiator, first) = Initiator::new(&random, ours.info_hash, methods, &payload);
            greeting.stream.write_all(&first).await?;
            greeting.encrypt(|bytes| initiator.handle(bytes)).await?;
        }
        None => greeting.say(&ours).await?,
    }
    let theirs = greeting.hear().await?;
    greeting.end(theirs, &ours)
}

/// Hears what torrent it is about, and answers, for a connection that came to us. `torrents`
/// are those that this node has, `ours` our handshake for one of them.
pub(in crate::bittorrent) async fn answer<S: Wire>(
    stream: S,
    encryption: Encryption,
    torrents: impl FnOnce() -> Vec<[u8; 20]>,
    ours: impl FnOnce(&Handshake) -> Option<Handshake>,
) -> Result<Greeted<S>, GreetError> {
    let mut greeting = Greeting::new(stream);
    greeting.fill(PROTOCOL.len()).await?;
    let plain = greeting.buffer.starts_with(PROTOCOL);
    let mut named = None;
    match (plain, encryption) {
        (true, Encryption::Require) | (false, Encryption::Off) => {
            return Err(GreetError::Encryption);
        }
        (true, _) => {}
        (false, _) => {
            let mut responder = Responder::new(&randomness()?, Methods::of(encryption));
            let torrents = torrents();
            let step = |bytes: &[u8]| responder.handle(bytes, &torrents);
            named = Some(greeting.encrypt(step).await?);
        }
    }
    let theirs = greeting.hear().await?;
    if named.is_some_and(|named| named != theirs.info_hash) {
        return Err(GreetError::Torrent);
    }
    let ours = ours(&theirs).ok_or(GreetError::Torrent)?;
    greeting.say(&ours).await?;
    greeting.end(theirs, &ours)
}
