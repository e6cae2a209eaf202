//! x

pub mod scheduler;
