//! Proxies: which one a request goes through, and the way through it.
//!
//! A proxy looks names up itself, so that nobody near us learns them. Hence a name cannot be
//! held against an [`AddressPolicy`](super::AddressPolicy): where there is one, only literal
//! addresses are asked of a proxy.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::config::HttpError;
use super::url::Url;

/// Longest user name and password that SOCKS5 has room for, in bytes (RFC 1929).
const MAX_SOCKS_WORD: usize = 255;

/// Reached without the environment's proxies.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// Which proxies to use. A proxy is `http://[user:password@]host:port`, which is asked for
/// `http` URLs itself and for a tunnel (CONNECT) to others, or `socks5://…` (also `socks5h`),
/// which makes connections (RFC 1928, RFC 1929). Both look names up at their end.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    all: String,
    http: String,
    https: String,
    exceptions: String,
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They may hold passwords.
        f.debug_struct("ProxySettings")
            .field("exceptions", &self.exceptions)
            .finish_non_exhaustive()
    }
}

impl ProxySettings {
    /// One proxy for everything.
    pub fn all(proxy: impl Into<String>) -> Self {
        Self {
            all: proxy.into(),
            ..Self::default()
        }
    }

    /// What `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` of the environment say,
    /// also in capitals; but not `HTTP_PROXY`, which a web server sets from what a client
    /// sends. This machine is reached without.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let read = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find(|value| !value.is_empty()).unwrap_or_default()
        };
        Self {
            all: read(&["all_proxy", "ALL_PROXY"]),
            http: read(&["http_proxy"]),
            https: read(&["https_proxy", "HTTPS_PROXY"]),
            exceptions: format!("{THIS_MACHINE},{}", read(&["no_proxy", "NO_PROXY"])),
        }
    }

    /// Hosts that are reached without a proxy, divided by commas: names, which stand for all
    /// names that end in them, addresses, and networks (`10.0.0.0/8`).
    #[must_use]
    pub fn with_exceptions(mut self, hosts: impl Into<String>) -> Self {
        self.exceptions = hosts.into();
        self
    }

    /// Whether no proxy is named.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.http.is_empty() && self.https.is_empty()
    }
}

/// Settings that were found to make sense.
#[derive(Debug, Default)]
pub(super) struct Proxies(Option<Matcher>);

/// The proxy for one URL.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    intercept: Intercept,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is sent the request itself.
    Forward,
    /// It is asked for a tunnel.
    Tunnel,
    Socks,
}

impl Proxies {
    /// # Errors
    /// [`HttpError::Proxy`]: a setting that cannot be used must not mean to go without.
    pub(super) fn new(settings: &ProxySettings) -> Result<Self, HttpError> {
        if settings.is_empty() {
            return Ok(Self(None));
        }
        for text in [&settings.all, &settings.http, &settings.https] {
            if !text.is_empty() && !is_usable(text) {
                return Err(HttpError::Proxy);
            }
        }
        let matcher = Matcher::builder()
            .all(settings.all.as_str())
            .http(settings.http.as_str())
            .https(settings.https.as_str())
            .no(settings.exceptions.as_str())
            .build();
        Ok(Self(Some(matcher)))
    }

    /// The proxy for a URL, if it has one.
    pub(super) fn of(&self, url: &Url) -> Option<Proxy> {
        let intercept = self.0.as_ref()?.intercept(&target(url)?)?;
        let kind = match intercept.uri().scheme_str() {
            Some("http") if url.secure => Kind::Tunnel,
            Some("http") => Kind::Forward,
            _ => Kind::Socks,
        };
        Some(Proxy { intercept, kind })
    }
}

/// The server of a URL, its port always said.
fn target(url: &Url) -> Option<Uri> {
    let (scheme, port) = (url.scheme(), url.port);
    let text = if url.host.contains(':') {
        format!("{scheme}[{}]:{port}/", url.host)
    } else {
        format!("{scheme}{}:{port}/", url.host)
    };
    text.parse().ok()
}

fn is_usable(text: &str) -> bool {
    let matcher = Matcher::builder().all(text).build();
    let Some(proxy) = matcher.intercept(&Uri::from_static("http://a/")) else {
        return false;
    };
    let fits = |word: &str| word.len() <= MAX_SOCKS_WORD;
    let uri = proxy.uri();
    uri.host().is_some_and(|host| !host.is_empty())
        && uri.port_u16() != Some(0)
        && match uri.scheme_str() {
            Some("http") => true,
            Some("socks5" | "socks5h") => proxy
                .raw_auth()
                .is_none_or(|(user, password)| fits(user) && fits(password)),
            _ => false,
        }
}

impl Proxy {
    /// Whether requests go to the proxy itself, with their whole URL.
    pub(super) fn forwards(&self) -> bool {
        self.kind == Kind::Forward
    }

    /// What a forwarding proxy wants to be shown.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.intercept.basic_auth().filter(|_| self.forwards())
    }

    /// A connection to the server, by way of the proxy; or to the proxy, if it forwards.
    pub(super) async fn connect(&self, url: &Url, wait: Duration) -> Result<TcpStream, ProxyError> {
        let work = async {
            let (proxy, dial) = (self.intercept.uri().clone(), Dial);
            let to = target(url).ok_or("a host that no proxy could be told")?;
            let stream = match self.kind {
                Kind::Forward => dial.clone().call(proxy).await?,
                Kind::Tunnel => {
                    let mut tunnel = Tunnel::new(proxy, dial);
                    if let Some(authorization) = self.intercept.basic_auth() {
                        tunnel = tunnel.with_auth(authorization.clone());
                    }
                    poll_fn(|cx| tunnel.poll_ready(cx)).await?;
                    tunnel.call(to).await?
                }
                Kind::Socks => {
                    let mut socks = SocksV5::new(proxy, dial);
                    if let Some((user, password)) = self.intercept.raw_auth() {
                        socks = socks.with_auth(user.to_owned(), password.to_owned());
                    }
                    poll_fn(|cx| socks.poll_ready(cx)).await?;
                    socks.call(to).await?
                }
            };
            Ok(stream.into_inner())
        };
        let outcome: Result<_, Box<dyn std::error::Error + Send + Sync>> =
            timeout(wait, work).await.map_err(|_| ProxyError::Timeout)?;
        outcome.map_err(ProxyError::Failed)
    }
}

/// Why a proxy led nowhere.
#[derive(Debug)]
pub(super) enum ProxyError {
    Timeout,
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// Connects to the proxy: the user named it, so that no policy is asked.
#[derive(Clone, Debug)]
struct Dial;

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        Box::pin(async move {
            let host = proxy.host().unwrap_or("");
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let usual = if proxy.scheme_str() == Some("http") {
                80
            } else {
                1080
            };
            let stream = TcpStream::connect((host, proxy.port_u16().unwrap_or(usual))).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn each_url_has_its_proxy() {
        let settings = ProxySettings::all("socks5://u:p%40@127.0.0.1:1080")
            .with_exceptions("near.example, 10.0.0.0/8,::1");
        let proxies = Proxies::new(&settings).unwrap();
        let proxy = proxies.of(&url("https://far.example/")).unwrap();
        assert_eq!(proxy.kind, Kind::Socks);
        assert_eq!(proxy.intercept.raw_auth(), Some(("u", "p@")));
        for direct in [
            "http://near.example/",
            "https://very.near.example:8443/",
            "http://10.1.2.3/",
            "http://[::1]:80/",
        ] {
            assert!(proxies.of(&url(direct)).is_none(), "{direct}");
        }
        let settings = ProxySettings {
            http: "http://u:p@proxy:3128".to_owned(),
            ..ProxySettings::all("proxy:3129")
        };
        let proxies = Proxies::new(&settings).unwrap();
        let proxy = proxies.of(&url("http://a/")).unwrap();
        assert!(proxy.forwards() && proxy.authorization().unwrap() == "Basic dTpw");
        let proxy = proxies.of(&url("https://a/")).unwrap();
        assert!(!proxy.forwards() && proxy.authorization().is_none());
        assert_eq!(proxy.intercept.uri(), "http://proxy:3129/");
        assert!(!format!("{settings:?}{proxies:?}").contains("u:p"));
        assert!(Proxies::default().of(&url("http://a/")).is_none());
    }

    #[test]
    fn the_environment_says_which_proxies_and_never_for_this_machine() {
        let of = |variables: &[(&str, &str)]| {
            ProxySettings::from_variables(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let proxy = |settings: &ProxySettings, to: &str| {
            let proxies = Proxies::new(settings).unwrap();
            let proxy = proxies.of(&url(to))?;
            Some(proxy.intercept.uri().host().unwrap().to_owned())
        };
        let nothing = of(&[("no_proxy", "a.example"), ("all_proxy", "")]);
        assert!(nothing.is_empty());
        assert_eq!(proxy(&nothing, "http://b.example/"), None);

        // What a web server sets from what a client sends does not count.
        let forged = of(&[("HTTP_PROXY", "http://forged:1")]);
        assert!(forged.is_empty());

        let settings = of(&[
            ("http_proxy", "http://clear:3128"),
            ("HTTPS_PROXY", "http://tunnel:3128"),
            ("ALL_PROXY", "socks5://rest:1080"),
            ("NO_PROXY", "near.example,10.0.0.0/8"),
        ]);
        for (to, through) in [
            ("http://far.example/", Some("clear")),
            ("https://far.example/", Some("tunnel")),
            ("https://near.example/", None),
            ("http://very.near.example/", None),
            ("http://10.9.8.7/", None),
            ("http://localhost:8080/", None),
            ("http://127.3.2.1/", None),
            ("https://[::1]/", None),
        ] {
            assert_eq!(proxy(&settings, to).as_deref(), through, "{to}");
        }
        // The small letters come first, and an empty value is none.
        let settings = of(&[
            ("https_proxy", ""),
            ("HTTPS_PROXY", "http://large:1"),
            ("all_proxy", "http://small:2"),
            ("ALL_PROXY", "http://large:2"),
        ]);
        assert_eq!(proxy(&settings, "https://a/").as_deref(), Some("large"));
        assert_eq!(proxy(&settings, "http://a/").as_deref(), Some("small"));
        // One that cannot be used is an error, and does not mean to go without.
        let nonsense = of(&[("https_proxy", "ftp://a:1")]);
        assert!(Proxies::new(&nonsense).is_err());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_not_none() {
        let long = format!("socks5://{}:p@a:1", "u".repeat(256));
        for text in [
            "ftp://a:1",
            "https://a:1",
            "socks4://a:1",
            "http://",
            "http://a:0",
            "a b",
            &long,
        ] {
            let settings = ProxySettings::all(text);
            assert!(Proxies::new(&settings).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_setting_panics(text in ".{0,60}", more in "(http|socks5)://[a-z0-9:@\\[\\].%]{0,30}") {
            for text in [text, more] {
                let settings = ProxySettings::all(&*text).with_exceptions(&*text);
                if let Ok(proxies) = Proxies::new(&settings) {
                    let _ = proxies.of(&url("https://a.b/"));
                }
            }
        }
    }
}
