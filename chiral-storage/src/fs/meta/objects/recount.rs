//! For tests: counts made anew from the rows.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::fs::meta::collect;

/// What the tables say of each other.
#[derive(Debug)]
pub(in crate::fs) struct Recount {
    /// Rows of pins of each object.
    pub(in crate::fs) pins: BTreeMap<Cid, u32>,
    /// Paths and the objects they lead to.
    pub(in crate::fs) paths: Vec<(Vec<u8>, Cid)>,
    /// Objects that have sidecars.
    pub(in crate::fs) sidecars: BTreeSet<Cid>,
}

impl Meta {
    pub(in crate::fs) fn recount(&self) -> Result<Recount, StoreError> {
        self.read(|transaction| {
            let mut pins = BTreeMap::new();
            for row in transaction.open_table(PINS)?.iter()? {
                let (key, _) = row?;
                *pins
                    .entry(Cid::from_bytes(id(&key.value()[..32])?))
                    .or_default() += 1;
            }
            let rows = collect(transaction.open_table(PATHS)?.iter()?)?;
            let paths = rows
                .into_iter()
                .map(|(path, cid)| Ok((path, Cid::from_bytes(id(&cid)?))));
            Ok(Recount {
                pins,
                paths: paths.collect::<Result<_, MetaError>>()?,
                sidecars: sidecars::owners(transaction)?,
            })
        })
    }
}
