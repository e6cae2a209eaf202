//! Magnet links that users paste, and paths that torrents name.
#![no_main]

use std::path::Component;

use chiral_protocols::bittorrent::magnet::Magnet;
use chiral_protocols::bittorrent::paths::{PathTree, safe_name, safe_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(magnet) = text.parse::<Magnet>()
    {
        assert_eq!(magnet.to_string().parse::<Magnet>(), Ok(magnet));
    }
    let mut tree = PathTree::default();
    for path in bytes.split(|byte| *byte == b'\n') {
        let parts = || path.split(|byte| *byte == b'/');
        let alone = safe_path(parts());
        for safe in alone.into_iter().chain(tree.add(parts())) {
            let path = safe.to_path_buf();
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
            assert!(path.components().all(plain), "{path:?}");
            assert!(safe.components().all(|name| name.len() <= 255));
            let stays = |name: &str| safe_name(name.as_bytes()) == name;
            assert!(safe.components().all(stays), "{path:?}");
        }
    }
});
