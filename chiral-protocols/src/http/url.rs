//! URLs as far as they are needed here: `http` or `https`, a host, a port, a path, and whom
//! to expect there.

use chiral_core::{Cid, PeerId};
use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// Whom a URL says to expect; stands in its fragment, which is sent to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// `#peer=ID`: a server whose certificate is bound to this peer.
    Peer(PeerId),
    /// `#sha256=HEX`: the server whose certificate has this SHA-256.
    Fingerprint([u8; 32]),
}

/// An `http` or `https` URL without user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Whether it is `https`.
    pub(super) secure: bool,
    /// Name or address as it stands in the URL, brackets of IPv6 taken off.
    pub(super) host: String,
    pub(super) port: u16,
    /// What goes in the header `Host`.
    pub(super) authority: String,
    pub(super) path: PathAndQuery,
    pub(super) expected: Option<Expect>,
}

/// Why a text is no URL that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error("not a url")]
    Malformed,
    #[error("a url with a user or password")]
    User,
    #[error("a url that is not http or https")]
    Scheme,
    #[error("a url that says whom to expect in an unknown way, or without https")]
    Expect,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let (secure, usual_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        };
        let fragment = text.split_once('#').map_or("", |(_, fragment)| fragment);
        let expected = parse_expected(fragment)?;
        if expected.is_some() && !secure {
            return Err(UrlError::Expect);
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let port = match authority.as_str().rsplit_once(':') {
            // Inside the brackets of an IPv6 address.
            Some((_, tail)) if tail.ends_with(']') => usual_port,
            Some((_, tail)) => parse_port(tail).ok_or(UrlError::Malformed)?,
            None => usual_port,
        };
        let host = parse_host(authority.host()).ok_or(UrlError::Malformed)?;
        let path = match uri.path_and_query() {
            Some(path) if path.as_str().starts_with('/') => path.clone(),
            // A query right behind the host: its path is `/`.
            Some(path) => format!("/{}", path.as_str())
                .parse()
                .map_err(|_| UrlError::Malformed)?,
            None => PathAndQuery::from_static("/"),
        };
        Ok(Self {
            secure,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path,
            expected,
        })
    }

    /// The same URL with a path appended to its own, as for the base URL of a seeder.
    pub(super) fn below(&self, path: &str) -> Option<PathAndQuery> {
        let base = self.path.path().trim_end_matches('/');
        format!("{base}{path}").parse().ok()
    }

    /// Scheme, host and port: what makes two URLs those of one server.
    pub(super) fn server(&self) -> (bool, &str, u16) {
        (self.secure, &self.host, self.port)
    }

    /// The scheme with its colon and slashes.
    pub(super) fn scheme(&self) -> &'static str {
        match self.secure {
            true => "https://",
            false => "http://",
        }
    }

    /// Where a redirect's `Location` leads. Whom to expect is not for it to say, but holds
    /// on for the same server.
    pub(super) fn join(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.split('#').next().unwrap_or("");
        let scheme = location.split(['/', '?']).next().unwrap_or("");
        let other = if scheme.contains(':') {
            Some(Self::parse(location)?)
        } else if location.starts_with("//") {
            let scheme = self.scheme().trim_end_matches("//");
            Some(Self::parse(&format!("{scheme}{location}"))?)
        } else {
            None
        };
        if let Some(mut other) = other {
            if other.server() == self.server() {
                other.expected.clone_from(&self.expected);
            }
            return Ok(other);
        }
        let own = self.path.path();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{own}{location}"),
            Some(_) => {
                let directory = own.rsplit_once('/').map_or("", |(directory, _)| directory);
                format!("{directory}/{location}")
            }
            None => self.path.as_str().to_owned(),
        };
        let path = path.parse().map_err(|_| UrlError::Malformed)?;
        Ok(Self {
            path,
            ..self.clone()
        })
    }
}

/// Fragments that begin otherwise are a page's own business.
fn parse_expected(fragment: &str) -> Result<Option<Expect>, UrlError> {
    if let Some(peer) = fragment.strip_prefix("peer=") {
        let peer = peer.parse().map_err(|_| UrlError::Expect)?;
        Ok(Some(Expect::Peer(peer)))
    } else if let Some(hex) = fragment.strip_prefix("sha256=") {
        // Written like a cid, which is a SHA-256 too.
        let hash: Cid = hex.parse().map_err(|_| UrlError::Expect)?;
        Ok(Some(Expect::Fingerprint(*hash.as_bytes())))
    } else {
        Ok(None)
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| plain && *port != 0)
}

fn parse_host(text: &str) -> Option<String> {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|tail| tail.strip_suffix(']'))
    {
        return inner
            .parse::<std::net::Ipv6Addr>()
            .ok()
            .map(|_| inner.to_owned());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, host, port, path) in [
            ("http://a", "a", 80, "/"),
            ("http://a/", "a", 80, "/"),
            ("HTTP://a:8080/b/c?d=e#f", "a", 8080, "/b/c?d=e"),
            ("http://127.0.0.1:1", "127.0.0.1", 1, "/"),
            ("http://[::1]:65535/x", "::1", 65535, "/x"),
            ("http://[::1]", "::1", 80, "/"),
            ("http://a?b", "a", 80, "/?b"),
            ("https://a", "a", 443, "/"),
            ("https://a:80/b", "a", 80, "/b"),
            ("https://[::1]/", "::1", 443, "/"),
        ] {
            let url = Url::parse(text).unwrap();
            let got = (url.host.as_str(), url.port, url.path.as_str());
            assert_eq!(got, (host, port, path), "{text}");
            assert_eq!(
                (url.secure, url.expected),
                (text.starts_with("https"), None)
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (text, error) in [
            ("https://user@a/", UrlError::User),
            (
                "http://a/#peer=12D3KooWGzh5VFyNoqZk6s7vr1vZbqz9dkUTZ4Pfjq5FEfnSPfym",
                UrlError::Expect,
            ),
            ("https://a/#peer=", UrlError::Expect),
            ("https://a/#peer=0", UrlError::Expect),
            ("https://a/#sha256=12", UrlError::Expect),
            ("ftp://a/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Malformed),
            ("http://user@a/", UrlError::User),
            ("http://user:word@a/", UrlError::User),
            ("http://a:0/", UrlError::Malformed),
            ("http://a:65536/", UrlError::Malformed),
            ("http://a:/", UrlError::Malformed),
            ("http://a:+1/", UrlError::Malformed),
            ("http:///x", UrlError::Malformed),
            ("http://[::1", UrlError::Malformed),
            ("http://[::1%25eth0]/", UrlError::Malformed),
            ("http://a%2eb/", UrlError::Malformed),
            ("//a/b", UrlError::Malformed),
            ("/b", UrlError::Malformed),
            ("a", UrlError::Malformed),
            ("", UrlError::Malformed),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base = Url::parse("http://a:8080/b/c?d").unwrap();
        for (location, expected) in [
            ("http://x/y", "http://x/y"),
            ("//x/y", "http://x/y"),
            ("/y?z", "http://a:8080/y?z"),
            ("y", "http://a:8080/b/y"),
            ("?z", "http://a:8080/b/c?z"),
            ("y:z/..", "y:z/.."),
            ("/y:z#f", "http://a:8080/y:z"),
        ] {
            assert_eq!(base.join(location), Url::parse(expected), "{location}");
        }
        assert!(base.join("https://x/").unwrap().secure);
        assert_eq!(base.below("/file/x").unwrap().as_str(), "/b/c/file/x");
    }

    #[test]
    fn a_url_can_say_whom_to_expect() {
        let peer = "12D3KooWGzh5VFyNoqZk6s7vr1vZbqz9dkUTZ4Pfjq5FEfnSPfym";
        let url = Url::parse(&format!("https://a/b?c#peer={peer}")).unwrap();
        assert_eq!(url.expected, Some(Expect::Peer(peer.parse().unwrap())));
        assert_eq!(url.path.as_str(), "/b?c");
        let hex = "ab".repeat(32);
        let marked = Url::parse(&format!("https://a/#sha256={hex}")).unwrap();
        assert_eq!(marked.expected, Some(Expect::Fingerprint([0xab; 32])));
        // A redirect cannot say it; on the same server it holds on.
        for (location, holds) in [
            ("/y", true),
            ("//a/y", true),
            ("https://a:443/y", true),
            ("https://a:444/y", false),
            ("http://a/y", false),
            (&*format!("https://b/#sha256={hex}"), false),
        ] {
            let expected = marked.join(location).unwrap().expected;
            assert_eq!(
                expected,
                marked.expected.clone().filter(|_| holds),
                "{location}"
            );
        }
        assert_eq!(marked.join("//b/y"), Url::parse("https://b/y"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", more in "(https?:)?[/a-z0-9:@\\[\\].?#%-]{0,40}") {
            for text in [&text, &more] {
                if let Ok(url) = Url::parse(text) {
                    prop_assert!(!url.host.is_empty() && url.port != 0);
                    prop_assert!(!url.authority.contains('@'));
                }
                let _ = Url::parse("http://a/b").unwrap().join(text);
            }
        }
    }
}
