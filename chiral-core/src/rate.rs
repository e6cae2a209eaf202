//! [`Rate`]: a limit in bytes per second.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A rate in whole bytes per second, at least [`Rate::MIN`]. That nothing is limited is said
/// by the absence of a rate.
///
/// ```
/// use chiral_core::Rate;
/// let rate: Rate = "50MiB".parse().unwrap();
/// assert_eq!(rate.bytes_per_second(), 50 << 20);
/// assert_eq!("1.5M".parse::<Rate>().unwrap().bytes_per_second(), 3 << 19);
/// assert_eq!("800kB/s".parse::<Rate>().unwrap().bytes_per_second(), 800_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

/// The number or the text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// Not a number with a unit.
    #[error(
        "a rate is a number of bytes per second, such as 50MiB, 1.5M, 800kB or 65536 \
         (K, M, G and KiB, MiB, GiB: powers of 1024; kB, MB, GB: of 1000)"
    )]
    Malformed,
    /// Less than [`Rate::MIN`]: what moves so slowly is taken for something that has stopped.
    #[error("a rate is at least 1 KiB per second")]
    TooSlow,
    /// More than [`Rate::MAX`].
    #[error("a rate is at most 1 TiB per second")]
    TooFast,
}

impl Rate {
    /// The slowest rate: 1 KiB per second.
    pub const MIN: Self = Self(1 << 10);

    /// The fastest rate: 1 TiB per second.
    pub const MAX: Self = Self(1 << 40);

    /// So many bytes per second.
    ///
    /// # Errors
    /// [`RateError::TooSlow`] under [`Rate::MIN`], [`RateError::TooFast`] over [`Rate::MAX`].
    pub const fn new(bytes_per_second: u64) -> Result<Self, RateError> {
        if bytes_per_second < Self::MIN.0 {
            Err(RateError::TooSlow)
        } else if bytes_per_second > Self::MAX.0 {
            Err(RateError::TooFast)
        } else {
            Ok(Self(bytes_per_second))
        }
    }

    /// Bytes per second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Rate {
    type Error = RateError;

    fn try_from(bytes_per_second: u64) -> Result<Self, RateError> {
        Self::new(bytes_per_second)
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

/// Digits of a number that is read; more would be over any limit.
const MAX_DIGITS: usize = 16;

impl FromStr for Rate {
    type Err = RateError;

    /// A decimal number with a unit and, if one likes, `/s`.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let text = text.strip_suffix("/s").unwrap_or(text);
        let unit_at = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let unit: u128 = match unit {
            "" | "B" => 1,
            "k" | "K" | "KiB" => 1 << 10,
            "m" | "M" | "MiB" => 1 << 20,
            "g" | "G" | "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(RateError::Malformed),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| -> Result<u128, RateError> {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(RateError::Malformed);
            }
            if part.len() > MAX_DIGITS {
                return Err(RateError::TooFast);
            }
            part.parse().map_err(|_| RateError::Malformed)
        };
        // At most 16 digits times 2^30 stays far below 2^128.
        let behind = digits(fraction)? * unit / 10u128.pow(fraction.len() as u32);
        let bytes = digits(whole)? * unit + behind;
        Self::new(u64::try_from(bytes).map_err(|_| RateError::TooFast)?)
    }
}

impl fmt::Display for Rate {
    /// In the largest binary unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0.trailing_zeros() {
            30.. => (self.0 >> 30, "GiB"),
            20..=29 => (self.0 >> 20, "MiB"),
            10..=19 => (self.0 >> 10, "KiB"),
            _ => (self.0, "B"),
        };
        write!(f, "{number}{unit}/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_what_curl_and_people_mean_by_them() {
        for (text, bytes) in [
            ("1024", 1024),
            ("1K", 1024),
            ("1k/s", 1024),
            ("2KiB", 2048),
            ("2kB", 2000),
            ("50MiB", 50 << 20),
            ("50M", 50 << 20),
            ("50MB", 50_000_000),
            ("0.5G", 1 << 29),
            ("1024GiB", 1 << 40),
        ] {
            assert_eq!(
                text.parse::<Rate>().unwrap().bytes_per_second(),
                bytes,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "", "K", "-1K", "1e9", "1 M", "1.M", ".5M", "1.2.3M", "0x400", "5mib", "٥M", "5T",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Malformed), "{text}");
        }
        assert_eq!("0".parse::<Rate>(), Err(RateError::TooSlow));
        assert_eq!("1023".parse::<Rate>(), Err(RateError::TooSlow));
        assert_eq!("1025GiB".parse::<Rate>(), Err(RateError::TooFast));
        assert_eq!(
            "99999999999999999999".parse::<Rate>(),
            Err(RateError::TooFast)
        );
    }

    proptest! {
        #[test]
        fn any_rate_comes_back_from_its_text(bytes in 1024u64..=1 << 40) {
            let rate = Rate::new(bytes).unwrap();
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Rate>();
        }
    }
}
