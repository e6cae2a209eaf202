//! The handshakes of a new connection.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::bittorrent::wire::{HANDSHAKE_LEN, Handshake, HandshakeError};

/// A stream that a peer can be at the other end of.
pub(in crate::bittorrent) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

/// Why no connection came of it.
#[derive(Debug, thiserror::Error)]
pub(in crate::bittorrent) enum GreetError {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("an unknown torrent")]
    Torrent,
    #[error("this node itself")]
    Myself,
}

/// A connection after the handshakes.
#[derive(Debug)]
pub(in crate::bittorrent) struct Greeted<S> {
    pub(in crate::bittorrent) stream: S,
    pub(in crate::bittorrent) theirs: Handshake,
    /// What came after the handshake.
    pub(in crate::bittorrent) rest: BytesMut,
}

/// Says who we are, and hears who it is: for a connection that we made.
pub(in crate::bittorrent) async fn call<S: Wire>(mut stream: S, ours: Handshake) -> Result<Greeted<S>, GreetError> {
    stream.write_all(&ours.encode()).await?;
    let theirs = hear(&mut stream).await?;
    if theirs.info_hash != ours.info_hash {
        return Err(GreetError::Torrent);
    }
    known(stream, theirs, ours)
}

/// Hears what torrent it is about, and answers: for a connection that came to us. `answer`
/// gives our handshake if the torrent is one of ours.
pub(in crate::bittorrent) async fn answer<S: Wire>(
    mut stream: S,
    answer: impl FnOnce(&Handshake) -> Option<Handshake>,
) -> Result<Greeted<S>, GreetError> {
    let theirs = hear(&mut stream).await?;
    let ours = answer(&theirs).ok_or(GreetError::Torrent)?;
    stream.write_all(&ours.encode()).await?;
    known(stream, theirs, ours)
}

async fn hear<S: Wire>(stream: &mut S) -> Result<Handshake, GreetError> {
    let mut bytes = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut bytes).await?;
    Ok(Handshake::decode(&bytes)?)
}

fn known<S>(stream: S, theirs: Handshake, ours: Handshake) -> Result<Greeted<S>, GreetError> {
    if theirs.peer_id == ours.peer_id {
        return Err(GreetError::Myself);
    }
    let rest = BytesMut::new();
    Ok(Greeted { stream, theirs, rest })
}
