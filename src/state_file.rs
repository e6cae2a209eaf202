//! What a node keeps in small files of its data directory: JSON with a version, written anew
//! as a whole and put in place in one step.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Limit on such a file in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A file of this kind.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    version: u32,
    /// The first version that is still understood.
    oldest: u32,
}

#[derive(Serialize)]
struct Writing<'a, T> {
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl StateFile {
    pub(crate) fn new(path: PathBuf, version: u32) -> Self {
        Self {
            path,
            version,
            oldest: version,
        }
    }

    /// What is read understands files from this version on: what they lack has a default.
    pub(crate) fn reading_from(mut self, oldest: u32) -> Self {
        self.oldest = oldest;
        self
    }

    /// What is kept; nothing if there is no file, or none that can be understood: what is kept
    /// like this helps a node and is nothing that it could not do without.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        match self.try_read() {
            Ok(content) => content,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot be read and will be written anew");
                None
            }
        }
    }

    fn try_read<T: DeserializeOwned>(&self) -> std::io::Result<Option<T>> {
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        let invalid = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(invalid("it is too long"));
        }
        let found: Version = serde_json::from_slice(&bytes)?;
        if !(self.oldest..=self.version).contains(&found.version) {
            return Err(invalid("its version is another"));
        }
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Keeps this instead of what was kept: durable when it returns.
    pub(crate) fn write<T: Serialize>(&self, content: &T) -> std::io::Result<()> {
        let version = self.version;
        let bytes = serde_json::to_vec(&Writing { version, content })?;
        let beside = self.path.with_extension("json.new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&beside, &self.path)?;
        sync_directory(&self.path)
    }
}

/// On Unix a new name is durable only once its directory is.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    if cfg!(unix)
        && let Some(directory) = path.parent()
    {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Content {
        names: Vec<String>,
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_understood_is_as_if_it_were_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let file = StateFile::new(path.clone(), 1);
        assert_eq!(file.read::<Content>(), None);
        let names = vec!["a".to_owned(), "\u{202e}".to_owned()];
        let content = Content { names };
        file.write(&content).unwrap();
        file.write(&content).unwrap();
        assert_eq!(file.read(), Some(content));
        assert_eq!(StateFile::new(path.clone(), 2).read::<Content>(), None);
        for damaged in [
            "",
            "{",
            "[]",
            r#"{"version":1}"#,
            r#"{"version":1,"names":[7]}"#,
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(file.read::<Content>(), None, "{damaged}");
        }
        let long = std::fs::File::create(&path).unwrap();
        long.set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(file.read::<Content>(), None);
    }
}
