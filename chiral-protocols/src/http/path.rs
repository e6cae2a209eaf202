//! Paths of requests. One spelling only: no percent escapes, no upper-case digits, no
//! leading zeros, no trailing slash.

use chiral_core::Cid;

/// Where messages to the payment gate are posted.
pub(super) const PAYMENT: &str = "/payment";

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) cid: Cid,
    pub(super) part: Part,
}

/// Which part of what is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All its bytes.
    File,
    /// The bytes of a chunk.
    Chunk(u32),
    /// The manifest header.
    Manifest,
    /// A page of the manifest.
    Page(u32),
    /// Which chunks are here.
    Coverage,
}

impl Resource {
    /// Reads a path; `None` for what is not served under any circumstances.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/file/")?.split('/');
        let cid = segments.next()?.parse().ok()?;
        let part = match (segments.next(), segments.next(), segments.next()) {
            (None, ..) => Part::File,
            (Some("manifest"), None, _) => Part::Manifest,
            (Some("coverage"), None, _) => Part::Coverage,
            (Some("chunk"), Some(index), None) => Part::Chunk(parse_index(index)?),
            (Some("manifest"), Some(index), None) => Part::Page(parse_index(index)?),
            _ => return None,
        };
        Some(Self { cid, part })
    }

    /// The path.
    pub(super) fn to_path(self) -> String {
        let cid = self.cid;
        match self.part {
            Part::File => format!("/file/{cid}"),
            Part::Chunk(index) => format!("/file/{cid}/chunk/{index}"),
            Part::Manifest => format!("/file/{cid}/manifest"),
            Part::Page(index) => format!("/file/{cid}/manifest/{index}"),
            Part::Coverage => format!("/file/{cid}/coverage"),
        }
    }
}

fn parse_index(text: &str) -> Option<u32> {
    // `parse` alone would take a plus sign and leading zeros.
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn other_spellings_are_refused() {
        assert!(Resource::parse(&format!("/file/{ABC}/chunk/4294967295")).is_some());
        let upper = ABC.to_uppercase();
        for bad in [
            "",
            "/",
            "/file",
            "/file/",
            "file/ABC",
            "/file/ABC/",
            "/file/ABC/chunk",
            "/file/ABC/chunk/",
            "/file/ABC/chunk/4294967296",
            "/file/ABC/chunk/01",
            "/file/ABC/chunk/00",
            "/file/ABC/chunk/+1",
            "/file/ABC/chunk/-1",
            "/file/ABC/chunk/0x1",
            "/file/ABC/chunk/1/",
            "/file/ABC/chunk/1/2",
            "/file/ABC/chunk/%31",
            "/file/ABC/Chunk/1",
            "/file/ABC/manifest/",
            "/file/ABC/coverage/1",
            "/file/ABC/../ABC",
            "/file/%2e%2e/ABC",
            "/file/0xABC",
            "//file/ABC",
            "/FILE/ABC",
            "/files/ABC",
            "/file/./ABC",
        ] {
            assert_eq!(Resource::parse(&bad.replace("ABC", ABC)), None, "{bad}");
        }
        assert_eq!(Resource::parse(&format!("/file/{upper}")), None);
        assert_eq!(Resource::parse(&format!("/file/{}", &ABC[1..])), None);
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            Just(Part::File),
            Just(Part::Manifest),
            Just(Part::Coverage),
            any::<u32>().prop_map(Part::Chunk),
            any::<u32>().prop_map(Part::Page),
        ]
    }

    proptest! {
        #[test]
        fn a_resource_comes_back_from_its_path(cid: [u8; 32], part in part()) {
            let resource = Resource { cid: Cid::from_bytes(cid), part };
            prop_assert_eq!(Resource::parse(&resource.to_path()), Some(resource));
        }

        #[test]
        fn a_path_that_is_taken_is_the_only_spelling(tail in "[a-z0-9/%.+]{0,20}") {
            let path = format!("/file/{ABC}{tail}");
            if let Some(resource) = Resource::parse(&path) {
                prop_assert_eq!(resource.to_path(), path);
            }
        }

        #[test]
        fn no_path_panics(path in ".{0,100}") {
            let _ = Resource::parse(&path);
        }
    }
}
