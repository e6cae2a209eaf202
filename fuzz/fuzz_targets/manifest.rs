//! Manifest headers and pages: what decodes is canonical, and nothing passes for a root.
#![no_main]

use chiral_core::{ChunkLayout, ManifestHeader, ManifestPage, MerkleRoot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = ManifestHeader::decode(bytes) {
        assert_eq!(header.encode().as_deref(), Ok(bytes));
    }
    if let Ok(page) = ManifestPage::decode(bytes) {
        assert_eq!(page.encode(), bytes);
        let index = page.index;
        for size in [1, 262_144, 1 << 30, (1 << 30) + 1, 5 << 30] {
            let layout = ChunkLayout::new(size).expect("within the limit");
            let root = MerkleRoot::from_bytes([7; 32]);
            assert!(page.clone().verify(root, layout, index).is_err());
        }
    }
});
