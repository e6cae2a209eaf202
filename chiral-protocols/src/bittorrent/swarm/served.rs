//! [`Served`]: what is given to the peers of a torrent, and where it comes from.

use std::sync::Arc;

use chiral_core::{Bitmap, Cid, StoredContent};

/// What is served of a torrent, and where it comes from.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Content of the store.
    pub(super) cid: Option<Cid>,
    /// It was asked to be seeded, not just downloaded.
    pub(super) seeding: bool,
    pub(super) content: Option<Arc<dyn StoredContent>>,
    pub(super) have: Option<Arc<Bitmap>>,
    /// One of its pieces has the hash that the torrent gives.
    pub(super) checked: bool,
    /// The content is not the store's: it is not opened anew there.
    pub(super) is_apart: bool,
    /// It is known what it is, and nothing of it is given.
    pub(super) is_withheld: bool,
    /// What was seeded when a download of the same torrent began, which is given meanwhile.
    seeded: Option<Box<Served>>,
}

impl Served {
    /// Pieces that can be served.
    pub(super) fn pieces(&self) -> Option<&Arc<Bitmap>> {
        self.have.as_ref().filter(|_| self.checked)
    }

    /// What it is, whether or not it is what is given now.
    pub(super) fn cid(&self) -> Option<Cid> {
        let seeded = self.seeded.as_ref().and_then(|seeded| seeded.cid);
        self.cid.or(seeded)
    }

    /// It is this content, given if that is asked for or was not decided otherwise. What was
    /// seeded before a download goes on being so.
    pub(super) fn set_cid(&mut self, cid: Cid, seeding: bool) {
        if let Some(seeded) = self.seeded.take() {
            *self = *seeded;
        } else if self.cid != Some(cid) || self.is_apart || self.is_withheld {
            *self = Self {
                cid: Some(cid),
                seeding: self.seeding,
                ..Self::default()
            };
        }
        self.seeding |= seeding;
    }

    /// It is this content, of which nothing is given, unless it is seeded.
    pub(super) fn withhold(&mut self, cid: Cid) {
        if let Some(seeded) = self.seeded.take() {
            *self = *seeded;
        } else if !self.seeding {
            *self = Self {
                cid: Some(cid),
                is_withheld: true,
                ..Self::default()
            };
        }
    }

    /// Content that is not the store's, as far as it is there; or none any more, if that was
    /// served: then what was seeded before is again.
    pub(super) fn set_apart(&mut self, content: Option<Arc<dyn StoredContent>>, seeding: bool) {
        match content {
            Some(content) => {
                let before = std::mem::take(self);
                let is_download = before.seeding && !seeding;
                *self = Self {
                    seeding,
                    content: Some(content),
                    is_apart: true,
                    seeded: is_download.then(|| Box::new(before)),
                    ..Self::default()
                };
            }
            None if self.is_apart => {
                let seeded = self.seeded.take();
                *self = seeded.map_or_else(Self::default, |seeded| *seeded);
            }
            None => {}
        }
    }

    /// It is not to be seeded any more; whether it was.
    pub(super) fn stop_seeding(&mut self) -> bool {
        if self.seeded.take().is_some() {
            return true;
        }
        let was = std::mem::take(&mut self.seeding);
        if was {
            *self = Self::default();
        }
        was
    }
}
