//! [`Window`]: how much is served ahead of what was paid.

use chiral_core::CHUNK_SIZE;

/// Chunks that may be served and not yet paid: few at first, twice as many each time that a
/// whole window of them was paid, up to a cap. Whoever takes a window and vanishes has paid
/// for as much before, less what it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    size: u32,
    cap: u32,
    /// Bytes that were paid when it last grew.
    grown_at: u64,
}

impl Window {
    /// One of `first` chunks, that grows to `cap`. Neither is ever less than one.
    pub fn new(first: u32, cap: u32) -> Self {
        let cap = cap.max(1);
        Self {
            size: first.clamp(1, cap),
            cap,
            grown_at: 0,
        }
    }

    /// One that never grows.
    pub fn fixed(chunks: u32) -> Self {
        Self::new(chunks, chunks)
    }

    /// Its size in chunks.
    pub fn chunks(&self) -> u32 {
        self.size
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.size) * CHUNK_SIZE
    }

    /// So many bytes are paid in all.
    pub fn paid(&mut self, bytes: u64) {
        while self.size < self.cap && bytes.saturating_sub(self.grown_at) >= self.bytes() {
            self.grown_at += self.bytes();
            self.size = self.size.saturating_mul(2).min(self.cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_doubles_with_each_window_that_was_paid() {
        let mut window = Window::new(1, 8);
        let mut sizes = vec![window.chunks()];
        for chunks in 1..=8 {
            window.paid(chunks * CHUNK_SIZE);
            sizes.push(window.chunks());
        }
        assert_eq!(sizes, [1, 2, 2, 4, 4, 4, 4, 8, 8]);
        assert_eq!(Window::new(0, 0).chunks(), 1);
        assert_eq!(Window::fixed(4).chunks(), 4);
    }

    proptest! {
        /// However it is paid, in crumbs or at once, the window is the same, and never more
        /// than what was paid and one chunk.
        #[test]
        fn crumbs_buy_no_more_than_chunks(
            cap in 1u32..200,
            steps in proptest::collection::vec(0u64..3 * CHUNK_SIZE, 0..60),
        ) {
            let mut window = Window::new(1, cap);
            let mut paid = 0;
            for step in steps {
                paid += step;
                window.paid(paid);
                let mut at_once = Window::new(1, cap);
                at_once.paid(paid);
                prop_assert_eq!(window, at_once);
                prop_assert!(window.bytes() <= paid + CHUNK_SIZE);
                prop_assert!(window.chunks() <= cap);
            }
        }
    }
}
