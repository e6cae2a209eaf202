//! Byte ranges on the wire (RFC 9110 §14): `Range` of a request, `Content-Range` of an
//! answer.

use chiral_core::ByteRange;

/// Most ranges in one request; a header with more is ignored, as RFC 9110 §14.2 advises for
/// "many small ranges".
pub(super) const MAX_RANGES: usize = 32;

/// Most ranges of one request that may overlap others of it; a header with more is ignored.
pub(super) const MAX_OVERLAPS: usize = 2;

/// What a request's `Range` selects of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of it: there was no range, or a header that a server may ignore (another unit, a
    /// malformed one, too many ranges).
    Whole,
    /// These bytes.
    Part(ByteRange),
    /// These, at least two, apart from each other, in the order in which they were asked for.
    Parts(Vec<ByteRange>),
    /// None: every range lies past the end.
    Nothing,
}

impl Selected {
    /// Reads a `Range` header over a representation of `len` bytes.
    pub(super) fn parse(header: &[u8], len: u64) -> Self {
        Self::try_parse(header, len).unwrap_or(Self::Whole)
    }

    fn try_parse(header: &[u8], len: u64) -> Option<Self> {
        let (unit, set) = std::str::from_utf8(header).ok()?.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (mut parts, mut asked, mut overlaps) = (Vec::new(), 0, 0);
        for spec in set.split(',') {
            let spec = spec.trim_matches([' ', '\t']);
            // Lists may have empty places (RFC 9110 §5.6.1).
            if spec.is_empty() {
                continue;
            }
            asked += 1;
            let range = parse_one(spec, len)?;
            overlaps += usize::from(!range.is_empty() && merge(&mut parts, range));
            if asked > MAX_RANGES || overlaps > MAX_OVERLAPS {
                return None;
            }
        }
        match (asked, &parts[..]) {
            (0, _) => None,
            (_, []) => Some(Self::Nothing),
            (_, &[part]) => Some(Self::Part(part)),
            _ => Some(Self::Parts(parts)),
        }
    }
}

/// One range of a set, cut to what there is; empty if it lies past the end.
fn parse_one(spec: &str, len: u64) -> Option<ByteRange> {
    let (first, last) = spec.split_once('-')?;
    Some(match (first, last) {
        ("", suffix) => ByteRange::new(len - digits(suffix)?.min(len), len),
        (first, "") => ByteRange::new(digits(first)?.min(len), len),
        (first, last) => {
            let (first, last) = (digits(first)?, digits(last)?);
            if last < first {
                return None;
            }
            ByteRange::new(first.min(len), last.saturating_add(1).min(len))
        }
    })
}

/// Adds a range, joined with those that it overlaps or touches, in the place of the first of
/// them: no byte is sent twice. Answers whether it overlapped one.
fn merge(parts: &mut Vec<ByteRange>, range: ByteRange) -> bool {
    let (mut joined, mut place, mut overlaps) = (range, None, false);
    // Those in `parts` do not touch each other, so one round finds all that `range` does.
    let mut index = 0;
    while let Some(&part) = parts.get(index) {
        if part.end < range.start || range.end < part.start {
            index += 1;
            continue;
        }
        overlaps |= part.start < range.end && range.start < part.end;
        joined = ByteRange::new(joined.start.min(part.start), joined.end.max(part.end));
        parts.remove(index);
        place.get_or_insert(index);
    }
    parts.insert(place.unwrap_or(parts.len()), joined);
    overlaps
}

/// A decimal number; one that does not fit is the greatest that does.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// The value of `Range` for a range that is not empty.
pub(super) fn request(range: ByteRange) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// The value of `Content-Range` for a range that is not empty.
pub(super) fn content_range(range: ByteRange, total: u64) -> String {
    format!(
        "bytes {}-{}/{total}",
        range.start,
        range.end.saturating_sub(1)
    )
}

/// Reads a `Content-Range`: the range, and the size of the whole if it is given.
pub(super) fn parse_content_range(header: &[u8]) -> Option<(ByteRange, Option<u64>)> {
    let text = std::str::from_utf8(header).ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (exact(first)?, exact(last)?);
    let total = if total == "*" {
        None
    } else {
        Some(exact(total)?)
    };
    let range = ByteRange::new(first, last.checked_add(1)?);
    let fits = total.is_none_or(|total| range.end <= total);
    (first <= last && fits).then_some((range, total))
}

/// A decimal number that fits.
pub(super) fn exact(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_range_selects() {
        let part = |a, b| Selected::Part(ByteRange::new(a, b));
        let parts = |list: &[(u64, u64)]| {
            Selected::Parts(list.iter().map(|&(a, b)| ByteRange::new(a, b)).collect())
        };
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=99-", part(99, 100)),
            ("bytes=50-1000", part(50, 100)),
            ("bytes=50-99999999999999999999999999", part(50, 100)),
            ("bytes=0-18446744073709551615", part(0, 100)),
            ("bytes=-1", part(99, 100)),
            ("bytes=-100000000000000000000000", part(0, 100)),
            ("BYTES= 1-2 ", part(1, 3)),
            ("bytes=100-", Selected::Nothing),
            ("bytes=100-200", Selected::Nothing),
            ("bytes=-0", Selected::Nothing),
            ("bytes=99999999999999999999999999-", Selected::Nothing),
            ("bytes=2-1", Selected::Whole),
            ("bytes=", Selected::Whole),
            ("bytes=-", Selected::Whole),
            ("bytes=--1", Selected::Whole),
            ("bytes=+1-2", Selected::Whole),
            ("bytes=a-b", Selected::Whole),
            ("bytes=0x1-2", Selected::Whole),
            ("bytes=1 - 2", Selected::Whole),
            ("bytes 1-2", Selected::Whole),
            ("chunks=0-1", Selected::Whole),
            ("bytes=0-1,5-6", parts(&[(0, 2), (5, 7)])),
            ("bytes=5-6 , 0-1,", parts(&[(5, 7), (0, 2)])),
            ("bytes=0-1,,-2", parts(&[(0, 2), (98, 100)])),
            ("bytes=0-1,200-300", part(0, 2)),
            ("bytes=200-300,-0", Selected::Nothing),
            ("bytes=0-1,2-3", part(0, 4)),
            ("bytes=10-19,30-39,15-34", part(10, 40)),
            ("bytes=50-59,0-9,55-69", parts(&[(50, 70), (0, 10)])),
            ("bytes=0-9,5-14,20-29", parts(&[(0, 15), (20, 30)])),
            ("bytes=0-1,5-", parts(&[(0, 2), (5, 100)])),
            ("bytes=0-1,x", Selected::Whole),
            ("bytes=0-1,6-5", Selected::Whole),
            ("bytes=,", Selected::Whole),
            ("bytes=0-,0-,0-,0-,0-,0-", Selected::Whole),
            ("", Selected::Whole),
        ] {
            assert_eq!(
                Selected::parse(header.as_bytes(), 100),
                expected,
                "{header}"
            );
        }
        assert_eq!(Selected::parse(b"bytes=0-", 0), Selected::Nothing);
        assert_eq!(Selected::parse(b"bytes=\xff-", 9), Selected::Whole);
    }

    #[test]
    fn too_many_ranges_are_ignored() {
        let header = |count: u64| {
            let list: Vec<_> = (0..count).map(|i| format!("{}-{}", i * 3, i * 3)).collect();
            format!("bytes={}", list.join(","))
        };
        let Selected::Parts(parts) = Selected::parse(header(32).as_bytes(), 1000) else {
            panic!("32 ranges are taken");
        };
        assert_eq!(parts.len(), 32);
        let selected = Selected::parse(header(33).as_bytes(), 1000);
        assert_eq!(selected, Selected::Whole);
        // Past the end, they count all the same.
        assert_eq!(Selected::parse(header(33).as_bytes(), 1), Selected::Whole);
    }

    #[test]
    fn a_content_range_that_contradicts_itself_is_refused() {
        let whole = Some((ByteRange::new(0, 5), Some(5)));
        assert_eq!(parse_content_range(b"bytes 0-4/5"), whole);
        assert_eq!(
            parse_content_range(b"bytes 1-4/*"),
            Some((ByteRange::new(1, 5), None))
        );
        for bad in [
            "bytes 0-5/5",
            "bytes 3-2/9",
            "bytes */9",
            "bytes 0-18446744073709551615/*",
            "bytes 0-4/",
            "bytes -4/9",
            "bytes 0-/9",
            "bytes +0-4/9",
            "bytes=0-4/9",
            "items 0-4/9",
            "0-4/9",
            "bytes 0-4/99999999999999999999999",
            "",
        ] {
            assert_eq!(parse_content_range(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ranges_come_back(start in 0u64..1 << 60, len in 1u64..1 << 60, more in 0u64..1 << 60) {
            let range = ByteRange::new(start, start + len);
            let total = range.end + more;
            let selected = Selected::parse(request(range).as_bytes(), total);
            prop_assert_eq!(selected, Selected::Part(range));
            let answer = parse_content_range(content_range(range, total).as_bytes());
            prop_assert_eq!(answer, Some((range, Some(total))));
        }

        #[test]
        fn no_header_panics_or_selects_past_the_end(
            header in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                "bytes=[0-9,-]{0,50}".prop_map(String::into_bytes),
                "bytes=([0-9]{0,2}-[0-9]{0,2},){0,20}".prop_map(String::into_bytes),
                "bytes [0-9*/-]{0,50}".prop_map(String::into_bytes),
            ],
            len in prop_oneof![any::<u64>(), 0u64..120],
        ) {
            match Selected::parse(&header, len) {
                Selected::Part(range) => {
                    prop_assert!(!range.is_empty() && range.end <= len);
                }
                Selected::Parts(mut parts) => {
                    prop_assert!((2..=MAX_RANGES).contains(&parts.len()));
                    prop_assert!(parts.iter().all(|part| !part.is_empty() && part.end <= len));
                    // No byte is selected twice.
                    parts.sort_by_key(|part| part.start);
                    prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
                }
                Selected::Whole | Selected::Nothing => {}
            }
            if let Some((range, total)) = parse_content_range(&header) {
                prop_assert!(!range.is_empty() && total.is_none_or(|total| range.end <= total));
            }
        }
    }
}
