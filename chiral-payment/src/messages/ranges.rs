//! Sets of byte ranges as bytes: pairs of varints (LEB128), the gap since the end of the
//! range before and the length, both in bytes. One set has one encoding.

use chiral_core::{ByteRange, RangeSet};

use super::Malformed;

const DISORDER: Malformed = Malformed {
    reason: "ranges that are not sorted, apart, and in the shortest form",
};

/// The encoding of a set.
pub(crate) fn encode(ranges: &RangeSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    for range in ranges.iter() {
        varint(&mut bytes, range.start - at);
        varint(&mut bytes, range.len());
        at = range.end;
    }
    bytes
}

/// Reads a set of at most `limit` ranges.
pub(crate) fn decode(mut bytes: &[u8], limit: usize) -> Result<RangeSet, Malformed> {
    let mut ranges = RangeSet::new();
    let mut at: u64 = 0;
    while !bytes.is_empty() {
        if ranges.fragments() == limit {
            return Err(Malformed {
                reason: "too many ranges",
            });
        }
        let gap = read_varint(&mut bytes)?;
        let length = read_varint(&mut bytes)?;
        // Neighbours that touch would be another encoding of one range.
        if length == 0 || (gap == 0 && !ranges.is_empty()) {
            return Err(DISORDER);
        }
        let start = at.checked_add(gap).ok_or(DISORDER)?;
        let end = start.checked_add(length).ok_or(DISORDER)?;
        ranges.insert(ByteRange::new(start, end));
        at = end;
    }
    Ok(ranges)
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DISORDER)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if (shift == 63 && part > 1) || (byte == 0 && shift > 0) {
            return Err(DISORDER);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DISORDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_come_back(parts in proptest::collection::vec((any::<u64>(), 1u64..1 << 40), 0..40)) {
            let set: RangeSet = parts
                .into_iter()
                .map(|(start, len)| ByteRange::new(start, start.saturating_add(len)))
                .collect();
            let bytes = encode(&set);
            prop_assert_eq!(decode(&bytes, set.fragments()), Ok(set.clone()));
            if !set.is_empty() {
                prop_assert!(decode(&bytes, set.fragments() - 1).is_err());
            }
        }

        #[test]
        fn one_set_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(set) = decode(&bytes, 64) {
                prop_assert_eq!(encode(&set), bytes);
            }
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in [
            &[0][..],
            &[0, 0],
            &[0, 1, 0, 1],
            &[0x80, 0, 1],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
        ] {
            assert!(decode(bad, 64).is_err(), "{bad:?}");
        }
    }
}
