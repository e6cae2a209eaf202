//! [`FileSpans`]: how a download lies in several files.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::{ByteRange, RangeSet};

/// Limit on the files of one download.
pub const MAX_FILE_SPANS: usize = 200_000;

/// Files that do not make a download.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileSpansError {
    /// More than [`MAX_FILE_SPANS`].
    #[error("{found} files, over the limit of {MAX_FILE_SPANS}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Bytes that lie in two files, in a file and in padding, or past the end.
    #[error("bytes {range:?} lie elsewhere too, or past the end")]
    Range {
        /// The bytes.
        range: ByteRange,
    },
    /// A path that is not one from the root, or that another file has.
    #[error("{path} is no place for a file of its own")]
    Path {
        /// The path.
        path: PathBuf,
    },
}

/// A span of a download that becomes a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpan {
    /// Its bytes in the download; none, anywhere, for an empty file.
    pub range: ByteRange,
    /// Where it goes, from the root. The directory exists.
    pub path: PathBuf,
}

/// Where a byte of a download lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a file, by its number in [`FileSpans::spans`].
    File(u32),
    /// In none, and it is zero.
    Padding,
    /// In none: it goes when the download is complete.
    Rest,
}

/// Bytes that lie in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The bytes, in the download.
    pub range: ByteRange,
    /// Where they lie.
    pub place: Place,
}

/// How a download lies in several files. What lies in none of them is padding, of which every
/// byte is zero and which is written nowhere, or is kept until the download is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpans {
    size: u64,
    spans: Vec<FileSpan>,
    padding: RangeSet,
    /// Files and padding, rising, without empty ones.
    stretches: Vec<Stretch>,
}

impl FileSpans {
    /// Of a download of `size` bytes.
    ///
    /// # Errors
    /// [`FileSpansError`], by case.
    pub fn new(size: u64, spans: Vec<FileSpan>, padding: RangeSet) -> Result<Self, FileSpansError> {
        if spans.len() > MAX_FILE_SPANS {
            let found = spans.len();
            return Err(FileSpansError::TooMany { found });
        }
        let mut paths = HashSet::new();
        for FileSpan { path, .. } in &spans {
            if !path.is_absolute() || path.file_name().is_none() || !paths.insert(path) {
                return Err(FileSpansError::Path { path: path.clone() });
            }
        }
        let files = (0..).zip(&spans).map(|(number, span)| Stretch {
            range: span.range,
            place: Place::File(number),
        });
        let mut stretches: Vec<Stretch> = files.filter(|file| !file.range.is_empty()).collect();
        stretches.extend(padding.iter().map(|range| Stretch {
            range,
            place: Place::Padding,
        }));
        stretches.sort_by_key(|stretch| stretch.range.start);
        let mut end = 0;
        for Stretch { range, .. } in &stretches {
            if range.start < end || range.end > size {
                return Err(FileSpansError::Range { range: *range });
            }
            end = range.end;
        }
        Ok(Self {
            size,
            spans,
            padding,
            stretches,
        })
    }

    /// Bytes of the download.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The files.
    pub fn spans(&self) -> &[FileSpan] {
        &self.spans
    }

    /// What lies in no file and is zero.
    pub fn padding(&self) -> &RangeSet {
        &self.padding
    }

    /// Where bytes lie, rising; past the end nowhere.
    pub fn stretches(&self, range: ByteRange) -> impl Iterator<Item = Stretch> + '_ {
        let first = self
            .stretches
            .partition_point(|stretch| stretch.range.end <= range.start);
        let mut next = self.stretches[first..].iter().peekable();
        let end = range.end.min(self.size);
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let stretch = match next.peek() {
                Some(stretch) if stretch.range.start <= at => Stretch {
                    range: ByteRange::new(at, stretch.range.end.min(end)),
                    place: next.next()?.place,
                },
                following => {
                    let until = following.map_or(end, |stretch| stretch.range.start.min(end));
                    Stretch {
                        range: ByteRange::new(at, until),
                        place: Place::Rest,
                    }
                }
            };
            at = stretch.range.end;
            Some(stretch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, path: &str) -> FileSpan {
        let range = ByteRange::new(start, end);
        let path = path.into();
        FileSpan { range, path }
    }

    fn padding(ranges: &[(u64, u64)]) -> RangeSet {
        let ranges = ranges.iter();
        ranges.map(|(a, b)| ByteRange::new(*a, *b)).collect()
    }

    #[test]
    fn every_byte_lies_in_one_place() {
        let files = vec![span(10, 20, "/a"), span(0, 0, "/empty"), span(32, 40, "/b")];
        let spans = FileSpans::new(50, files, padding(&[(20, 32)])).unwrap();
        let places = |start, end| -> Vec<_> {
            let stretches = spans.stretches(ByteRange::new(start, end));
            stretches
                .map(|it| (it.range.start, it.range.end, it.place))
                .collect()
        };
        let all = [
            (0, 10, Place::Rest),
            (10, 20, Place::File(0)),
            (20, 32, Place::Padding),
            (32, 40, Place::File(2)),
            (40, 50, Place::Rest),
        ];
        assert_eq!(places(0, 99), all);
        assert_eq!(places(15, 21), [(15, 20, all[1].2), (20, 21, all[2].2)]);
        assert_eq!(places(3, 5), [(3, 5, Place::Rest)]);
        assert_eq!(places(50, 60), []);
    }

    #[test]
    fn files_that_share_bytes_or_places_are_refused() {
        let none = || padding(&[]);
        let range = |files, padding| {
            let made = FileSpans::new(30, files, padding);
            matches!(made, Err(FileSpansError::Range { .. }))
        };
        assert!(range(vec![span(0, 9, "/a"), span(8, 9, "/b")], none()));
        assert!(range(vec![span(0, 9, "/a")], padding(&[(8, 12)])));
        assert!(range(vec![span(0, 31, "/a")], none()));
        for paths in [["a", "/b"], ["/a", "/a"], ["/", "/a"]] {
            let files = paths.iter().map(|path| span(0, 0, path)).collect();
            let made = FileSpans::new(30, files, none());
            assert!(
                matches!(made, Err(FileSpansError::Path { .. })),
                "{paths:?}"
            );
        }
        let many = |n| {
            FileSpans::new(
                0,
                (0..n).map(|n| span(0, 0, &format!("/{n}"))).collect(),
                none(),
            )
        };
        assert!(many(MAX_FILE_SPANS).is_ok());
        assert_eq!(
            many(MAX_FILE_SPANS + 1).unwrap_err(),
            FileSpansError::TooMany {
                found: MAX_FILE_SPANS + 1
            }
        );
    }
}
