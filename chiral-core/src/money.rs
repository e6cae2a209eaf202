//! Money: integers in wei. Prices per MiB, rounded up once per bill.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::U256;

/// Bytes that a [`Price`] is for: 2^20.
pub const MIB: u64 = 1 << 20;

/// Wei in one CHI: 10^18.
pub const WEI_PER_CHI: u128 = 1_000_000_000_000_000_000;

/// A price in wei per MiB (2^20 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Price(U256);

impl Price {
    /// Nothing asked.
    pub const FREE: Self = Self(U256::ZERO);

    /// So many wei for each MiB.
    pub const fn from_wei_per_mib(wei: U256) -> Self {
        Self(wei)
    }

    /// Wei for each MiB.
    pub const fn wei_per_mib(&self) -> U256 {
        self.0
    }

    /// Whether nothing is asked.
    pub fn is_free(&self) -> bool {
        self.0.is_zero()
    }

    /// What `bytes` cost in wei, rounded up; `None` if that exceeds 2^256 − 1.
    ///
    /// ```
    /// use chiral_core::Price;
    /// let price: Price = "0.001".parse().unwrap();
    /// assert_eq!(price.cost(5_242_881).unwrap().to_string(), "5000000953674317");
    /// ```
    pub fn cost(&self, bytes: u64) -> Option<U256> {
        let exact = self.0.checked_mul(U256::from(bytes))?;
        let mib = U256::from(MIB);
        let whole = exact / mib;
        if (exact % mib).is_zero() {
            Some(whole)
        } else {
            whole.checked_add(U256::from(1))
        }
    }
}

/// The text is no amount of CHI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an amount is a decimal number of CHI with at most 18 digits behind the point")]
pub struct ParseAmountError;

/// Reads a decimal number of CHI as wei, exactly: no float, no exponent, no sign.
///
/// # Errors
/// [`ParseAmountError`].
pub fn parse_chi(text: &str) -> Result<U256, ParseAmountError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 18 || whole.len() > 60 {
        return Err(ParseAmountError);
    }
    let number = |part: &str| U256::from_str_radix(part, 10).map_err(|_| ParseAmountError);
    let scale = U256::from(10).pow(U256::from(18 - fraction.len()));
    let wei = number(whole)?
        .checked_mul(U256::from(WEI_PER_CHI))
        .ok_or(ParseAmountError)?;
    wei.checked_add(number(fraction)? * scale)
        .ok_or(ParseAmountError)
}

/// Writes wei as a decimal number of CHI, exactly, without trailing zeros.
pub fn format_chi(wei: U256) -> String {
    let chi = U256::from(WEI_PER_CHI);
    let (whole, rest) = (wei / chi, wei % chi);
    let fraction = format!("{rest:0>18}");
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        whole.to_string()
    } else {
        format!("{whole}.{fraction}")
    }
}

impl fmt::Display for Price {
    /// CHI per MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_chi(self.0))
    }
}

impl FromStr for Price {
    type Err = ParseAmountError;

    /// CHI per MiB.
    fn from_str(text: &str) -> Result<Self, ParseAmountError> {
        parse_chi(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_exact_or_refused() {
        assert_eq!(parse_chi("0.000000000000000001").unwrap(), U256::from(1));
        assert_eq!(parse_chi("12").unwrap(), U256::from(12 * WEI_PER_CHI));
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "0.0000000000000000001",
            "0x1",
            "1 ",
        ] {
            assert_eq!(parse_chi(bad), Err(ParseAmountError), "{bad}");
        }
        assert_eq!(parse_chi(&"9".repeat(60)), Err(ParseAmountError));
        assert_eq!(Price::FREE.cost(u64::MAX), Some(U256::ZERO));
        assert_eq!(Price::from_wei_per_mib(U256::MAX).cost(2), None);
        assert_eq!(
            Price::from_wei_per_mib(U256::from(1)).cost(1),
            Some(U256::from(1))
        );
        assert_eq!(
            Price::from_wei_per_mib(U256::from(3)).cost(MIB * 2),
            Some(U256::from(6))
        );
    }

    proptest! {
        #[test]
        fn chi_text_comes_back(wei: u128) {
            let wei = U256::from(wei);
            prop_assert_eq!(parse_chi(&format_chi(wei)).unwrap(), wei);
        }

        #[test]
        fn one_bill_never_costs_more_than_its_parts(price in 0u64..u64::MAX, a in 0u64..1 << 40, b in 0u64..1 << 40) {
            let price = Price::from_wei_per_mib(U256::from(price));
            let parts = price.cost(a).unwrap() + price.cost(b).unwrap();
            let whole = price.cost(a + b).unwrap();
            prop_assert!(whole <= parts && whole + U256::from(1) >= parts);
        }
    }
}
