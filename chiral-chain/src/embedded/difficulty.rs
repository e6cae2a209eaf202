//! The difficulty of the next block (EIP-100).

use alloy_consensus::Header;
use alloy_primitives::U256;

/// No block is easier.
const MINIMUM: U256 = U256::from_limbs([0x2_0000, 0, 0, 0]);

/// Difficulty of a block at `timestamp` above a parent without uncles, as Byzantium and all
/// after it have it (EIP-100). The bomb of London (EIP-3554) adds nothing before block
/// 9,900,000 and is left out.
pub(super) fn next(parent: &Header, timestamp: u64) -> U256 {
    let step = parent.difficulty >> 11;
    let nines = timestamp.saturating_sub(parent.timestamp) / 9;
    let changed = match nines {
        0 => parent.difficulty.saturating_add(step),
        nines => {
            let down = U256::from((nines - 1).min(99));
            parent.difficulty.saturating_sub(step.saturating_mul(down))
        }
    };
    changed.max(MINIMUM)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by the formula of EIP-100 by hand.
    #[test]
    fn quick_blocks_are_harder_and_slow_ones_easier() {
        let parent = Header {
            difficulty: U256::from(0x40_0000),
            timestamp: 100,
            ..Header::default()
        };
        let at = |timestamp| next(&parent, timestamp).to::<u64>();
        assert_eq!(at(101), 4_194_304 + 2_048);
        assert_eq!(at(108), 4_194_304 + 2_048);
        assert_eq!(at(109), 4_194_304);
        assert_eq!(at(118), 4_194_304 - 2_048);
        assert_eq!(at(100_000), 4_194_304 - 99 * 2_048);
        let least = Header {
            difficulty: MINIMUM,
            ..parent
        };
        assert_eq!(next(&least, 100_000), MINIMUM);
    }
}
