//! [`Priority`]: which of several downloads goes first, and with how much.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much a download matters beside others of the same node: the more, the sooner it has its
/// turn, and the more it gets of a rate that several share.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When nothing else is wanted; its share weighs 1.
    Low,
    /// The usual; its share weighs 4.
    #[default]
    Normal,
    /// Before others; its share weighs 16.
    High,
}

impl Priority {
    /// Its weight where downloads share a rate.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a priority is low, normal or high")]
pub struct ParsePriorityError;

impl FromStr for Priority {
    type Err = ParsePriorityError;

    fn from_str(text: &str) -> Result<Self, ParsePriorityError> {
        [Self::Low, Self::Normal, Self::High]
            .into_iter()
            .find(|priority| priority.as_str() == text)
            .ok_or(ParsePriorityError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_matters_more_and_words_come_back() {
        assert!(Priority::Low < Priority::Normal && Priority::Normal < Priority::High);
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            assert_eq!(priority.to_string().parse(), Ok(priority));
        }
        assert_eq!("High".parse::<Priority>(), Err(ParsePriorityError));
    }
}
