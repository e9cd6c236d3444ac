//! A base image that is on its way here: so many bytes of it are in its part file, hashed as they came.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nova_types::image::DiskFormat;
use sha2::{Digest, Sha256};

use crate::cache::{Base, BaseCache, CacheError, found};
use crate::copy;
use crate::files::{self, Draft, FileError};
use crate::inspect::inspect;

/// What is kept of one base until all of it is here. Dropped, it stays for the next who comes; only one at a time has it.
#[derive(Debug)]
pub(crate) struct Part {
    draft: Draft,
    hash: Sha256,
    size_bytes: u64,
    /// Whether some of it was there before: written by another process, or before a power cut.
    inherited: bool,
    _lock: File,
}

/// Where a base is.
#[derive(Debug)]
pub(crate) enum Whereabouts {
    /// All of it is here.
    Here(Base),
    /// None or some of it.
    Coming(Part),
}

impl Part {
    /// Looks for a base, and else takes the right to fetch it. Blocks while another process has that.
    pub(crate) fn begin(cache: &BaseCache, sha256: &str, format: DiskFormat) -> Result<Whereabouts, CacheError> {
        let path = cache.path(sha256)?;
        if let Some(base) = found(&path, format)? {
            return Ok(Whereabouts::Here(base));
        }
        cache.ensure_folder()?;
        let lock = cache.lock(sha256)?;
        if let Some(base) = found(&path, format)? {
            return Ok(Whereabouts::Here(base));
        }
        let mut draft = Draft::go_on(&path)?;
        let mut hash = Sha256::new();
        let hashed = copy::hash_into(draft.file(), &mut hash);
        let size_bytes = hashed.map_err(|e| FileError::new("reading", draft.path(), e))?;
        Ok(Whereabouts::Coming(Self { draft, hash, size_bytes, inherited: size_bytes > 0, _lock: lock }))
    }

    /// How much of it is here.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) const fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Adds what follows. A block of zeros becomes a hole.
    pub(crate) fn add(&mut self, block: &[u8]) -> Result<(), CacheError> {
        self.hash.update(block);
        if block.iter().any(|b| *b != 0) {
            let written = self.draft.file().write_all_at(block, self.size_bytes);
            written.map_err(|e| self.failed("writing", e))?;
        }
        self.size_bytes += block.len() as u64;
        Ok(())
    }

    /// Forgets what is here, to begin again.
    pub(crate) fn start_over(&mut self) -> Result<(), CacheError> {
        self.draft.file().set_len(0).map_err(|e| self.failed("emptying", e))?;
        (self.hash, self.size_bytes, self.inherited) = (Sha256::new(), 0, false);
        Ok(())
    }

    /// Gives the base its name, if it has this hash and is of this format. Else nothing of it stays.
    pub(crate) fn finish(mut self, cache: &BaseCache, sha256: &str, format: DiskFormat) -> Result<Base, CacheError> {
        let got = hex::encode(self.hash.clone().finalize());
        if got != sha256 {
            self.draft.discard();
            return Err(CacheError::Hash { wanted: sha256.to_owned(), got });
        }
        // A hole at the end is only there once the length says so.
        self.draft.file().set_len(self.size_bytes).map_err(|e| self.failed("writing", e))?;
        let virtual_size_bytes = match inspect(self.draft.file(), format) {
            Ok(found) => found.virtual_size_bytes,
            Err(error) => {
                self.draft.discard();
                return Err(error.into());
            }
        };
        self.draft.keep(files::SHARED)?;
        Ok(Base { path: cache.path(sha256)?, format, virtual_size_bytes })
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> CacheError {
        CacheError::File(FileError::new(doing, self.draft.path(), error))
    }
}
