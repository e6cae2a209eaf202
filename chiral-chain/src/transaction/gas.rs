//! Gas that a transaction uses before any code runs.

/// Every transaction.
const BASE: u64 = 21_000;
/// One that makes a contract, on top (EIP-2).
const CREATE: u64 = 32_000;
/// A zero byte of calldata.
const ZERO_BYTE: u64 = 4;
/// Any other byte of calldata (EIP-2028).
const OTHER_BYTE: u64 = 16;

/// The gas that a transaction with this calldata and no access list uses before any code
/// runs, by the rules from Istanbul to London (EIP-2, EIP-2028). Its gas limit must not be
/// less.
///
/// ```
/// use chiral_chain::intrinsic_gas;
/// assert_eq!(intrinsic_gas(&[], false), 21_000);
/// assert_eq!(intrinsic_gas(&[7; 65], false), 22_040);
/// ```
pub fn intrinsic_gas(input: &[u8], is_create: bool) -> u64 {
    let zeros = input.iter().filter(|byte| **byte == 0).count();
    let price = |count: usize, each: u64| (count as u64).saturating_mul(each);
    let base = if is_create { BASE + CREATE } else { BASE };
    base.saturating_add(price(zeros, ZERO_BYTE))
        .saturating_add(price(input.len() - zeros, OTHER_BYTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_cheaper_and_contracts_dearer() {
        assert_eq!(intrinsic_gas(&[0; 10], false), 21_040);
        assert_eq!(intrinsic_gas(&[0, 1, 0, 2], false), 21_040);
        assert_eq!(intrinsic_gas(&[1], true), 53_016);
    }
}
