//! Paths that strangers name, made safe: [`safe_path`] for one, [`PathTree`] for all of a
//! torrent.
//!
//! Refused, since nobody honest writes it: `..`, a path of nothing, more than [`MAX_DEPTH`]
//! directories or [`MAX_PATH_LEN`] bytes, the same path twice, and a path that is a file and a
//! directory.
//!
//! Changed, as clients do (libtorrent's rules, and those of Windows everywhere, so that a
//! torrent has the same names on every system):
//!
//! - a component that is `.` is left out, an empty one becomes `_`;
//! - `/`, `\`, `<`, `>`, `:`, `"`, `|`, `?`, `*`, NUL, other control characters, and what is
//!   not UTF-8 become `_`: what is absolute or has a drive is a plain name afterwards;
//! - characters that turn the direction of writing or cannot be seen are left out;
//! - dots and spaces at the end of a name become `_`;
//! - names of devices (`CON`, `aux.txt`, `LPT1`) get a `_` in front;
//! - a name of more than [`MAX_NAME_LEN`] bytes is cut, and keeps its extension;
//! - of names in one directory that are one on a file system without case or with another form
//!   of Unicode, the later ones get `.1`, `.2` before the extension.
//!
//! Whoever writes files still opens them beneath the target directory without following
//! symbolic links: what lies there already is not known here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use unicode_normalization::UnicodeNormalization;

/// Limit on the components of a path.
pub const MAX_DEPTH: usize = 40;

/// Limit on the bytes of a path.
pub const MAX_PATH_LEN: usize = 2048;

/// Limit on the bytes of a component. File systems take 255.
pub const MAX_NAME_LEN: usize = 240;

/// Extensions of up to so many bytes survive the cutting of a name.
const MAX_EXTENSION_LEN: usize = 10;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing is left of it.
    #[error("a path of nothing")]
    Empty,
    /// It leads out of its directory.
    #[error("a path with ..")]
    Parent,
    /// More than [`MAX_DEPTH`] components.
    #[error("a path of {depth} components, over the limit of {MAX_DEPTH}")]
    TooDeep {
        /// Components found.
        depth: usize,
    },
    /// More than [`MAX_PATH_LEN`] bytes.
    #[error("a path of {len} bytes, over the limit of {MAX_PATH_LEN}")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// Two files at one path.
    #[error("two files at {path}")]
    Twice {
        /// The path.
        path: String,
    },
    /// A file where a directory is.
    #[error("both a file and a directory at {path}")]
    FileAndDirectory {
        /// The path.
        path: String,
    },
}

impl PathError {
    /// The same path is refused the next time.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A relative path that leads nowhere else, on any system. Made by the functions here only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SafePath(Vec<String>);

impl SafePath {
    /// Its components; there is at least one.
    pub fn components(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.last().map(String::as_str).unwrap_or_default()
    }

    /// As a path of this system, relative.
    pub fn to_path_buf(&self) -> PathBuf {
        self.0.iter().collect()
    }
}

impl fmt::Display for SafePath {
    /// With `/` between the components.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafePath({self})")
    }
}

/// A path made safe by itself; see the module for what is changed.
///
/// ```
/// use chiral_protocols::bittorrent::paths::{PathError, safe_path};
///
/// assert_eq!(safe_path([&b"C:\\a"[..], b"nul.txt"]).unwrap().to_string(), "C__a/_nul.txt");
/// assert_eq!(safe_path([&b".."[..], b"passwd"]), Err(PathError::Parent));
/// ```
///
/// # Errors
/// [`PathError`], by case; not those that need other paths.
pub fn safe_path<C: AsRef<[u8]>>(
    components: impl IntoIterator<Item = C>,
) -> Result<SafePath, PathError> {
    let raw: Vec<C> = components.into_iter().collect();
    let raw = checked(raw.iter().map(AsRef::as_ref))?;
    Ok(SafePath(raw.into_iter().map(safe_name).collect()))
}

/// The components without those that mean nothing, within the limits.
fn checked<'a>(raw: impl Iterator<Item = &'a [u8]>) -> Result<Vec<&'a [u8]>, PathError> {
    let raw: Vec<&[u8]> = raw.filter(|component| *component != b".").collect();
    let len = raw.iter().map(|component| component.len() + 1).sum();
    match raw.len() {
        0 => Err(PathError::Empty),
        depth if depth > MAX_DEPTH => Err(PathError::TooDeep { depth }),
        _ if len > MAX_PATH_LEN => Err(PathError::TooLong { len }),
        _ if raw.contains(&&b".."[..]) => Err(PathError::Parent),
        _ => Ok(raw),
    }
}

/// A name that is one on every system, whatever it is made from.
pub fn safe_name(raw: &[u8]) -> String {
    let mut name = String::with_capacity(raw.len());
    for part in raw.utf8_chunks() {
        name.extend(part.valid().chars().filter_map(safe_char));
        if !part.invalid().is_empty() {
            name.push('_');
        }
    }
    let mut name = without_tail(name);
    if name.is_empty() {
        name.push('_');
    }
    if is_device(&name) {
        name.insert(0, '_');
    }
    cut(name, MAX_NAME_LEN)
}

/// Dots and spaces at the end become `_`.
fn without_tail(mut name: String) -> String {
    let kept = name.trim_end_matches(['.', ' ']).len();
    let lost = name.len() - kept;
    name.truncate(kept);
    name.extend(std::iter::repeat_n('_', lost));
    name
}

fn safe_char(c: char) -> Option<char> {
    match c {
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => None,
        '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => None,
        '/' | '\\' | '<' | '>' | ':' | '"' | '|' | '?' | '*' => Some('_'),
        c if c.is_control() => Some('_'),
        c => Some(c),
    }
}

/// Whether Windows takes a name for a device, whatever its extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" | "CLOCK$" | "CONIN$" | "CONOUT$" => true,
        _ => ["COM", "LPT"].iter().any(|device| {
            let rest = stem.strip_prefix(device);
            rest.is_some_and(|rest| {
                let mut chars = rest.chars();
                let number = chars.next();
                number.is_some_and(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³'))
                    && chars.next().is_none()
            })
        }),
    }
}

/// The part of a name before its extension, and the extension with its dot.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION_LEN + 1 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Cuts a name to `limit` bytes between characters, before its extension.
fn cut(name: String, limit: usize) -> String {
    if name.len() <= limit {
        return name;
    }
    let (stem, extension) = split_extension(&name);
    let room = limit.saturating_sub(extension.len());
    let stem = &stem[..stem.floor_char_boundary(room)];
    // What ends here may be a space or a dot that stood inside.
    without_tail(format!("{stem}{extension}"))
}

/// What names are one on a file system that folds case and forms of Unicode.
fn folded(name: &str) -> String {
    let decomposed: String = name.nfd().collect();
    let lower = decomposed.to_uppercase().to_lowercase();
    lower.nfc().collect()
}

/// All paths of a torrent, each given a safe path of its own.
#[derive(Debug, Default)]
pub struct PathTree {
    root: Directory,
}

#[derive(Debug, Default)]
struct Directory {
    /// By the component as it came.
    entries: HashMap<Vec<u8>, Node>,
    /// Folded names in use.
    taken: HashSet<String>,
    /// The last number given to names that fold to this one.
    numbers: HashMap<String, u32>,
}

#[derive(Debug)]
enum Node {
    File,
    Directory(String, Directory),
}

impl Directory {
    /// A safe name that no other entry has.
    fn name(&mut self, raw: &[u8]) -> String {
        let name = safe_name(raw);
        let fold = folded(&name);
        if self.taken.insert(fold.clone()) {
            return name;
        }
        let (stem, extension) = split_extension(&name);
        let number = self.numbers.entry(fold).or_default();
        loop {
            *number += 1;
            let suffix = format!(".{number}{extension}");
            let stem = cut(stem.to_owned(), MAX_NAME_LEN - suffix.len());
            let next = stem + &suffix;
            if self.taken.insert(folded(&next)) {
                return next;
            }
        }
    }
}

impl PathTree {
    /// Adds a file.
    ///
    /// # Errors
    /// [`PathError`], by case.
    pub fn add<C: AsRef<[u8]>>(
        &mut self,
        components: impl IntoIterator<Item = C>,
    ) -> Result<SafePath, PathError> {
        let raw: Vec<C> = components.into_iter().collect();
        let raw = checked(raw.iter().map(AsRef::as_ref))?;
        let shown = || {
            safe_path(&raw)
                .map(|path| path.to_string())
                .unwrap_or_default()
        };
        let Some((file, directories)) = raw.split_last() else {
            return Err(PathError::Empty);
        };
        let mut safe = Vec::with_capacity(raw.len());
        let mut at = &mut self.root;
        for component in directories {
            if !at.entries.contains_key(*component) {
                let name = at.name(component);
                let node = Node::Directory(name, Directory::default());
                at.entries.insert(component.to_vec(), node);
            }
            match at.entries.get_mut(*component) {
                Some(Node::Directory(name, directory)) => {
                    safe.push(name.clone());
                    at = directory;
                }
                _ => return Err(PathError::FileAndDirectory { path: shown() }),
            }
        }
        match at.entries.get(*file) {
            Some(Node::File) => return Err(PathError::Twice { path: shown() }),
            Some(Node::Directory(..)) => {
                return Err(PathError::FileAndDirectory { path: shown() });
            }
            None => {}
        }
        safe.push(at.name(file));
        at.entries.insert(file.to_vec(), Node::File);
        Ok(SafePath(safe))
    }
}

#[cfg(test)]
mod tests;
