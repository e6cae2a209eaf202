//! How web servers, and seeders over HTTP, are reached and served.

use std::path::Path;

use chiral::protocols::http::{ClientTls, HttpConfig, ProxySettings, ServerTls};

use super::arguments::{Share, Web};
use super::failure::Failure;

impl Web {
    /// Settings of a client.
    pub(crate) fn settings(&self) -> Result<HttpConfig, Failure> {
        let proxies = match &self.proxy {
            Some(proxy) => ProxySettings::all(proxy),
            None => ProxySettings::from_env(),
        };
        let mut config = HttpConfig::default().with_proxies(proxies);
        if let Some(file) = &self.cacert {
            config = config.with_trust(ClientTls::default().with_roots(&read(file)?));
        }
        Ok(config)
    }
}

impl Share {
    /// What to serve https with, if at all.
    pub(crate) fn server_tls(&self) -> Result<Option<ServerTls>, Failure> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => {
                let (chain, key) = (read(chain)?, read(key)?);
                Ok(Some(ServerTls::Given { chain, key }))
            }
            _ => Ok(self.tls.then_some(ServerTls::SelfSigned)),
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::io("read", file, &error))
}
