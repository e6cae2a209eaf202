//! URLs as far as they are needed here: `http`, a host, a port, a path.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// An `http` URL without user and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Name or address as it stands in the URL, brackets of IPv6 taken off.
    pub(super) host: String,
    pub(super) port: u16,
    /// What goes in the header `Host`.
    pub(super) authority: String,
    pub(super) path: PathAndQuery,
}

/// Why a text is no URL that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error("not a url")]
    Malformed,
    #[error("a url with a user or password")]
    User,
    #[error("https: TLS is not built in")]
    Tls,
    #[error("a url that is not http")]
    Scheme,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Tls),
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let port = match authority.as_str().rsplit_once(':') {
            // Inside the brackets of an IPv6 address.
            Some((_, tail)) if tail.ends_with(']') => 80,
            Some((_, tail)) => parse_port(tail).ok_or(UrlError::Malformed)?,
            None => 80,
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
            host,
            port,
            authority: authority.as_str().to_owned(),
            path,
        })
    }

    /// The same URL with a path appended to its own, as for the base URL of a seeder.
    pub(super) fn below(&self, path: &str) -> Option<PathAndQuery> {
        let base = self.path.path().trim_end_matches('/');
        format!("{base}{path}").parse().ok()
    }

    /// Where a redirect's `Location` leads.
    pub(super) fn join(&self, location: &str) -> Result<Self, UrlError> {
        let scheme = location.split(['/', '?', '#']).next().unwrap_or("");
        if scheme.contains(':') {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("http:{location}"));
        }
        let location = location.split('#').next().unwrap_or("");
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
        ] {
            let url = Url::parse(text).unwrap();
            let got = (url.host.as_str(), url.port, url.path.as_str());
            assert_eq!(got, (host, port, path), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (text, error) in [
            ("https://a/", UrlError::Tls),
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
        assert_eq!(base.join("https://x/"), Err(UrlError::Tls));
        assert_eq!(base.below("/file/x").unwrap().as_str(), "/b/c/file/x");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", more in "(http:)?[/a-z0-9:@\\[\\].?#%-]{0,40}") {
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
