//! [`Protocol`]: the ways in which a node can deliver content.

use std::fmt;
use std::str::FromStr;

/// A way of delivering content. All variants exist in every build; which ones a node
/// speaks is a matter of what is registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP and HTTPS.
    Http,
    /// BitTorrent (BEP 3 and its family).
    BitTorrent,
    /// WebTorrent: BitTorrent over WebRTC data channels.
    WebTorrent,
    /// eDonkey2000.
    Ed2k,
    /// The private protocol, paid in-band.
    Private,
    /// A protocol that somebody else wrote, by name.
    Other(ProtocolName),
}

/// Name of a protocol that this library does not know: 1 to 32 of `a-z 0-9 - . /`,
/// beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolName(String);

impl Protocol {
    /// The name, lower-case.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Http => "http",
            Self::BitTorrent => "bittorrent",
            Self::WebTorrent => "webtorrent",
            Self::Ed2k => "ed2k",
            Self::Private => "chiral-private",
            Self::Other(name) => &name.0,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no name of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a protocol's name is 1 to 32 of a-z 0-9 - . / and begins with a letter")]
pub struct ParseProtocolError;

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    fn from_str(text: &str) -> Result<Self, ParseProtocolError> {
        Ok(match text {
            "http" => Self::Http,
            "bittorrent" => Self::BitTorrent,
            "webtorrent" => Self::WebTorrent,
            "ed2k" => Self::Ed2k,
            "chiral-private" => Self::Private,
            other => {
                let valid = other.len() <= 32
                    && other.starts_with(|c: char| c.is_ascii_lowercase())
                    && other.bytes().all(|b| {
                        b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./".contains(&b)
                    });
                if !valid {
                    return Err(ParseProtocolError);
                }
                Self::Other(ProtocolName(other.to_owned()))
            }
        })
    }
}

impl serde::Serialize for Protocol {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_strange_ones_do_not() {
        for name in [
            "http",
            "bittorrent",
            "webtorrent",
            "ed2k",
            "chiral-private",
            "ipfs/1.0",
        ] {
            assert_eq!(name.parse::<Protocol>().unwrap().to_string(), name);
        }
        for bad in ["", "HTTP", "1x", "a b", &"a".repeat(33)] {
            assert!(bad.parse::<Protocol>().is_err(), "{bad}");
        }
    }
}
