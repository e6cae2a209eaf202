//! Stands for TLS where it is not built in.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use chiral_core::{Endpoint, Protocol, TransferError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{ClientTls, ServerTls, Signer, Trust};
use crate::http::config::HttpError;

const FEATURE: &str = "tls";

#[derive(Clone, Debug)]
pub(in crate::http) struct Acceptor(Infallible);

impl Acceptor {
    pub(in crate::http) fn new(
        _: &ServerTls,
        _: Option<&Signer>,
        _: Vec<String>,
    ) -> Result<Self, HttpError> {
        Err(HttpError::Unsupported {
            what: "TLS",
            feature: FEATURE,
        })
    }

    pub(in crate::http) async fn accept<T>(&self, _: T) -> io::Result<(T, bool)> {
        match self.0 {}
    }

    pub(in crate::http) fn mark(&self) -> String {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(in crate::http) struct Session(Infallible);

#[derive(Debug)]
pub(in crate::http) struct Connector;

/// What a connector would be set to.
#[derive(Clone, Debug)]
pub(in crate::http) struct Towards;

impl Connector {
    pub(in crate::http) fn new(tls: &ClientTls) -> Result<Self, HttpError> {
        if tls.roots.is_empty() {
            return Ok(Self);
        }
        Err(HttpError::Unsupported {
            what: "roots for TLS",
            feature: FEATURE,
        })
    }

    pub(in crate::http) async fn towards(
        &self,
        _: Trust,
        _: &Endpoint,
    ) -> Result<Towards, TransferError> {
        Err(TransferError::Unsupported {
            protocol: Protocol::Http,
            operation: "https: it needs the feature `tls`",
        })
    }
}

impl Towards {
    pub(in crate::http) async fn connect(
        &self,
        _: &str,
        _: TcpStream,
        _: Duration,
        _: &Endpoint,
    ) -> Result<(Session, bool), TransferError> {
        Err(TransferError::Unsupported {
            protocol: Protocol::Http,
            operation: "https: it needs the feature `tls`",
        })
    }
}

impl AsyncRead for Session {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for Session {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
