//! Where proofs of neighbouring chunks meet.
//!
//! A proof of chunk `i` says what precedes it and what follows it; so do the proofs of its
//! neighbours. As long as all of them agree wherever two proven chunks meet, a file whose
//! chunks are all proven has its last hash as its cid, by induction. A store therefore keeps
//! that agreement always: the last word stands, and proofs at odds with it are taken back.

use chiral_core::{ChunkHash, ProvenLink};

/// Proven chunks whose proofs do not fit `link`, rising. `proven` is asked for the chunk and
/// its neighbours, and `hash` for kept hashes that a proof has told.
pub(crate) fn at_odds<E>(
    link: &ProvenLink,
    proven: impl Fn(u32) -> bool,
    mut hash: impl FnMut(u32) -> Result<ChunkHash, E>,
) -> Result<Vec<u32>, E> {
    let index = link.index();
    let mut odd = Vec::new();
    let mut meet = |left: u32, said: ChunkHash| -> Result<(), E> {
        let right = left.saturating_add(1);
        if (proven(left) || proven(right)) && hash(left)? != said {
            odd.extend([left, right].into_iter().filter(|side| proven(*side)));
        }
        Ok(())
    };
    if let Some(previous) = index.checked_sub(1) {
        meet(previous, link.before())?;
    }
    meet(index, link.after())?;
    odd.dedup();
    Ok(odd)
}
