//! The header: what identifies a file, and hints about it.

use super::{Alias, Buf, BufMut, ChunkLayout, Cid, FileTooLarge, MerkleRoot};
use crate::link::{Link, MAX_NAME_LEN};

/// Limit on an encoded header, in bytes; it travels in DHT records.
pub const MAX_HEADER_LEN: usize = 512;

const MAGIC: &[u8; 4] = b"CHMF";
const VERSION: u8 = 1;
const MAX_MIME_LEN: usize = 96;

/// Identity of a file with hints. The hints (name, MIME type, time) are a stranger's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub cid: Cid,
    /// Sealed root at this size.
    pub root: MerkleRoot,
    /// What to call the file; at most 255 bytes. See [`crate::link::file_name`].
    pub name: Option<String>,
    /// Media type; at most 96 bytes.
    pub mime: Option<String>,
    /// Seconds since 1970 (UTC), as the author says.
    pub created_at: u64,
    /// Names in other networks, at most one of each kind, in the order of their kinds.
    pub aliases: Vec<Alias>,
}

/// Why bytes are no manifest header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Over [`MAX_HEADER_LEN`], or shorter than its own fields say, or longer.
    #[error("manifest header has a wrong length")]
    Length,
    /// Another format or version.
    #[error("not a manifest header of version {VERSION}")]
    Version,
    /// A name or media type that is too long or not UTF-8.
    #[error("manifest header has a malformed {field}")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// Aliases of an unknown kind, repeated or out of order.
    #[error("manifest header has malformed aliases")]
    Aliases,
    /// A size over the limit of the format.
    #[error(transparent)]
    Size(#[from] FileTooLarge),
}

impl ManifestHeader {
    /// The cutting of the file.
    ///
    /// # Errors
    /// [`FileTooLarge`] if the size is over the format's limit.
    pub fn layout(&self) -> Result<ChunkLayout, FileTooLarge> {
        ChunkLayout::new(self.size)
    }

    /// The full link to the file.
    pub fn link(&self) -> Link {
        Link {
            cid: self.cid,
            root: Some(self.root),
            size: Some(self.size),
            name: self.name.clone(),
        }
    }

    /// The header as bytes, at most [`MAX_HEADER_LEN`] of them:
    /// `"CHMF" ‖ 1 ‖ size u64 ‖ cid ‖ root ‖ created_at u64 ‖ len u8 ‖ name ‖ len u8 ‖ mime ‖
    /// count u8 ‖ (kind u8 ‖ hash)*`. An absent hint has length 0.
    ///
    /// # Errors
    /// As [`ManifestHeader::decode`], for fields that do not fit.
    pub fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        self.layout()?;
        let mut out = Vec::with_capacity(MAX_HEADER_LEN);
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u64(self.size);
        out.put_slice(self.cid.as_bytes());
        out.put_slice(self.root.as_bytes());
        out.put_u64(self.created_at);
        put_text(&mut out, self.name.as_deref(), MAX_NAME_LEN, "name")?;
        put_text(&mut out, self.mime.as_deref(), MAX_MIME_LEN, "media type")?;
        check_aliases(&self.aliases)?;
        out.put_u8(self.aliases.len() as u8);
        for alias in &self.aliases {
            out.put_u8(kind(alias));
            out.put_slice(alias.as_bytes());
        }
        if out.len() > MAX_HEADER_LEN {
            Err(HeaderError::Length)
        } else {
            Ok(out)
        }
    }

    /// Reads a header. Every byte string that is accepted is the encoding of what it says.
    ///
    /// # Errors
    /// [`HeaderError`], by case.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, HeaderError> {
        let input = &mut bytes;
        if input.len() > MAX_HEADER_LEN {
            return Err(HeaderError::Length);
        }
        if take::<4>(input)? != *MAGIC || take::<1>(input)? != [VERSION] {
            return Err(HeaderError::Version);
        }
        let size = u64::from_be_bytes(take(input)?);
        ChunkLayout::new(size)?;
        let cid = Cid::from_bytes(take(input)?);
        let root = MerkleRoot::from_bytes(take(input)?);
        let created_at = u64::from_be_bytes(take(input)?);
        let name = take_text(input, MAX_NAME_LEN, "name")?;
        let mime = take_text(input, MAX_MIME_LEN, "media type")?;
        let [count] = take(input)?;
        let mut aliases = Vec::new();
        for _ in 0..count {
            aliases.push(match take::<1>(input)? {
                [1] => Alias::InfoHashV1(take(input)?),
                [2] => Alias::InfoHashV2(take(input)?),
                [3] => Alias::Ed2k(take(input)?),
                _ => return Err(HeaderError::Aliases),
            });
        }
        check_aliases(&aliases)?;
        if !input.is_empty() {
            return Err(HeaderError::Length);
        }
        Ok(Self {
            size,
            cid,
            root,
            name,
            mime,
            created_at,
            aliases,
        })
    }
}

fn kind(alias: &Alias) -> u8 {
    match alias {
        Alias::InfoHashV1(_) => 1,
        Alias::InfoHashV2(_) => 2,
        Alias::Ed2k(_) => 3,
    }
}

fn check_aliases(aliases: &[Alias]) -> Result<(), HeaderError> {
    if aliases
        .windows(2)
        .all(|pair| kind(&pair[0]) < kind(&pair[1]))
    {
        Ok(())
    } else {
        Err(HeaderError::Aliases)
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], HeaderError> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(HeaderError::Length)?;
    *input = rest;
    Ok(*head)
}

fn put_text(
    out: &mut Vec<u8>,
    text: Option<&str>,
    limit: usize,
    field: &'static str,
) -> Result<(), HeaderError> {
    let text = text.unwrap_or("");
    if text.len() > limit {
        return Err(HeaderError::Text { field });
    }
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn take_text(
    input: &mut &[u8],
    limit: usize,
    field: &'static str,
) -> Result<Option<String>, HeaderError> {
    let [len] = take(input)?;
    let len = usize::from(len);
    if len > limit {
        return Err(HeaderError::Text { field });
    }
    if input.len() < len {
        return Err(HeaderError::Length);
    }
    let text = std::str::from_utf8(&input[..len]).map_err(|_| HeaderError::Text { field })?;
    let text = (len > 0).then(|| text.to_owned());
    input.advance(len);
    Ok(text)
}
