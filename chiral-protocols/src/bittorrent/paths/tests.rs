use std::path::Component;

use proptest::prelude::*;

use super::*;

fn one(raw: &[u8]) -> Result<String, PathError> {
    safe_path([raw]).map(|path| path.to_string())
}

#[test]
fn what_leads_elsewhere_is_refused() {
    assert_eq!(one(b".."), Err(PathError::Parent));
    assert_eq!(safe_path([&b"a"[..], b"..", b"b"]), Err(PathError::Parent));
    assert_eq!(one(b"."), Err(PathError::Empty));
    assert_eq!(safe_path::<&[u8]>([]), Err(PathError::Empty));
    assert_eq!(safe_path([b"a"; 41]), Err(PathError::TooDeep { depth: 41 }));
    let long = safe_path([[b'a'; 1024]; 2]);
    assert_eq!(long, Err(PathError::TooLong { len: 2050 }));
}

#[test]
fn what_clients_change_is_changed() {
    for (raw, safe) in [
        (&b"plain name.txt"[..], "plain name.txt"),
        ("Žluťoučký kůň 🐎.ogg".as_bytes(), "Žluťoučký kůň 🐎.ogg"),
        (b"", "_"),
        (b"/etc/passwd", "_etc_passwd"),
        (b"../../etc/passwd", ".._.._etc_passwd"),
        (b"C:\\Windows", "C__Windows"),
        (b"\\\\server\\share", "__server_share"),
        (b"a\0b", "a_b"),
        (b"a\nb\x7f", "a_b_"),
        (b"what?*<>|\".txt", "what______.txt"),
        (b"...", "___"),
        (b" ", "_"),
        (b"trailing. .", "trailing___"),
        (b"\xff\xfe.txt", "__.txt"),
        (b"half \xe2\x82.txt", "half _.txt"),
        (b"CON", "_CON"),
        (b"con", "_con"),
        (b"aux.tar.gz", "_aux.tar.gz"),
        (b"nul .txt", "_nul .txt"),
        (b"com7", "_com7"),
        ("LPT²".as_bytes(), "_LPT²"),
        (b"console", "console"),
        (b"com", "com"),
        (b"com10", "com10"),
        ("gpj\u{202e}exe.txt".as_bytes(), "gpjexe.txt"),
        ("\u{feff}.\u{200b}.".as_bytes(), "__"),
        ("c\u{200d}on".as_bytes(), "_con"),
    ] {
        assert_eq!(one(raw).unwrap(), safe, "{}", raw.escape_ascii());
    }
    assert_eq!(
        safe_path([&b"."[..], b"a", b".", b"b"])
            .unwrap()
            .to_string(),
        "a/b"
    );
}

#[test]
fn a_long_name_is_cut_and_keeps_its_extension() {
    let name = one(&[&[b'x'; 300][..], b".torrent"].concat()).unwrap();
    assert_eq!((name.len(), name.ends_with("xx.torrent")), (240, true));
    let name = one("é".repeat(200).as_bytes()).unwrap();
    assert_eq!(name, "é".repeat(120));
    let name = one(&[&[b'x'; 239][..], b" tail"].concat()).unwrap();
    assert_eq!(name, "x".repeat(239) + "_", "no space is left at the end");
    let name = one(&[[b'.'; 300], [b'x'; 300]].concat()).unwrap();
    assert_eq!(name, "_".repeat(240));
    let name = one(&[&[b'.'; 300][..], b"x"].concat()).unwrap();
    assert!(
        !name.is_empty() && name.len() <= 240 && !name.ends_with('.'),
        "{name}"
    );
}

fn all(paths: &[&str]) -> Result<Vec<String>, PathError> {
    let mut tree = PathTree::default();
    let add = |path: &&str| tree.add(path.split('/')).map(|path| path.to_string());
    paths.iter().map(add).collect()
}

#[test]
fn two_files_at_one_path_and_a_file_that_is_a_directory_are_refused() {
    let twice = Err(PathError::Twice { path: "a/b".into() });
    assert_eq!(all(&["a/b", "a/c", "a/b"]), twice);
    assert_eq!(all(&["a/b", "a/./b"]), twice);
    let path = |path: &str| Err(PathError::FileAndDirectory { path: path.into() });
    assert_eq!(all(&["a", "a/b"]), path("a/b"));
    assert_eq!(all(&["a/b", "a"]), path("a"));
}

#[test]
fn names_that_some_systems_take_for_one_are_kept_apart() {
    let nfd = "e\u{301}.txt";
    for (raw, safe) in [
        (
            &["A.txt", "a.txt", "a.TXT"][..],
            &["A.txt", "a.1.txt", "a.2.TXT"][..],
        ),
        (&["é.txt", nfd], &["é.txt", "e\u{301}.1.txt"]),
        (&["É.txt", nfd], &["É.txt", "e\u{301}.1.txt"]),
        (&["straße", "STRASSE"], &["straße", "STRASSE.1"]),
        (
            &["a?", "a*", "a_", "a_.1"],
            &["a_", "a_.1", "a_.2", "a_.1.1"],
        ),
        (
            &["D/x", "d/x", "d/y", "D/y"],
            &["D/x", "d.1/x", "d.1/y", "D/y"],
        ),
        (&["a", "A/b"], &["a", "A.1/b"]),
        (&["A/b", "a"], &["A/b", "a.1"]),
    ] {
        assert_eq!(all(raw).unwrap(), safe, "{raw:?}");
    }
}

#[test]
fn ten_thousand_names_for_one_cost_no_more_than_others() {
    let mut tree = PathTree::default();
    for number in 0..10_000u32 {
        // Marks that cannot be seen, in binary.
        let bits = (0..14).map(|bit| {
            if number >> bit & 1 == 1 {
                '\u{200b}'
            } else {
                '\u{200c}'
            }
        });
        let raw: String = bits.chain(['a']).collect();
        let safe = tree.add([raw]).unwrap().to_string();
        let expected = if number == 0 {
            "a".into()
        } else {
            format!("a.{number}")
        };
        assert_eq!(safe, expected);
    }
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(prop::sample::select(b"./\\:aA \x00con1".to_vec()), 0..6),
        any::<String>().prop_map(String::into_bytes),
        prop::collection::vec(any::<char>(), 200..400)
            .prop_map(|chars| chars.into_iter().collect::<String>().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn whatever_passes_is_a_plain_relative_path(
        raw in prop::collection::vec(component(), 0..6),
    ) {
        let Ok(safe) = safe_path(&raw) else { return Ok(()) };
        let path = safe.to_path_buf();
        prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
        prop_assert_eq!(path.components().count(), safe.components().len());
        for name in safe.components() {
            prop_assert!(!name.is_empty() && name.len() <= MAX_NAME_LEN);
            prop_assert!(!name.ends_with(['.', ' ']) && !name.contains(['/', '\\', '\0', ':']));
            prop_assert!(!is_device(name), "{}", name);
            prop_assert_eq!(safe_name(name.as_bytes()), name, "what is safe stays");
        }
    }

    #[test]
    fn no_two_files_are_one_on_any_system(
        raw in prop::collection::vec(prop::collection::vec(component(), 1..3), 0..12),
    ) {
        let mut tree = PathTree::default();
        let safe: Vec<_> = raw.iter().filter_map(|path| tree.add(path).ok()).collect();
        let distinct: HashSet<_> = safe.iter().map(|path| folded(&path.to_string())).collect();
        prop_assert_eq!(distinct.len(), safe.len());
        for one in &distinct {
            let beneath = format!("{one}/");
            prop_assert!(!distinct.iter().any(|other| other.starts_with(&beneath)));
        }
    }
}
