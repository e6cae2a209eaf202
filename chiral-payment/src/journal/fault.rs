//! Crashes on purpose: every durable step can be the last one.

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::JournalError;

/// The variable that [`Journal::open`](super::Journal::open) reads once: `before:N`,
/// `after:N` (or `N` alone, which is `after:N`), where N counts the durable steps of that
/// journal from 1, or the name of a step instead of N, which means its first time. The
/// process then aborts, as kill -9 would end it.
pub const CRASH_VARIABLE: &str = "CHIRAL_JOURNAL_CRASH";

/// On which side of a commit the crash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashSide {
    /// The step is lost.
    Before,
    /// The step is durable, and nobody heard of it.
    After,
}

/// Which durable step is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashStep {
    /// By its number, from 1.
    Number(u64),
    /// The first one of this name.
    Named(String),
}

/// A crash that is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// On which side.
    pub side: CrashSide,
    /// At which step.
    pub step: CrashStep,
}

/// What a crash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The process ends at once.
    Abort,
    /// From here on every call of this journal fails: to those who use it, it is as dead.
    Fail,
}

/// The text names no crash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a crash is written before:STEP or after:STEP, a step as its number from 1 or its name")]
pub struct ParseCrashError;

impl FromStr for Crash {
    type Err = ParseCrashError;

    fn from_str(text: &str) -> Result<Self, ParseCrashError> {
        let (side, step) = match text.split_once(':') {
            Some(("before", step)) => (CrashSide::Before, step),
            Some(("after", step)) => (CrashSide::After, step),
            Some(_) => return Err(ParseCrashError),
            None => (CrashSide::After, text),
        };
        let named = || {
            let word = |c: char| c.is_ascii_lowercase() || c == '-';
            let name = step.starts_with(|c: char| c.is_ascii_lowercase()) && step.chars().all(word);
            name.then(|| CrashStep::Named(step.to_owned()))
        };
        let step = match step.parse() {
            Ok(0) => return Err(ParseCrashError),
            Ok(number) => CrashStep::Number(number),
            Err(_) => named().ok_or(ParseCrashError)?,
        };
        Ok(Self { side, step })
    }
}

/// Counts the steps of one journal, and crashes where it was told to.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    steps: u64,
    planned: Option<(Crash, Manner)>,
    crashed: Option<&'static str>,
}

impl Faults {
    pub(super) fn plan(&self, crash: Crash, manner: Manner) {
        self.state().planned = Some((crash, manner));
    }

    pub(super) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Whether the journal still stands.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        match self.state().crashed {
            Some(point) => Err(JournalError::Crashed { point }),
            None => Ok(()),
        }
    }

    /// Right before the commit of a step, which gets its number here.
    pub(super) fn before(&self, point: &'static str) -> Result<(), JournalError> {
        let mut state = self.state();
        state.steps += 1;
        state.hit(CrashSide::Before, point)
    }

    /// Right after it.
    pub(super) fn after(&self, point: &'static str) -> Result<(), JournalError> {
        self.state().hit(CrashSide::After, point)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hit(&mut self, side: CrashSide, point: &'static str) -> Result<(), JournalError> {
        let Some((crash, manner)) = &self.planned else {
            return Ok(());
        };
        let here = match &crash.step {
            CrashStep::Number(number) => *number == self.steps,
            CrashStep::Named(name) => name == point,
        };
        if crash.side != side || !here {
            return Ok(());
        }
        if *manner == Manner::Abort {
            tracing::error!(point, step = self.steps, ?side, "crash on purpose");
            std::process::abort();
        }
        self.crashed = Some(point);
        Err(JournalError::Crashed { point })
    }
}
