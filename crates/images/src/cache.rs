//! The base images of a compute host: `<instances_path>/_base/<sha256>`, fetched once however many guests launch.
//!
//! The name is the content, so two images with the same bytes are one file, and a file that is there is whole: it got
//! its name after its hash was right. Whoever comes while another fetches waits on a lock that the kernel takes back
//! when its holder dies.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nova_types::image::DiskFormat;
use time::{Duration, OffsetDateTime};

use crate::copy::{CopyError, copy_hashed};
use crate::files::{self, Draft, FileError, PART};
use crate::inspect::{InspectError, inspect};

const LOCK: &str = ".lock";

/// The cache of one host.
#[derive(Clone, Debug)]
pub struct BaseCache {
    folder: PathBuf,
    /// Who is to fetch next in this process, so that no thread waits for what another fetches; by hash.
    turns: Arc<Mutex<HashMap<String, Weak<Turn>>>>,
}

/// The right to fetch one base, in this process. Between processes the lock file decides.
pub(crate) type Turn = tokio::sync::Mutex<()>;

/// An image in the cache. It is never written to again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The file, absolute if the cache's folder is.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Size of the disk in it.
    pub virtual_size_bytes: u64,
}

impl BaseCache {
    /// Keeps base images under `<instances_path>/_base`.
    #[must_use]
    pub fn new(instances_path: &Path) -> Self {
        Self { folder: instances_path.join("_base"), turns: Arc::default() }
    }

    /// Returns the base with this hash; `fetch` opens its source and is only called if it is not here.
    ///
    /// Blocks while another thread or process fetches the same one, and then uses what that got.
    ///
    /// # Errors
    /// [`CacheError::Hash`] when other bytes came than were registered; [`CacheError::Fetch`] when the source
    /// fails. Nothing is kept, and the next call tries again.
    pub fn ensure<F, R>(&self, sha256: &str, format: DiskFormat, fetch: F) -> Result<Base, CacheError>
    where
        F: FnOnce() -> io::Result<R>,
        R: Read,
    {
        let path = self.path(sha256)?;
        if let Some(base) = found(&path, format)? {
            return Ok(base);
        }
        self.ensure_folder()?;
        let _lock = self.lock(sha256)?;
        if let Some(base) = found(&path, format)? {
            return Ok(base);
        }
        let mut draft = Draft::start(&path)?;
        let mut source = fetch().map_err(CacheError::Fetch)?;
        let copied = copy_hashed(&mut source, draft.file(), u64::MAX).map_err(|e| match e {
            CopyError::Reading(e) => CacheError::Fetch(e),
            CopyError::Writing(e) => CacheError::File(FileError::new("writing", draft.path(), e)),
            CopyError::TooLarge => CacheError::Fetch(io::ErrorKind::FileTooLarge.into()),
        })?;
        if copied.sha256 != sha256 {
            return Err(CacheError::Hash { wanted: sha256.to_owned(), got: copied.sha256 });
        }
        let virtual_size_bytes = inspect(draft.file(), format)?.virtual_size_bytes;
        draft.keep(files::SHARED)?;
        Ok(Base { path, format, virtual_size_bytes })
    }

    /// Removes bases that are not in `wanted`, and leftovers of fetches, older than `grace`; returns what went.
    ///
    /// # Errors
    /// When the folder cannot be listed or changed.
    pub fn prune(
        &self,
        wanted: &BTreeSet<String>,
        grace: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<String>, CacheError> {
        let mut removed = Vec::new();
        for name in files::names_in(&self.folder)? {
            // Locks stay: one that went while somebody waited on it would let two in at once.
            let trimmed = name.trim_start_matches('.').trim_end_matches(PART);
            if self.path(trimmed).is_err() || (wanted.contains(trimmed) && !name.ends_with(PART)) {
                continue;
            }
            let path = self.folder.join(&name);
            // Who fetches holds the lock; who removes must not remove that.
            let Some(_lock) = self.try_lock(trimmed)? else { continue };
            let changed = std::fs::symlink_metadata(&path).and_then(|m| m.modified());
            if changed.is_ok_and(|at| OffsetDateTime::from(at) + grace < now) {
                files::remove_file(&path)?;
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// The turn of whoever fetches this one.
    pub(crate) fn turn(&self, sha256: &str) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(sha256).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        turns.insert(sha256.to_owned(), Arc::downgrade(&turn));
        turn
    }

    pub(crate) fn ensure_folder(&self) -> Result<(), FileError> {
        files::ensure_folder(&self.folder, 0o711)
    }

    pub(crate) fn path(&self, sha256: &str) -> Result<PathBuf, CacheError> {
        // The name becomes a path, so it is what it says it is.
        let plain = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if plain { Ok(self.folder.join(sha256)) } else { Err(CacheError::NotAHash(sha256.to_owned())) }
    }

    fn lock_file(&self, sha256: &str) -> Result<(File, PathBuf), FileError> {
        let path = self.folder.join(format!(".{sha256}{LOCK}"));
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        open.map(|f| (f, path.clone())).map_err(|e| FileError::new("opening", &path, e))
    }

    pub(crate) fn lock(&self, sha256: &str) -> Result<File, FileError> {
        let (file, path) = self.lock_file(sha256)?;
        file.lock().map_err(|e| FileError::new("locking", &path, e))?;
        Ok(file)
    }

    fn try_lock(&self, sha256: &str) -> Result<Option<File>, FileError> {
        let (file, path) = self.lock_file(sha256)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(FileError::new("locking", &path, e)),
        }
    }
}

/// Why there is no base.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The hash is not 64 hexadecimal digits.
    #[error("{0:?} is not a SHA-256 hash")]
    NotAHash(String),
    /// The source failed.
    #[error("fetching the image")]
    Fetch(#[source] io::Error),
    /// Other bytes came than were registered.
    #[error("the image came with hash {got}, but {wanted} was registered")]
    Hash {
        /// What was registered.
        wanted: String,
        /// What came.
        got: String,
    },
    /// The image is not of its registered format.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The cache's folder failed.
    #[error(transparent)]
    File(#[from] FileError),
}

pub(crate) fn found(path: &Path, format: DiskFormat) -> Result<Option<Base>, CacheError> {
    match File::open(path) {
        Ok(mut file) => {
            let virtual_size_bytes = inspect(&mut file, format)?.virtual_size_bytes;
            Ok(Some(Base { path: path.to_owned(), format, virtual_size_bytes }))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("opening", path, e).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nova_types::image::DiskFormat;
    use time::{Duration, OffsetDateTime};

    use super::BaseCache;
    use crate::files::names_in;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn many_guests_at_once_fetch_once() {
        let folder = tempfile::tempdir().unwrap();
        let fetched = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..16 {
                s.spawn(|| {
                    let cache = BaseCache::new(folder.path());
                    let base = cache.ensure(HELLO, DiskFormat::Raw, || {
                        fetched.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(30));
                        Ok(&b"hello"[..])
                    });
                    assert_eq!(std::fs::read(base.unwrap().path).unwrap(), b"hello");
                });
            }
        });
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
        assert_eq!(names_in(&folder.path().join("_base")).unwrap(), [format!(".{HELLO}.lock"), HELLO.to_owned()]);
    }

    #[test]
    fn a_failed_fetch_leaves_nothing_and_the_next_one_works() {
        let folder = tempfile::tempdir().unwrap();
        let cache = BaseCache::new(folder.path());
        let refused =
            |bytes: io::Result<&[u8]>| cache.ensure(HELLO, DiskFormat::Raw, || bytes).unwrap_err().to_string();
        assert_eq!(refused(Err(io::Error::other("no route"))), "fetching the image");
        assert!(refused(Ok(b"hellO")).ends_with(&format!("but {HELLO} was registered")));
        assert_eq!(names_in(&folder.path().join("_base")).unwrap(), [format!(".{HELLO}.lock")]);
        std::fs::write(folder.path().join(format!("_base/.{HELLO}.part")), "half").unwrap();
        let base = cache.ensure(HELLO, DiskFormat::Raw, || Ok(&b"hello"[..])).unwrap();
        assert_eq!(base.virtual_size_bytes, 5);
    }

    #[test]
    fn a_hash_cannot_be_a_path() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "../../etc/passwd", &"A".repeat(64), &"a".repeat(63)] {
            let made = BaseCache::new(folder.path()).ensure(bad, DiskFormat::Raw, || Ok(&b"x"[..]));
            assert!(made.is_err(), "{bad}");
        }
    }

    #[test]
    fn unused_bases_and_old_leftovers_go_after_a_grace_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = BaseCache::new(folder.path());
        cache.ensure(HELLO, DiskFormat::Raw, || Ok(&b"hello"[..])).unwrap();
        let other = "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7";
        cache.ensure(other, DiskFormat::Raw, || Ok(&b"world"[..])).unwrap();
        let base = folder.path().join("_base");
        std::fs::write(base.join(format!(".{HELLO}.part")), "half").unwrap();
        std::fs::write(base.join("notes.txt"), "an administrator's").unwrap();

        let wanted = BTreeSet::from([HELLO.to_owned()]);
        let (grace, now) = (Duration::HOUR, OffsetDateTime::from(base.metadata().unwrap().modified().unwrap()));
        assert!(cache.prune(&wanted, grace, now).unwrap().is_empty());
        let gone = cache.prune(&wanted, grace, now + 2 * grace).unwrap();
        assert_eq!(gone, [format!(".{HELLO}.part"), other.to_owned()]);
        assert!(cache.ensure(HELLO, DiskFormat::Raw, || Err::<&[u8], _>(io::Error::other("not asked"))).is_ok());
        assert!(base.join("notes.txt").exists());
    }
}
