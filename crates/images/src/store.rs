//! The image store of the state folder: `<images_path>/<id>/image`, checked, hashed, on the disk or not there.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nova_failpoint::{Point, hit};
use nova_types::ImageId;
use nova_types::image::DiskFormat;

use crate::copy::{CopyError, copy_hashed, hash};
use crate::files::{self, Draft, FileError};
use crate::inspect::{InspectError, inspect};

/// Name of the one file in an image's folder, as Nova's.
const FILE_NAME: &str = "image";

/// Where images are kept.
#[derive(Clone, Debug)]
pub struct ImageStore {
    folder: PathBuf,
    limit_bytes: u64,
}

/// What is known of an image once it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Length of the file.
    pub size_bytes: u64,
    /// Size of the disk that a guest sees.
    pub virtual_size_bytes: u64,
}

impl ImageStore {
    /// Keeps images under `folder` (`--images_path`), which is made when the first comes.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), limit_bytes: u64::MAX }
    }

    /// Refuses images of more than `limit_bytes`.
    #[must_use]
    pub fn with_limit(self, limit_bytes: u64) -> Self {
        Self { limit_bytes, ..self }
    }

    /// Where the image of this id is, or would be.
    #[must_use]
    pub fn path(&self, id: ImageId) -> PathBuf {
        self.folder.join(id.to_string()).join(FILE_NAME)
    }

    /// Copies `source` in, hashing it and inspecting its header; in place of what was there.
    ///
    /// A crash leaves at most a draft, which the next try overwrites and [`remove`](Self::remove) removes.
    ///
    /// # Errors
    /// [`StoreError::Inspect`] when it is not a `declared` image that we take; [`StoreError::TooLarge`];
    /// else when reading or writing fails. In each case nothing is stored.
    pub fn put(&self, id: ImageId, declared: DiskFormat, source: &mut dyn Read) -> Result<StoredImage, StoreError> {
        let path = self.path(id);
        files::ensure_folder(&self.folder, 0o711)?;
        files::ensure_folder(&self.folder.join(id.to_string()), 0o711)?;
        let mut draft = Draft::start(&path)?;
        hit(Point::ImageCopying);
        let stored = self.fill(&mut draft, declared, source);
        if stored.is_err() {
            drop(draft);
            // Only if it is empty: an image that was there before stays.
            let _ = std::fs::remove_dir(self.folder.join(id.to_string()));
            return stored;
        }
        hit(Point::ImageCopied);
        draft.keep(0o640)?;
        hit(Point::ImageKept);
        stored
    }

    /// Holds an image's folder, which is made where there is none, until the answer is dropped or the process ends. None
    /// while another process holds it: then that one is about to store the image.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn hold(&self, id: ImageId) -> Result<Option<File>, FileError> {
        let folder = self.folder.join(id.to_string());
        files::ensure_folder(&self.folder, 0o711)?;
        files::ensure_folder(&folder, 0o711)?;
        let failed = |error| FileError::new("locking", &folder, error);
        let held = File::open(&folder).map_err(failed)?;
        match held.try_lock() {
            Ok(()) => Ok(Some(held)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Opens a stored image for reading.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub fn open(&self, id: ImageId) -> Result<File, FileError> {
        let path = self.path(id);
        File::open(&path).map_err(|e| FileError::new("opening the image", &path, e))
    }

    /// Opens a stored image, if it is here, and tells its length.
    ///
    /// # Errors
    /// When it is there and may not be read.
    pub fn find(&self, id: ImageId) -> Result<Option<(File, u64)>, FileError> {
        let path = self.path(id);
        let failed = |e| FileError::new("opening the image", &path, e);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let meta = file.metadata().map_err(failed)?;
        Ok(meta.is_file().then_some((file, meta.len())))
    }

    /// Reads the whole image again and says whether it still has this hash.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub fn is_intact(&self, id: ImageId, sha256: &str) -> Result<bool, FileError> {
        let path = self.path(id);
        let found = hash(&mut self.open(id)?).map_err(|e| FileError::new("reading", &path, e))?;
        Ok(found == sha256)
    }

    /// Removes the image and its folder; one that is not there is removed already.
    ///
    /// # Errors
    /// When the folder may not be changed.
    pub fn remove(&self, id: ImageId) -> Result<(), FileError> {
        files::remove_folder(&self.folder.join(id.to_string()))
    }

    /// Ids of all that have a folder here, finished or not.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<ImageId>, FileError> {
        let names = files::names_in(&self.folder)?;
        Ok(names.iter().filter_map(|n| n.parse().ok()).collect())
    }

    fn fill(&self, draft: &mut Draft, declared: DiskFormat, source: &mut dyn Read) -> Result<StoredImage, StoreError> {
        let at = draft.path().to_owned();
        let copied = copy_hashed(source, draft.file(), self.limit_bytes).map_err(|e| self.failed(e, &at))?;
        let found = inspect(draft.file(), declared)?;
        Ok(StoredImage {
            sha256: copied.sha256,
            size_bytes: copied.size_bytes,
            virtual_size_bytes: found.virtual_size_bytes,
        })
    }

    fn failed(&self, error: CopyError, at: &Path) -> StoreError {
        match error {
            CopyError::Reading(e) => StoreError::Source(e),
            CopyError::Writing(e) => StoreError::File(FileError::new("writing", at, e)),
            CopyError::TooLarge => StoreError::TooLarge { limit_bytes: self.limit_bytes },
        }
    }
}

/// Why an image was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not an image that we take.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// It has too many bytes.
    #[error("the image has more than {limit_bytes} bytes")]
    TooLarge {
        /// The most that is taken.
        limit_bytes: u64,
    },
    /// Where it comes from failed.
    #[error("reading the image")]
    Source(#[source] io::Error),
    /// Where it goes to failed.
    #[error(transparent)]
    File(#[from] FileError),
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use nova_types::image::DiskFormat;
    use nova_types::{ImageId, ImageKind};

    use super::ImageStore;
    use crate::files::names_in;

    const ID: ImageId = ImageId::new(ImageKind::Machine, 10);

    struct Broken(u8);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("connection reset"))?;
            Ok(buffer.len())
        }
    }

    #[test]
    fn an_image_is_stored_under_its_id_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::new(folder.path().join("images"));
        let stored = store.put(ID, DiskFormat::Raw, &mut &b"hello"[..]).unwrap();
        assert_eq!(stored.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!((stored.size_bytes, stored.virtual_size_bytes), (5, 5));
        assert!(folder.path().join("images/ami-0000000a/image").is_file());
        assert_eq!(store.list().unwrap(), [ID]);
        assert!(store.is_intact(ID, &stored.sha256).unwrap());
        assert_eq!(store.find(ID).unwrap().unwrap().1, 5);
        std::fs::write(store.path(ID), "hellO").unwrap();
        assert!(!store.is_intact(ID, &stored.sha256).unwrap());
        store.remove(ID).unwrap();
        store.remove(ID).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert!(store.open(ID).is_err() && store.find(ID).unwrap().is_none());
    }

    #[test]
    fn what_is_refused_or_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::new(folder.path()).with_limit(1000);
        for (source, message) in [
            (&mut &b"QFI\xfb"[..] as &mut dyn Read, "the image was declared raw but looks like qcow2"),
            (&mut &[][..], "the image is empty"),
            (&mut &[1; 1001][..], "the image has more than 1000 bytes"),
        ] {
            assert_eq!(store.put(ID, DiskFormat::Raw, source).unwrap_err().to_string(), message);
            assert!(names_in(folder.path()).unwrap().is_empty(), "{message}");
        }
        let store = ImageStore::new(folder.path());
        assert_eq!(store.put(ID, DiskFormat::Raw, &mut Broken(2)).unwrap_err().to_string(), "reading the image");
        assert!(names_in(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_refused_replacement_leaves_the_image_that_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::new(folder.path());
        let first = store.put(ID, DiskFormat::Raw, &mut &b"good"[..]).unwrap();
        store.put(ID, DiskFormat::Qcow2, &mut &b"bad"[..]).unwrap_err();
        assert!(store.is_intact(ID, &first.sha256).unwrap());
        assert_eq!(names_in(&folder.path().join("ami-0000000a")).unwrap(), ["image"]);
    }
}
