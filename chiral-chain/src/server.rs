//! [`JsonRpcServer`]: JSON-RPC over HTTP in front of an [`EmbeddedChain`], for wallets and tools
//! that others wrote (cast, ethers, alloy).
//!
//! It holds no keys and signs nothing: transactions come signed. It listens on this machine
//! alone unless told otherwise, sends no CORS header, takes `application/json` only (so that a
//! web page cannot send it a request without asking first), and answers nothing to a `Host` that
//! is neither an IP address nor allowed by name, which is what DNS rebinding needs.

mod config;
mod convert;
mod envelope;
mod error;
mod fees;
mod filters;
mod http;
mod listener;
mod methods;
mod params;
mod patience;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

pub use config::{ServerConfig, ServerError};

use crate::embedded::EmbeddedChain;
use filters::Filters;
use listener::Listener;

/// A listening JSON-RPC server.
#[derive(Debug)]
pub struct JsonRpcServer {
    listener: Listener,
}

impl JsonRpcServer {
    /// Listens; with port 0, on a free port. The chain stays its owner's: ending the server
    /// does not end it.
    ///
    /// # Errors
    /// [`ServerError::NotLoopback`], [`ServerError::Listen`].
    ///
    /// # Cancel safety
    /// If it is dropped nothing listens.
    pub async fn bind(
        address: SocketAddr,
        chain: EmbeddedChain,
        config: ServerConfig,
    ) -> Result<Self, ServerError> {
        if !address.ip().to_canonical().is_loopback() && !config.allow_remote {
            return Err(ServerError::NotLoopback { address });
        }
        let filters = Filters::new(config.max_filters, config.filter_lifetime);
        let api = Arc::new(Api {
            chain,
            filters: Mutex::new(filters),
            turns: Semaphore::new(config.max_requests.min(Semaphore::MAX_PERMITS)),
            config,
        });
        Ok(Self {
            listener: Listener::bind(address, api).await?,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// Stops accepting, lets requests under way go on for a while, then ends them. When it
    /// returns the port is free. Idempotent.
    ///
    /// # Cancel safety
    /// Dropped halfway, it can be called again.
    pub async fn shutdown(&self) {
        self.listener.shutdown().await;
    }
}

/// What requests are answered from.
#[derive(Debug)]
struct Api {
    chain: EmbeddedChain,
    filters: Mutex<Filters>,
    /// Whoever has one may hold a request in memory.
    turns: Semaphore,
    config: ServerConfig,
}
