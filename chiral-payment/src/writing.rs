//! [`Writing`]: marks of what has changed, while the step that writes it is on its way to disk.

/// Marks that a step took out of the books. They go back unless the step is known to be on
/// disk: if it fails, and if whoever waited for it has gone.
pub(crate) struct Writing<D: Default, F: FnOnce(D)> {
    dirty: D,
    put_back: Option<F>,
}

impl<D: Default, F: FnOnce(D)> Writing<D, F> {
    /// `put_back` gets the marks again.
    pub(crate) fn new(dirty: D, put_back: F) -> Self {
        Self {
            dirty,
            put_back: Some(put_back),
        }
    }

    pub(crate) fn dirty(&self) -> &D {
        &self.dirty
    }

    /// The step is on disk.
    pub(crate) fn kept(mut self) -> D {
        self.put_back = None;
        std::mem::take(&mut self.dirty)
    }
}

impl<D: Default, F: FnOnce(D)> Drop for Writing<D, F> {
    fn drop(&mut self) {
        if let Some(put_back) = self.put_back.take() {
            put_back(std::mem::take(&mut self.dirty));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_go_back_unless_the_step_is_known_to_be_on_disk() {
        let mut back = Vec::new();
        let writing = Writing::new(vec![1, 2], |dirty| back.extend(dirty));
        assert_eq!(writing.dirty(), &[1, 2]);
        assert_eq!(writing.kept(), [1, 2]);
        drop(Writing::new(vec![3], |dirty| back.extend(dirty)));
        assert_eq!(back, [3]);
    }
}
