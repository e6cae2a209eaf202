//! The suite of `chiral_core::wallet`.
