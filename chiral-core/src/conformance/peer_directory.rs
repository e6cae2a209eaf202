//! The suite of `chiral_core::peer_directory`.
