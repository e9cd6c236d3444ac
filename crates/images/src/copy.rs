//! Copies bytes while hashing them, keeping holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

const BLOCK: usize = 256 * 1024;

/// What went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
}

/// Why a copy stopped.
#[derive(Debug)]
pub(crate) enum CopyError {
    Reading(io::Error),
    Writing(io::Error),
    TooLarge,
}

/// Copies `source` to `target` (which is empty), up to `limit_bytes`. Blocks of zeros become holes.
pub(crate) fn copy_hashed(source: &mut dyn Read, target: &mut File, limit_bytes: u64) -> Result<Copied, CopyError> {
    let mut hash = Sha256::new();
    let mut size_bytes = 0_u64;
    let mut block = vec![0; BLOCK];
    loop {
        let count = fill(source, &mut block).map_err(CopyError::Reading)?;
        let Some(read) = block.get(..count).filter(|b| !b.is_empty()) else { break };
        size_bytes += count as u64;
        if size_bytes > limit_bytes {
            return Err(CopyError::TooLarge);
        }
        hash.update(read);
        if read.iter().all(|b| *b == 0) {
            target.seek(SeekFrom::Start(size_bytes)).map_err(CopyError::Writing)?;
        } else {
            target.write_all(read).map_err(CopyError::Writing)?;
        }
    }
    // A hole at the end is only there once the length says so.
    target.set_len(size_bytes).map_err(CopyError::Writing)?;
    Ok(Copied { sha256: hex::encode(hash.finalize()), size_bytes })
}

/// Hashes what is left of `source`.
pub(crate) fn hash(source: &mut dyn Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash_into(source, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Adds what is left of `source` to a hash; returns how much that was.
pub(crate) fn hash_into(source: &mut dyn Read, hash: &mut Sha256) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut size_bytes = 0;
    loop {
        let count = fill(source, &mut block)?;
        match block.get(..count) {
            Some(read) if !read.is_empty() => hash.update(read),
            _ => return Ok(size_bytes),
        }
        size_bytes += count as u64;
    }
}

/// Reads until the block is full or the source ends, so that holes fall on block borders.
fn fill(source: &mut dyn Read, block: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = block.get_mut(count..).filter(|r| !r.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(n) => count += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::{BLOCK, CopyError, copy_hashed};

    #[test]
    fn zeros_become_holes_and_the_bytes_stay_the_same() {
        let mut bytes = vec![0; 8 * BLOCK + 5];
        bytes[3 * BLOCK] = 7;
        let file = tempfile::NamedTempFile::new().unwrap();
        let copied = copy_hashed(&mut &bytes[..], &mut file.reopen().unwrap(), u64::MAX).unwrap();
        assert_eq!(copied.size_bytes, bytes.len() as u64);
        let mut back = Vec::new();
        file.reopen().unwrap().read_to_end(&mut back).unwrap();
        assert!(back == bytes);
        assert_eq!(super::hash(&mut &bytes[..]).unwrap(), copied.sha256);
        assert!(file.as_file().metadata().unwrap().blocks() * 512 <= 2 * BLOCK as u64);
    }

    #[test]
    fn the_limit_is_held() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let copied = copy_hashed(&mut &[1; 100][..], &mut file.reopen().unwrap(), 99);
        assert!(matches!(copied, Err(CopyError::TooLarge)));
    }
}
