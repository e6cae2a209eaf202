use proptest::prelude::*;

use super::*;
use crate::bittorrent::merkle::{BLOCK_LEN, block_hash};

type Pairs = Vec<(&'static str, Item)>;

fn sha1_of(bytes: &[u8]) -> [u8; 20] {
    sha1::Sha1::digest(bytes).into()
}

/// An info dictionary of version 1 over one file of three bytes.
fn single() -> Pairs {
    vec![
        ("length", Item::Int(3)),
        ("name", "a.txt".into()),
        ("piece length", Item::Int(16_384)),
        ("pieces", sha1_of(b"abc")[..].into()),
    ]
}

fn put(pairs: &mut Pairs, key: &'static str, item: Item) {
    pairs.retain(|(held, _)| *held != key);
    pairs.push((key, item));
}

fn changed(mut pairs: Pairs, key: &'static str, item: Item) -> Pairs {
    put(&mut pairs, key, item);
    pairs
}

fn without(mut pairs: Pairs, key: &str) -> Pairs {
    pairs.retain(|(held, _)| *held != key);
    pairs
}

fn parse(info: Pairs) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&Item::dict([("info", Item::dict(info))]).encode())
}

/// A file of the list of version 1.
fn listed(path: &[&str], len: i64) -> Item {
    let path = path.iter().map(|part| Item::from(*part));
    Item::dict([("length", Item::Int(len)), ("path", Item::list(path))])
}

/// Version 1 over several files of zeros.
fn multi(files: impl IntoIterator<Item = Item>, total: usize) -> Pairs {
    let zeros = vec![0; total];
    let pieces: Vec<u8> = zeros.chunks(16_384).flat_map(sha1_of).collect();
    vec![
        ("files", Item::list(files)),
        ("name", "dir".into()),
        ("piece length", Item::Int(16_384)),
        ("pieces", pieces.into()),
    ]
}

fn key(key: &'static str) -> MetainfoError {
    MetainfoError::Key { key }
}

#[test]
fn a_single_file_of_version_1() {
    let torrent = parse(single()).unwrap();
    assert_eq!(torrent.info().version(), Version::V1);
    assert!(torrent.info().is_single_file() && !torrent.info().is_private());
    assert_eq!(torrent.files()[0].path.to_string(), "a.txt");
    assert_eq!(torrent.layout().payload(), 3);
    assert_eq!(
        torrent.expected(0),
        Some(ExpectedPiece::V1(sha1_of(b"abc")))
    );
    assert_eq!(torrent.expected(1), None);
    assert_eq!(torrent.hashes().v1, Some(sha1_of(torrent.info_bytes())));
    let private = parse(changed(single(), "private", Item::Int(1))).unwrap();
    assert!(private.info().is_private());
    assert_ne!(private.hashes(), torrent.hashes());
}

#[test]
fn what_no_client_takes_is_refused_by_name() {
    let length = |piece_length| MetainfoError::Layout(LayoutError::PieceLength { piece_length });
    for (info, error) in [
        (without(single(), "name"), key("name")),
        (changed(single(), "name", "".into()), key("name")),
        (changed(single(), "name", Item::Int(1)), key("name")),
        (without(single(), "length"), key("length")),
        (changed(single(), "length", Item::Int(-1)), key("length")),
        (
            changed(single(), "files", Item::list([listed(&["a"], 3)])),
            key("length"),
        ),
        (without(single(), "piece length"), key("piece length")),
        (changed(single(), "piece length", Item::Int(0)), length(0)),
        (changed(single(), "piece length", Item::Int(-1)), length(-1)),
        (
            changed(single(), "piece length", Item::Int(1 << 31)),
            length(1 << 31),
        ),
        (
            changed(single(), "piece length", Item::Int(1 << 40)),
            length(1 << 40),
        ),
        (
            changed(single(), "piece length", Item::Int(1)),
            MetainfoError::Pieces {
                found: 1,
                expected: 3,
            },
        ),
        (
            changed(single(), "length", Item::Int(i64::MAX)),
            LayoutError::TooLarge.into(),
        ),
        (without(single(), "pieces"), key("pieces")),
        (
            changed(single(), "pieces", vec![0; 19].into()),
            key("pieces"),
        ),
        (
            changed(single(), "pieces", vec![0; 41].into()),
            key("pieces"),
        ),
        (
            changed(single(), "pieces", vec![0; 40].into()),
            MetainfoError::Pieces {
                found: 2,
                expected: 1,
            },
        ),
        (
            changed(single(), "pieces", vec![].into()),
            MetainfoError::Pieces {
                found: 0,
                expected: 1,
            },
        ),
        (
            changed(single(), "meta version", Item::Int(3)),
            MetainfoError::Version { found: 3 },
        ),
        (
            changed(single(), "meta version", Item::Int(2)),
            key("file tree"),
        ),
        (
            changed(single(), "name", "..".into()),
            PathError::Parent.into(),
        ),
        (
            changed(single(), "name", ".".into()),
            PathError::Empty.into(),
        ),
        (changed(single(), "attr", "l".into()), key("attr")),
        (multi([], 0), key("files")),
        (multi([Item::Int(1)], 0), key("path")),
        (multi([listed(&[], 1)], 1), PathError::Empty.into()),
        (multi([listed(&["a"], -1)], 1), key("length")),
        (
            multi([listed(&["..", "etc", "passwd"], 1)], 1),
            PathError::Parent.into(),
        ),
        (
            multi(
                [
                    listed(&["a"], i64::MAX),
                    listed(&["b"], i64::MAX),
                    listed(&["c"], 2),
                ],
                1,
            ),
            LayoutError::TooLarge.into(),
        ),
        (
            multi([listed(&["a", "b"], 1), listed(&["a", "b"], 1)], 2),
            PathError::Twice { path: "a/b".into() }.into(),
        ),
        (
            multi([listed(&["a", "b"], 1), listed(&["a"], 1)], 2),
            PathError::FileAndDirectory { path: "a".into() }.into(),
        ),
    ] {
        let found = parse(info.clone()).map(|torrent| torrent.hashes());
        assert_eq!(found, Err(error), "{info:?}");
    }
    let zero = Metainfo::parse(b"d4:infoi1ee").map(drop);
    assert_eq!(zero, Err(key("info")));
    assert_eq!(Metainfo::parse(b"de").map(drop), Err(key("info")));
    let unsorted = b"d4:infod4:name1:a6:lengthi3eee";
    let refused = Metainfo::parse(unsorted).map(drop);
    assert!(matches!(
        refused,
        Err(MetainfoError::Bencode(BencodeError::KeyOrder { .. }))
    ));
}

#[test]
fn padding_and_links_are_no_files() {
    let with = |item: Item, key: &str, value: Item| match item {
        Item::Dict(mut pairs) => {
            pairs.insert(key.into(), value);
            Item::Dict(pairs)
        }
        other => other,
    };
    let padding = with(listed(&[".pad", "100"], 16_284), "attr", "p".into());
    let link = with(listed(&["link"], 0), "attr", "xl".into());
    let link = with(link, "symlink path", Item::list(["/etc/passwd".into()]));
    let old = listed(&["_____padding_file_0_if you see this"], 5);
    let tool = with(listed(&["tool"], 7), "attr", "hx".into());
    let info = multi(
        [
            listed(&["a"], 100),
            padding,
            link,
            tool,
            old,
            listed(&["e"], 0),
        ],
        16_396,
    );
    let torrent = parse(info).unwrap();
    let files: Vec<_> = torrent
        .files()
        .iter()
        .map(|file| (file.path.to_string(), file.len, file.index))
        .collect();
    assert_eq!(
        files,
        [
            ("a".into(), 100, 0),
            ("tool".into(), 7, 3),
            ("e".into(), 0, 5)
        ]
    );
    assert!(torrent.files()[1].executable && torrent.files()[1].hidden);
    assert_eq!(
        (torrent.layout().size(), torrent.layout().payload()),
        (16_396, 107)
    );
    assert_eq!(
        torrent.layout().padding(0),
        std::slice::from_ref(&(100..16_384))
    );
    for (piece, fed) in [(0, 100), (1, 7)] {
        let mut hasher = torrent.hasher(piece).unwrap();
        hasher.feed(0, vec![0; fed].into()).unwrap();
        hasher.finish().unwrap();
    }
}

#[test]
fn names_are_safe_and_the_torrents_own_are_kept() {
    let info = multi([listed(&["C:", "aux"], 1), listed(&["plain"], 1)], 2);
    let torrent = parse(changed(info, "name", "a/../b".into())).unwrap();
    assert_eq!(torrent.info().name(), "a_.._b");
    assert_eq!(torrent.info().directory().unwrap().to_string(), "a_.._b");
    assert_eq!(parse(single()).unwrap().info().directory(), None);
    let above = changed(multi([listed(&["a"], 1)], 1), "name", "..".into());
    assert_eq!(parse(above).map(drop), Err(PathError::Parent.into()));
    assert_eq!(torrent.files()[0].path.to_string(), "C_/_aux");
    assert_eq!(
        torrent.files()[0].raw_path,
        Some(vec![b"C:".to_vec(), b"aux".to_vec()])
    );
    assert_eq!(torrent.files()[1].raw_path, None);
    let utf8 = changed(single(), "name.utf-8", "b.txt".into());
    assert_eq!(parse(utf8).unwrap().info().name(), "b.txt");
}

#[test]
fn trackers_web_seeds_and_nodes_that_are_none_are_left_out() {
    let info = Item::dict(single());
    let list = |items: &[&str]| Item::list(items.iter().map(|item| Item::from(*item)));
    let node = |host: &str, port: i64| Item::list([host.into(), Item::Int(port)]);
    let outer = [
        ("announce", "http://first".into()),
        (
            "announce-list",
            Item::list([
                list(&["http://a", " ", "a\nb"]),
                list(&[]),
                list(&["http://a", "http://b "]),
            ]),
        ),
        ("comment", "what".into()),
        ("creation date", Item::Int(7)),
        (
            "nodes",
            Item::list([node("h", 1), node("h", 0), node("h", 65_536), Item::Int(1)]),
        ),
        ("url-list", "http://web".into()),
        ("info", info),
    ];
    let torrent = Metainfo::parse(&Item::dict(outer.clone()).encode()).unwrap();
    assert_eq!(torrent.outer.trackers, [["http://a"], ["http://b"]]);
    assert_eq!(torrent.outer.web_seeds, ["http://web"]);
    assert_eq!(torrent.outer.nodes, [("h".to_owned(), 1)]);
    assert_eq!(torrent.outer.comment.as_deref(), Some("what"));
    let again = Metainfo::parse(&torrent.encode()).unwrap();
    assert_eq!(
        (&again.outer, again.hashes()),
        (&torrent.outer, torrent.hashes())
    );
    let alone = outer.into_iter().filter(|(key, _)| *key != "announce-list");
    let torrent = Metainfo::parse(&Item::dict(alone).encode()).unwrap();
    assert_eq!(torrent.outer.trackers, [["http://first"]]);
    let urls = (0..1000).map(|i| format!("http://{i}"));
    let tier = Item::list(urls.map(|url| Item::from(url.as_str())));
    let many = [
        ("announce-list", Item::list([tier])),
        ("info", Item::dict(single())),
    ];
    let torrent = Metainfo::parse(&Item::dict(many).encode()).unwrap();
    assert_eq!(torrent.outer.all_trackers().count(), MAX_TRACKERS);
}

#[test]
fn an_info_dictionary_is_what_its_hash_says() {
    let torrent = parse(single()).unwrap();
    let (bytes, hashes) = (torrent.info_bytes(), torrent.hashes());
    assert_eq!(
        Metainfo::from_info(bytes, &hashes).unwrap().hashes(),
        hashes
    );
    let other = InfoHashes {
        v1: Some([0; 20]),
        v2: None,
    };
    for wrong in [other, InfoHashes::default()] {
        let refused = Metainfo::from_info(bytes, &wrong).map(drop);
        assert_eq!(refused, Err(MetainfoError::OtherHash));
    }
}

/// Files of version 2, zeros all of them, with their piece layers at 32 KiB.
fn v2(files: &[(&'static str, u64)]) -> (Pairs, Vec<(NodeHash, Vec<u8>)>) {
    let (mut tree, mut layers) = (Vec::new(), Vec::new());
    for (name, len) in files {
        let mut file = vec![("length", Item::Int(*len as i64))];
        if let Some(shape) = TreeShape::new(*len, 32_768) {
            let zeros = vec![0; *len as usize];
            let leaves: Vec<_> = zeros.chunks(BLOCK_LEN as usize).map(block_hash).collect();
            let layer = leaves.chunks(1 << shape.piece_layer()).enumerate();
            let layer = layer.map(|(i, part)| shape.piece_hash(i as u64, part.to_vec()).unwrap());
            let built = FileTree::new(shape, layer.collect()).unwrap();
            file.push(("pieces root", built.root()[..].into()));
            if shape.pieces() > 1 {
                layers.push((built.root(), built.piece_layer().concat()));
            }
        }
        tree.push((*name, Item::dict([("", Item::dict(file))])));
    }
    let info = vec![
        ("file tree", Item::dict(tree)),
        ("meta version", Item::Int(2)),
        ("name", "dir".into()),
        ("piece length", Item::Int(32_768)),
    ];
    (info, layers)
}

fn parse_v2(info: Pairs, layers: Vec<(NodeHash, Vec<u8>)>) -> Result<Metainfo, MetainfoError> {
    let layers = layers
        .into_iter()
        .map(|(root, layer)| (root, Item::from(layer)));
    let pairs = [
        ("info", Item::dict(info)),
        ("piece layers", Item::dict(layers)),
    ];
    Metainfo::parse(&Item::dict(pairs).encode())
}

#[test]
fn version_2_with_its_piece_layers() {
    let (info, layers) = v2(&[("a", 100_000), ("b", 0), ("c", 5), ("d", 32_768)]);
    let torrent = parse_v2(info, layers).unwrap();
    assert_eq!(
        (torrent.info().version(), torrent.hashes().v1),
        (Version::V2, None)
    );
    assert_eq!(torrent.layout().piece_count(), 6);
    assert_eq!(torrent.missing_trees().count(), 0);
    for piece in 0..6 {
        let mut hasher = torrent.hasher(piece).unwrap();
        let len = torrent.layout().piece_len(piece) as usize;
        hasher.feed(0, vec![0; len].into()).unwrap();
        assert_eq!(
            hasher.finish().unwrap().blocks().len(),
            len.div_ceil(16_384),
            "{piece}"
        );
    }
    let again = Metainfo::parse(&torrent.encode()).unwrap();
    assert_eq!(again.hashes(), torrent.hashes());
    // Without the layers: what is small can be checked, the rest once its tree has come.
    let mut bare = Metainfo::from_info(torrent.info_bytes(), &torrent.hashes()).unwrap();
    let missing: Vec<_> = bare.missing_trees().map(|(file, ..)| file).collect();
    assert_eq!(missing, [0]);
    assert!(bare.hasher(0).is_none() && bare.hasher(4).is_some());
    let tree = torrent.tree(0).unwrap().clone();
    assert_eq!(bare.set_tree(3, tree.clone()), Err(MerkleError::Mismatch));
    bare.set_tree(0, tree).unwrap();
    assert_eq!(bare.expected(0), torrent.expected(0));
    assert_eq!(bare.encode(), torrent.encode());
}

#[test]
fn piece_layers_that_are_not_the_files_are_refused() {
    let good = || v2(&[("a", 100_000), ("c", 5)]);
    assert!(parse_v2(good().0, good().1).is_ok());
    let refused = |layers| parse_v2(good().0, layers).map(drop).unwrap_err();
    let wrong = |source| MetainfoError::PieceLayer { file: 0, source };
    let (root, layer) = good().1.remove(0);
    let mut bad = layer.clone();
    bad[40] ^= 1;
    assert_eq!(refused(vec![(root, bad)]), wrong(MerkleError::Mismatch));
    for bad in [
        &layer[32..],
        &layer[1..],
        &[],
        &[&layer[..], &[0; 32]].concat(),
    ] {
        let error = refused(vec![(root, bad.to_vec())]);
        assert!(matches!(error, MetainfoError::PieceLayer { .. }), "{error}");
    }
    let extra = vec![(root, layer.clone()), ([7; 32], layer)];
    assert_eq!(refused(extra), MetainfoError::UnknownPieceLayer);
    assert_eq!(refused_whole(Item::Int(1)), key("piece layers"));
}

fn refused_whole(layers: Item) -> MetainfoError {
    let info = Item::dict(v2(&[("a", 100_000)]).0);
    let bytes = Item::dict([("info", info), ("piece layers", layers)]).encode();
    Metainfo::parse(&bytes).map(drop).unwrap_err()
}

#[test]
fn piece_layers_that_are_not_there_are_missing_and_no_more() {
    let (info, layers) = v2(&[("a", 100_000), ("b", 70_000), ("c", 5)]);
    let none = Metainfo::parse(&Item::dict([("info", Item::dict(info.clone()))]).encode());
    let missing = |torrent: &Metainfo| torrent.missing_trees().map(|(file, ..)| file).collect();
    let found: Vec<_> = missing(&none.unwrap());
    assert_eq!(found, [0, 1]);
    let one = parse_v2(info, layers[1..].to_vec()).unwrap();
    let found: Vec<_> = missing(&one);
    assert_eq!(found, [0]);
    let again = Metainfo::parse(&one.encode()).unwrap();
    assert_eq!((again.tree(1), again.tree(0)), (one.tree(1), None));
}

#[test]
fn file_trees_that_are_none_are_refused() {
    let file = || Item::dict([("length", Item::Int(0))]);
    let leaf = || Item::dict([("", file())]);
    let of = |tree: Item| {
        let (info, _) = v2(&[]);
        parse_v2(changed(info, "file tree", tree), vec![]).map(drop)
    };
    let empty = Item::dict::<&str>([]);
    let mut deep = leaf();
    for _ in 0..44 {
        deep = Item::dict([("d", deep)]);
    }
    let root = |root: &[u8]| {
        let file = Item::dict([("length", Item::Int(1)), ("pieces root", root.into())]);
        Item::dict([("a", Item::dict([("", file)]))])
    };
    for (tree, error) in [
        (Item::Int(1), key("file tree")),
        (empty.clone(), key("file tree")),
        (Item::dict([("a", empty)]), key("file tree")),
        (Item::dict([("a", Item::Int(1))]), key("file tree")),
        (Item::dict([("", leaf())]), key("file tree")),
        (leaf(), key("file tree")),
        (
            Item::dict([("a", Item::dict([("", file()), ("b", leaf())]))]),
            key("file tree"),
        ),
        (Item::dict([("..", leaf())]), PathError::Parent.into()),
        (root(&[0; 32]), key("pieces root")),
        (root(&[1; 31]), key("pieces root")),
    ] {
        assert_eq!(of(tree.clone()), Err(error), "{tree:?}");
    }
    let refused = of(Item::dict([("a", deep)]));
    let deep = matches!(
        refused,
        Err(MetainfoError::Path(PathError::TooDeep { .. }))
            | Err(MetainfoError::Bencode(BencodeError::TooDeep { .. }))
    );
    assert!(deep, "{refused:?}");
    let (info, layers) = v2(&[("a", 100_000)]);
    for piece_length in [16_383, 8192, 49_152, 0] {
        let info = changed(info.clone(), "piece length", Item::Int(piece_length));
        let refused = parse_v2(info, layers.clone()).map(drop);
        let error = MetainfoError::Layout(LayoutError::PieceLength { piece_length });
        assert_eq!(refused, Err(error));
    }
}

/// Version 1 of the files of [`v2`], with what is listed.
fn hybrid(
    files: &[(&'static str, u64)],
    list: &[Item],
    stream: usize,
) -> Result<Metainfo, MetainfoError> {
    let (mut info, layers) = v2(files);
    let zeros = vec![0; stream];
    let pieces: Vec<u8> = zeros.chunks(32_768).flat_map(sha1_of).collect();
    put(&mut info, "pieces", pieces.into());
    put(&mut info, "files", Item::list(list.iter().cloned()));
    parse_v2(info, layers)
}

#[test]
fn the_versions_of_a_hybrid_are_of_the_same_files() {
    let files = [("a", 40_000), ("b", 0), ("c", 5)];
    let padding = |len: i64| match listed(&[".pad", "x"], len) {
        Item::Dict(mut pairs) => {
            pairs.insert(b"attr".to_vec(), "p".into());
            Item::Dict(pairs)
        }
        other => other,
    };
    let (a, b, c) = (listed(&["a"], 40_000), listed(&["b"], 0), listed(&["c"], 5));
    let good = [a.clone(), padding(25_536), b.clone(), c.clone()];
    let torrent = hybrid(&files, &good, 65_541).unwrap();
    assert_eq!(torrent.info().version(), Version::Hybrid);
    for piece in 0..3 {
        assert!(matches!(
            torrent.expected(piece),
            Some(ExpectedPiece::Hybrid(..))
        ));
        let mut hasher = torrent.hasher(piece).unwrap();
        let data: u32 = hasher.lacks().iter().map(|range| range.len() as u32).sum();
        hasher.feed(0, vec![0; data as usize].into()).unwrap();
        hasher.finish().unwrap();
    }
    let last = [&good[..], &[padding(100)]].concat();
    assert!(hybrid(&files, &last, 65_641).is_ok(), "padding at the end");
    for (list, stream, what) in [
        (vec![a.clone(), padding(25_536), c.clone()], 65_541, "paths"),
        (
            vec![a.clone(), padding(25_536), b.clone()],
            65_536,
            "number of files",
        ),
        (
            vec![
                a.clone(),
                padding(25_536),
                b.clone(),
                c.clone(),
                listed(&["d"], 0),
            ],
            65_541,
            "number of files",
        ),
        (
            vec![a.clone(), padding(25_536), b.clone(), listed(&["c"], 6)],
            65_542,
            "sizes",
        ),
        (
            vec![a.clone(), padding(25_536), b.clone(), listed(&["C"], 5)],
            65_541,
            "paths",
        ),
        (
            vec![a.clone(), b.clone(), c.clone()],
            40_005,
            "where files begin",
        ),
        (vec![a, padding(25_535), b, c], 65_540, "where files begin"),
    ] {
        let refused = hybrid(&files, &list, stream).map(drop);
        assert_eq!(refused, Err(MetainfoError::Differ { what }), "{list:?}");
    }
}

proptest! {
    #[test]
    fn any_change_of_a_byte_is_an_answer(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let (info, layers) = v2(&[("a", 100_000), ("c", 5)]);
        let mut bytes = parse_v2(info, layers).unwrap().encode();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        if let Ok(torrent) = Metainfo::parse(&bytes) {
            let again = Metainfo::parse(&torrent.encode()).unwrap();
            prop_assert_eq!(again.hashes(), torrent.hashes());
        }
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let info = [b"d4:info", bytes.as_slice(), b"e"].concat();
        let _ = Metainfo::parse(&info);
    }
}
