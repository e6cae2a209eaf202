use proptest::prelude::*;

use super::*;

const V1: &str = "a9993e364706816aba3e25717850c26c9cd0d89d";
const V2: &str = "1220ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn parse(text: &str) -> Result<Magnet, ParseMagnetError> {
    text.parse()
}

#[test]
fn every_form_of_the_hash_is_read() {
    let hash = parse(&format!("magnet:?xt=urn:btih:{V1}")).unwrap().hashes;
    assert_eq!(hash.v1.unwrap()[..2], [0xa9, 0x99]);
    for same in [
        format!("magnet:?xt=urn:btih:{}", V1.to_uppercase()),
        "magnet:?xt=urn:btih:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5".into(),
        "MAGNET:?xt=urn:btih:vgmt4nsha2awvor6evyxqugcnsonbwe5".into(),
        format!("magnet:?xt.1=urn:btih:{V1}&xt.2=urn:sha1:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5"),
        format!("magnet:?dn=x&xt=urn%3Abtih%3A{V1}"),
        format!(" magnet:?xt=urn:btih:{V1}&xt=urn:btih:{V1}\n"),
    ] {
        assert_eq!(parse(&same).unwrap().hashes, hash, "{same}");
    }
    let both = parse(&format!("magnet:?xt=urn:btih:{V1}&xt=urn:btmh:{V2}"))
        .unwrap()
        .hashes;
    assert_eq!((both.v1, both.v2.unwrap()[0]), (hash.v1, 0xba));
    assert!(both.matches(&hash));
    let wire: Vec<_> = both.wire().collect();
    assert_eq!((wire.len(), wire[1][0]), (2, 0xba));
}

#[test]
fn what_is_no_magnet_is_refused_by_name() {
    use ParseMagnetError::*;
    let other = V1.replace('a', "b");
    for (text, error) in [
        ("".into(), Scheme),
        ("magnet:".into(), Scheme),
        (format!("http://x/?xt=urn:btih:{V1}"), Scheme),
        ("magnet:?".into(), NoHash),
        (
            "magnet:?xt=urn:ed2k:31d6cfe0d16ae931b73c59d7e0c089c0".into(),
            NoHash,
        ),
        (format!("magnet:?xt=urn:btih:{}", &V1[1..]), Hash),
        (format!("magnet:?xt=urn:btih:0x{}", &V1[2..]), Hash),
        (format!("magnet:?xt=urn:btih:{}g", &V1[1..]), Hash),
        (
            "magnet:?xt=urn:btih:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE1".into(),
            Hash,
        ),
        ("magnet:?xt=urn:btih:ééééééééééééééééé".into(), Hash),
        (format!("magnet:?xt=urn:btmh:{}", &V2[4..]), Hash),
        (format!("magnet:?xt=urn:btmh:1114{}", &V2[4..]), Hash),
        (
            format!("magnet:?xt=urn:btih:{V1}&xt=urn:btih:{other}"),
            TwoHashes,
        ),
        (format!("magnet:?xt=urn:btih:{V1}&so="), Selection),
        (format!("magnet:?xt=urn:btih:{V1}&so=3-1"), Selection),
        (format!("magnet:?xt=urn:btih:{V1}&so=-1"), Selection),
        (format!("magnet:?xt=urn:btih:{V1}&so=+1"), Selection),
        (format!("magnet:?xt=urn:btih:{V1}&so=4294967296"), Selection),
        (
            format!("magnet:?xt=urn:btih:{V1}&so={}1", "1,".repeat(MAX_EACH)),
            Selection,
        ),
        (
            format!("magnet:?{}", "x".repeat(MAX_MAGNET_LEN)),
            TooLong {
                len: MAX_MAGNET_LEN + 8,
            },
        ),
    ] {
        assert_eq!(parse(&text), Err(error), "{text}");
    }
}

#[test]
fn everything_else_is_read_or_passed_over() {
    let text = format!(
        "magnet:?xt=urn:btih:{V1}&dn=two+words%2B%26&xl=17&tr=udp%3A%2F%2Ft%3A80%2Fa%3Fb%3D1\
         &tr.1=http://u/&tr=none&tr=http://u/&ws=https%3a%2f%2fw%2ff&x.pe=[::1]:7&x.pe=host.name:8\
         &x.pe=1.2.3.4:0&x.pe=::1:7&x.pe=a%20b:1&so=5,0-2&x.unknown=1&&=&flag"
    );
    let magnet = parse(&text).unwrap();
    assert_eq!(magnet.name.as_deref(), Some("two words+&"));
    assert_eq!(magnet.length, Some(17));
    assert_eq!(magnet.trackers, ["udp://t:80/a?b=1", "http://u/"]);
    assert_eq!(magnet.web_seeds, ["https://w/f"]);
    let peers: Vec<_> = magnet.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["[::1]:7", "host.name:8"]);
    let selected: Vec<_> = (0..8).filter(|file| magnet.is_selected(*file)).collect();
    assert_eq!(selected, [0, 1, 2, 5]);
    assert!(
        parse(&format!("magnet:?xt=urn:btih:{V1}"))
            .unwrap()
            .is_selected(9)
    );
}

#[test]
fn trackers_and_peers_are_counted() {
    let many: String = (0..1000)
        .map(|i| format!("&tr=http://{i}&x.pe=h:{}", i + 1))
        .collect();
    let magnet = parse(&format!("magnet:?xt=urn:btih:{V1}{many}")).unwrap();
    assert_eq!(
        (magnet.trackers.len(), magnet.peers.len()),
        (MAX_EACH, MAX_EACH)
    );
}

fn magnet() -> impl Strategy<Value = Magnet> {
    let hashes = (any::<Option<[u8; 20]>>(), any::<Option<[u8; 32]>>())
        .prop_filter("one of them", |(v1, v2)| v1.is_some() || v2.is_some())
        .prop_map(|(v1, v2)| InfoHashes { v1, v2 });
    let url = "[a-z]{1,5}://[ -~]{0,20}[!-~é]".prop_map(String::from);
    let urls = prop::collection::btree_set(url, 0..4).prop_map(|urls| urls.into_iter().collect());
    let host = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<Ipv6Addr>().prop_map(|address| address.to_string()),
        "[a-z]{1,9}(\\.[a-z]{2,3}){0,2}",
    ];
    let peer = (host, 1u16..).prop_map(|(host, port)| MagnetPeer { host, port });
    let run = (0u32..1000, 0u32..1000).prop_map(|(first, more)| first..=first + more);
    let name = prop::option::of("[^\u{0}-\u{1f}]{1,30}");
    (
        hashes,
        name,
        any::<Option<u64>>(),
        (urls.clone(), urls),
        prop::collection::vec(peer, 0..3),
        prop::collection::vec(run, 0..3),
    )
        .prop_map(
            |(hashes, name, length, (trackers, web_seeds), mut peers, selected)| {
                peers.dedup();
                peers.truncate(1);
                Magnet {
                    hashes,
                    name,
                    length,
                    trackers,
                    web_seeds,
                    peers,
                    selected,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(magnet in magnet()) {
        let text = magnet.to_string();
        prop_assert_eq!(parse(&text), Ok(magnet), "{}", text);
    }

    #[test]
    fn any_text_is_an_answer(text in "(magnet:\\?)?((xt|tr|so|x.pe|dn)=(urn:bt[im]h:)?[ -~é%]{0,50}&?){0,5}") {
        if let Ok(magnet) = parse(&text) {
            prop_assert_eq!(parse(&magnet.to_string()), Ok(magnet));
        }
    }
}
