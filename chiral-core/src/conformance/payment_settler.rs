//! The suite of `chiral_core::payment_settler`.
