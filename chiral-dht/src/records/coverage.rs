//! Coverage in at most 256 bytes: exact runs if they fit, else which 256ths are held whole.

use chiral_core::{ChunkLayout, ChunkRuns, Coverage};

use super::{RecordError, wire};

/// Limit on the bytes of a coverage.
pub(super) const MAX_COVERAGE_LEN: usize = 256;

/// Nothing said; only where an endpoint differs from its announcement.
const UNSAID: u32 = 0;
const COMPLETE: u32 = 1;
/// Lengths of gaps and runs by turns, gap first, as LEB128.
const RUNS: u32 = 2;
/// 256 bits, the highest of a byte first: bit `i` for all of the chunks
/// `i * count / 256 .. (i + 1) * count / 256`.
const COARSE: u32 = 3;

const SLICES: u64 = 256;
const BAD: RecordError = RecordError::Malformed { what: "coverage" };

/// Of a coverage that may be unsaid.
pub(super) fn encode(coverage: Option<&Coverage>, layout: ChunkLayout) -> wire::Coverage {
    let (kind, data) = match coverage {
        None => (UNSAID, Vec::new()),
        Some(Coverage::Complete) => (COMPLETE, Vec::new()),
        Some(other) => {
            let runs = other.runs(layout);
            match encode_runs(&runs) {
                Some(data) => (RUNS, data),
                None => (COARSE, encode_coarse(&runs, layout)),
            }
        }
    };
    wire::Coverage { kind, data }
}

/// `None` if nothing is said; also if no slice is held whole, for that says nothing.
pub(super) fn decode(
    wire: &wire::Coverage,
    layout: ChunkLayout,
) -> Result<Option<Coverage>, RecordError> {
    match (wire.kind, wire.data.is_empty()) {
        (UNSAID, true) => Ok(None),
        (COMPLETE, true) => Ok(Some(Coverage::Complete)),
        (RUNS, _) => decode_runs(&wire.data, layout).map(|runs| Some(Coverage::Partial(runs))),
        (COARSE, _) => decode_coarse(&wire.data, layout),
        _ => Err(BAD),
    }
}

fn encode_runs(runs: &ChunkRuns) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let mut at = 0;
    for run in runs.iter() {
        put_varint(&mut data, run.start - at);
        put_varint(&mut data, run.end - run.start);
        if data.len() > MAX_COVERAGE_LEN {
            return None;
        }
        at = run.end;
    }
    Some(data)
}

fn decode_runs(data: &[u8], layout: ChunkLayout) -> Result<ChunkRuns, RecordError> {
    if data.len() > MAX_COVERAGE_LEN {
        return Err(BAD);
    }
    let mut input = data;
    let (mut runs, mut at) = (Vec::new(), 0u32);
    while !input.is_empty() {
        let first = at.checked_add(take_varint(&mut input)?).ok_or(BAD)?;
        let end = first.checked_add(take_varint(&mut input)?).ok_or(BAD)?;
        runs.push((first, end));
        at = end;
    }
    ChunkRuns::new(runs, layout).map_err(|_| BAD)
}

fn encode_coarse(runs: &ChunkRuns, layout: ChunkLayout) -> Vec<u8> {
    let mut data = vec![0; 32];
    let mut held = runs.iter().peekable();
    for index in 0..SLICES {
        let slice = slice(index, layout);
        while held.next_if(|run| run.end <= slice.start).is_some() {}
        let whole = held
            .peek()
            .is_some_and(|run| run.start <= slice.start && slice.end <= run.end);
        if whole && !slice.is_empty() {
            data[index as usize / 8] |= 0x80 >> (index % 8);
        }
    }
    data
}

fn decode_coarse(data: &[u8], layout: ChunkLayout) -> Result<Option<Coverage>, RecordError> {
    let data: [u8; 32] = wire::array(data, "coverage")?;
    let mut chunks: Vec<(u32, u32)> = Vec::new();
    for index in 0..SLICES {
        if data[index as usize / 8] & (0x80 >> (index % 8)) == 0 {
            continue;
        }
        let slice = slice(index, layout);
        if slice.is_empty() {
            return Err(BAD);
        }
        match chunks.last_mut() {
            Some((_, end)) if *end == slice.start => *end = slice.end,
            _ => chunks.push((slice.start, slice.end)),
        }
    }
    let runs = ChunkRuns::new(chunks, layout).map_err(|_| BAD)?;
    Ok((!runs.is_empty()).then_some(Coverage::Partial(runs)))
}

fn slice(index: u64, layout: ChunkLayout) -> std::ops::Range<u32> {
    // At most 2^32 − 1, since `index` is at most 256.
    let bound = |index: u64| (index * u64::from(layout.count()) / SLICES) as u32;
    bound(index)..bound(index + 1)
}

fn put_varint(data: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        data.push(value as u8 | 0x80);
        value >>= 7;
    }
    data.push(value as u8);
}

/// Takes the shortest encoding only.
fn take_varint(input: &mut &[u8]) -> Result<u32, RecordError> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(BAD)?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let shortest = byte != 0 || shift == 0;
            return u32::try_from(value).ok().filter(|_| shortest).ok_or(BAD);
        }
    }
    Err(BAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::CHUNK_SIZE;
    use proptest::prelude::*;

    fn layout(chunks: u32) -> ChunkLayout {
        ChunkLayout::new(u64::from(chunks) * CHUNK_SIZE).unwrap()
    }

    fn partial(chunks: impl IntoIterator<Item = u32>) -> Coverage {
        Coverage::Partial(ChunkRuns::from_sorted(chunks))
    }

    fn back(coverage: &Coverage, at: ChunkLayout) -> Option<Coverage> {
        let wire = encode(Some(coverage), at);
        assert!(wire.data.len() <= MAX_COVERAGE_LEN);
        decode(&wire, at).unwrap()
    }

    #[test]
    fn what_fits_comes_back_exactly_and_the_rest_says_less_and_never_more() {
        let at = layout(409_600);
        let half = partial(0..204_800);
        for exact in [Coverage::Complete, half, partial([]), partial([409_599])] {
            assert_eq!(back(&exact, at), Some(exact));
        }
        // A slice is 1,600 chunks; 62 of them are held whole, and too many runs follow.
        let holes = partial((0..409_600).filter(|i| *i < 100_000 || i % 7 != 0));
        let Some(Coverage::Partial(said)) = back(&holes, at) else {
            panic!("some slices are held whole");
        };
        assert!(said.iter().eq(std::iter::once(0..99_200)));
        let scattered = partial((0..409_600).filter(|i| i % 2 == 0));
        assert_eq!(back(&scattered, at), None);
        assert_eq!(decode(&encode(None, at), at), Ok(None));
    }

    #[test]
    fn what_does_not_fit_the_file_is_refused() {
        let at = layout(10);
        for (kind, data) in [
            (UNSAID, vec![0]),
            (COMPLETE, vec![0]),
            (RUNS, vec![0]),
            (RUNS, vec![0, 0]),
            (RUNS, vec![0, 11]),
            (RUNS, vec![0, 3, 0, 1]),
            (RUNS, vec![0x80, 0, 3]),
            (RUNS, vec![0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (RUNS, vec![0xff; 257]),
            (COARSE, vec![0; 31]),
            (COARSE, vec![0xff; 32]),
            (4, vec![]),
        ] {
            let wire = wire::Coverage { kind, data };
            assert_eq!(decode(&wire, at), Err(BAD), "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn any_coverage_is_never_exaggerated(
            count in 1u32..5000,
            picks in proptest::collection::btree_set(0u32..5000, 0..400),
        ) {
            let at = layout(count);
            let held: Vec<u32> = picks.into_iter().filter(|i| *i < count).collect();
            let coverage = partial(held.iter().copied());
            match back(&coverage, at) {
                Some(said) => prop_assert!(said.runs(at).chunks().all(|i| coverage.contains(i))),
                None => prop_assert!(held.len() > 60),
            }
        }

        #[test]
        fn no_bytes_panic(kind in 0u32..5, data in proptest::collection::vec(any::<u8>(), 0..300), count: u32) {
            let at = layout(count);
            if let Ok(said) = decode(&wire::Coverage { kind, data: data.clone() }, at)
                && kind == RUNS
            {
                prop_assert_eq!(encode(said.as_ref(), at).data, data);
            }
        }
    }
}
