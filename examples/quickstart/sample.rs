//! A file to share, and a look at the result that owes nothing to the library.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes that are made up when no file is given.
const SAMPLE_BYTES: usize = 64 << 20;

/// Writes the sample: the same bytes every time, and nothing that repeats.
pub(crate) fn make(path: &Path) -> std::io::Result<PathBuf> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..SAMPLE_BYTES / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    Ok(path.to_owned())
}

/// SHA-256 of a file in hexadecimal, by the `sha2` crate alone: what `sha256sum` prints.
pub(crate) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
