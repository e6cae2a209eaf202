//! Links: `chiral:<cid>?root=<merkle root>&size=<bytes>&name=<hint>`.

use std::fmt;
use std::str::FromStr;

use crate::chunk::MAX_FILE_SIZE;
use crate::{Cid, MerkleRoot, ParseHashError};

/// Limit on the length of a link, in bytes.
pub const MAX_LINK_LEN: usize = 2048;

/// Limit on the length of a name hint after decoding, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// A link to a file. The library emits all parts and accepts the bare cid.
///
/// The root that a link carries is *pinned*: chosen by whoever chose the link, and refused
/// at the last chunk if it does not belong to the cid.
///
/// ```
/// use chiral_core::Link;
/// let text = "chiral:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad?size=3&name=a%20b.txt";
/// let link: Link = text.parse().unwrap();
/// assert_eq!(link.name.as_deref(), Some("a b.txt"));
/// assert_eq!(link.to_string(), text);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// SHA-256 of the file.
    pub cid: Cid,
    /// Sealed root.
    pub root: Option<MerkleRoot>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// What to call the file. A hint from a stranger: see [`file_name`].
    pub name: Option<String>,
}

/// Why a text is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseLinkError {
    /// Longer than [`MAX_LINK_LEN`].
    #[error("link of {found} bytes, at most {MAX_LINK_LEN} are taken")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// The part that should be the cid is not.
    #[error("not a chiral link or a cid")]
    Cid(#[source] ParseHashError),
    /// The root is malformed.
    #[error("the link's root is malformed")]
    Root(#[source] ParseHashError),
    /// The size is not a decimal number of bytes within the format's limit.
    #[error("the link's size is not a number of bytes up to {MAX_FILE_SIZE}")]
    Size,
    /// The name is not UTF-8 after decoding, or is too long.
    #[error("the link's name is not percent-encoded UTF-8 of at most {MAX_NAME_LEN} bytes")]
    Name,
    /// A parameter stands twice: which one holds would be the reader's guess.
    #[error("the link gives {parameter} twice")]
    Repeated {
        /// Name of the parameter.
        parameter: &'static str,
    },
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chiral:{}", self.cid)?;
        let mut separator = '?';
        if let Some(root) = &self.root {
            write!(f, "{separator}root={root}")?;
            separator = '&';
        }
        if let Some(size) = self.size {
            write!(f, "{separator}size={size}")?;
            separator = '&';
        }
        if let Some(name) = &self.name {
            write!(f, "{separator}name=")?;
            percent_encode(name, f)?;
        }
        Ok(())
    }
}

impl FromStr for Link {
    type Err = ParseLinkError;

    /// Takes a link or a bare cid. Parameters with other names are ignored, so that later
    /// versions may add some.
    fn from_str(text: &str) -> Result<Self, ParseLinkError> {
        if text.len() > MAX_LINK_LEN {
            return Err(ParseLinkError::TooLong { found: text.len() });
        }
        let Some(rest) = text.strip_prefix("chiral:") else {
            let cid = text.parse().map_err(ParseLinkError::Cid)?;
            return Ok(Self {
                cid,
                root: None,
                size: None,
                name: None,
            });
        };
        let (cid, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut link = Self {
            cid: cid.parse().map_err(ParseLinkError::Cid)?,
            root: None,
            size: None,
            name: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "root" => {
                    let root = value.parse().map_err(ParseLinkError::Root)?;
                    set(&mut link.root, root, "root")?;
                }
                "size" => set(&mut link.size, parse_size(value)?, "size")?,
                "name" => {
                    let name = percent_decode(value).filter(|name| name.len() <= MAX_NAME_LEN);
                    set(&mut link.name, name.ok_or(ParseLinkError::Name)?, "name")?;
                }
                _ => {}
            }
        }
        Ok(link)
    }
}

fn set<T>(slot: &mut Option<T>, value: T, parameter: &'static str) -> Result<(), ParseLinkError> {
    if slot.replace(value).is_some() {
        return Err(ParseLinkError::Repeated { parameter });
    }
    Ok(())
}

fn parse_size(value: &str) -> Result<u64, ParseLinkError> {
    // `parse` alone would take a plus sign and leading zeros.
    let plain =
        value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    match value.parse() {
        Ok(size) if plain && size <= MAX_FILE_SIZE => Ok(size),
        _ => Err(ParseLinkError::Size),
    }
}

/// RFC 3986 §2.1: everything but unreserved characters is escaped.
pub(crate) fn percent_encode(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push((high << 4 | low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// A stranger's name hint as a single, harmless file name; `None` if nothing is left of it.
///
/// Only what follows the last `/` or `\` counts. Control characters, bidirectional
/// overrides and what Windows forbids become `_`; trailing dots and spaces go; device names
/// get a `_` in front; at most 255 bytes remain, cut between characters.
pub fn file_name(hint: &str) -> Option<String> {
    let last = hint.rsplit(['/', '\\']).next().unwrap_or("");
    let mut name: String = last
        .chars()
        .map(|c| match c {
            '<' | '>' | ':' | '"' | '|' | '?' | '*' => '_',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    let mut end = name.len().min(MAX_NAME_LEN - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name.truncate(name.trim_end_matches([' ', '.']).len());
    let name = name.trim_start();
    if name.is_empty() {
        return None;
    }
    let stem = name
        .split('.')
        .next()
        .unwrap_or("")
        .trim_end()
        .to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit()));
    Some(if device {
        format!("_{name}")
    } else {
        name.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_is_no_link_is_refused() {
        assert_eq!(ABC.parse::<Link>().unwrap().cid, ABC.parse().unwrap());
        for bad in [
            "".to_owned(),
            "chiral:".to_owned(),
            format!("http://{ABC}"),
            format!("chiral:0x{ABC}"),
            format!("chiral:{}", ABC.to_uppercase()),
            format!("chiral:{ABC}?root=12"),
            format!("chiral:{ABC}?size=+3"),
            format!("chiral:{ABC}?size=03"),
            format!("chiral:{ABC}?size=-1"),
            format!("chiral:{ABC}?size="),
            format!("chiral:{ABC}?size=18446744073709551615"),
            format!("chiral:{ABC}?size=3&size=3"),
            format!("chiral:{ABC}?name=%zz"),
            format!("chiral:{ABC}?name=%ff"),
            format!("chiral:{ABC}?name={}", "a".repeat(256)),
            format!("chiral:{ABC}?x={}", "a".repeat(3000)),
        ] {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
        assert!(
            format!("chiral:{ABC}?later=1&size=3")
                .parse::<Link>()
                .is_ok()
        );
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        for (hint, name) in [
            ("../../etc/passwd", Some("passwd")),
            ("..", None),
            ("a/..", None),
            ("/", None),
            ("", None),
            (" . ", None),
            ("C:\\Windows\\x.txt", Some("x.txt")),
            ("C:evil", Some("C_evil")),
            ("ein schöner Name ✓.txt", Some("ein schöner Name ✓.txt")),
            ("a\0b\n", Some("a_b_")),
            ("CON", Some("_CON")),
            ("nul.txt", Some("_nul.txt")),
            ("Com7", Some("_Com7")),
            ("comb", Some("comb")),
            ("x. . ", Some("x")),
            ("\u{202e}gpj.exe", Some("_gpj.exe")),
        ] {
            assert_eq!(file_name(hint).as_deref(), name, "{hint:?}");
        }
        assert!(file_name(&"é".repeat(300)).is_some_and(|name| name.len() <= MAX_NAME_LEN));
    }

    proptest! {
        #[test]
        fn a_link_comes_back_from_its_text(
            cid: [u8; 32], root: Option<[u8; 32]>, size in proptest::option::of(0..=MAX_FILE_SIZE),
            name in proptest::option::of(".{0,60}"),
        ) {
            let link = Link {
                cid: Cid::from_bytes(cid), root: root.map(MerkleRoot::from_bytes), size, name,
            };
            prop_assert_eq!(link.to_string().parse::<Link>().unwrap(), link);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            if let Ok(link) = text.parse::<Link>() {
                prop_assert!(link.to_string().parse::<Link>().is_ok());
            }
            if let Some(name) = file_name(&text) {
                prop_assert!(!name.contains(['/', '\\', '\0']) && name != "." && name != "..");
                prop_assert!(name.len() <= MAX_NAME_LEN);
            }
        }
    }
}
