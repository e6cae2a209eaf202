//! What was begun before a crash is finished, or undone.

use chiral_core::{Cid, StoreError, TransferId};

use super::meta::MetaError;
use super::meta::objects::{ADDING, REMOVING};
use super::meta::partials::{COMPLETING, DISCARDING};
use super::meta::record::{CompletionRecord, id};
use super::shared::Shared;
use crate::blocking::lock;

fn damaged(error: MetaError) -> StoreError {
    StoreError::Metadata {
        operation: "recover",
        source: Box::new(error),
    }
}

impl Shared {
    /// Brings the directory in order when the store is opened.
    pub(super) fn start_up(&self) -> Result<(), StoreError> {
        for dir in [
            self.places.objects(),
            self.places.partial(),
            self.places.temporary(),
        ] {
            self.disk.create_dir(&dir)?;
        }
        let _registry = lock(&self.registry);
        self.recover()?;
        for path in self.disk.list(&self.places.temporary())? {
            self.disk.remove(&path)?;
        }
        let known = self.meta.partials()?;
        for path in self.disk.list(&self.places.partial())? {
            let name = path.file_stem().and_then(|name| name.to_str());
            let transfer = name.and_then(|name| name.parse::<TransferId>().ok());
            let kept = known.iter().any(|(known, _)| Some(*known) == transfer);
            if let Some(transfer) = transfer.filter(|_| !kept) {
                // Those elsewhere before the list of them.
                self.remove_partial_files(transfer)?;
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Takes up what an operation left undone; with `registry` held.
    pub(super) fn recover_if_needed(&self) -> Result<(), StoreError> {
        if !self.meta.take_unsettled() {
            return Ok(());
        }
        let recovered = self.recover();
        if recovered.is_err() {
            self.meta.unsettle();
        }
        recovered
    }

    fn recover(&self) -> Result<(), StoreError> {
        for (key, value) in self.meta.intents()? {
            let Some((kind, rest)) = key.split_first() else {
                continue;
            };
            match *kind {
                ADDING => self.finish_addition(Cid::from_bytes(id(rest).map_err(damaged)?))?,
                REMOVING => self.finish_removal(Cid::from_bytes(id(rest).map_err(damaged)?))?,
                COMPLETING => {
                    let transfer = TransferId::from_bytes(id(rest).map_err(damaged)?);
                    if !lock(&self.completing).contains(&transfer) {
                        let record = CompletionRecord::decode(&value).map_err(damaged)?;
                        self.finish_completion(transfer, &record)?;
                    }
                }
                DISCARDING => {
                    self.finish_discard(TransferId::from_bytes(id(rest).map_err(damaged)?))?;
                }
                _ => return Err(damaged(MetaError::Damaged { what: "an intent" })),
            }
        }
        Ok(())
    }
}
