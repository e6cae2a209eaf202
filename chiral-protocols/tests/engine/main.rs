//! Whole downloads through the engine, from sources that may do anything.
// What is not a test itself helps tests only.
#![allow(clippy::unwrap_used)]

mod bench;
mod choice;
mod control;
mod fake;
mod forgers;
mod growing;
mod identity;
mod mirrors;
mod pieces;
mod queue;
mod reading;
mod sources;

use std::collections::BTreeSet;

use chiral_core::transfer::{TransferEvent, TransferEventKind};
use chiral_protocols::DownloadReport;
use fake::Manners;

fn honest() -> Manners {
    Manners::default()
}

fn banned(report: &DownloadReport) -> Vec<&str> {
    report
        .sources
        .iter()
        .filter(|s| s.banned.is_some())
        .map(|s| s.source.as_str())
        .collect()
}

fn refused_roots(events: &[TransferEvent]) -> usize {
    events
        .iter()
        .filter(|e| matches!(e.kind, TransferEventKind::RootRefused { .. }))
        .count()
}

fn set(indices: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    indices.into_iter().collect()
}
