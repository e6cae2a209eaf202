use super::super::ManifestHeader;
use super::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn file(count: u32) -> (ChunkLayout, Vec<ChunkHash>, PageRoots) {
    let layout = ChunkLayout::new(u64::from(count) * CHUNK_SIZE - 7).unwrap();
    let hashes: Vec<_> = (0..count)
        .map(|i| ChunkHash::from_bytes(Sha256::digest(i.to_be_bytes()).into()))
        .collect();
    let roots = PageRoots::from_hashes(layout, &hashes).unwrap();
    (layout, hashes, roots)
}

fn page(hashes: &[ChunkHash], roots: &PageRoots, index: u32) -> ManifestPage {
    let mut pages = hashes.chunks(PAGE_CHUNKS as usize);
    let previous = index
        .checked_sub(1)
        .and_then(|at| hashes.chunks(PAGE_CHUNKS as usize).nth(at as usize));
    let own = pages.nth(index as usize).unwrap().to_vec();
    roots.page(index, own, previous.unwrap_or(&[])).unwrap()
}

#[test]
fn pages_of_every_shape_lead_to_the_plain_root() {
    for count in [1, 2, 4095, 4096, 4097, 8192, 8193, 12_288, 20_481] {
        let (layout, hashes, roots) = file(count);
        assert_eq!(
            roots.root(),
            merkle::seal(layout.size(), merkle::tree_hash(&hashes)),
            "{count}"
        );
        for index in 0..page_count(layout) {
            let page = page(&hashes, &roots, index);
            let bytes = page.encode();
            assert!(bytes.len() <= MAX_PAGE_LEN);
            let again = ManifestPage::decode(&bytes).unwrap();
            assert_eq!(again, page);
            let verified = again.verify(roots.root(), layout, index).unwrap();
            for chunk in [verified.chunks().start, verified.chunks().end - 1] {
                let before = match chunk {
                    0 => chain::INITIAL,
                    chunk => hashes[chunk as usize - 1],
                };
                assert_eq!(
                    verified.around(chunk),
                    Some((before, hashes[chunk as usize]))
                );
            }
            assert_eq!(verified.around(verified.chunks().end), None);
        }
    }
}

#[test]
fn a_page_proves_nothing_elsewhere_or_at_another_size() {
    let (layout, hashes, roots) = file(8200);
    let good = page(&hashes, &roots, 1);
    let root = roots.root();
    assert!(good.clone().verify(root, layout, 1).is_ok());
    assert!(matches!(
        good.clone().verify(root, layout, 0),
        Err(PageError::Index { .. })
    ));
    assert!(matches!(
        good.clone().verify(root, layout, 3),
        Err(PageError::Index { .. })
    ));
    let wrong = ChunkLayout::new(layout.size() - 1).unwrap();
    assert!(good.clone().verify(root, wrong, 1).is_err());

    let mut bad = good.clone();
    bad.before = None;
    assert_eq!(bad.verify(root, layout, 1).unwrap_err(), PageError::Before);
    let mut bad = good.clone();
    bad.before.as_mut().unwrap().0 = hashes[0];
    assert!(bad.verify(root, layout, 1).is_err());
    let mut bad = good.clone();
    bad.before.as_mut().unwrap().1.push(merkle::leaf(hashes[0]));
    assert!(bad.verify(root, layout, 1).is_err());
    let mut bad = good.clone();
    bad.before.as_mut().unwrap().1.truncate(3);
    assert!(bad.verify(root, layout, 1).is_err());
    let mut bad = good.clone();
    bad.hashes.pop();
    assert!(matches!(
        bad.verify(root, layout, 1),
        Err(PageError::Count { found: 4095, .. })
    ));
    let mut bad = good.clone();
    bad.hashes.push(hashes[0]);
    assert!(matches!(
        bad.verify(root, layout, 1),
        Err(PageError::Count { found: 4097, .. })
    ));
    let mut bad = good.clone();
    bad.path.push(merkle::leaf(hashes[0]));
    assert!(matches!(
        bad.verify(root, layout, 1),
        Err(PageError::Proof(_))
    ));

    let mut first = page(&hashes, &roots, 0);
    first.before = good.before;
    assert_eq!(
        first.verify(root, layout, 0).unwrap_err(),
        PageError::Before
    );
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_decodes_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(page) = ManifestPage::decode(&bytes) {
            prop_assert_eq!(page.encode(), bytes.clone());
        }
        if let Ok(header) = ManifestHeader::decode(&bytes) {
            prop_assert_eq!(header.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn a_header_comes_back_from_its_bytes(
        size in 0u64..=crate::MAX_FILE_SIZE, cid: [u8; 32], root: [u8; 32], created_at: u64,
        name in "[a-zA-Zäöü .]{1,60}", mime in proptest::option::of("[a-z]{1,20}/[a-z]{1,20}"),
        v1: Option<[u8; 20]>, v2: Option<[u8; 32]>, ed2k: Option<[u8; 16]>,
        cut in 0usize..200,
    ) {
        let header = ManifestHeader {
            size,
            cid: crate::Cid::from_bytes(cid),
            root: MerkleRoot::from_bytes(root),
            name: Some(name),
            mime,
            created_at,
            aliases: v1.map(crate::Alias::InfoHashV1).into_iter()
                .chain(v2.map(crate::Alias::InfoHashV2))
                .chain(ed2k.map(crate::Alias::Ed2k)).collect(),
        };
        let bytes = header.encode().unwrap();
        prop_assert!(bytes.len() <= super::super::MAX_HEADER_LEN);
        prop_assert_eq!(ManifestHeader::decode(&bytes).unwrap(), header);
        prop_assert!(ManifestHeader::decode(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert!(ManifestHeader::decode(&longer).is_err());
    }
}
